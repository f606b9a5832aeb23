"""The task under fulgurite's own command line: every flag of the Trainer, any callback or logger, saved configurations.

    python -m dkt.lightning fit --data.train train.csv --data.valid valid.csv --model.net akt --trainer.max_epochs 5
    python -m dkt.lightning fit --data.train train.csv --model.dict_kwargs.dim 128 --print_config > run.yaml
    python -m dkt.lightning fit --config run.yaml --trainer.callbacks+=LearningRateMonitor

What a net takes of its own stands below `--model.dict_kwargs`. The checkpoints are those of `dkt train`: `dkt evaluate`
and `dkt predict` read them. It needs jsonargparse (the extra `cli`); `dkt train` is shorter where its flags are enough.
"""

from __future__ import annotations

from typing import Any

from torch.utils.data import DataLoader

import fulgurite as pl
from dkt.data.batches import Batch, sequence_loader
from dkt.data.read import read_answers
from dkt.data.splits import split_students
from dkt.data.table import Answers
from dkt.data.vocabulary import Vocabulary
from dkt.inference import CELLS_TO_SCORE
from dkt.task import DktTask
from fulgurite.cli import LightningCLI


class AnswersData(pl.LightningDataModule):
    """Files of answers as the batches of a DktTask.

    Args:
        train: answers to learn from; they say which skills and questions there are
        valid: answers that choose the epoch; left out: 15% of the students of `train`
        rasch: whether the net is told of the questions
        cells: size of a training batch: sequences x longest of them
        format: format of the files, if it should not be found from their first lines
    """

    def __init__(
        self, train: str, valid: str | None = None, rasch: bool = True, cells: int = 3200, format: str | None = None
    ) -> None:
        super().__init__()
        self.cells = cells
        answers = read_answers(train, format).answered()
        self.train: Answers = answers
        if valid is None:
            self.train, self.valid = split_students(answers, (0.85, 0.15))
        else:
            self.valid = read_answers(valid, format).answered()
        whole = Vocabulary.of(self.train)
        self.vocabulary = whole if rasch else Vocabulary(whole.skills, [])
        self.n_skills = len(self.vocabulary.skills)
        self.n_questions = len(self.vocabulary.questions)

    def setup(self, stage: str) -> None:
        if stage == "fit":
            self.task.vocabulary = self.vocabulary
            # A linked value is in no configuration, so that the command line keeps None of it for the checkpoint.
            self.task.hparams.update({"n_skills": self.n_skills, "n_questions": self.n_questions})

    @property
    def task(self) -> DktTask:
        task = self.trainer.lightning_module if self.trainer is not None else None
        if not isinstance(task, DktTask):
            raise TypeError(f"AnswersData makes batches for a DktTask, not for {type(task).__name__}.")
        return task

    def train_dataloader(self) -> DataLoader[Batch]:
        return sequence_loader(self.task.training_sequences(self.train), self.cells, shuffle=True)

    def val_dataloader(self) -> DataLoader[Batch]:
        return sequence_loader(self.task.sequences(self.valid), CELLS_TO_SCORE)


class DktCLI(LightningCLI):
    """The sizes of the net follow from the data."""

    def add_arguments_to_parser(self, parser: Any) -> None:
        for name in ("n_skills", "n_questions"):
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")
        parser.set_defaults({"model": {"class_path": "dkt.task.DktTask"}})


def main() -> DktCLI:
    """Run `fit` or `validate`."""
    return DktCLI(DktTask, AnswersData, subclass_mode_model=True, seed_everything_default=0)


if __name__ == "__main__":
    main()
