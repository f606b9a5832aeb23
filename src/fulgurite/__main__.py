"""`python -m fulgurite run script.py …`: a script written for Lightning, run as it is.

`lightning`, `lightning.pytorch` and `pytorch_lightning` resolve to fulgurite in that process. `run -m module …` runs a
module, as `python -m` does: for example `python -m fulgurite run -m pytest tests`.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from fulgurite.compat import install_alias

_USAGE = """\
usage: python -m fulgurite run SCRIPT [ARGUMENTS...]
       python -m fulgurite run -m MODULE [ARGUMENTS...]

Runs a program written for lightning or pytorch_lightning on fulgurite, unchanged."""


def main(arguments: list[str]) -> None:
    """Run a script or module under the alias."""
    if arguments[:1] in ([], ["-h"], ["--help"]):
        sys.exit(_USAGE if not arguments else print(_USAGE))
    command, *rest = arguments
    if command != "run":
        sys.exit(f"python -m fulgurite knows one command, run, and was given {command!r}.\n{_USAGE}")
    if not rest or rest == ["-m"]:
        sys.exit(f"run needs a script, or -m and a module.\n{_USAGE}")
    if rest[0] != "-m" and not Path(rest[0]).exists():
        sys.exit(f"there is no script {rest[0]}.")
    install_alias()
    if rest[0] == "-m":
        _, module, *theirs = rest
        sys.argv = [module, *theirs]
        sys.path[0] = str(Path.cwd())
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        return
    script, *theirs = rest
    sys.argv = [script, *theirs]
    sys.path[0] = str(Path(script).resolve().parent)
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
