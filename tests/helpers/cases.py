"""Runs that N processes and one must agree on: the same function makes both, told how many processes there are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, Sampler, TensorDataset, WeightedRandomSampler

import fulgurite as pl

F64 = torch.float64
QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
    "precision": "64-true",
}


class Net(pl.LightningModule):
    """A small classifier that notes which samples it has seen, and logs means, sums and metric objects."""

    def __init__(self, manual: bool = False, schedule: str = "", masked: bool = False, metrics: bool = True) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.net = torch.nn.Sequential(
            torch.nn.Linear(4, 8, dtype=F64), torch.nn.Tanh(), torch.nn.Linear(8, 1, dtype=F64)
        )
        self.automatic_optimization = not manual
        self.schedule, self.masked = schedule, masked
        self.seen: list[list[int]] = []
        self.evaluated: list[int] = []
        self.stages: dict[str, Any] = {}
        if metrics:
            from torchmetrics.classification import BinaryAccuracy, BinaryAUROC

            self.acc, self.auroc, self.train_acc = BinaryAccuracy(), BinaryAUROC(), BinaryAccuracy()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x).squeeze(-1)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y, k = batch
        self.seen.append(k.tolist())
        logits = self(x)
        each = torch.nn.functional.binary_cross_entropy_with_logits(logits, y, reduction="none")
        loss = each.mean()
        output: Any = loss
        if self.masked:
            mask = (k % 3 != 0).to(F64)
            loss = (each * mask).sum() / mask.sum().clamp(min=1)
            output = {"loss": loss, "weight": mask.sum()}
            self.log("loss", loss, on_epoch=True, on_step=False, batch_size=int(mask.sum()))
        else:
            self.log("loss", loss, on_epoch=True)
        self.log("most", x.max(), on_step=False, on_epoch=True, reduce_fx="max")
        if hasattr(self, "acc"):
            self.train_acc.update(logits.detach().sigmoid(), y.long())
            self.log("train_acc", self.train_acc, on_step=False, on_epoch=True)
        if not self.automatic_optimization:
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
        return output

    def evaluation(self, batch: Any, name: str, dataloader_idx: int = 0) -> None:
        x, y, k = batch
        self.evaluated += k.tolist()
        logits = self(x)
        self.log(f"{name}_loss", torch.nn.functional.binary_cross_entropy_with_logits(logits, y))
        self.log(f"{name}_sum", y.sum(), reduce_fx="sum")
        if hasattr(self, "acc") and dataloader_idx == 0:
            self.acc.update(logits.sigmoid(), y.long())
            self.auroc.update(logits.sigmoid(), y.long())
            self.log_dict({f"{name}_acc": self.acc, f"{name}_auroc": self.auroc})

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.evaluation(batch, "val")

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.evaluation(batch, "test", dataloader_idx)

    def predict_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return self(batch[0])

    def on_validation_epoch_end(self) -> None:
        self.log("val_seen", float(len(self.evaluated)), reduce_fx="sum")

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.05)
        if self.schedule == "step":
            scheduler = torch.optim.lr_scheduler.OneCycleLR(
                optimizer, 0.1, total_steps=self.trainer.estimated_stepping_batches
            )
            return [optimizer], [{"scheduler": scheduler, "interval": "step"}]
        if self.schedule == "plateau":
            plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=0.2)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, "monitor": "val_loss"}}
        return optimizer


def samples(n: int, seed: int = 0) -> TensorDataset:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 4, generator=g, dtype=F64)
    y = (x.sum(1) + torch.randn(n, generator=g, dtype=F64) > 0).to(F64)
    return TensorDataset(x, y, torch.arange(n))


class Buckets(Sampler[list[int]]):
    """Batches of different sizes, shuffled by Python's own random numbers."""

    def __init__(self, sizes: list[int]) -> None:
        self.sizes = sizes

    def __iter__(self) -> Iterator[list[int]]:
        order = torch.randperm(sum(self.sizes)).tolist()
        for size in self.sizes:
            yield [order.pop() for _ in range(size)]

    def __len__(self) -> int:
        return len(self.sizes)


