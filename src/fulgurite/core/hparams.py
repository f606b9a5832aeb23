"""Hyper-parameters: what `__init__` was given, kept for checkpoints, loggers and `load_from_checkpoint`."""

from __future__ import annotations

import copy
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType
from typing import Any

from torch import nn

from fulgurite.compat.inherited import assign_hparams
from fulgurite.utilities.parsing import AttributeDict, collect_init_args
from fulgurite.utilities.rank_zero import rank_zero_warn

AS_CALLED = object()  # stands for a value that only the call of `__init__` brings
_given: ContextVar[dict[type, dict[str, Any]] | None] = ContextVar("given hyper-parameters", default=None)


@contextmanager
def given_hyperparameters(hparams: dict[type, dict[str, Any]]) -> Iterator[None]:
    """Objects of these classes made inside: `save_hyperparameters` sees these, not the arguments of `__init__`.

    For a command line that makes objects from a configuration: the configuration can be saved, the objects cannot.
    Only where one is `AS_CALLED`, its argument of `__init__` is seen.
    """
    token = _given.set(hparams)
    try:
        yield
    finally:
        _given.reset(token)


class HyperparametersMixin:
    """Gives a class `save_hyperparameters` and `hparams`."""

    _hparams: AttributeDict | None = None
    _hparams_initial: AttributeDict | None = None
    _hparams_name: str | None = None
    _log_hyperparams: bool = False

    def save_hyperparameters(
        self,
        *args: Any,
        ignore: Iterable[str] | str | None = None,
        frame: FrameType | None = None,
        logger: bool = True,
    ) -> None:
        """Keep the arguments of `__init__`, of this class and of its subclasses, as `self.hparams`.

        Args:
            args: names of the arguments to keep (default: all), or one dictionary or Namespace to keep instead.
            ignore: names not to keep.
            frame: the frame of `__init__`, when called from elsewhere.
            logger: whether loggers get them too.

        Example::

            def __init__(self, width: int, lr: float = 1e-3, encoder=None):
                super().__init__()
                self.save_hyperparameters(ignore="encoder")
                self.net = nn.Linear(self.hparams.width, 1)
        """
        if frame is None:
            frame = sys._getframe(1)
        given = (_given.get() or {}).get(type(self))
        init_args = collect_init_args(self, frame)
        if given is not None:
            init_args = {key: init_args.get(key) if value is AS_CALLED else value for key, value in given.items()}
        name, kept = _chosen(args, init_args)
        ignored = {ignore} if isinstance(ignore, str) else set(ignore or ())
        kept = {key: value for key, value in kept.items() if key not in ignored}
        self._log_hyperparams = logger
        self._hparams_name = name
        self._set_hparams(kept)
        self.remove_ignored_hparams(ignored)
        for key, value in kept.items():
            if isinstance(value, nn.Module):
                rank_zero_warn(
                    f"The argument {key!r} is an nn.Module: its weights are saved with the module's own, and once more "
                    f"as a hyper-parameter. Leave it out: self.save_hyperparameters(ignore=[{key!r}])."
                )
        self._hparams_initial = _copied(self.hparams)

    def _set_hparams(self, hparams: Mapping[Any, Any] | Namespace) -> None:
        self.hparams.update(_as_dict(hparams))

    def remove_ignored_hparams(self, ignore_list: Iterable[str]) -> None:
        """Forget these, also where a base class has saved them."""
        for name in ignore_list:
            self.hparams.pop(name, None)

    @property
    def hparams(self) -> AttributeDict:
        """The saved hyper-parameters, as a dictionary with attribute access."""
        if self._hparams is None:
            self._hparams = AttributeDict()
        return self._hparams

    @hparams.setter
    def hparams(self, hparams: Mapping[str, Any] | Namespace) -> None:
        assign_hparams(self, hparams)

    @property
    def hparams_initial(self) -> AttributeDict:
        """The hyper-parameters as they were when saved; a copy, read-only in effect."""
        return AttributeDict() if self._hparams_initial is None else copy.deepcopy(self._hparams_initial)


def _chosen(args: tuple[Any, ...], init_args: dict[str, Any]) -> tuple[str | None, dict[Any, Any]]:
    """What a call names: how it is called in the checkpoint ("kwargs", or the name of one argument), and the values."""
    objects = [arg for arg in args if not isinstance(arg, str)]
    if not args:
        return ("kwargs" if init_args else None), init_args
    if not objects:
        if unknown := [arg for arg in args if arg not in init_args]:
            raise ValueError(
                f"save_hyperparameters({', '.join(map(repr, args))}): __init__ has no argument {unknown[0]!r}; "
                f"it has {list(init_args)}."
            )
        return "kwargs", {arg: init_args[arg] for arg in args}
    if len(args) > 1:
        raise ValueError(
            "save_hyperparameters takes names of arguments of __init__, or one dictionary or Namespace; it got "
            f"{len(args)} values, among them {objects[0]!r:.60}. Pass their names as strings, or nothing for all."
        )
    if objects[0] is None:  # an optional configuration that was not given
        return None, {}
    same = (key for key, value in init_args.items() if value is objects[0])
    alike = (key for key, value in init_args.items() if type(value) is type(objects[0]))
    copies = (key for key in alike if is_equal(init_args[key], objects[0]))
    return next(same, None) or next(copies, None), _as_dict(objects[0])


def is_equal(one: Any, other: Any) -> bool:
    """Whether two values of hyper-parameters are equal, tensors and arrays in all elements."""
    if one is other:
        return True
    if getattr(one, "shape", None) != getattr(other, "shape", None):
        return False
    try:
        same = one == other
        return bool(same.all() if hasattr(same, "all") else same)
    except Exception:  # inside a collection they give no one answer
        return False


def _as_dict(hparams: Any) -> dict[Any, Any]:
    if isinstance(hparams, Namespace):
        return vars(hparams)
    if isinstance(hparams, Mapping):
        return dict(hparams)
    raise ValueError(
        f"hyper-parameters are a dictionary or an argparse.Namespace, not {hparams!r:.60} of type "
        f"{type(hparams).__name__}. Pass names of arguments as strings, or dataclasses.asdict(...) of a dataclass."
    )


def _copied(hparams: AttributeDict) -> AttributeDict:
    memo: dict[int, Any] = {}
    copied = AttributeDict()
    for key, value in hparams.items():
        try:
            copied[key] = copy.deepcopy(value, memo)
        except Exception as error:  # what a foreign __deepcopy__ raises is its own affair
            raise TypeError(
                f"the hyper-parameter {key!r} of type {type(value).__name__} cannot be copied ({error}). "
                f"Leave it out: self.save_hyperparameters(ignore=[{key!r}])."
            ) from error
    return copied
