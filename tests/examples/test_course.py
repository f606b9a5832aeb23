"""The course's program: the printed text runs with the listed corrections, and the flags that it names work."""

from __future__ import annotations

import csv
import importlib
import inspect
import os
import shutil
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import pytest
import torch

import fulgurite as pl

PRINTED_STEP = """
    def training_step(self, train_batch, batch_idx):
        
        input = process_batch(train_batch)
        preds = self.forward(input)
        targets = input[3]

        preds = preds[:, -1]
        targets = targets[:, -1]
        loss = compute_loss(preds, targets)
        self.accuracy(preds, targets.int())
        self.auroc(preds, targets.int())

        self.log("train_loss", loss, on_epoch=True)
        self.log("train_acc", self.accuracy)
        self.log("train_acc", self.auroc)
        return loss
"""  # noqa: W293

PRINTED_MAIN = """
    from args import parse_args
    from dkt.dataloader import Preprocess, get_loaders
    import math

    args = parse_args()

    # 01. Make Dataloader
    preprocess = Preprocess(args)
    preprocess.load_train_data(args.file_name)
    train_data = preprocess.get_train_data()
    train_data, valid_data = preprocess.split_data(train_data)
    train_loader, valid_loader = get_loaders(args, train_data, valid_data)

    # 02. Define model
    model = DktLightning(args)

    # 03. Define Trainer
    trainer = pl.Trainer(gpus=1, precision=16)
    trainer.fit(model, train_loader, valid_loader)
"""

ONE_KEY = 'self.log("train_acc", self.auroc)'
TWO_KEYS = 'self.log("train_auroc", self.auroc)'
A_GPU = "pl.Trainer(gpus=1, precision=16)"
NO_GPU = 'pl.Trainer(accelerator="auto", devices=1, precision=16)'

pytestmark = pytest.mark.slow
no_gpu_here = pytest.mark.skipif(torch.cuda.is_available(), reason="speaks of a machine without a GPU")


def printed_model(course, step):
    """The program's model with the text's `training_step`."""
    names = dict(vars(course))
    exec(compile(textwrap.dedent(step), "printed.py", "exec"), names)
    return type("DktLightning", (course.DktLightning,), {"training_step": names["training_step"]})


def lines_of(text):
    return [line.rstrip() for line in text.strip().splitlines()]


def log_of(folder):
    (path,) = Path(folder).glob("**/metrics.csv")
    with path.open() as file:
        return list(csv.DictReader(file))


def column(rows, name):
    return [row[name] for row in rows if row.get(name)]


# The corrections, one test each.


def test_program_has_the_printed_training_step_with_one_key_corrected(course):
    ours = inspect.getsource(course.DktLightning.training_step)
    printed = PRINTED_STEP.replace(ONE_KEY, TWO_KEYS)
    assert lines_of(ours) == lines_of(printed)


def test_program_has_the_printed_main_but_for_the_trainers_flags(course):
    ours = [line.strip() for line in inspect.getsource(course.main).splitlines()]
    printed = [line.strip() for line in PRINTED_MAIN.splitlines() if line.strip()]
    missing = [line for line in printed if line not in ours]
    assert missing == ["import math", f"trainer = {A_GPU}"]
    order = [ours.index(line) for line in printed if line not in missing]
    assert order == sorted(order)


def test_one_key_for_two_values_is_an_error_that_names_both_lines_and_the_likely_key(course):
    model_class = printed_model(course, PRINTED_STEP)
    course.DktLightning = model_class
    with pytest.raises(ValueError, match="train_acc") as error:
        course.main(max_epochs=1)
    assert "train_auroc" in str(error.value)
    assert "printed.py:15" in str(error.value)
    assert "printed.py:16" in str(error.value)


def test_torchmetrics_asks_for_a_task():
    from torchmetrics import Accuracy

    with pytest.raises(TypeError, match="task"):
        Accuracy()


def test_the_last_position_is_what_is_predicted(course):
    args = course_args()
    torch.manual_seed(0)
    model = course.DktLightning(args).eval()
    batch = {name: torch.tensor([[0, 1, 1]]) for name in ("test", "question", "tag", "correct", "mask", "interaction")}
    (probability,) = model.predict_step(batch, 0)
    logits = model(course.process_batch(batch))
    assert probability == logits[0, -1].sigmoid()


