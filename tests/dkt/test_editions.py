"""Programs that students wrote for the course's package, in either of its editions, run on ours."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import fulgurite as pl
from dkt.data.simulate import simulate, write_school

pytestmark = pytest.mark.filterwarnings("ignore:.*log_every_n_steps", "ignore:No (positive|negative) samples")
SMALL = ["--hidden_dim", "12", "--n_epochs", "2", "--lr", "0.01", "--max_seq_len", "8", "--n_layers", "1"]


@pytest.fixture(scope="module")
def school(tmp_path_factory):
    folder = tmp_path_factory.mktemp("school")
    before = dict(os.environ)
    answers, truth = simulate(students=80, questions=24, skills=6, concepts=3, answers_per_student=16, seed=1)
    write_school(answers, truth, folder)
    for name in os.environ.keys() - before.keys():  # polars' allocator leaves its settings
        del os.environ[name]
    return folder


@pytest.fixture
def args(school):
    from dkt.args import parse_args

    settings = parse_args(["--data_dir", str(school), *SMALL], mode="train")
    settings.device = "cuda" if torch.cuda.is_available() else "cpu"
    return settings


@pytest.fixture
def data(args):
    from dkt.dataloader import Preprocess

    preprocess = Preprocess(args)
    preprocess.load_train_data(args.file_name)
    return preprocess.split_data(preprocess.get_train_data())


def submission(args):
    with (Path(args.output_dir) / "submission.csv").open() as file:
        return [float(row["prediction"]) for row in csv.DictReader(file)]


# --- whole programs -----------------------------------------------------------------------------------------------
def test_2021_run_makes_the_model_and_inference_loads_it(args, data):
    from dkt import trainer
    from dkt.dataloader import Preprocess
    from dkt.utils import setSeeds

    setSeeds(42)
    trainer.run(args, *data)
    preprocess = Preprocess(args)
    preprocess.load_test_data(args.test_file_name)
    trainer.inference(args, preprocess.get_test_data())
    assert len(submission(args)) == 8


def test_2022_the_model_is_made_by_the_program(args, data):
    from dkt import trainer
    from dkt.dataloader import Preprocess
    from dkt.utils import set_seeds

    set_seeds(args.seed)
    model = trainer.get_model(args=args).to(args.device)
    trainer.run(args=args, train_data=data[0], valid_data=data[1], model=model)
    preprocess = Preprocess(args=args)
    preprocess.load_test_data(file_name=args.test_file_name)
    trainer.inference(args=args, test_data=preprocess.get_test_data(), model=trainer.load_model(args=args))
    assert len(submission(args)) == 8


def test_2021_a_loop_of_ones_own(args, data):
    from dkt.model import LSTM
    from dkt.optimizer import get_optimizer
    from dkt.scheduler import get_scheduler
    from dkt.trainer import get_loaders, load_model, save_checkpoint, train, validate

    train_loader, valid_loader = get_loaders(args, *data)
    model = LSTM(args)
    model.to(args.device)
    optimizer = get_optimizer(model, args)
    scheduler = get_scheduler(optimizer, args)
    before = [p.clone() for p in model.parameters()]
    best = -1
    for epoch in range(args.n_epochs):
        auc, acc, loss = train(train_loader, model, optimizer, args)
        valid_auc, _ = validate(valid_loader, model, args)
        if valid_auc > best:
            best = valid_auc
            save_checkpoint({"epoch": epoch + 1, "state_dict": model.state_dict()}, args.model_dir, "best_model.pt")
        scheduler.step(best)
    assert all(0 <= value <= 1 for value in (auc, acc, valid_auc))
    assert loss > 0
    assert not all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert load_model(args).state_dict().keys() == model.state_dict().keys()


def test_2022_a_loop_of_ones_own_with_a_warmup(args, data):
    from dkt.dataloader import get_loaders
    from dkt.metric import get_metric
    from dkt.optimizer import get_optimizer
    from dkt.scheduler import get_scheduler
    from dkt.trainer import compute_loss, get_model, train, update_params

    args.scheduler, args.batch_size = "linear_warmup", 16
    train_loader, valid_loader = get_loaders(args, *data)
    args.total_steps = len(train_loader) * args.n_epochs
    args.warmup_steps = args.total_steps // 2
    model = get_model(args)
    optimizer = get_optimizer(model=model, args=args)
    scheduler = get_scheduler(optimizer=optimizer, args=args)
    first = optimizer.param_groups[0]["lr"]
    for batch in train_loader:
        batch = {k: v.to(args.device) for k, v in batch.items()}
        loss = compute_loss(preds=model(**batch), targets=batch["correct"])
        update_params(loss=loss, model=model, optimizer=optimizer, scheduler=scheduler, args=args)
    assert optimizer.param_groups[0]["lr"] != first
    train(train_loader=train_loader, model=model, optimizer=optimizer, scheduler=scheduler, args=args)
    model.eval()
    preds, targets = [], []
    for batch in valid_loader:
        preds.append(torch.sigmoid(model(**batch)[:, -1]).detach())
        targets.append(batch["correct"][:, -1])
    auc, acc = get_metric(targets=torch.concat(targets).numpy(), preds=torch.concat(preds).numpy())
    assert 0 <= auc <= 1
    assert 0 <= acc <= 1


class DktLightning(pl.LightningModule):
    """As a student puts the course's own functions into a LightningModule."""

    def __init__(self, args, **sizes):
        from torchmetrics import AUROC, Accuracy

        from dkt.trainer import get_model

        super().__init__()
        self.args = args
        self.model = get_model(args)
        self.accuracy, self.auroc = Accuracy(task="binary"), AUROC(task="binary")

    def forward(self, x):
        return self.model(x)

    def step(self, batch, name, last_first):
        from dkt.trainer import compute_loss, process_batch

        input = process_batch(batch)
        preds, targets = self.forward(input), input[3]
        if last_first:
            preds, targets = preds[:, -1], targets[:, -1]
        loss = compute_loss(preds, targets)
        if not last_first:
            preds, targets = preds[:, -1], targets[:, -1]
        self.accuracy(preds, targets.int())
        self.auroc(preds, targets.int())
        self.log(f"{name}_loss", loss, on_epoch=True)
        self.log(f"{name}_acc", self.accuracy)
        self.log(f"{name}_auroc", self.auroc)
        return loss

    def training_step(self, train_batch, batch_idx):
        return self.step(train_batch, "train", last_first=True)

    def validation_step(self, batch, batch_idx):
        return self.step(batch, "valid", last_first=False)

    def predict_step(self, batch, batch_idx):
        from dkt.trainer import process_batch

        return torch.sigmoid(self(process_batch(batch))[:, -1])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-3)


