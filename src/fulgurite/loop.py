"""The training loop, all of it.

Each decision is a function of `Progress`: what is due follows from what is done.
A resumed run therefore has no special path: it loads the counters and walks on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

    from fulgurite.run import Run


def fit(run: Run) -> None:
    hooks = run.hooks
    if run.sanity_batches:  # 0 when resuming in mid-epoch
        with run.sanity_checking():  # random state, counters, metrics: as if it had not been
            for hook in hooks.on_sanity_check_start:
                hook()
            if run.data.open_for_validation():
                evaluate(run, "validation", run.sanity_batches)
            for hook in hooks.on_sanity_check_end:
                hook()
    run.data.open()  # train_dataloader(), limits; the first epoch's iterator
    if run.finished():  # also where there is nothing to train on
        return
    for hook in hooks.on_train_start:
        hook()
    while not run.finished():  # a reason to stop, and no epoch open
        train_epoch(run)
    for hook in hooks.on_train_end:
        hook()


def train_epoch(run: Run) -> None:
    done, hooks = run.progress, run.hooks
    if not done.in_epoch:
        run.begin_epoch()  # loaders to reload, methods patched on since
        for hook in hooks.on_train_epoch_start:
            hook()
    batches = run.data.train_batches(done.epoch, skip=done.batch)
    while not done.epoch_closed:
        if run.validation_due():
            if run.steps_after(done.batch):
                run.free_gradients()  # not while a window is open
            evaluate(run, "validation", run.limit_val_batches)
        if run.plateau_due():
            run.step_schedulers("step", plateau=True)
        if done.is_last_batch or run.stop_reason():
            break
        batch, done.is_last_batch = next(batches)  # an empty loader is a ValueError, never a StopIteration
        cancelled = -1 in [hook(batch, done.batch) for hook in hooks.on_train_batch_start]
        if cancelled:  # by the module: resolve() drops what callbacks return
            done.is_last_batch = True
            done.skipped += 1
        else:
            output = train_batch(run, batch, done.batch)
        done.batch += 1  # counters before hooks
        done.total_batch += 1
        if run.steps_after(done.batch):
            run.step_schedulers("step")
        if done.is_last_batch:
            run.step_schedulers("epoch")
        if cancelled:
            break  # the rest of the epoch, and its validation
        for hook in hooks.on_train_batch_end:
            hook(output, batch, done.batch - 1)
        run.results.publish_step()  # touches nothing unless a logger is due
        del batch, output  # validation may need their memory
    if not done.epoch_closed:  # also when max_steps or should_stop ended it early
        done.epoch_closed = True
        for hook in hooks.on_train_epoch_end:
            hook()  # callbacks, module, then those that monitor
    if done.is_last_batch:
        run.step_schedulers("epoch", plateau=True)
    run.results.publish_epoch()
    done.next_epoch()


def train_batch(run: Run, batch: Any, i: int) -> dict[str, Any]:
    done, hooks, module = run.progress, run.hooks, run.module
    if not module.automatic_optimization:  # the user steps any number of optimizers (and schedulers)
        with run.in_precision():
            return run.as_output(run.training_step(batch, i))
    optimizer, k = run.optimizers[0], run.accumulate_grad_batches
    output: dict[str, Any] = {}
    stepping = run.steps_after(i + 1)

    def closure() -> Tensor | None:
        """Forward and backward; LBFGS calls it several times in one step."""
        with run.strategy.gradient_sync(stepping):  # DDP's no_sync while accumulating
            with run.in_precision():
                output.update(run.as_output(run.training_step(batch, i)))
            if i % k == 0:
                for hook in hooks.on_before_zero_grad:
                    hook(optimizer)
                run.zero_grad(done.epoch, i, optimizer)
            if (loss := output.get("loss")) is not None:  # else a skipped batch: it adds no gradient
                loss = loss / k if k > 1 else loss
                output["loss"] = loss.detach()
                run.losses.append(output["loss"])  # read when a logger reads
                loss = run.precision.scale(loss)
                for hook in hooks.on_before_backward:
                    hook(loss)
                run.backward(loss)
                for hook in hooks.on_after_backward:
                    hook()
        if stepping and (window := i % k + 1) < k:
            run.scale_gradients(k / window)  # the last window is short: an average over its own size
        return output.get("loss")

    if not stepping:
        closure()
        return output
    if run.plain_step:  # resolved once: no scaler, no override, no LBFGS
        closure()
        before_step(run, optimizer)
        optimizer.step()
    else:  # step() of the wrapped one: closure, before_step, step
        run.optimizer_step(done.epoch, i, run.wrapped_optimizers[0], closure)
    done.global_step += 1
    return output


def before_step(run: Run, optimizer: Optimizer) -> None:  # also at each step() of manual optimization
    run.precision.unscale(optimizer)
    for hook in run.hooks.on_before_optimizer_step:
        hook(optimizer)
    run.clip_gradients(optimizer)


def evaluate(run: Run, stage: str, limit: int | float) -> None:  # never called with nothing to evaluate
    with run.evaluating(stage) as (hooks, results):  # eval mode, no_grad; both restored on the way out
        for hook in hooks.start:
            hook()
        for hook in hooks.epoch_start:
            hook()
        for args in run.data.eval_batches(stage, limit):  # (batch, i), or (batch, i, k) with several loaders
            for hook in hooks.batch_start:
                hook(*args)
            output = hooks.step(*args)
            for hook in hooks.batch_end:
                hook(output, *args)
        for hook in hooks.epoch_end:
            hook()
        results.publish_epoch()
        run.progress.validated_at = run.progress.total_batch
        for hook in hooks.end:
            hook()
