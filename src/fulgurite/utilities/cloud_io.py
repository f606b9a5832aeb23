"""Files wherever they are: on this disk, in a bucket, behind a URL."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


def local_path(path: str | Path) -> str:
    """A path of this disk as the system takes it: without `~` and `file://`."""
    scheme, separator, rest = os.fspath(path).partition("://")
    if separator and scheme != "file" and scheme.isalnum():
        raise ValueError(
            f"{os.fspath(path)!r} is no path of this disk, and files elsewhere are not supported. Name a local folder "
            "and copy what is in it, or write checkpoints with a CheckpointIO of your own: Trainer(plugins=[...])."
        )
    plain = rest if separator and scheme == "file" else os.fspath(path)
    return os.path.expanduser(plain)  # noqa: PTH111  # pathlib rewrites "./a/", and refuses a folder called "~a"


def get_filesystem(path: str | Path, **kwargs: Any) -> Any:
    """The fsspec file system of a path or URL."""
    from fsspec.core import url_to_fs  # type: ignore[import-untyped]  # it has no stubs

    filesystem, _ = url_to_fs(str(path), **kwargs)
    return filesystem
