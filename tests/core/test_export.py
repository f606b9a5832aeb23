"""A trained module leaves for ONNX, and for torch.export, with the same outputs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fulgurite import LightningModule
from helpers.counting import Counting, fit


class Net(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Dropout(0.5), torch.nn.Tanh())
        self.example_input_array = torch.ones(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


@pytest.mark.slow
@pytest.mark.needs("onnx", "onnxscript")
@pytest.mark.filterwarnings("ignore")
def test_onnx_computes_what_the_module_does_in_eval_mode() -> None:
    from onnx.reference import ReferenceEvaluator

    module, x = Net(), torch.randn(4, 2)
    module.train()
    module.to_onnx("net.onnx", input_names=["x"])
    assert module.training and Path("net.onnx").stat().st_size > 0
    (found,) = ReferenceEvaluator("net.onnx").run(None, {"x": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), module.eval()(x))


def test_an_export_needs_an_input() -> None:
    with pytest.raises(ValueError, match="example_input_array"):
        Counting().to_onnx("net.onnx")


@pytest.mark.filterwarnings("ignore:.*there is no validation data")
def test_torch_export_takes_a_module_that_has_been_trained() -> None:
    class Trained(Counting):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x).tanh()

    _, module = fit(Trained())
    x = torch.randn(4, 2)
    program = torch.export.export(module.eval(), (x,))
    assert torch.equal(program.module()(x), module(x))


@pytest.mark.parametrize("method", ["script", "trace"])
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_torchscript_takes_a_module_that_no_trainer_has_and_leaves_its_modes(method: str) -> None:
    module, x = Net(), torch.randn(4, 2)
    module.layer[1].eval()
    compiled = module.to_torchscript("net.pt", method=method)
    assert module.training and not module.layer[1].training
    expected = module.eval()(x)
    assert torch.equal(compiled(x), expected) and torch.equal(torch.jit.load("net.pt")(x), expected)
    with pytest.raises(RuntimeError, match="not attached"):
        module.trainer  # noqa: B018  what it does when it is looked at


def test_torchscript_is_made_in_one_of_two_ways() -> None:
    with pytest.raises(ValueError, match="'compile' is not one of 'script' and 'trace'"):
        Net().to_torchscript(method="compile")
