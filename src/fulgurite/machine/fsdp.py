"""Models that no single device holds: torch's `fully_shard` (FSDP2), alone or with tensor parallelism.

Each process keeps a shard of every parameter, gradient and optimizer state. A unit's parameters are gathered right
before its forward and its backward, and its gradients are summed and shared out again right after.
"""

from __future__ import annotations

import contextlib
import functools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor, Replicate
from torch.optim import Optimizer

from fulgurite.checkpoint import OURS
from fulgurite.core.saving import read_checkpoint, write_checkpoint
from fulgurite.core.sharded import META, is_sharded, named_optimizer_state, read_shards, write_sharded
from fulgurite.machine.async_checkpoint import AsyncCheckpointIO
from fulgurite.machine.distributed import DEFAULT_TIMEOUT, DistributedStrategy
from fulgurite.machine.environments import ClusterEnvironment
from fulgurite.machine.precision import Precision
from fulgurite.machine.strategy import NOTHING, TorchCheckpointIO
from fulgurite.optimizers import parameters_of
from fulgurite.utilities.exceptions import MisconfigurationException
from fulgurite.utilities.rank_zero import warn_once
from fulgurite.utilities.tree import apply_to_collection

if TYPE_CHECKING:
    from fulgurite.core.module import LightningModule
    from fulgurite.trainer import Trainer

T = TypeVar("T")
_GATHERING = "_gathering_step"  # a name of no hook, for torch to register a step under
_STEPS = ("training_step", "validation_step", "test_step", "predict_step")
# name -> whether a unit's parameters are freed between forward and backward, whether each group of processes has all
_SHARDING = {
    "FULL_SHARD": (True, False),
    "SHARD_GRAD_OP": (False, False),
    "HYBRID_SHARD": (True, True),
    "_HYBRID_SHARD_ZERO2": (False, True),
}
# arguments of FSDP1: the values that say what FSDP2 does anyway, and what to write instead of any other
_FSDP1 = {
    "use_orig_params": ((True,), "parameters are always the original ones, in shards; leave it out"),
    "sync_module_states": ((True, False), ""),
    "limit_all_gathers": ((True, False), ""),
    "forward_prefetch": ((False,), "call set_modules_to_forward_prefetch on the units in configure_model"),
    "backward_prefetch": (
        ("BACKWARD_PRE",),
        "units are prefetched in backward; for another order call set_modules_to_backward_prefetch in configure_model",
    ),
    "param_init_fn": ((), "create the layers under torch.device('meta') and give them a reset_parameters()"),
    "ignored_modules": ((), "call fully_shard(..., ignored_params=...) in configure_model"),
    "ignored_parameters": ((), "call fully_shard(..., ignored_params=...) in configure_model"),
    "ignored_states": ((), "call fully_shard(..., ignored_params=...) in configure_model"),
    "process_group": ((), "pass device_mesh=..."),
    "device_id": ((), "the trainer's devices count; leave it out"),
}


