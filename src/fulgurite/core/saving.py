"""Checkpoint files: written whole or not at all, read without running what they hold, turned back into objects."""

from __future__ import annotations

import importlib
import inspect
import io
import os
import pickle
from argparse import Namespace
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from enum import Enum
from pathlib import Path, PurePath
from typing import IO, TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from fulgurite.core.checksum import DamagedError, SummedFile, check_file, is_archive
from fulgurite.core.expected import check_checkpoint, part
from fulgurite.core.instantiate import MAKERS, Maker
from fulgurite.core.sharded import META, is_dtensor, is_sharded, os_error, read_shards
from fulgurite.utilities.cloud_io import (
    RemotePath,
    get_filesystem,  # noqa: F401  # people import it from here
    is_remote,
    location,
    path_of,
    written_whole,
)
from fulgurite.utilities.model_helpers import classmethod_only
from fulgurite.utilities.names import weights_as_in
from fulgurite.utilities.parsing import AttributeDict, is_picklable
from fulgurite.utilities.rank_zero import rank_zero_warn, warn_once
from fulgurite.utilities.tree import apply_to_collection

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")
PathOrFile = str | Path | IO[bytes]
MapLocation = torch.device | str | Callable[[Any, str], Any] | dict[str, str] | None


class _PlainDict:
    """Stands for Lightning's dictionary with attribute access when a file is read: what it makes is a dict."""

    def __new__(cls) -> dict[Any, Any]:  # type: ignore[misc]  # that it makes something else is its purpose
        return {}


_THEIR_DICTIONARIES = [
    "lightning.fabric.utilities.data",
    "lightning.pytorch.utilities.parsing",
    "lightning_fabric.utilities.data",
    "pytorch_lightning.utilities.parsing",
    "fulgurite.utilities.parsing",
]
# classes without any code that reading could run
_HARMLESS: list[Any] = [
    Namespace,
    type(Path()),
    *((_PlainDict, f"{module}.AttributeDict") for module in _THEIR_DICTIONARIES),
]
_PLAIN = (type(None), bool, int, float, complex, str, bytes, bytearray, Tensor, torch.dtype, torch.device, torch.Size)
# classes whose objects are written as plain data: how they are made of it again
_RESTORE: dict[str, Callable[[Any], Any]] = {
    "AttributeDict": AttributeDict,
    "Namespace": lambda values: Namespace(**values),
    "Path": Path,
}
_PAST_KEYS = ("hparams", "module_arguments")  # where versions before 1.0 kept hyper-parameters
Classes = dict[tuple[Any, ...], str]  # keys that lead to a value, and the class it was of


# reading
def read_checkpoint(
    path: PathOrFile, map_location: MapLocation = None, weights_only: bool | None = None
) -> dict[str, Any]:
    """Read a checkpoint file, or a folder of shards as if it were one.

    Args:
        path: the file, or an open one; a folder that several processes wrote.
        map_location: where tensors go, as in `torch.load`; by default where they were, or to the CPU where that device
            is missing.
        weights_only: False unpickles everything, which runs whatever code the file holds; so does None where torch's
            own variable TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD is set. Otherwise only plain data, tensors and classes allowed
            by `torch.serialization.add_safe_globals` are read.

    Raises:
        FileNotFoundError: there is no such file.
        pickle.UnpicklingError: it holds objects of classes that were not allowed; the message names them.
        RuntimeError: it is truncated or damaged: its check sum is looked at first.
        ValueError: what it holds is not a checkpoint.
    """
    if path == "":
        raise ValueError("the path of the checkpoint is empty (''). Name the file.")
    if isinstance(path, (str, Path)):
        path = location(path)
        if not is_remote(path) and is_sharded(path):
            whole = read_shards(path, read_checkpoint(Path(path) / META, "cpu", weights_only))
            return apply_to_collection(whole, Tensor, lambda t: _placed(t, map_location))  # type: ignore[no-any-return]
        _check_readable(path_of(path))
    with path_of(path).open("rb") if isinstance(path, str) else nullcontext(path) as file:
        loaded = _loaded(file, path, map_location, not trusts_files(weights_only))
    if not isinstance(loaded, dict):
        raise ValueError(
            f"{path} holds a {type(loaded).__name__}, and a checkpoint is a dictionary. "
            "Load it with torch.load where it belongs."
        )
    return loaded


