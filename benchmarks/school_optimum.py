"""The simulated school: how well can anybody predict, and how near does a model come?

    python benchmarks/school_optimum.py trees,dkt-r+features

Two limits over the same test students: the probabilities that the answers were drawn with (they know each student's
ability), and what an observer could say who knows the generator and every question's true numbers, but of a student
only the answers before: a Gaussian filter over abilities and pace. No model can be expected above the second. Prints
one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import torch

from dkt.data import simulate as school
from dkt.data.splits import split_students
from dkt.evaluate import auc, log_loss
from dkt.models.catalogue import model_named

NODE, WEIGHT = np.polynomial.hermite_e.hermegauss(15)
WEIGHT = WEIGHT / WEIGHT.sum()
ABILITY, OF_CONCEPT, PACE, PACE_SPREAD = 0.7, 0.35, 0.12, 0.2  # as in dkt.data.simulate._live
GUESS, SLIP, MOST, LASTING = 0.05, 0.03, 3.0, 20 * school.DAY


def filtered(answers, bank, concepts: int) -> np.ndarray:
    """[rows] the probability of a right answer given the answers before, by moment matching."""
    paces = PACE * np.exp(PACE_SPREAD * np.array([-1.5, -0.5, 0.5, 1.5]))  # nearly the quartiles of the pace
    n, k = answers.n_students, len(paces)
    mean = np.zeros((n, k, concepts))
    cov = np.broadcast_to(ABILITY**2 + OF_CONCEPT**2 * np.eye(concepts), (n, k, concepts, concepts)).copy()
    pace_weight = np.broadcast_to(np.exp(-(np.array([-1.5, -0.5, 0.5, 1.5]) ** 2) / 2), (n, k)).copy()
    pace_weight /= pace_weight.sum(1, keepdims=True)
    learned, practised = np.zeros((n, k, concepts)), np.full((n, concepts), -1.0)
    p = np.empty(len(answers))
    order = np.argsort(-answers.lengths, kind="stable")
    for step in range(int(answers.lengths.max())):
        who = order[answers.lengths[order] > step]
        row = answers.offsets[who] + step
        question = answers.question[row]
        at = np.arange(len(who))
        reads, gained = np.zeros((len(who), concepts)), np.zeros((len(who), k))
        for concept in bank.concepts[question].T:
            last, now = practised[who, concept], answers.time[row]
            kept = learned[who, :, concept] * np.exp(-np.where(last < 0, 0, now - last) / LASTING)[:, None]
            gained += 0.5 * kept
            reads[at, concept] += 0.5
            learned[who, :, concept] = kept + paces * (MOST - kept)
            practised[who, concept] = now
        spread = np.einsum("nkcd,nd->nkc", cov[who], reads)
        x, v = np.einsum("nkc,nc->nk", mean[who], reads), np.einsum("nkc,nc->nk", spread, reads)
        level = (x + gained)[..., None] + np.sqrt(v)[..., None] * NODE
        a, b = bank.discrimination[question][:, None, None], bank.difficulty[question][:, None, None]
        likely = GUESS + (1 - GUESS - SLIP) / (1 + np.exp(-a * (level - b)))
        p[row] = ((likely * WEIGHT).sum(-1) * pace_weight[who]).sum(1)
        seen = np.where(answers.answer[row].astype(bool)[:, None, None], likely, 1 - likely) * WEIGHT
        evidence = seen.sum(-1)
        moved = (seen * NODE).sum(-1) / evidence
        narrowed = (seen * NODE**2).sum(-1) / evidence - moved**2
        mean[who] += spread * (moved / np.sqrt(v))[..., None]
        cov[who] += spread[..., :, None] * spread[..., None, :] * ((narrowed - 1) / v)[..., None, None]
        weight = pace_weight[who] * evidence
        pace_weight[who] = weight / weight.sum(1, keepdims=True)
    return p


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="names of dkt's catalogue")
    parser.add_argument("--students", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0, help="of the school, its split and the models")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    questions, skills, concepts = 400, 40, 8  # the defaults of `dkt simulate`
    answers, truth = school.simulate(students=arguments.students, seed=arguments.seed)
    rng = np.random.default_rng(arguments.seed)
    concept_of_skill = rng.permutation(np.arange(skills) % concepts)
    bank = school._question_bank(questions, concept_of_skill, concepts, rng)
    assert (bank.difficulty == truth.difficulty).all()
    train, valid, test = split_students(answers, (0.7, 0.15, 0.15), arguments.seed)
    right = test.answer.astype(bool)
    found = {"true probabilities": test.extra[school.TRUTH], "best from the history": filtered(test, bank, concepts)}
    seconds = {}
    for name in arguments.models:
        since = time.process_time()
        found[name] = model_named(name, seed=arguments.seed).fit(train, valid).predict(test)
        seconds[name] = round(time.process_time() - since, 1)
    print(
        json.dumps(
            {
                "benchmark": "school_optimum",
                "rows": len(test),
                "auc": {name: round(auc(right, p), 4) for name, p in found.items()},
                "log_loss": {name: round(log_loss(right, p), 4) for name, p in found.items()},
                "cpu_seconds": seconds,
                "seed": arguments.seed,
                "when": time.strftime("%Y-%m-%d"),
            }
        )
    )


if __name__ == "__main__":
    main()
