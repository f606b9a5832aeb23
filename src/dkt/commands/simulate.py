"""dkt simulate: a school whose truth is known, as the course's files."""

from __future__ import annotations

import argparse
from pathlib import Path

from dkt.commands.shared import Report, add_seed, empty_report, score_rows
from dkt.data import simulate as school

EPILOG = None


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "directory", type=Path, help="where to write train_data.csv, test_data.csv, *_truth.csv and concepts.csv"
    )
    command.add_argument("--students", type=int, default=3000, help="number of students; every tenth is a test student")
    command.add_argument("--questions", type=int, default=400, help="size of the question bank")
    command.add_argument("--skills", type=int, default=40, help="tags that the file shows")
    command.add_argument("--concepts", type=int, default=8, help="hidden concepts behind the tags")
    command.add_argument("--answers", type=int, default=80, metavar="N", help="mean number of answers of a student")
    add_seed(command)


def run(arguments: argparse.Namespace) -> Report:
    answers, truth = school.simulate(
        students=arguments.students,
        questions=arguments.questions,
        skills=arguments.skills,
        concepts=arguments.concepts,
        answers_per_student=arguments.answers,
        seed=arguments.seed,
    )
    paths = school.write_school(answers, truth, arguments.directory)
    optimum = score_rows(answers, answers.extra[school.TRUTH])
    print(f"{answers.n_students:,} students, {len(answers):,} answers, {answers.answer.mean():.1%} right")
    print(f"written: {', '.join(str(path) for path in paths.values())}; the truth beside each, and concepts.csv")
    print(f"optimum (the true probabilities): {optimum}")
    return {**empty_report(), "test": optimum.as_dict(), "seed": arguments.seed}
