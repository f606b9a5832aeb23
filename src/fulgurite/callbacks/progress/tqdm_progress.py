"""The bar drawn by tqdm."""

from __future__ import annotations

import math
import os
import sys
from typing import TYPE_CHECKING, Any

from fulgurite.callbacks.progress.progress_bar import TimedProgressBar, as_text
from fulgurite.utilities.imports import import_extra

if TYPE_CHECKING:
    from tqdm import tqdm

    from fulgurite.core.module import LightningModule
    from fulgurite.trainer import Trainer


def __getattr__(name: str) -> Any:
    if name != "Tqdm":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()["Tqdm"] = made = _tqdm_class()
    return made


def _tqdm_class() -> type[tqdm[Any]]:
    """tqdm's class for the terminal or the notebook, with numbers that do not change their width at each step."""
    module = import_extra("tqdm.auto" if "ipykernel" in sys.modules else "tqdm", "TQDMProgressBar", "tqdm")

    class Tqdm(module.tqdm):  # type: ignore[misc,name-defined]  # which of the two is known at run time only
        @staticmethod
        def format_num(n: Any) -> str:
            return as_text(n)

    return Tqdm


class TQDMProgressBar(TimedProgressBar):
    """A tqdm bar for training, and one below it while something is evaluated.

    Example::

        class Bar(TQDMProgressBar):
            def init_validation_tqdm(self):
                bar = super().init_validation_tqdm()
                bar.set_description("checking")
                return bar
    """

    BAR_FORMAT = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_noinv_fmt}{postfix}]"

    def __init__(self, refresh_rate: int = 1, process_position: int = 0, leave: bool = False) -> None:
        super().__init__(self._resolve_refresh_rate(refresh_rate))
        self._process_position = process_position
        self._leave = leave
        self._bars: dict[str, Any] = {}
        self._closed: dict[str, Any] = {}  # of stages that are over: how far they came can still be read

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_bars": {}, "_closed": {}}  # bars hold the terminal

    @staticmethod
    def _resolve_refresh_rate(refresh_rate: int) -> int:
        if refresh_rate <= 0:
            return refresh_rate
        if os.environ.get("COLAB_JUPYTER_IP") and refresh_rate == 1:
            return 20  # Colab's page cannot follow
        return max(refresh_rate, int(os.environ.get("TQDM_MINITERS", 0)))

    @property
    def process_position(self) -> int:
        """Lines to leave free above the bars."""
        return self._process_position

    @property
    def train_progress_bar(self) -> tqdm[Any]:
        return self._bar("train")

    @property
    def val_progress_bar(self) -> tqdm[Any]:
        return self._bar("validation")

    @property
    def test_progress_bar(self) -> tqdm[Any]:
        return self._bar("test")

    @property
    def predict_progress_bar(self) -> tqdm[Any]:
        return self._bar("predict")

    def _bar(self, bar: str) -> tqdm[Any]:
        bars = self._closed | self._bars
        if bar not in bars:
            raise TypeError(f"there is no {bar} bar yet; it is made when its stage begins.")
        return bars[bar]  # type: ignore[no-any-return]  # a tqdm

    def init_sanity_tqdm(self) -> tqdm[Any]:
        """The bar of the sanity check; override to change how it looks. So for the others."""
        return self._made(self.sanity_check_description, leave=False)

    def init_train_tqdm(self) -> tqdm[Any]:
        return self._made(self.train_description, leave=True)

    def init_validation_tqdm(self) -> tqdm[Any]:
        in_fit = self._bars.get("train") is not None
        return self._made(self.validation_description, leave=not in_fit, below=in_fit)

    def init_test_tqdm(self) -> tqdm[Any]:
        return self._made(self.test_description, leave=True)

    def init_predict_tqdm(self) -> tqdm[Any]:
        return self._made(self.predict_description, leave=True)

    def _made(self, description: str, leave: bool, below: bool = False) -> tqdm[Any]:
        made: tqdm[Any] = sys.modules[__name__].Tqdm(  # __getattr__ above makes it, once
            desc=description,
            position=2 * self.process_position + below,
            disable=self.is_disabled,
            leave=leave,
            dynamic_ncols=True,
            file=sys.stdout,
            smoothing=0,
            bar_format=self.BAR_FORMAT,
        )
        return made

    def print(self, *args: Any, sep: str = " ", **kwargs: Any) -> None:
        if self._bars and not self.is_disabled:
            next(iter(self._bars.values())).write(sep.join(map(str, args)), **kwargs)
        else:
            print(*args, sep=sep, **kwargs)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.is_enabled:
            self._bars["train"] = self.init_train_tqdm()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if "train" in self._bars:
            self._draw("train", trainer.progress.batch)

    def _open(self, bar: str) -> None:
        if bar not in self._bars or (bar == "train" and self._leave and self.trainer.current_epoch > 0):
            if bar in self._bars:
                self._bars[bar].close()
            self._bars[bar] = getattr(self, f"init_{bar}_tqdm")()
        total = self.total(bar)
        shown = self._bars[bar]
        shown.reset(total=None if math.isinf(total) else total)
        shown.initial = shown.n = self.trainer.progress.batch if bar == "train" else 0
        if bar == "train" or self._loaders(bar) > 1:
            shown.set_description(self.description(bar), refresh=False)

    def _draw(self, bar: str, done: int) -> None:
        shown = self._bars[bar]
        if bar == "train":
            self._show_metrics()
        shown.n = done
        shown.refresh()

    def _show_metrics(self) -> None:
        metrics = self.get_metrics(self.trainer, self.trainer.lightning_module)
        self._bars["train"].set_postfix(metrics, refresh=False)

    def _close(self, bar: str) -> None:
        if bar not in self._bars:
            return
        if bar == "train":
            self._show_metrics()
        shown = self._closed[bar] = self._bars.pop(bar)
        if shown.total is not None and bar != "train" and not self.trainer.sanity_checking:
            shown.n = shown.total
            shown.refresh()
        shown.close()
        if bar == "validation" and "train" in self._bars:
            self._show_metrics()
            self._bars["train"].refresh()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._close_all()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close_all()

    def _close_all(self) -> None:
        for shown in self._bars.values():
            shown.close()
        self._closed |= self._bars
        self._bars = {}
