"""What a checkpoint names is made where the program stands for it, and nothing else is imported or made."""

from __future__ import annotations

import functools
import importlib
import pickle
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Generic, NewType, Optional, Protocol, TypeVar, Union

import pytest
import torch
from torch import nn

from fulgurite import LightningDataModule, LightningModule
from fulgurite.core.saving import write_checkpoint

pytestmark = pytest.mark.needs("jsonargparse")  # which makes what a command line has saved
HERE = __name__
INSTANTIATOR = "lightning.pytorch.cli.instantiate_module"
made: list[str] = []


class Encoder:
    def __init__(self, size: int = 1, inner: Encoder | None = None) -> None:
        made.append(type(self).__name__)
        self.size, self.inner = size, inner

    class Within:
        def __init__(self) -> None:
            made.append("Within")

    @classmethod
    def make(cls) -> Encoder:
        return cls()


class Wide(Encoder):
    pass


class Other:
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        made.append("Other")


class Reads(Protocol):
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...


class Color(Enum):
    RED = 1


E = TypeVar("E", bound=Encoder)
Free = TypeVar("Free")
Named = NewType("Named", Encoder)


class Box(Generic[Free]):
    def __init__(self, of: Free | None = None) -> None:
        made.append("Box")


@dataclass
class Settings:
    rate: float = 0.1
    color: Color = Color.RED
    encoder: Encoder | None = None
    parts: list[Encoder] = field(default_factory=list)


class Model(LightningModule):
    def __init__(
        self,
        untyped=None,  # type: ignore[no-untyped-def]  # that is the case
        anything: Any = None,
        thing: object = None,
        kind: type = int,
        data: dict = {},  # type: ignore[type-arg]  # noqa: B006
        named: dict[str, Any] = {},  # noqa: B006
        some: list = [],  # type: ignore[type-arg]  # noqa: B006
        free: Free | None = None,  # type: ignore[type-var]
        unknown: Nowhere | None = None,  # type: ignore[name-defined]  # noqa: F821
        function: Callable = torch.relu,  # type: ignore[type-arg]
        reads: Reads | None = None,
        optional: Optional[Encoder] = None,  # noqa: UP045
        union: Union[int, Encoder, str] = 1,  # noqa: UP007
        several: list[Encoder] = [],  # noqa: B006
        by_name: Mapping[str, Encoder] = {},  # noqa: B006
        pair: tuple[int, Encoder] | None = None,
        sequence: Sequence[Encoder | int] = (),
        bound: E | None = None,  # type: ignore[type-var]
        new: Named | None = None,
        noted: Annotated[Encoder, "x"] | None = None,
        class_of: type[Encoder] = Encoder,
        factory: Callable[[int], Encoder] | None = None,
        box: Box[int] | None = None,
        settings: Settings | None = None,
        color: Color = Color.RED,
        shape: tuple[int, int] = (1, 1),
        path: Path = Path("a"),
        text: str = "",
        **more: Any,
    ) -> None:
        super().__init__()
        self.given = {key: value for key, value in locals().items() if key not in ("self", "__class__", "more")} | more
        made.append("Model")


class Inherits(Model):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)


