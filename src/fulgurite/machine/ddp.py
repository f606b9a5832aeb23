"""DistributedDataParallel: the whole model on every process, gradients averaged in the backward pass."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from fulgurite.machine.distributed import DEFAULT_TIMEOUT, DistributedStrategy
from fulgurite.utilities.exceptions import MisconfigurationException

if TYPE_CHECKING:
    from fulgurite.core.module import LightningModule
    from fulgurite.machine.environments import ClusterEnvironment
    from fulgurite.machine.precision import Precision
    from fulgurite.machine.strategy import TorchCheckpointIO

_NOTHING = contextlib.nullcontext()
START_METHODS = ("popen", "spawn", "fork", "forkserver")


class _Steps(nn.Module):
    """What DDP wraps: a module whose forward is one of the module's steps."""

    def __init__(self, module: LightningModule) -> None:
        super().__init__()
        self.module = module

    def forward(self, name: str, *args: Any) -> Any:
        return getattr(self.module, name)(*args)


class DDPStrategy(DistributedStrategy):
    """Several processes, each with the whole model and its share of every batch.

    Args:
        accelerator: accepted for Lightning's signature; the trainer's own counts.
        parallel_devices: the devices of this machine, a process each; by default the trainer's.
        cluster_environment: who started the processes; by default found out.
        checkpoint_io: how checkpoints reach the disk.
        precision_plugin: accepted for Lightning's signature; pass it in the trainer's `plugins`.
        ddp_comm_state: the state of `ddp_comm_hook`.
        ddp_comm_hook: a communication hook of torch.distributed.algorithms.ddp_comm_hooks.
        ddp_comm_wrapper: wraps the hook, such as `fp16_compress_wrapper`.
        model_averaging_period: not supported.
        process_group_backend: "gloo" or "nccl"; by default the one of the device.
        timeout: after which a collective that does not complete is an error.
        start_method: "popen" runs the script again for each process, "spawn" and "fork" call one function.
        **ddp_kwargs: for torch's DistributedDataParallel, such as `find_unused_parameters=True`.
    """

    def __init__(
        self,
        accelerator: Any = None,
        parallel_devices: list[torch.device] | None = None,
        cluster_environment: ClusterEnvironment | None = None,
        checkpoint_io: TorchCheckpointIO | None = None,
        precision_plugin: Precision | None = None,
        ddp_comm_state: object = None,
        ddp_comm_hook: Callable[..., Any] | None = None,
        ddp_comm_wrapper: Callable[..., Any] | None = None,
        model_averaging_period: int | None = None,
        process_group_backend: str | None = None,
        timeout: timedelta | None = DEFAULT_TIMEOUT,
        start_method: str = "popen",
        **ddp_kwargs: Any,
    ) -> None:
        super().__init__(
            accelerator,
            parallel_devices,
            cluster_environment,
            checkpoint_io,
            precision_plugin,
            process_group_backend,
            timeout,
        )
        if model_averaging_period is not None:
            raise NotImplementedError(
                f"model_averaging_period={model_averaging_period} is not supported: gradients are averaged at each "
                "step. Leave it out."
            )
        if start_method not in START_METHODS:
            raise MisconfigurationException(f"start_method={start_method!r} is not one of {', '.join(START_METHODS)}.")
        self.start_method = start_method
        self.ddp_comm_state, self.ddp_comm_hook = ddp_comm_state, ddp_comm_hook
        self.ddp_comm_wrapper = ddp_comm_wrapper
        self.ddp_kwargs = ddp_kwargs
        self._ddp: DistributedDataParallel | None = None

    def setup(self, module: LightningModule) -> nn.Module:
        """Move the module to its device; where it trains, wrap it."""
        self.lightning_module = module
        module.to(self.root_device)
        self.model = module
        trains = module.trainer.state.fn == "fit" and any(p.requires_grad for p in module.parameters())
        if trains:
            self.model = self._ddp = self._wrapped(module)
        return self.model

    def _wrapped(self, module: LightningModule) -> DistributedDataParallel:
        devices = [self.root_device] if self.root_device.type == "cuda" else None
        try:
            ddp = DistributedDataParallel(_Steps(module), device_ids=devices, **self.ddp_kwargs)
        except TypeError as error:
            raise TypeError(
                f"{error}. {type(self).__name__} hands {', '.join(self.ddp_kwargs)} on to torch's "
                "DistributedDataParallel, which does not take it."
            ) from None
        if self.ddp_comm_hook is not None:
            hook = self.ddp_comm_hook
            ddp.register_comm_hook(self.ddp_comm_state, self.ddp_comm_wrapper(hook) if self.ddp_comm_wrapper else hook)
        return ddp

    def step(self, name: str) -> Callable[..., Any]:
        """The training step goes through DDP; every other calls the bare module, whatever other processes do."""
        if name != "training_step" or self._ddp is None:
            return super().step(name)
        ddp = self._ddp
        return lambda *args: ddp(name, *args)

    def gradient_sync(self, stepping: bool) -> AbstractContextManager[Any]:
        return _NOTHING if stepping or self._ddp is None else self._ddp.no_sync()

    def teardown(self) -> None:
        """Unwrap: the module's parameters lose DDP's hooks."""
        self.model, self._ddp = self.lightning_module, None
        super().teardown()
