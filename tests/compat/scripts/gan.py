"""A GAN with two optimizers, each with its turn in training_step(..., optimizer_idx)."""

from argparse import Namespace
from collections import OrderedDict

import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader


class GAN(pl.LightningModule):
    def __init__(self, hparams):
        super().__init__()
        self.hparams = hparams
        self.generator = nn.Sequential(nn.Linear(hparams.latent_dim, 8), nn.ReLU(), nn.Linear(8, 2))
        self.discriminator = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1), nn.Sigmoid())
        self.turns, self.epochs = [], 0

    def forward(self, z):
        return self.generator(z)

    def adversarial_loss(self, y_hat, y):
        return F.binary_cross_entropy(y_hat, y)

    def training_step(self, batch, batch_idx, optimizer_idx):
        self.turns.append(optimizer_idx)
        z = torch.randn(batch.shape[0], self.hparams.latent_dim).type_as(batch)
        ones, zeros = torch.ones(batch.size(0), 1), torch.zeros(batch.size(0), 1)
        if optimizer_idx == 0:
            assert not any(p.requires_grad for p in self.discriminator.parameters())
            g_loss = self.adversarial_loss(self.discriminator(self(z)), ones)
            return OrderedDict({"loss": g_loss, "progress_bar": {"g_loss": g_loss}, "log": {"g_loss": g_loss}})
        assert not any(p.requires_grad for p in self.generator.parameters())
        real = self.adversarial_loss(self.discriminator(batch), ones)
        fake = self.adversarial_loss(self.discriminator(self(z).detach()), zeros)
        d_loss = (real + fake) / 2
        self.log("d_loss", d_loss, prog_bar=True)
        return d_loss

    def configure_optimizers(self):
        lr = self.hparams.lr
        opt_g = torch.optim.Adam(self.generator.parameters(), lr=lr, betas=(0.5, 0.999))
        opt_d = torch.optim.Adam(self.discriminator.parameters(), lr=lr, betas=(0.5, 0.999))
        return [opt_g, opt_d], [torch.optim.lr_scheduler.StepLR(opt_g, 1, gamma=0.5)]

    def on_epoch_end(self):
        self.epochs += 1


torch.manual_seed(1)
gan = GAN(Namespace(latent_dim=4, lr=0.01))
before = {name: p.clone() for name, p in gan.named_parameters()}
trainer = pl.Trainer(gpus=None, max_epochs=2, gradient_clip_val=0.5, progress_bar_refresh_rate=0, logger=False)
trainer.fit(gan, DataLoader(torch.randn(32, 2), batch_size=8))

assert gan.turns == [0, 1] * 8, gan.turns
assert gan.epochs == 2
assert trainer.global_step == 16  # both optimizers' steps, as Lightning counts since 1.6
assert all(not torch.equal(p, before[name]) for name, p in gan.named_parameters())
assert trainer.optimizers[0].param_groups[0]["lr"] == 0.01 / 4
assert {"g_loss", "d_loss"} <= set(trainer.callback_metrics)
assert gan.automatic_optimization and "training_step" not in vars(gan)  # left as it was
again = GAN.load_from_checkpoint(trainer.checkpoint_callback.best_model_path)
assert again.hparams.latent_dim == 4
print("done")
