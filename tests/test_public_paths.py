"""Every import path that code in the wild uses resolves, and `__all__` says what is offered."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import pytest

import fulgurite

PATHS = {
    "": "Trainer LightningModule LightningDataModule Callback seed_everything",
    ".demos.boring_classes": "BoringModel RandomDataset RandomDictDataset BoringDataModule RandomIterableDataset"
    " RandomIterableDatasetWithLen ManualOptimBoringModel DemoModel",
    ".callbacks": "Callback Checkpoint EarlyStopping LambdaCallback LearningRateMonitor ModelCheckpoint ModelSummary"
    " ProgressBar RichProgressBar TQDMProgressBar Timer",
    ".callbacks.callback": "Callback",
    ".callbacks.checkpoint": "Checkpoint",
    ".callbacks.early_stopping": "EarlyStopping EarlyStoppingReason",
    ".callbacks.model_checkpoint": "ModelCheckpoint",
    ".callbacks.model_summary": "ModelSummary",
    ".callbacks.lambda_function": "LambdaCallback",
    ".callbacks.lr_monitor": "LearningRateMonitor",
    ".callbacks.timer": "Timer",
    ".callbacks.progress": "ProgressBar RichProgressBar TQDMProgressBar",
    ".callbacks.progress.tqdm_progress": "TQDMProgressBar",
    ".callbacks.progress.rich_progress": "RichProgressBar",
    ".core": "LightningModule LightningDataModule",
    ".core.module": "LightningModule",
    ".core.datamodule": "LightningDataModule",
    ".core.optimizer": "LightningOptimizer",
    ".core.saving": "load_hparams_from_yaml save_hparams_to_yaml",
    ".core.mixins": "HyperparametersMixin",
    ".loggers": "CSVLogger Logger TensorBoardLogger",
    ".loggers.logger": "Logger DummyLogger DummyExperiment rank_zero_experiment",
    ".loggers.csv_logs": "CSVLogger ExperimentWriter",
    ".loggers.tensorboard": "TensorBoardLogger",
    ".profilers": "Profiler SimpleProfiler PassThroughProfiler",
    ".strategies": "Strategy SingleDeviceStrategy",
    ".accelerators": "CPUAccelerator CUDAAccelerator",
    ".plugins": "Precision MixedPrecision",
    ".trainer": "Trainer seed_everything",
    ".trainer.trainer": "Trainer",
    ".trainer.states": "TrainerFn RunningStage TrainerState TrainerStatus",
    ".utilities": "CombinedLoader GradClipAlgorithmType grad_norm move_data_to_device rank_zero_only rank_zero_warn"
    " rank_zero_info rank_zero_deprecation AttributeDict is_picklable suggested_max_num_workers",
    ".utilities.combined_loader": "CombinedLoader",
    ".utilities.exceptions": "MisconfigurationException SIGTERMException",
    ".utilities.memory": "recursive_detach",
    ".utilities.model_helpers": "is_overridden",
    ".utilities.model_summary": "ModelSummary summarize",
    ".utilities.parsing": "AttributeDict",
    ".utilities.rank_zero": "rank_zero_only rank_zero_warn rank_zero_info rank_zero_debug rank_zero_deprecation",
    ".utilities.seed": "seed_everything isolate_rng reset_seed",
    ".utilities.types": "STEP_OUTPUT OptimizerLRScheduler EVAL_DATALOADERS TRAIN_DATALOADERS LRSchedulerConfig",
}
TRAINER_MEMBERS = """
fit validate test predict save_checkpoint print init_module
training validating testing predicting sanity_checking evaluating state interrupted received_sigterm should_stop
global_step current_epoch fit_loop max_epochs min_epochs max_steps min_steps is_last_batch num_training_batches
num_val_batches num_sanity_val_batches num_test_batches num_predict_batches estimated_stepping_batches
callback_metrics logged_metrics progress_bar_metrics
model lightning_module optimizers lr_scheduler_configs train_dataloader val_dataloaders test_dataloaders
predict_dataloaders datamodule logger loggers log_dir default_root_dir callbacks checkpoint_callback
checkpoint_callbacks early_stopping_callback early_stopping_callbacks progress_bar_callback strategy accelerator
precision precision_plugin scaler profiler ckpt_path
global_rank local_rank node_rank world_size num_nodes num_devices device_ids is_global_zero distributed_sampler_kwargs
limit_train_batches limit_val_batches limit_test_batches limit_predict_batches fast_dev_run
log_every_n_steps accumulate_grad_batches gradient_clip_val gradient_clip_algorithm val_check_interval
check_val_every_n_epoch reload_dataloaders_every_n_epochs overfit_batches predict_loop batches_that_stepped
"""
MODULE_MEMBERS = """
training_step validation_step test_step predict_step configure_optimizers forward configure_callbacks
automatic_optimization optimizers lr_schedulers manual_backward toggle_optimizer untoggle_optimizer toggled_optimizer
optimizer_step optimizer_zero_grad backward lr_scheduler_step configure_gradient_clipping clip_gradients log log_dict
all_gather print freeze unfreeze save_hyperparameters hparams hparams_initial load_from_checkpoint to_onnx
to_torchscript current_epoch global_step global_rank local_rank device dtype on_gpu logger loggers example_input_array
strict_loading configure_model prepare_data setup teardown train_dataloader val_dataloader test_dataloader
predict_dataloader transfer_batch_to_device on_before_batch_transfer on_after_batch_transfer
on_save_checkpoint on_load_checkpoint
"""
TRAINER_ARGUMENTS = """
accelerator strategy devices num_nodes precision logger callbacks fast_dev_run max_epochs min_epochs max_steps min_steps
max_time limit_train_batches limit_val_batches limit_test_batches limit_predict_batches overfit_batches
val_check_interval check_val_every_n_epoch num_sanity_val_steps log_every_n_steps enable_checkpointing
enable_progress_bar enable_model_summary accumulate_grad_batches gradient_clip_val gradient_clip_algorithm
deterministic benchmark inference_mode use_distributed_sampler profiler detect_anomaly barebones plugins
sync_batchnorm reload_dataloaders_every_n_epochs default_root_dir enable_autolog_hparams model_registry
"""


@pytest.mark.parametrize(("module", "name"), [(m, n) for m, names in PATHS.items() for n in names.split()])
def test_path(module: str, name: str) -> None:
    assert getattr(importlib.import_module(f"fulgurite{module}"), name) is not None


def test_all_is_the_documented_list() -> None:
    assert set("Trainer LightningModule LightningDataModule Callback seed_everything".split()) <= set(fulgurite.__all__)
    assert all(getattr(fulgurite, name) is not None for name in fulgurite.__all__)
    assert set(fulgurite.__all__) <= set(dir(fulgurite))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        fulgurite.nonsense  # noqa: B018


def members(thing: Any) -> set[str]:
    return set(dir(thing))


def test_the_trainer_has_lightnings_members() -> None:
    trainer = fulgurite.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    assert not set(TRAINER_MEMBERS.split()) - members(trainer)


def test_the_module_has_lightnings_members() -> None:
    assert not set(MODULE_MEMBERS.split()) - members(fulgurite.LightningModule)


def test_the_trainers_signature_shows_lightnings_arguments_all_by_keyword() -> None:
    parameters = [p for p in inspect.signature(fulgurite.Trainer.__init__).parameters.values() if p.name != "self"]
    named = [p for p in parameters if p.kind is not p.VAR_KEYWORD]
    assert not set(TRAINER_ARGUMENTS.split()) - {p.name for p in named}
    assert all(p.kind is p.KEYWORD_ONLY for p in named)
