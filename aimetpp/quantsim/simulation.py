# SPDX-License-Identifier: BSD-3-Clause
"""QuantizationSimModel: a user's model that computes as quantized hardware would."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import inspect
import os
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from aimetpp import _C
from aimetpp.common.defs import QuantizationDataType, QuantScheme
from aimetpp.nn.runtime import STATE
from aimetpp.nn.wrap import BaseQuantizationMixin, QuantizationMixin, unwrap
from aimetpp.quantization import QuantizeDequantize, QuantizerBase
from aimetpp.quantsim import tracing
from aimetpp.quantsim.artifacts import ArtifactMethods
from aimetpp.quantsim.bank import QuantizerBank, Slot
from aimetpp.quantsim.config import find_config
from aimetpp.quantsim.inspection import Explanation, Site, list_sites, report


class _SimReference:
    """From a model back to its simulation; not copied or pickled with the model."""

    def __init__(self, sim: Any = None) -> None:
        self._reference = weakref.ref(sim) if sim is not None else lambda: None

    def __call__(self) -> Any:
        return self._reference()

    def __reduce__(self) -> Any:
        return _SimReference, ()


def _default_precision(bitwidth: int, dtype: QuantizationDataType, argument: str) -> str:
    if not isinstance(bitwidth, int) or isinstance(bitwidth, bool):
        raise TypeError(f"{argument} must be an int, got {type(bitwidth).__name__}")
    if dtype == QuantizationDataType.float:
        if bitwidth not in (16, 32):
            raise ValueError(
                f"{argument} must be 16 or 32 with default_data_type float, got {bitwidth}"
            )
        return f"fp{bitwidth}"
    if not 2 <= bitwidth <= 32:
        raise ValueError(f"{argument} must be between 2 and 32, got {bitwidth}")
    return f"int{bitwidth}"


class QuantizationSimModel(ArtifactMethods):
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

    Raises:
        TypeError: an argument of the wrong type.
        ValueError: a bit-width, scheme or config with a wrong value.
        FileNotFoundError: no such config.
        RuntimeError: a model that is quantized already, or cannot be traced.
    """

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
    ) -> None:
        if not isinstance(model, torch.nn.Module):
            raise TypeError(
                f"model must be a torch.nn.Module, got {type(model).__name__}"
            )
        for name, module in model.named_modules():
            if isinstance(module, BaseQuantizationMixin | QuantizerBase):
                raise RuntimeError(
                    "QuantizationSimModel takes a model without quantized modules; "
                    f"{name or 'the model itself'} is a {type(module).__name__}"
                )
        activation = _default_precision(
            default_output_bw, default_data_type, "default_output_bw"
        )
        param = _default_precision(default_param_bw, default_data_type, "default_param_bw")
        self.quant_scheme = QuantScheme.parse(quant_scheme)
        path = find_config(config_file)
        self._config_text = path.read_text(encoding="utf-8")
        self.config_name = path.stem
        config = _C.parse_quant_config(self._config_text, str(path))
        tracing.split_dummy_input(dummy_input)  # its errors come before the copy
        self.dummy_input = dummy_input
        self.model = model if in_place else copy.deepcopy(model)
        self._build(config, activation, param)

    def _build(self, config: _C.QuantConfig, activation: str, param: str) -> None:
        tracing.prepare(self.model)
        try:
            traced = tracing.trace(self.model, self.dummy_input)
        except BaseException:
            self._unwrap_all(self.model)  # an in-place model is left as it was
            raise
        self.graph = traced.graph
        self.input_structure = traced.input_structure
        self.output_structure = traced.output_structure
        tracing.settle(self.model, traced.tracer)
        self.placement = _C.place_quantizers(self.graph, config, activation, param)
        self._bank = QuantizerBank(
            self.model, self.graph, self.placement, traced.tracer, self.quant_scheme
        )
        self.model.__dict__["_aimetpp_sim"] = _SimReference(self)

    # -- calibration --------------------------------------------------------

    def compute_encodings(
        self, forward_pass_callback: Callable[..., Any], forward_pass_callback_args: Any = None
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
        if not callable(forward_pass_callback):
            raise TypeError(
                "compute_encodings: forward_pass_callback must be callable, got "
                f"{type(forward_pass_callback).__name__}"
            )
        self._bank.calibrate_params()
        training = [module for module in self.model.modules() if module.training]
        activations = [
            entry.integer
            for entry in self._bank.entries
            if entry.kind != "param" and entry.current() is entry.integer
        ]
        self.model.eval()
        try:
            with torch.no_grad(), contextlib.ExitStack() as stack:
                for quantizer in activations:
                    stack.enter_context(quantizer.compute_encodings())
                _call(forward_pass_callback, self.model, forward_pass_callback_args)
        finally:
            for module in training:
                module.training = True
        missing = self.uncalibrated()
        if missing:
            warnings.warn(
                f"compute_encodings: no data reached {len(missing)} quantizers, which "
                f"stay uncalibrated: {', '.join(missing[:10])}"
                + (", ..." if len(missing) > 10 else ""),
                RuntimeWarning,
                stacklevel=2,
            )

    def uncalibrated(self) -> list[str]:
        """Names of the quantizers that are on and have no range yet."""
        return [
            entry.label
            for entry in self._bank.entries
            if (current := entry.current()) is not None and not current.is_initialized()
        ]

    def is_calibrated(self) -> bool:
        """True where every quantizer that is on can run."""
        return not self.uncalibrated()

    def set_percentile_value(self, percentile_value: float) -> None:
        """The percentile, 50 to 100, that the "percentile" scheme cuts at.

        Raises:
            ValueError: outside that range, or another scheme.
        """
        if not 50 <= percentile_value <= 100:
            raise ValueError(f"percentile must be between 50 and 100, got {percentile_value}")
        if self.quant_scheme != "percentile":
            raise ValueError(
                "set_percentile_value has no effect with quant_scheme "
                f"{self.quant_scheme!r}; use quant_scheme='percentile'"
            )
        for entry in self._bank.entries:
            entry.integer.percentile = float(percentile_value)
            if entry.integer.is_initialized():
                entry.integer.bitwidth = entry.integer.bitwidth

    # -- precisions ---------------------------------------------------------

    @property
    def quantizers_by_index(self) -> list[QuantizerBase]:
        """One quantizer per entry of the placement, on or off."""
        return self._bank.modules()

    def precisions(self) -> list[str]:
        """The precision of each placement entry: "int8", "fp16", "fp32" for off."""
        return [self._bank.precision(i) for i in range(len(self._bank.entries))]

    def apply_precisions(self, precisions: list[str]) -> None:
        """Sets the precision of every placement entry; ranges of new bit-widths come
        from kept statistics.

        Raises:
            ValueError: a wrong count, or an unknown precision.
        """
        if len(precisions) != len(self._bank.entries):
            raise ValueError(
                f"apply_precisions: {len(self._bank.entries)} precisions are required, "
                f"got {len(precisions)}"
            )
        parsed = [_C.parse_precision(precision) for precision in precisions]
        for index, precision in enumerate(parsed):
            if self._bank.precision(index) != precision:
                self._bank.set_precision(index, precision)

    @contextlib.contextmanager
    def quantizers_off(self) -> Iterator[None]:
        """Within the context the model computes in full precision."""
        with self._bank.swapped(lambda slot, quantizer: None):
            yield

    @contextlib.contextmanager
    def marker_mode(self) -> Iterator[None]:
        """Within the context each enabled site passes its tensor through the marker
        op instead of quantizing it, so that an exporter sees where sites are.
        """
        with self._bank.swapped(lambda slot, quantizer: _Marker(slot)):
            yield

    # -- looking inside -----------------------------------------------------

    @property
    def untraced_ops(self) -> str:
        """ "error" or "warn": what a functional op that was not traced does."""
        records = [m._aimetpp for m in self.model.modules() if hasattr(m, "_aimetpp")]
        return records[0].untraced if records else "error"

    @untraced_ops.setter
    def untraced_ops(self, action: str) -> None:
        if action not in ("error", "warn"):
            raise ValueError(f'untraced_ops must be "error" or "warn", got {action!r}')
        for module in self.model.modules():
            if hasattr(module, "_aimetpp"):
                module._aimetpp.untraced = action

    def sites(self) -> list[Site]:
        """Every site of the model, in graph order."""
        return list_sites(self)

    def explain(self, site_or_module: Site | str | torch.nn.Module) -> Any:
        """Which rule of which config section turned a site on or off.

        Args:
            site_or_module: a Site or its name: one Explanation; a module of
                `sim.model` or its dotted name: a list of them, one per site.

        Raises:
            ValueError: no such site or module.
        """
        if isinstance(site_or_module, torch.nn.Module):
            names = [n for n, m in self.model.named_modules() if m is site_or_module]
            if not names:
                raise ValueError("explain: the module is not part of sim.model")
            site_or_module = names[0]
        sites = self.sites()
        if isinstance(site_or_module, Site):
            site_or_module = site_or_module.name
        for site in sites:
            if site.name == site_or_module and site.kind != "output":
                return self._explain(site)
        inside = [site for site in sites if site.module == site_or_module]
        if not inside:
            inside = [site for site in sites if site.name == site_or_module]
        if not inside:
            raise ValueError(f"explain: no site or module is named {site_or_module!r}")
        found = [self._explain(site) for site in inside]
        return found[0] if len(found) == 1 else found

    def _explain(self, site: Site) -> Explanation:
        on = self.placement.quantizer_of_site[site.id] >= 0
        return Explanation(site.name, on, self.placement.rules(site.id))

    @property
    def functional_quantizers(self) -> dict[str, torch.nn.Module | None]:
        """Output quantizers of functional ops, by site name."""
        return {
            site.name: site.quantizer
            for site in self.sites()
            if self.graph.calls[self.graph.sites[site.id].call].functional
            and site.kind == "output"
        }

    def named_qmodules(self) -> Iterator[tuple[str, QuantizationMixin]]:
        """(dotted name, module) of every quantized leaf module."""
        for name, module in self.model.named_modules():
            if isinstance(module, QuantizationMixin):
                yield name, module

    def qmodules(self) -> Iterator[QuantizationMixin]:
        """Every quantized leaf module."""
        return (module for _, module in self.named_qmodules())

    def named_quantizers(self) -> Iterator[tuple[str, QuantizerBase]]:
        """(dotted name, quantizer) of every quantizer that is on, shared ones once."""
        for name, module in self.model.named_modules():
            if isinstance(module, QuantizerBase):
                yield name, module

    def quantizer_parameters(self) -> Iterator[torch.nn.Parameter]:
        """The learnable range ends of all quantizers, for an optimizer group."""
        for _, quantizer in self.named_quantizers():
            yield from quantizer.parameters()

    def quantizer_groups(self) -> list[Any]:
        """The quantizer groups that automatic mixed precision searches over."""
        from aimetpp.amp.quantizer_groups import find_quantizer_group

        return find_quantizer_group(self)[1]

    def bit_ops(self) -> float:
        """Bit-operations of one sample: sum of MACs x activation x param bits."""
        model = _C.build_cost_model(self.graph, self.placement)
        return float(model.bit_ops(self.precisions()))

    def fingerprint(self) -> str:
        """SHA-256 of graph, weights, config, scheme and calibration statistics."""
        digest = hashlib.sha256()
        for text in (self.graph.to_text(), self._config_text, self.quant_scheme):
            digest.update(text.encode())
        own = {id(p) for p in self.quantizer_parameters()}
        for name, parameter in self.model.state_dict(keep_vars=True).items():
            if not isinstance(parameter, torch.Tensor) or "_quantizers." in name:
                continue
            if id(parameter) not in own:
                digest.update(name.encode())
                data = parameter.detach().cpu().contiguous()
                digest.update(data.flatten().view(torch.uint8).numpy().tobytes())
        for entry in self._bank.entries:
            statistics = entry.integer.statistics
            if statistics is not None:
                digest.update(repr(statistics.serialize()).encode())
        return digest.hexdigest()

    def __str__(self) -> str:
        return report(self)

    # -- taking apart -------------------------------------------------------

    def exclude_layers_from_quantization(self, layers: Iterable[torch.nn.Module]) -> None:
        """Turns off every quantizer of the given modules of `sim.model`.

        Raises:
            ValueError: a module that is not a quantized one of this simulation.
        """
        layers = list(layers)
        known = {id(module) for module in self.qmodules()}
        for layer in layers:
            if id(layer) not in known:
                raise ValueError(
                    "exclude_layers_from_quantization: not a quantized module of this "
                    f"simulation: {type(layer).__name__}"
                )
        for layer in layers:
            for slots in (
                layer.input_quantizers,
                layer.output_quantizers,
                layer.param_quantizers,
            ):
                for key in slots._modules:  # type: ignore[union-attr]
                    slots._modules[key] = None  # type: ignore[union-attr, index]

    @staticmethod
    def get_original_model(model: Any, qdq_weights: bool = False) -> torch.nn.Module:
        """A copy of a quantized model (or of `sim.model`) without quantizers.

        Args:
            model: a quantized model, or the simulation.
            qdq_weights: leave parameters with their quantized-dequantized values.
        """
        quantized = model.model if isinstance(model, QuantizationSimModel) else model
        original = copy.deepcopy(quantized)
        if qdq_weights:
            with torch.no_grad():
                for module in original.modules():
                    if isinstance(module, QuantizationMixin):
                        for name, quantizer in module.param_quantizers.items():
                            if quantizer is not None:
                                parameter = module._parameters[name]
                                parameter.copy_(quantizer(parameter))  # type: ignore
        QuantizationSimModel._unwrap_all(original)
        return original

    @staticmethod
    def _unwrap_all(model: torch.nn.Module) -> None:
        for module in list(model.modules()):
            if isinstance(module, BaseQuantizationMixin):
                unwrap(module)
        model.__dict__.pop("_aimetpp_sim", None)


def _call(callback: Callable[..., Any], model: torch.nn.Module, args: Any) -> None:
    if args is not None:
        callback(model, args)
        return
    try:
        parameters = inspect.signature(callback).parameters.values()
    except (TypeError, ValueError):  # a builtin without a signature
        parameters = []  # type: ignore[assignment]
    required = [
        p
        for p in parameters
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    if len(required) >= 2:
        callback(model, None)
    else:
        callback(model)


class _Marker(torch.nn.Module):
    """Stands in a slot while a model is exported."""

    def __init__(self, slot: Slot) -> None:
        super().__init__()
        self.site = slot.site

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ops.aimetpp.site(x, self.site)


__all__ = ["STATE", "QuantizationSimModel", "QuantizeDequantize"]
