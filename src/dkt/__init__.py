"""Deep knowledge tracing on fulgurite: will this student answer the next question right?

>>> from dkt import DKT, read_answers, split_students
>>> train, test = split_students(read_answers("train_data.csv"), (0.8, 0.2))
>>> model = DKT()
>>> model.fit(train)
>>> model.predict(test)
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dkt.data.frames import from_frame as from_frame
    from dkt.data.read import read_answers as read_answers
    from dkt.data.simulate import simulate as simulate
    from dkt.data.splits import split_students as split_students
    from dkt.data.table import Answers as Answers
    from dkt.data.table import DataError as DataError
    from dkt.models.bkt import BKT as BKT
    from dkt.models.catalogue import load_model as load_model
    from dkt.models.catalogue import model_named as model_named
    from dkt.models.elo import Elo as Elo
    from dkt.models.hybrid import Hybrid as Hybrid
    from dkt.models.hybrid import Stack as Stack
    from dkt.models.lightgcn import LightGCN as LightGCN
    from dkt.models.logistic import IRT as IRT
    from dkt.models.logistic import PFA as PFA
    from dkt.models.sequence import AKT as AKT
    from dkt.models.sequence import DKT as DKT
    from dkt.models.sequence import DKVMN as DKVMN
    from dkt.models.sequence import SAKT as SAKT
    from dkt.models.sequence import DKTPlus as DKTPlus
    from dkt.models.sequence import LastQuery as LastQuery
    from dkt.models.sequence import SAINTPlus as SAINTPlus
    from dkt.models.sequence import SimpleKT as SimpleKT
    from dkt.models.trees import Trees as Trees

for _needed in ("numpy", "polars"):
    if find_spec(_needed) is None:
        raise ModuleNotFoundError(f"dkt needs {_needed}: pip install 'fulgurite[dkt]'", name=_needed)

# Where each public name lives; it is imported when it is asked for, so that `import dkt` costs nothing.
_HOMES = {
    "data.frames": "from_frame",
    "data.read": "read_answers",
    "data.simulate": "simulate",
    "data.splits": "split_students",
    "data.table": "Answers DataError",
    "models.bkt": "BKT",
    "models.catalogue": "load_model model_named",
    "models.elo": "Elo",
    "models.hybrid": "Hybrid Stack",
    "models.lightgcn": "LightGCN",
    "models.logistic": "IRT PFA",
    "models.sequence": "AKT DKT DKVMN SAKT DKTPlus LastQuery SAINTPlus SimpleKT",
    "models.trees": "Trees",
}
_HOME = {name: f"dkt.{module}" for module, names in _HOMES.items() for name in names.split()}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'dkt' has no attribute {name!r}", name=name)
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *(name for name in __all__ if name not in globals())]
