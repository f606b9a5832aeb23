# /// script
# dependencies = ["neuralprophet==0.9.0", "pytorch-lightning==2.6.6", "torch==2.13.0"]
# ///
"""neuralprophet: trend, seasons and autoregression of a made-up series, saved, loaded and forecasting."""

import json
import os
import tempfile

import numpy as np
import pandas as pd
from neuralprophet import NeuralProphet, load, save, set_log_level, set_random_seed

os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"  # it pickles whole models
set_log_level("ERROR")
set_random_seed(7)
rng = np.random.default_rng(0)
frame = pd.DataFrame({"ds": pd.date_range("2024-01-01", periods=200, freq="D")})
frame["y"] = np.arange(200) / 50 + np.sin(np.arange(200) * 2 * np.pi / 7) + rng.normal(0, 0.1, 200)
model = NeuralProphet(
    n_lags=7, n_forecasts=3, epochs=5, batch_size=32, learning_rate=0.1, yearly_seasonality=False, accelerator="cpu"
)
train, valid = model.split_df(frame, freq="D", valid_p=0.2)
metrics = model.fit(train, freq="D", validation_df=valid, progress=None, checkpointing=False)
path = f"{tempfile.mkdtemp()}/model.np"
save(model, path)
forecasts = [m.predict(frame)["yhat1"].astype("float64").sum() for m in (model, load(path))]
print(
    json.dumps(
        {
            "loss": [float(x) for x in metrics["Loss"]],
            "test": model.test(valid).to_dict("records"),
            "forecasts": [float(f) for f in forecasts],
        }
    )
)
