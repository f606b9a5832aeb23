"""Checkpoints that Lightning 1.5 to 2.6 wrote, brought to the shape that the trainer reads."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fulgurite.run import Run

_SCALERS = ("NativeMixedPrecisionPlugin", "MixedPrecisionPlugin", "native_amp_scaling_state")
_PLAIN_LOOP = {"ready": 0, "completed": 0, "started": 0, "processed": 0}


def migrated(checkpoint: dict[str, Any], run: Run) -> dict[str, Any]:
    """The checkpoint as 2.6 would have written it; its own dictionaries stay as they are."""
    version = _version(checkpoint)
    if version is None or version >= (2, 1):
        return checkpoint
    checkpoint = dict(checkpoint)
    for name in _SCALERS:
        if name in checkpoint:
            checkpoint["MixedPrecision"] = checkpoint.pop(name)
    checkpoint.pop("amp_scaling_state", None)  # of apex
    if "callbacks" in checkpoint:
        checkpoint["callbacks"] = _callbacks(checkpoint["callbacks"], run.callbacks)
    fit_loop = (checkpoint.get("loops") or {}).get("fit_loop")
    if fit_loop is None or "epoch_progress" not in fit_loop:
        checkpoint.pop("loops", None)  # too early, or a weights-only file: epoch and step say all there is
        # until 1.5 `epoch` was the one to go on with; since then it is the one in which the file was saved
        checkpoint["epoch"] = int(checkpoint.get("epoch", 0)) + (version >= (1, 6))
    else:
        checkpoint["loops"] = {**checkpoint["loops"], "fit_loop": _fit_loop(fit_loop, checkpoint, version)}
    return checkpoint


def _version(checkpoint: dict[str, Any]) -> tuple[int, int] | None:
    found = re.match(r"(\d+)\.(\d+)", str(checkpoint.get("pytorch-lightning_version", "")))
    return (int(found[1]), int(found[2])) if found else None


def _fit_loop(loop: dict[str, Any], checkpoint: dict[str, Any], version: tuple[int, int]) -> dict[str, Any]:
    epochs = _tracker(loop["epoch_progress"])
    batches = _tracker(loop.get("epoch_loop.batch_progress", {}))
    batches["is_last_batch"] = bool(loop.get("epoch_loop.batch_progress", {}).get("is_last_batch", False))
    if version < (1, 6):
        epochs["current"]["completed"] = int(checkpoint.get("epoch", 0))
        if epochs["current"]["completed"] >= epochs["current"]["started"]:  # saved at an epoch's end, and so counted
            epochs["current"] = dict.fromkeys(_PLAIN_LOOP, epochs["current"]["completed"])
    return {**loop, "epoch_progress": epochs, "epoch_loop.batch_progress": batches}


def _tracker(progress: dict[str, Any]) -> dict[str, Any]:
    """Counters with all four names; the early ones lacked some, and these stand where `completed` does."""
    result: dict[str, Any] = {}
    for part in ("total", "current"):
        counts = {k: v for k, v in (progress.get(part) or {}).items() if v is not None}
        completed = counts.get("completed", 0)
        ready = counts.get("ready", completed)
        result[part] = {"ready": ready, "started": ready, "processed": completed, "completed": completed, **counts}
    return result


def _callbacks(states: dict[Any, Any], callbacks: list[Any]) -> dict[Any, Any]:
    """States under today's keys: they stood under the class, and ModelCheckpoint's key had a part that it lost."""
    keys = {}
    for state_key in states:
        name = state_key if isinstance(state_key, str) else state_key.__qualname__
        name = re.sub(r", 'save_on_train_epoch_end': (None|True|False)", "", name)
        alike = [cb.state_key for cb in callbacks if type(cb).__qualname__ == name.split("{")[0]]
        keys[state_key] = name if name in alike or len(alike) != 1 else alike[0]
    return {keys[state_key]: _state(state) for state_key, state in states.items()}


def _state(state: Any) -> Any:
    if not isinstance(state, dict) or "best_model_path" not in state:
        return state
    blank: dict[str, Any] = {
        "best_model_score": None,
        "current_score": None,
        "dirpath": None,
        "best_k_models": {},
        "kth_best_model_path": "",
        "kth_value": None,
        "last_model_path": "",
        "monitor": None,
    }
    return {**blank, **state}
