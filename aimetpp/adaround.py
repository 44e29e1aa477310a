# SPDX-License-Identifier: BSD-3-Clause
"""AdaRound: weights rounded up or down as a layer's output wants it."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from aimetpp.common.defs import QuantScheme
from aimetpp.common.files import atomic_write, make_writable_folder
from aimetpp.ptq.layerwise import QuantizedLayer, quantized_layers
from aimetpp.ptq.reading import names_of
from aimetpp.ptq.rounding import RoundingPlan, round_weights
from aimetpp.ptq.samples import Samples, require_count
from aimetpp.quantsim import QuantizationSimModel

__all__ = ["Adaround", "AdaroundParameters"]

# With fewer bits there is more to decide.
_ITERATIONS, _NARROW_ITERATIONS, _NARROW_BITS = 10_000, 15_000, 8


@dataclass
class AdaroundParameters:
    """The data of AdaRound, and how it optimizes each layer.

    Args:
        data_loader: yields inputs, alone or with labels behind them; all of one shape.
        num_batches: at most so many of them. All are kept in memory, and one layer's
            inputs and outputs with them.
        default_num_iterations: steps for each layer; None: 10,000, or 15,000 where
            default_param_bw is below 8.
        default_reg_param: weight of the term that makes each rounding a decision.
        default_beta_range: first and last exponent of that term.
        default_warm_start: the part of the steps that go without it.
        forward_fn: called as `forward_fn(model, batch)`.

    Raises:
        TypeError: a count that is no int.
        ValueError: a value out of range.
    """

    data_loader: Iterable[Any]
    num_batches: int
    default_num_iterations: int | None = None
    default_reg_param: float = 0.01
    default_beta_range: tuple[float, float] = (20, 2)
    default_warm_start: float = 0.2
    forward_fn: Callable[[torch.nn.Module, Any], Any] | None = None

    def __post_init__(self) -> None:
        who = "AdaroundParameters"
        require_count(who, "num_batches", self.num_batches)
        require_count(who, "default_num_iterations", self.default_num_iterations)
        beta = self.default_beta_range
        if not (isinstance(beta, tuple | list) and len(beta) == 2 and min(beta) > 0):
            raise ValueError(
                f"{who}: default_beta_range must be two positive exponents, the first "
                f"and the last, got {beta!r}"
            )
        if not self.default_reg_param >= 0:
            raise ValueError(
                f"{who}: default_reg_param must be 0 or more, got "
                f"{self.default_reg_param}"
            )
        if not 0 <= self.default_warm_start < 1:
            raise ValueError(
                f"{who}: default_warm_start must be at least 0 and below 1, got "
                f"{self.default_warm_start}"
            )

    def plan(self, param_bw: int) -> RoundingPlan:
        """What these parameters mean for weights of so many bits."""
        default = _NARROW_ITERATIONS if param_bw < _NARROW_BITS else _ITERATIONS
        return RoundingPlan(
            self.default_num_iterations or default,
            self.default_reg_param,
            self.default_beta_range,
            self.default_warm_start,
        )

    def samples(self, example: Any) -> Samples:
        """The data, for a model that takes inputs like `example`."""
        return Samples(
            "apply_adaround",
            self.data_loader,
            example,
            num_batches=self.num_batches,
            forward_fn=self.forward_fn,
        )


class Adaround:
    """Adaptive rounding (Nagel et al. 2020)."""

    @classmethod
    def apply_adaround(
        cls,
        model: torch.nn.Module,
        dummy_input: Any,
        params: AdaroundParameters,
        path: str | os.PathLike[str],
        filename_prefix: str,
        default_param_bw: int = 4,
        param_bw_override_list: Sequence[tuple[torch.nn.Module, int]] | None = None,
        ignore_quant_ops_list: Iterable[torch.nn.Module] | None = None,
        default_quant_scheme: QuantScheme | str = QuantScheme.post_training_tf_enhanced,
        default_config_file: str | os.PathLike[str] | None = None,
    ) -> torch.nn.Module:
        """Rounds the weights of every convolution and linear module up or down, such
        that each layer's outputs are nearest to those of the float model.

        A simulation of the returned model computes with just these weights once it has
        the encodings, which are written to `<path>/<filename_prefix>.encodings`:
        `sim.set_and_freeze_param_encodings(file)`, then `sim.compute_encodings(...)`.
        Fold batch norms first.

        Args:
            model: left as it is.
            dummy_input: as for QuantizationSimModel.
            params: data and optimization.
            path: folder of the encodings; made if missing.
            filename_prefix: of the encodings file.
            default_param_bw: bits of weights, 2 to 32.
            param_bw_override_list: modules of `model` with other bits.
            ignore_quant_ops_list: modules of `model` that are not quantized.
            default_quant_scheme: how ranges are chosen.
            default_config_file: as for QuantizationSimModel.

        Returns:
            A copy of the model with weights on their grids.

        Raises:
            TypeError: an argument of the wrong type.
            ValueError: a module that is not in the model; no data.
            OSError: the file cannot be written; nothing has been computed.
        """
        if not isinstance(params, AdaroundParameters):
            raise TypeError(
                "apply_adaround: params must be AdaroundParameters, got "
                f"{type(params).__name__}"
            )
        make_writable_folder(Path(path))
        sim = QuantizationSimModel(
            model,
            dummy_input,
            default_quant_scheme,
            default_param_bw=default_param_bw,
            config_file=default_config_file,
        )
        _exclude(model, sim, ignore_quant_ops_list or ())
        _override(model, sim, param_bw_override_list or ())
        samples = params.samples(dummy_input)
        layers = round_weights(model, sim, samples, params.plan(default_param_bw))
        file = Path(path) / f"{filename_prefix}.encodings"
        atomic_write(file, _encodings_json(layers))
        return _with_weights(model, layers)


def _encodings_json(layers: Iterable[QuantizedLayer]) -> str:
    from aimetpp.export.encodings import Encoding, leaf_0_6_1, to_json

    entries = {
        layer.parameter_name: leaf_0_6_1(
            Encoding.of(layer.quantizer, layer.parameter_name)
        )
        for layer in layers
    }
    return to_json({"param_encodings": entries})


def _with_weights(
    model: torch.nn.Module, layers: Iterable[QuantizedLayer]
) -> torch.nn.Module:
    """A copy of the model that has the weights of these layers of a simulation."""
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for layer in layers:
            copied.get_parameter(layer.parameter_name).copy_(layer.layer.weight)
    return copied


def _exclude(
    model: torch.nn.Module, sim: QuantizationSimModel, modules: Iterable[Any]
) -> None:
    names = names_of(model, modules, "apply_adaround: ignore_quant_ops_list")
    sim.exclude_layers_from_quantization(
        [sim.model.get_submodule(name) for name in names]
    )


def _override(
    model: torch.nn.Module,
    sim: QuantizationSimModel,
    overrides: Iterable[tuple[torch.nn.Module, int]],
) -> None:
    layers: dict[str, QuantizedLayer] = {
        layer.name: layer for layer in quantized_layers(sim)
    }
    for override in overrides:
        if not isinstance(override, tuple | list) or len(override) != 2:
            raise TypeError(
                "apply_adaround: param_bw_override_list must hold pairs (module, bits),"
                f" got {type(override).__name__}"
            )
        module, bits = override
        (name,) = names_of(model, [module], "apply_adaround: param_bw_override_list")
        if name not in layers:
            raise ValueError(
                f"apply_adaround: param_bw_override_list names {name!r}, whose weight "
                "is not rounded"
            )
        try:
            layers[name].quantizer.bitwidth = bits
        except ValueError as error:
            raise ValueError(
                f"apply_adaround: param_bw_override_list, {name!r}: {error}"
            ) from error
