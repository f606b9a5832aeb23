"""Files wherever they are: on this disk, in a bucket, behind a URL."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def get_filesystem(path: str | Path, **kwargs: Any) -> Any:
    """The fsspec file system of a path or URL."""
    from fsspec.core import url_to_fs  # type: ignore[import-untyped]  # it has no stubs

    filesystem, _ = url_to_fs(str(path), **kwargs)
    return filesystem
