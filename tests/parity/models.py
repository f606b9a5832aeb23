"""The modules that the settings train, made for whichever package is asked for, and what they optimize with."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.optim import lr_scheduler as schedulers
from torch.utils.data import DataLoader


def adamw(module: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(module.parameters(), lr=1e-2)


def sgd(module: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9)


def lbfgs(module: Any) -> torch.optim.Optimizer:
    return torch.optim.LBFGS(module.parameters(), lr=0.1, max_iter=4)


def halving(optimizer: Any) -> Any:
    return schedulers.StepLR(optimizer, 2, 0.5)


def plateau(optimizer: Any) -> Any:
    """Reduces nearly each time that it is asked, so that a missing or additional question shows."""
    return schedulers.ReduceLROnPlateau(optimizer, factor=0.5, patience=0, threshold=10.0, threshold_mode="abs")


def scheduled(make: Callable[[Any], Any], **config: Any) -> Callable[[Any], Any]:
    def configure(module: Any) -> dict[str, Any]:
        optimizer = adamw(module)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": make(optimizer), **config}}

    return configure


def several_schedulers(*configs: tuple[Callable[[Any], Any], dict[str, Any]]) -> Callable[[Any], Any]:
    def configure(module: Any) -> Any:
        optimizer = adamw(module)
        return [optimizer], [{"scheduler": make(optimizer), **config} for make, config in configs]

    return configure


def two(module: Any) -> list[torch.optim.Optimizer]:
    return [sgd(module), torch.optim.Adam(module.net[0].parameters(), lr=0.01)]


def two_and_a_scheduler(module: Any) -> Any:
    optimizers = two(module)
    return optimizers, [schedulers.StepLR(optimizers[0], 3, 0.5)]


def rows(n: int, seed: int = 3) -> torch.Tensor:
    return torch.randn(n, 8, generator=torch.Generator().manual_seed(seed))


@functools.cache
def of(pl: Any) -> SimpleNamespace:
    class Plain(pl.LightningModule):  # type: ignore[misc]
        """Dropout and two logged values; every step is on the tape."""

        def __init__(self, case: Any) -> None:
            super().__init__()
            self.case, self.tape = case, None
            self.net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Dropout(0.1), nn.Linear(16, 1))

        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            return self.net(batch)

        def loss(self, batch: torch.Tensor) -> torch.Tensor:
            return (self(batch) ** 2).mean() + self(batch).sum() * 0.1

        def note(self, name: str, *args: Any) -> None:
            self.tape.note(f"m.{name}", self.trainer, self, args)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.note("training_step", batch, batch_idx)
            if batch_idx in self.case.none_at:
                return None
            loss = self.loss(batch)
            self.log("loss", loss, on_step=True, on_epoch=True, prog_bar=True)
            self.log("only_step", loss * 2)
            return loss

        def validation_step(self, batch: Any, batch_idx: int) -> Any:
            self.note("validation_step", batch, batch_idx)
            loss = self.loss(batch)
            self.log("vl", loss)
            return loss

        def test_step(self, batch: Any, batch_idx: int) -> Any:
            self.note("test_step", batch, batch_idx)
            loss = self.loss(batch)
            self.log_dict({"tl": loss, "twice": loss * 2}, on_step=True, on_epoch=True)
            return {"loss": loss, "extra": batch_idx}

        def configure_optimizers(self) -> Any:
            return self.case.optim(self)

    class DictOutput(Plain):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return {"loss": super().training_step(batch, batch_idx), "extra": 7, "tensor": batch.sum()}

    class NoBatchIndex(Plain):
        def training_step(self, batch: Any) -> Any:
            return self.loss(batch)

        def validation_step(self, batch: Any) -> None:
            self.log("vl", self.loss(batch))

    class KeywordsOnly(Plain):
        def training_step(self, batch: Any, **more: Any) -> Any:
            return self.loss(batch)

        def validation_step(self, batch: Any, **more: Any) -> None:
            self.log("vl", self.loss(batch))

    class NoValidation(Plain):
        validation_step = pl.LightningModule.validation_step

    class Silent(Plain):
        """Logs nothing."""

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return self.loss(batch)

        def validation_step(self, batch: Any, batch_idx: int) -> Any:
            return self.loss(batch)

    class BatchNorm(Plain):
        def __init__(self, case: Any) -> None:
            super().__init__(case)
            self.net = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Linear(16, 1))

    class PartInEval(Plain):
        def __init__(self, case: Any) -> None:
            super().__init__(case)
            self.net[2].eval()

    class TwoVal(Plain):
        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int) -> Any:
            self.note("validation_step", batch, batch_idx, dataloader_idx)
            self.log("vl", self.loss(batch), on_step=True, on_epoch=True)
            self.log(f"own_{dataloader_idx}", self.loss(batch), add_dataloader_idx=False)

        def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int) -> Any:
            self.log("tl", self.loss(batch) + dataloader_idx)

        def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int) -> Any:
            return self(batch), batch_idx, dataloader_idx

    class OwnStepDefault(Plain):
        def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, closure: Any) -> None:
            self.note("optimizer_step", epoch, batch_idx)
            optimizer.step(closure=closure)

    class OwnStepSkipping(Plain):
        def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, closure: Any) -> None:
            self.note("optimizer_step", epoch, batch_idx)
            optimizer.step(closure=closure) if batch_idx % 2 else closure()

    class OwnStepClosureFirst(Plain):
        def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, closure: Any) -> None:
            self.note("optimizer_step", epoch, batch_idx)
            closure()
            optimizer.step()

    class WarmUp(Plain):
        """The learning rate by hand in optimizer_step, as in Lightning's documentation."""

        def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, closure: Any) -> None:
            super().optimizer_step(epoch, batch_idx, optimizer, closure)
            for group in optimizer.param_groups:
                group["lr"] = min(1.0, (self.trainer.global_step + 1) / 10) * 0.01

    class OwnClipping(Plain):
        def configure_gradient_clipping(
            self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
        ) -> None:
            self.clip_gradients(
                optimizer, gradient_clip_val=0.01 * (1 + self.current_epoch), gradient_clip_algorithm="value"
            )

    class Manual(Plain):
        """Two optimizers, the second at every other batch, and the module's own scheduler."""

        pending = False

        def __init__(self, case: Any) -> None:
            super().__init__(case)
            self.automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.note("training_step", batch, batch_idx)
            first, second = self.optimizers()
            for optimizer, factor in ((first, 1.0), (second, 0.5)):
                if optimizer is second and batch_idx % 2:
                    continue
                loss = self.loss(batch) * factor
                optimizer.zero_grad()
                self.manual_backward(loss)
                optimizer.step()
            if self.pending and batch_idx % 3 != 2:
                self.manual_backward(self.loss(batch))
            self.lr_schedulers().step()
            self.log("loss", loss, on_step=True, on_epoch=True)
            return loss

    class ManualPending(Manual):
        """Leaves gradients behind for the batches to come."""

        pending = True

    class ManualToggled(Manual):
        def training_step(self, batch: Any, batch_idx: int) -> None:
            for optimizer in self.optimizers():
                self.toggle_optimizer(optimizer)
                loss = self.loss(batch)
                optimizer.zero_grad()
                self.manual_backward(loss)
                self.clip_gradients(optimizer, gradient_clip_val=0.1)
                optimizer.step()
                self.untoggle_optimizer(optimizer)
            self.log("loss", loss)

    class ManualClosure(Manual):
        def training_step(self, batch: Any, batch_idx: int) -> None:
            optimizer = self.optimizers()

            def closure() -> torch.Tensor:
                loss = self.loss(batch)
                optimizer.zero_grad()
                self.manual_backward(loss)
                return loss

            optimizer.step(closure=closure)

    class DictBatches(Plain):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.note("training_step", batch, batch_idx)
            losses = [self.loss(b) for b in (batch.values() if isinstance(batch, dict) else batch) if b is not None]
            self.log("loss", sum(losses), on_step=True, on_epoch=True, batch_size=3)
            return sum(losses)

    class Metrics(Plain):
        """torchmetrics objects of the module and a collection, by step, by epoch and both."""

        def __init__(self, case: Any) -> None:
            super().__init__(case)
            import torchmetrics
            from torchmetrics.classification import BinaryAccuracy, BinaryAUROC

            def of_stage(stage: str) -> nn.ModuleDict:
                pair = {"acc": BinaryAccuracy(), "mse": torchmetrics.MeanSquaredError()}
                collection = torchmetrics.MetricCollection(pair, prefix=f"{stage}_c_")
                one = {"acc": BinaryAccuracy(), "auroc": BinaryAUROC(), "mean": torchmetrics.MeanMetric()}
                return nn.ModuleDict({**one, "collection": collection})

            self.metrics = nn.ModuleDict({s: of_stage(s) for s in ("fit", "val", "test")})

        def observe(self, batch: torch.Tensor, stage: str) -> torch.Tensor:
            score, target = torch.sigmoid(self(batch)).flatten(), (batch[:, 0] > 0).long()
            metrics = self.metrics[stage]
            metrics["acc"](score, target)
            metrics["auroc"].update(score, target)
            metrics["mean"].update(score)
            metrics["collection"].update(score, target)
            self.log(f"{stage}_acc", metrics["acc"], on_step=stage == "fit", on_epoch=True)
            self.log(f"{stage}_auroc", metrics["auroc"], on_step=False, on_epoch=True)
            self.log(f"{stage}_mean", metrics["mean"], on_step=False, on_epoch=True, prog_bar=True)
            self.log_dict(metrics["collection"], on_step=False, on_epoch=True)
            return nn.functional.binary_cross_entropy(score, target.float())

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.note("training_step", batch, batch_idx)
            return self.observe(batch, "fit")

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.observe(batch, "val")

        def test_step(self, batch: Any, batch_idx: int) -> None:
            self.observe(batch, "test")

    class Reductions(Plain):
        """Every form in which a value may be logged."""

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = self.loss(batch)
            for reduction in ("mean", "sum", "min", "max", torch.max):
                name = reduction if isinstance(reduction, str) else "function"
                self.log(f"r_{name}", loss, on_step=True, on_epoch=True, reduce_fx=reduction)
            self.log("weighted", loss, on_step=False, on_epoch=True, batch_size=batch_idx + 1)
            self.log("integer", batch_idx)
            self.log("float", batch_idx / 3, on_step=False, on_epoch=True)
            self.log("one_element", loss.reshape(1), prog_bar=True, logger=False)
            self.log("synced", loss, sync_dist=True, on_epoch=True)
            self.log("rank_zero", loss, rank_zero_only=True)
            self.log_dict({"d/a": loss, "d/b": loss * 3}, on_epoch=True)
            return loss

        def on_train_epoch_end(self) -> None:
            self.log("at_end", self.net[0].weight.sum())
            self.log("epoch_in_float", float(self.current_epoch), prog_bar=True)

        def on_validation_epoch_end(self) -> None:
            self.log("val_at_end", self.net[0].weight.sum())

    class OwnAxis(Plain):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.log("step", float(self.global_step * 10))
            return super().training_step(batch, batch_idx)

    class ConditionalLog(Plain):
        """Logs some names at some batches only."""

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = self.loss(batch)
            if batch_idx % 3 == 0:
                self.log("rare", loss, on_step=True, on_epoch=True)
            if self.current_epoch == 1:
                self.log("second_epoch", loss, on_step=True, on_epoch=True)
            return loss

    class SameName(Plain):
        """Logs one name in training by step, in validation by epoch, and at the epoch's ends."""

        def on_train_epoch_start(self) -> None:
            self.log("start", 1.0 + self.current_epoch)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = self.loss(batch)
            self.log_dict({"x": loss, "start": loss, "end": loss}, prog_bar=True)
            return loss

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("x", self.loss(batch), prog_bar=True)

        def on_train_epoch_end(self) -> None:
            self.log("end", 1.0 + self.current_epoch)

    class OwnLoaders(Plain):
        """Brings its data and says when it is asked for them."""

        shuffle = True

        def note(self, name: str, *args: Any) -> None:
            if name.endswith("dataloader"):  # the order counts; grad mode and stage while loaders are made do not
                self.tape.events.append(name)
            else:
                super().note(name, *args)

        def train_dataloader(self) -> Any:
            self.note("train_dataloader")
            return DataLoader(rows(20), 3, shuffle=self.shuffle)

        def val_dataloader(self) -> Any:
            self.note("val_dataloader")
            return DataLoader(rows(7, 4), 2)

        def test_dataloader(self) -> Any:
            self.note("test_dataloader")
            return DataLoader(rows(7, 5), 2)

        def predict_dataloader(self) -> Any:
            self.note("predict_dataloader")
            return DataLoader(rows(7, 6), batch_size=2)  # Lightning makes it anew, which a positional one breaks

    class OwnLoadersInOrder(OwnLoaders):
        """Draws nothing: Lightning opens reloaded loaders twice, and so draws a number more."""

        shuffle = False

        def __init__(self, case: Any) -> None:
            super().__init__(case)
            self.net[2].p = 0.0

    class Hparams(Plain):
        def __init__(self, case: Any, lr: float = 0.01, widths: tuple[int, ...] = (16, 4), name: str = "net") -> None:
            super().__init__(case)
            self.save_hyperparameters(ignore=["case"])

    class OwnCallbacks(Plain):
        def configure_callbacks(self) -> Any:
            return [pl.callbacks.EarlyStopping("vl", patience=0, min_delta=10.0)]

    class ConfiguredLate(Plain):
        def __init__(self, case: Any) -> None:
            super().__init__(case)
            self.net = None

        def configure_model(self) -> None:
            if self.net is None:
                self.net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Dropout(0.1), nn.Linear(16, 1))

    class Checkpointed(Plain):
        def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            checkpoint["mine"] = {"words": ["a", "b"], "tensor": torch.arange(3)}

    class Extras(Plain):
        def on_train_epoch_end(self) -> None:
            self.print("epoch", self.current_epoch)
            self.log("estimated", float(self.trainer.estimated_stepping_batches))
            self.log("batches", float(self.trainer.num_training_batches))
            self.log("total", float(self.trainer.fit_loop.total_batch_idx))

    class Predicting(Plain):
        def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
            self.note("predict_step", batch, batch_idx, dataloader_idx)
            return {"out": self(batch), "i": batch_idx}

    return SimpleNamespace(**{k: v for k, v in locals().items() if isinstance(v, type)})
