"""Stops, signals, logged names, monitors: what several processes agree on, and how often they talk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from helpers.processes import run_ranks

pytestmark = [pytest.mark.multi, pytest.mark.slow]

HEAD = """
import os, signal, time
from collections import Counter
import torch.distributed as dist
from torch.utils.data import DataLoader
from fulgurite.callbacks import EarlyStopping, ModelCheckpoint, Timer
QUIET = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False,
         "enable_model_summary": False, "num_sanity_val_steps": 0}

class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(4, 1)
    def training_step(self, batch, i):
        loss = self.layer(batch).pow(2).mean()
        self.log("loss", loss)
        return loss
    def validation_step(self, batch, i):
        self.log("val", self.layer(batch).mean())
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)

def data(n, size=2):
    return DataLoader(torch.randn(n, 4, generator=torch.Generator().manual_seed(1)), size)

def fit(model, n=80, val=None, **flags):
    trainer = pl.Trainer(**{**QUIET, "max_epochs": 1, **flags}, devices=WORLD_SIZE)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*there is no validation data.*")
        trainer.fit(model, data(n), val)
    return trainer

def raised(what, kind):
    try:
        what()
    except kind as error:
        return type(error).__name__, str(error)
    return None, ""
answers = {}
"""

DECIDE = (
    HEAD
    + """
class Stops(Net):
    def training_step(self, batch, i):
        if RANK == 1 and i == 3:
            self.trainer.should_stop = True
        return super().training_step(batch, i)
answers["stop"] = fit(Stops(), n=4000).progress.total_batch

class Signalled(Net):
    where = "train"
    def training_step(self, batch, i):
        if RANK == 1 and i == 3 and self.where == "train":
            os.kill(os.getpid(), signal.SIGTERM)
        return super().training_step(batch, i)
    def validation_step(self, batch, i):
        if RANK == 1 and i == 2 and self.where == "val":
            os.kill(os.getpid(), signal.SIGTERM)
        super().validation_step(batch, i)
from fulgurite.utilities.exceptions import SIGTERMException
class Keeps(pl.Callback):
    def on_exception(self, trainer, module, exception):
        trainer.save_checkpoint("interrupted.ckpt")  # all processes are here, after the same batch
        answers.setdefault("at", []).append(trainer.progress.total_batch)
for where in ("train", "val"):
    model = Signalled()
    model.where = where
    n = 4000 if where == "train" else 8
    answers[where] = raised(lambda: fit(model, n, data(30), callbacks=[Keeps()]), SIGTERMException)[0]
answers["interrupted"] = sorted(torch.load("interrupted.ckpt", weights_only=True)["fulgurite"])

timer = Timer(duration={"seconds": 0.3})
class Slow(Net):
    def training_step(self, batch, i):
        time.sleep(0.02 * (1 + RANK))
        return super().training_step(batch, i)
answers["timer"] = fit(Slow(), n=400000, callbacks=[timer], max_epochs=-1).progress.total_batch
class Worsens(Net):
    def validation_step(self, batch, i):
        self.log("val", float(self.trainer.current_epoch) + RANK)
saves = ModelCheckpoint("saved", "{epoch}-{val:.2f}", monitor="val", save_top_k=2)
byloss = ModelCheckpoint("byloss", "{step}-{loss:.3f}", monitor="loss", every_n_train_steps=3, save_top_k=2)
stops = EarlyStopping("val", patience=2)
t = fit(Worsens(), n=12, val=data(5), max_epochs=10, callbacks=[saves, byloss, stops], enable_checkpointing=True)
dist.barrier()
answers["monitors"] = (t.current_epoch, stops.stopped_epoch, sorted(saves.best_k_models), saves.best_model_score,
                       sorted(byloss.best_k_models), sorted(os.listdir("saved")), len(os.listdir("byloss")))