@no_gpu_here
def test_printed_text_runs_with_its_corrections(course):
    text = textwrap.dedent(PRINTED_MAIN).replace(A_GPU, NO_GPU.replace("precision=16", "precision=16, max_epochs=1"))
    model_class = printed_model(course, PRINTED_STEP.replace(ONE_KEY, TWO_KEYS))
    with pytest.warns(UserWarning, match="bf16"):
        names = run_text(text, {"DktLightning": model_class, "pl": pl})
    assert names["trainer"].global_step == 2
    assert {"train_loss", "train_acc", "train_auroc"} <= set(names["trainer"].logged_metrics) | {"train_loss"}


@no_gpu_here
def test_gpus_1_without_a_gpu_says_what_to_write(course):
    with pytest.raises(ValueError, match='accelerator="auto", devices=1'):
        pl.Trainer(gpus=1, precision=16)


def test_another_model_is_refused_with_the_program_that_has_it(course):
    args = course_args()
    args.model = "bert"
    with pytest.raises(ValueError, match="--model bert: this program has the LSTM only; train.py"):
        course.DktLightning(args)


def run_text(text, names):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*log_every_n_steps.*")
        exec(text, names)
    return names


def course_args():
    from dkt.args import parse_args

    args = parse_args(["--hidden_dim", "24"])
    args.n_tests = args.n_questions = args.n_tags = 3
    return args


# What the program writes.


