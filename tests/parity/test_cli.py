"""`--print_config` shows the keys and defaults that Lightning's command line shows."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import lightning.pytorch.cli  # noqa: F401  imported here, before a test watches what it leaves in the environment
import pytest
import yaml

pytestmark = [
    pytest.mark.parity,
    pytest.mark.needs("jsonargparse", "typeshed_client"),
    pytest.mark.filterwarnings("ignore"),
]

ADAM = ["--optimizer=Adam", "--optimizer.lr=0.3", "--lr_scheduler=StepLR", "--lr_scheduler.step_size=2"]
CASES: dict[str, tuple[list[str], dict[str, Any]]] = {
    "fit": (["fit"], {"data": True}),
    "validate": (["validate"], {}),
    "test": (["test"], {}),
    "predict": (["predict"], {"data": True}),
    "any model": (["fit"], {"model": False}),
    "no sub-command": ([], {"run": False}),
    "optimizer and scheduler": (["fit", *ADAM], {}),
    "plateau": (["fit", "--optimizer=SGD", "--lr_scheduler=ReduceLROnPlateau", "--lr_scheduler.monitor=loss"], {}),
    "no automatic optimizer": (["fit"], {"auto_configure_optimizers": False}),
    "flags": (["fit", "--trainer.max_epochs=3", "--trainer.precision=16", "--trainer.limit_val_batches=0.5"], {}),
    "seed": (["fit"], {"seed_everything_default": 7}),
    "trainer defaults": (["fit"], {"trainer_defaults": {"max_epochs": 9, "deterministic": True}}),
    "early stopping": (["fit", "--trainer.callbacks=EarlyStopping", "--trainer.callbacks.monitor=loss"], {}),
    "checkpoint": (["fit", "--trainer.callbacks=ModelCheckpoint"], {}),
    "csv logger": (["fit", "--trainer.logger=CSVLogger", "--trainer.logger.save_dir=x"], {}),
    "rate finder": (["fit", "--trainer.callbacks=LearningRateFinder"], {}),
    "batch size finder": (["fit", "--trainer.callbacks=BatchSizeFinder"], {}),
}


def shown(package: str, arguments: list[str], options: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> Any:
    cli = importlib.import_module(f"{package}.cli")
    boring = importlib.import_module(f"{package}.demos.boring_classes")

    class Net(boring.BoringModel):
        def __init__(self, width: int = 3, kind: str | None = None, rates: tuple[float, ...] = (0.1,)) -> None:
            super().__init__()

    options = dict(options)
    model = Net if options.pop("model", True) else None
    data = boring.BoringDataModule if options.pop("data", False) else None
    with pytest.raises(SystemExit):
        cli.LightningCLI(model, data, args=[*arguments, "--print_config"], **options)
    return yaml.safe_load(capsys.readouterr().out.replace(f"{package}.", "pl."))


@pytest.mark.parametrize("case", CASES)
def test_print_config(case: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py"])
    ours = shown("fulgurite", *CASES[case], capsys)
    if case == "predict":
        assert ours.pop("gather") is False  # of our own: all processes' predictions in the data set's order
    assert ours == shown("lightning.pytorch", *CASES[case], capsys)
