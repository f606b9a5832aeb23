"""A script driven by its command line: the trainer's own options and the model's."""

from argparse import ArgumentParser

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Regressor(pl.LightningModule):
    @staticmethod
    def add_model_specific_args(parent_parser):
        parser = ArgumentParser(parents=[parent_parser], add_help=False)
        parser.add_argument("--learning_rate", type=float, default=0.01)
        parser.add_argument("--hidden", type=int, default=8)
        return parser

    def __init__(self, hparams):
        super().__init__()
        self.hparams = hparams
        self.net = nn.Sequential(nn.Linear(2, hparams.hidden), nn.Tanh(), nn.Linear(hparams.hidden, 1))

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = nn.functional.mse_loss(self.net(x), y)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.hparams.learning_rate)


class Data(pl.LightningDataModule):
    def __init__(self, size: int = 16, batch_size: int = 4):
        super().__init__()
        self.size, self.batch_size = size, batch_size

    def train_dataloader(self):
        x = torch.randn(self.size, 2)
        return DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=self.batch_size)


parser = ArgumentParser()
parser.add_argument("--seed", type=int, default=1)
parser = Regressor.add_model_specific_args(parser)
parser = Data.add_argparse_args(parser)
parser = pl.Trainer.add_argparse_args(parser)
args = parser.parse_args()

pl.seed_everything(args.seed)
model = Regressor(args)
trainer = pl.Trainer.from_argparse_args(args, logger=False, checkpoint_callback=False)
trainer.fit(model, datamodule=Data.from_argparse_args(args))

assert trainer.max_epochs == 3 and trainer.current_epoch == 3
assert trainer.gradient_clip_val == 0.5 and trainer.limit_train_batches == 0.5
assert trainer.global_step == 3 * 4, trainer.global_step  # half of 32/4 batches, three epochs
assert model.hparams.hidden == 16 and model.hparams["learning_rate"] == 0.01
print("done")
