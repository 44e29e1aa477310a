# SPDX-License-Identifier: BSD-3-Clause
"""The layers of a simulation whose weights are quantized, one after the other."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from aimetpp.common.text import shortened
from aimetpp.nn.computed import weight_of
from aimetpp.ptq.layers import Layer, find_layer, is_layer, parameters_replaced
from aimetpp.ptq.reading import ReadModel
from aimetpp.ptq.samples import Samples
from aimetpp.quantization import QuantizeDequantize
from aimetpp.quantization.parameter_reference import ParameterReference
from aimetpp.quantsim import QuantizationSimModel


@dataclass
class QuantizedLayer:
    """A leaf module with a weight on an integer grid."""

    name: str
    layer: Layer
    calls: int  # of the module in one forward

    @property
    def module(self) -> Any:
        return self.layer.module

    @property
    def parameter_name(self) -> str:
        """The weight's name in the model."""
        parts = (self.name, self.layer.weight_name)
        return ".".join(part for part in parts if part)

    @property
    def quantizer(self) -> QuantizeDequantize:
        return self.module.param_quantizers[self.layer.weight_name]

    def quantized_weight(self) -> torch.Tensor:
        """The weight as the simulation computes with it."""
        with torch.no_grad():
            return self.quantizer(self.layer.weight)

    def output(self, inputs: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """What the layer, unquantized, makes of an input with this weight."""
        with self.computing_with(weight) as compute:
            return compute(inputs)

    @contextlib.contextmanager
    def computing_with(
        self, weight: torch.Tensor
    ) -> Iterator[Callable[[torch.Tensor], torch.Tensor]]:
        """Within the context the layer has this weight; gives what it computes,
        unquantized.
        """
        module = self.module.get_original_module()
        with parameters_replaced(module, {self.layer.weight_name: weight}):
            yield module

    def channel_mean(self, outputs: torch.Tensor) -> torch.Tensor:
        """Mean of each output channel, float64."""
        axis = outputs.dim() - self.layer.spatial_dims - 1
        return outputs.double().transpose(0, axis).flatten(1).mean(1)


def quantized_layers(sim: QuantizationSimModel) -> list[QuantizedLayer]:
    """Every such layer, in the order in which the forward runs them."""
    read = ReadModel(sim.model, sim.graph, {}, sim.dummy_input)
    found: dict[str, QuantizedLayer] = {}
    for op, node in enumerate(sim.graph.ops):
        if node.call < 0 or sim.graph.calls[node.call].functional:
            continue
        name = sim.graph.calls[node.call].module
        if name in found:
            found[name].calls += 1
            continue
        layer = find_layer(read, op)
        if layer is None:
            continue
        quantizer = layer.module.param_quantizers[layer.weight_name]
        if isinstance(quantizer, QuantizeDequantize):
            found[name] = QuantizedLayer(name, layer, 1)
    return list(found.values())


def warn_of_functional_weights(sim: QuantizationSimModel, who: str) -> None:
    """Names the quantized weights that no module of its own multiplies by (`F.linear`,
    packed attention projections): what works on modules leaves them as they are.
    """
    graph = sim.graph
    left = [
        graph.sites[param.site].param
        for node in graph.ops
        if node.call >= 0 and graph.calls[node.call].functional and is_layer(node.kind)
        for param in node.params
        if len(param.shape) > 1 and sim.placement.quantizer_of_site[param.site] >= 0
    ]
    if left:
        warnings.warn(
            f"{who}: works on the weights of modules; what functions read, stays "
            f"as it is: {shortened(left)}",
            RuntimeWarning,
            stacklevel=4,
        )


def first_of_each_weight(layers: list[QuantizedLayer]) -> list[QuantizedLayer]:
    """The layers, without those whose weight is an earlier one's."""
    firsts: dict[int, QuantizedLayer] = {}
    for layer in layers:
        firsts.setdefault(id(layer.layer.weight), layer)
    return list(firsts.values())


@contextlib.contextmanager
def activations_off(sim: QuantizationSimModel) -> Iterator[None]:
    """Within the context only parameters are quantized."""
    with sim._bank.swapped(
        lambda slot, quantizer: quantizer if slot.owner is not None else None
    ):
        yield


@contextlib.contextmanager
def raw_output(module: Any) -> Iterator[None]:
    """Within the context what the module returns is not quantized."""
    slots = module.output_quantizers._modules
    saved = dict(slots)
    slots.update(dict.fromkeys(saved))
    try:
        yield
    finally:
        slots.update(saved)


def gather(
    model: torch.nn.Module, target: QuantizedLayer, samples: Samples, what: str
) -> torch.Tensor:
    """What a layer gets or puts out, of all samples, one behind the other.

    Args:
        model: the simulation's, or the float model, in which the layer has that name.
        target: the layer.
        samples: the data.
        what: "inputs" or "outputs".

    Raises:
        ValueError: batches of which the layer makes tensors of different shapes.
    """
    seen: list[torch.Tensor] = []

    def see(inputs: torch.Tensor, output: torch.Tensor) -> None:
        seen.append((inputs if what == "inputs" else output).detach())

    samples.run_until(model, model.get_submodule(target.name), target.calls, see)
    shapes = {tuple(tensor.shape[1:]) for tensor in seen}
    if len(shapes) > 1:
        raise ValueError(
            f"{target.name}: all batches must give {what} of one shape, got "
            f"{sorted(shapes)}"
        )
    return torch.cat(seen)


class _ChannelMeans:
    """Mean of each output channel of a layer, over what `see` gets."""

    def __init__(self, target: QuantizedLayer) -> None:
        self._target = target
        self._total = torch.zeros(target.layer.out_channels, dtype=torch.float64)
        self._elements = 0

    def see(self, _: Any, output: torch.Tensor) -> None:
        size = output.numel()
        self._total += self._target.channel_mean(output).cpu() * size
        self._elements += size

    def result(self) -> torch.Tensor:
        return self._total / self._elements


def mean_output(target: QuantizedLayer, sim: Any, samples: Samples) -> torch.Tensor:
    """Mean of each output channel of a layer over all samples, before any output
    quantizer. float64 [out_channels].

    Args:
        target: the layer.
        sim: the simulation that it is of.
        samples: the data.
    """
    means = _ChannelMeans(target)
    with raw_output(target.module):
        samples.run_until(sim.model, target.module, target.calls, means.see)
    return means.result()


def float_mean_outputs(
    model: torch.nn.Module, targets: list[QuantizedLayer], samples: Samples
) -> dict[str, torch.Tensor]:
    """The same for several layers of the float model, in one pass: by name.

    Args:
        model: the float model, in which the layers have their names.
        targets: the layers.
        samples: the data.
    """
    means = {target.name: _ChannelMeans(target) for target in targets}
    handles = [
        model.get_submodule(name).register_forward_hook(
            lambda _, inputs, output, see=mean.see: see(inputs, output)
        )
        for name, mean in means.items()
    ]
    try:
        samples.run(model)
    finally:
        for handle in handles:
            handle.remove()
    return {name: mean.result() for name, mean in means.items()}


def refresh_bias_range(layer: Layer) -> None:
    """For a layer of a simulation that has got another bias."""
    quantizers = layer.module.param_quantizers
    quantizer = quantizers[layer.bias_name] if layer.bias_name in quantizers else None
    if isinstance(quantizer, QuantizeDequantize):
        bias = partial(weight_of, name=layer.bias_name)
        quantizer.calibrate_on(ParameterReference(layer.module, bias))
