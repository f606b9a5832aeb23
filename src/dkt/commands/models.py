"""Arguments of the commands that fit models by name."""

from __future__ import annotations

import argparse

from dkt.commands.shared import add_format, add_merge, add_protocol, add_seed, add_threads, positive, setting
from dkt.models.base import Model
from dkt.models.catalogue import NAMES, model_named

MODELS_HELP = f"{', '.join(NAMES)}; nets also as NAME-r, NAME+features, NAME-r+features; NAME,NAME is a stack"


def add_model_arguments(command: argparse.ArgumentParser) -> None:
    add_protocol(command)
    add_merge(command)
    command.add_argument("--epochs", type=positive, help="epochs of nets; left out: their own default")
    command.add_argument(
        "--set",
        type=setting,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of the model, as in Python: dim=128; of one of several models: akt-r.dim=128",
    )
    command.add_argument("--folds", type=positive, default=5, help="number of folds")
    add_seed(command)
    add_format(command)
    add_threads(command)


def model_of(name: str, arguments: argparse.Namespace) -> Model:
    """The model `name` as the arguments set it."""
    settings = {}
    for key, value in arguments.set:
        model, dot, own = key.rpartition(".")
        if not dot or model == name:
            settings[own] = value
    try:
        return model_named(name, arguments.epochs, protocol=arguments.protocol, seed=arguments.seed, **settings)
    except TypeError as error:
        raise ValueError(f"{name} does not take all of {', '.join(settings)}: {error}") from error
