# SPDX-License-Identifier: BSD-3-Clause
"""A layer's bias in a simulation that rounds biases as integer hardware does."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from aimetpp import _C
from aimetpp.nn.runtime import STATE, is_eager
from aimetpp.quantization import QuantizeDequantize, QuantizerBase
from aimetpp.quantization.integer_bias import bias_step, round_bias


def _on_grid(quantizer: QuantizerBase | None) -> QuantizeDequantize | None:
    """The quantizer, where it puts values on integer grids now, at most per channel."""
    if not isinstance(quantizer, QuantizeDequantize) or quantizer.blocks is not None:
        return None
    running = quantizer.is_initialized() and not quantizer._observing
    return quantizer if running else None


@dataclass(frozen=True)
class BiasSource:
    """Whose scales make the step of a bias in one call of a layer.

    `factor`: the input lies on the grid of `input` times this number.
    """

    input: Callable[[], QuantizerBase | None]
    weight: Callable[[], QuantizerBase | None]
    factor: float = 1.0


def _round(
    bias: torch.Tensor,
    first: QuantizeDequantize,
    second: QuantizeDequantize,
    factor: float,
) -> torch.Tensor:
    """`bias`, [channels], in steps of the two quantizers' scales times `factor`."""
    with torch.no_grad():
        input_scale, weight_scale = first.get_scale(), second.get_scale()
        assert input_scale is not None and weight_scale is not None
        step = bias_step(input_scale.double() * factor, weight_scale, bias.numel())
    return bias if step is None else round_bias(bias, step)


class IntegerBias(torch.nn.Module):
    """Stands in for the quantizer of a bias, rounding it to 32-bit integers in steps of
    input scale x weight scale. It has no state of its own: the scales are those of the
    quantizers of input and weight; where one of them is off, calibrating or no integer
    grid, the bias stays as it is.

    Args:
        module: the name of the module whose calls read the bias.
        calls: of each call in the traced forward; None where the bias stays as it is.
    """

    def __init__(self, module: str, calls: Sequence[BiasSource | None]) -> None:
        super().__init__()
        self._module = module
        self._calls = list(calls)
        self._keys = [str(call) for call in range(len(self._calls))]
        self._constants: list[torch.Tensor] | None = None
        self.kept = _C.WeightCache()

    def _call(self) -> int | None:
        """Which call of the layer runs; None where that cannot be known."""
        if len(self._calls) == 1:
            return 0
        if STATE.context is None:
            return None
        call = STATE.context.counts.get((self._module, ""), 0) - 1
        return call if call < len(self._calls) else None

    def forward(self, bias: torch.Tensor) -> torch.Tensor:
        """Returns `bias`, [channels], on the grid of the call that runs."""
        call = self._call()
        if call is None:
            return bias
        if self._constants is not None:
            return self._constants[call]
        return self._rounded(bias, call)

    def _rounded(self, bias: torch.Tensor, call: int) -> torch.Tensor:
        source = self._calls[call]
        if source is None:
            return bias
        both = source.input(), source.weight()
        key = self._keys[call]
        if is_eager():
            kept: torch.Tensor | None = self.kept.find_made(key, bias, *both)
            if kept is not None:
                return kept
        first, second = (_on_grid(quantizer) for quantizer in both)
        if first is None or second is None or first.min.numel() > 1:
            return bias  # sums of products of several input scales have no step
        make = functools.partial(_round, bias, first, second, source.factor)
        if not is_eager():
            return make()
        ranges = [t for q in (first, second) for t in (*q.ends(), q.grid)]
        return self.kept.get_made(key, [bias, *ranges], make)

    @contextlib.contextmanager
    def constant(self, bias: torch.Tensor) -> Iterator[None]:
        """Within the context the bias is what it is now, in every call."""
        with torch.no_grad():
            self._constants = [self._rounded(bias, k) for k in range(len(self._calls))]
        try:
            yield
        finally:
            self._constants = None

    def extra_repr(self) -> str:
        return "int32, in steps of input scale x weight scale"


def what_quantizes(leaf: torch.nn.Module, name: str) -> torch.nn.Module | None:
    """What a parameter of a quantized leaf goes through when its forward reads it."""
    modules = leaf._modules
    quantizer = modules["param_quantizers"]._modules.get(name)  # type: ignore[union-attr]
    if quantizer is None and (rounding := modules.get("bias_rounding")) is not None:
        quantizer = rounding._modules.get(name)
    return quantizer
