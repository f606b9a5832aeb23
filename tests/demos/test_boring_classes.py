from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch

from fulgurite import Trainer
from fulgurite.demos import boring_classes
from fulgurite.demos.boring_classes import (
    BoringDataModule,
    BoringDataModuleNoLen,
    BoringModel,
    DemoModel,
    IterableBoringDataModule,
    ManualOptimBoringModel,
    Net,
    RandomDataset,
    RandomDictDataset,
    RandomIterableDataset,
    RandomIterableDatasetWithLen,
)


def trainer(**flags: Any) -> Trainer:
    return Trainer(
        max_epochs=1,
        limit_train_batches=3,
        limit_val_batches=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **flags,
    )


def test_data_sets() -> None:
    assert RandomDataset(3, 2)[1].shape == (3,) and len(RandomDataset(3, 2)) == 2
    row = RandomDictDataset(3, 2)[0]
    assert torch.equal(row["b"], row["a"] + 2)
    assert len(list(RandomIterableDataset(3, 2))) == len(RandomIterableDatasetWithLen(3, 2)) == 2
    with pytest.raises(TypeError):
        len(RandomIterableDataset(3, 2))  # type: ignore[arg-type]


@pytest.mark.parametrize("model", [BoringModel, ManualOptimBoringModel])
@pytest.mark.parametrize("data", [None, BoringDataModule, BoringDataModuleNoLen])
def test_they_train(model: type[BoringModel], data: Any) -> None:
    module = model()
    before = module.layer.weight.clone()
    trainer().fit(module, datamodule=data() if data else None)
    assert not torch.equal(module.layer.weight, before)


def test_loaders_of_several_kinds() -> None:
    data = IterableBoringDataModule()
    for stage in ("fit", "test", "predict"):
        data.setup(stage)
    loaders = [data.train_dataloader(), data.val_dataloader(), data.test_dataloader(), data.predict_dataloader()]
    assert [len(pair) for pair in loaders] == [2, 2, 2, 2]


def test_demo_models() -> None:
    assert DemoModel(out_dim=3, learning_rate=0.5).configure_optimizers().param_groups[0]["lr"] == 0.5
    assert DemoModel(out_dim=3)(torch.ones(2, 4, 8)).shape == (2, 3)
    assert Net()(torch.zeros(2, 1, 28, 28)).exp().sum().item() == pytest.approx(2)


@pytest.fixture(scope="session")  # importing lightning sets environment variables, which a test must not
def theirs() -> Any:
    return importlib.import_module("lightning.pytorch.demos.boring_classes")


@pytest.mark.parity
@pytest.mark.parametrize("name", ["BoringModel", "ManualOptimBoringModel", "DemoModel", "Net"])
def test_the_same_seed_gives_lightnings_numbers(name: str, theirs: Any) -> None:
    def numbers(module: Any) -> list[torch.Tensor]:
        torch.manual_seed(3)
        model = getattr(module, name)()
        x = torch.randn(2, 1, 28, 28) if name == "Net" else torch.randn(2, 32)
        return [*model.parameters(), model(x), torch.rand(1)]

    for ours, other in zip(numbers(boring_classes), numbers(theirs), strict=True):
        assert torch.equal(ours, other)


@pytest.mark.parity
def test_data_sets_draw_as_lightnings(theirs: Any) -> None:
    def drawn(module: Any) -> list[torch.Tensor]:
        torch.manual_seed(3)
        rows = [module.RandomDataset(2, 3)[1], module.RandomDictDataset(2, 3)[1]["b"]]
        rows += list(module.RandomIterableDataset(2, 3))
        data = module.BoringDataModule()
        data.setup("fit")
        return [*rows, *data.train_dataloader(), *data.val_dataloader()]

    for ours, other in zip(drawn(boring_classes), drawn(theirs), strict=True):
        assert torch.equal(ours, other)
