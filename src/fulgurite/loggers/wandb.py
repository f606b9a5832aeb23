"""Logs to Weights & Biases."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from fulgurite.loggers.logger import Logger, SavedFiles, as_dict, rank_zero_experiment, with_prefix
from fulgurite.utilities.exceptions import MisconfigurationException
from fulgurite.utilities.imports import import_extra
from fulgurite.utilities.rank_zero import rank_zero_only, rank_zero_warn

if TYPE_CHECKING:
    from fulgurite.callbacks.model_checkpoint import ModelCheckpoint

_STEP = "trainer/global_step"


class WandbLogger(Logger):
    """Log metrics, hyper-parameters, checkpoints and media to a W&B run.

    Example::

        logger = WandbLogger(project="dkt", offline=True)  # `wandb sync` sends it later
        trainer = Trainer(logger=logger)
        logger.watch(model)
        logger.experiment.log({"anything": "W&B takes"})

    The x-axis is `trainer/global_step`. Keywords that are not named here go to `wandb.init`.
    """

    LOGGER_JOIN_CHAR = "-"

    def __init__(
        self,
        name: str | None = None,
        save_dir: str | Path = ".",
        version: str | None = None,
        offline: bool = False,
        dir: str | Path | None = None,
        id: str | None = None,
        anonymous: bool | None = None,
        project: str | None = None,
        log_model: Literal["all"] | bool = False,
        experiment: Any = None,  # a wandb run; wandb may not be installed
        prefix: str = "",
        checkpoint_name: str | None = None,
        add_file_policy: Literal["mutable", "immutable"] = "mutable",
        **kwargs: Any,
    ) -> None:
        super().__init__()
        _import_wandb()
        if offline and log_model:
            raise MisconfigurationException(
                f"WandbLogger(log_model={log_model!r}, offline=True): checkpoints cannot be uploaded offline. "
                "Leave out one of the two."
            )
        self._save_dir = str(save_dir if dir is None else dir)
        self._prefix = prefix
        self._log_model = log_model
        self._experiment = experiment
        self._checkpoint_name = checkpoint_name
        self._add_file_policy = add_file_policy
        self._files = SavedFiles()
        self._init: dict[str, Any] = {
            "name": name,
            "project": project or os.environ.get("WANDB_PROJECT", "lightning_logs"),
            "dir": self._save_dir,
            "id": version or id,
            "resume": "allow",
            **kwargs,
        }
        if offline:
            self._init["mode"] = "offline"
        if anonymous is not None:
            self._init["anonymous"] = "allow" if anonymous else "never"

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run; begun when first asked for, the one in progress where there is one."""
        if self._experiment is None:
            wandb = _import_wandb()
            if wandb.run is not None:
                rank_zero_warn("WandbLogger goes on with the W&B run in progress; wandb.finish() ends it.")
                self._experiment = wandb.run
            else:
                Path(self._save_dir).mkdir(parents=True, exist_ok=True)
                self._experiment = wandb.init(**self._init)
            if getattr(self._experiment, "define_metric", None):
                self._experiment.define_metric(_STEP)
                self._experiment.define_metric("*", step_metric=_STEP, step_sync=True)
        return self._experiment

    @property
    def name(self) -> str | None:
        """The project."""
        return self._init["project"]  # type: ignore[no-any-return]  # text

    @property
    def version(self) -> str | None:
        """The id of the run."""
        return self._experiment.id if self._experiment is not None else self._init["id"]  # type: ignore[no-any-return]

    @property
    def save_dir(self) -> str:
        return self._save_dir

    def __getstate__(self) -> dict[str, Any]:
        run = self._experiment
        if run is None:
            return self.__dict__
        return {**self.__dict__, "_experiment": None, "_init": {**self._init, "id": run.id, "name": run.name}}

    def watch(
        self, model: nn.Module, log: str | None = "gradients", log_freq: int = 100, log_graph: bool = True
    ) -> None:
        """Log histograms of gradients or parameters."""
        self.experiment.watch(model, log=log, log_freq=log_freq, log_graph=log_graph)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | argparse.Namespace) -> None:
        plain = {k: getattr(v, "__name__", str(v)) if callable(v) else v for k, v in as_dict(params).items()}
        run: Any = self.experiment
        run.config.update(plain, allow_val_change=True)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        row = with_prefix(metrics, self._prefix, self.LOGGER_JOIN_CHAR)
        self.experiment.log(row if step is None else {**row, _STEP: step})

    # media
    @rank_zero_only
    def log_table(
        self,
        key: str,
        columns: list[str] | None = None,
        data: list[list[Any]] | None = None,
        dataframe: Any = None,
        step: int | None = None,
    ) -> None:
        """Log a table, of text, numbers or media."""
        self.log_metrics({key: _import_wandb().Table(columns=columns, data=data, dataframe=dataframe)}, step)

    @rank_zero_only
    def log_text(
        self,
        key: str,
        columns: list[str] | None = None,
        data: list[list[str]] | None = None,
        dataframe: Any = None,
        step: int | None = None,
    ) -> None:
        """Log text as a table."""
        self.log_table(key, columns, data, dataframe, step)

    @rank_zero_only
    def log_image(self, key: str, images: list[Any], step: int | None = None, **kwargs: Any) -> None:
        """Log images: arrays, tensors, PIL images or paths; keywords such as `caption` are lists, one entry each."""
        self._log_media(key, "Image", images, step, kwargs)

    @rank_zero_only
    def log_audio(self, key: str, audios: list[Any], step: int | None = None, **kwargs: Any) -> None:
        """Log sound: arrays or paths; keywords such as `sample_rate` are lists, one entry each."""
        self._log_media(key, "Audio", audios, step, kwargs)

    @rank_zero_only
    def log_video(self, key: str, videos: list[Any], step: int | None = None, **kwargs: Any) -> None:
        """Log films: arrays or paths; keywords such as `fps` are lists, one entry each."""
        self._log_media(key, "Video", videos, step, kwargs)

    def _log_media(
        self, key: str, kind: str, items: list[Any], step: int | None, options: dict[str, list[Any]]
    ) -> None:
        if not isinstance(items, list):
            raise TypeError(f"WandbLogger.log_{kind.lower()}({key!r}): expected a list, got {type(items).__name__}.")
        for name, values in options.items():
            if len(values) != len(items):
                raise ValueError(
                    f"{name} has {len(values)} entries for {len(items)} {kind.lower()}s; it needs one each."
                )
        make = getattr(_import_wandb(), kind)
        self.log_metrics({key: [make(x, **{k: v[i] for k, v in options.items()}) for i, x in enumerate(items)]}, step)

    # checkpoints as artifacts
    @rank_zero_only
    def after_save_checkpoint(self, checkpoint_callback: ModelCheckpoint) -> None:
        self._files.callback = checkpoint_callback
        if self._log_model == "all" or (self._log_model is True and checkpoint_callback.save_top_k == -1):
            self._upload()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if status == "success" and self._experiment is not None and self._log_model:
            self._upload()

    def _upload(self) -> None:
        wandb = _import_wandb()
        for path, score, aliases in self._files.new():
            artifact = wandb.Artifact(
                name=self._checkpoint_name or f"model-{self.experiment.id}",
                type="model",
                metadata={"score": score, "original_filename": Path(path).name},
            )
            artifact.add_file(path, name="model.ckpt", policy=self._add_file_policy)
            self.experiment.log_artifact(artifact, aliases=aliases)

    @staticmethod
    @rank_zero_only
    def download_artifact(
        artifact: str,
        save_dir: str | Path | None = None,
        artifact_type: str | None = None,
        use_artifact: bool | None = True,
    ) -> str:
        """Fetch an artifact such as "me/project/model-abc:best"; gives the folder."""
        wandb = _import_wandb()
        if wandb.run is not None and use_artifact:
            found = wandb.run.use_artifact(artifact)
        else:
            found = wandb.Api().artifact(artifact, type=artifact_type)
        return str(found.download(root=None if save_dir is None else str(save_dir)))

    def use_artifact(self, artifact: str, artifact_type: str | None = None) -> Any:
        """Mark an artifact as an input of this run."""
        return self.experiment.use_artifact(artifact, type=artifact_type)


def _import_wandb() -> Any:
    return import_extra("wandb", "WandbLogger", "wandb")
