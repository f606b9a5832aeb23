from __future__ import annotations

import csv
import os
import random
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import pytest
import torch
import yaml

from fulgurite.callbacks import LambdaCallback, ModelCheckpoint
from fulgurite.loggers import CSVLogger, TensorBoardLogger
from fulgurite.loggers.csv_logs import ExperimentWriter
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


def test_a_row_is_on_disk_when_it_has_been_logged():
    logger = CSVLogger("logs")
    logger.log_metrics({"a": 1})
    assert [row["a"] for row in rows(logger)] == ["1"]
    logger.log_metrics({"a": 2})
    assert [(row["a"], row["step"]) for row in rows(logger)] == [("1", "0"), ("2", "1")]


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


class Counted(ExperimentWriter):
    """Counts the bytes that go to the disk."""

    def __init__(self, log_dir):
        super().__init__(log_dir)
        self.written, file = 0, self._file
        for name in ("append", "overwrite", "write_anew"):

            def counting(*arguments, act=getattr(file, name)):
                self.written += len(arguments[-1])
                act(*arguments)

            setattr(file, name, counting)


@pytest.mark.slow
def test_a_new_column_in_each_row_costs_as_much_as_the_table_and_not_its_square():
    writer = Counted("logs")
    for step in range(2000):
        writer.log_metrics({f"column_{step}": step}, step=step)
        writer.save()
    writer.finish()
    content = Path(writer.metrics_file_path).read_bytes()
    assert writer.written < 4 * len(content)
    lines = list(csv.reader(content.decode().splitlines()))
    assert lines[0] == sorted(lines[0])
    assert len(lines) == 2001
    assert all(row[lines[0].index(f"column_{i}")] == row[-1] == str(i) for i, row in enumerate(lines[1:]))


def test_the_file_can_be_read_while_columns_are_not_yet_in_order():
    writer = Counted("logs")
    writer._credit = 0  # as in a long run
    before = 0
    for step in range(60):
        writer.log_metrics({f"k,{step % 40}\n": "text\r\n\r\n" if step == 50 else step, "b": None}, step=step)
        with open(writer.metrics_file_path, newline="", encoding="utf-8") as file:
            found = list(csv.DictReader(file))
        assert [row["step"] for row in found] == [str(i) for i in range(step + 1)]
        assert found[step][f"k,{step % 40}\n"] == ("text\r\n\r\n" if step == 50 else str(step))
        before += not writer._in_order
    assert before > 20
    again = ExperimentWriter("logs")
    again.log_metrics({"z": 1}, step=60)
    again.finish()
    with open(writer.metrics_file_path, newline="", encoding="utf-8") as file:
        header, *lines = csv.reader(file)
    assert header == sorted({"b", "step", "z", *(f"k,{i}\n" for i in range(40))})
    assert {len(line) for line in lines} == {len(header)}


def test_two_writers_of_one_file_by_turns():
    one, two = ExperimentWriter("logs"), ExperimentWriter("logs")
    one.log_metrics({"a": 1}, step=0)
    two.log_metrics({"b": 2}, step=1)
    one.log_metrics({"a": 3}, step=2)
    assert Path(one.metrics_file_path).read_bytes() == b"a,b,step\r\n1,,0\r\n,2,1\r\n3,,2\r\n"


def test_odd_names_and_values():
    logger = CSVLogger("logs")
    odd = {"a,b": 1, 'say "x"': float("inf"), "정확도\n": float("nan"), "epoch": 2, "none": None, "": 3}
    logger.log_metrics(odd, step=4)
    logger.save()
    (row,) = rows(logger)
    assert row == {"a,b": "1", 'say "x"': "inf", "정확도\n": "nan", "epoch": "2", "none": "", "": "3", "step": "4"}
    with pytest.raises(ValueError, match=r"'pair' is a tensor of shape \(2,\)"):
        logger.log_metrics({"pair": torch.ones(2)})