answer(answers)
"""
)


@pytest.fixture(scope="module")
def decided(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return run_ranks(DECIDE, 2, tmp_path_factory.mktemp("decide"))


def test_a_stop_on_one_process_is_followed_by_all_after_the_same_batch(decided: Any) -> None:
    assert decided[0]["stop"] == decided[1]["stop"] and 4 <= decided[0]["stop"] <= 60


def test_a_signal_to_one_process_ends_all_after_the_same_batch(decided: Any) -> None:
    for answer in decided:
        assert answer["train"] == answer["val"] == "SIGTERMException"
    assert decided[0]["at"] == decided[1]["at"] and decided[0]["at"][0] >= 4
    assert {"ranks", "progress", "rng"} <= set(decided[0]["interrupted"])


def test_a_timer_stops_all_after_the_same_batch(decided: Any) -> None:
    assert decided[0]["timer"] == decided[1]["timer"] < 400


def test_monitors_see_the_same_numbers(decided: Any) -> None:
    assert decided[0]["monitors"] == decided[1]["monitors"]
    epochs, stopped, best, _, by_loss, files, loss_files = decided[0]["monitors"]
    assert (epochs, stopped, len(best), len(by_loss), loss_files) == (3, 2, 2, 2, 2)
    assert files == ["epoch=0-val=0.40.ckpt", "epoch=1-val=1.40.ckpt"]  # 3 samples of 0, 2 of 1


LOG = (
    HEAD
    + """
class Logs(Net):
    def __init__(self, how):
        super().__init__()
        self.how = how
    def training_step(self, batch, i):
        if self.how == "extra" and RANK == 0:
            self.log("extra", 1.0, on_epoch=True)
        if self.how == "zero only" and RANK == 0:
            self.log("extra", 7.0, on_epoch=True, on_step=False, rank_zero_only=True)
        if self.how == "group":
            self.log("mine", 1.0, sync_dist_group=dist.group.WORLD)
        if self.how == "synced":
            self.log("rank", float(RANK), sync_dist=True)
        return super().training_step(batch, i)
answers["extra"] = raised(lambda: fit(Logs("extra"), n=8), RuntimeError)
answers["group"] = raised(lambda: fit(Logs("group"), n=8), NotImplementedError)
answers["zero only"] = float(fit(Logs("zero only"), n=8).callback_metrics.get("extra", -1.0))
from fulgurite.loggers import CSVLogger
t = fit(Logs("synced"), n=8, logger=CSVLogger("logs"), log_every_n_steps=1)
answers["log_dir"] = t.log_dir
answers["rows"] = [line.split(",") for line in open(t.log_dir + "/metrics.csv").read().split()] if RANK == 0 else None

# what is said to the others in an epoch of 300 steps, besides DDP's own
said = Counter()
for name in ("all_reduce", "all_gather", "all_gather_object", "broadcast", "broadcast_object_list", "barrier"):
    def counted(*args, _real=getattr(dist, name), _name=name, **kwargs):
        said[_name] += 1
        return _real(*args, **kwargs)
    setattr(dist, name, counted)
class Counts(Net):
    def on_train_batch_start(self, batch, i):
        if i in (100, 300):
            answers[f"said by {i}"] = dict(said)
t = fit(Counts(), n=1600, val=data(6), logger=CSVLogger("logs"))
before = dict(said)
for name in ("log_dir", "callback_metrics", "logged_metrics", "progress_bar_metrics", "global_rank", "world_size",
             "is_global_zero", "num_training_batches", "num_val_batches", "estimated_stepping_batches", "model",
             "train_dataloader", "ckpt_path", "checkpoint_callback", "loggers", "device_ids", "current_epoch"):
    try:
        getattr(t, name)
    except Exception:
        pass
answers["properties talk"] = before != dict(said)
answer(answers)
"""
)


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return run_ranks(LOG, 2, tmp_path_factory.mktemp("log"))


def test_names_that_one_process_alone_has_logged_are_an_error_on_all(logged: Any) -> None:
    for answer in logged:
        kind, message = answer["extra"]
        assert kind == "RuntimeError"
        assert "rank 0 logged ['extra'] in training_step that rank 1 did not (script.py:" in message
        assert "rank_zero_only=True" in message
        assert "strategy.reduce(value, group=...)" in answer["group"][1]
    assert [answer["zero only"] for answer in logged] == [7.0, -1.0]


def test_a_step_value_with_sync_dist_is_that_of_all_processes(logged: Any) -> None:
    assert logged[0]["log_dir"] == logged[1]["log_dir"]
    header, *rows = logged[0]["rows"]
    assert [row[header.index("rank")] for row in rows] == ["0.5", "0.5"]


PARTED = (
    HEAD
    + """
