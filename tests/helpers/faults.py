"""What can go wrong with several processes: one program, a case for each fault, and what must come of it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from helpers.programs import Ended, Program

# The same program under fulgurite and, for comparison, under lightning.
PROGRAM = """
import datetime, resource
from pathlib import Path
if os.environ.get("FRAMEWORK") == "lightning":
    import lightning.pytorch as pl
    from lightning.pytorch.strategies import DDPStrategy
else:
    import fulgurite as pl
    from fulgurite.strategies import DDPStrategy
from torch.utils.data import DataLoader
case, strategy, ranks = sys.argv[1], sys.argv[2], int(sys.argv[3])

def say(*words): print(*words, flush=True)

class Data(torch.utils.data.Dataset):
    def __len__(self): return 400
    def __getitem__(self, i):
        # read ahead by four batches: what is imported at the first step, which may swallow the error, is over by then
        if i >= 80 and torch.utils.data.get_worker_info() is not None and rank() == 1:
            if case == "worker raises":
                fault()
                raise ValueError("boom in a worker")
            if case == "worker killed":
                fault()
                os.kill(os.getpid(), signal.SIGKILL)
        return torch.full((64,), float(i))

class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(64, 100)
        self.unused = torch.nn.Linear(2, 2) if case == "unused parameters" else None
    def setup(self, stage):
        if case == "setup" and rank() == 1:
            fault()
            raise ValueError("boom in setup")
    def training_step(self, batch, i):
        if i == 3: self.disturb()
        if case.startswith("signal"):
            say("batch", i)
            time.sleep(0.1)
        loss = self.layer(batch).square().mean()
        if case == "log keys":
            if i == 0: fault()
            self.log("extra" if rank() == 1 else "loss", loss, on_epoch=True, sync_dist=True)
        return loss
    def disturb(self):
        if case == "training, rank 1" and rank() == 1 or case == "training, rank 0" and rank() == 0:
            fault()
            raise ValueError("boom")
        if case == "training, all ranks":
            fault()
            raise ValueError("boom")
        if case == "training, rank 1, rank 0 asleep":
            if rank() == 1:
                fault()
                raise ValueError("boom")
            time.sleep(1000)
        if case == "exit" and rank() == 1:
            fault()
            sys.exit(3)
        if case == "killed, rank 1" and rank() == 1 or case == "killed, rank 0" and rank() == 0:
            fault()
            os.kill(os.getpid(), signal.SIGKILL)
        if case == "abort" and rank() == 1:
            fault()
            os.abort()
        if case in ("asleep", "signal, a rank asleep") and rank() == 1:
            fault()
            say("asleep")
            time.sleep(1000)
        if case == "stopped" and rank() == 1:
            fault()
            os.kill(os.getpid(), signal.SIGSTOP)
        if case == "skipped collective" and rank() == 0:
            fault()
            self.all_gather(torch.ones(2))
        if case == "shapes":
            fault()
            torch.distributed.all_reduce(torch.ones(2 + rank()))
        if case == "memory" and rank() == 1:
            fault()
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, resource.RLIM_INFINITY))
            self.much = torch.ones(2**28)
    def on_train_epoch_start(self):
        if case == "disk full" and self.current_epoch == 1:
            fault()
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
        if case == "unused parameters": fault()
    def validation_step(self, batch, i):
        if case == "validation" and rank() == 1:
            fault()
            raise ValueError("boom in validation")
        self.log("val_loss", self.layer(batch).mean(), sync_dist=True)
    def configure_optimizers(self): return torch.optim.SGD(self.parameters(), lr=0.01)

if __name__ == "__main__":
    if case == "before fit" and rank() == 1:
        fault()
        raise ValueError("boom before fit")
    workers = 2 if "worker" in case else 0
    how = {"start_method": {"ddp": "popen", "ddp_fork": "fork", "ddp_spawn": "spawn"}[strategy]}
    timeout = datetime.timedelta(seconds=float(os.environ.get("SECONDS", "60")))
    callbacks = [pl.callbacks.ModelCheckpoint("saved", save_top_k=-1)] if case == "disk full" else []
    trainer = pl.Trainer(
        max_epochs=3, devices=ranks, accelerator="cpu", strategy=DDPStrategy(timeout=timeout, **how), logger=False,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=bool(callbacks),
        callbacks=callbacks, limit_val_batches=2 if case == "validation" else 0, num_sanity_val_steps=0,
    )
    trainer.fit(Net(), DataLoader(Data(), 4, num_workers=workers), DataLoader(Data(), 4))
    say("after fit")
    if case == "after fit" and rank() == 0: time.sleep(3)
    if case == "after fit" and rank() == 1:
        time.sleep(1)
        fault()
        raise ValueError("boom after fit")