class Grouped(Sampler[list[int]]):
    """What one process takes in the place of N: N batches of another sampler as one."""

    def __init__(self, sampler: Any, n: int) -> None:
        self.sampler, self.n = sampler, n

    def __iter__(self) -> Iterator[list[int]]:
        batches = list(self.sampler)
        for i in range(0, len(batches), self.n):
            yield [k for batch in batches[i : i + self.n] for k in batch]

    def __len__(self) -> int:
        return -(-len(self.sampler) // self.n)


class Stream(IterableDataset[Any]):
    """Sharded by its user: process r of N yields the samples r::N."""

    def __init__(self, data: TensorDataset, rank: int, n: int) -> None:
        self.data, self.rank, self.n = data, rank, n

    def __iter__(self) -> Iterator[Any]:
        return (self.data[i] for i in range(self.rank, len(self.data), self.n))


# name -> (samples, how to load, arguments of Net, flags of the trainer). The batch of all processes together is 12.
CASES: dict[str, tuple[int, str, dict[str, Any], dict[str, Any]]] = {
    "even": (24, "order", {}, {}),
    "uneven": (25, "order", {}, {}),
    "one sample left": (13, "shuffle", {}, {}),
    "fewer samples than processes": (1, "order", {}, {}),
    "accumulation": (61, "shuffle", {}, {"accumulate_grad_batches": 2}),
    "clipping": (29, "shuffle", {}, {"gradient_clip_val": 0.05}),
    "schedule by step": (29, "shuffle", {"schedule": "step"}, {}),
    "plateau": (29, "order", {"schedule": "plateau"}, {"max_epochs": 5}),
    "own sampler": (31, "weighted", {}, {}),
    "drop_last": (31, "drop_last", {}, {}),
    "buckets": (31, "buckets", {}, {}),
    "buckets in mid-epoch validation": (31, "buckets", {}, {"val_check_interval": 1}),
    "stream": (29, "stream", {}, {}),
    "stream that one process ends first": (13, "stream", {}, {}),
    "stream with fewer samples than a batch": (7, "stream", {}, {}),
    "masked": (31, "shuffle", {"masked": True}, {}),
    "manual": (29, "shuffle", {"manual": True}, {}),
    "limits": (60, "shuffle", {}, {"limit_train_batches": 3}),
    "steps": (60, "shuffle", {}, {"max_steps": 7, "max_epochs": -1}),
    "one batch of a list": (3, "shuffle", {"masked": True}, {}),
}


def loader(kind: str, n: int, world: int, rank: int, as_many: int) -> DataLoader[Any]:
    """`world` processes share it; for one process in the place of N, `as_many` is N and the batch N times as large."""
    data, size = samples(n), 12 // as_many * (as_many // world)
    if kind == "stream":
        return DataLoader(Stream(data, rank, world), size)
    if kind == "weighted":
        return DataLoader(data, size, sampler=WeightedRandomSampler(torch.arange(1.0, n + 1), n))
    if kind == "buckets":
        buckets: Any = Buckets([4, 3, 5, 2, 6, 1, 7, n - 28])
        return DataLoader(data, batch_sampler=Grouped(buckets, as_many) if world < as_many else buckets)
    return DataLoader(data, size, shuffle=kind in ("shuffle", "drop_last"), drop_last=kind == "drop_last")


def run_case(name: str, world: int, rank: int, as_many: int) -> dict[str, Any]:
    """Fit, test and predict; what must be the same on any number of processes."""
    n, kind, arguments, flags = CASES[name]
    model = Net(**arguments)
    torch.manual_seed(100 if rank == 0 else 1000 + rank)  # process 0's order is everybody's
    strategy = "single_device" if world == 1 else "auto"
    trainer = pl.Trainer(**{**QUIET, "max_epochs": 3, **flags}, devices=world, strategy=strategy)
    val = DataLoader(samples(max(n // 2, 2), 5), 4)
    trainer.fit(model, loader(kind, n, world, rank, as_many), val)
    metrics = {k: v.clone() for k, v in trainer.callback_metrics.items() if not k.startswith("loss_step")}
    seen, validated = [k for batch in model.seen for k in batch], list(model.evaluated)
    model.evaluated = []
    tested = trainer.test(model, [DataLoader(samples(7, 6), 2), DataLoader(samples(1, 7), 2)], verbose=False)
    predicted = trainer.predict(model, DataLoader(samples(9, 8), 2))
    return {
        "weights": torch.cat([p.detach().flatten() for p in model.parameters()]),
        "metrics": metrics,
        "tested": tested,
        "predicted": torch.cat(predicted) if predicted else torch.zeros(0, dtype=F64),
        "seen": seen,
        "validated": validated,
        "counters": (trainer.global_step, trainer.current_epoch, trainer.progress.total_batch),
        "lr": trainer.optimizers[0].param_groups[0]["lr"] if trainer.optimizers else None,
        "stop": trainer.should_stop,
    }
