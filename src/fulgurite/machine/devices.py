"""Which devices a trainer uses: `accelerator` and `devices` in all their spellings."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import torch

from fulgurite.machine.accelerators import Accelerator
from fulgurite.utilities.exceptions import MisconfigurationException

_NOT_HERE = {
    "tpu": "TPUs need torch_xla, which is not supported here; use a CUDA device or the CPU.",
    "hpu": "Gaudi devices are not supported here; use a CUDA device or the CPU.",
}
_NAMES = ("auto", "cpu", "gpu", "cuda", "mps")


@dataclass(frozen=True)
class Devices:
    """The resolved choice: the kind of device and the ones of this machine to use, a process each."""

    kind: str
    devices: tuple[torch.device, ...]
    asked_for: bool = False  # by number, rather than "auto" or all

    @property
    def root(self) -> torch.device:
        return self.devices[0]


def resolve_devices(accelerator: object = "auto", devices: int | str | list[int] | None = "auto") -> Devices:
    """Turn the two arguments of the trainer into devices; each mistake is an error that says what there is."""
    if isinstance(accelerator, Accelerator) and not accelerator.kind:  # of the user's own
        asked = accelerator.auto_device_count() if devices in ("auto", None) else devices
        chosen = accelerator.get_parallel_devices(accelerator.parse_devices(asked))
        return Devices(accelerator.name(), tuple(chosen), asked is devices)
    kind, asked_for = _kind(accelerator), devices not in ("auto", None, -1, "-1")
    if kind == "cpu":
        return Devices("cpu", (torch.device("cpu"),) * _cpu_processes(devices), asked_for)
    if kind == "mps":
        if devices not in ("auto", None, 1, "1", -1, "-1", [0], "0,"):
            raise MisconfigurationException(f"devices={devices!r}: an MPS machine has one device. Use devices=1.")
        return Devices("mps", (torch.device("mps", 0),), asked_for)
    return Devices("cuda", tuple(torch.device("cuda", i) for i in _cuda_indices(devices)), asked_for)


def _kind(accelerator: object) -> str:
    name = getattr(accelerator, "name", accelerator)
    if callable(name):
        name = name()
    name = name.lower() if isinstance(name, str) else None
    if name in _NOT_HERE:
        raise NotImplementedError(f"accelerator={accelerator!r}: {_NOT_HERE[name]}")
    if name not in _NAMES:
        raise ValueError(f"accelerator={accelerator!r} is not one of {', '.join(_NAMES)}.")
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        return "mps" if mps else "cuda" if cuda else "cpu"
    if name == "gpu":
        name = "mps" if mps else "cuda"
    if (name == "cuda" and not cuda) or (name == "mps" and not mps):
        raise MisconfigurationException(
            f"accelerator={accelerator!r}: this machine has no {name.upper()} device that torch can use. "
            'Write accelerator="auto", devices=1 to train on what is there.'
        )
    return name


def _cpu_processes(devices: int | str | list[int] | None) -> int:
    if devices in ("auto", None):
        return 1
    try:
        count = int(devices)  # type: ignore[arg-type]  # what does not convert is the error below
    except (TypeError, ValueError):
        count = 0
    if count < 1:
        raise MisconfigurationException(
            f"devices={devices!r} with accelerator='cpu': on the CPU it is a number of processes, 1 or more."
        )
    return count


def _cuda_indices(devices: int | str | list[int] | None) -> list[int]:
    there = torch.cuda.device_count()
    if devices in ("auto", None):
        # a notebook cannot start further processes once CUDA is in use
        return [0] if in_notebook() else list(range(there))
    if devices in (-1, "-1"):
        return list(range(there))
    if isinstance(devices, str):
        try:
            devices = int(devices) if "," not in devices else [int(part) for part in devices.split(",") if part.strip()]
        except ValueError:
            raise MisconfigurationException(
                f"devices={devices!r}: write a count ('2'), indices ('0,1' or '1,'), '-1' or 'auto'."
            ) from None
    if isinstance(devices, bool) or not isinstance(devices, (int, list, tuple)):
        raise MisconfigurationException(f"devices={devices!r}: write a count, a list of indices, -1 or 'auto'.")
    indices = list(range(devices)) if isinstance(devices, int) else list(devices)
    if not indices or len(set(indices)) != len(indices) or any(not 0 <= i < there for i in indices):
        raise MisconfigurationException(
            f"devices={devices!r}: this machine has {there} CUDA device{'s' * (there != 1)}, "
            f"numbered {', '.join(map(str, range(there))) or 'none'}. Name each once."
        )
    return indices


def in_notebook() -> bool:
    """Whether this process is a notebook kernel or an interactive session."""
    return hasattr(sys, "ps1") or "ipykernel" in sys.modules
