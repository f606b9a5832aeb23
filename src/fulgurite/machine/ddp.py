"""DistributedDataParallel: the whole model on every process, gradients averaged in the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fulgurite.machine.averaging import Averaging
from fulgurite.machine.distributed import DEFAULT_TIMEOUT, DistributedStrategy
from fulgurite.machine.environments import ClusterEnvironment
from fulgurite.machine.precision import Precision
from fulgurite.machine.strategy import NOTHING, TorchCheckpointIO
from fulgurite.machine.weights import unshared
from fulgurite.utilities.exceptions import MisconfigurationException

if TYPE_CHECKING:
    from fulgurite.core.module import LightningModule
    from fulgurite.run import Run
    from fulgurite.trainer import Trainer


class _Steps(nn.Module):
    """What DDP wraps: a module whose forward is one of the module's steps."""

    def __init__(self, module: LightningModule) -> None:
        super().__init__()
        self.module = module
        self._ddp_params_and_buffers_to_ignore = [f"module.{name}" for name in unshared(module)]

    def forward(self, name: str, *args: Any) -> Any:
        return getattr(self.module, name)(*args) if name else self.idle()

    def idle(self) -> Tensor:
        """0, of which every parameter has a gradient of zeros."""
        ignored = self._ddp_params_and_buffers_to_ignore
        shared = [p for name, p in self.named_parameters() if p.requires_grad and name not in ignored]
        return torch.stack([p.flatten()[:0].sum().float() for p in shared]).sum()


def _trained(module: nn.Module) -> list[nn.Parameter]:
    ignored = unshared(module)
    return [p for name, p in module.named_parameters() if p.requires_grad and name not in ignored]


