"""Manual optimization on several processes: gradients are averages over all samples, whoever calls backward how often.

DDP expects one backward pass for each forward pass, and the same parameters in each. Here nothing is expected: at the
end of each backward pass the processes tell which gradients have changed on any of them, and average those; before each
step they do so again, for what was kept apart by `no_sync` or put into `.grad` by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.weak import TensorWeakRef

from fulgurite.optimizers import parameters_of

if TYPE_CHECKING:
    from fulgurite.machine.ddp import DDPStrategy
    from fulgurite.run import Run

BUCKET = 1 << 24  # numbers averaged at once


class Averaging:
    """The gradients of a module in one run, and of what its optimizers hold besides."""

    def __init__(self, run: Run, strategy: DDPStrategy, ignored: Collection[Tensor]) -> None:
        self.run, self.strategy = run, strategy
        self.parameters: list[Tensor] = []
        self._numbers: dict[Tensor, int] = {}
        self._ignored = {id(p) for p in ignored}
        self._averaged: dict[int, tuple[TensorWeakRef, int]] = {}  # gradients as all processes have them
        self._hooks: list[Any] = []
        self._nodes: list[Any] = []  # their hooks are gone once nobody holds them
        self._added: set[int] = set()  # to by backward passes since, with the weight of this process's samples
        self._pass = -1  # the backward pass that is to average at its end
        self._passes = 0  # that have ended
        self._buckets: dict[tuple[int, ...], int] = {}  # numbered, for a communication hook
        self._stepping = False
        self.watch(run.module.parameters())
        self._take_over(run)

    def _take_over(self, run: Run) -> None:
        before_step, step, clip = run.before_step, run.take_step, run.clip

        def average_first(run: Run, optimizer: Optimizer) -> None:
            self.before_step(optimizer)
            before_step(run, optimizer)

        def step_once(optimizer: Optimizer, *args: Any, **kwargs: Any) -> Any:
            self._stepping = True
            try:
                return step(optimizer, *args, **kwargs)
            finally:
                self._stepping = False

        def clip_alike(optimizer: Optimizer, value: float | None, algorithm: str | None) -> None:
            same = [n for n in self._held_by(optimizer) if not self._has_changed(n)]
            clip(optimizer, value, algorithm)
            self._note(same)

        def step_of_users_own(optimizer: Optimizer, *_: Any) -> None:  # self.optimizers(use_pl_optimizer=False)
            if not self._stepping:
                self.before_step(optimizer)

        run.before_step, run.take_step, run.clip = average_first, step_once, clip_alike  # type: ignore[method-assign]  # of this run
        for optimizer in run.optimizers:
            if isinstance(optimizer, Optimizer):
                self._hooks.append(optimizer.register_step_pre_hook(step_of_users_own))

    def watch(self, parameters: Iterable[Tensor]) -> None:
        """Average these, too; whether they require a gradient at the moment does not matter."""
        for p in parameters:
            real = p.is_floating_point() or p.is_complex()
            if p in self._numbers or id(p) in self._ignored or not real or not p.is_leaf:
                continue
            self._numbers[p] = len(self.parameters)
            self.parameters.append(p)
            required = p.requires_grad
            p.requires_grad_(True)  # torch gives hooks to such tensors only, and keeps them
            node = torch.autograd.graph.get_gradient_edge(p).node
            self._hooks += [
                node.register_prehook(self._weighted),  # type: ignore[arg-type]  # this node gives its gradient bare
                p.register_post_accumulate_grad_hook(self._note_backward),  # type: ignore[no-untyped-call]  # torch's
            ]
            self._nodes.append(node)
            p.requires_grad_(required)

    def close(self) -> None:
        """The parameters lose their hooks."""
        for hook in self._hooks:
            hook.remove()

    # backward
    def _weighted(self, gradient: Any) -> Any:
        """What a backward pass adds, as much as this process's samples count; `autograd.grad` does not come here."""
        factor = self.run.factor
        if (not isinstance(factor, Tensor) and factor == 1.0) or self.run.module.automatic_optimization:
            return gradient
        return tuple(g * factor for g in gradient) if isinstance(gradient, tuple) else gradient * factor

    def _note_backward(self, p: Tensor) -> None:
        self._added.add(self._numbers[p])
        running = torch._C._current_graph_task_id()
        if running != self._pass:
            self._pass = running
            torch.autograd.Variable._execution_engine.queue_callback(self.end_backward)  # type: ignore[no-untyped-call]

    def end_backward(self) -> None:
        """Average whatever has changed, unless gradients are kept apart now."""
        self._passes += 1
        if self.strategy.exchanges_gradients and not self.run.module.automatic_optimization:
            self._average("the end of a backward pass", range(len(self.parameters)))

    def backward(self, backward: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """`manual_backward`: also where this process's loss reaches no parameter, as those of others may."""
        passes = self._passes
        backward(*args, **kwargs)
        if self._passes == passes:
            self.end_backward()

    # step
    def _held_by(self, optimizer: Optimizer) -> list[int]:
        return [self._numbers[p] for p in parameters_of(optimizer) if p in self._numbers]

    def before_step(self, optimizer: Optimizer) -> None:
        """Average what is not yet."""
        if self.run.module.automatic_optimization:  # switched back to since
            return
        self.watch(parameters_of(optimizer))
        held = self._held_by(optimizer)
        for number in held:
            if number not in self._added and self._is_new(number):  # put there by hand
                self.parameters[number].grad = self._weighted(self.parameters[number].grad)
        self._average("an optimizer step", held)

    # both
    def _has_changed(self, number: int) -> bool:
        """Since the gradient was the same on all processes."""
        gradient, averaged = self.parameters[number].grad, self._averaged.get(number)
        return self._is_new(number) or (gradient is not None and averaged[1] != gradient._version)  # type: ignore[index]  # not new

    def _is_new(self, number: int) -> bool:
        gradient, averaged = self.parameters[number].grad, self._averaged.get(number)
        return gradient is not None and (averaged is None or averaged[0]() is not gradient)

    def _note(self, numbers: Iterable[int]) -> None:
        self._added.difference_update(numbers)
        for number in numbers:
            if (gradient := self.parameters[number].grad) is not None:
                self._averaged[number] = TensorWeakRef(gradient), gradient._version

    @torch.no_grad()
    def _average(self, where: str, numbers: Iterable[int]) -> None:
        changed, sparse = 0, 0  # a bit for each parameter
        for number in filter(self._has_changed, numbers):
            changed |= 1 << number
            sparse |= _gradient(self.parameters[number]).is_sparse << number
        for theirs, of_those in self.strategy.gather_objects((changed, sparse), where):
            changed, sparse = changed | theirs, sparse | of_those
        found = [number for number in range(changed.bit_length()) if changed >> number & 1]
        for number in found:
            p = self.parameters[number]
            if sparse >> number & 1:
                self._average_sparse(p)
            elif p.grad is None:  # others have used it
                p.grad = torch.zeros_like(p)
        for bucket in self._in_buckets([n for n in found if not sparse >> n & 1]):
            self._average_bucket(bucket)
        self._note(found)

    def _in_buckets(self, numbers: list[int]) -> Iterator[list[int]]:
        kinds: dict[Any, list[int]] = {}
        for number in numbers:
            gradient = _gradient(self.parameters[number])
            kinds.setdefault((gradient.dtype, gradient.device), []).append(number)
        for kind in kinds.values():
            bucket, size = list[int](), 0
            for number in kind:
                if bucket and size + self.parameters[number].numel() > BUCKET:
                    yield bucket
                    bucket, size = [], 0
                bucket.append(number)
                size += self.parameters[number].numel()
            yield bucket

    def _average_bucket(self, numbers: list[int]) -> None:
        parameters = [self.parameters[n] for n in numbers]
        index = self._buckets.setdefault(tuple(numbers), len(self._buckets))
        bucket = _Bucket(torch.cat([_gradient(p).reshape(-1) for p in parameters]), index, parameters)
        if (hook := self.strategy.communication_hook) is not None:
            averaged = hook(self.strategy.ddp_comm_state, bucket).wait()
            bucket.set_buffer(averaged[0] if isinstance(averaged, (list, tuple)) else averaged)
        else:
            dist.all_reduce(bucket.buffer(), group=self.strategy.gradient_group)
            bucket.buffer().div_(self.strategy.world_size)
        for p, part in zip(parameters, bucket.gradients(), strict=True):
            _gradient(p).copy_(part)

    def _average_sparse(self, p: Tensor) -> None:
        """The rows of all processes; few, and so by way of the CPU."""
        own = None
        if p.grad is not None:
            rows = (p.grad if p.grad.is_sparse else p.grad.to_sparse(1)).coalesce()
            own = rows.indices().cpu(), rows.values().cpu()
        told = [rows for rows in self.strategy.gather_objects(own, "the rows of a sparse gradient") if rows is not None]
        indices = torch.cat([indices for indices, _ in told], 1)
        values = torch.cat([values for _, values in told]) / self.strategy.world_size
        whole = torch.sparse_coo_tensor(indices, values, p.shape, device=p.device, check_invariants=False)
        p.grad = whole.coalesce()


def _gradient(p: Tensor) -> Tensor:
    assert p.grad is not None
    return p.grad


class _Bucket:
    """What a communication hook of DDP's asks of its bucket."""

    def __init__(self, flat: Tensor, index: int, parameters: list[Tensor]) -> None:
        self._flat, self._index, self._parameters = flat, index, parameters

    def buffer(self) -> Tensor:
        return self._flat

    def set_buffer(self, flat: Tensor) -> None:
        self._flat = flat

    def index(self) -> int:
        return self._index

    def is_last(self) -> bool:
        return True

    def parameters(self) -> list[Tensor]:
        return self._parameters

    def gradients(self) -> list[Tensor]:
        parts = torch.split(self._flat, [p.numel() for p in self._parameters])
        return [part.view(p.shape) for part, p in zip(parts, self._parameters, strict=True)]
