"""A loader of the shape of the course's 2021 edition: batches (test, question, tag, correct, mask), ids from 0."""

from __future__ import annotations

import csv
import random
from collections import defaultdict
from pathlib import Path

import torch

COLUMNS = ("testId", "assessmentItemID", "KnowledgeTag")


class Preprocess:
    def __init__(self, args):
        self.args = args
        self.numbers = {}

    def load_train_data(self, file_name):
        self.train_data = self._load(file_name, is_train=True)

    def load_test_data(self, file_name):
        self.test_data = self._load(file_name, is_train=False)

    def get_train_data(self):
        return self.train_data

    def get_test_data(self):
        return self.test_data

    def split_data(self, data, ratio=0.7, shuffle=True, seed=0):
        random.Random(seed).shuffle(data)
        size = int(len(data) * ratio)
        return data[:size], data[size:]

    def _load(self, file_name, is_train):
        with (Path(self.args.data_dir) / file_name).open() as file:
            rows = list(csv.DictReader(file))
        if is_train:
            for column in COLUMNS:
                self.numbers[column] = {name: i for i, name in enumerate(sorted({row[column] for row in rows}))}
        self.args.n_test, self.args.n_questions, self.args.n_tag = (len(self.numbers[c]) + 1 for c in COLUMNS)
        students = defaultdict(list)
        for row in sorted(rows, key=lambda row: (int(row["userID"]), row["Timestamp"])):
            ids = [self.numbers[c].get(row[c], len(self.numbers[c])) for c in COLUMNS]
            students[row["userID"]].append([*ids, int(row["answerCode"])])
        return [torch.tensor(rows) for rows in students.values()]


def get_loaders(args, train, valid):
    def collate(students):
        filled = torch.zeros(len(students), args.max_seq_len, 5, dtype=torch.long)
        for i, rows in enumerate(students):
            last = rows[-args.max_seq_len :]
            filled[i, -len(last) :, :4] = last
            filled[i, -len(last) :, 4] = 1
        return filled.unbind(-1)

    def loader(data, shuffle):
        return data and torch.utils.data.DataLoader(data, args.batch_size, shuffle=shuffle, collate_fn=collate)

    return loader(train, True), loader(valid, False)
