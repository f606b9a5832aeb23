"""Precision plugins: float16 with a GradScaler on the CPU, whole precisions, and plugins of the user's own."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import fulgurite as pl
from fulgurite.plugins import DoublePrecision, HalfPrecision, MixedPrecision, Precision
from fulgurite.utilities.exceptions import MisconfigurationException

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*there is no validation data", "ignore:.*16-mixed' on CPU", "ignore:.*state of callbacks that this trainer"
)
ROWS = torch.randn(10, 3, generator=torch.Generator().manual_seed(1))
QUIET: dict[str, Any] = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)


class Net(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 1))
        self.seen: list[Any] = []

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> Any:
        out = self.net(batch)
        self.seen.append(out.dtype)
        return out.float().square().mean()

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        self.seen.append(self.net(batch).dtype)

    test_step = validation_step

    def predict_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return self.net(batch)  # type: ignore[no-any-return]

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.01)

    @property
    def flat(self) -> torch.Tensor:
        return torch.cat([p.detach().flatten() for p in self.parameters()])


class Manual(Net):
    """Two optimizers, of which the second takes every other batch."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        first, second = self.optimizers()
        self.manual_backward(self.net(batch).float().square().mean())
        first.step()
        if batch_idx % 2:
            second.step()
        for optimizer in (first, second):
            optimizer.zero_grad()

    def configure_optimizers(self) -> Any:
        return [torch.optim.Adam(self.net[0].parameters()), torch.optim.SGD(self.net[3].parameters(), 0.1)]


def scaled(scale: float = 2.0**17, growth_interval: int = 3) -> MixedPrecision:
    return MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", scale, growth_interval=growth_interval))


def fit(model: Net, plugin: Precision | None, ckpt_path: Any = None, **flags: Any) -> pl.Trainer:
    flags = {**QUIET, "accelerator": "cpu", "max_epochs": 3, "enable_checkpointing": False, **flags}
    trainer = pl.Trainer(plugins=plugin, **flags)
    torch.manual_seed(2)
    trainer.fit(model, DataLoader(ROWS, 2, shuffle=True), ckpt_path=ckpt_path)
    return trainer


# --- float16 with a scaler ----------------------------------------------------------------------------------------
def test_an_infinite_step_is_skipped_counted_and_halves_the_scale() -> None:
    class Infinite(Net):
        def on_after_backward(self) -> None:
            if self.global_step == 2:
                self.net[0].weight.grad[0, 0] = float("inf")

    weights: list[torch.Tensor] = []
    scales: list[float] = []

    class Looks(pl.Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, *args: Any) -> None:
            weights.append(module.flat)
            scales.append(trainer.scaler.get_scale())

    plugin = scaled(8.0, growth_interval=100)
    trainer = fit(Infinite(), plugin, max_epochs=1, callbacks=[Looks()])
    assert [torch.equal(a, b) for a, b in zip(weights, weights[1:], strict=False)] == [False, True, False, False]
    assert scales == [8.0, 8.0, 4.0, 4.0, 4.0]
    assert trainer.global_step == 5
    assert trainer.scaler is plugin.scaler
    assert trainer.precision == "16-mixed"


def test_autocast_is_float16_in_every_stage() -> None:
    model, loader = Net(), DataLoader(ROWS, 5)
    trainer = fit(model, scaled(), max_epochs=1)
    trainer.validate(model, loader, verbose=False)
    trainer.test(model, loader, verbose=False)
    assert set(model.seen) == {torch.float16}
    assert {p.dtype for p in trainer.predict(model, loader)} == {torch.float16}
    assert model.net[0].weight.dtype == torch.float32


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "flags"),
    [(Net, {}), (Net, {"gradient_clip_val": 0.1}), (Net, {"accumulate_grad_batches": 2}), (Manual, {})],
)
def test_a_run_with_a_scaler_continues_bit_for_bit(make: type[Net], flags: dict[str, Any], tmp_path: Path) -> None:
    """With steps that are skipped, from every save of three epochs."""
    save = pl.callbacks.ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, every_n_train_steps=1)
    whole = make()
    trainer = fit(whole, scaled(), enable_checkpointing=True, callbacks=[save], **flags)
    final = trainer.scaler.state_dict()
    files = sorted(tmp_path.glob("*.ckpt"))
    assert len({torch.load(f, weights_only=True)["MixedPrecision"]["scale"] for f in files}) > 1
    for file in files:
        resumed = make()
        again = fit(resumed, scaled(), ckpt_path=file, **flags)
        assert torch.equal(resumed.flat, whole.flat), file.name
        assert again.scaler.state_dict() == final, file.name


