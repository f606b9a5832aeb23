from __future__ import annotations

import importlib
import os
import pickle
import re
import subprocess
import sys
from argparse import Namespace
from collections import OrderedDict, deque
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fulgurite.core.module import LightningModule
from fulgurite.core.saving import (
    _where_it_was,
    foreign_classes,
    load_hparams_from_yaml,
    plain_hparams,
    read_checkpoint,
    restored_hparams,
    save_hparams_to_yaml,
    write_checkpoint,
)
from fulgurite.utilities import rank_zero
from fulgurite.utilities.parsing import AttributeDict


class Config:
    """A class of the user's own."""

    def __init__(self, width: int) -> None:
        self.width = width


class Color(Enum):
    RED = 1


class Model(LightningModule):
    def __init__(self, width: int, lr: float = 0.1, encoder: Any = None) -> None:
        super().__init__()
        self.save_hyperparameters(ignore="encoder")
        self.net = nn.Linear(width, 1)
        self.encoder = encoder


class Configured(LightningModule):
    def __init__(self, config: Any, other: int = 0) -> None:
        super().__init__()
        self.save_hyperparameters(config)
        self.other = other


def saved(module: Any, path: str = "a.ckpt") -> str:
    """The module's checkpoint as far as loading it needs."""
    plain, classes = plain_hparams(module.hparams)
    checkpoint = {
        "state_dict": module.state_dict(),
        "hyper_parameters": plain,
        "hparams_name": module._hparams_name,
        "hparams_classes": classes,
    }
    write_checkpoint(checkpoint, path)
    return path


@pytest.fixture(autouse=True)
def nothing_said_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_zero, "_warned", set())


# files
def test_what_is_written_is_read() -> None:
    write_checkpoint({"a": torch.ones(2), "b": [1, "x"]}, "deep/er/a.ckpt")
    checkpoint = read_checkpoint("deep/er/a.ckpt")
    assert torch.equal(checkpoint["a"], torch.ones(2)) and checkpoint["b"] == [1, "x"]
    assert os.listdir("deep/er") == ["a.ckpt"]
    with open("deep/er/a.ckpt", "rb") as file:
        assert read_checkpoint(file)["b"] == [1, "x"]


