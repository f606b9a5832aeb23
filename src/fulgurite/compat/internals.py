"""Private and small names of Lightning that libraries import: each as much as its users need, made of ours."""

from __future__ import annotations

import csv
import inspect
import math
import socket
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from fulgurite.accelerators import find_usable_cuda_devices
from fulgurite.compat import loops
from fulgurite.compat.argparsing import literal
from fulgurite.compat.era import say
from fulgurite.core.datamodule import LightningDataModule
from fulgurite.core.module import LightningModule
from fulgurite.machine.accelerators import Accelerator, accelerator_of, cpu_stats
from fulgurite.machine.devices import resolve_devices
from fulgurite.results import Results
from fulgurite.utilities.cloud_io import get_filesystem
from fulgurite.utilities.data import has_len
from fulgurite.utilities.imports import package_available
from fulgurite.utilities.rank_zero import rank_zero_warn
from fulgurite.utilities.seed import collect_rng_state, restore_rng_state
from fulgurite.utilities.tree import apply_to_collection, move_data_to_device

T = TypeVar("T")

# types
_PATH = str | Path
_DEVICE = torch.device | str | int
_MAP_LOCATION_TYPE = _DEVICE | Callable[[Any, Any], Any] | dict[Any, Any] | None
_METRIC = Tensor | int | float
_NUMBER = int | float
_PARAMETERS = Any
_BATCH = Any
LRScheduler = _TORCH_LRSCHEDULER = torch.optim.lr_scheduler.LRScheduler
ReduceLROnPlateau = torch.optim.lr_scheduler.ReduceLROnPlateau
Optimizer = torch.optim.Optimizer
ReduceOp = Any
DataHooks, ModelHooks, CheckpointHooks = LightningDataModule, LightningModule, LightningModule

# their names of ours
_FitLoop, _TrainingEpochLoop = loops.FitLoopView, loops.EpochLoopView
_EvaluationLoop, _PredictionLoop = loops.EvaluationLoopView, loops.PredictionLoopView
_Progress = _BatchProgress = loops.TotalAndCurrent
_DataLoaderSource = loops.DataSource
_ResultCollection = Results
_collect_rng_states, _set_rng_states = collect_rng_state, restore_rng_state
convert = literal
get_cpu_stats = cpu_stats

FLOAT16_EPSILON = float(torch.finfo(torch.float16).eps)
FLOAT32_EPSILON = float(torch.finfo(torch.float32).eps)
FLOAT64_EPSILON = float(torch.finfo(torch.float64).eps)
PARAMETER_NUM_UNITS = [" ", "K", "M", "B", "T"]
CHECKPOINT_PAST_HPARAMS_KEYS = ("hparams", "module_arguments")
LOCAL_FILE_URI_PREFIX = "file:"
CollectibleGroup = Optimizable = Steppable = MODULE_OPTIMIZERS = Any
DistributedDataParallel = torch.nn.parallel.DistributedDataParallel


class LightningEnum(str, Enum):
    """An enum that equals its text."""

    @classmethod
    def from_str(cls, value: str, source: str = "any") -> LightningEnum | None:
        return next((member for member in cls if value.lower() in (member.value.lower(), member.name.lower())), None)


class _Stateful(Protocol):
    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...


# the trainer's inside
class _AcceleratorConnector:
    """What `accelerator` and `devices` mean on this machine, as scvi-tools and others ask before there is a trainer."""

    def __init__(
        self,
        devices: list[int] | str | int = "auto",
        num_nodes: int = 1,
        accelerator: str | Accelerator = "auto",
        strategy: Any = "auto",
        plugins: Any = None,
        precision: Any = None,
        sync_batchnorm: bool = False,
        benchmark: bool | None = None,
        use_distributed_sampler: bool = True,
        deterministic: bool | str | None = None,
    ) -> None:
        chosen = resolve_devices(accelerator, devices)
        self.accelerator = accelerator_of(chosen.kind)
        self._accelerator_flag: str = chosen.kind
        self._num_nodes_flag, self.use_distributed_sampler = num_nodes, use_distributed_sampler
        self._strategy_flag, self._precision_flag = strategy, precision
        self._parallel_devices = list(chosen.devices)
        indices: list[int] = [device.index or 0 for device in chosen.devices]
        self._devices_flag: list[int] | int = len(chosen.devices) if chosen.kind == "cpu" else indices
        self.is_distributed = len(chosen.devices) > 1 or num_nodes > 1


