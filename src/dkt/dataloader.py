"""The course's `dkt.dataloader`: its names, shapes and split, so that a program written for it runs unchanged.

A student is a tuple (tests, questions, tags, answers) of integer arrays; ids are counted from 0 and shifted by one in
a batch, where 0 fills the left of short histories.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dkt.data.course import SKILL_SEPARATOR, read_course_csv
from dkt.data.table import Answers, Ints
from dkt.data.windows import Windows
from dkt.models.course import FIELDS

Student = tuple[Ints, Ints, Ints, Ints]

UNKNOWN = "unknown"  # stands for every id of the test file that training has not seen


class Preprocess:
    """Reads the course's CSV files; training fixes the ids, which are kept in `args.asset_dir` for the test file."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.train_data: list[Student] | None = None
        self.test_data: list[Student] | None = None

    def load_train_data(self, file_name: str) -> None:
        self.train_data = self.load_data_from_file(file_name)

    def load_test_data(self, file_name: str) -> None:
        self.test_data = self.load_data_from_file(file_name, is_train=False)

    def get_train_data(self) -> list[Student]:
        return _loaded(self.train_data, "load_train_data(args.file_name)")

    def get_test_data(self) -> list[Student]:
        return _loaded(self.test_data, "load_test_data(args.test_file_name)")

    def split_data(
        self, data: Sequence[Student], ratio: float = 0.7, shuffle: bool = True, seed: int = 0
    ) -> tuple[list[Student], list[Student]]:
        """`data` in two parts; the same students on each side as in the course's code with the same seed."""
        students = list(data)
        if shuffle:
            random.Random(seed).shuffle(students)
        size = int(len(students) * ratio)
        return students[:size], students[size:]

    def load_data_from_file(self, file_name: str, is_train: bool = True) -> list[Student]:
        """The students of a file by userID, each in order of time; sets `args.n_questions`, `n_tests`, `n_tags`."""
        answers = read_course_csv(Path(self.args.data_dir) / file_name)
        if answers.question is None:
            raise ValueError(f"{file_name} has no question ids.")
        columns = {
            "testId": answers.extra["test"].astype(str),
            "assessmentItemID": np.array(answers.question_names)[answers.question],
            "KnowledgeTag": _tag_of_each_row(answers),
        }
        codes, sizes = [], []
        for column, names in columns.items():
            classes = self._learn_ids(column, names) if is_train else self._known_ids(column)
            number = {name: i for i, name in enumerate(classes)}
            distinct, place = np.unique(names, return_inverse=True)
            code = np.array([number.get(name, number[UNKNOWN]) for name in distinct.tolist()], dtype=np.int64)
            codes.append(code[place])
            sizes.append(len(classes))
        self.args.n_tests, self.args.n_questions, self.args.n_tags = sizes
        rows = (*codes, answers.answer.astype(np.int64))
        return list(zip(*(np.split(values, answers.offsets[1:-1]) for values in rows), strict=True))

    def _learn_ids(self, column: str, names: npt.NDArray[np.str_]) -> list[str]:
        classes = [*np.unique(names).tolist(), UNKNOWN]
        path = self._asset(column)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.array(classes))
        return classes

    def _known_ids(self, column: str) -> list[str]:
        path = self._asset(column)
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist; load the training data first, it fixes the ids.")
        known: list[str] = np.load(path).tolist()
        return known

    def _asset(self, column: str) -> Path:
        return Path(self.args.asset_dir) / f"{column}_classes.npy"


