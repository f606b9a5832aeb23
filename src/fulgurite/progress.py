"""The counters: what is finished. Every decision of the loop is a function of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass
class Progress:
    """How far a fit has come. Counters move before the hooks that tell of it, so a checkpoint says what is done."""

    epoch: int = 0  # epochs closed
    batch: int = 0  # batches done in the open epoch
    total_batch: int = 0  # batches done in all
    skipped: int = 0  # of these, batches that on_train_batch_start cancelled
    global_step: int = 0  # optimizer steps
    validated_at: int = 0  # total_batch at the last validation
    plateau_at: int = 0  # total_batch when plateau schedulers by step were last asked
    is_last_batch: bool = False  # of the open epoch, known by looking ahead
    epoch_closed: bool = False  # on_train_epoch_end has begun
    eval_batches: dict[str, list[int]] = field(default_factory=dict)  # per stage and loader: the x-axis of step values

    @property
    def in_epoch(self) -> bool:
        return self.batch > 0 or self.epoch_closed

    def next_epoch(self) -> None:
        self.epoch += 1
        self.batch = 0
        self.is_last_batch = self.epoch_closed = False

    def reopen_epoch(self) -> None:
        """Begin the open epoch anew: an exception ended it, and its running values went with that run."""
        self.batch = 0
        self.is_last_batch = self.epoch_closed = False

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in (f.name for f in fields(self)):
            if name in state:
                setattr(self, name, state[name])
