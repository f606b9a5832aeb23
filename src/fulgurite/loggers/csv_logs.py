"""Logs as files that anything can read: metrics.csv and hparams.yaml."""

from __future__ import annotations

import argparse
import csv
import io
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from fulgurite.core.saving import save_hparams_to_yaml
from fulgurite.loggers.folder import FolderLogger
from fulgurite.loggers.logger import as_dict, plain, rank_zero_experiment, with_prefix
from fulgurite.utilities.cloud_io import is_remote, path_of, written_whole
from fulgurite.utilities.rank_zero import rank_zero_only, rank_zero_warn, warn_once

Row = dict[str, Any]
_FREE = 1 << 20  # bytes that a file may take to be rewritten before anything has been saved up for it


class ExperimentWriter:
    """Writes the rows of one run, each as soon as it is logged.

    Columns are sorted. A new one changes the header, and the file is then written anew, by renaming a complete one over
    it. Where new ones come so often that this would cost more than the rows, they stand at the end of the header for a
    while, which then has room to grow: empty lines, which readers of CSV skip. A process killed at any moment leaves a
    readable file that holds every row.
    """

    NAME_METRICS_FILE = "metrics.csv"
    NAME_HPARAMS_FILE = "hparams.yaml"

    def __init__(self, log_dir: str | Path) -> None:
        folder = path_of(log_dir)
        self.log_dir = str(folder)
        self.hparams: dict[str, Any] = {}
        self.metrics: list[Row] = []  # logged since the last save
        self.metrics_keys: list[str] = []
        self.metrics_file_path = str(folder / self.NAME_METRICS_FILE)
        self._logged_before: set[tuple[tuple[str, str], ...]] = set()  # rows that a resumed run will log once more
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (_Elsewhere if is_remote(log_dir) else _OnDisk)(folder / self.NAME_METRICS_FILE)
        self._look()
        self._credit = _FREE + self._size  # bytes that may be written to bring columns into order

    def log_hparams(self, params: dict[str, Any]) -> None:
        """Take hyper-parameters, and write them."""
        self.hparams.update(params)
        save_hparams_to_yaml(path_of(self.log_dir) / self.NAME_HPARAMS_FILE, self.hparams)

    def log_metrics(self, metrics_dict: Mapping[str, Any], step: int | None = None) -> None:
        """Write a row."""
        row = {name: plain(name, value) for name, value in metrics_dict.items()}
        if step is None:
            step = row.get("step", len(self.metrics))
        elif row.get("step", step) != step:
            warn_once(
                f"CSVLogger: the metric 'step', {row['step']}, gives way to the row's own step, {step}.", key="csv"
            )
        row["step"] = step
        if self._logged_before and _content(row) in self._logged_before:
            return
        self.metrics.append(row)
        if self._file.size() != self._size:  # another writer of this file
            self._look()
        if new := row.keys() - self._known:
            self._add_columns(sorted(new))
        line = _as_csv([row], self.metrics_keys)
        self._file.append(line)
        self._size += len(line)
        self._credit += len(line)

    def save(self) -> None:
        """What was logged is on disk already; its columns are brought into order where that costs little."""
        self.metrics = []
        if not self._in_order and self._size <= self._credit:
            self._write_anew(self._read(), self.metrics_keys)

    def finish(self) -> None:
        """Bring the columns into order, whatever it costs."""
        self.metrics = []
        if not self._in_order:
            self._write_anew(self._read(), self.metrics_keys)
        self._file.send()

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

    def _look(self) -> None:
        """What is in the file, without half a row at its end, of a machine that lost power: none may continue it."""
        content = self._file.read()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            self._file.truncate(len(whole))
        self._size = len(whole)
        self._set_keys(next(csv.reader(_as_lines(whole)), []), room=0)
        self._in_order &= b"\r\n\n" not in whole

    def _set_keys(self, keys: list[str], room: int) -> None:
        self.metrics_keys, self._known = keys, set(keys)
        self._header_size = len(_as_csv([dict(zip(keys, keys, strict=True))], keys)) - 2
        self._room = room  # empty lines after the header
        self._in_order = keys == sorted(keys) and not room

    def _add_columns(self, new: list[str]) -> None:
        keys = [*self.metrics_keys, *new]
        addition = b"," + _as_csv([dict(zip(new, new, strict=True))], new)
        if self._size <= self._credit:
            self._write_anew(self._read(), keys)
        elif len(addition) <= self._room:
            self._file.overwrite(self._header_size, addition)
            self._set_keys(keys, self._room - len(addition) + 2)
        else:
            self._write_anew(self._read(), keys, room=self._header_size + 2 * len(addition))

    def _read(self) -> list[Row]:
        rows = list(csv.DictReader(_as_lines(self._file.read())))
        if any(None in row for row in rows):
            raise ValueError(
                f"{self.metrics_file_path} has rows of more cells than its header, so what they hold has no name. Mend "
                "or move it, or give CSVLogger another version."
            )
        return rows

    def _write_anew(self, rows: list[Row], keys: Iterable[str], room: int = 0) -> None:
        keys = sorted(keys)
        header = _as_csv([dict(zip(keys, keys, strict=True))], keys)
        content = header + b"\n" * room + _as_csv(rows, keys)
        self._file.write_anew(content)
        self._size = len(content)
        self._credit -= len(content)
        self._set_keys(keys, room)


