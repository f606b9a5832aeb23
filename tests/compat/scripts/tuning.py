"""Rates and batch sizes found before training, weights averaged, metrics from the framework."""

import pytorch_lightning as pl
import torch
from pytorch_lightning.metrics import Metric
from pytorch_lightning.metrics.functional import mean_squared_error
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Count(Metric):
    def __init__(self):
        super().__init__()
        self.add_state("total", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, x):
        self.total += len(x)

    def compute(self):
        return self.total.float()


class Model(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.lr, self.batch_size = 1e-5, 2
        self.layer, self.count = nn.Linear(4, 1), Count()

    def train_dataloader(self):
        x = torch.randn(256, 4)
        return DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=self.batch_size)

    def training_step(self, batch, batch_idx):
        x, y = batch
        self.count(x)
        self.log("count", self.count, on_step=False, on_epoch=True)
        return mean_squared_error(self.layer(x), y)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)


quiet = {"checkpoint_callback": False, "progress_bar_refresh_rate": 0, "weights_summary": None, "logger": False}
model = Model()
pl.Trainer(max_epochs=1, auto_lr_find=True, **quiet).tune(model)
assert model.lr != 1e-5, model.lr
pl.Trainer(max_epochs=1, auto_scale_batch_size="power", **quiet).tune(model)
assert model.batch_size > 2, model.batch_size
trainer = pl.Trainer(max_epochs=3, stochastic_weight_avg=True, **quiet)
trainer.fit(model)
assert trainer.callback_metrics["count"] == 256
print("done")
