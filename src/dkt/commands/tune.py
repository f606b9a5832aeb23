"""dkt tune: search the settings of a model, scored on validation students."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import yaml

from dkt.commands.models import MODELS_HELP, OF_NETS, add_fitting_arguments, check_settings, model_of
from dkt.commands.shared import (
    FORMATS_HELP,
    Report,
    empty_report,
    positive,
    read_parts,
)
from dkt.data.splits import split_students
from dkt.tuning import Choice, Trial, space_of, tune

EPILOG = f"""\
  dkt tune dkt-r --data train.csv --trials 20 --out best.yaml && dkt train train.csv --config best.yaml
  dkt tune akt-r --data train.csv --try dim=32|64 --try lr=1e-3..1e-2:log --try dropout=0.0..0.3

{FORMATS_HELP}"""


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", metavar="MODEL", help=MODELS_HELP)
    command.add_argument("--data", type=Path, metavar="FILE", required=True, help="answers to learn from")
    command.add_argument("--valid", type=Path, metavar="FILE", help="answers that choose; left out: 15%% of students")
    command.add_argument("--trials", type=positive, default=20, help="settings to try")
    command.add_argument(
        "--try",
        type=_choice,
        action="append",
        default=[],
        dest="space",
        metavar="NAME=VALUES",
        help="what to try of a setting: dim=32|64, lr=1e-3..1e-2:log; left out: what matters most for this model",
    )
    command.add_argument("--out", type=Path, metavar="FILE", help="write the best settings: dkt train --config FILE")
    command.add_argument(
        "--storage",
        metavar="URL",
        help="keep the trials, and go on from those of the same model, protocol and answers: sqlite:///tune.db",
    )
    add_fitting_arguments(command)


def run(arguments: argparse.Namespace) -> Report:
    torch.set_num_threads(arguments.threads)
    check_settings([arguments.model], arguments, dict(arguments.space))
    space = dict(arguments.space) or space_of(arguments.model)
    if arguments.valid:
        train, valid = read_parts([arguments.data, arguments.valid], arguments)
    else:
        (answers,) = read_parts([arguments.data], arguments)
        train, valid = split_students(answers, (0.85, 0.15), arguments.seed)
    trials: list[Trial] = []

    def told(trial: Trial) -> None:
        trials.append(trial)
        best = "  best so far" if trial.auc == max(t.auc for t in trials) else ""
        print(
            f"trial {trial.number}: valid AUC {trial.auc:.4f}  {trial.seconds:.1f} CPU s  {_shown(trial)}{best}",
            flush=True,
        )

    best = tune(
        lambda **settings: model_of(arguments.model, arguments, **settings),
        space,
        train,
        valid,
        arguments.trials,
        arguments.seed,
        told,
        arguments.storage,
        f"{arguments.model} {arguments.protocol}",
    )
    print(f"best of validation: {best.auc:.4f} with {_shown(best)} (trial {best.number})")
    chosen = {**dict(arguments.set), **best.settings}
    if arguments.out:
        found = {"model": arguments.model, "protocol": arguments.protocol, "seed": arguments.seed, "set": chosen}
        given = {key: getattr(arguments, key) for key in (*OF_NETS, "format", "merge", "drop_twins")}
        found |= {key: value for key, value in given.items() if value not in (None, False)}
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(yaml.safe_dump(found, sort_keys=False), encoding="utf-8")
        print(f"{arguments.out}: dkt train --config {arguments.out}")
    tried = [{"settings": t.settings, "auc": t.auc, "cpu_seconds": round(t.seconds, 3)} for t in trials]
    return {**empty_report(), "seed": arguments.seed, "best": {"auc": best.auc, "settings": chosen}, "trials": tried}


def _choice(text: str) -> tuple[str, Choice]:
    name, equals, values = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUES")
    try:
        return name, Choice(values)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _shown(trial: Trial) -> str:
    return " ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in trial.settings.items())
