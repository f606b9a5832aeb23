"""Preparing data: seconds and peak memory of fresh processes with one thread, and milliseconds of an AUC.

    python benchmarks/dkt_data.py                                       the course's size: 2.3 million rows, 6 columns
    python benchmarks/dkt_data.py --ednet 3000000 6000000 12000000      EdNet's shape, streamed, at growing sizes

The files are generated into a temporary folder (`--folder` keeps them). EdNet has 131,441,538 rows of 784,309 students;
`peak_mb_at_131m` is the line through the smallest and the largest size, continued to there. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

COURSE = {"students": 7442, "items": 9454, "tests": 1537, "tags": 912}
EDNET_ROWS, EDNET_STUDENTS, EDNET_QUESTIONS, EDNET_TAGS = 131_441_538, 784_309, 13_169, 188

READ = """
import sys, time
since = time.process_time(), time.perf_counter()
from dkt.data import read_answers
n = len(read_answers(sys.argv[1]))
"""
CONVERT = """
import sys, time
since = time.process_time(), time.perf_counter()
from dkt.cli import main
assert main(["data", "convert", sys.argv[1], sys.argv[2]]) == 0
from dkt.data import read_answers
n = len(read_answers(sys.argv[2]))
"""
TELL = """
import json
# Not ru_maxrss: a process that was started by a larger one inherits that one's.
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1024
print(json.dumps({"rows": n, "cpu_s": round(time.process_time() - since[0], 2),
                  "wall_s": round(time.perf_counter() - since[1], 2), "peak_mb": round(peak)}))
"""


def measured(code: str, *arguments: Path) -> dict[str, float]:
    """What a fresh process with one thread needs, imports included."""
    one = {**os.environ, "POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", code + TELL, *map(str, arguments)], env=one, check=True, capture_output=True, text=True
    )
    return json.loads(ran.stdout.splitlines()[-1])


def write_course(path: Path, rows: int) -> None:
    """A file of the course's shape, in its order: by student and time."""
    import polars as pl

    rng = np.random.default_rng(0)
    user = np.sort(rng.integers(COURSE["students"], size=rows))
    item = rng.integers(COURSE["items"], size=rows)
    at = 1_577_836_800 + np.arange(rows) * 7
    names = pl.Series([f"A{i % 9 + 1:02d}{i // 8:04d}{i % 8:03d}" for i in range(COURSE["items"])])
    tests = pl.Series([f"A{i % 9 + 1:02d}{i:07d}" for i in range(COURSE["tests"])])
    pl.DataFrame(
        {
            "userID": user,
            "assessmentItemID": names.gather(item),
            "testId": tests.gather(item % COURSE["tests"]),
            "answerCode": (rng.random(rows) < 0.65).astype(np.int8),
            "Timestamp": pl.from_epoch(pl.Series(at), "s").dt.strftime("%Y-%m-%d %H:%M:%S"),
            "KnowledgeTag": item % COURSE["tags"],
        }
    ).write_csv(path)


def write_ednet(folder: Path, rows: int) -> int:
    """A folder of EdNet-KT1's shape; the number of students."""
    rng = np.random.default_rng(0)
    (folder / "KT1").mkdir(parents=True)
    (folder / "contents").mkdir()
    bank = ["question_id,bundle_id,explanation_id,correct_answer,part,tags,deployed_at"]
    for q in range(1, EDNET_QUESTIONS + 1):
        tags = ";".join(map(str, rng.choice(EDNET_TAGS, size=rng.integers(1, 5), replace=False) + 1))
        bank.append(f"q{q},b{q},e{q},{'abcd'[q % 4]},1,{tags},1558093217098")
    (folder / "contents" / "questions.csv").write_text("\n".join(bank) + "\n")
    students = max(1, round(rows / (EDNET_ROWS / EDNET_STUDENTS)))
    weight = rng.lognormal(0, 1.5, students)
    lengths = np.maximum(1, np.round(weight / weight.sum() * rows)).astype(int)
    for s, n in enumerate(lengths.tolist(), start=1):
        at = 1_500_000_000_000 + np.cumsum(rng.integers(5_000, 90_000, n))
        columns = at, np.arange(1, n + 1), rng.integers(1, EDNET_QUESTIONS + 1, n), rng.integers(4, size=n)
        lines = [f"{t},{i},q{q},{'abcd'[a]},{t % 60_000}" for t, i, q, a in zip(*(c.tolist() for c in columns))]
        (folder / "KT1" / f"u{s}.csv").write_text(
            "timestamp,solving_id,question_id,user_answer,elapsed_time\n" + "\n".join(lines) + "\n"
        )
    return students


def auc_milliseconds(n: int = 1_000_000) -> float:
    """CPU milliseconds of the exact AUC of n probabilities, the best of nine."""
    from dkt.evaluate import auc

    rng = np.random.default_rng(0)
    right = rng.random(n) < 0.6
    value = (1 / (1 + np.exp(-(rng.normal(size=n) + right)))).astype(np.float32)
    best = np.inf
    for _ in range(9):
        since = time.process_time()
        auc(right, value)
        best = min(best, time.process_time() - since)
    return round(1000 * best, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_300_000, help="rows of the course's file")
    parser.add_argument("--ednet", type=int, nargs="*", default=[1_000_000, 2_000_000], help="rows of EdNet's shape")
    parser.add_argument("--folder", type=Path, help="where to keep the generated files")
    arguments = parser.parse_args()
    os.environ["POLARS_MAX_THREADS"] = "1"
    found: dict[str, object] = {"benchmark": "dkt_data", "auc_1e6_ms": auc_milliseconds()}
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        course = folder / f"train_data_{arguments.rows}.csv"
        if not course.exists():
            write_course(course, arguments.rows)
        found["course"] = measured(READ, course)
        sizes = []
        for rows in sorted(arguments.ednet):
            source = folder / f"ednet_{rows}"
            if not source.exists():
                write_ednet(source, rows)
            sizes.append(measured(CONVERT, source, folder / f"ednet_{rows}.store.{time.time_ns()}"))
        found["ednet"] = sizes
        if len(sizes) > 1:
            few, many = sizes[0], sizes[-1]
            slope = (many["peak_mb"] - few["peak_mb"]) / (many["rows"] - few["rows"])
            found["peak_mb_at_131m"] = round(few["peak_mb"] + slope * (EDNET_ROWS - few["rows"]))
    found["when"] = time.strftime("%Y-%m-%d")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
