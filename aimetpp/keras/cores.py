# SPDX-License-Identifier: BSD-3-Clause
"""What Keras layers compute, as leaf modules of PyTorch.

A core is PyTorch's own module with PyTorch's weight layout; the layout of Keras's
tensors (channels last) and its paddings are dealt with inside.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import torch
from torch.nn.utils import parametrize


class ConvWeight(torch.nn.Module):
    """[*kernel, in, out] -> [out, in, *kernel]."""

    def forward(self, kernel: torch.Tensor) -> torch.Tensor:
        """PyTorch's weight of Keras's kernel."""
        rank = kernel.dim()
        return kernel.permute(rank - 1, rank - 2, *range(rank - 2))

    def right_inverse(self, weight: torch.Tensor) -> torch.Tensor:
        """Keras's kernel of PyTorch's weight."""
        return weight.permute(*range(2, weight.dim()), 1, 0)


class DepthwiseWeight(torch.nn.Module):
    """[*kernel, in, multiplier] -> [in x multiplier, 1, *kernel]."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.inputs = inputs

    def forward(self, kernel: torch.Tensor) -> torch.Tensor:
        """PyTorch's weight of Keras's kernel."""
        flat = kernel.flatten(-2)
        return flat.permute(flat.dim() - 1, *range(flat.dim() - 1)).unsqueeze(1)

    def right_inverse(self, weight: torch.Tensor) -> torch.Tensor:
        """Keras's kernel of PyTorch's weight."""
        flat = weight.squeeze(1)
        flat = flat.permute(*range(1, flat.dim()), 0)
        return flat.unflatten(-1, (self.inputs, -1))


class DenseWeight(torch.nn.Module):
    """[in, out] -> [out, in]."""

    def forward(self, kernel: torch.Tensor) -> torch.Tensor:
        """PyTorch's weight of Keras's kernel."""
        return kernel.t()

    def right_inverse(self, weight: torch.Tensor) -> torch.Tensor:
        """Keras's kernel of PyTorch's weight."""
        return weight.t()


class _KerasLayout(torch.nn.Module):
    """Mixin: a module of channels-first tensors, for tensors with another axis."""

    channel_axis: int  # from the last, at -1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """In and out with the channels at `channel_axis`."""
        axis = self.channel_axis % x.dim()
        others = [dim for dim in range(1, x.dim()) if dim != axis]
        y: torch.Tensor = super().forward(x.permute(0, axis, *others))
        return y.permute(0, *range(2, axis + 1), 1, *range(axis + 1, x.dim()))


