# SPDX-License-Identifier: BSD-3-Clause
"""Convolutions and linear layers of any kind, seen alike: channels in, channels out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from aimetpp.ptq.reading import ReadModel

_TRANSPOSED = "conv_transpose"
_KINDS = ("conv1d", "conv2d", "conv3d", "linear")


@dataclass
class Layer:
    """A layer with a weight, a module's or a functional one's.

    Factors and shifts are float64, one per channel; sums and products are rounded
    to the parameters' type once.
    """

    op: int
    module: Any  # for a functional op the one that calls it
    functional: bool
    weight_name: str  # in `module`; of a functional op, in the model
    weight: torch.nn.Parameter
    bias_name: str
    bias: torch.nn.Parameter | None
    groups: int
    transposed: bool
    input_shape: tuple[int, ...]  # as traced

    @property
    def out_channels(self) -> int:
        size = self.weight.shape[1 if self.transposed else 0]
        return size * self.groups if self.transposed else size

    @property
    def in_channels(self) -> int:
        size = self.weight.shape[0 if self.transposed else 1]
        return size if self.transposed else size * self.groups

    @property
    def spatial_dims(self) -> int:
        """Dimensions behind the channels: 0 for a linear layer."""
        return self.weight.dim() - 2

    @property
    def can_have_bias(self) -> bool:
        """False where the code that calls the op passes none."""
        own = isinstance(self.module, torch.nn.modules.conv._ConvNd | torch.nn.Linear)
        return self.bias is not None or (own and not self.functional)

    def _grouped(self, weight: torch.Tensor) -> torch.Tensor:
        """[groups, rows, columns, kernel]: rows are output channels, or input channels
        where the layer is transposed.
        """
        rows, columns = weight.shape[:2]
        return weight.reshape(self.groups, rows // self.groups, columns, -1)

    def _along(self, channels: torch.Tensor, inputs: bool) -> torch.Tensor:
        """One value per channel, shaped to go with `_grouped`."""
        if inputs == self.transposed:
            return channels.reshape(self.groups, -1, 1, 1)
        return channels.reshape(self.groups, 1, -1, 1)

    def scaled(
        self, weight: torch.Tensor, factors: torch.Tensor, inputs: bool
    ) -> torch.Tensor:
        """A weight of the layer's shape times a factor per input or output channel."""
        grouped = self._grouped(weight.detach().double())
        product = grouped * self._along(factors.to(grouped), inputs)
        return product.reshape(weight.shape).to(weight.dtype)

    def _scale(self, factors: torch.Tensor, inputs: bool) -> None:
        with torch.no_grad():
            self.weight.copy_(self.scaled(self.weight, factors, inputs))

    def scale_inputs(self, factors: torch.Tensor) -> None:
        """Multiplies the weights that read each input channel: [in_channels]."""
        self._scale(factors, inputs=True)

    def scale_outputs(self, factors: torch.Tensor) -> None:
        """Multiplies weights and bias of each output channel: [out_channels]."""
        self._scale(factors, inputs=False)
        if self.bias is not None:
            with torch.no_grad():
                self.bias.copy_(self.bias.double() * factors.to(self.bias.device))

    def add_to_bias(self, shift: torch.Tensor) -> None:
        """Adds to the bias, making one where there is none: [out_channels]."""
        if self.bias is None:
            made = torch.zeros(
                self.out_channels, dtype=self.weight.dtype, device=self.weight.device
            )
            self.bias = torch.nn.Parameter(made, self.weight.requires_grad)
            self.module.bias = self.bias
        with torch.no_grad():
            self.bias.copy_(self.bias.double() + shift.to(self.bias.device))

    def response(
        self, values: torch.Tensor, weight: torch.Tensor | None = None
    ) -> torch.Tensor:
        """What the layer, without bias, makes of an input with the same value
        everywhere in a channel, away from any padding.

        Args:
            values: [in_channels]
            weight: in place of the layer's own, of its shape.

        Returns:
            float64 [out_channels].
        """
        source = self.weight.detach() if weight is None else weight
        grouped = self._grouped(source.double())
        products = grouped * self._along(values.to(grouped), inputs=True)
        axes = (1, 3) if self.transposed else (2, 3)
        return products.sum(axes).flatten()

    def ranges(
        self,
        inputs: bool,
        input_factors: torch.Tensor,
        output_factors: torch.Tensor,
    ) -> torch.Tensor:
        """The largest magnitude among the weights of each channel, float64.

        Args:
            inputs: of the input channels; otherwise of the output channels.
            input_factors: positive; the range is that after `scale_inputs` with them.
            output_factors: and after `scale_outputs` with these.
        """
        grouped = self._grouped(self.weight.detach().cpu().double().abs())
        grouped = grouped * self._along(input_factors, inputs=True)
        grouped = grouped * self._along(output_factors, inputs=False)
        axes = (2, 3) if inputs == self.transposed else (1, 3)
        return grouped.amax(axes).flatten()


@contextlib.contextmanager
def parameters_replaced(
    module: torch.nn.Module, values: Mapping[str, torch.Tensor]
) -> Iterator[None]:
    """Within the context a module has these tensors as parameters, by name; also where
    it has None.
    """
    saved: list[tuple[dict[str, Any], str, Any]] = []
    for path, value in values.items():
        holder, _, name = path.rpartition(".")
        parameters: dict[str, Any] = module.get_submodule(holder)._parameters
        saved.append((parameters, name, parameters.get(name)))
        parameters[name] = value
    try:
        yield
    finally:
        for parameters, name, parameter in saved:
            parameters[name] = parameter


def is_layer(kind: str) -> bool:
    """True for the ops that multiply by a weight and may add a bias."""
    return kind.startswith(_TRANSPOSED) or kind in _KINDS


def find_layer(read: ReadModel, op: int) -> Layer | None:
    """The layer that an op is; None where it is none whose parameters are known."""
    graph = read.graph
    node = graph.ops[op]
    if not is_layer(node.kind):
        return None
    transposed = node.kind.startswith(_TRANSPOSED)
    module = read.module_of(op)
    functional = graph.calls[node.call].functional
    weights: list[tuple[str, torch.nn.Parameter]] = []
    biases: list[tuple[str, torch.nn.Parameter]] = []
    for param in node.params:
        path = graph.sites[param.site].param
        owner = read.model if functional else module
        holder, _, name = path.rpartition(".")
        parameter = owner.get_submodule(holder)._parameters.get(name)
        if parameter is None:  # computed (weight norm), or some rows of a parameter
            return None
        if id(parameter) in read.overlapping:
            return None
        (weights if parameter.dim() > 1 else biases).append((path, parameter))
    if len(weights) != 1 or len(biases) > 1:
        return None
    name, weight = weights[0]
    # The channels are on axis 1 of a batch and on axis 0 of a single sample.
    tensor = graph.tensors[(node.outputs if transposed else node.inputs)[0]]
    axis = len(tensor.shape) - weight.dim() + 1
    groups = 1 if node.kind == "linear" else tensor.shape[axis] // weight.shape[1]
    if isinstance(module, torch.nn.modules.conv._ConvNd):
        groups = module.groups  # whose input may have its channels elsewhere (Keras)
    bias_name, bias = biases[0] if biases else ("bias", None)
    return Layer(
        op,
        module,
        functional,
        name,
        weight,
        bias_name,
        bias,
        groups,
        transposed,
        tuple(graph.tensors[node.inputs[0]].shape),
    )
