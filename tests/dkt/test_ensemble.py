"""Ensembles: known numbers, the files of dkt predict and dkt cv, and what does not fit together."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dkt.cli import main
from dkt.ensemble import Stacking, average, rank_average, read_predictions, stacked_out_of_fold
from dkt.evaluate import auc

RNG = np.random.default_rng(0)
STUDENT = [str(i // 20) for i in range(2000)]
RIGHT = RNG.random(2000) < 0.6


def guess(noise):
    return 1 / (1 + np.exp(-(2 * RIGHT - 1 + noise * RNG.normal(size=2000))))


def submission(path, values):
    path.write_text("id,prediction\n" + "".join(f"{i},{float(v)!r}\n" for i, v in enumerate(values)))
    return str(path)


def out_of_fold(path, values):
    rows = [f"{s},{i},{int(a)},{float(v)!r}\n" for i, (s, a, v) in enumerate(zip(STUDENT, RIGHT, values))]
    path.write_text("student,row,answer,prediction\n" + "".join(rows))
    return str(path)


def test_average_and_rank_of_known_numbers():
    one, two = np.array([0.1, 0.9, 0.5]), np.array([0.3, 0.5, 0.5])
    np.testing.assert_allclose(average([one, two]), [0.2, 0.7, 0.5])
    np.testing.assert_allclose(average([one, two], [3, 1]), [0.15, 0.8, 0.5])
    np.testing.assert_allclose(rank_average([one, two]), [1 / 6, (5 / 6 + 2 / 3) / 2, (1 / 2 + 2 / 3) / 2])


def test_ranks_do_not_see_the_scale():
    one, two = guess(2.0), guess(2.0)
    np.testing.assert_array_equal(rank_average([one, two**3]), rank_average([one, two]))


def test_a_stack_is_better_than_each_and_gives_more_weight_to_the_better_one():
    good, bad = guess(1.5), guess(4.0)
    stacked = stacked_out_of_fold([good, bad], RIGHT, STUDENT)
    assert auc(RIGHT, stacked) > max(auc(RIGHT, good), auc(RIGHT, bad))
    constant, one, two = Stacking([good, bad], RIGHT).weights
    assert one > two > 0


def test_the_rows_of_a_student_have_no_say_in_their_own_stack():
    good, bad = guess(1.5), guess(4.0)
    before = stacked_out_of_fold([good, bad], RIGHT, STUDENT)
    here = np.array(STUDENT) == "7"
    turned = np.where(here, ~RIGHT, RIGHT)
    after = stacked_out_of_fold([good, bad], turned, STUDENT)
    np.testing.assert_array_equal(after[here], before[here])
    assert (after[~here] != before[~here]).any()


def test_submissions_become_one(tmp_path, capsys):
    files = [submission(tmp_path / f"{name}.csv", values) for name, values in (("a", [0.2, 0.4]), ("b", [0.4, 0.8]))]
    out = tmp_path / "out" / "submission.csv"
    assert main(["ensemble", *files, "-o", str(out)]) == 0
    assert "correlation" in capsys.readouterr().out
    np.testing.assert_allclose(read_predictions(out).prediction, [0.3, 0.6])


def test_out_of_fold_files_say_what_each_way_is_worth(tmp_path, capsys):
    files = [out_of_fold(tmp_path / f"{i}.csv", guess(noise)) for i, noise in enumerate((1.5, 2.0))]
    out = tmp_path / "found.json"
    assert main(["ensemble", *files, "--json", str(out), "-o", str(tmp_path / "all.csv")]) == 0
    found = json.loads(out.read_text())["models"]
    assert set(found) == {*files, "average", "rank", "stack"}
    assert found["stack"]["auc"] > max(found[name]["auc"] for name in files)
    assert auc(RIGHT, read_predictions(tmp_path / "all.csv").prediction) == found["average"]["auc"]


def test_weights_learned_out_of_fold_are_used_on_submissions(tmp_path, capsys):
    columns = [guess(1.5), guess(4.0)]
    known = [out_of_fold(tmp_path / f"oof{i}.csv", values) for i, values in enumerate(columns)]
    asked = [submission(tmp_path / f"sub{i}.csv", values[:5]) for i, values in enumerate(columns)]
    out = tmp_path / "submission.csv"
    assert main(["ensemble", *known, "--how", "stack", "--apply", *asked, "-o", str(out)]) == 0
    assert "weights: constant" in capsys.readouterr().out
    np.testing.assert_allclose(read_predictions(out).prediction, Stacking(columns, RIGHT)([c[:5] for c in columns]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["SUB", "OTHER", "-o", "x"], "sub.csv has 3 rows and"),
        (["SUB", "OOF", "-o", "x"], "are a submission and an out-of-fold file; give one kind"),
        (["SUB", "SUB"], "name the file to write"),
        (["SUB", "SUB", "--how", "stack", "-o", "x"], "submissions do not hold the answers"),
        (["SUB", "SUB", "--weights", "1", "-o", "x"], "--weights has 1 numbers for 2 files"),
        (["SUB", "SUB", "--weights", "1", "-1", "-o", "x"], "must not be negative"),
        (["BAD", "-o", "x"], "bad.csv:3: prediction '1.5' is not between 0 and 1."),
        (["COLUMNS", "-o", "x"], "columns.csv has the columns a,b; a submission has id,prediction"),
        (["OOF", "OOF", "--how", "stack", "--apply", "SUB", "-o", "x"], "--apply needs the submissions of the same 2"),
        (["OOF", "SHUFFLED"], "line 2:"),
        (["none.csv", "-o", "x"], "none.csv"),
    ],
)
def test_what_does_not_fit_together_is_said(tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    submission(tmp_path / "sub.csv", [0.1, 0.2, 0.3])
    submission(tmp_path / "other.csv", [0.1, 0.2])
    submission(tmp_path / "bad.csv", [0.1, 1.5])
    out_of_fold(tmp_path / "oof.csv", guess(1.0))
    header, *rows = (tmp_path / "oof.csv").read_text().splitlines()
    (tmp_path / "shuffled.csv").write_text("\n".join([header, *rows[::-1]]))
    (tmp_path / "columns.csv").write_text("a,b\n1,2\n")
    files = {name: f"{name.lower()}.csv" for name in ("SUB", "OTHER", "BAD", "COLUMNS", "OOF", "SHUFFLED")}
    assert main(["ensemble", *(files.get(a, a) for a in arguments)]) == 2
    assert message in capsys.readouterr().err


def test_a_mean_needs_neither_five_students_nor_both_answers(tmp_path, capsys):
    rows = "".join(f"{student},0,1,0.{student}\n" for student in range(1, 4))
    (tmp_path / "few.csv").write_text(f"student,row,answer,prediction\n{rows}")
    assert main(["ensemble", *[str(tmp_path / "few.csv")] * 2, "-o", str(tmp_path / "out.csv")]) == 0
    assert (tmp_path / "out.csv").read_text() == (tmp_path / "few.csv").read_text()
    assert capsys.readouterr().out.count("AUC -") == 3
    assert main(["ensemble", *[str(tmp_path / "few.csv")] * 2, "--how", "stack"]) == 2
    assert "3 students are too few to learn the weights of a stack" in capsys.readouterr().err
    assert main(["ensemble", *[str(tmp_path / "few.csv")] * 2, "--how", "stack", "--weights", "1", "2"]) == 2
    assert "--weights [1.0, 2.0]: a stack learns its own" in capsys.readouterr().err
