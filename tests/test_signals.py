"""Ctrl-C, SIGTERM and a second Ctrl-C, with real signals in a process of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

import fulgurite as pl
from fulgurite.demos.boring_classes import BoringModel

SRC = Path(__file__).parents[1] / "src"
SCRIPT = """
import os, signal, sys, time, warnings
warnings.simplefilter("ignore")
import torch
torch.set_num_threads(1)
import fulgurite as pl
from fulgurite.demos.boring_classes import BoringModel

def say(*words): print(*words, flush=True)

class Model(BoringModel):
    def training_step(self, batch, batch_idx):
        say("step", batch_idx)
        {in_step}
        return super().training_step(batch, batch_idx)
    def on_train_batch_end(self, outputs, batch, batch_idx): say("batch end", batch_idx)
    def teardown(self, stage): say("teardown", stage)

class Seen(pl.Callback):
    def on_exception(self, trainer, module, exception):
        say(type(exception).__name__, "interrupted", trainer.interrupted, "sigterm", trainer.received_sigterm)

trainer = pl.Trainer(max_epochs=1, accelerator="cpu", limit_train_batches=30, limit_val_batches=0, logger=False,
                     enable_progress_bar=False, enable_model_summary=False, callbacks=[Seen(), {callbacks}],
                     default_root_dir=".")
try:
    trainer.fit(Model())
    say("fit returned")
except KeyboardInterrupt as error:
    say("caught at", trainer.global_step)
    say("handlers back", signal.getsignal(signal.SIGINT) is signal.default_int_handler)
say("state", trainer.state.status.value)
"""
ON_EXCEPTION = 'pl.callbacks.ModelCheckpoint("saved", "on_exception", save_on_exception=True)'
PLAIN = 'pl.callbacks.ModelCheckpoint("saved")'


def start(in_step: str, callbacks: str = PLAIN) -> subprocess.Popen[str]:
    code = SCRIPT.replace("{in_step}", in_step).replace("{callbacks}", callbacks)
    environment = {**os.environ, "PYTHONPATH": str(SRC), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell's background jobs, and what they start, do not hear Ctrl-C
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, list[str], str]:
    out, err = process.communicate(timeout=200)
    return process.returncode, out.splitlines(), err


def raises(name: str, at: int = 3) -> str:
    return f"if batch_idx == {at}: os.kill(os.getpid(), signal.{name})"


def quiet_trainer(**flags: Any) -> pl.Trainer:
    off = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    return pl.Trainer(max_epochs=1, accelerator="cpu", **{**off, **flags})


@pytest.mark.slow
def test_ctrl_c_finishes_the_batch_and_raises_keyboard_interrupt() -> None:
    code, out, err = finish(start(raises("SIGINT")))
    assert code == 0, err
    assert out[-7:] == [
        "step 3",
        "batch end 3",
        "KeyboardInterrupt interrupted True sigterm False",
        "teardown fit",
        "caught at 4",
        "handlers back True",
        "state interrupted",
    ]


@pytest.mark.slow
def test_ctrl_c_saves_when_a_checkpoint_is_set_to() -> None:
    code, _, err = finish(start(raises("SIGINT"), ON_EXCEPTION))
    assert code == 0, err
    (saved,) = Path("saved").glob("*.ckpt")
    assert torch.load(saved, weights_only=True)["global_step"] == 4


@pytest.mark.slow
def test_ctrl_c_saves_nothing_when_it_is_not() -> None:
    finish(start(raises("SIGINT")))
    assert not list(Path().rglob("*.ckpt"))


@pytest.mark.slow
def test_a_second_ctrl_c_stops_at_once() -> None:
    code, out, err = finish(start(f"{raises('SIGINT')}; {raises('SIGINT').partition(': ')[2]}; say('still here')"))
    assert code == 0, err
    assert "still here" not in out
    assert "batch end 3" not in out
    assert "caught at 3" in out
    assert "teardown fit" in out


@pytest.mark.slow
def test_ctrl_c_from_outside_while_a_batch_takes_its_time() -> None:
    process = start("time.sleep(0.2)", ON_EXCEPTION)
    assert process.stdout is not None
    while process.stdout.readline() != "step 2\n":
        pass
    process.send_signal(signal.SIGINT)
    code, out, err = finish(process)
    assert code == 0, err
    assert out[0] == "batch end 2"
    assert "step 3" not in out


@pytest.mark.slow
@pytest.mark.parametrize("callbacks", [PLAIN, ON_EXCEPTION], ids=["plain", "saving"])
def test_sigterm_finishes_the_batch_tears_down_and_exits_with_143(callbacks: str) -> None:
    code, out, err = finish(start(raises("SIGTERM"), callbacks))
    assert code == 143, err
    assert out[-4:-2] == ["step 3", "batch end 3"]
    assert out[-2].startswith("SIGTERMException") and out[-2].endswith("sigterm True")
    assert out[-1] == "teardown fit"
    assert bool(list(Path().rglob("*.ckpt"))) == (callbacks == ON_EXCEPTION)


def test_sigterm_in_validation_is_noticed() -> None:
    class Model(BoringModel):  # type: ignore[misc]
        steps = 0

        def validation_step(self, batch: Any, batch_idx: int) -> Any:
            type(self).steps += 1
            os.kill(os.getpid(), signal.SIGTERM)
            return super().validation_step(batch, batch_idx)

    trainer = quiet_trainer(limit_val_batches=50, num_sanity_val_steps=0, limit_train_batches=1)
    with pytest.raises(SystemExit) as exit_:
        trainer.fit(Model())
    assert exit_.value.code == 143
    assert trainer.received_sigterm


def test_a_handler_of_the_user_stays_theirs() -> None:
    heard: list[int] = []

    def mine(number: int, frame: Any) -> None:
        heard.append(number)

    class Model(BoringModel):  # type: ignore[misc]
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            if batch_idx == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().training_step(batch, batch_idx)

    before = signal.signal(signal.SIGTERM, mine)
    try:
        trainer = quiet_trainer(limit_train_batches=5, limit_val_batches=0)
        trainer.fit(Model())
        assert heard == [signal.SIGTERM] and signal.getsignal(signal.SIGTERM) is mine
        assert trainer.global_step == 5 and not trainer.received_sigterm
    finally:
        signal.signal(signal.SIGTERM, before)


def test_fit_in_a_thread_leaves_signals_alone() -> None:
    trainer = quiet_trainer(limit_train_batches=2, limit_val_batches=0)
    worker = threading.Thread(target=trainer.fit, args=(BoringModel(),))
    worker.start()
    worker.join()
    assert trainer.global_step == 2