def test_program_ends_with_a_probability_for_each_test_student(course):
    course.main()
    with Path("outputs/submission.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["id"]) for row in rows] == list(range(20))
    assert list(rows[0]) == ["id", "prediction"]
    assert all(0 < float(row["prediction"]) < 1 for row in rows)


def test_program_logs_the_metrics_that_the_text_logs(course):
    course.main(log_every_n_steps=1)
    rows = log_of("outputs/course")
    assert len(column(rows, "train_loss_step")) == 4
    assert len(column(rows, "train_loss_epoch")) == 2
    assert all(0 <= float(value) <= 1 for value in column(rows, "train_acc") + column(rows, "train_auroc"))
    assert len(column(rows, "valid_auroc")) == 2


def test_metrics_never_take_logits_for_probabilities(course):
    model = course.DktLightning(course_args())
    logits = torch.tensor([0.1, 0.9])  # all within [0, 1]: both mean "right"
    model.accuracy(logits, torch.tensor([1, 1]))
    assert model.accuracy.compute() == 1.0


def test_submission_uses_the_best_epoch(course):
    trainer, model = course.main()
    assert Path(trainer.checkpoint_callback.best_model_path).name == "best_model.ckpt"
    best = torch.load(trainer.checkpoint_callback.best_model_path, weights_only=True)["state_dict"]
    assert all(torch.equal(best[name], value) for name, value in model.state_dict().items())


def test_same_seed_gives_the_same_submission(course):
    course.main()
    first = Path("outputs/submission.csv").read_text()
    course.main(callbacks=[], enable_checkpointing=False, max_epochs=0)
    assert Path("outputs/submission.csv").read_text() != first
    shutil.rmtree("models")
    course.main()
    assert Path("outputs/submission.csv").read_text() == first


# The flags that the text names.


def weights(run):
    _, model = run
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@no_gpu_here
def test_precision_16_on_a_cpu_is_bf16_and_says_so(course):
    with pytest.warns(UserWarning, match="bf16"):
        trainer, _ = course.main(precision=16, max_epochs=1)
    assert trainer.precision == "bf16-mixed"


def test_gradient_clip_val_bounds_each_step(course):
    seen = []

    class Norms(pl.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            seen.append(torch.cat([p.grad.flatten() for p in module.parameters()]).norm().item())

    course.main(callbacks=[Norms()], gradient_clip_val=0.01)
    assert seen
    assert max(seen) <= 0.01 * 1.001


def test_gradient_clip_algorithm_value_bounds_each_element(course):
    seen = []

    class Largest(pl.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            seen.append(max(p.grad.abs().max().item() for p in module.parameters()))

    course.main(callbacks=[Largest()], gradient_clip_val=0.001, gradient_clip_algorithm="value")
    assert seen
    assert max(seen) <= torch.tensor(0.001).item()


def test_accumulate_grad_batches_takes_one_step_for_two_batches(course):
    trainer, _ = course.main(accumulate_grad_batches=2, max_epochs=3)
    assert trainer.global_step == 3  # of 6 batches


def test_fast_dev_run_is_one_batch_and_leaves_no_checkpoint(course):
    trainer, _ = course.main(fast_dev_run=True)
    assert trainer.global_step == 1
    assert not Path("models").exists()


def test_resume_from_checkpoint_continues_as_if_never_stopped(course):
    whole = weights(course.main(max_epochs=3, callbacks=[pl.callbacks.ModelCheckpoint("whole")]))
    course.main(max_epochs=2, callbacks=[pl.callbacks.ModelCheckpoint("kept")])
    (last,) = Path("kept").glob("*.ckpt")
    with pytest.warns(Warning, match="ckpt_path"):
        resumed = course.main(
            max_epochs=3, callbacks=[pl.callbacks.ModelCheckpoint("kept")], resume_from_checkpoint=last
        )
    assert resumed[0].global_step == 6
    assert torch.equal(weights(resumed), whole)


@pytest.fixture
def enough_batches(monkeypatch):
    """The search takes 100 steps: 16 batches an epoch, in 7 epochs."""
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--batch_size", "8"])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(1.x era|No (positive|negative) samples|log_every_n_steps).*")
        yield {"max_epochs": 7}


def test_auto_lr_find_sets_the_rate_and_prints_old_and_new(course, enough_batches, capsys, caplog):
    _, model = course.main(auto_lr_find=True, **enough_batches)
    printed = "".join(capsys.readouterr()) + caplog.text
    assert model.lr != 0.01
    assert f"lr was 0.01, now {model.lr:g}" in printed


def test_tune_finds_the_rate_and_fit_does_not_look_again(course, enough_batches):
    from dkt.dataloader import Preprocess, get_loaders

    args = importlib.import_module("args").parse_args()
    preprocess = Preprocess(args)
    preprocess.load_train_data(args.file_name)
    train, valid = get_loaders(args, *preprocess.split_data(preprocess.get_train_data()))
    model = course.DktLightning(args)
    trainer = pl.Trainer(auto_lr_find=True, accelerator="cpu", logger=False, **enough_batches)
    trainer.tune(model, train, valid)
    found = model.lr
    trainer.fit(model, train, valid)
    assert found != 0.01
    assert model.lr == found


# In the course's own folder.


def test_program_runs_in_a_folder_whose_own_dkt_shadows_ours(school, tmp_path):
    here = Path(__file__).parent
    folder = shutil.copytree(here / "course_folder", tmp_path / "code")
    shutil.copy(here.parents[1] / "examples" / "course" / "dkt_lightning.py", folder)
    run_it = "import runpy; runpy.run_path('dkt_lightning.py', run_name='__main__')\n"
    whose = "import dkt.dataloader; print(dkt.dataloader.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", run_it + whose, "--data_dir", str(school)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(here.parents[1] / "src")},
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    assert len((folder / "output" / "submission.csv").read_text().splitlines()) == 21
    assert done.stdout.splitlines()[-1] == str(folder / "dkt" / "dataloader.py")


@pytest.mark.multi
def test_two_processes_write_one_submission_with_every_student(school, tmp_path):
    here = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", "import dkt_lightning; dkt_lightning.main(devices=2)", "--data_dir", str(school)]
        + ["--hidden_dim", "24", "--n_epochs", "1", "--device", "cpu"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (here / "src", here / "examples" / "course")))},
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    rows = (tmp_path / "outputs" / "submission.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["id", *map(str, range(20))]


def test_batches_of_the_2021_edition_give_the_same_inputs_as_ours(course):
    from dkt.dataloader import DKTDataset

    tests, questions, tags = (torch.arange(3).numpy() for _ in range(3))
    args = course_args()
    args.max_seq_len = 4
    answers = torch.tensor([1, 0, 1]).numpy()
    item = DKTDataset([(tests, questions, tags, answers)], args)[0]
    ours = course.process_batch({name: values[None] for name, values in item.items()})
    ids, mask = torch.tensor([[0, 0, 1, 2]]), torch.tensor([[0, 1, 1, 1]])
    theirs = course.process_batch((ids, ids, ids, torch.tensor([[0, 1, 0, 1]]), mask))
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
