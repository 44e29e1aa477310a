# SPDX-License-Identifier: BSD-3-Clause
"""QuantizationSimModel: a user's model that computes as quantized hardware would."""

from __future__ import annotations

import contextlib
import copy
import os
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from aimetpp import _C
from aimetpp.common.configs import find_config
from aimetpp.common.defs import QuantizationDataType, QuantScheme
from aimetpp.common.inference import inference
from aimetpp.common.precision import precision_name
from aimetpp.nn.calibration import compute_encodings
from aimetpp.nn.computed import detached_weights
from aimetpp.nn.integer_bias import what_quantizes
from aimetpp.nn.wrap import (
    BaseQuantizationMixin,
    QuantizationMixin,
    unwrap_all,
)
from aimetpp.quantization import QuantizerBase
from aimetpp.quantization.base import keep_masked
from aimetpp.quantsim import constant_sites, tracing, wrapping
from aimetpp.quantsim.artifacts import ArtifactMethods
from aimetpp.quantsim.bank import ModuleBank
from aimetpp.quantsim.entries import Slot, require_stored
from aimetpp.quantsim.exclusion import ExclusionMethods
from aimetpp.quantsim.inspection import InspectionMethods
from aimetpp.quantsim.integer_biases import IntegerBiasMethods
from aimetpp.quantsim.other_paths import warn_of_other_paths
from aimetpp.quantsim.param_read import ParamRead
from aimetpp.quantsim.precisions import calibration_callback
from aimetpp.quantsim.profiles import ProfileMethods
from aimetpp.quantsim.replaying import ReplayMethods
from aimetpp.quantsim.training import TrainingMethods


class _SimReference:
    """From a model back to its simulation; not copied or pickled with the model."""

    def __init__(self, sim: Any = None) -> None:
        self._reference = weakref.ref(sim) if sim is not None else lambda: None

    def __call__(self) -> Any:
        return self._reference()

    def __reduce__(self) -> Any:
        return _SimReference, ()


