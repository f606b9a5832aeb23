"""What every strategy of several processes shares: who they are, the process group, and the collectives by name."""

from __future__ import annotations

import atexit
import contextlib
import os
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import (  # type: ignore[attr-defined]  # documented, and not in torch's __all__
    DebugLevel,
    PrefixStore,
    get_debug_level,
    rendezvous,
    set_debug_level,
)

from fulgurite.machine import supervise, watchdog
from fulgurite.machine.environments import ClusterEnvironment, environment_of
from fulgurite.machine.strategy import Strategy, TorchCheckpointIO
from fulgurite.machine.weights import check_equal
from fulgurite.machine.words import Words
from fulgurite.utilities.exceptions import MisconfigurationException
from fulgurite.utilities.rank_zero import rank_zero_only

if TYPE_CHECKING:
    from fulgurite.machine.averaging import Averaging
    from fulgurite.machine.devices import Devices
    from fulgurite.run import Run
    from fulgurite.trainer import Trainer

T = TypeVar("T")
DEFAULT_TIMEOUT = timedelta(minutes=5)
START_METHODS = ("popen", "spawn", "fork", "forkserver")
NCCL_LATER = timedelta(minutes=1)  # its own watchdog ends the process without a word of where the ranks are


class DistributedStrategy(Strategy):
    """One process a device. The environment says who this process is; torch.distributed carries what is exchanged.

    Args:
        parallel_devices: the devices of this machine, a process each; by default the trainer's.
        cluster_environment: who started the processes; by default found out.
        checkpoint_io: how checkpoints reach the disk.
        process_group_backend: "gloo" or "nccl"; by default the one of the device.
        timeout: after which a collective that does not complete is an error.
        start_method: how the other processes are started where nobody else has: "popen" runs the script again for
            each, "spawn" and "fork" call one function.
    """

    compare_weights = True  # at the end of each training epoch: those that are whole on each process
    compares_calls = False  # whether mismatched collectives raise on every rank, rather than hang or abort
    gradient_group: Any = None  # None: the default one
    words: Words | None = None  # of all trainers of this process; None before the processes have met

    def __init__(
        self,
        parallel_devices: list[torch.device] | None = None,
        cluster_environment: ClusterEnvironment | None = None,
        checkpoint_io: TorchCheckpointIO | None = None,
        process_group_backend: str | None = None,
        timeout: timedelta | None = DEFAULT_TIMEOUT,
        start_method: str = "popen",
    ) -> None:
        super().__init__()
        if start_method not in START_METHODS:
            raise MisconfigurationException(f"start_method={start_method!r} is not one of {', '.join(START_METHODS)}.")
        self.start_method = start_method
        self.parallel_devices = parallel_devices
        self.cluster_environment = cluster_environment
        self.process_group_backend = process_group_backend
        self.timeout = DEFAULT_TIMEOUT if timeout is None else timeout
        self.num_nodes = 1
        self.num_processes = 1  # on this machine
        self._placed = False
        if checkpoint_io is not None:
            self.checkpoint_io = checkpoint_io

    # who takes part
    def place(self, chosen: Devices, num_nodes: int, environment: ClusterEnvironment | None = None) -> None:
        """Learn the devices of this machine and who this process is."""
        self.num_nodes = num_nodes
        self.cluster_environment = environment_of(environment or self.cluster_environment)
        devices = list(self.parallel_devices or chosen.devices)
        outside = self.cluster_environment
        if outside.creates_processes_externally:
            outside.work_out(num_nodes, len(devices))
            world = outside.world_size()
            if world % num_nodes:
                raise MisconfigurationException(
                    f"num_nodes={num_nodes}, and {type(outside).__name__} counts {world} processes in all, which is "
                    "no multiple of it. Start the same number on each machine."
                )
            local = int(os.environ.get("LOCAL_WORLD_SIZE", world // num_nodes))
            if devices[0].type == "cpu":
                devices = devices * local if len(devices) == 1 else devices
            if len(devices) < local or (devices[0].type == "cpu" and len(devices) != local):
                raise MisconfigurationException(
                    f"devices={len(devices)}, and {type(outside).__name__} started {local} processes on this machine. "
                    f"Write devices={local}, or leave it out."
                )
            devices = devices[:local]
        self.parallel_devices = devices
        self.num_processes = len(devices)
        self.find_rank()
        if not outside.creates_processes_externally and self.world_size > 1:
            from fulgurite.machine.launch import launcher_of

            self.launcher = launcher_of(self)

    def find_rank(self) -> None:
        """Read the ranks that the environment gives; again after a launcher has set them."""
        outside = self.cluster_environment
        assert outside is not None and self.parallel_devices is not None
        if outside.creates_processes_externally:
            self.world_size, self.global_rank = outside.world_size(), outside.global_rank()
            self.local_rank, self.node_rank = outside.local_rank(), outside.node_rank()
        else:
            self.world_size = self.num_nodes * self.num_processes
            self.node_rank = outside.node_rank()
            self.local_rank = 0
            self.global_rank = self.node_rank * self.num_processes
        self._root_device = self.parallel_devices[self.local_rank]
        rank_zero_only.rank = self.global_rank

    @contextlib.contextmanager
    def supervised(self, trainer: Trainer) -> Iterator[None]:
        """Around a call of the trainer: failures of other processes are errors here, and ours are known there."""
        with supervise.supervised(trainer), watchdog.watching(trainer):
            yield

    # a training step
    def idle_step(self) -> Tensor | None:
        """A loss of 0 that keeps the other processes company; None where only a real step would do."""
        return None

    def averaging(self, run: Run) -> Averaging | None:
        """What averages the gradients of manual optimization; None where each backward pass does so itself."""
        return None

    def share_buffers(self) -> None:
        """Before an evaluation within a fit: the buffers of process 0 on all."""

    def unused(self, parameters: list[torch.nn.Parameter]) -> RuntimeError | None:
        """The error about parameters without a gradient, where the other processes would wait for it."""
        return None

    def what_went_wrong(self, error: RuntimeError) -> RuntimeError | None:
        """The same error in the user's terms; None where it is not the strategy's."""
        return None

    def check_weights(self) -> None:
        if self.compare_weights and self.world_size > 1:
            check_equal(self, self._module)

    # the process group
    @property
    def backend(self) -> str:
        if self.process_group_backend is not None:
            return self.process_group_backend
        return "nccl" if self.root_device.type == "cuda" else "gloo"

    def setup_environment(self) -> None:
        """Meet the other processes; once for all calls of this process."""
        if self.root_device.type == "cuda":
            torch.cuda.set_device(self.root_device)
        if dist.is_initialized():
            if dist.get_world_size() != self.world_size:
                raise MisconfigurationException(
                    f"this process belongs to a group of {dist.get_world_size()} already, and the trainer is to use "
                    f"{self.world_size} processes. Use the same number in every trainer of a program."
                )
            return
        outside = self.cluster_environment
        assert outside is not None
        if self.world_size == 1:
            store = dist.HashStore()  # type: ignore[attr-defined]  # documented, and not in torch's __all__
            dist.init_process_group(self.backend, store=store, rank=0, world_size=1, timeout=self.timeout)
        elif not outside.creates_processes_externally:
            raise MisconfigurationException(
                f"devices={self.num_processes} needs {self.world_size} processes, and nobody has started them: "
                f"there is no launcher for strategy {type(self).__name__}(start_method={self.start_method!r}). "
                f"Start the script with torchrun --nproc-per-node={self.num_processes}."
            )
        else:
            os.environ.setdefault("MASTER_ADDR", outside.main_address)
            os.environ.setdefault("MASTER_PORT", str(outside.main_port))
            self._meet()
        atexit.register(self.destroy)

    def _meet(self) -> None:
        """Groups of all processes: the default one, whose calls are compared, and one for DDP's gradients.

        Over gloo a call with another shape than the other ranks' would abort the process; compared, it is an error on
        every rank. That costs such a call half a millisecond; the gradients, whose shapes DDP has compared, go without.
        """
        timeout = self.timeout
        before = get_debug_level()
        compared = self.compares_calls and self.backend == "gloo"
        if compared:
            set_debug_level(DebugLevel.DETAIL)
        elif self.backend == "nccl":
            timeout += NCCL_LATER
        try:
            store, rank, world_size = next(rendezvous("env://", self.global_rank, self.world_size, timeout=timeout))
            store.set_timeout(timeout)
            # torchrun keeps its store when it starts all again, and in it the addresses of ranks that are gone
            store = PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
            dist.init_process_group(self.backend, store=store, rank=rank, world_size=world_size, timeout=timeout)
        except dist.DistError as error:
            raise RuntimeError(_did_not_meet(self.global_rank, self.world_size, error)) from None
        groups = [dist.group.WORLD]
        if compared:
            set_debug_level(before)
            DistributedStrategy.gradient_group = dist.new_group(timeout=timeout)  # of all trainers of this process
            groups.append(self.gradient_group)
        DistributedStrategy.words = Words(self.global_rank, self.world_size, self.timeout)
        watchdog.begin(self.global_rank, self.world_size, self.timeout, groups)

    def destroy(self) -> None:
        """Leave the group, at the end of the process."""
        watchdog.end()
        atexit.unregister(self.destroy)
        DistributedStrategy.gradient_group = DistributedStrategy.words = None
        if dist.is_initialized():
            dist.destroy_process_group()
        # A gloo thread that still holds tensors of the last exchange when Python ends aborts the process: here
        # it gets the interpreter. Waiting for it instead would wait for ranks that hang.
        time.sleep(0.1)

    # collectives
    def _told(self, call: str, thing: T, sender: int | None = None, detail: str = "") -> list[T]:
        """The things of all processes, or that of `sender` alone, once all have made this call."""
        if self.by_itself or DistributedStrategy.words is None:
            return [thing] if sender is not None else [thing] * self.world_size
        return DistributedStrategy.words.tell(call, thing, sender, detail)

    def _with_all(self, call: str, tensor: Tensor, group: Any) -> Any:
        """The group on which to exchange a tensor, once all processes have made this call with one of its shape."""
        if group is not None:
            return group
        self._told(f"{call} of {str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}", None)
        return self.gradient_group

    def reduce(self, tensor: Any, group: Any = None, reduce_op: Any = "mean") -> Any:
        """A new tensor, reduced over all processes: "mean", "sum", "min", "max" or a torch ReduceOp."""
        if not isinstance(tensor, Tensor):
            tensor = torch.as_tensor(tensor, device=self.root_device)
        name = str(reduce_op).lower().removeprefix("redoptype.")
        operations = {"mean": "SUM", "avg": "SUM", "sum": "SUM", "min": "MIN", "max": "MAX", "product": "PRODUCT"}
        if name not in operations:
            raise ValueError(f"reduce_op={reduce_op!r} is not one of {', '.join(operations)}.")
        reduced = tensor.detach().clone()
        if name in ("mean", "avg") and not reduced.is_floating_point():
            reduced = reduced.to(torch.get_default_dtype())
        group = self._with_all(f"reduce({name})", reduced, group)
        dist.all_reduce(reduced, getattr(dist.ReduceOp, operations[name]), group=group)
        return reduced / dist.get_world_size(group) if name in ("mean", "avg") else reduced

    def all_gather(self, tensor: Tensor, group: Any = None, sync_grads: bool = False) -> Tensor:
        """The tensors of all processes, stacked; with `sync_grads` a gradient flows back to each."""
        tensor = tensor.contiguous().to(self.root_device)
        group = self._with_all("all_gather", tensor, group)
        if sync_grads:
            return _Gathered.apply(tensor, group)  # type: ignore[no-any-return,no-untyped-call]  # a tensor
        return _gathered(tensor, group)

    def broadcast(self, obj: T, src: int = 0) -> T:
        """The object of process `src`, on all."""
        return self._told(f"broadcast from rank {src}", obj, src)[0]

    def gather_objects(self, obj: T, call: str = "gather_objects", detail: str = "") -> list[T]:
        """The objects of all processes, in the order of their ranks, on all."""
        return self._told(call, obj, detail=detail)

    def barrier(self, name: str | None = None) -> None:
        """Wait for all processes."""
        self._told(f"barrier({name!r})" if name else "barrier()", None)


def _gathered(tensor: Tensor, group: Any) -> Tensor:
    parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size(group))]
    dist.all_gather(parts, tensor.detach(), group=group)
    return torch.stack(parts)


class _Gathered(torch.autograd.Function):
    """Gather, and in the backward pass give each process the sum of the gradients of its part."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, group: Any) -> Tensor:
        ctx.group = group
        return _gathered(tensor, group)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]  # the base takes any
        gradient = gradient.contiguous()
        dist.all_reduce(gradient, group=ctx.group)
        return gradient[dist.get_rank(ctx.group)], None


def _did_not_meet(rank: int, world_size: int, error: Exception) -> str:
    """What a failed rendezvous means."""
    said = str(error).splitlines()[0]
    where = f"MASTER_ADDR={os.environ['MASTER_ADDR']}, MASTER_PORT={os.environ['MASTER_PORT']}"
    if "client socket" in said:
        return (
            f"rank {rank} of {world_size} found nobody at {where}: {said} Rank 0 has ended, or these variables are "
            "left from an earlier run: then unset RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT."
        )
    if "address already in use" in said:
        return f"{where}: the port is taken. Choose another, or end the process that holds it. {said}"
    return f"rank {rank} was at {where}, and not all {world_size} processes came: {said}"
