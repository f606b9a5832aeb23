"""Whether all ranks hold the same weights, bit by bit: a number for each parameter is compared, not the parameter."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from fulgurite.core.module import LightningModule
    from fulgurite.machine.distributed import DistributedStrategy

CHUNK = 1 << 22  # numbers looked at once
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def unshared(module: nn.Module) -> list[str]:
    """The parameters and buffers that each process keeps for itself: by torch's name for it, or by the module's own."""
    own = tuple(getattr(module, "unshared_weights", ()))
    named = [name for name, _ in [*module.named_parameters(), *module.named_buffers()]]
    kept = [name for name in named if any(name == o or name.startswith(f"{o}.") for o in own)]
    return [*kept, *getattr(module, "_ddp_params_and_buffers_to_ignore", ())]


def fingerprint(p: Tensor) -> Tensor:
    """A sum of the bits of all elements, each times an odd number of its own: no single change leaves it as it is."""
    flat = p.detach().reshape(-1)
    flat = torch.view_as_real(flat).reshape(-1) if flat.is_complex() else flat
    total = torch.zeros((), dtype=torch.int64, device=p.device)
    for start in range(0, len(flat), CHUNK):
        bits = flat[start : start + CHUNK].view(_BITS[flat.element_size()]).long()
        total += (bits * torch.arange(2 * start + 1, 2 * (start + len(bits)), 2, device=p.device)).sum()
    return total


def fingerprints(module: nn.Module, left_out: Collection[str]) -> dict[str, int]:
    """Of every parameter that is whole on each rank."""
    whole = {
        name: fingerprint(p)
        for name, p in module.named_parameters()
        if name not in left_out and not hasattr(p, "full_tensor") and not p.is_meta and not nn.parameter.is_lazy(p)
    }
    device = next(iter(whole.values())).device if whole else None
    numbers = torch.stack([number.to(device) for number in whole.values()]).tolist() if whole else []
    return dict(zip(whole, numbers, strict=True))


def check_equal(strategy: DistributedStrategy, module: LightningModule) -> None:
    """An error on all ranks that names the first parameter of which they hold different values."""
    mine = fingerprints(module, unshared(module))
    digest = hashlib.blake2b(repr(mine).encode(), digest_size=16).digest()
    if len(set(strategy.gather_objects(digest, "the comparison of weights"))) == 1:
        return
    told = strategy.gather_objects(mine, "the comparison of weights, parameter by parameter")
    names = list(dict.fromkeys(name for theirs in told for name in theirs))
    different = [name for name in names if len({theirs.get(name) for theirs in told}) > 1]
    groups: dict[int | None, list[str]] = {}
    for rank, theirs in enumerate(told):
        groups.setdefault(theirs.get(different[0]), []).append(str(rank))
    sides = " and ".join(f"rank {', '.join(ranks)}" for ranks in groups.values())
    raise RuntimeError(
        f"after epoch {module.current_epoch} the ranks hold different weights: {different[0]!r} is not the same "
        f"on {sides} ({len(different)} of {len(names)} parameters differ). From the step on in which they parted each "
        "rank has trained a model of its own. docs/several-processes.md says how to find that step. Weights that are "
        "meant to differ are named in the module's unshared_weights; DDPStrategy(compare_weights=False) compares none."
    )
