"""dkt evaluate: a trained model on a file of answers."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from dkt.calibration import draw
from dkt.commands.shared import (
    FORMATS_HELP,
    Report,
    add_format,
    add_threads,
    empty_report,
    figures_of,
    read,
    report_rows,
)
from dkt.data.protocols import protocol_named
from dkt.data.table import DataError
from dkt.models.catalogue import load_model

EPILOG = FORMATS_HELP


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("checkpoint", type=Path, help="what dkt train or model.save wrote")
    command.add_argument("data", type=Path, help="file of answers; rows with answerCode -1 are left out")
    command.add_argument("--plot", type=Path, metavar="FILE", help="also draw predicted against true shares")
    add_format(command)
    add_threads(command)


def run(arguments: argparse.Namespace) -> Report:
    torch.set_num_threads(arguments.threads)
    model = load_model(arguments.checkpoint)
    answers = read(arguments.data, arguments.format).answered()
    if not len(answers):
        raise DataError(f"{arguments.data} has no known answers to compare predictions with; use `dkt predict`.")
    if not protocol_named(model.protocol).scored(answers).any():
        raise DataError(f"{arguments.data} has no row that the model's protocol, {model.protocol}, scores.")
    probability = model.predict(answers)
    figures = report_rows(answers, probability, model.protocol)
    print(f"{arguments.data}: {answers.n_students:,} students, {model.title}, protocol {model.protocol}\n{figures}")
    if arguments.plot:
        scored = protocol_named(model.protocol).scored(answers)
        arguments.plot.parent.mkdir(parents=True, exist_ok=True)
        right, title = answers.answer[scored].astype(bool), f"{model.title}, {arguments.data.name}"
        draw(right, probability[scored], title, arguments.plot)
        print(f"calibration: {arguments.plot}")
    return {**empty_report(), "test": figures_of(figures)}
