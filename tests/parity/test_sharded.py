"""What FSDP saves as one file is a file of Lightning's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as theirs
import pytest
import torch
import torch.distributed as dist

from fulgurite.callbacks import ModelCheckpoint
from helpers.blocks import Blocks, fitted, furthest, loader, weights

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    yield
    dist.destroy_process_group()


class Theirs(theirs.LightningModule):  # type: ignore[misc]
    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        self.save_hyperparameters()
        for name, part in Blocks(**arguments).named_children():
            self.add_module(name, part)
        self.scale = torch.nn.Parameter(torch.ones(3))
        self.register_buffer("seen", torch.zeros(()))

    forward, loss = Blocks.forward, Blocks.loss
    configure_optimizers = Blocks.configure_optimizers

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return self.loss(batch)


@pytest.mark.parametrize("kind", ["full", "sharded"])
def test_lightning_goes_on_from_a_file_of_fsdp(kind: str) -> None:
    from fulgurite.__main__ import main
    from fulgurite.strategies import FSDPStrategy

    save = ModelCheckpoint("saved", "{epoch}", save_top_k=-1)
    end = weights(fitted(6, strategy=FSDPStrategy(state_dict_type=kind), callbacks=[save]))
    path = "saved/epoch=0.ckpt"
    if kind == "sharded":
        main(["consolidate", path, "whole.ckpt"])
        path = "whole.ckpt"
    assert Path(path).is_file()
    model = Theirs.load_from_checkpoint(path).double()  # it restores before it converts
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = theirs.Trainer(accelerator="cpu", precision="64-true", max_epochs=2, **quiet)
    trainer.fit(model, loader(6), ckpt_path=path)
    assert trainer.global_step == 8
    assert furthest(weights(model), end) == 0