@pytest.mark.slow
def test_a_full_disk_leaves_the_previous_file_and_nothing_else() -> None:
    write_checkpoint({"version": 1}, "a.ckpt")
    code = """
import resource, torch
from fulgurite.core.saving import write_checkpoint
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))  # as a disk with this much left
try:
    write_checkpoint({"version": 2, "weights": torch.zeros(1_000_000)}, "a.ckpt")
except OSError as error:
    print(error)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert "could not be written: File too large: 'a.ckpt'" in done.stdout, done
    assert os.listdir() == ["a.ckpt"]
    assert read_checkpoint("a.ckpt") == {"version": 1}


def test_what_cannot_be_pickled_is_pointed_at_and_nothing_is_left() -> None:
    with pytest.raises(TypeError, match=r"checkpoint\['callbacks'\]\['mine'\]\[1\] cannot be pickled"):
        write_checkpoint({"ok": 1, "callbacks": {"mine": [0, lambda: 1]}}, "a.ckpt")
    assert os.listdir() == []


def test_an_interrupt_while_writing_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(obj: Any, file: Any) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    write_checkpoint({"version": 1}, "a.ckpt")
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_checkpoint({"version": 2}, "a.ckpt")
    assert os.listdir() == ["a.ckpt"] and read_checkpoint("a.ckpt") == {"version": 1}


def test_a_missing_file_is_told_with_those_that_are_there() -> None:
    write_checkpoint({}, "runs/epoch=1.ckpt")
    with pytest.raises(FileNotFoundError, match=r"no checkpoint runs/epoch=2.ckpt; in runs there are: \['epoch=1"):
        read_checkpoint("runs/epoch=2.ckpt")
    with pytest.raises(FileNotFoundError, match="folder nowhere does not exist"):
        read_checkpoint("nowhere/a.ckpt")
    with pytest.raises(IsADirectoryError, match="runs is a folder"):
        read_checkpoint("runs")
    with pytest.raises(ValueError, match=r"path of the checkpoint is empty \(''\). Name the file"):
        read_checkpoint("")


def test_the_home_folder_by_its_short_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with monkeypatch.context() as environment:
        environment.setenv("HOME", str(tmp_path / "home"))
        write_checkpoint({"version": 1}, "~/a.ckpt")
        assert read_checkpoint("~/a.ckpt") == {"version": 1}
    assert read_checkpoint(f"file://{tmp_path}/home/a.ckpt") == {"version": 1}


@pytest.mark.parametrize("weights_only", [None, False])
@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"no checkpoint", lambda b: b[100:]]
)
def test_a_damaged_file_is_told_as_damaged(damage: Any, weights_only: bool | None) -> None:
    write_checkpoint({"a": torch.zeros(1000)}, "a.ckpt")
    Path("a.ckpt").write_bytes(damage(Path("a.ckpt").read_bytes()))
    with pytest.raises(RuntimeError, match=r"a.ckpt \(\d+ bytes\) cannot be read as a checkpoint: it is truncated"):
        read_checkpoint("a.ckpt", weights_only=weights_only)


def test_something_else_is_no_checkpoint() -> None:
    torch.save([1, 2], "list.pt")
    with pytest.raises(ValueError, match=r"holds a list, and a checkpoint is a dictionary"):
        read_checkpoint("list.pt")


def test_a_foreign_class_is_named_with_the_call_that_allows_it() -> None:
    write_checkpoint({"hyper_parameters": {"config": Config(3)}}, "a.ckpt")
    with pytest.raises(pickle.UnpicklingError, match=re.escape(f"add_safe_globals([{Config.__module__}.Config])")):
        read_checkpoint("a.ckpt")
    with torch.serialization.safe_globals([Config]):
        assert read_checkpoint("a.ckpt")["hyper_parameters"]["config"].width == 3
    assert read_checkpoint("a.ckpt", weights_only=False)["hyper_parameters"]["config"].width == 3


def test_what_no_safe_reader_builds_says_so() -> None:
    write_checkpoint({"queue": deque([1])}, "a.ckpt")
    with torch.serialization.safe_globals([deque]), pytest.raises(pickle.UnpicklingError, match="even when its class"):
        read_checkpoint("a.ckpt")
    assert read_checkpoint("a.ckpt", weights_only=False) == {"queue": deque([1])}


class Bomb:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("exploded"),)


def test_code_in_a_file_does_not_run() -> None:
    torch.save({"a": Bomb()}, "a.ckpt")
    with pytest.raises(pickle.UnpicklingError, match=r"weights_only=False, which runs whatever code"):
        read_checkpoint("a.ckpt")
    assert not Path("exploded").exists()


def their_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file with dictionaries of Lightning's, as pickle writes them where it is installed."""
    import types

    module = types.ModuleType("lightning.fabric.utilities.data")
    theirs = type("AttributeDict", (dict,), {"__module__": module.__name__})
    module.AttributeDict = theirs  # type: ignore[attr-defined]
    with monkeypatch.context() as patch:
        for name in ("lightning", "lightning.fabric", "lightning.fabric.utilities"):
            patch.setitem(sys.modules, name, types.ModuleType(name))
        patch.setitem(sys.modules, module.__name__, module)
        torch.save({"hyper_parameters": {"conf": theirs(a=theirs(b=1)), "args": Namespace(x=2)}}, "theirs.ckpt")


def test_lightnings_dictionaries_are_read_as_plain_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    their_file(monkeypatch)
    hparams = read_checkpoint("theirs.ckpt")["hyper_parameters"]
    assert hparams == {"conf": {"a": {"b": 1}}, "args": Namespace(x=2)}
    assert type(hparams["conf"]) is dict


@pytest.fixture(scope="session")  # importing lightning sets environment variables, which a test must not
def lightning() -> Any:
    return importlib.import_module("lightning.pytorch")


@pytest.mark.parity
def test_a_file_that_lightning_wrote_is_read_without_unpickling_its_classes(lightning: Any) -> None:
    class Theirs(lightning.LightningModule):  # type: ignore[misc,name-defined]
        def __init__(self, width: int, conf: Any) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.net = nn.Linear(width, 1)

    class Ours(LightningModule):
        def __init__(self, width: int, conf: Any) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.net = nn.Linear(width, 1)

    module = Theirs(3, lightning.utilities.AttributeDict(a=1))
    trainer = lightning.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_model_summary=False)
    trainer.strategy.connect(module)
    trainer.save_checkpoint("theirs.ckpt")
    loaded = Ours.load_from_checkpoint("theirs.ckpt")
    assert loaded.hparams == {"width": 3, "conf": {"a": 1}}
    assert torch.equal(loaded.net.weight, module.net.weight)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_tensors_of_a_missing_device_come_to_the_cpu() -> None:
    storage = torch.UntypedStorage(4)
    assert _where_it_was(storage, "cuda:3") is storage
    assert _where_it_was(storage, "cpu") is storage


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_an_error_of_another_kind_is_not_told_as_damage() -> None:
    write_checkpoint({"a": torch.zeros(1)}, "a.ckpt")
    with pytest.raises((RuntimeError, AssertionError), match="CUDA"):
        read_checkpoint("a.ckpt", map_location="cuda:0")


