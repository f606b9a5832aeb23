"""`trainer.explain(model)`: the page of `loop.py` as one run executes it, without what its settings rule out.

The text is `loop.py`'s own, comments and all: branches that are settled are folded, acts that do nothing are left out,
and each hook says who is called. It is Python; running it in place of the loop gives the same run, bit for bit.
"""

from __future__ import annotations

import ast
import inspect
from typing import TYPE_CHECKING

from fulgurite import loop
from fulgurite.callbacks.gradient_accumulation_scheduler import GradientAccumulationScheduler
from fulgurite.callbacks.stochastic_weight_avg import StochasticWeightAveraging
from fulgurite.hooks import EVALUATION, TRAINING, owners

if TYPE_CHECKING:
    from fulgurite.run import Run

_INDENT = 4


class Settled:
    """What is known of a run before its first batch: conditions by their source, acts and contexts that do nothing."""

    def __init__(self, run: Run) -> None:
        module, trainer = run.module, run.trainer
        automatic, k = module.automatic_optimization, run.accumulate_grad_batches
        if any(isinstance(callback, GradientAccumulationScheduler) for callback in run.callbacks):
            k = 0  # of each epoch another
        averages = any(isinstance(callback, StochasticWeightAveraging) for callback in run.callbacks)
        self.hooks = {name: owners(run, name) for name in TRAINING}
        if automatic:
            self.hooks["on_before_optimizer_step"].append("once: does the optimizer hold what is trained?")
        if run.validates:
            self.hooks |= {name: owners(run, f"on_validation_{name}") for name in EVALUATION}
        self.conditions: dict[str, bool] = {
            "run.sanity_batches": bool(run.sanity_batches),
            "module.automatic_optimization": automatic,
            "run.plain_step": run.plain_step,
        }
        self.idle_acts: set[str] = set()
        self.idle_contexts: set[str] = set()
        if not run.validates:
            self.conditions["run.validation_due()"] = False
        if not (automatic and run.has_plateau):
            self.conditions["run.plateau_due()"] = False
        if k == 1:
            always = ("run.steps_after(i + 1)", "run.steps_after(done.batch)", "i % k == 0", "stepping")
            self.conditions |= dict.fromkeys(always, True) | {"(window := (i % k + 1)) < k": False}
            self.idle_acts.add("loss = loss / k if k > 1 else loss")
        if not self.hooks["on_train_batch_start"]:
            self.conditions["cancelled"] = False
            self.idle_acts.add("cancelled = -1 in [hook(batch, done.batch) for hook in hooks.on_train_batch_start]")
        for interval in ("step", "epoch"):
            for plateau in (False, True):
                due = [c for c in run.schedulers if (c.interval, c.reduce_on_plateau) == (interval, plateau)]
                brings_its_own = averages and interval == "epoch"  # scheduler, when it begins
                if not (automatic and due) and not brings_its_own:
                    self.idle_acts.add(f"run.step_schedulers('{interval}'{', plateau=True' * plateau})")
        if run.precision.scaler is None:
            self.idle_acts |= {"loss = run.precision.scale(loss)", "run.precision.unscale(optimizer)"}
        if not automatic or (run.own_clipping is None and not trainer.gradient_clip_val):
            self.idle_acts.add("run.clip_gradients(optimizer)")
        if run.precision.around("train") is None:
            self.idle_contexts.add("run.in_precision()")
        if run.world_size == 1:
            self.idle_contexts.add("run.strategy.gradient_sync(stepping)")
            if k == 1:
                self.idle_acts.add("stepping = run.steps_after(i + 1)")
        if not run.validates:
            self.idle_acts.add("evaluate")

    def truth(self, condition: ast.expr) -> bool | None:
        """Whether a condition holds; None where only the run can tell."""
        known = self.conditions.get(ast.unparse(condition))
        if known is not None:
            return known
        if isinstance(condition, ast.UnaryOp) and isinstance(condition.op, ast.Not):
            inner = self.truth(condition.operand)
            return None if inner is None else not inner
        if isinstance(condition, ast.BoolOp):
            decides = isinstance(condition.op, ast.Or)  # one True settles an `or`, one False an `and`
            parts = [self.truth(part) for part in condition.values]
            if decides in parts:
                return decides
            return None if None in parts else not decides
        return None


