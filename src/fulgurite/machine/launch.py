"""Starting the processes of a run on this machine, where nobody else has: by running the script again, or a function.

`Trainer(devices=2)` in a script: this process is rank 0 and goes on after `fit` with the trained model in its hands;
the others run the same script. With "ddp_spawn" and "ddp_fork" this process is no rank: it waits, and takes over what
rank 0 gives back.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Collection, Iterator
from multiprocessing.connection import Connection
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import DataLoader, Dataset

from fulgurite.machine import supervise
from fulgurite.machine.devices import in_notebook
from fulgurite.machine.environments import RANK_OF, STARTED_BY, STARTED_IN, has_a_parents_rank
from fulgurite.machine.signals import installed
from fulgurite.machine.supervise import Child, Children, Line, ScriptRanks, error_of
from fulgurite.utilities.exceptions import MisconfigurationException, SIGTERMException
from fulgurite.utilities.rank_zero import rank_zero_only, rank_zero_warn
from fulgurite.utilities.seed import collect_rng_state, restore_rng_state

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from fulgurite.machine.distributed import DistributedStrategy
    from fulgurite.trainer import Trainer

DEFAULT_HANDLERS: dict[signal.Signals, Any] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
}


def launcher_of(strategy: DistributedStrategy) -> ScriptLauncher | FunctionLauncher:
    """What starts the processes that a strategy needs and nobody has started."""
    if not hasattr(os, "setsid"):
        raise MisconfigurationException(
            f"devices={strategy.num_processes}: this system (Windows) has not what the trainer starts processes with. "
            f"Use devices=1, or start them yourself: torchrun --nproc-per-node={strategy.num_processes} script.py."
        )
    if strategy.start_method == "popen":
        return ScriptLauncher(strategy)
    return FunctionLauncher(strategy)


def environment_of_rank(local: int, strategy: DistributedStrategy, address: str, port: int) -> dict[str, str]:
    """What torchrun would tell a process, in its own words."""
    return {
        "RANK": str(strategy.node_rank * strategy.num_processes + local),
        "LOCAL_RANK": str(local),
        "NODE_RANK": str(strategy.node_rank),
        "GROUP_RANK": str(strategy.node_rank),
        "WORLD_SIZE": str(strategy.world_size),
        "LOCAL_WORLD_SIZE": str(strategy.num_processes),
        "MASTER_ADDR": address,
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # the store is there already: no rank opens the port again
    }


def open_store(strategy: DistributedStrategy) -> tuple[Any, str, int]:
    """Where the processes meet. The store takes a free port itself, so that nobody can take it in between."""
    address, told = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT")
    if has_a_parents_rank():
        told = None  # the port is in use
    if strategy.num_nodes > 1 and (address is None or told is None):
        raise MisconfigurationException(
            f"num_nodes={strategy.num_nodes}: set MASTER_ADDR and MASTER_PORT to the address and a free port of the "
            "first machine, and NODE_RANK to the number of this one (0, 1, ...); or start the script with torchrun."
        )
    if strategy.node_rank > 0:
        assert address is not None and told is not None
        return None, address, int(told)
    address = address or "127.0.0.1"
    try:
        store = dist.TCPStore(  # type: ignore[attr-defined]  # torch does not export it explicitly
            address, int(told or 0), is_master=True, wait_for_workers=False, timeout=strategy.timeout
        )
    except RuntimeError as error:
        raise RuntimeError(
            f"MASTER_PORT={told} cannot be opened on {address}: {str(error).splitlines()[0]}\nUnset MASTER_PORT "
            f"to have a free port found, or end the process that holds it: `ss -ltnp 'sport = :{told}'` shows which."
        ) from None
    return store, address, store.port


def _taken_apart(call: dict[str, Any]) -> tuple[Trainer, dict[str, Any]]:
    """The trainer and the arguments, from the locals of one of its methods."""
    return call["self"], {name: value for name, value in call.items() if name not in ("self", "old")}


# the script again

# The kernel kills a rank together with its starter. Set in a process between, since what subprocess runs between fork
# and exec must not be Python where there are threads.
_BOOT = """
import ctypes, os, sys
starter, program = int(sys.argv[1]), sys.argv[2:]
if sys.platform == "linux" and starter:
    ctypes.CDLL(None).prctl(1, 9)
    if os.getppid() != starter:
        sys.exit(1)
