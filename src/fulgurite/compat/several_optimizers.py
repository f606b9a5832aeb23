"""Several optimizers stepped by the trainer, as in the 1.x era: `training_step(batch, batch_idx, optimizer_idx)`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from fulgurite.utilities.memory import recursive_detach

if TYPE_CHECKING:
    from fulgurite.compat.adapt import Patches
    from fulgurite.run import Run


def step_several(
    run: Run, patches: Patches, kept: list[Any] | None, log_parts: Callable[..., None]
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """What makes of a training_step one that steps each optimizer in turn, the others' weights held still.

    To the loop this is manual optimization; clipping and schedulers go on as the trainer's arguments say.
    """
    module: Any = run.module
    configure = module.configure_optimizers
    turns: list[int] = []  # for how many batches each optimizer is on, where configure_optimizers says so

    def configure_optimizers() -> Any:
        answer = configure()
        if isinstance(answer, (list, tuple)):
            turns[:] = [part["frequency"] for part in answer if isinstance(part, Mapping) and "frequency" in part]
        patches.put(module, "_automatic_optimization", False)
        return answer

    def optimizer_on(batch_idx: int) -> list[int]:
        if not turns:
            return list(range(len(run.wrapped_optimizers)))
        place = batch_idx % sum(turns)
        return [next(i for i, end in enumerate(itertools.accumulate(turns)) if place < end)]

    def stepping_each(step: Callable[..., Any]) -> Callable[..., Any]:
        def training_step(batch: Any, batch_idx: int) -> dict[str, Any]:
            outputs = [one_step(step, batch, batch_idx, idx) for idx in optimizer_on(batch_idx)]
            if kept is not None:
                kept.append(recursive_detach(outputs if len(outputs) > 1 else outputs[0]))
            return outputs[-1]

        return training_step

    def one_step(step: Callable[..., Any], batch: Any, batch_idx: int, idx: int) -> dict[str, Any]:
        optimizer, k, output = run.wrapped_optimizers[idx], run.accumulate_grad_batches, dict[str, Any]()

        def closure() -> Tensor | None:
            returned = step(batch, batch_idx, idx)
            output.update(returned if isinstance(returned, Mapping) else {} if returned is None else {"loss": returned})
            log_parts(module, output)
            if batch_idx % k == 0:
                for hook in run.hooks.on_before_zero_grad:
                    hook(optimizer)
                run.zero_grad(run.progress.epoch, batch_idx, optimizer)
            if "loss" in output:
                module.manual_backward(output["loss"] / k)
                output["loss"] = output["loss"].detach()
            return output.get("loss")

        module.toggle_optimizer(optimizer)
        try:
            if run.steps_after(batch_idx + 1):
                module.optimizer_step(run.progress.epoch, batch_idx, optimizer, closure)
            else:
                with run.strategy.gradient_sync(False):
                    closure()
        finally:
            module.untoggle_optimizer(optimizer)
        return output

    patches.put(module, "configure_optimizers", configure_optimizers)
    for name in ("step_schedulers", "clip_gradients"):
        patches.put(run, name, _as_automatic(run, getattr(run, name)))
    return stepping_each


def _as_automatic(run: Run, act: Callable[..., None]) -> Callable[..., None]:
    def acting(*args: Any, **kwargs: Any) -> None:
        attributes = run.module.__dict__
        before, attributes["_automatic_optimization"] = attributes["_automatic_optimization"], True
        try:
            act(*args, **kwargs)
        finally:
            attributes["_automatic_optimization"] = before

    return acting
