# /// script
# dependencies = ["neuralforecast==3.3.0", "pytorch-lightning==2.6.6", "lightning==2.6.6", "torch==2.13.0"]
# ///
"""neuralforecast: N-HiTS and an LSTM over two series, with validation, saved, loaded and forecasting."""

import json
import tempfile

import numpy as np
import pandas as pd
from neuralforecast import NeuralForecast
from neuralforecast.models import LSTM, NHITS

rng = np.random.default_rng(0)
days = pd.date_range("2024-01-01", periods=120, freq="D")
frame = pd.concat(
    pd.DataFrame({"unique_id": f"s{i}", "ds": days, "y": np.sin(np.arange(120) / (3 + i)) + rng.normal(0, 0.05, 120)})
    for i in range(2)
)
folder = tempfile.mkdtemp()
quiet = {"accelerator": "cpu", "enable_progress_bar": False, "logger": False, "enable_checkpointing": False}
common = {"h": 7, "input_size": 21, "max_steps": 20, "val_check_steps": 5, "random_seed": 7, **quiet}
models = [
    NHITS(**common, mlp_units=[[16, 16]] * 3, early_stop_patience_steps=3),
    LSTM(**common, encoder_hidden_size=8, decoder_hidden_size=8),
]
forecaster = NeuralForecast(models=models, freq="D")
forecaster.fit(df=frame, val_size=14)
first = forecaster.predict()
forecaster.save(path=f"{folder}/saved", overwrite=True, save_dataset=True)
again = NeuralForecast.load(path=f"{folder}/saved").predict()
crossed = NeuralForecast(models=[NHITS(**common, mlp_units=[[16, 16]] * 3)], freq="D").cross_validation(
    frame, n_windows=2
)
names = [type(model).__name__ for model in models]
print(
    json.dumps(
        {
            "forecast": {name: float(first[name].astype("float64").sum()) for name in names},
            "loaded": {name: float(again[name].astype("float64").sum()) for name in names},
            "crossed": float(crossed["NHITS"].astype("float64").sum()),
            "losses": [
                float(forecaster.models[0].valid_trajectories[-1][1]),
                float(forecaster.models[0].train_trajectories[-1][1]),
            ],
        }
    )
)
