"""The learning-rate range test: raise the rate from step to step and watch where the loss falls fastest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fulgurite import loop
from fulgurite.callbacks.callback import Callback
from fulgurite.tuner.trial import running, trial
from fulgurite.utilities.exceptions import MisconfigurationException
from fulgurite.utilities.rank_zero import rank_zero_info, rank_zero_warn

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

    from fulgurite.core.module import LightningModule
    from fulgurite.trainer import Trainer

MODES = ("linear", "exponential")
_SMOOTHING = 0.98


class _LRFinder:
    """What a search found: `results` holds the rates tried under "lr" and the smoothed losses under "loss"."""

    def __init__(self, mode: str, lr_min: float, lr_max: float, num_training: int) -> None:
        if mode not in MODES:
            raise MisconfigurationException(f"mode={mode!r} is not one of {', '.join(map(repr, MODES))}.")
        if not 0 < lr_min < lr_max:
            raise ValueError(f"min_lr={lr_min} and max_lr={lr_max}: a search goes up from a rate above 0 to a larger.")
        if num_training < 1:
            raise ValueError(f"num_training={num_training}: a search takes 1 step or more.")
        self.mode, self.lr_min, self.lr_max, self.num_training = mode, lr_min, lr_max, num_training
        self.results: dict[str, list[float]] = {}
        self._optimal_idx: int | None = None

    def rate(self, step: int) -> float:
        """The learning rate of the search's step 0, 1, 2, ..."""
        if step == 0:
            return self.lr_min
        part = (step + 1) / self.num_training
        if self.mode == "linear":
            return self.lr_min + part * (self.lr_max - self.lr_min)
        return float(self.lr_min * (self.lr_max / self.lr_min) ** part)

    def suggestion(self, skip_begin: int = 10, skip_end: int = 1) -> float | None:
        """The rate at which the loss fell most steeply; None where too few losses are left to tell.

        Args:
            skip_begin: leave out so many points at the beginning, which are too naive.
            skip_end: leave out so many points at the end, which are too optimistic.
        """
        lrs, losses = self.results.get("lr", []), torch.tensor(self.results.get("loss", []))
        considered = torch.arange(len(lrs))[skip_begin : len(lrs) - skip_end]
        considered = considered[torch.isfinite(losses[considered])]
        if len(considered) < 2:
            self._optimal_idx = None
            rank_zero_warn(
                f"no learning rate can be suggested: of {len(lrs)} steps of the search, without the first {skip_begin} "
                f"and the last {skip_end}, {len(considered)} have a finite loss. Use more data, a larger num_training, "
                "or suggestion(skip_begin=0)."
            )
            return None
        slopes = torch.gradient(losses[considered], spacing=[torch.tensor(lrs)[considered]])[0]
        self._optimal_idx = int(considered[torch.argmin(slopes)])
        return lrs[self._optimal_idx]

    def plot(self, suggest: bool = False, show: bool = False, ax: Axes | None = None) -> Figure | SubFigure | None:
        """Draw the loss over the rate.

        Args:
            suggest: mark the suggested rate.
            show: show the figure at once.
            ax: draw here, instead of into a new figure.
        """
        try:
            import matplotlib.pyplot as plt
        except ImportError as error:
            raise ModuleNotFoundError("plot() draws with matplotlib: pip install matplotlib") from error
        lrs, losses = self.results["lr"], self.results["loss"]
        if ax is None:
            _, ax = plt.subplots()
        ax.plot(lrs, losses)
        if self.mode == "exponential":
            ax.set_xscale("log")
        ax.set_xlabel("Learning rate")
        ax.set_ylabel("Loss")
        if suggest and self.suggestion() is not None and self._optimal_idx is not None:
            ax.plot(lrs[self._optimal_idx], losses[self._optimal_idx], marker="o", markersize=10, color="red")
        if show:
            plt.show()
        return ax.get_figure()


class _Recorder(Callback):
    """Sets the rate before each step, notes the smoothed loss after it, ends the search when the loss explodes."""

    def __init__(self, finder: _LRFinder, real: Trainer, early_stop_threshold: float | None) -> None:
        self.finder, self.real, self.threshold = finder, real, early_stop_threshold
        self.lrs: list[float] = []
        self.losses: list[float] = []
        self.average, self.best = 0.0, 0.0
        self.diverged = False
        self.start = real.global_step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        rate = self.finder.rate(len(self.lrs))
        for group in trainer.optimizers[0].param_groups:
            old = group["lr"]
            group["lr"] = torch.full_like(old, rate) if isinstance(old, Tensor) else rate

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        running(self.real).raise_signal()
        steps = trainer.global_step - self.start
        if steps == len(self.lrs):
            return  # the window of accumulate_grad_batches is still open
        self.lrs.append(self.finder.rate(len(self.lrs)))
        if not outputs:
            self.losses.append(float("nan"))  # a skipped batch
            return
        loss = outputs["loss"].item()  # the decision to go on needs the number
        self.average = _SMOOTHING * self.average + (1 - _SMOOTHING) * loss
        smoothed = self.average / (1 - _SMOOTHING ** (steps + 1))
        self.losses.append(smoothed)
        exploded = self.threshold is not None and steps > 1 and smoothed > self.threshold * self.best
        self.diverged = trainer.strategy.broadcast(exploded)
        if self.diverged:
            trainer.max_steps = trainer.global_step
        if smoothed < self.best or steps == 1:
            self.best = smoothed


def search(trainer: Trainer, finder: _LRFinder, early_stop_threshold: float | None) -> None:
    """Fill the finder's results, beside the fit that is under way."""
    real = running(trainer)
    if not real.module.automatic_optimization:
        raise MisconfigurationException(
            "lr_find changes the rate of the one optimizer that the trainer steps; under manual optimization your "
            "training_step does that. Set the rates by hand."
        )
    if len(trainer.optimizers) != 1:
        raise MisconfigurationException(
            f"lr_find works with one optimizer, and configure_optimizers returned {len(trainer.optimizers)}. "
            "Return one while searching."
        )
    recorder = _Recorder(finder, trainer, early_stop_threshold)
    with trial(trainer, [recorder], finder.num_training) as run:
        loop.fit(run)
    # one rate for all processes
    finder.results = trainer.strategy.broadcast({"lr": recorder.lrs, "loss": recorder.losses})
    done, wanted = len(recorder.lrs), finder.num_training
    if recorder.diverged:
        rank_zero_info(f"The search for a learning rate stopped after {done} of {wanted} steps: the loss exploded.")
    elif done < wanted:
        rank_zero_warn(
            f"the search for a learning rate ended after {done} of num_training={wanted} steps, before it came to "
            f"max_lr={finder.lr_max}: max_epochs={trainer.max_epochs} of this data has no more. "
            f"Use num_training={done}, or a larger max_epochs."
        )