class ClosureResult:
    """What one automatic step gave: the loss for backward, and the rest for the hooks."""

    def __init__(self, closure_loss: Tensor | None, loss: Tensor | None = None, extra: Any = None) -> None:
        self.closure_loss, self.extra = closure_loss, dict(extra or {})
        self.loss = closure_loss.detach().clone() if loss is None and closure_loss is not None else loss

    def asdict(self) -> dict[str, Any]:
        return {"loss": self.loss, **self.extra}


class Closure:
    """Forward, zero_grad and backward as one function, as `optimizer_step` is given it."""

    warning_cache: set[str] = set()

    def __init__(
        self,
        step_fn: Callable[[], ClosureResult],
        backward_fn: Callable[[Tensor], None] | None = None,
        zero_grad_fn: Callable[[], None] | None = None,
    ) -> None:
        self._step_fn, self._backward_fn, self._zero_grad_fn = step_fn, backward_fn, zero_grad_fn
        self._result: ClosureResult | None = None

    def closure(self, *args: Any, **kwargs: Any) -> ClosureResult:
        self._result = result = self._step_fn()
        if self._zero_grad_fn is not None:
            self._zero_grad_fn()
        if self._backward_fn is not None and result.closure_loss is not None:
            self._backward_fn(result.closure_loss)
        return result

    def consume_result(self) -> ClosureResult:
        if self._result is None:
            raise RuntimeError("the closure has not run: the optimizer did not call it in its step.")
        result, self._result = self._result, None
        return result

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor | None:
        return self.closure(*args, **kwargs).loss


def _call_and_handle_interrupt(trainer: Any, trainer_fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    return trainer_fn(*args, **kwargs)


def _call_callback_hooks(trainer: Any, hook_name: str, *args: Any, **kwargs: Any) -> None:
    for callback in trainer.callbacks:
        getattr(callback, hook_name)(trainer, trainer.lightning_module, *args, **kwargs)


def _call_lightning_module_hook(trainer: Any, hook_name: str, *args: Any, pl_module: Any = None, **kwargs: Any) -> Any:
    return getattr(pl_module or trainer.lightning_module, hook_name)(*args, **kwargs)


def do_nothing_closure() -> None:
    return None


# files
def _is_dir(fs: Any, path: str | Path, strict: bool = False) -> bool:
    return bool(fs.isdir(str(path)))


def _is_local_file_protocol(path: str | Path) -> bool:
    return "://" not in str(path) or str(path).startswith("file://")


def _load(path_or_url: Any, map_location: Any = None, weights_only: bool | None = None) -> Any:
    if not isinstance(path_or_url, (str, Path)):
        return torch.load(path_or_url, map_location=map_location, weights_only=weights_only)
    with get_filesystem(path_or_url).open(str(path_or_url), "rb") as file:
        return torch.load(file, map_location=map_location, weights_only=weights_only)


load = pl_load = _load


def _atomic_save(checkpoint: dict[str, Any], filepath: str | Path) -> None:
    torch.save(checkpoint, filepath)


def load_hparams_from_tags_csv(tags_csv: str | Path) -> dict[str, Any]:
    """Hyper-parameters of the 0.x era, which stood in meta_tags.csv."""
    if not Path(tags_csv).is_file():
        rank_zero_warn(f"Missing Tags: {tags_csv}.")
        return {}
    with Path(tags_csv).open(newline="") as file:
        return {row["key"]: literal(row["value"]) for row in csv.DictReader(file)}


def save_hparams_to_tags_csv(tags_csv: str | Path, hparams: Any) -> None:
    with Path(tags_csv).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("key", "value"))
        writer.writerows(_convert_params(hparams).items())


def update_hparams(hparams: dict[str, Any], updates: dict[str, Any]) -> None:
    """Overwrite values of a nested dictionary with those of another."""
    for name, value in updates.items():
        if isinstance(value, dict) and isinstance(hparams.get(name), dict):
            update_hparams(hparams[name], value)
        else:
            hparams[name] = value


# data
def has_len_all_ranks(dataloader: Any, *args: Any, **kwargs: Any) -> bool:
    """Whether a loader's length is known."""
    return has_len(dataloader)