@pytest.mark.parametrize("name", ["lstm", "lstmattn", "bert"])
def test_a_lightning_module_made_of_the_courses_functions(args, data, name):
    from dkt.dataloader import get_loaders

    args.model = name
    train_loader, valid_loader = get_loaders(args, *data)
    model = DktLightning(args)
    trainer = pl.Trainer(accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False)
    trainer.fit(model, train_loader, valid_loader)
    assert {"train_loss", "train_acc", "train_auroc", "valid_loss"} <= set(trainer.callback_metrics)
    (first, *_) = trainer.predict(model, valid_loader)
    assert ((first > 0) & (first < 1)).all()


# --- their parts --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["LSTM", "LSTMATTN", "BERT", "Bert", "ModelBase"])
def test_a_model_of_args_has_the_sizes_in_either_editions_names(args, name):
    import dkt.model

    args.n_questions, args.n_test, args.n_tag = 5, 3, 4
    model = getattr(dkt.model, name)(args)
    assert (model.embedding_test.num_embeddings, model.embedding_tag.num_embeddings) == (4, 5)
    assert (model.embedding_question.num_embeddings, model.hidden_dim) == (6, 12)
    assert model.args is args
    args.n_tests = 7
    assert getattr(dkt.model, name)(args=args).embedding_test.num_embeddings == 8


def test_a_model_of_ones_own_hands_args_on(args):
    from dkt.model import LSTM

    class Deeper(LSTM):
        def __init__(self, args):
            super().__init__(args)
            self.more = nn.Linear(args.hidden_dim, args.hidden_dim)

        def read(self, x, mask):
            return self.more(super().read(x, mask))

    args.n_questions, args.n_tests, args.n_tags = 5, 3, 4
    assert Deeper(args).more.in_features == 12


