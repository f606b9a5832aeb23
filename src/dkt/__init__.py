"""Deep knowledge tracing on fulgurite: will this student answer the next question right?"""

from __future__ import annotations

from importlib.util import find_spec

for _needed in ("numpy", "polars"):
    if find_spec(_needed) is None:
        raise ModuleNotFoundError(f"dkt needs {_needed}: pip install 'fulgurite[dkt]'", name=_needed)
