"""Checkpoints written while training goes on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import torch
from torch import Tensor

from fulgurite.core.sharded import is_dtensor
from fulgurite.machine.strategy import TorchCheckpointIO
from fulgurite.utilities.rank_zero import rank_zero_warn
from fulgurite.utilities.tree import apply_to_collection


class _WrappingCheckpointIO(TorchCheckpointIO):
    """Hands everything on to another one; a subclass does more: `Trainer(plugins=[Mine(TorchCheckpointIO())])`."""

    def __init__(self, checkpoint_io: TorchCheckpointIO | None = None) -> None:
        self.checkpoint_io = TorchCheckpointIO() if checkpoint_io is None else checkpoint_io

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        options = {} if storage_options is None else {"storage_options": storage_options}
        self.checkpoint_io.save_checkpoint(checkpoint, path, **options)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return self.checkpoint_io.load_checkpoint(path, map_location, weights_only)

    def remove_checkpoint(self, path: Any) -> None:
        self.checkpoint_io.remove_checkpoint(path)

    def teardown(self) -> None:
        self.checkpoint_io.teardown()


class AsyncCheckpointIO(_WrappingCheckpointIO):
    """Copies a checkpoint to the host's memory and writes it in a thread: `Trainer(plugins=[AsyncCheckpointIO()])`.

    A save waits for the one before it. What goes wrong in the thread is raised at the next save, or when the call of
    fit ends; by then everything is on disk.
    """

    def __init__(self, checkpoint_io: TorchCheckpointIO | None = None) -> None:
        super().__init__(checkpoint_io)
        self._thread: ThreadPoolExecutor | None = None
        self._pending: list[Future[None]] = []
        self._failed = False

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        options = {} if storage_options is None else {"storage_options": storage_options}
        self.finish()
        self.later(self.checkpoint_io.save_checkpoint, self.copied(checkpoint), path, **options)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        self.finish()
        return super().load_checkpoint(path, map_location, weights_only)

    def remove_checkpoint(self, path: Any) -> None:
        """After the saves before it: an old file goes when the new one is there."""
        self.later(self.checkpoint_io.remove_checkpoint, path)

    def teardown(self) -> None:
        """Wait for the last write."""
        outer = sys.exc_info()[1]
        try:
            self.finish()
        except Exception as error:
            if outer is None:
                raise
            # the run ends by another exception, which is the one to be seen
            rank_zero_warn(f"a checkpoint was not written: {type(error).__name__}: {error}")
        finally:
            if self._thread is not None:
                self._thread.shutdown(wait=True)
                self._thread = None
            super().teardown()

    def copied(self, checkpoint: dict[str, Any]) -> dict[str, Any]:
        """The checkpoint as it is now: training changes its tensors in place. Tied weights stay tied."""
        copies: dict[Any, Tensor] = {}

        def copy(tensor: Tensor) -> Tensor:
            if is_dtensor(tensor) or tensor.layout is not torch.strided or not tensor.numel():
                return tensor.detach().to("cpu", copy=True)
            same = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
            if same not in copies:
                copies[same] = tensor.detach().to("cpu", copy=True)
            return copies[same]

        return apply_to_collection(checkpoint, Tensor, copy)  # type: ignore[no-any-return]  # a dict in, a dict out

    def later(self, act: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Do it in the thread, after what it has to do already, and not at all where that has failed."""

        def unless_failed() -> None:
            if not self._failed:
                try:
                    act(*args, **kwargs)
                except BaseException:
                    self._failed = True
                    raise

        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._pending.append(self._thread.submit(unless_failed))

    def finish(self) -> None:
        """Wait until all is written; the first error is raised."""
        pending, self._pending = self._pending, []
        try:
            for future in pending:
                future.result()
        finally:
            wait(pending)
            self._failed = False