class ShardedStrategy(DistributedStrategy):
    """What the two strategies share: steps that gather parameters, DTensors in clipping, loading and saving."""

    state_dict_type = "full"
    accumulates_unsharded = False
    device_mesh: DeviceMesh | None = None
    _offloads = False
    _not_sharded: str  # the error about parameters that are in no shard
    _words: Any = None  # a group for words on the CPU: None where the default one is of its kind
    _saving_group: Any = None  # for the thread that writes shards
    _following: _Following
    _gathering: list[tuple[Any, Any]] = []  # steps put on the module, and what was there: this strategy for nothing

    # setting up
    def setup_environment(self) -> None:
        if self.root_device.type == "cpu" and torch.__version__ < "2.7":
            raise MisconfigurationException(
                f"torch {torch.__version__} shards on GPUs only; on the CPU it takes torch 2.7. Use strategy='ddp'."
            )
        super().setup_environment()
        if self.device_mesh is None:
            self.device_mesh = self._mesh()

    def _mesh(self) -> DeviceMesh:
        raise NotImplementedError

    def setup(self, trainer: Trainer) -> None:
        """Shard the module, or check that it is."""
        module = self._module
        self._shard(module)
        self._place_rest(module)
        strays = [name for name, p in module.named_parameters() if p.requires_grad and not isinstance(p, DTensor)]
        if strays and self.data_size > 1:
            raise MisconfigurationException(self._not_sharded.format(", ".join(strays[:5])))
        self._roots = _roots(module)
        if self.backend != "gloo" and self._words is None:
            self._words = dist.new_group(backend="gloo")  # words told on the GPU would have to be waited for
        for root in self._roots:
            root.set_requires_gradient_sync(True)
        self._following = _Following(module, self._words)
        self._gathering = []
        for name in _STEPS:
            self.step(name)
        if self.state_dict_type == "sharded" and isinstance(self.checkpoint_io, AsyncCheckpointIO):
            # the thread that writes must not share a group with the training that goes on
            self._saving_group = self._saving_group or dist.new_group(backend="gloo")

    def _shard(self, module: LightningModule) -> None:
        raise NotImplementedError

    def _share_whole(self, module: nn.Module) -> None:
        """What is in no shard: on the device, and as on the first process."""
        with torch.no_grad():
            for tensor in [*module.parameters(), *module.buffers()]:
                if not isinstance(tensor, DTensor):
                    tensor.data = tensor.data.to(self.root_device)
                    if tensor.numel():
                        dist.broadcast(tensor.data, 0)

    def _place_rest(self, module: LightningModule) -> None:
        """Buffers, metrics and whatever else has no parameters; and where the module says it is."""
        if not self._offloads:
            module.to(self.root_device)
            return
        for part in module.modules():
            for name, buffer in part.named_buffers(recurse=False):
                setattr(part, name, buffer.to(self.root_device))
            if next(part.parameters(), None) is None:
                part.to(self.root_device)
        module._device = self.root_device  # where its steps run; the parameters wait in the host's memory

    def step(self, name: str) -> Callable[..., Any]:
        """The module's step as it is now, in which, as in `forward`, the parameters of the root unit are there."""
        module = self._module
        if isinstance(module, FSDPModule) and not self._gathers(vars(module).get(name)):
            attributes, own = vars(module), getattr(module, name)
            attributes[_GATHERING] = own
            register_fsdp_forward_method(module, _GATHERING)  # type: ignore[arg-type]  # it is both
            gathering, before = attributes.pop(_GATHERING), attributes.get(name, self)
            step = _as_step(own, gathering, lambda: self._following.tell(module))
            attributes[name] = step  # not by setattr, which tells the run that is asking
            self._gathering.append((step, before))
        return super().step(name)

    def _gathers(self, step: Any) -> bool:
        return any(step is known for known, _ in self._gathering)

    def teardown(self) -> None:
        for name in _STEPS if self.lightning_module is not None else ():
            attributes = vars(self.lightning_module)
            for step, before in reversed(self._gathering):
                if attributes.get(name) is step:
                    attributes[name] = before
            if attributes.get(name) is self:
                del attributes[name]
        self._gathering = []
        super().teardown()

    # training
    def gradient_sync(self, stepping: bool) -> AbstractContextManager[Any]:
        if self.accumulates_unsharded:
            for root in self._roots:
                root.set_requires_gradient_sync(stepping)
        return NOTHING

    def clip_grad_norm(self, parameters: list[Tensor], max_norm: float) -> Tensor:
        """By the norm over all processes; parameters may be spread in different ways."""
        kinds: dict[DeviceMesh | None, list[Any]] = defaultdict(list)  # parameters, each of which has a gradient
        for p in parameters:
            if p.grad is not None:
                kinds[getattr(p.grad, "device_mesh", None)].append(p)
        norms = [_whole(nn.utils.get_total_norm([p.grad for p in alike])) for alike in kinds.values()]
        if not norms:
            return torch.tensor(0.0)
        total = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))
        for alike in kinds.values():
            nn.utils.clip_grads_with_norm_(alike, max_norm, total)
        return total

    # evaluation
    def in_company(self, batches: Iterable[T], is_over: Callable[[], bool]) -> Iterator[T]:
        """The batches of this process; after its last it goes on gathering units with those that have more.

        Before each batch all tell whether they have one. Where one has none, the first that has tells which unit it
        gathers next.
        """
        following = self._following
        for root in self._roots:
            root._get_fsdp_state()._lazy_init()  # as at a first forward, which a process without a batch never has
        with following.hooked():
            for batch in batches:
                if is_over():
                    break
                following.begin(has_batch=True)
                yield batch
                following.end()
                for root in self._roots:  # backward would free its parameters; weights may change next
                    root.reshard()
            while following.begin(has_batch=False):
                following.follow()

    # checkpoints
    def gathered(self, checkpoint: dict[str, Any]) -> dict[str, Any]:
        """With `state_dict_type="full"`: every sharded tensor whole, on the first process; the others get empty ones.

        One tensor at a time is whole on the device.
        """
        if self.accumulates_unsharded and "gradients" in checkpoint.get(OURS, {}):
            warn_once(
                "the checkpoint is saved in the middle of a window of accumulation, whose gradients are not in it: "
                "accumulates_unsharded=True keeps them out of reach. A run that goes on from it ends this window with "
                "the batches that follow alone. Save after a step, or leave accumulates_unsharded out."
            )
        if self.state_dict_type == "sharded":
            return checkpoint
        first = self.is_global_zero

        def gather(tensor: Tensor) -> Tensor:
            if not isinstance(tensor, DTensor):
                return tensor
            whole = tensor.full_tensor()
            return whole.cpu() if first else whole.new_empty(0, device="cpu")

        return apply_to_collection(checkpoint, Tensor, gather)  # type: ignore[no-any-return]  # a dict in, a dict out

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, **options: Any) -> None:
        """A file, or with `state_dict_type="sharded"` a folder that all processes write."""
        if self.state_dict_type == "full":
            super().save_checkpoint(checkpoint, path, **options)
            return
        io = self.checkpoint_io
        if options or type(io) not in (TorchCheckpointIO, AsyncCheckpointIO):
            what = f"storage_options={options['storage_options']!r}" if options else f"the plugin {type(io).__name__}"
            raise MisconfigurationException(
                f"{what} with sharded checkpoints: torch.distributed.checkpoint writes their files. Leave it out, "
                f"or use {self._full_spelling}."
            )
        checkpoint = self._with_names(checkpoint)
        if isinstance(io, AsyncCheckpointIO):
            io.later(write_sharded, io.copied(checkpoint), path, write_checkpoint, self._saving_group)
        else:
            write_sharded(checkpoint, path, write_checkpoint)

    _full_spelling = 'state_dict_type="full"'

    def _with_names(self, checkpoint: dict[str, Any]) -> dict[str, Any]:
        """Optimizer states by the names of parameters, as torch's tools for such folders expect them."""
        if "optimizer_states" not in checkpoint:
            return checkpoint
        names = {id(p): name for name, p in self._module.named_parameters()}
        states = []
        for optimizer, state in zip(self._module.trainer.optimizers, checkpoint["optimizer_states"], strict=True):
            own = {i: names.get(id(p), f"parameter_{i}") for i, p in enumerate(parameters_of(optimizer))}
            states.append(named_optimizer_state(state, own))
        return {**checkpoint, "optimizer_states": states}

    def load_checkpoint(self, path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Of a folder of shards, whatever number of processes wrote it, each process reads its part alone."""
        if not is_sharded(path):
            return super().load_checkpoint(path, weights_only)
        module = self._module
        parameters, state = dict(module.named_parameters()), module.state_dict()

        def template(name: str) -> Tensor | None:
            kind, _, rest = name.partition(".")
            if kind == "state_dict":
                return state.get(rest)
            if kind.startswith("optimizer_"):
                return parameters.get(rest.removeprefix("state.").rpartition(".")[0])
            return parameters.get(rest.removeprefix("gradients."))

        plain = read_checkpoint(Path(path) / META, "cpu", weights_only)
        return read_shards(path, plain, template, optimizers=module.trainer.state.fn == "fit")

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        own, state = self._module.state_dict(), checkpoint["state_dict"]
        placed = {name: self.placed(value, own.get(name)) for name, value in state.items()}
        super().load_model_state_dict({"state_dict": placed}, strict)

    def load_optimizer(self, optimizer: Optimizer, state: dict[str, Any]) -> None:
        """Also a state that one process saved: each tensor of a parameter's shape is spread as the parameter is."""
        parameters = dict(enumerate(parameters_of(optimizer)))
        spread = {
            i: {name: self.placed(value, parameters.get(i)) for name, value in values.items()}
            for i, values in state["state"].items()
        }
        optimizer.load_state_dict({**state, "state": spread})

    def placed(self, value: Any, like: Any) -> Any:
        """A whole tensor in shards as those of `like`; no process waits for another."""
        if isinstance(value, DTensor) or not isinstance(like, DTensor) or not isinstance(value, Tensor):
            return value
        if value.shape != like.shape:
            return value
        everywhere = [Replicate()] * like.device_mesh.ndim
        whole = DTensor.from_local(value.to(like.device), like.device_mesh, everywhere, run_check=False)
        return whole.redistribute(placements=like.placements).to(like.device)


class FSDPStrategy(ShardedStrategy):
    """Shards the module with torch's `fully_shard`: by a policy, or as its `configure_model` has done.

    Without a policy the whole module is one unit, whose parameters are gathered at once; for less memory name the
    blocks of the model: `FSDPStrategy(auto_wrap_policy={TransformerBlock})`.

    Args:
        accelerator: an Accelerator of your own; else the trainer's counts.
        parallel_devices: the devices of this machine, a process each; by default the trainer's.
        cluster_environment: who started the processes; by default found out.
        checkpoint_io: how checkpoints reach the disk.
        precision_plugin: how numbers are computed; or the trainer's `precision`.
        process_group_backend: "gloo" or "nccl"; by default the one of the device.
        timeout: after which a collective that does not complete is an error.
        cpu_offload: keep shards and step the optimizer in the host's memory; needs a CUDA device.
        mixed_precision: a MixedPrecisionPolicy, or FSDP1's MixedPrecision; by default the trainer's precision says it.
        auto_wrap_policy: the classes whose modules are units, or a policy of torch.distributed.fsdp.wrap.
        activation_checkpointing: the classes whose modules compute their activations again in backward.
        activation_checkpointing_policy: the same as `activation_checkpointing`, or a function of a module.
        sharding_strategy: "FULL_SHARD"; "SHARD_GRAD_OP": parameters stay whole between forward and backward;
            "HYBRID_SHARD": shards within a machine, the same on each machine.
        state_dict_type: "full": one file, as a single process writes it; "sharded": a folder that all processes write.
        device_mesh: for HYBRID_SHARD how many replicas of how many shards, or a mesh.
        accumulates_unsharded: while gradients accumulate, keep them whole and exchange them once a window: faster by
            a reduction for each batch, for the memory of all gradients. By default they are shared out at each batch.
        start_method: "popen" runs the script again for each process, "spawn" and "fork" call one function.
        **kwargs: what FSDP1 took; the values that FSDP2 has no counterpart for are errors that say what to write.
    """

    _not_sharded = (
        "these parameters are not sharded, so each process would train its own: {}. fully_shard leaves out what "
        "ignored_params names; set requires_grad=False for them."
    )

    def __init__(
        self,
        accelerator: Any = None,
        parallel_devices: list[torch.device] | None = None,
        cluster_environment: ClusterEnvironment | None = None,
        checkpoint_io: TorchCheckpointIO | None = None,
        precision_plugin: Precision | None = None,
        process_group_backend: str | None = None,
        timeout: timedelta | None = DEFAULT_TIMEOUT,
        cpu_offload: Any = None,
        mixed_precision: Any = None,
        auto_wrap_policy: Any = None,
        activation_checkpointing: Any = None,
        activation_checkpointing_policy: Any = None,
        sharding_strategy: Any = "FULL_SHARD",
        state_dict_type: Literal["full", "sharded"] = "full",
        device_mesh: tuple[int, int] | DeviceMesh | None = None,
        accumulates_unsharded: bool = False,
        start_method: str = "popen",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            parallel_devices, cluster_environment, checkpoint_io, process_group_backend, timeout, start_method
        )
        self.accelerator, self.precision_plugin = accelerator, precision_plugin
        _check_fsdp1(kwargs)
        name = getattr(sharding_strategy, "name", sharding_strategy)
        if name == "NO_SHARD":
            raise MisconfigurationException("sharding_strategy='NO_SHARD' is what strategy='ddp' does; use that.")
        if name not in _SHARDING:
            raise MisconfigurationException(
                f"sharding_strategy={sharding_strategy!r} is not one of {', '.join(_SHARDING)}."
            )
        if state_dict_type not in ("full", "sharded"):
            raise MisconfigurationException(f"state_dict_type={state_dict_type!r} is not one of 'full' and 'sharded'.")
        self._reshards, self._hybrid = _SHARDING[name]
        if device_mesh is not None and not self._hybrid:
            raise MisconfigurationException(
                f"device_mesh={device_mesh} with sharding_strategy={name!r}: only HYBRID_SHARD has replicas. Use it, "
                "or leave device_mesh out."
            )
        self.state_dict_type = state_dict_type
        self.accumulates_unsharded = accumulates_unsharded
        self.auto_wrap_policy, self.mixed_precision = auto_wrap_policy, mixed_precision
        self._offload_policy = _offload_policy(cpu_offload)
        self._offloads = isinstance(self._offload_policy, CPUOffloadPolicy)
        self._recomputed = activation_checkpointing or activation_checkpointing_policy
        if activation_checkpointing and activation_checkpointing_policy:
            raise MisconfigurationException(
                "activation_checkpointing and activation_checkpointing_policy say the same thing twice; pass one."
            )
        self._mesh_given = device_mesh

    @property
    def backend(self) -> str:
        if self._offloads and self.process_group_backend is None and self.root_device.type == "cuda":
            return "cpu:gloo,cuda:nccl"  # the norm of offloaded gradients is summed up where they are
        return super().backend

    def setup_environment(self) -> None:
        if self._offloads and self.root_device.type != "cuda":
            raise MisconfigurationException(
                f"cpu_offload with the device {self.root_device}: there is nothing to offload from. Use it with a CUDA "
                "device, or strategy='fsdp'."
            )
        super().setup_environment()

    def _mesh(self) -> DeviceMesh:
        kind, given = self.root_device.type, self._mesh_given
        if isinstance(given, DeviceMesh):
            return given
        if not self._hybrid:
            return init_device_mesh(kind, (self.world_size,), mesh_dim_names=("data_parallel",))
        replicas, shards = given or (self.num_nodes, self.num_processes)
        if replicas * shards != self.world_size:
            raise MisconfigurationException(
                f"device_mesh=({replicas}, {shards}) makes {replicas * shards} processes, and there are "
                f"{self.world_size}. The product of the two is the number of processes."
            )
        return init_device_mesh(kind, (replicas, shards), mesh_dim_names=("replicate", "shard"))

    def _shard(self, module: LightningModule) -> None:
        assert self.device_mesh is not None
        if isinstance(module, FSDPModule):  # by an earlier call, or by configure_model
            _make_real(module, self.root_device)
            return
        policy, buffers = _as_fsdp2(self.mixed_precision or _mixed_precision(module.trainer.precision_plugin))
        for buffer in module.buffers() if buffers is not None else ():
            buffer.data = buffer.data.to(buffers) if buffer.is_floating_point() else buffer.data
        offload = self._offload_policy
        shard = functools.partial(fully_shard, mesh=self.device_mesh, mp_policy=policy, offload_policy=offload)
        if self._recomputed:
            _recompute_activations(module, self._recomputed)
        for unit in _units(module, self.auto_wrap_policy):
            if not isinstance(unit, FSDPModule):
                self._settle(unit)
                shard(unit, reshard_after_forward=self._reshards)
        self._settle(module)
        # the root's parameters stay until backward: a step may use them after it has called forward
        shard(module, reshard_after_forward=False)

    def _settle(self, unit: nn.Module) -> None:
        """Before sharding: parameters on the device, those of the meta device made, all as on the first process."""
        _make_real(unit, self.root_device)
        self._share_whole(unit)


class ModelParallelStrategy(ShardedStrategy):
    """Tensor parallelism and FSDP2 as the module's `configure_model` applies them, on `self.device_mesh`.

    Example::

        def configure_model(self):
            parallelize_module(self.net, self.device_mesh["tensor_parallel"], plan)
            fully_shard(self, mesh=self.device_mesh["data_parallel"])

    Args:
        data_parallel_size: groups of processes that see different batches; "auto": one a machine.
        tensor_parallel_size: processes that share each layer; "auto": the processes of a machine.
        save_distributed_checkpoint: a checkpoint is a folder that all processes write; False: one whole file.
        process_group_backend: "gloo" or "nccl"; by default the one of the device.
        timeout: after which a collective that does not complete is an error.
    """

    _full_spelling = "save_distributed_checkpoint=False"
    _not_sharded = (
        "configure_model has left these parameters whole, so each process would train its own: {}. Call "
        'fully_shard(self, mesh=self.device_mesh["data_parallel"]) at its end: it takes all that is left.'
    )

    def __init__(
        self,
        data_parallel_size: Literal["auto"] | int = "auto",
        tensor_parallel_size: Literal["auto"] | int = "auto",
        save_distributed_checkpoint: bool = True,
        process_group_backend: str | None = None,
        timeout: timedelta | None = DEFAULT_TIMEOUT,
    ) -> None:
        super().__init__(process_group_backend=process_group_backend, timeout=timeout)
        self._sizes = data_parallel_size, tensor_parallel_size
        self.state_dict_type = "sharded" if save_distributed_checkpoint else "full"

    def _mesh(self) -> DeviceMesh:
        data, tensor = self._sizes[0], self._tensor_size
        data = self.num_nodes if data == "auto" else data
        if data * tensor != self.world_size:
            raise MisconfigurationException(
                f"data_parallel_size={data} times tensor_parallel_size={tensor} is {data * tensor}, and there are "
                f"{self.world_size} processes. Give both, so that their product is the number of processes."
            )
        names = ("data_parallel", "tensor_parallel")
        return init_device_mesh(self.root_device.type, (data, tensor), mesh_dim_names=names)

    def _shard(self, module: LightningModule) -> None:
        if not any(isinstance(p, DTensor) for p in module.parameters()):
            raise TypeError(
                f"{type(module).__qualname__}.configure_model has sharded nothing. ModelParallelStrategy leaves that "
                'to it: call fully_shard(self, mesh=self.device_mesh["data_parallel"]) or parallelize_module(..., '
                "self.device_mesh[\"tensor_parallel\"], plan) there, or use strategy='fsdp'."
            )
        _make_real(module, self.root_device)
        self._share_whole(module)  # such as a layer that every process of a tensor-parallel group has

    @property
    def data_size(self) -> int:
        return max(self.world_size // self._tensor_size, 1)

    @property
    def data_rank(self) -> int:
        return self.global_rank // self._tensor_size

    @property
    def _tensor_size(self) -> int:
        tensor = self._sizes[1]
        return self.num_processes if tensor == "auto" else tensor


def _make_real(module: nn.Module, device: torch.device) -> None:
    """What was created on the meta device gets memory, and the values that each layer begins with."""
    for part in module.modules():
        if any(tensor.is_meta for tensor in [*part.parameters(recurse=False), *part.buffers(recurse=False)]):
            part.to_empty(device=device, recurse=False)
            if not callable(reset := getattr(part, "reset_parameters", None)):
                raise MisconfigurationException(
                    f"a {type(part).__name__} was created on the meta device, and has no reset_parameters() that "
                    "would give its weights values. Define it, or create the layer on a real device."
                )
            reset()


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _roots(module: nn.Module) -> list[FSDPModule]:
    """The outermost units."""
    if isinstance(module, FSDPModule):
        return [module]
    return [root for child in module.children() for root in _roots(child)]


class _Following:
    """How a process without a batch keeps up with those that gather units for theirs."""

    def __init__(self, module: nn.Module, group: Any) -> None:
        self.units = [part for part in module.modules() if isinstance(part, FSDPModule)]
        self.numbers = {id(unit): i for i, unit in enumerate(self.units)}
        self.places = {id(unit): _a_parameter(cast(nn.Module, unit)) for unit in self.units}
        self.group = group
        self.leader: int | None = None  # who tells what it gathers; None while all have a batch

    @contextlib.contextmanager
    def hooked(self) -> Iterator[None]:
        hooks = [
            cast(nn.Module, unit).register_forward_pre_hook(lambda part, _: self.tell(part), prepend=True)
            for unit in self.units
        ]
        try:
            yield
        finally:
            self.leader = None
            for hook in hooks:
                hook.remove()

    def begin(self, has_batch: bool) -> bool:
        """A batch: whether any process has one, and who leads those that have none."""
        rank, nobody = dist.get_rank(), dist.get_world_size()
        told = torch.tensor([rank if has_batch else nobody, -1 if not has_batch else 0])
        dist.all_reduce(told, dist.ReduceOp.MIN, group=self.group)
        first, idle = told.tolist()
        self.leader = first if idle and first != nobody else None
        return bool(first != nobody)

    def tell(self, unit: Any) -> None:
        """Before the forward of a unit, on each process with a batch."""
        place = self.places.get(id(unit))
        if self.leader is not None and place is not None and isinstance(getattr(*place), DTensor):
            self._heard(self.numbers[id(unit)])

    def end(self) -> None:
        if self.leader is not None:
            self._heard(-1)

    def follow(self) -> None:
        """Gather what the leader gathers, and free it at once, until its batch ends."""
        while (number := self._heard(-1)) >= 0:
            self.units[number].unshard()
            self.units[number].reshard()

    def _heard(self, number: int) -> int:
        assert self.leader is not None
        told = torch.tensor(number)
        dist.broadcast(told, self.leader, group=self.group)
        return int(told)


def _a_parameter(unit: nn.Module) -> tuple[nn.Module, str] | None:
    """Where a parameter is that the unit itself gathers: neither is it in an inner unit, nor left out of all."""
    own: list[nn.Module] = [unit]
    while own:
        part = own.pop()
        for name, parameter in part.named_parameters(recurse=False):
            if isinstance(parameter, DTensor):
                return part, name
        own += [child for child in part.children() if not isinstance(child, FSDPModule)]
    return None


def _as_step(own: Callable[..., Any], gathering: Callable[..., Any], before: Callable[[], None]) -> Callable[..., Any]:
    """A step around which parameters are gathered, with the signature of the user's own, which torch's lacks."""

    @functools.wraps(own)
    def step(*args: Any, **kwargs: Any) -> Any:
        before()
        return gathering(*args, **kwargs)

    return step


# FSDP1's words
def _check_fsdp1(kwargs: dict[str, Any]) -> None:
    for name, value in kwargs.items():
        if name not in _FSDP1:
            raise TypeError(f"FSDPStrategy takes no argument {name!r}; it is neither Lightning's nor FSDP1's.")
        accepted, instead = _FSDP1[name]
        if getattr(value, "name", value) not in accepted and value is not None:
            raise MisconfigurationException(
                f"FSDPStrategy({name}={value!r}) has no counterpart in FSDP2, which this strategy uses: {instead}."
            )


def _offload_policy(cpu_offload: Any) -> OffloadPolicy:
    if isinstance(cpu_offload, OffloadPolicy):
        return cpu_offload
    return CPUOffloadPolicy() if getattr(cpu_offload, "offload_params", cpu_offload) else OffloadPolicy()


def _mixed_precision(precision: Precision) -> MixedPrecisionPolicy:
    """Gathered in the type of autocast, summed in float32; the shards that the optimizer steps stay as they are."""
    half = precision.format.autocast
    if half is not None:  # inputs are autocast's to cast: labels and losses stay float32
        return MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32, cast_forward_inputs=False)
    if precision.format.weights in (torch.float16, torch.bfloat16):
        return MixedPrecisionPolicy(reduce_dtype=torch.float32)
    return MixedPrecisionPolicy()


def _as_fsdp2(given: Any) -> tuple[MixedPrecisionPolicy, torch.dtype | None]:
    """A policy of FSDP2, and the type of buffers where FSDP1's says one."""
    if isinstance(given, MixedPrecisionPolicy):
        return given, None
    if not hasattr(given, "buffer_dtype"):
        raise MisconfigurationException(
            f"mixed_precision={given!r} is no MixedPrecisionPolicy of torch.distributed.fsdp. Write e.g. "
            "MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)."
        )
    if given.keep_low_precision_grads:
        raise MisconfigurationException(
            "MixedPrecision(keep_low_precision_grads=True) has no counterpart in FSDP2: gradients have the type of the "
            "parameters. Use precision='bf16-true' for parameters and gradients in bfloat16."
        )
    casts = given.cast_forward_inputs or given.cast_root_forward_inputs
    policy = MixedPrecisionPolicy(given.param_dtype, given.reduce_dtype, cast_forward_inputs=casts)
    return policy, given.buffer_dtype


def _recompute_activations(module: nn.Module, which: Any) -> None:
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
        CheckpointWrapper,
        apply_activation_checkpointing,
    )

    if not any(isinstance(part, CheckpointWrapper) for part in module.modules()):
        classes = _classes(which)
        check = which if classes is None else lambda part: isinstance(part, classes)
        apply_activation_checkpointing(module, check_fn=check)


