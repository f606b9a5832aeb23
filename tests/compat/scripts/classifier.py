"""A classifier as tutorials of 2020 had it: steps and epoch ends return what is to be logged."""

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.loggers import CSVLogger
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset


class Classifier(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.l1 = nn.Linear(8, 3)

    def forward(self, x):
        return self.l1(x)

    def training_step(self, batch, batch_nb):
        x, y = batch
        loss = F.cross_entropy(self(x), y)
        tensorboard_logs = {"train_loss": loss}
        return {"loss": loss, "log": tensorboard_logs, "progress_bar": {"running_loss": loss}}

    def validation_step(self, batch, batch_nb):
        x, y = batch
        return {"val_loss": F.cross_entropy(self(x), y), "correct": (self(x).argmax(1) == y).float().mean()}

    def validation_epoch_end(self, outputs):
        avg_loss = torch.stack([x["val_loss"] for x in outputs]).mean()
        accuracy = torch.stack([x["correct"] for x in outputs]).mean()
        return {
            "val_loss": avg_loss,
            "log": {"val_loss": avg_loss, "val_acc": accuracy},
            "progress_bar": {"acc": accuracy},
        }

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.02)


x = torch.randn(64, 8)
data = TensorDataset(x, x[:, :3].argmax(1))
model = Classifier()
trainer = pl.Trainer(
    gpus=0,
    max_epochs=4,
    progress_bar_refresh_rate=0,
    weights_summary=None,
    checkpoint_callback=False,
    early_stop_callback=EarlyStopping(monitor="val_loss"),
    row_log_interval=2,
    logger=CSVLogger("logs"),
)
trainer.fit(model, DataLoader(data, batch_size=16, shuffle=True), DataLoader(data, batch_size=16))

metrics = trainer.callback_metrics
assert {"train_loss", "running_loss", "val_loss", "val_acc", "acc"} <= set(metrics), metrics
assert set(trainer.progress_bar_metrics) == {"running_loss", "acc"}, trainer.progress_bar_metrics
rows = open(trainer.log_dir + "/metrics.csv").read().splitlines()
assert rows[0] == "epoch,step,train_loss,val_acc,val_loss", rows[0]
assert len(rows) == 1 + 4 * (2 + 1), rows
print("done", trainer.current_epoch, trainer.global_step)
