"""A table of a model's layers: types, parameters, modes, arithmetic, and sizes where an example input is known."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter, is_lazy

from fulgurite.utilities.model_helpers import in_eval_mode
from fulgurite.utilities.rank_zero import rank_zero_warn
from fulgurite.utilities.tree import move_data_to_device

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

UNKNOWN_SIZE = "?"
NOT_APPLICABLE = "n/a"
LEFTOVER_PARAMS_NAME = "other params"
Size = str | list[Any]


def summarize(lightning_module: nn.Module, max_depth: int = 1) -> ModelSummary:
    """Summarize a model; `max_depth` is how many levels of nesting to show, -1 all of them, 0 only the totals."""
    return ModelSummary(lightning_module, max_depth=max_depth)


class LayerSummary:
    """One layer; its sizes are known after a forward pass."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._in_size: Size | None = None
        self._out_size: Size | None = None
        self._hook_handle = self._register_hook()

    def _register_hook(self) -> RemovableHandle | None:
        if isinstance(self._module, torch.jit.ScriptModule):  # takes no hooks
            return None

        def measure(module: nn.Module, inputs: tuple[Any, ...], by_name: dict[str, Any], output: Any) -> None:
            given = (*inputs, *by_name.values())
            self._in_size = parse_batch_shape(given[0] if len(given) == 1 else given)
            self._out_size = parse_batch_shape(output)
            self.detach_hook()  # the first call is enough

        return self._module.register_forward_hook(measure, with_kwargs=True)

    def detach_hook(self) -> None:
        """Stop measuring."""
        if self._hook_handle is not None:
            self._hook_handle.remove()

    @property
    def in_size(self) -> Size:
        return self._in_size or UNKNOWN_SIZE

    @property
    def out_size(self) -> Size:
        return self._out_size or UNKNOWN_SIZE

    @property
    def layer_type(self) -> str:
        return type(self._module).__name__

    @property
    def num_parameters(self) -> int:
        return sum(_numel(p) for p in self._module.parameters())

    @property
    def training(self) -> bool:
        return self._module.training


class ModelSummary:
    """The layers of a model down to a depth, and its totals; `str` of it is the table.

    With `model.example_input_array` set, one forward pass (in eval mode, without gradients) also tells sizes and
    floating-point operations.
    """

    def __init__(self, model: nn.Module, max_depth: int = 1) -> None:
        if isinstance(max_depth, bool) or not isinstance(max_depth, int) or max_depth < -1:
            raise ValueError(f"max_depth={max_depth!r} can be -1 (all levels), 0 (totals only) or a number of levels.")
        self._model = model
        self._max_depth = max_depth
        self.flop_counts: dict[str, int] = {}
        self._layer_summary = self.summarize()

    @property
    def named_modules(self) -> list[tuple[str, nn.Module]]:
        """The modules that are shown."""
        depth = math.inf if self._max_depth == -1 else self._max_depth
        return [(name, m) for name, m in self._model.named_modules() if name and name.count(".") < depth]

    def summarize(self) -> dict[str, LayerSummary]:
        """Look at each layer, running the example input through the model if there is one."""
        layers = {name: LayerSummary(module) for name, module in self.named_modules}
        try:
            if getattr(self._model, "example_input_array", None) is not None:
                self._forward_example_input()
        finally:
            for layer in layers.values():
                layer.detach_hook()
        if any(isinstance(p, UninitializedParameter) for p in self._model.parameters()):
            rank_zero_warn("Layers that take their size from the first batch (lazy ones) count as 0 parameters so far.")
        return layers

    def _forward_example_input(self) -> None:
        from torch.utils.flop_counter import FlopCounterMode  # slow to import

        model: Any = self._model
        example = move_data_to_device(model.example_input_array, model.device)
        trainer = getattr(model, "_trainer", None)
        precision = trainer.precision_plugin.forward_context() if trainer is not None else contextlib.nullcontext()
        counter = FlopCounterMode(display=False)
        with in_eval_mode(model), torch.no_grad(), precision, counter:
            if isinstance(example, dict):
                model(**example)
            elif isinstance(example, (list, tuple)):
                model(*example)
            else:
                model(example)
        root = type(model).__name__
        self.flop_counts = {
            "" if name == root else name.removeprefix(f"{root}."): sum(counts.values())
            for name, counts in counter.get_flop_counts().items()
        }

    # of each layer
    @property
    def layer_names(self) -> list[str]:
        return list(self._layer_summary)

    @property
    def layer_types(self) -> list[str]:
        return [layer.layer_type for layer in self._layer_summary.values()]

    @property
    def in_sizes(self) -> list[Size]:
        return [layer.in_size for layer in self._layer_summary.values()]

    @property
    def out_sizes(self) -> list[Size]:
        return [layer.out_size for layer in self._layer_summary.values()]

    @property
    def param_nums(self) -> list[int]:
        return [layer.num_parameters for layer in self._layer_summary.values()]

    @property
    def training_modes(self) -> list[bool]:
        return [layer.training for layer in self._layer_summary.values()]

    # of the whole
    @property
    def total_training_modes(self) -> dict[str, int]:
        """How many modules are in training mode, how many in eval mode."""
        modes = [module.training for name, module in self._model.named_modules() if name]
        return {"train": sum(modes), "eval": len(modes) - sum(modes)}

    @property
    def total_parameters(self) -> int:
        return sum(_numel(p) for p in self._model.parameters())

    @property
    def trainable_parameters(self) -> int:
        return sum(_numel(p) for p in self._model.parameters() if p.requires_grad)

    @property
    def total_layer_params(self) -> int:
        return sum(self.param_nums)

    @property
    def leftover_parameters(self) -> int:
        """Parameters that belong to none of the layers shown."""
        shown = {parameter for _, module in self.named_modules for parameter in module.parameters()}
        return sum(_numel(parameter) for parameter in self._model.parameters() if parameter not in shown)

    @property
    def model_size(self) -> float:
        """Megabytes that the parameters take."""
        return sum(_numel(p) * p.element_size() for p in self._model.parameters() if not is_lazy(p)) / 1e6

    @property
    def total_flops(self) -> int:
        return self.flop_counts.get("Global", 0)

    def _get_summary_data(self) -> list[tuple[str, list[str]]]:
        """The table as columns: a heading and a cell for each layer."""
        names = self.layer_names
        columns = [
            (" ", [str(i) for i in range(len(names))]),
            ("Name", names),
            ("Type", self.layer_types),
            ("Params", [get_human_readable_count(n) for n in self.param_nums]),
            ("Mode", ["train" if training else "eval" for training in self.training_modes]),
            ("FLOPs", [get_human_readable_count(self.flop_counts.get(name, 0)) for name in names]),
        ]
        if getattr(self._model, "example_input_array", None) is not None:
            columns.append(("In sizes", [str(size) for size in self.in_sizes]))
            columns.append(("Out sizes", [str(size) for size in self.out_sizes]))
        if leftover := self.leftover_parameters:
            last = {" ": " ", "Name": LEFTOVER_PARAMS_NAME, "Params": get_human_readable_count(leftover)}
            for heading, cells in columns:
                cells.append(last.get(heading, NOT_APPLICABLE))
        return columns

    def __str__(self) -> str:
        return format_summary(
            self._get_summary_data(),
            self.total_parameters,
            self.trainable_parameters,
            self.model_size,
            self.total_training_modes,
            self.total_flops,
        )

    def __repr__(self) -> str:
        return str(self)


