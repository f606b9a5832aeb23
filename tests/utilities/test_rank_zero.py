from __future__ import annotations

import logging
import os
import subprocess
import sys
import warnings

import pytest

from fulgurite.utilities import rank_zero
from fulgurite.utilities.rank_zero import (
    rank_prefixed_message,
    rank_zero_deprecation,
    rank_zero_info,
    rank_zero_only,
    rank_zero_warn,
    warn_once,
)


@pytest.fixture
def rank_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", 1)


def test_a_decorated_function_runs_on_rank_zero_only(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = rank_zero_only(lambda: "here")
    elsewhere = rank_zero_only(lambda: "here", default="there")
    assert (answer(), elsewhere()) == ("here", "here")
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    assert (answer(), elsewhere()) == (None, "there")


def test_a_warning_points_at_the_users_line() -> None:
    with pytest.warns(UserWarning, match="look") as caught:
        rank_zero_warn("look")
    assert caught[0].filename == __file__


def test_other_ranks_are_silent(rank_one: None, caplog: pytest.LogCaptureFixture) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rank_zero_warn("no")
        rank_zero_deprecation("no")
        warn_once("no")
    rank_zero_info("no")
    assert not caplog.records


def test_info_reaches_handlers_of_the_program(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="fulgurite"):
        rank_zero_info("seeded %d", 3)
    assert caplog.messages == ["seeded 3"]


@pytest.mark.slow
def test_info_is_shown_where_logging_is_not_set_up() -> None:
    code = "from fulgurite.utilities.rank_zero import rank_zero_info; rank_zero_info('hello')"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment).stderr
    assert shown == "hello\n"


def test_an_old_name_warns_in_a_category_that_python_shows() -> None:
    with pytest.warns(FutureWarning, match="write devices=1"):
        rank_zero_deprecation("write devices=1")


def test_a_warning_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_zero, "_warned", set())
    with pytest.warns(UserWarning) as caught:
        warn_once("a")
        warn_once("a")
        warn_once("b 1", key="b")
        warn_once("b 2", key="b")
    assert [str(w.message) for w in caught] == ["a", "b 1"]


@pytest.mark.parametrize(
    ("variables", "rank"),
    [({}, 0), ({"RANK": "2", "LOCAL_RANK": "1"}, 2), ({"SLURM_PROCID": "3"}, 3), ({"RANK": ""}, 0)],
)
def test_the_first_rank_comes_from_the_launcher(
    variables: dict[str, str], rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
            patch.delenv(name, raising=False)
        for name, value in variables.items():
            patch.setenv(name, value)
        assert rank_zero._rank_from_environment() == rank


def test_a_message_may_carry_its_rank() -> None:
    assert rank_prefixed_message("x", 1) == "[rank: 1] x"
    assert rank_prefixed_message("x", None) == "x"
