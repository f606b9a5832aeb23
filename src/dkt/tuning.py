"""Settings of a model by search: which are tried, and how well each did on validation students. Needs optuna."""

from __future__ import annotations

import hashlib
import inspect
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dkt.data.protocols import protocol_named
from dkt.data.table import TO_PREDICT, Answers
from dkt.evaluate import auc
from dkt.models.base import Model
from dkt.models.catalogue import SEQUENCE
from dkt.models.nets import NETS


@dataclass(frozen=True)
class Choice:
    """One setting: a range (`low..high`, `:log` where factors count), or a list (`a|b|c`)."""

    text: str

    def __post_init__(self) -> None:
        self.suggest(None)

    def __str__(self) -> str:
        return self.text

    def suggest(self, trial: Any, name: str = "") -> Any:
        """A value for this trial; without one, only whether the text says what to try."""
        if "|" in self.text:
            values = [_value(part) for part in self.text.split("|")]
            return trial.suggest_categorical(name, values) if trial else values
        low, dots, rest = self.text.partition("..")
        high, _, log = rest.partition(":")
        ends = (_value(low), _value(high))
        if not dots or log not in ("", "log") or not all(isinstance(end, int | float) for end in ends):
            raise ValueError(f"{self.text!r} says no values to try; write 16|32|64, or 0.1..0.5, or 1e-3..1e-2:log.")
        if ends[0] >= ends[1] or (log and ends[0] <= 0):
            raise ValueError(f"{self.text!r}: the first end must be below the second{', and above 0' if log else ''}.")
        if trial is None:
            return ends
        whole = all(isinstance(end, int) for end in ends)
        return (trial.suggest_int if whole else trial.suggest_float)(name, *ends, log=bool(log))


NET = {"lr": "1e-3..2e-2:log", "dropout": "0.0..0.5", "dim": "32|64|128", "hidden": "32|64|128"}
SPACES = {
    "trees": {
        "num_leaves": "15..127:log",
        "min_data_in_leaf": "10..200:log",
        "learning_rate": "0.02..0.1:log",
        "feature_fraction": "0.4..1.0",
        "lambda_l2": "0.1..30.0:log",
    },
    "lightgcn": {"dim": "16|32|64", "layers": "1..4", "lr": "0.01..0.1:log", "pull": "1e-4..1e-1:log"},
    "elo": {"weight": "0.2..1.5"},
}


def space_of(name: str) -> dict[str, Choice]:
    """What is tried of a model if nobody says: the settings of its own that matter most."""
    plain = name.removesuffix("+features").removesuffix("-r")
    if plain in SEQUENCE:
        taken = {*inspect.signature(NETS[SEQUENCE[plain].net]).parameters, "lr"}
        return {key: Choice(text) for key, text in NET.items() if key in taken}
    if name not in SPACES:
        raise ValueError(f"nothing is known to be worth trying of {name}; say what: --try NAME=1|2|3 or NAME=0.1..0.5.")
    return {key: Choice(text) for key, text in SPACES[name].items()}


@dataclass(frozen=True)
class Trial:
    number: int
    settings: dict[str, Any]
    auc: float
    seconds: float


def tune(
    make: Callable[..., Model],
    space: Mapping[str, Choice],
    train: Answers,
    valid: Answers,
    trials: int,
    seed: int = 0,
    told: Callable[[Trial], None] = lambda trial: None,
    storage: str | None = None,
    study: str = "dkt",
) -> Trial:
    """The trial with the best AUC of the validation rows that the model's protocol scores.

    `make(**settings)` gives the model to fit. With `storage` ("sqlite:///tune.db") the trials are kept, and a second
    call of the same `study` on the same answers goes on from them.
    """
    optuna = _optuna()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    name = f"{study} {_fingerprint(train, valid)}"
    search = optuna.create_study(direction="maximize", storage=storage, study_name=name, load_if_exists=True)
    search.sampler = optuna.samplers.TPESampler(seed=seed + len(search.trials))  # not the trials that are kept again

    def objective(trial: Any) -> float:
        settings = {name: choice.suggest(trial, name) for name, choice in space.items()}
        since = time.process_time()
        model = make(**settings).fit(train, valid)
        scored = protocol_named(model.protocol).scored(valid) & (valid.answer != TO_PREDICT)
        value = auc(valid.answer[scored].astype(bool), model.predict(valid)[scored])
        if value is None:
            raise ValueError("the validation answers are all the same, so no AUC can choose settings.")
        told(Trial(trial.number, settings, value, time.process_time() - since))
        return value

    search.optimize(objective, n_trials=trials)
    best = search.best_trial
    return Trial(best.number, dict(best.params), float(best.value), best.duration.total_seconds())


def _fingerprint(*parts: Answers) -> str:
    """Tells answers apart: AUCs of other data cannot be compared."""
    found = hashlib.sha256()
    for part in parts:
        for column in (part.offsets, part.answer, part.skill, part.skill_offsets, part.question, part.time):
            found.update(b"" if column is None else np.ascontiguousarray(column).tobytes())
    return found.hexdigest()[:12]


def _value(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text, text)


def _optuna() -> Any:
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("dkt tune needs optuna: pip install 'fulgurite[tune]'", name="optuna") from error
    return optuna
