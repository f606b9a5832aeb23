"""The kinds of device, as objects that say what there is."""

from __future__ import annotations

import torch


class Accelerator:
    """A kind of device."""

    kind = ""

    @classmethod
    def name(cls) -> str:
        return cls.kind

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


class CUDAAccelerator(Accelerator):
    """NVIDIA and AMD GPUs, through torch.cuda."""

    kind = "cuda"

    @staticmethod
    def is_available() -> bool:
        return torch.cuda.is_available()

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
    return {"cpu": CPUAccelerator, "cuda": CUDAAccelerator, "mps": MPSAccelerator}[kind]()


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
