"""Lightning's loops as they show in checkpoints and as attributes of the trainer: views of our counters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fulgurite.run import Run
    from fulgurite.trainer import Trainer


_ALL = ("ready", "completed", "started", "processed")


# checkpoints
def loops_of(run: Run) -> dict[str, Any]:
    """The counters in the shape of Lightning's `checkpoint["loops"]`, so that it can resume from our files."""
    done, manual = run.progress, not run.module.automatic_optimization
    steps, none = _counter(done.global_step, 0, ("ready", "completed")), _counter(0, 0, ("ready", "completed"))
    # Lightning calls a batch completed when its last hook has run, and an epoch processed when its end hooks begin
    pending = int(done.batch > 0 and not done.epoch_closed and done.validated_at != done.total_batch)
    batches = _counter(done.total_batch, done.batch, _ALL)
    for part in batches.values():
        part["completed"] -= pending
    begun, processed = done.epoch + int(done.in_epoch), done.epoch + int(done.epoch_closed)
    epochs = {"ready": begun, "completed": done.epoch, "started": begun, "processed": processed}
    idle = {**_counter(0, 0, _ALL), "is_last_batch": False}
    return {
        "fit_loop": {
            "state_dict": {},
            "epoch_loop.state_dict": {"_batches_that_stepped": run.batches_that_stepped},
            "epoch_loop.batch_progress": {**batches, "is_last_batch": done.is_last_batch},
            "epoch_loop.scheduler_progress": none,
            "epoch_loop.automatic_optimization.state_dict": {},
            "epoch_loop.automatic_optimization.optim_progress": {
                "optimizer": {
                    "step": none if manual else steps,
                    "zero_grad": _counter(0, 0, ("ready", "completed", "started")),
                }
            },
            "epoch_loop.manual_optimization.state_dict": {},
            "epoch_loop.manual_optimization.optim_step_progress": steps if manual else none,
            "epoch_loop.val_loop.state_dict": {},
            "epoch_loop.val_loop.batch_progress": idle,
            "epoch_progress": {"total": epochs, "current": epochs},
        },
        "validate_loop": {"state_dict": {}, "batch_progress": idle},
        "test_loop": {"state_dict": {}, "batch_progress": idle},
        "predict_loop": {"state_dict": {}, "batch_progress": _counter(0, 0, _ALL)},
    }


def _counter(total: int, current: int, names: tuple[str, ...]) -> dict[str, Any]:
    return {"total": dict.fromkeys(names, total), "current": dict.fromkeys(names, current)}


