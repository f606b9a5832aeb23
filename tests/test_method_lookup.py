"""What is assigned in a run is used from that moment on; what is patched on a class, from the next epoch on."""

from __future__ import annotations

import copy
import functools
import pickle
import types
from collections.abc import Callable
from typing import Any, Generic, TypeVar
from unittest import mock

import pytest
import torch
from torch.utils.data import DataLoader

import fulgurite as pl
from fulgurite.loggers.logger import DummyLogger
from fulgurite.strategies import SingleDeviceStrategy

T = TypeVar("T")
pytestmark = pytest.mark.filterwarnings("ignore:.*nothing is validated")


def quiet(*callbacks: Any, **flags: Any) -> pl.Trainer:
    usual = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "num_sanity_val_steps": 0}
    flags = {**usual, "enable_model_summary": False, "max_epochs": 1, "accelerator": "cpu", "devices": 1, **flags}
    return pl.Trainer(callbacks=list(callbacks), **flags)


def numbers(count: int) -> DataLoader[Any]:
    return DataLoader(torch.arange(float(count)).view(count, 1))  # type: ignore[arg-type]  # a tensor is a data set


class Module(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.seen: list[str] = []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.seen.append("own")
        return self.layer(batch).square().mean()

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        self.seen.append("own")
        return batch

    test_step = predict_step = validation_step

    def other(self, batch: Any, batch_idx: int) -> Any:
        self.seen.append("other")
        return self.layer(batch).abs().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


class At(pl.Callback):
    """Does something to the module at the start of a training batch."""

    def __init__(self, **acts: Callable[[Any], Any]) -> None:
        self.acts = acts

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.acts.get(f"batch_{batch_idx}", lambda _: None)(pl_module)


def assigning(name: str, make: Callable[[Any], Any]) -> Callable[[Any], None]:
    return lambda owner: setattr(owner, name, make(owner))


@pytest.mark.parametrize(
    "make",
    [
        lambda m: m.other,
        lambda m: lambda batch, batch_idx: m.other(batch, batch_idx),
        lambda m: functools.partial(Module.other, m),
        lambda m: types.MethodType(Module.other, m),
        lambda m: torch.compile(m.other, backend="eager"),
        lambda m: mock.MagicMock(side_effect=m.other),
    ],
    ids="method lambda partial MethodType compiled mock".split(),
)
def test_a_training_step_assigned_at_a_batch_is_used_until_it_is_deleted(make: Callable[[Any], Any]) -> None:
    module = Module()
    acts = {"batch_1": assigning("training_step", make), "batch_3": lambda m: delattr(m, "training_step")}
    quiet(At(**acts)).fit(module, numbers(4))
    assert module.seen == ["own", "other", "other", "own"]


def test_methods_assigned_inside_the_training_step_are_used_in_that_very_batch() -> None:
    class Inside(Module):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            if batch_idx == 1:
                self.training_step = self.other  # type: ignore[method-assign]  # what is tested
                self.backward = lambda loss: (self.seen.append("backward"), loss.backward())  # type: ignore[assignment,method-assign,misc]  # too
                self.configure_gradient_clipping = lambda *_, **__: self.seen.append("clip")  # type: ignore[assignment,method-assign]  # too
            return super().training_step(batch, batch_idx)

    module = Inside()
    quiet().fit(module, numbers(3))
    assert module.seen == ["own", "own", "backward", "clip", "other", "backward", "clip"]


def test_mock_patch_undone_gives_the_old_method_back() -> None:
    module = Module()
    patch = mock.patch.object(module, "training_step", side_effect=module.other)
    quiet(At(batch_1=lambda _: patch.start(), batch_2=lambda _: patch.stop())).fit(module, numbers(3))
    assert module.seen == ["own", "other", "own"]


@pytest.mark.parametrize("stage", ["validation", "test", "predict", "fit"])
def test_steps_and_hooks_assigned_within_an_evaluation_are_used_in_the_same(stage: str) -> None:
    name = "validation" if stage == "fit" else stage
    module, bare = Module(), pl.Callback()

    def begin(trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        if batch_idx == 1:
            setattr(module, f"{name}_step", lambda batch, batch_idx: module.seen.append("other"))
            setattr(bare, f"on_{name}_batch_end", lambda *_: module.seen.append("end"))
            setattr(module, f"on_{name}_epoch_end", lambda: module.seen.append("epoch's end"))

    starter = pl.Callback()
    setattr(starter, f"on_{name}_batch_start", begin)
    trainer = quiet(starter, bare)
    if stage == "fit":
        trainer.fit(module, numbers(1), numbers(3))
        assert module.seen.pop(0) == "own"
    else:
        getattr(trainer, {"validation": "validate"}.get(stage, stage))(module, numbers(3))
    assert module.seen == ["own", "other", "end", "other", "end", "epoch's end"]


def test_a_replaced_sanity_check_and_loaders_assigned_in_setup_are_used() -> None:
    class Late(Module):
        def setup(self, stage: str) -> None:
            self.train_dataloader = lambda: numbers(1)  # type: ignore[method-assign]  # what is tested
            self.val_dataloader = lambda: numbers(2)  # type: ignore[method-assign]  # too

        def train_dataloader(self) -> Any:
            raise AssertionError

    class Replace(pl.Callback):
        def on_sanity_check_start(self, trainer: Any, pl_module: Any) -> None:
            pl_module.validation_step = lambda batch, batch_idx: pl_module.seen.append("new")

    module = Late()
    quiet(Replace(), num_sanity_val_steps=1).fit(module)
    assert module.seen == ["new", "own", "new", "new"]


def test_a_transfer_hook_assigned_on_the_data_module_is_used() -> None:
    class Data(pl.LightningDataModule):
        def train_dataloader(self) -> Any:
            return numbers(3)

    def assign(module: Module) -> None:
        data: Any = module.trainer.datamodule
        data.on_after_batch_transfer = lambda batch, _: (module.seen.append("moved"), batch)[1]

    module = Module()
    quiet(At(batch_1=assign)).fit(module, datamodule=Data())
    assert module.seen == ["own", "own", "moved", "own"]


def test_automatic_optimization_can_be_switched_between_batches() -> None:
    class Switches(Module):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            if self.automatic_optimization:
                return super().training_step(batch, batch_idx)
            self.manual_backward(self.layer(batch).mean())
            self.optimizers().step()
            self.seen.append("manual")
            return None

    module = Switches()
    on, off = (assigning("automatic_optimization", lambda _, value=value: value) for value in (True, False))
    trainer = quiet(At(batch_1=off, batch_2=on))
    trainer.fit(module, numbers(3))
    assert module.seen == ["own", "manual", "own"] and trainer.global_step == 3


def test_what_is_patched_on_a_class_or_appended_is_used_from_the_next_epoch_on() -> None:
    class Patched(Module): ...

    class Late(pl.Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            pl_module.seen.append("late")

    def patch(module: Any) -> None:
        if module.current_epoch == 0:
            Patched.training_step = Module.other  # type: ignore[method-assign]  # what is tested
            module.trainer.callbacks.append(Late())

    module = Patched()
    quiet(At(batch_0=patch), max_epochs=2).fit(module, numbers(2))
    assert module.seen == ["own", "own", "late", "other", "late", "other"]


def test_a_callback_of_a_foreign_class_is_called_by_name() -> None:
    class Foreign:
        state_key = "foreign"
        ended = 0

        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == 1:
                self.on_train_batch_end = self.end

        def end(self, *args: Any) -> None:
            self.ended += 1

    foreign = Foreign()
    quiet(foreign).fit(Module(), numbers(3))
    assert foreign.ended == 2


def test_what_was_assigned_stays_and_a_run_that_is_over_hears_nothing() -> None:
    from fulgurite import hooks

    module = Module()
    quiet(At(batch_0=assigning("training_step", lambda m: m.other))).fit(module, numbers(1))
    assert module.training_step == module.other and not hooks._going_on
    with pytest.raises(KeyError):
        quiet(At(batch_0=lambda m: {}["nothing"])).fit(module, numbers(1))
    assert not hooks._going_on


def test_a_copy_of_a_module_with_a_compiled_step_is_itself_and_trains() -> None:
    module = Module()
    module.training_step = torch.compile(module.training_step, backend="eager")  # type: ignore[method-assign]  # what is tested
    module.compile(backend="eager")  # type: ignore[no-untyped-call]  # torch leaves it untyped
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        quiet().fit(twin, numbers(2))
        assert twin.seen == ["own", "own"] and not module.seen


def test_methods_of_a_strategy_assigned_and_deleted_in_a_run() -> None:
    names, seen = ("training_step", "backward", "optimizer_step", "batch_to_device"), list[str]()

    def wrap(module: Any) -> None:
        strategy = module.trainer.strategy
        for name in names:
            real = getattr(strategy, name)
            setattr(strategy, name, lambda *a, n=name, f=real, **k: (seen.append(n), f(*a, **k))[1])

    def unwrap(module: Any) -> None:
        for name in names:
            delattr(module.trainer.strategy, name)

    module = Module()
    quiet(At(batch_1=wrap, batch_2=unwrap)).fit(module, numbers(4))
    assert seen == ["optimizer_step", "training_step", "backward", "batch_to_device"] and len(module.seen) == 4


def test_lightnings_names_of_a_strategy_can_be_overridden(tmp_path: Any) -> None:
    names = (
        "connect setup_environment setup model_to_device setup_optimizers process_dataloader training_step "
        "lightning_module_state_dict optimizer_state save_checkpoint load_checkpoint load_model_state_dict "
        "load_optimizer_state_dict on_exception teardown"
    ).split()
    called = set[str]()

    def override(name: str) -> Any:
        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            called.add(name)
            return getattr(SingleDeviceStrategy, name)(self, *args, **kwargs)

        return method

    own = type("Own", (SingleDeviceStrategy,), {name: override(name) for name in names})
    trainer = quiet(strategy=own("cpu"), accelerator="auto", devices="auto")
    trainer.fit(Module(), numbers(2))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    failing = At(batch_0=lambda _: {}["nothing"])
    with pytest.raises(KeyError):
        quiet(failing, strategy=own("cpu"), accelerator="auto", devices="auto", max_epochs=2).fit(
            Module(), numbers(2), ckpt_path=tmp_path / "a.ckpt"
        )
    assert called == set(names)


class Tagged:
    tag = None

    def __init_subclass__(cls, tag: Any = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.tag = tag


def test_a_callbacks_other_bases_are_told_of_its_subclasses() -> None:
    class Typed(Tagged, pl.Callback, Generic[T], tag=3): ...

    class Narrow(Typed[int]): ...

    assert Typed.tag == 3 and isinstance(Narrow(), Typed)


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
def test_fit_trains_where_the_caller_has_switched_gradients_off(off: Any) -> None:
    grad: list[bool] = []

    class Looks(Module):
        def validation_step(self, batch: Any, batch_idx: int) -> Any:
            grad.append(torch.is_grad_enabled())

    plain, inside = Looks(), Looks()
    inside.load_state_dict(plain.state_dict())
    quiet().fit(plain, numbers(3), numbers(1))
    with off():
        quiet().fit(inside, numbers(3), numbers(1))
        assert not torch.is_grad_enabled()
    assert torch.equal(plain.layer.weight, inside.layer.weight) and not any(grad)


def test_a_module_made_in_inference_mode_is_refused_by_name() -> None:
    with torch.inference_mode():
        module = Module()
    with pytest.raises(RuntimeError, match=r"layer\.weight"):
        quiet().fit(module, numbers(1))


@pytest.mark.parametrize("manual", [False, True])
def test_an_optimizer_that_steps_under_no_grad_trains(manual: bool) -> None:
    class Under(torch.optim.SGD):
        @torch.no_grad()
        def step(self, *, closure: Any = None) -> Any:  # type: ignore[override]  # by name only, which is allowed
            loss = closure()
            super().step()
            return loss

    class Chosen(Module):
        kind: Any = torch.optim.SGD

        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = not manual

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            if self.automatic_optimization:
                return super().training_step(batch, batch_idx)

            def closure() -> Any:
                self.optimizers().zero_grad()
                self.manual_backward(loss := self.layer(batch).square().mean())
                return loss

            self.optimizers().step(closure=closure)
            return None

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return self.kind(self.parameters(), lr=0.01)  # type: ignore[no-any-return]  # an optimizer

    plain, under = Chosen(), Chosen()
    under.kind = Under
    under.load_state_dict(plain.state_dict())
    quiet().fit(plain, numbers(3))
    quiet().fit(under, numbers(3))
    assert torch.equal(plain.layer.weight, under.layer.weight)


def test_dummy_loggers_end_when_they_are_walked() -> None:
    dummy = DummyLogger()
    assert quiet(logger=dummy).loggers == [dummy] == list(dummy) and not list(dummy.experiment)
    quiet(logger=[dummy, pickle.loads(pickle.dumps(copy.deepcopy(dummy)))]).fit(Module(), numbers(1))


@pytest.mark.parametrize(
    ("hook", "method"),
    [
        ("on_validation_batch_start", lambda batch, batch_idx, dataloader_idx: None),
        ("on_validation_batch_end", lambda outputs, batch, batch_idx, dataloader_idx: None),
        ("validation_step", lambda batch, batch_idx, dataloader_idx: None),
    ],
)
def test_a_dataloader_idx_that_is_never_given_is_an_error_that_names_the_hook(hook: str, method: Any) -> None:
    module = Module()
    setattr(module, hook, method)
    with pytest.raises(RuntimeError, match=rf"{hook} takes a dataloader_idx"):
        quiet().validate(module, numbers(1))
