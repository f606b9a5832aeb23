"""`add_argparse_args` and `from_argparse_args` of the 1.x era, for the trainer and for data modules."""

from __future__ import annotations

import ast
import inspect
from argparse import ArgumentParser, Namespace
from typing import Any, TypeVar

from fulgurite.compat.era import say

T = TypeVar("T")
# the arguments of the last 1.x parsers that the trainer no longer shows in its signature
# fmt: off
_ALSO = [
    "gpus", "num_processes", "tpu_cores", "auto_select_gpus", "progress_bar_refresh_rate", "weights_summary",
    "log_gpu_memory", "track_grad_norm", "flush_logs_every_n_steps", "checkpoint_callback",
    "resume_from_checkpoint", "weights_save_path", "terminate_on_nan", "stochastic_weight_avg", "auto_lr_find",
    "auto_scale_batch_size", "replace_sampler_ddp", "move_metrics_to_cpu", "amp_backend", "amp_level",
    "multiple_trainloader_mode", "prepare_data_per_node", "process_position",
]
# fmt: on


def add_argparse_args(cls: type, /, parent_parser: ArgumentParser, **kwargs: Any) -> ArgumentParser:
    """Add an option for each argument of `cls.__init__` to a parser."""
    first = next(iter(_options(cls)), "name")
    line = f"Write parser.add_argument('--{first}') for what your script sets, or use fulgurite.cli."
    say(f"{cls.__name__}.add_argparse_args", line)
    for part in (parent_parser, parent_parser._optionals):
        part.conflict_handler = "resolve"  # an option of the script's own goes before ours
    group = parent_parser.add_argument_group(f"pl.{cls.__name__}")
    texts = {p.name for p in inspect.signature(cls).parameters.values() if p.annotation in (str, "str")}
    for name, default in _options(cls).items():
        if f"--{name}" not in parent_parser._option_string_actions:
            flag: dict[str, Any] = {"nargs": "?", "const": True} if isinstance(default, bool) or default is None else {}
            group.add_argument(f"--{name}", default=default, type=str if name in texts else _value, **flag)
    return parent_parser


def from_argparse_args(cls: type[T], /, args: Namespace | ArgumentParser, **kwargs: Any) -> T:
    """Make a `cls` of what was parsed; `kwargs` go before."""
    first = next(iter(_options(cls)), "name")
    say(f"{cls.__name__}.from_argparse_args", f"Write {cls.__name__}({first}=args.{first}, ...).")
    if isinstance(args, ArgumentParser):
        args = args.parse_args()
    options = _options(cls)
    given = {k: v for k, v in vars(args).items() if k in options and (v is not None or k not in _ALSO)}
    return cls(**{**given, **kwargs})


def _options(cls: type) -> dict[str, Any]:
    parameters = [p for p in inspect.signature(cls).parameters.values() if p.kind is not p.VAR_KEYWORD]
    options = {p.name: None if p.default is p.empty else p.default for p in parameters}
    return {**options, **dict.fromkeys(_ALSO)} if "max_epochs" in options else options


def _value(text: str) -> Any:
    """A number, True, False or None where the text is one; "0,1" stays the text it is."""
    value = literal(text.capitalize() if text.lower() in ("true", "false", "none") else text)
    return value if value is None or isinstance(value, (bool, int, float)) else text


def literal(text: str) -> Any:
    """What Python reads in a text, or the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
