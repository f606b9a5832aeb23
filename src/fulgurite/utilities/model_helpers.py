"""Questions about a user's class, and its modes."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    classmethod_only = classmethod
else:

    class classmethod_only:  # it stands where `classmethod` would
        """A classmethod that refuses to be called on an instance, which it would leave as it was."""

        def __init__(self, method: Callable[..., Any]) -> None:
            self.method = method
            self.__doc__ = method.__doc__

        def __get__(self, instance: Any, cls: type) -> Callable[..., Any]:
            # refused when called, not when looked up: torch.jit.script and inspect look up everything
            @functools.wraps(self.method)
            def call(*args: Any, **kwargs: Any) -> Any:
                if instance is not None:
                    name = f"{cls.__name__}.{self.method.__name__}"
                    raise TypeError(
                        f"{name} gives a new object and leaves this one as it is, so it is not called on an instance. "
                        f"Write: model = {name}(...)."
                    )
                return self.method(cls, *args, **kwargs)

            return call


def is_overridden(method_name: str, instance: object | None = None, parent: type | None = None) -> bool:
    """Whether `instance` has its own version of a method of `parent` (default: the framework's class it comes from)."""
    if instance is None:
        return False
    if parent is None:
        parent = next((c for c in type(instance).__mro__ if c.__module__.startswith("fulgurite.")), None)
    if parent is None:
        raise ValueError(
            f"{type(instance).__name__} comes from no class of the framework. Pass the class that declares "
            f"{method_name!r} as `parent`."
        )
    if not hasattr(parent, method_name):
        return False
    own = getattr(instance, method_name, None)
    while isinstance(own, functools.partial):
        own = own.func
    own = getattr(own, "__wrapped__", own)
    return own is not None and getattr(own, "__func__", own) is not getattr(parent, method_name)


@contextlib.contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode inside; afterwards each submodule in the mode it was in, not all in training mode."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
