# /// script
# dependencies = ["pytorch-tabular==1.2.0", "requests", "torch==2.13.0"]
# ///
"""pytorch-tabular: a network with category embeddings on a made-up table, saved, loaded and predicting."""

import json
import logging
import os
import tempfile

import numpy as np
import pandas as pd
from pytorch_tabular import TabularModel
from pytorch_tabular.config import DataConfig, OptimizerConfig, TrainerConfig
from pytorch_tabular.models import CategoryEmbeddingModelConfig

os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"  # its hyper-parameters are OmegaConf's
logging.getLogger("pytorch_tabular").setLevel(logging.ERROR)
rng = np.random.default_rng(0)
table = pd.DataFrame({"a": rng.normal(size=300), "b": rng.normal(size=300), "c": rng.choice(["x", "y", "z"], 300)})
table["target"] = ((table["a"] + 2 * (table["c"] == "x")) > 0.5).astype(int)
folder = tempfile.mkdtemp()
model = TabularModel(
    data_config=DataConfig(target=["target"], continuous_cols=["a", "b"], categorical_cols=["c"]),
    model_config=CategoryEmbeddingModelConfig(task="classification", layers="16-8", learning_rate=1e-2, dropout=0.1),
    optimizer_config=OptimizerConfig(lr_scheduler="StepLR", lr_scheduler_params={"step_size": 2}),
    trainer_config=TrainerConfig(
        batch_size=32,
        max_epochs=4,
        accelerator="cpu",
        progress_bar="none",
        checkpoints_path=folder,
        early_stopping="valid_loss",
        seed=7,
        trainer_kwargs={"enable_model_summary": False, "default_root_dir": folder},
    ),
    verbose=False,
)
model.fit(train=table[:200], validation=table[200:250])
scores = model.evaluate(table[250:], verbose=False)
model.save_model(f"{folder}/model")
again = TabularModel.load_model(f"{folder}/model")
first, second = (m.predict(table[250:]).select_dtypes("number").to_numpy().sum() for m in (model, again))
print(json.dumps({"test": scores, "predicted": float(first), "loaded": float(second)}))
