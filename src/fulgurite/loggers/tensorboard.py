"""Logs as TensorBoard's event files, through torch.utils.tensorboard."""

from __future__ import annotations

import argparse
import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fulgurite.core.module import LightningModule, seen_by_torchscript
from fulgurite.core.saving import save_hparams_to_yaml
from fulgurite.loggers.folder import FolderLogger
from fulgurite.loggers.logger import as_dict, flat, plain, rank_zero_experiment, with_prefix
from fulgurite.utilities.cloud_io import path_of
from fulgurite.utilities.rank_zero import rank_zero_only, rank_zero_warn
from fulgurite.utilities.tree import move_data_to_device

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoardLogger(FolderLogger):
    """Write `<save_dir>/<name>/version_<n>/events.out.tfevents...`; look at it with `tensorboard --logdir <save_dir>`.

    Example::

        trainer = Trainer(logger=TensorBoardLogger("logs", name="dkt"))
        trainer.logger.experiment.add_histogram("answers", values)  # the SummaryWriter itself
    """

    def __init__(
        self,
        save_dir: str | Path,
        name: str | None = "lightning_logs",
        version: int | str | None = None,
        log_graph: bool = False,
        default_hp_metric: bool = True,
        prefix: str = "",
        sub_dir: str | Path | None = None,
        **kwargs: Any,
    ) -> None:
        _package()
        super().__init__(os.path.expandvars(save_dir), _expanded(name), _expanded(version), prefix)
        self._log_graph = log_graph
        self._default_hp_metric = default_hp_metric
        self._sub_dir = None if sub_dir is None else os.path.expandvars(sub_dir)
        self._kwargs = kwargs
        self._experiment: SummaryWriter | None = None
        self.hparams: dict[str, Any] = {}
        self._hparams_on_disk = False

    @property
    def sub_dir(self) -> str | None:
        """A folder below the version's, for several loggers of one run."""
        return self._sub_dir

    @property
    def log_dir(self) -> str:
        return str(path_of(self._version_dir) / (self.sub_dir or ""))

    @property
    @rank_zero_experiment
    def experiment(self) -> SummaryWriter:
        """The SummaryWriter; made, with its folder, when first asked for."""
        if self._experiment is None:
            self.take_version()
            writer_of = importlib.import_module(_package()).SummaryWriter
            self._experiment = writer_of(log_dir=self.log_dir, **self._kwargs)
        return self._experiment

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_experiment": None}

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        for name, value in with_prefix(metrics, self._prefix, self.LOGGER_JOIN_CHAR).items():
            if isinstance(value, dict):
                self.experiment.add_scalars(name, value, step)
            else:
                self._add_scalar(name, plain(name, value), step)
        self.experiment.flush()  # else a process that is killed takes what was logged in the last two minutes along

    def _add_scalar(self, name: str, value: Any, step: int | None) -> None:
        try:
            self.experiment.add_scalar(name, value, step)
        except (TypeError, ValueError, NotImplementedError, AssertionError) as error:
            raise ValueError(
                f"TensorBoard takes numbers; {name!r} is {value!r} of type {type(value).__name__}. Log a number, or "
                "use logger.experiment for text, images and the like."
            ) from error

    @rank_zero_only
    def log_hyperparams(
        self,
        params: dict[str, Any] | argparse.Namespace,
        metrics: dict[str, Any] | None = None,
        step: int | None = None,
    ) -> None:
        """Take hyper-parameters, and the metrics that TensorBoard's HPARAMS page compares them by.

        Without metrics it gets `hp_metric`, -1 until you log one of that name; `default_hp_metric=False` leaves it out.
        """
        params = as_dict(params)
        self.hparams.update(params)
        self._hparams_on_disk = False
        if metrics is None:
            metrics = {"hp_metric": -1} if self._default_hp_metric else {}
        elif not isinstance(metrics, dict):
            metrics = {"hp_metric": metrics}
        if metrics:
            self.log_metrics(metrics, 0 if step is None else step)
            writer: Any = self.experiment._get_file_writer()
            hparams = importlib.import_module(f"{_package()}.summary").hparams
            for summary in hparams(_as_tensorboard_takes(params), metrics):
                writer.add_summary(summary)
        self.take_version()
        self.save()

    @rank_zero_only
    def log_graph(self, model: nn.Module, input_array: Tensor | None = None) -> None:
        """Draw the model's graph, where `log_graph=True`; the module's `example_input_array` is sent through it."""
        if not self._log_graph:
            return
        example = input_array if input_array is not None else getattr(model, "example_input_array", None)
        if example is None:
            rank_zero_warn(
                "TensorBoardLogger(log_graph=True) needs an input to trace: set self.example_input_array in the module."
            )
            return
        example = _transferred(model, example)
        with seen_by_torchscript():
            if isinstance(example, dict):
                self.experiment.add_graph(_ByName(model, list(example)), tuple(example.values()))
            else:
                self.experiment.add_graph(model, example)

    @rank_zero_only
    def save(self) -> None:
        """Bring what was logged so far to disk, and hparams.yaml beside it."""
        if self._experiment is not None:
            self._experiment.flush()
        if self._hparams_are_ours and not self._hparams_on_disk:
            save_hparams_to_yaml(path_of(self.log_dir) / self.NAME_HPARAMS_FILE, self.hparams)
            self._hparams_on_disk = True

    @rank_zero_only
    def resume_from_step(self, step: int) -> None:
        """Tell TensorBoard to hide what an interrupted run logged for later steps."""
        if not path_of(self.log_dir).is_dir():
            return
        writer: Any = self.experiment._get_file_writer()
        proto = "tensorboardX.proto" if _package() == "tensorboardX" else "tensorboard.compat.proto"
        events = importlib.import_module(f"{proto}.event_pb2")
        writer.add_event(events.Event(step=step, file_version="brain.Event:2"))
        start = events.SessionLog(status=events.SessionLog.START)
        writer.add_event(events.Event(step=step, session_log=start))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if self._experiment is None:
            return
        self._experiment.close()
        self.save()


