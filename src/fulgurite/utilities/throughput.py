"""How much arithmetic a model does."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


def measure_flops(
    model: nn.Module, forward_fn: Callable[[], Tensor], loss_fn: Callable[[Tensor], Tensor] | None = None
) -> int:
    """Count the floating-point operations of `forward_fn`, and with `loss_fn` of the backward pass too.

    Example::

        with torch.device("meta"):  # nothing is really computed
            model, x = MyModel(), torch.randn(2, 32)
        measure_flops(model, lambda: model(x))
    """
    from torch.utils.flop_counter import FlopCounterMode  # slow to import

    with FlopCounterMode(display=False) as counter:
        if loss_fn is None:
            forward_fn()
        else:
            loss_fn(forward_fn()).backward()  # type: ignore[no-untyped-call]
    return int(counter.get_total_flops())
