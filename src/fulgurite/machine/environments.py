"""What started the processes of a run: torchrun, SLURM, or nobody."""

from __future__ import annotations

import os


class ClusterEnvironment:
    """Where this process stands among all; subclass it and pass it in `plugins=[...]` for a scheduler of your own."""

    main_address = "127.0.0.1"
    creates_processes_externally = True
    _names = {"world_size": "WORLD_SIZE", "global_rank": "RANK", "local_rank": "LOCAL_RANK", "node_rank": "NODE_RANK"}
    _sign = ""  # the variable that gives this environment away

    @classmethod
    def detect(cls) -> bool:
        return cls._sign in os.environ

    def _number(self, what: str, default: int) -> int:
        return int(os.environ.get(self._names[what], default))

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
    """Nobody started this process among others."""

    creates_processes_externally = False

    @classmethod
    def detect(cls) -> bool:
        return True


class TorchElasticEnvironment(ClusterEnvironment):
    """Started by torchrun."""

    _sign = "TORCHELASTIC_RUN_ID"


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


__all__ = ["ClusterEnvironment", "LightningEnvironment", "SLURMEnvironment", "TorchElasticEnvironment"]
