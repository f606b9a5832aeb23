"""Batches are nested collections: apply a function to their leaves, move them, detach them."""

from __future__ import annotations

import copy
import dataclasses
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

Types = type | tuple[type, ...]


def apply_to_collection(
    data: Any,
    dtype: Types,
    function: Callable[..., Any],
    *args: Any,
    wrong_dtype: Types | None = None,
    include_none: bool = True,
    **kwargs: Any,
) -> Any:
    """Give `data` with `function(leaf, *args, **kwargs)` in place of each leaf of type `dtype`.

    Goes through dictionaries, lists, tuples, named tuples and dataclasses, which keep their types; every other object
    stays the same object. `wrong_dtype` excepts some types, `include_none=False` leaves out leaves that became None.
    """

    def visit(data: Any) -> Any:
        if isinstance(data, dtype) and (wrong_dtype is None or not isinstance(data, wrong_dtype)):
            return function(data, *args, **kwargs)
        if isinstance(data, Mapping):
            visited = {key: visit(value) for key, value in data.items()}
            return _like(data, visited if include_none else {k: v for k, v in visited.items() if v is not None})
        if isinstance(data, (list, tuple)):
            leaves = [visit(value) for value in data]
            return _like(data, leaves if include_none else [v for v in leaves if v is not None])
        if dataclasses.is_dataclass(data) and not isinstance(data, type):
            result = copy.copy(data)
            for field in dataclasses.fields(data):
                value = visit(getattr(data, field.name))
                if include_none or value is not None:
                    object.__setattr__(result, field.name, value)  # a frozen one too: the copy is ours
            return result
        return data

    return visit(data)


def _like(original: Any, content: Any) -> Any:
    """A collection of the original's type around new content."""
    if type(original) in (dict, list):
        return content
    if isinstance(original, defaultdict):
        return defaultdict(original.default_factory, content)
    if hasattr(original, "_fields"):  # a named tuple
        return type(original)(*content)
    return type(original)(content)


class _Movable(type):
    """Whatever has a method `to`, tensors above all."""

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, Tensor) or (not isinstance(instance, type) and callable(getattr(instance, "to", 0)))


class Movable(metaclass=_Movable):
    """An object that `move_data_to_device` moves."""


def move_data_to_device(batch: Any, device: torch.device | str | int) -> Any:
    """Give the batch with everything that has a `.to` on `device`; to a CUDA device without waiting for the copy."""
    # copies to the host must be waited for, and MPS reads a source that may be gone by then
    asynchronous = isinstance(device, int) or torch.device(device).type not in ("cpu", "mps")

    def move(data: Any) -> Any:
        moved = data.to(device, non_blocking=True) if asynchronous and isinstance(data, Tensor) else data.to(device)
        return data if moved is None else moved  # `to` of a batch class may work in place and return nothing

    return apply_to_collection(batch, Movable, move)


def recursive_detach(in_dict: Any, to_cpu: bool = False) -> Any:
    """Give the collection with its tensors detached from the autograd graph, and on the CPU if asked."""

    def detach(tensor: Tensor) -> Tensor:
        tensor = tensor.detach()
        return tensor.cpu() if to_cpu else tensor

    return apply_to_collection(in_dict, Tensor, detach)
