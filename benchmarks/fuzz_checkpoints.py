"""Changed and hostile checkpoints by the thousand: how reading each ended.

python benchmarks/fuzz_checkpoints.py                # a twentieth of it
python benchmarks/fuzz_checkpoints.py --scale 1      # 2,000 flips, 700 + 300 keys, 900 pickles, 100 class paths
python benchmarks/fuzz_checkpoints.py --only pickles --scale 1 --seed 3
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "src")]

from helpers.fuzz import fuzzed  # noqa: E402

COUNTS = {"flips": 2000, "inner keys": 700, "top-level keys": 300, "pickles": 900, "class paths": 100}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=list(COUNTS))
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for kind, count in COUNTS.items():
            if arguments.only in (None, kind):
                found[kind] = dict(fuzzed(kind, max(1, int(count * arguments.scale)), arguments.seed).most_common())
        os.chdir(ROOT)
    print(json.dumps(found, ensure_ascii=False))


if __name__ == "__main__":
    main()