os.execv(program[0], program)
"""


class ScriptLauncher:
    """Runs the program again for each further rank; they live as long as this process does."""

    def __init__(self, strategy: DistributedStrategy) -> None:
        self.strategy = strategy

    def launch(self, name: str, call: dict[str, Any]) -> Any:
        """The trainer's method `name`, whose locals are `call`, as rank 0 of processes that make the same call."""
        trainer, arguments = _taken_apart(call)
        if supervise.script_ranks is None:
            supervise.script_ranks = self._start()
            supervise.script_ranks.await_ready()
            supervise.script_ranks.watcher.start()
        self.strategy.launcher = None
        self.strategy.find_rank()
        return attrgetter(name)(trainer)(**arguments)

    def _start(self) -> ScriptRanks:
        strategy, program = self.strategy, _program(self.strategy)
        store, address, port = open_store(strategy)
        ranks = ScriptRanks(Children([]), store)
        atexit.register(ranks.finish)
        for local in range(1, strategy.num_processes):
            ranks.children.members.append(_run_again(program, environment_of_rank(local, strategy, address, port)))
        os.environ.update({**environment_of_rank(0, strategy, address, port), RANK_OF: str(os.getpid())})
        supervise.share_threads(strategy.num_processes)
        return ranks


def _program(strategy: DistributedStrategy) -> list[str]:
    """The command that this program was started with."""
    instead = f"or use strategy='{'ddp_notebook' if in_notebook() else 'ddp_spawn'}'"
    asked = f"devices={strategy.num_processes} starts the other processes by running this program again"
    main = sys.modules["__main__"]
    if in_notebook():
        raise MisconfigurationException(f"{asked}, and an interactive session cannot be run again. Save it, {instead}.")
    if multiprocessing.parent_process() is not None:
        raise MisconfigurationException(
            f"{asked}, and this is a process that multiprocessing started, not the program. Call the trainer in the "
            f"main process, {instead}."
        )
    file = getattr(main, "__file__", None)
    is_there = getattr(main, "__spec__", None) is not None or (file is not None and Path(file).exists())
    if not is_there and "-c" not in sys.orig_argv:
        raise MisconfigurationException(f"{asked}, and one read from standard input is gone. Save it, {instead}.")
    return [sys.executable, *sys.orig_argv[1:]]


def _run_again(program: list[str], environment: dict[str, str]) -> Child:
    ours, theirs = multiprocessing.Pipe()
    # PR_SET_PDEATHSIG means the thread that started it, which is only for the main one the process
    starter = os.getpid() if threading.current_thread() is threading.main_thread() else 0
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _BOOT, str(starter), *program],
        env={**os.environ, **environment, STARTED_BY: f"{os.getpid()}:{theirs.fileno()}"},
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        cwd=STARTED_IN,
        start_new_session=True,  # Ctrl-C is for rank 0, which has them all stop at the same batch
    )
    theirs.close()
    return Child(int(environment["RANK"]), process.pid, process.poll, ours)


# a function


