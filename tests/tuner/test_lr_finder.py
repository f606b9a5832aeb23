"""The learning-rate search: what it writes, what it leaves alone, and what it refuses."""

from __future__ import annotations

import copy
import math
import random
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fulgurite as pl
from fulgurite.callbacks import LambdaCallback
from fulgurite.demos.boring_classes import BoringModel
from fulgurite.tuner import Tuner
from fulgurite.tuner.lr_finder import _LRFinder
from fulgurite.utilities.exceptions import MisconfigurationException
from fulgurite.utilities.seed import collect_rng_state

FLAGS: dict[str, Any] = {
    "max_epochs": 20,
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "accelerator": "cpu",
}


class RunningMean:
    """A metric object of no library."""

    def __init__(self) -> None:
        self.values: list[float] = []
        self.total = torch.zeros(())

    def update(self, value: float) -> None:
        self.values.append(value)
        self.total = self.total + value

    def compute(self) -> torch.Tensor:
        return self.total / len(self.values)

    def reset(self) -> None:
        self.values.clear()


class Net(pl.LightningModule):
    """Changes everything a module can hold in each training step."""

    def __init__(self, lr: float = 0.1, width: int = 8) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.lr = lr
        self.net = nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.Dropout(0.2), nn.Linear(width, 1))
        self.register_buffer("seen", torch.zeros(()), persistent=False)
        self.metric = RunningMean()
        self.steps, self.history, self.last = 0, {"losses": []}, torch.zeros(3)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = nn.functional.mse_loss(self.net(batch[0]), batch[1])
        self.seen += 1
        self.last = torch.full((3,), float(loss.detach()))
        self.steps += 1
        self.history["losses"].append(float(loss.detach()))
        self.extra = random.random()
        self.metric.update(float(loss.detach()))
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=self.lr)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]

    def train_dataloader(self) -> Any:
        x = torch.randn(60, 4, generator=torch.Generator().manual_seed(1))
        return DataLoader(TensorDataset(x, x.sum(1, keepdim=True) + 10), 4, shuffle=True)


def trainer(**flags: Any) -> pl.Trainer:
    return pl.Trainer(**FLAGS | flags)


def state(module: Net) -> str:
    own = {name: value for name, value in vars(module).items() if name not in ("_modules", "lr")}
    parts = [(name, p, p.grad, p.requires_grad) for name, p in module.named_parameters()]
    modes = [m.training for m in module.modules()]
    return repr((own, parts, list(module.named_buffers()), modes, vars(module.metric), module.hparams))


def random_state() -> str:
    return repr(collect_rng_state())


def test_the_suggestion_is_written_and_the_next_fit_starts_with_it() -> None:
    module, rates = Net(), []
    finder = Tuner(trainer()).lr_find(module)
    assert finder is not None and module.lr == finder.suggestion() != 0.1
    note = LambdaCallback(on_train_start=lambda t, m: rates.append(t.optimizers[0].param_groups[0]["lr"]))
    trainer(max_epochs=1, callbacks=[note]).fit(module)
    assert rates == [module.lr]


@pytest.mark.filterwarnings("ignore:in eval mode")
def test_the_module_is_as_before_but_for_its_rate() -> None:
    module = Net()
    module.net[2].eval()
    next(module.parameters()).grad = torch.ones(8, 4)
    before, draws, keys = state(module), random_state(), set(vars(module))
    history, weight = module.history, next(module.parameters())
    Tuner(trainer()).lr_find(module, update_attr=False)
    assert state(module) == before and module.lr == 0.1
    assert random_state() == draws
    assert set(vars(module)) == keys and module.history is history and next(module.parameters()) is weight


def test_a_trained_model_goes_on_as_if_no_search_had_been() -> None:
    def weights(search: bool) -> list[torch.Tensor]:
        pl.seed_everything(3, verbose=False)
        module = Net()
        trainer(max_epochs=1).fit(module)
        if search:
            Tuner(trainer()).lr_find(module, update_attr=False)
        trainer(max_epochs=1).fit(module)
        return [p.detach().clone() for p in module.parameters()]

    assert all(torch.equal(a, b) for a, b in zip(weights(True), weights(False), strict=True))


def test_the_trainer_is_as_before() -> None:
    calls: list[str] = []
    spy = LambdaCallback(
        setup=lambda *a, **k: calls.append("setup"), on_train_batch_end=lambda *a, **k: calls.append("end")
    )
    module, tuned = Net(), trainer(callbacks=[spy], logger=True)
    before = {name: copy.copy(value) for name, value in vars(tuned).items()}
    counters, logger_dir = repr(tuned.progress), tuned.log_dir
    Tuner(tuned).lr_find(module)
    assert {name: value for name, value in vars(tuned).items() if isinstance(value, (int, float, str, list, dict))} == {
        name: value for name, value in before.items() if isinstance(value, (int, float, str, list, dict))
    }
    assert repr(tuned.progress) == counters and tuned._run is None and tuned.strategy.model is None
    assert not calls and not torch.is_inference_mode_enabled()
    assert not __import__("pathlib").Path(str(logger_dir)).exists()


def test_the_generator_of_the_loader_is_put_back() -> None:
    generator = torch.Generator().manual_seed(5)
    before = generator.get_state()
    data = DataLoader(Net().train_dataloader().dataset, 4, shuffle=True, generator=generator)
    Tuner(trainer()).lr_find(Net(), data)
    assert torch.equal(generator.get_state(), before)


