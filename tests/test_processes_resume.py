"""A run of several processes, saved anywhere and continued: bit-equal on as many, no sample lost on others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.processes import run_ranks

pytestmark = [pytest.mark.multi, pytest.mark.slow]

SCRIPT = """
from pathlib import Path
from torch.utils.data import DataLoader
from helpers.cases import Net, samples, QUIET, Stream

class Dropping(Net):
    def __init__(self, p):
        super().__init__()
        self.drop = torch.nn.Dropout(p)
    def forward(self, x):
        return self.net(self.drop(x)).squeeze(-1)
    def on_validation_epoch_end(self):
        pass  # what it counts there is not part of a checkpoint

class Saves(pl.Callback):
    def __init__(self, folder):
        self.folder, self.metrics = folder, {}
    def on_train_batch_end(self, trainer, module, *rest):
        if self.folder:
            trainer.save_checkpoint(f"{self.folder}/{trainer.progress.total_batch}.ckpt")
    def on_train_epoch_end(self, trainer, module):
        self.metrics[trainer.current_epoch] = {k: v.clone() for k, v in trainer.callback_metrics.items()
                                               if "step" not in k and k != "loss"}

def fitted(folder="", ckpt_path=None, p=0.3, batch_size=12 // WORLD_SIZE, n=53, accumulate=2, stream=False):
    torch.manual_seed(5 + RANK)
    model, saves = Dropping(p), Saves(folder)
    trainer = pl.Trainer(**{**QUIET, "max_epochs": 2}, devices=WORLD_SIZE, accumulate_grad_batches=accumulate,
                         callbacks=[saves], gradient_clip_val=0.5)
    data = samples(n)
    data = Stream(data, RANK, WORLD_SIZE) if stream else data
    train = DataLoader(data, batch_size, shuffle=None if stream else True)
    trainer.fit(model, train, DataLoader(samples(7, 5), 2), ckpt_path=ckpt_path)
    return {"weights": torch.cat([x.detach().flatten() for x in model.parameters()]), "metrics": saves.metrics,
            "seen": model.seen, "counters": trainer.progress.state_dict(), "rng": torch.get_rng_state()}
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """Two processes, saved after every batch; continued from each save; and a run without dropout for the others."""
    script = """
out = {"whole": fitted("at"), "from": {}, "stream": fitted("stream", stream=True)}
for i in (1, 3, 4, 5, 6, 9, 10):
    out["from"][i] = fitted(ckpt_path=f"at/{i}.ckpt")
out["stream from 2"] = fitted(ckpt_path="stream/2.ckpt", stream=True)
out["plain"] = fitted("plain", p=0.0, accumulate=1)
answer(out)
"""
    folder = tmp_path_factory.mktemp("saved")
    return folder, run_ranks(SCRIPT + script, 2, folder, 300)


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[k], other[k]) for k in one)
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


@pytest.mark.parametrize("batch", [1, 3, 4, 5, 6, 9, 10])
def test_two_processes_go_on_bit_equal(batch: int, saved: Any) -> None:
    for answer in saved[1]:
        whole, part = answer["whole"], answer["from"][batch]
        for what in ("weights", "counters", "rng"):
            assert equal(part[what], whole[what]), what
        assert all(equal(part["metrics"][epoch], whole["metrics"][epoch]) for epoch in part["metrics"])
        assert whole["seen"][len(whole["seen"]) - len(part["seen"]) :] == part["seen"]


def test_a_stream_that_its_user_shards_goes_on_bit_equal(saved: Any) -> None:
    for answer in saved[1]:
        whole, part = answer["stream"], answer["stream from 2"]
        assert equal(part["weights"], whole["weights"]) and equal(part["counters"], whole["counters"])


@pytest.mark.parametrize(
    ("world", "batch_size"),
    [(1, 12), (3, 4), *(pytest.param(*both, marks=pytest.mark.nightly) for both in [(1, 5), (3, 3)])],
)
def test_another_number_of_processes_takes_what_is_left(
    world: int, batch_size: int, saved: Any, tmp_path: Path
) -> None:
    folder, before = saved
    paths = [str(folder / f"plain/{i}.ckpt") for i in (2, 4)]
    flags = f"p=0.0, accumulate=1, batch_size={batch_size}"
    script = f"answer([fitted(ckpt_path=path, {flags}) for path in {paths}])"
    answers = run_ranks(SCRIPT + script, world, tmp_path)
    for nth, done in enumerate((2, 4)):
        rest = [k for answer in answers for batch in answer[nth]["seen"] for k in batch]
        first = [k for one in before for batch in one["plain"]["seen"][:done] for k in batch]
        whole = [k for one in before for batch in one["plain"]["seen"] for k in batch]
        assert sorted(first + rest) == sorted(whole), "a sample was repeated or dropped"
        if world * batch_size == 12:  # the very batches of two processes
            expected = before[0]["plain"]
            torch.testing.assert_close(answers[0][nth]["weights"], expected["weights"], rtol=0, atol=1e-12)
            for epoch, metrics in answers[0][nth]["metrics"].items():
                for name, value in metrics.items():
                    torch.testing.assert_close(value, expected["metrics"][epoch][name], rtol=0, atol=1e-12, msg=name)


def test_one_process_saves_and_two_go_on(saved: Any, tmp_path: Path) -> None:
    alone = run_ranks(SCRIPT + "answer(fitted('alone', p=0.0, accumulate=1))", 1, tmp_path / "one")[0]
    path = str(tmp_path / "one" / "alone" / "3.ckpt")
    answers = run_ranks(SCRIPT + f"answer(fitted(ckpt_path={path!r}, p=0.0, accumulate=1))", 2, tmp_path / "two")
    seen = [k for batch in alone["seen"][:3] for k in batch] + [
        k for a in answers for batch in a["seen"] for k in batch
    ]
    assert sorted(seen) == sorted(k for batch in alone["seen"] for k in batch)
    torch.testing.assert_close(answers[0]["weights"], alone["weights"], rtol=0, atol=1e-12)