def test_a_metric_called_step_is_the_step_unless_another_is_given():
    logger = CSVLogger("logs")
    logger.log_metrics({"a": 1, "step": 7})
    with pytest.warns(UserWarning, match="'step', 7, gives way to the row's own step, 8"):
        logger.log_metrics({"a": 1, "step": 7}, step=8)
    assert [row["step"] for row in rows(logger)] == ["7", "8"]


def test_a_file_whose_rows_are_longer_than_its_header_is_left_as_it_is():
    logger = CSVLogger("logs", version=0)
    Path(logger.log_dir).mkdir(parents=True)
    Path(logger.log_dir, "metrics.csv").write_text("a,step\n1,0,9\n")
    with (
        pytest.warns(UserWarning, match="rows are added"),
        pytest.raises(ValueError, match="more cells than its header"),
    ):
        logger.log_metrics({"b": 2}, step=1)
    assert raw(logger) == "a,step\n1,0,9\n"


@pytest.mark.parametrize("version", [None, 3])
@pytest.mark.parametrize("kind", [CSVLogger, TensorBoardLogger])
def test_a_folder_that_cannot_be_is_named_before_training(kind, version):
    Path("logs").touch()
    began = []
    with pytest.raises(NotADirectoryError, match=f"{kind.__name__} cannot write there .*logs"):
        fit(LambdaCallback(on_train_start=lambda *_: began.append(1)), logger=kind("logs", version=version))
    assert not began


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
def test_a_full_disk_is_told_with_the_name_of_the_file():
    logger = CSVLogger("logs", version=0)
    Path(logger.log_dir).mkdir(parents=True)
    Path(logger.log_dir, "metrics.csv").symlink_to("/dev/full")
    logger.experiment._size = logger.experiment._file.size()
    logger.experiment._set_keys(["a", "step"], room=0)
    with pytest.raises(OSError, match=r"a row could not be logged: No space left.*metrics.csv"):
        logger.log_metrics({"a": 1}, step=0)


KILLED = """
import sys
import torch
from helpers.tiny import Tiny, fit
from fulgurite import Callback
from fulgurite.loggers import CSVLogger, TensorBoardLogger

class ByHand(Callback):
    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        at = trainer.global_step
        for logger in trainer.loggers:
            logger.log_metrics({"by_hand": at, f"new_{at}": at}, step=at)
        print(at, flush=True)

fit(ByHand(), logger=[CSVLogger("logs", "csv"), TensorBoardLogger("logs", "tb")], max_epochs=10000, log_every_n_steps=1)
"""


@pytest.mark.slow
@pytest.mark.parametrize("rows_before", [3, 40, 150])
def test_sigkill_loses_no_logged_row(rows_before):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", KILLED], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        for _ in range(rows_before):
            said = process.stdout.readline()
        time.sleep(random.random() / 20)
        process.kill()
        last = int(([said, *process.stdout.read().split("\n")[:-1]])[-1])
    assert last >= rows_before
    by_hand = [int(row["by_hand"]) for row in rows(CSVLogger("logs", "csv", version=0)) if row.get("by_hand")]
    assert by_hand[:last] == list(range(1, last + 1))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator("logs/tb/version_0", size_guidance={"scalars": 0}).Reload().Scalars("by_hand")
    assert [e.step for e in events][:last] == list(range(1, last + 1))
    again = CSVLogger("logs", "csv", version=0)
    again.resume_from_step(10**6)
    again.log_metrics({"z": 1}, step=10**6)
    again.finalize("success")
    header, *lines = csv.reader(raw(again).splitlines())
    assert header == sorted(header)
    assert len(lines) >= 2 * last


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
    written = []
    for package in ("fulgurite.loggers", "lightning.pytorch.loggers"):
        environment = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
        subprocess.run([sys.executable, "-c", WRITE, package, package], env=environment, check=True)
        written.append(raw(CSVLogger(package, version=0)))
    assert written[0] == written[1]
