# SPDX-License-Identifier: BSD-3-Clause
"""Quantizer groups: quantizers that change precision together.

An activation's quantizer and the param quantizers of the ops that read it meet in
one kernel, and so does their precision. Which quantizers form a group is decided in
C++ (`csrc/groups`); here they have names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from aimetpp import _C
from aimetpp.amp.candidates import half_of
from aimetpp.amp.simulation import Simulation
from aimetpp.common.precision import precision_name

_INPUT_MARK = "_input_quantizer_idx_"


class NamedGroup:
    """A group as the names of its quantizers, of whichever front.

    Attributes:
        parameter_quantizers: names of the quantizers of parameters.
        sites: ids of all its sites.
    """

    parameter_quantizers: tuple[str, ...]
    sites: tuple[int, ...]

    @classmethod
    def of_sites(
        cls, graph: _C.OpGraph, sites: list[_C.Site], kernel_ops: tuple[str, ...]
    ) -> NamedGroup:
        """The group with the quantizers at `sites`.

        Args:
            graph: of the sites.
            sites: of all its quantizers.
            kernel_ops: names of the ops whose supported kernels restrict it.
        """
        raise NotImplementedError

    @staticmethod
    def site_label(graph: _C.OpGraph, site: _C.Site) -> tuple[str, str]:
        """(kind, name) of a site, as `to_list` has them."""
        raise NotImplementedError

    @property
    def activations(self) -> tuple[str, ...]:
        """Names of activations' quantizers, the one that names the group first."""
        raise NotImplementedError

    @property
    def name(self) -> str:
        """Its activation's name, else that of its first parameter."""
        return (*self.activations, *self.parameter_quantizers, "")[0]

    def __str__(self) -> str:
        params = self.parameter_quantizers
        if not params or self.name == params[0]:
            return ", ".join(params) or self.name
        return f"{self.name} + {', '.join(params)}"

    def to_list(self) -> list[tuple[str, str]]:
        """(kind, name) of every quantizer."""
        raise NotImplementedError

    def get_active_quantizers(
        self, name_to_quantizer_dict: Mapping[str, Any]
    ) -> list[torch.nn.Module]:
        """Its quantizers that are on, each once.

        Args:
            name_to_quantizer_dict: from `find_quantizer_group`.

        Raises:
            KeyError: a name that is not in the dict.
        """
        return self._active(name_to_quantizer_dict, [n for _, n in self.to_list()])

    def get_active_param_quantizers(
        self, name_to_quantizer_dict: Mapping[str, Any]
    ) -> list[torch.nn.Module]:
        """Its parameters' quantizers that are on, each once; as above."""
        return self._active(name_to_quantizer_dict, self.parameter_quantizers)

    @staticmethod
    def lookup_quantizer(
        quantizer_name: str, name_to_quantizer_dict: Mapping[str, Any]
    ) -> torch.nn.Module:
        """The quantizer of a name; a KeyError for an unknown one."""
        quantizer: torch.nn.Module = name_to_quantizer_dict[quantizer_name]
        return quantizer

    @staticmethod
    def _active(
        name_to_quantizer_dict: Mapping[str, Any], names: Iterable[str]
    ) -> list[torch.nn.Module]:
        active: dict[int, torch.nn.Module] = {}
        for name in names:
            quantizer = name_to_quantizer_dict[name]
            if _precision(name_to_quantizer_dict, name) != "fp32":
                active[id(quantizer)] = quantizer
        return list(active.values())

    def get_candidate(self, name_to_quantizer_dict: Mapping[str, Any]) -> Any:
        """The candidate at which the group is now.

        Returns:
            ((activation bitwidth, dtype), (param bitwidth, dtype)); a group without
            params has the first half only, one without activations (None, None) as
            the first half; (32, float) is off.

        Raises:
            RuntimeError: quantizers of one kind differ in precision.
        """
        activation = self._common(name_to_quantizer_dict, self.activations)
        param = self._common(name_to_quantizer_dict, self.parameter_quantizers)
        first = (None, None) if activation is None else half_of(activation)
        return (first,) if param is None else (first, half_of(param))

    def _common(
        self, quantizers: Mapping[str, Any], names: Iterable[str]
    ) -> str | None:
        found = {name: _precision(quantizers, name) for name in names}
        if len(set(found.values())) > 1:
            raise RuntimeError(f"group {self}: its quantizers differ: {found}")
        return next(iter(found.values()), None)

    def set_quantizers_to_candidate(
        self, name_to_quantizer_dict: Mapping[str, Any], candidate: Any
    ) -> None:
        """Sets its quantizers' precision; ranges come from kept statistics.

        Args:
            name_to_quantizer_dict: from `find_quantizer_group`, or of an ONNX
                simulation `sim.qc_quantize_op_dict`.
            candidate: as in `get_candidate`.

        Raises:
            TypeError: another dict.
        """
        if not isinstance(name_to_quantizer_dict, QuantizerDict):
            raise TypeError(
                "set_quantizers_to_candidate: name_to_quantizer_dict must come from "
                f"find_quantizer_group, got {type(name_to_quantizer_dict).__name__}"
            )
        changes = {}
        halves = (self.activations, self.parameter_quantizers)
        for half, group in zip(candidate, halves, strict=False):
            for name in group:
                changes[name] = precision_name(half, "candidate")
        name_to_quantizer_dict.set_precisions(changes)


