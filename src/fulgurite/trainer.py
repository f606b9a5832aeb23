"""The trainer: 42 arguments resolved to attributes, and the four things one does with a module."""

from __future__ import annotations

import contextlib
import copy
import math
import os
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from functools import partial
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fulgurite import checkpoint as checkpoints
from fulgurite import loop
from fulgurite.callbacks.callback import Callback
from fulgurite.callbacks.checkpoint import Checkpoint
from fulgurite.compat.adapt import Patches, adapt, watch_outputs
from fulgurite.compat.arguments import removed_arguments, takes_old_names, with_new_names
from fulgurite.compat.checkpoints import migrated
from fulgurite.compat.loops import EvaluationLoopView, FitLoopView, PredictionLoopView, loops_of, progress_of
from fulgurite.compat.members import OldMembers
from fulgurite.core.datamodule import LightningDataModule
from fulgurite.core.expected import check_checkpoint, part
from fulgurite.core.hparams import is_equal
from fulgurite.core.module import LightningModule
from fulgurite.defaults import (
    accelerator_used,
    checked_flags,
    checkpoint_path,
    default_callbacks,
    loggers_of,
    ordered,
    precision_used,
    profiler_of,
    strategy_of,
)
from fulgurite.hooks import calls, for_module, going_on, overrides, profiled_method
from fulgurite.loggers.logger import Logger
from fulgurite.machine.accelerators import Accelerator
from fulgurite.machine.devices import resolve_devices
from fulgurite.machine.environments import ClusterEnvironment, environment_of
from fulgurite.machine.precision import Precision
from fulgurite.machine.signals import handled
from fulgurite.machine.strategy import Strategy, TorchCheckpointIO
from fulgurite.profilers.profiler import Profiler
from fulgurite.progress import Progress
from fulgurite.results import Metrics, MetricSource, Results, as_number
from fulgurite.run import STAGES, Given, Run, loader_hook
from fulgurite.states import RunningStage, TrainerFn, TrainerState, TrainerStatus
from fulgurite.tables import results_table
from fulgurite.utilities.cloud_io import location
from fulgurite.utilities.exceptions import MisconfigurationException, NoDataError, SIGTERMException
from fulgurite.utilities.loaders import check_loaders
from fulgurite.utilities.rank_zero import log, rank_zero_info, rank_zero_warn
from fulgurite.utilities.seed import isolate_rng, seed_everything
from fulgurite.utilities.types import LRSchedulerConfig

if TYPE_CHECKING:
    from fulgurite.parity import ParityReport
    from fulgurite.tuner.tuning import Tuner

__all__ = ["Trainer", "seed_everything"]
__path__: list[str] = []  # Lightning has modules below it, such as trainer.states, which compat's table finds
_STAGE_OF = dict(zip(TrainerFn, STAGES, strict=True))  # fit: train, validate: validation, and so on
_HERE = str(Path(__file__).parent)
_NEEDED = {
    "training_step": "For example: def training_step(self, batch, batch_idx): return self.compute_loss(batch)",
    "configure_optimizers": "For example: def configure_optimizers(self): return torch.optim.Adam(self.parameters())",
}


