"""Files wherever they are: on this disk by pathlib, in a bucket or behind another URL by fsspec; written whole."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

_URL = re.compile(r"([A-Za-z][\w+.:-]+):(//?)")  # two letters at least: "C:/" is a drive
_OF_THIS_DISK = ("file", "local")
_DAY = 24 * 3600
_TEMPORARY = re.compile(
    r"\.fulgurite-(?P<host>.+)-(?P<pid>\d+)-(?P<started>\d+)-[0-9a-f]{8}\.tmp(\.(?P<aside>.+))?", re.DOTALL
)


# where
def _split(path: str | Path) -> tuple[str, str]:
    """The scheme, "" for a path of this disk, and what follows; pathlib makes "memory:/a" of "memory://a"."""
    text = os.fspath(path)
    found = _URL.match(text)
    if found is None or (found[2] == "/" and not _is_known(found[1])):
        return "", text
    rest = text[found.end() :]
    if found[1] not in _OF_THIS_DISK:
        return found[1], rest
    rest = rest if found[2] == "//" else f"/{rest}"
    return "", rest[1:] if os.name == "nt" and re.match(r"/[A-Za-z]:", rest) else rest


def _is_known(scheme: str) -> bool:
    from fsspec import available_protocols  # type: ignore[import-untyped]  # it has no stubs

    return scheme.rpartition("::")[2] in available_protocols()


def is_remote(path: object) -> bool:
    """Whether a path is for fsspec: a URL of another scheme than `file` and `local`."""
    return isinstance(path, RemotePath) or (isinstance(path, (str, Path)) and _split(path)[0] != "")


def local_path(path: str | Path) -> str:
    """A path of this disk as the system takes it: without `file://`, and without the `~` that it begins with."""
    scheme, plain = _split(path)
    if scheme:
        raise ValueError(f"{os.fspath(path)!r} is no path of this disk, which is needed here. Name a local folder.")
    plain = os.path.expanduser(plain)  # noqa: PTH111  # pathlib refuses a folder called "~a"
    # a folder called "~", such as "./~/a", of which pathlib makes the home folder "~/a"
    return os.path.abspath(plain) if str(Path(plain)).startswith("~") else plain  # noqa: PTH100


def location(path: str | Path | RemotePath) -> str:
    """A path of this disk or a URL as text: what `path_of` takes again."""
    return str(path_of(path)) if is_remote(path) else local_path(path)  # type: ignore[arg-type]  # it is not remote


def path_of(path: str | Path | RemotePath) -> Path | RemotePath:
    """What to read and write a path with, whichever file system it is of: `path_of(root) / "a.ckpt"`."""
    if isinstance(path, RemotePath):
        return path
    scheme, rest = _split(path)
    return RemotePath(f"{scheme}://{rest}") if scheme else Path(local_path(path))


def entries_of(folder: Path | RemotePath) -> list[Path | RemotePath]:
    """What is in a folder, in order; nothing where there is no such folder."""
    found: list[Any] = list(folder.iterdir()) if folder.is_dir() else []
    return sorted(found, key=str)


class RemotePath:
    """A path of a file system that fsspec knows, with the methods of pathlib."""

    is_symlink = staticmethod(lambda: False)

    def __init__(self, url: str) -> None:
        self._head, separator, inner = url.rpartition("://")
        self._head += separator
        self._inner = inner.rstrip("/") if inner.strip("/") else inner[:1]

    def __str__(self) -> str:
        return self._head + self._inner

    def __repr__(self) -> str:
        return f"RemotePath({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[str, str]:
        return self._head, self._at

    def __truediv__(self, name: str | os.PathLike[str]) -> RemotePath:
        name = os.fspath(name)
        if is_remote(name):
            return RemotePath(name)
        return RemotePath(f"{self._head}{self._inner.rstrip('/')}{'/' if self._inner else ''}{name}")

    # names
    @property
    def name(self) -> str:
        return self._inner.rpartition("/")[2]

    @property
    def stem(self) -> str:
        return Path(self.name).stem

    @property
    def suffix(self) -> str:
        return Path(self.name).suffix

    @property
    def parent(self) -> RemotePath:
        above, separator, name = self._inner.rpartition("/")
        return RemotePath(self._head + (above or (separator if name else "")))

    @property
    def parents(self) -> list[RemotePath]:
        above, found = self, []
        while above.name:
            above = above.parent
            found.append(above)
        return found

    def with_name(self, name: str) -> RemotePath:
        return self.parent / name

    def absolute(self) -> RemotePath:
        return self

    def resolve(self) -> RemotePath:
        return self

    # the file system
    @functools.cached_property
    def _filesystem(self) -> tuple[Any, str]:
        from fsspec.core import url_to_fs  # type: ignore[import-untyped]  # it has no stubs

        try:
            return url_to_fs(str(self))  # type: ignore[no-any-return]  # the file system and the path in it
        except (ValueError, ImportError) as error:
            raise type(error)(
                f"{str(self)!r} cannot be opened by fsspec: {error}. Install the driver, or name a folder of this disk."
            ) from error

    @property
    def _fs(self) -> Any:
        return self._filesystem[0]

    @property
    def _at(self) -> str:
        return self._filesystem[1]

    def exists(self) -> bool:
        self._fs.invalidate_cache()
        return bool(self._fs.exists(self._at))

    def is_file(self) -> bool:
        return bool(self._fs.isfile(self._at))

    def is_dir(self) -> bool:
        return bool(self._fs.isdir(self._at))

    def iterdir(self) -> Iterator[RemotePath]:
        self._fs.invalidate_cache()
        entries = (entry.rstrip("/") for entry in self._fs.ls(self._at, detail=False))
        return (self / entry.rpartition("/")[2] for entry in entries if entry != self._at.rstrip("/"))

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        if not exist_ok and self.exists():
            raise FileExistsError(str(self))
        if exist_ok and self.is_file():
            raise FileExistsError(f"{self} is a file")
        self._fs.makedirs(self._at, exist_ok=True)

    def open(self, mode: str = "r", **options: Any) -> Any:
        return self._fs.open(self._at, mode, **{k: v for k, v in options.items() if v is not None})

    def read_bytes(self) -> bytes:
        with self.open("rb") as file:
            return bytes(file.read())

    def read_text(self, encoding: str = "utf-8") -> str:
        return self.read_bytes().decode(encoding)

    def write_bytes(self, data: bytes) -> None:
        with self.open("wb") as file:
            file.write(data)

    def write_text(self, text: str, encoding: str = "utf-8") -> None:
        self.write_bytes(text.encode(encoding))

    def unlink(self, missing_ok: bool = False) -> None:
        try:
            self._fs.rm_file(self._at)  # `rm` would take a "[" or "*" in the name for a pattern
        except FileNotFoundError:
            if not missing_ok:
                raise

    def replace(self, target: RemotePath) -> None:
        """Take the name of `target`: in one step where the file system can, else by a copy, as object stores do."""
        from fsspec import AbstractFileSystem

        if type(self._fs).mv is not AbstractFileSystem.mv:
            self._fs.mv(self._at, target._at)
        else:  # the inherited one would take a "[" or "*" in the name for a pattern
            self._fs.cp_file(self._at, target._at)
            self._fs.rm_file(self._at)

    def modified(self) -> float:
        with contextlib.suppress(NotImplementedError):
            return float(self._fs.modified(self._at).timestamp())
        return 0.0


def modified(path: str | Path | RemotePath) -> float:
    """When a file was written, in seconds; 0 where the file system does not know."""
    path = path_of(path)
    return path.modified() if isinstance(path, RemotePath) else path.stat().st_mtime


def remove(path: str | Path | RemotePath) -> None:
    """Remove a file, a link or a folder with all it holds; nothing happens where there is none."""
    path = path_of(path)
    if isinstance(path, RemotePath):
        for entry in list(path.iterdir()) if path.is_dir() else ():
            remove(entry)
        if path.is_dir():
            path._fs.rmdir(path._at)
        else:
            path.unlink(missing_ok=True)
    elif path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


# written whole
@contextlib.contextmanager
def written_whole(path: str | Path | RemotePath, mode: str = "wb", **options: Any) -> Iterator[IO[Any]]:
    """A file to write, which takes the name `path` when all of it is on disk; until then the one before stays.

    Example::

        with written_whole("scores.json", "w", encoding="utf-8") as file:
            json.dump(scores, file)
    """
    path = path_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        said = "there is a file where its folder is to be"
        raise NotADirectoryError(errno.ENOTDIR, said, str(path.parent)) from error
    sweep(path.parent)
    temporary = path.with_name(temporary_name())  # in its folder: a rename stays on the disk
    try:
        with temporary.open(mode, **options) as file:
            yield file
            if not isinstance(temporary, RemotePath):
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)  # type: ignore[arg-type]  # both are of one kind
    except BaseException:
        with contextlib.suppress(OSError):  # the error that led here is the one to be seen
            temporary.unlink(missing_ok=True)
        raise
    if isinstance(path, Path):
        sync_folder(path.parent)  # the new name must survive a power cut too


def sync_folder(folder: Path) -> None:
    """Names in the folder survive a power cut."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


