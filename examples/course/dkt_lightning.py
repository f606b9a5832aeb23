"""The course's program: knowledge tracing with a LightningModule, as its text prints it, up to submission.csv.

    python -m dkt simulate data && python examples/course/dkt_lightning.py

It needs only the course's own names, `args.parse_args` and `dkt.dataloader`: put into the course's folder, it uses
what lies there.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torchmetrics import AUROC, Accuracy

import fulgurite as pl  # <- the import line: `import lightning.pytorch as pl` trains the same model, loss by loss


def process_batch(batch):
    """(test, question, tag, correct, mask, interaction), ids from 1 and 0 where a history is filled up."""
    if isinstance(batch, dict):
        return tuple(batch[name] for name in ("test", "question", "tag", "correct", "mask", "interaction"))
    test, question, tag, correct, mask = batch  # the 2021 edition of the course: ids from 0, and no interaction yet
    interaction = torch.zeros_like(mask)
    interaction[:, 1:] = (correct[:, :-1] + 1) * mask[:, :-1]  # what was answered before: 1 wrong, 2 right
    return *((ids + 1) * mask for ids in (test, question, tag)), correct, mask, interaction


def compute_loss(preds, targets):
    """Binary cross entropy; `preds` are logits, which is exact where a probability would round to 1."""
    return nn.functional.binary_cross_entropy_with_logits(preds.float(), targets.float())


def to_probabilities(metric, inputs):
    """torchmetrics would take a batch of logits that all happen to lie within [0, 1] for probabilities."""
    preds, targets = inputs
    return preds.float().sigmoid(), targets


class DktLightning(pl.LightningModule):
    def __init__(self, args):
        super().__init__()
        if getattr(args, "model", "lstm") != "lstm":
            raise ValueError(f"--model {args.model}: this program has the LSTM only; train.py beside it has all three.")
        self.lr = args.lr  # auto_lr_find=True writes here
        n_tests = args.n_tests if hasattr(args, "n_tests") else args.n_test
        n_tags = args.n_tags if hasattr(args, "n_tags") else args.n_tag
        width = args.hidden_dim // 3
        self.test = nn.Embedding(n_tests + 1, width)
        self.question = nn.Embedding(args.n_questions + 1, width)
        self.tag = nn.Embedding(n_tags + 1, width)
        self.interaction = nn.Embedding(3, width)
        self.join = nn.Linear(4 * width, args.hidden_dim)
        self.lstm = nn.LSTM(args.hidden_dim, args.hidden_dim, args.n_layers, batch_first=True, dropout=args.drop_out)
        self.head = nn.Linear(args.hidden_dim, 1)

        for name in ("accuracy", "auroc", "valid_accuracy", "valid_auroc"):
            metric = Accuracy(task="binary") if name.endswith("accuracy") else AUROC(task="binary")
            metric.register_forward_pre_hook(to_probabilities)
            setattr(self, name, metric)

    def forward(self, input):
        test, question, tag, _, _, interaction = (ids.long() for ids in input)
        embedded = [self.interaction(interaction), self.test(test), self.question(question), self.tag(tag)]
        hidden, _ = self.lstm(self.join(torch.cat(embedded, dim=-1)))
        return self.head(hidden).squeeze(-1)

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
        self.log("train_auroc", self.auroc)
        return loss

    def validation_step(self, valid_batch, batch_idx):
        input = process_batch(valid_batch)
        preds, targets = self.forward(input)[:, -1], input[3][:, -1]
        self.valid_accuracy(preds, targets.int())
        self.valid_auroc(preds, targets.int())
        self.log("valid_loss", compute_loss(preds, targets), prog_bar=True)
        self.log("valid_acc", self.valid_accuracy)
        self.log("valid_auroc", self.valid_auroc, prog_bar=True)

    def predict_step(self, batch, batch_idx):
        return self.forward(process_batch(batch))[:, -1].float().sigmoid()  # the last position is the one to predict

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.lr)


def main(**flags):
    """The printed program, then predictions; `flags` are added to the Trainer's: `main(precision=16)`."""
    from args import parse_args

    from dkt.dataloader import Preprocess, get_loaders

    args = parse_args()
    pl.seed_everything(args.seed)

    # 01. Make Dataloader
    preprocess = Preprocess(args)
    preprocess.load_train_data(args.file_name)
    train_data = preprocess.get_train_data()
    train_data, valid_data = preprocess.split_data(train_data)
    train_loader, valid_loader = get_loaders(args, train_data, valid_data)

    # 02. Define model
    model = DktLightning(args)

    # 03. Define Trainer
    best = pl.callbacks.ModelCheckpoint(args.model_dir, Path(args.model_name).stem, monitor="valid_auroc", mode="max")
    stop = pl.callbacks.EarlyStopping(monitor="valid_auroc", mode="max", patience=args.patience)
    settings = {
        "accelerator": args.device,
        "devices": 1,
        "max_epochs": args.n_epochs,
        "gradient_clip_val": args.clip_grad,
        "callbacks": [best, stop],
        "logger": pl.loggers.CSVLogger(args.output_dir, name="course"),
        "log_every_n_steps": args.log_steps,
    }
    trainer = pl.Trainer(**settings | flags)
    trainer.fit(model, train_loader, valid_loader)

    # 04. Predict the last answer of each student of the test file
    preprocess.load_test_data(args.test_file_name)
    _, test_loader = get_loaders(args, None, preprocess.get_test_data())
    how = {"gather": True} if trainer.world_size > 1 else {}  # all processes' predictions, in the order of the file
    predictions = trainer.predict(model, test_loader, ckpt_path="best" if best.best_model_path else None, **how)
    if trainer.is_global_zero:
        write_submission(Path(args.output_dir) / "submission.csv", torch.cat(predictions).tolist())
    return trainer, model


def write_submission(path, predictions):
    """The course's layout: the students in ascending order of userID, counted from 0."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("id,prediction\n" + "".join(f"{i},{p}\n" for i, p in enumerate(predictions)))
    print(f"{len(predictions)} predictions written to {path}")


if __name__ == "__main__":
    main()
