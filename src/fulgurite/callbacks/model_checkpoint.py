"""Saves checkpoints: the newest, the best by a metric, the last; by epochs, steps or time."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor

from fulgurite.callbacks.checkpoint import Checkpoint, check_name
from fulgurite.callbacks.monitoring import not_logged
from fulgurite.callbacks.own_files import OwnFiles, files_at
from fulgurite.compat.inherited import old_callback_arguments
from fulgurite.core.sharded import replace_path
from fulgurite.machine.strategy import TorchCheckpointIO
from fulgurite.states import TrainerFn
from fulgurite.utilities.cloud_io import (
    RemotePath,
    is_remote,
    modified,
    path_of,
    sweep,
    sync_folder,
    temporary_name,
    written_whole,
)
from fulgurite.utilities.exceptions import MisconfigurationException
from fulgurite.utilities.rank_zero import rank_zero_info, rank_zero_warn

if TYPE_CHECKING:
    from fulgurite.core.module import LightningModule
    from fulgurite.trainer import Trainer

_FIELD = re.compile(r"\{([^{}:]+)(:[^{}]*)?\}")  # {name} or {name:format}


class _Plan(NamedTuple):
    """What one moment writes. All names are settled before the first file, so that each file knows of all of them."""

    path: str | None = None
    last: str | None = None
    exceptional: str | None = None  # what an exception left: nobody removes it
    outdated: tuple[str, ...] = ()  # removed once the new ones are on disk


class ModelCheckpoint(Checkpoint):
    """Save the newest weights, or the `save_top_k` best by `monitor`.

    Example::

        Trainer(callbacks=[ModelCheckpoint(monitor="val_auc", mode="max", filename="{epoch}-{val_auc:.4f}")])

    A checkpoint is ranked by a metric of its very own weights: where a save is due by steps or time and `monitor` comes
    from validation, it waits for the next validation and takes the weights and the step of that moment.
    """

    CHECKPOINT_JOIN_CHAR = "-"
    CHECKPOINT_EQUALS_CHAR = "="
    CHECKPOINT_NAME_LAST = "last"
    FILE_EXTENSION = ".ckpt"
    STARTING_VERSION = 1

    @old_callback_arguments
    def __init__(
        self,
        dirpath: str | Path | None = None,
        filename: str | None = None,
        monitor: str | None = None,
        verbose: bool = False,
        save_last: bool | Literal["link"] | None = None,
        save_top_k: int = 1,
        save_on_exception: bool = False,
        save_weights_only: bool = False,
        mode: str = "min",
        auto_insert_metric_name: bool = True,
        every_n_train_steps: int | None = None,
        train_time_interval: timedelta | None = None,
        every_n_epochs: int | None = None,
        save_on_train_epoch_end: bool | None = None,
        enable_version_counter: bool = True,
    ) -> None:
        super().__init__()
        self.monitor = monitor
        self.verbose = verbose
        self.save_last = save_last
        self.save_top_k = save_top_k
        self.save_on_exception = save_on_exception
        self.save_weights_only = save_weights_only
        self.mode = mode
        self.auto_insert_metric_name = auto_insert_metric_name
        self._save_on_train_epoch_end = save_on_train_epoch_end
        self._enable_version_counter = enable_version_counter

        untold = every_n_train_steps is None and every_n_epochs is None and train_time_interval is None
        self._every_n_train_steps = every_n_train_steps or 0
        self._every_n_epochs = 1 if untold else every_n_epochs or 0
        self._train_time_interval = train_time_interval
        self.filename = filename
        self._check_arguments()

        self.dirpath: str | None = None if dirpath is None else str(path_of(dirpath).resolve())
        self.best_k_models: dict[str, Tensor] = {}
        self.best_model_path = ""
        self.best_model_score: Tensor | None = None
        self.kth_best_model_path = ""
        self.kth_value = torch.tensor(torch.inf if mode == "min" else -torch.inf)
        self.current_score: Tensor | None = None
        self.last_model_path = ""
        self._own = OwnFiles()
        self._stand_ins: dict[str, str] = {}  # for a best file that is gone: one that a killed run left
        self._ranking = True  # whether this stage may save
        self._newest_path = ""  # what save_last="link" points to
        self._last_global_step_saved = 0
        self._last_position = (0, 0)  # training batches and steps at the last save
        self._waiting = False  # a save is due, but what it needs to know is not logged yet
        self._last_time_checked = 0.0

    def _check_arguments(self) -> None:
        if self.mode not in ("min", "max"):
            raise MisconfigurationException(f"mode={self.mode!r} of ModelCheckpoint must be 'min' or 'max'.")
        if self.save_top_k < -1:
            raise MisconfigurationException(
                f"save_top_k={self.save_top_k} must be -1 (keep all), 0 (keep none) or the number of files to keep."
            )
        for name in ("every_n_train_steps", "every_n_epochs"):
            if (value := getattr(self, f"_{name}")) < 0:
                raise MisconfigurationException(f"{name}={value} must not be negative; 0 switches it off.")
        triggers = {
            "every_n_train_steps": self._every_n_train_steps,
            "every_n_epochs": self._every_n_epochs,
            "train_time_interval": self._train_time_interval,
        }
        if len(given := [f"{name}={value}" for name, value in triggers.items() if value]) > 1:
            raise MisconfigurationException(
                f"ModelCheckpoint({', '.join(given)}): a checkpoint callback has one trigger. "
                "Use a ModelCheckpoint for each."
            )
        if self.monitor is None and self.save_top_k not in (-1, 0, 1):
            raise MisconfigurationException(
                f"ModelCheckpoint(save_top_k={self.save_top_k}) needs a metric to rank by: give monitor='...', "
                "or save_top_k=-1 to keep all files, 1 to keep the newest, 0 to keep none."
            )
        self._check_templates()

    def _check_templates(self) -> None:
        """Files outside the folder would be found by nobody who looks for them there."""
        check_name(self._filled(self.filename or ""), f"ModelCheckpoint(filename={self.filename!r})")
        check_name(self._filled(self.CHECKPOINT_NAME_LAST), f"CHECKPOINT_NAME_LAST={self.CHECKPOINT_NAME_LAST!r}")

    def _filled(self, template: str) -> str:
        """The template with a 0 for each value."""
        insert = self.auto_insert_metric_name
        return _FIELD.sub(lambda field: f"{field[1]}{self.CHECKPOINT_EQUALS_CHAR}0" if insert else "0", template)

    @property
    def state_key(self) -> str:
        return self._generate_state_key(
            monitor=self.monitor,
            mode=self.mode,
            every_n_train_steps=self._every_n_train_steps,
            every_n_epochs=self._every_n_epochs,
            train_time_interval=self._train_time_interval,
        )

    @property
    def every_n_epochs(self) -> int | None:
        return self._every_n_epochs

    # when
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self.dirpath is None:
            self.dirpath = self._default_dirpath(trainer)
        self.dirpath = trainer.strategy.broadcast(str(path_of(self.dirpath).absolute()))  # wherever the program goes
        self._check_templates()
        self._ranking = stage == "fit"
        by_step = self._every_n_train_steps or self._train_time_interval is not None
        if not by_step and type(self).on_train_batch_end is ModelCheckpoint.on_train_batch_end:
            self.on_train_batch_end = super().on_train_batch_end  # type: ignore[method-assign]  # a hook not overridden costs nothing

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and self.dirpath and not self._off(trainer):
            sweep(self.dirpath)
            if self.save_top_k != 0:
                self._warn_if_dir_not_empty(trainer, path_of(self.dirpath))
        if self._own.goes_on:
            if self.save_top_k > 0 and self.best_model_path:
                self._take_stock(trainer)
            self._own.begin()
        self._last_time_checked = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._every_n_train_steps:
            due = trainer.global_step % self._every_n_train_steps == 0
        elif self._train_time_interval is not None:
            due = self._time_is_up(trainer, self._train_time_interval)
        else:
            return
        if not due or self._should_skip_saving_checkpoint(trainer):
            return
        if self.monitor is not None and self._validation_closes_epoch(trainer):
            self._waiting = True  # its end saves the same weights, and knows every metric
        else:
            self._save(trainer, self._monitor_candidates(trainer))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._on_closing(trainer, self._should_save_on_train_epoch_end(trainer))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._on_closing(trainer, not self._should_save_on_train_epoch_end(trainer))

    def _on_closing(self, trainer: Trainer, saves_here: bool) -> None:
        """At the end of a training epoch or a validation: what is due here, and what has been waiting for it."""
        if self._off(trainer):
            return
        due = saves_here and self._every_n_epochs >= 1 and (trainer.current_epoch + 1) % self._every_n_epochs == 0
        if self._waiting or (due and self._last_global_step_saved != trainer.global_step):
            self._save(trainer, self._monitor_candidates(trainer))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._off(trainer):
            return
        if self._waiting:
            self._say_not_ranked(trainer)
        lacks = self._waiting or not self.last_model_path or (self.save_top_k == 0 and self._every_n_epochs >= 1)
        if self.save_last and lacks:  # the last weights are to be found, ranked or not
            self._carry_out(trainer, self._with_last(trainer, self._monitor_candidates(trainer), _Plan()))
        self._remove_outdated(trainer)  # of a run that was killed before it could

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if not self._should_save_on_exception(trainer):
            return
        candidates = self._monitor_candidates(trainer)
        template = self.filename
        if not self._template_names() <= candidates.keys():
            template = self._default_template()  # the exception at hand matters more than the name
        path = self._free_path(trainer, candidates, template)
        plan = _Plan(exceptional=path)
        self._carry_out(trainer, self._with_last(trainer, candidates, plan) if self.save_last else plan)
        rank_zero_info(f"{type(exception).__name__}: the state at step {trainer.global_step} is saved in {path}.")

    def _off(self, trainer: Trainer) -> bool:
        return bool(trainer.fast_dev_run) or trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking

    def _should_skip_saving_checkpoint(self, trainer: Trainer) -> bool:
        return self._off(trainer) or self._last_global_step_saved == trainer.global_step

    def _should_save_on_exception(self, trainer: Trainer) -> bool:
        position = trainer.progress.total_batch, trainer.global_step
        return self.save_on_exception and not self._off(trainer) and position not in (self._last_position, (0, 0))

    def _should_save_on_train_epoch_end(self, trainer: Trainer) -> bool:
        if self._save_on_train_epoch_end is not None:
            return self._save_on_train_epoch_end
        if trainer.check_val_every_n_epoch != 1:
            return False
        if not sum(trainer.num_val_batches):
            return True
        return trainer.val_check_interval == 1.0  # else validation ends are the finer rhythm

    def _validation_closes_epoch(self, trainer: Trainer) -> bool:
        """Whether this was the last batch, and a validation that saves follows."""
        run = trainer._run
        follows = run is not None and trainer.progress.is_last_batch and run.validation_due()
        return follows and not self._should_save_on_train_epoch_end(trainer)

    def _time_is_up(self, trainer: Trainer, interval: timedelta) -> bool:
        run = trainer._run
        if trainer.world_size > 1 and run is not None and not run.agreement.due:
            return False  # the processes ask one another at the points where they meet anyway
        now = time.monotonic()
        up = trainer.strategy.broadcast(now - self._last_time_checked >= interval.total_seconds())
        if up:
            self._last_time_checked = now
        return up

    # what
    def _save(self, trainer: Trainer, candidates: dict[str, Tensor]) -> None:
        """A save is due: rank, decide all names, then write."""
        self._waiting = self.save_top_k != 0 and not self._is_known(trainer, candidates)
        plan = _Plan() if self._waiting or self.save_top_k == 0 else self._ranked(trainer, candidates)
        if self.save_last and (plan.path or self.save_top_k == 0 or self.save_last != "link"):
            plan = self._with_last(trainer, candidates, plan)
        self._carry_out(trainer, plan)

    def _is_known(self, trainer: Trainer, candidates: dict[str, Tensor]) -> bool:
        """Whether the monitored metric was measured on the weights as they are, and the file name can be filled.

        False: wait for the next validation or epoch end. One that has passed without the metric is an error.
        """
        wanted = self._template_names() | ({self.monitor} if self.monitor is not None else set())
        for name in sorted(wanted - candidates.keys()):
            if self._had_its_chance(trainer) and trainer.metric_source(name) is None:
                raise MisconfigurationException(self._missing(name, candidates))
            return False
        source = trainer.metric_source(self.monitor) if self.monitor is not None else None
        return source is None or source.total_batch == trainer.progress.total_batch

    def _had_its_chance(self, trainer: Trainer) -> bool:
        """Whether a metric that exists would be known: after one validation, or one epoch where nothing validates."""
        progress = trainer.progress
        epoch_ended = progress.epoch > 0 or progress.epoch_closed
        if progress.validated_at == 0:
            return epoch_ended and not trainer.enable_validation
        closes_next = progress.is_last_batch or trainer.should_stop  # what training logs by epoch is known then
        return epoch_ended or not closes_next

    def _missing(self, name: str, candidates: Mapping[str, Any]) -> str:
        who = f"monitor={name!r}" if name == self.monitor else f"filename={self.filename!r}"
        return not_logged(f"ModelCheckpoint({who})", name, candidates)

    def _say_not_ranked(self, trainer: Trainer) -> None:
        """Weights that nothing has measured are not ranked; a run that ranked none at all deserves a warning."""
        say: Callable[[str], None] = rank_zero_info if self.best_model_path else rank_zero_warn
        say(
            f"ModelCheckpoint(monitor={self.monitor!r}): training ended at step {trainer.global_step} before the "
            "metric was logged for these weights, so they are not ranked. Metrics logged: "
            f"{', '.join(sorted(trainer.callback_metrics)) or 'none'}."
        )

    def _monitor_candidates(self, trainer: Trainer) -> dict[str, Tensor]:
        """What may be monitored or stand in a file name: every logged metric, `epoch` and `step`."""
        candidates: dict[str, Tensor] = dict(trainer.callback_metrics)
        for name, now in (("epoch", trainer.current_epoch), ("step", trainer.global_step)):
            logged = candidates.get(name)
            candidates[name] = logged.int() if isinstance(logged, Tensor) else torch.tensor(now)
        return trainer.strategy.broadcast(candidates)  # a value of a single step differs from process to process

    def _ranked(self, trainer: Trainer, candidates: dict[str, Tensor]) -> _Plan:
        if self.monitor is None:
            old = self.best_model_path
            self.best_model_path = path = self._free_path(trainer, candidates, self.filename, old)
            return _Plan(path, outdated=(old,) if self.save_top_k == 1 else ())
        current = torch.as_tensor(candidates[self.monitor]).detach().clone().cpu()
        if not self.check_monitor_top_k(trainer, current):
            if self.verbose:
                rank_zero_info(
                    f"Epoch {trainer.current_epoch}, global step {trainer.global_step}: {self.monitor!r} was not in "
                    f"top {self.save_top_k}"
                )
            return _Plan()
        return self._enter_top_k(trainer, candidates, trainer.strategy.broadcast(current))

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        """Whether a checkpoint of this score is among the best to be kept."""
        if current is None:
            return False
        if self.save_top_k == -1 or len(self.best_k_models) < self.save_top_k:
            return True
        better = torch.lt if self.mode == "min" else torch.gt
        worst = self.best_k_models[self.kth_best_model_path]
        return bool(trainer.strategy.broadcast(bool(better(current, worst.to(current.device)))))

    def _enter_top_k(self, trainer: Trainer, candidates: dict[str, Tensor], current: Tensor) -> _Plan:
        k = len(self.best_k_models) + 1 if self.save_top_k == -1 else self.save_top_k
        old = ""
        if len(self.best_k_models) == k:
            old = self.kth_best_model_path
            self.best_k_models.pop(old)
        if torch.isnan(current):  # the worst of all
            current = torch.tensor(torch.inf if self.mode == "min" else -torch.inf)
        path = self._free_path(trainer, candidates, self.filename, old)
        self.current_score = self.best_k_models[path] = current
        self._rank(k)
        if self.verbose:
            rank_zero_info(
                f"Epoch {trainer.current_epoch}, global step {trainer.global_step}: {self.monitor!r} reached "
                f"{current:0.5f} (best {self.best_model_score:0.5f}), saving model to {path!r} as top {k}"
            )
        return _Plan(path, outdated=(old,))

    def _rank(self, k: int) -> None:
        """Name the best and the worst of the files that are kept."""
        best, worst = (min, max) if self.mode == "min" else (max, min)

        def score(path: str) -> float:
            return float(self.best_k_models[path])

        if len(self.best_k_models) == k:
            self.kth_best_model_path = worst(self.best_k_models, key=score)
            self.kth_value = self.best_k_models[self.kth_best_model_path]
        first = best(self.best_k_models, key=score)
        self.best_model_path, self.best_model_score = self._stand_ins.get(first, first), self.best_k_models[first]

    def _with_last(self, trainer: Trainer, candidates: dict[str, Tensor], plan: _Plan) -> _Plan:
        old, taken = self.last_model_path, (plan.path, plan.exceptional, *plan.outdated)
        path = self._free_path(trainer, candidates, self.CHECKPOINT_NAME_LAST, old, taken)
        self.last_model_path = path
        return plan._replace(last=path, outdated=(*plan.outdated, old))

    def _carry_out(self, trainer: Trainer, plan: _Plan) -> None:
        """Write; only then remove what the new files replace."""
        written = plan.path, plan.exceptional, plan.last
        if not any(written):
            return
        self._last_global_step_saved = trainer.global_step
        self._last_position = trainer.progress.total_batch, trainer.global_step
        outdated = dict.fromkeys(path for path in (*self._own.outdated, *plan.outdated) if path not in written)
        self._own.outdated = [path for path in outdated if self._should_remove(trainer, path)]
        if plan.exceptional:
            self._newest_path = plan.exceptional
            self._save_checkpoint(trainer, plan.exceptional)
        if plan.path:
            self._newest_path = plan.path
            self._write(trainer, plan.path, rank=None if self.monitor is None else float(self.best_k_models[plan.path]))
        if plan.last and (newest := plan.path or plan.exceptional) and self._links():
            self._link_checkpoint(trainer, newest, plan.last)
        elif plan.last:
            self._write(trainer, plan.last)
        self._remove_outdated(trainer)

    def _remove_outdated(self, trainer: Trainer) -> None:
        outdated = [path for path in self._own.outdated if self._is_ours(trainer, path)]
        for path in outdated:
            self._remove_checkpoint(trainer, path)
        self._own.outdated = []

    def _links(self) -> bool:
        return self.save_last == "link" and self.save_top_k != 0 and not is_remote(self.dirpath)

    def _write(self, trainer: Trainer, path: str, **note: Any) -> None:
        """Save, with a note in the file of who wrote it."""
        self._own.note = self._own.noted(**note)
        try:
            self._save_checkpoint(trainer, path)
        finally:
            self._own.note = None
        io: Any = trainer.strategy.checkpoint_io
        writer: Any = type(getattr(io, "checkpoint_io", io))
        if writer.save_checkpoint is not TorchCheckpointIO.save_checkpoint or _overrides_saving(self):
            self._own.unmarked.add(path)

    # whose
    def _is_ours(self, trainer: Trainer, path: str) -> bool:
        return bool(trainer.strategy.broadcast(trainer.is_global_zero and self._own.are(path)))

    def _should_remove(self, trainer: Trainer, path: str) -> bool:
        """Whether a file is in our folder, and not the one that this run resumed from."""
        if not path or self.dirpath is None or path_of(self.dirpath).resolve() not in _placed(path).parents:
            return False
        return trainer.ckpt_path is None or _placed(path) != _placed(trainer.ckpt_path)

    def _names_in_use(self) -> set[str]:
        return {*self.best_k_models, self.best_model_path, self.last_model_path} - {""}

    def _take_stock(self, trainer: Trainer) -> None:
        """Find what stands in for a best file that is gone: a run that was killed had gone on, and replaced it.

        The ranking stays as it was at the moment that is resumed from, so that the next saves are those of a run that
        nobody killed; they replace the files of the same names.
        """
        found = trainer.strategy.broadcast(self._stand_in() if trainer.is_global_zero else "")
        if found:
            self._stand_ins = {self.best_model_path: found}
            self.best_model_path = found

    def _stand_in(self) -> str:
        if path_of(self.best_model_path).exists():
            return ""
        depth, kept = self._filled(self.filename or "").count("/"), {*self.best_k_models, self.last_model_path}
        ours = self._own.found(path_of(self.dirpath or ""), depth, self.FILE_EXTENSION)
        ranks = {path: note["rank"] for path, note in ours if "rank" in note and path not in kept}
        if self.monitor is None:
            return max(ranks, key=modified, default="")
        return (min if self.mode == "min" else max)(ranks, key=lambda path: ranks[path], default="")

    def _used_by_others(self, trainer: Trainer) -> set[str]:
        return {path for other in trainer.checkpoint_callbacks if other is not self for path in other._names_in_use()}

    # where
    def _default_dirpath(self, trainer: Trainer) -> str:
        if not trainer.loggers:
            return str(path_of(trainer.default_root_dir) / "checkpoints")
        logger = trainer.loggers[0]
        root = trainer.default_root_dir if logger.save_dir is None else logger.save_dir
        version = logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
        return str(path_of(root) / str(logger.name) / version / "checkpoints")

    def _warn_if_dir_not_empty(self, trainer: Trainer, folder: Path | RemotePath) -> None:
        resumes_here = trainer.ckpt_path is not None and folder in path_of(trainer.ckpt_path).absolute().parents
        if folder.is_dir() and any(folder.iterdir()) and not resumes_here:
            rank_zero_warn(f"Checkpoint directory {folder} exists and is not empty.")

    def _default_template(self) -> str:
        return f"{{epoch}}{self.CHECKPOINT_JOIN_CHAR}{{step}}"

    def _template_names(self) -> set[str]:
        """The metrics that the file name shows."""
        return {name for name, _ in _FIELD.findall(self.filename or "")} - {"epoch", "step"}

    def format_checkpoint_name(
        self, metrics: Mapping[str, Any], filename: str | None = None, ver: int | None = None, prefix: str | None = None
    ) -> str:
        """Fill the template, e.g. "{epoch:02d}-{val_loss:.3f}" -> "<dirpath>/epoch=01-val_loss=0.026.ckpt".

        `auto_insert_metric_name=False` leaves the names out: needed where they contain a "/".
        """

        def fill(field: re.Match[str]) -> str:
            name, spec = field[1], (field[2] or ":")[1:]
            if name not in metrics:
                raise MisconfigurationException(self._missing(name, metrics))
            value = metrics[name]
            text = format(value.item() if isinstance(value, Tensor) else value, spec)
            return f"{name}{self.CHECKPOINT_EQUALS_CHAR}{text}" if self.auto_insert_metric_name else text

        name = _FIELD.sub(fill, filename or self.filename or self._default_template())
        if prefix is not None:
            name = f"{prefix}{self.CHECKPOINT_JOIN_CHAR}{name}"
        if ver is not None:
            name = f"{name}{self.CHECKPOINT_JOIN_CHAR}v{ver}"
        name += self.FILE_EXTENSION
        check_name(name, f"ModelCheckpoint(filename={filename or self.filename!r})")
        return str(path_of(self.dirpath) / name) if self.dirpath else name

    def _free_path(
        self,
        trainer: Trainer,
        candidates: dict[str, Tensor],
        template: str | None,
        replaces: str = "",
        taken: Iterable[str | None] = (),
    ) -> str:
        """The first of name, name-v1, name-v2 ... that no other file has which is to be kept."""
        own = self._names_in_use() - {replaces, *self._stand_ins.values()}
        in_use = self._used_by_others(trainer) | own | set(taken)
        path, version = self.format_checkpoint_name(candidates, template, None), self.STARTING_VERSION
        while path in in_use or not self._may_write(trainer, path, replaces):
            path, version = self.format_checkpoint_name(candidates, template, version), version + 1
        return path

    def _may_write(self, trainer: Trainer, path: str, replaces: str) -> bool:
        if not self._enable_version_counter or not self.file_exists(path, trainer):
            return True
        if path != replaces and (self.save_top_k == -1 or not self._should_remove(trainer, path)):
            return False
        return self._is_ours(trainer, path)

    def file_exists(self, filepath: str | Path, trainer: Trainer) -> bool:
        """Whether rank 0 sees the file."""
        return bool(trainer.strategy.broadcast(path_of(filepath).exists()))

    # on disk
    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        trainer.save_checkpoint(filepath, self.save_weights_only)
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.after_save_checkpoint(self)

    @staticmethod
    def _link_checkpoint(trainer: Trainer, filepath: str, linkpath: str) -> None:
        """Let `linkpath` be a relative link to `filepath`; a copy where the file system has no links."""
        if trainer.is_global_zero:
            io: Any = trainer.strategy.checkpoint_io
            if hasattr(io, "later"):  # after the file that it points to
                io.later(_link, Path(filepath), Path(linkpath))
            else:
                _link(Path(filepath), Path(linkpath))
        trainer.strategy.barrier()

    def _remove_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        trainer.strategy.remove_checkpoint(filepath)

    def _find_last_checkpoints(self, trainer: Trainer) -> set[str]:
        """The files that `ckpt_path="last"` chooses from."""
        folder, template = path_of(self.dirpath or self._default_dirpath(trainer)), self.CHECKPOINT_NAME_LAST
        name = ".*".join(map(re.escape, re.split(r"\{[^{}]*\}", template.rpartition("/")[2])))  # it may be a template
        named = re.compile(rf"{name}({self.CHECKPOINT_JOIN_CHAR}v\d+)?{re.escape(self.FILE_EXTENSION)}")
        files = files_at(folder, self._filled(template).count("/"), self.FILE_EXTENSION)
        return {str(path) for path in files if named.fullmatch(path.name)}

    def to_yaml(self, filepath: str | Path | None = None) -> None:
        """Write the kept files and their scores, by default to `best_k_models.yaml` beside them."""
        import yaml

        with written_whole(filepath or path_of(self.dirpath or "") / "best_k_models.yaml", "w") as file:
            yaml.dump({name: float(score) for name, score in self.best_k_models.items()}, file)

    # state
    def state_dict(self) -> dict[str, Any]:
        return {
            "monitor": self.monitor,
            "best_model_score": self.best_model_score,
            "best_model_path": self.best_model_path,
            "current_score": self.current_score,
            "dirpath": self.dirpath,
            "best_k_models": dict(self.best_k_models),
            "kth_best_model_path": self.kth_best_model_path,
            "kth_value": self.kth_value,
            "last_model_path": self.last_model_path,
            # ours: a resumed run saves at the same moments as one that was not interrupted
            "newest_path": self._newest_path,
            "last_global_step_saved": self._last_global_step_saved,
            "waiting": self._waiting,
            **self._own.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._last_global_step_saved = state_dict.get("last_global_step_saved", 0)
        self._waiting = state_dict.get("waiting", False)
        self.best_model_path = state_dict["best_model_path"]
        theirs = state_dict.get("dirpath", self.dirpath)
        if not _same_folder(self.dirpath, theirs):
            if self._ranking:
                rank_zero_warn(
                    f"The checkpoint directory was {theirs!r} and is {self.dirpath!r} now: only best_model_path is "
                    "taken over from the checkpoint; the ranking starts anew."
                )
            return

        def here(path: str) -> str:
            """The path as this run spells the folder."""
            inside = path.startswith(f"{theirs}/") and theirs != self.dirpath
            return f"{self.dirpath}{path.removeprefix(str(theirs))}" if inside else path

        self.best_model_path = here(self.best_model_path)
        self.best_model_score = state_dict["best_model_score"]
        self.kth_best_model_path = here(state_dict.get("kth_best_model_path", self.kth_best_model_path))
        self.kth_value = state_dict.get("kth_value", self.kth_value)
        kept = state_dict.get("best_k_models", self.best_k_models)
        self.best_k_models = {here(path): score for path, score in kept.items()}
        self.current_score = state_dict.get("current_score")
        self.last_model_path = here(state_dict.get("last_model_path", self.last_model_path))
        self._newest_path = here(state_dict.get("newest_path", self.best_model_path))
        self._own.load_state_dict(state_dict, self._names_in_use())
        self._own.outdated = [here(path) for path in self._own.outdated]


def _same_folder(one: str | None, other: str | None) -> bool:
    """Whether two names, perhaps by way of links, are of one folder."""
    if one is None or other is None:
        return one is other
    return path_of(one).resolve() == path_of(other).resolve()


def _placed(path: str | Path) -> Path | RemotePath:
    """Where a path is, by whatever links it is named; a link itself is not followed."""
    return path_of(path).parent.resolve() / path_of(path).name


def _overrides_saving(callback: ModelCheckpoint) -> bool:
    return type(callback)._save_checkpoint is not ModelCheckpoint._save_checkpoint


def _link(target: Path, link: Path) -> None:
    unfinished = link.with_name(temporary_name())
    try:
        unfinished.symlink_to(os.path.relpath(target, link.parent))
    except OSError:
        (shutil.copytree if target.is_dir() else shutil.copy)(target, unfinished)
    if link.is_dir() and not link.is_symlink():
        replace_path(unfinished, link)
    else:
        unfinished.replace(link)
    sync_folder(link.parent)
