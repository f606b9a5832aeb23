# /// script
# dependencies = ["gluonts[torch]==0.17.0", "lightning==2.6.6", "torch==2.13.0"]
# ///
"""gluonts: DeepAR and a feed-forward network on made-up series, written to disk, read back and forecasting."""

import json
import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from gluonts.dataset.common import ListDataset
from gluonts.model.predictor import Predictor
from gluonts.torch import DeepAREstimator, SimpleFeedForwardEstimator
from lightning.pytorch import seed_everything
from lightning.pytorch.callbacks import EarlyStopping

os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"  # its hyper-parameters hold objects of its own
rng = np.random.default_rng(0)
series = ListDataset(
    [{"start": "2024-01-01", "target": np.sin(np.arange(80) / (3 + i)) + rng.normal(0, 0.1, 80)} for i in range(4)],
    freq="D",
)
folder = Path(tempfile.mkdtemp())
common = {"prediction_length": 5, "batch_size": 16, "num_batches_per_epoch": 6}
found = {}
for name, kind, more in (
    ("deepar", DeepAREstimator, {"freq": "D", "context_length": 10, "hidden_size": 8, "num_layers": 1}),
    ("feed_forward", SimpleFeedForwardEstimator, {"context_length": 10, "hidden_dimensions": [8]}),
):
    seed_everything(7)
    np.random.seed(7)
    trainer = {
        "max_epochs": 3,
        "accelerator": "cpu",
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": str(folder / name),
        "logger": False,
        "callbacks": [EarlyStopping("train_loss", patience=5)],
    }
    predictor = kind(**common, **more, trainer_kwargs=trainer).train(series, series)
    (folder / f"{name}-model").mkdir()
    predictor.serialize(folder / f"{name}-model")
    again = Predictor.deserialize(folder / f"{name}-model", device=torch.device("cpu"))
    sums = []
    for p in (predictor, again):
        torch.manual_seed(1)
        np.random.seed(1)
        sums.append(float(sum(f.mean.astype("float64").sum() for f in p.predict(series))))
    found[name] = sums
print(json.dumps(found))
