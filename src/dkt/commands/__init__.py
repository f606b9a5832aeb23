"""The commands of `dkt`, a file each: `add_arguments(parser)`, `run(arguments)`, and what the help says below them."""
