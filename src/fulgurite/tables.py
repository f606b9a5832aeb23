"""Small tables for the terminal, as plain text."""

from __future__ import annotations

from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell; the first aligned left, the rest right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
        return "  ".join(cells).rstrip()

    return "\n".join([line(header), "  ".join("-" * w for w in widths), *map(line, rows)])


def results_table(outputs: Sequence[dict[str, float]], stage: str) -> str:
    """What validate() and test() print: a row for each metric, a column for each loader."""
    names = list(dict.fromkeys(name.split("/dataloader_idx_")[0] for output in outputs for name in output))
    suffixes = [f"/dataloader_idx_{k}" if len(outputs) > 1 else "" for k in range(len(outputs))]
    header = [f"{stage} metric", *(f"loader {k}" if len(outputs) > 1 else "value" for k in range(len(outputs)))]
    rows = []
    for name in names:
        values = [o.get(f"{name}{s}", o.get(name)) for o, s in zip(outputs, suffixes, strict=True)]
        rows.append([name, *("" if value is None else f"{value:.6g}" for value in values)])
    return table(header, rows)
