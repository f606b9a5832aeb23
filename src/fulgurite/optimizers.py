"""From what `configure_optimizers` returns to optimizers and scheduler configs; and the optimizer that users hold."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from fulgurite.core.module import LightningModule
from fulgurite.hooks import overrides
from fulgurite.utilities.exceptions import MisconfigurationException
from fulgurite.utilities.rank_zero import rank_zero_warn
from fulgurite.utilities.types import LRSchedulerConfig, LRSchedulerTypeTuple

if TYPE_CHECKING:
    from fulgurite.run import Run

_SHAPES = """
 * an Optimizer
 * a list or tuple of Optimizers (manual optimization)
 * ([Optimizer, ...], [scheduler, ...])
 * {"optimizer": Optimizer, "lr_scheduler": scheduler or {"scheduler": ..., "interval": ..., ...}, "monitor": ...}
 * a list of such dictionaries"""
_SCHEDULER_KEYS = {f.name for f in fields(LRSchedulerConfig)}


class NoOptimizer(Optimizer):
    """Stands in where `configure_optimizers` returned None: losses and gradients are computed, nothing steps."""

    def __init__(self) -> None:
        super().__init__([torch.zeros(1)], {})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        self.param_groups: list[dict[str, Any]] = []

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]  # torch overloads it
        return closure() if closure is not None else None

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...


def configured(module: LightningModule) -> tuple[list[Optimizer], list[LRSchedulerConfig]]:
    """Ask the module for its optimizers and check every shape it may answer in."""
    answer = module.configure_optimizers()
    if answer is None:
        rank_zero_warn(
            "configure_optimizers returned None: this fit runs without an optimizer, and no weight will change."
        )
        return [], []
    optimizers, schedulers, monitor = _parse(answer)
    if module.automatic_optimization and len(optimizers) > 1:
        raise RuntimeError(
            f"configure_optimizers returned {len(optimizers)} optimizers, and automatic optimization knows one. Set "
            "self.automatic_optimization = False in __init__ and step them in training_step: "
            "opt_a, opt_b = self.optimizers()."
        )
    return optimizers, [_scheduler_config(module, s, monitor, optimizers) for s in schedulers]


def _parse(answer: Any) -> tuple[list[Optimizer], list[Any], str | None]:
    """Optimizers, schedulers as they came, and a monitor given beside them."""
    if _is_optimizer(answer):
        return [answer], [], None
    if isinstance(answer, Mapping):
        return _parse_dict(answer)
    if isinstance(answer, (list, tuple)):
        if len(answer) == 2 and isinstance(answer[0], (list, tuple)) and all(map(_is_optimizer, answer[0])):
            schedulers = answer[1] if isinstance(answer[1], (list, tuple)) else [answer[1]]
            return list(answer[0]), list(schedulers), None
        if answer and all(map(_is_optimizer, answer)):
            return list(answer), [], None
        if answer and all(isinstance(part, Mapping) for part in answer):
            optimizers, schedulers = [], []
            for part in answer:
                own, theirs, monitor = _parse_dict(part)
                optimizers += own
                schedulers += [s if isinstance(s, Mapping) else {"scheduler": s, "monitor": monitor} for s in theirs]
            return optimizers, schedulers, None
    raise MisconfigurationException(
        f"configure_optimizers returned {type(answer).__name__}: {answer!r:.80}. It returns one of:{_SHAPES}"
    )


def _parse_dict(part: Mapping[str, Any]) -> tuple[list[Optimizer], list[Any], str | None]:
    if not _is_optimizer(part.get("optimizer")):
        raise MisconfigurationException(
            f"configure_optimizers returned a dictionary without an Optimizer under 'optimizer' (its keys: "
            f"{', '.join(map(repr, part))}). It returns one of:{_SHAPES}"
        )
    extra = set(part) - {"optimizer", "lr_scheduler", "monitor", "frequency"}
    if extra:
        rank_zero_warn(f"configure_optimizers returned keys that nobody reads: {', '.join(sorted(map(str, extra)))}.")
    scheduler = part.get("lr_scheduler")
    if isinstance(scheduler, (list, tuple)):
        raise MisconfigurationException(
            "configure_optimizers returned a list under 'lr_scheduler'; a dictionary holds one scheduler. "
            "For several return ([optimizer], [scheduler, scheduler])."
        )
    return [part["optimizer"]], [] if scheduler is None else [scheduler], part.get("monitor")


def _is_optimizer(obj: Any) -> bool:
    # an optimizer is known by what it does: schedule-free and vendor ones need not subclass torch's
    return isinstance(obj, Optimizer) or all(hasattr(obj, name) for name in ("param_groups", "step", "zero_grad"))


def _scheduler_config(
    module: LightningModule, given: Any, monitor: str | None, optimizers: list[Optimizer]
) -> LRSchedulerConfig:
    entry: dict[str, Any] = dict(given) if isinstance(given, Mapping) else {"scheduler": given}
    scheduler = entry.get("scheduler")
    if scheduler is None:
        raise MisconfigurationException(
            f"the scheduler dictionary of configure_optimizers has no 'scheduler' (its keys: {', '.join(entry)}). "
            "Write {'scheduler': scheduler, 'interval': 'step', ...}."
        )
    unknown = set(entry) - _SCHEDULER_KEYS
    if unknown:
        rank_zero_warn(
            f"the scheduler dictionary has keys that nobody reads: {', '.join(sorted(unknown))}. "
            f"Known are {', '.join(sorted(_SCHEDULER_KEYS))}."
        )
    config = LRSchedulerConfig(**{key: value for key, value in entry.items() if key in _SCHEDULER_KEYS})
    interval, frequency = config.interval, config.frequency
    if interval not in ("step", "epoch"):
        raise MisconfigurationException(f"a scheduler's interval is 'step' or 'epoch', not {interval!r}.")
    if isinstance(frequency, bool) or not isinstance(frequency, int) or frequency < 1:
        raise MisconfigurationException(f"a scheduler's frequency is a whole number of 1 or more, not {frequency!r}.")
    is_plateau = isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
    config.reduce_on_plateau = bool(entry.get("reduce_on_plateau", is_plateau))
    config.monitor = config.monitor or monitor
    if config.reduce_on_plateau and config.monitor is None and module.automatic_optimization:
        raise MisconfigurationException(
            "ReduceLROnPlateau needs the name of a logged metric: return {'optimizer': optimizer, 'lr_scheduler': "
            "{'scheduler': scheduler, 'monitor': 'val_loss'}} from configure_optimizers."
        )
    if isinstance(scheduler, torch.optim.lr_scheduler.OneCycleLR) and interval == "epoch":
        rank_zero_warn(
            "OneCycleLR with interval 'epoch' makes one of its steps an epoch; it is meant for {'interval': 'step'}."
        )
    _check_protocol(module, scheduler)
    owner = getattr(scheduler, "optimizer", None)
    if isinstance(owner, Optimizer) and all(owner not in (o, getattr(o, "_optimizer", o)) for o in optimizers):
        raise MisconfigurationException(
            f"{type(scheduler).__name__} was built for an optimizer that configure_optimizers does not return, so it "
            "would change no learning rate. Build it with the optimizer you return."
        )
    return config


def _check_protocol(module: LightningModule, scheduler: Any) -> None:
    missing = [name for name in ("state_dict", "load_state_dict") if not hasattr(scheduler, name)]
    if missing:
        raise TypeError(
            f"the scheduler {type(scheduler).__name__} has no {' and no '.join(missing)}, so it cannot be saved."
        )
    steps_itself = not module.automatic_optimization or overrides(module, "lr_scheduler_step", LightningModule)
    if not isinstance(scheduler, LRSchedulerTypeTuple) and not steps_itself:
        raise MisconfigurationException(
            f"{type(scheduler).__name__} is not one of torch's schedulers, and how to step it is not known. "
            "Override lr_scheduler_step(self, scheduler, metric) in your module."
        )


class LightningOptimizer:
    """What `self.optimizers()` gives: the optimizer itself, with a `step` that the trainer counts and prepares.

    `step` runs the closure, then unscaling, the `on_before_optimizer_step` hooks and clipping, then the step.
    Everything else is the wrapped optimizer's own; `isinstance` holds for its class too. Made without a run, as some
    libraries do, its step is the optimizer's.
    """

    def __init__(self, optimizer: Optimizer, run: Run | None = None) -> None:
        self.__dict__.update(_optimizer=optimizer, _run=run)
        cls = type(self)
        object.__setattr__(self, "__class__", type("Lightning" + type(optimizer).__name__, (cls, type(optimizer)), {}))

    @property
    def optimizer(self) -> Optimizer:
        return self._optimizer  # type: ignore[no-any-return]  # set through __dict__

    def step(self, closure: Callable[[], Any] | None = None, **kwargs: Any) -> Any:
        """One optimizer step, as the trainer takes it."""
        run = self._run
        if run is None:
            return self._optimizer.step(closure, **kwargs)
        result = run.step_optimizer(self._optimizer, closure, **kwargs)
        if not run.module.automatic_optimization:
            run.progress.global_step += 1
        return result

    @contextlib.contextmanager
    def toggle_model(self, sync_grad: bool = True) -> Iterator[None]:
        """Only this optimizer's parameters require gradients inside; `sync_grad=False` while accumulating."""
        run = self._run
        if run is None:
            raise MisconfigurationException(
                "this LightningOptimizer was made without a trainer, which knows the other optimizers. Use one that "
                "self.optimizers() gives."
            )
        with run.strategy.gradient_sync(sync_grad):
            run.module.toggle_optimizer(self)
            try:
                yield
            finally:
                run.module.untoggle_optimizer(self)

    def zero_grad(self, set_to_none: bool = True) -> None:
        self._optimizer.zero_grad(set_to_none=set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return self._optimizer.state_dict()  # type: ignore[no-any-return]  # set through __dict__

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._optimizer.load_state_dict(state_dict)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        self._optimizer.add_param_group(param_group)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_optimizer"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._optimizer, name, value)

    def __getstate__(self) -> dict[str, Any]:
        raise TypeError("a LightningOptimizer belongs to a running fit and cannot be copied; use its .optimizer.")

    def __repr__(self) -> str:
        return f"Lightning{self._optimizer!r}"


def gradients_of(optimizer: Optimizer) -> Iterator[Tensor]:
    """Every gradient that this optimizer would use."""
    return (parameter.grad for parameter in parameters_of(optimizer) if parameter.grad is not None)


def parameters_of(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
