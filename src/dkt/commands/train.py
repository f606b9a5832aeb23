"""dkt train: a model on a file of answers, or on a simulated school, scored between baselines and optimum."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

import fulgurite as pl
from dkt.clock import TrainingClock
from dkt.commands.models import MODELS_HELP, add_fitting_arguments, check_settings, model_of
from dkt.commands.shared import (
    FORMATS_HELP,
    Report,
    empty_report,
    figures_of,
    read_parts,
    report_rows,
    score_rows,
)
from dkt.data import simulate as school
from dkt.data.protocols import protocol_named
from dkt.data.splits import split_students
from dkt.data.table import Answers, DataError
from dkt.evaluate import Floats, Score, baselines
from dkt.models.base import Model
from dkt.models.catalogue import load_model
from dkt.models.lightgcn import LightGCN
from dkt.models.sequence import SequenceModel
from dkt.task import DktTask
from fulgurite.callbacks import EarlyStopping, ModelCheckpoint
from fulgurite.loggers import CSVLogger

EPILOG = f"""\
  dkt train train.csv --model akt-r --set dim=128 --windows 50:25
  dkt train train.csv --model trees --set num_leaves=63          trees, classic models and stacks (trees,dkt-r) alike
  python -m dkt.lightning fit --help                             every flag of the Trainer, callbacks, loggers

