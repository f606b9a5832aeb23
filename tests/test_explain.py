"""`trainer.explain`: the page that it writes is the loop of that run, and asking for it changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as schedulers
from torch.utils.data import DataLoader

import fulgurite as pl
from fulgurite import loop
from fulgurite.callbacks import EarlyStopping, GradientAccumulationScheduler, LambdaCallback, StochasticWeightAveraging
from fulgurite.loggers.logger import Logger

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
DATA = torch.randn(20, 4, generator=torch.Generator().manual_seed(1))
OFF = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}


class Net(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.2), nn.Linear(4, 1))

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> Any:
        loss = self.net(batch).square().mean()
        self.log("loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        self.log("vl", self.net(batch).square().mean())

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), 0.01)


class Scheduled(Net):
    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), 0.1)
        plateau = schedulers.ReduceLROnPlateau(optimizer, patience=0, threshold=10.0, threshold_mode="abs")
        by_step = schedulers.ExponentialLR(optimizer, 0.9)
        return [optimizer], [{"scheduler": plateau, "monitor": "vl"}, {"scheduler": by_step, "interval": "step"}]


class Skips(Net):
    def on_train_batch_start(self, batch: Any, batch_idx: int) -> Any:
        return -1 if batch_idx == 4 else None


class OwnStep(Net):
    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, closure: Any) -> None:
        optimizer.step(closure=closure)


class Manual(Net):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(super().training_step(batch, batch_idx))
        optimizer.step()


class Lbfgs(Net):
    def configure_optimizers(self) -> Any:
        return torch.optim.LBFGS(self.parameters(), lr=0.1, max_iter=3)


class Rows(Logger):
    name, version = "rows", 0

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[Any] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.rows.append((step, dict(metrics)))

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None: ...


def stops() -> list[Any]:
    return [EarlyStopping("vl", patience=0, min_delta=10.0)]


Setting = tuple[type[Net], dict[str, Any], Callable[[], list[Any]]]
SETTINGS: dict[str, Setting] = {
    "plain": (Net, {}, list),
    "accumulation, clipping": (Net, {"accumulate_grad_batches": 3, "gradient_clip_val": 0.1}, list),
    "bf16-mixed": (Net, {"precision": "bf16-mixed"}, list),
    "no validation": (Net, {"limit_val_batches": 0}, list),
    "val each 2, no sanity check": (Net, {"val_check_interval": 2, "num_sanity_val_steps": 0}, list),
    "three schedulers": (Scheduled, {}, list),
    "early stopping": (Net, {"max_epochs": 5}, stops),
    "-1 in mid-epoch": (Skips, {}, list),
    "own optimizer_step": (OwnStep, {}, list),
    "manual": (Manual, {}, list),
    "LBFGS": (Lbfgs, {}, list),
    "a window by epoch": (Net, {}, lambda: [GradientAccumulationScheduler({0: 1, 1: 3})]),
    "averaged weights": (Net, {"max_epochs": 4}, lambda: [StochasticWeightAveraging(0.01, 1, annealing_epochs=2)]),
}


def loaders() -> tuple[Any, Any]:
    return DataLoader(DATA, 3, shuffle=True), DataLoader(DATA[:6], 3)


def play(name: str, explained: bool, monkeypatch: pytest.MonkeyPatch | None = None) -> Any:
    """Weights, rows and counters of a run; `monkeypatch` puts the explained page in the loop's place."""
    kind, flags, callbacks = SETTINGS[name]
    torch.manual_seed(0)
    model, rows = kind(), Rows()
    flags = {"max_epochs": 3, "log_every_n_steps": 2, **flags}
    trainer = pl.Trainer(accelerator="cpu", logger=rows, callbacks=callbacks(), **OFF, **flags)
    if explained:
        text = trainer.explain(model, *loaders())
        if monkeypatch is not None:
            page: dict[str, Any] = {}
            exec(compile(text, "<explained>", "exec"), page)
            monkeypatch.setattr(loop, "fit", page["fit"])
    trainer.fit(model, *loaders())
    weights = [p.detach().numpy().tobytes() for p in model.parameters()]
    return weights, rows.rows, (trainer.global_step, trainer.current_epoch), torch.get_rng_state().tolist()


def page(model: Any, **flags: Any) -> str:
    return pl.Trainer(accelerator="cpu", logger=False, **{**OFF, **flags}).explain(model, *loaders())


@pytest.mark.parametrize("name", SETTINGS)
def test_running_the_page_is_running_the_loop(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = play(name, explained=False)
    assert play(name, explained=True, monkeypatch=monkeypatch) == usual


@pytest.mark.parametrize("name", ["plain", "averaged weights"])
def test_asking_changes_nothing(name: str) -> None:
    assert play(name, explained=True) == play(name, explained=False)


def test_what_the_settings_rule_out_is_left_out() -> None:
    text = page(Net(), num_sanity_val_steps=0)
    for gone in ("stepping", "cancelled", "sanity", "step_schedulers", "scale(", "clip_gradients", "-1 in"):
        assert gone not in text, gone
    assert text.count("\n") < 100
    assert "evaluate" not in page(Net(), limit_val_batches=0)
    assert "closure" not in page(Manual())
    assert "run.clip_gradients(optimizer)" in page(Net(), gradient_clip_val=1.0)
    assert 'run.step_schedulers("step")' in page(Scheduled())


def test_hooks_say_who_is_called_in_the_order_of_the_calls() -> None:
    own = LambdaCallback(on_train_batch_end=lambda *args: None)
    model = type("Mine", (Net,), {"on_train_epoch_end": lambda self: None})()
    text = page(model, callbacks=[EarlyStopping("vl", check_on_train_epoch_end=True), own])
    assert "for hook in hooks.on_train_batch_end:  # LambdaCallback" in text
    assert "for hook in hooks.on_train_epoch_end:  # Mine, EarlyStopping" in text
    assert "hooks.on_train_epoch_start" not in text


def test_comments_of_the_loop_stay() -> None:
    assert "# counters before hooks" in page(Net())


def test_the_model_is_not_left_with_another_trainer() -> None:
    model = Net()
    page(model)
    with pytest.raises(RuntimeError, match="not attached"):
        _ = model.trainer


def test_a_model_that_cannot_be_fitted_says_so_as_in_fit() -> None:
    with pytest.raises(pl.utilities.exceptions.MisconfigurationException, match="training_step"):
        page(type("Half", (Net,), {"training_step": pl.LightningModule.training_step})())
