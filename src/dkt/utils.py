"""The course's `dkt.utils`, seeds and the log; and how dkt writes CSV."""

from __future__ import annotations

import csv
import logging
import logging.config
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import fulgurite as pl

logging_conf: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"basic": {"format": "%(asctime)s - %(name)s - %(levelname)s - %(message)s"}},
    "handlers": {
        "console": {"class": "logging.StreamHandler", "formatter": "basic", "stream": "ext://sys.stdout"},
        "file_handler": {"class": "logging.FileHandler", "formatter": "basic", "filename": "run.log", "delay": True},
    },
    "loggers": {"dkt": {"level": "INFO", "handlers": ["console", "file_handler"]}},
}


def set_seeds(seed: int = 42) -> None:
    """The same random draws in each run."""
    pl.seed_everything(seed, verbose=False)


setSeeds = set_seeds  # its name in the edition of 2021


def get_logger(logger_conf: dict[str, Any]) -> logging.Logger:
    """The log of the course's program: on the screen and in run.log; other libraries' messages are left to them."""
    logging.config.dictConfig(logger_conf)
    return logging.getLogger("dkt")


def write_rows(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file; ids that hold commas or quotes are quoted."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
