"""accumulate_grad_batches, gradient clipping, precision, detect_anomaly and who steps what."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fulgurite.core.optimizer import LightningOptimizer

import fulgurite as pl
from fulgurite.utilities.exceptions import MisconfigurationException
from helpers.counting import QUIET, Counting, fit, loader


class Slope(Counting):
    """The gradient of each batch is exactly (3, 4): norm 5."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1, bias=False)
        self.grads: list[list[float]] = []

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        self.calls.append(f"t{batch_idx}")
        return (self.layer.weight * torch.tensor([3.0, 4.0])).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        optimizer.register_step_pre_hook(lambda *_: self.grads.append(self.layer.weight.grad.flatten().tolist()))
        return optimizer


@pytest.mark.parametrize(
    ("flags", "gradient"),
    [
        ({}, [3.0, 4.0]),
        ({"gradient_clip_val": 1.0}, [0.6, 0.8]),
        ({"gradient_clip_val": 10.0}, [3.0, 4.0]),
        ({"gradient_clip_val": 0.0}, [3.0, 4.0]),
        ({"gradient_clip_val": 3.5, "gradient_clip_algorithm": "value"}, [3.0, 3.5]),
        ({"gradient_clip_val": 3.5, "gradient_clip_algorithm": "Value"}, [3.0, 3.5]),
        ({"accumulate_grad_batches": 2}, [3.0, 4.0]),
        ({"accumulate_grad_batches": 2, "gradient_clip_val": 1.0}, [0.6, 0.8]),
    ],
    ids=str,
)
def test_the_gradient_that_the_optimizer_sees(flags: dict[str, Any], gradient: list[float]) -> None:
    _, model = fit(Slope(), **flags)
    assert all(g == pytest.approx(gradient, abs=1e-6) for g in model.grads)


@pytest.mark.parametrize(
    ("k", "seen"),
    [
        (1, "t0 step t1 step t2 step t3 step"),
        (2, "t0 t1 step t2 t3 step"),
        (3, "t0 t1 t2 step t3 step"),
        (9, "t0 t1 t2 t3 step"),
    ],
)
def test_steps_at_the_end_of_each_window_and_of_the_epoch(k: int, seen: str) -> None:
    trainer, model = fit(accumulate_grad_batches=k)
    assert model.seen("ts") == seen
    assert trainer.global_step == model.calls.count("step")


@pytest.mark.parametrize("k", [2, 4])
def test_accumulating_is_one_large_batch(k: int) -> None:
    weights = []
    for size, flags in ((2, {"accumulate_grad_batches": k}), (2 * k, {})):
        torch.manual_seed(0)
        data = torch.randn(16, 2, generator=torch.Generator().manual_seed(1))
        _, model = fit(None, torch.utils.data.DataLoader(data, size), max_epochs=2, **flags)
        weights.append(model.layer.weight.detach())
    assert torch.allclose(*weights, atol=1e-6)