{FORMATS_HELP}"""
DEFAULT = "its default"  # of a setting that was not given


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("data", nargs="?", type=Path, help="file of answers to train on; left out: a simulated school")
    command.add_argument(
        "--valid", type=Path, metavar="FILE", help="answers that choose the best epoch; left out: 15%% of the students"
    )
    command.add_argument(
        "--test", type=Path, metavar="FILE", help="answers that the best model is scored on at the end"
    )
    command.add_argument("--model", default="dkt-r", metavar="MODEL", help=MODELS_HELP)
    add_fitting_arguments(command)
    command.add_argument(
        "--out", type=Path, default=Path("runs"), metavar="DIR", help="the model and its log go to DIR/dkt/version_N"
    )
    command.add_argument(
        "--resume", type=Path, metavar="CKPT", help="continue the run of a net that wrote this file, in its folder"
    )


def run(arguments: argparse.Namespace) -> Report:
    torch.set_num_threads(arguments.threads)
    check_settings([arguments.model], arguments)
    model = model_of(arguments.model, arguments)
    train, valid, test = _parts(arguments)
    if valid.answer.min() == valid.answer.max():
        raise DataError("the validation answers are all the same, so no AUC can choose an epoch; take other students.")
    for answers in (valid, test):
        if answers is not None:
            protocol_named(arguments.protocol).scored(answers)  # what it lacks is said before the work
    if isinstance(model, SequenceModel):
        model, cost = _train_net(model, train, valid, arguments)
    elif arguments.resume:
        raise ValueError(f"--resume continues the training of a sequence net; {arguments.model} is fitted at once.")
    else:
        model, cost = _fit(model, train, valid, arguments)
    results = empty_report()
    for name, answers in (("valid", valid), ("test", test)):
        if answers is not None:
            results[name], results[f"{name}_baselines"] = _compare(model, train, answers, name)
    print(f"\n{cost.pop('text')}\nbest model: {cost['checkpoint']}")
    return {**results, **cost, "seed": arguments.seed, "model": arguments.model}


def _train_net(
    model: SequenceModel, train: Answers, valid: Answers, arguments: argparse.Namespace
) -> tuple[Model, Report]:
    """The net of the best epoch and what it cost; every epoch is logged, and an interrupted run can go on."""
    task = model.new_task(train)
    if arguments.resume:
        _check_same_run(arguments.resume, task)
    learn, choose = model.loaders(task, train, valid)
    epochs, patience = model.schedule(learn)
    clock = TrainingClock()
    logger = CSVLogger(arguments.out, name="dkt")
    logger.take_version()  # its folder is named below, and another run may begin now
    folder = arguments.resume.parent if arguments.resume else Path(logger.log_dir, "checkpoints")
    best = ModelCheckpoint(folder, "best", monitor="valid_auc", mode="max")
    last = ModelCheckpoint(folder, "last", enable_version_counter=False)  # for --resume; it knows what best has saved
    trainer = pl.Trainer(
        max_epochs=epochs,
        callbacks=[clock, EarlyStopping(monitor="valid_auc", mode="max", patience=patience), best, last],
        logger=logger,
        devices=1,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        enable_model_summary=False,
    )
    trainer.fit(task, learn, choose, ckpt_path=arguments.resume)
    speed = clock.interactions / max(clock.cpu_seconds, 1e-9)
    return load_model(best.best_model_path), {
        "epochs": clock.epochs,
        "train_interactions": clock.interactions,
        "train_cpu_seconds": round(clock.cpu_seconds, 3),
        "checkpoint": best.best_model_path,
        "text": f"{clock.epochs} epochs: {clock.interactions:,} answers in {clock.cpu_seconds:.1f} CPU seconds of "
        f"training, {speed:,.0f} a second",
    }


def _fit(model: Model, train: Answers, valid: Answers, arguments: argparse.Namespace) -> tuple[Model, Report]:
    """The fitted model, saved, and what it cost."""
    since = time.process_time()
    if isinstance(model, LightGCN):
        model.progress = True
    model.fit(train, valid)
    seconds = time.process_time() - since
    path = Path(CSVLogger(arguments.out, name="dkt").log_dir) / "model.pt"
    model.save(path)
    return model, {
        "train_interactions": len(train),
        "train_cpu_seconds": round(seconds, 3),
        "checkpoint": str(path),
        "text": f"fitted to {len(train):,} answers in {seconds:.1f} CPU seconds",
    }


def _parts(arguments: argparse.Namespace) -> tuple[Answers, Answers, Answers | None]:
    """Training, validation and test answers: the files named, or parts of the students where none is named."""
    if arguments.data is None:
        if arguments.valid or arguments.test:
            raise ValueError(
                "--valid and --test need DATA; without DATA the simulated school is split into its own parts."
            )
        answers, _ = school.simulate()
        print(f"a simulated school: {answers.n_students:,} students, {len(answers):,} answers")
        train, valid, test = split_students(answers, (0.7, 0.15, 0.15))
        return train, valid, test
    named = [path for path in (arguments.data, arguments.valid, arguments.test) if path]
    train, *held_out = read_parts(named, arguments)
    if arguments.valid:
        valid = held_out.pop(0)
    else:
        students = train.n_students
        train, valid = split_students(train, (0.85, 0.15))
        print(f"validation: {valid.n_students:,} of the {students:,} students (name a file with --valid to choose)")
    return train, valid, held_out[0] if held_out else None


def _check_same_run(checkpoint: Path, task: DktTask) -> None:
    """Raise if a checkpoint cannot be continued with this task."""
    model = load_model(checkpoint)
    if not isinstance(model, SequenceModel) or "loops" not in torch.load(checkpoint, weights_only=True):
        raise DataError(f"{checkpoint} holds {model.title}, whose training cannot go on; name a last.ckpt of a net.")
    saved = model.task
    if saved.vocabulary != task.vocabulary:
        raise DataError(
            f"{checkpoint} was trained on other skills or questions than this data has; it cannot go on here."
        )
    names = {**saved.hparams, **task.hparams}
    values = [(name, saved.hparams.get(name, DEFAULT), task.hparams.get(name, DEFAULT)) for name in names]
    other = [f"{name}={value}" for name, value, now in values if value != now]
    if other:
        raise DataError(f"{checkpoint} was trained with {', '.join(other)}; give the same settings to continue it.")


def _compare(model: Model, train: Answers, answers: Answers, name: str) -> tuple[Report, dict[str, Report]]:
    """Print the model's figures between those that need no model and those that nobody can beat."""
    predictions: dict[str, Floats] = baselines(train, answers)
    title = model.title if train.question is not None else model.title.replace("-R", "")
    predictions[title] = model.predict(answers)
    if school.TRUTH in answers.extra:
        predictions["optimum (the truth)"] = answers.extra[school.TRUTH]
    scores = {label: score_rows(answers, probability, model.protocol) for label, probability in predictions.items()}
    found = report_rows(answers, predictions[title], model.protocol)
    print(f"\n{name}: {answers.n_students:,} students, protocol {model.protocol}\n{_table(scores)}\n{title}:\n{found}")
    return figures_of(found), {label: figures.as_dict() for label, figures in scores.items() if label != title}


def _table(scores: dict[str, Score]) -> str:
    """Scores one below the other, all rows and leak-free rows side by side."""
    lines = [f"{'':<22}{'AUC':>8}{'leak-free':>11}{'accuracy':>10}{'leak-free':>11}{'log loss':>10}{'leak-free':>11}"]
    for label, s in scores.items():
        values = (s.auc, s.auc_leakfree, s.accuracy, s.accuracy_leakfree, s.log_loss, s.log_loss_leakfree)
        cells = ["-" if value is None else f"{value:.4f}" for value in values]
        lines.append(
            f"{label:<22}"
            + "".join(f"{cell:>{width}}" for cell, width in zip(cells, (8, 11, 10, 11, 10, 11), strict=True))
        )
    any_score = next(iter(scores.values()))
    free = "no question ids" if any_score.n_leakfree is None else f"{any_score.n_leakfree:,} leak-free"
    return "\n".join([*lines, f"rows: {any_score.n:,} ({free})"])