class FunctionLauncher:
    """Calls the trainer in new processes ("spawn", "fork", "forkserver"), which end with the call."""

    def __init__(self, strategy: DistributedStrategy) -> None:
        self.strategy = strategy

    def launch(self, name: str, call: dict[str, Any]) -> Any:
        """The trainer's method `name`, whose locals are `call`, in all ranks; what rank 0's changed is changed here."""
        trainer, arguments = _taken_apart(call)
        method = self.strategy.start_method
        if method == "fork" and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch's
            raise MisconfigurationException(
                f"devices={self.strategy.num_processes} here starts the processes by fork, and CUDA is in use in this "
                "one already, which a fork does not survive. Restart the kernel and leave CUDA alone before the "
                "trainer (no .cuda(), no torch.cuda.* that asks a device), or use strategy='ddp_spawn'."
            )
        for logger in trainer.loggers:  # here, where it is known when the processes have ended
            if hasattr(logger, "take_version"):
                logger.take_version()
            _ = logger.version
        made = (trainer, name, arguments, collect_rng_state(), _torch_settings())
        work = made if method == "fork" else _by_value(made)
        store, address, port = open_store(self.strategy)
        children, processes = Children([]), []
        try:
            with _forwarded(children):
                for local in range(self.strategy.num_processes):
                    environment = environment_of_rank(local, self.strategy, address, port)
                    process, child = _start_function(method, environment, work)
                    processes.append(process)
                    children.members.append(child)
                self._await(children)
        finally:
            children.end(0)
            for process in processes:
                process.join()
                process.close()
            del store
        result = children.results.get(self.strategy.node_rank * self.strategy.num_processes)
        return _take_over(trainer, arguments, result)

    def _await(self, children: Children) -> None:
        while any(child.alive for child in children.members):
            children.attend()
            if (failure := children.failure()) is not None:
                children.end()
                raise error_of(failure)
        children.attend(0)
        if (failure := children.await_failure(0 if not children.reports else 2.0)) is not None:
            raise error_of(failure)
        if children.interrupted is not None:
            raise children.interrupted


def _start_function(method: str, environment: dict[str, str], call: Any) -> tuple[BaseProcess, Child]:
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context(method)
    # the death of a parent is for the kernel that of the thread which started the child
    starter = os.getpid(), threading.current_thread() is threading.main_thread()
    arguments = (environment, theirs, *starter, call)
    rank = int(environment["RANK"])
    process: BaseProcess = context.Process(target=_rank_of_function, args=arguments, name=f"rank {rank}")  # type: ignore[attr-defined]  # all contexts have it
    with warnings.catch_warnings():
        # Python 3.12 warns of each fork beside threads; what is forked here touches none of them
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        process.start()
    theirs.close()
    assert process.pid is not None
    return process, Child(rank, process.pid, lambda: process.exitcode, ours)


def _rank_of_function(
    environment: dict[str, str], connection: Connection, starter: int, by_main_thread: bool, call: Any
) -> None:
    """What a started process does."""
    os.setsid()
    if by_main_thread:
        supervise.die_with_parent()
    for number, default in DEFAULT_HANDLERS.items():  # a fork has its parent's, which are for the parent
        signal.signal(number, default)
    os.environ.update(environment)
    rank = rank_zero_only.rank = int(environment["RANK"])
    line = supervise.connect(Line(rank, starter, connection))
    code = 0
    try:
        forked = not isinstance(call, bytes)
        trainer, name, arguments, draws, settings = call if forked else pickle.loads(call)
        restore_rng_state(draws)  # as if this process had run the program up to here
        _set_torch(*settings)
        if forked:
            torch.set_num_threads(1)  # GNU OpenMP hangs in a child whose parent has used it
        else:
            supervise.share_threads(int(environment["LOCAL_WORLD_SIZE"]))
        known = _known(trainer, arguments)
        there = _parts_of(known["module"]).keys()
        trainer.strategy.launcher = None
        trainer.strategy.find_rank()
        value = attrgetter(name)(trainer)(**arguments)
        weights = _weights_of(known["module"])
        if int(environment["LOCAL_RANK"]) == 0:
            line.say("done", _given_back(trainer, known, there, weights, value))
    except BaseException as exception:
        line.say_left(exception)
        if line.reported is None and not supervise.leaves_together(exception):
            raise
        code = 143 if isinstance(exception, SIGTERMException) else 1
    finally:
        with contextlib.suppress(Exception):
            if dist.is_initialized():
                dist.destroy_process_group()
    sys.exit(code)


