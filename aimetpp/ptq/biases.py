# SPDX-License-Identifier: BSD-3-Clause
"""Bias correction: Nagel et al. 2019, "Data-free quantization through weight
equalization and bias correction", section 4.2 and appendix C.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from dataclasses import dataclass
from enum import Enum

import torch

from aimetpp.ptq.batch_norms import module_batch_norm
from aimetpp.ptq.layers import find_layer
from aimetpp.ptq.layerwise import (
    float_mean_outputs,
    mean_output,
    quantized_layers,
    refresh_bias_range,
    warn_of_functional_weights,
)
from aimetpp.ptq.probing import adds_bias
from aimetpp.ptq.reading import ReadModel, unchanged_on_error
from aimetpp.ptq.samples import Samples
from aimetpp.quantsim import QuantizationSimModel


class ActivationType(Enum):
    """What stands between a batch norm and the layer behind it."""

    no_activation = 0
    relu = 1
    relu6 = 2


_LIMITS = {
    ActivationType.no_activation: (-math.inf, math.inf),
    ActivationType.relu: (0.0, math.inf),
    ActivationType.relu6: (0.0, 6.0),
}


@dataclass
class ConvBnInfoType:
    """The batch norm, and the activation behind it, that a layer's input comes of."""

    input_bn: torch.nn.Module
    in_activation_type: ActivationType = ActivationType.no_activation

    def input_mean(self) -> torch.Tensor:
        """Mean of each input channel of the layer, float64."""
        batch_norm = module_batch_norm(self.input_bn)
        if batch_norm is None:
            raise ValueError(
                "correct_bias: input_bn must be a batch norm with kept statistics, got "
                f"{type(self.input_bn).__name__}"
            )
        return clipped_normal_mean(
            *batch_norm.moments(), *_LIMITS[self.in_activation_type]
        )


def clipped_normal_mean(
    mean: torch.Tensor, deviation: torch.Tensor, low: float, high: float
) -> torch.Tensor:
    """Mean of normally distributed values that are clipped to [low, high].

    Args:
        mean: float64, one per channel.
        deviation: likewise.
        low: finite or -inf.
        high: finite or inf.
    """
    deviation = deviation.clamp(min=1e-12)

    def below(end: float) -> tuple[torch.Tensor, torch.Tensor]:
        """The share of values below an end, and the density of a unit normal there."""
        if math.isinf(end):
            share = torch.full_like(mean, 1.0 if end > 0 else 0.0)
            return share, torch.zeros_like(mean)
        z = (end - mean) / deviation
        density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
        return torch.special.ndtr(z), density

    share_low, density_low = below(low)
    share_high, density_high = below(high)
    result = mean * (share_high - share_low) + deviation * (density_low - density_high)
    if not math.isinf(low):
        result = result + low * share_low
    if not math.isinf(high):
        result = result + high * (1 - share_high)
    return result


def correct_biases(
    model: torch.nn.Module,
    sim: QuantizationSimModel,
    samples: Samples,
    known_inputs: Mapping[str, torch.Tensor],
    ignored: Container[str],
) -> list[str]:
    """Takes the mean error of each output channel out of its bias, layer by layer, in
    the simulation, and then in the float model that it was made of.

    Args:
        model: the float model; as it was after an error.
        sim: calibrated.
        samples: the data, for layers whose input's mean is not known.
        known_inputs: by module name, the mean of each input channel.
        ignored: names of modules that stay.

    Returns:
        The names of the layers that were corrected.
    """
    warn_of_functional_weights(sim, "correct_bias")
    read = ReadModel(model, sim.graph, {}, sim.dummy_input)
    originals = {
        layer.name: original
        for layer in quantized_layers(sim)
        if layer.name not in ignored
        and (original := find_layer(read, layer.layer.op)) is not None
        and adds_bias(original)
    }
    layers = [layer for layer in quantized_layers(sim) if layer.name in originals]
    measured = [layer for layer in layers if layer.name not in known_inputs]
    targets = float_mean_outputs(model, measured, samples)
    errors = {}
    for layer in layers:
        if layer.name in known_inputs:
            weight = layer.quantized_weight().double()
            change = weight - layer.layer.weight.detach().double()
            error = layer.layer.response(known_inputs[layer.name], change)
        else:
            error = mean_output(layer, sim, samples) - targets[layer.name]
        layer.layer.add_to_bias(-error)
        refresh_bias_range(layer.layer)
        errors[layer.name] = error
    with unchanged_on_error(model):
        for name, error in errors.items():
            originals[name].add_to_bias(-error)
    return list(errors)
