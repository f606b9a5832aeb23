"""pyKT's prepared files, and what is said of broken ones."""

from __future__ import annotations

import pytest

from dkt.data import DataError, read_answers
from dkt.data.splits import folds_named
from helpers.answers import rows_of

SEQUENCES = """\
fold,uid,questions,concepts,responses,timestamps,selectmasks,is_repeat
0,7,"1,1,2,-1","3,4,5,-1","1,1,0,-1","1000,1000,2000,-1","1,1,1,-1","0,1,0,-1"
1,3,"1,2,2,3","3,5,6,7","1,1,1,0","1000,3000,3000,4000","1,1,1,1","0,0,1,0"
1,3,"3,9,-1,-1","7,9,-1,-1","0,1,-1,-1","4000,5000,-1,-1","1,1,-1,-1","1,0,-1,-1"
"""
WINDOWS = """\
fold,uid,questions,concepts,responses,selectmasks
-1,7,"1,2,3","4,4,4","1,0,1","1,1,1"
-1,7,"2,3,5","4,4,4","0,1,0","-1,-1,1"
-1,7,"3,5,6","4,4,4","1,0,0","-1,-1,1"
"""
TEXT = "7,2\nq1,q2\n3_4,5\n1,0\n1000,2000\nNA\n3,1\nq9\n4\n1\n500\nNA\n"


def write(tmp_path, text):
    path = tmp_path / "data.txt"
    path.write_text(text)
    return path


def test_padding_is_dropped_repeats_are_merged_also_across_sequences_and_folds_are_kept(tmp_path):
    answers = read_answers(write(tmp_path, SEQUENCES))
    assert rows_of(answers) == [
        ("3", "1", {"3"}, 1, 1),
        ("3", "2", {"5", "6"}, 1, 3),
        ("3", "3", {"7"}, 0, 4),
        ("3", "9", {"9"}, 1, 5),
        ("7", "1", {"3", "4"}, 1, 1),
        ("7", "2", {"5"}, 0, 2),
    ]
    assert "3 of 9 rows repeat the row before for another concept (is_repeat) and were merged" in answers.notes[0]
    assert {fold: who.tolist() for fold, who in folds_named(answers).items()} == {"0": [1], "1": [0]}


def test_sliding_windows_give_each_answer_once(tmp_path):
    answers = read_answers(write(tmp_path, WINDOWS))
    assert [row[1] for row in rows_of(answers)] == ["1", "2", "3", "5", "6"]


def test_six_lines_a_student(tmp_path):
    assert rows_of(read_answers(write(tmp_path, TEXT))) == [
        ("3", "q9", {"4"}, 1, 0),
        ("7", "q1", {"3", "4"}, 1, 1),
        ("7", "q2", {"5"}, 0, 2),
    ]


def test_without_concepts_each_question_is_its_own_skill_and_it_is_said(tmp_path):
    answers = read_answers(write(tmp_path, TEXT.replace("3_4,5", "NA").replace("\n4\n", "\nNA\n")))
    assert answers.skill_names == answers.question_names
    assert answers.notes == ("no concepts: each question is its own skill",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TEXT + "8,1\n", r"data.txt: 13 lines, which are no records of 6"),
        (TEXT.replace("1,0\n", "1,0,1\n"), r"data.txt:4: 3 responses where line 1 announces 2"),
        (TEXT.replace("3,1\n", "3,one\n"), r"data.txt:7: '3,one' should be student,number of answers"),
        (TEXT.replace("1,0\n", "1,2\n"), r"data.txt:1: position 2: responses is '2'"),
        (TEXT.replace("3_4,5", "3_4,"), r"data.txt:1: position 2: concepts is empty"),
        (SEQUENCES.replace('"1,1,0,-1"', '"1,1,0"', 1), r"data.txt:2: 4 questions for 3 responses"),
        (SEQUENCES.replace('"1,1,1,0"', '"1,1,x,0"'), r"data.txt:3: position 3: responses is 'x'"),
        (SEQUENCES.replace("is_repeat", "qidxs"), r"question-level evaluation files.*Read train_valid.csv, test.csv"),
    ],
)
def test_a_broken_file_is_named_with_its_line_and_fault(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read_answers(write(tmp_path, text), "pykt")


def test_folds_need_their_column(tmp_path):
    with pytest.raises(DataError, match=r"no column 'fold' to split by; further columns of this data: none"):
        folds_named(read_answers(write(tmp_path, TEXT)))
