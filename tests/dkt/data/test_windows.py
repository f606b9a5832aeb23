"""Sliding windows: every answer is in one, none crosses a student, the last one ends with the history."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkt.data.table import cumulated
from dkt.data.windows import Windows


def test_windows_of_a_known_history():
    starts, lengths = Windows.of("4:3").cut(np.array([0, 2, 12]))
    assert list(zip(starts.tolist(), (starts + lengths).tolist(), strict=True)) == [(0, 2), (2, 6), (5, 9), (8, 12)]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=5), st.integers(1, 9), st.integers(1, 9))
def test_windows_cover_each_student_and_end_with_them(histories, length, stride):
    offsets = cumulated(np.array(histories))
    starts, lengths = Windows(length, min(stride, length)).cut(offsets)
    rows = np.concatenate([np.arange(start, start + n) for start, n in zip(starts, lengths, strict=True)])
    assert set(rows.tolist()) == set(range(int(offsets[-1])))
    assert ((lengths >= 1) & (lengths <= length)).all()
    student = np.searchsorted(offsets, starts, side="right")
    assert np.array_equal(student, np.searchsorted(offsets, starts + lengths - 1, side="right"))
    assert set(offsets[1:].tolist()) <= set((starts + lengths).tolist())


@pytest.mark.parametrize(
    ("text", "message"),
    [("20", "LENGTH:STRIDE"), ("0:1", "at least 1"), ("5:9", "would skip answers"), ("a:b", "'a:b'")],
)
def test_what_is_no_window_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        Windows.of(text)