def progress_of(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Our counters, read from a checkpoint that Lightning wrote (or an old one, without loops)."""
    loop = checkpoint.get("loops", {}).get("fit_loop")
    step = int(checkpoint.get("global_step", 0))
    if loop is None:
        return {"epoch": int(checkpoint.get("epoch", 0)), "global_step": step}
    batches, epochs = loop["epoch_loop.batch_progress"], loop["epoch_progress"]["current"]
    in_epoch = epochs["started"] > epochs["completed"]
    # saved at a batch's end, that batch is processed and not yet completed; after validation it is both
    total, validated = batches["total"]["processed"], batches["total"]["completed"] == batches["total"]["processed"]
    manual = loop.get("epoch_loop.manual_optimization.optim_step_progress", {}).get("total", {}).get("completed", 0)
    stepped = loop.get("epoch_loop.state_dict", {}).get("_batches_that_stepped", total)
    return {
        "skipped": total - stepped if manual else 0,
        "epoch": epochs["completed"],
        "batch": batches["current"]["processed"] if in_epoch else 0,
        "total_batch": total,
        "global_step": step,
        "validated_at": total if validated and in_epoch else 0,
        "plateau_at": total if validated and in_epoch else 0,
        "is_last_batch": bool(batches.get("is_last_batch", False)) and in_epoch,
        "epoch_closed": epochs["processed"] > epochs["completed"],
    }


# attributes
def _trainers(name: str) -> property:
    """What the trainer has by this name."""
    return property(lambda self: getattr(self._trainer, name), lambda self, value: setattr(self._trainer, name, value))


class Counts:
    """One of Lightning's progress trackers, read from ours."""

    def __init__(self, value: int) -> None:
        self.ready = self.started = self.processed = self.completed = value


class TotalAndCurrent:
    """Of batches or epochs: those of all, and those of the loop that runs."""

    def __init__(self, total: int, current: int) -> None:
        self.total, self.current = Counts(total), Counts(current)


class DataSource:
    """Where a loop's loaders come from."""

    def __init__(self, trainer: Trainer, stage: str) -> None:
        self._trainer, self._stage = trainer, stage

    def is_defined(self) -> bool:
        return self._trainer._source_of(self._stage) is not None


class EvaluationLoopView:
    """`trainer.validate_loop` and its siblings."""

    def __init__(self, trainer: Trainer, stage: str) -> None:
        self._trainer, self._stage = trainer, stage
        self._data_source = DataSource(trainer, stage)
        self.restarting = False

    @property
    def max_batches(self) -> list[int | float]:
        run = self._trainer._run
        return run.data.limits.get(self._stage, []) if run is not None else []

    @property
    def num_dataloaders(self) -> int:
        return len(self.max_batches)


class PredictionLoopView(EvaluationLoopView):
    """`trainer.predict_loop`."""

    def __init__(self, trainer: Trainer) -> None:
        super().__init__(trainer, "predict")
        self.return_predictions = True

    @property
    def epoch_batch_indices(self) -> list[list[list[int]]]:
        """Which items of the data set, per loader and batch: kept, as in Lightning, where a prediction writer is."""
        run = self._trainer._run
        writers: list[Any] = [callback for callback in self._trainer.callbacks if hasattr(callback, "_indices")]
        if run is None or not writers:
            return []
        seen = list(run.progress.eval_batches.get("predict", ()))
        if seen and not run.results.at_end:
            seen[run.results.loader or 0] += 1  # the batch whose hooks are running
        return list(writers[0]._indices(seen))

    @property
    def current_batch_indices(self) -> list[int]:
        seen = [batches for batches in self.epoch_batch_indices if batches]
        return seen[-1][-1] if seen else []

    @property
    def predictions(self) -> list[Any]:
        run = self._trainer._run
        found: list[Any] = [] if run is None else run.predictions
        return found[0] if len(found) == 1 else found


class EpochLoopView:
    """`trainer.fit_loop.epoch_loop`."""

    global_step, max_steps = _trainers("global_step"), _trainers("max_steps")
    _batches_that_stepped = _trainers("batches_that_stepped")

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self.val_loop = EvaluationLoopView(trainer, "validation")
        self.restarting = False

    @property
    def batch_idx(self) -> int:
        return self._trainer.progress.batch - 1

    @property
    def total_batch_idx(self) -> int:
        return self._trainer.progress.total_batch - 1

    @property
    def batch_progress(self) -> TotalAndCurrent:
        done = self._trainer.progress
        return TotalAndCurrent(done.total_batch, done.batch)


class FitLoopView:
    """`trainer.fit_loop`."""

    max_epochs, min_epochs = _trainers("max_epochs"), _trainers("min_epochs")
    max_steps, min_steps = _trainers("max_steps"), _trainers("min_steps")
    max_batches = _trainers("num_training_batches")

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self.epoch_loop = EpochLoopView(trainer)
        self._data_source = DataSource(trainer, "train")
        self.restarting = False

    @property
    def epoch_progress(self) -> TotalAndCurrent:
        epoch = self._trainer.progress.epoch
        return TotalAndCurrent(epoch, epoch)

    @property
    def total_batch_idx(self) -> int:
        return self.epoch_loop.total_batch_idx

    @property
    def batch_idx(self) -> int:
        return self.epoch_loop.batch_idx

    @property
    def done(self) -> bool:
        run = self._trainer._run
        return run is not None and run.training and run.finished()

    def state_dict(self) -> dict[str, Any]:
        run = self._trainer._run
        return {} if run is None else dict(loops_of(run)["fit_loop"])
