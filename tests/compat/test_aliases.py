"""Lightning's import paths, in all their spellings; each check in a process of its own, for it takes names over."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src"

# what libraries and scripts import: the path below `lightning.pytorch`, and the names
PYTORCH = {
    "": "Trainer LightningModule LightningDataModule Callback seed_everything __version__",
    "accelerators": "Accelerator CPUAccelerator CUDAAccelerator MPSAccelerator find_usable_cuda_devices",
    "accelerators.cuda": "CUDAAccelerator",
    "callbacks": "BackboneFinetuning BaseFinetuning BasePredictionWriter BatchSizeFinder Callback Checkpoint"
    " DeviceStatsMonitor EMAWeightAveraging EarlyStopping GradientAccumulationScheduler LambdaCallback"
    " LearningRateFinder LearningRateMonitor ModelCheckpoint ModelSummary OnExceptionCheckpoint ProgressBar"
    " RichModelSummary RichProgressBar StochasticWeightAveraging TQDMProgressBar ThroughputMonitor Timer"
    " WeightAveraging GPUStatsMonitor LearningRateLogger ProgressBarBase",
    "callbacks.base": "Callback",
    "callbacks.batch_size_finder": "BatchSizeFinder",
    "callbacks.callback": "Callback",
    "callbacks.early_stopping": "EarlyStopping EarlyStoppingReason",
    "callbacks.finetuning": "BaseFinetuning BackboneFinetuning",
    "callbacks.gradient_accumulation_scheduler": "GradientAccumulationScheduler",
    "callbacks.lr_finder": "LearningRateFinder",
    "callbacks.lr_monitor": "LearningRateMonitor",
    "callbacks.model_checkpoint": "ModelCheckpoint",
    "callbacks.model_summary": "ModelSummary",
    "callbacks.prediction_writer": "BasePredictionWriter",
    "callbacks.progress": "ProgressBar RichProgressBar TQDMProgressBar",
    "callbacks.progress.progress_bar": "ProgressBar",
    "callbacks.progress.rich_progress": "RichProgressBar RichProgressBarTheme",
    "callbacks.progress.tqdm_progress": "TQDMProgressBar Tqdm",
    "callbacks.timer": "Timer",
    "cli": "LightningCLI LightningArgumentParser SaveConfigCallback OptimizerCallable LRSchedulerCallable"
    " instantiate_class",
    "core": "LightningModule LightningDataModule",
    "core.datamodule": "LightningDataModule",
    "core.hooks": "ModelHooks DataHooks CheckpointHooks",
    "core.lightning": "LightningModule",
    "core.mixins": "HyperparametersMixin",
    "core.mixins.hparams_mixin": "HyperparametersMixin",
    "core.module": "LightningModule",
    "core.optimizer": "LightningOptimizer",
    "core.saving": "load_hparams_from_yaml save_hparams_to_yaml get_filesystem",
    "demos.boring_classes": "BoringModel RandomDataset BoringDataModule ManualOptimBoringModel DemoModel",
    "loggers": "CSVLogger Logger TensorBoardLogger LightningLoggerBase",
    "loggers.base": "Logger DummyLogger rank_zero_experiment",
    "loggers.csv_logs": "CSVLogger ExperimentWriter",
    "loggers.logger": "Logger DummyLogger DummyExperiment rank_zero_experiment",
    "loggers.tensorboard": "TensorBoardLogger",
    "loops.fit_loop": "_FitLoop",
    "loops.optimization.automatic": "Closure ClosureResult",
    "metrics": "Metric Accuracy",
    "metrics.functional": "accuracy",
    "plugins": "CheckpointIO DoublePrecision HalfPrecision MixedPrecision Precision TorchCheckpointIO DDPPlugin"
    " NativeMixedPrecisionPlugin",
    "plugins.environments": "ClusterEnvironment LightningEnvironment SLURMEnvironment TorchElasticEnvironment",
    "plugins.io": "CheckpointIO TorchCheckpointIO",
    "plugins.precision": "MixedPrecision Precision",
    "profiler": "SimpleProfiler AdvancedProfiler PyTorchProfiler BaseProfiler",
    "profilers": "Profiler SimpleProfiler AdvancedProfiler PyTorchProfiler PassThroughProfiler",
    "strategies": "SingleDeviceStrategy Strategy",
    "strategies.single_device": "SingleDeviceStrategy",
    "trainer": "Trainer seed_everything",
    "trainer.connectors.accelerator_connector": "_AcceleratorConnector",
    "trainer.connectors.data_connector": "_DataLoaderSource",
    "trainer.connectors.logger_connector.result": "_ResultCollection",
    "trainer.states": "RunningStage TrainerFn TrainerState TrainerStatus",
    "trainer.supporters": "CombinedLoader",
    "trainer.trainer": "Trainer",
    "tuner": "Tuner",
    "tuner.lr_finder": "_LRFinder",
    "tuner.tuning": "Tuner",
    "utilities": "AttributeDict CombinedLoader GradClipAlgorithmType grad_norm is_picklable move_data_to_device"
    " rank_zero_deprecation rank_zero_info rank_zero_only rank_zero_warn suggested_max_num_workers",
    "utilities.apply_func": "apply_to_collection move_data_to_device",
    "utilities.argparse": "add_argparse_args from_argparse_args",
    "utilities.cloud_io": "get_filesystem",
    "utilities.combined_loader": "CombinedLoader",
    "utilities.compile": "from_compiled to_uncompiled",
    "utilities.data": "extract_batch_size has_iterable_dataset AttributeDict",
    "utilities.distributed": "rank_zero_only rank_zero_warn rank_zero_info",
    "utilities.enums": "GradClipAlgorithmType LightningEnum",
    "utilities.exceptions": "MisconfigurationException SIGTERMException",
    "utilities.grads": "grad_norm",
    "utilities.imports": "_TORCHMETRICS_AVAILABLE _OMEGACONF_AVAILABLE",
    "utilities.memory": "recursive_detach garbage_collection_cuda",
    "utilities.model_helpers": "is_overridden",
    "utilities.model_summary": "ModelSummary summarize",
    "utilities.parsing": "AttributeDict get_init_args collect_init_args lightning_getattr lightning_hasattr",
    "utilities.rank_zero": "rank_prefixed_message rank_zero_deprecation rank_zero_info rank_zero_only rank_zero_warn",
    "utilities.seed": "isolate_rng reset_seed seed_everything",
    "utilities.signature_utils": "is_param_in_hook_signature",
    "utilities.types": "STEP_OUTPUT OptimizerLRScheduler LRSchedulerConfig EVAL_DATALOADERS TRAIN_DATALOADERS"
    " LRSchedulerPLType",
    "utilities.warnings": "PossibleUserWarning",
}
# Names that stand in a file of ours under a path of ours, where ours has not all of theirs.
ONLY_UNDER_THE_ALIAS = (
    "utilities.apply_func utilities.data.has_iterable_dataset utilities.data.AttributeDict utilities.distributed."
    " utilities.enums.LightningEnum utilities.imports."
)
FABRIC = {
    "accelerators": "CPUAccelerator CUDAAccelerator",
    "loggers": "CSVLogger TensorBoardLogger",
    "plugins.environments": "ClusterEnvironment LightningEnvironment SLURMEnvironment TorchElasticEnvironment",
    "plugins.io.torch_io": "TorchCheckpointIO",
    "plugins.io.checkpoint_io": "CheckpointIO",
    "utilities.apply_func": "move_data_to_device",
    "utilities.cloud_io": "get_filesystem _load",
    "utilities.data": "AttributeDict",
    "utilities.device_dtype_mixin": "_DeviceDtypeModuleMixin",
    "utilities.distributed": "is_shared_filesystem",
    "utilities.exceptions": "MisconfigurationException",
    "utilities.rank_zero": "rank_zero_only LightningDeprecationWarning",
    "utilities.seed": "seed_everything pl_worker_init_function",
    "utilities.types": "_PATH _MAP_LOCATION_TYPE",
    "utilities.warnings": "PossibleUserWarning",
}


def run(code: str, *arguments: str, alias: bool = True) -> str:
    """What the code prints, in a Python of its own."""
    environment = {**os.environ, "PYTHONPATH": str(SRC), "OMP_NUM_THREADS": "1"}
    install = "import fulgurite.compat; fulgurite.compat.install_alias()\n" if alias else ""
    command = [sys.executable, "-W", "ignore", "-c", install + code, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.needs("jsonargparse")
def test_every_name_is_the_same_object_in_every_spelling() -> None:
    code = f"""
