from __future__ import annotations

import csv
import importlib.util
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch
import yaml

from fulgurite.callbacks import ModelCheckpoint
from fulgurite.loggers import CSVLogger
from helpers.tiny import Tiny, fit


def rows(logger: CSVLogger) -> list[dict[str, str]]:
    with open(Path(logger.log_dir, "metrics.csv"), newline="") as file:
        return list(csv.DictReader(file))


def raw(logger: CSVLogger) -> str:
    return Path(logger.log_dir, "metrics.csv").read_bytes().decode()


def test_columns_are_sorted_and_the_header_grows():
    logger = CSVLogger("logs")
    logger.log_metrics({"b": torch.tensor(1.5), "a": 2}, step=3)
    logger.save()
    assert raw(logger) == "a,b,step\r\n2,1.5,3\r\n"
    logger.log_metrics({"c": 1, "a": float("nan")})
    logger.log_metrics({"c": 1e-8, "a": True, "z": 'text, "quoted"'}, 7)
    logger.save()
    assert raw(logger) == ('a,b,c,step,z\r\n2,1.5,,3,\r\nnan,,1,0,\r\nTrue,,1e-08,7,"text, ""quoted"""\r\n')


def test_the_rows_of_a_run():
    logger = CSVLogger("logs")
    fit(logger=logger, max_epochs=2, log_every_n_steps=2)
    seen = [{k: v for k, v in row.items() if v} for row in rows(logger)]
    assert [(row["epoch"], row["step"], sorted(row.keys() - {"epoch", "step"})) for row in seen] == [
        ("0", "1", ["train_loss"]),
        ("0", "3", ["train_loss"]),
        ("0", "3", ["val_loss"]),
        ("0", "3", ["train_mean"]),
        ("1", "5", ["train_loss"]),
        ("1", "7", ["train_loss"]),
        ("1", "7", ["val_loss"]),
        ("1", "7", ["train_mean"]),
    ]


def test_a_run_is_resumed_into_a_file_without_steps():
    logger = CSVLogger("logs", version=0)
    Path(logger.log_dir).mkdir(parents=True)
    Path(logger.log_dir, "metrics.csv").write_text("a\r\n1\r\n")
    logger.resume_from_step(3)
    logger.log_metrics({"a": 2}, step=3)
    logger.save()
    assert raw(logger) == "a,step\r\n1,\r\n2,3\r\n"


def test_rows_reach_the_disk_every_n_steps_by_themselves():
    logger = CSVLogger("logs", flush_logs_every_n_steps=2)
    logger.log_metrics({"a": 1}, step=0)
    assert not Path(logger.log_dir, "metrics.csv").exists()
    logger.log_metrics({"a": 2}, step=1)
    assert [row["a"] for row in rows(logger)] == ["1", "2"]


def test_versions_count_up_and_names_are_taken_as_they_are():
    assert CSVLogger("logs").version == 0
    Path("logs/lightning_logs/version_9").mkdir(parents=True)
    Path("logs/lightning_logs/version_x").mkdir()
    Path("logs/lightning_logs/version_20").touch()
    assert CSVLogger("logs").version == 10
    assert CSVLogger("logs", version="mine").log_dir == "logs/lightning_logs/mine"
    assert CSVLogger("logs", version=3).log_dir == "logs/lightning_logs/version_3"
    assert CSVLogger("logs", name=None).log_dir == "logs/version_0"


def test_a_prefix_stands_before_each_name():
    logger = CSVLogger("logs", prefix="exp")
    logger.log_metrics({"a": 1}, step=0)
    logger.save()
    assert raw(logger) == "exp-a,step\r\n1,0\r\n"


def test_hyper_parameters_are_written_and_updated():
    logger = CSVLogger("logs")
    logger.log_hyperparams({"lr": 0.1, "layers": [1, 2]})
    logger.save()
    logger.log_hyperparams(Namespace(lr=0.2))
    logger.save()
    with open(Path(logger.log_dir, "hparams.yaml")) as file:
        assert yaml.safe_load(file) == {"lr": 0.2, "layers": [1, 2]}


def test_nothing_logged_leaves_no_folder():
    logger = CSVLogger("logs")
    logger.finalize("success")
    assert not Path("logs").exists()


