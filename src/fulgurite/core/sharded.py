"""Checkpoints that are folders: each process writes the shards it holds, and any number of processes reads them.

A folder `last.ckpt/` holds `meta.pt`, which is the checkpoint with a note in the place of each sharded tensor, and the
files of torch.distributed.checkpoint with the tensors, by names such as `state_dict.layer.weight` and
`optimizer_0.state.layer.weight.exp_avg`.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import io
import os
import pickle
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fulgurite.core.checksum import DamagedError, check_file
from fulgurite.utilities.cloud_io import local_path, remove, sweep, sync_folder, temporary_name

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from torch.distributed.checkpoint.metadata import Metadata

META = "meta.pt"
_NOTE = "__sharded__"
_SUM = "fulgurite_metadata_crc32"  # a key of META: the sum of what says which tensor is where
_WHOLE = ("state_dict", "optimizer_states")  # of these each tensor is a shard's, so that torch's tools find all of them
_METADATA_CLASSES = {
    *(f"torch.distributed.checkpoint.metadata.{name}" for name in (
        "BytesStorageMetadata", "ChunkStorageMetadata", "Metadata", "MetadataIndex", "StorageMeta", "TensorProperties",
        "TensorStorageMetadata", "_MEM_FORMAT_ENCODING",
    )),
    "torch.distributed.checkpoint.filesystem._StorageInfo",
    "torch.serialization._get_layout",
    "torch.Size",
    "pathlib.PosixPath",
    "pathlib._local.PosixPath",
    "collections.OrderedDict",
}  # fmt: skip
Template = Callable[[str], Tensor | None]


def is_sharded(path: str | Path) -> bool:
    """Whether a checkpoint is a folder of shards."""
    return (Path(path) / META).is_file() and (Path(path) / ".metadata").is_file()


# tensors out of a checkpoint, and into it
def take_out(checkpoint: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The checkpoint with a note in the place of each tensor that is to be sharded, and these tensors by name."""
    tensors: dict[str, Tensor] = {}

    def walk(value: Any, name: str, whole: bool) -> Any:
        if isinstance(value, Tensor) and (whole or is_dtensor(value)):
            tensors[name] = value.detach()
            return {_NOTE: name}
        if isinstance(value, Mapping):
            return {key: walk(inner, f"{name}.{key}", whole) for key, inner in value.items()}
        if type(value) in (list, tuple):
            return type(value)(walk(inner, f"{name}.{i}", whole) for i, inner in enumerate(value))
        return value

    plain = {key: value if key in _WHOLE else walk(value, key, False) for key, value in checkpoint.items()}
    for i, state in enumerate(checkpoint.get("optimizer_states", ())):
        plain["optimizer_states"] = [*plain["optimizer_states"][:i], walk(state, f"optimizer_{i}", True)]
    if "state_dict" in checkpoint:
        plain["state_dict"] = walk(checkpoint["state_dict"], "state_dict", True)
    return plain, tensors


def put_back(plain: Any, tensors: dict[str, Tensor]) -> Any:
    """The checkpoint with its tensors again."""
    if isinstance(plain, dict):
        if plain.keys() == {_NOTE}:
            return tensors[plain[_NOTE]]
        return {key: put_back(value, tensors) for key, value in plain.items()}
    if type(plain) in (list, tuple):
        return type(plain)(put_back(value, tensors) for value in plain)
    return plain


def _notes(plain: Any) -> Iterator[str]:
    """The names of the tensors that stand in their own files."""
    if isinstance(plain, dict) and plain.keys() == {_NOTE}:
        yield plain[_NOTE]
    elif isinstance(plain, (dict, list, tuple)):
        for value in plain.values() if isinstance(plain, dict) else plain:
            yield from _notes(value)


def is_dtensor(value: Any) -> bool:
    """Whether a tensor is spread over processes; asked without importing what spreads them."""
    return isinstance(value, Tensor) and type(value) is not Tensor and hasattr(value, "placements")


