# SPDX-License-Identifier: BSD-3-Clause
"""Ranges of weights by what they do to the layer's output, layer by layer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Container, Iterator

import torch
from tqdm import tqdm

from aimetpp.nn.calibration import calibrate_params
from aimetpp.ptq.layerwise import (
    QuantizedLayer,
    first_of_each_weight,
    gather,
    quantized_layers,
    warn_of_functional_weights,
)
from aimetpp.ptq.samples import Samples
from aimetpp.quantsim import QuantizationSimModel

_SAMPLES_AT_ONCE = 64

OUTPUT_LOSSES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "mse": torch.square,
    "l1": torch.abs,
}
# Which inputs the float and the quantized layer get: those of the float model?
INPUT_SYMMETRIES = {
    "symqt": (False, False),
    "symfp": (True, True),
    "asym": (True, False),
}


def search_ranges(
    sim: QuantizationSimModel,
    samples: Samples,
    num_candidates: int,
    inp_symmetry: str,
    loss_fn: str,
    excluded: Container[str],
) -> list[str]:
    """Sets and freezes the range of each layer's weight, in the order of the forward.

    Only the weights of the layers before it are quantized meanwhile.

    Args:
        sim: its parameters are calibrated here.
        samples: the data.
        num_candidates: ranges tried: k/n of the calibrated one, k = 1 .. n.
        inp_symmetry: a key of INPUT_SYMMETRIES.
        loss_fn: a key of OUTPUT_LOSSES.
        excluded: names of modules that keep their ranges, and are not quantized
            meanwhile.

    Returns:
        The names of the layers.
    """
    warn_of_functional_weights(sim, "apply_seq_mse")
    calibrate_params(sim.model)
    layers = [
        layer
        for layer in first_of_each_weight(quantized_layers(sim))
        if layer.name not in excluded
    ]
    searched = {id(layer.quantizer) for layer in layers}
    float_of_float, float_of_quantized = INPUT_SYMMETRIES[inp_symmetry]
    swapped = sim._bank.swapped(
        lambda slot, quantizer: quantizer if id(quantizer) in searched else None
    )
    with _ranges_restored_on_error(layers), swapped:
        for layer in tqdm(layers, desc="SeqMSE", unit="layer", disable=None):
            seen: dict[bool, torch.Tensor] = {}
            for is_float in {float_of_float, float_of_quantized}:
                seen[is_float] = _inputs(sim, layer, samples, is_float)
            factors = _best_factors(
                layer,
                seen[float_of_float],
                seen[float_of_quantized],
                num_candidates,
                OUTPUT_LOSSES[loss_fn],
            )
            quantizer = layer.quantizer
            quantizer.set_range(
                quantizer.min.detach() * factors, quantizer.max.detach() * factors
            )
    for layer in layers:
        layer.quantizer.allow_overwrite(False)
        for end in (layer.quantizer.min, layer.quantizer.max):
            end.requires_grad_(False)
    return [layer.name for layer in layers]


@contextlib.contextmanager
def _ranges_restored_on_error(layers: list[QuantizedLayer]) -> Iterator[None]:
    quantizers = [layer.quantizer for layer in layers]
    saved = [(each, each.min.clone(), each.max.clone()) for each in quantizers]
    try:
        yield
    except BaseException:
        for quantizer, low, high in saved:
            quantizer.set_range(low, high)
        raise


def _inputs(
    sim: QuantizationSimModel, layer: QuantizedLayer, samples: Samples, is_float: bool
) -> torch.Tensor:
    """What the layer gets, in the float model or behind quantized weights."""
    with sim.quantizers_off() if is_float else contextlib.nullcontext():
        return gather(sim.model, layer, samples, "inputs")


@torch.no_grad()
def _best_factors(
    layer: QuantizedLayer,
    float_inputs: torch.Tensor,
    inputs: torch.Tensor,
    num_candidates: int,
    loss: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """The factor of each range, shaped to go with the quantizer's `min`, with which the
    loss of the channels that share the range is least; of equal ones the largest.
    """
    quantizer = layer.quantizer
    low, high = quantizer.min.clone(), quantizer.max.clone()
    weight = layer.layer.weight
    losses = []
    for k in range(1, num_candidates + 1):
        quantizer.set_range(low * k / num_candidates, high * k / num_candidates)
        quantized = layer.quantized_weight()
        total = torch.zeros(layer.layer.out_channels, dtype=torch.float64)
        for start in range(0, len(inputs), _SAMPLES_AT_ONCE):
            part = slice(start, start + _SAMPLES_AT_ONCE)
            expected = layer.output(float_inputs[part], weight)
            error = loss(layer.output(inputs[part], quantized) - expected)
            total += layer.channel_mean(error).cpu() * len(error)
        losses.append(_by_range(layer, total))
    quantizer.set_range(low, high)
    best = num_candidates - torch.stack(losses).flip(0).argmin(0)
    factors = (best / num_candidates).to(low)
    if factors.numel() == 1:
        return factors.reshape(())
    shape = [1] * low.dim()
    shape[_channel_axis(layer)] = -1
    return factors.reshape(shape)


def _channel_axis(layer: QuantizedLayer) -> int:
    """Of the weight's output channels, or of those of one group."""
    return 1 if layer.layer.transposed else 0


def _by_range(layer: QuantizedLayer, losses: torch.Tensor) -> torch.Tensor:
    """The sum of the losses of the channels that share a range."""
    shape, axis = layer.quantizer.min.shape, _channel_axis(layer)
    ranges = shape[axis] if len(shape) > axis else 1
    return losses.reshape(-1, ranges).sum(0)
