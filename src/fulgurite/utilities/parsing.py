"""Hyper-parameters as objects: attribute access, the arguments of `__init__`, where a named setting lives."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import MutableMapping
from types import FrameType
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
    names, _, keywords, values = inspect.getargvalues(frame)
    given = {name: values[name] for name in names[1:] if name in values}
    return given if keywords is None else {**given, **values.get(keywords, {})}


def collect_init_args(obj: object, frame: FrameType | None) -> dict[str, Any]:
    """The arguments of each `__init__` of `obj` that is running, `frame` and outwards; a subclass has the last word."""
    collected: dict[str, Any] = {}
    while frame is not None:
        code = frame.f_code
        # that it is this very object keeps out a module whose __init__ builds this one
        if code.co_name == "__init__" and code.co_argcount > 0 and frame.f_locals.get(code.co_varnames[0]) is obj:
            collected.update(get_init_args(frame))
        frame = frame.f_back
    return collected


def is_picklable(obj: object) -> bool:
    """Whether `obj` can go into a file, or to another process."""
    try:
        pickle.dumps(obj)
    except (pickle.PickleError, AttributeError, RuntimeError, TypeError):
        return False
    return True


class Setting:
    """A value under one name; where several owners or hyper-parameters have it, all are set and the last is read."""

    def __init__(self, name: str, *owners: Any) -> None:
        self.name = name
        self.holders: list[Any] = []
        for owner in owners:
            if hasattr(owner, name):
                self.holders.append(owner)
            hparams = getattr(owner, "hparams", None)
            if name in hparams if isinstance(hparams, MutableMapping) else hasattr(hparams, name):
                self.holders.append(hparams)

    @property
    def value(self) -> Any:
        holder = self.holders[-1]
        return holder[self.name] if isinstance(holder, MutableMapping) else getattr(holder, self.name)

    def set(self, value: Any) -> None:
        for holder in self.holders:
            if isinstance(holder, MutableMapping):
                holder[self.name] = value
            else:
                setattr(holder, self.name, value)


def lightning_hasattr(model: Any, attribute: str) -> bool:
    """Whether a setting is an attribute of the module, of its hyper-parameters or of its datamodule."""
    return bool(_setting(model, attribute).holders)


def lightning_getattr(model: Any, attribute: str) -> Any:
    """The value of a setting, wherever it is; the datamodule's before the hyper-parameters' before the module's."""
    return _present(model, attribute).value


def lightning_setattr(model: Any, attribute: str, value: Any) -> None:
    """Set a setting in every place that has it."""
    _present(model, attribute).set(value)


def _setting(model: Any, attribute: str) -> Setting:
    trainer = getattr(model, "_trainer", None)
    return Setting(attribute, model, getattr(trainer, "datamodule", None))


def _present(model: Any, attribute: str) -> Setting:
    setting = _setting(model, attribute)
    if not setting.holders:
        raise AttributeError(
            f"{attribute!r} is no attribute of the module {type(model).__name__}, of its hparams or of its datamodule. "
            f"Set self.{attribute} in __init__, or pass it to save_hyperparameters."
        )
    return setting