class Page:
    """Writes the lines of `loop.py` that are left."""

    def __init__(self, source: str, settled: Settled) -> None:
        self.lines, self.settled = source.splitlines(), settled

    def functions(self, tree: ast.Module) -> list[str]:
        out: list[str] = []
        for function in tree.body:
            if isinstance(function, ast.FunctionDef) and function.name not in self.settled.idle_acts:
                lines = self.statement(function, 0)
                out += ["", "", *lines] if lines else []
        return out[2:]

    def block(self, body: list[ast.stmt], shift: int) -> list[str]:
        """The statements of a block; comments between them go with the one that follows."""
        out: list[str] = []
        after = body[0].lineno - 1 if body else 0
        apart = False  # a blank line stood before something left out
        for statement in body:
            between = self.lines[after : statement.lineno - 1]
            after = statement.end_lineno or statement.lineno
            lines = self.statement(statement, shift)
            if not lines:
                apart = apart or "" in between
                continue
            out += [""] if apart and "" not in between else []
            out += [*(self.moved(line, shift) for line in between), *lines]
            apart = False
            if self.leaves(statement):
                break
        return out

    def statement(self, statement: ast.stmt, shift: int) -> list[str]:
        if isinstance(statement, ast.If):
            return self.branch(statement, shift)
        if isinstance(statement, ast.With) and self.is_idle(statement):
            return self.block(statement.body, shift + _INDENT)
        if isinstance(statement, (ast.For, ast.While, ast.With, ast.FunctionDef)):
            body = self.block(statement.body, shift)
            name = _hooks_of(statement)
            if not body or (name is not None and not self.settled.hooks[name]):
                return []
            header = self.source(statement.lineno, statement.body[0].lineno - 1, shift)
            if name is not None:
                header[-1] = f"{header[-1].partition('  #')[0]}  # {', '.join(self.settled.hooks[name])}"
            return header + body
        if ast.unparse(statement) in self.settled.idle_acts:
            return []
        return self.source(statement.lineno, statement.end_lineno or statement.lineno, shift)

    def branch(self, statement: ast.If, shift: int) -> list[str]:
        holds = self.settled.truth(statement.test)
        if holds is not None:
            return self.block(statement.body if holds else statement.orelse, shift + _INDENT)
        body, other = self.block(statement.body, shift), self.block(statement.orelse, shift)
        if not body and not other:
            return []
        header = self.source(statement.lineno, statement.body[0].lineno - 1, shift)
        pad = " " * (statement.col_offset - shift)
        return header + (body or [f"{pad}    pass"]) + ([f"{pad}else:", *other] if other else [])

    def is_idle(self, statement: ast.With) -> bool:
        return all(ast.unparse(item.context_expr) in self.settled.idle_contexts for item in statement.items)

    def leaves(self, statement: ast.stmt) -> bool:
        """Whether nothing after the statement is reached, once what is settled is folded."""
        if isinstance(statement, (ast.Return, ast.Break)):
            return True
        if isinstance(statement, ast.With):
            return self.leaves(statement.body[-1])
        return (
            isinstance(statement, ast.If)
            and self.settled.truth(statement.test) is True
            and self.leaves(statement.body[-1])
        )

    def source(self, first: int, last: int, shift: int) -> list[str]:
        return [self.moved(line, shift) for line in self.lines[first - 1 : last]]

    def moved(self, line: str, shift: int) -> str:
        return line[shift:] if line.strip() else line


def _hooks_of(statement: ast.stmt) -> str | None:
    """The hook whose functions a `for hook in hooks.NAME` calls."""
    if isinstance(statement, ast.For) and isinstance(statement.iter, ast.Attribute):
        return statement.iter.attr
    return None


def explained(run: Run) -> str:
    """The loop as `run`, resolved and not yet begun, will execute it."""
    source = inspect.getsource(loop)
    page = Page(source, Settled(run)).functions(ast.parse(source))
    optimizers = ", ".join(type(optimizer).__name__ for optimizer in run.optimizers)
    return f'''"""The training loop of {type(run.module).__name__} with {optimizers}, as this run executes it.

{run.precision.precision}, {type(run.strategy).__name__}, accumulate_grad_batches={run.accumulate_grad_batches}.
Each hook names who is called; `run` holds what was resolved before the first batch (fulgurite/run.py).
"""

from __future__ import annotations


''' + "\n".join([*page, ""])