@contextlib.contextmanager
def _forwarded(children: Children) -> Iterator[None]:
    """Ctrl-C and SIGTERM go to the ranks, which stop at the same batch; a second Ctrl-C ends them at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def forward(number: int, frame: Any) -> None:
        came.append(number)
        if came.count(signal.SIGINT) > 1:
            raise KeyboardInterrupt
        for child in children.members:
            if child.alive:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.pid, number)

    defaults = [number for number, default in DEFAULT_HANDLERS.items() if signal.getsignal(number) == default]
    with installed(dict.fromkeys(defaults, forward)):
        yield


# what travels


def _torch_settings() -> tuple[Any, ...]:
    """What a program may have set for all that follows, this trainer's `deterministic` and `benchmark` among it."""
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
        torch.get_float32_matmul_precision(),
        torch.get_default_dtype(),
    )


def _set_torch(deterministic: bool, warn_only: bool, benchmark: bool, precision: str, dtype: torch.dtype) -> None:
    torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
    torch.backends.cudnn.benchmark = benchmark
    torch.set_float32_matmul_precision(precision)
    torch.set_default_dtype(dtype)


def _by_value(call: tuple[Any, ...]) -> bytes:
    """The call as bytes. Not through torch's own pickler: it would have the ranks train the same memory."""
    failed: Exception | None = None
    for dumps in _picklers():
        try:
            return dumps(call, protocol=pickle.HIGHEST_PROTOCOL)
        except Exception as error:
            failed = error
    if failed is None:
        raise MisconfigurationException(
            "strategy='ddp_spawn': the new processes cannot import what is defined in a notebook or in `python -c`. "
            "Use strategy='ddp_notebook', put the classes into a file, or pip install cloudpickle."
        )
    trainer, _, arguments, *_ = call
    where = _culprit({"trainer": trainer.__getstate__(), **arguments}, "")
    raise MisconfigurationException(
        f"strategy='ddp_spawn' sends the model, the data and the trainer to new processes, and {where} cannot be "
        f"pickled: {failed}. Define functions and classes at the top of a file, or use strategy='ddp'."
    ) from failed


def _picklers() -> Iterator[Callable[..., bytes]]:
    """pickle, where the new processes can import what the program defines; then cloudpickle, where there is one."""
    file = getattr(sys.modules["__main__"], "__file__", None)
    if file is not None and Path(file).exists() and not in_notebook():
        yield pickle.dumps
    with contextlib.suppress(ImportError):
        import cloudpickle  # type: ignore[import-untyped,unused-ignore]

        yield cloudpickle.dumps


def _culprit(thing: Any, path: str, depth: int = 6) -> str:
    """The deepest attribute or element that does not pickle."""
    if isinstance(thing, dict):
        parts = {(f"{path}[{key!r}]" if path else str(key)): value for key, value in thing.items()}
    elif isinstance(thing, (list, tuple)):
        parts = {f"{path}[{i}]": value for i, value in enumerate(thing)}
    else:
        parts = {f"{path}.{key}": value for key, value in getattr(thing, "__dict__", {}).items()}
    for name, value in parts.items():
        try:
            pickle.dumps(value)
        except Exception:
            return _culprit(value, name, depth - 1) if depth else name
    return path


def _known(trainer: Trainer, arguments: dict[str, Any]) -> dict[str, Any]:
    """What both sides have, by a name that both give it."""
    known: dict[str, Any] = {"trainer": trainer, "strategy": trainer.strategy}
    model = arguments.get("model") if arguments.get("model") is not None else trainer._module
    known["module"] = getattr(model, "_orig_mod", model)
    for key, value in arguments.items():
        if isinstance(value, (DataLoader, Dataset)) or hasattr(value, "train_dataloader"):
            known.setdefault(key, value)
    for kind, things in (("callback", trainer.callbacks), ("logger", trainer.loggers)):
        known.update({f"{kind} {i}": thing for i, thing in enumerate(things)})
    return known


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, known: dict[str, Any]) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self._names = {id(thing): name for name, thing in known.items()}

    def persistent_id(self, obj: Any) -> str | None:
        return self._names.get(id(obj))


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, known: dict[str, Any]) -> None:
        super().__init__(io.BytesIO(data))
        self._known = known

    def persistent_load(self, name: str) -> Any:
        return self._known[name]