class _ByName(nn.Module):
    """Calls a module by the names of its inputs; a graph is traced by their order alone."""

    def __init__(self, module: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.module, self.names, self.training = module, names, module.training

    def forward(self, *inputs: Any) -> Any:
        return self.module(**dict(zip(self.names, inputs, strict=True)))


def _expanded(part: Any) -> Any:
    return os.path.expandvars(part) if isinstance(part, str) else part


def _transferred(model: nn.Module, example: Any) -> Any:
    """The example as a step gets its batch."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    if not isinstance(model, LightningModule) or model._trainer is None:  # who says how it is transferred
        return move_data_to_device(example, device)
    example = model.on_before_batch_transfer(example, 0)
    example = model.transfer_batch_to_device(example, device, 0)
    return model.on_after_batch_transfer(example, 0)


def _as_tensorboard_takes(params: dict[str, Any]) -> dict[str, Any]:
    """Flat, and text for whatever is neither number nor word."""
    return {
        name: value if isinstance(value, (bool, int, float, str)) else str(value)
        for name, value in ((name, _single(value)) for name, value in flat(params).items())
    }


def _single(value: Any) -> Any:
    """The number in a tensor or array of one element."""
    size = value.numel() if isinstance(value, Tensor) else getattr(value, "size", None)
    return value.item() if size == 1 and hasattr(value, "item") else value


def _package() -> str:
    """What writes event files: TensorBoard through torch, or else tensorboardX."""
    if importlib.util.find_spec("tensorboard") is not None:
        return "torch.utils.tensorboard"
    if importlib.util.find_spec("tensorboardX") is not None:
        return "tensorboardX"
    raise ModuleNotFoundError("TensorBoardLogger needs tensorboard: pip install 'fulgurite[tensorboard]'")