# names that say who writes
def temporary_name() -> str:
    """A name for what this process writes, from which the others see whether it still lives."""
    pid = os.getpid()
    return f".fulgurite-{_host()}-{pid}-{_started(pid)}-{uuid.uuid4().hex[:8]}.tmp"


def sweep(folder: str | Path | RemotePath) -> None:
    """Remove the temporary files and folders of `folder` that no living process writes.

    Those of another host go when they are a day old. What had been put aside, to be replaced, gets its name again where
    the process died before the new one had it.
    """
    folder = path_of(folder)
    try:
        entries = [(entry, found) for entry in folder.iterdir() if (found := _TEMPORARY.fullmatch(entry.name))]
    except Exception:  # of any driver: whoever wants to write here will say what is wrong
        return
    for entry, found in entries:
        with contextlib.suppress(Exception):  # another process may be sweeping too
            if _is_left_over(entry, found):
                _restore_or_remove(entry, found["aside"])


def _restore_or_remove(entry: Path | RemotePath, aside: str | None) -> None:
    if aside is not None and isinstance(entry, Path) and not os.path.lexists(entry.with_name(aside)):
        entry.rename(entry.with_name(aside))
    else:
        remove(entry)


def _is_left_over(entry: Path | RemotePath, found: re.Match[str]) -> bool:
    pid, started = int(found["pid"]), int(found["started"])
    if found["host"] == _host():
        if not _is_alive(pid):
            return True
        if started and (begun := _started(pid)):  # a later process may have the same number
            return started != begun
    written = entry.lstat().st_mtime if isinstance(entry, Path) else entry.modified()
    return 0 < written < time.time() - _DAY


