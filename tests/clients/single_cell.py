# /// script
# dependencies = ["scvi-tools==1.4.2", "lightning==2.6.6", "torch==2.13.0"]
# ///
"""scvi-tools: an autoencoder of made-up cells, its best epochs saved, then loaded and asked for its latent space."""

import json
import tempfile

import scvi

scvi.settings.seed = 7
folder = tempfile.mkdtemp()
scvi.settings.logging_dir = folder
cells = scvi.data.synthetic_iid(batch_size=64, n_genes=30, n_proteins=0, n_regions=0)
scvi.model.SCVI.setup_anndata(cells, batch_key="batch", labels_key="labels")
model = scvi.model.SCVI(cells, n_hidden=16, n_latent=3)
model.train(
    max_epochs=6,
    accelerator="cpu",
    batch_size=32,
    early_stopping=True,
    check_val_every_n_epoch=1,
    enable_checkpointing=True,
    callbacks=[scvi.train.SaveCheckpoint(monitor="elbo_validation", dirpath=folder)],
    enable_progress_bar=False,
    plan_kwargs={"lr": 1e-2},
)
model.save(f"{folder}/model", overwrite=True)
again = scvi.model.SCVI.load(f"{folder}/model", adata=cells, accelerator="cpu")
again.train(max_epochs=1, accelerator="cpu", batch_size=32, enable_progress_bar=False)
history = model.history
print(
    json.dumps(
        {
            "elbo": [round(float(x), 6) for x in history["elbo_train"]["elbo_train"]],
            "validation": [round(float(x), 6) for x in history["elbo_validation"]["elbo_validation"]],
            "elbo_of_data": float(model.get_elbo()),
            "latent": float(model.get_latent_representation().astype("float64").sum()),
            "trained_on": float(again.get_latent_representation().astype("float64").sum()),
        }
    )
)
