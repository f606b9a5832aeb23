"""The model summary as a table drawn by rich."""

from __future__ import annotations

from typing import Any

from fulgurite.callbacks.model_summary import ModelSummary
from fulgurite.utilities.model_summary import get_formatted_model_size, get_human_readable_count


class RichModelSummary(ModelSummary):
    """A `ModelSummary` in colours; keywords `header_style` and those of `rich.table.Table` style it.

    Example::

        Trainer(callbacks=[RichModelSummary(max_depth=-1)])
    """

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
        from rich import get_console
        from rich.table import Table

        table = Table(**{"header_style": "bold magenta", **summarize_kwargs})
        for heading, _ in summary_data:
            numbers = heading in ("Params", "FLOPs", "In sizes", "Out sizes")
            table.add_column(heading, justify="right" if numbers else "left", no_wrap=heading == "Name")
        for row in zip(*(cells for _, cells in summary_data), strict=True):
            table.add_row(*row)
        totals = Table.grid(padding=(0, 2))
        for name, value in (
            ("Trainable params", get_human_readable_count(trainable_parameters)),
            ("Non-trainable params", get_human_readable_count(total_parameters - trainable_parameters)),
            ("Total params", get_human_readable_count(total_parameters)),
            ("Total estimated model params size (MB)", get_formatted_model_size(model_size)),
            ("Modules in train mode", str(total_training_modes["train"])),
            ("Modules in eval mode", str(total_training_modes["eval"])),
            ("Total FLOPs", get_human_readable_count(total_flops)),
        ):
            totals.add_row(f"[bold]{name}[/]", value)
        console = get_console()
        console.print(table)
        console.print(totals)
