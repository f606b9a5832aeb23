from __future__ import annotations

import enum
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from fulgurite.loggers import TensorBoardLogger
from helpers.tiny import Tiny, fit

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


class WithHparams(Tiny):
    def __init__(self, width: int = 3, optim: dict | None = None):
        super().__init__()
        self.save_hyperparameters()
        self.example_input_array = torch.zeros(2, 4)

    def forward(self, x):
        return self.layer(x)


def events(logger: TensorBoardLogger):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(logger.log_dir).Reload()


def scalars(logger: TensorBoardLogger) -> dict[str, list[tuple[int, float]]]:
    found = events(logger)
    return {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_scalars_read_back():
    logger = TensorBoardLogger("logs")
    fit(logger=logger, model=Tiny([5, 3]), max_epochs=2, log_every_n_steps=2)
    found = scalars(logger)
    assert found["val_loss"] == [(3, 5.0), (7, 3.0)]
    assert [step for step, _ in found["train_loss"]] == [1, 3, 5, 7]
    assert [step for step, _ in found["train_mean"]] == [3, 7]
    assert found["epoch"][-1] == (7, 1.0)


def test_hyper_parameters_go_to_yaml_and_to_the_hparams_page():
    logger = TensorBoardLogger("logs")
    fit(logger=logger, model=WithHparams(optim={"lr": 0.1}), max_epochs=1)
    with open(Path(logger.log_dir, "hparams.yaml")) as file:
        assert yaml.safe_load(file) == {"width": 3, "optim": {"lr": 0.1}}
    assert scalars(logger)["hp_metric"] == [(0, -1.0)]
    assert "_hparams_/session_start_info" in events(logger).summary_metadata


def test_default_hp_metric_can_be_left_out():
    logger = TensorBoardLogger("logs", default_hp_metric=False)
    fit(logger=logger, model=WithHparams(), max_epochs=1)
    assert "hp_metric" not in scalars(logger)


def test_metrics_to_compare_hyper_parameters_by():
    logger = TensorBoardLogger("logs")
    logger.log_hyperparams({"lr": 0.1}, {"auc": 0.8}, step=5)
    logger.finalize("success")
    assert scalars(logger) == {"auc": [(5, pytest.approx(0.8))]}


def test_folders():
    logger = TensorBoardLogger("logs", name="", version="mine", sub_dir="inner")
    assert logger.log_dir == "logs/mine/inner"
    assert TensorBoardLogger("logs", version=4).log_dir == "logs/lightning_logs/version_4"


def test_environment_variables_in_all_parts_of_the_path(monkeypatch):
    with monkeypatch.context() as environment:
        environment.setenv("RUN", "mine")
        logger = TensorBoardLogger("$RUN", name="a$RUN", version="$RUN", sub_dir="${RUN}b")
    assert (logger.root_dir, logger.log_dir) == ("mine/amine", "mine/amine/mine/mineb")


def test_what_was_saved_is_on_disk():
    logger = TensorBoardLogger("logs")
    logger.log_metrics({"a": 1.0}, step=0)
    logger.save()
    assert scalars(logger) == {"a": [(0, 1.0)]}
    logger.finalize("success")


def test_prefix_and_groups_of_scalars():
    logger = TensorBoardLogger("logs", prefix="p")
    logger.log_metrics({"a": torch.tensor(1.0), "b": {"x": 1.0, "y": 2.0}}, step=1)
    logger.finalize("success")
    assert scalars(logger) == {"p-a": [(1, 1.0)]}
    assert {path.name for path in Path(logger.log_dir).iterdir() if path.is_dir()} == {"p-b_x", "p-b_y"}


def test_the_graph_is_drawn_if_asked():
    logger = TensorBoardLogger("logs", log_graph=True)
    fit(logger=logger, model=WithHparams(), max_epochs=1)
    assert events(logger).Tags()["graph"]


@pytest.mark.parametrize("inner", [False, True])
def test_the_graph_of_a_module_whose_inputs_have_names(inner):
    class Named(WithHparams):
        def forward(self, x):
            return self.layer(x["y"] if inner else x)

    model, logger = Named(), TensorBoardLogger("logs", log_graph=True)
    model.example_input_array = {"x": {"y": torch.zeros(2, 4)} if inner else torch.zeros(2, 4)}
    fit(logger=logger, model=model, max_epochs=1)
    assert events(logger).Tags()["graph"] and model.training


def test_the_example_of_the_graph_goes_the_way_of_a_batch():
    class Unpacks(WithHparams):
        def on_before_batch_transfer(self, batch, dataloader_idx):
            return batch["x"] if isinstance(batch, dict) else batch

    model, logger = Unpacks(), TensorBoardLogger("logs", log_graph=True)
    model.example_input_array = {"x": torch.zeros(2, 4)}
    fit(logger=logger, model=model, max_epochs=1)
    assert events(logger).Tags()["graph"]


def test_the_graph_needs_an_example():
    with pytest.warns(UserWarning, match="example_input_array"):
        fit(logger=TensorBoardLogger("logs", log_graph=True), max_epochs=1)


@pytest.mark.parametrize("given", [False, True])
def test_a_graph_by_hand(given):
    model, logger = WithHparams(), TensorBoardLogger("logs", log_graph=True)
    if given:
        model.example_input_array = None
    logger.log_graph(model, torch.zeros(2, 4) if given else None)
    logger.finalize("success")
    assert events(logger).Tags()["graph"] and model.training
    with pytest.raises(RuntimeError, match="not attached"):
        _ = model.trainer


def test_a_graph_of_a_module_without_parameters_by_hand():
    logger = TensorBoardLogger("logs", log_graph=True)
    logger.log_graph(torch.nn.ReLU(), torch.zeros(2))
    logger.finalize("success")
    assert events(logger).Tags()["graph"]


class Colour(enum.Enum):
    RED = 1


ODD = {
    **{f"tensor{n}": torch.ones([2] * n) for n in range(4)},
    **{f"array{n}": np.ones([2] * n) for n in range(4)},
    "single": torch.ones(1, 1),
    "complex": torch.ones(1, dtype=torch.complex64),
    "int64": np.int64(3),
    "none": None,
    "path": Path("a/b"),
    "enum": Colour.RED,
    "nested": {"a": {"b": [1, {"c": np.zeros(2)}]}, 1: 2},
    "callable": max,
    "nan": float("nan"),
    "type": int,
}


def test_hyper_parameters_of_any_kind():
    logger = TensorBoardLogger("logs")
    with pytest.warns(UserWarning, match="hparams.yaml is written without tensor0"):
        logger.log_hyperparams(ODD)
    logger.finalize("success")
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    data = events(logger).summary_metadata["_hparams_/session_start_info"].plugin_data.content
    shown = HParamsPluginData.FromString(data).session_start_info.hparams
    assert shown["single"].number_value == shown["array0"].number_value == shown["tensor0"].number_value == 1
    assert shown["int64"].number_value == 3
    assert "1., 1." in shown["tensor3"].string_value and "1. 1." in shown["array2"].string_value


def test_the_file_of_hyper_parameters_is_there_when_there_are_none():
    for version in (None, "mine"):
        logger = TensorBoardLogger("logs", version=version)
        fit(logger=logger, max_epochs=1, log_every_n_steps=1000, limit_train_batches=0)
        assert yaml.safe_load(Path(logger.log_dir, "hparams.yaml").read_text()) == {}


def test_the_file_of_hyper_parameters_follows_what_is_logged_and_leaves_another_runs_alone():
    logger = TensorBoardLogger("logs", version=0)
    for params in ({"a": 1}, {"b": 2}):
        logger.log_hyperparams(params)
    path = Path(logger.log_dir, "hparams.yaml")
    assert yaml.safe_load(path.read_text()) == {"a": 1, "b": 2}
    TensorBoardLogger("logs", version=0).log_hyperparams({"c": 3})
    assert yaml.safe_load(path.read_text()) == {"a": 1, "b": 2}


def test_a_row_is_on_disk_when_it_has_been_logged():
    logger = TensorBoardLogger("logs")
    for step in range(3):
        logger.log_metrics({"a": step}, step)
        assert scalars(logger) == {"a": [(i, float(i)) for i in range(step + 1)]}
    logger.finalize("success")


def test_without_tensorboard_it_says_so_when_it_is_made(monkeypatch):
    for name in ("tensorboard", "tensorboardX"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'fulgurite\[tensorboard\]'"):
        TensorBoardLogger("logs")


def test_what_is_no_number_is_an_error():
    logger = TensorBoardLogger("logs")
    with pytest.raises(ValueError, match="takes numbers; 'a' is 'text' of type str"):
        logger.log_metrics({"a": "text"}, step=0)
    logger.finalize("success")


def test_a_failed_run_leaves_no_thread_behind():
    class Fails(WithHparams):
        def training_step(self, batch, batch_idx):
            raise ArithmeticError

    before, logger = threading.active_count(), TensorBoardLogger("logs")
    with pytest.raises(ArithmeticError):
        fit(logger=logger, model=Fails(), max_epochs=1)
    assert Path(logger.log_dir).is_dir() and threading.active_count() <= before


def test_resuming_hides_the_steps_that_come_again():
    first = TensorBoardLogger("logs", version=0)
    for step in range(5):
        first.log_metrics({"a": step}, step)
    first.finalize("failed")
    second = TensorBoardLogger("logs", version=0)
    second.resume_from_step(3)
    second.log_metrics({"a": 30.0}, 3)
    second.finalize("success")
    assert scalars(second)["a"] == [(0, 0.0), (1, 1.0), (2, 2.0), (3, 30.0)]
