"""Processes that the trainer starts itself: the program again, spawned and forked functions; with real programs."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from pathlib import Path

import pytest

import fulgurite as pl
from fulgurite.demos.boring_classes import BoringModel
from fulgurite.machine.supervise import Children
from fulgurite.utilities.exceptions import MisconfigurationException
from helpers.processes import free_port
from helpers.programs import Ended, Program, run_program

pytestmark = pytest.mark.multi
DEFINED = """
import fulgurite as pl
from torch.utils.data import DataLoader
off = dict(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)

class Seen(pl.Callback):
    def __init__(self): self.ends = 0
    def on_train_epoch_end(self, trainer, module): self.ends += 1

class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)
        self.history = []
    def training_step(self, batch, batch_idx):
        loss = self.layer(batch).square().mean()
        self.log("loss", loss, on_epoch=True, on_step=False, sync_dist=True)
        return loss
    def on_train_epoch_end(self): self.history.append(self.current_epoch)
    def test_step(self, batch, batch_idx): self.log("t", self.layer(batch).mean(), sync_dist=True)
    def predict_step(self, batch, batch_idx): return self.layer(batch)
    def configure_optimizers(self): return torch.optim.SGD(self.parameters(), lr=0.1)

def loader(): return DataLoader(torch.randn(16, 4, generator=torch.Generator().manual_seed(1)), 2)
def say(*words): print(f"[{rank()}]", *words, flush=True)
"""
RUN = (
    DEFINED
    + """
if __name__ == "__main__":
    strategy, devices = sys.argv[1], int(sys.argv[2])
    pl.seed_everything(3, verbose=False)
    seen, net = Seen(), Net()
    saves = pl.callbacks.ModelCheckpoint("saved", monitor="loss")
    trainer = pl.Trainer(max_epochs=2, devices=devices, strategy=strategy, callbacks=[seen, saves], **off)
    trainer.fit(net, loader())
    tested = trainer.test(net, loader(), verbose=False)
    trainer.fit_loop.max_epochs = 3
    trainer.fit(net, loader())
    again = pl.Trainer(max_epochs=1, devices=devices, strategy=strategy, enable_checkpointing=False, **off)
    other = Net()
    again.fit(other, loader())
    predicted = again.predict(other, loader())
    import json
    print(json.dumps({
        "rank": rank(), "ranks": trainer.world_size, "steps": trainer.global_step, "epoch": trainer.current_epoch,
        "weights": net.layer.weight.flatten().tolist(), "history": net.history, "ends": seen.ends, "test": tested,
        "metrics": sorted(trainer.callback_metrics), "best": saves.best_model_path,
        "status": trainer.state.status.value,
        "other": other.layer.weight.flatten().tolist(), "predicted": len(predicted), "draw": torch.rand(1).item(),
    }))
"""
)


def answers(ended: Ended) -> list[dict[str, object]]:
    assert ended.code == 0, ended.err
    assert not ended.left and not ended.files, (ended.left, ended.files)
    found = [json.loads(line) for line in ended.out.splitlines() if line.startswith("{")]
    return sorted(found, key=lambda answer: answer["rank"])


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_every_way_of_starting_gives_the_model_back_and_can_be_used_again(tmp_path: Path) -> None:
    """fit, test and fit again with one trainer, then another trainer in the same program."""
    by_script = answers(run_program(RUN, "ddp", "2", folder=tmp_path / "ddp"))
    assert [answer["rank"] for answer in by_script] == [0, 1]
    first = by_script[0]
    assert first["ranks"] == 2 and first["epoch"] == 3 and first["ends"] == 3 and first["history"] == [0, 1, 2]
    assert by_script[1]["weights"] == first["weights"], "both ranks hold the trained model"
    for strategy in ("ddp_fork", "ddp_notebook", "ddp_spawn"):
        (answer,) = answers(run_program(RUN, strategy, "2", folder=tmp_path / strategy, deadline=240))
        same = ("ranks", "steps", "epoch", "weights", "history", "ends", "test", "metrics", "status", "other", "draw")
        assert {key: answer[key] for key in same} == {key: first[key] for key in same}, strategy
        assert Path(str(answer["best"])).name == Path(str(first["best"])).name
        assert (tmp_path / strategy / Path(str(answer["best"])).relative_to(tmp_path / strategy)).exists()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["-m", "-c", "fulgurite run", "changed folder"])
def test_the_program_is_run_again_as_it_was_started(tmp_path: Path, how: str) -> None:
    script = DEFINED + (
        "os.chdir('/')\n" * (how == "changed folder")
        + "trainer = pl.Trainer(max_epochs=1, devices=2, enable_checkpointing=False, **off)\n"
        + "trainer.fit(Net(), loader())\nsay(sys.argv[1:], trainer.world_size)\n"
    )
    commands = {
        "-m": (sys.executable, "-m", "program"),
        "-c": (sys.executable, "-c", "exec(open('program.py').read())"),
        "fulgurite run": (sys.executable, "-m", "fulgurite", "run", "program.py"),
        "changed folder": (sys.executable, "program.py"),
    }
    ended = run_program(script, "--lr", "a b", folder=tmp_path, command=commands[how])
    assert ended.code == 0, ended.err
    assert sorted(ended.out.splitlines()) == ["[0] ['--lr', 'a b'] 2", "[1] ['--lr', 'a b'] 2"]
    assert not ended.left and not ended.files


def test_watching_ranks_that_have_ended_does_not_spin() -> None:
    began = time.monotonic()
    Children([]).attend(0.05)
    assert time.monotonic() - began >= 0.05


@pytest.mark.slow
def test_after_a_fit_of_several_processes_one_device_is_one_process(tmp_path: Path) -> None:
    """Also in a program that a rank starts, which may start ranks of its own."""
    script = (
        DEFINED
        + """
