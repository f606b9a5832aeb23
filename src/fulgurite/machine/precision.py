"""The number formats of training: one frozen row for each of Lightning's names."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fulgurite.utilities.exceptions import MisconfigurationException
from fulgurite.utilities.rank_zero import rank_zero_warn
from fulgurite.utilities.tree import apply_to_collection


@dataclass(frozen=True)
class Format:
    """What a precision name means."""

    weights: torch.dtype  # of parameters and floating-point inputs
    autocast: torch.dtype | None = None
    scaled: bool = False  # gradients of float16 vanish without a GradScaler


FORMATS = {
    "32-true": Format(torch.float32),
    "64-true": Format(torch.float64),
    "16-true": Format(torch.float16),
    "bf16-true": Format(torch.bfloat16),
    "16-mixed": Format(torch.float32, autocast=torch.float16, scaled=True),
    "bf16-mixed": Format(torch.float32, autocast=torch.bfloat16),
}
ALIASES = {"16": "16-mixed", "bf16": "bf16-mixed", "32": "32-true", "64": "64-true"}
_NOT_HERE = ("transformer-engine", "transformer-engine-float16")


def canonical(precision: str | int | None) -> str:
    """The full name of a precision given in any of its spellings."""
    name = "32-true" if precision is None else str(precision)
    name = ALIASES.get(name, name)
    if name in _NOT_HERE:
        raise NotImplementedError(
            f"precision={precision!r} needs NVIDIA's Transformer Engine, which is not supported here. "
            "Use 'bf16-mixed', or call transformer_engine's own layers and autocast inside training_step."
        )
    if name not in FORMATS:
        raise ValueError(f"precision={precision!r} is not one of {', '.join([*FORMATS, *ALIASES])}.")
    return name


class _DefaultDtype:
    """Tensors created inside get this floating-point type, so that `torch.zeros(3)` in a step fits the weights."""

    __slots__ = ("before", "dtype")

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def __enter__(self) -> None:
        self.before = torch.get_default_dtype()
        torch.set_default_dtype(self.dtype)

    def __exit__(self, *exc: object) -> None:
        torch.set_default_dtype(self.before)


_NOTHING = contextlib.nullcontext()


def _nothing() -> AbstractContextManager[Any]:
    return _NOTHING


class Precision:
    """The precision of one trainer: hands out contexts, casts inputs, scales losses."""

    def __init__(self, precision: str | int | None = None, device: torch.device | str = "cpu") -> None:
        self.precision = canonical(precision)
        device_type = torch.device(device).type
        if self.precision == "16-mixed" and device_type == "cpu":
            rank_zero_warn(
                "precision='16-mixed' on CPU: float16 autocast is for GPUs, so this run uses 'bf16-mixed'. "
                "Write precision='bf16-mixed' to say so yourself."
            )
            self.precision = "bf16-mixed"
        self.format = FORMATS[self.precision]
        self.scaler = torch.amp.GradScaler(device_type) if self.format.scaled else None
        self.casts_inputs = self.format.weights is not torch.float32
        self.forward: Callable[[], AbstractContextManager[Any]]  # resolved once; the loop enters it around each step
        if self.format.autocast is not None:
            autocast = self.format.autocast
            # cache_enabled=False: a weight first cast under no_grad would be reused without its gradient
            self.forward = partial(torch.autocast, device_type, dtype=autocast, cache_enabled=False)
        elif self.casts_inputs:
            self.forward = partial(_DefaultDtype, self.format.weights)
        else:
            self.forward = _nothing

    def convert_module(self, module: nn.Module) -> nn.Module:
        return module.to(self.format.weights) if self.casts_inputs else module

    def convert_input(self, batch: Any) -> Any:
        """Floating-point tensors of a batch in the type of the weights; the rest as it is."""
        dtype = self.format.weights
        return apply_to_collection(batch, Tensor, lambda t: t.to(dtype) if t.is_floating_point() else t)

    def init_context(self) -> AbstractContextManager[Any]:
        """Parameters created inside have the type of the weights."""
        return _DefaultDtype(self.format.weights)

    def scale(self, loss: Tensor) -> Tensor:
        return loss if self.scaler is None else self.scaler.scale(loss)

    def unscale(self, optimizer: Optimizer) -> None:
        if self.scaler is not None and not getattr(optimizer, "_step_supports_amp_scaling", False):
            self.scaler.unscale_(optimizer)

    def step(self, optimizer: Optimizer, **kwargs: Any) -> Any:
        """Step through the scaler, which skips the step when a gradient is infinite."""
        assert self.scaler is not None
        result = self.scaler.step(optimizer, **kwargs)
        self.scaler.update()
        return result

    def check_clipping(self, optimizer: Optimizer, clip_val: float | None) -> None:
        if clip_val and self.scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False):
            raise MisconfigurationException(
                f"gradient_clip_val={clip_val} with {type(optimizer).__name__}(fused=True) under precision="
                f"{self.precision!r}: a fused optimizer unscales inside its step, so the gradients cannot be clipped "
                "before it. Use fused=False, 'bf16-mixed', or no clipping."
            )

    # a checkpoint keeps the scaler under Lightning's name
    state_key = "MixedPrecision"

    def state_dict(self) -> dict[str, Any]:
        return {} if self.scaler is None else self.scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.scaler is not None and state:
            self.scaler.load_state_dict(state)
