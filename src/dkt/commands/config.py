"""Settings of a command from a YAML file, and a command's settings as one: `--config`, `--print_config`.

A file names arguments as the command line does, without dashes; what the command line gives goes before it.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from pathlib import Path
from typing import Any

import yaml

from dkt.data.table import DataError

NOT_IN_FILES = ("help", "config", "print_config")


def add_config_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("--config", type=Path, metavar="FILE", help="read settings from a YAML file (see below)")
    command.add_argument("--print_config", action="store_true", help="print all settings as such a file, and stop")


def use_config(command: argparse.ArgumentParser, path: Path) -> None:
    """Make the settings in `path` the defaults of `command`."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise DataError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict):
        raise DataError(f"{path} holds no settings; write one a line, like `epochs: 5`.")
    actions = {name: action for action in _settings(command) for name in _names(action)}
    for name, value in found.items():
        if name not in actions:
            close = difflib.get_close_matches(str(name), actions, n=1)
            meant = f"; did you mean {close[0]}?" if close else f": {', '.join(sorted(actions))}."
            raise DataError(f"{path}: {name} is no setting of `{command.prog}`{meant}")
        action = actions[name]
        action.default = _converted(command, action, value, f"{path}: {name}")
        action.required = False
        if not action.option_strings:  # a positional argument may now be left out
            action.nargs = "*" if action.nargs == "+" else "?"


def print_config(command: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """The settings of this run as a YAML file, each under what it means."""
    for action in _settings(command):
        help_text = (action.help or "").replace("%%", "%")
        value = _plain(getattr(arguments, action.dest))
        sys.stdout.write(f"# {help_text}\n{yaml.safe_dump({_names(action)[0]: value}, sort_keys=False)}")


def _settings(command: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in command._actions if action.dest not in NOT_IN_FILES]  # argparse has no public list


def _names(action: argparse.Action) -> list[str]:
    """What a file may call an argument: its long flag, with - or _."""
    flags = [flag.lstrip("-") for flag in action.option_strings if flag.startswith("--")] or [action.dest]
    return [*dict.fromkeys(name for flag in flags for name in (flag, flag.replace("-", "_")))]


def _converted(command: argparse.ArgumentParser, action: argparse.Action, value: Any, where: str) -> Any:
    """The value as the command line would have made it of its text."""
    if value is None:
        return action.default
    if isinstance(action, argparse._StoreTrueAction | argparse._StoreFalseAction):
        if not isinstance(value, bool):
            raise DataError(f"{where} is {value!r}; it is true or false.")
        return value is isinstance(action, argparse._StoreTrueAction)
    repeats = isinstance(action, argparse._AppendAction)
    if isinstance(value, dict) and repeats:
        items = [f"{k}={v if isinstance(v, str) else yaml.safe_dump(v)}".strip() for k, v in value.items()]
    else:
        items = value if isinstance(value, list) else [value]
    if isinstance(value, list) and not repeats and action.nargs is None:
        raise DataError(f"{where} is {value!r}; it is one value, not a list.")
    try:
        made = [command._get_value(action, str(item)) for item in items]
        for item in made:
            command._check_value(action, item)
    except (argparse.ArgumentError, argparse.ArgumentTypeError) as error:
        raise DataError(f"{where}: {getattr(error, 'message', error)}") from error
    return made if repeats or isinstance(value, list) else made[0]


def _plain(value: Any) -> Any:
    """Only what a YAML file can say."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list) and all(isinstance(item, tuple) for item in value) and value:
        return {name: _plain(item) for name, item in value}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | None) else str(value)