import subprocess
if __name__ == "__main__":
    devices, then = int(sys.argv[1]), sys.argv[2:]
    net, flags = Net(), dict(max_epochs=1, enable_checkpointing=False, **off)
    pl.Trainer(devices=devices, **flags).fit(net, loader())
    alone = pl.Trainer(devices=1, **flags)
    say(devices, alone.world_size, len(alone.predict(net, loader())))
    if then and rank() == 0:
        for devices in then: subprocess.run([sys.executable, __file__, devices], check=True)
"""
    )
    ended = run_program(script, "2", "1", "2", folder=tmp_path, deadline=240)
    assert ended.code == 0, ended.err
    each = ["[0] 1 1 8", *["[0] 2 1 8", "[1] 2 1 8"] * 2]
    assert sorted(ended.out.splitlines()) == sorted(each)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp_fork", "ddp_spawn"])
def test_trained_weights_can_be_saved_once_the_processes_have_ended(tmp_path: Path, strategy: str) -> None:
    script = (
        DEFINED
        + """
if __name__ == "__main__":
    net = Net()
    net.save_hyperparameters({"width": 4})
    trainer = pl.Trainer(max_epochs=1, devices=2, strategy=sys.argv[1], enable_checkpointing=False, **off)
    trainer.fit(net, loader())
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        trainer.save_checkpoint("net.ckpt")
    saved = torch.load("net.ckpt")
    say(saved["epoch"], saved["global_step"], saved["hyper_parameters"], "optimizer_states" in saved)
    say(all(torch.equal(saved["state_dict"][name], p) for name, p in net.state_dict().items()), len(warned))
    say(sorted(trainer.callback_metrics), len(trainer.test(net, loader(), "net.ckpt", verbose=False)))
"""
    )
    ended = run_program(script, strategy, folder=tmp_path)
    assert ended.code == 0, ended.err
    assert ended.out.splitlines() == ["[0] 1 4 {'width': 4} False", "[0] True 1", "[0] ['loss'] 1"]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp_fork", "ddp_spawn"])
def test_layers_made_in_setup_come_back_trained(tmp_path: Path, strategy: str) -> None:
    """A bare parameter does not, which is said."""
    script = (
        DEFINED
        + """
class Late(Net):
    def __init__(self):
        super().__init__()
        self.layer, self.more = None, torch.nn.ModuleList()
    def setup(self, stage):
        if self.layer is None:
            self.layer = torch.nn.Sequential(torch.nn.Linear(4, 1))
            self.more.append(torch.nn.BatchNorm1d(4))
        self.scale = torch.nn.Parameter(torch.ones(1), requires_grad=False)
    def training_step(self, batch, batch_idx): return super().training_step(self.more[0](batch), batch_idx)
    def on_train_end(self): self.trained = {name: t.tolist() for name, t in self.state_dict().items()}

if __name__ == "__main__":
    net, flags = Late(), dict(max_epochs=1, enable_checkpointing=False, **off)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        pl.Trainer(devices=2, strategy=sys.argv[1], **flags).fit(net, loader())
    trained, ours = net.trained, {name: t.tolist() for name, t in net.state_dict().items()}
    say(trained.pop("scale"), len(ours), trained == ours, net.layer[0].weight.requires_grad)
    say([str(w.message).split(" came")[0] for w in warned if "came into being" in str(w.message)])
"""
    )
    ended = run_program(script, strategy, folder=tmp_path)
    assert ended.code == 0, ended.err
    assert ended.out.splitlines() == ["[0] [1.0] 7 True True", "[0] ['scale']"]


@pytest.mark.slow
def test_what_a_program_has_set_in_torch_holds_in_the_processes_it_spawns(tmp_path: Path) -> None:
    script = (
        DEFINED
        + """
class Tells(Net):
    def on_train_start(self):
        say(torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled(),
            torch.backends.cudnn.benchmark, torch.get_float32_matmul_precision())