@dataclass(frozen=True)
class QuantizerGroup(NamedGroup):
    """The names of a group's quantizers.

    Attributes:
        input_quantizers: "<call>_input_quantizer_idx_<i>", such as
            "conv1_input_quantizer_idx_0".
        output_quantizers: "<call>": "conv1", "relu:1" (second call),
            "layer1.0/add_0" (functional op).
        parameter_quantizers: "<module>.<param>", such as "conv1.weight".
        supported_kernel_ops: names of the ops whose supported kernels restrict it.
        sites: ids of all its sites. A quantizer that stands at several sites is
            named once for each.
    """

    input_quantizers: tuple[str, ...] = ()
    output_quantizers: tuple[str, ...] = ()
    parameter_quantizers: tuple[str, ...] = ()
    supported_kernel_ops: tuple[str, ...] = ()
    sites: tuple[int, ...] = field(default=(), compare=False)

    @classmethod
    def of_sites(
        cls, graph: _C.OpGraph, sites: list[_C.Site], kernel_ops: tuple[str, ...]
    ) -> QuantizerGroup:
        names: dict[str, list[str]] = {"input": [], "output": [], "weight": []}
        for site in sites:
            kind, name = cls.site_label(graph, site)
            names[kind].append(name)
        return cls(
            input_quantizers=tuple(names["input"]),
            output_quantizers=tuple(names["output"]),
            parameter_quantizers=tuple(names["weight"]),
            supported_kernel_ops=kernel_ops,
            sites=tuple(site.id for site in sites),
        )

    @staticmethod
    def site_label(graph: _C.OpGraph, site: _C.Site) -> tuple[str, str]:
        name = graph.site_name(site.id)
        if site.kind == "input":
            call = graph.calls[site.call].name
            return "input", f"{call}{_INPUT_MARK}{site.slot}"
        return ("weight" if site.kind == "param" else "output"), name

    def to_list(self) -> list[tuple[str, str]]:
        """(kind, name) of every quantizer; kind is "input", "output" or "weight"."""
        return [
            *(("input", name) for name in self.input_quantizers),
            *(("output", name) for name in self.output_quantizers),
            *(("weight", name) for name in self.parameter_quantizers),
        ]

    @property
    def activations(self) -> tuple[str, ...]:
        return self.output_quantizers + self.input_quantizers

    def get_input_quantizer_modules(self) -> tuple[str, ...]:
        """Names of the calls whose inputs the group quantizes."""
        return tuple(name.rpartition(_INPUT_MARK)[0] for name in self.input_quantizers)


class QuantizerDict(dict[str, torch.nn.Module]):
    """Quantizers of a simulation by name."""

    def __init__(self, sim: Simulation, indices: dict[str, int]) -> None:
        self._sim = sim
        self._indices = indices
        super().__init__()
        self._refresh()

    def precision(self, name: str) -> str:
        """The precision, such as "int8" or "fp16"; "fp32" where it is off."""
        return str(self._sim.precisions()[self._indices[name]])

    def set_precisions(self, changes: Mapping[str, str]) -> None:
        """Sets the precisions of the named quantizers."""
        precisions = self._sim.precisions()
        for name, precision in changes.items():
            precisions[self._indices[name]] = precision
        self._sim.apply_precisions(precisions)
        self._refresh()

    def _refresh(self) -> None:
        modules = self._sim.quantizers_by_index
        self.update({name: modules[index] for name, index in self._indices.items()})


def _precision(quantizers: Mapping[str, Any], name: str) -> str:
    if isinstance(quantizers, QuantizerDict):
        return quantizers.precision(name)
    return str(quantizers[name].precision)


@dataclass(frozen=True)
class GroupMembers:
    """A group with the placement indices of those of its quantizers that are on."""

    group: NamedGroup
    native: _C.QuantizerGroup
    activation_quantizers: list[int]
    param_quantizers: list[int]

    @property
    def quantizers(self) -> list[int]:
        """All of them."""
        return self.activation_quantizers + self.param_quantizers


def build_members(sim: Simulation) -> list[GroupMembers]:
    """The groups of a simulation in graph order, quantizers that are off left out."""
    precisions = sim.precisions()
    quantizers, sites = sim.placement.quantizers, sim.graph.sites
    names = [op.name for op in sim.graph.ops]
    found = []
    for native in _C.build_groups(sim.graph, sim.placement):
        activations = [
            i for i in native.activation_quantizers if precisions[i] != "fp32"
        ]
        params = [i for i in native.param_quantizers if precisions[i] != "fp32"]
        if not activations and not params:
            continue
        inside = [
            sites[site]
            for index in activations + params
            for site in quantizers[index].sites
        ]
        kernel_ops = tuple(names[op] for op in native.ops)
        group = sim.group_class.of_sites(sim.graph, inside, kernel_ops)
        found.append(GroupMembers(group, native, activations, params))
    return found


def find_quantizer_group(sim: Simulation) -> tuple[QuantizerDict, list[Any]]:
    """The quantizer groups of a simulation.

    Args:
        sim: a QuantizationSimModel, of any front.

    Returns:
        The quantizers that are on by name (a shared one under each of its names),
        and the groups in graph order; each such quantizer is in exactly one group.
    """
    groups = [members.group for members in build_members(sim)]
    index_of = sim.placement.quantizer_of_site
    sites = sim.graph.sites
    indices = {
        sim.group_class.site_label(sim.graph, sites[site])[1]: index_of[site]
        for group in groups
        for site in group.sites
    }
    return QuantizerDict(sim, indices), groups
