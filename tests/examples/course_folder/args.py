"""A course folder's own settings: the 2021 edition's names, no more than the program needs."""

from __future__ import annotations

import argparse


def parse_args():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", default=42, type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--data_dir", default="data")
    parser.add_argument("--asset_dir", default="asset")
    parser.add_argument("--file_name", default="train_data.csv")
    parser.add_argument("--test_file_name", default="test_data.csv")
    parser.add_argument("--model_dir", default="models")
    parser.add_argument("--model_name", default="model.pt")
    parser.add_argument("--output_dir", default="output")
    parser.add_argument("--max_seq_len", default=20, type=int)
    parser.add_argument("--hidden_dim", default=24, type=int)
    parser.add_argument("--n_layers", default=2, type=int)
    parser.add_argument("--drop_out", default=0.2, type=float)
    parser.add_argument("--n_epochs", default=1, type=int)
    parser.add_argument("--batch_size", default=64, type=int)
    parser.add_argument("--lr", default=0.0001, type=float)
    parser.add_argument("--clip_grad", default=10, type=int)
    parser.add_argument("--patience", default=5, type=int)
    parser.add_argument("--log_steps", default=50, type=int)
    return parser.parse_args()
