"""EdNet-KT1's folder: answers are right where they equal the bank's, and parts make the same table as the whole."""

from __future__ import annotations

import pytest

from dkt.data import DataError, read_answers
from dkt.data.ednet import EdNet
from dkt.data.store import write_store
from helpers.answers import rows_of

HEADER = "timestamp,solving_id,question_id,user_answer,elapsed_time\n"
BANK = "question_id,bundle_id,explanation_id,correct_answer,part,tags,deployed_at\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "KT1").mkdir()
    (tmp_path / "contents").mkdir()
    (tmp_path / "contents" / "questions.csv").write_text(
        BANK + "q1,b1,e1,b,1,1;2;179,1000\nq2,b2,e2,c,1,15,1000\nq3,b3,e3,a,1,-1,1000\n"
    )
    files = {
        "u10": "2000,2,q2,c,4000\n1000,1,q1,b,21000\n3000,3,q1,,500\n",
        "u2": "1565332027449,1,q1,a,45000\n1565332057492,2,q3,a,1000\r\n",
        "u3": "",
    }
    for name, text in files.items():
        (tmp_path / "KT1" / f"{name}.csv").write_text(HEADER + text, newline="")
    return tmp_path


def test_rows_are_in_order_of_time_and_right_where_they_match_the_bank(folder):
    answers = read_answers(folder)
    assert rows_of(answers) == [
        ("u2", "q1", {"1", "2", "179"}, 0, 1565332027),
        ("u10", "q1", {"1", "2", "179"}, 1, 1),
        ("u10", "q2", {"15"}, 1, 2),
    ]
    assert answers.extra["elapsed"].tolist() == [45, 21, 4]
    assert answers.notes == (
        "1 of 5 rows have no user_answer and were left out",
        "1 of 5 rows ask a question without tags and were left out",
        "1 students have no answers",
    )


@pytest.mark.parametrize("students_per_part", [1, 2, 100])
def test_parts_of_any_size_make_the_same_store(folder, tmp_path, students_per_part):
    source = EdNet(folder, students_per_part)
    assert rows_of(write_store(source, tmp_path / "store", source.notes)) == rows_of(read_answers(folder))
    assert read_answers(tmp_path / "store").notes == read_answers(folder).notes


def test_a_sample_of_students_is_the_same_for_the_same_seed(folder):
    chosen = [[path.stem for path in EdNet(folder, students=2, seed=seed).files] for seed in (0, 0, 1, 2, 3)]
    assert chosen[0] == chosen[1]
    assert len({tuple(names) for names in chosen}) > 1
    with pytest.raises(ValueError, match="students=9 must be between 1 and the 3"):
        EdNet(folder, students=9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1000,1,q9,b,1\n", r"u2.csv:2: question_id 'q9' is not in questions.csv"),
        ("1000,1,q1,b,1\n1001,1,q1,b\n", r"u2.csv:3: 4 fields where the header has 5"),
        ("noon,1,q1,b,1\n", r"u2.csv:2: timestamp is 'noon'; milliseconds since 1970"),
        ("1000,1,q1,b,x\n", r"u2.csv:2: elapsed_time is 'x'"),
        ("1000,1,,b,1\n", r"u2.csv:2: question_id is empty"),
    ],
)
def test_a_broken_line_is_named_with_its_file(folder, text, message):
    (folder / "KT1" / "u2.csv").write_text(HEADER + text)
    with pytest.raises(DataError, match=message):
        read_answers(folder)


def test_another_header_is_named(folder):
    (folder / "KT1" / "u2.csv").write_text("timestamp,action_type\n1,enter\n")
    with pytest.raises(DataError, match=r"u2.csv:1: the header is 'timestamp,action_type'"):
        read_answers(folder)


def test_without_the_bank_the_places_looked_at_are_named(folder):
    (folder / "contents" / "questions.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"questions.csv, which holds the right answers, was looked for at"):
        read_answers(folder)


def test_a_question_twice_in_the_bank_is_refused(folder):
    with (folder / "contents" / "questions.csv").open("a") as file:
        file.write("q1,b1,e1,b,1,1,1000\n")
    with pytest.raises(DataError, match="question q1 is there more than once"):
        read_answers(folder)
