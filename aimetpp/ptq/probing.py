# SPDX-License-Identifier: BSD-3-Clause
"""What modules of classes that are not PyTorch's compute, found by running them.

A subclass may pad, scale or activate within its forward. PyTorch's own classes are
taken at their word.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from aimetpp.common.inference import inference
from aimetpp.nn.wrap import BaseQuantizationMixin
from aimetpp.ptq.layers import Layer, parameters_replaced

# Random values differ by more, rounding by less, also that of TF32.
_TOLERANCE = 1e-2
_TOLERANCE_OF_HALF = 0.1


def is_well_known(module: Any) -> bool:
    """True where the forward is that of PyTorch, or of this library."""
    cls = type(module)
    if isinstance(module, BaseQuantizationMixin):
        cls = cls.__mro__[1]
    names = ("forward", "_conv_forward")
    functions = [getattr(cls, name) for name in names if hasattr(cls, name)]
    return not any(name in module.__dict__ for name in names) and all(
        function.__module__.startswith(("torch.nn.", "aimetpp."))
        for function in functions
    )


def is_affine(
    module: Any, factor: torch.Tensor, shift: torch.Tensor, shape: Sequence[int]
) -> bool:
    """Whether a module makes `x * factor + shift` of an input of this shape.

    Args:
        module: of one input, with the channels on axis 1.
        factor: [channels]
        shift: [channels]
        shape: of the input.
    """
    if is_well_known(module):
        return True
    if len(shape) < 2 or shape[1] != len(factor):
        return False
    x = _random(shape, module.running_mean)
    plain = _unquantized(module)
    with inference(plain):
        got = plain.forward(x)
    expected = x.double() * _on_axis(factor, x, 1) + _on_axis(shift, x, 1)
    return _agree(got, expected)


def scales_as_layer(layer: Layer) -> bool:
    """Whether factors per channel pass the layer: those of its inputs can be divided
    out of its weight, those of its outputs multiplied into weight and bias.
    """
    if layer.functional or is_well_known(layer.module):
        return True
    if not _reads_channels(layer):
        return False
    x = _random(layer.input_shape, layer.weight)
    channels = layer.in_channels, layer.out_channels
    inputs, outputs = (1 + torch.rand(n, generator=_generator()) for n in channels)
    weight = layer.scaled(layer.scaled(layer.weight, 1 / inputs, True), outputs, False)
    bias = None
    if layer.bias is not None:
        bias = layer.bias.detach() * outputs.to(layer.bias)
    plain = _run(layer, x, layer.weight, layer.bias)
    scaled = _run(layer, x * _on_axis(inputs, x, _input_axis(layer)), weight, bias)
    axis = _output_axis(layer, plain)
    return axis is not None and _agree(scaled, plain * _on_axis(outputs, plain, axis))


def adds_bias(layer: Layer) -> bool:
    """Whether what is added to the layer's bias is added to its results."""
    if not layer.can_have_bias:
        return False
    if layer.functional or is_well_known(layer.module):
        return True
    x = _random(layer.input_shape, layer.weight)
    shift = _random((layer.out_channels,), layer.weight)
    bias = torch.zeros_like(shift) if layer.bias is None else layer.bias
    plain = _run(layer, x, layer.weight, layer.bias)
    moved = _run(layer, x, layer.weight, bias + shift)
    axis = _output_axis(layer, plain)
    return axis is not None and _agree(moved, plain + _on_axis(shift, plain, axis))


def pads(layer: Layer) -> bool:
    """Whether anything but values of the input is among what the layer multiplies."""
    module = layer.module
    if layer.functional:
        return layer.weight.dim() > 2  # the padding is not known
    if not is_well_known(module):
        if not _reads_channels(layer):
            return True
        values = torch.rand(layer.in_channels, generator=_generator()) + 1
        x = torch.ones(layer.input_shape).to(layer.weight)
        x = x * _on_axis(values, x, _input_axis(layer))
        got = _run(layer, x, layer.weight, layer.bias)
        expected = layer.response(values)
        if layer.bias is not None:
            expected = expected + layer.bias.detach().double()
        axis = _output_axis(layer, got)
        return axis is None or not _agree(
            got, _on_axis(expected, got, axis).expand_as(got)
        )
    if not isinstance(module, torch.nn.modules.conv._ConvNd):
        return False
    if module.padding_mode != "zeros" or module.padding == "valid":
        return False
    if module.padding == "same":
        return any(size > 1 for size in module.kernel_size)
    return any(module.padding)


def _unquantized(module: Any) -> Any:
    quantized = isinstance(module, BaseQuantizationMixin)
    return module.get_original_module() if quantized else module


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _random(shape: Sequence[int], like: torch.Tensor) -> torch.Tensor:
    x = torch.randn(tuple(shape), generator=_generator())
    return x.to(like.device, like.dtype)


def _input_axis(layer: Layer) -> int:
    return len(layer.input_shape) - layer.spatial_dims - 1


def _reads_channels(layer: Layer) -> bool:
    """Whether the input has as many channels, where they should be."""
    axis = _input_axis(layer)
    return axis >= 0 and layer.input_shape[axis] == layer.in_channels


def _output_axis(layer: Layer, output: torch.Tensor) -> int | None:
    """The axis of the output's channels; None where it has another number of them."""
    axis = output.dim() - layer.spatial_dims - 1
    return axis if output.shape[axis] == layer.out_channels else None


def _on_axis(channels: torch.Tensor, like: torch.Tensor, axis: int) -> torch.Tensor:
    shape = [1] * like.dim()
    shape[axis] = -1
    return channels.reshape(shape).to(like)


def _agree(got: torch.Tensor, expected: torch.Tensor) -> bool:
    if got.shape != expected.shape:
        return False
    half = got.dtype in (torch.float16, torch.bfloat16)
    tolerance = _TOLERANCE_OF_HALF if half else _TOLERANCE
    difference = (got.double() - expected.double()).abs().max()
    return bool(difference <= tolerance * expected.double().abs().max())


def _run(
    layer: Layer,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
) -> torch.Tensor:
    module = _unquantized(layer.module)
    values = {layer.weight_name: weight.detach()}
    if bias is not None:
        values[layer.bias_name] = bias.detach()
    with inference(module), parameters_replaced(module, values):
        result: torch.Tensor = module.forward(x)
    return result
