"""FSDP2 on two and three real processes: one process's numbers, and checkpoints that any number of processes reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fulgurite.__main__ import main
from fulgurite.core.saving import read_checkpoint
from helpers.blocks import Blocks, fitted, furthest, weights
from helpers.processes import run_ranks

# several cases share a group of processes: starting two costs about 4 s of processor time
_USE = """
from pathlib import Path
from helpers.blocks import *
from fulgurite.strategies import FSDPStrategy, ModelParallelStrategy
from fulgurite.callbacks import *
answers = {}
"""
FLAGS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "two units, clipped by norm, accumulating": {"gradient_clip_val": 0.05, "accumulate_grad_batches": 2},
    "gradients kept whole in a window": {"gradient_clip_val": 0.05, "accumulate_grad_batches": 3},
    "clipped by value": {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value", "model": {"name": "SGD"}},
}
STRATEGIES = {
    "as it is": "'fsdp'",
    "two units, clipped by norm, accumulating": "FSDPStrategy(auto_wrap_policy={Block})",
    "gradients kept whole in a window": "FSDPStrategy(auto_wrap_policy={Block}, accumulates_unsharded=True)",
    "clipped by value": "FSDPStrategy(auto_wrap_policy={Block}, sharding_strategy='SHARD_GRAD_OP')",
}


@pytest.mark.multi
@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 3])
def test_weights_are_those_of_one_process(ranks: int, tmp_path: Path) -> None:
    cases = "".join(
        f"answers[{name!r}] = weights(fitted(6, strategy={STRATEGIES[name]}, **{flags}))\n"
        for name, flags in FLAGS.items()
    )
    answers = run_ranks(f"{_USE}{cases}answer(answers)", ranks, tmp_path)
    alone = {name: weights(fitted(6, **flags)) for name, flags in FLAGS.items()}
    far = {name: furthest(alone[name], answers[0][name]) for name in FLAGS}
    assert max(far.values()) < 1e-12, far
    assert furthest(alone["as it is"], alone["clipped by value"]) > 1e-3


ELSEWHERE = "[Tt]he checkpoint (directory was|holds the state of callbacks)"
_SAVE = f"""{_USE}
warnings.filterwarnings("ignore", message="{ELSEWHERE}")
def saving(kind, folder, ckpt_path=None, **flags):
    strategy = FSDPStrategy(auto_wrap_policy={{Block}}, state_dict_type=kind)
    save = ModelCheckpoint(folder, "{{step}}", every_n_train_steps=1, save_top_k=-1)
    return weights(fitted(6, strategy=strategy, callbacks=[save], ckpt_path=ckpt_path, **flags))
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """What two processes have saved at each step, as files and as folders, and how they went on from there."""
    folder = tmp_path_factory.mktemp("saved")
    script = f"""{_SAVE}
for kind in ("full", "sharded"):
    answers[kind] = saving(kind, kind)
    answers[f"{{kind}} from the third step"] = saving(kind, f"again-{{kind}}", f"{{kind}}/step=3.ckpt")
    answers[f"{{kind}} from the middle of a window"] = saving(
        kind, f"window-{{kind}}", accumulate_grad_batches=2, gradient_clip_val=0.05)
trainer = quiet(strategy="fsdp")
answers["validate"] = trainer.validate(Blocks(), loader(6, 12), ckpt_path="sharded/step=3.ckpt")
answers["test"] = trainer.test(ckpt_path="full/step=3.ckpt", dataloaders=loader(6, 12))
answer(answers)
"""
    return folder, run_ranks(script, 2, folder)[0]


@pytest.mark.multi
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["full", "sharded"])
def test_a_run_resumed_in_mid_epoch_is_bit_equal(saved: tuple[Path, dict[str, Any]], kind: str) -> None:
    folder, answers = saved
    assert furthest(answers[kind], answers[f"{kind} from the third step"]) == 0
    assert furthest(answers["full"], answers["sharded"]) == 0
    assert (folder / kind / "step=3.ckpt").is_dir() == (kind == "sharded")


@pytest.mark.multi
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["full", "sharded"])
def test_one_process_goes_on_from_what_two_have_saved(saved: tuple[Path, dict[str, Any]], kind: str) -> None:
    folder, answers = saved
    path = folder / kind / "step=3.ckpt"
    with pytest.warns(UserWarning, match=ELSEWHERE):
        resumed = weights(fitted(6, ckpt_path=path))
    assert furthest(resumed, answers[kind]) < 1e-12
    loaded = {name: value.float() for name, value in read_checkpoint(path)["state_dict"].items()}
    assert furthest(weights(Blocks.load_from_checkpoint(path)), loaded) == 0


@pytest.mark.multi
@pytest.mark.slow
def test_a_folder_of_shards_becomes_one_file(saved: tuple[Path, dict[str, Any]], capsys: Any) -> None:
    folder = saved[0] / "sharded" / "step=3.ckpt"
    main(["consolidate", str(folder), "whole.ckpt"])
    assert "as one process would have saved it" in capsys.readouterr().out
    ours, theirs = read_checkpoint("whole.ckpt"), read_checkpoint(saved[0] / "full" / "step=3.ckpt")
    assert furthest(ours["state_dict"], theirs["state_dict"]) == 0
    assert str(ours["optimizer_states"]) == str(theirs["optimizer_states"])
    assert ours.keys() == theirs.keys()
    main(["consolidate", str(folder)])
    assert (folder.parent / "step=3.ckpt.consolidated").is_file()