def _classes(which: Any) -> tuple[type, ...] | None:
    if isinstance(which, type):
        return (which,)
    return tuple(which) if isinstance(which, (set, frozenset, list, tuple)) else None


# which modules are units
def _units(module: nn.Module, policy: Any) -> list[nn.Module]:
    """The modules below the root that the policy names, inner ones first."""
    if policy is None:
        return []
    classes = _classes(policy)
    if classes is not None:
        found = [part for part in module.modules() if isinstance(part, classes)]
    elif callable(policy):
        found = _chosen(module, policy)[0]
    elif hasattr(policy, "_run_policy"):  # torch's CustomPolicy cannot be called
        found = list(policy._run_policy(module, ignored_modules=set(), root_kwargs={}))
    else:
        raise MisconfigurationException(
            f"auto_wrap_policy={policy!r} is neither a set of module classes nor a policy of "
            "torch.distributed.fsdp.wrap."
        )
    chosen = {id(part) for part in found if part is not module and next(part.parameters(), None) is not None}
    return [part for part in reversed(list(module.modules())) if id(part) in chosen]


def _chosen(module: nn.Module, policy: Callable[..., bool]) -> tuple[list[nn.Module], int]:
    """What a function of FSDP1's kind chooses, inner ones first, and how many numbers these hold.

    It is asked whether to look inside a module, and then, given how many of its numbers are in no unit yet, whether
    the module is one.
    """
    chosen, held, size = list[nn.Module](), 0, sum(p.numel() for p in module.parameters())
    if policy(module=module, recurse=True, nonwrapped_numel=size):
        for child in module.children():
            inner, numbers = _chosen(child, policy)
            chosen, held = chosen + inner, held + numbers
    if policy(module=module, recurse=False, nonwrapped_numel=size - held):
        return [*chosen, module], size
    return chosen, held
