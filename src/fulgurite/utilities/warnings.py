"""The category of warnings about what is probably, but not certainly, a mistake."""

from __future__ import annotations

import os
import warnings


class PossibleUserWarning(UserWarning):
    """A hint that may be a false alarm; silence all of them with `disable_possible_user_warnings`."""


def disable_possible_user_warnings(module: str = "") -> None:
    """Ignore every `PossibleUserWarning` from here on, or only those raised in modules matching `module`."""
    warnings.filterwarnings("ignore", category=PossibleUserWarning, module=module)


if os.environ.get("POSSIBLE_USER_WARNINGS", "").lower() in ("0", "off"):  # by a job's file, the program left as it is
    disable_possible_user_warnings()
