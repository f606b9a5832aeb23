"""What the framework adds to a step, counted, not timed: calls, frames, device synchronisations."""

from __future__ import annotations

import os
import sys
import traceback
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

import fulgurite as pl

HERE = str(Path(pl.__file__).parent) + os.sep
# What makes the host wait for the device, as a method of a tensor; `float(t)` and `if t` reach `_local_scalar_dense`.
WAITING = {"item", "cpu", "tolist", "numpy", "__bool__", "__float__", "__int__", "_local_scalar_dense", "nonzero"}


class Syncs(TorchDispatchMode):
    """Counts the operations that read a value back from the device."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__.split(".")[0]
        if name in WAITING:
            self.seen[name] += 1
        return func(*args, **(kwargs or {}))


class Counted(pl.LightningModule):
    """Counts from its 5th training step to its 6th, hooks and data flow between them included."""

    def __init__(self, logs: dict[str, Any] | None) -> None:
        super().__init__()
        self.layer, self.logs = torch.nn.Linear(4, 1), logs
        self.calls: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self.stack: list[str] = []

    def profile(self, frame: FrameType, event: str, arg: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(HERE):
            self.calls[f"{frame.f_code.co_filename.removeprefix(HERE)}:{frame.f_code.co_name}"] += 1
        elif event == "c_call" and arg.__name__ in WAITING and isinstance(getattr(arg, "__self__", None), torch.Tensor):
            self.waits[arg.__name__] += 1

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        if batch_idx == 4:
            self.stack = [f.filename for f in traceback.extract_stack() if f.filename.startswith(HERE)]
            sys.setprofile(self.profile)
        if batch_idx == 5:
            sys.setprofile(None)
        loss = self.layer(batch).sum()
        if self.logs is not None:
            self.log("loss", loss, **self.logs)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def counted(logs: dict[str, Any] | None = None, **flags: Any) -> Counted:
    module = Counted(logs)
    usual = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = pl.Trainer(max_epochs=1, accelerator="cpu", **{**usual, **flags})
    trainer.fit(module, DataLoader(torch.randn(40, 4), batch_size=2))
    return module


def everything_on() -> dict[str, Any]:
    return {
        "logger": pl.loggers.CSVLogger("."),
        "enable_checkpointing": True,
        "enable_progress_bar": True,
        "log_every_n_steps": 100,
    }


LOGGED = {"on_step": True, "on_epoch": True, "prog_bar": True}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("logs", "flags", "limit"),
    [
        (None, {}, 40),
        (None, {"accumulate_grad_batches": 2}, 40),
        (None, {"gradient_clip_val": 1.0}, 45),
        ({}, {}, 45),
        (LOGGED, {}, 45),
        (None, {"logger": True, "log_every_n_steps": 100}, 40),
        ({}, {"logger": True, "log_every_n_steps": 100}, 45),
    ],
    ids=str,
)
def test_framework_calls_of_one_step(logs: dict[str, Any] | None, flags: dict[str, Any], limit: int) -> None:
    calls = counted(logs, **flags).calls
    assert sum(calls.values()) <= limit, calls.most_common()


def test_frames_between_fit_and_training_step() -> None:
    stack = counted().stack
    assert len(stack) <= 6 and not any(f"{os.sep}compat{os.sep}" in file for file in stack), stack


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("logs", [None, {}, LOGGED], ids=str)
def test_a_step_without_a_due_logger_waits_for_no_value(logs: dict[str, Any] | None) -> None:
    assert not counted(logs, **everything_on()).waits


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("logs", [None, LOGGED], ids=str)
def test_a_whole_epoch_reads_values_back_at_its_ends_only(logs: dict[str, Any] | None) -> None:
    """As many reads for 40 steps as for 20: none of them belongs to a step."""

    def reads(steps: int) -> int:
        module = Counted(logs)
        trainer = pl.Trainer(max_epochs=1, accelerator="cpu", enable_model_summary=False, **everything_on())
        with Syncs() as syncs:
            trainer.fit(module, DataLoader(torch.randn(2 * steps, 4), batch_size=2))
        return sum(syncs.seen.values())

    assert reads(20) == reads(40)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("logs", [None, LOGGED], ids=str)
def test_no_synchronisation_on_a_gpu(logs: dict[str, Any] | None) -> None:
    class Strict(Counted):
        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            torch.cuda.set_sync_debug_mode("error" if 2 <= batch_idx < 18 else "default")

    module = Strict(logs)
    flags = everything_on() | {"enable_model_summary": False, "enable_checkpointing": False}
    try:
        pl.Trainer(max_epochs=1, accelerator="gpu", devices=1, **flags).fit(
            module, DataLoader(torch.randn(40, 4), batch_size=2, pin_memory=True)
        )
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert not module.waits
