"""The course's task on generated data, the last answer of each test student: the course's way against ours.

    python benchmarks/course_task.py                    # its settings, in our code
    python benchmarks/course_task.py --course code/dkt  # and its own files, patched to run (LSTM), in a copy

Prints one line of JSON: AUC of each, and the difference to the course's with the deviation over test students.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars
import torch

from dkt import model_named, read_answers, simulate, split_students, trainer
from dkt.args import parse_args
from dkt.data.simulate import write_school
from dkt.dataloader import Preprocess
from dkt.evaluate import auc, paired_difference
from dkt.utils import set_seeds

# What keeps the course's files from running today: an account, a release of each of three libraries, and, for the
# LSTM, a library it does not use.
PATCHES = [
    ("train.py", "import wandb\n", ""),
    ("train.py", "    wandb.login()\n", ""),
    ("train.py", '    wandb.init(project="dkt", config=vars(args))\n', ""),
    ("dkt/trainer.py", "import wandb\n", ""),
    ("dkt/trainer.py", "        wandb.log(", "        dict("),
    ("dkt/dataloader.py", "return group.values", "return group.values.copy()"),
    ("dkt/scheduler.py", ", verbose=True", ""),
    ("dkt/scheduler.py", "from transformers import get_linear_schedule_with_warmup\n", ""),
    ("dkt/model.py", "from transformers.models.bert.modeling_bert import BertConfig, BertEncoder, BertModel\n", ""),
]
COURSE = ["--loss", "last", "--weight_decay", "0.01"]
OURS = {
    "lstm, last position, as in the course": COURSE,
    "lstm, every position": ["--lr", "0.003", "--n_epochs", "8"],
    "lstm, every position, 100 answers": ["--lr", "0.003", "--n_epochs", "6", "--max_seq_len", "100"],
}


def theirs(folder: Path, code: Path) -> np.ndarray:
    copy = shutil.copytree(code, folder / "course")
    for name, old, new in PATCHES:
        text = (copy / name).read_text(encoding="utf-8")
        if old not in text:
            raise SystemExit(
                f"{code / name} does not hold {old.strip()!r}: it is not the edition that the patches are for."
            )
        (copy / name).write_text(text.replace(old, new), encoding="utf-8")
    for script in ("train.py", "inference.py"):
        command = [sys.executable, script, "--data_dir", str(folder)]
        subprocess.run(
            command, cwd=copy, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": str(copy)}
        )
    return submission(copy / "outputs")


def ours(folder: Path, flags: list[str]) -> np.ndarray:
    places = {f"--{name}_dir": str(folder / name) for name in ("asset", "model", "output")} | {
        "--data_dir": str(folder)
    }
    args = parse_args([*(word for pair in places.items() for word in pair), *flags])
    set_seeds(args.seed)
    preprocess = Preprocess(args)
    preprocess.load_train_data(args.file_name)
    train, valid = preprocess.split_data(preprocess.get_train_data())
    model = trainer.get_model(args)
    trainer.run(args, train, valid, model)
    preprocess.load_test_data(args.test_file_name)
    trainer.inference(args, preprocess.get_test_data(), model)
    return submission(folder / "output")


def catalogue(folder: Path, name: str) -> np.ndarray:
    train, valid = split_students(read_answers(folder / "train_data.csv"), (0.85, 0.15))
    model = model_named(name, protocol="akt").fit(train, valid)
    return np.asarray(model.predict_asked(read_answers(folder / "test_data.csv")), dtype=np.float64)


def submission(folder: Path) -> np.ndarray:
    return polars.read_csv(folder / "submission.csv")["prediction"].to_numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--students", type=int, default=7442, help="as many as the course has")
    parser.add_argument("--seed", type=int, default=0, help="of the school")
    parser.add_argument("--course", type=Path, help="the course's code/dkt, with train.py and inference.py")
    parser.add_argument("--models", nargs="*", default=["dkt-r"], help="models of the catalogue to run beside")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(sys.stderr):
        folder = Path(name)
        write_school(*simulate(students=arguments.students, seed=arguments.seed), folder)
        truth = polars.read_csv(folder / "test_data_truth.csv").group_by("userID").last().sort("userID")
        right = truth["answerCode"].to_numpy() > 0
        runs = {name: (ours, flags) for name, flags in OURS.items()}
        runs |= {name: (catalogue, name) for name in arguments.models}
        if arguments.course:
            runs = {"the course's files, patched": (theirs, arguments.course), **runs}
        found = {"optimum": {"auc": auc(right, truth["probability"].to_numpy())}}
        first = None
        for label, (run, what) in runs.items():
            since = time.process_time()
            children = os.times()
            predicted = run(folder, what)
            spent = time.process_time() - since + os.times().children_user - children.children_user
            found[label] = {"auc": round(auc(right, predicted), 4), "cpu_seconds": round(spent, 1)}
            if first is None:
                first = predicted
            else:
                pair = paired_difference(right, predicted, first, np.arange(len(right)))
                found[label] |= {"better_by": round(pair[0], 4), "sd": round(pair[1], 4)}
    print(json.dumps({"students": arguments.students, "seed": arguments.seed, "asked": len(right), **found}))


if __name__ == "__main__":
    main()