class DKTDataset(Dataset[dict[str, Tensor]]):
    """The last `args.max_seq_len` answers of each student, filled with 0 on the left."""

    def __init__(self, data: Sequence[Student], args: argparse.Namespace) -> None:
        shape = len(data), args.max_seq_len
        columns = {name: np.zeros(shape, dtype=np.int64) for name in FIELDS}
        for i, (tests, questions, tags, answers) in enumerate(data):
            n = min(len(answers), args.max_seq_len)
            columns["test"][i, -n:] = tests[-n:] + 1
            columns["question"][i, -n:] = questions[-n:] + 1
            columns["tag"][i, -n:] = tags[-n:] + 1
            columns["correct"][i, -n:] = answers[-n:]
            columns["mask"][i, -n:] = 1
            # What a step knows is the answer before it: 1 wrong, 2 right, 0 at the first one.
            columns["interaction"][i, args.max_seq_len - n + 1 :] = answers[-n:-1] + 1
        self.columns = {name: torch.from_numpy(values) for name, values in columns.items()}

    def __len__(self) -> int:
        return len(self.columns["mask"])

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: values[index] for name, values in self.columns.items()}


def get_loaders(
    args: argparse.Namespace, train: Sequence[Student] | None, valid: Sequence[Student] | None
) -> tuple[DataLoader[dict[str, Tensor]] | None, DataLoader[dict[str, Tensor]] | None]:
    """(train_loader, valid_loader), only the first one shuffled; None for data that is None.

    With `args.windows` ("20:10") the first one also learns from earlier windows of each history.
    """

    def loader(data: Sequence[Student] | None, shuffle: bool) -> DataLoader[dict[str, Tensor]] | None:
        if data is None:
            return None
        dataset = DKTDataset(data, args)
        return DataLoader(dataset, batch_size=args.batch_size, shuffle=shuffle, num_workers=args.num_workers)

    windows = getattr(args, "windows", None)
    if windows and train is not None:
        train = windows_of(train, Windows.of(str(windows)))
    return loader(train, shuffle=True), loader(valid, shuffle=False)


def windows_of(data: Sequence[Student], windows: Windows) -> list[Student]:
    """Each student as several, whose histories end at different places."""
    found = []
    for columns in data:
        for start, length in zip(*windows.cut(np.array([0, len(columns[0])])), strict=True):
            tests, questions, tags, answers = (column[start : start + length] for column in columns)
            found.append((tests, questions, tags, answers))
    return found


def process_batch(
    batch: Mapping[str, Tensor] | Sequence[Tensor], args: argparse.Namespace | None = None
) -> tuple[Tensor, ...]:
    """(test, question, tag, correct, mask, interaction): what a model of the course takes; `[3]` are the answers.

    Args:
        batch: of `get_loaders`; or of a loader in the manner of 2021: (test, question, tag, correct, mask), ids from 0.
        args: of the edition of 2021, which put the tensors on `args.device`.
    """
    if isinstance(batch, Mapping):
        test, question, tag, correct, mask, interaction = (batch[name] for name in FIELDS)
    else:
        *ids, correct, mask = batch[:5]
        test, question, tag = ((values + 1) * mask.long() for values in ids)
        interaction = torch.zeros_like(test)
        interaction[:, 1:] = (correct[:, :-1].long() + 1) * mask[:, :-1].long()
    processed = test, question, tag, correct.float(), mask.float(), interaction
    return processed if args is None else tuple(values.to(device_of(args)) for values in processed)


def device_of(args: argparse.Namespace) -> torch.device:
    """Where `args.device` is: "cpu", "cuda", "gpu", "auto", ..."""
    name = str(getattr(args, "device", "auto"))
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device("cuda" if name == "gpu" else name)


def _tag_of_each_row(answers: Answers) -> npt.NDArray[np.str_]:
    """The KnowledgeTag cell of each row, as it was written: several skills are one tag of their own."""
    names = np.array(answers.skill_names)[answers.skill]
    if len(names) == len(answers):
        return names
    return np.array([SKILL_SEPARATOR.join(cell) for cell in np.split(names, answers.skill_offsets[1:-1])])


def _loaded(data: list[Student] | None, call: str) -> list[Student]:
    if data is None:
        raise ValueError(f"No data yet: call {call} first.")
    return data
