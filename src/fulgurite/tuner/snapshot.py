"""Remember modules and optimizers, and put them back as they were: contents in place, every object the same one."""

from __future__ import annotations

import random
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from fulgurite.utilities.seed import collect_rng_state, restore_rng_state


@contextmanager
def unchanged(*objects: Any) -> Iterator[None]:
    """Whatever happens inside, afterwards these objects and the random state are as before.

    Of a module everything is kept: weights, buffers, gradients, modes, hyper-parameters, metrics, and attributes that
    hold numbers, tensors or collections of them. Other objects that a module refers to are kept by reference only.
    """
    with torch.inference_mode(False):  # copies made in inference mode could not be given back to training
        rng, snapshot = collect_rng_state(), Snapshot(*objects)
    try:
        yield
    finally:
        snapshot.restore()
        restore_rng_state(rng)


class Snapshot:
    """Each object reached is noted once, with what to do to give it its present content again."""

    def __init__(self, *objects: Any) -> None:
        self._seen: dict[int, Any] = {}  # keeps what it names alive, for an id is only good as long
        self._undo: list[Callable[[], Any]] = []
        for obj in objects:
            self._remember(vars(obj))

    def restore(self) -> None:
        for undo in self._undo:
            undo()

    def _remember(self, value: Any) -> None:
        if id(value) in self._seen or isinstance(value, (str, int, float)) or value is None:
            return
        self._seen[id(value)] = value
        if isinstance(value, Tensor):
            self._remember_tensor(value)
        elif isinstance(value, dict):
            self._remember_content(value, dict(value))
            self._remember_all(value.values())
        elif isinstance(value, (list, deque)):
            self._remember_content(value, list(value))
            self._remember_all(value)
        elif isinstance(value, set):
            self._remember_content(value, set(value))
        elif isinstance(value, tuple):
            self._remember_all(value)
        elif isinstance(value, nn.Module) or (hasattr(value, "update") and hasattr(value, "reset")):
            self._remember(getattr(value, "__dict__", None))
        else:
            self._remember_state(value)

    def _remember_content(self, collection: Any, content: Any) -> None:
        def undo() -> None:
            collection.clear()
            (collection.extend if isinstance(collection, (list, deque)) else collection.update)(content)

        self._undo.append(undo)

    def _remember_all(self, values: Any) -> None:
        for value in values:
            self._remember(value)

    def _remember_tensor(self, tensor: Tensor) -> None:
        if is_lazy(tensor):
            raise ValueError(
                "a parameter gets its shape from the first batch (a Lazy layer), so the state before a search could "
                "not be restored. Run one batch through the module first, or give the layers their sizes."
            )
        data, content = tensor.data, tensor.detach().to("cpu", copy=True)  # a copy on the GPU would narrow its memory
        is_leaf, required = tensor.is_leaf, tensor.requires_grad
        grad = tensor.grad if is_leaf else None

        def undo() -> None:
            with torch.inference_mode(data.is_inference()):
                data.copy_(content)
            if tensor.data_ptr() != data.data_ptr():
                tensor.data = data  # the module was moved or converted
            if is_leaf and tensor.requires_grad != required:
                tensor.requires_grad_(required)
            if is_leaf and tensor.grad is not grad:
                tensor.grad = grad

        self._undo.append(undo)
        self._remember(grad)

    def _remember_state(self, value: Any) -> None:
        numpy = sys.modules.get("numpy")
        if isinstance(value, torch.Generator):
            state = value.get_state()
            self._undo.append(lambda: value.set_state(state))
        elif isinstance(value, random.Random):
            drawn = value.getstate()
            self._undo.append(lambda: value.setstate(drawn))
        elif numpy is not None and isinstance(value, numpy.ndarray):
            array = value.copy()
            self._undo.append(lambda: value.__setitem__(..., array))
