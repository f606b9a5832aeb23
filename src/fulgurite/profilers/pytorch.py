"""Which operators each action spent its time in, on CPU and GPU."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.autograd.profiler import record_function

from fulgurite.profilers.profiler import Profiler, never_started
from fulgurite.utilities.exceptions import MisconfigurationException

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

_WAIT, _WARMUP, _ACTIVE = 1, 1, 3
_SORT_KEYS = (
    "cpu_time",
    "cuda_time",
    "cpu_time_total",
    "cuda_time_total",
    "cpu_memory_usage",
    "cuda_memory_usage",
    "self_cpu_memory_usage",
    "self_cuda_memory_usage",
    "count",
)


class PyTorchProfiler(Profiler):
    """Run torch.profiler over the training and evaluation steps; the report lists operators.

    Example::

        Trainer(profiler=PyTorchProfiler(dirpath="profile", filename="ops"))  # also a trace for chrome://tracing

    By default the third to the fifth step are recorded. Further keywords, `schedule`, `activities`, `with_stack` and so
    on, go to `torch.profiler.profile`.
    """

    STEP_FUNCTIONS = ("training_step", "validation_step", "test_step", "predict_step")

    def __init__(
        self,
        dirpath: str | Path | None = None,
        filename: str | None = None,
        group_by_input_shapes: bool = False,
        emit_nvtx: bool = False,
        export_to_chrome: bool = True,
        row_limit: int = 20,
        sort_by_key: str | None = None,
        record_module_names: bool = True,
        table_kwargs: dict[str, Any] | None = None,
        **profiler_kwargs: Any,
    ) -> None:
        super().__init__(dirpath, filename)
        self._group_by_input_shapes = group_by_input_shapes and profiler_kwargs.get("record_shapes", False)
        self._emit_nvtx = emit_nvtx
        self._export_to_chrome = export_to_chrome
        self._row_limit = row_limit
        self._sort_by_key = sort_by_key or ("cuda_time_total" if torch.cuda.is_available() else "cpu_time_total")
        if self._sort_by_key not in _SORT_KEYS:
            raise MisconfigurationException(f"sort_by_key={sort_by_key!r} must be one of {', '.join(_SORT_KEYS)}.")
        self._record_module_names = record_module_names
        self._table_kwargs = table_kwargs or {}
        for key in ("sort_by", "row_limit"):
            if key in self._table_kwargs:
                raise KeyError(f"table_kwargs must not have {key!r}; PyTorchProfiler has an argument for it.")
        self._profiler_kwargs = profiler_kwargs
        self._profiler: Any = None  # torch.profiler.profile or emit_nvtx
        self._open: dict[str, record_function] = {}
        self._events: Any = None  # of the last cycle that was recorded, summed up by name
        self.function_events: Any = None  # each of them; they can be read after the run
        self._steps = 0
        self._hooks: list[RemovableHandle] = []
        self._modules: list[record_function] = []

    def start(self, action_name: str) -> None:
        if self._profiler is None:
            self._begin()
        recording = record_function(f"[pl][profile]{action_name}")
        recording.__enter__()  # type: ignore[no-untyped-call]  # torch's
        self._open[action_name] = recording

    def stop(self, action_name: str) -> None:
        if action_name not in self._open:
            raise never_started(action_name)
        self._open.pop(action_name).__exit__(None, None, None)
        if action_name.endswith(self.STEP_FUNCTIONS) and self._profiler is not None and not self._emit_nvtx:
            self._steps += 1
            self._profiler.step()

    def summary(self) -> str:
        self._end()
        if self._emit_nvtx:
            return ""
        if self._events is None:
            return (
                f"Profiler Report\nNothing was recorded in {self._steps} steps: by default the first {_WAIT + _WARMUP} "
                "are left out. schedule=None records every step.\n"
            )
        table = self._events.table(sort_by=self._sort_by_key, row_limit=self._row_limit, **self._table_kwargs)
        return f"Profiler Report\nProfile stats for: records\n{table}"

    def teardown(self, stage: str | None) -> None:
        self._end()
        self._events, self._steps = None, 0
        super().teardown(stage)

    def _begin(self) -> None:
        if self._emit_nvtx:
            self._profiler = torch.autograd.profiler.emit_nvtx(**self._profiler_kwargs)  # type: ignore[no-untyped-call]  # torch's
        else:
            given = dict(self._profiler_kwargs)
            given.setdefault("schedule", torch.profiler.schedule(wait=_WAIT, warmup=_WARMUP, active=_ACTIVE, repeat=1))
            users: Callable[[Any], Any] | None = given.pop("on_trace_ready", None)

            def keep(profiler: Any) -> None:
                self._events = profiler.key_averages(group_by_input_shape=self._group_by_input_shapes)
                self.function_events = profiler.events()
                if users is not None:
                    users(profiler)
                if self._export_to_chrome:
                    self._export(profiler)

            self._profiler = torch.profiler.profile(on_trace_ready=keep, **given)
        self._profiler.__enter__()
        if self._record_module_names:
            self._hooks = [
                nn.modules.module.register_module_forward_pre_hook(self._enter_module),
                nn.modules.module.register_module_forward_hook(self._leave_module, always_call=True),
            ]

    def _end(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        for recording in reversed(self._open.values()):  # what an exception has interrupted
            with contextlib.suppress(RuntimeError):
                recording.__exit__(None, None, None)
        self._open = {}
        if self._profiler is not None:
            profiler, self._profiler = self._profiler, None
            profiler.__exit__(None, None, None)

    def _export(self, profiler: Any) -> None:
        folder = self._folder()
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        profiler.export_chrome_trace(str(folder / self._prepare_filename(f"step{self._steps}", ".pt.trace.json")))

    def _enter_module(self, module: nn.Module, _: Any) -> None:
        kind = type(module)
        recording = record_function(f"[pl][module]{kind.__module__}.{kind.__qualname__}")
        recording.__enter__()  # type: ignore[no-untyped-call]  # torch's
        self._modules.append(recording)

    def _leave_module(self, *_: Any) -> None:
        if self._modules:
            self._modules.pop().__exit__(None, None, None)