from fulgurite.loggers import CSVLogger
class Synced(Net):
    def training_step(self, batch, i):
        self.log("rank", RANK + 1, sync_dist=True)  # a whole number, and its mean is none
        self.log("most", float(RANK), sync_dist=True, reduce_fx="max")
        return super().training_step(batch, i)
    def on_train_batch_end(self, outputs, batch, i):
        seen.append([float(self.trainer.callback_metrics[name]) for name in ("rank", "most")])
        if RANK == 1:
            self.trainer.logged_metrics  # reading talks to nobody
        self.log("at_end", float(RANK), sync_dist=True)
    def validation_step(self, batch, i):
        self.log("v", batch.mean() * 0 + RANK, on_step=True, on_epoch=True, sync_dist=True, batch_size=1)
seen = []
logger = CSVLogger("synced")
t = fit(Synced(), n=9, val=data(5), logger=logger, log_every_n_steps=1)  # an idle rank at the end; 2 and 1 batches
answers["seen"] = seen
answers["at end"] = float(t.callback_metrics["at_end"])
import csv
from pathlib import Path
rows = list(csv.DictReader(Path(logger.log_dir, "metrics.csv").read_text().splitlines())) if RANK == 0 else []
answers["rows"] = [row["v_step"] for row in rows if row.get("v_step")]

class Names(Net):
    def training_step(self, batch, i):
        self.log("a" if RANK else "b", 1.0, sync_dist=True)
        return super().training_step(batch, i)
answers["names"] = raised(lambda: fit(Names(), n=8), RuntimeError)

class Parts(Net):
    def on_train_epoch_end(self):
        if RANK == 1:
            with torch.no_grad():
                self.layer.bias.add_(1e-7)
answers["weights"] = raised(lambda: fit(Parts(), n=8), RuntimeError)
class Own(Parts):
    unshared_weights = ["layer.bias"]
model = Own()
model.layer.bias.data.fill_(float(RANK))
fit(model, n=8)
answers["own"] = model.layer.bias.item()
fit(Parts(), n=8, strategy=pl.strategies.DDPStrategy(compare_weights=False))
answer(answers)
"""
)


@pytest.fixture(scope="module")
def parted(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return run_ranks(PARTED, 2, tmp_path_factory.mktemp("parted"))


def test_a_value_with_sync_dist_is_one_value_before_the_batch_ends(parted: Any) -> None:
    for answer in parted:
        assert answer["seen"] == [[1.5, 1.0], [1.5, 1.0], [1.0, 0.0]]  # in the last batch rank 1 has no sample
        assert answer["at end"] == 0.0
    assert parted[0]["rows"] == ["0.5", "0.0"]  # rank 1 has had one batch of validation, rank 0 two


def test_names_with_sync_dist_that_differ_are_named(parted: Any) -> None:
    for answer in parted:
        assert "rank 1 logged ['a'] in training_step that rank 0 did not (script.py:" in answer["names"][1]


def test_weights_that_differ_at_the_end_of_an_epoch_are_named(parted: Any) -> None:
    for answer in parted:
        kind, message = answer["weights"]
        assert kind == "RuntimeError" and "'layer.bias' is not the same on rank 0 and rank 1 (1 of 2" in message
    assert parted[1]["own"] - parted[0]["own"] > 0.5  # each has trained its own


CALLS = (
    HEAD
    + """
class Alone(Net):
    def on_train_batch_end(self, outputs, batch, i):
        if self.global_rank == 0 and i == 1:
            CALL(self)
CALL = {
    "save": lambda m: m.trainer.save_checkpoint("alone.ckpt"),
    "barrier": lambda m: m.trainer.strategy.barrier(),
    "gather": lambda m: m.all_gather(torch.ones(1)),
    "reduce": lambda m: m.trainer.strategy.reduce(torch.ones(1)),
    "log": lambda m: m.log("x", 1.0, sync_dist=True),
}[os.environ["CALL"]]
fit(Alone(), n=int(os.environ["N"]))
"""
)


@pytest.mark.slow
@pytest.mark.parametrize("call", ["save", "barrier", "gather", "reduce", "log"])
@pytest.mark.parametrize("samples", ["8", pytest.param("40", marks=pytest.mark.nightly)])  # then the epoch ends, or not
def test_a_call_of_one_rank_alone_is_named_with_its_line(call: str, samples: str, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CALL", call)
        patch.setenv("N", samples)
        (code, said), (other, _) = run_ranks(CALLS, 2, tmp_path, fails=True)
    names = {"save": "save_checkpoint", "gather": "all_gather", "log": "sync_dist=True ('x' at script.py"}
    assert code and other
    assert "CollectiveMismatchError" in said and names.get(call, call) in said and "script.py:" in said, said


def test_no_step_talks_besides_ddp(logged: Any) -> None:
    for answer in logged:
        early, late = answer["said by 100"], answer["said by 300"]
        assert sum(late.values()) - sum(early.values()) <= 2 * 200 / 50, (early, late)
        assert not answer["properties talk"]


STEP = (
    HEAD
    + """
