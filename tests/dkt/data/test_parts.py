"""Files larger than memory: parts by student make the table that reading at once makes."""

from __future__ import annotations

import numpy as np
import pytest

from dkt.data import DataError, read_answers, write_parquet
from dkt.data import parts as module
from dkt.data.parts import Parts
from dkt.data.simulate import simulate, write_school
from dkt.data.store import write_store
from helpers.answers import rows_of

HEADER = "user_id,log_id,sequence_id,correct\n"


@pytest.fixture(scope="module")
def school(tmp_path_factory):
    answers, truth = simulate(students=40, questions=40, skills=6, concepts=2, answers_per_student=20)
    folder = tmp_path_factory.mktemp("school")
    return write_school(answers, truth, folder)["train"]


def by_student(rows):
    return sorted(rows, key=lambda row: row[0])


@pytest.mark.parametrize(
    ("number", "rows_at_once"), [(1, 10_000), (3, 100), pytest.param(64, 7, marks=pytest.mark.slow)]
)
def test_parts_of_any_number_hold_every_row_once(school, tmp_path, monkeypatch, number, rows_at_once):
    monkeypatch.setattr(module, "ROWS_AT_ONCE", rows_at_once)
    lines = school.read_text().splitlines()
    order = np.random.default_rng(0).permutation(len(lines) - 1) + 1  # students are spread over the whole file
    mixed = tmp_path / "mixed.csv"
    mixed.write_text("\n".join([lines[0], *(lines[i] for i in order)]) + "\n")
    whole = read_answers(school)
    parts = list(Parts(mixed, "course", number))
    assert len(parts) == min(number, len(parts))
    stored = write_store(parts, tmp_path / "store")
    assert by_student(rows_of(stored)) == by_student(rows_of(whole))
    assert stored.skill_names == whole.skill_names
    assert stored.question_names == whole.question_names


def test_parquet_files_are_parts(school, tmp_path):
    whole = read_answers(school)
    for i in range(2):
        write_parquet(whole.students(np.arange(i, whole.n_students, 2)), tmp_path / f"{i}.parquet")
    stored = write_store(Parts(tmp_path, "parquet", 1), tmp_path / "store")
    assert by_student(rows_of(stored)) == by_student(rows_of(whole))


def test_what_was_left_out_is_said_of_each_part(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(HEADER + "".join(f"{s},{i},7,{0.5 if i == 2 else 1}\n" for s in range(4) for i in range(s, 4)))
    source = Parts(path, "assist2015", 64)
    assert sum(map(len, source)) == 7
    assert len(source.notes()) == 3
    assert all("1 of " in note and "between right and wrong" in note for note in source.notes())
    alone = tmp_path / "b.csv"
    alone.write_text(HEADER + "1,1,7,0.5\n2,2,7,1\n")
    source = Parts(alone, "assist2015", 64)
    assert [len(part) for part in source] == [1]
    assert "no answers are left: 1 of 1 rows have an answer between" in source.notes()[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,1,7,1\n2,2,7,x\n", r"a.csv:3: correct is 'x'"),
        ("1,1,7,1\n,2,7,1\n", r"a.csv:3: user_id is empty"),
        ("1,1,7,1\n2,2,7,1,9\n", r"a.csv:3: 5 fields where the header has 4"),
        ("1,1,7,1\n\n2,2,7,1\n", r"a.csv:3: 0 fields where the header has 4"),
    ],
)
@pytest.mark.parametrize("rows_at_once", [1, 100])
def test_a_broken_line_is_named_with_its_number_in_the_file(tmp_path, monkeypatch, text, message, rows_at_once):
    monkeypatch.setattr(module, "ROWS_AT_ONCE", rows_at_once)
    path = tmp_path / "a.csv"
    path.write_text(HEADER + text)
    with pytest.raises(DataError, match=message):
        list(Parts(path, "assist2015", 4))


def test_empty_lines_at_the_end_are_no_rows(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(HEADER + "1,1,7,1\n\n\n")
    assert sum(map(len, Parts(path, "assist2015", 4))) == 1


def test_formats_that_cannot_be_read_in_parts_are_named(tmp_path):
    with pytest.raises(ValueError, match="of format 4line cannot be read in parts; these can: ednet, parquet, course"):
        Parts(tmp_path / "a.txt", "4line", 4)
