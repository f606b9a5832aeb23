from __future__ import annotations

import copy
from argparse import Namespace
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from fulgurite.core.hparams import HyperparametersMixin
from fulgurite.utilities.parsing import AttributeDict


class Base(HyperparametersMixin):
    def __init__(self, a: Any, b: int = 2, *args: Any, c: int = 3, **kwargs: Any) -> None:
        super().__init__()
        local = 5  # noqa: F841  # not an argument, so not a hyper-parameter
        self.save_hyperparameters()


def test_all_arguments_are_kept_but_not_the_starred_ones() -> None:
    model = Base(1, 5, 6, 7, c=9, extra=8)
    assert model.hparams == {"a": 1, "b": 5, "c": 9, "extra": 8}
    assert isinstance(model.hparams, AttributeDict) and model.hparams.extra == 8
    assert model._hparams_name == "kwargs" and model._log_hyperparams


def test_a_subclass_adds_its_own_and_has_the_last_word() -> None:
    class Sub(Base):
        def __init__(self, z: int, a: int = 10, **kwargs: Any) -> None:
            super().__init__(a * 2, **kwargs)

    assert Sub(1, q=5).hparams == {"a": 10, "b": 2, "c": 3, "q": 5, "z": 1}


def test_both_classes_of_a_chain_may_save() -> None:
    class Sub(Base):
        def __init__(self, z: int, **kwargs: Any) -> None:
            super().__init__(1, **kwargs)
            self.save_hyperparameters(ignore="z")

    assert Sub(1, q=3).hparams == {"a": 1, "b": 2, "c": 3, "q": 3}


def test_a_module_built_inside_keeps_to_its_own() -> None:
    class Outer(HyperparametersMixin):
        def __init__(self, a: int = 1) -> None:
            super().__init__()
            self.child = Base(5)
            self.save_hyperparameters()

    outer = Outer()
    assert outer.child.hparams == {"a": 5, "b": 2, "c": 3}, "Lightning lets the outer a=1 in"
    assert outer.hparams == {"a": 1}


def saved(*names: Any, **options: Any) -> Any:
    class Model(HyperparametersMixin):
        def __init__(self, config: Any, other: int = 1, **kwargs: Any) -> None:
            super().__init__()
            self.save_hyperparameters(*(config if n == "<config>" else n for n in names), **options)

    return Model


def test_only_the_named_or_all_but_the_ignored() -> None:
    assert saved("other")(0).hparams == {"other": 1}
    assert saved("other", "e")(0, e=4).hparams == {"other": 1, "e": 4}
    assert saved(ignore="config")(0).hparams == {"other": 1}
    assert saved(ignore=["other", "nobody"])(0, e=4).hparams == {"config": 0, "e": 4}


@pytest.mark.parametrize("config", [{"x": 1, "y": 2}, Namespace(x=1, y=2)])
def test_one_object_stands_for_all_under_the_name_of_its_argument(config: Any) -> None:
    model = saved("<config>")(config)
    assert model.hparams == {"x": 1, "y": 2} and model._hparams_name == "config"
    assert saved("<config>", ignore="x")(config).hparams == {"y": 2}


def test_a_copy_of_an_argument_goes_by_its_name() -> None:
    class Model(HyperparametersMixin):
        def __init__(self, config: Any, other: Any = None) -> None:
            super().__init__()
            self.save_hyperparameters(copy.deepcopy(config))

    assert Model({"x": 1}, other={"x": 1})._hparams_name == Model(Namespace(x=1))._hparams_name == "config"
    assert Model({"x": torch.ones(2)})._hparams_name is None


def test_a_configuration_that_was_not_given_saves_nothing() -> None:
    model = saved("<config>")(None)
    assert model.hparams == {} and model._hparams_name is None


def test_any_dictionary_can_be_saved_and_others_add_to_it() -> None:
    model = saved({"new": 5})(0)
    model.save_hyperparameters({"new": 6, "more": 7})
    assert model.hparams == {"new": 6, "more": 7} and model._hparams_name is None


@pytest.mark.parametrize("config", [3, "text", [1, 2]])
def test_other_values_are_refused(config: Any) -> None:
    if config == "text":
        with pytest.raises(ValueError, match=r"no argument 'text'; it has \['config', 'other'\]"):
            saved("<config>")(config)
        return
    with pytest.raises(ValueError, match=r"dictionary or an argparse.Namespace, not .* of type"):
        saved("<config>")(config)


def test_several_objects_are_refused_and_not_dropped() -> None:
    with pytest.raises(ValueError, match="names of arguments"):
        saved("<config>", 2)({"x": 1})


def test_a_dataclass_saves_its_fields() -> None:
    @dataclass
    class Model(HyperparametersMixin):
        a: int = 1
        b: str = "x"

        def __post_init__(self) -> None:
            self.save_hyperparameters(ignore="b")

    assert Model(5).hparams == {"a": 5}


def test_a_helper_may_call_it() -> None:
    class Model(HyperparametersMixin):
        def __init__(self, a: int = 1) -> None:
            self.prepare()

        def prepare(self) -> None:
            b = 4  # noqa: F841
            self.save_hyperparameters()

    assert Model().hparams == {"a": 1}


def test_what_was_saved_first_stays_as_it_was() -> None:
    values = [1]
    model = Base(values)
    model.hparams.a.append(2)
    model.hparams.new = 3
    assert values == [1, 2], "hparams holds the objects themselves"
    assert model.hparams_initial == {"a": [1], "b": 2, "c": 3}
    model.hparams_initial["a"].append(5)
    assert model.hparams_initial["a"] == [1]


def test_an_argument_that_cannot_be_copied_is_named() -> None:
    with pytest.raises(TypeError, match=r"'a' of type generator cannot be copied.*ignore=\['a'\]"):
        Base(x for x in [1])


def test_a_module_among_the_arguments_warns() -> None:
    with pytest.warns(UserWarning, match=r"'a' is an nn.Module.*ignore=\['a'\]"):
        assert isinstance(Base(nn.Linear(1, 1)).hparams.a, nn.Linear)


def test_it_works_in_an_nn_module_whichever_comes_first() -> None:
    class First(HyperparametersMixin, nn.Module):
        def __init__(self, a: int = 1) -> None:
            super().__init__()
            self.save_hyperparameters(logger=False)

    class Second(nn.Module, HyperparametersMixin):
        def __init__(self, a: int = 1) -> None:
            super().__init__()
            self.save_hyperparameters()

    assert First().hparams == Second().hparams == {"a": 1}
    assert not First()._log_hyperparams


def test_assigning_hparams_says_what_to_write_today() -> None:
    model = Base(1)
    with pytest.warns(Warning, match="save_hyperparameters"):
        model.hparams = {}  # type: ignore[misc,assignment]
    assert HyperparametersMixin().hparams == {}


def test_a_subclass_forgets_what_its_base_has_saved() -> None:
    class Parent(HyperparametersMixin):
        def __init__(self, width: int, secret: str) -> None:
            super().__init__()
            self.save_hyperparameters()

    class Quiet(Parent):
        def __init__(self, width: int, secret: str) -> None:
            super().__init__(width, secret)
            self.save_hyperparameters(ignore="secret")

    assert Quiet(2, "s").hparams == {"width": 2}
