"""Logs to Comet."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn

from fulgurite.loggers.logger import Logger, as_dict, rank_zero_experiment
from fulgurite.utilities.imports import import_extra
from fulgurite.utilities.rank_zero import LightningDeprecationWarning, rank_zero_only, warn_once

_FRAMEWORK = "pytorch-lightning"  # under this name Comet shows metrics of a loop like ours
_OLD = {"experiment_name": "name", "project_name": "project", "save_dir": "offline_directory"}


class CometLogger(Logger):
    """Log metrics, hyper-parameters and the model's graph to a Comet experiment.

    Example::

        logger = CometLogger(project="dkt", online=False, offline_directory="comet")  # `comet upload` sends it later
        trainer = Trainer(logger=logger)
        logger.experiment.log_text("anything Comet takes")

    Keywords that are not named here, such as `name`, `tags` and `log_code`, go to `comet_ml.ExperimentConfig`.
    """

    def __init__(
        self,
        *,
        api_key: str | None = None,
        workspace: str | None = None,
        project: str | None = None,
        experiment_key: str | None = None,
        mode: Literal["get_or_create", "get", "create"] | None = None,
        online: bool | None = None,
        prefix: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        kwargs = {"project": project, "online": online, **_todays_names(kwargs)}
        self._start: dict[str, Any] = {
            "api_key": api_key,
            "workspace": workspace,
            "project": kwargs.pop("project"),
            "experiment_key": experiment_key,
            "mode": mode,
            "online": kwargs.pop("online"),
        }
        self._prefix = prefix
        # Comet would patch torch and TensorBoard to log by itself; it asks this variable when it is imported.
        os.environ.setdefault("COMET_DISABLE_AUTO_LOGGING", "1")
        self._config = _import_comet().ExperimentConfig(**kwargs)
        self._experiment: Any = None
        if rank_zero_only.rank == 0:
            self.experiment  # noqa: B018  # begins the experiment

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The Comet experiment; continued under its key in another process."""
        if self._experiment is None:
            experiment = _import_comet().start(**self._start, experiment_config=self._config)
            if experiment is None:
                raise RuntimeError(
                    f"Comet started no experiment for {self._start}. Look at its messages above, or pass online=False."
                )
            self._experiment = experiment
            self._start |= {"experiment_key": experiment.get_key(), "project": experiment.project_name}
        return self._experiment

    @property
    def name(self) -> str | None:
        """The project."""
        return self._start["project"]  # type: ignore[no-any-return]  # text

    @property
    def version(self) -> str | None:
        """The experiment's key."""
        return self._start["experiment_key"]  # type: ignore[no-any-return]  # text

    @property
    def save_dir(self) -> str | None:
        """Where an offline experiment is written."""
        return self._config.offline_directory  # type: ignore[no-any-return]  # text

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_experiment": None}

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | argparse.Namespace) -> None:
        self.experiment.__internal_api__log_parameters__(
            parameters=as_dict(params), framework=_FRAMEWORK, flatten_nested=True, source="manual"
        )

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        row = {k: v.item() if isinstance(v, Tensor) and v.numel() == 1 else v for k, v in metrics.items()}
        epoch = row.pop("epoch", None)
        self.experiment.__internal_api__log_metrics__(
            row, step=step, epoch=epoch, prefix=self._prefix, framework=_FRAMEWORK
        )

    @rank_zero_only
    def log_graph(self, model: nn.Module, input_array: Tensor | None = None) -> None:
        self.experiment.__internal_api__set_model_graph__(graph=model, framework=_FRAMEWORK)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Send what is left; the experiment stays open, `logger.experiment.end()` or the end of the process ends it."""
        if self._experiment is not None:
            self._experiment.log_other("status", status)
            self._experiment.flush()


def _todays_names(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Keywords under the names they have today."""
    for old, new in _OLD.items():
        if old in kwargs:
            warn_once(f"CometLogger({old}=...) is of the 1.x era. Write {new}=...", LightningDeprecationWarning)
            value = kwargs.pop(old)
            kwargs.setdefault(new, value)
    if "offline" in kwargs:
        warn_once("CometLogger(offline=...) is of the 1.x era. Write online=False.", LightningDeprecationWarning)
        kwargs["online"] = not kwargs.pop("offline")
    return kwargs


def _import_comet() -> Any:
    return import_extra("comet_ml", "CometLogger", "comet")