"""


@dataclass(frozen=True)
class Case:
    """One fault: how the program is run, and what must come of it."""

    name: str
    says: tuple[str, ...] = ()  # patterns that what it prints holds
    code: int = 1
    strategy: str = "ddp"
    ranks: int = 2
    within: float = 5  # seconds from the fault to the end of all processes
    once: str = ""  # what must be printed once only
    signals: tuple[int, ...] = ()  # sent to the program once it has printed `until`
    until: str = "batch 3"
    to_all: bool = False  # in the group of the program, as a terminal sends Ctrl-C
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return f"{self.name} ({self.strategy}, {self.ranks} ranks)"

    def in_time(self, ended: Ended) -> bool:
        """The others are gone within the limit; the program itself has its hooks and its interpreter to end."""
        assert ended.others is not None and ended.after is not None, ended.out + ended.err
        return ended.others < self.within and ended.after < self.within + 15


KILLED = r"rank 1 \(process \d+\) was killed by SIGKILL"
AGREED = 15.0  # seconds: ranks agree where they exchange values anyway, every 50 batches of 0.1 s
SHORT = {"SECONDS": "5"}  # the timeout of collectives
CASES = [
    Case("training, rank 1", (r"\[rank 1\] ValueError: boom", r"rank 1 failed"), once="ValueError: boom"),
    Case("training, rank 1", (r"\[rank 1\] ValueError: boom",), ranks=3, once="ValueError: boom"),
    Case("training, rank 1", (r"\[rank 1\] ValueError: boom",), strategy="ddp_fork", once="ValueError: boom"),
    Case("training, rank 1", (r"\[rank 1\] ValueError: boom",), strategy="ddp_spawn", once="ValueError: boom"),
    Case("training, rank 0", ("ValueError: boom",), once="ValueError: boom"),
    Case("training, rank 0", (r"\[rank 0\] ValueError: boom",), strategy="ddp_fork", once="ValueError: boom"),
    Case("training, all ranks", ("ValueError: boom",), once="ValueError: boom"),
    Case("training, rank 1, rank 0 asleep", (r"\[rank 1\] ValueError: boom",), once="ValueError: boom"),
    Case("validation", (r"\[rank 1\] ValueError: boom in validation",), once="ValueError: boom"),
    Case("setup", (r"\[rank 1\] ValueError: boom in setup",), once="ValueError: boom"),
    Case("before fit", ("ValueError: boom before fit", "must make the same calls"), once="ValueError: boom"),
    Case("after fit", (r"\[rank 1\] ValueError: boom after fit",), once="ValueError: boom"),
    Case("exit", (r"\[rank 1\] SystemExit: 3",)),
    Case("worker raises", (r"\[rank 1\] .*ValueError: boom in a worker",), once="ValueError: boom in a worker"),
    Case(
        "worker killed",
        (r"\[rank 1\] RuntimeError: DataLoader worker .*(killed by signal: Killed|exited unexpectedly)",),
    ),
    Case("killed, rank 1", (KILLED,)),
    Case("killed, rank 1", (KILLED,), strategy="ddp_fork"),
    Case("killed, rank 0", (), code=-9),
    Case("killed, rank 0", (KILLED.replace("1", "0"),), strategy="ddp_fork"),
    Case("abort", (r"rank 1 \(process \d+\) was killed by SIGABRT",)),
    Case("signal, SIGKILL", (), code=-9, signals=(9,)),
    Case("signal, SIGKILL", (), code=-9, signals=(9,), strategy="ddp_fork"),
    Case("signal, Ctrl-C", ("finishing this batch", "KeyboardInterrupt"), code=-2, signals=(2,), within=AGREED),
    Case("signal, Ctrl-C", ("KeyboardInterrupt",), code=-2, signals=(2,), strategy="ddp_fork", within=AGREED),
    Case(
        "signal, Ctrl-C in a terminal, with data workers",
        ("finishing this batch", "KeyboardInterrupt"),
        code=-2,
        signals=(2,),
        within=AGREED,
        once="finishing this batch",
        to_all=True,
    ),
    Case("signal, a rank asleep", ("KeyboardInterrupt",), code=-2, signals=(2, 2), until="asleep", within=6),
    Case("signal, SIGTERM", (), code=143, signals=(15,), within=AGREED),
    Case("signal, SIGTERM", (), code=143, signals=(15,), strategy="ddp_fork", within=AGREED),
    Case(
        "asleep",
        (
            "rank 1 did not come",
            r"rank 1: training, epoch 0, batch 3: .*program.py:\d+ in disturb",
            "rank 0: .*waits in",
        ),
        within=13,
        environ=SHORT,
    ),
    Case("asleep", ("rank 1 did not come",), within=13, environ=SHORT, strategy="ddp_fork"),
    Case("stopped", ("rank 1 did not come", "rank 1: no sign of life"), within=13, environ=SHORT),
    Case(
        "skipped collective",
        ("was not made by all after", r"rank 0: .*waits in all_gather\(\), .*, at \S*program.py:\d+ in disturb"),
        within=13,
        environ=SHORT,
    ),
    Case("shapes", ("OpType=ALLREDUCE, TensorShape=.2.", "TensorShape=.3.")),
    Case("log keys", (r"extra", r"program.py:\d+")),
    Case("unused parameters", ("unused.weight, unused.bias", "find_unused_parameters_true")),
    Case("memory", (r"\[rank 1\] .*(can't allocate memory|MemoryError)",)),
    Case("disk full", ("File too large",)),
]

WORKERS = 6.0  # seconds: a data worker whose rank was killed looks for it every 5 s


def run_case(case: Case, folder: Path, framework: str = "fulgurite", deadline: float = 150) -> Ended:
    """How the program ends, from the fault on."""
    environ = {**case.environ, "FRAMEWORK": framework}
    with Program(PROGRAM, case.name, case.strategy, str(case.ranks), folder=folder, **environ) as program:
        for i, number in enumerate(case.signals):
            if i == 0:
                program.await_text(case.until)
            else:
                time.sleep(1)
            program.signal(number, -program.process.pid if case.to_all else None)
        return program.finish(deadline, grace=WORKERS if case.name.startswith("worker") else 5)
