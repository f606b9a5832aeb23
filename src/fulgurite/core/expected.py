"""What the keys of a checkpoint hold: looked at in one place, before anything is made of them.

A description is a class or several, a list of one description for all values, a dictionary of them by key ("?" before a
key that may be absent), or a function that says what is wrong. Keys that are not described may hold anything.
"""

from __future__ import annotations

import contextlib
import inspect
import random
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_COUNTERS = {"ready", "started", "processed", "completed"}
_SCORES = {"best_model_score", "current_score", "kth_value", "best_score"}
_LIKE_A_PARAMETER = {
    *("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "square_avg", "exp_inf", "sum", "ax", "prev"),
    *("grad_avg", "acc_delta"),
}


@dataclass
class _OrNone:
    """What may be absent as None."""

    present: Any


# functions that say what is wrong with a value, or nothing
def _count(value: Any) -> str:
    whole = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62
    return "" if whole else "a whole number that is not negative"


def _number(value: Any) -> str:
    one = isinstance(value, (int, float)) and not isinstance(value, bool)
    return "" if one or (isinstance(value, Tensor) and value.numel() == 1) else "a number"


def _by_name(value: Any) -> str:
    return "" if isinstance(value, Mapping) and all(isinstance(k, str) for k in value) else "a dictionary by names"


def _tensors(value: Any) -> str:
    named = not _by_name(value) and all(isinstance(one, Tensor) for one in value.values())
    return "" if named else "a dictionary of tensors by names"


def _numbers(value: Any) -> str:
    named = not _by_name(value) and not any(map(_number, value.values()))
    return "" if named else "a dictionary of numbers by names"


def _python_state(value: Any) -> str:
    try:
        version, numbers, gauss = value
        random.Random().setstate((version, tuple(numbers), gauss))
    except Exception:  # of several kinds
        return "a state of Python's random numbers"
    return ""


def _torch_state(value: Any) -> str:
    try:
        torch.Generator().set_state(value.cpu())
    except Exception:  # of several kinds
        return "a state of torch's random numbers"
    return ""


def _numpy_state(value: Any) -> str:
    np = sys.modules.get("numpy")
    try:
        if np is not None:
            np.random.RandomState().set_state(tuple(value))
    except Exception:  # of several kinds
        return "a state of NumPy's random numbers"
    return ""


def _classes(value: Any) -> str:
    right = isinstance(value, dict) and all(isinstance(k, tuple) and isinstance(v, str) for k, v in value.items())
    return "" if right else "names of classes by the keys that lead to a value"


def _loops(value: Any) -> str:
    if isinstance(value, Mapping):
        if value and value.keys() <= _COUNTERS:
            return "" if not any(one is not None and _count(one) for one in value.values()) else "counters"
        return next((wrong for one in value.values() if isinstance(one, Mapping) and (wrong := _loops(one))), "")
    return "a dictionary"


def _one_generators_state(value: Any) -> str:
    own = isinstance(value, Mapping) and isinstance(value.get("bit_generator"), str)
    return "" if own or not _torch_state(value) or not _python_state(value) else "the state of a random generator"


def _options(value: Any) -> str:
    """Of `self.log`."""
    kinds = [str if i == 4 else bool for i in range(8)]
    fits = isinstance(value, (tuple, list)) and [type(one) for one in value] == kinds
    return "" if fits else "the options of a logged value"


_SLOT = {
    "key": (tuple, list),
    "metric": _OrNone(str),
    "options": _options,
    "last": _OrNone(_number),
    "total": _OrNone(_number),
    "weight": _number,
    "fresh": bool,
    "?whole": bool,
}
_RNG = {"python": _python_state, "torch": _torch_state, "?numpy": _numpy_state, "?cuda": [Tensor], "?mps": Tensor}
_DRAWS = {**_RNG, "?generators": [_one_generators_state]}
_PLACE = {"open": _DRAWS, "first": _OrNone(_DRAWS), "taken": _count, "lived": bool}
_LOADER = {
    "?open": _DRAWS,
    "?first": _DRAWS,
    "?ahead": _OrNone(_DRAWS),
    "?lived": bool,
    "?world_size": _count,
    "?taken": _OrNone(_count),
    "?start": _count,
    "?walk": _OrNone({"i": _count, "k": _count, "ended": [bool], "parts": [_PLACE]}),
}
_OF_LOADERS = {"states": (list, tuple), "lived": [bool], "generators": [_one_generators_state]}
_SHARE = {
    "?rng": _RNG,
    "?results": {"slots": [_SLOT]},
    "?metric_states": _by_name,
    "?loader": _LOADER,
    "?data": {"?loaded_at": _numbers, "?train": _OF_LOADERS, "?validation": _OF_LOADERS},
    "?gradients": _tensors,
}
_COUNTS = ("epoch", "batch", "total_batch", "global_step", "validated_at", "plateau_at")
_OURS = {
    **_SHARE,
    "rng": _RNG,
    "results": _SHARE["?results"],
    "metric_states": _by_name,
    "progress": {**dict.fromkeys(_COUNTS, _count), "?skipped": _count, "is_last_batch": bool, "epoch_closed": bool},
    "metrics": {"callback": _numbers, "logged": _numbers, "bar": _numbers, "sources": _by_name},
    "clocks": {"since_validation": _number},
    "?ranks": [_SHARE],
    "?row_is_due": bool,
    "?should_stop": bool,
    "?stop_votes": [str],
}
_HPARAMS = (Mapping, Namespace)
CHECKPOINT = {
    "?epoch": _count,
    "?global_step": _count,
    "?pytorch-lightning_version": str,
    "?state_dict": _by_name,
    "?loops": _loops,
    "?callbacks": Mapping,
    "?optimizer_states": [Mapping],
    "?lr_schedulers": [Mapping],
    "?MixedPrecision": (Mapping, type(None)),
    **{f"?{key}": _HPARAMS for key in ("hyper_parameters", "hparams", "module_arguments")},
    "?hparams_name": (str, type(None)),
    "?hparams_classes": _classes,
    "?datamodule_hyper_parameters": _HPARAMS,
    "?datamodule_hparams_name": (str, type(None)),
    "?datamodule_hparams_classes": _classes,
    "?fulgurite": _OURS,
}


def check_checkpoint(checkpoint: Any, path: object) -> None:
    """Raise ValueError where a key holds what it cannot; the message names the file and the key."""
    _check(checkpoint, CHECKPOINT, "", path)
    progress = checkpoint.get("fulgurite", {}).get("progress", {})
    if not isinstance(seen := progress.get("eval_batches", {}), dict) or any(
        not isinstance(counts, list) or any(map(_count, counts)) for counts in seen.values()
    ):
        raise _wrong(path, "fulgurite.progress.eval_batches", seen, "lists of counters by stage")


def _wrong(path: object, at: str, value: Any, expected: str) -> ValueError:
    shown = f"{type(value).__name__} {value!r:.60}" if not isinstance(value, Tensor) else f"tensor {tuple(value.shape)}"
    return ValueError(
        f"{path} cannot be used: its key {at or 'at the top'} is the {shown}, and {expected} is expected there. "
        "It was changed after a trainer wrote it, or something else wrote it; use another checkpoint."
    )


def _check(value: Any, expected: Any, at: str, path: object) -> None:
    if isinstance(expected, _OrNone):
        if value is not None:
            _check(value, expected.present, at, path)
    elif isinstance(expected, dict):
        if not isinstance(value, Mapping):
            raise _wrong(path, at, value, "a dictionary")
        for key, inner in expected.items():
            name = key.removeprefix("?")
            if name in value:
                _check(value[name], inner, f"{at}.{name}" if at else name, path)
            elif name == key:
                raise ValueError(f"{path} cannot be used: it has no key {f'{at}.{name}' if at else name}.")
    elif isinstance(expected, list):
        if not isinstance(value, (list, tuple)):
            raise _wrong(path, at, value, "a list")
        for i, one in enumerate(value):
            _check(one, expected[0], f"{at}[{i}]", path)
    elif isinstance(expected, (type, tuple)):
        if not isinstance(value, expected):
            kinds = expected if isinstance(expected, tuple) else (expected,)
            raise _wrong(path, at, value, " or ".join(kind.__name__ for kind in kinds))
    elif wrong := expected(value):
        raise _wrong(path, at, value, wrong)


def check_like(value: Any, own: Any, at: str, path: object) -> None:
    """Raise ValueError where a state is of another kind than the object's own; what is None may become anything."""
    if at.rpartition(".")[2] in _SCORES:  # None until there is one
        _check(value, lambda score: "" if score is None else _number(score), at, path)
        return
    if isinstance(own, (bool, str)):
        kinds: Any = (type(own), type(None)) if isinstance(own, str) else (bool, type(None))
        _check(value, kinds, at, path)
    elif isinstance(own, (int, float, Tensor)):
        if not isinstance(own, Tensor) or not isinstance(value, Tensor):
            _check(value, _number, at, path)
    elif isinstance(own, Mapping):
        _check(value, Mapping, at, path)
        for key in own.keys() & value.keys():
            check_like(value[key], own[key], f"{at}.{key}", path)
    elif isinstance(own, (list, tuple)):
        _check(value, (list, tuple), at, path)
        for i, (one, mine) in enumerate(zip(value, own, strict=False)):
            check_like(one, mine, f"{at}[{i}]", path)
    elif own is None and at.startswith("optimizer_states"):  # an option that is not set
        _check(value, lambda one: "" if isinstance(one, (bool, str, type(None))) else _number(one), at, path)


def check_scheduler(state: Any, scheduler: Any, at: str, path: object) -> None:
    """Its `load_state_dict` sets whatever attributes the state has: those must be its own, and no methods."""
    own = scheduler.state_dict()
    check_like(state, own, at, path)
    _check(state, {"?last_epoch": _count, "?_step_count": _count}, at, path)
    for key in state.keys() - own.keys():
        if not isinstance(key, str) or hasattr(type(scheduler), key):
            raise _wrong(path, f"{at}.{key}", state[key], f"a method of {type(scheduler).__name__}, not a value,")


def check_optimizer_state(optimizer: torch.optim.Optimizer, state: Any, at: str, path: object) -> None:
    """Raise ValueError where a state is none that the optimizer could be given."""
    check_like(state, optimizer.state_dict(), at, path)
    if not type(optimizer).__module__.startswith("torch.optim"):
        return
    _check(state, {"state": Mapping, "param_groups": [{"params": (list, tuple)}]}, at, path)
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    several = any(state["state"].values())
    for number, values in state["state"].items():
        if not values and several:  # of those that have none yet there is no key
            raise _wrong(path, f"{at}.state[{number}]", values, "the state of a parameter")
        _check(values, {"?step": _number}, f"{at}.state[{number}]", path)  # loading makes a tensor of anything
        if number not in numbers:
            raise _wrong(path, f"{at}.state", number, f"one of the parameters {numbers[:9]}")


def check_loaded_optimizer(optimizer: torch.optim.Optimizer, at: str, path: object) -> None:
    """Raise ValueError where an optimizer of torch could not make a step with what it was given."""
    if not type(optimizer).__module__.startswith("torch.optim"):
        return
    options = inspect.signature(type(optimizer)).parameters.keys() - {"params"}
    for i, group in enumerate(optimizer.param_groups):
        with part(path, f"{at}.param_groups[{i}]"):  # its constructor knows what its options may be
            own = {name: value for name, value in group.items() if name in options}
            type(optimizer)(list(group["params"]), **own)
        _check_states(optimizer, group["params"], at, path)


def _check_states(optimizer: torch.optim.Optimizer, parameters: list[Tensor], at: str, path: object) -> None:
    kinds = set()
    for i, parameter in enumerate(parameters):
        state = optimizer.state.get(parameter)
        if not state:
            continue
        kinds.add(frozenset(state))
        for name in _LIKE_A_PARAMETER & state.keys():
            fits = isinstance(state[name], Tensor) and state[name].shape == parameter.shape
            if not fits and not (name == "momentum_buffer" and state[name] is None):
                raise _wrong(path, f"{at}.state[{i}].{name}", state[name], f"a tensor {tuple(parameter.shape)}")
    if len(kinds) > 1:
        raise ValueError(f"{path} cannot be used: in {at}.state the parameters of one group have different keys.")


@contextlib.contextmanager
def part(path: object, at: str) -> Iterator[None]:
    """Around what reads a part of a checkpoint by itself: what goes wrong there names the file and the key."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, IndexError, AssertionError, OverflowError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{path} cannot be used: its key {at} does not fit ({reason:.200}).") from error
    except (ValueError, RuntimeError) as error:
        if type(error) not in (ValueError, RuntimeError) or str(error).startswith(str(path)):
            raise
        raise type(error)(f"{path} cannot be used: its key {at} does not fit ({error}).") from error