def named_optimizer_state(state: dict[str, Any], names: Mapping[Any, Any]) -> dict[str, Any]:
    """An optimizer's state by the names of its parameters instead of their numbers."""
    groups = [{**group, "params": [names[i] for i in group["params"]]} for group in state["param_groups"]]
    return {**state, "state": {names[i]: values for i, values in state["state"].items()}, "param_groups": groups}


def numbered_optimizer_state(state: dict[str, Any]) -> dict[str, Any]:
    """An optimizer's state by numbers, as `Optimizer.load_state_dict` takes it."""
    names = [name for group in state["param_groups"] for name in group["params"]]
    return named_optimizer_state(state, {name: i for i, name in enumerate(names)})


# writing
def write_sharded(
    checkpoint: dict[str, Any],
    path: str | Path,
    write_plain: Callable[[dict[str, Any], Path], None],
    group: ProcessGroup | None = None,
) -> None:
    """Write a folder of shards, whole or not at all; every process of the group calls it.

    `write_plain` writes the part that is no tensor. The folder is written under a temporary name; where there is a
    checkpoint of this name already, the two change places in one step.

    Raises:
        OSError: on every process, where one could not write; the previous checkpoint is as it was.
    """
    import torch.distributed as dist
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.filesystem import FileSystemWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    path = Path(local_path(path))
    first = dist.get_rank(group) == 0
    source = 0 if group is None else dist.get_global_rank(group, 0)
    plain, tensors = take_out(checkpoint)

    def from_first(act: Callable[[], Any]) -> Any:
        """What `act` gives on the first process, or its error, on all."""
        box: list[Any] = [None, None]
        error: Exception | None = None
        if first:
            try:
                box[0] = act()
            except Exception as raised:  # whatever it is, the others must not wait
                error, box[1] = raised, (getattr(raised, "errno", None), str(raised))
        dist.broadcast_object_list(box, source, group=group)
        if box[1] is None:
            return box[0]
        number, message = box[1]
        if number is not None:
            raise OSError(number, f"the checkpoint could not be written: {os.strerror(number)}", str(path)) from error
        raise error or RuntimeError(f"the checkpoint {path} could not be written by the first process: {message}")

    def begin() -> str:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent)
        folder = path.with_name(temporary_name())
        folder.mkdir()
        return str(folder)

    def finish() -> None:
        write_plain({**plain, _SUM: zlib.crc32((folder / ".metadata").read_bytes())}, folder / META)
        sync_folder(folder)
        replace_path(folder, path)
        sync_folder(path.parent)

    folder = Path(from_first(begin))
    try:
        try:
            save(tensors, storage_writer=FileSystemWriter(folder), process_group=group)
        except CheckpointException as error:  # the errors of all processes, on all
            causes = (os_error(failure) for failure, _ in error.failures.values())
            cause = next((e for e in causes if e is not None), None)
            if cause is None:
                raise
            number = cause.errno or errno.EIO
            raise OSError(number, f"the checkpoint could not be written: {os.strerror(number)}", str(path)) from error
        from_first(finish)
    except BaseException:
        if first:
            with contextlib.suppress(OSError):  # the error that led here is the one to be seen
                remove(folder)
        raise


def os_error(error: BaseException | None) -> OSError | None:
    """torch tells a full disk as an internal error of its writer; the reason stands behind it."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def replace_path(new: Path, path: Path) -> None:
    """Give the folder `new` the name `path`; what had that name is removed."""
    if not os.path.lexists(path):
        new.rename(path)
        return
    if not _exchange(new, path):  # else two steps, between which there is no checkpoint of this name
        aside = path.with_name(f"{temporary_name()}.{path.name}")
        path.rename(aside)
        new.rename(path)
        new = aside
    remove(new)


def _exchange(one: Path, other: Path) -> bool:
    """Let two names change places at once; False where the system cannot."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if os.name == "posix" else None
    if renameat2 is None:
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return bool(renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)