def trusts_files(weights_only: bool | None) -> bool:
    """Whether the caller lets a file run whatever code it holds."""
    forced = os.environ.get("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "").lower() in ("1", "y", "yes", "true")
    return forced if weights_only is None else not weights_only


def _loaded(file: IO[bytes], path: object, map_location: MapLocation, safely: bool) -> Any:
    try:
        check_file(file)
        with torch.serialization.safe_globals(_HARMLESS if safely else []):
            return torch.load(file, map_location=map_location or _where_it_was, weights_only=safely)
    except (PermissionError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a pickle that was made or damaged by others fails in any way
        if safely and (names := _classes_not_allowed(file, error)):
            raise pickle.UnpicklingError(_foreign(path, names)) from error
        if isinstance(error, DamagedError) or not is_archive(file):
            raise RuntimeError(_damaged(path, file, error)) from error
        if safely and isinstance(error, pickle.UnpicklingError):
            raise pickle.UnpicklingError(_not_plain(path, error)) from error
        raise RuntimeError(f"{path} cannot be read as a checkpoint: {type(error).__name__}: {_line(error)}") from error


def _check_readable(path: Path | RemotePath) -> None:
    if path.is_dir():
        raise IsADirectoryError(
            f"{path} is a folder without {META} and .metadata, and so no sharded checkpoint. Name the file in it."
        )
    if not path.exists():
        folder = path.parent
        there = sorted(p.name for p in folder.iterdir() if p.suffix == ".ckpt") if folder.is_dir() else None
        found = f"the folder {folder} does not exist" if there is None else f"in {folder} there are: {there[:20]}"
        raise FileNotFoundError(f"there is no checkpoint {path}; {found}.")


def _placed(tensor: Tensor, map_location: MapLocation) -> Tensor:
    """A tensor that was read to the CPU, where `torch.load` would have put it."""
    if map_location is None:
        return tensor
    if callable(map_location):
        moved: Tensor | None = map_location(tensor, "cpu")
        return tensor if moved is None else moved
    return tensor.to(map_location.get("cpu", "cpu") if isinstance(map_location, dict) else map_location)


def _where_it_was(storage: Any, location: str) -> Any:
    kind, _, index = location.partition(":")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        return storage
    if kind == "mps" and not torch.backends.mps.is_available():
        return storage
    return torch.serialization.default_restore_location(storage, location)  # type: ignore[no-untyped-call]


def _classes_not_allowed(file: IO[bytes], error: Exception) -> list[str]:
    if not isinstance(error, pickle.UnpicklingError):
        return []
    file.seek(0)
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(file))
    except Exception:  # a damaged file can fail in any way; it is told as damaged
        return []


def _line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:150]


def _not_plain(path: object, error: Exception) -> str:
    reason = next((line for line in str(error).splitlines() if line.startswith("Can only")), "it is no plain data")
    return (
        f"{path} holds what is not read safely even when its class is allowed ({reason:.150}). If you trust where the "
        "file comes from, pass weights_only=False, which runs whatever code the file holds."
    )


def _foreign(path: object, names: list[str]) -> str:
    classes = ", ".join(names)
    return (
        f"{path} holds objects of {classes}, which are not read unless you say so. If you trust where the file comes "
        f"from, write torch.serialization.add_safe_globals([{classes}]) with these imported, or pass "
        "weights_only=False, which runs whatever code the file holds."
    )


def _damaged(path: object, file: IO[bytes], error: Exception) -> str:
    size = file.seek(0, os.SEEK_END)
    return (
        f"{path} ({size} bytes) cannot be read as a checkpoint: it is truncated, damaged, or no file that torch.save "
        f"wrote ({_line(error)}). Use another checkpoint; those that a Trainer writes are whole or not there at all."
    )


# writing
def write_checkpoint(checkpoint: dict[str, Any], path: str | Path | RemotePath) -> None:
    """Write a checkpoint file so that a crash, a kill or a full disk leaves the previous file, or none, in its place.

    Raises:
        OSError: it could not be written, the previous file is as it was.
        TypeError: the checkpoint holds what cannot be pickled; the message says where.
    """
    path = path_of(path)
    try:
        with written_whole(path) as file:
            summed = SummedFile(file)
            torch.save(checkpoint, summed)  # type: ignore[arg-type]  # it writes, and no more is asked of it
            summed.finish()
    except Exception as error:
        if (cause := os_error(error)) is not None:
            reason = cause.strerror or str(cause) or type(cause).__name__  # file systems elsewhere know no numbers
            raise OSError(cause.errno, f"the checkpoint could not be written: {reason}", str(path)) from error
        if isinstance(error, (pickle.PicklingError, AttributeError, TypeError)):
            where = ", ".join(_not_picklable(checkpoint, "checkpoint")) or "it"
            raise TypeError(
                f"the checkpoint {path} could not be written: {where} cannot be pickled ({error})."
            ) from error
        raise


