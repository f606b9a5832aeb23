"""Run: what one call of fit, validate, test or predict needs, resolved once; and the predicates of the counters."""

from __future__ import annotations

import contextlib
import inspect
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer

from fulgurite.agreement import Agreement
from fulgurite.callbacks.callback import Callback
from fulgurite.checkpoint import exact_state
from fulgurite.core.datamodule import LightningDataModule
from fulgurite.core.module import LightningModule
from fulgurite.dataflow import DataFlow, moving, own_transfer
from fulgurite.hooks import Hooks, calls, for_module, inside, method_of, overrides, profiled, profiled_method, resolve
from fulgurite.machine.strategy import Strategy
from fulgurite.optimizers import LightningOptimizer, NoOptimizer, configured, gradients_of, parameters_of
from fulgurite.progress import Progress
from fulgurite.results import NoResults, Results, as_numbers, first_not_finite, warn_not_finite
from fulgurite.shards import WHOLE, Part
from fulgurite.shared_results import SharedNoResults, SharedResults
from fulgurite.states import RunningStage
from fulgurite.utilities.exceptions import MisconfigurationException
from fulgurite.utilities.loaders import check_loaders
from fulgurite.utilities.rank_zero import rank_zero_warn, warn_once
from fulgurite.utilities.tree import move_data_to_device
from fulgurite.utilities.types import LRSchedulerConfig

if TYPE_CHECKING:
    from fulgurite.loggers.logger import Logger
    from fulgurite.machine.distributed import DistributedStrategy
    from fulgurite.trainer import Trainer

STAGES = {
    "train": RunningStage.TRAINING,
    "validation": RunningStage.VALIDATING,
    "test": RunningStage.TESTING,
    "predict": RunningStage.PREDICTING,
}


def loader_hook(stage: str) -> str:
    """The name of the hook that gives the loaders of a stage."""
    return f"{STAGES[stage].dataloader_prefix}_dataloader"


@dataclass(frozen=True)
class Given:
    """Where a stage's loaders come from, instead of a hook: what the call was given."""

    loaders: Callable[[], Any]

    def __call__(self) -> Any:
        return self.loaders()


