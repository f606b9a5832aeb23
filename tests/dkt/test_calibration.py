"""Reliability: known groups, chance as wide as it is, and the picture of dkt evaluate."""

from __future__ import annotations

import numpy as np

from dkt import Elo, simulate
from dkt.calibration import reliability
from dkt.cli import main
from dkt.data.simulate import write_school


def test_groups_of_known_predictions():
    found = reliability(np.array([True, False, True, True]), np.array([0.9, 0.1, 0.7, 0.3]), groups=2)
    np.testing.assert_allclose(found.predicted, [0.2, 0.8])
    np.testing.assert_allclose(found.happened, [0.5, 1.0])
    assert found.n.tolist() == [2, 2]


def test_the_truth_is_calibrated_and_a_bolder_guess_is_not():
    rng = np.random.default_rng(0)
    truth = rng.beta(3, 2, 60_000)
    right = rng.random(60_000) < truth
    within = []
    for guess in (truth, truth**3 / (truth**3 + (1 - truth) ** 3)):
        found = reliability(right, guess)
        low, high = found.interval()
        within.append(((found.happened >= low) & (found.happened <= high)).mean())
    assert within[0] > 0.8
    assert within[1] < 0.4


def test_few_rows_make_few_groups():
    assert reliability(np.array([True]), np.array([0.5])).n.tolist() == [1]


def test_evaluate_draws_it(tmp_path, capsys):
    answers, truth = simulate(students=60, questions=40, skills=8, concepts=3)
    write_school(answers, truth, tmp_path)
    Elo().fit(answers).save(tmp_path / "elo.pt")
    picture = tmp_path / "plots" / "calibration.png"
    assert main(["evaluate", str(tmp_path / "elo.pt"), str(tmp_path / "train_data.csv"), "--plot", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert f"calibration: {picture}" in capsys.readouterr().out