def _dump(value: Any, known: dict[str, Any]) -> bytes | None:
    file = io.BytesIO()
    try:
        _Pickler(file, known).dump(value)
    except Exception:  # whatever a user's object raises: it stays with its rank
        return None
    return file.getvalue()


_OF_TRAINER = (
    "callbacks",
    "_loggers",
    "state",
    "progress",
    "_should_stop",
    "_asked_to_stop",
    "_stop_votes",
    "received_sigterm",
    "_module",
    "_metrics",
    "_limits",
    "_train_batches",
    "_ckpt_path",
    "_said",
)
_OF_TORCH = set(vars(nn.Module())) - {"training"}


def _given_back(
    trainer: Trainer, known: dict[str, Any], there: Collection[str], weights: dict[str, torch.Tensor], value: Any
) -> bytes:
    """What a call has changed: weights, counters, metrics, and what callbacks, loggers and the module remember."""
    made = {
        path: dumped
        for path, part in _parts_of(known["module"]).items()
        if path not in there and path.rpartition(".")[0] in there and (dumped := _dump_part(part, known)) is not None
    }
    changed: dict[str, dict[str, bytes]] = {}
    for name, thing in known.items():
        kept = {}
        for key, attribute in vars(thing).items() if name.split(" ")[0] in ("callback", "logger", "module") else ():
            if key in _OF_TORCH or key == "_trainer" or isinstance(attribute, (nn.Module, DataLoader, Dataset)):
                continue
            if (dumped := _dump(attribute, known)) is not None:
                kept[key] = dumped
        changed[name] = kept
    changed["trainer"] = {
        key: dumped for key in _OF_TRAINER if (dumped := _dump(vars(trainer)[key], known)) is not None
    }
    given = {"made": made, "weights": _dump(weights, {}), "changed": changed, "value": _dump(value, known)}
    return pickle.dumps({**given, "draws": collect_rng_state()})


def _parts_of(module: nn.Module | None) -> dict[str, nn.Module]:
    return dict(module.named_modules()) if module is not None else {}


def _dump_part(part: nn.Module, known: dict[str, Any]) -> bytes | None:
    """A layer that `setup` or `configure_model` has made; one that is sharded is nothing without its processes."""
    if any(hasattr(tensor, "full_tensor") for tensor in _tensors_of(part).values()):
        return None
    return _dump(part.cpu(), known)  # the program may be one that is to leave CUDA alone


def _tensors_of(module: nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _weights_of(module: nn.Module | None) -> dict[str, torch.Tensor]:
    """Whole tensors; every rank has its part in putting together what is sharded."""
    tensors = _tensors_of(module) if module is not None else {}
    return {name: getattr(t.detach(), "full_tensor", t.detach)().cpu() for name, t in tensors.items()}


def _take_over(trainer: Trainer, arguments: dict[str, Any], result: bytes | None) -> Any:
    if result is None:
        return None  # on a machine that has no rank 0
    known, given = _known(trainer, arguments), pickle.loads(result)
    if (module := known["module"]) is not None:
        for path, dumped in given["made"].items():
            owner, _, name = path.rpartition(".")
            setattr(module.get_submodule(owner), name, _Unpickler(dumped, known).load())
        ours, weights = _tensors_of(module), pickle.loads(given["weights"])
        for name in weights.keys() & ours.keys():  # in the precision that the ranks gave it, as after a fit here
            ours[name].data = weights[name].to(ours[name].device)
        if lost := [name for name in weights if name not in ours]:
            rank_zero_warn(
                f"{', '.join(lost)} came into being in the processes of this call, and ended with them. Make them in "
                "__init__ to have them here, or use strategy='ddp'."
            )
    for name, attributes in given["changed"].items():
        if name in known:
            for key, dumped in attributes.items():
                vars(known[name])[key] = _Unpickler(dumped, known).load()
    if module is not None:
        module.trainer = trainer
    restore_rng_state(given["draws"])
    return _Unpickler(given["value"], known).load() if given["value"] is not None else None