def _not_picklable(obj: Any, name: str) -> Iterator[str]:
    if isinstance(obj, _PLAIN) or is_picklable(obj):
        return
    if isinstance(obj, Mapping):
        for key, value in obj.items():
            yield from _not_picklable(value, f"{name}[{key!r}]")
    elif isinstance(obj, (list, tuple)):
        for i, value in enumerate(obj):
            yield from _not_picklable(value, f"{name}[{i}]")
    else:
        yield name


# hyper-parameters as plain data
def plain_hparams(hparams: Mapping[Any, Any]) -> tuple[dict[str, Any], Classes]:
    """Hyper-parameters as a checkpoint holds them: loadable with `weights_only=True` where their values are plain.

    A Namespace or an AttributeDict inside becomes a dictionary and a Path a string, for whoever reads the file without
    us; which were which stands beside, and `restored_hparams` turns them back. A dictionary of another class comes back
    as an AttributeDict. Objects of other classes stay; what cannot be pickled is left out with a warning.
    """
    plain: dict[str, Any] = {}
    classes: Classes = {}
    for key, value in hparams.items():
        value = _plain(value, (key,), classes)
        if _is_plain(value) or is_picklable(value):
            plain[key] = value
        else:
            warn_once(
                f"the hyper-parameter {key!r} of type {type(value).__name__} cannot be pickled, so checkpoints are "
                f"saved without it. Pass it when loading, load_from_checkpoint(path, {key}=...), and leave it out: "
                f"save_hyperparameters(ignore=[{key!r}])."
            )
    return plain, classes


def _plain(value: Any, at: tuple[Any, ...], classes: Classes) -> Any:
    if isinstance(value, Path):
        classes[at] = "Path"
        return str(value)
    if isinstance(value, (AttributeDict, Namespace)):
        classes[at] = "AttributeDict" if isinstance(value, AttributeDict) else "Namespace"
        value = dict(value) if isinstance(value, AttributeDict) else vars(value)
    if isinstance(value, Mapping):
        kind: Any = type(value)
        if kind not in (dict, OrderedDict, Counter):  # such as EasyDict: of these people want the attribute access
            kind, classes[at] = dict, "AttributeDict"
        return kind({k: _plain(v, (*at, k), classes) for k, v in value.items()})
    if type(value) in (list, tuple):
        return type(value)(_plain(v, (*at, i), classes) for i, v in enumerate(value))
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
        return value.item()  # a NumPy number: equal to Python's, but a class of its own to a reader
    return value


def classes_key(name_key: str) -> str:
    """Where a checkpoint keeps the classes: beside the name under which the hyper-parameters were given."""
    return name_key.removesuffix("name") + "classes"


def restored_hparams(plain: Mapping[Any, Any], classes: Classes | None) -> dict[Any, Any]:
    """The hyper-parameters that `plain_hparams` wrote, as they were."""
    return _restored(plain, (), classes) if classes else dict(plain)  # type: ignore[no-any-return]  # as it was given


def _restored(value: Any, at: tuple[Any, ...], classes: Classes) -> Any:
    if type(value) in (dict, OrderedDict, Counter):
        value = type(value)({k: _restored(v, (*at, k), classes) for k, v in value.items()})
    elif type(value) in (list, tuple):
        value = type(value)(_restored(v, (*at, i), classes) for i, v in enumerate(value))
    make = _RESTORE.get(classes.get(at, ""))
    return value if make is None or type(value) not in (dict, str) else make(value)


def foreign_classes(obj: Any) -> list[str]:
    """Names of the classes in `obj` that `torch.load(weights_only=True)` refuses to read."""
    names: set[str] = set()
    for leaf in {id(leaf): leaf for leaf in _foreign_leaves(obj)}.values():
        buffer = io.BytesIO()
        try:
            torch.save(leaf, buffer)
            buffer.seek(0)
            names.update(torch.serialization.get_unsafe_globals_in_checkpoint(buffer))
        except Exception:  # it cannot be pickled, or is in a way torch does not analyse: its own name says enough
            names.add(f"{type(leaf).__module__}.{type(leaf).__qualname__}")
    return sorted(names)


def _foreign_leaves(obj: Any) -> Iterator[Any]:
    if type(obj) in (dict, OrderedDict, Counter):
        for key, value in obj.items():
            yield from _foreign_leaves(key)
            yield from _foreign_leaves(value)
    elif type(obj) in (list, tuple, set):
        for value in obj:
            yield from _foreign_leaves(value)
    elif type(obj) not in _PLAIN and type(obj) is not nn.Parameter and not is_dtensor(obj):
        yield obj