def test_args_before_the_data_say_what_to_do(args):
    from dkt.model import LSTM

    with pytest.raises(ValueError, match="load_train_data"):
        LSTM(args)


@pytest.mark.parametrize("name", ["lstm", "lstmattn", "bert"])
def test_a_batch_by_name_a_tuple_and_a_dictionary_are_one(args, data, name):
    from dkt.trainer import get_loaders, get_model, process_batch

    args.model = name
    batch = next(iter(get_loaders(args, None, data[1])[1]))
    model = get_model(args).eval()
    input = process_batch(batch)
    expected = model(**batch)
    for given in ((input,), ([*input],), (batch,), input, ((*input, "gather index"),)):
        assert torch.equal(model(*given), expected)


def test_a_batch_that_was_not_processed_names_process_batch(args, data):
    from dkt.trainer import get_model

    five = [torch.zeros(2, 8, dtype=torch.long)] * 5
    with pytest.raises(TypeError, match=r"LSTM was called without interaction.*process_batch"):
        get_model(args)(five)


def test_batches_of_2021_give_the_same_inputs_as_ours(args):
    from dkt.dataloader import DKTDataset
    from dkt.trainer import process_batch

    ids, answers = np.arange(3), np.array([1, 0, 1])
    item = DKTDataset([(ids, ids, ids, answers)], args)[0]
    ours = process_batch({name: values[None] for name, values in item.items()})
    pad = lambda values: torch.tensor([[0] * 5 + list(values)])  # noqa: E731
    theirs = process_batch((*[pad(ids)] * 3, pad(answers), pad([1, 1, 1])), args)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert [t.dtype for t in ours] == [torch.long] * 3 + [torch.float] * 2 + [torch.long]


def test_a_loss_takes_all_positions_or_the_last_ones():
    from dkt.criterion import get_criterion
    from dkt.trainer import compute_loss

    preds, targets = torch.randn(4, 6), torch.randint(0, 2, (4, 6))
    assert torch.equal(compute_loss(preds, targets), compute_loss(preds[:, -1], targets[:, -1]))
    assert torch.equal(compute_loss(preds, targets), get_criterion(preds, targets)[:, -1].mean())
    with pytest.raises(ValueError, match=r"\(4, 6\).*\(4,\)"):
        compute_loss(preds, targets[:, -1])


def test_a_metric_takes_probabilities_and_logits():
    from dkt.data.table import DataError
    from dkt.metric import get_metric

    targets, logits = np.array([0, 1, 1, 0]), np.array([-2.0, 0.2, 3.0, 0.1])
    assert get_metric(targets, logits) == get_metric(targets, 1 / (1 + np.exp(-logits))) == (1.0, 0.75)
    with pytest.raises(DataError, match="all the same"):
        get_metric(np.ones(3), np.ones(3))


@pytest.mark.parametrize("part", ["optimizer", "scheduler"])
def test_an_unknown_name_says_which_there_are(args, part):
    from dkt.optimizer import get_optimizer
    from dkt.scheduler import get_scheduler

    setattr(args, part, "nope")
    layer = nn.Linear(1, 1)
    with pytest.raises(ValueError, match="nope.*(adamW|linear_warmup)"):
        get_optimizer(layer, args) if part == "optimizer" else get_scheduler(torch.optim.Adam(layer.parameters()), args)


def test_ones_own_data_set_and_loader_of_tuples_train(args, data):
    """In the manner of 2021: padded tuples of (test, question, tag, correct, mask), ids from 0."""
    from dkt.trainer import CourseTask, get_model  # noqa: F401  both are there to be imported
    from dkt.trainer import train as train_epoch

    rows = []
    for student in data[0]:
        columns = [torch.tensor(values[-8:]) for values in student]
        columns.append(torch.ones(len(columns[0]), dtype=torch.long))
        rows.append([nn.functional.pad(column, (8 - len(column), 0)) for column in columns])
    loader = DataLoader(rows, batch_size=16, collate_fn=lambda batch: tuple(map(torch.stack, zip(*batch, strict=True))))
    model = get_model(args)
    auc, _, loss = train_epoch(loader, model, torch.optim.Adam(model.parameters()), args)
    assert 0 <= auc <= 1
    assert loss > 0
