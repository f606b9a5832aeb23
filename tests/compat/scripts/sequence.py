"""A sequence tagger: outputs of all steps at the end of each epoch, gradient norms, several loaders."""

import pytorch_lightning as pl
import torch
from pytorch_lightning.core.lightning import LightningModule
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Tagger(LightningModule):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(4, 8, batch_first=True), nn.Linear(8, 2)
        self.seen = []

    def step(self, batch):
        x, y = batch
        hidden, _ = self.lstm(x)
        return nn.functional.cross_entropy(self.head(hidden).transpose(1, 2), y)

    def training_step(self, batch, batch_idx):
        loss = self.step(batch)
        self.log("loss", loss, on_step=True, on_epoch=True)
        return {"loss": loss, "n": len(batch[0])}

    def training_epoch_end(self, outputs):
        assert all(not out["loss"].requires_grad for out in outputs)
        self.seen.append(("train", [out["n"] for out in outputs]))
        self.log("train_total", torch.stack([out["loss"] for out in outputs]).sum())

    def validation_step(self, batch, batch_idx, dataloader_idx):
        return self.step(batch)

    def validation_epoch_end(self, outputs):
        self.seen.append(("val", [len(losses) for losses in outputs]))
        self.log("val_loss", torch.cat([torch.stack(losses) for losses in outputs]).mean())

    def test_step(self, batch, batch_idx):
        self.log("test_loss", self.step(batch))
        return {"length": batch[0].shape[1]}

    def test_epoch_end(self, outputs):
        self.seen.append(("test", [out["length"] for out in outputs]))

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        return {
            "optimizer": optimizer,
            "lr_scheduler": torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer),
            "monitor": "val_loss",
        }


x = torch.randn(12, 5, 4)
data = TensorDataset(x, (x.sum(-1) > 0).long())
model = Tagger()
trainer = pl.Trainer(
    max_epochs=2,
    num_sanity_val_steps=0,
    track_grad_norm=2,
    gradient_clip_val=1.0,
    accumulate_grad_batches={0: 1, 1: 2},
    checkpoint_callback=False,
    logger=False,
    progress_bar_refresh_rate=0,
)
trainer.fit(model, DataLoader(data, batch_size=4), val_dataloaders=[DataLoader(data, 4), DataLoader(data, 6)])
results = trainer.test(model, test_dataloaders=DataLoader(data, batch_size=6), verbose=False)

assert model.seen[:2] == [("val", [3, 2]), ("train", [4, 4, 4])], model.seen
assert model.seen[-1] == ("test", [5, 5])
assert "test_loss" in results[0]
print("done")
