"""Checkpoints that were changed or made by an enemy, and what became of reading each.

A reading is right where it raises one error that names the file, or gives what the sound file gives. It is wrong where
it runs something, where another run comes of it, or where the error is one from deep inside.
"""

from __future__ import annotations

import contextlib
import copy
import pickle
import random
import struct
import sys
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

import fulgurite as pl
from fulgurite.callbacks import EarlyStopping, ModelCheckpoint
from fulgurite.core.saving import read_checkpoint, write_checkpoint

CLEAR = (pickle.UnpicklingError, ValueError, RuntimeError, KeyError)
HARM = {"os.system", "os.posix_spawn", "os.exec", "os.fork", "subprocess.Popen", "socket.connect", "ctypes.dlopen"}
seen: list[str] = []
_watching = False


def _watch(event: str, args: tuple[Any, ...]) -> None:
    if _watching and (event in HARM or (event == "open" and isinstance(args[1], str) and args[1][:1] in "wax")):
        seen.append(f"{event}{args[:1]}")


sys.addaudithook(_watch)


@contextlib.contextmanager
def watched() -> Iterator[None]:
    global _watching
    _watching = True
    try:
        yield
    finally:
        _watching = False


class Net(pl.LightningModule):
    def __init__(self, width: int = 3, rate: float = 0.01, part: Any = None) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(width, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = self.layer(batch).square().mean()
        self.log("loss", loss, on_step=True, on_epoch=True)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=self.hparams.rate)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]

    def train_dataloader(self) -> Any:
        rows = torch.randn(8, 3, generator=torch.Generator().manual_seed(1))
        return torch.utils.data.DataLoader(rows, batch_size=2, shuffle=True)


def trainer(steps: int) -> pl.Trainer:
    stopping = EarlyStopping("loss", patience=9)
    keeping = ModelCheckpoint("kept", monitor="loss", save_top_k=0)
    flags: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return pl.Trainer(max_steps=steps, accelerator="cpu", callbacks=[stopping, keeping], **flags)


def sound(path: str = "sound.ckpt") -> dict[str, Any]:
    """The checkpoint of a run in mid-epoch, whose file is written too."""
    pl.seed_everything(1, verbose=False)
    run = trainer(6)
    run.fit(Net())
    run.save_checkpoint(path)
    return read_checkpoint(path)


def resumed(path: str) -> tuple[Any, ...]:
    model, run = Net(), trainer(11)
    run.fit(model, ckpt_path=path)
    return run.global_step, run.current_epoch, *(p.tolist() for p in model.parameters())


