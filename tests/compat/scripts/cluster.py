"""A script from a cluster, its arguments kept for one machine."""

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.plugins import DDPPlugin
from pytorch_lightning.profiler import SimpleProfiler
from torch import nn
from torch.utils.data import DataLoader


class Model(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def training_step(self, batch, batch_idx):
        loss = sum(self.layer(part).mean() for part in batch)
        self.log("loss", loss)
        return loss

    def training_step_end(self, loss):
        return loss

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        return [optimizer], [{"scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 1), "interval": "epoch"}]

    def configure_gradient_clipping(self, optimizer, optimizer_idx, gradient_clip_val, gradient_clip_algorithm):
        assert optimizer_idx == 0
        self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def lr_scheduler_step(self, scheduler, optimizer_idx, metric):
        scheduler.step()

    def train_dataloader(self):
        return [DataLoader(torch.randn(6, 4), batch_size=2), DataLoader(torch.randn(8, 4), batch_size=2)]


model = Model()
trainer = pl.Trainer(
    accelerator="ddp",
    num_processes=1,
    num_nodes=1,
    tpu_cores=None,
    plugins=DDPPlugin(find_unused_parameters=False),
    replace_sampler_ddp=False,
    prepare_data_per_node=False,
    amp_backend="native",
    amp_level="O2",
    precision=32,
    flush_logs_every_n_steps=10,
    log_gpu_memory=None,
    multiple_trainloader_mode="min_size",
    reload_dataloaders_every_epoch=True,
    gradient_clip_val=0.1,
    max_epochs=2,
    max_steps=None,
    checkpoint_callback=False,
    progress_bar_refresh_rate=0,
    profiler=SimpleProfiler(),
    logger=CSVLogger("logs"),
)
trainer.fit(model)
assert trainer.global_step == 6  # the shorter loader ends the epoch
assert trainer.training_type_plugin.world_size == 1
assert not trainer.use_distributed_sampler
assert trainer.lr_schedulers[0]["interval"] == "epoch"
print("done")
