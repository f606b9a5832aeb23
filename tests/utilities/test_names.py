"""Files saved with a layer compiled load where it is not, and the other way round."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from fulgurite import LightningModule
from fulgurite.callbacks import EMAWeightAveraging, ModelCheckpoint
from fulgurite.utilities.names import modules_as_in, plain_name, weights_as_in
from helpers.tiny import Tiny, data, fit


def compiled(layer: nn.Module) -> Any:
    return torch.compile(layer, backend="eager")


class Deep(Tiny):
    """A layer that may be compiled, with a layer inside that may be too, and batch norm's buffers."""

    def __init__(self, outer: bool, inner: bool) -> None:
        super().__init__()
        part: Any = nn.Linear(4, 4)
        whole: Any = nn.Sequential(compiled(part) if inner else part, nn.BatchNorm1d(4), nn.Linear(4, 1))
        self.layer = compiled(whole) if outer else whole


SAVED, NOW = (True, True), [(False, False), (True, False), (False, True), (True, True)]


def test_plain_name() -> None:
    assert [plain_name(name) for name in ("a.w", "a._orig_mod.w", "_orig_mod.a._orig_mod", "w")] == [
        "a.w",
        "a.w",
        "a",
        "w",
    ]


def test_names_that_nobody_has_stay_as_they_are() -> None:
    module = nn.Sequential(compiled(nn.Linear(1, 1)))
    assert weights_as_in(module, {"0.weight": 1, "b.weight": 2, "c": 3}) == {
        "0._orig_mod.weight": 1,
        "b.weight": 2,
        "c": 3,
    }
    assert modules_as_in(module, {"0": 1, "b": 2}) == {"0._orig_mod": 1, "b": 2}


@pytest.mark.parametrize(("saved", "now"), [*((SAVED, now) for now in NOW), *((now, SAVED) for now in NOW[:3])])
def test_a_run_is_resumed_whichever_layers_are_compiled(saved: Any, now: Any) -> None:
    def save() -> Any:
        return ModelCheckpoint("out", every_n_train_steps=1, save_top_k=-1)

    torch.manual_seed(0)
    whole = Deep(*saved)
    flags: dict[str, Any] = {"max_epochs": 2, "accumulate_grad_batches": 2}
    fit(save(), EMAWeightAveraging(decay=0.5), model=whole, **flags)
    resumed = Deep(*now)
    fit(save(), EMAWeightAveraging(decay=0.5), model=resumed, ckpt_path="out/epoch=0-step=1.ckpt", **flags)
    assert all(map(torch.equal, whole.state_dict().values(), resumed.state_dict().values()))


@pytest.mark.parametrize("now", NOW)
def test_weights_are_loaded_whichever_layers_are_compiled(now: Any) -> None:
    fit(model=(trained := Deep(True, False))).save_checkpoint("a.ckpt")
    for loaded in (Deep.load_from_checkpoint("a.ckpt", outer=now[0], inner=now[1]), Deep(*now)):
        if isinstance(loaded, LightningModule) and loaded.training:
            fit(max_epochs=0).test(loaded, data(), ckpt_path="a.ckpt", verbose=False)
        assert all(map(torch.equal, trained.state_dict().values(), loaded.state_dict().values()))


def test_weights_that_are_missing_are_still_an_error() -> None:
    fit(model=Deep(True, False)).save_checkpoint("a.ckpt")
    with pytest.raises(RuntimeError, match="Missing key"):
        Tiny.load_from_checkpoint("a.ckpt")
