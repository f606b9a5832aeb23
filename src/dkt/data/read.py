"""Read a file of answers, whatever its format."""

from __future__ import annotations

from pathlib import Path

from dkt.data.course import COLUMNS, read_course_csv
from dkt.data.lines import consistent_lines, read_lines
from dkt.data.table import Answers, DataError

FORMATS = ("course", "3line", "4line")


def read_answers(path: str | Path, format: str | None = None) -> Answers:
    """The answers in `path`; `format` ("course", "3line", "4line") is found from its first lines if not given."""
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist.")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a directory; name one file of answers.")
    if format is None:
        format = sniff(path)
    if format == "course":
        return read_course_csv(path)
    if format in ("3line", "4line"):
        return read_lines(path, int(format[0]))
    raise ValueError(f"format={format!r} is unknown; choose one of {', '.join(FORMATS)}.")


def sniff(path: Path, look_at: int = 240) -> str:
    """The format of a file, judged by its first lines."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            lines = [line.strip().rstrip(",") for line, _ in zip(file, range(look_at), strict=False)]
    except UnicodeDecodeError:
        raise DataError(f"{path} is not a text file. {_expected()}") from None
    if not any(lines):
        raise DataError(f"{path} is empty. {_expected()}")
    header = [name.strip().strip('"') for name in lines[0].split(",")]
    if set(header) & set(COLUMNS):
        return "course"
    good = {size: consistent_lines(lines, size) for size in (3, 4)}
    if not any(good.values()):
        raise DataError(f"{path}: the format is not recognised; line 1 is {lines[0][:60]!r}. {_expected()}")
    return "3line" if good[3] > good[4] else "4line"


def _expected() -> str:
    return (
        f"Expected: a CSV with the columns {','.join(COLUMNS)}; or records of 3 lines (count / skills / answers); "
        "or records of 4 lines (index,student / problems / skills / answers)."
    )
