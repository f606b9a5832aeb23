"""What several commands share: arguments, reading files as they are named, and the shape of a report."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from dkt.data import simulate as school
from dkt.data.merge import merge_repeats
from dkt.data.protocols import PROTOCOLS
from dkt.data.read import FORMATS, read_answers
from dkt.data.table import Answers
from dkt.evaluate import Floats, Score, score

Report = dict[str, Any]

FORMATS_HELP = """\
files of answers (the format is found from the first lines, or given by --format):
  course   CSV with userID,assessmentItemID,testId,answerCode,Timestamp,KnowledgeTag; answerCode is 0, 1, or -1 where it
           is to be predicted; several skills of one question stand in one cell: 12;45
  3line    records of three lines: number of answers (or index,student) / skills / answers
  4line    records of four lines: index,student / problems / skills / answers

leak-free figures leave out the rows that ask the same question as the row before: files that write a problem of two
skills as two rows repeat its answer there, and copying it is no knowledge. They are "-" without question ids.
"""

PROTOCOLS_HELP = "; ".join(f"{name}: {protocol.text}" for name, protocol in PROTOCOLS.items())


def empty_report() -> Report:
    """The keys that every command's --json has."""
    return {
        "test": None,
        "valid": None,
        "epochs": None,
        "train_interactions": None,
        "train_cpu_seconds": None,
        "seed": None,
    }


def read(path: Path, format: str | None) -> Answers:
    """The answers of a file, with the truth where it is a simulated school's."""
    answers = read_answers(path, format)
    truth = school.truth_path(path)
    return school.with_truth(answers, truth) if truth.exists() else answers


def read_merged(path: Path, arguments: argparse.Namespace) -> Answers:
    """The known answers of a file; with --merge, repeats of a question are one row."""
    answers = read(path, arguments.format).answered()
    if not arguments.merge:
        return answers
    merged = merge_repeats(answers)
    print(f"{path}: {merged}")
    return merged.answers


def score_rows(answers: Answers, probability: Floats) -> Score:
    return score(answers.answer, probability, answers.leak_free)


def write_submission(path: Path, probability: Floats) -> None:
    """The course's layout: students in ascending order of id, counted from 0, probabilities in full precision."""
    lines = ["id,prediction", *(f"{i},{p!r}" for i, p in enumerate(np.asarray(probability, dtype=float).tolist()))]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def setting(text: str) -> tuple[str, Any]:
    """`name=value`, the value read as YAML: numbers, true and false, lists, or else text."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, yaml.safe_load(value)


def add_format(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--format", choices=FORMATS, help="format of the files, if it should not be found from their first lines"
    )


def add_threads(command: argparse.ArgumentParser) -> None:
    command.add_argument("--threads", type=positive, default=1, help="CPU threads; one is fastest for a net this small")


def add_protocol(command: argparse.ArgumentParser) -> None:
    command.add_argument("--protocol", choices=PROTOCOLS, default="akt", help=PROTOCOLS_HELP)


def add_merge(command: argparse.ArgumentParser) -> None:
    command.add_argument("--merge", action="store_true", help="merge rows that repeat a question once per skill")


def add_seed(command: argparse.ArgumentParser) -> None:
    command.add_argument("--seed", type=int, default=0, help="the same seed gives the same figures")
