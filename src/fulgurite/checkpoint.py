"""What a checkpoint holds and how a run takes it back: Lightning's keys, and one of our own with the exact state.

Lightning's files say which epoch and step a run was in. Ours also say how far each running mean had come, what the
random state was, and which gradients were pending, so that a resumed run is the uninterrupted one, bit for bit.
"""

from __future__ import annotations

import copy
import random
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fulgurite.callbacks.callback import Callback
from fulgurite.callbacks.own_files import SAVED_BY, OwnFiles
from fulgurite.core.expected import check_like, check_loaded_optimizer, check_optimizer_state, check_scheduler
from fulgurite.core.expected import part as part_of
from fulgurite.core.saving import classes_key, foreign_classes, plain_hparams
from fulgurite.hooks import overrides
from fulgurite.progress import Progress
from fulgurite.results import MetricSource
from fulgurite.shared_results import merged_slots, merged_states
from fulgurite.utilities.names import modules_as_in, weights_as_in
from fulgurite.utilities.rank_zero import rank_zero_warn, warn_once
from fulgurite.utilities.seed import collect_rng_state, restore_rng_state
from fulgurite.utilities.tree import apply_to_collection

if TYPE_CHECKING:
    from fulgurite.core.datamodule import LightningDataModule
    from fulgurite.core.module import LightningModule
    from fulgurite.run import Run
    from fulgurite.trainer import Trainer

LIGHTNING_VERSION = "2.6.6"  # whose files these can be read by, and which they resemble
OURS = "fulgurite"


# saving
def dump(trainer: Trainer, run: Run, loops: Callable[[Run], dict[str, Any]], weights_only: bool) -> dict[str, Any]:
    """The checkpoint of this moment. `loops` gives the counters in the shape that Lightning reads."""
    module, left = run.module, trainer._left_by(run.module)
    if left is not None:  # the fit is over: whatever happened since, it goes on from where it ended
        run = copy.copy(run)
        run.progress, run.training = Progress(**left["progress"]), True
    checkpoint: dict[str, Any] = {
        "epoch": run.progress.epoch if run.training else trainer.current_epoch,
        "global_step": trainer.global_step,
        "pytorch-lightning_version": LIGHTNING_VERSION,
        "state_dict": run.strategy.lightning_module_state_dict(),
        "loops": loops(run),
    }
    if not weights_only:
        checkpoint["callbacks"] = {cb.state_key: state for cb in run.callbacks if (state := cb.state_dict())}
        checkpoint["optimizer_states"] = [run.strategy.optimizer_state(optimizer) for optimizer in trainer.optimizers]
        checkpoint["lr_schedulers"] = [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs]
        if state := run.precision.state_dict():
            checkpoint[run.precision.state_key] = state
        if run.training:
            checkpoint[OURS] = exact_state(run) if left is None else dict(left)
            for line in checkpoint[OURS].pop("inexact", ()):
                warn_once(line)
            if not run.alone:
                checkpoint[OURS]["ranks"] = run.strategy.gather_of_shares(
                    of_each_process(run, checkpoint[OURS]), "the state of each rank for a checkpoint"
                )
    _add_hparams(checkpoint, module, trainer.datamodule)
    if not weights_only:
        if trainer.datamodule is not None and (state := trainer.datamodule.state_dict()):
            checkpoint[type(trainer.datamodule).__qualname__] = state
        for callback in run.callbacks:
            if overrides(callback, "on_save_checkpoint", Callback):
                callback.on_save_checkpoint(trainer, module, checkpoint)
    own = (getattr(callback, "_own", None) for callback in run.callbacks)
    if note := next((files.note for files in own if isinstance(files, OwnFiles) and files.note), None):
        checkpoint.setdefault(OURS, {})[SAVED_BY] = note
    module.on_save_checkpoint(checkpoint)
    checkpoint = run.strategy.gathered(checkpoint)
    foreign = foreign_classes(checkpoint)
    if foreign:
        warn_once(
            f"the checkpoint holds objects of {', '.join(foreign)}. It is saved as it is; loading it needs "
            "weights_only=False or torch.serialization.add_safe_globals. Keep only plain values to avoid this: "
            "save_hyperparameters(ignore=[...])."
        )
    return checkpoint


