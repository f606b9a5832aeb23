"""Run a whole program that starts processes of its own, and look for what it leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

SRC = Path(__file__).parents[2] / "src"
MARK = "FULGURITE_TEST_PROGRAM"  # in the environment of all processes of one program
# A program starts without a rank; and buffered, for then each print is one write, and no two processes' lines mix.
UNSET = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT", "PYTHONUNBUFFERED")
HEAD = """
import os, signal, sys, time, warnings
warnings.simplefilter("ignore")
import torch
torch.set_num_threads(1)
def rank(): return int(os.environ.get("RANK", 0))
def fault():
    with open("fault-at", "w") as file: file.write(str(time.monotonic()))
"""


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


@dataclass
class Ended:
    """How a program ended."""

    code: int
    out: str
    err: str
    seconds: float  # from its start
    after: float | None  # from the moment the script called fault(), or was sent a signal, to the end of all processes
    others: float | None  # to the end of all but the one that was started
    left: list[str] = field(default_factory=list)  # processes that live on
    files: list[str] = field(default_factory=list)  # in /dev/shm


class Program:
    """`with Program(script) as program`: started on entering, and nothing of it is left on leaving."""

    def __init__(
        self, script: str, *arguments: str, folder: Path | None = None, command: tuple[str, ...] = (), **environ: str
    ) -> None:
        self.folder = Path.cwd() if folder is None else folder
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "program.py").write_text(HEAD + script)
        self.mark = uuid.uuid4().hex
        path = os.pathsep.join([str(SRC), *filter(None, [environ.pop("PYTHONPATH", "")])])
        clean = {k: v for k, v in os.environ.items() if k not in UNSET}
        self.environ = {
            **clean,
            "OMP_NUM_THREADS": "1",
            "GLOO_SOCKET_IFNAME": "lo",
            "PYTHONPATH": path,
            MARK: self.mark,
            **environ,
        }
        self.command = [*(command or (sys.executable, "program.py")), *arguments]
        self.signalled: float | None = None

    def __enter__(self) -> Program:
        self._shm = set(os.listdir("/dev/shm"))
        self._out, self._err = (self.folder / "stdout").open("w"), (self.folder / "stderr").open("w")
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            self.command,
            env=self.environ,
            cwd=self.folder,
            stdout=self._out,
            stderr=self._err,
            start_new_session=True,
            # a shell's background jobs, and what they start, do not hear Ctrl-C
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        return self

    def __exit__(self, *exc: object) -> None:
        for pid in [self.process.pid, *self.processes()]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait()
        self._out.close()
        self._err.close()

    @property
    def out(self) -> str:
        return (self.folder / "stdout").read_text()

    @property
    def err(self) -> str:
        return (self.folder / "stderr").read_text()

    def processes(self) -> list[int]:
        """Those that live and have this program's mark."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                try:
                    marked = f"{MARK}={self.mark}".encode() in (entry / "environ").read_bytes()
                    state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                except (OSError, IndexError):
                    continue
                if marked and state != "Z":
                    found.append(int(entry.name))
        return found

    def _others(self) -> list[int]:
        """Its processes without the one that was started, and the one that multiprocessing keeps beside it."""
        found = [pid for pid in self.processes() if pid != self.process.pid]
        return [pid for pid in found if "resource_tracker" not in command_of(pid)]

    def await_text(self, text: str, seconds: float = 90) -> None:
        until = time.monotonic() + seconds
        while text not in self.out:
            assert self.process.poll() is None, f"ended before it printed {text!r}: {self.out}\n{self.err}"
            assert time.monotonic() < until, f"{text!r} was not printed in {seconds} s: {self.out}\n{self.err}"
            time.sleep(0.02)

    def signal(self, number: int, pid: int | None = None) -> None:
        self.signalled = time.monotonic()
        os.kill(self.process.pid if pid is None else pid, number)

    def finish(self, deadline: float = 90, grace: float = 5) -> Ended:
        """How it ends within `deadline` seconds, and who is still there `grace` seconds later."""
        until, others, code = time.monotonic() + deadline, None, None
        while code is None:
            code = self.process.poll()
            if time.monotonic() > until:
                raise AssertionError(f"not over after {deadline} s:\n{self.out}\n{self.err}")
            alone = (self.folder / "fault-at").exists() or self.signalled is not None
            if alone and others is None and not self._others():
                others = time.monotonic()
            time.sleep(0.05)
        ended = time.monotonic()
        until = ended + grace
        while (left := self.processes()) and time.monotonic() < until:
            time.sleep(0.05)
        over = time.monotonic() if others is None else ended
        mark = self.folder / "fault-at"
        at = float(mark.read_text()) if mark.exists() else self.signalled
        files = sorted(set(os.listdir("/dev/shm")) - self._shm)
        files = [name for name in files if not name.startswith("sem.")]  # other tests' locks, gone in a moment
        return Ended(
            code,
            self.out,
            self.err,
            ended - self.began,
            None if at is None else over - at,
            None if at is None else (others or over) - at,
            [command_of(pid)[:100] for pid in left],
            files,
        )


def run_program(script: str, *arguments: str, deadline: float = 90, grace: float = 5, **options: object) -> Ended:
    with Program(script, *arguments, **options) as program:  # type: ignore[arg-type]  # handed on
        return program.finish(deadline, grace)
