from __future__ import annotations

import logging
import pstats
import time
from pathlib import Path

import pytest
import torch

import fulgurite as pl
from fulgurite.profilers import AdvancedProfiler, PassThroughProfiler, Profiler, PyTorchProfiler, SimpleProfiler
from fulgurite.utilities.exceptions import MisconfigurationException
from helpers.tiny import Tiny, data, fit


def written(folder: str = "out") -> str:
    (path,) = Path(folder).glob("fit-*.txt")
    return path.read_text()


def test_simple_counts_and_times():
    profiler = SimpleProfiler()
    with profiler.profile("slow"):
        time.sleep(0.01)
    for _ in range(3):
        with profiler.profile("fast"):
            pass
    assert [len(profiler.recorded_durations[name]) for name in ("slow", "fast")] == [1, 3]
    rows = [[cell.strip() for cell in line.split("|")] for line in profiler.summary().splitlines() if "|" in line]
    assert rows[0][1:4] == ["Action", "Mean duration (s)", "Num calls"]
    assert [row[1] for row in rows[1:]] == ["Total", "slow", "fast"]
    assert [row[3] for row in rows[1:]] == ["4", "1", "3"]


def test_simple_not_extended_has_no_counts():
    profiler = SimpleProfiler(extended=False)
    with profiler.profile("action"):
        pass
    assert "Num calls" not in profiler.summary()
    assert "Total time (s)" in profiler.summary()


def test_wrong_starts_and_stops():
    profiler = SimpleProfiler()
    profiler.start("a")
    with pytest.raises(ValueError, match="Attempted to start a which has already started"):
        profiler.start("a")
    for kind in (SimpleProfiler, AdvancedProfiler, PyTorchProfiler):
        with pytest.raises(ValueError, match=r"stop recording an action \(b\) which was never started"):
            kind().stop("b")


@pytest.mark.parametrize("profiler", ["simple", SimpleProfiler()])
def test_a_run_is_reported(profiler, caplog):
    with caplog.at_level(logging.INFO, "fulgurite"):
        fit(profiler=profiler, max_epochs=1)
    assert "FIT Profiler Report" in caplog.text
    assert "[Strategy]SingleDeviceStrategy.training_step" in caplog.text
    assert "[LightningModule]Tiny.on_validation_epoch_end" in caplog.text


def test_hooks_of_the_data_module_are_in_the_report():
    class Slow(pl.LightningDataModule):
        def prepare_data(self): ...

        def setup(self, stage): ...

        def train_dataloader(self):
            return data(2)

        val_dataloader = train_dataloader

        def teardown(self, stage): ...

    profiler = SimpleProfiler()
    trainer = pl.Trainer(profiler=profiler, max_epochs=1, num_sanity_val_steps=0, logger=False, accelerator="cpu")
    trainer.fit(Tiny(), datamodule=Slow())
    calls = {name: len(times) for name, times in profiler.recorded_durations.items() if "Slow." in name}
    hooks = ("prepare_data", "setup", "train_dataloader", "val_dataloader", "teardown")
    assert calls == {f"[LightningDataModule]Slow.{hook}": 1 for hook in hooks}


def test_the_report_goes_to_a_file_if_asked():
    fit(profiler=SimpleProfiler("out", "times"), max_epochs=1)
    assert written().startswith("FIT Profiler Report")


def test_loaders_may_come_from_a_method_of_another_object():
    class Rows:
        def made(self):
            return data(2)

    model = Tiny()
    model.train_dataloader = model.val_dataloader = Rows().made
    fit_with = pl.Trainer(max_epochs=1, num_sanity_val_steps=0, logger=False, accelerator="cpu")
    fit_with.fit(model)
    assert fit_with.global_step == 2


