"""A course folder's own package, which shadows the installed one."""
