"""What several commands share: arguments, reading files as they are named, and the shape of a report."""

from __future__ import annotations

import argparse
import contextlib
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from dkt.data import simulate as school
from dkt.data.merge import merge_repeats
from dkt.data.protocols import PROTOCOLS, protocol_named
from dkt.data.read import FORMAT_TEXTS, FORMATS, read_answers
from dkt.data.table import TO_PREDICT, Answers
from dkt.data.twins import without_twins
from dkt.evaluate import Floats, Score, report, score
from dkt.evaluate import Report as EvaluationReport

Report = dict[str, Any]

_FORMATS = "\n".join(
    textwrap.fill(text, 120, initial_indent=f"  {name:<12}", subsequent_indent=" " * 14)
    for name, text in FORMAT_TEXTS.items()
)
FORMATS_HELP = f"""\
files of answers (the format is found from the first lines, or given by --format; --format NAME:COLUMN takes the skills
from another column than usual, for example datashop:"Step Name"):
{_FORMATS}

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
    """The answers of a file, with the truth where it is a simulated school's; says what was left out or merged."""
    name, _, column = (format or "").partition(":")
    answers = read_answers(path, name or None, skills=column or None)
    for note in answers.notes:
        print(f"{path}: {note}")
    truth = school.truth_path(path.absolute())  # `.` has no name
    return school.with_truth(answers, truth) if truth.exists() else answers


def read_parts(paths: Sequence[Path], arguments: argparse.Namespace) -> list[Answers]:
    """The known answers of files used together, in the order train, valid, test, as --merge and --drop-twins ask."""
    parts = [read(path, arguments.format).answered() for path in paths]
    for change in (arguments.merge and _merge_each, arguments.drop_twins and without_twins):
        if change:
            before, parts = parts, list(change(*parts))
            for path, old, new in zip(paths, before, parts, strict=True):
                for note in new.notes[len(old.notes) :]:
                    print(f"{path}: {note}")
    return parts


def _merge_each(*parts: Answers) -> list[Answers]:
    return [merge_repeats(part).answers for part in parts]


def report_rows(answers: Answers, probability: Floats, protocol: str, seed: int = 0) -> EvaluationReport:
    """All figures of predictions over the rows that a protocol scores."""
    return report(answers, probability, protocol_named(protocol), seed)


def figures_of(found: EvaluationReport) -> Report:
    """A report for --json: its score's figures side by side with the intervals and the AUC by history."""
    shown = found.as_dict()
    return {**found.score.as_dict(), **{name: value for name, value in shown.items() if name != "score"}}


def score_rows(answers: Answers, probability: Floats, protocol: str = "akt") -> Score:
    """The figures of predictions over the known answers that a protocol scores."""
    scored = protocol_named(protocol).scored(answers) & (answers.answer != TO_PREDICT)
    fresh = None if answers.leak_free is None else answers.leak_free[scored]
    return score(answers.answer[scored], probability[scored], fresh)


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
    try:
        made = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: the value is not YAML: {' '.join(str(error).split())}") from error
    if isinstance(made, str):
        with contextlib.suppress(ValueError):
            made = float(value)  # YAML 1.1 takes 1e-3 for text
    return name, made


def add_format(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--format",
        type=_format,
        metavar="NAME[:COLUMN]",
        help=f"format of the files, if it should not be found from their first lines: {', '.join(FORMATS)}",
    )


def _format(text: str) -> str:
    if text.partition(":")[0] not in ("", *FORMATS):
        raise argparse.ArgumentTypeError(f"{text!r} is unknown; choose one of {', '.join(FORMATS)}")
    return text


def add_threads(command: argparse.ArgumentParser) -> None:
    command.add_argument("--threads", type=positive, default=1, help="CPU threads; one is fastest for a net this small")


def add_protocol(command: argparse.ArgumentParser) -> None:
    command.add_argument("--protocol", choices=PROTOCOLS, default="akt", help=PROTOCOLS_HELP)


def add_cleaning(command: argparse.ArgumentParser) -> None:
    """What `read_parts` may do to files."""
    command.add_argument("--merge", action="store_true", help="merge rows that repeat a question once per skill")
    command.add_argument(
        "--drop-twins",
        action="store_true",
        help="leave out of training whoever is there once more under another id (dkt data describe counts them)",
    )


def add_seed(command: argparse.ArgumentParser) -> None:
    command.add_argument("--seed", type=int, default=0, help="the same seed gives the same figures")
