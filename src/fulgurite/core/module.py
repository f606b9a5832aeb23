"""The module: a network, and what happens to one batch of data."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fulgurite.compat.inherited import OldModule
from fulgurite.core.hparams import HyperparametersMixin
from fulgurite.core.saving import ModelIO
from fulgurite.hooks import LOOKED_UP, Watched
from fulgurite.utilities.exceptions import MisconfigurationException
from fulgurite.utilities.model_helpers import in_eval_mode
from fulgurite.utilities.rank_zero import rank_zero_warn, warn_once
from fulgurite.utilities.tree import apply_to_collection, move_data_to_device

if TYPE_CHECKING:
    from fulgurite.callbacks.callback import Callback
    from fulgurite.loggers.logger import Logger
    from fulgurite.optimizers import LightningOptimizer
    from fulgurite.trainer import Trainer


@contextlib.contextmanager
def seen_by_torchscript() -> Iterator[None]:
    """While TorchScript looks at a module: at every attribute, the trainer's that is not there among them."""
    LightningModule._jit_is_scripting = True
    try:
        yield
    finally:
        LightningModule._jit_is_scripting = False


class LightningModule(Watched, OldModule, HyperparametersMixin, ModelIO, nn.Module):
    """Say what happens to one batch; a `Trainer` does the rest.

    At the least override `training_step` and `configure_optimizers`::

        class Classifier(LightningModule):
            def __init__(self):
                super().__init__()
                self.net = nn.Linear(28 * 28, 10)

            def training_step(self, batch, batch_idx):
                x, y = batch
                loss = nn.functional.cross_entropy(self.net(x.flatten(1)), y)
                self.log("train_loss", loss)
                return loss

            def configure_optimizers(self):
                return torch.optim.Adam(self.parameters(), lr=1e-3)
    """

    CHECKPOINT_HYPER_PARAMS_KEY = "hyper_parameters"
    CHECKPOINT_HYPER_PARAMS_NAME = "hparams_name"
    CHECKPOINT_HYPER_PARAMS_TYPE = "hparams_type"

    __jit_unused_properties__ = [
        "example_input_array",
        "on_gpu",
        "current_epoch",
        "global_step",
        "global_rank",
        "local_rank",
        "logger",
        "loggers",
        "automatic_optimization",
        "trainer",
        "fabric",
        "strict_loading",
        "device_mesh",
        "hparams",
        "hparams_initial",
    ]
    __jit_ignored_attributes__ = ["_hparams", "_hparams_initial"]
    unshared_weights: Collection[str] = ()  # parameters, or submodules with theirs, that each process trains by itself
    _jit_is_scripting = False  # see seen_by_torchscript

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._trainer: Trainer | None = None
        self._example_input_array: Any = None
        self._automatic_optimization = True
        self._strict_loading: bool | None = None
        self._device = torch.get_default_device()
        self._dtype = torch.get_default_dtype()
        self._toggled: dict[Tensor, bool] = {}

    # who and where
    @property
    def trainer(self) -> Trainer:
        """The trainer that runs this module."""
        trainer = self._trainer
        if trainer is None and not self._jit_is_scripting:
            raise RuntimeError(
                f"{type(self).__qualname__} is not attached to a `Trainer`. It is while fit, validate, test or "
                "predict runs, and afterwards."
            )
        return trainer  # type: ignore[return-value]  # None to TorchScript alone

    @trainer.setter
    def trainer(self, trainer: Trainer | None) -> None:
        for child in self.children():
            if isinstance(child, LightningModule):
                child.trainer = trainer  # type: ignore[assignment]  # the setter takes None, the getter never gives it
        self.__dict__["_trainer"] = trainer  # not through nn.Module.__setattr__, which is slow

    @property
    def fabric(self) -> None:
        """None: there is one API here, the Trainer's."""
        return None

    @property
    def current_epoch(self) -> int:
        """Epochs finished so far."""
        return self._trainer.current_epoch if self._trainer is not None else 0

    @property
    def global_step(self) -> int:
        """Optimizer steps taken so far."""
        return self._trainer.global_step if self._trainer is not None else 0

    @property
    def global_rank(self) -> int:
        """The number of this process among all."""
        return self._trainer.global_rank if self._trainer is not None else 0

    @property
    def local_rank(self) -> int:
        """The number of this process on its machine."""
        return self._trainer.local_rank if self._trainer is not None else 0

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self._device

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type the module was last moved to."""
        return self._dtype

    @property
    def on_gpu(self) -> bool:
        """Whether the parameters are on a CUDA device."""
        return self._device.type == "cuda"

    @property
    def device_mesh(self) -> Any:
        """The mesh of a strategy that shards over several dimensions, else None."""
        return getattr(self.trainer.strategy, "device_mesh", None) if self._trainer is not None else None

    @property
    def logger(self) -> Logger | None:
        """The first of the trainer's loggers."""
        return self._trainer.logger if self._trainer is not None else None

    @property
    def loggers(self) -> list[Logger]:
        """All of the trainer's loggers."""
        return self._trainer.loggers if self._trainer is not None else []

    @property
    def example_input_array(self) -> Any:
        """An input for `forward`, for the model summary, the logged graph and exports."""
        return self._example_input_array

    @example_input_array.setter
    def example_input_array(self, example: Any) -> None:
        self._example_input_array = example

    @property
    def automatic_optimization(self) -> bool:
        """Whether the trainer calls backward and step; set it to False in `__init__` to do so yourself."""
        return self._automatic_optimization

    @automatic_optimization.setter
    def automatic_optimization(self, automatic_optimization: bool) -> None:
        self._automatic_optimization = automatic_optimization

    @property
    def strict_loading(self) -> bool:
        """Whether a checkpoint must hold exactly this module's weights."""
        return self._strict_loading is None or self._strict_loading

    @strict_loading.setter
    def strict_loading(self, strict_loading: bool) -> None:
        self._strict_loading = strict_loading

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> LightningModule:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        moved = fn(torch.empty(0, device=self._device, dtype=self._dtype))
        self.__dict__.update(_device=moved.device, _dtype=moved.dtype)
        return self

    def __getstate__(self) -> dict[str, Any]:
        state = {**super().__getstate__(), "_trainer": None}  # type: ignore[no-untyped-call]  # torch leaves it untyped
        for name in LOOKED_UP & state.keys():  # as torch does with compile(): a copy is not compiled, and is itself
            state[name] = getattr(state[name], "_torchdynamo_orig_callable", state[name])
        return state

    # logging
    def log(
        self,
        name: str,
        value: Any,
        prog_bar: bool = False,
        logger: bool | None = None,
        on_step: bool | None = None,
        on_epoch: bool | None = None,
        reduce_fx: str | Callable[..., Any] = "mean",
        enable_graph: bool = False,
        sync_dist: bool = False,
        sync_dist_group: Any = None,
        add_dataloader_idx: bool = True,
        batch_size: int | None = None,
        metric_attribute: str | None = None,
        rank_zero_only: bool = False,
    ) -> None:
        """Log a number, a tensor of one element or a metric object (update, compute, reset).

        Args:
            name: its key in the loggers and in `trainer.callback_metrics`.
            value: what to log. A metric object is computed at the epoch's end and reset.
            prog_bar: show it in the progress bar.
            logger: write it to the loggers (default True).
            on_step: keep each step's value; on_epoch: reduce over the epoch. Defaults follow the hook: a training
                step logs by step, everything else by epoch.
            reduce_fx: "mean" (weighted by batch size), "sum", "min" or "max".
            enable_graph: keep the autograd graph of the value.
            sync_dist: the value of a training batch is that of all processes from `on_train_batch_end` on, which
                costs an exchange in each such batch; that of an evaluation batch once the evaluation is over. An
                epoch's value always is.
            sync_dist_group: not supported among several processes.
            add_dataloader_idx: add `/dataloader_idx_N` to the name when there are several evaluation loaders.
            batch_size: the weight in the epoch's mean; found in the batch when needed and not given.
            metric_attribute: where in the module a metric object is; found by itself.
            rank_zero_only: log on the first process only; nothing may then monitor it.

        Raises:
            MisconfigurationException: where nothing collects values (the message names the hook), or when one name is
                logged twice in a hook with different arguments.
        """
        trainer = self.__dict__["_trainer"]
        if trainer is None:
            warn_once(
                f"self.log({name!r}, ...) is called while {type(self).__qualname__} is not attached to a Trainer: "
                "nothing is logged."
            )
            return
        if sync_dist_group is not None and trainer.world_size > 1:
            raise NotImplementedError(
                f"self.log({name!r}, ..., sync_dist_group=...): logged values are over all processes. Log what "
                "self.trainer.strategy.reduce(value, group=...) gives."
            )
        trainer._results.log(
            name,
            value,
            (
                prog_bar,
                logger,
                on_step,
                on_epoch,
                reduce_fx,
                enable_graph,
                sync_dist,
                add_dataloader_idx,
                rank_zero_only,
            ),
            batch_size,
            metric_attribute,
        )

    def log_dict(
        self,
        dictionary: Mapping[str, Any],
        prog_bar: bool = False,
        logger: bool | None = None,
        on_step: bool | None = None,
        on_epoch: bool | None = None,
        reduce_fx: str | Callable[..., Any] = "mean",
        enable_graph: bool = False,
        sync_dist: bool = False,
        sync_dist_group: Any = None,
        add_dataloader_idx: bool = True,
        batch_size: int | None = None,
        rank_zero_only: bool = False,
    ) -> None:
        """Log each entry of a dictionary, or of a MetricCollection, with the same arguments; see `log`."""
        items: Any = dictionary.items
        if hasattr(dictionary, "compute_groups"):  # a MetricCollection: hand out the metrics, not copies of their state
            items = lambda: cast(Any, dictionary).items(copy_state=False)  # noqa: E731
        for name, value in items():
            self.log(
                name,
                value,
                prog_bar=prog_bar,
                logger=logger,
                on_step=on_step,
                on_epoch=on_epoch,
                reduce_fx=reduce_fx,
                enable_graph=enable_graph,
                sync_dist=sync_dist,
                sync_dist_group=sync_dist_group,
                add_dataloader_idx=add_dataloader_idx,
                batch_size=batch_size,
                rank_zero_only=rank_zero_only,
            )

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print once, not once a process, and without disturbing the progress bar."""
        if self._trainer is not None:
            self._trainer.print(*args, **kwargs)
        else:
            print(*args, **kwargs)

    def all_gather(self, data: Any, group: Any = None, sync_grads: bool = False) -> Any:
        """Collect tensors of all processes: each gets a new first dimension of the number of processes."""
        strategy = self.trainer.strategy
        if strategy.world_size == 1:
            return data
        as_tensors = apply_to_collection(data, (int, float), lambda x: torch.tensor(x, device=self.device))
        return apply_to_collection(as_tensors, Tensor, strategy.all_gather, group=group, sync_grads=sync_grads)

    # what happens to one batch
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The network, as in any nn.Module; the trainer calls it in the default `predict_step` only."""
        raise NotImplementedError(f"{type(self).__qualname__} does not define forward.")

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """What training does with one batch.

        Args:
            batch: what the training loader yields, on the device.
            batch_idx: its number in the epoch.

        Returns:
            the loss as a tensor with a gradient; or a dictionary that holds it under "loss"; or None to skip the batch.
        """
        rank_zero_warn("`training_step` must be implemented to be used with the Trainer")

    def validation_step(self, *args: Any, **kwargs: Any) -> Any:
        """What validation does with one batch; with several loaders it takes a `dataloader_idx` too."""

    def test_step(self, *args: Any, **kwargs: Any) -> Any:
        """What testing does with one batch; with several loaders it takes a `dataloader_idx` too."""

    def predict_step(self, *args: Any, **kwargs: Any) -> Any:
        """What predicting does with one batch: by default `self(batch)`."""
        return self(kwargs.get("batch", args[0] if args else None))

    # setting up
    def prepare_data(self) -> None:
        """Download or write data, once and not once a process; keep no state."""

    def setup(self, stage: str) -> None:
        """At the start of fit, validate, test or predict, in each process."""

    def teardown(self, stage: str) -> None:
        """At the end of fit, validate, test or predict, in each process."""

    def configure_model(self) -> None:
        """Create layers late, on their device and in their precision; called before each fit, test, ..."""

    def configure_callbacks(self) -> list[Callback] | Callback:
        """Callbacks that belong to this module; one of a class the trainer also has replaces the trainer's."""
        return []

    def configure_optimizers(self) -> Any:
        """The optimizer, or optimizers and schedulers.

        Returns:
            an Optimizer; a list of them; ([optimizers], [schedulers]); {"optimizer": ..., "lr_scheduler": ...,
            "monitor": ...}; a list of such dictionaries; or None. A scheduler may be a dictionary
            {"scheduler", "interval": "epoch" | "step", "frequency", "monitor", "strict", "name"}.
        """
        raise MisconfigurationException(
            f"{type(self).__qualname__} does not define configure_optimizers, which fit needs. For example:\n"
            "    def configure_optimizers(self):\n"
            "        return torch.optim.Adam(self.parameters(), lr=1e-3)"
        )

    # data
    def train_dataloader(self) -> Any:
        """The data of training: any iterable of batches, or a list or dictionary of them."""
        raise MisconfigurationException("`train_dataloader` must be implemented to be used with the Trainer")

    def val_dataloader(self) -> Any:
        """The data of validation: any iterable of batches, or a list of them."""
        raise MisconfigurationException("`val_dataloader` must be implemented to be used with the Trainer")

    def test_dataloader(self) -> Any:
        """The data of testing: any iterable of batches, or a list of them."""
        raise MisconfigurationException("`test_dataloader` must be implemented to be used with the Trainer")

    def predict_dataloader(self) -> Any:
        """The data to predict: any iterable of batches, or a list of them."""
        raise MisconfigurationException("`predict_dataloader` must be implemented to be used with the Trainer")

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Change a batch before it is moved to the device."""
        return batch

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move a batch of a type of your own; the default moves whatever has `.to`, inside any collection."""
        return move_data_to_device(batch, device)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Change a batch after it was moved to the device."""
        return batch

    # hooks of fit
    def on_fit_start(self) -> None:
        """Once a fit, before the sanity check."""

    def on_fit_end(self) -> None:
        """Once a fit, after training has ended."""

    def on_train_start(self) -> None:
        """After the sanity check, before the first epoch."""

    def on_train_end(self) -> None:
        """After the last epoch."""

    def on_train_epoch_start(self) -> None:
        """At the start of each epoch."""

    def on_train_epoch_end(self) -> None:
        """At the end of each epoch."""

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        """Before the training step of a batch; return -1 to skip the rest of the epoch."""

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """After a batch is done; `outputs` holds what training_step returned, its loss detached."""

    def on_before_zero_grad(self, optimizer: Optimizer) -> None:
        """Before gradients are set to zero."""

    def on_before_backward(self, loss: Tensor) -> None:
        """Before `loss.backward()`."""

    def on_after_backward(self) -> None:
        """After `loss.backward()`, before gradients are unscaled or clipped."""

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Before an optimizer steps; gradients are unscaled and not yet clipped."""

    # hooks of validation
    def on_validation_model_zero_grad(self) -> None:
        """Free the gradients' memory before validation."""
        self.zero_grad()

    def on_validation_model_eval(self) -> None:
        """Put the module in eval mode; the trainer has noted the mode of each submodule."""
        self.eval()

    def on_validation_model_train(self) -> None:
        """Put the module in training mode; unless overridden, each submodule goes back to its own mode instead."""
        self.train()

    def on_validation_start(self) -> None:
        """Before validation."""

    def on_validation_end(self) -> None:
        """After validation; its metrics are known."""

    def on_validation_epoch_start(self) -> None:
        """Before the first validation batch."""

    def on_validation_epoch_end(self) -> None:
        """After the last validation batch; may still log."""

    def on_validation_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Before the validation step of a batch."""

    def on_validation_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """After the validation step of a batch."""

    # hooks of test
    def on_test_model_eval(self) -> None:
        """Put the module in eval mode; the trainer has noted the mode of each submodule."""
        self.eval()

    def on_test_model_train(self) -> None:
        """Put the module in training mode; unless overridden, each submodule goes back to its own mode instead."""
        self.train()

    def on_test_start(self) -> None:
        """Before testing."""

    def on_test_end(self) -> None:
        """After testing; its metrics are known."""

    def on_test_epoch_start(self) -> None:
        """Before the first test batch."""

    def on_test_epoch_end(self) -> None:
        """After the last test batch; may still log."""

    def on_test_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Before the test step of a batch."""

    def on_test_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """After the test step of a batch."""

    # hooks of prediction
    def on_predict_model_eval(self) -> None:
        """Put the module in eval mode; the trainer has noted the mode of each submodule."""
        self.eval()

    def on_predict_model_train(self) -> None:
        """Put the module in training mode; unless overridden, each submodule goes back to its own mode instead."""
        self.train()

    def on_predict_start(self) -> None:
        """Before predicting."""

    def on_predict_end(self) -> None:
        """After predicting."""

    def on_predict_epoch_start(self) -> None:
        """Before the first batch to predict."""

    def on_predict_epoch_end(self) -> None:
        """After the last batch was predicted."""

    def on_predict_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Before the predict step of a batch."""

    def on_predict_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """After the predict step of a batch."""

    # hooks of checkpoints
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add to a checkpoint before it is written."""

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Read a checkpoint before its state is restored."""

    # optimization
    def optimizers(self, use_pl_optimizer: bool = True) -> Any:
        """The optimizer, or the list of several, for manual optimization.

        With `use_pl_optimizer` each counts its steps with the trainer; without, they are torch's own.
        """
        trainer = self.trainer
        optimizers: list[Any] = trainer._wrapped_optimizers if use_pl_optimizer else trainer.optimizers
        return optimizers[0] if len(optimizers) == 1 else list(optimizers)

    def lr_schedulers(self) -> Any:
        """The scheduler, the list of several, or None, for manual optimization."""
        schedulers = [config.scheduler for config in self.trainer.lr_scheduler_configs]
        if not schedulers:
            return None
        return schedulers[0] if len(schedulers) == 1 else schedulers

    def manual_backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """`loss.backward()` for manual optimization: scaled where the precision needs it, with the hooks around."""
        if self.automatic_optimization:
            raise MisconfigurationException(
                "manual_backward is for manual optimization: the trainer calls backward itself. Return the loss from "
                "training_step, or set self.automatic_optimization = False in __init__."
            )
        self.trainer._manual_backward(loss, *args, **kwargs)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Compute gradients of the loss; override to do it in your own way."""
        loss.backward(*args, **kwargs)  # type: ignore[no-untyped-call]  # torch leaves it untyped

    def toggle_optimizer(self, optimizer: Optimizer | LightningOptimizer) -> None:
        """Let only this optimizer's parameters require gradients, until `untoggle_optimizer`."""
        everyones = [p for o in self.trainer.optimizers for group in o.param_groups for p in group["params"]]
        self._toggled = {parameter: parameter.requires_grad for parameter in everyones}
        own = {parameter for group in optimizer.param_groups for parameter in group["params"]}
        for parameter in everyones:
            parameter.requires_grad = parameter in own and self._toggled[parameter]

    def untoggle_optimizer(self, optimizer: Optimizer | LightningOptimizer) -> None:
        """Undo `toggle_optimizer`."""
        for parameter, required in self._toggled.items():
            parameter.requires_grad = required
        self._toggled = {}

    @contextlib.contextmanager
    def toggled_optimizer(self, optimizer: Optimizer | LightningOptimizer) -> Iterator[None]:
        """`toggle_optimizer` inside the block."""
        self.toggle_optimizer(optimizer)
        try:
            yield
        finally:
            self.untoggle_optimizer(optimizer)

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Take one step; the closure runs training_step, zero_grad and backward. Override to change when or how."""
        optimizer.step(closure=optimizer_closure)

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Optimizer) -> None:
        """Set gradients to zero before backward."""
        optimizer.zero_grad()

    def lr_scheduler_step(self, scheduler: Any, metric: Any | None) -> None:
        """Step a scheduler; `metric` is its monitored value where it has one."""
        if metric is None:
            scheduler.step()
        else:
            scheduler.step(metric)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip gradients before a step; override to clip in your own way, e.g. by calling `clip_gradients`."""
        self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def clip_gradients(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradients of an optimizer's parameters by their common norm or by value."""
        self.trainer._clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    # weights
    def freeze(self) -> LightningModule:
        """No parameter requires a gradient, eval mode."""
        return self.requires_grad_(False).eval()

    def unfreeze(self) -> LightningModule:
        """Each parameter requires a gradient, training mode."""
        return self.requires_grad_(True).train()

    # exports
    @torch.no_grad()
    def to_onnx(self, file_path: str | Path | IO[bytes] | None = None, input_sample: Any = None, **kwargs: Any) -> Any:
        """Write the network as ONNX; `input_sample` defaults to `example_input_array`.

        Raises:
            ModuleNotFoundError: where the packages that torch needs for it are missing.
        """
        sample = self._export_sample(input_sample)
        with in_eval_mode(self):
            args = sample if isinstance(sample, tuple) else (sample,)
            return torch.onnx.export(self, args, f=file_path, **kwargs)  # type: ignore[arg-type]  # torch's own union

    @torch.no_grad()
    def to_torchscript(
        self, file_path: str | Path | None = None, method: str = "script", example_inputs: Any = None, **kwargs: Any
    ) -> Any:
        """Compile to TorchScript by scripting or tracing. torch deprecates TorchScript; prefer `torch.export`."""
        if method not in ("script", "trace"):
            raise ValueError(f"method={method!r} is not one of 'script' and 'trace'.")
        sample = self._export_sample(example_inputs) if method == "trace" else None
        with seen_by_torchscript(), in_eval_mode(self):
            if method == "script":
                compiled = torch.jit.script(self, **kwargs)
            else:
                compiled = torch.jit.trace(self, example_inputs=sample, **kwargs)  # type: ignore[no-untyped-call]  # as torch
        if file_path is not None:
            torch.jit.save(compiled, str(file_path))
        return compiled

    def _export_sample(self, given: Any) -> Any:
        sample = given if given is not None else self.example_input_array
        if sample is None:
            raise ValueError("an export needs an input: pass it, or set self.example_input_array in the module.")
        return move_data_to_device(sample, self.device)
