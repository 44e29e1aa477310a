# SPDX-License-Identifier: BSD-3-Clause
"""Fake quantization as other libraries do it, those that are installed, and as
torch.compile makes it of the formula.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable
from typing import Any

import torch

Contestants = dict[str, Callable[[], object]]


def contestants(
    x: torch.Tensor, low: float, high: float, bits: int, channels: bool, backward: bool
) -> Contestants:
    """What runs each library's fake quantization of x.

    Args:
        x: the tensor; its first axis is that of the channels.
        low: start of the range, of every channel too.
        high: its end.
        bits: of an asymmetric grid.
        channels: one range per channel, else one for all.
        backward: with gradients, learned ranges where the library has them.

    One that is not installed, or computes something else, is named and left out.
    """
    found: Contestants = {}
    for name, make in (
        ("torch.compile", _compiled),
        ("aimet", _aimet),
        ("torchao", _torchao),
        ("brevitas", _brevitas),
    ):
        try:
            run = make(x, low, high, bits, channels, backward)
            if run is not None:
                _check(run(), x, low, high, bits)
        except (ImportError, AttributeError, TypeError, RuntimeError) as error:
            if (name, str(error)) not in _SAID:
                _SAID.add((name, str(error)))
                print(f"<!-- {name} is not measured: {error} -->")
            continue
        if run is not None:
            found[name] = run
    return found


_SAID: set[tuple[str, str]] = set()


def _check(y: Any, x: torch.Tensor, low: float, high: float, bits: int) -> None:
    """Raises a RuntimeError where y is further from x than a step of the grid."""
    step = (high - low) / ((1 << bits) - 1)
    off = (y.detach() - x.detach().clamp(low, high)).abs().max().item()
    if off > 1.01 * step:
        raise RuntimeError(f"off by {off:.3g}, with steps of {step:.3g}")


def _compiled(
    x: torch.Tensor, low: float, high: float, bits: int, channels: bool, backward: bool
) -> Callable[[], object]:
    steps = (1 << bits) - 1
    shape = (x.size(0),) + (1,) * (x.dim() - 1) if channels else ()
    ends = [torch.full(shape, end, requires_grad=backward) for end in (low, high)]

    def rounded(value: torch.Tensor) -> torch.Tensor:
        """Straight through, where there are gradients."""
        if not backward:
            return value.round()
        return value + (value.round() - value).detach()

    @torch.compile(fullgraph=True)
    def fake_quantize(
        x: torch.Tensor, low: torch.Tensor, high: torch.Tensor
    ) -> torch.Tensor:
        scale = (high - low) / steps
        offset = rounded(low / scale)
        return ((rounded(x / scale) - offset).clamp(0, steps) + offset) * scale

    return lambda: fake_quantize(x, *ends)


def _aimet(
    x: torch.Tensor, low: float, high: float, bits: int, channels: bool, backward: bool
) -> Callable[[], object]:
    # torchvision, which aimet-torch imports, registers a fake kernel for an op that
    # only a build for this very PyTorch has.
    for name in ("nms", "qnms"):
        with contextlib.suppress(RuntimeError):
            torch.library.define(f"torchvision::{name}", "(Tensor a) -> Tensor")
    affine: Any = importlib.import_module("aimet_torch.quantization.affine")
    shape = (x.size(0),) + (1,) * (x.dim() - 1) if channels else ()
    quantizer = affine.QuantizeDequantize(shape, bits, False)
    quantizer.set_range(low, high)
    if not backward:
        quantizer.requires_grad_(False)
    return lambda: quantizer(x)


def _torchao(
    x: torch.Tensor, low: float, high: float, bits: int, channels: bool, backward: bool
) -> Callable[[], object]:
    primitives: Any = importlib.import_module("torchao.quantization.quant_primitives")
    fake_quantize = getattr(primitives, "_fake_quantize_affine", None) or (
        primitives.fake_quantize_affine
    )
    count = x.size(0) if channels else 1
    steps = (1 << bits) - 1
    scale = torch.full((count,), (high - low) / steps, requires_grad=backward)
    zero = torch.full((count,), float(round(-low / ((high - low) / steps))))
    block = (1, *x.shape[1:]) if channels else tuple(x.shape)
    return lambda: fake_quantize(x, block, scale, zero, torch.int32, 0, steps)


def _brevitas(
    x: torch.Tensor, low: float, high: float, bits: int, channels: bool, backward: bool
) -> Callable[[], object] | None:
    if channels:  # its weight quantizers compute their ranges from the weight
        return None
    quant: Any = importlib.import_module("brevitas.core.quant")
    bit_width: Any = importlib.import_module("brevitas.core.bit_width")
    wrapper: Any = importlib.import_module("brevitas.core.function_wrapper")
    steps = (1 << bits) - 1
    quantizer = quant.IntQuant(
        narrow_range=False,
        signed=False,
        float_to_int_impl=wrapper.RoundSte(),
        tensor_clamp_impl=wrapper.TensorClamp(),
        input_view_impl=wrapper.Identity(),
    )
    width = bit_width.BitWidthConst(bits)
    scale = torch.tensor((high - low) / steps, requires_grad=backward)
    zero = torch.tensor(float(round(-low / ((high - low) / steps))))
    return lambda: quantizer(scale, zero, width(), x)
