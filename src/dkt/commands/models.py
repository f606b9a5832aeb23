"""Arguments of the commands that fit models by name."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from dkt.commands.shared import add_cleaning, add_format, add_protocol, add_seed, add_threads, positive, setting
from dkt.models.base import Model
from dkt.models.catalogue import NAMES, SEQUENCE, model_named

MODELS_HELP = f"{', '.join(NAMES)}; nets also as NAME-r, NAME+features, NAME-r+features; NAME,NAME is a stack"


# Arguments of nets, under the names they have there.
OF_NETS = ("epochs", "patience", "lr", "cells", "windows")


def add_fitting_arguments(command: argparse.ArgumentParser) -> None:
    """What every command that fits models to files of answers takes: `read_parts` and `model_of` read them."""
    add_cleaning(command)
    add_format(command)
    add_protocol(command)
    command.add_argument("--epochs", type=positive, help="most passes over the training answers of a net")
    command.add_argument("--patience", type=positive, help="stop a net after so many epochs without a better AUC")
    command.add_argument("--lr", type=float, help="learning rate of a net")
    command.add_argument("--cells", type=positive, help="size of a net's batch: sequences x longest of them")
    command.add_argument(
        "--windows",
        metavar="LENGTH:STRIDE",
        help="train a net on sliding windows, like 20:10, in place of the protocol's chunks",
    )
    command.add_argument(
        "--set",
        type=setting,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any other setting of the model, as in Python: dim=128; of one of several models: akt-r.dim=128",
    )
    add_seed(command)
    add_threads(command)


def model_of(name: str, arguments: argparse.Namespace, **more: Any) -> Model:
    """The model `name` as the arguments set it; what is left out is the model's own default."""
    given = {key: getattr(arguments, key) for key in OF_NETS if getattr(arguments, key) is not None}
    settings: dict[str, Any] = given if is_net(name) or "," in name else {}
    for key, value in arguments.set:
        model, dot, own = key.rpartition(".")
        if not dot or model == name:
            settings[own] = value
    settings |= more
    try:
        return model_named(name, protocol=arguments.protocol, seed=arguments.seed, **settings)
    except TypeError as error:
        raise ValueError(f"{name} does not take all of {', '.join(settings)}: {error}") from error


def check_of_nets(names: Sequence[str], arguments: argparse.Namespace) -> None:
    """Raise if a setting of nets is given and there is no net among the models."""
    given = [f"--{key}" for key in OF_NETS if getattr(arguments, key) is not None]
    if given and not any(is_net(name) or "," in name for name in names):
        raise ValueError(
            f"{', '.join(given)}: {', '.join(names)} is no net; settings of its own are given by --set NAME=VALUE."
        )


def is_net(name: str) -> bool:
    return name == "lightgcn" or name.removesuffix("+features").removesuffix("-r") in SEQUENCE
