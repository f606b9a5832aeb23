"""The command line: simulate a school, train on any file of answers, evaluate, predict."""

from __future__ import annotations

import argparse
import json
import pickle
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

import fulgurite as pl
from dkt.clock import TrainingClock
from dkt.compare import against_best, compare, plot, table
from dkt.data import simulate as school
from dkt.data.batches import sequence_loader
from dkt.data.describe import describe
from dkt.data.merge import merge_repeats
from dkt.data.protocols import PROTOCOLS, protocol_named
from dkt.data.read import FORMATS, read_answers
from dkt.data.splits import split_students
from dkt.data.table import Answers, DataError
from dkt.evaluate import Floats, Score, baselines, report, score
from dkt.inference import CELLS_TO_SCORE, predict_asked, predict_rows
from dkt.models.base import Model
from dkt.models.catalogue import NAMES as CATALOGUE
from dkt.models.catalogue import model_named
from dkt.models.dkt import CELLS
from dkt.task import DktTask
from fulgurite.callbacks import EarlyStopping, ModelCheckpoint
from fulgurite.loggers import CSVLogger

Report = dict[str, Any]

DESCRIPTION = """\
Deep knowledge tracing: from the answers a student gave, the probability that the next one is right.

  dkt train                                       train on a simulated school, score it, and show what is possible
  dkt simulate school/                            write such a school as the course's train_data.csv and test_data.csv
  dkt train school/train_data.csv                 train on a file; a part of its students is kept for validation
  dkt evaluate runs/dkt/version_0/checkpoints/best.ckpt other.csv
  dkt predict CKPT school/test_data.csv -o submission.csv
  dkt compare trees dkt-r akt-r --data school/train_data.csv     one table of models on the same rows
  dkt cv trees --data school/train_data.csv --folds 5            every student predicted by a model of the others
  dkt data describe school/train_data.csv                        what is there, and what would leak
"""

FORMATS_HELP = """\
files of answers (the format is found from the first lines, or given by --format):
  course   CSV with userID,assessmentItemID,testId,answerCode,Timestamp,KnowledgeTag; answerCode is 0, 1, or -1 where it
           is to be predicted; several skills of one question stand in one cell: 12;45
  3line    records of three lines: number of answers (or index,student) / skills / answers
  4line    records of four lines: index,student / problems / skills / answers

leak-free figures leave out the rows that ask the same question as the row before: files that write a problem of two
skills as two rows repeat its answer there, and copying it is no knowledge. They are "-" without question ids.
"""


