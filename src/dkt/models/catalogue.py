"""All models by name, for the command line; a net becomes the R version with `-r`, the hybrid with `+features`."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch

from dkt.data.table import DataError
from dkt.models.base import FORMAT, Model
from dkt.models.bkt import BKT
from dkt.models.elo import Elo
from dkt.models.hybrid import Hybrid, Stack
from dkt.models.lightgcn import LightGCN
from dkt.models.logistic import IRT, PFA
from dkt.models.sequence import AKT, DKT, DKVMN, MIRT, SAKT, DKTPlus, LastQuery, SAINTPlus, SequenceModel, SimpleKT
from dkt.models.trees import Trees

SEQUENCE: dict[str, type[SequenceModel]] = {
    "dkt": DKT,
    "dktplus": DKTPlus,
    "dkvmn": DKVMN,
    "sakt": SAKT,
    "saintplus": SAINTPlus,
    "akt": AKT,
    "simplekt": SimpleKT,
    "lastquery": LastQuery,
    "mirt": MIRT,
}
PLAIN: dict[str, type[Model]] = {
    "elo": Elo,
    "irt": IRT,
    "pfa": PFA,
    "bkt": BKT,
    "lightgcn": LightGCN,
    "trees": Trees,
    "hybrid": Hybrid,
}
NAMES = (*PLAIN, *SEQUENCE)


def model_named(name: str, epochs: int | None = None, **settings: Any) -> Model:
    """`trees`, `dkt` (no question scalar), `dkt-r`, `dkt-r+features`, ...; `epochs` concerns nets only.

    Names with commas between them, `trees,dkt-r+features`, are the stack of these models.
    """
    if "," in name:
        own = {key: settings[key] for key in ("protocol", "seed") if key in settings}
        return Stack([model_named(part, epochs, **settings) for part in name.split(",")], **own)
    plain, features = name.removesuffix("+features"), name.endswith("+features")
    net, rasch = plain.removesuffix("-r"), plain.endswith("-r")
    if name in PLAIN:
        if epochs is not None and "epochs" in inspect.signature(PLAIN[name]).parameters:
            settings["epochs"] = epochs
        return PLAIN[name](**settings)
    if net not in SEQUENCE:
        raise ValueError(
            f"model {name!r} is unknown; choose from {', '.join(NAMES)}, and for nets also NAME-r (one scalar per "
            "question) and NAME+features or NAME-r+features (fed the causal features); NAME,NAME is a stack of models."
        )
    if epochs is not None:
        settings["epochs"] = epochs
    return SEQUENCE[net](rasch=rasch, features=features, **settings)


def load_model(path: str | Path) -> Model:
    """The fitted model in a file that `Model.save` wrote, or in a checkpoint of `dkt train`."""
    try:
        kept = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # any kind: torch takes the letters of a text for pickle's instructions
        raise DataError(f"{path} is not a saved model: {' '.join(str(error).split())[:200]}") from error
    if isinstance(kept, dict) and kept.get("dkt") == FORMAT:
        return _made_again(kept)
    if isinstance(kept, dict) and "hyper_parameters" in kept and "vocabulary" in kept:
        return _of_checkpoint(kept)
    raise DataError(f"{path} holds neither a model that dkt saved (format {FORMAT}) nor a checkpoint of `dkt train`.")


def _made_again(kept: dict[str, Any]) -> Model:
    model = _unfitted(kept)
    model.restore(kept["state"])
    return model


def _unfitted(kept: dict[str, Any]) -> Model:
    kinds: list[type[Model]] = [*PLAIN.values(), *SEQUENCE.values(), Stack]
    classes = {kind.__name__: kind for kind in kinds}
    if kept["model"] not in classes:
        raise DataError(f"the model {kept['model']!r} is not in the catalogue; it holds {', '.join(sorted(classes))}.")
    arguments = dict(kept["arguments"])
    if "models" in arguments:  # of a stack
        arguments["models"] = [_unfitted(part) for part in arguments["models"]]
    return classes[kept["model"]](**arguments)


def _of_checkpoint(kept: dict[str, Any]) -> Model:
    made_with = kept["hyper_parameters"].items()
    settings = {name: value for name, value in made_with if name[0] != "_"}  # those are LightningCLI's
    by_net = {kind.net: kind for kind in SEQUENCE.values()}
    kind = by_net[settings.pop("net", "dkt")]
    del settings["n_skills"]
    model = kind(rasch=bool(settings.pop("n_questions")), **settings)
    model.restore(kept)
    return model
