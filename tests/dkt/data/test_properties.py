"""What holds for every table: written and read it is the same, merged twice it is merged, split it loses nothing."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dkt.data import read_answers, write_course_csv
from dkt.data.frames import from_frame, to_frame, write_parquet
from dkt.data.merge import merge_repeats
from dkt.data.protocols import PROTOCOLS
from dkt.data.splits import course_split, folds_of, split_students
from dkt.data.store import open_store, write_store
from helpers.answers import (
    NUMBER,
    ednet_folder,
    lines_file,
    pykt_sequences,
    pykt_text,
    rows_of,
    tables,
)

few = settings(max_examples=25, deadline=None)


def by_student(rows):
    """Rows with the students in ascending order, which readers of one answer a line put them in."""
    return sorted(rows, key=lambda row: row[0])


@pytest.fixture(scope="module")
def path():
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@few
@given(tables(unknown=True))
def test_the_courses_csv_reads_as_it_was_written(path, table):
    write_course_csv(replace(table, extra={"test": np.array(["T"] * len(table))}), path / "course.csv")
    assert by_student(rows_of(read_answers(path / "course.csv"))) == by_student(rows_of(table))


@few
@given(tables(names=NUMBER, most_skills=1, times=False), st.sampled_from(["index,student"]))
def test_four_lines_read_as_they_were_written(path, table, header):
    lines_file(table, path / "four.txt", header)
    assert rows_of(read_answers(path / "four.txt", "4line")) == rows_of(table)


@few
@given(tables(names=NUMBER, most_skills=1, questions=False, times=False), st.sampled_from(["count", "index,student"]))
def test_three_lines_read_as_they_were_written(path, table, header):
    lines_file(table, path / "three.txt", header)
    found = rows_of(read_answers(path / "three.txt", "3line"))
    assert [row[1:] for row in found] == [row[1:] for row in rows_of(table)]
    assert header == "count" or found == rows_of(table)


@few
@given(tables(times=True))
def test_pykts_text_reads_as_it_was_written(path, table):
    pykt_text(table, path / "data.txt")
    assert by_student(rows_of(read_answers(path / "data.txt"))) == by_student(rows_of(table))


@few
@given(tables())
def test_pykts_sequences_read_as_the_rows_they_were_cut_and_expanded_from(path, table):
    pykt_sequences(table, path / "sequences.csv")
    read = read_answers(path / "sequences.csv")
    assert by_student(rows_of(read)) == by_student(rows_of(table))
    apart = read_answers(path / "sequences.csv", merge=False)
    assert len(apart) == len(table.skill)


@few
@given(tables(unknown=True))
def test_frames_and_parquet_hold_the_whole_table(path, table):
    assert by_student(rows_of(from_frame(to_frame(table)))) == by_student(rows_of(table))
    write_parquet(table, path / "table.parquet")
    assert by_student(rows_of(read_answers(path / "table.parquet"))) == by_student(rows_of(table))


@few
@given(tables(unknown=True), st.integers(1, 3))
def test_a_store_written_in_parts_is_the_table(table, size):
    parts = [table.students(np.arange(i, min(i + size, table.n_students))) for i in range(0, table.n_students, size)]
    with tempfile.TemporaryDirectory() as folder:
        written = write_store(parts, Path(folder) / "store")
        assert rows_of(written) == rows_of(table)
        assert rows_of(open_store(Path(folder) / "store")) == rows_of(table)
        assert rows_of(read_answers(Path(folder) / "store")) == rows_of(table)
        assert set(written.skill_names) == {table.skill_names[k] for k in table.skill.tolist()}


@few
@given(tables(names=st.integers(1, 99).map("u{}".format)))
def test_ednets_folder_reads_as_it_was_written(table):
    with tempfile.TemporaryDirectory() as folder:
        ednet_folder(table, Path(folder))
        read = rows_of(read_answers(Path(folder)))
    tags: dict[str, frozenset[str]] = {}
    expected = [(s, q, tags.setdefault(q, skills), a, t) for s, q, skills, a, t in rows_of(table)]
    assert by_student(read) == by_student(expected)


@few
@given(tables())
def test_merging_keeps_each_run_once_with_all_its_skills_and_is_done_once(table):
    merged = merge_repeats(table)
    assert merged.repeats + len(merged.answers) == len(table)
    assert merged.answers.leak_free.all()
    assert {(r[0], r[1], k) for r in rows_of(merged.answers) for k in r[2]} == {
        (r[0], r[1], k) for r in rows_of(table) for k in r[2]
    }
    again = merge_repeats(merged.answers)
    assert again.repeats == 0
    assert rows_of(again.answers) == rows_of(merged.answers)


@few
@given(st.integers(6, 40), st.integers(0, 9), st.integers(3, 6))
def test_splits_and_folds_share_no_student_and_miss_none(students, seed, folds):
    table = from_frame(to_frame(one_each(students)))
    names = sorted(table.student_names)
    for parts in (split_students(table, (0.6, 0.2, 0.2), seed), course_split(table, 0.7, seed)):
        assert sorted(name for part in parts for name in part.student_names) == names
    groups = folds_of(table, folds, seed)
    assert sorted(np.concatenate(groups).tolist()) == list(range(students))
    assert max(map(len, groups)) - min(map(len, groups)) <= 1


@few
@given(tables())
def test_every_protocol_cuts_within_students_and_scores_rows_of_its_sequences(table):
    for name, protocol in PROTOCOLS.items():
        starts, lengths = protocol.sequences(table)
        covered = np.concatenate([np.arange(s, s + n) for s, n in zip(starts.tolist(), lengths.tolist())])
        assert len(np.unique(covered)) == len(covered)
        assert (table.student[starts] == table.student[starts + lengths - 1]).all()
        assert np.isin(np.flatnonzero(protocol.scored(table)), covered).all()
        assert name == "last" or len(covered) == len(table)


def one_each(students):
    """One answer of each of so many students."""
    n = students
    from dkt.data import Answers

    return Answers(
        student_names=[f"s{i}" for i in range(n)],
        offsets=np.arange(n + 1),
        answer=np.ones(n, dtype=np.int8),
        skill_names=["k"],
        skill=np.zeros(n, dtype=np.int64),
        skill_offsets=np.arange(n + 1),
    )
