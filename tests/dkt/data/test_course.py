"""The course's CSV: order, skill sets, rows to be predicted, and what is said of a broken file."""

from __future__ import annotations

import pytest

from dkt.data import DataError, read_answers, write_course_csv

HEADER = "userID,assessmentItemID,testId,answerCode,Timestamp,KnowledgeTag\n"
ROWS = [
    "10,A2,T1,1,2020-03-24 00:17:12,7",
    "9,A1,T1,0,2020-03-24 00:17:11,7;45",
    "10,A1,T1,1,2020-03-24 00:17:11,8",
    "10,A3,T2,-1,2020-03-25 00:00:00,45",
]


def write(tmp_path, rows=ROWS, header=HEADER):
    path = tmp_path / "train_data.csv"
    path.write_text(header + "".join(row + "\n" for row in rows))
    return path


def test_rows_are_sorted_by_student_number_and_time(tmp_path):
    answers = read_answers(write(tmp_path))
    assert answers.student_names == ["9", "10"]
    assert [answers.question_names[i] for i in answers.question] == ["A1", "A1", "A2", "A3"]
    assert answers.answer.tolist() == [0, 1, 1, -1]
    assert answers.extra["test"].tolist() == ["T1", "T1", "T1", "T2"]


def test_several_skills_of_a_question_stand_in_one_cell(tmp_path):
    answers = read_answers(write(tmp_path))
    assert answers.skill_names == ["7", "8", "45"]
    assert answers.skill_matrix().tolist() == [[0, 2], [1, -1], [0, -1], [2, -1]]


def test_what_is_written_reads_as_the_same_table(tmp_path):
    answers = read_answers(write(tmp_path))
    again = tmp_path / "again.csv"
    write_course_csv(answers, again)
    read = read_answers(again)
    assert read.student_names == answers.student_names
    for name in ("offsets", "answer", "skill", "skill_offsets", "question", "time"):
        assert getattr(read, name).tolist() == getattr(answers, name).tolist()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("9,A1,T1,2,2020-03-24 00:17:11,7", r"train_data.csv:6: answerCode is '2'; an answer is 0 or 1, or -1"),
        ("9,A1,T1,,2020-03-24 00:17:11,7", r"train_data.csv:6: answerCode is empty"),
        ('"",A1,T1,1,2020-03-24 00:17:11,7', r"train_data.csv:6: userID is empty"),
        ("9,A1,T1,1,2020-03-24,7", r"train_data.csv:6: Timestamp is '2020-03-24'; it is written like"),
        ("9,A1,T1,1,2020-02-31 00:00:00,7", r"train_data.csv:6: Timestamp is '2020-02-31 00:00:00'"),
        ("9,A1,T1,1,2020-03-24 00:17:11,7,8", r"train_data.csv:6: 7 fields where the header has 6"),
        ("9,A1,T1,1", r"train_data.csv:6: 4 fields where the header has 6"),
        ("9,A1,T1,1,2020-03-24 00:17:11,7;;8", r"train_data.csv:6: KnowledgeTag is '7;;8'"),
    ],
)
def test_a_broken_line_is_named_with_its_fault(tmp_path, row, message):
    with pytest.raises(DataError, match=message):
        read_answers(write(tmp_path, [*ROWS, row]))


def test_a_missing_column_is_named_with_those_there_are(tmp_path):
    path = write(tmp_path, ["1,A1,1"], "userID,assessmentItemID,answerCode\n")
    with pytest.raises(DataError, match=r"column KnowledgeTag, Timestamp, testId is missing; the file has userID,"):
        read_answers(path)


def test_a_header_alone_is_no_data(tmp_path):
    with pytest.raises(DataError, match="has a header and no answers"):
        read_answers(write(tmp_path, []))