import importlib
PYTORCH, FABRIC, only = {PYTORCH!r}, {FABRIC!r}, {ONLY_UNDER_THE_ALIAS.split()!r}
def get(module, name):
    space = {{}}
    exec(f"from {{module}} import {{name}}", space)
    return space[name]
for table, roots in ((PYTORCH, ["lightning.pytorch", "pytorch_lightning", "fulgurite"]),
                     (FABRIC, ["lightning.fabric", "lightning_fabric"])):
    for path, names in table.items():
        for name in names.split():
            found = []
            for root in roots:
                if root == "fulgurite" and (name == "__version__" or f"{{path}}.{{name}}".startswith(tuple(only))):
                    continue
                try:
                    found.append(get(f"{{root}}.{{path}}".rstrip("."), name))
                except Exception as error:
                    print("missing:", f"{{root}}.{{path}}", name, type(error).__name__, error)
            if any(thing is not found[0] for thing in found):
                print("differs:", path, name)
"""
    assert run(code) == ""


@pytest.mark.slow
def test_isinstance_and_subclassing_work_across_spellings() -> None:
    assert (
        run("""
import lightning as L, lightning.pytorch as pl, pytorch_lightning as old, fulgurite
from lightning.pytorch.callbacks import Callback
class Mine(old.LightningModule): pass
class Watch(Callback): pass
assert isinstance(Mine(), L.LightningModule) and isinstance(Mine(), fulgurite.LightningModule)
assert pl.Trainer(callbacks=Watch(), accelerator="cpu", logger=False).callbacks and isinstance(Watch(), old.Callback)
assert L.pytorch.callbacks.ModelCheckpoint is pl.callbacks.ModelCheckpoint is fulgurite.callbacks.ModelCheckpoint
assert pl.trainer.states.RunningStage is old.trainer.states.RunningStage and L.fabric.utilities.seed.seed_everything
""")
        == ""
    )


@pytest.mark.slow
def test_the_version_is_lightnings_and_the_package_can_be_found() -> None:
    assert (
        run("""
