"""Logs to MLflow."""

from __future__ import annotations

import argparse
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from fulgurite.loggers.logger import Logger, SavedFiles, as_dict, flat, rank_zero_experiment, with_prefix
from fulgurite.utilities.cloud_io import local_path
from fulgurite.utilities.imports import import_extra
from fulgurite.utilities.rank_zero import rank_zero_only, warn_once

if TYPE_CHECKING:
    from fulgurite.callbacks.model_checkpoint import ModelCheckpoint

_STATUS = {"success": "FINISHED", "finished": "FINISHED", "failed": "FAILED", "aborted": "KILLED"}
_NOT_ALLOWED = re.compile(r"[^a-zA-Z0-9_/. -]+")
_LONGEST_PARAM = 6000  # characters; a store refuses longer ones
_PARAMS_AT_ONCE = 100
_SAVE_DIR = "./mlruns"  # stands for "where MLflow itself would log"


class MLFlowLogger(Logger):
    """Log metrics, hyper-parameters and checkpoints to an MLflow run.

    Example::

        logger = MLFlowLogger("dkt")  # `mlflow ui`, started in the same folder, shows it
        trainer = Trainer(logger=logger)
        logger.experiment.log_text(logger.run_id, "anything the client takes", "note.txt")
    """

    LOGGER_JOIN_CHAR = "-"

    def __init__(
        self,
        experiment_name: str = "lightning_logs",
        run_name: str | None = None,
        tracking_uri: str | None = None,
        tags: dict[str, Any] | None = None,
        save_dir: str | None = _SAVE_DIR,
        log_model: Literal[True, False, "all"] = False,
        prefix: str = "",
        artifact_location: str | None = None,
        run_id: str | None = None,
        synchronous: bool | None = None,
    ) -> None:
        super().__init__()
        _import_tracking()
        tracking_uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
        self._local: Path | None = None  # a folder of this disk that no address says
        if not tracking_uri and save_dir in (None, _SAVE_DIR):  # where this version's `mlflow ui` looks
            tracking_uri = _import_tracking().get_tracking_uri()
            self._local = Path(_SAVE_DIR) if tracking_uri.startswith("sqlite:") else None  # of its artifacts
        elif not tracking_uri and save_dir is not None:
            self._local = Path(save_dir)
            if _allows_files():
                tracking_uri = f"file:{save_dir}"
            else:
                tracking_uri = f"sqlite:///{self._local}/mlflow.db"
                artifact_location = artifact_location or str(self._local.absolute() / "artifacts")
        self._experiment_name = experiment_name
        self._experiment_id: str | None = None
        self._run_name = run_name
        self._run_id = run_id
        self._tracking_uri: str = tracking_uri or ""
        self.tags = dict(tags or {})
        self._log_model = log_model
        self._prefix = prefix
        self._artifact_location = artifact_location
        self._at_once = {} if synchronous is None else {"synchronous": synchronous}
        self._files = SavedFiles()
        self._client: Any = None
        self._attached = False

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The `MlflowClient`; experiment and run are made when first asked for."""
        if self._attached:
            return self._client
        if self._local is not None:
            self._local.mkdir(parents=True, exist_ok=True)  # for a data base in it
        self._client = _import_tracking().MlflowClient(self._tracking_uri)
        if self._run_id is not None:
            self._experiment_id = self._client.get_run(self._run_id).info.experiment_id
        else:
            found = self._client.get_experiment_by_name(self._experiment_name)
            if found is not None and found.lifecycle_stage != "deleted":
                self._experiment_id = found.experiment_id
            else:
                self._experiment_id = self._client.create_experiment(
                    self._experiment_name, artifact_location=self._artifact_location
                )
            run = self._client.create_run(self._experiment_id, tags=self._all_tags(), run_name=self._run_name)
            self._run_id = run.info.run_id
        self._attached = True
        return self._client

    def _all_tags(self) -> dict[str, Any]:
        """The user's tags and MLflow's own: who ran which script at which commit."""
        from mlflow.tracking.context import registry

        return dict(registry.resolve_tags(self.tags))

    @property
    def run_id(self) -> str | None:
        self.experiment  # noqa: B018  # makes the run
        return self._run_id

    @property
    def experiment_id(self) -> str | None:
        self.experiment  # noqa: B018  # makes the experiment
        return self._experiment_id

    @property
    def name(self) -> str | None:
        """The experiment's id."""
        return self.experiment_id

    @property
    def version(self) -> str | None:
        """The run's id."""
        return self.run_id

    @property
    def save_dir(self) -> str | None:
        """The folder of a local store that nobody named otherwise; None for any other store."""
        if self._local is not None:
            return str(self._local)
        if not self._tracking_uri.startswith("file:"):
            return None
        return (
            local_path(self._tracking_uri) if "://" in self._tracking_uri else self._tracking_uri.removeprefix("file:")
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_client": None, "_attached": False}

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | argparse.Namespace) -> None:
        from mlflow.entities import Param

        entries = [Param(name, str(value)[:_LONGEST_PARAM]) for name, value in flat(as_dict(params)).items()]
        for i in range(0, len(entries), _PARAMS_AT_ONCE):
            chunk = entries[i : i + _PARAMS_AT_ONCE]
            self.experiment.log_batch(run_id=self.run_id, params=chunk, **self._at_once)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        from mlflow.entities import Metric

        now, row = int(time.time() * 1000), []
        for name, value in with_prefix(metrics, self._prefix, self.LOGGER_JOIN_CHAR).items():
            if isinstance(value, str):
                warn_once(f"MLflow takes numbers as metrics; {name!r} is text and is left out.")
                continue
            allowed = _NOT_ALLOWED.sub("", name)
            if allowed != name:
                warn_once(
                    f"MLflow allows only letters, digits, '_', '/', '.', ' ' and '-' in names: {name!r} -> {allowed!r}"
                )
            number = value.item() if isinstance(value, Tensor) else float(value)
            row.append(Metric(key=allowed, value=number, timestamp=now, step=0 if step is None else int(step)))
        self.experiment.log_batch(run_id=self.run_id, metrics=row, **self._at_once)

    @rank_zero_only
    def after_save_checkpoint(self, checkpoint_callback: ModelCheckpoint) -> None:
        self._files.callback = checkpoint_callback
        if self._log_model == "all" or (self._log_model is True and checkpoint_callback.save_top_k == -1):
            self._upload()

    @rank_zero_only
    def finalize(self, status: str = "success") -> None:
        if not self._attached:
            return
        if status == "success" and self._log_model:
            self._upload()
        self.experiment.set_terminated(self.run_id, _STATUS.get(status, "FINISHED"))

    def _upload(self) -> None:
        for path, score, aliases in self._files.new():
            folder = Path(path).stem
            self.experiment.log_artifact(self.run_id, path, folder)
            about = {"score": score, "original_filename": Path(path).name, "aliases": aliases}
            self.experiment.log_dict(self.run_id, about, f"{folder}/metadata.json")


def _allows_files() -> bool:
    """Whether this version of MLflow still writes plain folders; newer ones want a data base."""
    from mlflow import environment_variables

    switch = getattr(environment_variables, "MLFLOW_ALLOW_FILE_STORE", None)
    return switch is None or bool(switch.get())


def _import_tracking() -> Any:
    return import_extra("mlflow.tracking", "MLFlowLogger", "mlflow")
