"""The command line of the course's program: its names and its defaults.

Other defaults: folders below the current one, device auto, no loader processes; and where the course learns from the
last position of a history, `--loss auto` learns from all where the model may. `--loss last` is the course's own.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

MODELS = ("lstm", "lstmattn", "bert")


def parse_args(argv: Sequence[str] | None = None, mode: str | None = None) -> argparse.Namespace:
    """The course's settings, from `argv` or else the command line; `mode`, of 2021, changes nothing."""
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    files = parser.add_argument_group("files")
    files.add_argument("--data_dir", default="data/", help="folder of the two CSV files")
    files.add_argument("--file_name", default="train_data.csv", help="answers to learn from")
    files.add_argument(
        "--test_file_name", default="test_data.csv", help="histories whose last answer, -1, is predicted"
    )
    files.add_argument("--asset_dir", default="asset/", help="where the ids seen in training are written")
    files.add_argument("--model_dir", default="models/", help="where the best model is written")
    files.add_argument("--model_name", default="best_model.pt", help="name of its file")
    files.add_argument("--output_dir", default="outputs/", help="where submission.csv and the log are written")

    model = parser.add_argument_group("model")
    model.add_argument("--model", default="lstm", choices=MODELS, help="what reads the history")
    model.add_argument("--max_seq_len", default=20, type=int, help="how many of a student's last answers are read")
    model.add_argument("--hidden_dim", default=64, type=int, help="width of the model")
    model.add_argument("--n_layers", default=2, type=int, help="layers of the LSTM, or of BERT")
    model.add_argument("--n_heads", default=2, type=int, help="heads of the attention of lstmattn and bert")
    model.add_argument("--drop_out", default=0.2, type=float, help="dropout of lstmattn and bert")
    model.add_argument(
        "--causal",
        action="store_true",
        help="let the attention of lstmattn and bert read only what is before each position",
    )

    training = parser.add_argument_group("training")
    training.add_argument("--seed", default=42, type=int, help="seed of every random draw")
    training.add_argument("--device", default="auto", help="auto, cpu or gpu")
    training.add_argument(
        "--loss",
        default="auto",
        choices=("auto", "all", "last"),
        help="positions to learn from: all needs a causal model; auto: all where the model is causal",
    )
    training.add_argument(
        "--windows",
        metavar="LENGTH:STRIDE",
        help="learn from sliding windows of each history too, like 20:10; left out: from its end only",
    )
    training.add_argument("--optimizer", default="adam", choices=("adam", "adamW"), help="rule of the steps")
    training.add_argument(
        "--scheduler",
        default="plateau",
        choices=("plateau", "linear_warmup"),
        help="how the learning rate falls: halved after 10 epochs without a better AUC, or up and down in a line",
    )
    training.add_argument(
        "--weight_decay", default=0.0, type=float, help="pull of all weights to zero (the course: 0.01)"
    )
    training.add_argument("--n_epochs", default=20, type=int, help="most epochs")
    training.add_argument("--batch_size", default=64, type=int, help="students in a batch")
    training.add_argument("--lr", default=0.0001, type=float, help="learning rate")
    training.add_argument("--clip_grad", default=10, type=float, help="largest norm of the gradient")
    training.add_argument("--patience", default=5, type=int, help="epochs without a better valid_auroc before stopping")
    training.add_argument("--log_steps", default=50, type=int, help="steps between two rows of the log")
    training.add_argument(
        "--num_workers", default=0, type=int, help="processes that load data; 0 is fastest for data in memory"
    )
    return parser.parse_args(argv)