def test_a_skipped_loss_leaves_the_scaler_as_it_was() -> None:
    class Skips(Net):
        def training_step(self, batch: torch.Tensor, batch_idx: int) -> Any:
            return None if batch_idx % 2 else super().training_step(batch, batch_idx)

    model = Skips()
    trainer = fit(model, scaled(8.0, growth_interval=100), gradient_clip_val=0.1)
    assert trainer.global_step == 15
    assert trainer.scaler.state_dict()["_growth_tracker"] == 9


def test_the_trainers_argument_is_bf16_on_a_cpu_and_says_how_to_have_float16() -> None:
    with pytest.warns(UserWarning, match=r"plugins=MixedPrecision\('16-mixed', 'cpu'\)"):
        trainer = pl.Trainer(precision=16, accelerator="cpu", logger=False)
    assert trainer.precision == "bf16-mixed"
    assert trainer.scaler is None
    assert isinstance(trainer.precision_plugin, MixedPrecision)


def test_a_plugin_makes_its_own_scaler() -> None:
    assert isinstance(MixedPrecision("16-mixed", "cpu").scaler, torch.amp.GradScaler)
    assert MixedPrecision("bf16-mixed", "cpu").scaler is None
    given = torch.amp.GradScaler("cpu", init_scale=4.0)
    assert MixedPrecision(precision="16-mixed", device="cpu", scaler=given).scaler is given


def test_a_plugin_can_be_pickled_for_other_processes() -> None:
    again = pickle.loads(pickle.dumps(scaled(4.0)))
    assert again.scaler.get_scale() == 4.0
    assert again.autocast_context_manager().fast_dtype == torch.float16


