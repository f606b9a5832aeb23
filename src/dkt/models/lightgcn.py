"""LightGCN (He et al., 2020) for answers: students and questions are nodes, an answer is an edge with its sign.

Layer by layer every node takes the mean of its neighbours, divided by the roots of both degrees; a right answer adds,
a wrong one subtracts. Edges go both ways: with one direction alone nothing would ever reach the students. Differences
from the paper, and why:

* A student has no embedding of their own: who they are is what they answered. So a student whom training has not
  seen, or has seen up to yesterday, is a matter of a few sums (learned ones fit their edges by heart: on the course's
  last answers of a simulated school 0.77 instead of 0.80).
* A question begins with its own embedding and its skills'.
* Training predicts edges that are not in the graph it reads: the students of each fold by the graph of the others, each
  answer from the answers before it. Predictions read the whole training graph, and the student's past.

S students, Q questions, N rows, D width, K skills of a row.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader

import fulgurite as pl
from dkt.data.protocols import protocol_named
from dkt.data.table import TO_PREDICT, Answers, Ints
from dkt.data.vocabulary import Vocabulary
from dkt.evaluate import Floats, auc
from dkt.models.base import Model, trainer_messages
from dkt.models.parts import mean_of_skills, shares, small_embedding
from dkt.models.sequence import KeepBest


@dataclass(frozen=True)
class Graph:
    """Who answered what and how, both ways, each edge divided by the roots of its ends' degrees."""

    to_students: Tensor  # [S, Q] sparse
    to_questions: Tensor  # [Q, S] sparse
    degree: Tensor  # [Q] answers to each question, at least 1

    @classmethod
    def of(cls, student: Tensor, question: Tensor, sign: Tensor, n_students: int, n_questions: int) -> Graph:
        """Edges from `student[i]` to `question[i]`; `sign[i]` is 1 for a right answer, -1 for a wrong one."""
        of_student = torch.bincount(student, minlength=n_students).clamp(min=1).float()
        of_question = torch.bincount(question, minlength=n_questions).clamp(min=1).float()
        weight = sign / (of_student[student] * of_question[question]).sqrt()
        return cls(
            _sparse(student, question, weight, (n_students, n_questions)),
            _sparse(question, student, weight, (n_questions, n_students)),
            of_question,
        )

    def students(self, of_questions: Tensor) -> Tensor:
        """[S, D] the signed, weighted sum of what each student answered."""
        return SPREAD(self.to_students, self.to_questions, of_questions)

    def questions(self, of_students: Tensor) -> Tensor:
        """[Q, D] the signed, weighted sum of who answered each question."""
        return SPREAD(self.to_questions, self.to_students, of_students)