def _is_plain(obj: Any) -> bool:
    return not any(True for _ in _foreign_leaves(obj))


# objects from checkpoints
class ModelIO:
    """Gives a class `load_from_checkpoint`."""

    @classmethod_only
    def load_from_checkpoint(
        cls,
        checkpoint_path: PathOrFile,
        map_location: MapLocation = None,
        hparams_file: str | Path | None = None,
        strict: bool | None = None,
        weights_only: bool | None = None,
        **kwargs: Any,
    ) -> Self:
        """Build the module from the hyper-parameters in a checkpoint and load its weights.

        Args:
            checkpoint_path: the file.
            map_location: where the weights go, as in `torch.load`.
            hparams_file: a `hparams.yaml` to take the hyper-parameters from instead.
            strict: whether the names of the weights must match exactly (default: `self.strict_loading`).
            weights_only: False also reads objects of any class, which runs whatever code the file holds.
            kwargs: arguments of `__init__` that were not saved, or that shall differ.

        Example::

            model = Classifier.load_from_checkpoint("best.ckpt", encoder=encoder)
        """
        return load_from_checkpoint(cls, checkpoint_path, map_location, hparams_file, strict, weights_only, **kwargs)


def load_from_checkpoint(
    cls: type[T],
    path: PathOrFile,
    map_location: MapLocation = None,
    hparams_file: str | Path | None = None,
    strict: bool | None = None,
    weights_only: bool | None = None,
    **overrides: Any,
) -> T:
    """Build a module or a datamodule from a checkpoint; `overrides` go before what it holds."""
    checkpoint = read_checkpoint(path, map_location, weights_only)
    check_checkpoint(checkpoint, path)
    any_cls: Any = cls
    key, name_key = any_cls.CHECKPOINT_HYPER_PARAMS_KEY, any_cls.CHECKPOINT_HYPER_PARAMS_NAME
    classes = checkpoint.get(classes_key(name_key))
    if hparams_file is not None:
        read = load_hparams_from_yaml
        if Path(hparams_file).suffix == ".csv":  # the 0.x era's meta_tags.csv
            read = importlib.import_module("fulgurite.compat.internals").load_hparams_from_tags_csv
        checkpoint[key], classes = read(hparams_file), None
    saved = next((checkpoint[k] for k in (key, *_PAST_KEYS) if k in checkpoint), None) or {}
    hparams = restored_hparams(vars(saved) if isinstance(saved, Namespace) else saved, classes)
    obj: Any
    if (name := hparams.pop("_instantiator", None)) is not None:  # the command line made it, from a configuration
        maker = Maker(path, trusts_files(weights_only))
        if name in MAKERS:
            obj = maker.module(cls, hparams, overrides)
        elif (make := maker.named(name)) is not None:
            obj = make(cls, {**hparams, **overrides})
        else:
            raise maker.refused(name, f"making {cls.__name__}", "it is not the command line's own function")
    else:
        obj = cls(**_init_arguments(cls, hparams, checkpoint.get(name_key), overrides, path))
    if not isinstance(obj, nn.Module):
        if cls.__qualname__ in checkpoint:
            with part(path, cls.__qualname__):
                obj.load_state_dict(checkpoint[cls.__qualname__])
        return obj  # type: ignore[no-any-return]  # an object of cls
    if "state_dict" not in checkpoint:
        raise KeyError(
            f"{path} has no 'state_dict' (its keys: {', '.join(map(str, checkpoint))[:200]}): no Trainer saved it. "
            f"Load bare weights with {cls.__name__}(...).load_state_dict(torch.load(path))."
        )
    _load_weights(obj, checkpoint, strict, path)
    device = next((t.device for t in checkpoint["state_dict"].values() if isinstance(t, Tensor)), torch.device("cpu"))
    return obj.to(device)  # type: ignore[return-value]  # nn.Module.to gives the object itself


def _load_weights(module: Any, checkpoint: dict[str, Any], strict: bool | None, path: object) -> None:
    own = getattr(module, "_strict_loading", None)
    if strict is not None and own is not None and strict != own:
        raise ValueError(
            f"load_from_checkpoint(strict={strict}) contradicts self.strict_loading = {own} of the module. "
            "Leave one of them out."
        )
    strict = module.strict_loading if strict is None else strict
    module.configure_model()
    module.on_load_checkpoint(checkpoint)
    with part(path, "state_dict"):
        missing, unexpected = module.load_state_dict(weights_as_in(module, checkpoint["state_dict"]), strict=strict)
    if missing:
        rank_zero_warn(f"The checkpoint has no weights for {', '.join(missing)}: these keep their initial values.")
    if unexpected:
        rank_zero_warn(f"The checkpoint has weights that the module has no place for: {', '.join(unexpected)}.")