def test_an_error_in_the_search_leaves_the_module_as_before() -> None:
    class Breaks(Net):
        def on_train_batch_end(self, *args: Any) -> None:
            if self.steps == 7:
                raise ArithmeticError("seven")

    module = Breaks()
    before = state(module)
    with pytest.raises(ArithmeticError, match="seven"):
        Tuner(trainer()).lr_find(module)
    assert state(module) == before


def test_layers_made_in_configure_model_are_made_again_by_fit() -> None:
    class Late(Net):
        def configure_model(self) -> None:
            if not hasattr(self, "late"):
                self.late = nn.Linear(1, 1)

    module = Late()
    Tuner(trainer()).lr_find(module)
    assert not hasattr(module, "late")


def test_the_rates_go_from_min_to_max_and_the_losses_belong_to_them() -> None:
    finder = Tuner(trainer()).lr_find(Net(), min_lr=1e-4, max_lr=1e-2, num_training=20, early_stop_threshold=None)
    assert finder is not None
    lrs = finder.results["lr"]
    assert len(lrs) == len(finder.results["loss"]) == 20
    assert lrs[0] == 1e-4 and lrs[-1] == pytest.approx(1e-2) and lrs == sorted(lrs)


def test_hparams_are_updated_where_they_hold_the_rate() -> None:
    module = Net()
    Tuner(trainer()).lr_find(module)
    assert module.hparams.lr == module.lr != 0.1
    assert module.hparams_initial.lr == 0.1


def test_a_search_that_the_data_cuts_short_says_so() -> None:
    with pytest.warns(UserWarning, match=r"ended after 15 of num_training=100 steps.*max_epochs=1"):
        Tuner(trainer(max_epochs=1)).lr_find(Net())


def test_too_few_losses_give_no_suggestion_and_leave_the_rate() -> None:
    module = Net()
    with pytest.warns(UserWarning, match="no learning rate can be suggested: of 5 steps"):
        Tuner(trainer()).lr_find(module, num_training=5)
    assert module.lr == 0.1


def test_losses_that_are_not_finite_are_left_out() -> None:
    finder = _LRFinder("linear", 0.1, 1.0, 6)
    finder.results = {"lr": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], "loss": [5.0, math.nan, 4.0, 1.0, math.inf, 0.5]}
    assert finder.suggestion(skip_begin=0, skip_end=0) == 0.3


def test_the_plot_marks_the_suggestion() -> None:
    import matplotlib

    matplotlib.use("agg")
    finder = _LRFinder("exponential", 1e-4, 1.0, 4)
    finder.results = {"lr": [1e-4, 1e-3, 1e-2, 1e-1], "loss": [4.0, 3.0, 1.0, 2.0]}
    finder.suggestion = lambda *a, **k: _LRFinder.suggestion(finder, 0, 0)  # type: ignore[method-assign]
    figure = finder.plot(suggest=True)
    assert figure is not None
    axes = figure.axes[0]
    assert axes.get_xscale() == "log" and len(axes.lines) == 2
    assert list(axes.lines[0].get_ydata()) == finder.results["loss"]
    matplotlib.pyplot.close(figure)


class Manual(Net):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False


class TwoOptimizers(Manual):
    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(self.parameters(), 0.1), torch.optim.SGD(self.parameters(), 0.1)]


class NoRate(BoringModel):
    pass


@pytest.mark.parametrize(
    ("module", "arguments", "error", "says"),
    [
        (NoRate, {}, AttributeError, "NoRate nor its hparams has 'lr' or 'learning_rate'"),
        (Net, {"attr_name": "speed"}, AttributeError, "'speed'"),
        (Net, {"min_lr": 1.0, "max_lr": 0.1}, ValueError, "min_lr=1.0 and max_lr=0.1"),
        (Net, {"min_lr": 0.0}, ValueError, "above 0"),
        (Net, {"num_training": 0}, ValueError, "num_training=0"),
        (Net, {"mode": "cosine"}, MisconfigurationException, "'linear', 'exponential'"),
        (Manual, {}, MisconfigurationException, "manual optimization"),
        (TwoOptimizers, {}, MisconfigurationException, "manual optimization"),
        (Net, {"method": "validate"}, MisconfigurationException, "'fit' only"),
        (Net, {"dataloaders": [1]}, MisconfigurationException, "pass train_dataloaders"),
    ],
)
def test_what_cannot_be_searched_is_a_clear_error(module: Any, arguments: Any, error: Any, says: str) -> None:
    with pytest.raises(error, match=says):
        Tuner(trainer()).lr_find(module(), **arguments)


def test_fast_dev_run_skips_the_search() -> None:
    with pytest.warns(UserWarning, match="fast_dev_run=True is too short"):
        assert Tuner(trainer(fast_dev_run=True)).lr_find(Net()) is None


def test_a_trainer_that_searches_by_callback_refuses_the_tuner() -> None:
    from fulgurite.callbacks.lr_finder import LearningRateFinder

    with pytest.raises(MisconfigurationException, match="LearningRateFinder"):
        Tuner(trainer(callbacks=[LearningRateFinder()])).lr_find(Net())
