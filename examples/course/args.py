from __future__ import annotations

from dkt.args import parse_args

__all__ = ["parse_args"]
