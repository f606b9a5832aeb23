from __future__ import annotations

import pytest

from fulgurite.loggers import WandbLogger
from helpers.apart import run_apart

SETTINGS = {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}
MAKE = """
import struct
from pathlib import Path

import torch
import wandb
from wandb.proto.wandb_internal_pb2 import Record

from fulgurite.loggers import WandbLogger


class WithHparams(Tiny):
    def __init__(self, width=3, act=torch.relu, kind=torch.nn.ReLU):
        super().__init__([5, 3])
        self.save_hyperparameters()


def records():
    '''The records of the offline run: blocks of 32 KiB, each piece in them with crc, length and type.'''
    wandb.finish()
    wandb.teardown()  # only then is the file complete
    (path,) = Path().glob("wandb/offline-run-*/run-*.wandb")
    content, at, record = path.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + 7])
        record += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield Record.FromString(record)
            record = b""


def pairs(items):
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
"""


@pytest.mark.needs("wandb")
def test_an_offline_run_read_back():
    found = run_apart(
        MAKE
        + """
logger = WandbLogger(name="first", project="dkt", offline=True, version="abc123")
fit(logger=logger, model=WithHparams(), max_epochs=2, log_every_n_steps=4)
named = [logger.name, logger.version, logger.experiment.name]
read = list(records())
rows = [pairs(r.history.item) for r in read if r.WhichOneof("record_type") == "history"]
config = {}
for r in read:
    config |= pairs(r.config.update) | pairs(r.run.config.update)
answer({
    "named": named,
    "val_loss": [(row["trainer/global_step"], row["val_loss"]) for row in rows if "val_loss" in row],
    "train_loss": [row["trainer/global_step"] for row in rows if "train_loss" in row],
    "hparams": [config["width"], config["act"], config["kind"]],
})
""",
        **SETTINGS,
    )
    assert found == {
        "named": ["dkt", "abc123", "first"],
        "val_loss": [[3, 5.0], [7, 3.0]],
        "train_loss": [3, 7],
        "hparams": [3, "relu", "ReLU"],
    }


@pytest.mark.needs("wandb")
def test_tables_images_and_a_prefix():
    found = run_apart(
        MAKE
        + """
import numpy
logger = WandbLogger(project="dkt", offline=True, prefix="p")
logger.log_text("text", columns=["a"], data=[["b"]], step=1)
logger.log_image("image", [numpy.zeros((2, 2, 3), dtype="uint8")], step=2, caption=["black"])
logger.log_metrics({"x": 1.0}, step=3)
errors = []
for wrong in (lambda: logger.log_image("i", "no list"), lambda: logger.log_image("i", [1, 2], caption=["one"])):
    try:
        wrong()
    except (TypeError, ValueError) as error:
        errors.append(str(error))
rows = [pairs(r.history.item) for r in records() if r.WhichOneof("record_type") == "history"]
answer([sorted({key.split("/")[0] for row in rows for key in row if key.startswith("p-")}), errors])
""",
        **SETTINGS,
    )
    assert found[0] == ["p-image", "p-text", "p-x"]
    assert "expected a list" in found[1][0]
    assert "caption has 1 entries for 2 images" in found[1][1]


@pytest.mark.needs("wandb")
def test_checkpoints_cannot_be_uploaded_offline():
    found = run_apart(
        """
from fulgurite.loggers import WandbLogger
try:
    WandbLogger(offline=True, log_model=True)
except ValueError as error:
    answer(str(error))
"""
    )
    assert "cannot be uploaded offline" in found


def test_without_wandb_it_says_what_to_install():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("sys").modules, "wandb", None)
        with pytest.raises(ModuleNotFoundError, match=r"pip install 'fulgurite\[wandb\]'"):
            WandbLogger()