def test_torchs_variable_allows_what_the_call_leaves_open(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"config": Config(1)}, "a.ckpt")
    with monkeypatch.context() as environment:
        environment.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
        assert isinstance(read_checkpoint("a.ckpt")["config"], Config)
        with pytest.raises(pickle.UnpicklingError):
            read_checkpoint("a.ckpt", weights_only=True)


# hyper-parameters
def test_plain_hyper_parameters_come_back_as_they_were_through_a_safe_file() -> None:
    hparams = {
        "n": 1,
        "args": Namespace(x=Namespace(y=[1, (2, Path("a/b"))])),
        "conf": AttributeDict(a=AttributeDict(b=2)),
        "order": OrderedDict(z=1, a=2),
        "dtype": torch.float16,
    }
    torch.save(plain_hparams(hparams), "h.pt")
    plain, classes = torch.load("h.pt", weights_only=True)
    assert plain["args"] == {"x": {"y": [1, (2, str(Path("a/b")))]}} and plain["conf"] == {"a": {"b": 2}}
    restored = restored_hparams(plain, classes)
    assert restored == hparams
    assert restored["conf"].a.b == 2 and restored["args"].x.y[1][1] == Path("a/b")
    assert list(restored["order"]) == ["z", "a"]


def test_a_dictionary_of_another_class_keeps_its_attribute_access() -> None:
    class EasyDict(dict):  # type: ignore[type-arg]
        def __getattr__(self, name: str) -> Any:
            if name in self:
                return self[name]
            raise AttributeError(name)

    class Sized(LightningModule):
        def __init__(self, config: Any) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.size = config.net.size

    assert Sized.load_from_checkpoint(saved(Sized(EasyDict(net=EasyDict(size=3))))).size == 3


def test_numbers_of_numpy_become_pythons() -> None:
    import numpy as np

    plain, _ = plain_hparams({"a": np.float64(0.5), "b": [np.int64(3)]})
    assert plain == {"a": 0.5, "b": [3]} and type(plain["a"]) is float and type(plain["b"][0]) is int


def test_what_cannot_be_pickled_is_left_out_with_a_warning() -> None:
    with pytest.warns(UserWarning, match=r"'act' of type function cannot be pickled.*load_from_checkpoint\(path, act="):
        assert plain_hparams({"act": lambda x: x, "n": 1})[0] == {"n": 1}


def test_classes_that_a_safe_reader_refuses_are_named() -> None:
    plain = {"a": [1, (2.0, None)], "t": torch.zeros(1), "d": torch.float32, "s": {1}, "o": OrderedDict(a=1)}
    assert foreign_classes(plain) == []
    found = foreign_classes({**plain, "c": [Config(1), Config(2)], "q": deque([3])})
    assert found == sorted(["collections.deque", f"{Config.__module__}.Config"])
    torch.save(plain, "p.pt")
    torch.load("p.pt", weights_only=True)


# load_from_checkpoint
def test_a_model_comes_back_with_its_arguments_and_weights() -> None:
    model = Model(3, lr=0.5)
    loaded = Model.load_from_checkpoint(saved(model))
    assert loaded.hparams == {"width": 3, "lr": 0.5}
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters(), strict=True))


def test_arguments_given_go_before_those_saved() -> None:
    loaded = Model.load_from_checkpoint(saved(Model(3)), lr=7.0, encoder="mine", map_location="cpu")
    assert (loaded.hparams.lr, loaded.encoder) == (7.0, "mine")


def test_a_missing_argument_is_named_with_the_call_that_gives_it() -> None:
    class Needs(Model):
        def __init__(self, encoder: Any, width: int = 3) -> None:
            super().__init__(width, encoder=encoder)

    path = saved(Model(3))
    with pytest.raises(TypeError, match=re.escape("Needs.load_from_checkpoint('a.ckpt', encoder=...)")):
        Needs.load_from_checkpoint(path)
    assert Needs.load_from_checkpoint(path, encoder=1).encoder == 1


def test_it_is_not_called_on_an_instance() -> None:
    model = Model(3)
    with pytest.raises(TypeError, match=r"not called on an instance. Write: model = Model.load_from_checkpoint"):
        model.load_from_checkpoint("a.ckpt")


def test_saved_arguments_that_init_no_longer_takes_are_dropped() -> None:
    class Smaller(LightningModule):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.net = nn.Linear(width, 1)

    assert Smaller.load_from_checkpoint(saved(Model(3))).net.in_features == 3


def test_an_argument_nobody_takes_is_told() -> None:
    with pytest.warns(
        UserWarning, match=r"got widht, which Model.__init__ does not take \(it takes: encoder, lr, width"
    ):
        Model.load_from_checkpoint(saved(Model(3)), widht=4)


