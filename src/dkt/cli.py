"""The command line: one file in `dkt.commands` for each command, imported when it is asked for."""

from __future__ import annotations

import argparse
import importlib
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dkt.commands.config import add_config_arguments, print_config, use_config

DESCRIPTION = """\
Deep knowledge tracing: from the answers a student gave, the probability that the next one is right.

  dkt train                                       train on a simulated school, score it, and show what is possible
  dkt simulate school/                            write such a school as the course's train_data.csv and test_data.csv
  dkt train school/train_data.csv                 train on a file; a part of its students is kept for validation
  dkt evaluate runs/dkt/version_0/checkpoints/best.ckpt other.csv
  dkt predict CKPT school/test_data.csv -o submission.csv
  dkt compare trees dkt-r akt-r --data school/train_data.csv     one table of models on the same rows
  dkt cv trees --data school/train_data.csv --folds 5            every student predicted by a model of the others
  dkt data describe school/train_data.csv                        what is there, and what would leak
  dkt tune dkt-r --data school/train_data.csv --trials 20        settings, chosen on validation students
  dkt ensemble dkt.csv trees.csv -o submission.csv               the mean of submissions, or of their ranks, or a stack
  dkt data convert EdNet/ ednet/                                 to Parquet, or to a store for data larger than memory
  dkt mastery CKPT school/train_data.csv --student 42            what a student knows: a table and a heat map

`dkt COMMAND --help` explains a command.
"""

COMMANDS = {
    "simulate": "write a simulated school as the course's CSV files",
    "data": "describe a file of answers and the leaks in it, or convert it",
    "train": "train a model and score it; without DATA on a simulated school",
    "evaluate": "score a trained model on a file of answers",
    "predict": "predict the rows whose answerCode is -1, as a submission",
    "cv": "cross-validate a model by student, with out-of-fold predictions",
    "compare": "fit several models on the same rows, print one table and draw it",
    "tune": "search the settings of a model, scored on validation students",
    "ensemble": "several models' predictions as one",
    "mastery": "what a student knows, skill by skill, as a table and a heat map",
}

CONFIG_HELP = """
settings in a file: `dkt {name} ... --print_config > {name}.yaml` writes one, with every setting explained; `dkt {name}
--config {name}.yaml` uses it. What the command line gives goes before what the file says.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 2, with one line on stderr, when the input is at fault."""
    argv = sys.argv[1:] if argv is None else list(argv)
    if not argv or argv[0] not in COMMANDS:
        _overview().parse_args(argv)  # help, or what is wrong with it
    name = argv[0]
    try:
        command, run = _command(name)
        arguments = _parsed(command, argv[1:])
        if arguments.print_config:
            print_config(command, arguments)
            return 0
        if arguments.json:
            arguments.json.parent.mkdir(parents=True, exist_ok=True)
        results = run(arguments)
        if arguments.json:
            results["command"] = shlex.join(["dkt", *argv])
            arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    except Exception as error:
        of_polars = type(error).__module__ == "polars.exceptions"  # by name: help comes without loading polars
        if not (of_polars or isinstance(error, ValueError | OSError | ModuleNotFoundError)):
            raise
        print(f"dkt {name}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"dkt {name}: interrupted", file=sys.stderr)
        return 130
    return 0


def _overview() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "dkt", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in COMMANDS.items():
        commands.add_parser(name, help=text)
    return parser


def _command(name: str) -> tuple[argparse.ArgumentParser, Any]:
    """The parser of a command, and what runs it."""
    module = importlib.import_module(f"dkt.commands.{name}")
    text = COMMANDS[name]
    parser = argparse.ArgumentParser(
        f"dkt {name}",
        description=f"{text[0].upper()}{text[1:]}.",
        epilog=(module.EPILOG or "") + CONFIG_HELP.format(name=name),
        formatter_class=_HelpFormatter,
    )
    module.add_arguments(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results to FILE")
    add_config_arguments(parser)
    return parser, module.run


def _parsed(command: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    only_config = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    only_config.add_argument("--config", type=Path)
    file = only_config.parse_known_args(argv)[0].config
    if file:
        use_config(command, file)
    return command.parse_args(argv)


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows the defaults that say something: not None, not an empty list, and not that a switch is off."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        silent = action.default in (None, []) or action.nargs == 0
        return action.help if silent else super()._get_help_string(action)


if __name__ == "__main__":
    sys.exit(main())