# going on
def test_an_existing_file_is_continued_and_not_deleted():
    first = CSVLogger("logs", version=0)
    first.log_metrics({"a": 1}, step=0)
    first.save()
    second = CSVLogger("logs", version=0)
    with pytest.warns(UserWarning, match="rows are added to it"):
        second.log_metrics({"a": 2, "b": 3}, step=1)
    second.save()
    assert raw(second) == "a,b,step\r\n1,,0\r\n2,3,1\r\n"


def test_resuming_drops_the_steps_that_will_come_again():
    logger = CSVLogger("logs", version=0)
    for step in range(5):
        logger.log_metrics({"a": step}, step=step)
    logger.save()
    again = CSVLogger("logs", version=0)
    again.resume_from_step(3)
    assert [row["step"] for row in rows(again)] == ["0", "1", "2"]
    again.log_metrics({"a": 2}, step=2)  # the last step's validation, logged after the checkpoint: equal, so known
    again.log_metrics({"a": 30}, step=3)
    again.save()
    assert [row["a"] for row in rows(again)] == ["0", "1", "2", "30"]


@pytest.mark.parametrize("at", [{"every_n_train_steps": 5}, {"every_n_train_steps": 8}, {}])
def test_a_resumed_run_has_the_rows_of_an_uninterrupted_one(at):
    flags = {"max_epochs": 4, "log_every_n_steps": 1}
    torch.manual_seed(1)
    whole = CSVLogger("whole", version=0)
    fit(ModelCheckpoint("a", save_top_k=-1, **at), logger=whole, **flags)

    torch.manual_seed(1)
    fit(ModelCheckpoint("b", save_top_k=-1, **at), logger=CSVLogger("parts", version=0), **{**flags, "max_epochs": 3})
    first = min(Path("b").iterdir(), key=lambda path: int(path.stem.split("step=")[1]))
    model = Tiny()
    model.validations = torch.load(first, weights_only=True)["fulgurite"]["progress"]["validated_at"] // 4
    parts = CSVLogger("parts", version=0)
    fit(ModelCheckpoint("b", save_top_k=-1, **at), logger=parts, model=model, ckpt_path=first, **flags)
    assert raw(parts) == raw(whole)


def test_a_torn_last_line_is_dropped():
    logger = CSVLogger("logs", version=0)
    logger.log_metrics({"a": 1}, step=0)
    logger.save()
    with open(Path(logger.log_dir, "metrics.csv"), "a") as file:
        file.write("2,")
    again = CSVLogger("logs", version=0)
    again.resume_from_step(5)
    again.log_metrics({"a": 3}, step=1)
    again.save()
    assert raw(again) == "a,step\r\n1,0\r\n3,1\r\n"


def test_sigkill_loses_no_saved_row(tmp_path):
    script = """
import os, signal
from fulgurite.loggers import CSVLogger
logger = CSVLogger("logs", version=0)
for step in range(100):
    logger.log_metrics({f"column{step // 10}": step}, step=step)
    logger.save()
logger.log_metrics({"lost": 1}, step=100)
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": ":".join(sys.path)}, check=False)
    assert [int(row["step"]) for row in rows(CSVLogger("logs", version=0))] == list(range(100))


WRITE = """
import importlib, sys
import torch
logger = importlib.import_module(sys.argv[1]).CSVLogger(sys.argv[2], version=0, prefix="p")
for step in range(30):
    row = {f"k{(step * 7 + i) % 11}": 10.0 ** (step - 15) / (i + 3) for i in range(step % 4)}
    logger.log_metrics(row | {"t": torch.tensor(step / 3), "s": "a,b"}, step=None if step % 9 == 0 else step)
    if step % 3 == 0:
        logger.save()
logger.finalize("success")
"""


@pytest.mark.parity
def test_the_file_is_byte_equal_to_lightnings():
    if importlib.util.find_spec("lightning") is None:
        pytest.skip("needs the extra parity")
    written = []
    for package in ("fulgurite.loggers", "lightning.pytorch.loggers"):
        environment = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
        subprocess.run([sys.executable, "-c", WRITE, package, package], env=environment, check=True)
        written.append(raw(CSVLogger(package, version=0)))
    assert written[0] == written[1]
