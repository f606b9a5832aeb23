from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from fulgurite.utilities.parsing import (
    AttributeDict,
    is_picklable,
    lightning_getattr,
    lightning_hasattr,
    lightning_setattr,
)


def test_keys_are_attributes() -> None:
    hparams = AttributeDict({"lr": 0.1})
    hparams.depth = 3
    assert (hparams.lr, hparams["depth"]) == (0.1, 3)
    del hparams.lr
    assert hparams == {"depth": 3}
    with pytest.raises(AttributeError, match=r"no hyper-parameter 'lr'; known are \['depth'\]"):
        hparams.lr  # noqa: B018
    assert getattr(hparams, "lr", None) is None


def test_it_is_shown_as_a_table() -> None:
    assert repr(AttributeDict({"a": 1, "bb": [1]})) == '"a":  1\n"bb": [1]'
    assert repr(AttributeDict()) == ""


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda d: pickle.loads(pickle.dumps(d))])
def test_copies_are_of_the_same_kind(duplicate: Any) -> None:
    assert type(duplicate(AttributeDict(a=1))) is AttributeDict
    assert duplicate(AttributeDict(a=1)).a == 1


def test_what_can_be_pickled() -> None:
    assert is_picklable({"a": [1]}) and not is_picklable(lambda: 1)


class Owner:
    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


def test_a_setting_is_found_wherever_it_is() -> None:
    data = Owner(batch_size=8)
    model = Owner(lr=1, hparams=AttributeDict(lr=2, width=3), _trainer=Owner(datamodule=data))
    assert [lightning_getattr(model, name) for name in ("lr", "width", "batch_size")] == [2, 3, 8]
    lightning_setattr(model, "lr", 5)
    lightning_setattr(model, "batch_size", 16)
    assert (model.lr, model.hparams.lr, data.batch_size) == (5, 5, 16)
    assert lightning_hasattr(model, "width") and not lightning_hasattr(model, "height")
    assert lightning_hasattr(Owner(hparams=Owner(depth=4)), "depth")  # whatever kind of object a project keeps them in
    with pytest.raises(AttributeError, match="'height' is no attribute of the module Owner"):
        lightning_getattr(model, "height")
