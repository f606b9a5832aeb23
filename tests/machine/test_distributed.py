"""Who a process is among several, and what they exchange: with real processes, over gloo."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import fulgurite as pl
from fulgurite.machine.environments import LightningEnvironment, SLURMEnvironment, TorchElasticEnvironment
from fulgurite.strategies import DDPStrategy, SingleDeviceStrategy
from fulgurite.utilities.exceptions import MisconfigurationException
from fulgurite.utilities.rank_zero import rank_zero_only
from helpers.counting import QUIET
from helpers.processes import free_port, run_ranks

TORCHRUN = {
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "GROUP_RANK": "1",
    "MASTER_ADDR": "10.0.0.1",
    "MASTER_PORT": "2345",
    "TORCHELASTIC_RUN_ID": "x",
}
SLURM = {
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_NODELIST": "node[03-07,09]",
    "SLURM_JOB_ID": "123456",
    "SLURM_JOB_NAME": "train",
}


@pytest.fixture(autouse=True)
def rank_as_before() -> Iterator[None]:
    rank = rank_zero_only.rank
    yield
    rank_zero_only.rank = rank


@pytest.fixture
def environ() -> Iterator[pytest.MonkeyPatch]:
    """Undone before the check that a test leaves no variables behind."""
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def ranks(trainer: pl.Trainer) -> tuple[int, ...]:
    return trainer.world_size, trainer.global_rank, trainer.local_rank, trainer.node_rank, trainer.num_devices


@pytest.mark.parametrize("strategy", ["auto", "ddp"])
@pytest.mark.parametrize("devices", ["auto", 2])
def test_torchrun_says_who_a_process_is(strategy: str, devices: Any, environ: pytest.MonkeyPatch) -> None:
    for name, value in TORCHRUN.items():
        environ.setenv(name, value)
    trainer = pl.Trainer(**QUIET, devices=devices, num_nodes=2, strategy=strategy)
    assert isinstance(trainer.strategy, DDPStrategy)
    assert isinstance(trainer.strategy.cluster_environment, TorchElasticEnvironment)
    assert ranks(trainer) == (4, 3, 1, 1, 2)
    assert not trainer.is_global_zero and rank_zero_only.rank == 3
    assert trainer.distributed_sampler_kwargs == {"num_replicas": 4, "rank": 3}


def test_torchrun_counts_even_where_one_device_is_asked_for(environ: pytest.MonkeyPatch) -> None:
    for name, value in TORCHRUN.items():
        environ.setenv(name, value)
    assert ranks(pl.Trainer(**QUIET, devices=1)) == (4, 3, 1, 1, 2)


def test_one_device_among_ranks_that_we_started_is_one_process(environ: pytest.MonkeyPatch) -> None:
    for name, value in {**TORCHRUN, "FULGURITE_RANK_OF": str(os.getpid())}.items():
        environ.setenv(name, value)
    environ.delenv("TORCHELASTIC_RUN_ID")
    assert isinstance(pl.Trainer(**QUIET, devices="1").strategy, SingleDeviceStrategy)
    assert pl.Trainer(**QUIET).world_size == 4


def test_a_program_that_a_rank_of_ours_starts_is_none(environ: pytest.MonkeyPatch) -> None:
    for name, value in {**TORCHRUN, "FULGURITE_RANK_OF": "1"}.items():
        environ.setenv(name, value)
    environ.delenv("TORCHELASTIC_RUN_ID")
    assert isinstance(pl.Trainer(**QUIET).strategy, SingleDeviceStrategy)


@pytest.mark.parametrize("more", [{}, {"WORLD_SIZE": "4"}, {"RANK": "3"}])
def test_a_launcher_may_say_the_machine_and_the_place_on_it_alone(
    more: dict[str, str], environ: pytest.MonkeyPatch
) -> None:
    for name, value in {"NODE_RANK": "1", "LOCAL_RANK": "1", **more}.items():
        environ.setenv(name, value)
    trainer = pl.Trainer(**QUIET, devices=2, num_nodes=2, strategy="ddp")
    assert ranks(trainer) == (4, 3, 1, 1, 2)
    assert not trainer.is_global_zero and rank_zero_only.rank == 3


def test_a_place_that_the_machine_does_not_have_is_an_error(environ: pytest.MonkeyPatch) -> None:
    environ.setenv("LOCAL_RANK", "2")
    with pytest.raises(MisconfigurationException, match="LOCAL_RANK=2.*devices=2, num_nodes=2"):
        pl.Trainer(**QUIET, devices=2, num_nodes=2, strategy="ddp")


def test_slurm_says_who_a_process_is(environ: pytest.MonkeyPatch) -> None:
    for name, value in SLURM.items():
        environ.setenv(name, value)
    trainer = pl.Trainer(**QUIET, devices=2, num_nodes=2)
    environment = trainer.strategy.cluster_environment  # type: ignore[attr-defined]  # a distributed strategy
    assert isinstance(environment, SLURMEnvironment)
    assert ranks(trainer) == (4, 3, 1, 1, 2)
    assert (environment.main_address, environment.main_port) == ("node03", 18456)
    environ.setenv("SLURM_JOB_NAME", "interactive")
    assert isinstance(pl.Trainer(**QUIET, devices=1).strategy, SingleDeviceStrategy)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("a", "a"), ("a,b", "a"), ("gpu[1,3]", "gpu1"), ("gpu[03-07],b1", "gpu03"), ("node-1-[7]", "node-1-7")],
)
def test_the_first_node_of_a_slurm_list(nodes: str, first: str, environ: pytest.MonkeyPatch) -> None:
    environ.setenv("SLURM_NODELIST", nodes)
    assert SLURMEnvironment().main_address == first


@pytest.mark.parametrize(
    ("name", "start", "kwargs"),
    [
        ("auto", "popen", {}),
        ("ddp", "popen", {}),
        ("ddp_spawn", "spawn", {}),
        ("ddp_fork", "fork", {}),
        ("ddp_notebook", "fork", {}),
        ("ddp_find_unused_parameters_true", "popen", {"find_unused_parameters": True}),
        ("ddp_spawn_find_unused_parameters_false", "spawn", {"find_unused_parameters": False}),
    ],
)
def test_strategies_by_name(name: str, start: str, kwargs: dict[str, Any]) -> None:
    strategy = pl.Trainer(**QUIET, devices=2, strategy=name).strategy
    assert isinstance(strategy, DDPStrategy) and isinstance(strategy.cluster_environment, LightningEnvironment)
    assert (strategy.start_method, strategy.ddp_kwargs, strategy.world_size) == (start, kwargs, 2)
    assert strategy.timeout.total_seconds() == 300


def test_devices_that_contradict_torchrun_are_an_error(environ: pytest.MonkeyPatch) -> None:
    for name, value in TORCHRUN.items():
        environ.setenv(name, value)
    with pytest.raises(MisconfigurationException, match="devices=3.*started 2 processes.*devices=2"):
        pl.Trainer(**QUIET, devices=3, num_nodes=2)
    environ.setenv("RANK", "one")
    with pytest.raises(MisconfigurationException, match="RANK='one'"):
        pl.Trainer(**QUIET, devices=2, num_nodes=2)


SCRIPT = """
trainer = pl.Trainer(accelerator="cpu", devices=WORLD_SIZE, logger=False)
s = trainer.strategy
s.setup_environment()
s.setup_environment()  # a second call of the same program
x = torch.tensor(float(RANK + 1), requires_grad=True)
gathered = s.all_gather(x, sync_grads=True)
(gathered * torch.arange(1.0, WORLD_SIZE + 1)).sum().backward()
answer({
    "mean": float(s.reduce(RANK + 1)), "sum": int(s.reduce(torch.tensor(RANK + 1), reduce_op="sum")),
    "max": int(s.reduce(torch.tensor(RANK), reduce_op="max")), "gathered": gathered.tolist(),
    "grad": float(x.grad), "plain": s.all_gather(torch.tensor([RANK])).tolist(),
    "broadcast": s.broadcast(f"from {RANK}", src=1), "objects": s.gather_objects({RANK}), "rank": trainer.global_rank,
})
s.barrier()
s.destroy()
"""


@pytest.mark.multi
@pytest.mark.slow
def test_what_three_processes_exchange() -> None:
    for rank, got in enumerate(run_ranks(SCRIPT, 3)):
        assert got == {
            "mean": 2.0,
            "sum": 6,
            "max": 2,
            "gathered": [1.0, 2.0, 3.0],
            "grad": 3.0 * (rank + 1),
            "plain": [[0], [1], [2]],
            "broadcast": "from 1",
            "objects": [{0}, {1}, {2}],
            "rank": rank,
        }


TWO_MACHINES = """
import sys, time, torch, fulgurite as pl
from torch.utils.data import DataLoader
samples = torch.randn(23, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(4, 1, dtype=torch.float64)
    def training_step(self, batch, i):
        if "killed" in sys.argv and self.trainer.node_rank == 1 and i == 1:
            print("there", flush=True)
            time.sleep(60)
        return self.layer(batch).pow(2).mean()
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.1)
of = 12
trainer = pl.Trainer(accelerator="cpu", num_nodes=2 if "machines" in sys.argv else 1, max_epochs=2, logger=False,
                     enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
model = Net()
before = trainer.global_rank, trainer.node_rank, trainer.local_rank, trainer.is_global_zero, trainer.world_size
trainer.fit(model, DataLoader(samples, of // trainer.world_size))
torch.save((before, model.state_dict()), f"{before[-1]}-{trainer.global_rank}.pt")
"""


def agents(folder: Path, processes: int, *words: str) -> list[subprocess.Popen[str]]:
    """Torchrun on two machines, which are both this one."""
    (folder / "train.py").write_text(TWO_MACHINES)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    port = free_port()
    return [
        subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", f"--node-rank={node}"]
            + [f"--nproc-per-node={processes}", "--master-addr=127.0.0.1", f"--master-port={port}"]
            + ["train.py", "machines", *words],
            cwd=folder,
            env={**environment, "GLOO_SOCKET_IFNAME": "lo"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        for node in (0, 1)
    ]


def end(agent: subprocess.Popen[str]) -> None:
    """With its training processes, each of which leads a session of its own."""
    with contextlib.suppress(FileNotFoundError):
        children = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
        for pid in [agent.pid, *map(int, children)]:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
    agent.communicate()


@pytest.mark.multi
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("processes", [1, 2])
def test_two_machines_train_as_one_process(tmp_path: Path, processes: int) -> None:
    running = agents(tmp_path, processes)
    try:
        said = [agent.communicate(timeout=240) for agent in running]
    finally:
        for agent in running:
            end(agent)
    assert [agent.returncode for agent in running] == [0, 0], said
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "train.py"], check=True, cwd=tmp_path, env=environment, timeout=120)
    _, alone = torch.load(tmp_path / "1-0.pt")
    world = 2 * processes
    for rank in range(world):
        before, weights = torch.load(tmp_path / f"{world}-{rank}.pt")
        assert before == (rank, rank // processes, rank % processes, rank == 0, world)
        torch.testing.assert_close(weights, alone, rtol=0, atol=1e-12)


@pytest.mark.multi
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_machine_that_is_gone_is_noticed_by_the_other(tmp_path: Path) -> None:
    running = agents(tmp_path, 1, "killed")
    try:
        assert running[1].stdout is not None and "there" in running[1].stdout.readline()
        end(running[1])  # with its training process, as when a machine loses its power
        _, said = running[0].communicate(timeout=60)
    finally:
        for agent in running:
            end(agent)
    assert running[0].returncode != 0
    assert "onnection" in said, said


@pytest.mark.multi
@pytest.mark.slow
def test_under_torchrun(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        """
import torch, fulgurite as pl
from fulgurite.demos.boring_classes import BoringModel
model = BoringModel()
trainer = pl.Trainer(accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False,
                     enable_progress_bar=False, enable_model_summary=False)
trainer.fit(model)
trainer.test(model, verbose=False)
torch.save((trainer.world_size, trainer.global_step, model.state_dict()), f"{trainer.global_rank}.pt")
"""
    )
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)],
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        timeout=180,
    )
    one, two = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert one[:2] == two[:2] and one[0] == 2
    assert all(torch.equal(one[2][name], two[2][name]) for name in one[2])
