"""Lightning's import paths: one table from theirs to ours, and the finder that makes modules of it when asked.

A path that we have ourselves needs no row. A row says where names are found, in that order, and which of their paths
have these names; "." stands for `fulgurite`. Names that went with the 1.x era, and names that we lack on purpose, say
what to write.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import logging
import sys
from collections.abc import Iterable, Sequence
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from fulgurite.compat.era import say
from fulgurite.utilities.rank_zero import log

VERSION = "2.6.6"  # of Lightning, whose names these are


def _by_path(places: dict[str, str]) -> dict[str, str]:
    """From "where we have the names: their paths" to a row for each path; "=" stands for the same path of ours."""
    return {path: where.replace("=", f".{path}") for where, paths in places.items() for path in paths.split()}


# below `lightning.pytorch` and `lightning.fabric` alike
_BOTH = {
    ".accelerators": "accelerators.accelerator accelerators.mps",
    ".accelerators .compat.internals": "accelerators.cuda",
    ".machine.environments": "plugins.environments",
    ".plugins": "plugins.io plugins.precision plugins.precision.amp plugins.precision.double plugins.precision.fsdp"
    " plugins.precision.half plugins.precision.precision plugins.io.wrapper",
    ".strategies": "strategies.ddp strategies.fsdp strategies.model_parallel strategies.parallel"
    " strategies.single_device",
    ".compat.internals": "utilities.device_parser",
    ".utilities.data .utilities.parsing .compat.internals": "utilities.data",
    ".utilities.tree .compat.internals": "utilities.apply_func",
    "= .compat.internals": "utilities.cloud_io utilities.imports utilities.types",
}
_PYTORCH = {
    ".accelerators .compat.internals": "accelerators.cpu",
    ".callbacks.progress.progress_bar": "callbacks.progress.base",
    ".core.hparams": "core.mixins core.mixins.hparams_mixin",
    ".demos.boring_classes": "demos",
    ".optimizers .compat.internals": "core.optimizer",
    ".plugins": "plugins.io.async_plugin plugins.io.checkpoint_plugin plugins.io.torch_plugin plugins.layer_sync",
    ".states": "trainer.states",
    ".strategies .compat.internals": "strategies.strategy",
    ".trainer .utilities.seed": "trainer",
    ".trainer": "trainer.trainer",
    ".compat.argparsing": "utilities.argparse",
    ".utilities.distributed .utilities.rank_zero .compat.internals": "utilities.distributed",
    ".utilities.model_summary .compat.internals": "utilities.model_summary.model_summary",
    "= .compat.internals": "callbacks.progress.progress_bar callbacks.progress.tqdm_progress core.module core.saving"
    " loggers.logger loggers.mlflow utilities utilities.enums utilities.exceptions utilities.model_helpers"
    " utilities.parsing",
    ".compat.internals": "core.hooks loggers.utilities overrides overrides.distributed trainer.call"
    " loops loops.evaluation_loop loops.fetchers loops.fit_loop loops.loop loops.prediction_loop loops.progress"
    " loops.training_epoch_loop loops.utilities loops.optimization loops.optimization.automatic"
    " loops.optimization.closure loops.optimization.manual"
    " trainer.connectors trainer.connectors.accelerator_connector trainer.connectors.callback_connector"
    " trainer.connectors.checkpoint_connector trainer.connectors.data_connector trainer.connectors.signal_connector"
    " trainer.connectors.logger_connector trainer.connectors.logger_connector.logger_connector"
    " trainer.connectors.logger_connector.result utilities.compile utilities.signature_utils",
}
_OF_THE_1X_ERA = {
    ".callbacks": "callbacks.lr_logger callbacks.gpu_stats_monitor",
    ".callbacks.callback": "callbacks.base",
    ".cli": "utilities.cli",
    ".compat.internals": "core.decorators core.step_result tuner.auto_gpu_select utilities.metrics utilities.debugging",
    ".compat.plugins": "plugins.training_type plugins.training_type.ddp",
    ".core.module": "core.lightning",
    ".core.saving": "trainer.training_io",
    ".loggers": "logging",
    ".loggers.logger": "loggers.base",
    ".profilers": "profiler profiler.profilers profiler.base",
    ".profilers.advanced": "profiler.advanced",
    ".profilers.pytorch": "profiler.pytorch",
    ".profilers.simple": "profiler.simple",
    ".utilities.combined_loader": "trainer.supporters",
    ".utilities.model_helpers": "utilities.model_utils",
    ".utilities.model_summary .utilities.memory": "core.memory",
    "torchmetrics": "metrics metrics.metric",
    "torchmetrics.classification torchmetrics": "metrics.classification",
    "torchmetrics.functional": "metrics.functional",
    "torchmetrics.regression torchmetrics": "metrics.regression",
}
# the rest of Fabric is not here
_FABRIC = {
    "=": "accelerators loggers loggers.csv_logs loggers.logger loggers.tensorboard strategies utilities.exceptions"
    " utilities.rank_zero utilities.throughput utilities.warnings",
    "= .compat.internals": "utilities.distributed utilities.seed",
    ".accelerators": "accelerators.cpu",
    ".machine.environments": "plugins.environments.cluster_environment plugins.environments.slurm"
    " plugins.environments.torchelastic",
    ".machine.environments .compat.internals": "plugins.environments.lightning",
    ".plugins .machine.environments": "plugins",
    ".plugins": "plugins.io.checkpoint_io plugins.io.torch_io",
    ".strategies": "strategies.strategy",
    ".utilities .utilities.tree .compat.internals": "utilities",
    ".compat.internals": "utilities.device_dtype_mixin utilities.enums utilities.logger utilities.optimizer",
}
PYTORCH = {"": ".", **_by_path(_BOTH), **_by_path(_PYTORCH), **_by_path(_OF_THE_1X_ERA)}
FABRIC = {"": ".utilities.seed .compat.internals", **_by_path(_BOTH), **_by_path(_FABRIC)}
ROOTS: dict[str, dict[str, str]] = {
    "lightning.pytorch": PYTORCH,
    "lightning.fabric": FABRIC,
    "lightning": {"": ".", "pytorch.utilities": PYTORCH["utilities"]},
    "pytorch_lightning": PYTORCH,
    "lightning_fabric": FABRIC,
    "fulgurite": PYTORCH,
}
# the parts of ours whose modules have Lightning's names
_SHARED = "accelerators callbacks cli core demos loggers plugins profilers strategies trainer tuner utilities"

# names of the 1.x era -> where they are now, and the line to write
RENAMED: dict[str, tuple[str, str, str]] = {
    "AbstractProfiler": (".profilers", "Profiler", "from fulgurite.profilers import Profiler"),
    "BaseProfiler": (".profilers", "Profiler", "from fulgurite.profilers import Profiler"),
    "DDPPlugin": (".compat.plugins", "DDPPlugin", "strategy=DDPStrategy(...), or strategy='auto' on one device"),
    "DDPSpawnPlugin": (".compat.plugins", "DDPSpawnPlugin", "strategy='ddp_spawn'"),
    "DoublePrecisionPlugin": (".plugins", "DoublePrecision", "from fulgurite.plugins import DoublePrecision"),
    "GPUStatsMonitor": (".callbacks", "DeviceStatsMonitor", "from fulgurite.callbacks import DeviceStatsMonitor"),
    "LearningRateLogger": (".callbacks", "LearningRateMonitor", "from fulgurite.callbacks import LearningRateMonitor"),
    "LightningLoggerBase": (".loggers", "Logger", "from fulgurite.loggers import Logger"),
    "MixedPrecisionPlugin": (".plugins", "MixedPrecision", "from fulgurite.plugins import MixedPrecision"),
    "NativeMixedPrecisionPlugin": (".plugins", "MixedPrecision", "from fulgurite.plugins import MixedPrecision"),
    "PrecisionPlugin": (".plugins", "Precision", "from fulgurite.plugins import Precision"),
    "ProgressBarBase": (".callbacks", "ProgressBar", "from fulgurite.callbacks import ProgressBar"),
}
# paths of the 1.x era -> the line to write
MOVED: dict[str, str] = {
    "callbacks.base": "from fulgurite.callbacks import Callback",
    "callbacks.lr_logger": "from fulgurite.callbacks import LearningRateMonitor",
    "callbacks.gpu_stats_monitor": "from fulgurite.callbacks import DeviceStatsMonitor",
    "core.lightning": "from fulgurite import LightningModule",
    "core.memory": "from fulgurite.utilities.model_summary import ModelSummary",
    "logging": "from fulgurite import loggers",
    "loggers.base": "from fulgurite.loggers.logger import Logger",
    "metrics": "import torchmetrics",
    "profiler": "from fulgurite import profilers",
    "trainer.supporters": "from fulgurite.utilities import CombinedLoader",
    "utilities.cli": "from fulgurite.cli import LightningCLI",
    "utilities.device_parser": "from fulgurite.accelerators import find_usable_cuda_devices",
    "utilities.model_utils": "from fulgurite.utilities.model_helpers import is_overridden",
}

_LOGGER = "use CSVLogger, TensorBoardLogger, WandbLogger, MLFlowLogger, CometLogger or a ten-line Logger of your own."
# names that we lack on purpose, and last parts of paths -> what to use
_LACKING: dict[str, str] = {
    "Fabric LightningLite is_wrapped wrappers lite fabric": "there is one API here, the Trainer's: fulgurite.Trainer.",
    "DeepSpeedStrategy DeepSpeedPlugin DeepSpeedPrecision deepspeed model_summary_deepspeed": (
        "DeepSpeed is not supported: use strategy='fsdp' on several devices, or one device."
    ),
    "XLAAccelerator XLACheckpointIO XLAPrecision XLAProfiler XLAStrategy XLAStatsMonitor TPUAccelerator xla xla_fsdp"
    " SingleDeviceXLAStrategy TPUSpawnPlugin TPUStrategy XLAFSDPStrategy XLAEnvironment single_xla xla_plugin": (
        "TPUs are not supported: use accelerator='auto', devices=1."
    ),
    "BitsandbytesPrecision bitsandbytes": "use bitsandbytes' own layers in your module, and precision='bf16-true'.",
    "TransformerEnginePrecision transformer_engine": (
        "call transformer_engine's own layers and autocast in training_step, and precision='bf16-mixed'."
    ),
    "TestTubeLogger test_tube NeptuneLogger neptune LitLogger litlogger TrainsLogger": _LOGGER,
    "LoggerCollection": "pass a list of loggers; trainer.loggers gives it back.",
    "TrainResult EvalResult Result": "log with self.log(name, value) and return the loss.",
    "FSDPPrecision": "write Trainer(precision=...), or FSDPStrategy(mixed_precision=MixedPrecisionPolicy(...)).",
    "ParallelStrategy": "from fulgurite.strategies import DDPStrategy",
    "LayerSync TorchSyncBatchNorm": "write Trainer(sync_batchnorm=True).",
    "DDPShardedPlugin DDPSpawnShardedPlugin DDPFullyShardedPlugin DDP2Plugin DataParallelPlugin HorovodPlugin"
    " HorovodStrategy DataParallelStrategy BaguaStrategy": "use strategy='ddp' or strategy='fsdp'.",
    "ModelPruning pruning": "call torch.nn.utils.prune in a callback's on_train_epoch_end.",
    "QuantizationAwareTraining": "call torch.ao.quantization in setup().",
    "SpikeDetection spike": "subclass Callback and look at outputs['loss'] in on_train_batch_end.",
    "data_loader": "leave the decorator out: train_dataloader is called once a fit.",
    "consolidate_checkpoint": "run python -m fulgurite consolidate FOLDER FILE.",
    "app": "Lightning Apps are not part of this package.",
    "data": "install litdata, or use torch.utils.data.DataLoader.",
    "launchers collectives kubeflow lsf mpi KubeflowEnvironment LSFEnvironment MPIEnvironment": (
        "processes are started by torchrun, SLURM or the trainer."
    ),
    "mnist_datamodule transformer lstm MNISTDataModule LightningTransformer WikiText2 LightningLSTM SequenceSampler"
    " SimpleLSTM Transformer": ("use fulgurite.demos.boring_classes for a model and data that need no download."),
    "serve ServableModule ServableModuleValidator": "export the module with to_onnx or torch.export and serve that.",
    "migration migrate_checkpoint pl_legacy_patch upgrade_checkpoint": "old checkpoints are read as they are.",
    "model_registry download_model_from_registry find_model_local_ckpt_path": "pass the path of a checkpoint file.",
    "AbstractClosure OutputResult ManualResult RestartStage check_finite_loss": (
        "there are no loop classes: the loop is fulgurite/loop.py; override optimizer_step or use callbacks."
    ),
    "BatchesProcessedColumn CustomBarColumn CustomInfiniteTask CustomProgress CustomTimeColumn MetricsTextColumn"
    " ProcessingSpeedColumn": "override RichProgressBar.configure_columns and return columns of rich.progress.",
    "RegisterRecordFunction ScheduleWrapper": "pass schedule= and record_module_names= to PyTorchProfiler.",
    "LightningDoublePrecisionModule": "write precision='64-true'.",
    "UnrepeatedDistributedSampler UnrepeatedDistributedSamplerWrapper DistributedSamplerWrapper prepare_for_backward": (
        "leave it out: the trainer shares out data itself, in the sampler's order, and never pads evaluation."
    ),
    "ACCELERATOR_REGISTRY STRATEGY_REGISTRY call_register_accelerators registry connector dp": (
        "there is no registry: pass a name such as strategy='ddp', or an object of fulgurite.strategies."
    ),
    "Throughput": "use fulgurite.callbacks.ThroughputMonitor.",
    "get_available_flops": "pass ThroughputMonitor(available_flops=...) the figure of the device's data sheet.",
    "LIGHTNING_LOGO cli_lightning_logo": "nothing here advertises.",
    "get_nvidia_gpu_stats get_device_stats": "use CUDAAccelerator().get_device_stats(device).",
    "get_torchvision_model": "write getattr(torchvision.models, name)(weights=weights).",
    "HPUAccelerator HPUCheckpointIO HPUParallelStrategy HPUPrecisionPlugin SingleHPUStrategy SingleTPUStrategy"
    " TPUBf16PrecisionPlugin TPUPrecisionPlugin XLABf16PrecisionPlugin TPUBf16Precision TPUPrecision"
    " XLABf16Precision": ("these devices are not supported: use accelerator='auto', devices=1."),
    "FSDPMixedPrecisionPlugin": "write strategy='fsdp', precision='bf16-mixed'.",
}
LACKING = {name: line for names, line in _LACKING.items() for name in names.split()}


class Alias(ModuleType):
    """A module of theirs: its names are looked up in ours when asked for."""

    def __init__(self, name: str, sources: Sequence[str]) -> None:
        super().__init__(name)
        self._sources = sources

    def __getattr__(self, name: str) -> Any:
        if name == "__all__":
            return _public(self._sources)
        if name == "__version__":
            return VERSION
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        inner = f"{self.__name__}.{name}"
        for source in self._sources:
            value = getattr(_imported(source), name, self)
            if value is self or (isinstance(value, ModuleType) and value.__name__.startswith("fulgurite")):
                continue  # of a module of ours they shall get their view, which may have more
            self.__dict__[name] = value
            return value
        if name in RENAMED:
            return _renamed(name)
        if sources_of(inner) is not None:
            return importlib.import_module(inner)
        raise AttributeError(_lacks(self.__name__, name))

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *_public(self._sources)})


class _Loader(Loader):
    def __init__(self, sources: Sequence[str]) -> None:
        self.sources = sources

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return Alias(spec.name, self.sources)

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing to run: names come when asked for."""


