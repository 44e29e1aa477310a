# SPDX-License-Identifier: BSD-3-Clause
"""Quantizer groups of an ONNX model: the same groups, named by tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from aimetpp import _C
from aimetpp.amp.quantizer_groups import (
    GroupMembers,
    NamedGroup,
    QuantizerDict,
    build_members,
)
from aimetpp.amp.simulation import Simulation


@dataclass(frozen=True)
class QuantizerGroup(NamedGroup):
    """The names of a group's quantizers: those of the tensors that they quantize.

    Attributes:
        parameter_quantizers: weights.
        activation_quantizers: what nodes make, and model inputs.
        supported_kernel_ops: names of the nodes whose supported kernels restrict it.
        sites: ids of all its sites.
    """

    parameter_quantizers: tuple[str, ...] = ()
    activation_quantizers: tuple[str, ...] = ()
    supported_kernel_ops: tuple[str, ...] = ()
    sites: tuple[int, ...] = field(default=(), compare=False)

    @property
    def activations(self) -> tuple[str, ...]:
        return self.activation_quantizers

    def to_list(self) -> list[tuple[str, str]]:
        """(kind, name) of every quantizer; kind is "activation" or "weight"."""
        return [
            *(("activation", name) for name in self.activation_quantizers),
            *(("weight", name) for name in self.parameter_quantizers),
        ]

    def get_activation_quantizers(
        self, name_to_quantizer_dict: Mapping[str, Any]
    ) -> list[torch.nn.Module]:
        """The quantizers of its activations, on or off.

        Args:
            name_to_quantizer_dict: from `find_quantizer_group`.

        Raises:
            KeyError: a name that is not in the dict.
        """
        return [name_to_quantizer_dict[name] for name in self.activation_quantizers]

    def get_param_quantizers(
        self, name_to_quantizer_dict: Mapping[str, Any]
    ) -> list[torch.nn.Module]:
        """The quantizers of its weights, on or off.

        Args:
            name_to_quantizer_dict: from `find_quantizer_group`.

        Raises:
            KeyError: a name that is not in the dict.
        """
        return [name_to_quantizer_dict[name] for name in self.parameter_quantizers]


def _name_group(
    graph: _C.OpGraph, sites: list[int], kernel_ops: tuple[str, ...]
) -> QuantizerGroup:
    records = graph.sites
    names: dict[bool, dict[str, None]] = {True: {}, False: {}}  # is it a parameter?
    for site in sites:
        names[records[site].kind == "param"][graph.site_name(site)] = None
    return QuantizerGroup(
        parameter_quantizers=tuple(names[True]),
        activation_quantizers=tuple(names[False]),
        supported_kernel_ops=kernel_ops,
        sites=tuple(sites),
    )


def find_members(sim: Simulation) -> list[GroupMembers]:
    """The groups with the indices of their quantizers, in graph order."""
    return build_members(sim, _name_group)


def find_quantizer_group(sim: Simulation) -> tuple[QuantizerDict, list[Any]]:
    """The quantizer groups of a simulation.

    Args:
        sim: an aimetpp.onnx.QuantizationSimModel.

    Returns:
        The quantizers that are on, by the tensor's name, and the groups in graph order;
        each such quantizer is in exactly one group.
    """
    groups = [members.group for members in find_members(sim)]
    index_of = sim.placement.quantizer_of_site
    indices = {
        sim.graph.site_name(site): index_of[site]
        for group in groups
        for site in group.sites
    }
    return QuantizerDict(sim, indices), groups
