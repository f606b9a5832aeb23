"""The number formats of training: one frozen row for each of Lightning's names, one class for each kind."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

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


FORMATS = {
    "32-true": Format(torch.float32),
    "64-true": Format(torch.float64),
    "16-true": Format(torch.float16),
    "bf16-true": Format(torch.bfloat16),
    "16-mixed": Format(torch.float32, autocast=torch.float16),
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
# torch's own casts of a module; they leave complex parameters and buffers alone, as `to(dtype)` does not
_CASTS = {torch.float64: nn.Module.double, torch.float16: nn.Module.half, torch.bfloat16: nn.Module.bfloat16}


class Precision:
    """The precision of one trainer: hands out contexts, casts inputs, scales losses. This one is "32-true".

    Subclass it, or one of those below, and pass an object in `Trainer(plugins=...)`.
    """

    precision: str = "32-true"
    scaler: torch.amp.GradScaler | None = None

    @property
    def format(self) -> Format:
        return FORMATS[canonical(self.precision)]

    def connect(
        self, model: nn.Module, optimizers: list[Optimizer], lr_schedulers: list[Any]
    ) -> tuple[nn.Module, list[Optimizer], list[Any]]:
        """Called once they are set up; what it returns is trained."""
        return model, optimizers, lr_schedulers

    # contexts
    def forward_context(self) -> AbstractContextManager[Any]:
        """Around each step of the module."""
        return _NOTHING

    def train_step_context(self) -> AbstractContextManager[Any]:
        return self.forward_context()

    def val_step_context(self) -> AbstractContextManager[Any]:
        return self.forward_context()

    def test_step_context(self) -> AbstractContextManager[Any]:
        return self.forward_context()

    def predict_step_context(self) -> AbstractContextManager[Any]:
        return self.forward_context()

    def tensor_init_context(self) -> AbstractContextManager[Any]:
        """Tensors created inside have the type of the weights."""
        return _NOTHING

    def module_init_context(self) -> AbstractContextManager[Any]:
        """Parameters created inside have the type of the weights."""
        return self.tensor_init_context()

    def around(self, stage: str) -> Callable[[], AbstractContextManager[Any]] | None:
        """What to enter around the steps of "train", "validation", "test" or "predict"; None where it does nothing."""
        own = {"validation": "val"}.get(stage, stage) + "_step_context"
        name = own if getattr(type(self), own) is not getattr(Precision, own) else "forward_context"
        return getattr(self, name) if getattr(type(self), name) is not getattr(Precision, name) else None

    # types
    def convert_module(self, module: nn.Module) -> nn.Module:
        return module

    def convert_input(self, data: Any) -> Any:
        """A batch in the type of the weights."""
        return data

    def convert_output(self, data: Any) -> Any:
        return data

    # the optimizer's step
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

    # checkpoints
    @property
    def state_key(self) -> str:
        """The state's place in a checkpoint, which is Lightning's."""
        return type(self).__qualname__

    def state_dict(self) -> dict[str, Any]:
        return {} if self.scaler is None else self.scaler.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self.scaler is not None and state_dict:
            self.scaler.load_state_dict(state_dict)


class MixedPrecision(Precision):
    """Autocast to float16 or bfloat16, weights in float32.

    Args:
        precision: "16-mixed" or "bf16-mixed".
        device: type of the device to autocast on, such as "cuda" or "cpu".
        scaler: of the losses under "16-mixed", whose gradients would vanish; by default `torch.amp.GradScaler(device)`.
    """

    def __init__(
        self,
        precision: Literal["16-mixed", "bf16-mixed"],
        device: str | torch.device,
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        self.precision, self.device = _one_of(self, precision, "16-mixed", "bf16-mixed"), torch.device(device).type
        if scaler is not None and precision == "bf16-mixed":
            raise MisconfigurationException(
                f"MixedPrecision('bf16-mixed', scaler={type(scaler).__name__}(...)): bfloat16 has the range of float32 "
                "and no gradient vanishes. Leave the scaler out, or write '16-mixed'."
            )
        self.scaler = torch.amp.GradScaler(self.device) if scaler is None and precision == "16-mixed" else scaler

    def autocast_context_manager(self) -> torch.autocast:
        # cache_enabled=False: a weight first cast under no_grad would be reused without its gradient
        return torch.autocast(self.device, dtype=self.format.autocast, cache_enabled=False)

    def forward_context(self) -> AbstractContextManager[Any]:
        return self.autocast_context_manager()


class _WholePrecision(Precision):
    """Weights, inputs and arithmetic in one type."""

    def tensor_init_context(self) -> AbstractContextManager[Any]:
        return _DefaultDtype(self.format.weights)

    def forward_context(self) -> AbstractContextManager[Any]:
        return self.tensor_init_context()

    def convert_module(self, module: nn.Module) -> nn.Module:
        return _CASTS[self.format.weights](module)

    def convert_input(self, data: Any) -> Any:
        """Floating-point tensors of a batch in the type of the weights; the rest, complex ones too, as it is."""
        dtype = self.format.weights
        return apply_to_collection(data, Tensor, lambda t: t.to(dtype) if t.is_floating_point() else t)


class HalfPrecision(_WholePrecision):
    """Weights, inputs and arithmetic in float16 or bfloat16."""

    def __init__(self, precision: Literal["16-true", "bf16-true"] = "16-true") -> None:
        self.precision = _one_of(self, precision, "16-true", "bf16-true")


class DoublePrecision(_WholePrecision):
    """Weights, inputs and arithmetic in float64."""

    precision = "64-true"


def _one_of(plugin: Precision, given: str, *names: str) -> str:
    if given not in names:
        raise ValueError(f"{type(plugin).__name__}(precision={given!r}): it is one of {', '.join(map(repr, names))}.")
    return given


def precision_of(name: str | int | None, device: torch.device) -> Precision:
    """What `Trainer(precision=name)` asks for."""
    full: Any = canonical(name)  # one of FORMATS, which no type says
    if full == "16-mixed" and device.type == "cpu":
        rank_zero_warn(
            "precision='16-mixed' on CPU: float16 autocast is for GPUs, so this run uses 'bf16-mixed'. Write "
            "precision='bf16-mixed' to say so yourself, or plugins=MixedPrecision('16-mixed', 'cpu') for float16."
        )
        full = "bf16-mixed"
    if full in ("16-mixed", "bf16-mixed"):
        return MixedPrecision(full, device)
    if full in ("16-true", "bf16-true"):
        return HalfPrecision(full)
    return DoublePrecision() if full == "64-true" else Precision()
