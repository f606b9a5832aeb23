"""A checkpoint whose keys hold what they cannot is one error that names the file and the key."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fulgurite.core.expected import check_checkpoint
from fulgurite.core.saving import write_checkpoint
from helpers.fuzz import Net, changed, fuzzed, resumed, sound

pytestmark = pytest.mark.filterwarnings("ignore:The checkpoint directory was")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return sound(str(tmp_path_factory.mktemp("sound") / "sound.ckpt"))


TOP = [("epoch", "x"), ("epoch", -1), ("callbacks", 3), ("optimizer_states", {}), ("lr_schedulers", 3), ("loops", [])]
DEEP: list[tuple[str, Any]] = [
    ("fulgurite.progress.batch", "x"),
    ("fulgurite.progress.epoch", -1),
    ("fulgurite.progress.total_batch", True),
    ("fulgurite.progress.eval_batches", {"validation": "x"}),
    ("fulgurite.rng.torch", torch.zeros(3)),
    ("fulgurite.rng.python", (3, (1, 2), None)),
    ("fulgurite.results.slots", {}),
    ("fulgurite.metrics.callback", {"loss": "x"}),
    ("fulgurite.clocks.since_validation", None),
    ("loops.fit_loop.epoch_progress.total", {"ready": "x"}),
]


@pytest.mark.parametrize(("key", "value"), [*TOP, ("state_dict", []), ("hyper_parameters", [1]), *DEEP])
def test_a_key_of_the_wrong_kind_is_named(checkpoint: dict[str, Any], key: str, value: Any) -> None:
    bad = changed(checkpoint, tuple(key.split(".")), value)
    check_checkpoint(checkpoint, "a.ckpt")
    with pytest.raises(ValueError, match=rf"a\.ckpt cannot be used: its key {key.split('.')[0]}.* expected"):
        check_checkpoint(bad, "a.ckpt")
    write_checkpoint(bad, "a.ckpt")
    for read in (Net.load_from_checkpoint, resumed):
        with pytest.raises(ValueError, match=rf"a\.ckpt cannot be used: its key {key.split('.')[0]}"):
            read("a.ckpt")


@pytest.mark.parametrize("key", ["fulgurite.progress", "fulgurite.rng.torch", "fulgurite.results.slots"])
def test_a_key_that_is_not_there_is_named(checkpoint: dict[str, Any], key: str) -> None:
    with pytest.raises(ValueError, match=rf"a\.ckpt cannot be used: it has no key {key}"):
        check_checkpoint(changed(checkpoint, tuple(key.split(".")), ...), "a.ckpt")


OF_OBJECTS: list[tuple[tuple[Any, ...], Any, str]] = [
    (("state_dict", "layer.weight"), 3, "state_dict"),
    (("state_dict", "layer.weight"), torch.zeros(9), "state_dict"),
    (("optimizer_states", 0, "param_groups", 0, "lr"), "x", r"optimizer_states\[0\].param_groups\[0\].lr"),
    (("optimizer_states", 0, "param_groups", 0, "betas"), (2.5, 0.9), r"optimizer_states\[0\].param_groups\[0\]"),
    (("optimizer_states", 0, "param_groups", 0, "params"), [0, 7], r"optimizer_states\[0\].state"),
    (("optimizer_states", 0, "state", 0), (), r"optimizer_states\[0\].state"),
    (("optimizer_states", 0, "state", 0, "exp_avg"), "x", r"optimizer_states\[0\].state\[0\].exp_avg"),
    (("optimizer_states", 0, "state", 0, "exp_avg"), torch.zeros(9), r"optimizer_states\[0\].state\[0\].exp_avg"),
    (("optimizer_states", 0, "state", 0, "step"), ..., "optimizer_states"),
    (("optimizer_states", 0, "state", 1, "step"), True, r"optimizer_states\[0\].state\[1\].step"),
    (("lr_schedulers", 0, "last_epoch"), "x", r"lr_schedulers\[0\].last_epoch"),
    (("lr_schedulers", 0, "get_lr"), 3, r"lr_schedulers\[0\].get_lr"),
]


@pytest.mark.parametrize(("at", "value", "named"), OF_OBJECTS)
def test_a_state_that_its_object_cannot_have_is_named(
    checkpoint: dict[str, Any], at: tuple[Any, ...], value: Any, named: str
) -> None:
    base = {**checkpoint, "lr_schedulers": [{**checkpoint["lr_schedulers"][0], "get_lr": 0}]}
    write_checkpoint(changed(base if at[-1] == "get_lr" else checkpoint, at, value), "a.ckpt")
    with pytest.raises((ValueError, RuntimeError), match=rf"a\.ckpt cannot be used: .*{named}"):
        resumed("a.ckpt")


def test_states_of_callbacks_too(checkpoint: dict[str, Any]) -> None:
    for key, state in checkpoint["callbacks"].items():
        for name in state.keys() & {"wait_count", "best_score", "best_model_score", "best_k_models", "waiting"}:
            write_checkpoint(changed(checkpoint, ("callbacks", key, name), "x"), "a.ckpt")
            with pytest.raises(ValueError, match=rf"a\.ckpt cannot be used: its key callbacks.*{name}"):
                resumed("a.ckpt")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "count"),
    [("flips", 500), ("inner keys", 100), ("top-level keys", 60), ("pickles", 300), ("class paths", 60)],
)
def test_nothing_runs_and_nothing_that_was_changed_is_accepted(kind: str, count: int) -> None:
    """`benchmarks/fuzz_checkpoints.py` does it by the thousand."""
    results = fuzzed(kind, count)
    assert results.total() >= count and results.keys() <= {"refused", "as the sound file"}, results
    if kind in ("flips", "pickles", "class paths"):
        assert results["refused"] == count
