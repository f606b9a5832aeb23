"""Logs as files that anything can read: metrics.csv and hparams.yaml."""

from __future__ import annotations

import argparse
import csv
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from fulgurite.core.saving import save_hparams_to_yaml
from fulgurite.loggers.folder import FolderLogger
from fulgurite.loggers.logger import as_dict, rank_zero_experiment, with_prefix
from fulgurite.utilities.rank_zero import rank_zero_only, rank_zero_warn

Row = dict[str, Any]


class ExperimentWriter:
    """Writes the rows of one run; columns are sorted, and the file is rewritten when a new one appears.

    Rows go to disk whole: in one write at the end of the file, or by renaming a complete new file over it. A process
    killed at any moment leaves a readable file that holds every row saved before.
    """

    NAME_METRICS_FILE = "metrics.csv"
    NAME_HPARAMS_FILE = "hparams.yaml"

    def __init__(self, log_dir: str | Path) -> None:
        self.log_dir = str(log_dir)
        self.hparams: dict[str, Any] = {}
        self.metrics: list[Row] = []  # not yet on disk
        self.metrics_keys: list[str] = []
        self.metrics_file_path = str(Path(self.log_dir, self.NAME_METRICS_FILE))
        self._file = Path(self.metrics_file_path)
        self._logged_before: set[tuple[tuple[str, str], ...]] = set()  # rows that a resumed run will log once more
        Path(self.log_dir).mkdir(parents=True, exist_ok=True)
        self._hparams_on_disk = True
        if self._exists():
            self._drop_torn_line()
            with self._file.open(newline="") as file:
                self.metrics_keys = next(csv.reader(file), [])

    def log_hparams(self, params: dict[str, Any]) -> None:
        """Take hyper-parameters; `save` writes them."""
        self.hparams.update(params)
        self._hparams_on_disk = False

    def log_metrics(self, metrics_dict: Mapping[str, Any], step: int | None = None) -> None:
        """Take a row; `save` writes it."""
        if step is None:
            step = len(self.metrics)
        row = {k: v.item() if isinstance(v, Tensor) else v for k, v in metrics_dict.items()} | {"step": step}
        if self._logged_before and _content(row) in self._logged_before:
            return
        self.metrics.append(row)

    def save(self) -> None:
        """Bring all rows and hyper-parameters taken so far to disk."""
        if not self._hparams_on_disk:
            save_hparams_to_yaml(Path(self.log_dir, self.NAME_HPARAMS_FILE), self.hparams)
            self._hparams_on_disk = True
        if not self.metrics:
            return
        known = set(self.metrics_keys)
        if new := {key for row in self.metrics for key in row} - known:
            self._write_anew([*self._read(), *self.metrics], known | new)
        else:
            with self._file.open("a", newline="") as file:
                file.write(_as_csv(self.metrics, self.metrics_keys))
        self.metrics = []

    def resume_from_step(self, step: int) -> None:
        """Drop the rows of steps beyond `step` (a count): the resumed run logs them again.

        It also logs again those rows of its last step that were written after the checkpoint (that step's validation),
        with equal values: such a row is not written twice.
        """
        rows = self._read()
        steps = [row.get("step") or "" for row in rows]  # another program's file may lack them
        kept = [row for row, at in zip(rows, steps, strict=True) if not at.isdigit() or int(at) < step]
        self._logged_before = {_content(row) for row in kept if row.get("step") == str(step - 1)}
        if len(kept) < len(rows):
            self._write_anew(kept, self.metrics_keys)

    def _exists(self) -> bool:
        return self._file.is_file()

    def _drop_torn_line(self) -> None:
        """A machine that lost power in mid-write leaves half a row; a new one must not continue it."""
        with self._file.open("rb+") as file:
            file.truncate(file.read().rfind(b"\n") + 1)

    def _read(self) -> list[Row]:
        if not self._exists():
            return []
        with self._file.open(newline="") as file:
            return list(csv.DictReader(file))

    def _write_anew(self, rows: list[Row], keys: Iterable[str]) -> None:
        self.metrics_keys = sorted(keys)
        unfinished = Path(f"{self._file}.tmp")
        with unfinished.open("w", newline="") as file:
            header = dict(zip(self.metrics_keys, self.metrics_keys, strict=True))
            file.write(_as_csv([header, *rows], self.metrics_keys))
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(self._file)


def _as_csv(rows: list[Row], keys: list[str]) -> str:
    text = io.StringIO(newline="")
    csv.DictWriter(text, fieldnames=keys).writerows(rows)
    return text.getvalue()


def _content(row: Row) -> tuple[tuple[str, str], ...]:
    """What stands in the file for a row, whatever columns were added to it later."""
    return tuple(sorted((k, str(v)) for k, v in row.items() if v not in ("", None)))


class CSVLogger(FolderLogger):
    """Write `<save_dir>/<name>/version_<n>/metrics.csv`, one row for each time something is logged.

    Example::

        trainer = Trainer(logger=CSVLogger("logs", name="dkt"))

    With a `version` that exists already, rows are added to its file; a run resumed from a checkpoint continues it.
    """

    def __init__(
        self,
        save_dir: str | Path,
        name: str | None = "lightning_logs",
        version: int | str | None = None,
        prefix: str = "",
        flush_logs_every_n_steps: int = 100,
    ) -> None:
        super().__init__(os.fspath(save_dir), name, version, prefix)
        self._flush_logs_every_n_steps = flush_logs_every_n_steps
        self._experiment: ExperimentWriter | None = None
        self._adds_unasked = False  # there are rows of another run, and nobody said that this one continues it

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        """The writer behind it; made, with its folder, when first asked for."""
        if self._experiment is None:
            self._experiment = ExperimentWriter(self.log_dir)
            self._adds_unasked = bool(self._experiment.metrics_keys)
        return self._experiment

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Tensor | float], step: int | None = None) -> None:
        self.experiment  # noqa: B018  # made now, so that what it finds is known
        if self._adds_unasked:
            self._adds_unasked = False
            rank_zero_warn(
                f"{self.experiment.metrics_file_path} exists: rows are added to it. "
                "Give CSVLogger another version, or none, to start a new file."
            )
        self.experiment.log_metrics(with_prefix(metrics, self._prefix, self.LOGGER_JOIN_CHAR), step)
        if step is not None and (step + 1) % self._flush_logs_every_n_steps == 0:
            self.save()

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | argparse.Namespace | None = None) -> None:
        self.experiment.log_hparams(as_dict(params))

    @rank_zero_only
    def save(self) -> None:
        self.experiment.save()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if self._experiment is not None:  # nothing was logged: leave no empty folder behind
            self.save()

    @rank_zero_only
    def resume_from_step(self, step: int) -> None:
        self.experiment.resume_from_step(step)
        self._adds_unasked = False
