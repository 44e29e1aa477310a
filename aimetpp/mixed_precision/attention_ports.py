# SPDX-License-Identifier: BSD-3-Clause
"""Where query, key and value enter an attention, and where its result leaves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from aimetpp.quantsim import QuantizationSimModel

INPUTS = ("query", "key", "value")
_PROJECTIONS = ("q_proj_weight", "k_proj_weight", "v_proj_weight")


@dataclass
class AttentionPorts:
    """The inputs and outputs of attentions among the ops that they consist of.

    Attributes:
        inputs: for query, key and value the inputs (op, slot) of the projections.
        results: the ops of the output projections.
    """

    inputs: list[list[tuple[int, int]]] = field(
        default_factory=lambda: [[] for _ in INPUTS]
    )
    results: list[int] = field(default_factory=list)

    def add(self, sim: QuantizationSimModel, name: str) -> None:
        """Adds those of one torch.nn.MultiheadAttention.

        A projection of several of its inputs at once reads that many thirds of
        `in_proj_weight`.
        """
        attention = sim.model.get_submodule(name)
        assert isinstance(attention, torch.nn.MultiheadAttention)
        output = f"{name}.out_proj" if name else "out_proj"
        for index, op in enumerate(sim.graph.ops):
            for param in op.params:
                read = sim.param_reads.get(param.site)
                if read is None:
                    continue
                if (read.module, read.name) == (output, "weight"):
                    self.results.append(index)
                elif read.module == name and read.name in _PROJECTIONS:
                    self.inputs[_PROJECTIONS.index(read.name)].append((index, 0))
                elif read.module == name and read.name == "in_proj_weight":
                    size = attention.embed_dim
                    first, last = read.rows or (0, len(INPUTS) * size)
                    for third in range(first // size, last // size):
                        self.inputs[third].append((index, 0))
