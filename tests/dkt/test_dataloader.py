"""The course's `dkt.dataloader`: its names, shapes, split and files."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from dkt.args import parse_args
from dkt.dataloader import DKTDataset, Preprocess, get_loaders, process_batch

TRAIN = """userID,assessmentItemID,testId,answerCode,Timestamp,KnowledgeTag
10,A2,T1,1,2020-01-01 00:00:02,7
10,A1,T1,0,2020-01-01 00:00:01,5
9,A1,T1,1,2020-01-01 00:00:01,5
9,A3,T2,0,2020-01-01 00:00:05,5
9,A2,T2,1,2020-01-01 00:00:09,7
"""
TEST = """userID,assessmentItemID,testId,answerCode,Timestamp,KnowledgeTag
3,A1,T1,1,2020-01-01 00:00:01,5
3,A9,T9,-1,2020-01-01 00:00:02,7
"""


@pytest.fixture
def args(tmp_path: Path):
    (tmp_path / "train_data.csv").write_text(TRAIN)
    (tmp_path / "test_data.csv").write_text(TEST)
    folders = ["--data_dir", str(tmp_path), "--asset_dir", str(tmp_path / "asset")]
    return parse_args([*folders, "--max_seq_len", "4", "--batch_size", "2"])


@pytest.fixture
def preprocess(args):
    preprocess = Preprocess(args)
    preprocess.load_train_data(args.file_name)
    return preprocess


def test_students_come_by_id_and_their_answers_by_time(preprocess):
    nine, ten = preprocess.get_train_data()
    assert [column.tolist() for column in nine] == [[0, 1, 1], [0, 2, 1], [0, 0, 1], [1, 0, 1]]
    assert ten[1].tolist() == [0, 1]


def test_sizes_of_the_embeddings_count_the_unknown_id(args, preprocess):
    assert (args.n_questions, args.n_tests, args.n_tags) == (4, 3, 3)


def test_classes_are_kept_as_the_course_keeps_them(args, preprocess):
    assert np.load(Path(args.asset_dir) / "assessmentItemID_classes.npy").tolist() == ["A1", "A2", "A3", "unknown"]


def test_ids_that_training_has_not_seen_become_unknown_in_the_test_file(args, preprocess):
    preprocess.load_test_data(args.test_file_name)
    (three,) = preprocess.get_test_data()
    assert [column.tolist() for column in three] == [[0, 2], [0, 3], [0, 1], [1, -1]]


def test_test_file_before_the_training_file_says_what_to_do(args):
    with pytest.raises(FileNotFoundError, match="load the training data first"):
        Preprocess(args).load_test_data(args.test_file_name)


def test_data_asked_for_before_it_was_loaded_names_the_call(args):
    with pytest.raises(ValueError, match="load_train_data"):
        Preprocess(args).get_train_data()


def test_split_is_the_one_of_the_courses_code():
    students = list(range(20))
    theirs = list(students)
    random.seed(0)
    random.shuffle(theirs)
    train, valid = Preprocess(parse_args([])).split_data(students)
    assert train + valid == theirs
    assert len(train) == 14
    assert students == list(range(20))


def test_short_history_is_filled_on_the_left_and_each_step_sees_the_answer_before_it(args, preprocess):
    nine, _ = preprocess.get_train_data()
    item = {name: values.tolist() for name, values in DKTDataset([nine], args)[0].items()}
    assert item["question"] == [0, 1, 3, 2]
    assert item["correct"] == [0, 1, 0, 1]
    assert item["mask"] == [0, 1, 1, 1]
    assert item["interaction"] == [0, 0, 2, 1]


def test_long_history_keeps_its_last_answers(args):
    steps = np.arange(6)
    item = DKTDataset([(steps, steps, steps, np.array([1, 1, 1, 0, 0, -1]))], args)[0]
    assert item["question"].tolist() == [3, 4, 5, 6]
    assert item["correct"].tolist() == [1, 0, 0, -1]
    assert item["interaction"].tolist() == [0, 2, 1, 1]


def test_the_answer_to_predict_is_never_an_input(args):
    steps = np.arange(3)
    items = [DKTDataset([(steps, steps, steps, np.array([1, 0, last]))], args)[0]["interaction"] for last in (0, 1)]
    assert torch.equal(items[0], items[1])


def test_loaders_shuffle_training_only_and_allow_none(args, preprocess):
    train, valid = get_loaders(args, preprocess.get_train_data(), preprocess.get_train_data())
    assert isinstance(train.sampler, torch.utils.data.RandomSampler)
    assert isinstance(valid.sampler, torch.utils.data.SequentialSampler)
    assert get_loaders(args, None, None) == (None, None)


def test_process_batch_has_the_answers_at_3(args, preprocess):
    _, loader = get_loaders(args, None, preprocess.get_train_data())
    (batch,) = loader
    processed = process_batch(batch)
    assert len(processed) == 6
    assert torch.equal(processed[3], batch["correct"])


def test_several_skills_in_one_cell_are_one_tag(args):
    path = Path(args.data_dir) / "several.csv"
    path.write_text(TRAIN + "11,A1,T1,1,2020-01-01 00:00:01,5;7\n")
    preprocess = Preprocess(args)
    preprocess.load_train_data("several.csv")
    assert args.n_tags == 4
    assert preprocess.get_train_data()[2][2].tolist() == [1]