class Finder:
    """Answers for `lightning`, `pytorch_lightning` and `lightning_fabric` before any installed package does."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return find(name) if name.split(".")[0] in _PACKAGES else None

    @staticmethod
    def find_distributions(
        context: importlib.metadata.DistributionFinder.Context | None = None,
    ) -> Iterable[importlib.metadata.Distribution]:
        wanted = getattr(context, "name", None)
        names = ("lightning", "pytorch-lightning", "lightning-fabric")
        return [_Installed(n) for n in names if wanted is not None and wanted.replace("_", "-").lower() == n]


class _Installed(importlib.metadata.Distribution):
    """What `importlib.metadata.version("lightning")` finds."""

    def __init__(self, name: str) -> None:
        self._name = name

    def read_text(self, filename: str) -> str | None:
        return f"Metadata-Version: 2.1\nName: {self._name}\nVersion: {VERSION}\n" if filename == "METADATA" else None

    def locate_file(self, path: Any) -> Path:
        return Path(__file__).parent / str(path)


_PACKAGES = ("lightning", "pytorch_lightning", "lightning_fabric")
# under these names scripts quieten the framework
_LOGGERS = (
    *_PACKAGES,
    *("lightning.pytorch", "lightning.pytorch.utilities.rank_zero", "lightning.pytorch.accelerators.cuda"),
    *("pytorch_lightning.utilities.rank_zero", "pytorch_lightning.utilities.distributed"),
    *("pytorch_lightning.accelerators.cuda", "lightning_fabric.utilities.seed", "lightning_fabric.utilities.rank_zero"),
    *("lightning.fabric", "lightning.fabric.utilities.seed", "lightning.fabric.utilities.rank_zero"),
)


def install() -> None:
    """Put the finder before all others; see `fulgurite.compat.install_alias`."""
    if Finder in sys.meta_path:
        return
    early = [name for name in _PACKAGES if name in sys.modules]
    if early:
        raise RuntimeError(
            f"{early[0]} is imported already, so its name cannot stand for fulgurite any more. Call install_alias() "
            "before anything that imports it, or run the script by: python -m fulgurite run script.py"
        )
    sys.meta_path.insert(0, Finder)
    logging.Logger.manager.loggerDict.update(dict.fromkeys(_LOGGERS, log))


def find(name: str) -> ModuleSpec | None:
    """The module `name`, made of ours; an ImportError where we lack it on purpose."""
    sources = sources_of(name)
    if sources is not None:
        _say_moved(name)
        spec = ModuleSpec(name, _Loader(sources), is_package=True)
        spec.submodule_search_locations = []
        return spec
    parent, _, last = name.rpartition(".")
    if last in LACKING and (parent in sys.modules or sources_of(parent) is not None):
        raise ImportError(_lacks(parent, last), name=name)
    if last in RENAMED and not isinstance(sys.modules.get(parent), Alias):
        setattr(sys.modules[parent], last, _renamed(last))  # `from fulgurite.x import last` finds it there
    return None


def sources_of(name: str) -> list[str] | None:
    """Where the names of their module `name` are found, or None where there is no such module."""
    root = max((r for r in ROOTS if name == r or name.startswith(f"{r}.")), key=len, default="")
    if not root:
        return None
    path = name[len(root) + 1 :]
    row = ROOTS[root].get(path)
    if row is not None:
        return [f"fulgurite{s}".rstrip(".") if s.startswith(".") else s for s in row.split()]
    shared = ROOTS[root] is PYTORCH and root != "fulgurite" and path.split(".")[0] in _SHARED.split()
    if shared and _exists(f"fulgurite.{path}"):
        return [f"fulgurite.{path}"]
    return None


def _exists(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ImportError:  # its parent is no package, or it is lacking on purpose
        return False


def _imported(source: str) -> ModuleType | None:
    if not source.startswith("fulgurite") and importlib.util.find_spec(source.split(".")[0]) is None:
        raise ModuleNotFoundError(f"{source} is not installed: pip install {source.split('.')[0]}", name=source)
    try:
        return importlib.import_module(source)
    except ModuleNotFoundError as error:
        if error.name == source:  # a part of ours that this version does not have
            return None
        raise


def _public(sources: Iterable[str]) -> list[str]:
    modules = [module for source in sources if (module := _imported(source)) is not None]
    names = {n for m in modules for n in getattr(m, "__all__", [n for n in vars(m) if not n.startswith("_")])}
    return sorted(names - {"__version__", "annotations"})


def _renamed(name: str) -> Any:
    source, new, line = RENAMED[name]
    say(name, f"Write {line}.")
    return getattr(importlib.import_module(f"fulgurite{source}"), new)


def _say_moved(name: str) -> None:
    path = name.removeprefix("lightning.").removeprefix("pytorch").removeprefix("_lightning").lstrip(".")
    path = path.removeprefix("fulgurite.")
    if path in MOVED:
        say(name, f"Write {MOVED[path]}.")


def _lacks(module: str, name: str) -> str:
    if name in LACKING:
        return f"fulgurite has no {name} (asked for as {module}.{name}): {LACKING[name]}"
    return f"module {module!r} has no attribute {name!r}"
