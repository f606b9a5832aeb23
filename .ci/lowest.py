"""The lower bounds of pyproject.toml as constraints for pip: every dependency at its lowest version, but torch."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def lowest() -> dict[str, str]:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    bounds = re.findall(r'"([\w-]+)(?:\[[\w,]+\])?>=([\w.]+)"', text)
    return {name: version for name, version in bounds if name not in ("torch", "hatchling")}


if __name__ == "__main__":
    print(*[f"{name}=={version}" for name, version in lowest().items()], sep="\n")
