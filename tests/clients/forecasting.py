# /// script
# dependencies = ["pytorch-forecasting==1.8.0", "lightning==2.6.6", "torch==2.13.0"]
# ///
"""pytorch-forecasting: a temporal fusion transformer on made-up sales, its learning rate found, saved and loaded."""

import json
import os
import tempfile

import numpy as np
import pandas as pd
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.tuner import Tuner
from pytorch_forecasting import GroupNormalizer, QuantileLoss, TemporalFusionTransformer, TimeSeriesDataSet

os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"  # its hyper-parameters hold objects of its own
seed_everything(7)
rng = np.random.default_rng(0)
shops, days = 6, 60
frame = pd.DataFrame(
    {
        "shop": np.repeat([f"s{i}" for i in range(shops)], days),
        "day": np.tile(np.arange(days), shops),
        "price": rng.uniform(1, 2, shops * days).round(3),
    }
)
weekday = np.sin(frame["day"] * 2 * np.pi / 7)
frame["sales"] = (10 + 3 * weekday - 2 * frame["price"] + rng.normal(0, 0.3, shops * days)).astype("float32")
training = TimeSeriesDataSet(
    frame[frame["day"] < 50],
    time_idx="day",
    target="sales",
    group_ids=["shop"],
    max_encoder_length=14,
    max_prediction_length=5,
    static_categoricals=["shop"],
    time_varying_known_reals=["day", "price"],
    time_varying_unknown_reals=["sales"],
    target_normalizer=GroupNormalizer(groups=["shop"]),
)
validation = TimeSeriesDataSet.from_dataset(training, frame, min_prediction_idx=50, stop_randomization=True)
train_loader = training.to_dataloader(train=True, batch_size=32, num_workers=0)
val_loader = validation.to_dataloader(train=False, batch_size=32, num_workers=0)

model = TemporalFusionTransformer.from_dataset(
    training, learning_rate=0.03, hidden_size=8, attention_head_size=1, dropout=0.1, loss=QuantileLoss(), log_interval=0
)
folder = tempfile.mkdtemp()
quiet = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
finder = Tuner(Trainer(**quiet, logger=False, enable_checkpointing=False, default_root_dir=folder)).lr_find(
    model, train_dataloaders=train_loader, val_dataloaders=val_loader, min_lr=1e-4, max_lr=1.0, num_training=20
)
checkpoints = ModelCheckpoint(monitor="val_loss", dirpath=folder)
trainer = Trainer(
    **quiet,
    max_epochs=3,
    gradient_clip_val=0.1,
    logger=CSVLogger(folder),
    callbacks=[EarlyStopping("val_loss", patience=5), LearningRateMonitor(), checkpoints],
)
trainer.fit(model, train_loader, val_loader)
best = TemporalFusionTransformer.load_from_checkpoint(checkpoints.best_model_path)
predictions = best.predict(val_loader, trainer_kwargs={**quiet, "logger": False})
raw = best.predict(val_loader, mode="raw", return_x=True, trainer_kwargs={**quiet, "logger": False})
print(
    json.dumps(
        {
            "suggested": finder.suggestion(),
            "val_loss": trainer.callback_metrics["val_loss"].item(),
            "best": checkpoints.best_model_path.rsplit("/", 1)[1],
            "predicted": predictions.double().sum().item(),
            "attention": raw.output.encoder_attention.double().sum().item(),
            "step": trainer.global_step,
        }
    )
)
