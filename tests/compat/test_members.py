"""Old names of the trainer and its private parts, as libraries reach into them."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

import pytest
import torch

import fulgurite as pl
from fulgurite.compat.internals import Closure, ClosureResult, _AcceleratorConnector
from fulgurite.machine.environments import SLURMEnvironment
from fulgurite.plugins import TorchCheckpointIO
from fulgurite.utilities import rank_zero
from helpers.counting import QUIET, Counting, fit, loader

pytestmark = pytest.mark.filterwarnings("ignore:.*1.x era", "ignore:.*there is no validation data")


def test_private_parts_that_libraries_look_into() -> None:
    trainer, module = fit()
    assert trainer._accelerator_connector.is_distributed is False
    assert trainer._accelerator_connector._accelerator_flag == "cpu"
    assert trainer.fit_loop.epoch_loop.val_loop._data_source.is_defined()
    assert trainer.strategy.broadcast("x") == "x" and trainer.strategy.barrier() is None
    assert trainer._results.DATALOADER_SUFFIX.format(1) == "/dataloader_idx_1"
    assert trainer._logger_connector.callback_metrics == trainer.callback_metrics
    assert trainer._checkpoint_connector.dump_checkpoint()["global_step"] == 4
    assert trainer.predict_loop.epoch_batch_indices == []


def test_model_may_be_anything_to_others() -> None:
    """scvi-tools keeps its own model in `trainer._model`, for its own callbacks."""
    trainer = pl.Trainer(**QUIET, max_epochs=1)
    trainer._model = "theirs"
    trainer.fit(Counting(), loader(1))
    assert trainer._model == "theirs" and isinstance(trainer.lightning_module, Counting)


def test_the_strategy_is_connected_to_a_model_and_its_loading_replaced() -> None:
    module = Counting()
    trainer = pl.Trainer(**QUIET, max_epochs=1)
    trainer.strategy.connect(module)
    assert trainer.strategy.lightning_module is module
    trainer.fit(module, loader(1))
    trainer.save_checkpoint("a.ckpt")
    seen: list[Any] = []
    read = trainer.strategy.load_checkpoint
    trainer.strategy.load_checkpoint = lambda path, weights_only=None: (seen.append(path), read(path))[1]
    trainer.test(module, loader(1), ckpt_path="a.ckpt", verbose=False)
    assert seen == ["a.ckpt"]


def test_a_checkpoint_io_of_ones_own() -> None:
    class Mine(TorchCheckpointIO):
        def save_checkpoint(self, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
            super().save_checkpoint({**checkpoint, "mine": True}, path)

    trainer, _ = fit(plugins=[Mine()])
    trainer.save_checkpoint("a.ckpt")
    assert torch.load("a.ckpt")["mine"]


def test_the_accelerator_connector_before_there_is_a_trainer() -> None:
    connector = _AcceleratorConnector(accelerator="cpu", devices="auto")
    assert (connector._accelerator_flag, connector._devices_flag, connector.is_distributed) == ("cpu", 1, False)
    assert _AcceleratorConnector(accelerator="cpu", devices=2)._devices_flag == 2


def test_old_names_of_the_trainer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_zero, "_warned", set())
    trainer, module = fit()
    assert trainer.running_sanity_check is False and trainer.get_model() is module
    assert trainer.training_type_plugin is trainer.strategy and trainer.num_gpus == 0 and trainer.gpus is None
    with pytest.warns(FutureWarning, match=r"trainer\.progress_bar_dict is of the 1\.x era\. Write trainer\.progress"):
        assert trainer.progress_bar_dict == trainer.progress_bar_metrics
    assert not hasattr(trainer, "nonsense")


def test_hparams_may_be_assigned() -> None:
    class Module(Counting):
        def __init__(self, hparams: Any) -> None:
            super().__init__()
            self.hparams = hparams

    trainer, module = fit(Module(Namespace(lr=0.5)))
    assert module.hparams.lr == 0.5 and module.hparams_initial.lr == 0.5
    trainer.save_checkpoint("a.ckpt")
    assert Module.load_from_checkpoint("a.ckpt").hparams.lr == 0.5
    assert Module({"lr": 0.1}).hparams["lr"] == 0.1


def test_trainers_and_data_modules_from_a_command_line() -> None:
    parser = pl.Trainer.add_argparse_args(ArgumentParser())
    parser.add_argument("--max_epochs", type=int, default=7)  # of the script: it goes before ours
    line = ["--gradient_clip_val", "0.5", "--fast_dev_run", "--limit_val_batches", "2", "--logger", "False"]
    args = parser.parse_args(line)
    trainer = pl.Trainer.from_argparse_args(args, accelerator="cpu")
    assert (trainer.max_epochs, trainer.gradient_clip_val, trainer.fast_dev_run) == (1, 0.5, True)
    assert args.max_epochs == 7 and args.devices == "auto"


def test_what_is_annotated_as_text_stays_text() -> None:
    class Data(pl.LightningDataModule):
        def __init__(self, path: str = "x", size: int = 1) -> None:
            super().__init__()
            self.given = path, size

    args = Data.add_argparse_args(ArgumentParser()).parse_args(["--path", "2021", "--size", "4"])
    assert Data.from_argparse_args(args).given == ("2021", 4)


def test_a_closure_steps_as_the_trainers_does() -> None:
    calls: list[str] = []
    closure = Closure(
        lambda: calls.append("step") or ClosureResult(torch.tensor(2.0)),
        backward_fn=lambda loss: calls.append("backward"),
        zero_grad_fn=lambda: calls.append("zero"),
    )
    assert closure() == 2 and calls == ["step", "zero", "backward"]
    assert closure.consume_result().asdict()["loss"] == 2


def test_a_cluster_environment_may_be_passed() -> None:
    environment = SLURMEnvironment(auto_requeue=False)
    assert pl.Trainer(**QUIET, plugins=[environment]).world_size == 1 and environment.global_rank() == 0