def has_iterable_dataset(dataloader: object) -> bool:
    return isinstance(getattr(dataloader, "dataset", None), torch.utils.data.IterableDataset)


def convert_to_tensors(data: Any, device: torch.device) -> Any:
    """Numbers and tensors of a collection, as tensors on a device."""
    data = apply_to_collection(data, (int, float, bool), torch.tensor)
    return move_data_to_device(data, device)


def convert_tensors_to_scalars(data: Any) -> Any:
    """Tensors of one element in a collection, as numbers."""
    return apply_to_collection(data, Tensor, lambda tensor: tensor.item())


class AllGatherGrad(torch.autograd.Function):
    """Of one process: the tensor itself, with a new first dimension."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, group: Any = None) -> Tensor:
        return tensor.unsqueeze(0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return grads[0].squeeze(0), None


# small helpers
def is_param_in_hook_signature(
    hook_fx: Callable[..., Any], param: str, explicit: bool = False, min_args: int | None = None
) -> bool:
    """Whether a hook takes an argument of this name."""
    parameters = inspect.signature(hook_fx).parameters
    any_args = any(p.kind is p.VAR_POSITIONAL for p in parameters.values())
    return param in parameters or (not explicit and any_args) or (min_args is not None and len(parameters) >= min_args)


def from_compiled(model: Any) -> Any:
    """The module inside a compiled one."""
    return getattr(model, "_orig_mod", model)


to_uncompiled = from_compiled


def _optimizer_to_device(optimizer: torch.optim.Optimizer, device: torch.device | str) -> None:
    for parameter, state in optimizer.state.items():
        optimizer.state[parameter] = apply_to_collection(state, Tensor, move_data_to_device, device)


def _optimizers_to_device(optimizers: Any, device: torch.device | str) -> None:
    for optimizer in optimizers:
        _optimizer_to_device(optimizer, device)


def _convert_params(params: Any) -> dict[str, Any]:
    return {} if params is None else dict(vars(params)) if hasattr(params, "__dict__") else dict(params)


def _flatten_dict(params: Any, delimiter: str = "/", parent_key: str = "") -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in _convert_params(params).items():
        name = f"{parent_key}{delimiter}{key}" if parent_key else str(key)
        if isinstance(value, dict):
            result.update(_flatten_dict(value, delimiter, name))
        else:
            result[name] = value
    return result


def _sanitize_params(params: dict[str, Any]) -> dict[str, Any]:
    plain = (bool, int, float, str, Tensor)
    return {k: v if isinstance(v, plain) else str(v) for k, v in params.items()}


def _add_prefix(metrics: dict[str, T], prefix: str, separator: str) -> dict[str, T]:
    return {f"{prefix}{separator}{k}" if prefix else k: v for k, v in metrics.items()}


def merge_dicts(
    dicts: Sequence[dict[str, Any]],
    agg_key_funcs: dict[str, Callable[[Sequence[Any]], Any]] | None = None,
    default_func: Callable[[Sequence[Any]], Any] = lambda values: sum(values) / len(values),
) -> dict[str, Any]:
    """One dictionary of several: the values of each key averaged, or taken together by a function of the key's own."""
    own = agg_key_funcs or {}
    merged: dict[str, Any] = {}
    for key in dict.fromkeys(key for d in dicts for key in d):
        values = [d[key] for d in dicts if key in d]
        nested = isinstance(values[0], dict)
        merged[key] = (
            merge_dicts(values, own.get(key), default_func) if nested else own.get(key, default_func)(values)  # type: ignore[arg-type]  # of a nested key they are a dictionary
        )
    return merged


def get_standard_metrics(trainer: Any) -> dict[str, int | str]:
    """What a bar shows by itself: the version of the loggers."""
    version = _version(trainer.loggers) if trainer.loggers else ""
    if version in ("", None):
        return {}
    return {"v_num": version[-4:] if isinstance(version, str) else version}


def convert_inf(x: int | float | None) -> int | float | None:
    """tqdm's name of an unknown total: None."""
    return None if x is None or math.isinf(x) or math.isnan(x) else x


def _version(loggers: list[Any], separator: str = "_") -> int | str:
    versions = dict.fromkeys(str(logger.version) for logger in loggers)
    return loggers[0].version if len(loggers) == 1 else separator.join(versions)


