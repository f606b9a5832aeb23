"""Finding the format of a file, and what is said of files that are none."""

from __future__ import annotations

import gzip

import polars as pl
import pytest

from dkt.data import DataError, from_frame, read_answers

COURSE = "userID,assessmentItemID,testId,answerCode,Timestamp,KnowledgeTag\n"
ROW = "9,A1,T1,0,2020-03-24 00:17:11,7\n"


def write(tmp_path, name, data):
    path = tmp_path / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbf" + (COURSE + ROW).encode(),
        (COURSE + ROW).replace("\n", "\r\n"),
        COURSE + ROW.replace("9", '"9"', 1),
        COURSE + ROW + "\n\n",
        COURSE + ROW.rstrip(),
    ],
    ids=["byte order mark", "CRLF", "quoted", "empty lines at the end", "no line end"],
)
def test_variants_of_a_file_are_the_same_answers(tmp_path, data):
    answers = read_answers(write(tmp_path, "a.csv", data))
    assert (answers.student_names, answers.skill_names, len(answers)) == (["9"], ["7"], 1)


def test_spaces_around_a_skill_are_not_part_of_its_name(tmp_path):
    answers = read_answers(write(tmp_path, "a.csv", COURSE + ROW + ROW.replace(",7\n", ",7; 8\n")))
    assert answers.skill_names == ["7", "8"]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.csv.gz", gzip.compress(b"x", mtime=0), r"a.csv.gz is compressed; unpack it"),
        ("a.zip", b"PK\x03\x04....", r"a.zip is compressed; unpack it"),
        ("a.parquet", b"PAR1....", r"a.parquet is no Parquet that can be read"),
        ("a.parquet", b"hello", r"the format is not recognised; line 1 is 'hello'"),
        (
            "u1.csv",
            "timestamp,solving_id,question_id,user_answer,elapsed_time\n1,1,q1,a,1\n",
            r"one student of EdNet-KT1; name the folder",
        ),
        ("a.csv", COURSE.replace("testId", "testId,userID") + ROW.replace("T1", "T1,8"), r"there are 2 columns userID"),
        ("a.csv", (COURSE + ROW.replace("T1", "\u00e9")).encode("latin-1"), r"a.csv:2: not UTF-8 text"),
        ("a.csv", (COURSE + ROW).replace(",", ";"), r"the format is not recognised; line 1 is 'userID;assess"),
    ],
)
def test_what_is_no_file_of_answers_is_said(tmp_path, name, data, message):
    with pytest.raises(DataError, match=message):
        read_answers(write(tmp_path, name, data))


def test_an_unknown_format_is_named_with_those_there_are(tmp_path):
    with pytest.raises(ValueError, match="format='excel' is unknown; choose one of course, assist2009"):
        read_answers(write(tmp_path, "a.csv", COURSE + ROW), "excel")


def test_an_empty_frame_has_no_answers():
    with pytest.raises(DataError, match="there are no rows"):
        from_frame(pl.DataFrame({"student": [], "answer": [], "skills": []}))


def test_merge_true_merges_what_nothing_marks(tmp_path):
    path = write(tmp_path, "a.txt", "0,71\n10,10,11\n5,6,6\n1,1,0\n")
    assert len(read_answers(path)) == 3
    merged = read_answers(path, merge=True)
    assert merged.skill_matrix().tolist() == [[0, 1], [1, -1]]
    assert "1 of 3 rows repeat the question of the row before" in merged.notes[-1]
