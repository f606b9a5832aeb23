"""What was split between steps and step ends, for dp and ddp2; the layers' table in full."""

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.distributed import rank_zero_only
from pytorch_lightning.utilities.seed import seed_everything
from torch import nn
from torch.utils.data import DataLoader

seed_everything(3)


class AutoEncoder(pl.LightningModule):
    def __init__(self, width=2):
        super().__init__()
        self.hparams = {"width": width}
        self.encoder, self.decoder = nn.Linear(6, width), nn.Linear(width, 6)
        self.ends, self.given = [], []

    def training_step(self, batch, batch_idx):
        return {"x": batch, "y": self.decoder(self.encoder(batch))}

    def training_step_end(self, outputs):
        loss = nn.functional.mse_loss(outputs["y"], outputs["x"])
        self.log("loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        return self.decoder(self.encoder(batch)) - batch

    def validation_step_end(self, difference):
        self.log("val_loss", difference.pow(2).mean())
        return difference.shape[0]

    def validation_epoch_end(self, outputs):
        self.ends.append(sum(outputs))

    def on_train_epoch_end(self, outputs):
        self.given.append(len(outputs))

    def predict_step(self, batch, batch_idx):
        return self.encoder(batch)

    def on_predict_epoch_end(self, results):
        self.given.append(len(results[0]))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)

    @rank_zero_only
    def say(self, text):
        print(text)


data = DataLoader(torch.randn(20, 6), batch_size=5)
model = AutoEncoder()
trainer = pl.Trainer(
    max_epochs=2,
    weights_summary="full",
    checkpoint_callback=False,
    progress_bar_refresh_rate=0,
    logger=False,
    num_sanity_val_steps=1,
    distributed_backend="dp",
    auto_select_gpus=False,
    move_metrics_to_cpu=True,
)
trainer.fit(model, data, data)
codes = trainer.predict(model, data)

assert model.ends == [5, 20, 20], model.ends
assert model.given == [4, 4, 4], model.given
assert torch.cat(codes).shape == (20, 2)
model.say("done")