class DDPStrategy(DistributedStrategy):
    """Several processes, each with the whole model and its share of every batch.

    Args:
        accelerator: an Accelerator of your own; else the trainer's counts.
        parallel_devices: the devices of this machine, a process each; by default the trainer's.
        cluster_environment: who started the processes; by default found out.
        checkpoint_io: how checkpoints reach the disk.
        precision_plugin: how numbers are computed; or the trainer's `precision`.
        ddp_comm_state: the state of `ddp_comm_hook`.
        ddp_comm_hook: a communication hook of torch.distributed.algorithms.ddp_comm_hooks.
        ddp_comm_wrapper: wraps the hook, such as `fp16_compress_wrapper`.
        model_averaging_period: not supported.
        process_group_backend: "gloo" or "nccl"; by default the one of the device.
        timeout: after which a collective that does not complete is an error.
        start_method: "popen" runs the script again for each process, "spawn" and "fork" call one function.
        compare_weights: at the end of each training epoch, an error where processes hold different weights.
        **ddp_kwargs: for torch's DistributedDataParallel, such as `find_unused_parameters=True`.
    """

    compares_calls = True
    keeps_gradients_apart = True

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
        compare_weights: bool = True,
        **ddp_kwargs: Any,
    ) -> None:
        super().__init__(
            parallel_devices, cluster_environment, checkpoint_io, process_group_backend, timeout, start_method
        )
        self.accelerator, self.precision_plugin = accelerator, precision_plugin
        if model_averaging_period is not None:
            raise NotImplementedError(
                f"model_averaging_period={model_averaging_period} is not supported: gradients are averaged at each "
                "step. Leave it out."
            )
        self.ddp_comm_state, self.ddp_comm_hook = ddp_comm_state, ddp_comm_hook
        self.ddp_comm_wrapper = ddp_comm_wrapper
        self.compare_weights = compare_weights
        self.ddp_kwargs = ddp_kwargs
        self._ddp: DistributedDataParallel | None = None  # also where there is nothing to train
        self._trained: list[nn.Parameter] = []  # what DDP knows of
        self._averaging: Averaging | None = None
        self._steps_communicate = False  # a training step waits for those of other processes

    def setup(self, trainer: Trainer) -> None:
        """Move the module to its device; where it trains, wrap it."""
        self.model_to_device()
        if trainer.state.fn == "fit":
            if trainer.sync_batchnorm:
                self._sync_batchnorm(self._module)
            self._wrap(self._module)

    def _sync_batchnorm(self, module: LightningModule) -> None:
        if self.root_device.type == "cpu":
            raise MisconfigurationException(
                "sync_batchnorm=True on the CPU: torch's SyncBatchNorm is for GPUs. Leave it out, or use "
                "torch.nn.GroupNorm or LayerNorm, which need no statistics of other samples."
            )
        nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]  # torch has no hints here
        self._steps_communicate = True

    def _wrap(self, module: LightningModule) -> None:
        self._trained = _trained(module)
        if not self._trained:
            self.model, self._ddp = module, None
            return  # DDP refuses a module without gradients; there is nothing to exchange
        devices = [self.root_device] if self.root_device.type == "cuda" else None
        try:
            kwargs = {"process_group": self.gradient_group, **self.ddp_kwargs}
            ddp = DistributedDataParallel(_Steps(module), device_ids=devices, **kwargs)
        except TypeError as error:
            raise TypeError(
                f"{error}. {type(self).__name__} hands {', '.join(self.ddp_kwargs)} on to torch's "
                "DistributedDataParallel, which does not take it."
            ) from None
        if self.communication_hook is not None:
            ddp.register_comm_hook(self.ddp_comm_state, self.communication_hook)
        self.model = self._ddp = ddp

    def renew(self) -> None:
        """Wrap anew where parameters were frozen or unfrozen: DDP knows those of its construction."""
        trained = _trained(self._module)
        if len(trained) != len(self._trained) or any(a is not b for a, b in zip(trained, self._trained, strict=True)):
            self._wrap(self._module)

    def step(self, name: str) -> Callable[..., Any]:
        """The training step goes through DDP; every other calls the bare module, whatever other processes do."""
        manual = not self._module.automatic_optimization  # runs backward inside the step
        if name != "training_step" or manual or self._ddp is None:
            return super().step(name)
        return lambda *args: self._ddp(name, *args)  # type: ignore[misc]  # there is one until teardown

    def idle_step(self) -> Tensor | None:
        own_steps = not self._module.automatic_optimization or self._steps_communicate
        if own_steps or self._ddp is None or self.ddp_kwargs.get("static_graph"):
            return None
        return self._ddp("")  # type: ignore[no-any-return]  # a tensor

    def averaging(self, run: Run) -> Averaging:
        """Of manual optimization, whose steps do not go through DDP."""
        if self._averaging is None:
            ignored = unshared(run.module)
            self._averaging = Averaging(run, self, [p for n, p in run.module.named_parameters() if n in ignored])
        return self._averaging

    @property
    def exchanges_gradients(self) -> bool:
        """Whether a backward pass averages; not inside `no_sync`."""
        return self._ddp is None or bool(self._ddp.require_backward_grad_sync)

    @property
    def communication_hook(self) -> Callable[..., Any] | None:
        hook, wrapper = self.ddp_comm_hook, self.ddp_comm_wrapper
        return wrapper(hook) if hook is not None and wrapper is not None else hook

    def share_buffers(self) -> None:
        """Every process evaluates the buffers that a checkpoint would hold: batch-norm statistics of process 0."""
        if self._ddp is None or not self._ddp.broadcast_buffers:
            return
        buffers = [buffer for buffer in self._module.buffers() if buffer.numel()]
        for dtype in dict.fromkeys(buffer.dtype for buffer in buffers):
            same = [buffer for buffer in buffers if buffer.dtype == dtype]
            flat = torch.cat([buffer.detach().reshape(-1) for buffer in same])
            dist.broadcast(flat, 0)
            for buffer, part in zip(same, torch.split(flat, [buffer.numel() for buffer in same]), strict=True):
                buffer.copy_(part.view_as(buffer))

    def all_gather(self, tensor: Tensor, group: Any = None, sync_grads: bool = False) -> Tensor:
        if self.lightning_module is not None and self.lightning_module.trainer.training:
            self._steps_communicate = True
        return super().all_gather(tensor, group, sync_grads)

    def what_went_wrong(self, error: RuntimeError) -> RuntimeError | None:
        if "finished reduction in the prior iteration" not in str(error):
            return None
        return self.unused([p for p in self._trained if p.grad is None])

    def unused(self, parameters: list[nn.Parameter]) -> RuntimeError | None:
        """The error that names parameters which got no gradient; None where that is allowed, or there are none."""
        if self.ddp_kwargs.get("find_unused_parameters") or not parameters:
            return None
        names = {id(p): name for name, p in self._module.named_parameters()}
        unused = [names[id(p)] for p in parameters if id(p) in names]
        shown = ", ".join(unused[:8]) + (f" and {len(unused) - 8} more" if len(unused) > 8 else "")
        return RuntimeError(
            f"{len(unused)} parameter{'s' * (len(unused) != 1)} got no gradient on process {self.global_rank}: "
            f"{shown}. The other processes wait for it. If that is meant, write "
            "strategy='ddp_find_unused_parameters_true'; else use them in the loss, remove them, or set "
            "requires_grad=False."
        )

    def gradient_sync(self, stepping: bool) -> AbstractContextManager[Any]:
        return NOTHING if stepping or self._ddp is None else self._ddp.no_sync()

    def teardown(self) -> None:
        """Unwrap: the module's parameters lose DDP's hooks."""
        if self._averaging is not None:
            self._averaging.close()
        self.model, self._ddp, self._trained, self._averaging = self.lightning_module, None, [], None
        super().teardown()
