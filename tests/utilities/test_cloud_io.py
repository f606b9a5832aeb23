"""Paths of this disk and of file systems elsewhere, files written whole, and what killed processes have left."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fulgurite.utilities import cloud_io
from fulgurite.utilities.cloud_io import (
    RemotePath,
    is_remote,
    local_path,
    location,
    modified,
    path_of,
    remove,
    sweep,
    temporary_name,
    written_whole,
)

DAY = 24 * 3600


@pytest.fixture(params=["here", "memory://here"])
def folder(request, tmp_path, monkeypatch):
    """A folder of this disk, and one elsewhere."""
    monkeypatch.chdir(tmp_path)
    yield path_of(request.param)
    remove(request.param)


def names(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


# where
def test_a_path_of_this_disk_in_each_spelling(monkeypatch):
    spellings = ["~/a", "file:///home/me/a", "local:///home/me/a", Path("file:///home/me/a"), "/home/me/a", Path("~/a")]
    with monkeypatch.context() as environment:
        environment.setenv("HOME", "/home/me")
        assert [local_path(path) for path in spellings] == ["/home/me/a"] * 6
    assert local_path("./a/") == "./a/" and local_path("") == ""
    with pytest.raises(ValueError, match="'s3://bucket/a' is no path of this disk.*Name a local folder"):
        local_path("s3://bucket/a")


@pytest.mark.parametrize("path", ["./~/a", "././~/a", "./~me/a", "~nobody-of-this-name/a", "b/../~/a", "b/~/a"])
def test_a_folder_called_tilde_is_not_the_home_folder_however_often_the_path_is_taken(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = os.path.abspath(path)  # noqa: PTH100  # pathlib cannot say it
    for _ in range(3):
        path = location(path_of(path))
    assert os.path.abspath(path) == expected  # noqa: PTH100


@pytest.mark.parametrize("path", ["C:/a", "C://a", "a:b", "a:/b", "weird:/b", "", "/a/memory://b"])
def test_what_only_looks_like_a_url_is_of_this_disk(path):
    assert not is_remote(path) and path_of(path) == Path(path)


@pytest.mark.parametrize("path", ["memory://a/b", Path("memory://a/b"), "memory:/a/b/", RemotePath("memory://a/b")])
def test_a_path_elsewhere_in_each_spelling(path):
    found = path_of(path)
    assert is_remote(path) and location(path) == str(found) == "memory://a/b"
    assert (found.name, str(found.parent), str(found / "c.d")) == ("b", "memory://a", "memory://a/b/c.d")
    assert [str(above) for above in found.parents] == ["memory://a", "memory://"]
    assert (found / "c.d").stem == "c" and (found / "c.d").suffix == ".d" and found.with_name("e") == found.parent / "e"


def test_an_unknown_file_system_and_one_without_its_driver_are_named():
    with pytest.raises(ValueError, match="'nowhere://a' cannot be opened by fsspec: .*nowhere"):
        path_of("nowhere://a").exists()


# written whole
def test_a_file_takes_its_name_when_all_is_written(folder):
    path = folder / "inner" / "a[1]*.txt"
    with written_whole(path, "w", encoding="utf-8") as file:
        file.write("één")
        file.flush()
        assert not path.exists()
    assert path.read_text(encoding="utf-8") == "één" and names(path.parent) == ["a[1]*.txt"]
    assert abs(modified(path) - time.time()) < 100


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt])
def test_after_an_error_the_file_before_stays_and_nothing_else(folder, error):
    path = folder / "a.bin"
    for content in (b"one", b"two"):
        try:
            with written_whole(path) as file:
                file.write(content)
                if content == b"two":
                    raise error
        except error:
            pass
    assert path.read_bytes() == b"one" and names(folder) == ["a.bin"]


def test_a_file_where_the_folder_is_to_be_is_named(folder):
    with written_whole(folder / "a") as file:
        file.write(b"one")
    with pytest.raises(NotADirectoryError, match="file where its folder is to be.*here/a'"):
        written_whole(folder / "a" / "b").__enter__()
    assert (folder / "a").read_bytes() == b"one"


def test_folders_and_files_are_removed_and_nothing_else(folder):
    for name in ("a[1]", "a1", "b/c"):
        with written_whole(folder / name) as file:
            file.write(b"one")
    remove(folder / "a[1]")
    assert names(folder) == ["a1", "b"]
    remove(folder / "b")
    remove(folder / "b")
    assert names(folder) == ["a1"]


# what is left of others
def leave(folder, name):
    with (folder / name).open("wb") as file:
        file.write(b"half")
    return name


def name_of_a_dead_process():
    code = "from fulgurite.utilities.cloud_io import temporary_name; print(temporary_name())"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True).stdout.strip()


@pytest.mark.slow
def test_what_a_dead_process_left_is_swept_by_the_next_that_writes(folder):
    folder.mkdir()
    leave(folder, name_of_a_dead_process())
    with written_whole(folder / "a.bin") as file:
        assert len(names(folder)) == 1  # before it writes: the disk may be full of them
        file.write(b"one")
    assert names(folder) == ["a.bin"]


def test_what_others_have_is_left_alone(folder):
    folder.mkdir()
    ours = temporary_name()
    kept = [leave(folder, name) for name in (ours, ".a.tmp", ours.removeprefix("."), f"x{ours}", f"{ours}x", "a.tmp")]
    sweep(folder)
    assert names(folder) == sorted(kept)


def test_a_living_process_keeps_its_file_however_old_and_a_later_one_of_its_number_does_not(tmp_path):
    ours = leave(tmp_path, temporary_name())
    reused = leave(tmp_path, re.sub(r"-\d+(-\w{8}\.tmp)$", r"-1\1", temporary_name()))
    for name in (ours, reused):
        os.utime(tmp_path / name, (1, 1))
    sweep(tmp_path)
    assert names(tmp_path) == [ours]


@pytest.mark.slow
def test_a_process_that_nobody_has_waited_for_is_dead(tmp_path):
    code = "from fulgurite.utilities.cloud_io import temporary_name; print(temporary_name(), flush=True); input()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stdin=pipe, stdout=pipe, text=True) as process:
        leave(tmp_path, process.stdout.readline().strip())
        sweep(tmp_path)
        assert len(names(tmp_path)) == 1
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        sweep(tmp_path)
        assert not names(tmp_path)


def test_what_another_host_left_goes_when_it_is_a_day_old(tmp_path, monkeypatch):
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(cloud_io, "_host", lambda: "another-host")
        kept, old = (leave(tmp_path, temporary_name()) for _ in range(2))
    os.utime(tmp_path / kept, (time.time() - 0.9 * DAY,) * 2)
    os.utime(tmp_path / old, (time.time() - 1.1 * DAY,) * 2)
    sweep(tmp_path)
    assert names(tmp_path) == [kept]


@pytest.mark.slow
def test_a_left_over_folder_goes_and_one_put_aside_gets_its_name_again_where_that_is_free(tmp_path):
    dead = name_of_a_dead_process()
    for name in (dead, f"{dead}.last.ckpt", f"{dead}.best.ckpt", "best.ckpt"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "meta.pt").write_text(name)
    sweep(tmp_path)
    assert names(tmp_path) == ["best.ckpt", "last.ckpt"]
    assert (tmp_path / "best.ckpt/meta.pt").read_text() == "best.ckpt"


@pytest.mark.slow
def test_a_link_that_is_left_over_goes_and_not_what_it_points_to(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / name_of_a_dead_process()).symlink_to("a")
    sweep(tmp_path)
    assert names(tmp_path) == ["a"]
