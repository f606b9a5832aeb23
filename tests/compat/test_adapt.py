"""Hooks of the 1.x era, and that nothing of them is left on the module nor in the loop of those who have none."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import fulgurite as pl
from helpers.counting import Counting, fit, loader

pytestmark = pytest.mark.filterwarnings("ignore:.*1.x era", "ignore:.*there is no validation data")


def fitted(module: Any, **flags: Any) -> pl.Trainer:
    return fit(module, **flags)[0]


def test_epoch_ends_are_given_the_outputs_of_their_steps() -> None:
    class Module(Counting):
        def training_epoch_end(self, outputs: Any) -> None:
            self.calls.append(f"T{len(outputs)}{sorted(outputs[0])}")
            self.log("train_end", 1.0)

        def validation_step(self, batch: Any, batch_idx: int) -> int:
            return batch_idx

        def validation_epoch_end(self, outputs: Any) -> None:
            self.calls.append(f"V{outputs}")
            self.log("val_end", 2.0)

    module = Module()
    trainer = fitted(module, max_epochs=2)
    assert module.seen("TV") == "V[0, 1] T4['loss'] V[0, 1] T4['loss']"
    assert trainer.callback_metrics["train_end"] == 1 and trainer.callback_metrics["val_end"] == 2


def test_the_module_is_afterwards_as_it_was_even_after_an_error() -> None:
    class Module(Counting):
        def training_epoch_end(self, outputs: Any) -> None:
            raise RuntimeError("in the middle")

    module = Module()
    before = set(vars(module))
    with pytest.raises(RuntimeError, match="in the middle"):
        fitted(module)
    assert set(vars(module)) - before <= {"_hparams"}


def test_a_module_of_today_is_left_alone() -> None:
    class Module(Counting):
        def on_train_start(self) -> None:
            self.touched = [name for name, value in vars(self).items() if callable(value) and not name.startswith("_")]

    module = Module()
    fitted(module)
    assert module.touched == [] and module.trainer._run.as_output == module.trainer._run.as_output_of


def test_a_helper_with_the_name_of_an_old_hook_is_left_to_its_class() -> None:
    """pytorch-forecasting's models call their on_epoch_end(outputs) from today's hooks."""

    class Module(Counting):
        def on_epoch_end(self, outputs: Any = "") -> None:
            self.calls.append(f"E{outputs}")

        def on_train_epoch_end(self) -> None:
            self.on_epoch_end("by hand")

    module = Module()
    fitted(module)
    assert module.seen("E") == "Eby hand"


def test_several_optimizers_step_in_turn_as_by_hand() -> None:
    class Old(Counting):
        def __init__(self) -> None:
            super().__init__()
            self.other = torch.nn.Linear(2, 1)

        def training_step(self, batch: Any, batch_idx: int, optimizer_idx: int) -> Any:
            return (self.layer(batch) * self.other(batch)).pow(2).mean()

        def configure_optimizers(self) -> Any:
            first = torch.optim.SGD(self.layer.parameters(), lr=0.1)
            return [first, torch.optim.Adam(self.other.parameters(), lr=0.1)], [
                torch.optim.lr_scheduler.StepLR(first, 1)
            ]

    class Today(Old):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            for optimizer in self.optimizers():
                with self.toggled_optimizer(optimizer):
                    optimizer.zero_grad()
                    self.manual_backward((self.layer(batch) * self.other(batch)).pow(2).mean())
                    self.clip_gradients(optimizer, 0.5)
                    optimizer.step()
            if self.trainer.is_last_batch:
                self.lr_schedulers().step()

    weights = []
    for kind, flags in ((Old, {"gradient_clip_val": 0.5}), (Today, {})):
        torch.manual_seed(1)
        module = kind()
        trainer = fitted(module, max_epochs=2, **flags)
        weights.append([p.clone() for p in module.parameters()])
        assert trainer.global_step == 16
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


def test_several_optimizers_accumulate() -> None:
    class Module(Counting):
        def training_step(self, batch: Any, batch_idx: int, optimizer_idx: int) -> Any:
            return self.layer(batch).mean()

        def configure_optimizers(self) -> Any:
            return [torch.optim.SGD(self.parameters(), lr=0.1), torch.optim.SGD(self.parameters(), lr=0.1)]

    assert fitted(Module(), accumulate_grad_batches=2).global_step == 4


def test_hooks_with_the_arguments_of_then() -> None:
    class Module(Counting):
        def on_train_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int) -> None:
            self.calls.append(f"s{dataloader_idx}")

        def backward(self, loss: Any, optimizer: Any, optimizer_idx: int) -> None:
            self.calls.append("b")
            loss.backward()

        def on_before_optimizer_step(self, optimizer: Any, optimizer_idx: int) -> None:
            self.calls.append("o")

        def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_idx: int, closure: Any) -> None:
            optimizer.step(closure=closure)

    module = Module()
    fitted(module, limit_train_batches=1, limit_val_batches=0)
    assert module.seen("stbo") == "s0 t0 b o"


def test_step_ends_come_after_steps_and_may_log() -> None:
    class Module(Counting):
        def training_step_end(self, loss: Any) -> Any:
            self.log("end", loss, on_epoch=True)
            self.calls.append("E")
            return loss

    module = Module()
    trainer = fitted(module)
    assert module.seen("tE") == "t0 E t1 E t2 E t3 E"
    assert {"end", "end_step", "end_epoch"} <= set(trainer.callback_metrics)


def test_what_steps_return_to_be_logged_is_logged() -> None:
    class Module(Counting):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = self.layer(batch).mean()
            return {"loss": loss, "log": {"a": loss}, "progress_bar": {"b": 1.0}}

    trainer = fitted(Module())
    assert {"a", "b"} <= set(trainer.callback_metrics) and set(trainer.progress_bar_metrics) == {"b"}


def test_a_step_may_return_something_to_log_for_some_batches_only() -> None:
    class Module(Counting):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = self.layer(batch).mean()
            return [{"loss": loss, "log": {"a": float(batch_idx)}}, loss, None][batch_idx % 3]

    assert fitted(Module(), limit_train_batches=6).callback_metrics["a"] == 3


def test_callbacks_of_then() -> None:
    class Watch(pl.Callback):
        def __init__(self) -> None:
            self.calls: list[Any] = []

        def on_epoch_end(self, trainer: Any, module: Any) -> None:
            self.calls.append("epoch")

        def on_train_epoch_end(self, trainer: Any, module: Any, outputs: Any) -> None:
            self.calls.append(len(outputs))

        def on_keyboard_interrupt(self, trainer: Any, module: Any) -> None:
            self.calls.append("interrupted")

    watch = Watch()
    fitted(Counting(), callbacks=[watch], limit_val_batches=0)
    assert watch.calls == [4, "epoch"]

    class Interrupts(Counting):
        def on_train_start(self) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fitted(Interrupts(), callbacks=[watch])
    assert watch.calls[-1] == "interrupted"


def test_old_keywords_of_fit_and_test() -> None:
    trainer = pl.Trainer(accelerator="cpu", logger=False, max_epochs=1, enable_checkpointing=False)
    module = Counting()
    trainer.fit(module, train_dataloader=loader(1))
    trainer.test(module, test_dataloaders=loader(2), verbose=False)
    assert module.seen("te") == "t0 e0 e1"
    with pytest.raises(TypeError, match="train_loader"):
        trainer.fit(module, train_loader=loader(1))