def _init_arguments(
    cls: type, hparams: dict[str, Any], name: str | None, overrides: dict[str, Any], path: object
) -> dict[str, Any]:
    """What to call `cls` with."""
    parameters = list(inspect.signature(cls).parameters.values())
    names = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    if name in names and name not in overrides and name != "kwargs":  # it was saved as one dictionary
        own = {k: v for k, v in overrides.items() if k in names or takes_any}
        inside = {k: v for k, v in overrides.items() if k not in names}
        arguments = {name: AttributeDict({**hparams, **inside}), **own}
    else:
        if unknown := [] if takes_any else [k for k in overrides if k not in names]:
            rank_zero_warn(
                f"{cls.__name__}.load_from_checkpoint got {', '.join(unknown)}, which {cls.__name__}.__init__ does not "
                f"take (it takes: {', '.join(sorted(names))}). Ignored."
            )
        arguments = {k: v for k, v in {**hparams, **overrides}.items() if takes_any or k in names}
    missing = [p.name for p in parameters if p.name in names and p.default is p.empty and p.name not in arguments]
    if missing:
        call = ", ".join(f"{argument}=..." for argument in missing)
        held = f"its hyper-parameters: {', '.join(map(str, hparams))}" if hparams else "it has no hyper-parameters"
        raise TypeError(
            f"{cls.__name__}.__init__ needs {', '.join(missing)}, which the checkpoint does not hold ({held}). "
            f"Pass what is missing: {cls.__name__}.load_from_checkpoint({str(path)!r}, {call}), or have it saved: "
            "self.save_hyperparameters() in __init__."
        )
    return arguments


# hyper-parameters as YAML
def save_hparams_to_yaml(
    config_yaml: str | Path | RemotePath, hparams: Mapping[str, Any] | Namespace, use_omegaconf: bool = True
) -> None:
    """Write hyper-parameters as YAML; what YAML cannot hold is left out with a warning.

    `use_omegaconf` stands in Lightning's signature; nothing here needs that package.
    """
    import yaml

    path = path_of(config_yaml)
    if not path.parent.is_dir():
        raise RuntimeError(f"hyper-parameters cannot be written to {path}: the folder {path.parent} does not exist.")
    values = vars(hparams) if isinstance(hparams, Namespace) else hparams
    written, skipped = {}, []
    for key, value in values.items():
        readable = _readable(value)
        if _is_yaml(readable):
            written[key] = readable
        else:
            skipped.append(f"{key} ({type(value).__name__})")
    if skipped:
        warn_once(f"{path.name} is written without {', '.join(skipped)}: YAML holds numbers, text, lists and the like.")
    with written_whole(path) as file:
        file.write(yaml.dump(written).encode())


def _readable(value: Any) -> Any:
    value = value.name if isinstance(value, Enum) else value
    if isinstance(value, Namespace):
        return _readable(vars(value))
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Mapping):
        return {k: _readable(v) for k, v in value.items()}
    if type(value) in (list, tuple, set):
        return type(value)(_readable(v) for v in value)
    return _plain(value, (), {})


def _is_yaml(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_is_yaml(k) and _is_yaml(v) for k, v in value.items())
    if isinstance(value, (list, tuple, set)):
        return all(map(_is_yaml, value))
    return type(value) in (type(None), bool, int, float, str)


def load_hparams_from_yaml(config_yaml: str | Path | RemotePath, use_omegaconf: bool = True) -> dict[str, Any]:
    """Read hyper-parameters from YAML; tags of Python objects, other than tuples, are refused.

    `use_omegaconf` stands in Lightning's signature; nothing here needs that package.
    """
    import yaml

    path = path_of(config_yaml)
    if not path.exists():
        raise FileNotFoundError(f"there is no file of hyper-parameters {path}.")

    class Loader(yaml.SafeLoader):
        """Plain YAML and Python's tuples, which `yaml.dump` writes with a tag."""

    def construct_tuple(loader: Loader, node: yaml.SequenceNode) -> tuple[Any, ...]:
        return tuple(loader.construct_sequence(node, deep=True))

    Loader.add_constructor("tag:yaml.org,2002:python/tuple", construct_tuple)
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not a file of plain hyper-parameters: {error}") from error
    if not isinstance(values or {}, dict):
        raise ValueError(f"{path} holds a {type(values).__name__}, and hyper-parameters are names with values.")
    return values or {}
