"""The models that read sequences, behind the interface of all models."""

from __future__ import annotations

import copy
import inspect
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader

import fulgurite as pl
from dkt.data.batches import Batch, sequence_loader
from dkt.data.table import Answers
from dkt.data.windows import Windows
from dkt.evaluate import Floats
from dkt.inference import CELLS_TO_SCORE, predict_rows
from dkt.live import Live, Recurrent
from dkt.models.base import Model, trainer_messages
from dkt.models.dkt import DKTNet
from dkt.models.nets import NETS
from dkt.task import DktTask

EPOCHS, STEPS = 8, 600  # of training, at least
DATA_SAYS = {"self", "n_skills", "n_questions", "n_features", "scalar_column", "time_column"}
MODEL_SAYS = {"net", "features", "protocol"}


class SequenceModel(Model):
    """A net trained on whole sequences; the weights of the epoch with the best validation AUC are kept.

    `rasch` gives each question a scalar of its own (the R of DKT-R and AKT-R), by default the Rasch model's estimate
    from the students of other folds, `scalar="learned"` trains it with the net; `features` adds the causal features;
    `windows="20:10"` trains on sliding windows (20 answers, one every 10) in place of the protocol's chunks; further
    keywords are the net's own. Without `epochs` there are 8, or as many more (to 40) as make 600 steps; without
    `patience` training stops when a quarter of the epochs, at least 3, brought nothing better.
    """

    learned = ("task", "history")
    net: ClassVar[str]
    defaults: ClassVar[dict[str, Any]] = {}

    def __init__(
        self,
        rasch: bool = True,
        features: bool = False,
        epochs: int | None = None,
        lr: float | None = None,
        cells: int = 3200,
        patience: int | None = None,
        progress: bool = False,
        windows: str | None = None,
        protocol: str = "akt",
        seed: int = 0,
        **settings: Any,
    ) -> None:
        super().__init__(protocol, seed)
        if windows and features:
            raise ValueError(
                f"windows={windows!r} overlap, and causal features are one a row; take features=False or no windows."
            )
        own = _settings_of(self.net)
        unknown = sorted(settings.keys() - own)
        if unknown:
            raise TypeError(f"{type(self).__name__} has no {', '.join(unknown)}; it has {', '.join(sorted(own))}")
        self.windows = None if windows is None else str(Windows.of(windows))
        self.rasch = rasch
        self.features = features
        self.epochs = epochs
        self.cells = cells
        self.patience = patience
        self.progress = progress
        self.lr = lr
        self.settings = settings

    @property
    def title(self) -> str:  # type: ignore[override]  # a plain attribute in other models
        return type(self).__name__ + "-R" * self.rasch + " + features" * self.features

    def _fit(self, train: Answers, valid: Answers) -> None:
        self.task = self.new_task(train)
        learn, choose = self.loaders(self.task, train, valid)
        epochs, patience = self.schedule(learn)
        best = KeepBest(patience)
        trainer = pl.Trainer(
            max_epochs=epochs,
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
            trainer.fit(self.task, learn, choose)
        self.history = best.history
        if best.weights is not None:
            self.task.load_state_dict(best.weights)

    def new_task(self, train: Answers) -> DktTask:
        """What is to be trained, its first weights drawn from the seed."""
        pl.seed_everything(self.seed, verbose=False)
        return DktTask.for_training(
            train, self.rasch, net=self.net, features=self.features, protocol=self.protocol, **self._settings()
        )

    def loaders(self, task: DktTask, train: Answers, valid: Answers) -> tuple[DataLoader[Batch], DataLoader[Batch]]:
        """(to learn from, to choose the epoch by)"""
        cut = None if self.windows is None else Windows.of(self.windows).cut(train.offsets)
        return (
            sequence_loader(task.training_sequences(train, cut), self.cells, shuffle=True),
            sequence_loader(task.sequences(valid), CELLS_TO_SCORE),
        )

    def schedule(self, learn: DataLoader[Batch]) -> tuple[int, int]:
        """(epochs, patience), both as given, or by the number of steps of an epoch."""
        epochs = min(max(EPOCHS, -(-STEPS // len(learn))), 5 * EPOCHS) if self.epochs is None else self.epochs
        return epochs, max(3, epochs // 4) if self.patience is None else self.patience

    def predict(self, answers: Answers) -> Floats:
        return predict_rows(self.task, answers)

    def _settings(self) -> dict[str, Any]:
        chosen = {} if self.lr is None else {"lr": self.lr}
        return {"scalar": "out-of-fold", **self.defaults, **self.settings, **chosen}

    def start(self) -> Live:
        if isinstance(self.task.model, DKTNet):
            return Recurrent(self.task.model, self.task.vocabulary, self.task.features)
        return super().start()

    def state(self) -> dict[str, Any]:
        checkpoint: dict[str, Any] = {"state_dict": self.task.state_dict(), "hyper_parameters": dict(self.task.hparams)}
        self.task.on_save_checkpoint(checkpoint)
        return checkpoint

    def restore(self, state: dict[str, Any]) -> None:
        made_with = state["hyper_parameters"].items()
        self.task = DktTask(**{name: value for name, value in made_with if name[0] != "_"})  # those are LightningCLI's
        self.task.on_load_checkpoint(state)
        self.task.load_state_dict(state["state_dict"])

    @property
    def n_parameters(self) -> int:
        return sum(p.numel() for p in self.task.parameters())


def _settings_of(net: str) -> set[str]:
    """What a net takes by name: the task's settings and its own, those it inherits too."""
    makers = [DktTask.__init__, *(vars(kind).get("__init__") for kind in NETS[net].__mro__)]
    parameters = [p for make in makers if make for p in inspect.signature(make).parameters.values()]
    return {p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)} - DATA_SAYS - MODEL_SAYS


class KeepBest(pl.Callback):
    """Holds a copy of the best weights in memory and stops `patience` epochs after them."""

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.history: list[float] = []
        self.weights: dict[str, Tensor] | None = None

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.history.append(float(trainer.callback_metrics.get("valid_auc", torch.tensor(0.0))))
        best = max(range(len(self.history)), key=self.history.__getitem__)
        if best == len(self.history) - 1:
            self.weights = copy.deepcopy(pl_module.state_dict())
        trainer.should_stop |= len(self.history) - 1 - best >= self.patience


class DKT(SequenceModel):
    """Deep knowledge tracing (Piech et al., 2015); with one scalar per question it is DKT-R (Ghosh et al., 2020).

    h(t) = LSTM(x(1) .. x(t-1)), x an embedding of (skill, answer); p(t) = sigmoid(w(k) h(t) + b(k)) for the asked skill
    k alone, which the paper computes for all skills and then picks. Differs: a row of several skills is the mean of
    theirs; a first input is learned; one dropout mask for all steps. R adds the question's ease e to the logit and
    e v(answer) to x. `hidden`, `dim`, `dropout`, `cell` ("lstm", "gru"); `deep` adds a small net of (h(t), w(k)).
    """

    net = "dkt"


class DKTPlus(SequenceModel):
    """DKT+ (Yeung and Yeung, 2018): DKT whose state also repeats the last answer and does not waver.

    loss + r x loss of the answer just given + w1 |y(t+1) - y(t)| + w2 |y(t+1) - y(t)|^2, y the probabilities of all
    skills. The paper's weights are the defaults (`reconstruction`, `waviness`, `waviness_2`).
    """

    net = "dkt+"


class DKVMN(SequenceModel):
    """Dynamic key-value memory networks (Zhang et al., 2017): a memory of hidden concepts, `slots` of them.

    w = softmax(keys q); read r = sum w(i) M(i); then M(i) <- M(i) (1 - w(i) e) + w(i) a, with e = sigmoid(E v) and
    a = tanh(A v) from the embedded answer v. Differs: Adam instead of SGD; v is the sum of the skill's and the
    answer's embeddings, not a table of pairs.
    """

    net = "dkvmn"
    defaults = {"lr": 3e-3}


class SAKT(SequenceModel):
    """Self-attentive knowledge tracing (Pandey and Karypis, 2019): the asked question attends to answers before it.

    One block: LayerNorm(q + Attention(q, past, past)), feed-forward, sigmoid. Differs: positions are fixed sines and
    small; the head also reads the asked question.
    """

    net = "sakt"
    defaults = {"lr": 2e-3}


class SAINTPlus(SequenceModel):
    """SAINT+ (Shin et al., 2021): an encoder of questions, a decoder of answers that attends to it.

    Differs: its times (elapsed, lag) come with the causal features (`features=True`); one block each by default.
    """

    net = "saint+"
    defaults = {"lr": 2e-3}


class AKT(SequenceModel):
    """Attentive knowledge tracing (Ghosh et al., 2020); with one scalar per question it is AKT-R.

    Attention weights softmax(exp(-gamma d(t, s)) q(t) k(s) / sqrt(D)), where d measures how much that is alike lies
    between s and t; inputs c(k) + e d(k) and their answered form, e the question's scalar. Differs: e comes from the
    Rasch model of other students (`scalar="learned"` as in the paper) and also enters the logit; the head also reads
    the last answer, which decay alone finds slowly; dropout takes whole past steps; Adam with a falling rate.
    """

    net = "akt"
    defaults = {"lr": 2e-3}


class SimpleKT(SequenceModel):
    """simpleKT (Liu et al., 2023): plain attention, questions as keys and answers as values, over Rasch embeddings.

    Differs: positions are fixed sines and small; keys and values are one step late instead of a strict mask.
    """

    net = "simplekt"
    defaults = {"lr": 2e-3}


class LastQuery(SequenceModel):
    """The Last-Query Transformer (Jeon, 2021): the asked question queries the past, then an LSTM.

    Differs: the original learns one target a window, its last row; here every step is the last of its own prefix.
    """

    net = "lastquery"
    defaults = {"lr": 3e-3}


class MIRT(SequenceModel):
    """Dynamic multidimensional item response theory, filtered by assumed densities.

    A student is a Gaussian over `dim` hidden concepts: Reckase's MIRT (2009), whose abilities grow by a share of what
    is left with each practice and fall off with time, exp(-rate dt), where the data has times. A skill asks a softmax
    of concepts, p = g + (1 - g - s) sigmoid(exp(a) ability + ease), integrated over the ability by quadrature; each
    answer moves mean and covariance to the moments of the posterior (Minka, 2001). Everything is learned through the
    filter by gradients.
    """

    net = "mirt"
    defaults = {"lr": 0.05, "scalar": "learned"}
