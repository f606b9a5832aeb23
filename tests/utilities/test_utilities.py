"""The small modules, and the names that `fulgurite.utilities` offers."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from fulgurite import utilities
from fulgurite.utilities.distributed import is_shared_filesystem
from fulgurite.utilities.enums import GradClipAlgorithmType
from fulgurite.utilities.exceptions import MisconfigurationException, SIGTERMException
from fulgurite.utilities.imports import package_available
from fulgurite.utilities.model_helpers import classmethod_only, is_overridden
from fulgurite.utilities.parameter_tying import find_shared_parameters, set_shared_parameters
from fulgurite.utilities.throughput import measure_flops
from fulgurite.utilities.types import LRSchedulerConfig, OptimizerLRScheduler
from fulgurite.utilities.warnings import PossibleUserWarning, disable_possible_user_warnings


@pytest.mark.slow
def test_each_name_is_offered_and_loaded_when_used() -> None:
    assert all(getattr(utilities, name) is not None for name in utilities.__all__)
    assert all(getattr(utilities, name) is not None for name in dir(utilities))
    with pytest.raises(AttributeError, match="nonsense"):
        utilities.nonsense  # noqa: B018
    code = "import sys, fulgurite.utilities as u; print([m for m in sys.modules if m.startswith(u.__name__ + '.d')])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment).stdout
    assert "distributed" not in loaded


def test_sigterm_leaves_with_143() -> None:
    with pytest.raises(SystemExit) as caught:
        raise SIGTERMException
    assert caught.value.code == 143
    assert SIGTERMException("asked to stop").code == 143
    assert issubclass(MisconfigurationException, ValueError)


def test_clipping_algorithms_compare_with_their_names() -> None:
    assert GradClipAlgorithmType("norm") == "norm"
    assert GradClipAlgorithmType.supported_types() == ["value", "norm"]
    assert GradClipAlgorithmType.supported_type("value") and not GradClipAlgorithmType.supported_type("other")


def test_doubtful_warnings_can_be_silenced() -> None:
    with warnings.catch_warnings():
        disable_possible_user_warnings()
        warnings.warn("perhaps", PossibleUserWarning)


@pytest.mark.parametrize("value", ["off", "0"])
def test_doubtful_warnings_can_be_silenced_from_outside(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import fulgurite.utilities.warnings as module

    with monkeypatch.context() as outside, warnings.catch_warnings():
        outside.setenv("POSSIBLE_USER_WARNINGS", value)
        made = runpy.run_path(module.__file__)["PossibleUserWarning"]
        warnings.warn("perhaps", made)


def test_tied_parameters_are_found_and_tied_again() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2)))
    model[1][0].weight = model[0].weight
    shared = find_shared_parameters(model)
    assert shared == [["0.weight", "1.0.weight"]]
    model[1][0].weight = nn.Parameter(torch.zeros(2, 2))
    set_shared_parameters(model, shared)
    assert model[1][0].weight is model[0].weight


def test_flops_forward_and_backward() -> None:
    with torch.device("meta"):
        model, x = nn.Linear(4, 8), torch.zeros(2, 4)
    assert measure_flops(model, lambda: model(x)) == 128
    assert measure_flops(model, lambda: model(x), lambda y: y.sum()) == 256


def test_one_process_shares_its_files() -> None:
    alone = SimpleNamespace(world_size=1, global_rank=0)
    assert is_shared_filesystem(alone)
    with pytest.raises(FileNotFoundError, match="nowhere does not exist on rank 0"):
        is_shared_filesystem(alone, "nowhere")


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_files_are_shared_if_every_rank_sees_them(share: float) -> None:
    strategy = SimpleNamespace(
        world_size=2,
        global_rank=0,
        root_device=torch.device("cpu"),
        broadcast=lambda name: name,
        barrier=lambda: None,
        reduce=lambda seen, reduce_op: seen * share,
    )
    assert is_shared_filesystem(strategy) is (share == 1.0)
    assert list(Path().iterdir()) == []


def test_packages() -> None:
    assert package_available("torch.nn") and not package_available("no_such_package.part")


def test_overriding_is_seen_in_subclasses_instances_and_wrappers() -> None:
    class Base:
        def step(self) -> None: ...

    class Own(Base):
        def step(self) -> None: ...

    patched: Any = Base()
    patched.step = partial(print, 1)
    assert is_overridden("step", Own(), Base) and is_overridden("step", patched, Base)
    assert not is_overridden("step", Base(), Base) and not is_overridden("step", None)
    assert not is_overridden("stop", Own(), Base)  # a name that the base does not have


def test_a_classmethod_that_refuses_instances_can_still_be_looked_up() -> None:
    class Model:
        @classmethod_only
        def load(cls) -> str:
            """Load."""
            return cls.__name__

    assert Model.load() == "Model" and Model.load.__doc__ == "Load."
    lookup = Model().load
    with pytest.raises(TypeError, match=r"Write: model = Model.load\(...\)"):
        lookup()


def test_types_are_importable_and_usable() -> None:
    assert Optimizer in get_args(OptimizerLRScheduler)
    config = LRSchedulerConfig(scheduler=None)
    assert (config.interval, config.frequency, config.strict) == ("epoch", 1, True)
