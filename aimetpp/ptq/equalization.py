# SPDX-License-Identifier: BSD-3-Clause
"""Cross-layer equalization and high-bias folding: Nagel et al. 2019, "Data-free
quantization through weight equalization and bias correction", sections 4.1 and 4.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from aimetpp import _C
from aimetpp.ptq.batch_norms import find_batch_norm
from aimetpp.ptq.layers import Layer, find_layer
from aimetpp.ptq.probing import scales_as_layer
from aimetpp.ptq.reading import ReadModel, replace_module

# Chains share layers, so that one pass over them does not settle all ranges.
_MAX_PASSES = 50
_SETTLED = 1e-4
# A channel whose weights are less than this part of the layer's largest is dead:
# making it as wide as the others would blow up its bias.
_DEAD = 1e-6
# What lies further below the mean does not count as the channel's range.
_NUM_SIGMAS = 3

Moments = tuple[torch.Tensor, torch.Tensor]


@dataclass
class Chain:
    """Layers between which a factor per channel can move; see csrc/fold."""

    layers: list[Layer]
    between: list[list[int]]


class _Scaled:
    """A layer with the factors it is to get, which are applied once, at the end."""

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        self.inputs = torch.ones(layer.in_channels, dtype=torch.float64)
        self.outputs = torch.ones(layer.out_channels, dtype=torch.float64)

    def ranges(self, of_inputs: bool) -> torch.Tensor:
        return self.layer.ranges(of_inputs, self.inputs, self.outputs)

    def apply(self) -> None:
        self.layer.scale_inputs(self.inputs)
        self.layer.scale_outputs(self.outputs)


def find_chains(read: ReadModel, replace_relu6: bool) -> list[Chain]:
    """The chains of layers whose parameters are known and are theirs alone."""
    without_effect = [
        op
        for op, node in enumerate(read.graph.ops)
        if node.onnx_type == "BatchNormalization"
        and node.call >= 0
        and (batch_norm := find_batch_norm(read, op)) is not None
        and batch_norm.has_no_effect()
    ]
    layers = {
        op: layer
        for op, node in enumerate(read.graph.ops)
        if node.call >= 0
        and (layer := find_layer(read, op)) is not None
        and scales_as_layer(layer)
    }
    excluded = [op for op in range(len(read.graph.ops)) if op not in layers]
    found = _C.equalizable_chains(read.graph, replace_relu6, without_effect, excluded)
    return [
        Chain([layers[op] for op in chain.layers], chain.between) for chain in found
    ]


def replace_relu6_modules(read: ReadModel, chains: list[Chain]) -> None:
    """Puts a ReLU in the place of every ReLU6 inside a chain."""
    for chain in chains:
        for op in (op for ops in chain.between for op in ops):
            module = read.module_of(op)
            if isinstance(module, torch.nn.ReLU6):
                inplace = bool(getattr(module, "inplace", False))
                replace_module(read.model, module, torch.nn.ReLU(inplace))


def equalize(chains: list[Chain]) -> dict[int, torch.Tensor]:
    """Makes the weight ranges of a channel equal along each chain, in place.

    Returns:
        By op, the factors that the layer's outputs got. float64 [out_channels].
    """
    scaled = {layer.op: _Scaled(layer) for chain in chains for layer in chain.layers}
    for _ in range(_MAX_PASSES):
        moves = [
            _equalize_chain([scaled[layer.op] for layer in chain.layers])
            for chain in chains
        ]
        if all(move < _SETTLED for move in moves):
            break
    for entry in scaled.values():
        entry.apply()
    return {op: entry.outputs for op, entry in scaled.items()}


def _equalize_chain(layers: list[_Scaled]) -> float:
    """Sets the range of every channel, in each layer, to the geometric mean.

    Returns:
        The largest logarithm of a factor.
    """
    ranges = [layers[0].ranges(of_inputs=False)]
    ranges += [layer.ranges(of_inputs=True) for layer in layers[1:]]
    alive = torch.stack([r > _DEAD * r.max() for r in ranges]).all(0)
    logs = torch.stack([torch.where(alive, r, 1.0).log() for r in ranges])
    # A layer is divided by what the layers behind it are multiplied by.
    steps = (logs - logs.mean(0)).cumsum(0)[:-1].exp()
    for step, layer, following in zip(steps, layers, layers[1:], strict=False):
        layer.outputs /= step
        following.inputs *= step
    return float(steps.log().abs().max())


def fold_high_biases(
    read: ReadModel, chains: list[Chain], moments: Mapping[int, Moments]
) -> None:
    """Moves what a channel is almost always above, behind a ReLU, into the next bias.

    A channel with mean m and deviation s whose values are normally distributed is
    above m - 3 s in 99.9 % of the places; the ReLU passes that part on as it is.

    Args:
        read: the model.
        chains: equalized.
        moments: by op, mean and deviation of each channel of a layer's output.
    """
    for chain in chains:
        pairs = zip(chain.layers, chain.layers[1:], chain.between, strict=False)
        for layer, following, between in pairs:
            if layer.op not in moments or not following.can_have_bias:
                continue
            kinds = {_kind(read, op) for op in between} - {"dropout", "batch_norm"}
            if kinds != {"relu"}:
                continue
            mean, deviation = moments[layer.op]
            excess = (mean - _NUM_SIGMAS * deviation).clamp(min=0)
            layer.add_to_bias(-excess)
            following.add_to_bias(following.response(excess))


def _kind(read: ReadModel, op: int) -> str:
    """The kind of an op inside a chain, of a replaced ReLU6 too."""
    kind = read.graph.ops[op].kind
    return "relu" if kind == "hardtanh" else kind
