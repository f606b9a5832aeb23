"""dkt data: what a file of answers holds and what in it would flatter a model; and other ways to keep it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import cast

import numpy as np

from dkt.commands.shared import FORMATS_HELP, Report, add_format, empty_report, positive, read
from dkt.data.describe import describe
from dkt.data.ednet import EdNet
from dkt.data.frames import write_parquet
from dkt.data.merge import merge_repeats
from dkt.data.parts import Parts
from dkt.data.read import sniff
from dkt.data.store import write_store

EPILOG = f"""\
  dkt data describe train_data.csv --test test_data.csv      counts, and every leak that is found
  dkt data convert skill_builder_data.csv answers.parquet    one row an answer, skills as a list
  dkt data convert EdNet/ ednet/                             a store: arrays that are mapped into memory, not read;
                                                             EdNet is read some thousand students at a time
  dkt data convert EdNet/ sample.parquet --students 5000     so many students, drawn at random
  dkt data convert large.csv large/ --parts 16               a sixteenth of the file in memory at a time

{FORMATS_HELP}"""


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("what", choices=["describe", "convert"], help="what to do")
    command.add_argument("data", type=Path, help="file or folder of answers")
    command.add_argument(
        "output", type=Path, nargs="?", help="of convert: NAME.parquet, or a new folder for a store of mapped arrays"
    )
    command.add_argument("--test", type=Path, metavar="FILE", help="of describe: a second part, to share no student")
    command.add_argument("--merge", action="store_true", help="of convert: merge rows that repeat a question")
    command.add_argument("--students", type=positive, metavar="N", help="of convert: so many students, drawn at random")
    command.add_argument("--seed", type=int, default=0, help="the same seed draws the same students")
    command.add_argument(
        "--parts",
        type=positive,
        metavar="N",
        help="of convert: read the file in N parts, where it is larger than memory",
    )
    add_format(command)


def run(arguments: argparse.Namespace) -> Report:
    if arguments.what == "convert":
        return _convert(arguments)
    if arguments.output:
        raise ValueError(f"describe writes nothing to {arguments.output}; a second part is named with --test FILE.")
    return _describe(arguments)


def _describe(arguments: argparse.Namespace) -> Report:
    answers = read(arguments.data, arguments.format)
    found = describe(answers, read(arguments.test, arguments.format) if arguments.test else None)
    for name, value in found.items():
        if name not in ("leaks", "notes"):
            is_number = isinstance(value, int) and not isinstance(value, bool)
            print(f"{name:<26}{value:,}" if is_number else f"{name:<26}{'-' if value is None else value}")
    leaks = cast(list[str], found["leaks"])
    print("\n".join(f"leak: {leak}" for leak in leaks) or "no leak found")
    return {**empty_report(), "data": found}


def _convert(arguments: argparse.Namespace) -> Report:
    if arguments.output is None:
        raise ValueError("convert needs a second name: NAME.parquet, or a new folder for a store.")
    as_parquet = arguments.output.suffix == ".parquet"
    format = arguments.format or sniff(arguments.data)
    if arguments.parts and (as_parquet or arguments.merge or arguments.students):
        raise ValueError("--parts writes a store of all students: leave out --merge and --students, and name a folder.")
    if arguments.parts or (format == "ednet" and not as_parquet and not arguments.merge):
        source: EdNet | Parts
        if format == "ednet":
            source = EdNet(arguments.data, students=arguments.students, seed=arguments.seed)
        else:
            source = Parts(arguments.data, format, arguments.parts)
        answers = write_store(source, arguments.output, source.notes)
        for note in answers.notes:
            print(f"{arguments.data}: {note}")
    else:
        answers = read(arguments.data, format)
        if arguments.merge:
            merged = merge_repeats(answers)
            print(f"{arguments.data}: {merged}")
            answers = merged.answers
        if arguments.students:
            if arguments.students > answers.n_students:
                raise ValueError(f"--students {arguments.students} is more than the {answers.n_students} there are.")
            rng = np.random.default_rng(arguments.seed)
            answers = answers.students(rng.choice(answers.n_students, arguments.students, replace=False))
        if as_parquet:
            write_parquet(answers, arguments.output)
        else:
            write_store([answers], arguments.output)
    print(f"{arguments.output}: {answers.n_students:,} students, {len(answers):,} answers")
    return {**empty_report(), "students": answers.n_students, "answers": len(answers)}
