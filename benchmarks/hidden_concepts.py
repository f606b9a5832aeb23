"""Hidden concepts found again: the test AUC of a model and how far the groups of its skills agree with the truth.

    python benchmarks/hidden_concepts.py v0_train1.csv v0_valid1.csv v0_test.csv v0_concepts.txt sakt

The truth is the list of each skill's concept, in order of the skills' numbers (first line up to `]`). Without files:
the simulated school and its own truth. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import ast
import json
import time
from pathlib import Path

import numpy as np
import torch

from dkt.commands.shared import setting
from dkt.concepts import adjusted_rand_index, hidden_concepts, influence
from dkt.data import read_answers
from dkt.data.simulate import simulate
from dkt.data.splits import split_students
from dkt.evaluate import auc
from dkt.models.catalogue import model_named


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="train, valid, test, concepts")
    parser.add_argument("model", help="name of dkt's catalogue")
    parser.add_argument("--set", type=setting, action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--students", type=int, default=60, help="histories to measure the influence on")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.files:
        train, valid, test = (read_answers(path) for path in arguments.files[:3])
        truth = ast.literal_eval(arguments.files[3].read_text().split("]")[0] + "]")
        concept = np.array([truth[int(name) - 1] for name in test.skill_names])
    else:
        answers, school = simulate(seed=arguments.seed)
        train, valid, test = split_students(answers, (0.7, 0.15, 0.15), arguments.seed)
        concept = school.concept_of_skill
    since = time.process_time()
    model = model_named(arguments.model, seed=arguments.seed, **dict(arguments.set)).fit(train, valid)
    fitted = time.process_time() - since
    found = hidden_concepts(influence(model, test, arguments.students, arguments.seed), len(set(concept.tolist())))
    right = test.answer.astype(bool)
    print(
        json.dumps(
            {
                "benchmark": "hidden_concepts",
                "data": arguments.files[2].name if arguments.files else "simulated school",
                "model": arguments.model,
                "settings": dict(arguments.set),
                "valid_auc": round(auc(valid.answer.astype(bool), model.predict(valid)), 4),
                "test_auc": round(auc(right, model.predict(test)), 4),
                "concepts": len(set(concept.tolist())),
                "adjusted_rand_index": round(adjusted_rand_index(found, concept), 4),
                "fit_cpu_seconds": round(fitted, 1),
                "seed": arguments.seed,
            }
        )
    )


if __name__ == "__main__":
    main()