class Harmful(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        made.append("Harmful")


@pytest.fixture(autouse=True)
def nothing_made(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    Path("planted.py").write_text("open('ran', 'w').close()\nclass Thing:\n    pass\n")
    Path("precious.txt").write_text("years of work")
    monkeypatch.syspath_prepend(str(Path.cwd()))
    importlib.import_module("logging.handlers")
    made.clear()
    yield
    assert not Path("ran").exists() and "planted" not in sys.modules and "planted_too" not in sys.modules
    assert Path("precious.txt").read_text() == "years of work"


def saved(key: str = "hyper_parameters", instantiator: Any = INSTANTIATOR, **hparams: Any) -> str:
    write_checkpoint({"state_dict": {}, key: {"_instantiator": instantiator, **hparams}}, "a.ckpt")
    return "a.ckpt"


def load(cls: Any = Model, **hparams: Any) -> Any:
    return cls.load_from_checkpoint(saved(**hparams))


def spec(name: str, **init: Any) -> dict[str, Any]:
    return {"class_path": name if "." in name and not name[0].isupper() else f"{HERE}.{name}", "init_args": init}


FILE = spec("logging.FileHandler", filename="precious.txt", mode="w")
NAMES_NOTHING = ["untyped", "anything", "thing", "free", "unknown", "function", "reads", "kind_of", "extra"]
NAMES_ENCODER = ["optional", "union", "bound", "new", "noted", "factory"]
PAYLOADS = [
    spec("planted.Thing"),
    FILE,
    spec("logging.handlers.RotatingFileHandler", filename="precious.txt", mode="w"),
    spec("os.system", command="touch ran"),
    spec("posix.system", command="touch ran"),
    spec("subprocess.Popen", args=["touch", "ran"]),
    spec("builtins.eval", source="open('ran', 'w')"),
    spec("builtins.open", file="precious.txt", mode="w"),
    spec("pathlib.Path.touch", self="ran"),
    spec("Encoder.make"),
    spec("Other"),
    {"class_path": f"{HERE}.Wide", "init_args": {}, "more": 1},
    {"class_path": ["os", "system"]},
    {"class_path": ""},
    {"class_path": "."},
    {"class_path": f"{HERE}"},
    {"class_path": f"{HERE}.made.append"},
    {"class_path": f"{HERE}.Encoder.__init__"},
    {"class_path": f"{HERE}.Encoder.__class__"},
    {"class_path": f"{HERE}.Encoder.Within"},
]


@pytest.mark.parametrize("parameter", NAMES_NOTHING)
def test_where_no_class_is_named_nothing_is_made(parameter: str) -> None:
    for payload in [*PAYLOADS, spec("Encoder"), spec("Wide")]:
        with pytest.raises((pickle.UnpicklingError, ValueError), match=rf"a.ckpt.*Model\.{parameter}"):
            load(**{parameter: payload})
    assert not made


@pytest.mark.parametrize("parameter", NAMES_ENCODER)
def test_where_a_class_is_named_only_its_subclasses_are_made(parameter: str) -> None:
    for payload in PAYLOADS:
        with pytest.raises((pickle.UnpicklingError, ValueError), match=rf"a.ckpt.*Model\.{parameter}"):
            load(**{parameter: payload})
    assert not made
    found = load(**{parameter: spec("Wide", size=3)}).given[parameter]
    found = found() if isinstance(found, functools.partial) else found
    assert type(found) is Wide and found.size == 3


@pytest.mark.parametrize("payload", PAYLOADS)
def test_what_is_deep_inside_is_not_made_either(payload: dict[str, Any]) -> None:
    inner = spec("Encoder", inner=spec("Encoder", inner=payload))
    deep: list[dict[str, Any]] = [
        {"optional": inner},
        {"several": [spec("Encoder"), inner]},
        {"by_name": {"a": inner}},
        {"pair": [1, inner]},
        {"sequence": [1, inner]},
        {"settings": {"encoder": payload}},
        {"settings": {"parts": [payload]}},
        {"settings": spec("Settings", encoder=payload)},
        {"named": {"a": [payload]}},
        {"anything": {"a": [{"b": (payload,)}]}},
        {"box": spec("Box", of=payload)},
        {"optional": {**spec("Encoder"), "dict_kwargs": {"inner": payload}}},
        {"optional": {"inner": payload}},
    ]
    for hparams in deep:
        with pytest.raises((pickle.UnpicklingError, ValueError), match=r"a.ckpt"):
            load(**hparams)
    assert not {"Model", "Other", "Within"} & set(made)


@pytest.mark.parametrize("text", ["planted.Thing", "os.system", f"{HERE}.Other", "{class_path: planted.Thing}"])
def test_text_is_no_class(text: str) -> None:
    for parameter in ("anything", "untyped", "thing", "union", "text"):
        assert load(**{parameter: text}).given[parameter] == text
    for parameter in ("optional", "class_of", "kind", "function", "factory", "several", "settings", "by_name"):
        with pytest.raises((pickle.UnpicklingError, ValueError), match=rf"a.ckpt.*Model\.{parameter}"):
            load(**{parameter: text})
    assert set(made) <= {"Model"}


def test_data_that_looks_like_a_class_is_data_where_data_is_annotated() -> None:
    assert load(data=FILE, some=[FILE]).given["data"] == FILE


def test_what_the_program_names_is_made() -> None:
    wide = spec("Wide", size=2, inner=spec("Encoder", size=3))
    given = load(
        optional=wide,
        several=[wide, wide],
        by_name={"a": wide},
        pair=[1, wide],
        sequence=[1, wide],
        class_of=f"{HERE}.Wide",
        factory=spec("Wide", size=5),
        box=spec("Box"),
        settings={"rate": 1, "color": "RED", "encoder": wide, "parts": [wide]},
        color="RED",
        shape=[2, 3],
        path="b/c",
        function="torch.relu",
        extra=1,
    ).given
    assert (given["optional"].size, given["optional"].inner.size, type(given["optional"])) == (2, 3, Wide)
    assert [type(one) for one in given["several"]] == [Wide, Wide] and type(given["by_name"]["a"]) is Wide
    assert given["pair"][0] == 1 and type(given["pair"]) is tuple and type(given["sequence"][1]) is Wide
    assert given["class_of"] is Wide and given["factory"]().size == 5
    assert given["settings"] == Settings(1.0, Color.RED, given["settings"].encoder, given["settings"].parts)
    assert (given["color"], given["shape"], given["path"]) == (Color.RED, (2, 3), Path("b/c"))
    assert given["function"] is torch.relu  # its default: the program's own
    assert given["extra"] == 1


def test_what_kwargs_hand_on_is_annotated_by_the_base() -> None:
    assert type(load(Inherits, optional=spec("Wide")).given["optional"]) is Wide
    with pytest.raises(pickle.UnpicklingError, match="it is no subclass of Encoder"):
        load(Inherits, optional=spec("Other"))


@pytest.mark.parametrize("name", ["planted.Thing", f"{HERE}.Other", f"{HERE}.Harmful", "os.system", 3, "x"])
def test_the_module_itself_is_of_the_class_that_was_asked_for(name: Any) -> None:
    with pytest.raises(pickle.UnpicklingError, match=r"for Model\.load_from_checkpoint"):
        load(_class_path=name)
    assert not made


def test_a_subclass_by_name() -> None:
    assert type(load(_class_path=f"{HERE}.Inherits", optional=spec("Wide"))) is Inherits
    assert type(load(LightningModule, _class_path=f"{HERE}.Harmful")) is Harmful


@pytest.mark.parametrize("maker", ["os.system", "planted.Thing", f"{HERE}.Other", 3, ["x"], f"{HERE}.made.append"])
def test_the_file_does_not_choose_who_makes_the_module(maker: Any) -> None:
    with pytest.raises(pickle.UnpicklingError, match=r"for making Model.*not the command line's own function"):
        load(instantiator=maker)
    assert not made


@pytest.mark.parametrize("name", ["__path__", "__class__", "a.b", "", 3, "optional.class_path"])
def test_arguments_have_names(name: Any) -> None:
    hparams = {name: spec("planted.Thing")} if isinstance(name, str) else {"optional": {name: 1}}
    with pytest.raises(ValueError, match=r"a.ckpt gives .* the arguments"):
        load(**hparams)


def test_the_error_says_which_line_allows_it() -> None:
    line = re.escape(f"torch.serialization.add_safe_globals([{HERE}.Other])")
    with pytest.raises(pickle.UnpicklingError, match=rf"Other for Model.thing.*names no class.*{line}.*weights_only="):
        load(thing=spec("Other"))
    with pytest.raises(pickle.UnpicklingError, match="planted.Thing for Model.optional.*it is not imported"):
        load(optional=spec("planted.Thing"))


def test_the_caller_allows_a_class_or_everything() -> None:
    with torch.serialization.safe_globals([Other, torch.tanh]):
        given = load(thing=spec("Other"), optional=spec("Other"), function="torch.tanh").given
        assert type(given["thing"]) is Other and type(given["optional"]) is Other and given["function"] is torch.tanh
        with pytest.raises(pickle.UnpicklingError, match="logging.FileHandler"):
            load(thing=FILE)
    path = saved(thing=spec("Other"))
    assert type(Model.load_from_checkpoint(path, weights_only=False).given["thing"]) is Other
    path = saved(thing=spec("nowhere.Thing"))
    with pytest.raises(ValueError, match=r"a.ckpt names nowhere.Thing, which cannot be imported"):
        Model.load_from_checkpoint(path, weights_only=False)


def test_what_the_caller_gives_is_his_own() -> None:
    mine = nn.Identity()
    given = Model.load_from_checkpoint(saved(optional=FILE), optional=mine, thing=spec("Other")).given
    assert given["optional"] is mine and type(given["thing"]) is Other


def test_values_that_fit_no_annotation_are_told() -> None:
    wrong = {"color": "BLUE", "shape": [1], "several": 3, "optional": 3, "by_name": [1], "pair": [1]}
    for name, value in wrong.items():
        with pytest.raises(ValueError, match=rf"a.ckpt does not fit the parameter Model\.{name}"):
            load(**{name: value})
    with pytest.raises(ValueError, match="a.ckpt does not fit .*Encoder: got an unexpected"):
        load(optional=spec("Encoder", wrong=1))


class Data(LightningDataModule):
    def __init__(self, part: object = None, encoder: Encoder | None = None) -> None:
        super().__init__()
        self.encoder = encoder


def test_of_a_data_module_too() -> None:
    key = "datamodule_hyper_parameters"
    with pytest.raises(pickle.UnpicklingError, match=r"logging.FileHandler for Data\.part"):
        load(Data, key=key, part=FILE)
    assert type(load(Data, key=key, encoder=spec("Wide")).encoder) is Wide
