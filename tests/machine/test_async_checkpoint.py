"""Checkpoints written while training goes on: the same files, errors told, nothing removed too early."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fulgurite.plugins.io.wrapper import _WrappingCheckpointIO

from fulgurite.callbacks import ModelCheckpoint
from fulgurite.plugins import AsyncCheckpointIO, CheckpointIO, TorchCheckpointIO
from helpers.tiny import Tiny, data, fit, names


def state(path: str | Path) -> str:
    return str(torch.load(path, weights_only=True)["state_dict"])


def save(folder: str, **options: Any) -> ModelCheckpoint:
    return ModelCheckpoint(folder, "{step}", every_n_train_steps=1, **options)


def test_files_are_those_of_the_plain_kind() -> None:
    for folder, plugins in (("plain", []), ("async", [AsyncCheckpointIO()])):
        torch.manual_seed(0)
        fit(save(folder, save_top_k=-1), plugins=plugins)
    assert names("plain") == names("async") and len(names("plain")) == 12
    assert all(state(f"plain/{name}") == state(f"async/{name}") for name in names("plain"))
    assert len({state(f"async/{name}") for name in names("async")}) == 12


def test_a_wrapper_hands_everything_on_to_the_one_inside() -> None:
    calls = []

    class Inner(TorchCheckpointIO):
        def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
            calls.append("inner")
            super().save_checkpoint(checkpoint, path, storage_options)

    class Outer(_WrappingCheckpointIO):
        def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
            calls.append("outer")
            super().save_checkpoint(checkpoint, path, storage_options)

    fit(save("wrapped"), plugins=[Outer(Inner())], max_steps=2)
    assert (
        calls == ["outer", "inner"] * 2 and len(names("wrapped")) == 1
    )  # the file before was removed by the inner one
    fit(save("alone"), plugins=[Outer()], max_steps=2)
    assert names("alone") == names("wrapped")


class Held(CheckpointIO):
    """Writes when it is let."""

    def __init__(self) -> None:
        self.let, self.threads = threading.Event(), set[str]()

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        self.threads.add(threading.current_thread().name)
        assert self.let.wait(30)
        super().save_checkpoint(checkpoint, path, storage_options)


class Watching(Tiny):
    """Looks into the folder in the batches after the first save, and lets it be written in the end."""

    def __init__(self, held: Held) -> None:
        super().__init__()
        self.held, self.seen = held, list[list[str]]()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if batch_idx:
            self.seen.append(names("saved") if Path("saved").exists() else [])
        if batch_idx == 3:
            self.held.let.set()


def test_training_goes_on_and_the_file_holds_the_weights_of_its_moment() -> None:
    held = Held()
    model = Watching(held)
    torch.manual_seed(0)
    each = ModelCheckpoint("saved", "{step}", every_n_train_steps=2, save_top_k=-1)
    fit(each, model=model, plugins=[AsyncCheckpointIO(held)], max_steps=4)
    assert model.seen == [[], [], []]
    assert names("saved") == ["step=2.ckpt", "step=4.ckpt"]
    assert held.threads == {"checkpoints_0"}
    saved = torch.load("saved/step=2.ckpt", weights_only=True)["state_dict"]["layer.weight"]
    assert not torch.equal(saved, model.layer.weight)


class Failing(CheckpointIO):
    def __init__(self, at: int) -> None:
        self.at, self.saves = at, 0

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        self.saves += 1
        if self.saves == self.at:
            raise OSError(28, "No space left on device", str(path))
        super().save_checkpoint(checkpoint, path, storage_options)


@pytest.mark.parametrize("at", [2, 12])
def test_an_error_of_the_thread_ends_the_run_and_the_checkpoint_before_is_kept(at: int) -> None:
    with pytest.raises(OSError, match="No space left"):
        fit(save("saved"), plugins=[AsyncCheckpointIO(Failing(at))])
    assert names("saved") == [f"step={at - 1}.ckpt"]


class Breaking(Tiny):
    def on_train_batch_end(self, *args: Any) -> None:
        if self.global_step == 2:
            raise ZeroDivisionError


def test_an_error_of_the_run_is_not_hidden_by_one_of_the_thread() -> None:
    with pytest.warns(UserWarning, match="a checkpoint was not written: OSError"), pytest.raises(ZeroDivisionError):
        fit(save("saved"), model=Breaking(), plugins=[AsyncCheckpointIO(Failing(2))])


def test_no_thread_is_left_and_the_plugin_can_be_used_again() -> None:
    plugin, threads = AsyncCheckpointIO(), threading.active_count()
    trainer = fit(save("saved"), plugins=[plugin])
    assert threading.active_count() == threads
    trainer.save_checkpoint("by-hand.ckpt")
    trainer.test(ckpt_path="by-hand.ckpt", dataloaders=data(1), verbose=False)
    assert threading.active_count() == threads


def test_tied_weights_are_written_once() -> None:
    weight = torch.nn.Parameter(torch.ones(50_000))
    plugin = AsyncCheckpointIO()
    sizes = []
    for write in (CheckpointIO().save_checkpoint, plugin.save_checkpoint):
        write({"state_dict": {"a": weight, "b": weight}}, "tied.ckpt")
        plugin.finish()
        sizes.append(Path("tied.ckpt").stat().st_size)
    plugin.teardown()
    assert sizes[0] == sizes[1] < 250_000


def test_a_save_waits_for_the_one_before() -> None:
    plugin, order = AsyncCheckpointIO(), list[str]()

    def act(name: str, wait: Callable[[], object] = lambda: None) -> None:
        wait()
        order.append(name)

    gate = threading.Event()
    plugin.later(act, "first", lambda: gate.wait(30))
    plugin.later(act, "second")
    assert order == []
    gate.set()
    plugin.finish()
    assert order == ["first", "second"]
    plugin.teardown()
