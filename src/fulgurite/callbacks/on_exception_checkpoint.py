"""Saves when a run fails."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fulgurite.callbacks.checkpoint import Checkpoint, check_name
from fulgurite.states import TrainerFn
from fulgurite.utilities.cloud_io import location, path_of

if TYPE_CHECKING:
    from fulgurite.core.module import LightningModule
    from fulgurite.trainer import Trainer


class OnExceptionCheckpoint(Checkpoint):
    """Save `<dirpath>/<filename>.ckpt` when an exception ends training; a run that ends well removes it.

    Example::

        trainer = Trainer(callbacks=[OnExceptionCheckpoint("checkpoints")])
        trainer.fit(model)  # goes on from it, where there is one, as with ckpt_path="last"
    """

    FILE_EXTENSION = ".ckpt"

    def __init__(self, dirpath: str | Path, filename: str = "on_exception") -> None:
        super().__init__()
        if not filename:
            raise ValueError("OnExceptionCheckpoint(filename=''): the file needs a name.")
        check_name(filename, f"OnExceptionCheckpoint(filename={filename!r})")
        self.dirpath = location(dirpath)
        self._root = "."  # of a relative folder: where the program was when the run began
        self.filename = filename
        self._failed = False

    @property
    def ckpt_path(self) -> str:
        folder = path_of(self.dirpath)
        folder = Path(self._root, folder) if isinstance(folder, Path) else folder
        return str(folder / (self.filename + self.FILE_EXTENSION))

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._failed = False
        self._root = str(Path.cwd())

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._failed = True  # teardown follows where a signal ended the run
        if trainer.state.fn == TrainerFn.FITTING and trainer.progress.total_batch:
            trainer.save_checkpoint(self.ckpt_path)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if trainer.is_global_zero and stage == "fit" and not self._failed and self._is_done(trainer):
            trainer.strategy.checkpoint_io.remove_checkpoint(self.ckpt_path)

    def _is_done(self, trainer: Trainer) -> bool:
        """Whether this run went on from the file, and has ended: another run's is still to be resumed."""
        given = trainer.ckpt_path
        return given is not None and path_of(given).absolute() == path_of(self.ckpt_path)

    def _find_last_checkpoints(self, trainer: Trainer) -> set[str]:
        """The file that `ckpt_path="last"` may choose."""
        return {self.ckpt_path} if path_of(self.ckpt_path).exists() else set()

    def _names_in_use(self) -> set[str]:
        return {self.ckpt_path}
