"""dkt train: a model on a file of answers, or on a simulated school, scored between baselines and optimum."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import fulgurite as pl
from dkt.clock import TrainingClock
from dkt.commands.evaluate import load_task
from dkt.commands.shared import (
    FORMATS_HELP,
    PROTOCOLS_HELP,
    Report,
    add_format,
    add_threads,
    empty_report,
    figures_of,
    positive,
    read,
    report_rows,
    score_rows,
)
from dkt.data import simulate as school
from dkt.data.batches import sequence_loader
from dkt.data.protocols import PROTOCOLS
from dkt.data.splits import split_students
from dkt.data.table import Answers, DataError
from dkt.evaluate import Floats, Score, baselines
from dkt.inference import CELLS_TO_SCORE, predict_rows
from dkt.models.dkt import CELLS
from dkt.task import DktTask
from fulgurite.callbacks import EarlyStopping, ModelCheckpoint
from fulgurite.loggers import CSVLogger

EPILOG = FORMATS_HELP


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("data", nargs="?", type=Path, help="file of answers to train on; left out: a simulated school")
    command.add_argument(
        "--valid", type=Path, metavar="FILE", help="answers that choose the best epoch; left out: 15%% of the students"
    )
    command.add_argument(
        "--test", type=Path, metavar="FILE", help="answers that the best model is scored on at the end"
    )
    add_format(command)
    command.add_argument("--protocol", choices=PROTOCOLS, default="akt", help=PROTOCOLS_HELP)
    command.add_argument(
        "--no-rasch", dest="rasch", action="store_false", help="leave out the scalar of each question (plain DKT)"
    )
    command.add_argument("--features", action="store_true", help="also feed the causal features (the hybrid)")
    command.add_argument("--cell", choices=CELLS, default="lstm", help="recurrent cell")
    command.add_argument("--dim", type=positive, default=64, help="width of the embeddings")
    command.add_argument("--hidden", type=positive, default=64, help="width of the recurrent state")
    command.add_argument("--dropout", type=float, default=0.2, help="share of the state dropped in training")
    command.add_argument("--lr", type=float, default=6e-3, help="learning rate of Adam")
    command.add_argument("--cells", type=positive, default=3200, help="size of a batch: sequences x longest of them")
    command.add_argument(
        "--epochs",
        type=positive,
        default=8,
        help="passes over the training answers, during which the rate falls to 2%%",
    )
    command.add_argument(
        "--patience", type=positive, default=3, help="stop after so many epochs without a better validation AUC"
    )
    command.add_argument("--seed", type=int, default=0, help="the same seed gives the same weights")
    command.add_argument(
        "--out", type=Path, default=Path("runs"), metavar="DIR", help="logs and checkpoints go to DIR/dkt/version_N"
    )
    command.add_argument("--resume", type=Path, metavar="CKPT", help="continue the run that wrote this checkpoint")
    add_threads(command)


def run(arguments: argparse.Namespace) -> Report:
    torch.set_num_threads(arguments.threads)
    train, valid, test = _parts(arguments)
    if valid.answer.min() == valid.answer.max():
        raise DataError("the validation answers are all the same, so no AUC can choose an epoch; take other students.")
    pl.seed_everything(arguments.seed, verbose=False)
    task = DktTask.for_training(
        train,
        rasch=arguments.rasch,
        dim=arguments.dim,
        hidden=arguments.hidden,
        dropout=arguments.dropout,
        cell=arguments.cell,
        lr=arguments.lr,
        features=arguments.features,
        protocol=arguments.protocol,
    )
    if arguments.resume:
        _check_same_run(arguments.resume, task)
    clock = TrainingClock()
    best = ModelCheckpoint(monitor="valid_auc", mode="max", filename="best", save_last=True)  # last: for --resume
    trainer = pl.Trainer(
        max_epochs=arguments.epochs,
        callbacks=[clock, best, EarlyStopping(monitor="valid_auc", mode="max", patience=arguments.patience)],
        logger=CSVLogger(arguments.out, name="dkt"),
        devices=1,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        enable_model_summary=False,
    )
    trainer.fit(
        task,
        sequence_loader(task.training_sequences(train), arguments.cells, shuffle=True),
        sequence_loader(task.sequences(valid), CELLS_TO_SCORE),
        ckpt_path=arguments.resume,
    )
    task = DktTask.load_from_checkpoint(best.best_model_path)
    results = empty_report()
    for name, answers in (("valid", valid), ("test", test)):
        if answers is not None:
            results[name], results[f"{name}_baselines"] = _compare(task, train, answers, name)
    results["epochs"] = clock.epochs
    results["train_interactions"] = clock.interactions
    results["train_cpu_seconds"] = round(clock.cpu_seconds, 3)
    results["seed"] = arguments.seed
    results["checkpoint"] = best.best_model_path
    speed = clock.interactions / max(clock.cpu_seconds, 1e-9)
    print(
        f"\n{clock.epochs} epochs: {clock.interactions:,} answers in {clock.cpu_seconds:.1f} CPU seconds of training, "
        f"{speed:,.0f} a second"
    )
    print(f"best model: {best.best_model_path}")
    return results


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
    data = read(arguments.data, arguments.format).answered()
    held_out = read(arguments.test, arguments.format).answered() if arguments.test else None
    if arguments.valid:
        return data, read(arguments.valid, arguments.format).answered(), held_out
    train, valid = split_students(data, (0.85, 0.15))
    print(f"validation: {valid.n_students:,} of the {data.n_students:,} students (name a file with --valid to choose)")
    return train, valid, held_out


def _check_same_run(checkpoint: Path, task: DktTask) -> None:
    """Raise if a checkpoint cannot be continued with this task."""
    saved = load_task(checkpoint)
    if saved.vocabulary != task.vocabulary:
        raise DataError(
            f"{checkpoint} was trained on other skills or questions than this data has; it cannot go on here."
        )
    other = [f"{name}={value}" for name, value in saved.hparams.items() if task.hparams[name] != value]
    if other:
        raise DataError(f"{checkpoint} was trained with {', '.join(other)}; give the same settings to continue it.")


def _compare(task: DktTask, train: Answers, answers: Answers, name: str) -> tuple[Report, dict[str, Report]]:
    """Print the model's figures between those that need no model and those that nobody can beat."""
    predictions: dict[str, Floats] = baselines(train, answers)
    model = "DKT-R" if task.vocabulary.questions else "DKT"
    predictions[model] = predict_rows(task, answers)
    if school.TRUTH in answers.extra:
        predictions["optimum (the truth)"] = answers.extra[school.TRUTH]
    scores = {label: score_rows(answers, probability, task.protocol) for label, probability in predictions.items()}
    found = report_rows(answers, predictions[model], task.protocol)
    print(f"\n{name}: {answers.n_students:,} students, protocol {task.protocol}\n{_table(scores)}\n{model}:\n{found}")
    return figures_of(found), {label: figures.as_dict() for label, figures in scores.items() if label != model}


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
