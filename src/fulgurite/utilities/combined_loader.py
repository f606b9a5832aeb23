"""Several loaders as one: side by side, giving collections of batches, or one after the other."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple, cast, get_args

from fulgurite.utilities.data import opened, sized_len

Mode = Literal["min_size", "max_size_cycle", "max_size", "sequential"]
Item = tuple[Any, int, int]
_END = object()


class _Rule(NamedTuple):
    length: Callable[[list[float]], float]
    is_over: Callable[[list[bool]], bool]  # given which loaders have been exhausted


_TOGETHER = {"min_size": _Rule(min, any), "max_size": _Rule(max, all), "max_size_cycle": _Rule(max, all)}


class CombinedLoader(Iterable[Item]):
    """Iterate over several loaders at once; each item is `(batch, batch_idx, dataloader_idx)`.

    Args:
        iterables: a loader, or lists, tuples and dictionaries of loaders, nested at will. Batches come in the same
            collection.
        mode: "min_size" stops with the shortest loader; "max_size" goes on to the longest, with None for those that
            have ended; "max_size_cycle" starts the shorter ones again; "sequential" gives the batches of one loader
            after the other.

    Example::

        loader = CombinedLoader({"faces": faces, "names": names}, mode="max_size_cycle")
        for batch, batch_idx, dataloader_idx in loader:
            batch["faces"], batch["names"]
    """

    def __init__(self, iterables: Any, mode: Mode = "min_size") -> None:
        if mode not in get_args(Mode):
            raise ValueError(f"mode={mode!r} is not one of {', '.join(map(repr, get_args(Mode)))}.")
        self._iterables, self._mode = iterables, mode
        self._flattened = list(_leaves(iterables))
        self._limits: list[int | float] | None = None

    @property
    def mode(self) -> Mode:
        """How the loaders are combined."""
        return self._mode

    @property
    def iterables(self) -> Any:
        """The loaders in the collection they were given in."""
        return self._iterables

    @property
    def flattened(self) -> list[Any]:
        """The loaders in a list; assign one of the same length to replace them."""
        return self._flattened

    @flattened.setter
    def flattened(self, flattened: list[Any]) -> None:
        if len(flattened) != len(self._flattened):
            raise ValueError(f"{len(flattened)} loaders cannot replace {len(self._flattened)}.")
        self._iterables = _filled(self._iterables, iter(flattened))
        self._flattened = list(flattened)

    @property
    def limits(self) -> list[int | float] | None:
        """How many batches of each loader to use at most; assign a number or a list."""
        return self._limits

    @limits.setter
    def limits(self, limits: int | float | list[int | float] | None) -> None:
        if isinstance(limits, (int, float)):
            limits = [limits] * len(self._flattened)
        if limits is not None and len(limits) != len(self._flattened):
            raise ValueError(f"{len(limits)} limits were given for {len(self._flattened)} loaders.")
        self._limits = limits

    def __len__(self) -> int:
        sizes = [self._size(k) for k in range(len(self._flattened))]
        if not sizes:
            return 0
        total = sum(sizes) if self._mode == "sequential" else _TOGETHER[self._mode].length(sizes)
        if math.isinf(total):
            raise TypeError(f"a CombinedLoader in mode {self._mode!r} has no length when one of its loaders has none.")
        return int(total)

    def _size(self, k: int) -> float:
        size = sized_len(self._flattened[k])
        return min(math.inf if size is None else size, self._limit(k))

    def _limit(self, k: int) -> float:
        return math.inf if self._limits is None else self._limits[k]

    def __iter__(self) -> Iterator[Item]:
        return Combination(self)


class Combination(Iterator[Item]):
    """A CombinedLoader on its way: its loaders' iterators, and how far it has come."""

    def __init__(
        self,
        combined: CombinedLoader,
        open_part: Callable[[Any], Iterator[Any]] = opened,
        i: int = 0,
        k: int = 0,
        ended: list[bool] | None = None,
    ) -> None:
        self.combined, self.open_part = combined, open_part
        self.i, self.k = i, k  # batches given, in mode "sequential" of the loader k
        self.ended = list(ended or [False] * len(combined.flattened))
        self.parts: list[Iterator[Any]] = []
        # opened here and not at the first batch: opening a DataLoader draws a random number
        if combined.mode != "sequential":
            self.parts = [open_part(loader) for loader in combined.flattened]
        else:
            self._open_from(k)

    def __next__(self) -> Item:
        return self._in_turn() if self.combined.mode == "sequential" else self._together()

    def _open_from(self, k: int) -> None:
        """The next loader in turn that gives any batch."""
        loaders = self.combined.flattened
        self.k = next((n for n in range(k, len(loaders)) if self.combined._limit(n)), len(loaders))
        self.parts = [self.open_part(loader) for loader in loaders[self.k : self.k + 1]]

    def _in_turn(self) -> Item:
        while self.parts:
            batch = next(self.parts[0], _END) if self.i < self.combined._limit(self.k) else _END
            if batch is not _END:
                self.i += 1
                return batch, self.i - 1, self.k
            self.i = 0
            self._open_from(self.k + 1)
        raise StopIteration

    def _together(self) -> Item:
        combined, mode = self.combined, cast("Any", self.combined.mode)
        rule, cycle = _TOGETHER[mode], mode == "max_size_cycle"
        over = not self.parts or self.i >= rule.length([combined._limit(k) for k in range(len(self.parts))])
        if over or rule.is_over(self.ended):
            raise StopIteration
        batches: list[Any] = []
        for k, loader in enumerate(combined.flattened):
            batch = _END if self.ended[k] and not cycle else next(self.parts[k], _END)
            if batch is _END:
                self.ended[k] = True
                if rule.is_over(self.ended):
                    raise StopIteration
                batch = None
                if cycle:
                    self.parts[k] = self.open_part(loader)
                    batch = next(self.parts[k], _END)
                    if batch is _END:
                        raise ValueError(f"loader {k} has no batches, so there is nothing to start again.")
            batches.append(batch)
        self.i += 1
        return _filled(combined._iterables, iter(batches)), self.i - 1, 0


def loaders_of(loader: Any) -> list[Any]:
    """The loaders that a CombinedLoader combines; any other is one by itself."""
    return loader.flattened if isinstance(loader, CombinedLoader) else [loader]


def _is_collection(iterables: Any) -> bool:
    if isinstance(iterables, Mapping):
        return True
    # a list of numbers or texts is itself a loader: these are its batches
    return isinstance(iterables, (list, tuple)) and any(
        isinstance(part, Iterable) and not isinstance(part, (str, bytes)) for part in iterables
    )


def _leaves(iterables: Any) -> Iterator[Any]:
    if not _is_collection(iterables):
        yield iterables
        return
    for part in iterables.values() if isinstance(iterables, Mapping) else iterables:
        yield from _leaves(part)


def _filled(iterables: Any, values: Iterator[Any]) -> Any:
    """The collection `iterables` with other leaves."""
    if not _is_collection(iterables):
        return next(values)
    if isinstance(iterables, Mapping):
        filled = {key: _filled(part, values) for key, part in iterables.items()}
        return OrderedDict(filled) if isinstance(iterables, OrderedDict) else filled
    parts = [_filled(part, values) for part in iterables]
    if hasattr(iterables, "_fields"):  # a named tuple
        return type(iterables)(*parts)
    return tuple(parts) if isinstance(iterables, tuple) else parts
