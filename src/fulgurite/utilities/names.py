"""Names of parameters and modules, which torch.compile of a layer changes."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

T = TypeVar("T")
COMPILED = "_orig_mod"  # where torch.compile(layer) keeps the layer


def plain_name(name: str) -> str:
    """The name as it is without torch.compile: `encoder._orig_mod.norm` is `encoder.norm`."""
    return ".".join(part for part in name.split(".") if part != COMPILED) if COMPILED in name else name


def modules_as_in(module: nn.Module, values: dict[str, T]) -> dict[str, T]:
    """Values by the paths of submodules, whichever layers were compiled when they were saved and are now."""
    own = {plain_name(path): path for path, _ in module.named_modules(remove_duplicate=False)}
    return {own.get(plain_name(path), path): value for path, value in values.items()}


def weights_as_in(module: nn.Module, values: dict[str, T]) -> dict[str, T]:
    """Values by the names of parameters, such as a state dict, as `modules_as_in`."""
    owners = {name: name.rpartition(".")[0] for name in values}
    here = modules_as_in(module, {owner: owner for owner in owners.values()})
    renamed = {owner: path for path, owner in here.items()}
    return {renamed[owners[name]] + name.removeprefix(owners[name]): value for name, value in values.items()}
