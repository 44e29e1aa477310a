# SPDX-License-Identifier: BSD-3-Clause
"""Wrong arguments to the ops: the error names the op and the argument."""

import pytest
import torch

from aimetpp import ops


class TestBadArguments:
    @pytest.mark.parametrize(
        "changes,error,message",
        [
            ({"x": torch.arange(3)}, TypeError, "x must be float32, .*got Long"),
            ({"min": torch.zeros(2)}, ValueError, "min must have 1 element .*got 2"),
            (
                {"channel_axis": 1, "max": torch.zeros(8)},
                ValueError,
                r"min must have 8 elements \(x.size\(1\)\), got 1",
            ),
            (
                {"channel_axis": 1, "min": torch.zeros(8), "max": torch.zeros(4)},
                ValueError,
                r"max must have 8 elements \(x.size\(1\)\), got 4",
            ),
            ({"min": torch.tensor(0).half()}, TypeError, "min must be float32 or"),
            ({"max": torch.tensor(1.0).double()}, TypeError, "one dtype"),
            ({"max": torch.tensor(1.0, device="meta")}, ValueError, "max .*device cpu"),
            ({"grid": torch.tensor([0.0, 255.0])}, TypeError, "grid must be int64"),
            ({"grid": torch.tensor([0, 8, 9])}, ValueError, "grid must hold 2"),
            ({"grid": torch.tensor([7, 7])}, ValueError, "qmin < qmax, got .7, 7."),
            ({"channel_axis": 2}, IndexError, r"channel_axis must be in \[-2, 1\]"),
            ({"channel_axis": -3}, IndexError, "channel_axis"),
        ],
    )
    @pytest.mark.parametrize("mode", ["fake_quantize", "quantize"])
    def test_names_op_and_argument(self, mode, changes, error, message):
        arguments = {
            "x": torch.zeros(2, 8),
            "min": torch.tensor(0.0),
            "max": torch.tensor(1.0),
            "grid": ops.integer_grid(8, False),
            "symmetric": False,
        }
        with pytest.raises(error, match=f"^{mode}: .*{message}"):
            getattr(ops, mode)(**{**arguments, **changes})

    def test_dequantize_names_q(self):
        low, high = torch.tensor(-1.0), torch.tensor(1.0)
        with pytest.raises(TypeError, match="dequantize: q must be"):
            ops.dequantize(
                torch.arange(3), low, high, ops.integer_grid(8, False), False
            )

    @pytest.mark.parametrize(
        "grad,error,message",
        [
            (torch.zeros(3), ValueError, r"grad must have x's shape \[4\], got \[3\]"),
            (torch.zeros(4).half(), TypeError, "grad must have x's dtype Float"),
        ],
    )
    def test_backward(self, grad, error, message):
        low, high = torch.tensor(-1.0), torch.tensor(1.0)
        with pytest.raises(error, match=f"fake_quantize_backward: {message}"):
            torch.ops.aimetpp.fake_quantize_backward(
                grad, torch.zeros(4), low, high, ops.integer_grid(8, False), False
            )

    @pytest.mark.parametrize("bitwidth", [1, 33])
    def test_integer_grid(self, bitwidth):
        with pytest.raises(ValueError, match=f"between 2 and 32, got {bitwidth}"):
            ops.integer_grid(bitwidth, True)

    def test_integer_grid_values(self):
        assert ops.integer_grid(4, True).tolist() == [-8, 7]
        assert ops.integer_grid(4, False).tolist() == [0, 15]
        assert ops.integer_grid(32, False).tolist() == [0, 2**32 - 1]