class Unused(Net):
    def __init__(self):
        super().__init__()
        self.never = torch.nn.Linear(2, 2)
answers["unused"] = raised(lambda: fit(Unused(), n=16), RuntimeError)
fit(Unused(), n=16, strategy="ddp_find_unused_parameters_true")
class Nothing(Net):
    def training_step(self, batch, i):
        return None
answers["none"] = raised(lambda: fit(Nothing(), n=16), Exception)
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook
hooked = Net()
fit(hooked, n=16, strategy=pl.strategies.DDPStrategy(ddp_comm_hook=fp16_compress_hook))
plain = Net()
fit(plain, n=16)
answers["hook"] = float((hooked.layer.weight - plain.layer.weight).detach().abs().max())
class Unfreezes(Net):
    def __init__(self):
        super().__init__()
        self.more = torch.nn.Linear(1, 1)
        self.more.requires_grad_(False)
    def on_train_epoch_start(self):
        if self.current_epoch == 1:
            self.more.requires_grad_(True)
    def training_step(self, batch, i):
        return self.more(self.layer(batch)).pow(2).mean()
model = Unfreezes()
fit(model, n=16, max_epochs=3)
answers["unfrozen"] = [p.detach().clone() for p in model.parameters()]
class Gathers(Net):
    def training_step(self, batch, i):
        everybody = self.all_gather(self.layer(batch).mean(), sync_grads=True)
        return everybody.mean()
model = Gathers()
fit(model, n=5)  # the last batch has one sample: the other process joins in with it
answers["gathered"] = model.layer.weight.detach().clone()
class Norm(Net):
    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(4)
    def training_step(self, batch, i):
        return self.layer(self.norm(batch)).pow(2).mean()
    def validation_step(self, batch, i):
        self.log("val", self.layer(self.norm(batch)).mean())
model = Norm()
t = fit(model, n=16, val=data(4))
answers["norm"] = (model.norm.running_mean.clone(), float(t.callback_metrics["val"]))
answers["batchnorm on the cpu"] = raised(lambda: fit(Norm(), n=16, sync_batchnorm=True), Exception)
answer(answers)
"""
)


@pytest.fixture(scope="module")
def stepped(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return run_ranks(STEP, 2, tmp_path_factory.mktemp("step"))


def test_unused_parameters_are_named_with_the_remedy(stepped: Any) -> None:
    for answer in stepped:
        kind, message = answer["unused"]
        assert kind == "RuntimeError" and "never.weight, never.bias" in message
        assert "ddp_find_unused_parameters_true" in message


def test_a_step_without_a_loss_is_an_error(stepped: Any) -> None:
    for answer in stepped:
        assert answer["none"][0] == "MisconfigurationException" and "loss * 0" in answer["none"][1]


def test_a_communication_hook_is_used(stepped: Any) -> None:
    assert 0 < stepped[0]["hook"] < 0.01


def test_parameters_unfrozen_later_stay_equal_on_all(stepped: Any) -> None:
    assert all((a == b).all() for a, b in zip(stepped[0]["unfrozen"], stepped[1]["unfrozen"], strict=True))


def test_a_step_that_gathers_runs_on_a_process_without_samples(stepped: Any) -> None:
    assert (stepped[0]["gathered"] == stepped[1]["gathered"]).all()


def test_all_processes_evaluate_the_batch_norm_that_is_saved(stepped: Any) -> None:
    assert (stepped[0]["norm"][0] == stepped[1]["norm"][0]).all() and stepped[0]["norm"][1] == stepped[1]["norm"][1]
    assert "GroupNorm" in stepped[0]["batchnorm on the cpu"][1]
