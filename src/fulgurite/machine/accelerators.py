"""The kinds of device, as objects that say what there is."""

from __future__ import annotations

import torch

from fulgurite.machine.devices import mps_is_available


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
        raise NotImplementedError


class CPUAccelerator(Accelerator):
    """The processor: always there, one process unless asked for more."""

    kind = "cpu"

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def auto_device_count() -> int:
        return 1


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
        return mps_is_available()

    @staticmethod
    def auto_device_count() -> int:
        return 1


def accelerator_of(kind: str) -> Accelerator:
    return {"cpu": CPUAccelerator, "cuda": CUDAAccelerator, "mps": MPSAccelerator}[kind]()