if __name__ == "__main__":
    torch.set_float32_matmul_precision("high")
    flags = dict(deterministic="warn", benchmark=True, max_epochs=1, enable_checkpointing=False, **off)
    pl.Trainer(devices=2, strategy="ddp_spawn", **flags).fit(Tells(), loader())
"""
    )
    ended = run_program(script, folder=tmp_path)
    assert ended.code == 0, ended.err
    assert sorted(ended.out.splitlines()) == ["[0] True True True high", "[1] True True True high"]


@pytest.mark.slow
def test_what_cannot_travel_is_named(tmp_path: Path) -> None:
    script = (
        DEFINED
        + """
if __name__ == "__main__":
    net = Net()
    net.scale = {"by": [1, __import__("threading").Lock()]}
    trainer = pl.Trainer(max_epochs=1, devices=2, strategy="ddp_spawn", enable_checkpointing=False, **off)
    try:
        trainer.fit(net, loader())
    except ValueError as error:
        print(error)
"""
    )
    ended = run_program(script, folder=tmp_path)
    assert ended.code == 0, ended.err
    assert "model.scale['by'][1] cannot be pickled" in ended.out and "strategy='ddp'" in ended.out


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "ddp_fork"])
def test_one_learning_rate_is_found_for_all_ranks(tmp_path: Path, strategy: str) -> None:
    script = (
        DEFINED
        + """
class Tuned(Net):
    lr = 0.5
    def configure_optimizers(self): return torch.optim.SGD(self.parameters(), lr=self.lr)

if __name__ == "__main__":
    pl.seed_everything(3, verbose=False)
    net = Tuned()
    trainer = pl.Trainer(max_epochs=1, devices=2, strategy=sys.argv[1], enable_checkpointing=False, **off)
    many = DataLoader(torch.randn(120, 4, generator=torch.Generator().manual_seed(1)), 2)
    finder = pl.tuner.Tuner(trainer).lr_find(net, many, num_training=25, early_stop_threshold=None)
    say(net.lr != 0.5 and net.lr == finder.suggestion(), net.lr)
    trainer.fit(net, loader())
    say(trainer.global_step)
"""
    )
    ended = run_program(script, strategy, folder=tmp_path)
    assert ended.code == 0, ended.err
    found = {line.partition("] ")[2] for line in ended.out.splitlines()}
    assert len(found) == 2 and "4" in found and any(line.startswith("True") for line in found), ended.out


def test_a_taken_port_is_named() -> None:
    with socket.socket() as taken, pytest.MonkeyPatch.context() as patch:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        patch.setenv("MASTER_PORT", str(port))
        trainer = pl.Trainer(devices=2, strategy="ddp_fork", accelerator="cpu", logger=False)
        with pytest.raises(RuntimeError, match=f"(?s)MASTER_PORT={port} cannot be opened.*Unset") as error:
            trainer.fit(BoringModel())
        assert "ss -ltnp" in str(error.value)


def test_several_machines_without_an_address_is_an_error_that_says_what_to_set() -> None:
    trainer = pl.Trainer(devices=2, num_nodes=2, strategy="ddp", accelerator="cpu", logger=False)
    with pytest.raises(MisconfigurationException, match="MASTER_ADDR and MASTER_PORT.*NODE_RANK.*torchrun"):
        trainer.fit(BoringModel())


@pytest.mark.slow
def test_a_program_started_on_each_of_two_machines_is_one_run(tmp_path: Path) -> None:
    """Both on this one, as far as they can tell each on its own."""
    script = (
        DEFINED
        + """
trainer = pl.Trainer(max_epochs=1, devices=2, num_nodes=2, strategy="ddp", enable_checkpointing=False, **off)
net = Net()
trainer.fit(net, loader())
say(trainer.world_size, trainer.node_rank, trainer.local_rank, net.layer.weight.flatten().tolist())
"""
    )
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    with (
        Program(script, folder=tmp_path / "1", NODE_RANK="1", **shared) as second,
        Program(script, folder=tmp_path / "0", NODE_RANK="0", **shared) as first,
    ):
        ended = first.finish(120), second.finish(60)
    assert [e.code for e in ended] == [0, 0], (ended[0].err, ended[1].err)
    said = sorted(line for e in ended for line in e.out.splitlines())
    assert [line[: line.index("[", 1)].strip() for line in said] == ["[0] 4 0 0", "[1] 4 0 1", "[2] 4 1 0", "[3] 4 1 1"]
    assert len({line[line.index("[", 1) :] for line in said}) == 1, "all ranks hold the same weights"
    assert not ended[0].left and not ended[1].left


@pytest.mark.slow
def test_one_process_imports_nothing_of_this() -> None:
    import subprocess

    code = (
        "import sys, fulgurite as pl; from fulgurite.demos.boring_classes import BoringModel; "
        "pl.Trainer(fast_dev_run=1, accelerator='cpu').fit(BoringModel()); "
        "print([m for m in sys.modules if m in ('fulgurite.machine.launch', 'fulgurite.machine.supervise')])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stderr