class Run:
    """One stage's resolved state. The loop reads plain attributes and asks the predicates; nothing is looked up."""

    module_base: type = LightningModule
    callback_base: type = Callback

    def __init__(
        self,
        trainer: Trainer,
        module: LightningModule,
        sources: dict[str, Any],
        before_step: Callable[[Run, Optimizer], None],
    ) -> None:
        self.trainer, self.module, self.sources = trainer, module, sources
        self.fx = ""  # the hook that is running: where `self.log` is
        self.profiler = trainer._active_profiler
        self.strategy, self.precision = trainer.strategy, trainer.precision_plugin
        self.device = self.strategy.root_device
        self.world_size = self.strategy.data_size  # as far as the data is concerned
        self.part = WHOLE  # of the batch in work: what it counts in the step of all processes
        self.metrics = trainer._metrics
        self.progress: Progress = trainer.progress
        self.accumulate_grad_batches = trainer.accumulate_grad_batches
        self.validates = trainer.enable_validation
        self.val_every: int | None = None  # batches between validations; None: at the epoch's end
        self.val_seconds: float | None = None
        self.sanity_batches: int | float = 0
        self.before_step = before_step
        self.step_optimizer = self.take_step
        self.first_output = self._first_output  # looks at the first thing that a training step returns
        self.around: dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]] = {}  # put around a step, by name
        self.is_resolved = self._resolving = self._checks_gradients = False
        self.in_sanity_check = False
        self.factor: float | Tensor = 1.0  # of the loss, so that each sample counts alike on whichever process
        self.weighs_itself: bool | None = None  # the step returns "weight"
        self.losses: deque[Tensor] = deque(maxlen=1000)  # since they were last looked at
        self._warned_not_finite = False
        self.left: dict[str, Any] | None = None  # where the run stood when it had nothing more to train
        self.optimizers: list[Optimizer] = []
        self.wrapped_optimizers: list[LightningOptimizer] = []
        self.schedulers: list[LRSchedulerConfig] = []
        self.predictions: list[list[Any]] = []
        self.transfer: Callable[[Any, int], Any] | None = None
        self.training = {"train"} <= set(sources)
        self.alone = self.strategy.world_size == 1
        self.results_class: type[Results] = NoResults if trainer.barebones else Results
        if not self.alone:
            self.results_class = SharedNoResults if trainer.barebones else SharedResults
        self.train_results = self.results_class(self, "train")
        self.eval_results: dict[str, Results] = {}
        self.use(self.train_results)
        self.data = DataFlow(self)
        self.limit_val_batches = math.inf  # what the user set is kept a loader, in the dataflow
        self.validated_time = time.monotonic()
        self.eval_hooks: dict[str, Hooks] = {}
        self.hooks = Hooks()
        self.agreement = Agreement(self)  # of several processes
        self.told: Trainer | Agreement = trainer if self.alone else self.agreement  # whose word to stop counts

    @property
    def callbacks(self) -> list[Callback]:
        return self.trainer.callbacks

    @property
    def called(self) -> tuple[object, ...]:
        """The objects whose methods this run calls."""
        return (self.module, self.trainer.datamodule, self.strategy, *self.callbacks)

    # resolving
    def begin(self) -> None:
        """From here on everything that the loop calls is known: the module is set up, and so are its optimizers."""
        self.is_resolved = True
        if self.training:
            self.fx = "training_step"
            self.as_output = self.first_output
            self.has_plateau = any(config.reduce_on_plateau for config in self.schedulers)
            self._checks_gradients = True  # before the first optimizer step
        self.resolve()

    def renew(self, name: str) -> None:
        """The method `name` of an object in `called` was assigned or deleted: it is used from now on."""
        if self._resolving:
            return
        if self.is_resolved and self.training and name in ("training_step", "automatic_optimization"):
            self.as_output = self.first_output
        self.resolve()

    def resolve(self) -> None:
        """Find whom to call, and decide what follows from it: at the start, at each epoch, and when one is assigned."""
        self._resolving = True
        try:
            self._find_sources()
            if self.is_resolved:
                self.transfer = own_transfer(self)
                for stage, hooks in self.eval_hooks.items():
                    self._resolve_evaluation(stage, hooks)
                if self.training:
                    self._resolve_hooks()
                    self._resolve_steps()
        finally:
            self._resolving = False

    def _find_sources(self) -> None:
        for stage, source in self.sources.items():
            if not isinstance(source, Given):
                self.sources[stage] = self.trainer._sources[stage] = self.trainer._find_source(stage)
        self.validates = self.trainer.enable_validation

    def _resolve_steps(self) -> None:
        module, strategy = self.module, self.strategy
        self.training_step = self._around("training_step", self._taking_batch_idx(self._step("training_step")))
        self.in_precision = self.precision.around("train") or contextlib.nullcontext
        self.backward = self._method("backward")
        if overrides(strategy, "backward", Strategy):
            self.backward = inside(self, "backward", self._profiled("backward", self._strategy_backward))
        if not self.alone:
            self.training_step = self._among_others(self.training_step)
            self.backward = self._counting_samples(self.backward)
        self.zero_grad = self._method("optimizer_zero_grad")
        self.optimizer_step = self._running_the_closure(module.optimizer_step)
        self.lr_scheduler_step = self._method("lr_scheduler_step")
        self.own_clipping = self._own("configure_gradient_clipping")
        self.step_optimizer = self._strategy_step if overrides(strategy, "optimizer_step", Strategy) else self.take_step
        self._find_plain_step()

    def _strategy_backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        optimizer = self.optimizers[0] if self.module.automatic_optimization else None
        self.strategy.backward(loss, optimizer, *args, **kwargs)

    def _strategy_step(self, optimizer: Optimizer, closure: Callable[[], Any] | None, **kwargs: Any) -> Any:
        return self.strategy.optimizer_step(optimizer, closure or _nothing, self.strategy.model, **kwargs)

    def configure_optimizers(self) -> None:
        optimizers, self.schedulers = configured(self.module)
        self.trainer._optimizers = optimizers
        self.trainer.lr_scheduler_configs = self.schedulers
        self.use_optimizers(optimizers)
        k = self.accumulate_grad_batches
        if k > 1 and any(isinstance(optimizer, LBFGS) for optimizer in optimizers):
            raise MisconfigurationException(
                f"LBFGS with accumulate_grad_batches={k}: it calls the closure several times a step, which would run "
                "one batch of the window only. Use accumulate_grad_batches=1."
            )
        for optimizer in optimizers:
            self.precision.check_clipping(optimizer, self.trainer.gradient_clip_val)

    def connect_precision(self) -> None:
        """Let a precision of the user's own look at what was set up; what it returns is trained."""
        trainer, model = self.trainer, self.strategy.model
        assert model is not None  # it was set up
        connected = self.precision.connect(model, trainer._optimizers, trainer.lr_scheduler_configs)
        self.strategy.model, trainer._optimizers, trainer.lr_scheduler_configs = connected
        if self.training:
            self.schedulers = trainer.lr_scheduler_configs
            self.use_optimizers(trainer._optimizers)

    def use_optimizers(self, optimizers: list[Optimizer]) -> None:
        """From here on these are stepped."""
        self.optimizers = optimizers or [NoOptimizer()]
        self.wrapped_optimizers = [LightningOptimizer(optimizer, self) for optimizer in self.optimizers]
        self._find_plain_step()

    def _find_plain_step(self) -> None:
        self.plain_step = (
            not overrides(self.module, "optimizer_step", LightningModule)
            and not overrides(self.strategy, "optimizer_step", Strategy)
            and self.precision.scaler is None
            and self.profiler is None
            and all(map(_ignores_loss, self.optimizers))
        )

    def begin_epoch(self) -> None:
        """Before the hooks of a new epoch: find methods patched on classes since, reload loaders that are due."""
        self.eval_hooks.clear()
        self.resolve()
        self.data.begin_epoch()

    def _resolve_hooks(self) -> None:
        """Find whom to call; among several processes, also where values are put together and stops agreed on."""
        hooks = self.hooks
        resolve(self, "train", hooks)
        if self._checks_gradients:
            hooks.on_before_optimizer_step = (self._check_gradients, *hooks.on_before_optimizer_step)
        hooks.on_train_epoch_end = (self._note_cut, *hooks.on_train_epoch_end)
        hooks.on_train_end = (self._note_end, *hooks.on_train_end)
        if self.alone:
            return
        together, agree = self._put_together, self.agreement.exchange
        hooks.on_train_start = (*hooks.on_train_start, agree)
        hooks.on_train_epoch_start = (*hooks.on_train_epoch_start, agree)
        hooks.on_train_batch_end = (cast(SharedResults, self.train_results).share_step, *hooks.on_train_batch_end)
        hooks.on_train_epoch_end = (
            self._note_cut,
            together,
            *calls(self, "on_train_epoch_end", before_monitors=(together,)),
        )

    def _note_cut(self) -> None:
        """An epoch is closed before its data were over: who goes on from here goes on in the middle of it."""
        done = self.progress
        if not done.is_last_batch:
            done.epoch_closed = False
            self.left = exact_state(self, still=True)
            done.epoch_closed = True

    def _note_end(self) -> None:
        if self.left is None or self.left["progress"]["total_batch"] != self.progress.total_batch:
            self.left = exact_state(self, still=True)

    def _put_together(self) -> None:
        cast(SharedResults, self.train_results).put_values_together()

    def _own(self, name: str) -> Callable[..., Any] | None:
        """The module's method where it is the user's own: `self.log` inside knows its name."""
        return for_module(self, name) if overrides(self.module, name, LightningModule) else None

    def _method(self, name: str) -> Callable[..., Any]:
        """The module's method, whoever has defined it."""
        if self.profiler is not None:
            return for_module(self, name)
        return self._own(name) or getattr(self.module, name)  # type: ignore[no-any-return]  # methods are callables

    def _step(self, name: str) -> Callable[..., Any]:
        """The module's step as the strategy runs it; through the method of that name where the strategy has its own."""
        own = overrides(self.strategy, name, Strategy)
        return self._profiled(name, getattr(self.strategy, name) if own else self.strategy.step(name))

    def _around(self, name: str, step: Callable[..., Any]) -> Callable[..., Any]:
        return self.around[name](step) if name in self.around else step

    def _profiled(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        return profiled(self, f"[Strategy]{type(self.strategy).__name__}.{name}", method)

    def profiled_fetch(self, fetch: Callable[[], Any]) -> Callable[[], Any]:
        return profiled(self, "[_TrainingEpochLoop].train_dataloader_next", fetch)

    def _taking_batch_idx(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """`training_step(batch)` without a batch_idx is allowed."""
        parameters = _parameters(self.module.training_step)
        if "dataloader_iter" in parameters:
            raise NotImplementedError(
                f"{type(self.module).__qualname__}.training_step takes dataloader_iter, and here every step is given "
                "its batch. Write training_step(self, batch, batch_idx); for other batches than the loader's own, "
                "pass any iterable of batches as the loader."
            )
        if _positions(self.module.training_step) > 1:
            return step
        return lambda batch, i: step(batch)

    def _running_the_closure(self, optimizer_step: Callable[..., None]) -> Callable[..., None]:
        """The module's `optimizer_step`, which must run the closure: forward and backward happen in it."""

        def step(epoch: int, batch_idx: int, optimizer: LightningOptimizer, closure: Callable[[], Any]) -> None:
            ran = False

            def noted() -> Any:
                nonlocal ran
                ran = True
                with torch.enable_grad():  # where the module's optimizer_step runs it under no_grad
                    return closure()

            optimizer_step(epoch, batch_idx, optimizer, noted)  # not a place of its own: training_step logs inside it
            if not ran:
                raise MisconfigurationException(
                    f"optimizer_step did not run its closure in batch {batch_idx}, so there was no forward and no "
                    f"backward. Call optimizer.step(closure=optimizer_closure), or optimizer_closure() where no step "
                    f"is wanted; {type(optimizer.optimizer).__name__}.step must call it, too."
                )

        return step

    # several processes
    def take(self, part: Part) -> None:
        """What the next batch counts in the step of all processes."""
        self.part = part
        if not self.alone:
            cast(SharedResults, self.train_results).own_batches += part.mine > 0
        self.factor = 1.0 if part.mine * self.world_size == part.total else part.mine * self.world_size / part.total

    @property
    def idle(self) -> bool:
        """Whether this process has no sample of its own in the batch, and only keeps the others company."""
        return not self.part.mine

    def _among_others(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """The training step of one of several processes; without samples of its own, a loss of 0."""
        strategy = cast("DistributedStrategy", self.strategy)

        def shared_step(batch: Any, i: int) -> Any:
            idle = not self.part.mine
            returned = strategy.idle_step() if idle else None
            if returned is None:
                try:
                    returned = step(batch, i)
                except RuntimeError as error:
                    if (better := strategy.what_went_wrong(error)) is not None:
                        raise better from None
                    raise
            if returned is None and self.module.automatic_optimization:
                raise MisconfigurationException(
                    f"training_step returned None in batch {i} on process {self.strategy.global_rank}, and the other "
                    "processes wait for its gradients. Return a loss of which nothing counts: loss * 0."
                )
            if self.weighs_itself is not False and self.module.automatic_optimization:
                self._weigh(None if idle or not isinstance(returned, dict) else returned.get("weight"), idle)
            return returned

        return shared_step

    def _weigh(self, weight: Any, idle: bool) -> None:
        """A step that returns "weight" says itself what its batch counts: exchanged, for others count otherwise."""
        if self.weighs_itself is None:  # the first step of a run: does it?
            self.weighs_itself = bool(self.strategy.reduce(float(weight is not None), reduce_op="max"))
            if not self.weighs_itself:
                return
        if weight is None and not idle:
            raise MisconfigurationException(
                "training_step returned no 'weight', and did in other batches or on other processes. Return it always: "
                "it says what the batch counts among those of all processes."
            )
        own = torch.as_tensor(0.0 if idle else weight, dtype=torch.float64, device=self.device).detach().reshape(())
        total = self.strategy.reduce(own, reduce_op="sum")
        self.factor = own * self.strategy.world_size / torch.where(total == 0, torch.ones_like(total), total)

    def _counting_samples(self, backward: Callable[..., Any]) -> Callable[..., Any]:
        """Gradients are averaged over processes; the average over samples is what one process would have."""
        if not self.module.automatic_optimization:
            averaging = cast("DistributedStrategy", self.strategy).averaging(self)
            if averaging is not None:
                return partial(averaging.backward, backward)

        def weighted(loss: Tensor, *args: Any, **kwargs: Any) -> None:
            factor = self.factor
            if isinstance(factor, Tensor):
                loss = loss * factor.to(loss.dtype)
            elif factor != 1.0:
                loss = loss * factor
            backward(loss, *args, **kwargs)

        return weighted

    def data_hook(self, name: str) -> Callable[..., Any] | None:
        """A transfer hook that somebody overrides; the data module's wins over the module's."""
        datamodule = self.trainer.datamodule
        if datamodule is not None and overrides(datamodule, name, LightningDataModule):
            return method_of(datamodule, name)
        return self._own(name)

    def to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """What a strategy's `batch_to_device` does, where somebody has put something around it."""
        for step in moving(self, device):
            batch = step(batch, dataloader_idx)
        return batch

    # loaders
    def has_loader(self, stage: str) -> bool:
        return self.sources.get(stage) is not None

    def load(self, stage: str) -> Any:
        """Ask the stage's source for its loaders, as the hook it is."""
        before, self.fx = self.fx, loader_hook(stage)
        try:
            source = self.sources[stage]
            owner = getattr(source, "__self__", None)  # None: they were given to the call
            loaders = (source if owner is None else profiled_method(self, owner, loader_hook(stage), source))()
        finally:
            self.fx = before
        if loaders is None:
            raise TypeError(f"{loader_hook(stage)} returned None. Return a DataLoader or any iterable of batches.")
        check_loaders(loaders, loader_hook(stage))
        return loaders

    def evaluation_loaders(self) -> int:
        stage = next(stage for stage, running in STAGES.items() if running.value == self.results.stage)
        return len(self.data.evaluation.get(stage, ())) or 1

    def check_dataloader_idx(self, stage: str) -> None:
        """Steps take `dataloader_idx` if and only if there are several loaders."""
        name = f"{stage}_step"
        several = len(self.data.evaluation[stage]) > 1
        parameters = _parameters(getattr(self.module, name))
        if several and _positions(getattr(self.module, name)) < 3:
            raise RuntimeError(
                f"there are {len(self.data.evaluation[stage])} {stage} loaders, and {name}"
                f"({', '.join(parameters)}) does not say which one a batch is from. "
                f"Write def {name}(self, batch, batch_idx, dataloader_idx)."
            )
        around = [f"on_{stage}_batch_start", f"on_{stage}_batch_end"]
        hooks = [(self.module, name), *((owner, hook) for owner in (self.module, *self.callbacks) for hook in around)]
        for owner, hook in hooks if not several else ():
            needs = _parameters(getattr(owner, hook, None)).get("dataloader_idx")
            if needs is not None and needs.default is needs.empty:
                raise RuntimeError(
                    f"{type(owner).__qualname__}.{hook} takes a dataloader_idx, and there is one {stage} loader. "
                    "Leave the argument out, or give it a default: dataloader_idx=0."
                )

    # predicates of the counters
    def steps_after(self, batches: int) -> bool:
        """Whether an optimizer step belongs after so many batches of the epoch."""
        return self.progress.is_last_batch or batches % self.accumulate_grad_batches == 0

    @property
    def batches_that_stepped(self) -> int:
        done = self.progress
        return done.global_step if self.module.automatic_optimization else done.total_batch - done.skipped

    def told_to_stop(self) -> bool:
        trainer, done = self.trainer, self.progress
        if done.epoch >= (trainer.min_epochs or 0) and done.global_step >= (trainer.min_steps or 0):
            return True
        trainer._say_once(
            f"The run was told to stop after {done.epoch} epochs and {done.global_step} steps, and goes on until "
            f"min_epochs={trainer.min_epochs} and min_steps={trainer.min_steps} are met."
        )
        return False

    def stop_reason(self) -> str | None:
        trainer, done = self.trainer, self.progress
        if done.global_step >= trainer.max_steps != -1:
            return "max_steps"
        if done.epoch >= trainer.max_epochs != -1:
            return "max_epochs"
        if not self.data.train_batches_count:
            return "no_batches"
        return "should_stop" if self.told.should_stop and self.told_to_stop() else None

    def finished(self) -> bool:
        """An epoch once begun is closed properly, whatever the reason to stop."""
        return not self.progress.in_epoch and self.stop_reason() is not None

    def validates_in_epoch(self, epoch: int) -> bool:
        every_n_epoch = self.trainer.check_val_every_n_epoch
        return self.validates and (every_n_epoch is None or (epoch + 1) % every_n_epoch == 0)

    def validation_due(self) -> bool:
        done = self.progress
        if not self.validates or done.batch == 0 or done.validated_at == done.total_batch:
            return False
        every_n_epoch = self.trainer.check_val_every_n_epoch
        if every_n_epoch is not None and (done.epoch + 1) % every_n_epoch:
            return False
        if self.told.should_stop and self.told_to_stop():
            due = True
        elif self.val_seconds is not None:
            waited = time.monotonic() - self.validated_time
            due = waited >= self.val_seconds if self.alone else self.agreement.validation_due
        elif self.val_every is None:
            due = done.is_last_batch
        else:
            due = (done.total_batch if every_n_epoch is None else done.batch) % self.val_every == 0
        return due and self.trainer.enable_validation and self.data.may_validate()

    def set_validation_interval(self) -> None:
        """What `val_check_interval` means for a training loader of this length."""
        interval, batches = self.trainer.val_check_interval, self.data.train_batches_count
        self.val_every = self.val_seconds = None
        if self.trainer._val_check_seconds is not None:
            self.val_seconds = self.trainer._val_check_seconds
        elif isinstance(interval, int):
            if interval > batches and self.trainer.check_val_every_n_epoch is not None and self.validates:
                raise ValueError(
                    f"val_check_interval={interval} is more than the {batches} training batches of an epoch. Use a "
                    "smaller number, or check_val_every_n_epoch=None to count across epochs."
                )
            self.val_every = interval
        elif interval == 1.0:
            pass  # at the last batch, which looking ahead knows better than a declared length
        elif math.isinf(batches):
            raise MisconfigurationException(
                f"val_check_interval={interval} is a fraction of an epoch, and the training loader has no length to "
                "take it of. Use a whole number of batches, a time, or 1.0 for the epoch's end."
            )
        else:
            self.val_every = max(1, int(batches * interval))

    def plateau_due(self) -> bool:
        done = self.progress
        return (
            self.has_plateau and done.batch > 0 and done.plateau_at != done.total_batch and self.steps_after(done.batch)
        )

    def logging_due(self) -> bool:
        """Whether loggers are to have a row now: every `log_every_n_steps` steps, and when the run was told to stop."""
        n = self.trainer.log_every_n_steps
        if not n or not self.steps_after(self.progress.batch):
            return False
        return self.batches_that_stepped % n == 0 or self.told.should_stop

    # acts of the loop
    def step_schedulers(self, interval: str, plateau: bool = False) -> None:
        done = self.progress
        if plateau and interval == "step":
            done.plateau_at = done.total_batch
        if not self.schedulers or not self.module.automatic_optimization:
            return
        count = done.batch if interval == "step" else done.epoch + 1
        for config in self.schedulers:
            if config.reduce_on_plateau is not plateau or config.interval != interval or count % config.frequency:
                continue
            value = None
            if config.monitor is not None:
                value = self.trainer.callback_metrics.get(config.monitor)
            if plateau and value is None:
                known = ", ".join(self.trainer.callback_metrics) or "none"
                message = (
                    f"ReduceLROnPlateau monitors {config.monitor!r}, which was not logged; known metrics: {known}. "
                    "Log it, or set 'strict': False in the scheduler's dictionary to wait for it."
                )
                if config.strict:
                    raise MisconfigurationException(message)
                rank_zero_warn(message)
                continue
            if plateau and not self.alone:
                value = self.strategy.broadcast(value)  # a value of a single step differs
            self.lr_scheduler_step(config.scheduler, value if plateau else None)

    def as_output_of(self, returned: Any) -> dict[str, Any]:
        """What a training step returned, as the dictionary that hooks see."""
        if returned is None:
            return {}
        if isinstance(returned, Tensor):
            return {"loss": returned if self.module.automatic_optimization else self._seen(returned.detach())}
        if isinstance(returned, dict):
            output = dict(returned)
            if self.module.automatic_optimization:
                if output.get("loss") is None:
                    held = "with None as its 'loss'" if "loss" in output else "without 'loss'"
                    raise MisconfigurationException(
                        f"training_step returned a dictionary {held} (its keys: "
                        f"{', '.join(map(repr, output)) or 'none'}). Return the loss, a dictionary that holds it, or "
                        "None alone to skip the batch."
                    )
            elif isinstance(output.get("loss"), Tensor):
                output["loss"] = self._seen(output["loss"].detach())
            return output
        raise MisconfigurationException(
            f"training_step returned {type(returned).__name__}. It returns the loss as a tensor, a dictionary with "
            "'loss', or None to skip the batch."
        )

    def _seen(self, loss: Tensor) -> Tensor:
        if loss.numel() == 1:
            self.losses.append(loss)
        return loss

    def _first_output(self, returned: Any) -> dict[str, Any]:
        """The answers of training steps until one has a loss, looked at more closely; from then on `as_output_of`."""
        output = self.as_output_of(returned)
        loss = output.get("loss")
        if returned is None and self.module.automatic_optimization:
            warn_once(
                f"{type(self.module).__name__}.training_step returned None, so this batch trains nothing. Where it is "
                "not meant to be left out, end it with: return loss",
                key="training_step returned None",
            )
        if loss is not None and self.module.automatic_optimization:
            if not isinstance(loss, Tensor) or loss.numel() != 1:
                given = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
                raise ValueError(f"training_step returned a loss of {given}; it is a tensor of one element.")
            if not loss.requires_grad and any(p.requires_grad for p in self.module.parameters()):
                raise RuntimeError(
                    "the loss that training_step returned has no gradient: nothing in it depends on a parameter that "
                    "requires one. Look for .detach(), .item(), torch.no_grad() or a new tensor made of the loss."
                )
            self.as_output = self.as_output_of
        return output

    def _check_gradients(self, optimizer: Optimizer) -> None:
        """Before the first optimizer step, once: does the optimizer hold anything this module trains?"""
        self._checks_gradients = False
        self.hooks.on_before_optimizer_step = calls(self, "on_before_optimizer_step")
        if not self.alone and self.module.automatic_optimization:
            without = [p for p in self.module.parameters() if p.requires_grad and p.grad is None]
            if (error := cast("DistributedStrategy", self.strategy).unused(without)) is not None:
                raise error
        held = parameters_of(optimizer)
        own = {id(parameter) for parameter in self.module.parameters()}
        if held and not any(id(p) in own or p.grad is not None for p in held):
            raise MisconfigurationException(
                f"{type(optimizer).__name__} holds {len(held)} parameters, none of them of "
                f"{type(self.module).__name__}, and none got a gradient: training would change nothing. "
                "Build it with self.parameters() in configure_optimizers."
            )

    def free_gradients(self) -> None:
        """Give back the gradients' memory before validation."""
        state = self.trainer.state
        stage, state.stage = state.stage, RunningStage.VALIDATING
        self.module.on_validation_model_zero_grad()
        state.stage = stage

    def scale_gradients(self, factor: float) -> None:
        for gradient in gradients_of(self.optimizers[0]):
            gradient.mul_(factor)

    def clip_gradients(self, optimizer: Optimizer) -> None:
        if not self.module.automatic_optimization:
            return
        trainer = self.trainer
        value, algorithm = trainer.gradient_clip_val, trainer.gradient_clip_algorithm
        if self.own_clipping is not None:
            self.own_clipping(optimizer, gradient_clip_val=value, gradient_clip_algorithm=algorithm)
        elif value:
            self.clip(optimizer, value, algorithm)

    def clip(self, optimizer: Optimizer, value: float | None, algorithm: str | None) -> None:
        """Clip by the common norm, or each gradient by value."""
        if not value:
            return
        algorithm = str(getattr(algorithm, "value", algorithm or "norm")).lower()
        if algorithm == "norm":
            self.strategy.clip_grad_norm(parameters_of(optimizer), value)
        elif algorithm == "value":
            nn.utils.clip_grad_value_(parameters_of(optimizer), value)
        else:
            raise MisconfigurationException(f"gradient_clip_algorithm={algorithm!r} is not one of 'norm' and 'value'.")

    def take_step(self, optimizer: Optimizer, closure: Callable[[], Any] | None, **kwargs: Any) -> Any:
        """What `step()` of the optimizer that users hold does: closure, before_step, step."""
        if closure is not None and not self.alone and not _ignores_loss(optimizer):
            closure = self._of_all(closure)

        def prepared() -> Any:
            with torch.enable_grad():  # many optimizers step under no_grad, and call it there
                result = closure() if closure is not None else None
            self.before_step(self, optimizer)
            return result

        if self.precision.scaler is None:
            return optimizer.step(closure=prepared, **kwargs)
        if isinstance(optimizer, LBFGS):
            raise MisconfigurationException("LBFGS does not work with a GradScaler; use precision='bf16-mixed'.")
        with torch.enable_grad():
            skipped = closure is not None and closure() is None and self.module.automatic_optimization
        if skipped:  # a skipped batch has no gradients to unscale
            self._before_no_step(optimizer)
            return None
        self.before_step(self, optimizer)
        return self.precision.step(optimizer, **kwargs)

    def _before_no_step(self, optimizer: Optimizer) -> None:
        for hook in self.hooks.on_before_optimizer_step:
            hook(optimizer)
        self.clip_gradients(optimizer)

    def _of_all(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        """The closure with the loss of all processes, so that an optimizer that goes by it does the same on each."""

        def shared() -> Any:
            loss = closure()
            return self.strategy.reduce(loss * self.factor) if isinstance(loss, Tensor) else loss

        return shared

    def manual_backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        loss = self.precision.scale(loss)
        for hook in self.hooks.on_before_backward:
            hook(loss)
        self.backward(loss, *args, **kwargs)
        for hook in self.hooks.on_after_backward:
            hook()

    # values
    @property
    def loggers(self) -> list[Logger]:
        return self.trainer.loggers

    def use(self, results: Results) -> None:
        """From here on `self.log` adds to these results."""
        self.results = self.trainer._results = results

    def attribute_of(self, metric: Any) -> str | None:
        """Where in the module a metric object is."""
        return next((name for name, module in self.module.named_modules() if module is metric), None)

    def write(self, values: dict[str, Any], step: Any = None, epoch_end_of: Results | None = None) -> None:
        """A row for every logger. A logged value named `step` is the x-axis; else the step taken."""
        if not values:
            return
        numbers = as_numbers(values)
        if step is None:
            if "step" in numbers:
                step = int(numbers.pop("step"))
            else:
                numbers.setdefault("epoch", self.trainer.current_epoch)
                step = self.batches_that_stepped - self._step_taken(epoch_end_of)
        for logger in self.loggers:
            logger.log_metrics(metrics=numbers, step=step)
            logger.save()

    def _step_taken(self, epoch_end_of: Results | None) -> int:
        """1 where the step that a row belongs to has been counted already."""
        if epoch_end_of is None or epoch_end_of.training:
            return 1
        return int(self.training and self.progress.batch > 0 and self.steps_after(self.progress.batch))

    def check_finite(self) -> None:
        """Name the first loss that was not finite since the last look; one wait for the device."""
        losses = list(self.losses)
        self.losses.clear()
        if self._warned_not_finite or (first := first_not_finite(losses)) is None:
            return
        self._warned_not_finite = True
        batch = self.progress.total_batch - len(losses) + first
        k = self.accumulate_grad_batches
        warn_not_finite(losses[first], batch, batch // k if self.module.automatic_optimization else batch)

    # stages
    @contextmanager
    def sanity_checking(self) -> Iterator[None]:
        """Random state, counters and metrics afterwards: as if it had not been."""
        trainer, done = self.trainer, self.progress
        draws, metrics = self.data.draw_state(), self.metrics.copy()
        counters = done.state_dict()
        stage, trainer.state.stage = trainer.state.stage, RunningStage.SANITY_CHECKING
        self.in_sanity_check = True
        try:
            yield
        finally:
            trainer.state.stage = stage
            self.in_sanity_check = False
            seen = {name: source._replace(total_batch=-1) for name, source in self.metrics.sources.items()}
            self.metrics.restore(metrics)
            self.metrics.sources.update({**seen, **metrics.sources})
            done.load_state_dict(counters)
            self.data.forget_sanity_check()
            self.data.restore_draws(draws)

    @contextmanager
    def evaluating(self, stage: str) -> Iterator[tuple[Hooks, Results]]:
        """Eval mode and no gradients; both restored on the way out, and `self.log` where it was."""
        state = self.trainer.state
        self.data.open_if_due(stage)
        before = self.results, self.fx, state.stage
        self.results.pull()
        self.results.let_go_of_batch()
        results = self.eval_results.setdefault(stage, self.results_class(self, STAGES[stage].value))
        self.use(results)
        self.fx = f"{stage}_step"
        if not self.in_sanity_check:
            state.stage = STAGES[stage]
        if stage not in self.eval_hooks:
            self._resolve_evaluation(stage, self.eval_hooks.setdefault(stage, Hooks()))
        inference = self.trainer.inference_mode and not self.training
        if self.training and not self.alone:
            cast("DistributedStrategy", self.strategy).share_buffers()
        try:
            with torch.inference_mode() if inference else torch.no_grad(), self._eval_mode(stage):
                yield self.eval_hooks[stage], results
            if self.training and not self.alone:
                self.validated_time = time.monotonic()
                self.agreement.exchange()  # what the hooks of its end have decided
        finally:
            results.loader, results.batch = None, None
            previous, self.fx, state.stage = before
            self.use(previous)
            self.validated_time = time.monotonic()

    @contextmanager
    def _eval_mode(self, stage: str) -> Iterator[None]:
        """Eval mode inside; afterwards each submodule in the mode it was in, not all in training mode."""
        modes = [(module, module.training) for module in self.module.modules()]
        self._method(f"on_{stage}_model_eval")()
        try:
            yield
        finally:
            if (own := self._own(f"on_{stage}_model_train")) is not None:
                own()
            else:
                for module, training in modes:
                    module.training = training

    def _resolve_evaluation(self, stage: str, hooks: Hooks) -> None:
        resolve(self, stage, hooks)
        hooks.step = self._evaluation_step(stage)
        if stage == "predict" and self.trainer._keep_predictions:
            self.predictions = self.predictions or [[] for _ in self.data.evaluation[stage]]
            hooks.batch_end = (*hooks.batch_end, self._keep_prediction)

    def _keep_prediction(self, output: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.predictions[dataloader_idx].append(move_data_to_device(output, "cpu"))

    def _evaluation_step(self, stage: str) -> Callable[..., Any]:
        """`validation_step` and its siblings, in this run's precision, given what arguments it takes."""
        name = f"{stage}_step"
        self.check_dataloader_idx(stage)
        step = self._step(name)
        if _positions(getattr(self.module, name)) == 1:
            one_argument = step
            step = lambda batch, *_: one_argument(batch)  # noqa: E731
        step, context = self._around(name, step), self.precision.around(stage)
        if context is None:
            return step

        def in_precision(*args: Any) -> Any:
            with context():
                return step(*args)

        return in_precision

    def raise_signal(self) -> None:
        """Between two batches: act on a signal that came meanwhile."""
        signal = self.trainer._signal
        if not self.alone:
            self.agreement.raise_signal()
        elif signal is not None:
            self.trainer._signal = None
            raise signal

    def warn_modules_in_eval(self) -> None:
        names = [name or "the module itself" for name, m in self.module.named_modules() if not m.training]
        if names:
            shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            rank_zero_warn(
                f"in eval mode at the start of fit, and left so: {shown}. Call .train() first if dropout and "
                "batch-norm statistics are meant to be on."
            )


def _ignores_loss(optimizer: Optimizer) -> bool:
    """Whether an optimizer takes one step from the gradients, whatever its closure returns."""
    return type(optimizer).__module__.startswith("torch.optim") and not isinstance(optimizer, LBFGS)


def _parameters(method: Any) -> Mapping[str, inspect.Parameter]:
    """What a method takes; whatever it is given, where it does not say."""
    try:
        return inspect.signature(method).parameters
    except (TypeError, ValueError):  # no function of Python's, such as one of TorchScript
        return {"args": inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL)}


def _positions(step: Callable[..., Any]) -> int | float:
    """How many arguments a step takes by position."""
    parameters = _parameters(step).values()
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return math.inf
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)


def _nothing() -> None:
    """The closure of a step that was called without one."""