class Spread(torch.autograd.Function):
    """`matrix @ x`, whose gradient uses the transposed matrix that is at hand anyway: twice as fast as torch's own."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, transposed: Tensor, x: Tensor) -> Tensor:
        ctx.transposed = transposed
        return matrix @ x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, Tensor]:
        return None, None, ctx.transposed @ gradients[0].contiguous()


SPREAD = cast(Callable[[Tensor, Tensor, Tensor], Tensor], Spread.apply)


@dataclass(frozen=True)
class Known:
    """What a graph tells of each question, and all that predictions need of it: no student is in here."""

    layers: list[Tensor]  # [Q, D] each: layers 2, 4, ...
    degree: Tensor  # [Q] answers to each question, at least 1


@dataclass(frozen=True)
class Rows:
    """Answers to predict, each from those before it in its sequence."""

    question: Tensor  # [N]; 0 is one that the graph does not hold
    skill: Tensor  # [N, K]
    sign: Tensor  # [N] 1 right, -1 wrong, 0 unknown
    start: Tensor  # [N] where the row's sequence begins
    order: Tensor  # [N] the row of the table


class LightGCNNet(nn.Module):
    """Embeddings of questions and skills; everything about students follows from the graph."""

    def __init__(self, n_skills: int, skill_of_question: Tensor, dim: int = 32, layers: int = 3) -> None:
        super().__init__()
        if layers < 1:
            raise ValueError(f"layers={layers} must be at least 1: no answer reaches its student in fewer.")
        self.skill_of_question: Tensor  # [Q, K]
        self.register_buffer("skill_of_question", skill_of_question)
        self.question = small_embedding(len(skill_of_question), dim, zero_rows=(0,))
        self.skill = small_embedding(n_skills + 1, dim, zero_rows=(0,))
        self.question_ease = nn.Embedding(len(skill_of_question), 1, padding_idx=0)
        self.skill_ease = nn.Embedding(n_skills + 1, 1, padding_idx=0)
        for table in (self.question_ease, self.skill_ease):
            nn.init.zeros_(table.weight)
        self.layer_weight = nn.Parameter(torch.ones(layers + 1))

    def forward(self, rows: Rows, known: Known) -> Tensor:
        """[N] logits of a right answer."""
        # Layer 0 is of the row, not of the graph: of a question that training has not seen, it knows the skills.
        layers = [self.beginning(rows.question, rows.skill), *(layer_QD[rows.question] for layer_QD in known.layers)]
        asked_ND = _sum(self.layer_weight[::2], layers)
        told_ND = _sum(self.layer_weight[1::2], layers)
        message_ND = told_ND * (rows.sign / known.degree[rows.question].sqrt()).unsqueeze(1)
        ease = self.question_ease(rows.question) + _mean(self.skill_ease, rows.skill)
        logit: Tensor = (self.students(message_ND, rows.start) * asked_ND).sum(1) + ease.squeeze(1)
        return logit

    def known(self, graph: Graph) -> Known:
        """Questions by way of the students who answered them, and so on; the odd layers are the students'."""
        x_QD = self.beginning(torch.arange(len(graph.degree), device=graph.degree.device), self.skill_of_question)
        layers = []
        for _ in range((len(self.layer_weight) - 1) // 2):
            x_QD = graph.questions(graph.students(x_QD))
            layers.append(x_QD)
        return Known(layers, graph.degree)

    def beginning(self, question: Tensor, skill: Tensor) -> Tensor:
        return cast(Tensor, self.question(question)) + _mean(self.skill, skill)

    @staticmethod
    def students(message_ND: Tensor, start: Tensor) -> Tensor:
        """[N, D] each row's student as the answers before it show them: `Graph.students`, row by row."""
        # One sum over all students, in float64: a student is a difference of two places of it.
        total = torch.cat([torch.zeros_like(message_ND[:1]), message_ND]).cumsum(0, dtype=torch.float64)
        answers = torch.arange(len(start), device=start.device) - start
        return (total[:-1] - total[start]).float() / answers.clamp(min=1).sqrt().unsqueeze(1)


class LightGCNTask(pl.LightningModule):
    """One fold of the training students a step, then the validation students by the whole graph."""

    def __init__(self, net: LightGCNNet, lr: float, pull: float) -> None:
        super().__init__()
        self.net = net
        self.lr = lr
        self.pull = pull

    def training_step(self, batch: tuple[Graph, Rows], batch_idx: int) -> Tensor:
        graph, rows = batch
        loss = binary_cross_entropy_with_logits(self.net(rows, self.net.known(graph)), (rows.sign + 1) / 2)
        own = self.net.question(rows.question).square().sum(1) + self.net.question_ease(rows.question).square().sum(1)
        whole: Tensor = loss + self.pull * own.mean()
        return whole

    def validation_step(self, batch: tuple[Graph, Rows], batch_idx: int) -> None:
        graph, rows = batch
        right = (rows.sign > 0).cpu().numpy()
        value = auc(right, self.net(rows, self.net.known(graph)).cpu().numpy())
        if value is not None:
            self.log("valid_auc", value, batch_size=len(right))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.lr)


