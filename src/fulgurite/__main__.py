"""`python -m fulgurite run script.py …`: a script written for Lightning, run as it is.

`lightning`, `lightning.pytorch` and `pytorch_lightning` resolve to fulgurite in that process. `run -m module …` runs a
module, as `python -m` does: for example `python -m fulgurite run -m pytest tests`.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from fulgurite.compat.spawned import install_alias_everywhere
from fulgurite.core.saving import read_checkpoint, write_checkpoint
from fulgurite.core.sharded import is_sharded

_USAGE = """\
usage: python -m fulgurite run SCRIPT [ARGUMENTS...]
       python -m fulgurite run -m MODULE [ARGUMENTS...]
       python -m fulgurite consolidate FOLDER [FILE]

run: a program written for lightning or pytorch_lightning, on fulgurite and unchanged.
consolidate: make one checkpoint file of a folder of shards; FILE is FOLDER.consolidated where it is not given."""


def main(arguments: list[str]) -> None:
    """Run a script or module under the alias."""
    if arguments[:1] in ([], ["-h"], ["--help"]):
        sys.exit(_USAGE if not arguments else print(_USAGE))
    command, *rest = arguments
    if command == "consolidate":
        _consolidate(rest)
        return
    if command != "run":
        sys.exit(f"python -m fulgurite knows run and consolidate, and was given {command!r}.\n{_USAGE}")
    if not rest or rest == ["-m"]:
        sys.exit(f"run needs a script, or -m and a module.\n{_USAGE}")
    if rest[0] != "-m" and not Path(rest[0]).exists():
        sys.exit(f"there is no script {rest[0]}.")
    install_alias_everywhere()
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


def _consolidate(arguments: list[str]) -> None:
    if len(arguments) not in (1, 2):
        sys.exit(f"consolidate takes a folder, and the file to write.\n{_USAGE}")
    folder = Path(arguments[0])
    file = Path(arguments[1]) if arguments[1:] else folder.with_name(f"{folder.name}.consolidated")
    if not is_sharded(folder):
        sys.exit(f"{folder} is no folder of shards: it lacks meta.pt or .metadata.")
    if file.is_dir():
        sys.exit(f"{file} is a folder. Name the file to write.")
    write_checkpoint(read_checkpoint(folder, "cpu"), file)
    print(f"{file}: {file.stat().st_size} bytes, as one process would have saved it.")


if __name__ == "__main__":
    main(sys.argv[1:])
