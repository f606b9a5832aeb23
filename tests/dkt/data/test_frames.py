"""Frames of polars and pandas: their own columns, the course's, or any that are named."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import polars as pl
import pytest

from dkt.data import DataError, from_frame, in_frame_order, read_answers, to_frame
from dkt.data.simulate import simulate
from helpers.answers import rows_of

LOGS = {
    "user": ["b", "a", "a"],
    "item": [11, 10, 11],
    "tag": ["7;8", "7", "8"],
    "correct": [True, False, True],
    "at": [300, 200, 100],
    "device": ["phone", "pc", "pc"],
}
NAMES = {"student": "user", "question": "item", "skills": "tag", "answer": "correct", "time": "at"}
ROWS = [("a", "11", {"8"}, 1, 100), ("a", "10", {"7"}, 0, 200), ("b", "11", {"7", "8"}, 1, 300)]


def test_columns_of_a_polars_frame_are_named(tmp_path):
    answers = from_frame(pl.DataFrame(LOGS), NAMES)
    assert rows_of(answers) == ROWS
    assert answers.extra["device"].tolist() == ["pc", "pc", "phone"]


@pytest.mark.needs("pandas")
def test_a_pandas_frame_is_the_same_table():
    import pandas

    frame = pandas.DataFrame(LOGS)
    assert rows_of(from_frame(frame, NAMES)) == ROWS
    frame["at"] = pandas.to_datetime(frame["at"], unit="s")
    frame["tag"] = frame["tag"].str.split(";")
    frame["user"] = pandas.Categorical(frame["user"])
    frame["item"] = frame["item"].astype("Int64")
    assert rows_of(from_frame(frame, NAMES)) == ROWS


@pytest.mark.needs("pandas")
def test_pandas_needs_no_pyarrow(monkeypatch):
    import pandas

    monkeypatch.setattr(pl, "from_pandas", None)
    monkeypatch.setattr(pandas.DataFrame, "__arrow_c_stream__", None, raising=False)
    assert rows_of(from_frame(pandas.DataFrame(LOGS), NAMES)) == ROWS


@pytest.mark.needs("pandas")
def test_a_frame_with_the_courses_columns_needs_no_names(tmp_path):
    import pandas

    path = tmp_path / "train_data.csv"
    path.write_text(
        "userID,assessmentItemID,testId,answerCode,Timestamp,KnowledgeTag\n"
        "10,A2,T1,1,2020-03-24 00:17:12,7\n9,A1,T1,0,2020-03-24 00:17:11,45\n"
    )
    expected = rows_of(read_answers(path))
    assert rows_of(read_answers(pandas.read_csv(path))) == expected
    assert rows_of(read_answers(pandas.read_csv(path, parse_dates=["Timestamp"]))) == expected
    assert rows_of(read_answers(pl.read_csv(path, try_parse_dates=True))) == expected


@pytest.mark.parametrize("library", ["polars", pytest.param("pandas", marks=pytest.mark.needs("pandas"))])
def test_predictions_go_back_into_the_order_of_the_frame(library):
    frame = import_module(library).DataFrame(LOGS)
    answers = from_frame(frame, NAMES)
    names = np.array(answers.question_names)[answers.question]
    assert in_frame_order(names.astype(float), answers, frame).tolist() == LOGS["item"]


def test_rows_that_were_left_out_or_merged_have_no_prediction_of_their_own():
    columns = ("user_id", "order_id", "problem_id", "skill_id", "correct")
    rows = [("9", 3, "p", "k1", 1), ("9", 3, "p", "k2", 1), ("9", 1, "q", None, 1), ("9", 2, "r", "k1", 0)]
    frame = pl.DataFrame(rows, schema=columns, orient="row")
    answers = read_answers(frame)
    assert [row[1] for row in rows_of(answers)] == ["r", "p"]
    found = in_frame_order(np.array([0.25, 0.75]), answers, frame)
    assert found[[0, 3]].tolist() == [0.75, 0.25]
    assert np.isnan(found[[1, 2]]).all()


def test_the_simulated_school_as_a_frame_is_the_same_school():
    answers, _ = simulate(students=20, questions=40, skills=6, concepts=2, answers_per_student=10)
    again = from_frame(to_frame(answers))
    assert rows_of(again) == rows_of(answers)
    assert again.extra["truth"].tolist() == answers.extra["truth"].tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"correct": [1, 0, 2]}, r"row 2 of the frame: correct is 2; an answer is 0 or 1, or -1"),
        ({"correct": [1, None, 0]}, r"row 1 of the frame: correct is empty"),
        ({"user": ["a", "", "b"]}, r"row 1 of the frame: user is empty"),
        ({"item": [1, None, 2]}, r"row 1 of the frame: item is empty"),
        ({"tag": [["7"], [], ["8"]]}, r"row 1 of the frame: tag is empty"),
        ({"tag": [["7"], ["8", None], ["8"]]}, r"row 1 of the frame: tag is empty"),
        ({"at": [1.0, float("nan"), 2.0]}, r"row 1 of the frame: at is empty"),
        ({"at": ["2020-01-01 00:00:00", "soon", "2020-01-01 00:00:00"]}, r"row 1 of the frame: at is 'soon'"),
    ],
)
def test_a_broken_cell_is_named_with_its_row(change, message):
    with pytest.raises(DataError, match=message):
        from_frame(pl.DataFrame({**LOGS, **change}, strict=False), NAMES)


def test_missing_columns_are_named_with_those_there_are():
    with pytest.raises(DataError, match=r"no column student, answer, skills; it has user, item.*columns=\{"):
        from_frame(pl.DataFrame(LOGS))
    with pytest.raises(ValueError, match="columns: pupil is none of student, question"):
        from_frame(pl.DataFrame(LOGS), {"pupil": "user"})


def test_an_extra_column_may_not_hide_a_tidy_one():
    answers = from_frame(pl.DataFrame(LOGS), NAMES)
    answers.extra["answer"] = np.zeros(3)
    with pytest.raises(ValueError, match="extra column answer has the name of a tidy column"):
        to_frame(answers)
