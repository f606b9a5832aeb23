"""`pip install`, showing that it goes on: each package as its turn comes, and a dot every five seconds of silence."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections import deque

PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--progress-bar", "off"]


def say(text: str) -> None:
    print(text, end="", flush=True)


def told(line: str) -> str:
    """What of a line of pip's is worth showing."""
    if line.startswith("Collecting "):
        return " " + re.split(r"[^\w.-]", line.split()[1])[0]
    if large := re.search(r"Downloading .*\((\d{2,}\.\d [MG]B)\)", line):
        return f" ({large[1]})"
    if line.startswith("Installing collected packages: "):
        return f"\n  unpacking {line.count(',') + 1} packages "
    return ""


def dots(ended: threading.Event) -> None:
    while not ended.wait(5):
        say(".")


def main() -> int:
    began, ended = time.monotonic(), threading.Event()
    last: deque[str] = deque(maxlen=20)  # where it fails, these lines say why
    say("  collecting")
    threading.Thread(target=dots, args=(ended,), daemon=True).start()
    with subprocess.Popen([*PIP, *sys.argv[1:]], stdout=subprocess.PIPE, text=True, encoding="utf-8") as pip:
        for line in pip.stdout or ():
            say(told(line))
            last.append(line)
    ended.set()
    if pip.returncode:
        say("\n" + "".join(last))
    say(f"\n  {'failed' if pip.returncode else 'done'} after {time.monotonic() - began:.0f} s\n")
    return pip.returncode


if __name__ == "__main__":
    sys.exit(main())
