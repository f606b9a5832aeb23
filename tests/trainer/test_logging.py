"""What self.log keeps of unusual values, and of several loaders."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torchmetrics import MeanMetric, MetricCollection

import fulgurite as pl
from fulgurite.utilities.exceptions import MisconfigurationException
from helpers.counting import QUIET, Counting, fit, loader


@pytest.mark.parametrize("precision", ["bf16-true", "32-true"])
@pytest.mark.filterwarnings("ignore:.*it is averaged as torch.float32")
def test_numbers_keep_their_digits_in_half_precision(precision: Any) -> None:
    class Logs(Counting):
        def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
            self.log_dict({"rate": 1e-8, "count": 70001, "whole": torch.tensor(100003)}, on_epoch=True, on_step=False)
            return self.layer(batch).mean()

    metrics = fit(Logs(), precision=precision)[0].callback_metrics
    assert metrics["count"] == 70001 and metrics["whole"] == 100003
    assert metrics["rate"] == pytest.approx(1e-8, rel=1e-6)


@pytest.mark.parametrize("metric", [False, True])
def test_one_name_of_several_loaders_is_the_value_over_all_of_them(metric: bool) -> None:
    class Two(Counting):
        def __init__(self) -> None:
            super().__init__()
            self.mean = MeanMetric()

        def validation_step(self, batch: torch.Tensor, batch_idx: int, dataloader_idx: int) -> None:
            self.mean.update(float(dataloader_idx), len(batch))
            value = self.mean if metric else float(dataloader_idx)
            self.log("all", value, add_dataloader_idx=False)
            self.log(f"loader {dataloader_idx}", float(dataloader_idx), add_dataloader_idx=False)

    trainer = pl.Trainer(**QUIET)
    first, second = trainer.validate(Two(), [loader(3), loader(1)], verbose=False)
    assert first == {"all": 0.25, "loader 0": 0} and second == {"all": 0.25, "loader 1": 1}
    assert trainer.callback_metrics["all"] == 0.25


def test_a_collection_of_metrics_is_not_one_value() -> None:
    class Logs(Counting):
        def __init__(self, metric: Any) -> None:
            super().__init__()
            self.metric = metric

        def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
            self.metric.update(1.0)
            self.log("m", self.metric)

    class Several(MeanMetric):
        def compute(self) -> Any:
            return {"a": super().compute(), "b": 0}

    with pytest.raises(MisconfigurationException, match=r"MetricCollection\) at .*Use self.log_dict"):
        fit(Logs(MetricCollection([MeanMetric()])))
    with pytest.raises(ValueError, match="Several, logged as 'm' at .*computes 'a', 'b', and one name holds one"):
        fit(Logs(Several()))


def test_a_metric_may_be_made_anew_each_epoch() -> None:
    class Renews(Counting):
        def on_train_epoch_start(self) -> None:
            self.mean = MeanMetric()

        def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
            self.mean.update(self.current_epoch + batch_idx)
            self.log("mean", self.mean, on_step=False, on_epoch=True)
            return self.layer(batch).mean()

    assert fit(Renews(), max_epochs=3)[0].callback_metrics["mean"] == 2 + 1.5


def test_a_value_logged_with_its_graph_is_summed_without_it() -> None:
    class Logs(Counting):
        def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
            loss = self.layer(batch).mean()
            self.log("loss", loss, on_step=False, on_epoch=True, enable_graph=True)
            return loss

    assert not fit(Logs())[0].callback_metrics["loss"].requires_grad
