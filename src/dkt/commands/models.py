"""Arguments of the commands that fit models by name."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from typing import Any

from dkt.commands.shared import add_cleaning, add_format, add_protocol, add_seed, add_threads, positive, setting
from dkt.models.base import Model
from dkt.models.catalogue import NAMES, SEQUENCE, model_named
from dkt.models.hybrid import Stack

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
    if "," in name:
        models = [model_of(part, arguments, **more) for part in name.split(",")]
        return Stack(models, arguments.protocol, arguments.seed)
    given = {key: getattr(arguments, key) for key in OF_NETS if getattr(arguments, key) is not None}
    settings: dict[str, Any] = given if is_net(name) else {}
    for key, value in (*arguments.set, *more.items()):
        model, dot, own = key.rpartition(".")
        if not dot or model == name:
            settings[own] = value
    try:
        return model_named(name, protocol=arguments.protocol, seed=arguments.seed, **settings)
    except TypeError as error:
        raise ValueError(
            f"{name} does not take all of {', '.join(settings)}: {error} (NAME.SETTING=VALUE is for one model only)"
        ) from error


def check_settings(names: Sequence[str], arguments: argparse.Namespace, tried: Iterable[str] = ()) -> None:
    """Raise if a setting is given, or is to be tried, that concerns none of the models."""
    models = [part for name in names for part in name.split(",")]
    given = [f"--{key}" for key in OF_NETS if getattr(arguments, key) is not None]
    if given and not any(is_net(name) for name in models):
        raise ValueError(
            f"{', '.join(given)}: {', '.join(names)} is no net; settings of its own are given by --set NAME=VALUE."
        )
    for key in (*dict(arguments.set), *tried):
        model, dot, own = key.rpartition(".")
        if dot and model not in models:
            raise ValueError(
                f"{key}: {model} is none of the models here ({', '.join(models)}); give {own} to one of them, or to "
                "all by leaving the name out."
            )


def is_net(name: str) -> bool:
    return name == "lightgcn" or name.removesuffix("+features").removesuffix("-r") in SEQUENCE
