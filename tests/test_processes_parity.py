"""N processes and one: the same weights, the same numbers, every sample once."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from helpers.cases import CASES, Net, run_case, samples
from helpers.processes import run_ranks

pytestmark = [
    pytest.mark.slow,
    pytest.mark.multi,
    pytest.mark.filterwarnings("ignore:.*lr_scheduler.step.*"),
    pytest.mark.filterwarnings("ignore:.*No (positive|negative) samples"),
]
SCRIPT = """
warnings.filterwarnings("ignore", message=".*No (positive|negative) samples.*")
from helpers.cases import *

class Both(Net):
    def predict_step(self, batch, batch_idx, dataloader_idx=0):
        return {"p": self(batch[0]), "k": batch[2]} if dataloader_idx == 0 else (batch[2], batch[2].tolist())
loaders = [DataLoader(samples(9, 8), 2), DataLoader(samples(5, 8), batch_sampler=Buckets([2, 1, 1, 1]))]
torch.manual_seed(1 + RANK)
trainer = pl.Trainer(**QUIET, devices=WORLD_SIZE)
gathered = trainer.predict(Both(metrics=False), loaders, gather=True)
answer({"gathered": gathered} | {name: run_case(name, WORLD_SIZE, RANK, WORLD_SIZE) for name in NAMES})
"""
QUICK = ["uneven", "one sample left", "accumulation", "fewer samples than processes", "buckets", "masked"]
QUICK += ["stream that one process ends first"]


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The answers of N processes, all cases of one start."""
    known: dict[tuple[int, bool], Any] = {}

    def of(world: int, all_cases: bool) -> Any:
        if (world, all_cases) not in known:
            names = list(CASES) if all_cases else QUICK
            script, folder = f"NAMES = {names!r}\n" + SCRIPT, tmp_path_factory.mktemp(f"w{world}")
            known[world, all_cases] = None  # where this start fails, the next test does not try again
            known[world, all_cases] = run_ranks(script, world, folder, 300)
        if (answers := known[world, all_cases]) is None:
            pytest.skip("these processes have failed in an earlier test")
        return answers

    return of


BUFFERS = """
warnings.filterwarnings("ignore", message=".*broadcast_buffers.* is deprecated")
from helpers.cases import *

class Bank(Net):
    def __init__(self):
        super().__init__(metrics=False)
        self.register_buffer("bank", torch.zeros(1))
    def training_step(self, batch, batch_idx):
        self.bank = torch.full((1 + RANK,), float(RANK)) if APART else self.bank.fill_(RANK)
        return super().training_step(batch, batch_idx)

def bank_after_fit(**options):
    net, strategy = Bank(), pl.strategies.DDPStrategy(**options)
    pl.Trainer(**QUIET, devices=WORLD_SIZE, strategy=strategy, max_epochs=1).fit(
        net, DataLoader(samples(8), 2), DataLoader(samples(8), 2))
    return net.bank.tolist()

APART = False
shared = bank_after_fit()
APART = True
answer((shared, bank_after_fit(broadcast_buffers=False)))
"""


def test_buffers_are_each_process_its_own_where_ddp_is_told_not_to_share_them() -> None:
    assert run_ranks(BUFFERS, 2) == [([0.0], [0.0]), ([0.0], [1.0, 1.0])]


def same(name: str, world: int, answers: list[dict[str, Any]]) -> None:
    one, parts = run_case(name, 1, 0, world), [answer[name] for answer in answers]
    for part in parts:
        assert part["counters"] == one["counters"]
        assert part["lr"] == pytest.approx(one["lr"], abs=1e-15)
        torch.testing.assert_close(part["weights"], one["weights"], rtol=0, atol=1e-12)
        assert part["metrics"].keys() == one["metrics"].keys()
        for key, value in one["metrics"].items():
            if key != "loss":  # of the last step: this process's own
                torch.testing.assert_close(part["metrics"][key], value, rtol=0, atol=1e-12, msg=key)
        assert [set(row) for row in part["tested"]] == [set(row) for row in one["tested"]]
        for mine, theirs in zip(part["tested"], one["tested"], strict=True):
            assert mine == pytest.approx(theirs, abs=1e-12)
    assert sorted(k for part in parts for k in part["seen"]) == sorted(one["seen"])
    assert sorted(k for part in parts for k in part["validated"]) == sorted(one["validated"])
    assert sum(len(part["predicted"]) for part in parts) == len(one["predicted"])
    assert all(torch.equal(part["weights"], parts[0]["weights"]) for part in parts)


@pytest.mark.parametrize("name", QUICK)
def test_two_processes_train_and_measure_as_one(name: str, several: Any) -> None:
    same(name, 2, several(2, False))


def test_predictions_gather_in_the_order_of_the_data_set(several: Any) -> None:
    for answer in several(2, False):
        first, second = answer["gathered"]
        assert [batch["k"].tolist() for batch in first] == [[0, 1], [2, 3], [4, 5], [6, 7], [8]]
        expected = Net(metrics=False)(samples(9, 8).tensors[0])
        torch.testing.assert_close(torch.cat([batch["p"] for batch in first]), expected)
        assert [len(k) for _, k in second] == [2, 1, 1, 1] and sorted(i for _, k in second for i in k) == [
            0,
            1,
            2,
            3,
            4,
        ]


@pytest.mark.nightly
@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("name", list(CASES))
def test_the_whole_grid(name: str, world: int, several: Any) -> None:
    same(name, world, several(world, True))
