"""Hyper-parameters as objects: attribute access, the arguments of `__init__`, where a named setting lives."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Iterator
from types import CodeType, FrameType
from typing import Any


class AttributeDict(dict[Any, Any]):
    """A dictionary whose string keys are attributes too.

    >>> hparams = AttributeDict(lr=0.1)
    >>> hparams.depth = 3
    >>> hparams.lr, hparams["depth"]
    (0.1, 3)
    """

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"there is no hyper-parameter {name!r}; known are {list(self)}.") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __delattr__(self, name: str) -> None:
        try:
            del self[name]
        except KeyError:
            raise AttributeError(f"there is no hyper-parameter {name!r}; known are {list(self)}.") from None

    def __repr__(self) -> str:
        rows = [(f'"{key}":', value) for key, value in self.items()]
        width = max((len(label) for label, _ in rows), default=0)
        return "\n".join(f"{label:{width}} {value}" for label, value in rows)


def get_init_args(frame: FrameType) -> dict[str, Any]:
    """The arguments of the function that runs in `frame`, by name: without `self` and `*args`, `**kwargs` unfolded."""
    code, values = frame.f_code, frame.f_locals
    given = {name: values[name] for name in _argument_names(code) if name in values}
    if code.co_flags & inspect.CO_VARKEYWORDS:
        given.update(values.get(_keywords_name(code), {}))
    return given


def collect_init_args(obj: object, frame: FrameType | None) -> dict[str, Any]:
    """The arguments of each `__init__` of `obj` that is running, `frame` and outwards; a subclass has the last word."""
    collected: dict[str, Any] = {}
    while frame is not None:
        if _initializes(obj, frame):
            collected.update(get_init_args(frame))
        frame = frame.f_back
    return collected


def _initializes(obj: object, frame: FrameType) -> bool:
    code = frame.f_code
    # that it is this very object keeps out a module whose __init__ builds this one
    return code.co_name == "__init__" and code.co_argcount > 0 and frame.f_locals.get(code.co_varnames[0]) is obj


def _argument_names(code: CodeType) -> tuple[str, ...]:
    return code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]


def _keywords_name(code: CodeType) -> str:
    starred = bool(code.co_flags & inspect.CO_VARARGS)
    return code.co_varnames[code.co_argcount + code.co_kwonlyargcount + starred]


def is_picklable(obj: object) -> bool:
    """Whether `obj` can go into a file, or to another process."""
    try:
        pickle.dumps(obj)
    except (pickle.PickleError, AttributeError, RuntimeError, TypeError):
        return False
    return True


def lightning_hasattr(model: Any, attribute: str) -> bool:
    """Whether a setting is an attribute of the module, of its hyper-parameters or of its datamodule."""
    return any(True for _ in _holders(model, attribute))


def lightning_getattr(model: Any, attribute: str) -> Any:
    """The value of a setting, wherever it is; the datamodule's before the hyper-parameters' before the module's."""
    holder = _last_holder(model, attribute)
    return holder[attribute] if isinstance(holder, dict) else getattr(holder, attribute)


def lightning_setattr(model: Any, attribute: str, value: Any) -> None:
    """Set a setting in every place that has it."""
    _last_holder(model, attribute)
    for holder in _holders(model, attribute):
        if isinstance(holder, dict):
            holder[attribute] = value
        else:
            setattr(holder, attribute, value)


def _holders(model: Any, attribute: str) -> Iterator[Any]:
    trainer = getattr(model, "_trainer", None)
    for owner in (model, getattr(trainer, "datamodule", None)):
        if hasattr(owner, attribute):
            yield owner
        hparams = getattr(owner, "hparams", None)
        if isinstance(hparams, dict) and attribute in hparams:
            yield hparams


def _last_holder(model: Any, attribute: str) -> Any:
    holders = list(_holders(model, attribute))
    if not holders:
        raise AttributeError(
            f"{attribute!r} is no attribute of the module {type(model).__name__}, of its hparams or of its datamodule. "
            f"Set self.{attribute} in __init__, or pass it to save_hyperparameters."
        )
    return holders[-1]
