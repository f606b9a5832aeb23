"""A store: what it refuses, and that its arrays are mapped and not read."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from dkt.data import DataError, read_answers, store
from dkt.data.simulate import simulate
from dkt.data.store import INDEX, write_store


@pytest.fixture(scope="module")
def answers():
    return simulate(students=20, questions=40, skills=6, concepts=2, answers_per_student=10)[0]


def test_arrays_are_mapped_and_extra_columns_are_kept(answers, tmp_path):
    write_store([answers], tmp_path / "store")
    mapped = read_answers(tmp_path / "store")
    for name in ("answer", "question", "skill", "skill_offsets", "time", "offsets"):
        assert isinstance(getattr(mapped, name), np.memmap)
    assert mapped.extra["truth"].tolist() == answers.extra["truth"].tolist()
    assert mapped.extra["test"].tolist() == answers.extra["test"].tolist()


def test_a_store_is_never_written_over(answers, tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "mine.txt").write_text("x")
    with pytest.raises(FileExistsError, match="store is not empty; name a new folder"):
        write_store([answers], tmp_path / "store")


def test_an_interrupted_store_is_none(answers, tmp_path):
    write_store([answers], tmp_path / "store")
    (tmp_path / "store" / INDEX).unlink()
    with pytest.raises(IsADirectoryError, match=r"without EdNet's u1.csv, ..., \*.parquet or a store in it"):
        read_answers(tmp_path / "store")


def test_a_store_of_another_version_is_refused(answers, tmp_path):
    write_store([answers], tmp_path / "store")
    index = tmp_path / "store" / INDEX
    index.write_text(json.dumps({**json.loads(index.read_text()), "version": 99}))
    with pytest.raises(DataError, match="is a store of version 99; this dkt reads version 1"):
        read_answers(tmp_path / "store")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda t: t, r"student 0 is in two parts of the data"),
        (lambda t: replace(t, student_names=[f"x{n}" for n in t.student_names], time=None), r"time is in some parts"),
        (
            lambda t: replace(t, student_names=[f"x{n}" for n in t.student_names], time=t.time.astype(float)),
            r"time is float64 in one part of the data and int64 in an earlier one",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused(answers, tmp_path, other, message):
    with pytest.raises(DataError, match=message):
        write_store([answers, other(answers)], tmp_path / "store")


@pytest.mark.parametrize("gap_first", [False, True])
def test_a_further_column_is_of_numbers_where_one_part_has_a_gap(answers, tmp_path, monkeypatch, gap_first):
    monkeypatch.setattr(store, "BLOCK", 7)
    whole, gap = np.arange(len(answers)), np.arange(len(answers), dtype=float)
    gap[3] = np.nan
    first, second = (gap, whole) if gap_first else (whole, gap)
    other = replace(answers, student_names=[f"x{n}" for n in answers.student_names], extra={"age": second})
    found = write_store([replace(answers, extra={"age": first}), other], tmp_path / "store")
    assert np.array_equal(found.extra["age"], np.concatenate([first, second]), equal_nan=True)
    assert sorted(path.suffix for path in (tmp_path / "store").iterdir()) == [".json", *[".npy"] * 7]


def test_a_further_column_of_text_in_one_part_and_numbers_in_another_is_refused(answers, tmp_path):
    texts, numbers = np.full(len(answers), "x"), np.arange(len(answers))
    for first, second in ((texts, numbers), (numbers, texts)):
        other = replace(answers, student_names=[f"x{n}" for n in answers.student_names], extra={"age": second})
        with pytest.raises(DataError, match="extra.age is text in some parts of the data and numbers in others"):
            write_store([replace(answers, extra={"age": first}), other], tmp_path / "store")
        assert not (tmp_path / "store").exists()


def test_no_answers_are_no_store(tmp_path):
    with pytest.raises(DataError, match="there are no answers to write"):
        write_store([], tmp_path / "store")


def test_writing_needs_the_memory_of_one_part_however_many_there_are(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "BLOCK", 10_000)

    def peak(n):
        def parts():
            for i in range(n):
                yield replace(part, student_names=[f"{i}-{name}" for name in part.student_names])

        tracemalloc.start()
        write_store(parts(), tmp_path / str(n))
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    part, _ = simulate(students=60, questions=400, skills=6, concepts=2, answers_per_student=300)
    del part.extra["test"]  # text is not mapped
    assert peak(12) < 1.2 * peak(3)  # names of students are all kept, and few here