def test_each_action_has_a_file_whose_name_every_system_takes():
    profiler = AdvancedProfiler("out", dump_stats=True)
    actions = ["[Callback]Mine{'monitor': \"val/loss\"}.on_train_start", "a:b", "a*b", "two\nlines", "back\\slash"]
    for action in actions:
        with profiler.profile(action):
            sum(range(10))
    profiler.describe()
    files = [file for file in Path("out").iterdir() if file.suffix == ".prof"]
    assert len(files) == len(actions) and not set("".join(file.name for file in files)) & set('<>:"/\\|?*\n')
    assert all(pstats.Stats(str(file)).total_calls for file in files)


def test_advanced_lists_functions():
    fit(profiler=AdvancedProfiler("out", "functions", line_count_restriction=10, dump_stats=True), max_epochs=1)
    assert "Profile stats for: [Strategy]SingleDeviceStrategy.training_step" in written()
    assert "ncalls" in written()
    assert list(Path("out").glob("*.prof"))


def test_advanced_measures_an_action_inside_another():
    profiler = AdvancedProfiler()
    with profiler.profile("outer"), profiler.profile("inner"):
        sum(range(10))
    assert "Profile stats for: inner" in profiler.summary()


def test_pytorch_lists_operators_and_exports_a_trace():
    profiler = PyTorchProfiler("out", "ops", row_limit=50)
    fit(profiler=profiler, max_epochs=2)
    times = {event.name: event.cpu_time_total for event in profiler.function_events}
    assert times["aten::linear"] >= 0 and any(name.endswith("training_step") for name in times)
    assert "aten::linear" in written()
    assert "[pl][profile][Strategy]SingleDeviceStrategy." in written()
    assert "[pl][module]torch.nn.modules.linear.Linear" in written()
    assert list(Path("out").glob("*.pt.trace.json"))


def test_pytorch_says_when_a_run_was_too_short(caplog):
    with caplog.at_level(logging.INFO, "fulgurite"):
        fit(profiler=PyTorchProfiler(), max_epochs=1, limit_train_batches=1, limit_val_batches=0)
    assert "Nothing was recorded in 1 steps" in caplog.text


def test_pytorch_records_everything_without_a_schedule():
    fit(profiler=PyTorchProfiler("out", "ops", schedule=None), max_epochs=1, limit_train_batches=2)
    assert "aten::linear" in written()


def test_pytorch_checks_its_arguments():
    with pytest.raises(MisconfigurationException, match="sort_by_key='fun'"):
        PyTorchProfiler(sort_by_key="fun")
    with pytest.raises(KeyError, match="row_limit"):
        PyTorchProfiler(table_kwargs={"row_limit": 3})


def test_an_exception_is_profiled_too():
    class Fails(Tiny):
        def training_step(self, batch, batch_idx):
            raise ValueError("broken")

    for profiler in ("simple", "advanced", "pytorch"):
        with pytest.raises(ValueError, match="broken"):
            fit(model=Fails(), profiler=profiler)
    assert not torch.autograd.profiler._is_profiler_enabled  # left on, it crashes the interpreter at its exit
    assert not torch.nn.modules.module._global_forward_hooks


def test_the_users_own_actions_stand_beside_ours():
    class Mine(Tiny):
        def training_step(self, batch, batch_idx):
            with self.trainer.profiler.profile("mine"):
                return super().training_step(batch, batch_idx)

    profiler = SimpleProfiler()
    fit(model=Mine(), profiler=profiler, max_epochs=1)
    assert len(profiler.recorded_durations["mine"]) == 4


def test_a_profiler_of_ones_own():
    class Counter(Profiler):
        def __init__(self):
            super().__init__()
            self.count = 0

        def start(self, action_name):
            self.count += action_name.endswith("training_step")

        def stop(self, action_name): ...

    profiler = Counter()
    fit(profiler=profiler, max_epochs=1)
    assert profiler.count == 4


def test_without_a_profiler_user_code_may_still_name_actions():
    trainer = fit(max_epochs=1)
    assert isinstance(trainer.profiler, PassThroughProfiler)
    with trainer.profiler.profile("anything"):
        pass
