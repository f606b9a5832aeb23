"""How much memory preparing data needs, at the size of the course's data and in EdNet's shape."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "dkt_data.py"


@pytest.mark.slow
def test_the_courses_size_is_read_within_a_gigabyte_and_ednets_memory_hardly_grows():
    command = [sys.executable, str(BENCHMARK), "--ednet", "1000000", "2000000"]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=290).stdout)
    assert found["course"]["rows"] == 2_300_000
    assert found["course"]["peak_mb"] <= 1000
    few, many = found["ednet"]
    assert many["rows"] > 1.9 * few["rows"]
    assert many["peak_mb"] < 1.5 * few["peak_mb"]  # twice the rows; the rest is allocators' play
    assert found["peak_mb_at_131m"] < 16_000
