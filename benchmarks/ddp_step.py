"""Steps per second of two CPU processes: a hand-written DDP loop, fulgurite, and Lightning, side by side.

    torchrun --standalone --nproc-per-node=2 benchmarks/ddp_step.py [--steps 300] [--rounds 5] [--lightning]

Each round runs every contender for the same number of steps in the same two processes, in turn, so that what else the
machine does hits all alike; the median of the rounds counts. The model is tiny on purpose: the framework's part shows.
CPU seconds of both processes are measured too: less noisy than wall time where others use the machine. The last line
is JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler

QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "max_epochs": 1,
}


def network(width: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, width), nn.Tanh(), nn.Linear(width, 1))


def module(base: type, width: int) -> Any:
    class Model(base):  # type: ignore[misc]  # either library's
        def __init__(self) -> None:
            super().__init__()
            self.net = network(width)

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            return (self.net(batch[0]) - batch[1]).square().mean()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.01)

        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            if batch_idx == 10:  # warm
                self.started = time.perf_counter(), time.process_time()

        def on_train_end(self) -> None:
            self.took = time.perf_counter() - self.started[0], time.process_time() - self.started[1]

    return Model()


def raw(data: TensorDataset, width: int, group: Any) -> tuple[float, float]:
    model = DistributedDataParallel(network(width), process_group=group)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    started = 0.0, 0.0
    for i, (x, y) in enumerate(DataLoader(data, 16, sampler=DistributedSampler(data, shuffle=False))):
        if i == 10:
            started = time.perf_counter(), time.process_time()
        loss = (model(x) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.perf_counter() - started[0], time.process_time() - started[1]


def trained(library: Any, data: TensorDataset, width: int, strategy: Any) -> tuple[float, float]:
    model = module(library.LightningModule, width)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = library.Trainer(**QUIET, devices=2, strategy=strategy)
        trainer.fit(model, DataLoader(data, 16))
    return model.took  # type: ignore[no-any-return]  # set at the end of training


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--steps", type=int, default=300)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--width", type=int, default=16)
    arguments.add_argument("--lightning", action="store_true")
    chosen = arguments.parse_args()
    torch.set_num_threads(1)
    import fulgurite

    strategy = fulgurite.Trainer(**QUIET, devices=2).strategy
    strategy.setup_environment()
    group = strategy.gradient_group  # type: ignore[attr-defined]  # DDP's; all contenders exchange gradients over it
    count = 32 * (chosen.steps + 10)
    data = TensorDataset(torch.randn(count, 8), torch.randn(count, 1))
    contenders: dict[str, Any] = {
        "raw": lambda: raw(data, chosen.width, group),
        "fulgurite": lambda: trained(fulgurite, data, chosen.width, "ddp"),
    }
    if chosen.lightning:
        import lightning.pytorch

        strategies = lightning.pytorch.strategies
        contenders["lightning"] = lambda: trained(
            lightning.pytorch, data, chosen.width, strategies.DDPStrategy(process_group=group)
        )
    walls: dict[str, list[float]] = {name: [] for name in contenders}
    cpus: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(chosen.rounds):
        for name, run in contenders.items():
            dist.barrier()
            took = torch.tensor(run(), dtype=torch.float64)
            dist.all_reduce(took)
            walls[name].append(float(took[0]) / 2)
            cpus[name].append(float(took[1]) / 2)
    if dist.get_rank() == 0:
        result: dict[str, Any] = {"benchmark": "ddp_step", "processes": 2, "steps": chosen.steps, "width": chosen.width}
        for name in contenders:
            wall, cpu = statistics.median(walls[name]), statistics.median(cpus[name])
            result[name] = {
                "steps_per_s": round(chosen.steps / wall),
                "wall_us_per_step": round(wall / chosen.steps * 1e6),
                "cpu_us_per_step": round(cpu / chosen.steps * 1e6),
                "wall_to_raw": round(wall / statistics.median(walls["raw"]), 3),
                "cpu_to_raw": round(cpu / statistics.median(cpus["raw"]), 3),
            }
        print(json.dumps(result))


if __name__ == "__main__":
    main()