def _add_hparams(checkpoint: dict[str, Any], module: LightningModule, datamodule: LightningDataModule | None) -> None:
    for owner in (module, datamodule):
        if owner is None or not owner.hparams:
            continue
        plain, classes = plain_hparams(owner.hparams)
        checkpoint[owner.CHECKPOINT_HYPER_PARAMS_KEY] = plain
        checkpoint[owner.CHECKPOINT_HYPER_PARAMS_NAME] = getattr(owner, "_hparams_name", None)
        if classes:
            checkpoint[classes_key(owner.CHECKPOINT_HYPER_PARAMS_NAME)] = classes


def exact_state(run: Run, still: bool = False) -> dict[str, Any]:
    """What makes a resumed run the uninterrupted one. `still`: of a run that may be saved when more has happened."""
    done = run.progress
    state: dict[str, Any] = {
        "progress": done.state_dict(),
        "rng": run.data.draw_state(),
        "data": run.data.kept(),
        "inexact": run.data.inexact(),
        "results": run.train_results.state_dict(),
        "metrics": {
            **vars(run.trainer._current().copy()),
            "sources": {name: tuple(source) for name, source in run.metrics.sources.items()},
        },
        "metric_states": {name: _metric_state(metric) for name, metric in _metric_objects(run.module)},
        "clocks": {"since_validation": time.monotonic() - run.validated_time},
    }
    if done.epoch_closed and run.left is not None and run.left["progress"]["total_batch"] == done.total_batch:
        state["cut"] = run.left
    if run.train_results.row_is_due:
        state["row_is_due"] = True
    if done.in_epoch and not still:
        state["should_stop"] = bool(run.trainer._asked_to_stop)
    if not still and not run.finished():
        state["stop_votes"] = sorted(run.trainer._stop_votes)
    if done.in_epoch and run.data.rng:
        state["loader"] = run.data.state_dict()
    gradients: dict[str, Any] = {}
    in_window = not run.steps_after(done.batch) and done.batch > 0
    if in_window or not run.module.automatic_optimization:
        own = {name: p.grad.detach() for name, p in run.module.named_parameters() if p.grad is not None}
        gradients = {"gradients": own}
    return {**apply_to_collection(state, Tensor, lambda t: t.detach().clone() if still else t.detach()), **gradients}


_OF_EACH = ("rng", "data", "cut", "loader", "results", "metric_states")


def of_each_process(run: Run, state: dict[str, Any]) -> dict[str, Any]:
    """What differs from process to process: random states, running values, gradients that no step has averaged yet."""
    names = (*_OF_EACH, "gradients") if run.strategy.keeps_gradients_apart else _OF_EACH
    own = {name: state[name] for name in names if name in state}
    return apply_to_collection(own, Tensor, lambda t: t.cpu())  # type: ignore[no-any-return]  # a dict in, a dict out


def for_this_process(run: Run, state: dict[str, Any]) -> dict[str, Any]:
    """The state with what is this process's own; shared out anew where there were more or fewer processes."""
    ranks, rank, world = state.get("ranks") or [state], run.strategy.data_rank, run.world_size
    before = state.get("loader", {}).get("world_size", len(ranks))
    state = {**state, **_gradients_now(run, state, ranks)}
    if before == world and len(ranks) == world:
        return {**state, **{name: ranks[rank][name] for name in _OF_EACH if name in ranks[rank]}}
    if len(ranks) == 1 and world == 1 and "ranks" not in state:
        return state
    mine = ranks[rank::world]  # several, one or none
    state.pop("cut", None)
    own = {**state, "results": {"slots": merged_slots([one["results"]["slots"] for one in mine])}}
    own["metric_states"] = _merged_metrics(run, [one["metric_states"] for one in mine])
    draws = ranks[rank]["rng"] if rank < len(ranks) else _other_draws(ranks[0]["rng"], rank)
    return {**own, "rng": draws}


def _gradients_now(run: Run, state: dict[str, Any], ranks: list[dict[str, Any]]) -> dict[str, Any]:
    """Pending gradients, where the processes that saved had each their own, as those of now have them."""
    if not any("gradients" in one for one in ranks):
        return {}  # averaged already, which is what a process of any number may begin with
    apart, rank, world = run.strategy.keeps_gradients_apart, run.strategy.data_rank, run.world_size
    # a step averages over the processes of now; where they share one gradient, it is the average already
    share = (world if apart else 1) / len(ranks)
    gradients: dict[str, Tensor] = {}
    for one in ranks[rank::world] if apart else ranks:
        for name, gradient in one.get("gradients", {}).items():
            part = gradient if share == 1 else gradient * share
            gradients[name] = gradients[name] + part if name in gradients else part
    return {"gradients": gradients}


