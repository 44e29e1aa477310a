# SPDX-License-Identifier: BSD-3-Clause
"""Every op on every dtype: 16-bit tensors are computed in float32 and rounded once;
what is not supported is an error that names the dtype.
"""

import pytest
import torch

from aimetpp import ops

BACKEND = torch.ops.aimetpp
HALVES = [torch.float16, torch.bfloat16]
UNSUPPORTED = [torch.int32, torch.bool, torch.complex64, torch.float8_e4m3fn]
LOW, HIGH = torch.tensor(-1.5), torch.tensor(1.25)
GRID = ops.integer_grid(4, False)
CHANNELS = -torch.linspace(0.5, 1.5, 6), torch.linspace(1, 2, 6)


def values(dtype):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 300, generator=generator)
    x[0, :5] = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, 6e4])
    return x.to(dtype)


def per_tensor():
    return LOW, HIGH, GRID, False


def per_channel():
    return *CHANNELS, GRID, False, 0


FORWARD = {
    "fake_quantize": lambda x: ops.fake_quantize(x, *per_tensor()),
    "fake_quantize, per channel": lambda x: ops.fake_quantize(x, *per_channel()),
    "fake_quantize_": lambda x: ops.fake_quantize_(x.clone(), *per_tensor()),
    "fake_quantize_observed": lambda x: ops.fake_quantize_observed(x, *per_tensor())[0],
    "fake_quantize_many": lambda x: torch.stack(
        ops.fake_quantize_many(x, [LOW] * 2, [HIGH] * 2, [GRID] * 2, [False] * 2)
    ),
    "quantize": lambda x: ops.quantize(x, *per_tensor()),
    "dequantize": lambda x: ops.dequantize(x, *per_channel()),
    "float_quantize": lambda x: ops.float_quantize(x, 4, 3, True),
    "float_quantize, scaled": lambda x: ops.float_quantize(
        x, 5, 2, True, torch.linspace(0.1, 1, 6), 0
    ),
}
BACKWARD = {
    "fake_quantize_backward": per_channel,
    "quantize_backward": per_tensor,
    "dequantize_backward": per_tensor,
    "fake_quantize_input_gradient": per_channel,
    "float_quantize_backward": lambda: (4, 3, True),
}
IN_PLACE = ["fake_quantize_backward_", "fake_quantize_input_gradient_"]


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", FORWARD)
def test_forward_rounds_once(name, dtype):
    x = values(dtype)
    y = FORWARD[name](x)
    assert y.dtype == dtype
    expected = FORWARD[name](x.float()).to(dtype)
    torch.testing.assert_close(y, expected, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", BACKWARD)
def test_backward_rounds_once(name, dtype):
    x, rest = values(dtype), BACKWARD[name]()
    x[0, 2:4] = 9  # an infinity has no finite ratio to the scale
    grad = values(dtype).flip(1).nan_to_num(1, 1, 1)
    run = getattr(BACKEND, name)
    got, expected = run(grad, x, *rest), run(grad.float(), x.float(), *rest)
    if isinstance(got, torch.Tensor):
        got, expected = (got,), (expected,)
    assert got[0].dtype == dtype
    torch.testing.assert_close(got[0], expected[0].to(dtype), rtol=0, atol=0)
    for one, other in zip(got[1:], expected[1:], strict=True):
        assert one.dtype == torch.float32
        assert torch.equal(one, other)  # sums do not round to 16 bits in between


@pytest.mark.parametrize("dtype", HALVES)
def test_backward_in_place(dtype):
    x, grad = values(dtype), values(dtype).flip(1).nan_to_num(1, 1, 1)
    x[0, 2:4] = 9
    expected = BACKEND.fake_quantize_backward(grad, x, *per_channel())
    for name in IN_PLACE:
        overwritten = grad.clone()
        ends = getattr(BACKEND, name)(overwritten, x, *per_channel())
        assert torch.equal(overwritten, expected[0])
        for one, other in zip(ends or (), expected[1:], strict=False):
            assert torch.equal(one, other)


@pytest.mark.parametrize("dtype", HALVES)
def test_extremes_are_float32(dtype):
    x = values(dtype)
    _, least, largest = ops.fake_quantize_observed(x, *per_tensor())
    finite = x[x.isfinite()].float()
    assert (least, largest) == (finite.min(), finite.max())
    assert least.dtype == torch.float32


@pytest.mark.parametrize("dtype", UNSUPPORTED)
@pytest.mark.parametrize("name", [*FORWARD, *BACKWARD, *IN_PLACE])
def test_other_dtypes_are_errors_that_name_them(name, dtype):
    x = torch.ones(6, 4).to(dtype)
    spelled = {torch.int32: "Int", torch.bool: "Bool", torch.complex64: "ComplexFloat"}
    message = (
        f"float32, float64, float16 or bfloat16, got {spelled.get(dtype, 'Float8')}"
    )
    with pytest.raises(TypeError, match=message):
        if name in FORWARD:
            FORWARD[name](x)
        else:
            rest = BACKWARD.get(name, per_channel)()
            getattr(BACKEND, name)(x, x, *rest)


@pytest.mark.parametrize("name", BACKWARD)
def test_gradient_of_another_dtype(name):
    x = torch.ones(6, 4)
    message = "grad must have x's dtype Float, got Half"
    if name == "dequantize_backward":
        message = message.replace("x's", "q's")
    with pytest.raises(TypeError, match=message):
        getattr(BACKEND, name)(x.half(), x, *BACKWARD[name]())
