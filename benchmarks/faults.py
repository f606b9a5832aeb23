"""What happens to a run of several processes when one of them fails: seconds to the end, what is printed, what is left.

    python benchmarks/faults.py                 # five cases
    python benchmarks/faults.py --all --write   # all of them, ten under Lightning too, into docs/processes.md

The program and its cases are those of the tests: tests/helpers/faults.py.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "src")]

from helpers.faults import CASES, Case, run_case  # noqa: E402
from helpers.programs import Ended  # noqa: E402

FEW = ("training, rank 1", "killed, rank 1", "signal, SIGKILL", "asleep", "shapes")
UNDER_LIGHTNING = (
    "training, rank 1",
    "training, rank 0",
    "killed, rank 1",
    "killed, rank 0",
    "signal, Ctrl-C",
    "signal, SIGTERM",
    "asleep",
    "skipped collective",
    "shapes",
    "log keys",
)
DEADLINE = 40  # seconds after which a run is not waited for
BEGIN, END = "<!-- faults: written by benchmarks/faults.py -->", "<!-- end of faults -->"
WORDS = {
    "training, rank 1": "an exception in training, on rank 1",
    "training, rank 0": "an exception in training, on rank 0",
    "training, all ranks": "the same exception in training, on all ranks",
    "training, rank 1, rank 0 asleep": "an exception on rank 1 while rank 0 sleeps in `training_step`",
    "validation": "an exception in validation, on rank 1",
    "setup": "an exception in `setup`, on rank 1",
    "before fit": "an exception before `fit`, on rank 1",
    "after fit": "an exception after `fit`, on rank 1",
    "exit": "`sys.exit(3)` in training, on rank 1",
    "worker raises": "an exception in a data worker of rank 1",
    "worker killed": "SIGKILL of a data worker of rank 1",
    "killed, rank 1": "SIGKILL of rank 1",
    "killed, rank 0": "SIGKILL of rank 0",
    "abort": "`abort()` in native code, on rank 1",
    "signal, SIGKILL": "SIGKILL of the process that was started",
    "signal, Ctrl-C": "Ctrl-C",
    "signal, Ctrl-C in a terminal, with data workers": "Ctrl-C that reaches the data workers too",
    "signal, a rank asleep": "Ctrl-C twice while rank 1 sleeps",
    "signal, SIGTERM": "SIGTERM",
    "asleep": "rank 1 sleeps for ever (timeout 5 s)",
    "stopped": "rank 1 is stopped, SIGSTOP (timeout 5 s)",
    "skipped collective": "rank 0 makes a collective call that rank 1 does not (timeout 5 s)",
    "shapes": "`all_reduce` of different shapes",
    "log keys": "`self.log` of different names",
    "unused parameters": "parameters that the loss does not use",
    "memory": "out of memory on rank 1",
    "disk full": "the disk is full while a checkpoint is written",
}


def measured(case: Case, framework: str) -> Ended | None:
    """How it ended; None where it had not ended by the deadline."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            return run_case(case, Path(folder), framework, deadline=DEADLINE + 30)
        except AssertionError:
            return None


def cells(case: Case, ended: Ended | None) -> list[str]:
    if ended is None or ended.after is None or ended.after > DEADLINE:
        return [f"not over after {DEADLINE} s", "", "", "", ""]
    left = f"{len(ended.left)} process{'es' * (len(ended.left) != 1)}" if ended.left else "nothing"
    return [f"{ended.others:.1f} s", f"{ended.after:.1f} s", str(ended.code), line_of(case, ended), left]


def line_of(case: Case, ended: Ended) -> str:
    """The printed line that says most."""
    lines = [re.sub(r"^(\[rank\d\]: )", "", line).strip() for line in ended.err.splitlines() if line.strip()]
    for pattern in case.says[:1]:
        lines = [line for line in lines if re.search(pattern, line)] or lines
    shown = lines[-1] if lines else ""
    shown = re.sub(r"/\S*/", "", shown).replace("|", "\\|").replace("`", "'")
    return f"`{shown[:120]}{'…' * (len(shown) > 120)}`" if shown.strip("-") else ""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--all", action="store_true", help="every case, and ten under Lightning")
    parser.add_argument("--write", action="store_true", help="put the table into docs/processes.md")
    asked = parser.parse_args()
    chosen = [case for case in CASES if asked.all or (case.name in FEW and case.strategy == "ddp" and case.ranks == 2)]
    rows, seconds = [], {}
    for case in chosen:
        ended = measured(case, "fulgurite")
        row = [WORDS[case.name], f"`{case.strategy}`", str(case.ranks), *cells(case, ended)]
        if ended is not None and ended.others is not None:
            seconds[case.title] = round(ended.others, 1)
        theirs = ["not run", "", ""]
        if asked.all and case.name in UNDER_LIGHTNING and case.strategy == "ddp" and case.ranks == 2:
            first, after, code, said, left = cells(case, measured(case, "lightning"))
            theirs = [f"{after}, code {code}" if after else first, said, left]
        rows.append([*row, *theirs])
        print(time.strftime("%H:%M:%S"), rows[-1], file=sys.stderr, flush=True)
    if asked.write:
        write(rows)
    print(json.dumps({"benchmark": "faults", "cases": len(chosen), "slowest_s": max(seconds.values()), "s": seconds}))


def write(rows: list[list[str]]) -> None:
    head = [
        "what happens",
        "strategy",
        "ranks",
        "other ranks gone after",
        "all over after",
        "exit code",
        "what is printed",
        "left behind",
    ]
    head += ["Lightning 2.6.6", "it prints", "it leaves"]
    table = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]
    page = ROOT / "docs" / "processes.md"
    text = page.read_text()
    before, after = text.index(BEGIN) + len(BEGIN), text.index(END)
    page.write_text(text[:before] + "\n" + "\n".join(table) + "\n" + text[after:])


if __name__ == "__main__":
    main()
