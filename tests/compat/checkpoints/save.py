"""Wrote the files of this folder: run by each version of pytorch_lightning, it saves in the middle of the second epoch.

Old versions need a few names that torch and NumPy no longer have; they are given back below.
"""

import numpy
import torch
from torch.utils.data import DataLoader

numpy.Inf = numpy.inf
torch.optim.lr_scheduler._LRScheduler = torch.optim.lr_scheduler.LRScheduler

import pytorch_lightning as pl  # noqa: E402  # wants the names above


class Module(pl.LightningModule):
    def __init__(self, width=1, lr=0.1):
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(4, width)

    def training_step(self, batch, batch_idx):
        loss = self.layer(batch).pow(2).mean()
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.layer(batch).pow(2).mean())

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=self.hparams.lr)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]


class Save(pl.Callback):
    def on_train_batch_end(self, trainer, module, *args):
        if trainer.current_epoch == 1 and trainer.global_step == 6:
            trainer.save_checkpoint(f"{pl.__version__}.ckpt")


def data(n):
    return DataLoader(torch.randn(n * 2, 4, generator=torch.Generator().manual_seed(n)), batch_size=2)


if __name__ == "__main__":
    torch.manual_seed(1)
    module = Module()
    keep = pl.callbacks.ModelCheckpoint("out", monitor="val_loss", save_top_k=-1, filename="{epoch}")
    flags = {"logger": False, "enable_progress_bar": False, "num_sanity_val_steps": 0, "max_epochs": 3}
    if not pl.__version__.startswith("1.5"):
        flags["accelerator"] = "cpu"
    trainer = pl.Trainer(callbacks=[keep, Save()], **flags)
    trainer.fit(module, data(4), data(1))
    print(pl.__version__, trainer.global_step, [p.tolist() for p in module.parameters()])
