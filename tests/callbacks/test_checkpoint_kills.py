"""Killed at each operation on a file, and started again with ckpt_path="last": the folder ends as if nobody had."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch

from fulgurite.callbacks import ModelCheckpoint
from helpers.tiny import Tiny, fit

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="a process is killed in the middle of its work"),
    pytest.mark.filterwarnings("ignore"),
]
RANKED = {"monitor": "val_loss", "filename": "{epoch}-{val_loss}"}
OTHER_LAST = {"filename": "last", "every_n_train_steps": 2, "enable_version_counter": False}
SETTINGS = {
    "the best and the last": [{**RANKED, "save_last": True}],
    "the two best and a link": [{**RANKED, "save_top_k": 2, "save_last": "link"}],
    "the newest and the last": [{"save_last": True}],
    "the newest and a link": [{"save_last": "link"}],
    "a best file of one name, the last by another callback": [{"filename": "best", "monitor": "val_loss"}, OTHER_LAST],
    "the best weights, the last by another callback": [{**RANKED, "save_weights_only": True}, OTHER_LAST],
    "the two best, the last by another callback": [
        {**RANKED, "save_top_k": 2},
        {**OTHER_LAST, "every_n_train_steps": 3},
    ],
    "two with one name": [
        {"filename": "best", "monitor": "val_loss"},
        {"filename": "best", "monitor": "val_loss", "mode": "max", "save_last": True},
    ],
}


class Ranked(Tiny):
    def validation_step(self, batch, batch_idx):
        self.log("val_loss", torch.tensor([5.0, 3.0, 4.0][self.current_epoch]))


def run(settings, ckpt_path=None, die_at=0):
    """What a process of its own ends with: its file operations, and what each callback knows; None where it died."""
    reading, writing = os.pipe()
    if not (child := os.fork()):
        try:
            done = 0

            def counted(act):
                def counting(*args, **kwargs):
                    nonlocal done
                    done += 1
                    if done == die_at:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return act(*args, **kwargs)

                return counting

            for name in ("replace", "rename", "unlink", "remove", "symlink"):
                setattr(os, name, counted(getattr(os, name)))
            callbacks = [ModelCheckpoint("out", **setting) for setting in settings]
            fit(*callbacks, model=Ranked(), ckpt_path=ckpt_path)
            known = [
                {os.path.basename(path): float(score) for path, score in keep.best_k_models.items()}
                | {"best": os.path.basename(keep.best_model_path), "there": os.path.exists(keep.best_model_path)}
                for keep in callbacks
            ]
            os.write(writing, json.dumps([done, known]).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading) as said:
        text = said.read()
    os.waitpid(child, 0)
    return json.loads(text) if text else None


def files():
    """Each file of the folder with its step; a link with what it points to."""
    return {
        path.name: (torch.load(path, weights_only=True)["global_step"], path.is_symlink() and os.readlink(path))
        for path in Path("out").iterdir()
    }


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_a_run_killed_at_any_operation_on_a_file_ends_as_one_that_nobody_killed(settings, tmp_path):
    fit(ModelCheckpoint("first"), max_epochs=1)  # what is imported late is imported before the processes part
    operations, expected = run(settings)
    whole = files()
    for die_at in range(1, operations + 1):
        (tmp_path / str(die_at)).mkdir()
        os.chdir(tmp_path / str(die_at))
        assert run(settings, die_at=die_at) is None
        if not os.path.lexists("out/last.ckpt"):
            continue  # nothing to go on from
        ended = run(settings, ckpt_path="last")
        assert ended is not None and (ended[1], files()) == (expected, whole), die_at
    os.chdir(tmp_path)