class Trainer(OldMembers):
    """Trains, validates, tests and predicts with a `LightningModule`.

    Arguments are keyword-only and carry Lightning's names and defaults; `None` stands for the default given here.

    Args:
        accelerator: "auto", "cpu", "gpu", "cuda" or "mps".
        strategy: "auto", or how several processes work together.
        devices: a count, indices (`[0, 2]`, "0,2"), -1 for all, or "auto".
        num_nodes: number of machines.
        precision: "32-true" (default), "64-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true"; 16, 32, 64, "bf16".
        logger: True (TensorBoard where installed, else CSV), False, a logger or several.
        callbacks: a callback or several.
        fast_dev_run: run this many batches of each stage, without loggers and checkpoints; True is 1.
        max_epochs: epochs at most (1000, where neither max_steps nor max_time is given; -1: no limit).
        min_epochs: epochs at least, whatever wants to stop earlier.
        max_steps: optimizer steps at most (-1: no limit).
        min_steps: optimizer steps at least.
        max_time: "DD:HH:MM:SS", a timedelta or a dictionary of its arguments.
        limit_train_batches: int, so many batches; float, such a part of them. Also for val, test and predict.
        limit_val_batches: see `limit_train_batches`.
        limit_test_batches: see `limit_train_batches`.
        limit_predict_batches: see `limit_train_batches`.
        overfit_batches: train and validate on so many, or such a part, of the batches, in a fixed order.
        val_check_interval: validate every so many training batches (int), such a part of an epoch (float), or so
            much time ("DD:HH:MM:SS", timedelta, dictionary).
        check_val_every_n_epoch: validate in every n-th epoch; None counts batches across epochs.
        num_sanity_val_steps: validation batches to try before training (2; -1: all).
        log_every_n_steps: optimizer steps between rows of the loggers (50).
        enable_checkpointing: add a `ModelCheckpoint` if there is none (True).
        enable_progress_bar: show progress (True).
        enable_model_summary: print the layers before training (True).
        accumulate_grad_batches: batches whose average gradient makes one optimizer step.
        gradient_clip_val: clip gradients at this value; None or 0: not at all.
        gradient_clip_algorithm: "norm" (default) or "value".
        deterministic: use deterministic algorithms only (True), or warn where there is none ("warn").
        benchmark: let cuDNN try its algorithms.
        inference_mode: use torch.inference_mode outside fit, instead of no_grad.
        use_distributed_sampler: share the data out among processes.
        profiler: "simple", "advanced", "pytorch" or a profiler.
        detect_anomaly: let autograd name the operation that made a nan.
        barebones: nothing but the loop: no logging, bar, summary, checkpoints or sanity check.
        plugins: a Precision or CheckpointIO of your own.
        sync_batchnorm: share batch-norm statistics among processes.
        reload_dataloaders_every_n_epochs: ask for the loaders again every n epochs.
        default_root_dir: where logs and checkpoints go when nothing else says (the working directory).
        enable_autolog_hparams: log the module's and data module's hyper-parameters.
        model_registry: not supported.
    """

    @removed_arguments
    def __init__(
        self,
        *,
        accelerator: str | Accelerator = "auto",
        strategy: str | Strategy = "auto",
        devices: list[int] | str | int = "auto",
        num_nodes: int = 1,
        precision: int | str | None = None,
        logger: Logger | Iterable[Logger] | bool | None = None,
        callbacks: list[Callback] | Callback | None = None,
        fast_dev_run: int | bool = False,
        max_epochs: int | None = None,
        min_epochs: int | None = None,
        max_steps: int = -1,
        min_steps: int | None = None,
        max_time: str | timedelta | dict[str, int] | None = None,
        limit_train_batches: int | float | None = None,
        limit_val_batches: int | float | None = None,
        limit_test_batches: int | float | None = None,
        limit_predict_batches: int | float | None = None,
        overfit_batches: int | float = 0.0,
        val_check_interval: int | float | str | timedelta | dict[str, int] | None = None,
        check_val_every_n_epoch: int | None = 1,
        num_sanity_val_steps: int | None = None,
        log_every_n_steps: int | None = None,
        enable_checkpointing: bool | None = None,
        enable_progress_bar: bool | None = None,
        enable_model_summary: bool | None = None,
        accumulate_grad_batches: int = 1,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
        deterministic: bool | str | None = None,
        benchmark: bool | None = None,
        inference_mode: bool = True,
        use_distributed_sampler: bool = True,
        profiler: Profiler | str | None = None,
        detect_anomaly: bool = False,
        barebones: bool = False,
        plugins: Any = None,
        sync_batchnorm: bool = False,
        reload_dataloaders_every_n_epochs: int = 0,
        default_root_dir: str | Path | None = None,
        enable_autolog_hparams: bool = True,
        model_registry: str | None = None,
    ) -> None:
        given = {name: value for name, value in locals().items() if name != "self"}
        flags = checked_flags(given)
        self.default_root_dir = str(Path.cwd()) if default_root_dir is None else location(default_root_dir)

        # the machine
        chosen = resolve_devices(accelerator, devices)
        self.num_nodes = num_nodes
        self.strategy: Strategy = strategy_of(strategy, chosen, num_nodes, flags.plugin(ClusterEnvironment))
        self.accelerator: Accelerator = accelerator_used(accelerator, chosen, self.strategy)
        self.precision_plugin: Precision = precision_used(flags, precision, self.strategy)
        if (checkpoint_io := flags.plugin(TorchCheckpointIO)) is not None:
            self.strategy.checkpoint_io = checkpoint_io
        self.sync_batchnorm, self.use_distributed_sampler = sync_batchnorm, use_distributed_sampler

        # how long, how much, how often
        self.fast_dev_run = fast_dev_run
        self.max_epochs, self.min_epochs = flags.max_epochs, flags.min_epochs
        self.max_steps, self.min_steps = flags.max_steps, min_steps
        self.limit_train_batches, self.limit_val_batches = flags.limit_train_batches, flags.limit_val_batches
        self.limit_test_batches, self.limit_predict_batches = flags.limit_test_batches, flags.limit_predict_batches
        self.overfit_batches = overfit_batches
        self.val_check_interval = flags.val_check_interval
        self._val_check_seconds = flags.val_check_seconds
        self.check_val_every_n_epoch = flags.check_val_every_n_epoch
        self.num_sanity_val_steps = flags.num_sanity_val_steps
        self.log_every_n_steps = flags.log_every_n_steps
        self.reload_dataloaders_every_n_epochs = reload_dataloaders_every_n_epochs

        # optimization
        self._accumulate_grad_batches = accumulate_grad_batches
        self.gradient_clip_val, self.gradient_clip_algorithm = gradient_clip_val, gradient_clip_algorithm
        self.inference_mode, self.barebones = inference_mode, barebones
        self._detect_anomaly = detect_anomaly
        if deterministic:
            torch.use_deterministic_algorithms(True, warn_only=deterministic == "warn")
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        if benchmark is not None or deterministic:
            torch.backends.cudnn.benchmark = bool(benchmark)

        # who watches
        self._loggers: list[Logger] = loggers_of(flags.logger, self.default_root_dir, bool(fast_dev_run))
        self.enable_autolog_hparams = enable_autolog_hparams
        self.profiler, self._active_profiler = profiler_of(profiler)
        self.callbacks: list[Callback] = default_callbacks(flags, callbacks, max_time)

        # what happens
        self.state = TrainerState()
        self.progress = Progress()
        self._stop_votes: set[str] = set()  # state keys of callbacks that may still change their mind
        self.should_stop = False
        self.received_sigterm = False
        self.datamodule: LightningDataModule | None = None
        self._optimizers: list[Optimizer] = []
        self.lr_scheduler_configs: list[LRSchedulerConfig] = []
        self.predict_loop = PredictionLoopView(self)
        self.validate_loop = EvaluationLoopView(self, "validation")
        self.test_loop = EvaluationLoopView(self, "test")
        self.fit_loop = FitLoopView(self)
        self._module: LightningModule | None = None
        self._run: Run | None = None
        self._train_batches: int | float = math.inf
        self._limits: dict[str, list[int | float]] = {}
        self._results: Results = None  # type: ignore[assignment]  # there is one whenever a hook runs
        self._metrics = Metrics()
        self._sources: dict[str, Any] = {}
        self._signal: BaseException | None = None
        self._left: tuple[LightningModule, dict[str, Any]] | None = None  # where the last fit ended, and of what
        self._requeue_asked = False  # by SLURM, to this process
        self._environment = environment_of(flags.plugin(ClusterEnvironment))
        self._agreed_to_end = False  # the exception that ends the call ends it on all processes, after the same batch
        self._keep_predictions = True
        self._auto_lr_find: bool | str = False
        self._auto_scale_batch_size: bool | str | None = None
        self._for_modules: dict[str, Any] = {}  # arguments of the 1.x era that are the module's attributes today
        self._old = Patches()
        self._resume_from_checkpoint: str | Path | None = None
        self._ckpt_path: str | Path | None = None
        self._requeue_file: str | None = None  # what a requeue has left that was asked for in this process
        self._said: set[str] = set()
        self._began = 0.0, 0  # when the last fit began, and after how many batches of fits before

    # the four things one does
    @takes_old_names(train_dataloader="train_dataloaders", val_dataloader="val_dataloaders")
    def fit(
        self,
        model: LightningModule,
        train_dataloaders: Any = None,
        val_dataloaders: Any = None,
        datamodule: LightningDataModule | None = None,
        ckpt_path: str | Path | None = None,
        weights_only: bool | None = None,
        **old: Any,
    ) -> None:
        """Train.

        Args:
            model: what to train.
            train_dataloaders: any iterable of batches, a list or dictionary of them, or a data module. By default the
                module's own `train_dataloader`.
            val_dataloaders: any iterable of batches, or a list of them.
            datamodule: the data module, instead of loaders.
            ckpt_path: a checkpoint to go on from: a path, "best", "last" or "hpc".
            weights_only: how to unpickle the checkpoint; by default safely, with an error that names what is refused.
        """
        if old:
            Trainer.fit(self, **with_new_names("Trainer.fit", locals(), old))
            return
        if self.strategy.launcher is not None:  # this call is then made in each of the processes
            self.strategy.launcher.launch("fit", locals())
            return
        if isinstance(train_dataloaders, LightningDataModule):
            datamodule, train_dataloaders = train_dataloaders, None
        given = {"train": train_dataloaders, "validation": val_dataloaders}
        ckpt_path = ckpt_path if ckpt_path is not None else self._resume_from_checkpoint
        if self._auto_lr_find and ckpt_path is None and not self.fast_dev_run:
            self.tune(model, train_dataloaders, val_dataloaders, datamodule)
        with self._running(TrainerFn.FITTING, model, given, datamodule, ckpt_path, weights_only) as run:
            loop.fit(run)

    @takes_old_names(val_dataloaders="dataloaders")
    def validate(
        self,
        model: LightningModule | None = None,
        dataloaders: Any = None,
        ckpt_path: str | Path | None = None,
        verbose: bool = True,
        datamodule: LightningDataModule | None = None,
        weights_only: bool | None = None,
        **old: Any,
    ) -> list[dict[str, float]]:
        """One pass over the validation data; the logged metrics, a dictionary for each loader.

        Without a model: the one of the last call, with the best checkpoint's weights unless `ckpt_path` says another.
        """
        if old:
            return Trainer.validate(self, **with_new_names("Trainer.validate", locals(), old))
        if self.strategy.launcher is not None:
            return self.strategy.launcher.launch("validate", locals())  # type: ignore[no-any-return]  # as below
        return self._evaluate(TrainerFn.VALIDATING, model, dataloaders, ckpt_path, verbose, datamodule, weights_only)

    @takes_old_names(test_dataloaders="dataloaders")
    def test(
        self,
        model: LightningModule | None = None,
        dataloaders: Any = None,
        ckpt_path: str | Path | None = None,
        verbose: bool = True,
        datamodule: LightningDataModule | None = None,
        weights_only: bool | None = None,
        **old: Any,
    ) -> list[dict[str, float]]:
        """One pass over the test data; the logged metrics, a dictionary for each loader. As `validate` otherwise."""
        if old:
            return Trainer.test(self, **with_new_names("Trainer.test", locals(), old))
        if self.strategy.launcher is not None:
            return self.strategy.launcher.launch("test", locals())  # type: ignore[no-any-return]  # as below
        return self._evaluate(TrainerFn.TESTING, model, dataloaders, ckpt_path, verbose, datamodule, weights_only)

    def predict(
        self,
        model: LightningModule | None = None,
        dataloaders: Any = None,
        datamodule: LightningDataModule | None = None,
        return_predictions: bool | None = None,
        ckpt_path: str | Path | None = None,
        weights_only: bool | None = None,
        gather: bool = False,
    ) -> list[Any] | None:
        """What `predict_step` returns for each batch: a list, or with several loaders a list of lists.

        Of several processes each returns its own share; with `gather=True` all return everything, in the order of the
        data set and in batches as one process would have them.
        """
        if self.strategy.launcher is not None:
            return self.strategy.launcher.launch("predict", locals())  # type: ignore[no-any-return]  # as below
        self._keep_predictions = return_predictions is None or return_predictions
        self._evaluate(TrainerFn.PREDICTING, model, dataloaders, ckpt_path, False, datamodule, weights_only)
        run = self._run
        assert run is not None
        if not self._keep_predictions:
            return None
        if gather and not run.alone:
            run.predictions = run.data.gathered_predictions(run.predictions)
        return run.predictions[0] if len(run.predictions) == 1 else run.predictions

    def _evaluate(
        self,
        fn: TrainerFn,
        model: LightningModule | None,
        dataloaders: Any,
        ckpt_path: str | Path | None,
        verbose: bool,
        datamodule: LightningDataModule | None,
        weights_only: bool | None,
    ) -> list[dict[str, float]]:
        stage = _STAGE_OF[fn]
        if isinstance(dataloaders, LightningDataModule):
            datamodule, dataloaders = dataloaders, None
        with self._running(fn, model, {stage: dataloaders}, datamodule, ckpt_path, weights_only) as run:
            results = run.eval_results[stage] = run.results_class(run, STAGES[stage].value)
            if run.data.open_evaluation(stage):
                loop.evaluate(run, stage, math.inf)
        if verbose and self.is_global_zero and results.outputs:
            print(results_table(results.outputs, STAGES[stage].value))
        return results.outputs

    def tune(self, model: LightningModule, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """What `auto_lr_find=True` asks for, before `fit`; of the 1.x era: write `Tuner(trainer).lr_find(model)`."""
        from fulgurite.tuner.auto import tune

        return tune(self, model, *args, **kwargs)

    def check_parity(
        self,
        model: LightningModule,
        train_dataloaders: Any = None,
        val_dataloaders: Any = None,
        devices: int = 2,
        max_steps: int = 10,
        tolerance: float | None = None,
    ) -> ParityReport:
        """Whether several processes do what one does: on the CPU, with copies of the model and this trainer's flags.

        The one process takes in each step what the several take together. Compared are the samples of each step, the
        weights after it, and the metrics of each epoch; the report says what differs first. Dropout and batch norm
        differ by their nature, and the report names them where something does.

        Args:
            model: what to train; the processes are spawned, so it and the data can be pickled.
            train_dataloaders: a DataLoader of a data set with a length, or a data module.
            val_dataloaders: a loader or several.
            devices: how many processes.
            max_steps: optimizer steps to compare.
            tolerance: relative; by default 1e-10 in double precision, 1e-4 in single.
        """
        from fulgurite.parity import check_parity

        train, val = train_dataloaders, val_dataloaders
        if isinstance(train, LightningDataModule):
            train.prepare_data()
            train.setup("fit")
            val = train.val_dataloader() if overrides(train, "val_dataloader", LightningDataModule) else None
            train = train.train_dataloader()
        elif train is None and overrides(model, "train_dataloader", LightningModule):
            train = model.train_dataloader()
        names = ("accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm")
        flags = {name: getattr(self, name) for name in names}
        return check_parity(type(self), model, train, val, devices, max_steps, self.precision, tolerance, flags)

    def explain(
        self,
        model: LightningModule,
        train_dataloaders: Any = None,
        val_dataloaders: Any = None,
        datamodule: LightningDataModule | None = None,
    ) -> str:
        """The training loop as `fit` with these arguments would execute it, as Python to read.

        It is the text of `loop.py` without what the settings rule out; each hook says who is called. The module's (and
        data module's) prepare_data, setup, configure_model, configure_callbacks and configure_optimizers are called, no
        other hook is, and nothing is trained or written.

        Example::

            print(trainer.explain(model, train_loader, val_loader))
        """
        from fulgurite.explain import explained
        from fulgurite.tuner.trial import quiet

        if self.strategy.launcher is not None:
            raise NotImplementedError(
                f"explain reads the settings of one process, and this trainer starts {self.world_size}. Ask a trainer "
                "with devices=1: the loop is the same page."
            )
        if isinstance(train_dataloaders, LightningDataModule):
            datamodule, train_dataloaders = train_dataloaders, None
        beside, given = quiet(self, list(self.callbacks)), {"train": train_dataloaders, "validation": val_dataloaders}
        beside.strategy = copy.copy(self.strategy)
        module = beside._module_of(TrainerFn.FITTING, model)
        before = module._trainer, datamodule.trainer if datamodule is not None else None
        try:
            with isolate_rng():
                run = beside._run = beside._attach(TrainerFn.FITTING, module, given, datamodule)
                beside._attach_module_callbacks(run)
                beside._check(TrainerFn.FITTING)
                beside._prepare_data(run)
                if datamodule is not None:
                    datamodule.setup(stage=TrainerFn.FITTING)
                module.setup(stage=TrainerFn.FITTING)
                beside._set_up_model(run)
                run.configure_optimizers()
                run.begin()
                run.sanity_batches = beside.num_sanity_val_steps if beside.enable_validation else 0
                return explained(run)
        finally:
            module.trainer = before[0]
            if datamodule is not None:
                datamodule.trainer = before[1]

    @property
    def _tuner(self) -> Tuner:
        """Through which callbacks search, who know nothing above themselves."""
        from fulgurite.tuner.tuning import Tuner

        return Tuner(self)

    def __getstate__(self) -> dict[str, Any]:
        """What travels to another process: the trainer between two calls."""
        between: dict[str, Any] = {
            "_run": None,
            "_results": None,
            "_left": None,
            "_sources": {},
            "_old": Patches(),
            "_signal": None,
        }
        return {**self.__dict__, **between, "_optimizers": [], "lr_scheduler_configs": []}

    # a call from start to end
    @contextlib.contextmanager
    def _running(
        self,
        fn: TrainerFn,
        model: LightningModule | None,
        given: dict[str, Any],
        datamodule: LightningDataModule | None,
        ckpt_path: str | Path | None,
        weights_only: bool | None,
    ) -> Iterator[Run]:
        """Everything around the loop: setting up, signals, exceptions, tearing down."""
        module = self._module_of(fn, model)
        for stage, loaders in given.items():
            if loaders is not None:
                check_loaders(loaders, f"Trainer.{fn}({_argument(fn, stage)}=...)")
        ckpt_path = checkpoint_path(self, fn, ckpt_path, model_given=model is not None)
        run = self._attach(fn, module, given, datamodule)
        self._train_batches = self.num_training_batches  # of the calls before, for whoever asks later
        self._limits.update(self._run.data.limits if self._run is not None else {})
        self._run = run
        try:
            with going_on(run), handled(self), self.strategy.supervised(self), contextlib.ExitStack() as settings:
                if fn == TrainerFn.FITTING:  # also where the caller has switched gradients off
                    settings.enter_context(torch.inference_mode(False))
                    settings.enter_context(torch.enable_grad())
                if self._detect_anomaly and fn == TrainerFn.FITTING:
                    settings.enter_context(torch.autograd.set_detect_anomaly(True))
                self._set_up(run, fn, ckpt_path, weights_only)
                yield run
                if fn == TrainerFn.FITTING and run.left is not None:
                    self._left = module, run.left
                if not run.alone:
                    run.agreement.exchange()
                run.raise_signal()
                self._tear_down(run, fn)
        except BaseException as exception:
            self._fail(run, fn, exception)
            if isinstance(exception, StopIteration):
                raise RuntimeError(_escaped(exception))  # noqa: B904  contextlib swallows one raised `from` it
            raise
        finally:
            run.data.close()
            self._old.undo()
        self.state.status, self.state.stage = TrainerStatus.FINISHED, None

    def _module_of(self, fn: TrainerFn, model: LightningModule | None) -> LightningModule:
        if model is None:
            if self._module is None:
                raise TypeError(f"Trainer.{fn}() needs a model: no earlier call has given one.")
            return self._module
        original = getattr(model, "_orig_mod", model)  # torch.compile wraps the module
        if not isinstance(original, LightningModule):
            if isinstance(original, type):
                name = original.__qualname__
                raise TypeError(f"Trainer.{fn}() was given the class {name}. Pass an instance: {name}(...).")
            raise TypeError(f"Trainer.{fn}() takes a LightningModule, not {type(model).__qualname__}.")
        return original

    def _attach(
        self, fn: TrainerFn, module: LightningModule, given: dict[str, Any], datamodule: LightningDataModule | None
    ) -> Run:
        """Make module, data and trainer known to one another; what this call needs of them."""
        if datamodule is not None and any(loaders is not None for loaders in given.values()):
            raise MisconfigurationException(
                f"Trainer.{fn}() was given both loaders and a data module. Pass one of the two."
            )
        self._module, self.datamodule = module, datamodule
        self._agreed_to_end = self.strategy.by_itself = False
        if fn == TrainerFn.FITTING:
            self.should_stop, self._left = False, None
            self._optimizers, self.lr_scheduler_configs = [], []
            self.progress.reopen_epoch()
        self.state.fn, self.state.status, self.state.stage = fn, TrainerStatus.RUNNING, STAGES[_STAGE_OF[fn]]
        module.trainer = self
        self.strategy.connect(module)
        if datamodule is not None:
            datamodule.trainer = self
        for stage, loaders in given.items():
            self._sources[stage] = self._find_source(stage) if loaders is None else Given(partial(_same, loaders))
        return Run(self, module, {stage: self._sources[stage] for stage in given}, loop.before_step)

    def _find_source(self, stage: str) -> Any:
        """The hook that gives the loaders of a stage, or None where nobody defines it."""
        hook = loader_hook(stage)
        for owner, base in ((self.datamodule, LightningDataModule), (self._module, LightningModule)):
            if owner is not None and overrides(owner, hook, base):
                return getattr(owner, hook)
        return None

    def _source_of(self, stage: str) -> Any:
        return self._sources.get(stage)

    def _set_up(self, run: Run, fn: TrainerFn, ckpt_path: str | Path | None, weights_only: bool | None) -> None:
        self._attach_module_callbacks(run)
        self._old = adapt(run)
        self._check(fn)
        self.strategy.setup_environment()
        self._take_versions(fn)
        if self._active_profiler is not None:
            rank = self.local_rank if self.world_size > 1 else None  # part of the files' names where there are several
            self._active_profiler.setup(stage=fn, local_rank=rank, log_dir=self.log_dir)
        self._prepare_data(run)
        if self.datamodule is not None:
            profiled_method(run, self.datamodule, "setup")(stage=fn)
        self._call(run, "setup", stage=fn)
        self._set_up_model(run)
        checkpoint = None
        if ckpt_path is not None:
            self._ckpt_path = ckpt_path
            rank_zero_info(f"Restoring from {ckpt_path}")
            checkpoint = self.strategy.load_checkpoint(ckpt_path, weights_only=weights_only)
            check_checkpoint(checkpoint, ckpt_path)
            with part(ckpt_path, "loops"):
                checkpoint = migrated(checkpoint, run)
            checkpoints.load_weights(run, checkpoint)
            checkpoints.load_callbacks(run, checkpoint)
        self._metrics.restore(Metrics())
        if fn == TrainerFn.FITTING:
            self._set_up_fit(run, checkpoint)
        else:
            run.progress = Progress(**self.progress.state_dict())
            run.progress.eval_batches = {}
            run.connect_precision()
            run.begin()
            self._log_hparams(run)

    def _set_up_model(self, run: Run) -> None:
        with self.init_module():
            for_module(run, "configure_model")()
        self.precision_plugin.convert_module(run.module)
        self.accelerator.setup_device(self.strategy.root_device)
        self.strategy.setup(self)

    def _set_up_fit(self, run: Run, checkpoint: dict[str, Any] | None) -> None:
        before, run.fx = run.fx, "configure_optimizers"
        self.strategy.setup_optimizers(self)
        run.fx = before
        run.connect_precision()
        self._call(run, "on_fit_start")
        self._log_hparams(run)
        watch_outputs(run)
        run.begin()
        if checkpoint is not None:
            checkpoints.load_training(run, checkpoint, progress_of)
            if run.progress.epoch > self.max_epochs != -1:
                raise MisconfigurationException(
                    f"{self._ckpt_path} was saved after {run.progress.epoch} epochs, and max_epochs={self.max_epochs} "
                    "counts from the start of the run. Raise it, or begin anew with "
                    f"{type(run.module).__qualname__}.load_from_checkpoint(path)."
                )
            for logger in self.loggers:
                if hasattr(logger, "resume_from_step"):
                    logger.resume_from_step(run.batches_that_stepped)
            if run.train_results.row_is_due:  # the process that saved may have been killed before it wrote it
                run.train_results.write_row()
        self._began = time.monotonic(), run.progress.total_batch
        wanted = self.num_sanity_val_steps if self.enable_validation else 0
        run.sanity_batches = 0 if run.progress.in_epoch else wanted
        run.warn_modules_in_eval()

    def _attach_module_callbacks(self, run: Run) -> None:
        """Callbacks of the module itself; one of a class that the trainer has too replaces the trainer's."""
        own = for_module(run, "configure_callbacks")()
        own = list(own) if isinstance(own, (list, tuple)) else [own] if own is not None else []
        if own:
            kept = [cb for cb in self.callbacks if not any(issubclass(type(new), type(cb)) for new in own)]
            self.callbacks = ordered(kept + own)
        for callback in self.callbacks:
            callback.log, callback.log_dict = run.module.log, run.module.log_dict  # type: ignore[attr-defined]

    def _check(self, fn: TrainerFn) -> None:
        """What this call needs of the module and the data, before anything runs."""
        module = self.lightning_module

        def has(name: str) -> bool:
            return overrides(module, name, LightningModule)

        name = type(module).__qualname__
        stage = _STAGE_OF[fn]
        if fn == TrainerFn.FITTING:
            for needed in ("training_step", "configure_optimizers"):
                if not has(needed):
                    raise MisconfigurationException(
                        f"{name} does not define {needed}, which fit needs. {_NEEDED[needed]}"
                    )
            self._check_optimization(module)
            frozen = [n for n, t in chain(module.named_parameters(), module.named_buffers()) if t.is_inference()]
            if frozen:
                raise RuntimeError(
                    f"{name} was made under torch.inference_mode(), and torch never trains what was: {frozen[0]} and "
                    f"{len(frozen) - 1} more. Make the module outside of it; fit may be called inside."
                )
            if self._source_of("validation") is not None and not has("validation_step"):
                rank_zero_warn(f"there is validation data, and {name} has no validation_step: nothing is validated.")
            if has("validation_step") and self._source_of("validation") is None:
                rank_zero_warn(f"{name} has a validation_step, and there is no validation data: nothing is validated.")
        elif fn == TrainerFn.PREDICTING:
            if not has("predict_step") and type(module).forward is LightningModule.forward:
                raise MisconfigurationException(f"{name} defines neither predict_step nor forward; predict needs one.")
        elif not has(f"{stage}_step"):
            raise MisconfigurationException(f"{name} does not define {stage}_step, which {fn} needs.")
        if self._source_of(stage) is None:
            raise NoDataError(
                f"Trainer.{fn}() has no data. Pass {_argument(fn, stage)}=..., datamodule=..., or define "
                f"{loader_hook(stage)} in {name}."
            )

    def _check_optimization(self, module: LightningModule) -> None:
        if module.automatic_optimization:
            return
        if self.gradient_clip_val:
            raise MisconfigurationException(
                f"gradient_clip_val={self.gradient_clip_val} does nothing under manual optimization. Call "
                "self.clip_gradients(optimizer, gradient_clip_val=..., gradient_clip_algorithm='norm') before its step."
            )
        if self.accumulate_grad_batches != 1:
            raise MisconfigurationException(
                f"accumulate_grad_batches={self.accumulate_grad_batches} does nothing under manual optimization. Step "
                "the optimizer in every n-th training_step instead."
            )

    def _take_versions(self, fn: TrainerFn) -> None:
        """Before anything is written: loggers of all processes share the folders that process 0 has made for this run.

        An evaluation in one process may have nothing to log, and leaves it to the first row.
        """
        if fn == TrainerFn.FITTING or self.world_size > 1:
            for logger in self.loggers:
                if hasattr(logger, "take_version"):
                    logger.take_version()
        if self.world_size == 1:
            return
        versions = self.strategy.broadcast([getattr(logger, "version", None) for logger in self.loggers])
        for logger, version in zip(self.loggers, versions, strict=True):
            if hasattr(logger, "_version"):
                logger._version = version

    def _prepare_data(self, run: Run) -> None:
        for owner, base in ((self.datamodule, LightningDataModule), (self.lightning_module, LightningModule)):
            if owner is not None and overrides(owner, "prepare_data", base):
                per_node = getattr(owner, "prepare_data_per_node", True)
                if (self.local_rank == 0) if per_node else (self.global_rank == 0):
                    profiled_method(run, owner, "prepare_data")()
        self.strategy.barrier("prepare_data")

    def _call(self, run: Run, name: str, **kwargs: Any) -> None:
        """A hook that runs once: callbacks, then the module."""
        for hook in calls(run, name):
            hook(**kwargs)

    def _log_hparams(self, run: Run) -> None:
        if not self.enable_autolog_hparams or not self.loggers:
            return
        hparams: dict[str, Any] = {}
        owners = [o for o in (run.module, self.datamodule) if o is not None and getattr(o, "_log_hyperparams", False)]
        for owner in owners:
            initial = dict(owner.hparams_initial)
            clash = [str(k) for k in initial if k in hparams and not is_equal(hparams[k], initial[k])]
            if clash:
                raise RuntimeError(
                    f"the module and the data module both have hyper-parameters named {', '.join(clash)}, with "
                    "different values. Rename them, or save_hyperparameters(logger=False) in one of the two."
                )
            hparams.update(initial)
        for logger in self.loggers:
            if owners:
                logger.log_hyperparams(hparams)
            logger.log_graph(run.module)
            logger.save()

    def _tear_down(self, run: Run, fn: TrainerFn) -> None:
        if fn == TrainerFn.FITTING:
            self._call(run, "on_fit_end")
        self._teardown_hooks(run, fn)
        for logger in self.loggers:
            logger.finalize("success")
        if fn == TrainerFn.FITTING and self.is_global_zero:
            self._say_closing_line(run)
        if self._active_profiler is not None:
            self._active_profiler.describe()
            self._active_profiler.teardown(stage=fn)
        self.strategy.barrier("teardown")  # a rank that has ended the program leaves the others alone in their call
        self.strategy.teardown()
        self.accelerator.teardown()

    def _say_closing_line(self, run: Run) -> None:
        from fulgurite.closing import closing_line

        began, batches_before = self._began
        if self.fast_dev_run or self.barebones:
            return
        if run.progress.total_batch > batches_before:
            rank_zero_info(closing_line(self, began))
        elif (reason := run.stop_reason()) in ("max_epochs", "max_steps"):
            done = f"{self.current_epoch} epochs, {self.global_step} steps"
            rank_zero_info(
                f"Nothing was trained: {reason}={getattr(self, reason)} was reached before ({done}). Raise it, "
                "or take a new Trainer for another model."
            )

    def _teardown_hooks(self, run: Run, fn: TrainerFn) -> None:
        if self.datamodule is not None:
            profiled_method(run, self.datamodule, "teardown")(stage=fn)
        self._call(run, "teardown", stage=fn)

    def _fail(self, run: Run, fn: TrainerFn, exception: BaseException) -> None:
        """Tell everyone who wants to know; what they do must not hide what went wrong."""
        self.state.status = TrainerStatus.INTERRUPTED
        self.strategy.by_itself = self.world_size > 1 and not self._agreed_to_end  # nobody answers any more
        tell: list[Callable[[], Any]] = [
            partial(callback.on_exception, self, run.module, exception)
            for callback in self.callbacks
            if overrides(callback, "on_exception", Callback)
        ]
        if self.datamodule is not None:
            tell.append(partial(self.datamodule.on_exception, exception))
        tell.append(partial(self.strategy.on_exception, exception))
        tell += [partial(logger.finalize, "failed") for logger in self.loggers]
        if isinstance(exception, (KeyboardInterrupt, SIGTERMException)):
            tell.append(partial(self._teardown_hooks, run, fn))
        if (profiler := self._active_profiler) is not None:  # torch's would crash the interpreter at its exit
            tell += [profiler.describe, partial(profiler.teardown, stage=fn)]
        for told in [*tell, self.strategy.teardown, self.accelerator.teardown]:
            try:
                told()
            except Exception:
                log.exception("This went wrong while the run was ended by %r, which follows.", exception)
        self.state.stage = None

    def _say_once(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            rank_zero_info(message)

    # the wish to stop
    def _ask_to_stop(self, stop: bool) -> None:
        self._should_stop = self._asked_to_stop = stop
        if not stop:
            self._stop_votes.clear()

    should_stop = property(  # read after each batch, so without a frame of ours
        attrgetter("_should_stop"), _ask_to_stop, doc="Whether the fit ends once min_epochs and min_steps are met."
    )

    def _vote_to_stop(self, callback: Callback, stop: bool) -> None:
        """A callback's wish to stop, which it may take back while min_epochs or min_steps keep the fit going."""
        (self._stop_votes.add if stop else self._stop_votes.discard)(callback.state_key)
        self._should_stop = self._asked_to_stop or bool(self._stop_votes)

    # what the module asks of its trainer
    @property
    def _wrapped_optimizers(self) -> list[Any]:
        return list(self._run.wrapped_optimizers) if self._run is not None else []

    def _manual_backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        assert self._run is not None
        self._run.manual_backward(loss, *args, **kwargs)

    def _clip_gradients(self, optimizer: Any, value: float | None, algorithm: str | None) -> None:
        own = self.gradient_clip_val
        if value is not None and own is not None and value != own:
            raise MisconfigurationException(
                f"clip_gradients(gradient_clip_val={value}) and Trainer(gradient_clip_val={own}) contradict each "
                "other; set one of the two."
            )
        assert self._run is not None
        self._run.clip(optimizer, own if value is None else value, algorithm or self.gradient_clip_algorithm)

    # checkpoints
    def save_checkpoint(
        self, filepath: str | Path, weights_only: bool | None = None, storage_options: Any = None
    ) -> None:
        """Write a checkpoint, whole or not at all; call it on every process.

        Args:
            filepath: where to.
            weights_only: leave out what is needed to resume.
            storage_options: for a CheckpointIO of your own.
        """
        if self._module is None:
            raise AttributeError("there is nothing to save: fit, validate, test or predict with a model first.")
        run = self._run
        if run is None:  # it has ended with the processes of the call, and the optimizers with it
            if not weights_only:
                rank_zero_warn(
                    "save_checkpoint after a call whose processes have ended, and their optimizers with them: the "
                    "checkpoint holds weights and counters, and a fit cannot go on from it. Have a ModelCheckpoint "
                    "save while they run, or pass weights_only=True to silence this."
                )
            self.strategy.connect(self._module)
            run, weights_only = Run(self, self._module, {}, loop.before_step), True
            self._results = None  # type: ignore[assignment]  # as it was: no hook runs
        checkpoint = checkpoints.dump(self, run, loops_of, bool(weights_only))
        options = {} if storage_options is None else {"storage_options": storage_options}
        self.strategy.save_checkpoint(checkpoint, filepath, **options)

    def _left_by(self, module: LightningModule) -> dict[str, Any] | None:
        """Where the last fit of the module ended; None while one runs, or where none ended properly."""
        return self._left[1] if self._left is not None and self._left[0] is module else None

    @property
    def ckpt_path(self) -> str | Path | None:
        """The checkpoint that the current or last call was given."""
        return self._ckpt_path

    @ckpt_path.setter
    def ckpt_path(self, path: str | Path | None) -> None:
        self._ckpt_path = path

    @contextlib.contextmanager
    def init_module(self, empty_init: bool | None = None) -> Iterator[None]:
        """Modules created inside have their parameters on the device and in the precision of this trainer."""
        with self.precision_plugin.module_init_context(), self.strategy.root_device:
            yield

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print once, not once a process, and without disturbing the progress bar."""
        if self.is_global_zero:
            bar = self.progress_bar_callback
            (print if bar is None else bar.print)(*args, **kwargs)

    # what happens now
    @property
    def training(self) -> bool:
        """Whether a training batch may be running."""
        return self.state.stage == RunningStage.TRAINING

    @property
    def validating(self) -> bool:
        """Whether validation runs, within fit or by itself."""
        return self.state.stage == RunningStage.VALIDATING

    @property
    def testing(self) -> bool:
        """Whether testing runs."""
        return self.state.stage == RunningStage.TESTING

    @property
    def predicting(self) -> bool:
        """Whether prediction runs."""
        return self.state.stage == RunningStage.PREDICTING

    @property
    def sanity_checking(self) -> bool:
        """Whether the validation batches ahead of training run."""
        return self.state.stage == RunningStage.SANITY_CHECKING

    @property
    def evaluating(self) -> bool:
        """Whether validation or testing runs, the sanity check included."""
        return self.state.stage is not None and self.state.stage.evaluating

    @property
    def interrupted(self) -> bool:
        """Whether the last call ended by an exception or a signal."""
        return self.state.status == TrainerStatus.INTERRUPTED

    # counters
    @property
    def current_epoch(self) -> int:
        """Epochs finished."""
        return self.progress.epoch

    @property
    def global_step(self) -> int:
        """Optimizer steps taken, of all optimizers together."""
        return self.progress.global_step

    @property
    def batches_that_stepped(self) -> int:
        """Training batches after which weights changed: the x-axis of the loggers."""
        if self._module is not None and not self._module.automatic_optimization:
            return self.progress.total_batch - self.progress.skipped
        return self.progress.global_step

    @property
    def is_last_batch(self) -> bool:
        """Whether the training batch in work, or just done, is the epoch's last."""
        return self.progress.is_last_batch

    @property
    def accumulate_grad_batches(self) -> int:
        """Batches whose average gradient makes one optimizer step."""
        return self._accumulate_grad_batches

    @accumulate_grad_batches.setter
    def accumulate_grad_batches(self, batches: int) -> None:
        self._accumulate_grad_batches = batches
        if self._run is not None:
            self._run.accumulate_grad_batches = batches

    @property
    def optimizers(self) -> list[Optimizer]:
        """Those of `configure_optimizers`; others that are put in their place are stepped from then on."""
        return self._optimizers

    @optimizers.setter
    def optimizers(self, optimizers: list[Optimizer]) -> None:
        self._optimizers = optimizers
        if self._run is not None and self._run.optimizers:
            self._run.use_optimizers(optimizers)

    @property
    def val_check_batch(self) -> int | float | None:
        """Training batches from one validation to the next; None before the training loader is known."""
        run = self._run
        if run is None or not run.training or run.data.train is None:
            return None
        return run.data.train_batches_count if run.val_every is None else run.val_every

    @val_check_batch.setter
    def val_check_batch(self, batches: int | float) -> None:
        if self._run is not None:
            self._run.val_every = None if math.isinf(batches) else int(batches)

    def _limits_of(self, stage: str) -> list[int | float]:
        return {**self._limits, **(self._run.data.limits if self._run is not None else {})}.get(stage, [])

    @property
    def num_training_batches(self) -> int | float:
        """Training batches of an epoch; inf when that cannot be known."""
        if self._run is not None and self._run.data.train is not None:
            self._train_batches = self._run.data.train_batches_count
        return self._train_batches

    @property
    def num_sanity_val_batches(self) -> list[int | float]:
        """Batches of each validation loader that the sanity check uses."""
        return [min(n, self.num_sanity_val_steps) for n in self.num_val_batches]

    @property
    def num_val_batches(self) -> list[int | float]:
        """Validation batches, for each loader."""
        return self._limits_of("validation")

    @property
    def num_test_batches(self) -> list[int | float]:
        """Test batches, for each loader."""
        return self._limits_of("test")

    @property
    def num_predict_batches(self) -> list[int | float]:
        """Batches to predict, for each loader."""
        return self._limits_of("predict")

    @property
    def estimated_stepping_batches(self) -> int | float:
        """Optimizer steps that this fit will take, at most. Loads the training loader.

        Of a stream, whose batches nobody can count, max_steps: -1 where there is none. inf where nothing ends the fit.
        """
        most = math.inf if self.max_steps == -1 else self.max_steps
        if self.max_epochs == -1:
            return most
        run = self._run
        if run is None or not run.training:
            raise MisconfigurationException("estimated_stepping_batches is known while fit runs.")
        if run.data.train is None:
            run.data.open_train()
        batches = run.data.train_batches_count
        if batches == math.inf:
            return self.max_steps
        return min(most, math.ceil(batches / self.accumulate_grad_batches) * max(self.max_epochs, 1))

    # metrics
    def _current(self) -> Metrics:
        if self._results is not None:
            self._results.pull()
        return self._metrics

    @property
    def callback_metrics(self) -> dict[str, Any]:
        """What callbacks may monitor: every logged value by name."""
        return self._current().callback

    @property
    def logged_metrics(self) -> dict[str, Any]:
        """What was, or will next be, written to the loggers."""
        return self._current().logged

    @property
    def progress_bar_metrics(self) -> dict[str, float]:
        """What the progress bar shows, as numbers: reading it waits for the device."""
        return {name: as_number(value) for name, value in self._current().bar.items()}

    def metric_source(self, name: str) -> MetricSource | None:
        """Which stage logged a callback metric, and after how many training batches; None where it is unknown."""
        return self._current().sources.get(name)

    # objects
    @property
    def lightning_module(self) -> LightningModule:
        """The module of the current or last call."""
        return self._module  # type: ignore[return-value]  # None before the first call, as in Lightning

    @property
    def model(self) -> nn.Module | None:
        """The module as the strategy wraps it."""
        return self.strategy.model if self.strategy.model is not None else self._module

    @property
    def enable_validation(self) -> bool:
        """Whether fit will validate."""
        return (
            self._module is not None
            and self._source_of("validation") is not None
            and overrides(self._module, "validation_step", LightningModule)
            and self.limit_val_batches > 0
        )

    def _loaders_of(self, stage: str) -> Any:
        return self._run.data.given.get(stage) if self._run is not None else None

    @property
    def train_dataloader(self) -> Any:
        """The training loader, as it was given."""
        return self._loaders_of("train")

    @property
    def val_dataloaders(self) -> Any:
        """The validation loaders, as they were given."""
        return self._loaders_of("validation")

    @property
    def test_dataloaders(self) -> Any:
        """The test loaders, as they were given."""
        return self._loaders_of("test")

    @property
    def predict_dataloaders(self) -> Any:
        """The loaders to predict, as they were given."""
        return self._loaders_of("predict")

    @property
    def loggers(self) -> list[Logger]:
        """All loggers."""
        return self._loggers

    @loggers.setter
    def loggers(self, loggers: list[Logger] | None) -> None:
        self._loggers = loggers or []

    @property
    def logger(self) -> Logger | None:
        """The first logger."""
        return self._loggers[0] if self._loggers else None

    @logger.setter
    def logger(self, logger: Logger | None) -> None:
        self._loggers = [logger] if logger is not None else []

    @property
    def log_dir(self) -> str | None:
        """Where the first logger writes; the default root directory without one."""
        if not self._loggers:
            return self.default_root_dir
        logger = self._loggers[0]
        return getattr(logger, "log_dir", None) or logger.save_dir

    @property
    def checkpoint_callbacks(self) -> list[Checkpoint]:
        """Callbacks that save."""
        return [callback for callback in self.callbacks if isinstance(callback, Checkpoint)]

    @property
    def checkpoint_callback(self) -> Checkpoint | None:
        """The first callback that saves."""
        return next(iter(self.checkpoint_callbacks), None)

    @property
    def early_stopping_callbacks(self) -> list[Any]:
        """Callbacks that stop early."""
        from fulgurite.callbacks.early_stopping import EarlyStopping

        return [callback for callback in self.callbacks if isinstance(callback, EarlyStopping)]

    @property
    def early_stopping_callback(self) -> Any:
        """The first callback that stops early."""
        return next(iter(self.early_stopping_callbacks), None)

    @property
    def progress_bar_callback(self) -> Any:
        """The progress bar."""
        from fulgurite.callbacks.progress import ProgressBar

        return next((callback for callback in self.callbacks if isinstance(callback, ProgressBar)), None)

    @property
    def precision(self) -> str:
        """The precision's full name."""
        return self.precision_plugin.precision

    @property
    def scaler(self) -> Any:
        """The gradient scaler of "16-mixed", else None."""
        return self.precision_plugin.scaler

    # processes
    @property
    def world_size(self) -> int:
        """Number of processes in all."""
        return self.strategy.world_size

    @property
    def global_rank(self) -> int:
        """The number of this process among all."""
        return self.strategy.global_rank

    @property
    def local_rank(self) -> int:
        """The number of this process on its machine."""
        return self.strategy.local_rank

    @property
    def node_rank(self) -> int:
        """The number of this machine."""
        return self.strategy.node_rank

    @property
    def is_global_zero(self) -> bool:
        """Whether this is the first process: the one that writes."""
        return self.strategy.is_global_zero

    @property
    def device_ids(self) -> list[int]:
        """Indices of this machine's devices in use; on the CPU, of its processes."""
        devices = self.strategy.parallel_devices or [self.strategy.root_device]
        return [i if device.index is None else device.index for i, device in enumerate(devices)]

    @property
    def num_devices(self) -> int:
        """Devices of this machine in use."""
        return self.strategy.num_processes

    @property
    def distributed_sampler_kwargs(self) -> dict[str, int] | None:
        """What a DistributedSampler needs to know, where there are several processes."""
        strategy = self.strategy
        return {"num_replicas": strategy.data_size, "rank": strategy.data_rank} if self.world_size > 1 else None


def _argument(fn: TrainerFn, stage: str) -> str:
    """What the loaders of a stage are called in the call."""
    if fn != TrainerFn.FITTING:
        return "dataloaders"
    return "train_dataloaders" if stage == "train" else "val_dataloaders"


def _same(loaders: Any) -> Any:
    return loaders


def _escaped(exception: StopIteration) -> str:
    """A StopIteration looks like the end of a loop, so the line that raised it is what one must see."""
    frames = [f for f in traceback.extract_tb(exception.__traceback__) if not f.filename.startswith(_HERE)]
    where = f"{frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line}" if frames else "unknown"
    return (
        f"StopIteration escaped from your code at {where}. It would have ended the epoch silently; catch it, or use "
        "next(iterator, default)."
    )
