"""Save, stop, resume: with the arguments that named files and rates in 1.x."""

import glob

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities.cloud_io import load as pl_load
from torch import nn
from torch.utils.data import DataLoader


class Model(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def training_step(self, batch, batch_idx):
        loss = self.layer(batch).pow(2).mean()
        return {"loss": loss, "log": {"loss": loss}}

    def validation_step(self, batch, batch_idx):
        return self.layer(batch).pow(2).mean()

    def validation_epoch_end(self, outputs):
        return {"val_loss": torch.stack(outputs).mean()}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


data = DataLoader(torch.randn(16, 4), batch_size=4)


def trainer(epochs, **flags):
    return pl.Trainer(
        max_epochs=epochs,
        weights_summary="top",
        progress_bar_refresh_rate=0,
        logger=False,
        terminate_on_nan=True,
        **flags,
    )


whole = Model()
start = {k: v.clone() for k, v in whole.state_dict().items()}
trainer(4, checkpoint_callback=False).fit(whole, data, data)

half = Model()
half.load_state_dict(start)
checkpoint = ModelCheckpoint(filepath="saved/{epoch}-{val_loss:.2f}", monitor="val_loss", save_top_k=2, period=1)
trainer(2, checkpoint_callback=checkpoint).fit(half, data, data)
files = sorted(glob.glob("saved/*.ckpt"))
assert len(files) == 2 and "epoch=0" in files[0], files

resumed = Model()
trainer(4, resume_from_checkpoint=files[-1], checkpoint_callback=False).fit(resumed, data, data)
assert torch.equal(resumed.layer.weight, whole.layer.weight)
assert pl_load(files[-1], map_location="cpu")["epoch"] == 1
print("done")