@pytest.mark.parametrize(
    ("precision", "weights", "activations"),
    [
        ("32-true", torch.float32, torch.float32),
        (32, torch.float32, torch.float32),
        ("32", torch.float32, torch.float32),
        ("64-true", torch.float64, torch.float64),
        (64, torch.float64, torch.float64),
        ("64", torch.float64, torch.float64),
        ("bf16-mixed", torch.float32, torch.bfloat16),
        ("bf16", torch.float32, torch.bfloat16),
        ("16-mixed", torch.float32, torch.bfloat16),
        (16, torch.float32, torch.bfloat16),
        ("bf16-true", torch.bfloat16, torch.bfloat16),
        ("16-true", torch.float16, torch.float16),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_precision(precision: Any, weights: torch.dtype, activations: torch.dtype) -> None:
    class Typed(Counting):
        def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
            self.out = self.layer(batch)
            return self.out.float().mean()

    _, model = fit(Typed(), precision=precision, limit_val_batches=0)
    assert (model.layer.weight.dtype, model.out.dtype) == (weights, activations)


def test_half_precision_on_a_cpu_says_what_it_means() -> None:
    with pytest.warns(UserWarning, match="bf16"):
        pl.Trainer(**QUIET, precision=16)


def test_detect_anomaly_is_on_in_fit_only() -> None:
    class Looks(Counting):
        def on_train_batch_start(self, *args: Any) -> None:
            self.calls.append(str(torch.is_anomaly_enabled()))

    assert "True" in fit(Looks(), detect_anomaly=True)[1].calls
    assert "True" not in fit(Looks())[1].calls
    assert not torch.is_anomaly_enabled()


def test_detect_anomaly_names_the_forward_line() -> None:
    class Nan(Counting):
        def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
            return torch.sqrt(self.layer.weight.sum() * 0 - 1).sum()

    with pytest.warns(UserWarning, match="anomaly|forward call"), pytest.raises(RuntimeError, match="nan"):
        fit(Nan(), detect_anomaly=True)


def test_manual_optimization_counts_every_step_of_every_optimizer() -> None:
    class Manual(Counting):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch: torch.Tensor, batch_idx: int) -> None:
            for optimizer in self.optimizers():
                optimizer.zero_grad()
                self.manual_backward(self.layer(batch).mean())
                optimizer.step()

        def configure_optimizers(self) -> Any:
            return [torch.optim.SGD(self.parameters(), lr=0.1) for _ in range(2)]

    trainer, _ = fit(Manual(), max_steps=6, max_epochs=-1)
    assert (trainer.global_step, trainer.batches_that_stepped) == (6, 3)


@pytest.mark.parametrize("makes", [torch.optim.lr_scheduler.ReduceLROnPlateau, lambda _: OwnScheduler()])
def test_whose_schedulers_are_stepped_by_hand_may_have_any(makes: Any) -> None:
    class Manual(Counting):
        automatic_optimization = False

        def training_step(self, batch: torch.Tensor, batch_idx: int) -> None:
            self.optimizers().step()

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
            return [optimizer], [makes(optimizer)]

    assert fit(Manual())[0].global_step == 4


class OwnScheduler:
    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def test_an_optimizer_step_that_leaves_out_the_closure_is_an_error() -> None:
    class EverySecond(Counting):
        def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
            if batch_idx % 2 == 0:
                optimizer.step(closure=optimizer_closure)

    with pytest.raises(MisconfigurationException, match="did not run its closure in batch 1, so there was no forward"):
        fit(EverySecond())


def test_optimizers_put_in_the_place_of_others_are_stepped() -> None:
    class Swaps(Counting):
        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            if batch_idx == 2:
                self.trainer.optimizers = [torch.optim.SGD(self.parameters(), lr=0.0)]

        def on_train_batch_end(self, *_: Any) -> None:
            self.calls.append(f"w{self.layer.bias.item():.1f}")

    torch.manual_seed(1)
    model = Swaps()
    torch.nn.init.zeros_(model.layer.bias)
    trainer, _ = fit(model)
    assert model.seen("w") == "w-0.1 w-0.2 w-0.2 w-0.2"
    assert model.optimizers().param_groups[0]["lr"] == 0 and trainer.optimizers[0].param_groups[0]["lr"] == 0


def test_a_wrapped_optimizer_without_a_trainer_steps_as_the_optimizer() -> None:
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.5)
    wrapped = LightningOptimizer(optimizer)
    assert isinstance(wrapped, torch.optim.SGD) and wrapped.state_dict() == optimizer.state_dict()
    wrapped.param_groups[0]["lr"] = 0.25
    weight.sum().backward()
    wrapped.step()
    assert weight.item() == 0.75
    wrapped.zero_grad()
    assert weight.grad is None
    with pytest.raises(MisconfigurationException, match="made without a trainer"), wrapped.toggle_model():
        pass


def test_estimated_stepping_batches() -> None:
    class Asks(Counting):
        def configure_optimizers(self) -> Any:
            self.estimate = self.trainer.estimated_stepping_batches
            return super().configure_optimizers()

    for flags, steps in [
        ({"max_epochs": 3}, 12),
        ({"max_epochs": 3, "accumulate_grad_batches": 3}, 6),
        ({"max_epochs": 3, "max_steps": 5}, 5),
        ({"max_epochs": -1, "max_steps": 7}, 7),
        ({"max_epochs": 2, "limit_train_batches": 3}, 6),
    ]:
        assert fit(Asks(), **flags)[1].estimate == steps, flags


def test_the_same_seed_gives_the_same_weights() -> None:
    def weights() -> torch.Tensor:
        pl.seed_everything(3, verbose=False)
        _, model = fit(
            None, torch.utils.data.DataLoader(torch.randn(8, 2), 2, shuffle=True), loader(1), deterministic=True
        )
        return model.layer.weight.detach()

    assert torch.equal(weights(), weights())
