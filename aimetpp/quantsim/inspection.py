# SPDX-License-Identifier: BSD-3-Clause
"""What a person sees of a simulated PyTorch model: modules, quantizers, memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import torch

from aimetpp.nn.runtime import ModuleRecord
from aimetpp.nn.wrap import BaseQuantizationMixin, QuantizationMixin, kept_weight_bytes
from aimetpp.quantization import QuantizeDequantize, QuantizerBase
from aimetpp.quantsim.sites import Explanation, Site, SiteMethods

if TYPE_CHECKING:
    from aimetpp.quantsim.entries import Slot

__all__ = ["Explanation", "InspectionMethods", "Site"]


def _bytes(tensors: Iterable[torch.Tensor], counted: set[int]) -> int:
    """Bytes of the tensors' storages, except those in `counted`, which grows."""
    total = 0
    for tensor in tensors:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in counted:
            counted.add(storage.data_ptr())
            total += storage.nbytes()
    return total


class InspectionMethods(SiteMethods):
    """The part of QuantizationSimModel that only looks."""

    model: torch.nn.Module
    _config_text: str
    _bias_slots: dict[int, Slot]
    _int32_bias: bool

    @property
    def untraced_ops(self) -> str:
        """What a functional op that was not traced does: "error" or "warn"."""
        return next((record.untraced for record in self._records()), "error")

    @untraced_ops.setter
    def untraced_ops(self, action: str) -> None:
        if action not in ("error", "warn"):
            raise ValueError(f'untraced_ops must be "error" or "warn", got {action!r}')
        for record in self._records():
            record.untraced = action

    @property
    def kept_weights(self) -> str:
        """Which quantized weights are kept from one forward without gradients to the
        next, on the CPU: "auto" those of calls that use each weight few times, where
        quantizing again would take a visible part of the time; "all", which takes as
        much memory as the weights; "none".
        """
        return next((record.weights.keep for record in self._records()), "auto")

    @kept_weights.setter
    def kept_weights(self, keep: str) -> None:
        for record in self._records():
            record.weights.keep = keep
            if keep == "none":
                record.weights.clear()

    def _records(self) -> Iterator[ModuleRecord]:
        for module in self.model.modules():
            if isinstance(module, BaseQuantizationMixin):
                yield module._aimetpp

    def explain(self, site_or_module: Site | str | torch.nn.Module) -> Explanation:
        """Which rule of which config section turned a site on or off.

        Args:
            site_or_module: a Site or its name; or a module of `sim.model` or its
                dotted name, for all its sites and those of the modules inside it.

        Raises:
            TypeError: something else.
            ValueError: no such site or module.
        """
        if isinstance(site_or_module, torch.nn.Module):
            names = [n for n, m in self.model.named_modules() if m is site_or_module]
            if not names:
                raise ValueError("explain: the module is not part of sim.model")
            site_or_module = names[0]
        if isinstance(site_or_module, Site):
            return self._explain(site_or_module)
        if not isinstance(site_or_module, str):
            raise TypeError(
                "explain: a Site, a module or a name is required, got "
                f"{type(site_or_module).__name__}"
            )
        name = site_or_module
        sites = self.sites()
        is_module = name in dict(self.model.named_modules())
        named = [site for site in sites if site.name == name]
        if named and not is_module:
            return self._explain(named[0])
        prefix = f"{name}." if name else ""
        inside = [s for s in sites if s.module == name or s.module.startswith(prefix)]
        if not inside and not is_module:
            raise ValueError(f"explain: no site or module is named {name!r}")
        if not inside:
            effect = "off: it makes and reads no tensor in the traced forward"
            rules = [("graph", "reachability", effect)]
            return Explanation(name or "the model", False, rules, (), "not quantized")
        return self._explain_all(name or "the model", inside)

    def _bias_rounding(self, site: int) -> torch.nn.Module | None:
        slot = self._bias_slots.get(site)
        return None if slot is None else slot.get()

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

    def memory_report(self) -> dict[str, int]:
        """Bytes that the simulation holds, by kind.

        Returns:
            "parameters" and "buffers": the model's own. "quantizer_ranges": minima,
            maxima and grids of all quantizers, also of those that are off.
            "statistics": what calibration keeps. "derived_ranges": the ranges of the
            bit-widths that the quantizers had so far. "cached_weights": quantized
            weights kept from one forward to the next. "total": the sum. Tensors that
            share memory are counted once.
        """
        quantizers = dict.fromkeys(entry.integer for entry in self._bank.entries)
        quantizers.update(
            dict.fromkeys(
                quantizer
                for _, quantizer in self.named_quantizers()
                if isinstance(quantizer, QuantizeDequantize)
            )
        )
        ranges = [t for q in quantizers for t in (q.min, q.max, q.grid)]
        derived = [t for q in quantizers for ends in q._ranges.values() for t in ends]
        counted = {t.untyped_storage().data_ptr() for t in ranges}
        report = {
            "parameters": _bytes(self.model.parameters(), counted),
            "buffers": _bytes(self.model.buffers(), counted),
            "quantizer_ranges": _bytes(ranges, set()),
            "statistics": sum(
                q.statistics.num_bytes for q in quantizers if q.statistics is not None
            ),
            "derived_ranges": _bytes(derived, set()),
            "cached_weights": kept_weight_bytes(self.model),
        }
        return {**report, "total": sum(report.values())}

    def fingerprint(self) -> str:
        """SHA-256 of graph, weights, config, scheme, calibration statistics and
        whether biases are rounded.
        """
        digest = hashlib.sha256()
        for text in (self.graph.to_text(), self._config_text, self.quant_scheme):
            digest.update(text.encode())
        if self._int32_bias:
            digest.update(b"int32 biases")
        own = {id(p) for _, q in self.named_quantizers() for p in q.parameters()}
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
                digest.update(statistics.to_bytes())
        return digest.hexdigest()
