"""dkt data: what a file of answers holds, and what in it would flatter a model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import cast

from dkt.commands.shared import FORMATS_HELP, Report, add_format, empty_report, read
from dkt.data.describe import describe

EPILOG = FORMATS_HELP


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("what", choices=["describe"], help="what to do")
    command.add_argument("data", type=Path, help="file of answers")
    command.add_argument("--test", type=Path, metavar="FILE", help="a second part, which should share no student")
    add_format(command)


def run(arguments: argparse.Namespace) -> Report:
    answers = read(arguments.data, arguments.format)
    found = describe(answers, read(arguments.test, arguments.format) if arguments.test else None)
    for name, value in found.items():
        if name != "leaks":
            print(f"{name:<24}{value:,}" if isinstance(value, int) else f"{name:<24}{value}")
    leaks = cast(list[str], found["leaks"])
    print("\n".join(f"leak: {leak}" for leak in leaks) or "no leak found")
    return {**empty_report(), "data": found}
