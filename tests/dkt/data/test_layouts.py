"""The raw files of ASSISTments as they are published: what is merged, what is left out, what is refused."""

from __future__ import annotations

import pytest

from dkt.data import DataError, read_answers
from helpers.answers import rows_of

HEADER_2009 = (
    "order_id,assignment_id,user_id,assistment_id,problem_id,original,correct,attempt_count,ms_first_response,tutor_mode,"
    "answer_type,sequence_id,student_class_id,position,type,base_sequence_id,skill_id,skill_name,teacher_id,school_id,"
    "hint_count,hint_total,overlap_time,template_id,answer_id,answer_text,first_action,bottom_hint,opportunity,"
    "opportunity_original"
)


def row_2009(order, user, problem, correct, skill, text="26"):
    return (
        f"{order},277618,{user},33139,{problem},1,{correct},1,32454,tutor,algebra,5948,13241,126,MasterySection,5948,"
        f"{skill},Name,22763,73,0,3,32454,30799,,{text},0,,1,1"
    )


def write(path, *lines, encoding="utf-8"):
    path.write_bytes(("\n".join(lines) + "\n").encode(encoding))
    return path


def test_2009_merges_the_rows_of_one_order_id_and_sorts_by_it(tmp_path):
    rows = [row_2009(30, 7, 51, 0, 9), row_2009(10, 7, 50, 1, 1), row_2009(10, 7, 50, 1, 2), row_2009(20, 7, 51, 1, 9)]
    answers = read_answers(write(tmp_path / "a.csv", HEADER_2009, *rows))
    assert [row[:4] for row in rows_of(answers)] == [
        ("7", "50", {"1", "2"}, 1),
        ("7", "51", {"9"}, 1),
        ("7", "51", {"9"}, 0),
    ]
    assert answers.extra["elapsed"].tolist() == pytest.approx([32.454] * 3)
    assert answers.notes == (
        "1 of 4 rows have the order_id of the row before and were merged into it "
        "(0 of them with another answer, of which the first is kept)",
    )


def test_2009_can_be_read_expanded(tmp_path):
    rows = [row_2009(10, 7, 50, 1, 1), row_2009(10, 7, 50, 1, 2)]
    answers = read_answers(write(tmp_path / "a.csv", HEADER_2009, *rows), merge=False)
    assert len(answers) == 2
    assert answers.leak_free.tolist() == [True, False]


def test_2009_collapsed_names_several_skills_in_one_cell(tmp_path):
    answers = read_answers(write(tmp_path / "a.csv", f",{HEADER_2009}", "0," + row_2009(10, 7, 50, 1, "279_280")))
    assert rows_of(answers)[0][2] == {"279", "280"}


def test_2009_rows_without_a_skill_are_left_out_and_counted(tmp_path):
    rows = [row_2009(10, 7, 50, 1, ""), row_2009(11, 7, 51, 1, 5)]
    answers = read_answers(write(tmp_path / "a.csv", HEADER_2009, *rows))
    assert len(answers) == 1
    assert answers.notes == ("1 of 2 rows have no skill and were left out",)


def test_2009_holds_text_of_other_encodings_and_line_breaks(tmp_path):
    rows = [row_2009(10, 7, 50, 1, 5, '"caf\u00e9\nau lait"'), row_2009(11, 7, 51, "x", 5)]
    with pytest.raises(DataError, match=r"a.csv:4: correct is 'x'; an answer is 0 or 1\."):
        read_answers(write(tmp_path / "a.csv", HEADER_2009, *rows, encoding="latin-1"))
    answers = read_answers(write(tmp_path / "a.csv", HEADER_2009, rows[0], encoding="latin-1"))
    assert len(answers) == 1


def test_2009_by_names_of_skills(tmp_path):
    answers = read_answers(write(tmp_path / "a.csv", HEADER_2009, row_2009(10, 7, 50, 1, 5)), skills="skill_name")
    assert answers.skill_names == ["Name"]


