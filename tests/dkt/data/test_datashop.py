"""DataShop's tables and KDD Cup 2010's, as their help describes them."""

from __future__ import annotations

import pytest

from dkt.data import DataError, read_answers
from helpers.answers import rows_of

KDD = (
    "Row\tAnon Student Id\tProblem Hierarchy\tProblem Name\tProblem View\tStep Name\tStep Start Time\t"
    "First Transaction Time\tCorrect Transaction Time\tStep End Time\tStep Duration (sec)\t"
    "Correct Step Duration (sec)\t"
    "Error Step Duration (sec)\tCorrect First Attempt\tIncorrects\tHints\tCorrects\tKC(Default)\tOpportunity(Default)"
)


def kdd(row, student, problem, step, time, correct, kc):
    times = "\t".join([time] * 4)
    return f'{row}\t{student}\tUnit "A", 1\t{problem}\t1\t{step}\t{times}\t5\t5\t\t{correct}\t0\t0\t1\t{kc}\t1'


def write(path, *lines):
    path.write_text("\n".join(lines) + "\n")
    return path


def test_kdd_cups_steps_have_sets_of_skills_and_are_in_order_of_time(tmp_path):
    rows = [
        kdd(2, "0BrbPbwCMz", "EG4", "3(x+2)", "2005-09-09 12:26:00.0", 0, "[SkillRule: a]~~[SkillRule: b]"),
        kdd(1, "0BrbPbwCMz", "EG4", "x+2", "2005-09-09 12:25:15.0", 1, "[SkillRule: a]"),
        kdd(3, "0BrbPbwCMz", "EG4", "end", "2005-09-09 12:27:00.0", 1, ""),
    ]
    answers = read_answers(write(tmp_path / "train.txt", KDD, *rows))
    assert [row[1:] for row in rows_of(answers)] == [
        ("EG4/x+2", {"[SkillRule: a]"}, 1, 1126268715),
        ("EG4/3(x+2)", {"[SkillRule: a]", "[SkillRule: b]"}, 0, 1126268760),
    ]
    assert answers.notes == (
        "skills are those of the column KC(Default)",
        "1 of 3 rows have no skill and were left out",
    )


def test_kdd_cups_test_rows_without_an_answer_are_to_be_predicted(tmp_path):
    rows = [kdd(1, "s", "P", "a", "", 1, "k"), kdd(2, "s", "P", "b", "", "", "k")]
    answers = read_answers(write(tmp_path / "test.txt", KDD, *rows))
    assert answers.answer.tolist() == [1, -1]
    assert answers.time is None


STEPS = (
    "Row\tSample\tAnon Student Id\tProblem Name\tStep Name\tFirst Transaction Time\tFirst Attempt\t"
    "KC (F2011)\tKC (Single)"
)


def test_a_hint_first_is_a_wrong_answer_and_the_first_skill_model_is_taken_and_said(tmp_path):
    rows = [
        "1\tAll\tS1\tP1\ta\t2011-09-21 17:35:22\tcorrect\tforces\tall",
        "2\tAll\tS1\tP1\tb\t2011-09-21 17:35:23\thint\tforces~~angles\tall",
        "3\tAll\tS1\tP1\tc\t2011-09-21 17:35:24\tincorrect\tangles\tall",
    ]
    path = write(tmp_path / "steps.txt", STEPS, *rows)
    answers = read_answers(path)
    assert answers.answer.tolist() == [1, 0, 0]
    assert answers.skill_names == ["angles", "forces"]
    assert answers.notes == ("skills are those of the column KC (F2011); there are also KC (Single)",)
    assert read_answers(path, skills="KC (Single)").skill_names == ["all"]
    assert read_answers(path, skills="Step Name").skill_names == ["a", "b", "c"]


def test_a_table_with_commas_and_dates_of_a_spreadsheet_is_read(tmp_path):
    rows = ['1,All,S1,"P1, part 2",a,2011/9/21 17:35,correct,forces,all']
    answers = read_answers(write(tmp_path / "AllData.csv", STEPS.replace("\t", ","), *rows))
    assert rows_of(answers) == [("S1", "P1, part 2/a", {"forces"}, 1, 1316626500)]


TRANSACTIONS = (
    "Row\tAnon Student Id\tTime\tProblem Name\tStep Name\tAttempt At Step\tOutcome\tKC (A)\tKC Category (A)\tKC (A)"
)


def test_of_transactions_the_first_attempts_with_an_outcome_count_and_skills_of_equal_columns_join(tmp_path):
    rows = [
        "1\tS1\t2011-09-21 17:35:22\tP\ta\t1\tINCORRECT\tk1\t\tk2",
        "2\tS1\t2011-09-21 17:35:25\tP\ta\t2\tCORRECT\tk1\t\tk2",
        "3\tS1\t2011-09-21 17:35:28\tP\tb\t1\tOK\tk2\t\t",
        "4\tS1\t2011-09-21 17:35:29\tP\tb\t\tUNTUTORED\tk2\t\t",
    ]
    answers = read_answers(write(tmp_path / "tx.txt", TRANSACTIONS, *rows))
    assert [row[1:4] for row in rows_of(answers)] == [("P/a", {"k1", "k2"}, 0), ("P/b", {"k2"}, 1)]
    assert "2 of 4 rows are no first attempt with an outcome and were left out" in answers.notes


def test_without_a_skill_model_the_way_out_is_named(tmp_path):
    header = STEPS.partition("\tKC")[0]
    path = write(tmp_path / "steps.txt", header, "1\tAll\tS1\tP1\ta\t2011-09-21 17:35:22\tcorrect")
    with pytest.raises(DataError, match=r"no column KC \(\.\.\.\).*--skills 'Step Name'"):
        read_answers(path)
    assert read_answers(path, skills="Step Name").skill_names == ["a"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            kdd(1, "s", "P", "a", "yesterday", 1, "k"),
            r"t.txt:3: First Transaction Time is 'yesterday'; it is written like",
        ),
        (kdd(1, "s", "P", "a", "2005-09-09 12:25:15.0", "maybe", "k"), r"t.txt:3: Correct First Attempt is 'maybe'"),
        (kdd(1, "s", "P", "", "2005-09-09 12:25:15.0", 1, "k"), r"t.txt:3: Step Name is empty"),
        (kdd(1, "", "P", "a", "2005-09-09 12:25:15.0", 1, "k"), r"t.txt:3: Anon Student Id is empty"),
    ],
)
def test_a_broken_line_is_named_with_its_fault(tmp_path, row, message):
    good = kdd(1, "s", "P", "a", "2005-09-09 12:25:15.0", 1, "k")
    with pytest.raises(DataError, match=message):
        read_answers(write(tmp_path / "t.txt", KDD, good, row))