class LightGCN(Model):
    """He et al., 2020, with signed edges both ways and the student's past as their edges; an epoch is `folds` steps."""

    title = "LightGCN"
    learned = ("vocabulary", "net", "known", "history")

    def __init__(
        self,
        dim: int = 32,
        layers: int = 3,
        epochs: int = 40,
        lr: float = 0.06,
        pull: float = 1e-2,
        folds: int = 5,
        patience: int = 4,
        progress: bool = False,
        protocol: str = "akt",
        seed: int = 0,
    ) -> None:
        super().__init__(protocol, seed)
        if folds < 2:
            raise ValueError(f"folds={folds} must be at least 2: edges are predicted by a graph that lacks them.")
        self.dim = dim
        self.layers = layers
        self.epochs = epochs
        self.lr = lr
        self.pull = pull
        self.folds = folds
        self.patience = patience
        self.progress = progress

    def _fit(self, train: Answers, valid: Answers) -> None:
        pl.seed_everything(self.seed, verbose=False)
        self.vocabulary = Vocabulary.of(train)
        graph, rows = self._graph(train), self._rows(train)
        skill_of_question = torch.zeros(len(graph.degree), rows.skill.shape[1], dtype=torch.int64)
        skill_of_question[rows.question] = rows.skill
        self.net = self._net(skill_of_question)
        task = LightGCNTask(self.net, self.lr, self.pull)
        best = KeepBest(self.patience)
        trainer = pl.Trainer(
            max_epochs=self.epochs,
            accelerator="auto",
            devices=1,
            callbacks=[best],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=self.progress,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        with trainer_messages(self.progress):
            trainer.fit(task, _loader(self._held_out(train)), _loader([(graph, self._rows(valid))]))
        self.history = best.history
        if best.weights is not None:
            task.load_state_dict(best.weights)
        self.net.cpu().eval()
        with torch.no_grad():
            self.known = self.net.known(graph)

    def predict(self, answers: Answers) -> Floats:
        known = self.known
        rows = self._rows(answers)
        with torch.no_grad():
            logit = self.net(rows, known)
        probability = np.zeros(len(answers), dtype=np.float32)
        probability[rows.order.numpy()] = torch.sigmoid(logit).numpy()
        return probability

    def state(self) -> dict[str, Any]:
        return {
            "skills": self.vocabulary.skills,
            "questions": self.vocabulary.questions,
            "net": self.net.state_dict(),
            "layers": self.known.layers,
            "degree": self.known.degree,
            "history": self.history,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.vocabulary = Vocabulary(state["skills"], state["questions"])
        self.net = self._net(state["net"]["skill_of_question"])
        self.net.load_state_dict(state["net"])
        self.known = Known(state["layers"], state["degree"])
        self.history = state["history"]

    @property
    def n_parameters(self) -> int:
        return sum(p.numel() for p in self.net.parameters())

    def _net(self, skill_of_question: Tensor) -> LightGCNNet:
        return LightGCNNet(len(self.vocabulary.skills), skill_of_question, self.dim, self.layers)

    def _held_out(self, train: Answers) -> list[tuple[Graph, Rows]]:
        """The graph without each fold's students, and their answers."""
        fold = np.random.default_rng(self.seed).permutation(train.n_students) % self.folds
        parts = [(np.flatnonzero(fold == k), np.flatnonzero(fold != k)) for k in range(self.folds)]
        return [(self._graph(train.students(others)), self._rows(train.students(own))) for own, others in parts]

    def _graph(self, answers: Answers) -> Graph:
        known = answers.answered()
        sign = torch.from_numpy(2.0 * known.answer - 1).float()
        n = len(self.vocabulary.questions or self.vocabulary.skills) + 1
        return Graph.of(
            torch.from_numpy(known.student), torch.from_numpy(self._nodes(known)), sign, known.n_students, n
        )

    def _rows(self, answers: Answers) -> Rows:
        starts, lengths = protocol_named(self.protocol).sequences(answers)
        start = np.repeat(np.cumsum(lengths) - lengths, lengths)
        order = np.repeat(starts, lengths) + np.arange(len(start)) - start
        sign = np.where(answers.answer == TO_PREDICT, 0, 2 * answers.answer - 1)[order]
        return Rows(
            torch.from_numpy(self._nodes(answers)[order]),
            torch.from_numpy(self.vocabulary.skills_of(answers)[order]),
            torch.from_numpy(sign).float(),
            torch.from_numpy(start),
            torch.from_numpy(order),
        )

    def _nodes(self, answers: Answers) -> Ints:
        """The node of each row: its question, or its (first) skill where training has no question ids."""
        if self.vocabulary.questions:
            return self.vocabulary.questions_of(answers)
        return self.vocabulary.skills_of(answers)[:, 0]


def _sum(weights: Tensor, layers: list[Tensor]) -> Tensor:
    """[N, D] the weighted sum of as many layers as there are weights."""
    return cast(Tensor, sum(weight * layer for weight, layer in zip(weights, layers, strict=False)))


def _mean(table: nn.Embedding, skill_NK: Tensor) -> Tensor:
    """[N, D] the mean of the skills of each row."""
    return mean_of_skills(table(skill_NK.unsqueeze(0)), shares(skill_NK.unsqueeze(0))).squeeze(0)


def _loader(batches: list[tuple[Graph, Rows]]) -> DataLoader[Any]:
    return DataLoader(batches, batch_size=None, collate_fn=_as_it_is)  # type: ignore[arg-type]  # a list is a data set


def _as_it_is(batch: Any) -> Any:
    return batch


def _sparse(row: Tensor, column: Tensor, value: Tensor, size: tuple[int, int]) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(CSR tensor support is in beta|invariant checks)")
        return torch.sparse_coo_tensor(torch.stack([row, column]), value, size).coalesce().to_sparse_csr()