@functools.cache
def _host() -> str:
    """This machine, and the world of process ids in it: containers have their own."""
    name = re.sub(r"[^\w.-]", "_", socket.gethostname())[:64]
    try:
        return f"{name}-{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return name


def _state(pid: int) -> list[str] | None:
    """What Linux says of a process, from its state on; None where nothing is said."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _started(pid: int) -> int:
    """When a process began, in ticks since the machine did; 0 where the system does not say."""
    state = _state(pid)
    return int(state[19]) if state else 0


def _is_alive(pid: int) -> bool:
    if (state := _state(pid)) is not None:
        return state[0] not in "ZX"  # dead, and its parent has not asked yet
    if os.name == "nt":
        import ctypes

        kernel = ctypes.WinDLL("kernel32", use_last_error=True)  # type: ignore[attr-defined,unused-ignore]
        query, still_active, denied, code = 0x1000, 259, 5, ctypes.c_ulong()
        if not (handle := kernel.OpenProcess(query, False, pid)):
            return bool(ctypes.get_last_error() == denied)  # type: ignore[attr-defined,unused-ignore]
        known = kernel.GetExitCodeProcess(handle, ctypes.byref(code))
        kernel.CloseHandle(handle)
        return not known or code.value == still_active
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def get_filesystem(path: str | Path, **kwargs: Any) -> Any:
    """The fsspec file system of a path or URL."""
    from fsspec.core import url_to_fs

    filesystem, _ = url_to_fs(str(path), **kwargs)
    return filesystem