def _other_draws(state: dict[str, Any], rank: int) -> dict[str, Any]:
    """The random state of a process that there was not when the checkpoint was saved: as of another seed."""
    before = collect_rng_state()
    restore_rng_state(state)
    seed = int(torch.randint(2**31, ()).item()) + rank
    random.seed(seed)
    torch.manual_seed(seed)
    if (np := sys.modules.get("numpy")) is not None:
        np.random.seed(seed % 2**32)
    other = {**state, **collect_rng_state()}
    restore_rng_state(before)
    return other


def _merged_metrics(run: Run, states: list[dict[str, Any]]) -> dict[str, Any]:
    merged = {}
    for name, metric in _metric_objects(run.module):
        found = [one[name] for one in states if name in one]
        if not found:
            continue  # empty, as it is
        if len(found) > 1 and hasattr(metric, "_reductions"):
            flat = [{**one["values"], "_update_count": one["update_count"]} for one in found]
            values = merged_states(metric, flat)
            found = [{"update_count": values.pop("_update_count"), "values": values}]
        elif len(found) > 1:
            rank_zero_warn(
                f"self.{name} ({type(metric).__name__}) does not declare its states as torchmetrics' do, so those of "
                "several processes cannot be put together: in this epoch it goes on from one of them."
            )
        merged[name] = found[0]
    return merged


