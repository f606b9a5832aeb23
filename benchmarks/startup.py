"""What importing costs over `import torch`, and the time from process start to the first training step.

Fresh processes, in turns; the median counts. Prints one line of JSON. `python benchmarks/startup.py --turns 5`
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

SRC = Path(__file__).parents[1] / "src"
IMPORT = """
import sys, time, torch
before, start = len(sys.modules), time.process_time()
import {package}
print(time.process_time() - start, len(sys.modules) - before)
"""
RAW = """
import time, torch
model = torch.nn.Linear(32, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for x in torch.utils.data.DataLoader(torch.randn(16, 32), 8):
    optimizer.zero_grad(); model(x).sum().backward(); optimizer.step()
    print(time.process_time(), 0)
    break
"""
FIT = """
import time, torch, logging, warnings
warnings.filterwarnings("ignore"); logging.disable(logging.WARNING)
import {package} as pl
class Model(pl.LightningModule):
    def __init__(self): super().__init__(); self.layer = torch.nn.Linear(32, 2)
    def training_step(self, batch, i): return self.layer(batch).sum()
    def configure_optimizers(self): return torch.optim.SGD(self.parameters(), lr=0.1)
    def on_train_batch_end(self, *a):
        print(time.process_time(), 0)
pl.Trainer(max_steps=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
           enable_model_summary=False).fit(Model(), torch.utils.data.DataLoader(torch.randn(16, 32), 8))
"""


def measure(code: str) -> tuple[float, int]:
    environment = {**os.environ, "PYTHONPATH": str(SRC), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    seconds, modules = done.stdout.split("\n")[-2].split()
    return float(seconds), int(modules)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=5)
    turns = parser.parse_args().turns
    packages = [
        p for p in ("fulgurite", "lightning.pytorch") if p == "fulgurite" or importlib.util.find_spec("lightning")
    ]
    scripts = {f"import {p}": IMPORT.format(package=p) for p in packages}
    scripts |= {"first step, raw": RAW, **{f"first step, {p}": FIT.format(package=p) for p in packages}}
    seen: dict[str, list[tuple[float, int]]] = {name: [] for name in scripts}
    for _ in range(turns):
        for name, code in scripts.items():
            seen[name].append(measure(code))
    cpu = {name: round(statistics.median(s for s, _ in runs), 3) for name, runs in seen.items()}
    modules = {name: runs[0][1] for name, runs in seen.items() if name.startswith("import")}
    print(json.dumps({"benchmark": "startup", "cpu_seconds": cpu, "modules_on_top_of_torch": modules, "turns": turns}))


if __name__ == "__main__":
    main()