@pytest.mark.parametrize("config", [{"a": 1, "b": [2]}, Namespace(a=1, b=[2])])
def test_one_object_is_passed_as_one(config: Any) -> None:
    loaded = Configured.load_from_checkpoint(saved(Configured(config)), a=5, other=6)
    assert loaded.hparams == {"a": 5, "b": [2]} and loaded.other == 6


def test_what_is_passed_reaches_the_one_object_also_beside_kwargs() -> None:
    class Open(LightningModule):
        def __init__(self, config: Any, **more: Any) -> None:
            super().__init__()
            self.save_hyperparameters(config)
            self.more = more

    loaded = Open.load_from_checkpoint(saved(Open({"a": 1})), a=5)
    assert loaded.hparams == {"a": 5} and loaded.more == {"a": 5}  # Lightning hands it to both too


def test_arguments_can_come_from_a_yaml_file() -> None:
    save_hparams_to_yaml("h.yaml", {"width": 3, "lr": 9.0})
    assert Model.load_from_checkpoint(saved(Model(3)), hparams_file="h.yaml").hparams.lr == 9.0


def test_arguments_can_come_from_the_csv_of_old() -> None:
    Path("meta_tags.csv").write_text("key,value\nwidth,3\nlr,9.0\n")
    assert Model.load_from_checkpoint(saved(Model(3)), hparams_file="meta_tags.csv").hparams.lr == 9.0


def test_strictness() -> None:
    class More(Model):
        def __init__(self, width: int, loose: bool = False) -> None:
            super().__init__(width)
            self.extra = nn.Linear(1, 1)
            if loose:
                self.strict_loading = False

    path = saved(Model(3))
    with pytest.raises(RuntimeError, match="extra.weight"):
        More.load_from_checkpoint(path)
    with pytest.warns(UserWarning, match="no weights for extra.weight, extra.bias"):
        More.load_from_checkpoint(path, strict=False)
    with pytest.warns(UserWarning, match="no weights"):
        More.load_from_checkpoint(path, loose=True)
    with pytest.raises(ValueError, match=r"strict=True\) contradicts self.strict_loading = False"):
        More.load_from_checkpoint(path, loose=True, strict=True)


def test_layers_built_in_configure_model_and_state_of_the_hook_are_loaded() -> None:
    class Late(LightningModule):
        def configure_model(self) -> None:
            self.net = nn.Linear(2, 1)

        def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            self.extra = checkpoint["extra"]

    module = Late()
    module.configure_model()
    write_checkpoint({"state_dict": module.state_dict(), "extra": 3}, "a.ckpt")
    loaded = Late.load_from_checkpoint("a.ckpt")
    assert torch.equal(loaded.net.weight, module.net.weight) and loaded.extra == 3


def test_bare_weights_are_no_checkpoint_of_a_trainer() -> None:
    torch.save(Model(3).state_dict(), "w.pt")
    with pytest.raises(KeyError, match=r"no 'state_dict'.*load_state_dict"):
        Model.load_from_checkpoint("w.pt", width=3)


# YAML
def test_hyper_parameters_travel_through_yaml() -> None:
    hparams = {"a": 1, "t": (1, [2, (3,)]), "n": None, "s": "text", "d": {"x": 0.5}}
    save_hparams_to_yaml("h.yaml", hparams)
    assert load_hparams_from_yaml("h.yaml") == hparams
    save_hparams_to_yaml("n.yaml", Namespace(c=Color.RED, p=Path("a/b"), inner=AttributeDict(z=1)))
    assert load_hparams_from_yaml("n.yaml") == {"c": "RED", "p": "a/b", "inner": {"z": 1}}


def test_what_yaml_cannot_hold_is_left_out_with_a_warning() -> None:
    with pytest.warns(UserWarning, match=r"h.yaml is written without net \(Linear\)"):
        save_hparams_to_yaml("h.yaml", {"net": nn.Linear(1, 1), "a": 1})
    assert load_hparams_from_yaml("h.yaml") == {"a": 1}


def test_bad_yaml() -> None:
    with pytest.raises(FileNotFoundError, match="no file of hyper-parameters none.yaml"):
        load_hparams_from_yaml("none.yaml")
    Path("o.yaml").write_text("a: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(ValueError, match="o.yaml is not a file of plain hyper-parameters"):
        load_hparams_from_yaml("o.yaml")
    Path("l.yaml").write_text("- 1\n")
    with pytest.raises(ValueError, match="holds a list"):
        load_hparams_from_yaml("l.yaml")
    with pytest.raises(RuntimeError, match="folder nowhere does not exist"):
        save_hparams_to_yaml("nowhere/h.yaml", {})
    Path("e.yaml").write_text("")
    assert load_hparams_from_yaml("e.yaml") == {}
