"""All models by name, for the command line; a net becomes the R version with `-r`, the hybrid with `+features`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dkt.models.base import Model
from dkt.models.bkt import BKT
from dkt.models.elo import Elo
from dkt.models.hybrid import Hybrid
from dkt.models.logistic import IRT, PFA
from dkt.models.sequence import AKT, DKT, DKVMN, SAKT, DKTPlus, LastQuery, SAINTPlus, SequenceModel, SimpleKT
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
}
PLAIN: dict[str, Callable[..., Model]] = {
    "elo": Elo,
    "irt": IRT,
    "pfa": PFA,
    "bkt": BKT,
    "trees": Trees,
    "hybrid": Hybrid,
}
NAMES = (*PLAIN, *SEQUENCE)


def model_named(name: str, epochs: int | None = None, **settings: Any) -> Model:
    """`trees`, `dkt` (no question scalar), `dkt-r`, `dkt-r+features`, ...; `epochs` concerns nets only."""
    plain, features = name.removesuffix("+features"), name.endswith("+features")
    net, rasch = plain.removesuffix("-r"), plain.endswith("-r")
    if name in PLAIN:
        return PLAIN[name](**settings)
    if net not in SEQUENCE:
        raise ValueError(
            f"model {name!r} is unknown; choose from {', '.join(NAMES)}, and for nets also NAME-r (one scalar per "
            "question) and NAME+features or NAME-r+features (fed the causal features)."
        )
    if epochs is not None:
        settings["epochs"] = epochs
    return SEQUENCE[net](rasch=rasch, features=features, **settings)
