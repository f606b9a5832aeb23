"""A WGAN: the critic trains five batches for each of the generator's, and steps in its own way."""

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader


class WGAN(pl.LightningModule):
    def __init__(self, lr: float = 0.001, **kwargs):
        super().__init__()
        self.save_hyperparameters()
        self.generator, self.critic = nn.Linear(3, 2), nn.Linear(2, 1)
        self.turns, self.stepped, self.outputs = [], [], []

    def training_step(self, batch, batch_idx, optimizer_idx):
        self.turns.append(optimizer_idx)
        fake = self.generator(torch.randn(len(batch), 3))
        if optimizer_idx == 0:
            return {"loss": -self.critic(fake).mean()}
        return {"loss": self.critic(fake.detach()).mean() - self.critic(batch).mean()}

    def training_epoch_end(self, outputs):
        self.outputs.append([round(float(out["loss"]), 4) for out in outputs])

    def optimizer_step(
        self,
        epoch,
        batch_idx,
        optimizer,
        optimizer_idx,
        optimizer_closure,
        on_tpu=False,
        using_native_amp=False,
        using_lbfgs=False,
    ):
        self.stepped.append(optimizer_idx)
        optimizer.step(closure=optimizer_closure)
        for p in self.critic.parameters():
            p.data.clamp_(-0.1, 0.1)

    def configure_optimizers(self):
        return (
            {"optimizer": torch.optim.RMSprop(self.generator.parameters(), lr=self.hparams.lr), "frequency": 1},
            {"optimizer": torch.optim.RMSprop(self.critic.parameters(), lr=self.hparams.lr), "frequency": 5},
        )


wgan = WGAN(lr=0.01)
trainer = pl.Trainer(max_epochs=2, checkpoint_callback=False, logger=False, progress_bar_refresh_rate=0)
trainer.fit(wgan, train_dataloader=DataLoader(torch.randn(24, 2), batch_size=2))

assert wgan.turns == wgan.stepped == [0, 1, 1, 1, 1, 1] * 4, wgan.turns
assert [len(losses) for losses in wgan.outputs] == [12, 12]
assert all(p.abs().max() <= 0.1 for p in wgan.critic.parameters())
print("done")