WRONG: dict[str, Any] = {
    "a scaler for bf16": (
        lambda: MixedPrecision("bf16-mixed", "cpu", torch.amp.GradScaler("cpu")),
        MisconfigurationException,
        "scaler|16-mixed",
    ),
    "mixed of a whole precision": (lambda: MixedPrecision("32-true", "cpu"), ValueError, "32-true|bf16-mixed"),  # type: ignore[arg-type]
    "half of a mixed precision": (lambda: HalfPrecision("16-mixed"), ValueError, "16-mixed|bf16-true"),  # type: ignore[arg-type]
    "two plugins": (
        lambda: pl.Trainer(plugins=[HalfPrecision(), DoublePrecision()], accelerator="cpu"),
        ValueError,
        "HalfPrecision|DoublePrecision",
    ),
    "a plugin and an argument": (
        lambda: pl.Trainer(plugins=[HalfPrecision()], precision=64, accelerator="cpu"),
        ValueError,
        "HalfPrecision|64",
    ),
    "a step that nobody would call": (
        lambda: pl.Trainer(plugins=[type("Own", (Precision,), {"optimizer_step": print})()], accelerator="cpu"),
        NotImplementedError,
        "Own|optimizer_step|module",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_plugins_say_what_is_right(name: str) -> None:
    act, kind, parts = WRONG[name]
    with pytest.raises(kind) as error:
        act()
    assert all(part in str(error.value) for part in parts.split("|"))


# --- whole precisions ---------------------------------------------------------------------------------------------
class Rotating(Net):
    """A complex parameter and buffer, complex batches."""

    def __init__(self) -> None:
        super().__init__()
        self.turn = nn.Parameter(torch.tensor([0.6 + 0.8j]))
        self.register_buffer("phase", torch.tensor([0.5 - 0.5j]))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.seen.append((batch["z"].dtype, batch["x"].dtype, batch["i"].dtype))
        return self.net(batch["x"]).float().square().mean() + (batch["z"] * self.turn * self.phase).imag.mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)  # Adam's epsilon is 0 in float16


@pytest.mark.parametrize("precision", ["64-true", "16-true", "bf16-true", "bf16-mixed", "32-true"])
def test_complex_numbers_stay_complex(precision: str) -> None:
    model = Rotating()
    rows = [{"x": torch.ones(3), "z": torch.tensor([1j]), "i": torch.tensor([1])} for _ in range(4)]
    trainer = pl.Trainer(**QUIET, accelerator="cpu", max_epochs=1, enable_checkpointing=False, precision=precision)
    trainer.fit(model, DataLoader(rows, 2))
    real = trainer.precision_plugin.format.weights
    assert set(model.seen) == {(torch.complex64, real, torch.int64)}
    assert (model.turn.dtype, model.phase.dtype) == (torch.complex64, torch.complex64)
    assert model.phase.item() == 0.5 - 0.5j
    assert model.net[0].weight.dtype == model.dtype == real


@pytest.mark.parametrize(
    ("plugin", "dtype"),
    [
        (DoublePrecision(), torch.float64),
        (HalfPrecision(), torch.float16),
        (HalfPrecision("bf16-true"), torch.bfloat16),
        (MixedPrecision("16-mixed", "cpu"), torch.float32),
        (Precision(), torch.float32),
    ],
)
@pytest.mark.parametrize("context", ["module_init_context", "tensor_init_context", "forward_context"])
def test_what_is_made_inside_a_context_has_the_type_of_the_weights(
    context: str, plugin: Precision, dtype: torch.dtype
) -> None:
    with getattr(plugin, context)():
        assert (nn.Linear(2, 2).weight.dtype, torch.zeros(1).dtype) == (dtype, dtype)
    assert torch.get_default_dtype() == torch.float32


# --- plugins of the user's own ------------------------------------------------------------------------------------
class Own(MixedPrecision):
    """Notes what is called, and remembers something."""

    def __init__(self) -> None:
        super().__init__("bf16-mixed", "cpu")
        self.entered: list[str] = []

    @contextlib.contextmanager
    def forward_context(self) -> Iterator[None]:
        self.entered.append("forward")
        with super().forward_context():
            yield

    @contextlib.contextmanager
    def val_step_context(self) -> Iterator[None]:
        self.entered.append("val")
        yield

    def convert_input(self, data: Any) -> Any:
        self.entered.append("convert_input")
        return data * 0

    def connect(self, model: Any, optimizers: Any, lr_schedulers: Any) -> Any:
        self.entered.append(f"connect {len(optimizers)}")
        return super().connect(model, optimizers, lr_schedulers)

    def state_dict(self) -> dict[str, Any]:
        return {"kept": 7}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.entered.append(f"loaded {state_dict['kept']}")


def test_overrides_of_a_plugin_are_called_in_their_stages() -> None:
    plugin, model = Own(), Net()
    trainer = fit(model, plugin, max_epochs=1)
    assert plugin.entered == ["connect 1", *["convert_input", "forward"] * 5]
    del plugin.entered[:], model.seen[:]
    trainer.validate(model, DataLoader(ROWS, 10), verbose=False)
    assert plugin.entered[-2:] == ["convert_input", "val"]
    assert model.seen == [torch.float32]  # its own context, without autocast


def test_an_optimizer_that_connect_returns_is_the_one_that_steps() -> None:
    class Swaps(Precision):
        def connect(self, model: Any, optimizers: Any, lr_schedulers: Any) -> Any:
            return model, [torch.optim.SGD(model.parameters(), lr=0.0)], lr_schedulers

    model = Net()
    before = model.flat
    trainer = fit(model, Swaps(), max_epochs=1)
    assert torch.equal(model.flat, before)
    assert isinstance(trainer.optimizers[0], torch.optim.SGD)


def test_the_state_of_a_plugin_is_in_the_checkpoint_under_its_class(tmp_path: Path) -> None:
    fit(Net(), Own(), max_epochs=1).save_checkpoint(tmp_path / "own.ckpt")
    assert torch.load(tmp_path / "own.ckpt", weights_only=True)["Own"] == {"kept": 7}
    plugin = Own()
    fit(Net(), plugin, ckpt_path=tmp_path / "own.ckpt", max_epochs=2)
    assert "loaded 7" in plugin.entered


def test_a_plugin_without_a_constructor_of_its_own_has_its_class_attributes() -> None:
    class Plain(Precision):
        precision = "64-true"

        def convert_module(self, module: nn.Module) -> nn.Module:
            return module.double()

        def convert_input(self, data: Any) -> Any:
            return data.double()

    model = Net()
    assert fit(model, Plain(), max_epochs=1).precision == "64-true"
    assert set(model.seen) == {torch.float64}
