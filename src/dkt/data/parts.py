"""Data larger than memory, a part of its students at a time: what `write_store` takes.

A delimited file may have a student's rows anywhere, so its rows are first dealt to temporary files by student; a folder
of Parquet files must have each student in one of them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dkt.data.columns import Layout, Lines, NoAnswers, answers_of, check_fields, csv_options, torn, wanted_columns
from dkt.data.frames import read_parquet
from dkt.data.layouts import LAYOUTS
from dkt.data.table import Answers

if TYPE_CHECKING:
    import polars as pl

ROWS_AT_ONCE = 200_000
LINE = "row_of_the_file"


@dataclass
class Parts:
    """A file in `number` parts, or the Parquet files of a folder, read while it is iterated over."""

    path: Path
    format: str
    number: int
    _notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.format != "parquet" and self.format not in LAYOUTS:
            known = ", ".join(("ednet", "parquet", *LAYOUTS))
            raise ValueError(f"{self.path} of format {self.format} cannot be read in parts; these can: {known}.")

    def notes(self) -> tuple[str, ...]:
        """What was left out of or merged in the parts read so far."""
        return tuple(self._notes)

    def __iter__(self) -> Iterator[Answers]:
        self._notes.clear()
        tables = self._files() if self.format == "parquet" else self._dealt(LAYOUTS[self.format])
        for part, answers in enumerate(tables, start=1):
            self._notes += [f"part {part}: {note}" for note in answers.notes]
            yield answers

    def _files(self) -> Iterator[Answers]:
        files = sorted(self.path.glob("*.parquet")) if self.path.is_dir() else [self.path]
        return map(read_parquet, files)

    def _dealt(self, layout: Layout) -> Iterator[Answers]:
        import polars as pl

        with tempfile.TemporaryDirectory() as folder:
            self._deal(layout, Path(folder))
            for part in range(self.number):
                pieces = sorted(Path(folder).glob(f"{part}.*"), key=lambda piece: int(piece.suffix[1:]))
                if pieces:
                    frame = pl.concat([pl.read_ipc(piece) for piece in pieces])
                    lines = frame[LINE]
                    where = Lines(self.path, layout.delimiter)
                    try:
                        yield answers_of(frame.drop(LINE), layout, lambda row: where(int(lines[row])))  # noqa: B023
                    except NoAnswers as empty:
                        self._notes.append(f"part {part + 1}: {empty}")

    def _deal(self, layout: Layout, folder: Path) -> None:
        """Write the rows to a file a part and batch, by the student's hash."""
        import polars as pl

        wanted = wanted_columns(self.path, layout)
        scan = pl.scan_csv(self.path, **csv_options(layout))
        empty_line: int | None = None
        try:
            check_fields(self.path, layout)
            names = scan.collect_schema().names()
            for i, batch in enumerate(_batches(scan.with_row_index(LINE))):
                blank = batch.select(pl.all_horizontal(pl.exclude(LINE).is_null())).to_series()
                full = batch.filter(~blank)[LINE]
                if empty_line is not None and len(full):
                    Lines(self.path, layout.delimiter)(empty_line)  # raises: it has no fields
                if blank.any():
                    empty_line = int(batch.filter(blank)[LINE][0])
                    if len(full) and full[-1] > empty_line:
                        Lines(self.path, layout.delimiter)(empty_line)
                kept = batch.filter(~blank).select(LINE, *(names[position] for position in wanted))
                part = kept[layout.student].hash(0) % self.number
                for number, piece in kept.with_columns(part=part).partition_by("part", as_dict=True).items():
                    piece.drop("part").write_ipc(folder / f"{number[0]}.{i}")
        except pl.exceptions.PolarsError as error:
            raise torn(self.path, layout.delimiter, error) from error


def _batches(scan: pl.LazyFrame) -> Iterator[Any]:
    return iter(scan.collect_batches(chunk_size=ROWS_AT_ONCE, maintain_order=True))