def _metric_objects(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Metric objects the module holds, whatever library they come from: they update, compute and reset."""
    for name, part in module.named_modules():
        if all(callable(getattr(part, act, None)) for act in ("update", "compute", "reset")):
            yield name, part


def _metric_state(metric: Any) -> dict[str, Any]:
    """What it has summed up so far: the states it declares, as torchmetrics' do, else its public plain values."""
    declared = getattr(metric, "_defaults", None)
    if isinstance(declared, dict):
        values = {name: getattr(metric, name) for name in declared}
    else:
        plain = (Tensor, int, float, list)
        values = {k: v for k, v in vars(metric).items() if isinstance(v, plain) and k[0] != "_" and k != "training"}
    return {"values": values, "update_count": getattr(metric, "_update_count", 0)}


# loading
def load_weights(run: Run, checkpoint: dict[str, Any]) -> None:
    """The module's weights, after the hooks that may look at the file first."""
    module, trainer = run.module, run.trainer
    datamodule = trainer.datamodule
    if datamodule is not None and (state := checkpoint.get(type(datamodule).__qualname__)) is not None:
        datamodule.load_state_dict(state)
    module.on_load_checkpoint(checkpoint)
    if "state_dict" not in checkpoint:
        raise KeyError(
            f"{trainer._ckpt_path}: the checkpoint has no 'state_dict' "
            f"(its keys: {', '.join(map(str, checkpoint))}): it is not a file that "
            "a trainer saved. Load bare weights with model.load_state_dict(torch.load(path))."
        )
    as_here = {**checkpoint, "state_dict": weights_as_in(module, checkpoint["state_dict"])}
    with part_of(trainer._ckpt_path, "state_dict"):
        run.strategy.load_model_state_dict(as_here, strict=module.strict_loading)


def load_callbacks(run: Run, checkpoint: dict[str, Any]) -> None:
    """The state of each callback, found by its key, or by its class in old files."""
    for callback in run.callbacks:
        if overrides(callback, "on_load_checkpoint", Callback):
            callback.on_load_checkpoint(run.trainer, run.module, checkpoint)
    states = checkpoint.get("callbacks")
    if not states:
        return
    known = {key: callback for callback in run.callbacks for key in (callback.state_key, type(callback))}
    left = [str(key) for key in states if key not in known]
    if left and run.training:  # evaluating needs no EarlyStopping
        rank_zero_warn(
            f"the checkpoint holds the state of callbacks that this trainer does not have: {', '.join(left)}. "
            "Add them with the same arguments to go on as before."
        )
    for callback in run.callbacks:
        state = states.get(callback.state_key, states.get(type(callback)))
        if state is not None:
            path, at = run.trainer._ckpt_path, f"callbacks.{callback.state_key}"
            with part_of(path, at):
                if type(callback).__module__.startswith("fulgurite."):
                    check_like(state, callback.state_dict(), at, path)
                callback.load_state_dict(state)


def load_training(
    run: Run, checkpoint: dict[str, Any], progress_of: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    """Everything besides weights: optimizers, schedulers, counters, and what makes the resume exact.

    `progress_of` reads the counters of a file that Lightning wrote.
    """
    _load_optimizers(run, checkpoint)
    path = run.trainer._ckpt_path
    if (key := run.precision.state_key) in checkpoint:
        with part_of(path, key):
            check_like(checkpoint[key] or {}, run.precision.state_dict(), key, path)
            run.precision.load_state_dict(checkpoint[key])
    ours = checkpoint.get(OURS)
    if ours is None:
        with part_of(path, "loops"):
            run.progress.load_state_dict(progress_of(checkpoint))
        return
    with part_of(path, OURS):
        _load_ours(run, for_this_process(run, ours), checkpoint)


def _load_ours(run: Run, ours: dict[str, Any], checkpoint: dict[str, Any]) -> None:
    # told to stop before the epoch was closed: so it is still, unless the callbacks that may have said so are gone
    same_callbacks = checkpoint.get("callbacks", {}).keys() <= {callback.state_key for callback in run.callbacks}
    if ours.get("should_stop", False) and same_callbacks:
        run.trainer.should_stop = True
    for callback in run.callbacks:  # one that is more patient now than the one that voted does not
        if callback.state_key in ours.get("stop_votes", ()) and getattr(callback, "stopping_reason", True):
            run.trainer._vote_to_stop(callback, True)
    if (cut := ours.pop("cut", None)) is not None:
        if run.trainer.should_stop or ours["progress"]["global_step"] >= run.trainer.max_steps != -1:
            run.left = cut
        else:
            ours = cut  # the epoch was ended early, and this run goes on with it
    run.progress.load_state_dict(ours["progress"])
    run.data.load_state_dict(dict(ours.get("loader", {})))
    run.data.load_kept(ours.get("data", {}))
    parts = dict(run.module.named_modules())
    for name, metric_state in modules_as_in(run.module, ours["metric_states"]).items():
        if name in parts:  # else the module has other metrics now; the epoch's value of a new one begins here
            _load_metric(parts[name], metric_state, run.device)
    run.train_results.load_state_dict(ours["results"])
    metrics = ours["metrics"]
    run.metrics.callback.update(metrics["callback"])
    run.metrics.logged.update(metrics["logged"])
    run.metrics.bar.update(metrics["bar"])
    run.metrics.sources.update({name: MetricSource(*source) for name, source in metrics["sources"].items()})
    if not ours.get("row_is_due", False):
        run.train_results.published_at = run.progress.total_batch
    run.validated_time = time.monotonic() - ours["clocks"]["since_validation"]
    parameters = dict(run.module.named_parameters())
    for name, gradient in weights_as_in(run.module, ours.get("gradients", {})).items():
        parameters[name].grad = run.strategy.placed(gradient, parameters[name])
    run.data.now = ours["rng"]


def _load_optimizers(run: Run, checkpoint: dict[str, Any]) -> None:
    states = checkpoint.get("optimizer_states")
    if states is None:
        raise KeyError(
            f"{run.trainer._ckpt_path}: the checkpoint holds weights only (save_weights_only=True), "
            "so a fit cannot go on from it. Load the "
            "weights with YourModule.load_from_checkpoint(path) and start a new fit."
        )
    optimizers = run.trainer.optimizers
    if len(states) != len(optimizers):
        raise ValueError(
            f"{run.trainer._ckpt_path}: the checkpoint holds the state of {len(states)} optimizers, and "
            f"configure_optimizers returned {len(optimizers)}. Resume with the same configure_optimizers."
        )
    path = run.trainer._ckpt_path
    for i, (optimizer, state) in enumerate(zip(optimizers, states, strict=True)):
        check_optimizer_state(optimizer, state, f"optimizer_states[{i}]", path)
    with part_of(path, "optimizer_states"):
        run.strategy.load_optimizer_state_dict(checkpoint)
    for i, optimizer in enumerate(optimizers):
        check_loaded_optimizer(optimizer, f"optimizer_states[{i}]", path)
    for i, (config, state) in enumerate(zip(run.schedulers, checkpoint.get("lr_schedulers", ()), strict=False)):
        with part_of(path, at := f"lr_schedulers[{i}]"):
            if hasattr(config.scheduler, "state_dict"):
                check_scheduler(state, config.scheduler, at, path)
            config.scheduler.load_state_dict(state)


def _load_metric(metric: Any, state: dict[str, Any], device: torch.device) -> None:
    for key, value in state["values"].items():
        setattr(metric, key, apply_to_collection(value, Tensor, Tensor.to, device))
    if hasattr(metric, "_update_count"):
        metric._update_count = state["update_count"]
