"""accelerator, devices, strategy, precision names, profiler, deterministic, benchmark and their neighbours."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch

import fulgurite as pl
from fulgurite.accelerators import Accelerator, CPUAccelerator
from fulgurite.plugins import DoublePrecision, TorchCheckpointIO
from fulgurite.utilities.exceptions import MisconfigurationException
from helpers.counting import QUIET, Counting, fit, loader


@pytest.mark.parametrize("accelerator", ["cpu", "auto"])
@pytest.mark.parametrize("devices", [1, "1", "auto"])
def test_one_process_on_this_machine(accelerator: str, devices: Any) -> None:
    trainer = pl.Trainer(**{**QUIET, "accelerator": accelerator}, devices=devices)
    if not torch.cuda.is_available():
        assert (trainer.num_devices, trainer.world_size, trainer.strategy.root_device) == (1, 1, torch.device("cpu"))
    assert (trainer.global_rank, trainer.local_rank, trainer.node_rank, trainer.num_nodes) == (0, 0, 0, 1)
    assert trainer.is_global_zero


@pytest.mark.parametrize(
    "strategy",
    ["auto", "single_device", pl.strategies.SingleDeviceStrategy("cpu")],
    ids=["auto", "by name", "by object"],
)
def test_single_device_strategies(strategy: Any) -> None:
    trainer, _ = fit(strategy=strategy)
    assert isinstance(trainer.strategy, pl.strategies.SingleDeviceStrategy)
    assert trainer.model is trainer.lightning_module


class Kept(TorchCheckpointIO):
    def __init__(self) -> None:
        self.saved: list[str] = []

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        self.saved.append(str(path))
        super().save_checkpoint(checkpoint, path, storage_options)


@pytest.mark.parametrize("kind", [pl.strategies.SingleDeviceStrategy, pl.strategies.DDPStrategy])
def test_a_strategy_is_used_with_the_parts_it_was_given(kind: Any) -> None:
    files, processor = Kept(), CPUAccelerator()
    strategy = kind(accelerator=processor, checkpoint_io=files, precision_plugin=DoublePrecision())
    trainer = pl.Trainer(**{**QUIET, "accelerator": "auto"}, max_epochs=1, devices="auto", strategy=strategy)
    assert trainer.strategy is strategy and trainer.accelerator is processor and trainer.precision == "64-true"
    if kind is pl.strategies.SingleDeviceStrategy:
        trainer.fit(model := Counting(), loader(2), loader(2))
        trainer.save_checkpoint("here.ckpt")
        assert next(model.parameters()).dtype == torch.float64 and files.saved == ["here.ckpt"]
    with pytest.raises(MisconfigurationException, match="DoublePrecision, and the trainer precision=16"):
        pl.Trainer(**QUIET, strategy=strategy, precision=16)


def test_an_accelerator_of_the_users_own_chooses_the_devices_and_is_told_of_the_run() -> None:
    calls = []

    class Mine(Accelerator):
        def setup_device(self, device: torch.device) -> None:
            calls.append(f"begin {device}")

        def teardown(self) -> None:
            calls.append("end")

        @staticmethod
        def parse_devices(devices: Any) -> int:
            return int(devices)

        @staticmethod
        def get_parallel_devices(devices: Any) -> list[torch.device]:
            calls.append(devices)
            return [torch.device("cpu")] * devices

        @staticmethod
        def is_available() -> bool:
            return True

        @staticmethod
        def name() -> str:
            return "mine"

    for devices, asked in (("1", 1), ("auto", 1)):
        mine = Mine()
        trainer = pl.Trainer(**{**QUIET, "accelerator": mine}, max_epochs=1, devices=devices)
        trainer.fit(Counting(), loader(2), loader(2))
        assert trainer.accelerator is mine and calls == [asked, "begin cpu", "end"]
        calls.clear()
    assert all(0 <= share <= 100 for share in CPUAccelerator().get_device_stats(torch.device("cpu")).values())


@pytest.mark.parametrize(
    ("given", "name"),
    [(None, "32-true"), (32, "32-true"), ("bf16", "bf16-mixed"), ("64", "64-true"), ("bf16-true", "bf16-true")],
)
def test_precision_names(given: Any, name: str) -> None:
    assert pl.Trainer(**QUIET, precision=given).precision == name


def test_deterministic_turns_torch_deterministic() -> None:
    pl.Trainer(**QUIET, deterministic=True)
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()
    assert not torch.backends.cudnn.benchmark
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"]


def test_deterministic_may_only_warn() -> None:
    pl.Trainer(**QUIET, deterministic="warn")
    assert torch.is_deterministic_algorithms_warn_only_enabled()


@pytest.mark.parametrize("benchmark", [True, False])
def test_benchmark_sets_cudnn(benchmark: bool) -> None:
    pl.Trainer(**QUIET, benchmark=benchmark)
    assert torch.backends.cudnn.benchmark is benchmark


def test_the_simple_profiler_reports_the_users_hooks(capsys: pytest.CaptureFixture[str]) -> None:
    trainer, _ = fit(profiler="simple", max_epochs=2)
    assert type(trainer.profiler).__name__ == "SimpleProfiler"
    assert "training_step" in trainer.profiler.summary()


@pytest.mark.filterwarnings("ignore:.*there is no validation data")
def test_barebones_switches_the_rest_off() -> None:
    trainer = pl.Trainer(barebones=True, accelerator="cpu", max_epochs=1)
    model = Counting()
    model.on_train_batch_end = lambda *a: model.log("x", 1.0)  # type: ignore[method-assign]
    trainer.fit(model, torch.utils.data.DataLoader(torch.ones(4, 2)))
    assert not trainer.loggers and not trainer.checkpoint_callbacks and not trainer.callback_metrics


@pytest.mark.parametrize(
    "flags",
    [
        {"sync_batchnorm": True},
        {"use_distributed_sampler": False},
        {"num_nodes": 1},
        {"plugins": []},
        {"model_registry": None},
    ],
    ids=str,
)
def test_flags_that_one_process_has_no_use_for_are_taken(flags: dict[str, Any]) -> None:
    assert fit(**flags)[0].global_step == 4


def test_inference_mode_is_for_evaluation_outside_fit() -> None:
    class Looks(Counting):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.calls.append(f"{torch.is_inference_mode_enabled()} {torch.is_grad_enabled()}")

    trainer, model = fit(Looks(), limit_val_batches=1)
    assert model.calls[-2] == "False False"
    for inference_mode in (True, False):
        pl.Trainer(**QUIET, inference_mode=inference_mode).validate(
            model, torch.utils.data.DataLoader(torch.ones(1, 2))
        )
        assert model.calls[-1] == f"{inference_mode} False"
    assert trainer.state.finished
