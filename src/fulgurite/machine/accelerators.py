"""The kinds of device, as objects that say what there is."""

from __future__ import annotations

from typing import Any

import torch


class Accelerator:
    """A kind of device. An object of a subclass can be given to the trainer: `Trainer(accelerator=Mine(), devices=1)`.

    `parse_devices` and `get_parallel_devices` then choose the devices, and `setup_device` and `teardown` are called
    around each run.
    """

    kind = ""

    @classmethod
    def name(cls) -> str:
        return cls.kind

    def setup_device(self, device: torch.device) -> None:
        """Before a run, on the device of this process."""

    def teardown(self) -> None:
        """After a run."""

    def get_device_stats(self, device: torch.device) -> dict[str, Any]:
        """Figures of the device, such as its use of memory."""
        return {}

    @staticmethod
    def parse_devices(devices: Any) -> Any:
        """What `devices` of the trainer means, for `get_parallel_devices`; it is not "auto"."""
        return devices

    @staticmethod
    def get_parallel_devices(devices: Any) -> list[torch.device]:
        """The devices, one for each process."""
        raise NotImplementedError

    @staticmethod
    def is_available() -> bool:
        raise NotImplementedError

    @staticmethod
    def auto_device_count() -> int:
        return 1


class CPUAccelerator(Accelerator):
    """The processor: always there, one process unless asked for more."""

    kind = "cpu"

    @staticmethod
    def is_available() -> bool:
        return True

    def get_device_stats(self, device: torch.device) -> dict[str, Any]:
        """Percentages of use, by psutil."""
        return cpu_stats()


class CUDAAccelerator(Accelerator):
    """NVIDIA and AMD GPUs, through torch.cuda."""

    kind = "cuda"

    @staticmethod
    def is_available() -> bool:
        return torch.cuda.is_available()

    def get_device_stats(self, device: torch.device) -> dict[str, Any]:
        """What `torch.cuda.memory_stats` says."""
        return torch.cuda.memory_stats(device)

    @staticmethod
    def auto_device_count() -> int:
        return torch.cuda.device_count()


class MPSAccelerator(Accelerator):
    """Apple's GPUs."""

    kind = "mps"

    @staticmethod
    def is_available() -> bool:
        return torch.backends.mps.is_available()


def accelerator_of(kind: str) -> Accelerator:
    return {"cpu": CPUAccelerator, "cuda": CUDAAccelerator, "mps": MPSAccelerator}.get(kind, Accelerator)()


def find_usable_cuda_devices(num_devices: int = -1) -> list[int]:
    """The first GPUs on which a tensor can be made, as one that another process has to itself refuses.

    Raises:
        ValueError: there are fewer than `num_devices` (-1: as many as there are).
    """
    if num_devices == 0:
        return []
    usable = [i for i in range(torch.cuda.device_count()) if _makes_a_tensor(i)]
    if len(usable) < max(num_devices, 1):
        raise ValueError(
            f"find_usable_cuda_devices({num_devices}): this machine has {torch.cuda.device_count()} CUDA devices, and "
            f"{len(usable)} of them can be used now. Use accelerator='auto', or wait until one is free."
        )
    return usable if num_devices < 0 else usable[:num_devices]


def _makes_a_tensor(index: int) -> bool:
    try:
        torch.ones(1, device=torch.device("cuda", index))
    except RuntimeError:
        return False
    return True


def cpu_stats() -> dict[str, float]:
    """Load of the processor, of the memory and of the swap space, in per cent."""
    psutil = _psutil()
    return {
        "cpu_vm_percent": psutil.virtual_memory().percent,
        "cpu_percent": psutil.cpu_percent(),
        "cpu_swap_percent": psutil.swap_memory().percent,
    }


def _psutil() -> Any:
    try:
        import psutil  # type: ignore[import-untyped,import-not-found,unused-ignore]  # optional
    except ImportError as error:
        raise ModuleNotFoundError(
            "the processor's load is read with psutil: pip install psutil, or DeviceStatsMonitor(cpu_stats=False)."
        ) from error
    return psutil
