"""The fault matrix: whatever happens to one process, the run ends soon, says why once, and leaves nothing behind."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import torch

from helpers.faults import CASES, PROGRAM, Case, run_case
from helpers.programs import Program, run_program

pytestmark = [pytest.mark.multi, pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_the_run_ends_soon_says_why_once_and_leaves_nothing(case: Case, tmp_path: Path) -> None:
    ended = run_case(case, tmp_path)
    if not case.in_time(ended):  # the machine may have had other work to do; late twice is our doing
        ended = run_case(case, tmp_path / "again")
    said = ended.out + ended.err
    assert ended.code == case.code, said
    for pattern in case.says:
        assert re.search(pattern, said), f"{pattern!r} is not in what was printed:\n{said}"
    if case.once:
        assert said.count(case.once) == 1, said
    assert not ended.left, f"still there: {ended.left}\n{said}"
    assert not ended.files, ended.files
    assert case.in_time(ended), f"{ended.others} and {ended.after} s after the fault:\n{said}"


def test_a_failure_found_in_the_last_moment_of_rank_zero_is_told(tmp_path: Path) -> None:
    """The rank that failed takes its time to leave, and rank 0 has come to the end of the program meanwhile."""
    script = PROGRAM.replace(
        'if case == "after fit" and rank() == 0: time.sleep(3)',
        """if rank() == 0:
        from fulgurite.machine import supervise
        while supervise.script_ranks.told is None: time.sleep(0.001)
    import atexit
    if rank() == 1: atexit.register(time.sleep, 1)""",
    )
    ended = run_program(script, "after fit", "ddp", "2", folder=tmp_path)
    assert ended.code == 1 and ended.err.count("[rank 1] ValueError: boom after fit") == 1, ended.out + ended.err
    assert not ended.left and not ended.files


@pytest.mark.parametrize("late", ["0", "1"])
def test_the_exit_code_of_the_program_itself_is_kept(tmp_path: Path, late: str) -> None:
    """Whichever rank comes to its end first."""
    script = PROGRAM + f"    time.sleep(2 if rank() == {late} else 0.5)\n    print('after it')\n    sys.exit(3)\n"
    ended = run_program(script, "", "ddp", "2", folder=tmp_path)
    assert ended.code == 3 and ended.out.count("after it") == 2, ended.out + ended.err
    assert "exit code" not in ended.err and not ended.left


@pytest.mark.parametrize("code", [0, 3])
def test_ranks_wait_for_one_whose_teardown_takes_its_time(tmp_path: Path, code: int) -> None:
    slow = "    def teardown(self, stage): time.sleep(2 * (rank() == 0))\n    def setup(self, stage):\n"
    script = PROGRAM.replace("    def setup(self, stage):\n", slow) + f"    sys.exit({code})\n"
    ended = run_program(script, "", "ddp", "2", folder=tmp_path)
    said = [line for line in ended.err.splitlines() if not line.startswith("Trained ")]
    assert ended.code == code and ended.out.count("after fit") == 2 and not said, ended.out + ended.err


def test_an_exception_of_all_ranks_that_the_program_catches_leaves_rank_zero_alone(tmp_path: Path) -> None:
    again = """    except ValueError:
        trainer.fit(Net(), DataLoader(Data(), 4))
"""
    fit = "    trainer.fit(Net(), DataLoader(Data(), 4, num_workers=workers), DataLoader(Data(), 4))\n"
    script = PROGRAM.replace(fit, "    try:\n    " + fit + again)
    assert script != PROGRAM
    ended = run_program(script, "training, all ranks", "ddp", "2", folder=tmp_path)
    assert ended.code == 1 and not ended.left, ended.out + ended.err
    assert ended.err.count("although the program caught it") == 1, ended.out + ended.err
    assert "trainer.should_stop = True" in ended.err
    assert "ValueError: boom" in ended.err


def test_after_a_full_disk_the_checkpoint_before_is_whole(tmp_path: Path) -> None:
    (case,) = (case for case in CASES if case.name == "disk full")
    run_case(case, tmp_path)
    (saved,) = (tmp_path / "saved").iterdir()
    assert torch.load(saved, weights_only=True)["epoch"] == 0


def test_a_rendezvous_where_nobody_is_any_more_is_an_error_that_says_so(tmp_path: Path) -> None:
    """The variables of an earlier run are still in the environment."""
    from helpers.processes import free_port

    left_over = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1"}
    with Program(
        PROGRAM, "none", "ddp", "2", folder=tmp_path, **left_over, MASTER_PORT=str(free_port()), SECONDS="3"
    ) as program:
        ended = program.finish(60)
    assert ended.code == 1
    assert re.search(r"rank 1 .*nobody.* at MASTER_ADDR=127.0.0.1.*unset RANK", ended.err, re.DOTALL), ended.err


def test_a_rank_zero_to_which_nobody_comes_says_who_is_missing(tmp_path: Path) -> None:
    from helpers.processes import free_port

    alone = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
    with Program(
        PROGRAM, "none", "ddp", "2", folder=tmp_path, **alone, MASTER_PORT=str(free_port()), SECONDS="3"
    ) as program:
        ended = program.finish(60)
    assert ended.code == 1
    assert re.search(r"rank 0 was at .*not all 2 processes came: .*1/2", ended.err), ended.err


def test_a_shared_memory_file_would_be_noticed() -> None:
    """The check itself: what it looks at exists."""
    assert Path("/dev/shm").is_dir() and os.access("/proc/self/environ", os.R_OK)
