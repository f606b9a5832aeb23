"""Objects from hyper-parameters that a command line saved: `{"class_path": "package.Class", "init_args": {...}}`.

A file does not choose which code runs. A class that it names is made where the program stands for it: it is imported
already, and a subclass of what the annotated parameter names; or the caller has allowed it. Nothing is imported.
"""

from __future__ import annotations

import collections
import collections.abc as abcs
import functools
import importlib
import inspect
import pickle
import sys
import types
import typing
from collections.abc import Mapping
from enum import Enum
from pathlib import Path, PurePath
from typing import Any

import torch

from fulgurite.core.hparams import given_hyperparameters

# what a checkpoint names as the maker of a module, so that Lightning reads the file too
INSTANTIATOR = "lightning.pytorch.cli.instantiate_module"
MAKERS = (INSTANTIATOR, "pytorch_lightning.cli.instantiate_module", "fulgurite.cli.instantiate_module")
_NOTHING: tuple[Any, ...] = (Any, object, type, inspect.Parameter.empty)  # annotations that name no class
_PLAIN = (type(None), bool, int, float, complex, str, bytes)
_CONCRETE = (list, tuple, set, frozenset, collections.deque)
_LISTS = (*_CONCRETE, abcs.Sequence, abcs.MutableSequence, abcs.Iterable, abcs.Collection, abcs.Set, abcs.MutableSet)
_DICTS = (dict, collections.OrderedDict, abcs.Mapping, abcs.MutableMapping)
_UNIONS = (typing.Union, types.UnionType)
_KEYS = {"class_path", "init_args", "dict_kwargs"}


class _Unfit(Exception):
    """A value does not suit an annotation; another of the same parameter may do."""


