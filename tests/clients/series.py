# /// script
# dependencies = ["darts==0.48.1", "pytorch-lightning==2.6.6", "lightning==2.6.6", "torch==2.13.0"]
# ///
"""darts: N-BEATS and a temporal convolution, validated, saved, the best checkpoint loaded, and forecasting."""

import json
import logging
import tempfile
import warnings

import numpy as np
from darts import TimeSeries
from darts.models import NBEATSModel, TCNModel
from pytorch_lightning.callbacks import EarlyStopping

warnings.simplefilter("ignore")
logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
rng = np.random.default_rng(0)
values = np.sin(np.arange(200) / 5) + rng.normal(0, 0.05, 200)
series = TimeSeries.from_values(values.astype("float32"))
train, valid = series[:150], series[150:]
folder = tempfile.mkdtemp()
common = {
    "input_chunk_length": 16,
    "output_chunk_length": 4,
    "n_epochs": 3,
    "batch_size": 32,
    "random_state": 7,
    "work_dir": folder,
    "force_reset": True,
    "save_checkpoints": True,
}
found = {}
for name, kind, more in (
    ("nbeats", NBEATSModel, {"num_stacks": 2, "num_blocks": 1, "num_layers": 2, "layer_widths": 16}),
    ("tcn", TCNModel, {"num_filters": 4, "dropout": 0.1}),
):
    stop = EarlyStopping("val_loss", patience=5)
    quiet = {"accelerator": "cpu", "callbacks": [stop], "enable_progress_bar": False, "enable_model_summary": False}
    model = kind(**common, **more, model_name=name, pl_trainer_kwargs=quiet)
    model.fit(train, val_series=valid)
    best = kind.load_from_checkpoint(name, folder, best=True, trusted=True)
    model.save(f"{folder}/{name}.pt")
    loaded = kind.load(f"{folder}/{name}.pt", trusted=True)
    found[name] = [float(m.predict(8, series=train).values().astype("float64").sum()) for m in (model, best, loaded)]
    found[name] += [float(stop.best_score), model.epochs_trained]
print(json.dumps(found))
