"""Where a step runs and who takes part: the strategy of a single device, and the base of those of many."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fulgurite.core.saving import read_checkpoint, write_checkpoint
from fulgurite.hooks import Watched
from fulgurite.machine.accelerators import Accelerator
from fulgurite.machine.precision import Precision
from fulgurite.utilities.cloud_io import remove
from fulgurite.utilities.tree import move_data_to_device

if TYPE_CHECKING:
    from fulgurite.core.module import LightningModule
    from fulgurite.run import Run
    from fulgurite.trainer import Trainer

T = TypeVar("T")
NOTHING = contextlib.nullcontext()


class TorchCheckpointIO:
    """How a checkpoint reaches the disk: whole or not at all. Subclass it and pass it in `plugins=[...]`."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        if storage_options is not None:
            raise TypeError(
                "storage_options is for a CheckpointIO of your own; the built-in one takes fsspec's configuration."
            )
        write_checkpoint(checkpoint, path)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return read_checkpoint(path, map_location=map_location, weights_only=weights_only)

    def remove_checkpoint(self, path: Any) -> None:
        remove(path)

    def teardown(self) -> None:
        """After the last save."""


class Strategy(Watched):
    """What the loop asks of the machine; each method is bound once, at the start of a stage.

    `training_step`, `backward`, `optimizer_step`, `batch_to_device` and the other steps are called where a subclass
    overrides them, or where one is assigned on the object; else the loop goes past them.
    """

    world_size = 1
    global_rank = 0
    local_rank = 0
    node_rank = 0
    num_processes = 1  # on this machine
    keeps_gradients_apart = False  # of a window of accumulation: each process its own, until the step
    by_itself = False  # an exception ends this process alone: it must wait for no other
    parallel_devices: list[torch.device] | None = None
    launcher: Any = None  # starts the processes that nobody has started; None where they are there
    precision_plugin: Precision | None = None  # given with it; else the trainer's own settings say it
    accelerator: Accelerator | None = None  # the same

    def __init__(self, root_device: torch.device | str = "cpu") -> None:
        self._root_device = torch.device(root_device)
        self.model: nn.Module | None = None  # as it is called: wrapped, or the module itself
        self.lightning_module: LightningModule | None = None
        self.checkpoint_io: TorchCheckpointIO = TorchCheckpointIO()

    @property
    def _module(self) -> LightningModule:
        assert self.lightning_module is not None
        return self.lightning_module

    @property
    def _run(self) -> Run:
        run = self._module.trainer._run
        assert run is not None
        return run

    @property
    def root_device(self) -> torch.device:
        """Where this process computes; a subclass may say another."""
        return self._root_device

    @property
    def is_global_zero(self) -> bool:
        return self.global_rank == 0

    @property
    def data_size(self) -> int:
        """How many shares the data has: a group of processes that split each layer sees one."""
        return self.world_size

    @property
    def data_rank(self) -> int:
        """The number of this process's share."""
        return self.global_rank

    def setup_environment(self) -> None:
        """Meet the other processes, where there are any."""

    def supervised(self, trainer: Trainer) -> AbstractContextManager[Any]:
        """Around a call of the trainer: failures of other processes are errors here, and ours are known there."""
        return NOTHING

    def setup(self, trainer: Trainer) -> None:
        """Put the module on its device, wrapped as it is to be called; `connect` has been called before."""
        raise NotImplementedError

    def model_to_device(self) -> None:
        """Move the module to its device."""
        self._module.to(self.root_device)

    def setup_optimizers(self, trainer: Trainer) -> None:
        """Ask the module for its optimizers and schedulers."""
        self._run.configure_optimizers()

    def process_dataloader(self, dataloader: Any) -> Any:
        """Each loader, before its first batch."""
        return dataloader

    def renew(self) -> None:
        """Before the first batch of an epoch: follow what its hooks have done to the module."""

    def step(self, name: str) -> Callable[..., Any]:
        """The module's `training_step` (or another step) as this strategy runs it."""
        return getattr(self.lightning_module, name)  # type: ignore[no-any-return]  # steps are callables

    def training_step(self, *args: Any) -> Any:
        """One training step of the module."""
        return self.step("training_step")(*args)

    def validation_step(self, *args: Any) -> Any:
        """One validation step of the module."""
        return self.step("validation_step")(*args)

    def test_step(self, *args: Any) -> Any:
        """One test step of the module."""
        return self.step("test_step")(*args)

    def predict_step(self, *args: Any) -> Any:
        """One predict step of the module."""
        return self.step("predict_step")(*args)

    def backward(self, closure_loss: Tensor, optimizer: Optimizer | None, *args: Any, **kwargs: Any) -> Tensor:
        """The backward pass of a loss, scaled; under manual optimization no optimizer is named."""
        self._module.backward(closure_loss, *args, **kwargs)
        return closure_loss

    def optimizer_step(
        self, optimizer: Optimizer, closure: Callable[[], Any], model: nn.Module | None = None, **kwargs: Any
    ) -> Any:
        """One step: the closure, which computes the loss and its gradients; unscaling, hooks, clipping; the step."""
        return self._run.take_step(optimizer, closure, **kwargs)

    def gradient_sync(self, stepping: bool) -> AbstractContextManager[Any]:
        """Around forward and backward; processes exchange gradients only where a step follows."""
        return NOTHING

    def in_company(self, batches: Iterable[T], is_over: Callable[[], bool]) -> Iterator[T]:
        """The batches of an evaluation, until `is_over`; processes may have different numbers of them."""
        return (batch for batch in batches if not is_over())

    def clip_grad_norm(self, parameters: list[Tensor], max_norm: float) -> Tensor:
        return torch.nn.utils.clip_grad_norm_(parameters, max_norm)

    def reduce(self, tensor: Any, group: Any = None, reduce_op: Any = "mean") -> Any:
        return tensor

    def all_gather(self, tensor: Tensor, group: Any = None, sync_grads: bool = False) -> Tensor:
        return tensor

    def broadcast(self, obj: T, src: int = 0) -> T:
        return obj

    def gather_objects(self, obj: T, call: str = "gather_objects", detail: str = "") -> list[T]:
        """The objects of all processes, in the order of their ranks, on all; all give the call the same name."""
        return [obj]

    def gather_of_shares(self, obj: T, call: str = "gather_of_shares", detail: str = "") -> list[T]:
        """The objects of one process for each share of the data, on all."""
        return self.gather_objects(obj, call, detail)[:: self.world_size // self.data_size]

    def barrier(self, name: str | None = None) -> None:
        """Wait for all processes."""

    def check_weights(self) -> None:
        """At the end of a training epoch: an error where processes that are to hold the same weights do not."""

    def batch_to_device(self, batch: Any, device: torch.device | None = None, dataloader_idx: int = 0) -> Any:
        """Move a batch, by the module's or data module's own hooks where there are any."""
        device = self.root_device if device is None else device
        run = getattr(getattr(self.lightning_module, "_trainer", None), "_run", None)
        return move_data_to_device(batch, device) if run is None else run.to_device(batch, device, dataloader_idx)

    def connect(self, model: LightningModule) -> None:
        """Know the module before a stage has set it up."""
        self.lightning_module = self.model = model

    # checkpoints
    def gathered(self, checkpoint: dict[str, Any]) -> dict[str, Any]:
        """The checkpoint as `save_checkpoint` takes it; every process calls it."""
        return checkpoint

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, **options: Any) -> None:
        """Every process calls it; the first one writes."""
        if self.is_global_zero:
            self.checkpoint_io.save_checkpoint(checkpoint, path, **options)
        self.barrier("save_checkpoint")

    def remove_checkpoint(self, path: Any) -> None:
        if self.is_global_zero:
            self.checkpoint_io.remove_checkpoint(path)

    def load_checkpoint(self, path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        return self.checkpoint_io.load_checkpoint(path, map_location="cpu", weights_only=weights_only)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The module's weights, for a checkpoint."""
        return self._module.state_dict()

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Take the module's weights from a checkpoint."""
        self._module.load_state_dict(checkpoint["state_dict"], strict=strict)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """An optimizer's state, for a checkpoint."""
        return optimizer.state_dict()

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Take the optimizers' states from a checkpoint."""
        for optimizer, state in zip(self._run.trainer.optimizers, checkpoint["optimizer_states"], strict=True):
            self.load_optimizer(optimizer, state)

    def load_optimizer(self, optimizer: Optimizer, state: dict[str, Any]) -> None:
        optimizer.load_state_dict(state)

    def placed(self, value: Any, like: Tensor) -> Any:
        """A tensor of a checkpoint where, and as, `like` is."""
        return value.to(like.device) if isinstance(value, Tensor) else value

    def on_exception(self, exception: BaseException) -> None:
        """When the run ends with an exception."""

    def teardown(self) -> None:
        """Give back what setup took; checkpoints are on disk then."""
        self.checkpoint_io.teardown()


class SingleDeviceStrategy(Strategy):
    """One process, one device: `training_step` is the module's own method, no frame between."""

    def __init__(
        self,
        device: torch.device | str = "cpu",
        accelerator: Accelerator | None = None,
        checkpoint_io: TorchCheckpointIO | None = None,
        precision_plugin: Precision | None = None,
    ) -> None:
        super().__init__(device)
        self.accelerator, self.precision_plugin = accelerator, precision_plugin
        if checkpoint_io is not None:
            self.checkpoint_io = checkpoint_io

    def setup(self, trainer: Trainer) -> None:
        self.model_to_device()
