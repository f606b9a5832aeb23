"""dkt predict: the answers that are to be predicted, as a submission."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from dkt.commands.shared import FORMATS_HELP, Report, add_format, add_threads, empty_report, read, write_submission
from dkt.models.catalogue import load_model

EPILOG = FORMATS_HELP


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("checkpoint", type=Path, help="what dkt train or model.save wrote")
    command.add_argument("data", type=Path, help="file of answers, with one row of answerCode -1 for each student")
    command.add_argument(
        "-o", "--output", type=Path, default=Path("submission.csv"), help="CSV with the header id,prediction"
    )
    add_format(command)
    add_threads(command)


def run(arguments: argparse.Namespace) -> Report:
    torch.set_num_threads(arguments.threads)
    model = load_model(arguments.checkpoint)
    answers = read(arguments.data, arguments.format)
    probability = model.predict_asked(answers)
    write_submission(arguments.output, probability)
    print(f"{arguments.output}: {len(probability):,} predictions, one a student in ascending order of id")
    return {**empty_report(), "predictions": len(probability), "output": str(arguments.output)}