# reading
def read_shards(
    path: str | Path,
    plain: dict[str, Any],
    template: Template = lambda name: None,
    optimizers: bool = True,
) -> dict[str, Any]:
    """The whole checkpoint of a folder whose `meta.pt` is `plain`; each process reads by itself.

    A tensor for which `template` gives a sharded tensor of its shape is read as shards of that kind; any other is read
    whole, to the CPU. Without `optimizers` their states are left out, and not read.
    """
    from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    metadata = _read_metadata(Path(path), plain.get(_SUM))
    left_out = (_SUM,) if optimizers else (_SUM, "optimizer_states")
    plain = {key: value for key, value in plain.items() if key not in left_out}
    wanted = set(_notes(plain))
    if absent := sorted(wanted - metadata.state_dict_metadata.keys()):
        raise RuntimeError(f"{path} lacks the tensors {', '.join(absent[:5])}, of which its {META} knows.")
    tensors: dict[str, Any] = {}
    for name, stored in metadata.state_dict_metadata.items():
        if name in wanted and isinstance(stored, TensorStorageMetadata):
            like, dtype = template(name), stored.properties.dtype
            if like is not None and like.shape == stored.size and is_dtensor(like):
                tensors[name] = torch.empty_like(like, dtype=dtype, requires_grad=False)
            else:
                tensors[name] = torch.empty(stored.size, dtype=dtype, device="cpu")
    reader = FileSystemReader(path)
    planner = DefaultLoadPlanner()
    try:
        planner.set_up_planner(tensors, metadata, is_coordinator=True)
        reader.set_up_storage_reader(metadata, is_coordinator=True)
        plan = reader.prepare_local_plan(planner.create_local_plan())
        for item in plan.items:
            _check_shard(Path(path), metadata.storage_data[item.storage_index])
        reader.read_data(planner.finish_plan(plan), planner).wait()
    except Exception as error:  # a damaged file fails in any way
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise RuntimeError(
            f"{path} cannot be read as a sharded checkpoint: a file of it is missing, truncated or damaged "
            f"({reason:.150}). Use another checkpoint; those that a Trainer writes are whole or not there at all."
        ) from error
    whole = put_back(plain, tensors)
    if "optimizer_states" in whole:
        whole["optimizer_states"] = [numbered_optimizer_state(state) for state in whole["optimizer_states"]]
    return whole  # type: ignore[no-any-return]  # a dict in, a dict out


class _MetadataUnpickler(pickle._Unpickler):  # type: ignore[name-defined,misc]  # the one written in Python
    """Reads what torch.distributed.checkpoint writes about its files, and nothing that could run code."""

    def load_build(self: Any) -> None:
        if isinstance(self.stack[-2], type):  # it would set attributes of the class itself, for the whole program
            raise pickle.UnpicklingError(f"it changes the class {self.stack[-2].__name__}")
        pickle._Unpickler.load_build(self)  # type: ignore[attr-defined]  # typeshed knows the one of C

    dispatch = {**pickle._Unpickler.dispatch, pickle.BUILD[0]: load_build}  # type: ignore[attr-defined]

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" in _METADATA_CLASSES:
            return super().find_class(module, name)
        if module == "torch" and isinstance(dtype := getattr(torch, name, None), torch.dtype):
            return dtype
        raise pickle.UnpicklingError(f"it holds {module}.{name}, which does not belong there")


def _read_metadata(path: Path, expected_sum: int | None) -> Metadata:
    try:
        raw = (path / ".metadata").read_bytes()
        if expected_sum not in (None, zlib.crc32(raw)):
            raise DamagedError("its check sum does not fit")
        metadata: Metadata = _MetadataUnpickler(io.BytesIO(raw)).load()
        metadata.state_dict_metadata.keys()
    except Exception as error:
        raise RuntimeError(f"{path / '.metadata'} is not what a sharded checkpoint holds: {error}.") from error
    return metadata


def _check_shard(folder: Path, stored: Any) -> None:
    """A shard is an archive of torch within a file of the folder."""
    if Path(stored.relative_path).name != stored.relative_path:
        raise DamagedError(f"it names a file elsewhere, {stored.relative_path}")
    with (folder / stored.relative_path).open("rb") as file:
        file.seek(stored.offset)
        check_file(io.BytesIO(file.read(stored.length)))
