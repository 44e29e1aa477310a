# SPDX-License-Identifier: BSD-3-Clause
"""Quantizer groups of an ONNX model: the same groups, named by tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from aimetpp import _C
from aimetpp.amp.quantizer_groups import NamedGroup, QuantizerDict, find_quantizer_group

__all__ = ["QuantizerGroup", "find_quantizer_group"]


class OpQuantizers(QuantizerDict):
    """Quantizers by tensor, None where one is off: `sim.qc_quantize_op_dict`."""

    def __init__(self, sim: Any, indices: dict[str, int], entries: Any) -> None:
        self._entries = entries
        super().__init__(sim, indices)

    def _refresh(self) -> None:
        entries = self._entries
        self.update({name: entries[i].current() for name, i in self._indices.items()})


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

    @classmethod
    def of_sites(
        cls, graph: _C.OpGraph, sites: list[_C.Site], kernel_ops: tuple[str, ...]
    ) -> QuantizerGroup:
        # A tensor at several sites counts once.
        labels = dict.fromkeys(cls.site_label(graph, site) for site in sites)
        return cls(
            parameter_quantizers=tuple(n for kind, n in labels if kind == "weight"),
            activation_quantizers=tuple(n for kind, n in labels if kind != "weight"),
            supported_kernel_ops=kernel_ops,
            sites=tuple(site.id for site in sites),
        )

    @staticmethod
    def site_label(graph: _C.OpGraph, site: _C.Site) -> tuple[str, str]:
        kind = "weight" if site.kind == "param" else "activation"
        return kind, graph.site_name(site.id)

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
