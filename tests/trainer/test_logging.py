"""What self.log keeps of unusual values, and of several loaders."""

from __future__ import annotations

import csv
from typing import Any

import pytest
import torch
from torchmetrics import MeanMetric, MetricCollection

import fulgurite as pl
from fulgurite.utilities.exceptions import MisconfigurationException
from helpers.counting import QUIET, Counting, fit, loader


@pytest.mark.parametrize("precision", ["bf16-true", "32-true"])
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


class Logs(Counting):
    """Logs from its hooks what the test says."""

    def __init__(self, log: Any, **how: Any) -> None:
        super().__init__()
        self.register_buffer("level", torch.zeros(()))
        self.do, self.how = log, how

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        self.do(self, batch_idx)
        return self.layer(batch).mean()


@pytest.mark.parametrize("kind", ["sum", "min", "max", "mean"])
@pytest.mark.parametrize("enable_graph", [False, True])
@pytest.mark.parametrize("view", [False, True])
def test_what_was_logged_is_what_counts_whatever_becomes_of_the_tensor(
    kind: str, enable_graph: bool, view: bool
) -> None:
    def log(module: Any, i: int) -> None:
        module.level += 1
        value = module.level.view(1) if view else module.level
        module.log("x", value, on_step=True, on_epoch=True, reduce_fx=kind, batch_size=1, enable_graph=enable_graph)

    class Resets(pl.Callback):
        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
            self.log("from_callback", module.level, reduce_fx=kind)
            module.level.fill_(-7)

    metrics = fit(Logs(log), loader(4), callbacks=[Resets()])[0].callback_metrics
    assert metrics["x_step"] == 4 and metrics["x_epoch"] == {"sum": 10, "min": 1, "max": 4, "mean": 2.5}[kind]
    assert metrics["from_callback"] == 4


def test_a_metric_that_resets_itself_in_place_keeps_what_it_computed() -> None:
    class Count(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("n", torch.zeros(()))

        def update(self) -> None:
            self.n += 1

        def compute(self) -> torch.Tensor:
            return self.n

        def reset(self) -> None:
            self.n.zero_()

    class Counts(Counting):
        def __init__(self) -> None:
            super().__init__()
            self.count = Count()

        def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
            self.count.update()
            self.log("n", self.count)

    trainer = pl.Trainer(**QUIET)
    assert trainer.validate(Counts(), loader(3), verbose=False) == [{"n": 3}]
    assert trainer.callback_metrics["n"] == 3


@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize("number", [2**24 + 1, 2**53 + 1, -(2**62) - 1])
def test_whole_numbers_keep_their_digits(number: int, as_tensor: bool, tmp_path: Any) -> None:
    def log(module: Any, i: int) -> None:
        value = torch.tensor(number) if as_tensor else number
        module.log("now", value)
        module.log("largest", value, on_step=False, on_epoch=True, reduce_fx="max")
        module.log("sum", value if i == 0 else 0, on_step=False, on_epoch=True, reduce_fx="sum")

    logger = pl.loggers.CSVLogger(tmp_path, "", "")
    trainer = fit(Logs(log), loader(2), logger=logger, log_every_n_steps=1)[0]
    for name in ("now", "largest", "sum"):
        assert int(trainer.callback_metrics[name]) == number
        written = rows(tmp_path, name)[-1][name]
        assert (int(written) if written.lstrip("-").isdigit() else int(float(written))) == number


def rows(folder: Any, name: str) -> list[dict[str, str]]:
    with open(folder / "metrics.csv") as file:
        return [row for row in csv.DictReader(file) if row[name]]


def test_sums_and_means_of_many_whole_numbers_are_exact() -> None:
    def log(module: Any, i: int) -> None:
        how = {"on_step": False, "on_epoch": True, "batch_size": 1}
        module.log("tokens", 2**24 if i == 0 else 1, reduce_fx="sum", **how)
        module.log("mean", 2**24 + 1, **how)
        module.log("bytes", torch.tensor(200, dtype=torch.uint8), reduce_fx="sum", **how)
        module.log("true", torch.tensor(i > 0), **how)
        module.log("mixed", 0 if i == 0 else torch.tensor(0.1), **how)

    metrics = fit(Logs(log), loader(4))[0].callback_metrics
    assert metrics["tokens"] == 2**24 + 3 and metrics["mean"] == 2**24 + 1 and metrics["bytes"] == 800
    assert metrics["true"] == 0.75 and metrics["true"].dtype == torch.float32
    assert metrics["mixed"].dtype == torch.float32 and metrics["mixed"] == torch.tensor(0.1) * 3 / 4


class Odd(MeanMetric):
    """Computes what is no number."""

    def __init__(self, result: Any) -> None:
        super().__init__()
        self.result = result

    def compute(self) -> Any:
        return self.result


@pytest.mark.parametrize("result", [None, (torch.ones(()), torch.ones(())), "text", {"a": {"b": 1.0}}, torch.ones(2)])
@pytest.mark.parametrize("stage", ["fit", "validate"])
@pytest.mark.parametrize("on_step", [False, True])
@pytest.mark.filterwarnings("ignore:.*has no value of the step")
def test_a_metric_that_computes_no_number_is_refused(result: Any, stage: str, on_step: bool) -> None:
    class Model(Counting):
        def __init__(self) -> None:
            super().__init__()
            self.odd = Odd(result)

        def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
            self.odd(1.0)
            self.log("f", self.odd, on_step=on_step, on_epoch=not on_step)
            return self.layer(batch).mean()

        def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
            self.odd(1.0)
            self.log("f", self.odd, on_step=on_step, on_epoch=not on_step)

    with pytest.raises(ValueError, match="Odd, logged as 'f' at .*one name holds one number"):
        getattr(pl.Trainer(max_epochs=1, **QUIET), stage)(Model(), *[loader(2)] * (2 if stage == "fit" else 1))


def test_a_metric_that_was_only_updated_says_that_it_has_no_value_of_the_step() -> None:
    class Model(Counting):
        def __init__(self) -> None:
            super().__init__()
            self.metric = MeanMetric()

        def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
            self.metric.update(1.0)
            self.log("m", self.metric)
            return self.layer(batch).mean()

    with pytest.warns(UserWarning, match="MeanMetric, logged as 'm' at .*has no value of the step"):
        assert "m" not in fit(Model(), loader(2))[0].callback_metrics


def test_of_two_hooks_that_log_one_name_the_later_ones_value_of_the_epoch_holds(tmp_path: Any) -> None:
    class Twice(Logs):
        def on_train_epoch_end(self) -> None:
            self.log("x", 100.0)

    module = Twice(lambda module, i: module.log("x", float(i), on_step=False, on_epoch=True))
    logger = pl.loggers.CSVLogger(tmp_path, "", "")
    with pytest.warns(
        UserWarning, match=r"'x' is logged in training_step \(.*py:\d+\) and in on_train_epoch_end \(.*:"
    ):
        trainer = fit(module, loader(3), logger=logger)[0]
    assert trainer.callback_metrics["x"] == trainer.logged_metrics["x"] == 100
    assert [row["x"] for row in rows(tmp_path, "x")] == ["100.0"]