def _log_hyperparams(trainer: Any) -> None:
    """The trainer has logged them already."""


def num_cuda_devices() -> int:
    return torch.cuda.device_count()


def is_cuda_available() -> bool:
    return torch.cuda.is_available()


def find_free_network_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as free:
        free.bind(("", 0))
        return int(free.getsockname()[1])


def save_hyperparameters(
    obj: Any, *args: Any, ignore: Any = None, frame: Any = None, given_hparams: Any = None
) -> None:
    """The method of the same name, as a function."""
    frame = frame or inspect.currentframe().f_back  # type: ignore[union-attr]  # CPython has frames
    obj.save_hyperparameters(*args, ignore=ignore, frame=frame)


def parse_class_init_keys(cls: type) -> tuple[str, str | None, str | None]:
    """How `__init__` of a class calls self, *args and **kwargs."""
    first, *rest = inspect.signature(cls.__init__).parameters.values()  # type: ignore[misc]  # of a class
    names = {p.kind: p.name for p in rest}
    return first.name, names.get(first.VAR_POSITIONAL), names.get(first.VAR_KEYWORD)


def clean_namespace(hparams: dict[str, Any]) -> None:
    """Remove what cannot be pickled."""
    from fulgurite.utilities.parsing import is_picklable

    for name in [name for name, value in hparams.items() if not is_picklable(value)]:
        rank_zero_warn(f"the hyper-parameter {name!r} is left out: it cannot be pickled.")
        del hparams[name]


class _DeviceDtypeModuleMixin(nn.Module):
    """A module that knows its device and dtype, which a LightningModule does by itself."""

    @property
    def device(self) -> torch.device:
        return next((p.device for p in self.parameters()), torch.device("cpu"))

    @property
    def dtype(self) -> torch.dtype:
        return next((p.dtype for p in self.parameters()), torch.get_default_dtype())


_OMEGACONF_AVAILABLE = package_available("omegaconf")
_TORCHVISION_AVAILABLE = package_available("torchvision")
_TORCHMETRICS_AVAILABLE = package_available("torchmetrics")
_RICH_AVAILABLE = package_available("rich")
_JSONARGPARSE_AVAILABLE = package_available("jsonargparse")
_IS_INTERACTIVE = False
_IS_WINDOWS = False
_TORCH_GREATER_EQUAL_2_0 = _TORCH_GREATER_EQUAL_2_1 = _TORCH_GREATER_EQUAL_2_6 = True
_TPU_AVAILABLE = _XLA_AVAILABLE = _HPU_AVAILABLE = _IPU_AVAILABLE = _HOROVOD_AVAILABLE = _APEX_AVAILABLE = False
_NATIVE_AMP_AVAILABLE = True


# of the 1.x era
class AMPType(LightningEnum):
    """Who does mixed precision."""

    NATIVE = "native"
    APEX = "apex"


class DistributedType(LightningEnum):
    """How several processes work together."""

    DDP = "ddp"
    DDP_SPAWN = "ddp_spawn"
    FSDP = "fsdp"


class DeviceType(LightningEnum):
    """A kind of device."""

    CPU = "cpu"
    GPU = "cuda"
    MPS = "mps"


def pick_single_gpu(exclude_gpus: list[int] | None = None) -> int:
    say("pick_single_gpu", "Write find_usable_cuda_devices(1).")
    return find_usable_cuda_devices(1)[0]


def pick_multiple_gpus(nb: int) -> list[int]:
    say("pick_multiple_gpus", f"Write find_usable_cuda_devices({nb}).")
    return find_usable_cuda_devices(nb)


def parse_gpu_ids(gpus: Any, *args: Any, **kwargs: Any) -> list[int] | None:
    return None if gpus in (None, 0, "0", []) else [d.index or 0 for d in resolve_devices("cuda", gpus).devices]


def auto_move_data(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Move the arguments of a module's method to its device."""
    say("@auto_move_data", "Move the input yourself: x = x.to(self.device).")

    def moved(self: Any, *args: Any, **kwargs: Any) -> Any:
        return fn(self, *move_data_to_device(args, self.device), **move_data_to_device(kwargs, self.device))

    return moved


def metrics_to_scalars(metrics: Any) -> Any:
    return convert_tensors_to_scalars(metrics)