class _KerasPadding:
    """Mixin: Keras's "same" with strides, and "causal", which PyTorch does not have."""

    padding: Any
    reach: tuple[int, ...]  # of the kernel beyond its first element
    strides: tuple[int, ...]
    convolve: Callable[..., torch.Tensor]

    def _conv_forward(
        self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        padding: list[int] = []  # last dimension first: before, behind
        for dim in reversed(range(len(self.reach))):
            reach, stride, size = self.reach[dim], self.strides[dim], x.shape[dim + 2]
            if self.padding == "causal":
                padding += [reach, 0]
            elif self.padding == "same":
                total = max(
                    (-(-int(size) // stride) - 1) * stride + reach + 1 - int(size), 0
                )
                padding += [total // 2, total - total // 2]
        if any(padding):
            x = torch.nn.functional.pad(x, padding)
        groups, dilation = self.groups, self.dilation  # type: ignore[attr-defined]
        convolve = type(self).convolve
        return convolve(x, weight, bias, self.strides, 0, dilation, groups)


class Conv1d(_KerasLayout, _KerasPadding, torch.nn.Conv1d):
    """Of keras.layers.Conv1D and DepthwiseConv1D."""

    convolve = torch.nn.functional.conv1d


class Conv2d(_KerasLayout, _KerasPadding, torch.nn.Conv2d):
    """Of keras.layers.Conv2D and DepthwiseConv2D."""

    convolve = torch.nn.functional.conv2d


class Conv3d(_KerasLayout, _KerasPadding, torch.nn.Conv3d):
    """Of keras.layers.Conv3D."""

    convolve = torch.nn.functional.conv3d


class BatchNorm1d(_KerasLayout, torch.nn.BatchNorm1d):
    """Of keras.layers.BatchNormalization with inputs of 2 or 3 dimensions."""


class BatchNorm2d(_KerasLayout, torch.nn.BatchNorm2d):
    """Of keras.layers.BatchNormalization with inputs of 4 dimensions."""


class BatchNorm3d(_KerasLayout, torch.nn.BatchNorm3d):
    """Of keras.layers.BatchNormalization with inputs of 5 dimensions."""


class Noise(torch.nn.Module):
    """A layer that computes in training only: a leaf, whose ops no trace has seen.

    Args:
        call: the layer's own, with an argument `training`.
    """

    def __init__(self, call: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self._layer_call = call

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`x` itself in inference."""
        return self._layer_call(x, training=True) if self.training else x


_CONVOLUTIONS: dict[int, Any] = {1: Conv1d, 2: Conv2d, 3: Conv3d}
_NORMS: dict[int, Any] = {
    2: BatchNorm1d,
    3: BatchNorm1d,
    4: BatchNorm2d,
    5: BatchNorm3d,
}
_ACTIVATIONS: dict[str, Callable[[], torch.nn.Module]] = {
    "elu": torch.nn.ELU,
    "gelu": torch.nn.GELU,
    "relu": torch.nn.ReLU,
    "relu6": torch.nn.ReLU6,
    "selu": torch.nn.SELU,
    "sigmoid": torch.nn.Sigmoid,
    "silu": torch.nn.SiLU,
    "softmax": lambda: torch.nn.Softmax(dim=-1),
    "tanh": torch.nn.Tanh,
}


def _make_conv(layer: Any) -> torch.nn.Module:
    kernel = layer.kernel.value.detach()
    view = _weight_view(layer)
    weight = view(kernel)
    depthwise = isinstance(view, DepthwiseWeight)
    groups = kernel.shape[-2] if depthwise else layer.groups
    core = _CONVOLUTIONS[layer.rank](
        weight.shape[1] * groups,
        weight.shape[0],
        tuple(layer.kernel_size),
        stride=tuple(layer.strides),
        dilation=tuple(layer.dilation_rate),
        groups=groups,
        bias=layer.use_bias,
    )
    if layer.padding != "valid":
        core.padding = layer.padding
    core.strides = tuple(layer.strides)
    core.reach = tuple(
        (size - 1) * rate
        for size, rate in zip(layer.kernel_size, layer.dilation_rate, strict=True)
    )
    core.channel_axis = -1 if layer.data_format == "channels_last" else -1 - layer.rank
    return _with_values(core, weight, layer.bias if layer.use_bias else None)


def _make_dense(layer: Any) -> torch.nn.Module:
    weight = layer.kernel.value.detach().t()
    core = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=layer.use_bias)
    return _with_values(core, weight, layer.bias if layer.use_bias else None)


def _make_embedding(layer: Any) -> torch.nn.Module:
    weight = layer.embeddings.value.detach()
    return _with_values(torch.nn.Embedding(*weight.shape), weight, None)


def _make_batch_norm(layer: Any) -> torch.nn.Module:
    if getattr(layer, "renorm", False):
        raise ValueError(f"layer {layer.name!r}: renorm is not supported")
    channels = layer.moving_mean.shape[0]
    core: Any = _NORMS[layer.input_spec.ndim](
        channels, eps=layer.epsilon, momentum=1 - layer.momentum
    )
    core.channel_axis = layer.axis % layer.input_spec.ndim - layer.input_spec.ndim
    with torch.no_grad():
        core.running_mean.copy_(layer.moving_mean.value)
        core.running_var.copy_(layer.moving_variance.value)
        if layer.scale:
            core.weight.copy_(layer.gamma.value)
        if layer.center:
            core.bias.copy_(layer.beta.value)
    return core


def _make_layer_norm(layer: Any) -> torch.nn.Module | None:
    axes = layer.axis if isinstance(layer.axis, list | tuple) else [layer.axis]
    if list(axes) != [-1] or not (layer.scale and layer.center) or layer.rms_scaling:
        return None
    core = torch.nn.LayerNorm(layer.gamma.shape[0], eps=layer.epsilon)
    return _with_values(core, layer.gamma.value, layer.beta)


def _make_relu(layer: Any) -> torch.nn.Module | None:
    if layer.negative_slope or layer.threshold or layer.max_value not in (None, 6):
        return None
    return torch.nn.ReLU() if layer.max_value is None else torch.nn.ReLU6()


def _with_values(core: Any, weight: torch.Tensor, bias: Any) -> torch.nn.Module:
    with torch.no_grad():
        core.weight.copy_(weight)
        if bias is not None:
            core.bias.copy_(bias.value)
    return core


_MAKERS: dict[type, Callable[[Any], torch.nn.Module | None]] = {
    keras.layers.Conv1D: _make_conv,
    keras.layers.Conv2D: _make_conv,
    keras.layers.Conv3D: _make_conv,
    keras.layers.DepthwiseConv1D: _make_conv,
    keras.layers.DepthwiseConv2D: _make_conv,
    keras.layers.Dense: _make_dense,
    keras.layers.Embedding: _make_embedding,
    keras.layers.BatchNormalization: _make_batch_norm,
    keras.layers.LayerNormalization: _make_layer_norm,
    keras.layers.ReLU: _make_relu,
}
_DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
_CONVOLVING = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
# Parameters of one layout, by the core's name for them.
_SAME_LAYOUT: dict[type, dict[str, str]] = {
    keras.layers.BatchNormalization: {"weight": "gamma", "bias": "beta"},
    keras.layers.Embedding: {"weight": "embeddings"},
    keras.layers.LayerNormalization: {"weight": "gamma", "bias": "beta"},
    keras.layers.ReLU: {},
}


def _weight_view(layer: Any) -> Any:
    """How the core's weight follows from the kernel; None where there is no kernel."""
    if type(layer) in _DEPTHWISE:
        return DepthwiseWeight(layer.kernel.shape[-2])
    if type(layer) in _CONVOLVING:
        return ConvWeight()
    return DenseWeight() if type(layer) is keras.layers.Dense else None


def make_core(layer: Any) -> torch.nn.Module | None:
    """The module that computes what a layer does, before its activation; its
    parameters are copies. None for layers without one: those whose ops are seen one by
    one.

    Raises:
        ValueError: a layer with LoRA, quantized by Keras, or with renorm.
    """
    if getattr(layer, "lora_enabled", False) or getattr(
        layer, "quantization_mode", None
    ):
        raise ValueError(
            f"layer {layer.name!r}: layers that Keras has quantized, and LoRA, are not "
            "supported; merge LoRA, and simulate the float model"
        )
    maker = _MAKERS.get(type(layer))
    return None if maker is None else maker(layer)


def make_activation(layer: Any) -> torch.nn.Module | None:
    """The module of a layer's activation function; None for none, and for those that
    PyTorch has no module for.
    """
    function = getattr(layer, "activation", None)
    name = getattr(function, "__name__", "")
    if function is not getattr(keras.activations, name, None) or function is None:
        return None
    return _ACTIVATIONS[name]() if name in _ACTIVATIONS else None


def channel_axis(core: torch.nn.Module) -> int:
    """Of the input and output of a core that multiplies, or of a batch norm's: counted
    from the last axis, -1.
    """
    return core.channel_axis if isinstance(core, _KerasLayout) else -1


def share_parameters(core: Any, layer: Any) -> None:
    """Makes the layer's variables the core's parameters."""
    same = _SAME_LAYOUT.get(type(layer), {"bias": "bias"})
    for name, attribute in same.items():
        variable = getattr(layer, attribute, None)
        if variable is not None:
            core._parameters[name] = variable.value
        elif core._parameters.get(name) is not None:  # a batch norm's constant
            core._parameters[name].requires_grad_(False)
    if isinstance(layer, keras.layers.BatchNormalization):
        core.running_mean = layer.moving_mean.value.detach()
        core.running_var = layer.moving_variance.value.detach()
    view = _weight_view(layer)
    if view is not None:
        parametrize.register_parametrization(core, "weight", view, unsafe=True)
        core.parametrizations["weight"]._parameters["original"] = layer.kernel.value


def give_back(core: Any, layer: Any) -> None:
    """Sets the weights of a layer that multiplies to its core's own."""
    kernel = _weight_view(layer).right_inverse(core.weight.detach())
    bias = [] if core.bias is None else [core.bias.detach().numpy()]
    layer.set_weights([kernel.numpy(), *bias])