PROTOCOLS_HELP = "; ".join(f"{name}: {protocol.text}" for name, protocol in PROTOCOLS.items())


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 2, with one line on stderr, when the input is at fault."""
    argv = sys.argv[1:] if argv is None else list(argv)
    arguments = _parser().parse_args(argv)
    try:
        if arguments.json:
            arguments.json.parent.mkdir(parents=True, exist_ok=True)
        results = arguments.run(arguments)
        if arguments.json:
            results["command"] = shlex.join(["dkt", *argv])
            arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    except (ValueError, OSError) as error:
        print(f"dkt {arguments.command}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"dkt {arguments.command}: interrupted", file=sys.stderr)
        return 130
    return 0


def run_simulate(arguments: argparse.Namespace) -> Report:
    answers, truth = school.simulate(
        students=arguments.students,
        questions=arguments.questions,
        skills=arguments.skills,
        concepts=arguments.concepts,
        answers_per_student=arguments.answers,
        seed=arguments.seed,
    )
    paths = school.write_school(answers, truth, arguments.directory)
    optimum = _score(answers, answers.extra[school.TRUTH])
    print(f"{answers.n_students:,} students, {len(answers):,} answers, {answers.answer.mean():.1%} right")
    print(f"written: {', '.join(str(path) for path in paths.values())}; the truth beside each, and concepts.csv")
    print(f"optimum (the true probabilities): {optimum}")
    return {**_empty_report(), "test": optimum.as_dict(), "seed": arguments.seed}


def run_train(arguments: argparse.Namespace) -> Report:
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
    results = _empty_report()
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


def run_evaluate(arguments: argparse.Namespace) -> Report:
    torch.set_num_threads(arguments.threads)
    task = _load(arguments.checkpoint)
    answers = _read(arguments.data, arguments.format).answered()
    if not len(answers):
        raise DataError(f"{arguments.data} has no known answers to compare predictions with; use `dkt predict`.")
    figures = _score(answers, predict_rows(task, answers))
    print(f"{arguments.data}: {answers.n_students:,} students, protocol {task.protocol}\n{figures}")
    return {**_empty_report(), "test": figures.as_dict()}


def run_predict(arguments: argparse.Namespace) -> Report:
    torch.set_num_threads(arguments.threads)
    task = _load(arguments.checkpoint)
    answers = _read(arguments.data, arguments.format)
    probability = predict_asked(task, answers)
    lines = ["id,prediction", *(f"{i},{p!r}" for i, p in enumerate(probability.astype(float).tolist()))]
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{arguments.output}: {len(probability):,} predictions, one a student in ascending order of id")
    return {**_empty_report(), "predictions": len(probability), "output": str(arguments.output)}


def run_compare(arguments: argparse.Namespace) -> Report:
    """Models on one split, or on the folds of files whose names hold {fold}."""
    torch.set_num_threads(arguments.threads)
    parts = _folds(arguments)
    lines = compare(arguments.models, lambda name: _model(name, arguments), parts, arguments.protocol, arguments.seed)
    difference = against_best(lines, parts[0][2], arguments.protocol)
    print(f"protocol {arguments.protocol}, {len(parts)} test set{'s' * (len(parts) > 1)}\n{table(lines, difference)}")
    if arguments.plot:
        plot(lines, arguments.plot)
        print(f"plot: {arguments.plot}")
    figures = {line.name: [r.as_dict() for r in line.reports] for line in lines}
    return {**_empty_report(), "models": figures, "difference": difference, "seed": arguments.seed}


def run_cv(arguments: argparse.Namespace) -> Report:
    torch.set_num_threads(arguments.threads)
    answers = _read_merged(arguments.data, arguments)
    found = _model(arguments.model, arguments).cross_validate(answers, arguments.folds)
    for fold, result in enumerate(found.reports, start=1):
        print(f"fold {fold} ({found.cpu_seconds[fold - 1]:.1f} CPU s): {result.score}")
    whole = report(answers, found.out_of_fold, protocol_named(arguments.protocol), arguments.seed)
    print(f"all students, each by a model of the others:\n{whole}")
    if arguments.oof:
        lines = ["student,row,answer,prediction"]
        names, nth = answers.student_names, np.arange(len(answers)) - np.repeat(answers.offsets[:-1], answers.lengths)
        for s, i, a, p in zip(answers.student, nth, answers.answer, found.out_of_fold, strict=True):
            lines.append(f"{names[s]},{i},{a},{float(p)!r}")
        arguments.oof.write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(f"out-of-fold predictions: {arguments.oof}")
    return {**_empty_report(), "test": whole.as_dict(), "folds": [r.as_dict() for r in found.reports]}


def run_data(arguments: argparse.Namespace) -> Report:
    answers = _read(arguments.data, arguments.format)
    found = describe(answers, _read(arguments.test, arguments.format) if arguments.test else None)
    for name, value in found.items():
        if name != "leaks":
            print(f"{name:<24}{value:,}" if isinstance(value, int) else f"{name:<24}{value}")
    leaks = cast(list[str], found["leaks"])
    print("\n".join(f"leak: {leak}" for leak in leaks) or "no leak found")
    return {**_empty_report(), "data": found}


def _model(name: str, arguments: argparse.Namespace) -> Model:
    return model_named(name, arguments.epochs, protocol=arguments.protocol, seed=arguments.seed)


def _folds(arguments: argparse.Namespace) -> list[tuple[Answers, Answers, Answers]]:
    """The parts to compare on: files named with {fold}, single files, or 70/15/15 of the students of one file."""
    if arguments.data is None:
        raise ValueError("name the answers with --data FILE; `dkt simulate DIR` writes some.")
    if arguments.test is None:
        train, valid, test = split_students(_read_merged(arguments.data, arguments), (0.7, 0.15, 0.15), arguments.seed)
        return [(train, valid, test)]
    if arguments.valid is None:
        raise ValueError("--test needs --valid: what chooses the epoch may not be what is scored.")
    paths = (arguments.data, arguments.valid, arguments.test)
    numbers = range(1, arguments.folds + 1) if any("{fold}" in str(path) for path in paths) else [1]
    parts = []
    for k in numbers:
        train, valid, test = (_read_merged(Path(str(path).replace("{fold}", str(k))), arguments) for path in paths)
        parts.append((train, valid, test))
    return parts


def _read_merged(path: Path, arguments: argparse.Namespace) -> Answers:
    answers = _read(path, arguments.format).answered()
    if not arguments.merge:
        return answers
    merged = merge_repeats(answers)
    print(f"{path}: {merged}")
    return merged.answers


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
    data = _read(arguments.data, arguments.format).answered()
    held_out = _read(arguments.test, arguments.format).answered() if arguments.test else None
    if arguments.valid:
        return data, _read(arguments.valid, arguments.format).answered(), held_out
    train, valid = split_students(data, (0.85, 0.15))
    print(f"validation: {valid.n_students:,} of the {data.n_students:,} students (name a file with --valid to choose)")
    return train, valid, held_out


def _read(path: Path, format: str | None) -> Answers:
    answers = read_answers(path, format)
    truth = school.truth_path(path)
    return school.with_truth(answers, truth) if truth.exists() else answers


def _load(checkpoint: Path) -> DktTask:
    try:
        return DktTask.load_from_checkpoint(checkpoint, map_location="cpu")
    except (RuntimeError, TypeError, KeyError, pickle.UnpicklingError) as error:  # damaged, or of another model
        raise DataError(f"{checkpoint} is not a checkpoint of dkt: {' '.join(str(error).split())}") from error


def _check_same_run(checkpoint: Path, task: DktTask) -> None:
    """Raise if a checkpoint cannot be continued with this task."""
    saved = _load(checkpoint)
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
    scores = {label: _score(answers, probability) for label, probability in predictions.items()}
    print(f"\n{name}: {answers.n_students:,} students, protocol {task.protocol}\n{_table(scores)}")
    return scores.pop(model).as_dict(), {label: figures.as_dict() for label, figures in scores.items()}


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


def _score(answers: Answers, probability: Floats) -> Score:
    return score(answers.answer, probability, answers.leak_free)


def _empty_report() -> Report:
    return {
        "test": None,
        "valid": None,
        "epochs": None,
        "train_interactions": None,
        "train_cpu_seconds": None,
        "seed": None,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "dkt", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, run, text in (
        ("simulate", run_simulate, "write a simulated school as the course's CSV files"),
        ("train", run_train, "train DKT and score it; without DATA on a simulated school"),
        ("evaluate", run_evaluate, "score a checkpoint on a file of answers"),
        ("predict", run_predict, "predict the rows whose answerCode is -1, as a submission"),
        ("compare", run_compare, "fit several models on the same rows and print one table"),
        ("cv", run_cv, "cross-validate a model by student, with out-of-fold predictions"),
        ("data", run_data, "describe a file of answers and the leaks in it"),
    ):
        command = commands.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            epilog=None if name == "simulate" else FORMATS_HELP,
            formatter_class=_HelpFormatter,
        )
        command.set_defaults(run=run)
        ADD_ARGUMENTS[name](command)
        command.add_argument("--json", type=Path, metavar="FILE", help="also write the results to FILE")
    return parser


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows the defaults that say something: not None, and not that a switch is off."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None or action.nargs == 0 else super()._get_help_string(action)


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _simulate_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "directory", type=Path, help="where to write train_data.csv, test_data.csv, *_truth.csv and concepts.csv"
    )
    command.add_argument("--students", type=int, default=3000, help="number of students; every tenth is a test student")
    command.add_argument("--questions", type=int, default=400, help="size of the question bank")
    command.add_argument("--skills", type=int, default=40, help="tags that the file shows")
    command.add_argument("--concepts", type=int, default=8, help="hidden concepts behind the tags")
    command.add_argument("--answers", type=int, default=80, metavar="N", help="mean number of answers of a student")
    command.add_argument("--seed", type=int, default=0, help="the same seed writes the same school")


def _train_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("data", nargs="?", type=Path, help="file of answers to train on; left out: a simulated school")
    command.add_argument(
        "--valid", type=Path, metavar="FILE", help="answers that choose the best epoch; left out: 15%% of the students"
    )
    command.add_argument(
        "--test", type=Path, metavar="FILE", help="answers that the best model is scored on at the end"
    )
    _format_argument(command)
    command.add_argument("--protocol", choices=PROTOCOLS, default="akt", help=PROTOCOLS_HELP)
    command.add_argument(
        "--no-rasch", dest="rasch", action="store_false", help="leave out the scalar of each question (plain DKT)"
    )
    command.add_argument("--features", action="store_true", help="also feed the causal features (the hybrid)")
    command.add_argument("--cell", choices=CELLS, default="lstm", help="recurrent cell")
    command.add_argument("--dim", type=_positive, default=64, help="width of the embeddings")
    command.add_argument("--hidden", type=_positive, default=64, help="width of the recurrent state")
    command.add_argument("--dropout", type=float, default=0.2, help="share of the state dropped in training")
    command.add_argument("--lr", type=float, default=6e-3, help="learning rate of Adam")
    command.add_argument("--cells", type=_positive, default=3200, help="size of a batch: sequences x longest of them")
    command.add_argument(
        "--epochs",
        type=_positive,
        default=8,
        help="passes over the training answers, during which the rate falls to 2%%",
    )
    command.add_argument(
        "--patience", type=_positive, default=3, help="stop after so many epochs without a better validation AUC"
    )
    command.add_argument("--seed", type=int, default=0, help="the same seed gives the same weights")
    command.add_argument(
        "--out", type=Path, default=Path("runs"), metavar="DIR", help="logs and checkpoints go to DIR/dkt/version_N"
    )
    command.add_argument("--resume", type=Path, metavar="CKPT", help="continue the run that wrote this checkpoint")
    _threads_argument(command)


def _evaluate_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("checkpoint", type=Path, help="what dkt train wrote")
    command.add_argument("data", type=Path, help="file of answers; rows with answerCode -1 are left out")
    _format_argument(command)
    _threads_argument(command)


def _predict_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("checkpoint", type=Path, help="what dkt train wrote")
    command.add_argument("data", type=Path, help="file of answers, with one row of answerCode -1 for each student")
    command.add_argument(
        "-o", "--output", type=Path, default=Path("submission.csv"), help="CSV with the header id,prediction"
    )
    _format_argument(command)
    _threads_argument(command)


def _models_arguments(command: argparse.ArgumentParser) -> None:
    """What compare and cv share."""
    command.add_argument("--protocol", choices=PROTOCOLS, default="akt", help=PROTOCOLS_HELP)
    command.add_argument("--merge", action="store_true", help="merge rows that repeat a question once per skill")
    command.add_argument("--epochs", type=_positive, help="epochs of nets; left out: their own default")
    command.add_argument("--folds", type=_positive, default=5, help="number of folds")
    command.add_argument("--seed", type=int, default=0, help="the same seed gives the same figures")
    _format_argument(command)
    _threads_argument(command)


def _compare_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help=f"{', '.join(CATALOGUE)}; nets also as NAME-r, NAME+features, NAME-r+features",
    )
    command.add_argument("--data", type=Path, metavar="FILE", help="answers to learn from; {fold} stands for 1..folds")
    command.add_argument("--valid", type=Path, metavar="FILE", help="answers that choose when to stop")
    command.add_argument("--test", type=Path, metavar="FILE", help="answers to score; left out: 15%% of the students")
    command.add_argument("--plot", type=Path, metavar="FILE", help="also draw both AUCs of each model")
    _models_arguments(command)


def _cv_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", metavar="MODEL", help=f"{', '.join(CATALOGUE)}; nets also as NAME-r")
    command.add_argument("--data", type=Path, metavar="FILE", required=True, help="answers of all students")
    command.add_argument("--oof", type=Path, metavar="FILE", help="write every row's out-of-fold prediction")
    _models_arguments(command)


def _data_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("what", choices=["describe"], help="what to do")
    command.add_argument("data", type=Path, help="file of answers")
    command.add_argument("--test", type=Path, metavar="FILE", help="a second part, which should share no student")
    _format_argument(command)


def _format_argument(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--format", choices=FORMATS, help="format of the files, if it should not be found from their first lines"
    )


def _threads_argument(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--threads", type=_positive, default=1, help="CPU threads; one is fastest for a net this small"
    )


ADD_ARGUMENTS = {
    "simulate": _simulate_arguments,
    "train": _train_arguments,
    "evaluate": _evaluate_arguments,
    "predict": _predict_arguments,
    "compare": _compare_arguments,
    "cv": _cv_arguments,
    "data": _data_arguments,
}


if __name__ == "__main__":
    sys.exit(main())
