"""Members that classes had in the 1.x era, and the trainer's private parts that libraries reach into."""

from __future__ import annotations

import inspect
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from fulgurite.compat.argparsing import add_argparse_args, from_argparse_args
from fulgurite.compat.era import say

if TYPE_CHECKING:
    from typing_extensions import Self

    from fulgurite.core.module import LightningModule
    from fulgurite.trainer import Trainer


def _now(new: str) -> Any:
    """A property of the 1.x era that has another name today."""

    class Renamed:
        def __set_name__(self, owner: type, name: str) -> None:
            self.old = name

        def __get__(self, trainer: Any, owner: type | None = None) -> Any:
            if trainer is None:
                return self
            say(f"trainer.{self.old}", f"Write trainer.{new}.")
            return attrgetter(new)(trainer)

        def __set__(self, trainer: Any, value: Any) -> None:
            say(f"trainer.{self.old}", f"Write trainer.{new}.")
            setattr(trainer, new, value)

    return Renamed()


class Connector:
    """One of Lightning's connectors, as far as libraries look into it: the trainer itself under other names.

    What the trainer has no name for is given as a function of it.
    """

    def __init__(self, trainer: Trainer, **names: str | Callable[[Any], Any]) -> None:
        self.__dict__.update(trainer=trainer, _names=names)

    def __getattr__(self, name: str) -> Any:
        ours = self._names.get(name, name)
        return ours(self.trainer) if callable(ours) else getattr(self.trainer, ours)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.trainer, self._names.get(name, name), value)


class OldMembers:
    """What the trainer answers to besides its own names."""

    running_sanity_check = _now("sanity_checking")
    training_type_plugin = _now("strategy")
    root_gpu = _now("local_rank")
    proc_rank = _now("global_rank")
    data_parallel_device_ids = _now("device_ids")
    train_loop = _now("fit_loop")
    progress_bar_dict = _now("progress_bar_metrics")
    weights_save_path = _now("default_root_dir")
    val_dataloader = _now("val_dataloaders")
    test_dataloader = _now("test_dataloaders")
    resume_from_checkpoint = _now("ckpt_path")
    batch_idx = _now("fit_loop.batch_idx")
    total_batch_idx = _now("fit_loop.total_batch_idx")

    _for_modules: dict[str, Any]

    @property
    def num_gpus(self: Any) -> int:
        """How many GPUs are in use."""
        say("trainer.num_gpus", "Write trainer.num_devices.")
        return int(self.num_devices) if self.strategy.root_device.type == "cuda" else 0

    @property
    def gpus(self: Any) -> Any:
        """How many GPUs are in use; None without."""
        return self.num_gpus or None

    @property
    def on_gpu(self: Any) -> bool:
        """Whether training is on a GPU."""
        return bool(self.num_gpus > 0)

    @property
    def lr_schedulers(self: Any) -> list[dict[str, Any]]:
        """Scheduler configurations as dictionaries."""
        say("trainer.lr_schedulers", "Write trainer.lr_scheduler_configs.")
        return [dict(vars(config)) for config in self.lr_scheduler_configs]

    @property
    def tuner(self: Any) -> Any:
        """Searches for a learning rate or a batch size."""
        say("trainer.tuner", "Write Tuner(trainer).")
        return self._tuner

    @property
    def disable_validation(self: Any) -> bool:
        """Whether fit will not validate."""
        return not self.enable_validation

    @property
    def evaluation_loop(self: Any) -> Any:
        """The loop of validation."""
        say("trainer.evaluation_loop", "Write trainer.validate_loop.")
        return self.validate_loop

    def get_model(self: Any) -> LightningModule:
        """The module."""
        say("trainer.get_model()", "Write trainer.lightning_module.")
        return self.lightning_module  # type: ignore[no-any-return]  # the trainer's own property says so

    # private parts
    @property
    def _accelerator_connector(self: Any) -> Any:
        return Connector(
            self,
            is_distributed=lambda trainer: trainer.world_size > 1,
            _accelerator_flag=lambda trainer: trainer.accelerator.name(),
            _devices_flag="num_devices",
            _parallel_devices=lambda trainer: [trainer.strategy.root_device],
            parallel_devices=lambda trainer: [trainer.strategy.root_device],
            cluster_environment=lambda _: None,
        )

    @property
    def _data_connector(self: Any) -> Any:
        return Connector(self)

    @property
    def _checkpoint_connector(self: Any) -> Any:
        return Connector(self, _hpc_resume_path=lambda _: None, _ckpt_path="ckpt_path", dump_checkpoint="_dump")

    def _dump(self: Any, weights_only: bool = False) -> dict[str, Any]:
        """What `save_checkpoint` would write."""
        from fulgurite.checkpoint import dump
        from fulgurite.compat.loops import loops_of

        return dump(self, self._run, loops_of, bool(weights_only))

    @property
    def _logger_connector(self: Any) -> Any:
        return Connector(
            self,
            _callback_metrics="callback_metrics",
            _logged_metrics="logged_metrics",
            _progress_bar_metrics="progress_bar_metrics",
        )

    logger_connector = _logger_connector
    _callback_connector = _data_connector
    _signal_connector = _data_connector
    accelerator_connector = _accelerator_connector
    checkpoint_connector = _checkpoint_connector
    data_connector = _data_connector

    @property
    def _evaluation_loop(self: Any) -> Any:
        return self.validate_loop

    # command lines
    @classmethod
    def add_argparse_args(cls, parent_parser: ArgumentParser, **kwargs: Any) -> ArgumentParser:
        """Add an option for each argument of the trainer; of the 1.x era."""
        return add_argparse_args(cls, parent_parser, **kwargs)

    @classmethod
    def from_argparse_args(cls, args: Namespace | ArgumentParser, **kwargs: Any) -> Self:
        """A trainer made of what was parsed; of the 1.x era."""
        return from_argparse_args(cls, args, **kwargs)

    @classmethod
    def default_attributes(cls) -> dict[str, Any]:
        """The default of each argument; of the 1.x era."""
        parameters = inspect.signature(cls).parameters.values()
        return {p.name: p.default for p in parameters}