class Maker:
    """Makes the objects that a configuration names.

    Args:
        source: the file, for messages.
        trusts: whether the caller lets the file run what it names (`weights_only=False`).
        only_checks: whether to make nothing, and refuse also what the command line's parser might take for a name.
    """

    def __init__(self, source: object, trusts: bool = False, only_checks: bool = False) -> None:
        self.source, self.trusts, self.only_checks = source, trusts, only_checks

    def module(self, base: Any, hparams: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
        """An object of `base`, or of the subclass that the file names; what is `given` goes before what is saved."""
        saved, cls = dict(hparams), base
        if (path := saved.pop("_class_path", None)) is not None:
            cls = self._reached(path, [base], f"{base.__name__}.load_from_checkpoint")
        arguments = self._arguments(cls, {name: value for name, value in saved.items() if name not in given})
        hints, trusting = _hints(cls), Maker(self.source, True, self.only_checks)
        for name, value in given.items():  # the caller's own
            try:
                arguments[name] = trusting._value(value, *hints.get(name, (Any, None)), name)
            except _Unfit:
                arguments[name] = value
        with given_hyperparameters({cls: {**hparams, **given, "_instantiator": INSTANTIATOR}}):
            return self._call(cls, arguments)

    def refused(self, name: object, at: str, why: str) -> pickle.UnpicklingError:
        short = str(name)[:100]
        return pickle.UnpicklingError(
            f"{self.source} names {short} for {at}, and a file does not choose which code runs: {why}. If you trust "
            f"where the file comes from, write torch.serialization.add_safe_globals([{short}]) with it imported, or "
            "pass weights_only=False, which runs whatever code the file names."
        )

    def named(self, path: Any) -> Any:
        """What the caller has allowed by this name; None where it is not allowed."""
        if not isinstance(path, str):
            return None
        if self.trusts:
            try:
                return class_at(path)
            except (ImportError, AttributeError, ValueError) as error:
                raise ValueError(f"{self.source} names {path}, which cannot be imported: {error}.") from error
        there = _loaded(path)
        for entry in torch.serialization.get_safe_globals():
            allowed, name = entry if isinstance(entry, tuple) else (entry, _full_name(entry))
            if path == name or (there is not None and there is allowed):
                return allowed
        return None

    # classes
    def _reached(self, path: Any, bases: list[type], at: str, default: Any = None) -> Any:
        """What this name leads to, if it is of `bases`, the parameter's default, or allowed by the caller."""
        if (allowed := self.named(path)) is not None:
            return allowed
        found = _loaded(path) if isinstance(path, str) else None
        if found is not None and found is default:
            return found
        wanted = " or ".join(base.__name__ for base in bases)
        if not bases:
            raise self.refused(path, at, "its annotation names no class")
        if found is None:
            raise self.refused(path, at, f"it is not imported, and so no subclass of {wanted} that the program knows")
        # by its own bases: anything with a __call__ counts as a subclass of the abstract Callable
        if not issubclass(type(found), type) or not any(base in type.mro(found) for base in bases):
            raise self.refused(path, at, f"it is no subclass of {wanted}")
        return found

    def _call(self, cls: Any, arguments: dict[str, Any]) -> Any:
        try:
            inspect.signature(cls).bind(**arguments)
        except TypeError as error:
            raise ValueError(f"{self.source} does not fit {_full_name(cls)}: {error}.") from error
        except ValueError:  # classes of C have no signature
            pass
        return None if self.only_checks else cls(**arguments)

    def _arguments(self, cls: Any, saved: Any) -> dict[str, Any]:
        if not isinstance(saved, dict) or not all(map(_is_name, saved)):
            raise ValueError(
                f"{self.source} gives {_full_name(cls)} the arguments {saved!r:.80}; arguments are names with values."
            )
        hints, arguments = _hints(cls), {}
        for name, value in saved.items():
            at = f"{getattr(cls, '__name__', cls)}.{name}"
            try:
                arguments[name] = self._value(value, *hints.get(name, (Any, None)), at)
            except _Unfit as error:
                raise ValueError(f"{self.source} does not fit the parameter {at}: {error}.") from error
        return arguments

    def _named_in(self, value: dict[str, Any], bases: list[type], at: str, default: Any) -> tuple[Any, dict[str, Any]]:
        """The class that a value names, and its arguments."""
        if more := value.keys() - _KEYS:
            raise _Unfit(f"beside class_path, init_args and dict_kwargs it has {', '.join(map(str, more))}")
        cls = self._reached(value["class_path"], bases, at, default)
        init, others = value.get("init_args") or {}, value.get("dict_kwargs") or {}
        return cls, {**self._arguments(cls, init), **self._arguments(cls, others)}

    # values
    def _value(self, value: Any, hint: Any, default: Any, at: str) -> Any:
        hint = _without_names(hint)
        origin, inner = typing.get_origin(hint), typing.get_args(hint)
        kind = origin or hint
        if kind is type and isinstance(value, str):
            return self._reached(value, _classes(inner), at, default)
        if hint in _NOTHING:
            return self._untyped(value, default, at)
        if origin in _UNIONS:
            return self._of_several(value, inner, default, at)
        if _is_plain(hint):
            return _converted(value, hint)
        if kind is abcs.Callable:
            return self._callable(value, inner[-1:], default, at)
        if kind in _LISTS or kind in _DICTS:
            return self._container(value, kind, inner, at)
        return self._object(value, kind, default, at)

    def _untyped(self, value: Any, default: Any, at: str) -> Any:
        """Data stays data; an object among it is one that a caller has allowed."""
        if type(value) is dict:
            if "class_path" in value:
                return self._call(*self._named_in(value, [], at, default))
            return {key: self._untyped(inner, None, at) for key, inner in value.items()}
        if type(value) in (list, tuple):
            return type(value)(self._untyped(inner, None, at) for inner in value)
        if self.only_checks and isinstance(value, str) and not isinstance(read := _as_yaml(value), str):
            self._untyped(read, None, at)
        return value

    def _of_several(self, value: Any, hints: tuple[Any, ...], default: Any, at: str) -> Any:
        if isinstance(value, str) and not self._is_just_text(value, hints):
            raise self.refused(value, at, "there it might be the name of a class or of a file")
        if type(value) in hints:
            return value
        refused: Exception | None = None
        for hint in sorted(hints, key=lambda hint: hint in _NOTHING):
            try:
                return self._value(value, hint, default, at)
            except (_Unfit, pickle.UnpicklingError) as error:
                refused = error if refused is None or isinstance(error, pickle.UnpicklingError) else refused
        raise refused or _Unfit(f"{value!r:.80} is none of them")

    def _is_just_text(self, value: str, hints: tuple[Any, ...]) -> bool:
        """Whether text is no name of a class or file, also to the command line's parser where that reads it next."""
        may_be_name = self.only_checks and not all(map(_is_plain, hints))
        return not may_be_name or (value.isidentifier() and not Path(value).exists())

    def _callable(self, value: Any, gives: tuple[Any, ...], default: Any, at: str) -> Any:
        """A function by its name, or a class whose other arguments the program gives when it calls it."""
        bases = _classes(gives)
        if isinstance(value, dict) and "class_path" in value:
            cls, arguments = self._named_in(value, bases, at, default)
            makes_it = isinstance(cls, type) and (not bases or any(base in type.mro(cls) for base in bases))
            return functools.partial(cls, **arguments) if makes_it else self._call(cls, arguments)
        if isinstance(value, str):
            return self._reached(value, bases, at, default)
        if callable(value):
            return value
        raise _Unfit(f"{value!r:.80} is no function")

    def _container(self, value: Any, kind: Any, inner: tuple[Any, ...], at: str) -> Any:
        if kind in _DICTS:
            if not isinstance(value, Mapping):
                raise _Unfit(f"{value!r:.80} is no dictionary")
            if len(inner) != 2:  # it says nothing of what is in it: data
                return value
            return {key: self._value(one, inner[1], None, f"{at}[{key!r}]") for key, one in value.items()}
        if not isinstance(value, _CONCRETE):
            raise _Unfit(f"{value!r:.80} is no list")
        make = kind if kind in _CONCRETE else list
        if not inner:
            return make(value)
        each = inner if kind is tuple and Ellipsis not in inner else inner[:1] * len(value)
        if len(each) != len(value):
            raise _Unfit(f"it has {len(value)} values in place of {len(each)}")
        pairs = enumerate(zip(value, each, strict=True))
        return make(self._value(one, hint, None, f"{at}[{i}]") for i, (one, hint) in pairs)

    def _object(self, value: Any, kind: Any, default: Any, at: str) -> Any:
        bases = _classes((kind,))
        if isinstance(value, dict) and "class_path" in value:
            return self._call(*self._named_in(value, bases, at, default))
        if bases and isinstance(value, tuple(bases)):
            return value
        if isinstance(value, dict) and typing.is_typeddict(kind):
            hints = typing.get_type_hints(kind)
            return {key: self._value(one, hints.get(key, Any), None, f"{at}[{key!r}]") for key, one in value.items()}
        if isinstance(value, dict) and len(bases) == 1:
            return self._call(bases[0], self._arguments(bases[0], value))  # the annotated class itself
        raise _Unfit(f"{value!r:.80} is no {getattr(kind, '__name__', kind)}")


def _is_name(name: object) -> bool:
    return isinstance(name, str) and name.isidentifier() and not name.startswith("__")


def _as_yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return text


def _full_name(obj: Any) -> str:
    return f"{getattr(obj, '__module__', '')}.{getattr(obj, '__qualname__', obj)}"


def _loaded(path: str) -> Any:
    """What stands under a dotted name in the modules that are imported; None where nothing does. It runs nothing."""
    parts = path.split(".")
    for end in range(len(parts) - 1, 0, -1):
        if (found := sys.modules.get(".".join(parts[:end]))) is not None:
            for name in parts[end:]:  # what stands there, not what a __getattr__ would fetch
                is_open = issubclass(type(found), (type, types.ModuleType))
                found = object.__getattribute__(found, "__dict__").get(name) if is_open else None
            return found
    return None


def class_at(path: str) -> Any:
    """What a dotted name leads to, a class within another included; this imports it."""
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError:
        if "." not in module:
            raise
        return getattr(class_at(module), name)


# annotations
def _hints(cls: Any) -> dict[str, tuple[Any, Any]]:
    """The annotation and the default of each parameter, those included that `**kwargs` hand on to a base class."""
    found: dict[str, tuple[Any, Any]] = {}
    for owner in getattr(cls, "__mro__", (cls,)):
        init = vars(owner).get("__init__") if isinstance(owner, type) else owner
        if init is None or owner is object:
            continue
        try:
            parameters = inspect.signature(init).parameters.values()
        except (TypeError, ValueError):  # of C
            break
        for parameter in parameters:
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                found.setdefault(parameter.name, (_resolved(parameter.annotation, init, owner), parameter.default))
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            break
    return found


def _resolved(annotation: Any, init: Any, owner: Any) -> Any:
    """An annotation with the names in it looked up; one that cannot be found names nothing."""
    space = getattr(inspect.unwrap(init), "__globals__", {})
    probe: Any = types.SimpleNamespace(__annotations__={"of": annotation})
    try:
        return typing.get_type_hints(probe, space, dict(vars(owner)) if isinstance(owner, type) else None)["of"]
    except Exception:  # whatever evaluating it raises
        return Any


def _without_names(hint: Any) -> Any:
    """What a TypeVar, NewType or Annotated stands for."""
    while True:
        if isinstance(hint, typing.TypeVar):
            constraints = hint.__constraints__
            hint = typing.Union[constraints] if constraints else hint.__bound__ or Any  # noqa: UP007  # of a tuple
        elif isinstance(hint, typing.NewType):
            hint = hint.__supertype__
        elif typing.get_origin(hint) is typing.Annotated:
            hint = hint.__origin__
        elif type(hint).__name__ == "TypeAliasType":  # of a `type` statement
            hint = hint.__value__
        else:
            return hint


def _classes(hints: tuple[Any, ...]) -> list[type]:
    """The classes that annotations name."""
    found: list[type] = []
    for hint in map(_without_names, hints):
        origin = typing.get_origin(hint)
        if origin in _UNIONS:
            found += _classes(typing.get_args(hint))
        elif isinstance(origin or hint, type) and hint not in (*_NOTHING, type(None)):
            found.append(origin or hint)
    return found


def _is_plain(hint: Any) -> bool:
    """Whether an annotation names only what no value of it can make: numbers, text, choices, paths and the like."""
    hint = _without_names(hint)
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is None or hint in _PLAIN or origin is typing.Literal:
        return True
    if inner and origin in (*_LISTS, *_DICTS, *_UNIONS):
        return all(one is Ellipsis or _is_plain(one) for one in inner)
    return isinstance(hint, type) and (issubclass(hint, (Enum, PurePath)) or _is_registered(hint))


def _is_registered(hint: Any) -> bool:
    """Whether the command line's parser was told how to read it from text."""
    registered = getattr(sys.modules.get("jsonargparse.typing"), "get_registered_type", None)
    return registered is not None and registered(hint) is not None


def _converted(value: Any, hint: Any) -> Any:
    """A plain value as its annotation wants it: a list that YAML made of a tuple, the member of an Enum by its name."""
    if hint is type(value) or (isinstance(hint, type) and not isinstance(value, bool) and isinstance(value, hint)):
        return value
    try:
        from jsonargparse import ArgumentParser
    except ImportError as error:
        raise ModuleNotFoundError("a command line made the checkpoint: pip install 'fulgurite[cli]'") from error
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=hint)
    try:
        return parser.parse_object({"value": value}).value
    except Exception as error:  # of many kinds
        raise _Unfit(f"{value!r:.80} is no {getattr(hint, '__name__', hint)}") from error