class QuantizationSimModel(
    InspectionMethods,
    ProfileMethods,
    ExclusionMethods,
    TrainingMethods,
    IntegerBiasMethods,
    ArtifactMethods,
    ReplayMethods,
):
    """Simulates a quantized version of a model.

    Every leaf module's call, every functional op (`x + y`, `torch.cat`) outside
    leaf modules, every model input and every parameter is a site; the config says
    which sites are quantized. The model's code is not changed; `sim.model` runs as
    the model did, with quantization noise.

    Args:
        model: any torch.nn.Module without quantized modules in it.
        dummy_input: an example input with which the model is traced once: a tensor,
            a tuple or list (positional) or a dict (keyword arguments).
        quant_scheme: how calibration chooses ranges: a QuantScheme, or "min_max"
            (the default), "tf", "tf_enhanced", "percentile", "mse".
        default_output_bw, default_param_bw: bit-widths, 2 to 32.
        in_place: quantize `model` itself instead of a deep copy.
        config_file: path or shipped name; None: "default" (per-channel weights).
        default_data_type: QuantizationDataType.int, or .float with 16 bits.
        int32_bias: round biases as integer hardware and exported files do: see the
                property.

    Raises:
        TypeError: an argument of the wrong type.
        ValueError: a bit-width, scheme or config with a wrong value.
        FileNotFoundError: no such config.
        RuntimeError: a model that is quantized already, or cannot be traced; in
            inference mode.
    """

    _bank: ModuleBank

    def __init__(
        self,
        model: torch.nn.Module,
        dummy_input: Any,
        quant_scheme: QuantScheme | str | None = None,
        default_output_bw: int = 8,
        default_param_bw: int = 8,
        in_place: bool = False,
        config_file: str | os.PathLike[str] | None = None,
        default_data_type: QuantizationDataType = QuantizationDataType.int,
        int32_bias: bool = True,
    ) -> None:
        if not isinstance(model, torch.nn.Module):
            raise TypeError(
                f"model must be a torch.nn.Module, got {type(model).__name__}"
            )
        if torch.is_inference_mode_enabled():
            raise RuntimeError(
                "QuantizationSimModel must be made outside of torch.inference_mode(), "
                "whose tensors can be neither traced nor trained; it may run inside"
            )
        for name, module in model.named_modules():
            if isinstance(module, BaseQuantizationMixin | QuantizerBase):
                raise RuntimeError(
                    "QuantizationSimModel takes a model without quantized modules; "
                    f"{name or 'the model itself'} is a {type(module).__name__}"
                )
        if not isinstance(default_data_type, QuantizationDataType):
            raise TypeError(
                "default_data_type must be a QuantizationDataType, got "
                f"{type(default_data_type).__name__}"
            )
        activation = precision_name(
            (default_output_bw, default_data_type), "default_output_bw"
        )
        param = precision_name(
            (default_param_bw, default_data_type), "default_param_bw"
        )
        self.quant_scheme = QuantScheme.parse(quant_scheme)
        path = find_config(config_file)
        self._config_text = path.read_text(encoding="utf-8")
        self.config_name = path.stem
        config = _C.parse_quant_config(self._config_text, str(path))
        tracing.split_dummy_input(dummy_input)  # its errors come before the copy
        self.dummy_input = dummy_input
        self.excluded_layers = []
        self.model = (
            model if in_place else copy.deepcopy(model, detached_weights(model))
        )
        self._build(config, activation, param)
        self._bias_slots = {}
        self.int32_bias = int32_bias

    def _build(self, config: _C.QuantConfig, activation: str, param: str) -> None:
        try:
            wrapping.prepare(self.model)
            traced = tracing.trace(self.model, self.dummy_input)
            warn_of_other_paths(self.model, self.dummy_input, traced.tracer)
        except BaseException:
            self._unwrap_all(self.model)  # an in-place model is left as it was
            raise
        _C.return_free_memory()  # of the trace
        self.graph = traced.graph
        self.input_structure = traced.input_structure
        self.output_structure = traced.output_structure
        wrapping.settle(self.model, traced.tracer)
        self.placement = _C.place_quantizers(self.graph, config, activation, param)
        self._bank = ModuleBank(
            self.model, self.graph, self.placement, traced.tracer, self.quant_scheme
        )
        self._pinned = set()
        self.model.__dict__["_aimetpp_sim"] = _SimReference(self)
        self._warn_of_unsupported_ops("default_output_bw", stacklevel=4)

    def __deepcopy__(self, memo: dict[int, Any]) -> QuantizationSimModel:
        copied = object.__new__(type(self))
        memo[id(self)] = copied
        bank = self._bank
        for shared in (self.graph, self.placement, bank._calls, bank._sites):
            memo[id(shared)] = shared  # they never change
        memo.update(detached_weights(self.model))
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        copied.model.__dict__["_aimetpp_sim"] = _SimReference(copied)
        return copied

    def __reduce__(self) -> Any:
        raise TypeError(
            "a QuantizationSimModel cannot be pickled: save "
            "sim.model.state_dict() and sim.save_precision_profile(path), and load "
            "them into a simulation built anew"
        )

    @property
    def runner(self) -> torch.nn.Module:
        """What callbacks are called with: the model."""
        return self.model

    @property
    def param_reads(self) -> Mapping[int, ParamRead]:
        """By site, which parameter a call reads as an argument."""
        return self._bank.param_reads

    # -- calibration --------------------------------------------------------

    def compute_encodings(
        self,
        forward_pass_callback: Callable[..., Any],
        forward_pass_callback_args: Any = None,
    ) -> None:
        """Calibrates: runs data through the model and sets every quantizer's range.

        The callback runs in eval mode without gradients. Activations pass through
        unquantized and are observed, weights are quantized meanwhile. What is
        observed is kept, so that a later change of bit-width needs no data.

        Args:
            forward_pass_callback: called as `callback(model)`, or
                `callback(model, args)` where args are given or it takes two.
            forward_pass_callback_args: its second argument.

        Raises:
            TypeError: the callback is not callable.
            ValueError: a NaN reached a quantizer; the message names it.
        """
        callback = calibration_callback(
            forward_pass_callback, forward_pass_callback_args
        )
        with inference(self.model), compute_encodings(self.model):
            callback(self.model)
        self._finish_calibration()

    # -- other ways to run ------------------------------------------------------

    @contextlib.contextmanager
    def quantizers_off(self) -> Iterator[None]:
        """Within the context the model computes in full precision."""
        with self._bank.swapped(lambda slot, quantizer: None):
            yield

    @contextlib.contextmanager
    def marker_mode(self, off_too: bool = False) -> Iterator[None]:
        """Within the context each enabled site passes its tensor through the marker
        op instead of quantizing it, so that an exporter sees where sites are.

        Args:
            off_too: sites whose quantizers are off do so too.
        """
        constants = constant_sites.find(self.graph)

        def mark(slot: Slot, quantizer: QuantizerBase) -> torch.nn.Module:
            return _Marker(slot.site, quantizer, slot.site in constants)

        with self._bank.swapped(mark, off_too):
            yield

    # -- taking apart -------------------------------------------------------

    @staticmethod
    def get_original_model(model: Any, qdq_weights: bool = False) -> torch.nn.Module:
        """A copy of a quantized model (or of `sim.model`) without quantizers.

        Args:
            model: a simulation, or its model.
            qdq_weights: leave parameters with their quantized-dequantized values.

        Raises:
            ValueError: `qdq_weights` with a weight that is computed from other
                parameters (weight norm, pruning), or with a model whose simulation is
                gone, which knows what functions read.
        """
        quantized = model.model if isinstance(model, QuantizationSimModel) else model
        original = copy.deepcopy(quantized, detached_weights(quantized))
        if qdq_weights:
            sim = quantized.__dict__.get("_aimetpp_sim", _SimReference())()
            if sim is None:
                raise ValueError(
                    "get_original_model: qdq_weights needs the simulation, which this "
                    "model is not part of, or which is gone: pass the simulation"
                )
            _store_quantized(original, sim)
        QuantizationSimModel._unwrap_all(original)
        return original

    @staticmethod
    def _unwrap_all(model: torch.nn.Module) -> None:
        unwrap_all(model)
        model.__dict__.pop("_aimetpp_sim", None)