class _OnDisk:
    """The file, on this disk."""

    def __init__(self, path: Any) -> None:
        self._path = path

    def size(self) -> int:
        try:
            return int(self._path.stat().st_size)
        except FileNotFoundError:
            return 0

    def read(self) -> bytes:
        return bytes(self._path.read_bytes()) if self._path.is_file() else b""

    def append(self, line: bytes) -> None:
        try:
            with self._path.open("ab") as file:
                file.write(line)
        except OSError as error:  # a full disk
            raise OSError(error.errno, f"a row could not be logged: {error.strerror}", str(self._path)) from error

    def overwrite(self, at: int, part: bytes) -> None:
        with self._path.open("rb+") as file:
            file.seek(at)
            file.write(part)

    def truncate(self, size: int) -> None:
        with self._path.open("rb+") as file:
            file.truncate(size)

    def write_anew(self, content: bytes) -> None:
        with written_whole(self._path) as file:
            file.write(content)

    def send(self) -> None: ...


class _Elsewhere:
    """The file, where nothing can be appended, as in a bucket: kept here, and sent whole at growing distances."""

    def __init__(self, path: Any) -> None:
        self._path = path
        self._content = bytearray(path.read_bytes() if path.is_file() else b"")
        self._credit, self._sent, self._at = _FREE, len(self._content), time.monotonic()

    def size(self) -> int:
        return len(self._content)

    def read(self) -> bytes:
        return bytes(self._content)

    def append(self, line: bytes) -> None:
        self._content += line
        self._credit += 4 * len(line)
        if self._credit >= len(self._content) or time.monotonic() > self._at + 60:
            self.send()

    def overwrite(self, at: int, part: bytes) -> None:
        self._content[at : at + len(part)] = part

    def truncate(self, size: int) -> None:
        del self._content[size:]

    def write_anew(self, content: bytes) -> None:
        self._content = bytearray(content)

    def send(self) -> None:
        with written_whole(self._path) as file:
            file.write(bytes(self._content))
        self._credit, self._at = self._credit - len(self._content), time.monotonic()


def _as_lines(content: bytes) -> io.StringIO:
    return io.StringIO(content.decode(errors="surrogateescape"), newline="")


def _as_csv(rows: list[Row], keys: list[str]) -> bytes:
    text = io.StringIO(newline="")
    csv.DictWriter(text, fieldnames=keys).writerows(rows)
    return text.getvalue().encode(errors="surrogateescape")


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
        super().__init__(save_dir, name, version, prefix)
        self._flush_logs_every_n_steps = flush_logs_every_n_steps
        self._experiment: ExperimentWriter | None = None
        # whether there are rows of another run, and nobody said that this one continues it; None: not known yet
        self._adds_unasked: bool | None = None

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        """The writer behind it; made, with its folder, when first asked for."""
        if self._experiment is None:
            self.take_version()
            self._experiment = ExperimentWriter(self.log_dir)
            if self._adds_unasked is None:
                self._adds_unasked = bool(self._experiment.metrics_keys)
        return self._experiment

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_experiment": None}

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Tensor | float], step: int | None = None) -> None:
        writer: Any = self.experiment  # made now, so that what it finds is known
        if self._adds_unasked:
            self._adds_unasked = False
            rank_zero_warn(
                f"{writer.metrics_file_path} exists: rows are added to it. "
                "Give CSVLogger another version, or none, to start a new file."
            )
        writer.log_metrics(with_prefix(metrics, self._prefix, self.LOGGER_JOIN_CHAR), step)
        done = len(writer.metrics) if step is None else step + 1
        if done % self._flush_logs_every_n_steps == 0:
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
            self._experiment.finish()
            if self._hparams_are_ours and not self._experiment.hparams:  # it said that the folder is taken
                (path_of(self.log_dir) / self.NAME_HPARAMS_FILE).unlink(missing_ok=True)

    @rank_zero_only
    def resume_from_step(self, step: int) -> None:
        self.experiment.resume_from_step(step)
        self._adds_unasked = False
