# SPDX-License-Identifier: BSD-3-Clause
"""Ops that PyTorch's exporter does not know, or writes as no runtime takes them."""

import pytest
import torch
from onnx_running import run
from torch import nn

from aimetpp.export.onnx import build_qdq_model
from aimetpp.export.symbolics import registered
from aimetpp.quantsim import QuantizationSimModel


class Calls(nn.Module):
    """A linear layer, and beside it a function of integers that it is multiplied by."""

    def __init__(self, function):
        super().__init__()
        self.fc = nn.Linear(4, 5)
        self.function = function

    def forward(self, x, numbers):
        return self.fc(x), self.function(numbers)


def exported(function, numbers):
    """The simulation's second result, and onnxruntime's."""
    torch.manual_seed(0)
    example = (torch.randn(3, 4), numbers)
    sim = QuantizationSimModel(Calls(function).eval(), example)
    sim.compute_encodings(lambda model: model(*example))
    model = build_qdq_model(sim, example).model
    feeds = {"x": example[0].numpy(), "numbers": numbers.numpy()}
    return sim.model(*example)[1], torch.from_numpy(run(model, feeds)[1])


INTEGERS = torch.tensor([[3, 1, 4, 1], [5, 9, 2, 6], [5, 3, 5, 8]])


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.diff(),
        lambda x: x.diff(n=2, dim=0),
        lambda x: x.diff(dim=1, prepend=x[:, :1] - 1),
        lambda x: torch.diff(x, 1, -2, append=x[:2], prepend=x[1:]),
        lambda x: (x > 4).diff(dim=1),
        lambda x: (x.diff(prepend=x[:, :1]) != 1).cumsum(-1),
        lambda x: x.to(torch.int32).cumsum(0),
        lambda x: x.to(torch.uint8).cumsum(1),
        lambda x: x.float().cumsum(1),
        lambda x: (x > 4).cumsum(1, dtype=torch.float32),
    ],
)
def test_they_compute_what_torch_does(function):
    expected, got = exported(function, INTEGERS)
    assert got.dtype == expected.dtype
    assert torch.equal(got, expected)


def test_what_the_user_has_registered_stays():
    def zeros(g, x, *_):
        return g.op("Sub", x, x)

    with registered("aten::diff", zeros, 20), registered("aten::cumsum", zeros, 20):
        for function in (torch.diff, lambda x: x.cumsum(1)):
            _, got = exported(function, INTEGERS)
            assert torch.equal(got, torch.zeros_like(INTEGERS))


def test_nothing_stays_registered():
    exported(torch.diff, INTEGERS)
    with pytest.raises(torch.onnx.OnnxExporterError, match="aten::diff"):
        example = (torch.randn(3, 4), INTEGERS)
        torch.onnx.export(Calls(torch.diff), example, dynamo=False)


def test_an_unknown_op_is_named_with_its_place(capfd):
    with pytest.raises(
        RuntimeError,
        match=r"'aten::special_i0e' .* at /i0e_0 \(test_onnx_symbolics.py:\d+\); "
        r"torch.onnx.register_custom_op_symbolic",
    ):
        exported(lambda x: torch.special.i0e(x.float()), INTEGERS)
    assert "graph(" not in capfd.readouterr().out