def test_2012_is_in_the_order_of_start_time_and_partial_credit_is_left_out(tmp_path):
    header = (
        "problem_log_id,skill,problem_id,user_id,assignment_id,start_time,end_time,correct,skill_id,ms_first_response"
    )
    rows = [
        "3,Area,81,9,1,2012-09-28 15:11:30.5,2012-09-28 15:12:00,1,44,1500",
        "1,Area,80,9,1,2012-09-28 15:11:27,2012-09-28 15:11:30,0,44,",
        "2,Area,82,9,1,2012-09-28 15:11:28,2012-09-28 15:11:30,0.25,44,900",
        "4,,83,9,1,2012-09-28 15:11:29,2012-09-28 15:11:30,1,,900",
    ]
    answers = read_answers(write(tmp_path / "a.csv", header, *rows))
    assert [row[1:4] for row in rows_of(answers)] == [("80", {"44"}, 0), ("81", {"44"}, 1)]
    assert answers.time.tolist() == [1348845087, 1348845090]
    assert answers.extra["elapsed"].tolist()[1] == 1.5
    assert answers.notes == (
        "1 of 4 rows have no skill and were left out",
        "1 of 4 rows have an answer between right and wrong and were left out",
    )


def test_2015_has_sequences_for_skills_and_no_questions(tmp_path):
    rows = ["50121,167478035,7014,0", "50121,167478043,7014,0.5", "50121,167478040,7015,1"]
    answers = read_answers(write(tmp_path / "a.csv", "user_id,log_id,sequence_id,correct", *rows))
    assert rows_of(answers) == [("50121", None, {"7014"}, 0, None), ("50121", None, {"7015"}, 1, None)]


def test_2017_is_in_the_order_of_start_time(tmp_path):
    header = "ITEST_id,SY ASSISTments Usage,AveKnow,studentId,actionId,skill,problemId,startTime,timeTaken,correct"
    rows = [
        "8,2004-2005,0.3,8,9950,properties-of-geometric-figures,1022,1096470350,9.575,1",
        "8,2004-2005,0.3,8,9951,sum-of-interior-angles,1021,1096470301,49,0",
    ]
    answers = read_answers(write(tmp_path / "a.csv", header, *rows))
    assert [row[1] for row in rows_of(answers)] == ["1021", "1022"]
    assert answers.time.tolist() == [1096470301, 1096470350]
    assert answers.extra["elapsed"].tolist() == pytest.approx([49, 9.575])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (row_2009("", 7, 50, 1, 1), r"a.csv:3: order_id is empty"),
        (row_2009("x", 7, 50, 1, 1), r"a.csv:3: order_id is 'x'; a whole number is expected"),
        (row_2009(10, "", 50, 1, 1), r"a.csv:3: user_id is empty"),
        (row_2009(10, 7, " ", 1, 1), r"a.csv:3: problem_id is empty"),
        (row_2009(10, 7, 50, 2, 1), r"a.csv:3: correct is '2'; an answer is 0 or 1\."),
        (row_2009(10, 7, 50, 1, "1__2"), r"a.csv:3: skill_id is '1__2'; skills are written like 7 or 7_45"),
        (
            row_2009(10, 7, 50, 1, 1) + ",9",
            r"a.csv:3: 31 fields where the header has 30 \(order_id,assignment_id,.*\.\.\.",
        ),
    ],
)
def test_a_broken_line_is_named_with_its_fault(tmp_path, row, message):
    with pytest.raises(DataError, match=message):
        read_answers(write(tmp_path / "a.csv", HEADER_2009, row_2009(1, 7, 50, 1, 1), row))


def test_when_every_row_is_left_out_it_says_why(tmp_path):
    with pytest.raises(DataError, match="no answers are left: 1 of 1 rows have no skill"):
        read_answers(write(tmp_path / "a.csv", HEADER_2009, row_2009(1, 7, 50, 1, "")))


def test_further_columns_of_the_courses_csv_are_kept_as_numbers_or_text(tmp_path):
    header = "userID,assessmentItemID,testId,answerCode,Timestamp,KnowledgeTag,rate,code,note"
    rows = ["1,A1,007,1,2020-03-24 00:17:11,7,0.5,01,x", "1,A2,007,0,2020-03-24 00:17:12,7,,02,y"]
    extra = read_answers(write(tmp_path / "a.csv", header, *rows)).extra
    assert extra["rate"][0] == 0.5
    assert extra["rate"].dtype == float
    assert extra["code"].tolist() == ["01", "02"]
    assert extra["test"].tolist() == ["007", "007"]
    assert extra["note"].tolist() == ["x", "y"]


def test_ids_with_leading_zeros_are_ids_of_their_own(tmp_path):
    answers = read_answers(
        write(tmp_path / "a.csv", HEADER_2009, row_2009(1, "7", 50, 1, 1), row_2009(2, "07", 50, 1, 1))
    )
    assert answers.student_names == ["07", "7"]
