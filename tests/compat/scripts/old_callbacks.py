"""Callbacks with the hooks of 1.x, looking at the trainer by its names of then."""

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import nn
from torch.utils.data import DataLoader


class Model(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer, self.calls = nn.Linear(4, 1), []

    def training_step(self, batch, batch_idx):
        return self.layer(batch).mean()

    def validation_step(self, batch, batch_idx):
        self.log("val", self.layer(batch).mean())

    def on_train_batch_start(self, batch, batch_idx, dataloader_idx):
        assert dataloader_idx == 0

    def on_train_batch_end(self, outputs, batch, batch_idx, dataloader_idx):
        self.calls.append(float(outputs["loss"]))

    def transfer_batch_to_device(self, batch, device):
        return batch.to(device)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Recorder(Callback):
    def __init__(self):
        self.seen, self.checked = [], []

    def on_init_end(self, trainer):
        self.seen.append("init")

    def on_pretrain_routine_start(self, trainer, pl_module):
        self.seen.append("routine")

    def on_epoch_start(self, trainer, pl_module):
        self.checked.append(trainer.running_sanity_check)

    def on_batch_end(self, trainer, pl_module):
        self.seen.append("batch")

    def on_train_epoch_end(self, trainer, pl_module, outputs):
        self.seen.append(len(outputs))

    def on_validation_end(self, trainer, pl_module):
        assert trainer.get_model() is pl_module
        assert trainer.training_type_plugin.root_device.type == "cpu" and not trainer.num_gpus

    def on_save_checkpoint(self, trainer, pl_module, checkpoint):
        return {"seen": len(self.seen)}

    def on_load_checkpoint(self, trainer, pl_module, callback_state):
        self.seen.append(callback_state)


data = DataLoader(torch.randn(6, 4), batch_size=2)
recorder, model = Recorder(), Model()
trainer = pl.Trainer(
    max_epochs=1, callbacks=[recorder], progress_bar_refresh_rate=0, logger=False, weights_summary=None
)
trainer.fit(model, data, data)
assert recorder.seen == ["init", "routine", "batch", "batch", "batch", 3], recorder.seen
assert recorder.checked == [True, False, False], recorder.checked  # the sanity check, training, validation
assert len(model.calls) == 3

resumed = Recorder()
trainer = pl.Trainer(
    max_epochs=2,
    callbacks=[resumed],
    progress_bar_refresh_rate=0,
    logger=False,
    weights_summary=None,
    resume_from_checkpoint=trainer.checkpoint_callback.best_model_path,
)
trainer.fit(Model(), data, data)
assert {"seen": 6} in resumed.seen or {"seen": 5} in resumed.seen, resumed.seen
print("done")
