"""A trial: the loop on the real module and data, with a trainer of its own, so that nothing of it stays behind."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fulgurite import loop
from fulgurite.compat.loops import EvaluationLoopView, FitLoopView, PredictionLoopView
from fulgurite.loggers.logger import DummyLogger
from fulgurite.progress import Progress
from fulgurite.results import Metrics
from fulgurite.run import Run
from fulgurite.tuner.snapshot import unchanged
from fulgurite.utilities.exceptions import MisconfigurationException

if TYPE_CHECKING:
    from fulgurite.callbacks.callback import Callback
    from fulgurite.trainer import Trainer


def quiet(trainer: Trainer, callbacks: list[Callback]) -> Trainer:
    """A trainer with the same settings and strategy, and its own counters, metrics and callbacks; it writes nowhere."""
    done = trainer.progress
    quiet = object.__new__(type(trainer))
    quiet.__dict__.update(trainer.__dict__)  # not copy.copy, which leaves out what belongs to the run under way
    quiet.callbacks = callbacks
    quiet._loggers = [DummyLogger()] if trainer.loggers else []
    quiet._active_profiler = None
    quiet.state = copy.copy(trainer.state)
    quiet.progress = Progress(
        epoch=done.epoch,
        total_batch=done.total_batch,
        skipped=done.skipped,
        global_step=done.global_step,
        validated_at=done.total_batch,
        plateau_at=done.total_batch,
    )
    quiet._stop_votes = set()
    quiet.should_stop = False
    quiet._auto_lr_find = False
    quiet._metrics = Metrics()
    quiet._sources = dict(trainer._sources)
    quiet._said = set(trainer._said)
    quiet.predict_loop = PredictionLoopView(quiet)
    quiet.validate_loop = EvaluationLoopView(quiet, "validation")
    quiet.test_loop = EvaluationLoopView(quiet, "test")
    quiet.fit_loop = FitLoopView(quiet)
    return quiet


def running(trainer: Trainer) -> Run:
    """The run that a search borrows module, optimizers and data from."""
    if trainer._run is None or trainer.state.finished or trainer.state.fn is None:
        raise MisconfigurationException(
            "a search from a callback needs a running trainer: call it in on_fit_start or on_train_epoch_start. "
            "Outside of fit write Tuner(trainer).lr_find(model) or Tuner(trainer).scale_batch_size(model)."
        )
    return trainer._run


@contextmanager
def trial(trainer: Trainer, callbacks: list[Callback], steps: int) -> Iterator[Run]:
    """A run of at most so many optimizer steps (or batches of an evaluation) beside the one that is under way.

    Module, optimizers, random state and random generators of the training loader are afterwards as before.
    """
    real = running(trainer)
    module, beside = real.module, quiet(trainer, callbacks)
    keep = [module, *real.optimizers, *([] if real.precision.scaler is None else [real.precision.scaler])]
    with unchanged(*keep):
        try:
            module.trainer = beside
            if trainer.datamodule is not None:
                trainer.datamodule.trainer = beside
            beside.max_steps = beside.global_step + steps
            if isinstance(beside.limit_val_batches, float) and beside.limit_val_batches:
                beside.limit_val_batches = steps
            run = beside._run = Run(beside, module, real.sources, loop.before_step)
            run.use_optimizers(real.optimizers)
            run._warned_not_finite = True  # a search looks for the rate at which the loss explodes
            beside.lr_scheduler_configs = []
            run.begin()
            if real.training:
                run.data.open_train()
            draws = run.data.draw_state()
            try:
                yield run
            finally:
                run.data.restore_draws(draws)
        finally:
            if trainer.datamodule is not None:
                trainer.datamodule.trainer = trainer