def _store_quantized(copied: torch.nn.Module, sim: QuantizationSimModel) -> None:
    """Leaves the parameters of a copy of a simulation's model with the values that its
    forward computes with.
    """
    slots = [slot for entry in sim._bank.entries for slot in entry.slots]
    for slot in slots:
        if slot.read is not None and slot.get() is not None:
            require_stored(slot, "get_original_model: qdq_weights")
    with torch.no_grad():
        for module in copied.modules():
            if isinstance(module, QuantizationMixin):
                for name, parameter in module._parameters.items():
                    quantizer = what_quantizes(module, name)
                    if quantizer is not None and parameter is not None:
                        parameter.copy_(quantizer(parameter))
        for slot in sim._bank.borrowing_slots():
            quantizer = slot.get()
            if quantizer is not None and slot.read is not None:
                value = slot.read.value(copied.get_submodule(slot.read.module))
                if value is not None:
                    value.copy_(quantizer(value))


class _Marker(torch.nn.Module):
    """Stands in a slot while a model is exported."""

    def __init__(self, site: int, quantizer: QuantizerBase, constant: bool) -> None:
        super().__init__()
        self.site = site
        self.masked_below = quantizer.masked_below
        self.constant = constant

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.constant:
            marked = constant_sites.mark(x, self.site)
        else:
            marked = torch.ops.aimetpp.site(x, self.site)
        return keep_masked(x, marked, self.masked_below)
