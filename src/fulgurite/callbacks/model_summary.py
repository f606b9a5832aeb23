"""Prints the layers of the module before training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fulgurite.callbacks.callback import Callback
from fulgurite.utilities import model_summary
from fulgurite.utilities.rank_zero import rank_zero_info

if TYPE_CHECKING:
    from fulgurite.core.module import LightningModule
    from fulgurite.trainer import Trainer


class ModelSummary(Callback):
    """Print layers down to `max_depth` levels: -1 all, 0 no summary.

    Example::

        Trainer(callbacks=[ModelSummary(max_depth=2)])

    Override `summarize` to print it in another way; further keywords are passed to it.
    """

    def __init__(self, max_depth: int = 1, **summarize_kwargs: Any) -> None:
        super().__init__()
        self._max_depth = max_depth
        self._summarize_kwargs = summarize_kwargs

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._max_depth == 0:
            return
        summary = model_summary.ModelSummary(pl_module, max_depth=self._max_depth)
        if trainer.is_global_zero:
            self.summarize(
                summary._get_summary_data(),
                summary.total_parameters,
                summary.trainable_parameters,
                summary.model_size,
                summary.total_training_modes,
                total_flops=summary.total_flops,
                **self._summarize_kwargs,
            )

    @staticmethod
    def summarize(
        summary_data: list[tuple[str, list[str]]],
        total_parameters: int,
        trainable_parameters: int,
        model_size: float,
        total_training_modes: dict[str, int],
        total_flops: int,
        **summarize_kwargs: Any,
    ) -> None:
        """Show the summary: a column is its heading and a cell for each layer."""
        table = model_summary.format_summary(
            summary_data, total_parameters, trainable_parameters, model_size, total_training_modes, total_flops
        )
        rank_zero_info("\n" + table)