def outcome(read: Callable[[str], Any], path: str, right: Any) -> str:
    """What became of reading a file."""
    seen.clear()
    try:
        with watched(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            got = read(path)
    except CLEAR as error:
        clear = Path(path).name in str(error) and len(str(error)) < 3000
        result = "refused" if clear else f"raw {type(error).__name__}: {str(error)[:150]}"
    except Exception as error:
        result = f"raw {type(error).__name__}: {str(error)[:150]}"
    else:
        result = "as the sound file" if right is not None and got == right else "accepted"
    return f"ran {seen[0]}" if seen else result


# changed files
def flips(count: int, draw: random.Random) -> Counter[str]:
    data, results = Path("sound.ckpt").read_bytes(), Counter[str]()
    for _ in range(count):
        bit = draw.randrange(len(data) * 8)
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        Path("bad.ckpt").write_bytes(changed)
        results[outcome(read_checkpoint, "bad.ckpt", None)] += 1
    return results


# ill-typed keys
OTHER: list[Any] = ["x", -1, 2.5, None, [], {}, [1, "x"], {"x": 1}, True, (), torch.zeros(2), 10**30, {3: 4}, b"x"]


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where there are values: the keys that lead there."""
    if at:
        yield at
    pairs = (
        value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, (list, tuple)) else ()
    )
    for key, inner in pairs:
        yield from places(inner, (*at, key))


def changed(value: Any, at: tuple[Any, ...], new: Any) -> Any:
    """A copy with another value in one place; `...` leaves the key out."""
    if not at:
        return new
    if isinstance(value, dict):
        rest = {k: v for k, v in value.items() if k != at[0] or len(at) > 1 or new is not ...}
        return rest if len(at) == 1 and new is ... else {**rest, at[0]: changed(value[at[0]], at[1:], new)}
    items = list(value)
    items[at[0]] = changed(items[at[0]], at[1:], None if new is ... else new)
    return type(value)(items)


def ill_typed(count: int, draw: random.Random, inner: bool, checkpoint: dict[str, Any]) -> Counter[str]:
    results, right = Counter[str](), resumed("sound.ckpt")
    old: Any
    every = [at for at in places(checkpoint) if (len(at) > 1) == inner]
    while results.total() < count:
        at, new, old = draw.choice(every), draw.choice([*OTHER, ...]), checkpoint
        for key in at:
            old = old[key]
        number = isinstance(old, (float, torch.Tensor)) and type(new) in (int, float)
        sound_too = number or (type(new) is type(old) and isinstance(new, (bool, int)) and new != -1)
        if sound_too or (at, new) == (("fulgurite",), ...):  # of its type; and without our key it is Lightning's file
            continue
        bad = changed(copy.deepcopy(checkpoint), at, new)
        write_checkpoint(bad, "bad.ckpt")
        result = outcome(resumed, "bad.ckpt", right)
        shown = f"{'.'.join(map(str, at))} = {str(new)[:30]}"
        results[result if result in ("refused", "as the sound file") else f"{result} [{shown}]"] += 1
    return results


# pickles
NAMES = [
    ("os", "system"), ("posix", "system"), ("builtins", "eval"), ("builtins", "exec"), ("builtins", "open"),
    ("builtins", "getattr"), ("builtins", "__import__"), ("subprocess", "Popen"), ("subprocess", "check_output"),
    ("pathlib", "Path.touch"), ("shutil", "rmtree"), ("importlib", "import_module"), ("runpy", "run_path"),
    ("torch", "load"), ("torch.hub", "load"), ("torch.serialization", "add_safe_globals"), ("torch", "compile"),
    ("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_parameter"), ("collections", "OrderedDict"),
    ("argparse", "Namespace"), ("pathlib", "PosixPath"), ("functools", "partial"), ("operator", "attrgetter"),
    ("fulgurite.utilities.parsing", "AttributeDict"), ("fulgurite.utilities.parsing", "AttributeDict.__init__"),
    ("fulgurite.core.saving", "read_checkpoint"), ("fulgurite.cli", "instantiate_class"), ("torch.nn", "Linear"),
    ("torch", "FloatStorage"), ("torch", "Size"), ("torch", "device"), ("_codecs", "encode"),
    ("copyreg", "_reconstructor"),
]  # fmt: skip
ARGUMENTS: list[Any] = [
    "touch ran",
    "open('ran', 'w')",
    "ran",
    ("ran", "w"),
    ["touch", "ran"],
    {},
    3,
    "planted",
    {"a": 1},
]


def _data(value: Any) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


def _global(draw: random.Random) -> bytes:
    module, name = draw.choice(NAMES)
    if draw.random() < 0.7:
        return f"c{module}\n{name}\n".encode()
    return _data(module) + _data(name) + b"\x93"  # STACK_GLOBAL


def _object(draw: random.Random, depth: int = 0) -> bytes:
    """Opcodes that leave one object, made in one of the ways that pickle has."""
    argument = _data(draw.choice(ARGUMENTS)) if depth > 2 or draw.random() < 0.6 else _object(draw, depth + 1)
    name = _global(draw)
    ways = [
        lambda: name + argument + b"\x85R",  # REDUCE
        lambda: name + b"(" + argument + b"tR",
        lambda: b"(" + name + argument + b"o",  # OBJ
        lambda: b"(" + argument + b"i%s\n%s\n" % tuple(n.encode() for n in draw.choice(NAMES)),  # INST
        lambda: name + argument + b"\x85\x81",  # NEWOBJ
        lambda: name + argument + b"\x85}\x92",  # NEWOBJ_EX
        lambda: name + argument + b"b",  # BUILD upon a class
        lambda: name + b")R" + argument + b"b",
        lambda: name + b")R" + b"N" + _data({"__class__": 1, "run": "ran"}) + b"\x86b",  # BUILD with slots
        lambda: argument + b"Q",  # BINPERSID
        lambda: b"Pran\n",  # PERSID
        lambda: b"(Xstorage" + argument + b"tQ",
        lambda: name + b"q\x07" + argument + b"\x85R" + b"h\x07",  # memo
        lambda: b"h\xff" + argument + b"\x85R",  # nothing there
        lambda: b"j\xff\xff\xff\x7f",
        lambda: b"\x82\x01",  # EXT1
        lambda: b"\x80\x05\x95" + struct.pack("<Q", 3) + name,  # FRAME
        lambda: b"]" + argument + b"a" + name + b"a",
        lambda: name + b"}" + argument + b"Nsb",
        lambda: b"cos\nsystem\n" + argument + b"\x85R0" + name,
    ]
    return draw.choice(ways)()


def pickles(count: int, draw: random.Random) -> Counter[str]:
    results: Counter[str] = Counter()
    with zipfile.ZipFile("sound.ckpt") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    for i in range(count):
        made = _object(draw)
        data = b"\x80\x02" + draw.choice([made, b"}" + _data("state_dict") + made + b"s", b"](" + made + b"e"]) + b"."
        if i % 3 == 0:
            Path("bad.ckpt").write_bytes(data)
        elif i % 7 == 0:  # the old format: several pickles one after another
            magic = [pickle.dumps(v, 2) for v in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
            Path("bad.ckpt").write_bytes(b"".join(magic) + data + pickle.dumps([], 2))
        else:
            with zipfile.ZipFile("bad.ckpt", "w") as archive:
                for name, content in parts.items():
                    archive.writestr(name, data if name.endswith("data.pkl") else content)
                if i % 5 == 0:
                    archive.writestr("archive/constants.pkl", data)
        results[outcome(_to_the_end, "bad.ckpt", None)] += 1
    return results


def _to_the_end(path: str) -> Any:
    return Net.load_from_checkpoint(path)


# class paths
def class_paths(count: int, draw: random.Random) -> Counter[str]:
    Path("planted.py").write_text("open('ran', 'w').close()\nclass Thing:\n    pass\n")
    sys.path.insert(0, str(Path.cwd()))
    results: Counter[str] = Counter()
    for i in range(count):
        module, name = draw.choice([*NAMES, ("planted", "Thing"), ("logging", "FileHandler"), ("helpers.fuzz", "Net")])
        value: Any = {"class_path": f"{module}.{name}", "init_args": draw.choice([{}, {"filename": "ran"}, {"of": 1}])}
        for _ in range(draw.randrange(3)):
            value = draw.choice(
                [[value], {"a": value}, {"class_path": "helpers.fuzz.Net", "init_args": {"part": value}}]
            )
        hparams: dict[str, Any] = {"_instantiator": "lightning.pytorch.cli.instantiate_module", "part": value}
        if i % 5 == 0:
            hparams = {**hparams, "_class_path": f"{module}.{name}"}
        if i % 7 == 0:
            hparams["_instantiator"] = f"{module}.{name}"
        write_checkpoint({"state_dict": Net().state_dict(), "hyper_parameters": hparams}, "bad.ckpt")
        results[outcome(_to_the_end, "bad.ckpt", None)] += 1
    sys.path.remove(str(Path.cwd()))
    results["imported" if "planted" in sys.modules or Path("ran").exists() else "refused"] += 0
    return results


KINDS: dict[str, Callable[[int, random.Random, dict[str, Any]], Counter[str]]] = {
    "flips": lambda count, draw, _: flips(count, draw),
    "inner keys": lambda count, draw, checkpoint: ill_typed(count, draw, True, checkpoint),
    "top-level keys": lambda count, draw, checkpoint: ill_typed(count, draw, False, checkpoint),
    "pickles": lambda count, draw, _: pickles(count, draw),
    "class paths": lambda count, draw, _: class_paths(count, draw),
}


def fuzzed(kind: str, count: int, seed: int = 0) -> Counter[str]:
    """How often reading ended how."""
    return KINDS[kind](count, random.Random(seed), sound())
