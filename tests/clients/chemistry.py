# /// script
# dependencies = ["chemprop==2.3.1", "lightning==2.6.6", "torch==2.13.0"]
# ///
"""chemprop: message passing over molecules, the best epoch saved, loaded and asked for predictions."""

import json
import tempfile

import numpy as np
import torch
from chemprop import data, models, nn
from lightning import pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint

pl.seed_everything(7)
smiles = [f"{'C' * i}{tail}" for i in range(1, 13) for tail in ("O", "N", "Cl", "C(=O)O", "c1ccccc1")]
weights = np.array([[0.1 * s.count("C") + 0.5 * ("O" in s) - 0.3 * ("N" in s)] for s in smiles])
points = [data.MoleculeDatapoint.from_smi(s, w) for s, w in zip(smiles, weights, strict=True)]
train, valid, test = (data.MoleculeDataset(points[k::3]) for k in range(3))
scaler = train.normalize_targets()
valid.normalize_targets(scaler)
loaders = [data.build_dataloader(d, batch_size=8, shuffle=i == 0) for i, d in enumerate((train, valid, test))]
model = models.MPNN(
    nn.BondMessagePassing(d_h=16, depth=2),
    nn.MeanAggregation(),
    nn.RegressionFFN(input_dim=16, hidden_dim=16, output_transform=nn.UnscaleTransform.from_standard_scaler(scaler)),
    batch_norm=True,
    metrics=[nn.metrics.RMSE(), nn.metrics.MAE()],
    warmup_epochs=1,
)
folder = tempfile.mkdtemp()
checkpoints = ModelCheckpoint(folder, "best-{epoch}-{val_loss:.2f}", "val_loss", mode="min", save_last=True)
trainer = pl.Trainer(
    logger=False,
    enable_checkpointing=True,
    enable_progress_bar=False,
    accelerator="cpu",
    devices=1,
    max_epochs=5,
    callbacks=[checkpoints],
)
trainer.fit(model, loaders[0], loaders[1])
val_loss = float(trainer.callback_metrics["val_loss"])
results = trainer.test(dataloaders=loaders[2], weights_only=False, verbose=False)
best = models.MPNN.load_from_checkpoint(checkpoints.best_model_path)
predicted = pl.Trainer(logger=False, enable_progress_bar=False, accelerator="cpu").predict(best, loaders[2])
print(
    json.dumps(
        {
            "val_loss": val_loss,
            "test": results,
            "best": checkpoints.best_model_path.rsplit("/", 1)[1],
            "predicted": torch.cat(predicted).double().sum().item(),
        }
    )
)
