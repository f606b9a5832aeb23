"""A terminal: what remains to be seen of the text written to it."""

from __future__ import annotations


def visible(text: str) -> list[str]:
    """The lines on the screen that are not blank, after every cursor movement."""
    lines, row, column, i = [""], 0, 0, 0
    while i < len(text):
        if text[i] == "\x1b":
            end = next(k for k in range(i + 2, len(text)) if text[k].isalpha())
            code, i = text[i + 2 : end + 1], end + 1
            if code.endswith("A"):
                row -= int(code[:-1] or 1)
            elif code == "2K":
                lines[row], column = "", 0
            continue
        if text[i] == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif text[i] == "\r":
            column = 0
        else:
            lines[row] = lines[row][:column].ljust(column) + text[i] + lines[row][column + 1 :]
            column += 1
        i += 1
    return [line.rstrip() for line in lines if line.strip()]
