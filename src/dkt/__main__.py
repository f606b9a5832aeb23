"""`python -m dkt` is the command `dkt`."""

from __future__ import annotations

import sys

from dkt.cli import main

if __name__ == "__main__":
    sys.exit(main())
