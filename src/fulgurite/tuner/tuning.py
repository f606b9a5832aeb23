"""The tuner: finds a learning rate or a batch size for a module, and leaves everything else as it was."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from fulgurite.callbacks.batch_size_finder import BatchSizeFinder
from fulgurite.callbacks.lr_finder import LearningRateFinder
from fulgurite.core.datamodule import LightningDataModule
from fulgurite.states import TrainerFn
from fulgurite.tuner import batch_size_scaling, lr_finder
from fulgurite.tuner.attributes import batch_size, learning_rate
from fulgurite.tuner.snapshot import unchanged
from fulgurite.tuner.trial import quiet, running
from fulgurite.utilities.exceptions import MisconfigurationException
from fulgurite.utilities.rank_zero import rank_zero_info, rank_zero_warn

if TYPE_CHECKING:
    from fulgurite.core.module import LightningModule
    from fulgurite.trainer import Trainer

_STAGES = {"validate": "validation", "test": "test", "predict": "predict"}


class Tuner:
    """Tries settings on the real module and data with a trainer's flags, before that trainer trains.

    Example::

        tuner = Tuner(trainer)
        finder = tuner.lr_find(model)            # writes model.lr
        tuner.scale_batch_size(model)            # writes model.batch_size
        trainer.fit(model)
    """

    def __init__(self, trainer: Any) -> None:  # a Trainer, which cannot be imported here: it has a tuner itself
        self._trainer: Trainer = trainer

    def lr_find(
        self,
        model: LightningModule,
        train_dataloaders: Any = None,
        val_dataloaders: Any = None,
        dataloaders: Any = None,
        datamodule: LightningDataModule | None = None,
        method: Literal["fit", "validate", "test", "predict"] = "fit",
        min_lr: float = 1e-08,
        max_lr: float = 1,
        num_training: int = 100,
        mode: str = "exponential",
        early_stop_threshold: float | None = 4.0,
        update_attr: bool = True,
        attr_name: str = "",
    ) -> lr_finder._LRFinder | None:
        """Train while raising the learning rate, and suggest the rate at which the loss fell fastest.

        Args:
            model: the module.
            train_dataloaders: as for `Trainer.fit`.
            val_dataloaders: as for `Trainer.fit`.
            dataloaders: not for this search.
            datamodule: as for `Trainer.fit`.
            method: "fit"; a rate means nothing elsewhere.
            min_lr: the first rate.
            max_lr: the last rate.
            num_training: how many steps from the one to the other.
            mode: "exponential" or "linear" growth.
            early_stop_threshold: stop when the loss is so many times the smallest; None: never.
            update_attr: write the suggestion to the module's `lr` or `learning_rate`, attribute or hyper-parameter.
            attr_name: write it to this name instead.
        """
        if (launcher := self._trainer.strategy.launcher) is not None:
            call = {name: value for name, value in locals().items() if name not in ("self", "launcher")}
            found: lr_finder._LRFinder | None = launcher.launch("_tuner.lr_find", {**call, "self": self._trainer})
            return found
        if method != "fit":
            raise MisconfigurationException(f"lr_find(method={method!r}): a learning rate is looked for in 'fit' only.")
        self._refuse_callback(LearningRateFinder)
        finder = lr_finder._LRFinder(mode, min_lr, max_lr, num_training)
        if self._skipped("lr_find"):
            return None
        given, datamodule = _data(method, train_dataloaders, val_dataloaders, dataloaders, datamodule)
        tuned = learning_rate(attr_name, model, datamodule) if update_attr else None
        with self._attached(model, given, datamodule, TrainerFn.FITTING) as trainer:
            lr_finder.search(trainer, finder, early_stop_threshold)
        if tuned is not None and (rate := finder.suggestion()) is not None:
            tuned.set(rate)
            rank_zero_info(f"Learning rate set to {rate}")
        return finder

    def scale_batch_size(
        self,
        model: LightningModule,
        train_dataloaders: Any = None,
        val_dataloaders: Any = None,
        dataloaders: Any = None,
        datamodule: LightningDataModule | None = None,
        method: Literal["fit", "validate", "test", "predict"] = "fit",
        mode: str = "power",
        steps_per_trial: int = 3,
        init_val: int = 2,
        max_trials: int = 25,
        batch_arg_name: str = "batch_size",
        margin: float = 0.05,
        max_val: int = 8192,
    ) -> int | None:
        """Try larger and larger batches until memory runs out; the largest that went well is written and returned.

        Args:
            model: the module; it or its data module makes the loaders, of `batch_arg_name` rows a batch.
            train_dataloaders: a data module, if any.
            val_dataloaders: not for this search, which has the loaders made anew for each size.
            dataloaders: a data module for a method other than "fit".
            datamodule: the data module.
            method: what is to fit in memory: "fit", "validate", "test" or "predict".
            mode: "power" doubles until memory runs out; "binsearch" then closes in on the largest that fits.
            steps_per_trial: optimizer steps, or batches of an evaluation, to try each size with.
            init_val: the first size.
            max_trials: how many sizes at most to try.
            batch_arg_name: the attribute or hyper-parameter that holds the batch size.
            margin: in mode "binsearch", take so much less than was found.
            max_val: the largest size to try.
        """
        self._refuse_callback(BatchSizeFinder)
        self._refuse_processes("scale_batch_size")
        plan = batch_size_scaling.Plan(mode, steps_per_trial, init_val, max_trials, margin, max_val)
        if self._skipped("scale_batch_size"):
            return None
        given, datamodule = _data(method, train_dataloaders, val_dataloaders, dataloaders, datamodule)
        if next(iter(given.values())) is not None:
            raise batch_size_scaling.loaders_were_passed(batch_arg_name)
        tuned = batch_size(batch_arg_name, model, datamodule)
        with self._attached(model, given, datamodule, TrainerFn(method)) as trainer:
            size = batch_size_scaling.search(trainer, plan, tuned, _STAGES.get(method))
        tuned.set(size)
        rank_zero_info(f"Batch size set to {size}")
        return size

    # for the callbacks, while fit (or an evaluation) runs
    def _find_rate(
        self,
        module: LightningModule,
        finder_arguments: tuple[str, float, float, int],
        early_stop_threshold: float | None,
        attr_name: str | None,
    ) -> lr_finder._LRFinder | None:
        """As `lr_find`, and the optimizer in use gets the new rate; no `attr_name` means to change nothing."""
        trainer = self._trainer
        finder = lr_finder._LRFinder(*finder_arguments)
        if self._skipped("LearningRateFinder"):
            return None
        tuned = None if attr_name is None else learning_rate(attr_name, module, trainer.datamodule)
        lr_finder.search(trainer, finder, early_stop_threshold)
        if tuned is not None and (rate := finder.suggestion()) is not None:
            tuned.set(rate)
            rank_zero_info(f"Learning rate set to {rate}")
            follows = False
            if trainer.global_step == 0:
                before = _settings(trainer)
                running(trainer).configure_optimizers()  # schedulers and parameter groups follow the new rate too
                follows = _settings(trainer) != before
            if not follows:  # also where configure_optimizers names a rate of its own
                for group in trainer.optimizers[0].param_groups:
                    group["lr"] = rate
        return finder

    def _find_batch_size(self, module: LightningModule, name: str, **plan: Any) -> int | None:
        """As `scale_batch_size`, in the stage that runs now."""
        trainer = self._trainer
        if self._skipped("BatchSizeFinder"):
            return None
        self._refuse_processes("BatchSizeFinder")
        run = running(trainer)
        stage, source = next(iter(run.sources.items()))
        hook = f"{'val' if stage == 'validation' else stage}_dataloader"
        if source not in [getattr(owner, hook, None) for owner in (module, trainer.datamodule)]:
            raise batch_size_scaling.loaders_were_passed(name)
        tuned = batch_size(name, module, trainer.datamodule)
        size = batch_size_scaling.search(
            trainer, batch_size_scaling.Plan(**plan), tuned, None if run.training else stage
        )
        tuned.set(size)
        rank_zero_info(f"Batch size set to {size}")
        if not run.training:
            run.data.open_evaluation(stage)
        return size

    # what both searches share
    def _skipped(self, what: str) -> bool:
        if self._trainer.fast_dev_run:
            rank_zero_warn(
                f"{what} is skipped: fast_dev_run={self._trainer.fast_dev_run} is too short to find anything."
            )
        return bool(self._trainer.fast_dev_run)

    def _refuse_processes(self, what: str) -> None:
        if self._trainer.world_size > 1:
            raise MisconfigurationException(
                f"{what} with {self._trainer.world_size} processes: one that runs out of memory leaves the others "
                "waiting. Look for the size with devices=1; it is that of each process."
            )

    def _refuse_callback(self, kind: type) -> None:
        if any(isinstance(callback, kind) for callback in self._trainer.callbacks):
            raise MisconfigurationException(
                f"this trainer has a {kind.__name__} among its callbacks, which searches when fit starts. Leave it "
                "out, or leave out the Tuner."
            )

    @contextmanager
    def _attached(
        self, model: LightningModule, given: dict[str, Any], datamodule: LightningDataModule | None, fn: TrainerFn
    ) -> Iterator[Trainer]:
        """A quiet copy of the trainer, with the module set up as `fn` would, and everything taken back afterwards."""
        trainer = quiet(self._trainer, [])
        trainer.strategy = copy.copy(trainer.strategy)
        attached = None if datamodule is None else datamodule.trainer
        with unchanged(model):
            try:
                with trainer._running(fn, model, given, datamodule, None, None):
                    yield trainer
            finally:
                if datamodule is not None:
                    datamodule.trainer = attached


def _settings(trainer: Trainer) -> list[dict[str, Any]]:
    """Rates and all else of the parameter groups."""
    groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
    return [{name: value for name, value in group.items() if name != "params"} for group in groups]


def _data(
    method: str, train: Any, val: Any, dataloaders: Any, datamodule: LightningDataModule | None
) -> tuple[dict[str, Any], LightningDataModule | None]:
    """The loaders by stage, and the data module, from the five ways to pass them."""
    if method not in ("fit", *_STAGES):
        raise MisconfigurationException(f"method={method!r} is not one of 'fit', 'validate', 'test' and 'predict'.")
    if method == "fit" and dataloaders is not None:
        raise MisconfigurationException(
            "dataloaders is for the methods 'validate', 'test' and 'predict'; for 'fit' pass train_dataloaders and "
            "val_dataloaders."
        )
    if method != "fit" and (train is not None or val is not None):
        raise MisconfigurationException(
            f"train_dataloaders and val_dataloaders are for the method 'fit'; for {method!r} pass dataloaders."
        )
    first = train if method == "fit" else dataloaders
    if isinstance(first, LightningDataModule):
        datamodule, first = first, None
    if method == "fit":
        return {"train": first, "validation": val}, datamodule
    return {_STAGES[method]: first}, datamodule