def format_summary(
    columns: list[tuple[str, list[str]]],
    total_parameters: int,
    trainable_parameters: int,
    model_size: float,
    total_training_modes: dict[str, int],
    total_flops: int,
) -> str:
    """The layers as a table of plain text, the totals below."""
    widths = [max(map(len, [heading, *cells])) for heading, cells in columns]
    rows = [[heading for heading, _ in columns], *zip(*(cells for _, cells in columns), strict=True)]
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    rule = "-" * max(len(line) for line in lines)
    totals = {
        "Trainable params": get_human_readable_count(trainable_parameters),
        "Non-trainable params": get_human_readable_count(total_parameters - trainable_parameters),
        "Total params": get_human_readable_count(total_parameters),
        "Total estimated model params size (MB)": get_formatted_model_size(model_size),
        "Modules in train mode": str(total_training_modes["train"]),
        "Modules in eval mode": str(total_training_modes["eval"]),
        "Total Flops": get_human_readable_count(total_flops),
    }
    return "\n".join([lines[0], rule, *lines[1:], rule, *(f"{value:<10}{name}" for name, value in totals.items())])


def get_human_readable_count(number: int) -> str:
    """A count in at most four characters and a letter.

    >>> get_human_readable_count(12), get_human_readable_count(1234), get_human_readable_count(123456789)
    ('12', '1.2 K', '123 M')
    """
    if number < 1000:
        return str(number)
    power = min((len(str(number)) - 1) // 3, 4)
    whole, rest = divmod(number, 1000**power)
    letter = " KMBT"[power]
    return f"{whole:,} {letter}" if whole > 99 else f"{whole}.{rest * 10 // 1000**power} {letter}"


def get_formatted_model_size(total_model_size: float) -> str:
    """Megabytes with three digits after the point."""
    return f"{total_model_size:,.3f}"


def parse_batch_shape(batch: Any) -> Size:
    """The shape of a tensor, or of the tensors in nested lists; "?" for anything else."""
    if isinstance(batch, Tensor):
        return list(batch.shape)
    if isinstance(batch, (list, tuple)):
        return [parse_batch_shape(part) for part in batch]
    return UNKNOWN_SIZE


def _numel(parameter: Tensor) -> int:
    return 0 if is_lazy(parameter) else parameter.numel()
