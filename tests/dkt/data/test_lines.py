"""The 3-line and 4-line formats, and what is said of a file that breaks them."""

from __future__ import annotations

import pytest

from dkt.data import DataError, read_answers

FOUR = "0,71\n10,11,10\n5,5,6\n1,0,1\n1,72\n12,12\n6,6\n0,0\n"
THREE = "2\n5,6,\n1,0,\n3\n6,6,5,\n0,0,1,\n"


def write(tmp_path, text):
    path = tmp_path / "answers.csv"
    path.write_text(text)
    return path


def test_four_lines_have_students_questions_skills_and_answers(tmp_path):
    answers = read_answers(write(tmp_path, FOUR))
    assert answers.student_names == ["71", "72"]
    assert answers.lengths.tolist() == [3, 2]
    assert [answers.question_names[i] for i in answers.question] == ["10", "11", "10", "12", "12"]
    assert [answers.skill_names[i] for i in answers.skill] == ["5", "5", "6", "6", "6"]
    assert answers.answer.tolist() == [1, 0, 1, 0, 0]


def test_three_lines_with_counts_and_trailing_commas_have_no_questions(tmp_path):
    answers = read_answers(write(tmp_path, THREE))
    assert answers.lengths.tolist() == [2, 3]
    assert answers.question is None
    assert answers.leak_free is None


def test_three_lines_may_begin_with_index_and_student(tmp_path):
    answers = read_answers(write(tmp_path, "0,71\n5,6\n1,0\n1,72\n6,6,5\n0,0,1\n"))
    assert answers.student_names == ["71", "72"]


def test_three_lines_may_begin_with_an_index_alone(tmp_path):
    answers = read_answers(write(tmp_path, "1\n5,6\n1,0\n2\n6,6,5\n0,0,1\n"))
    assert answers.student_names == ["1", "2"]


def test_ids_are_in_the_order_of_numbers(tmp_path):
    assert read_answers(write(tmp_path, "2\n10,9\n1,0\n")).skill_names == ["9", "10"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (FOUR.replace("1,0,1\n", "1,2,1\n"), r"answers.csv:4: .*answer 2 is '2'; an answer is 0 or 1"),
        (FOUR.replace("6,6\n", "6\n"), r"answers.csv:5: record 2 has 2 problems, 1 skills, 2 answers"),
        (FOUR.replace("0,0\n", "\n") + "2,73\n1\n1\n1\n", r"answers.csv:8: .*empty student"),
        (FOUR.replace("12,12\n", ""), r"answers.csv:5: record 2 ends after 3 of 4 lines"),
        (FOUR.replace("10,11,10", "10,x,10"), r"answers.csv:2: .*value 2 of the problems is 'x'"),
        (FOUR + FOUR.replace("1,0,1\n", ""), r"answers.csv:\d+: record 3 "),
        (THREE.replace("3\n6", "4\n6") + THREE, r"answers.csv:4: record 2 announces 4 answers and has 3"),
        (THREE.replace("0,0,1,", "0,-1,1,"), r"answers.csv:6: .*answer 2 is '-1'"),
        ("", r"answers.csv is empty"),
        ("\n\n", r"answers.csv is empty"),
        ("hello world\n", r"the format is not recognised; line 1 is 'hello world'"),
    ],
)
def test_a_broken_file_is_named_with_its_line_and_fault(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read_answers(write(tmp_path, text))


def test_a_directory_or_missing_file_is_named(tmp_path):
    with pytest.raises(IsADirectoryError, match="is a directory"):
        read_answers(tmp_path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_answers(tmp_path / "none.csv")
