"""Checkpoints that are folders: written whole or not at all, and read without running what they hold."""

from __future__ import annotations

import errno
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from fulgurite.core.saving import read_checkpoint, write_checkpoint
from fulgurite.core.sharded import META, is_sharded, named_optimizer_state, replace_path, write_sharded

PATH = Path("last.ckpt")


@pytest.fixture(autouse=True)
def group() -> Iterator[None]:
    """This process, as a group of its own."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]  # documented
    yield
    dist.destroy_process_group()


def checkpoint(value: float = 1.0) -> dict[str, Any]:
    layer = torch.nn.Linear(2, 3)
    torch.nn.init.constant_(layer.weight, value)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return {
        "epoch": 2,
        "state_dict": layer.state_dict(),
        "optimizer_states": [named_optimizer_state(optimizer.state_dict(), {0: "weight", 1: "bias"})],
        "callbacks": {"best": {"score": torch.tensor(0.5), "paths": ["a", ("b", 1)]}},
    }


def written(value: float = 1.0, path: Path = PATH) -> dict[str, Any]:
    whole = checkpoint(value)
    write_sharded(whole, path, write_checkpoint)
    return whole


def test_what_was_written_is_read() -> None:
    whole, read = written(), read_checkpoint(PATH)
    assert is_sharded(PATH)
    assert read["epoch"] == 2
    assert read["callbacks"] == whole["callbacks"]
    assert all(torch.equal(read["state_dict"][name], value) for name, value in whole["state_dict"].items())
    (state,) = read["optimizer_states"]
    assert state["param_groups"][0]["params"] == [0, 1]
    for number, name in enumerate(("weight", "bias")):
        saved = whole["optimizer_states"][0]["state"][name]
        assert all(torch.equal(state["state"][number][key], saved[key]) for key in ("step", "exp_avg", "exp_avg_sq"))


def test_tensors_have_the_names_that_tools_of_torch_expect() -> None:
    from torch.distributed.checkpoint.filesystem import FileSystemReader

    written()
    names = FileSystemReader(PATH).read_metadata().state_dict_metadata
    assert {"state_dict.weight", "state_dict.bias", "optimizer_0.state.weight.exp_avg"} <= names.keys()
    assert not any(name.startswith("callbacks") for name in names)


def test_tensors_go_where_map_location_says() -> None:
    written()
    assert read_checkpoint(PATH, map_location="meta")["state_dict"]["weight"].is_meta
    assert read_checkpoint(PATH, map_location={"cpu": "meta"})["state_dict"]["weight"].is_meta
    assert read_checkpoint(PATH, map_location=lambda storage, location: storage)["state_dict"]["weight"].is_cpu


@pytest.mark.parametrize("before", ["folder", "file", "link"])
def test_a_new_checkpoint_takes_the_place_of_the_one_before(before: str) -> None:
    if before == "folder":
        written(1.0)
    elif before == "file":
        write_checkpoint({"epoch": 1}, PATH)
    else:
        written(1.0, Path("other.ckpt"))
        PATH.symlink_to("other.ckpt")
    written(2.0)
    assert not PATH.is_symlink()
    assert read_checkpoint(PATH)["state_dict"]["weight"].round().unique().tolist() == [2.0]
    assert [name for name in os.listdir() if "tmp" in name or "old" in name] == []
    assert before != "link" or is_sharded("other.ckpt")


def test_a_system_that_cannot_exchange_names_takes_two_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fulgurite.core.sharded._exchange", lambda one, other: False)
    written(1.0)
    written(2.0)
    assert read_checkpoint(PATH)["state_dict"]["weight"].round().unique().tolist() == [2.0]
    assert os.listdir() == ["last.ckpt"]


@pytest.mark.parametrize("part", ["the plain part", "the tensors"])
def test_a_full_disk_leaves_the_checkpoint_before(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written(1.0)

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if part == "the tensors":
        monkeypatch.setattr("torch.distributed.checkpoint.filesystem.FileSystemWriter.write_data", full)
    with pytest.raises(OSError, match="could not be written: No space left") as error:
        write_sharded(checkpoint(2.0), PATH, write_checkpoint if part == "the tensors" else full)
    assert error.value.errno == errno.ENOSPC
    assert error.value.filename == "last.ckpt"
    assert os.listdir() == ["last.ckpt"]
    assert read_checkpoint(PATH)["state_dict"]["weight"].round().unique().tolist() == [1.0]


class Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, ("ran",)


def without_sum(folder: Path) -> None:
    """As an enemy would leave it, or a version that wrote none."""
    plain = torch.load(folder / META)
    del plain["fulgurite_metadata_crc32"]
    write_checkpoint(plain, folder / META)


def test_metadata_runs_nothing() -> None:
    written()
    without_sum(PATH)
    (PATH / ".metadata").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(RuntimeError, match=r"posix.mkdir, which does not belong there"):
        read_checkpoint(PATH)
    assert not Path("ran").exists()


def test_objects_in_the_plain_part_are_named_and_refused() -> None:
    write_sharded({**checkpoint(), "mine": Evil()}, PATH, write_checkpoint)
    with pytest.raises(pickle.UnpicklingError, match=r"posix.mkdir"):
        read_checkpoint(PATH)
    assert not Path("ran").exists()


def test_a_damaged_file_of_shards_is_told() -> None:
    written()
    (shards,) = PATH.glob("*.distcp")
    shards.write_bytes(shards.read_bytes()[:100])
    with pytest.raises(RuntimeError, match=r"last.ckpt cannot be read as a sharded checkpoint"):
        read_checkpoint(PATH)
    shards.unlink()
    with pytest.raises(RuntimeError, match=r"a file of it is missing, truncated or damaged"):
        read_checkpoint(PATH)


def test_the_plain_part_of_another_checkpoint_is_told() -> None:
    whole = written(path=Path("other.ckpt"))
    write_sharded({"state_dict": {"weight": whole["state_dict"]["weight"]}}, PATH, write_checkpoint)
    (PATH / META).write_bytes(Path("other.ckpt", META).read_bytes())
    with pytest.raises(RuntimeError, match=r".metadata is not what a sharded checkpoint holds: its check sum does not"):
        read_checkpoint(PATH)
    without_sum(PATH)
    with pytest.raises(RuntimeError, match=r"lacks the tensors optimizer_0.state.bias.exp_avg"):
        read_checkpoint(PATH)


def test_another_folder_is_no_checkpoint() -> None:
    PATH.mkdir()
    with pytest.raises(IsADirectoryError, match=r"a folder without meta.pt and .metadata"):
        read_checkpoint(PATH)


def test_a_folder_with_a_name_of_its_own_just_gets_it() -> None:
    Path("new").mkdir()
    replace_path(Path("new"), PATH)
    assert os.listdir() == ["last.ckpt"]


def test_a_flipped_bit_is_noticed_in_every_file_of_the_folder() -> None:
    write_sharded({"state_dict": {"w": torch.arange(64.0)}, "epoch": 1}, "a.ckpt", write_checkpoint)
    assert set(read_checkpoint("a.ckpt")) == {"state_dict", "epoch"}
    for file in sorted(Path("a.ckpt").iterdir()):
        data = file.read_bytes()
        for bit in range(5, len(data) * 8, max(1, len(data) // 3)):
            changed = bytearray(data)
            changed[bit // 8] ^= 1 << bit % 8
            file.write_bytes(changed)
            with pytest.raises(RuntimeError, match=r"a\.ckpt"):
                read_checkpoint("a.ckpt")
        file.write_bytes(data)
    assert torch.equal(read_checkpoint("a.ckpt")["state_dict"]["w"], torch.arange(64.0))


def test_the_description_of_shards_changes_no_class() -> None:
    write_sharded({"state_dict": {"w": torch.ones(2)}}, "a.ckpt", write_checkpoint)
    without_sum(Path("a.ckpt"))
    assert torch.equal(read_checkpoint("a.ckpt")["state_dict"]["w"], torch.ones(2))
    path = type(Path())
    state = pickle.dumps((None, {"planted": 1}), 2)[2:-1]
    Path("a.ckpt/.metadata").write_bytes(b"\x80\x02cpathlib\nPosixPath\n" + state + b"b.")
    with pytest.raises(RuntimeError, match=r"\.metadata is not what a sharded checkpoint holds"):
        read_checkpoint("a.ckpt")
    assert not hasattr(path, "planted")