from importlib.metadata import version
from importlib.util import find_spec
assert find_spec("lightning") and find_spec("pytorch_lightning") and find_spec("lightning.pytorch.callbacks")
assert find_spec("lightning.pytorch.nonsense") is None and find_spec("lightning_app") is None
import lightning, pytorch_lightning, fulgurite
print(lightning.__version__, pytorch_lightning.__version__, version("lightning"), version("pytorch-lightning"))
assert fulgurite.__version__ != lightning.__version__
""").split()
        == ["2.6.6"] * 4
    )


LACKING = {
    "from lightning.pytorch.strategies import DeepSpeedStrategy": "strategy='fsdp'",
    "from lightning.pytorch.accelerators import XLAAccelerator": "accelerator='auto'",
    "from pytorch_lightning.loggers import TestTubeLogger": "CSVLogger",
    "from pytorch_lightning.loggers.test_tube import TestTubeLogger": "CSVLogger",
    "from lightning.fabric import Fabric": "fulgurite.Trainer",
    "from pytorch_lightning import EvalResult": "self.log(name, value)",
    "import lightning.pytorch.strategies.deepspeed": "strategy='fsdp'",
    "from fulgurite.strategies import DeepSpeedStrategy": "strategy='fsdp'",
}


@pytest.mark.slow
def test_a_name_we_lack_says_what_to_use() -> None:
    assert (
        run(f"""
for statement, says in {LACKING!r}.items():
    try:
        exec(statement)
        print("no error:", statement)
    except ImportError as error:
        if says not in str(error):
            print(statement, "says", error)
""")
        == ""
    )


@pytest.mark.slow
def test_a_name_we_lack_is_not_there_for_hasattr() -> None:
    assert (
        run("""
import lightning.pytorch as pl
print(hasattr(pl.strategies, "DeepSpeedStrategy"), hasattr(pl, "nonsense"), hasattr(pl, "__file__"))
""").split()
        == ["False"] * 3
    )


@pytest.mark.slow
def test_their_loggers_are_ours() -> None:
    assert (
        run("""
import logging
logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(lambda record: False)
import pytorch_lightning as pl
pl.utilities.rank_zero.rank_zero_info("not to be seen")
assert logging.getLogger("fulgurite").level == logging.ERROR
""")
        == ""
    )


@pytest.mark.slow
def test_old_paths_say_once_where_their_names_are_now() -> None:
    assert run("""
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    from pytorch_lightning.callbacks.base import Callback
    from pytorch_lightning.callbacks import GPUStatsMonitor
    from pytorch_lightning.callbacks import GPUStatsMonitor
print(*[str(w.message).split(". ", 1)[1] for w in caught], sep="\\n")
""").splitlines() == [
        "Write from fulgurite.callbacks import Callback.",
        "Write from fulgurite.callbacks import DeviceStatsMonitor.",
    ]


@pytest.mark.slow
def test_the_alias_refuses_where_lightning_is_imported_already() -> None:
    assert "python -m fulgurite run" in run(
        """
import sys, types
sys.modules["lightning"] = types.ModuleType("lightning")
import fulgurite.compat
try:
    fulgurite.compat.install_alias()
except RuntimeError as error:
    print(error)
""",
        alias=False,
    )


@pytest.mark.slow
def test_importing_fulgurite_loads_no_table() -> None:
    assert (
        run(
            """
import sys, fulgurite
print(*[name in sys.modules for name in ("fulgurite.compat.aliases", "fulgurite.compat.internals", "lightning")])
""",
            alias=False,
        ).split()
        == ["False"] * 3
    )
