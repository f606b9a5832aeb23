"""What our base classes inherit from the 1.x era: a module's, a data module's and two callbacks' old members."""

from __future__ import annotations

import functools
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fulgurite.compat.argparsing import add_argparse_args, from_argparse_args
from fulgurite.compat.era import say

if TYPE_CHECKING:
    from typing_extensions import Self

Init = TypeVar("Init", bound=Callable[..., None])


class OldModule:
    """What a module answers to besides its own names."""

    def get_progress_bar_dict(self: Any) -> dict[str, Any]:
        """What the bar shows: of the 1.x era, where modules overrode it."""
        trainer = self.trainer
        version = getattr(trainer.logger, "version", None)
        return {**({} if version is None else {"v_num": version}), **trainer.progress_bar_metrics}

    def summarize(self: Any, mode: str = "top", max_depth: int | None = None) -> Any:
        """A table of the layers: of the 1.x era."""
        from fulgurite.utilities.model_summary import summarize

        say("self.summarize()", "Write summarize(self, max_depth=1), from fulgurite.utilities.model_summary.")
        return summarize(self, max_depth=max_depth if max_depth is not None else 1 if mode == "top" else -1)


class OldDataModule:
    """What a data module answers to besides its own names."""

    @classmethod
    def add_argparse_args(cls, parent_parser: ArgumentParser, **kwargs: Any) -> ArgumentParser:
        """Add an option for each argument of the data module; of the 1.x era."""
        return add_argparse_args(cls, parent_parser, **kwargs)

    @classmethod
    def from_argparse_args(cls, args: Namespace | ArgumentParser, **kwargs: Any) -> Self:
        """A data module made of what was parsed; of the 1.x era."""
        return from_argparse_args(cls, args, **kwargs)


def assign_hparams(owner: Any, hparams: Mapping[str, Any] | Namespace) -> None:
    """`self.hparams = hparams`, in the `__init__` that assigns."""
    say("self.hparams = ...", "Write self.save_hyperparameters(hparams).")
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_name != "__init__":  # past the `__setattr__` of the bases
        frame = frame.f_back
    owner.save_hyperparameters(hparams, frame=frame)


def old_callback_arguments(init: Init) -> Init:
    """Let ModelCheckpoint and EarlyStopping take the arguments of the 1.x era, without showing them."""

    @functools.wraps(init)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> None:
        name = type(self).__name__
        if "filepath" in kwargs:
            path = str(kwargs.pop("filepath") or "")
            folder, _, file = path.rpartition("/")
            if path and Path(path).is_dir():
                folder, file = path, ""
            kwargs.update({"dirpath": folder or None, "filename": file.removesuffix(".ckpt") or None})
            say(f"{name}(filepath={path!r})", f"Write dirpath={kwargs['dirpath']!r}, filename={kwargs['filename']!r}.")
        if "period" in kwargs:
            kwargs["every_n_epochs"] = kwargs.pop("period")
            say(f"{name}(period=...)", f"Write every_n_epochs={kwargs['every_n_epochs']}.")
        if prefix := kwargs.pop("prefix", "") if "ModelCheckpoint" in name else "":
            kwargs["filename"] = f"{prefix}-{kwargs.get('filename') or '{epoch}-{step}'}"
            say(f"{name}(prefix={prefix!r})", f"Write filename={kwargs['filename']!r}.")
        if kwargs.get("mode") == "auto":
            kwargs["mode"] = "max" if "acc" in str(kwargs.get("monitor")) else "min"
            say(f"{name}(mode='auto')", f"Write mode={kwargs['mode']!r}.")
        init(self, *args, **kwargs)

    return wrapper  # type: ignore[return-value]  # wraps() keeps the signature that callers see
