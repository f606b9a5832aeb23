"""The course's LightGCN on the same Trainer: train_data.csv and test_data.csv in, outputs/submission.csv out.

    python -m dkt simulate data && python examples/course/lightgcn.py --data_dir data

It trains two versions and prints the AUC of both, on answers that were held out and, where the truth is known (as of
simulated schools), on the answers that the submission predicts:

* as the course had it: edges from students to questions only. The usual normalisation divides by the degrees of both
  ends, counted where edges arrive; no edge arrives at a student, so every weight is 0 and nothing is propagated: what
  is left is the product of two learned vectors.
* right: edges in both directions, with the sign of the answer; the edges to predict are never in the graph that
  predicts them; a student begins with nothing and is what they answered, a question has an ease; the graph stays the
  one of the known answers when the asked ones are predicted.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader
from torchmetrics import AUROC

import fulgurite as pl  # <- `import lightning.pytorch as pl` trains the same model


def adjacency(source, target, sign, n):
    """[n, n] what each node hears of the others: the sign of the answer over the roots of both degrees."""
    degree = torch.zeros(n).index_add_(0, target, torch.ones(len(target)))
    weight = sign * (degree[source] * degree[target]).rsqrt().nan_to_num(posinf=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls its compressed sparse tensors a beta
        return torch.sparse_coo_tensor(torch.stack([target, source]), weight, (n, n)).coalesce().to_sparse_csr()


class LightGCN(pl.LightningModule):
    def __init__(self, n_students, n_questions, hidden_dim, n_layers, lr, both_ways):
        super().__init__()
        self.save_hyperparameters()
        self.embedding = nn.Embedding(n_students + n_questions, hidden_dim)
        nn.init.normal_(self.embedding.weight, std=0.1)
        self.ease = nn.Embedding(n_students + n_questions, 1) if both_ways else None
        if both_ways:
            nn.init.zeros_(self.ease.weight)
        self.share = nn.Parameter(torch.ones(n_layers + 1) / (n_layers + 1))  # of each layer, as in the paper
        begins = torch.ones(n_students + n_questions, 1)
        if both_ways:
            begins[:n_students] = 0
        self.register_buffer("begins", begins, persistent=False)
        self.auroc = AUROC(task="binary")

    def nodes(self, graph):
        """[students + questions, width] each node after all layers."""
        x = self.embedding.weight * self.begins
        total = self.share[0] * x
        for share in self.share[1:]:
            x = graph @ x
            total = total + share * x
        return total

    def forward(self, graph, student, question):
        """Logits of a right answer."""
        x = self.nodes(graph)
        logit = (x[student] * x[question]).sum(-1)
        return logit if self.ease is None else logit + self.ease(question).squeeze(-1)

    def training_step(self, batch, batch_idx):
        logits = self(batch["graph"], batch["student"], batch["question"])
        loss = binary_cross_entropy_with_logits(logits, batch["right"])
        self.log("train_loss", loss, on_epoch=True, on_step=False, batch_size=len(logits))
        return loss

    def validation_step(self, batch, batch_idx):
        logits = self(batch["graph"], batch["student"], batch["question"])
        self.auroc(logits.sigmoid(), batch["right"].int())
        self.log("valid_auroc", self.auroc, prog_bar=True, batch_size=len(logits))

    def predict_step(self, batch, batch_idx):
        return self(batch["graph"], batch["student"], batch["question"]).sigmoid()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.hparams.lr)


class Answers:
    """Both files: the nodes are the students and then the questions, the edges their last answers to each."""

    def __init__(self, data_dir, both_ways, seed, folds=5):
        import polars

        folder, columns = Path(data_dir), ("userID", "assessmentItemID", "answerCode")
        parts = [polars.read_csv(folder / f"{part}_data.csv", columns=columns) for part in ("train", "test")]
        table = polars.concat(parts).unique(["userID", "assessmentItemID"], keep="last", maintain_order=True)
        for column in ("userID", "assessmentItemID"):
            table = table.with_columns(polars.col(column).rank("dense").cast(polars.Int64) - 1)
        self.n_students, self.n_questions = (int(table[c].n_unique()) for c in ("userID", "assessmentItemID"))
        self.n, self.both_ways = self.n_students + self.n_questions, both_ways
        self.student = torch.tensor(table["userID"].to_list())
        self.question = torch.tensor(table["assessmentItemID"].to_list()) + self.n_students
        self.right = torch.tensor(table["answerCode"].to_list(), dtype=torch.float32)
        known = torch.nonzero(self.right >= 0).flatten()
        self.known, self.asked = known, torch.nonzero(self.right < 0).flatten()
        self.asked = self.asked[self.student[self.asked].argsort(stable=True)]  # as in the submission
        dealt = known[torch.randperm(len(known), generator=torch.Generator().manual_seed(seed))]
        self.valid, self.train = dealt.split([len(dealt) // 20, len(dealt) - len(dealt) // 20])
        self.folds = self.train.chunk(folds)

    def batch(self, edges, graph):
        return {name: getattr(self, name)[edges] for name in ("student", "question", "right")} | {"graph": graph}

    def graph(self, edges):
        student, question, sign = self.student[edges], self.question[edges], 2 * self.right[edges] - 1
        if not self.both_ways:
            return adjacency(student, question, torch.ones_like(sign), self.n)
        both = torch.cat([student, question]), torch.cat([question, student])
        return adjacency(*both, torch.cat([sign, sign]), self.n)

    def train_loader(self):
        """One fold of the answers a batch, and the graph of the others."""
        batches = []
        for k, edges in enumerate(self.folds):
            others = torch.cat([fold for j, fold in enumerate(self.folds) if j != k])
            batches.append(self.batch(edges, self.graph(others)))
        return whole_batches(batches)

    def valid_loader(self):
        return whole_batches([self.batch(self.valid, self.graph(self.train))])

    def asked_loader(self):
        return whole_batches([self.batch(self.asked, self.graph(self.known))])


def whole_batches(batches):
    return DataLoader(batches, batch_size=None, collate_fn=lambda batch: batch)


def run(args, both_ways):
    """(model, AUC of held-out answers, probabilities of the asked ones)"""
    pl.seed_everything(args.seed, verbose=False)
    answers = Answers(args.data_dir, both_ways, args.seed)
    model = LightGCN(answers.n_students, answers.n_questions, args.hidden_dim, args.n_layers, args.lr, both_ways)
    name = "lightgcn_both_ways" if both_ways else "lightgcn_one_way"
    best = pl.callbacks.ModelCheckpoint(Path(args.model_dir) / name, "best", monitor="valid_auroc", mode="max")
    stop = pl.callbacks.EarlyStopping("valid_auroc", mode="max", patience=args.patience)
    trainer = pl.Trainer(
        accelerator="auto",
        devices=1,
        max_epochs=args.n_epochs,
        callbacks=[best, stop],
        logger=pl.loggers.CSVLogger(args.output_dir, name=name),
        log_every_n_steps=5,
        num_sanity_val_steps=0,
        enable_model_summary=False,
    )
    trainer.fit(model, answers.train_loader(), answers.valid_loader())
    predictions = trainer.predict(model, answers.asked_loader(), ckpt_path="best")
    if not both_ways:
        with torch.no_grad():
            moved = model.nodes(answers.graph(answers.known)) - model.share[0] * model.embedding.weight
        print(f"one way: the layers add at most {moved.abs().max().item()} to any embedding")
    return model, best.best_model_score.item(), torch.cat(predictions)


def true_answers(data_dir):
    """The last answer of each test student, where the truth lies beside the file."""
    import polars

    path = Path(data_dir) / "test_data_truth.csv"
    if not path.exists():
        return None
    truth = polars.read_csv(path).group_by("userID").agg(polars.col("answerCode").last()).sort("userID")
    return torch.tensor(truth["answerCode"].to_list())


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--data_dir", default="data/", help="folder of train_data.csv and test_data.csv")
    parser.add_argument("--output_dir", default="outputs/", help="where submission.csv and the logs are written")
    parser.add_argument("--model_dir", default="models/", help="where the best models are written")
    parser.add_argument("--hidden_dim", default=32, type=int, help="width of the embeddings")
    parser.add_argument("--n_layers", default=2, type=int, help="how far answers travel")
    parser.add_argument("--n_epochs", default=20, type=int, help="most epochs, each of 5 steps")
    parser.add_argument("--patience", default=3, type=int, help="epochs without a better valid_auroc before stopping")
    parser.add_argument("--lr", default=0.03, type=float, help="learning rate")
    parser.add_argument("--seed", default=42, type=int, help="seed of every random draw")
    args = parser.parse_args(argv)

    truth, lines = true_answers(args.data_dir), []
    for both_ways in (False, True):
        _, valid, predictions = run(args, both_ways)
        asked = "-" if truth is None else f"{AUROC(task='binary')(predictions, truth).item():.4f}"
        lines.append(f"{'both ways, signed' if both_ways else 'one way (the course)':<22}{valid:>14.4f}{asked:>14}")
    print("\n".join([f"{'AUC':<22}{'held out':>14}{'asked':>14}", *lines]))

    path = Path(args.output_dir) / "submission.csv"
    path.write_text("id,prediction\n" + "".join(f"{i},{p}\n" for i, p in enumerate(predictions.tolist())))
    print(f"{len(predictions)} predictions written to {path}")


if __name__ == "__main__":
    main()
