"""Ways to optimize by hand, to be run on one process and on several, which are to end alike."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

import fulgurite as pl
from helpers.counting import QUIET

F64 = torch.float64
TOGETHER = 6  # samples of all processes in a batch; of 27 the last one has 3


class ByHand(pl.LightningModule):
    """A generator and a discriminator, an optimizer each; `way` says which method below is the step."""

    def __init__(self, way: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.automatic_optimization = False
        self.way = way
        self.g = nn.Linear(3, 3, dtype=F64)
        self.d = nn.Linear(3, 1, dtype=F64)
        self.never = nn.Linear(2, 2, dtype=F64)
        self.rows = nn.Embedding(10, 3, sparse=way == "sparse", dtype=F64)

    def losses(self, x: Any) -> list[Any]:
        return [lambda: (self.d(self.g(x)) - 1).square().mean(), lambda: self.d(x).square().mean()]

    def pairs(self, x: Any) -> Any:
        return zip(self.optimizers(), self.losses(x), strict=True)

    def training_step(self, x: Any, i: int) -> None:
        getattr(self, self.way)(x, i)

    def two(self, x: Any, i: int) -> None:
        for optimizer, loss in self.pairs(x):
            optimizer.zero_grad()
            self.manual_backward(loss())
            optimizer.step()

    def toggled(self, x: Any, i: int) -> None:
        for optimizer, loss in self.pairs(x):
            self.toggle_optimizer(optimizer)
            self.manual_backward(loss())
            optimizer.step()
            optimizer.zero_grad()
            self.untoggle_optimizer(optimizer)

    def plain(self, x: Any, i: int) -> None:
        """Torch's own optimizers, backward and clipping."""
        for optimizer, loss in zip(self.optimizers(use_pl_optimizer=False), self.losses(x), strict=True):
            optimizer.zero_grad()
            loss().backward()
            nn.utils.clip_grad_norm_(self.parameters(), 0.1)
            optimizer.step()

    def clipped(self, x: Any, i: int) -> None:
        for optimizer, loss in self.pairs(x):
            optimizer.zero_grad()
            self.manual_backward(loss())
            self.clip_gradients(optimizer, 0.05, "norm")
            optimizer.step()
        for scheduler in self.lr_schedulers():
            scheduler.step()

    def accumulated(self, x: Any, i: int, apart: tuple[bool, bool] = (False, False)) -> None:
        steps = i % 2 == 1 or self.trainer.is_last_batch
        for optimizer, loss in self.pairs(x):
            with optimizer.toggle_model(sync_grad=not apart[steps]):
                self.manual_backward(loss() / 2)
        for optimizer in self.optimizers() if steps else ():
            optimizer.step()
            optimizer.zero_grad()

    def apart_between_steps(self, x: Any, i: int) -> None:
        self.accumulated(x, i, (True, False))

    def apart_up_to_the_step(self, x: Any, i: int) -> None:
        self.accumulated(x, i, (True, True))

    def several_losses(self, x: Any, i: int) -> None:
        """Two backward passes of one forward pass, and one of another, before one step each."""
        self._zero()
        hidden = self.g(x)
        self.manual_backward(hidden.square().mean(), retain_graph=True)
        self.manual_backward(self.d(hidden).mean())
        self.manual_backward(self.d(x).square().mean())
        self._step()

    def gradients_by_hand(self, x: Any, i: int) -> None:
        weights = list(self.g.parameters())
        for weight, gradient in zip(weights, torch.autograd.grad(self.losses(x)[0](), weights), strict=True):
            weight.grad = gradient
        self.optimizers()[0].step()

    def closures(self, x: Any, i: int) -> None:
        for optimizer, loss in self.pairs(x):

            def closure(optimizer: Any = optimizer, loss: Any = loss) -> Any:
                optimizer.zero_grad()
                value = loss()
                self.manual_backward(value)
                return value

            optimizer.step(closure)

    def line_search(self, x: Any, i: int) -> None:
        """LBFGS decides by the loss how often to call its closure."""
        wanted = x * torch.tensor([1.0, -2.0, 3.0], dtype=F64)
        self.losses = lambda x: [  # type: ignore[method-assign]  # of a problem that it solves
            lambda: (self.g(x) - wanted).square().mean(),
            lambda: (self.d(x) - wanted.sum(1, keepdim=True)).square().mean(),
        ]
        self.closures(x, i)

    def sparse(self, x: Any, i: int) -> None:
        self._zero()
        loss, chosen = self.losses(x)[1](), x[x[:, 0] > 0.3]
        if len(chosen):  # else this process has no gradient of the rows
            rows = self.rows((chosen[:, 0].abs() * 3).long().clamp(max=9))
            loss = loss + (rows * chosen).square().sum() / len(x)
        self.manual_backward(loss)
        self._step()

    def used_by_some(self, x: Any, i: int) -> None:
        """Parameters of which some processes have no gradient in a batch, and others have."""
        self._zero()
        chosen = (x[:, 0] > 0.3).to(F64)
        loss = self.losses(x)[1]()
        if chosen.any():
            loss = loss + (self.g(x).square().sum(1) * chosen).sum() / len(x)
        self.manual_backward(loss)
        self._step()

    def switched(self, x: Any, i: int) -> None:
        self._zero()
        self.g.requires_grad_(i % 2 == 0)
        self.manual_backward(self.losses(x)[0]())
        self._step()

    def inner_loop(self, x: Any, i: int) -> None:
        """The step of the inner loop is as large on a process with fewer samples."""
        self._zero()
        weights = list(self.d.parameters())
        inner = self.d(torch.ones(1, 3, dtype=F64)).square().mean()
        slopes = torch.autograd.grad(inner, weights, create_graph=True)
        fast = [w - 0.1 * s for w, s in zip(weights, slopes, strict=True)]
        self.manual_backward(nn.functional.linear(x, *fast).square().mean())
        self._step()

    def _zero(self) -> None:
        for optimizer in self.optimizers():
            optimizer.zero_grad()

    def _step(self) -> None:
        for optimizer in self.optimizers():
            optimizer.step()

    def configure_optimizers(self) -> Any:
        if self.way == "line_search":
            return [
                torch.optim.LBFGS(part.parameters(), 0.1, line_search_fn="strong_wolfe") for part in (self.g, self.d)
            ]
        if self.way == "sparse":
            return [torch.optim.SparseAdam(self.rows.parameters(), 0.05), torch.optim.SGD(self.d.parameters(), 0.1)]
        of_g = [*self.g.parameters(), *self.rows.parameters(), *self.never.parameters()]
        both = [torch.optim.Adam(of_g, 0.05), torch.optim.SGD(self.d.parameters(), 0.1, momentum=0.9)]
        return both, [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9) for optimizer in both]


QUICK = ["two", "toggled", "plain", "used_by_some"]
WAYS = [
    *QUICK,
    "clipped",
    "accumulated",
    "apart_between_steps",
    "apart_up_to_the_step",
    "several_losses",
    "gradients_by_hand",
    "closures",
    "line_search",
    "sparse",
    "switched",
    "inner_loop",
]


def trained(way: str, world: int) -> torch.Tensor:
    """The weights after two epochs."""
    model, samples = ByHand(way), torch.randn(27, 3, dtype=F64, generator=torch.Generator().manual_seed(1))
    pl.Trainer(**QUIET, devices=world, max_epochs=2).fit(model, DataLoader(samples, TOGETHER // world))
    return torch.cat([p.detach().flatten() for p in model.parameters()])
