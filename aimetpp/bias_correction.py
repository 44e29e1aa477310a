# SPDX-License-Identifier: BSD-3-Clause
"""Bias correction: the mean error of quantized layers, taken out of their biases."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from aimetpp import _C
from aimetpp.ptq.batch_norms import find_batch_norm
from aimetpp.ptq.biases import ActivationType, ConvBnInfoType, correct_biases
from aimetpp.ptq.layers import find_layer
from aimetpp.ptq.reading import names_of, read_model
from aimetpp.ptq.samples import Samples, require_count
from aimetpp.quantsim import QuantizationSimModel, QuantParams

__all__ = [
    "ActivationType",
    "ConvBnInfoType",
    "QuantParams",
    "correct_bias",
    "find_all_conv_bn_with_activation",
]

_ACTIVATION_TYPES = {
    "none": ActivationType.no_activation,
    "relu": ActivationType.relu,
    "relu6": ActivationType.relu6,
}


def find_all_conv_bn_with_activation(
    model: torch.nn.Module,
    input_shapes: Sequence[Any] | None = None,
    dummy_input: Any = None,
) -> dict[torch.nn.Module, ConvBnInfoType]:
    """The layers whose input comes from a batch norm, directly or through a ReLU.

    To be asked before the batch norms are folded.

    Args:
        model: left as it is.
        input_shapes: shape of the input, or a list of shapes, one per input.
        dummy_input: an example input instead, as for `fold_all_batch_norms`.

    Raises:
        TypeError, ValueError, RuntimeError: as `fold_all_batch_norms`.
    """
    read = read_model(
        "find_all_conv_bn_with_activation", model, input_shapes, dummy_input
    )
    found: dict[torch.nn.Module, ConvBnInfoType] = {}
    for known in _C.normalized_inputs(read.graph):
        layer = find_layer(read, known.layer)
        batch_norm = find_batch_norm(read, known.batch_norm)
        if layer is None or layer.functional or batch_norm is None:
            continue
        if not batch_norm.functional:
            activation = _ACTIVATION_TYPES[known.activation.name]
            found[layer.module] = ConvBnInfoType(batch_norm.module, activation)
    return found


def correct_bias(
    model: torch.nn.Module,
    quant_params: QuantParams,
    num_quant_samples: int,
    data_loader: Iterable[Any],
    num_bias_correct_samples: int,
    conv_bn_dict: Mapping[torch.nn.Module, ConvBnInfoType] | None = None,
    perform_only_empirical_bias_corr: bool = True,
    layers_to_ignore: Iterable[torch.nn.Module] | None = None,
) -> list[str]:
    """Changes the biases of convolutions and linear layers so that the mean of what
    each puts out is, when quantized, that of the float model (Nagel et al. 2019).

    Layers are corrected in the order of the forward, each with those before it
    corrected. Fold batch norms, and equalize, first.

    Args:
        model: changed in place; a layer without bias gets one.
        quant_params: how it will be quantized.
        num_quant_samples: samples to calibrate with.
        data_loader: yields inputs, alone or with labels behind them.
        num_bias_correct_samples: samples to take means of.
        conv_bn_dict: what `find_all_conv_bn_with_activation` returned before folding.
        perform_only_empirical_bias_corr: measure all layers; False: compute the error
            of those in `conv_bn_dict` from the statistics of the batch norm before
            them, without data.
        layers_to_ignore: modules of `model` that stay.

    Returns:
        The names of the layers that were corrected.

    Raises:
        TypeError: an argument of the wrong type.
        ValueError: no data; no conv_bn_dict where it is needed.
        RuntimeError: a quantized model, or one that cannot be traced. The model is as
            it was after any error.
    """
    if not isinstance(quant_params, QuantParams):
        raise TypeError(
            "correct_bias: quant_params must be QuantParams, got "
            f"{type(quant_params).__name__}"
        )
    if not isinstance(model, torch.nn.Module):
        raise TypeError(
            f"correct_bias: model must be a torch.nn.Module, got {type(model).__name__}"
        )
    require_count("correct_bias", "num_quant_samples", num_quant_samples)
    require_count("correct_bias", "num_bias_correct_samples", num_bias_correct_samples)
    if not perform_only_empirical_bias_corr and not conv_bn_dict:
        raise ValueError(
            "correct_bias: perform_only_empirical_bias_corr=False requires "
            "conv_bn_dict, see find_all_conv_bn_with_activation"
        )
    known = {} if perform_only_empirical_bias_corr else dict(conv_bn_dict or {})
    ignored = names_of(model, layers_to_ignore or (), "correct_bias: layers_to_ignore")
    known_names = names_of(model, known, "correct_bias: conv_bn_dict")
    inputs = {
        name: info.input_mean()
        for name, info in zip(known_names, known.values(), strict=True)
    }
    # Read once: a generator has no second time.
    most = max(num_quant_samples, num_bias_correct_samples)
    samples = Samples("correct_bias", data_loader, num_samples=most)
    sim = _calibrated(model, quant_params, samples.first(num_quant_samples))
    samples = samples.first(num_bias_correct_samples)
    return correct_biases(model, sim, samples, inputs, ignored)


def _calibrated(
    model: torch.nn.Module, quant_params: QuantParams, samples: Samples
) -> QuantizationSimModel:
    sim = QuantizationSimModel(
        model,
        samples.example,
        quant_params.quant_scheme,
        quant_params.act_bw,
        quant_params.weight_bw,
        config_file=quant_params.config_file,
    )
    sim.compute_encodings(samples.run)
    return sim
