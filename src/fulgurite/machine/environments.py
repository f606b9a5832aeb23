"""What started the processes of a run: torchrun, SLURM, a launcher that sets the same variables, or nobody."""

from __future__ import annotations

import os
import re
from pathlib import Path

from fulgurite.utilities.exceptions import MisconfigurationException

try:
    STARTED_IN: str | None = str(Path.cwd())  # where a script that is run again has to be, wherever it goes later
except FileNotFoundError:
    STARTED_IN = None

STARTED_BY = "FULGURITE_STARTED_BY"  # "<process id>:<file descriptor>" in the environment of a rank that we started
RANK_OF = "FULGURITE_RANK_OF"  # the process that our launcher's variables are for; what it starts inherits them


def started_by_us() -> bool:
    """Whether our launcher has made this process a rank."""
    return STARTED_BY in os.environ or os.environ.get(RANK_OF) == str(os.getpid())


def has_a_parents_rank() -> bool:
    """Whether this is no rank, but was started by one of ours, whose variables it has inherited."""
    return RANK_OF in os.environ and not started_by_us()


class ClusterEnvironment:
    """Where this process stands among all; subclass it and pass it in `plugins=[...]` for a scheduler of your own."""

    main_address = "127.0.0.1"
    creates_processes_externally = True
    _names = {"world_size": "WORLD_SIZE", "global_rank": "RANK", "local_rank": "LOCAL_RANK", "node_rank": "NODE_RANK"}
    _sign = ""  # the variable that gives this environment away

    @classmethod
    def detect(cls) -> bool:
        return cls._sign in os.environ

    def work_out(self, num_nodes: int, processes: int) -> None:
        """What this environment does not say follows from the machines and the processes of each."""

    def _number(self, what: str, default: int) -> int:
        name = self._names[what]
        value = os.environ.get(name, str(default))
        if not value.isdecimal():
            raise MisconfigurationException(
                f"the environment variable {name}={value!r} is not a number of 0 or more; it says this process's "
                f"{what.replace('_', ' ')}."
            )
        return int(value)

    @property
    def main_port(self) -> int:
        return int(os.environ.get("MASTER_PORT", "29500"))

    def world_size(self) -> int:
        return self._number("world_size", 1)

    def global_rank(self) -> int:
        return self._number("global_rank", 0)

    def local_rank(self) -> int:
        return self._number("local_rank", 0)

    def node_rank(self) -> int:
        return self._number("node_rank", 0)

    def teardown(self) -> None:
        """After the run."""


class LightningEnvironment(ClusterEnvironment):
    """Nobody started this process among others, or a launcher that gives each its LOCAL_RANK and maybe the rest."""

    _worked_out: tuple[int, int] | None = None  # world size and rank, where the launcher does not say them

    @classmethod
    def detect(cls) -> bool:
        return True

    @property
    def creates_processes_externally(self) -> bool:  # type: ignore[override]  # read only here: the variables say it
        return "LOCAL_RANK" in os.environ and not has_a_parents_rank()

    def work_out(self, num_nodes: int, processes: int) -> None:
        if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
            return
        if "WORLD_SIZE" in os.environ:
            processes = self.world_size() // num_nodes
        if self.local_rank() >= processes or self.node_rank() >= num_nodes:
            raise MisconfigurationException(
                f"LOCAL_RANK={self.local_rank()} and NODE_RANK={self.node_rank()} with devices={processes}, "
                f"num_nodes={num_nodes}: both ranks count from 0. Give the trainer as many devices as there are "
                "processes on each machine, and as many nodes as machines."
            )
        self._worked_out = num_nodes * processes, self.node_rank() * processes + self.local_rank()

    def world_size(self) -> int:
        return self._number("world_size", self._worked_out[0] if self._worked_out else 1)

    def global_rank(self) -> int:
        return self._number("global_rank", self._worked_out[1] if self._worked_out else 0)

    def node_rank(self) -> int:
        return self._number("node_rank", int(os.environ.get("GROUP_RANK", "0")))

    @property
    def main_address(self) -> str:  # type: ignore[override]  # as above
        return os.environ.get("MASTER_ADDR", "127.0.0.1")


class TorchElasticEnvironment(ClusterEnvironment):
    """Started by torchrun."""

    _names = {**ClusterEnvironment._names, "node_rank": "GROUP_RANK"}
    _sign = "TORCHELASTIC_RUN_ID"

    @property
    def main_address(self) -> str:  # type: ignore[override]  # read only here: torchrun says it
        return os.environ.get("MASTER_ADDR", "127.0.0.1")


class SLURMEnvironment(ClusterEnvironment):
    """Started by srun."""

    _names = {
        "world_size": "SLURM_NTASKS",
        "global_rank": "SLURM_PROCID",
        "local_rank": "SLURM_LOCALID",
        "node_rank": "SLURM_NODEID",
    }
    _sign = "SLURM_NTASKS"

    def __init__(self, auto_requeue: bool = True, requeue_signal: object = None) -> None:
        self.auto_requeue, self.requeue_signal = auto_requeue, requeue_signal

    @classmethod
    def detect(cls) -> bool:
        """Whether srun started this process; a shell inside an allocation is not one of its tasks."""
        return cls._sign in os.environ and os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive")

    @property
    def main_address(self) -> str:  # type: ignore[override]  # read only here: SLURM says it
        if "MASTER_ADDR" in os.environ:
            return os.environ["MASTER_ADDR"]
        nodes = os.environ.get("SLURM_NODELIST", "127.0.0.1")
        first = re.sub(r"\[(.*?)[,-].*\]", r"\1", nodes)  # node[03-07,09] -> node03
        return re.sub(r"\[(.*?)\]", r"\1", first).split(",")[0].split(" ")[0]

    @property
    def main_port(self) -> int:
        """The same on every node, other for every job."""
        if "MASTER_PORT" in os.environ:
            return int(os.environ["MASTER_PORT"])
        job = os.environ.get("SLURM_JOB_ID", "")
        return 15000 + int(job[-4:]) if job[-4:].isdecimal() else 12910


def environment_of(given: ClusterEnvironment | None = None) -> ClusterEnvironment:
    """Who started this process: the plugin that the user passes, else torchrun, SLURM, or nobody."""
    if given is not None:
        return given
    for kind in (TorchElasticEnvironment, SLURMEnvironment):
        if kind.detect():
            return kind()
    return LightningEnvironment()


__all__ = ["ClusterEnvironment", "LightningEnvironment", "SLURMEnvironment", "TorchElasticEnvironment"]
