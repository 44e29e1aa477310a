# SPDX-License-Identifier: BSD-3-Clause
"""Who is meant by what a user names: nodes, tensors, op types, globs, sites."""

from __future__ import annotations

import difflib
import fnmatch
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aimetpp.mixed_precision.naming import NamedOp, Target
from aimetpp.quantsim.sites import Site

if TYPE_CHECKING:
    from aimetpp.onnx.quantsim import QuantizationSimModel


@dataclass(frozen=True)
class OpType:
    """All nodes of one ONNX type."""

    name: str


class NodeNameBook:
    """Everything in an ONNX simulation that a request can name."""

    def __init__(self, sim: QuantizationSimModel) -> None:
        graph = sim.graph
        nodes = sim.model.graph.node
        self._sim = sim
        self.ops: dict[int, NamedOp] = {}
        op_of_call: dict[int, int] = {}
        for index, op in enumerate(graph.ops):
            if op.call < 0:
                continue
            num_inputs = sum(site >= 0 for site in op.input_sites)
            self.ops[index] = NamedOp(op.name, "", True, num_inputs)
            op_of_call[op.call] = index
        # By node, by op type and by tensor. A call may cover two nodes.
        self._of_node = {op.name: [index] for index, op in self.ops.items()}
        self._of_type: dict[str, list[int]] = {}
        makers: dict[str, list[int]] = {}
        readers: dict[str, list[int]] = {}
        for site, (node, _) in zip(graph.sites, sim.reading.places, strict=True):
            index = op_of_call[site.call]
            _add(self._of_node, nodes[node].name, index)
            _add(self._of_type, nodes[node].op_type, index)
            by_tensor = makers if site.kind == "output" else readers
            _add(by_tensor, graph.site_name(site.id), index)
        self._of_tensor = {**readers, **makers}

    def find(self, arg: Any) -> Target:
        """What `arg` of `set_precision` means.

        Raises:
            TypeError: something that names nothing.
            ValueError: nothing of that name is in the model.
        """
        if isinstance(arg, OpType):
            return self._find_type(arg.name)
        if isinstance(arg, Site):
            if arg not in self._sim.sites():
                raise ValueError(
                    f"set_precision: site {arg.name!r} is not one of this simulation"
                )
            return self._find_name(arg.name)
        if isinstance(arg, str):
            return self._find_name(arg)
        raise TypeError(
            "set_precision: arg must be the name of a node or tensor, an ONNX op type, "
            f"a glob or a Site, got {type(arg).__name__}"
        )

    def type_named(self, name: str) -> OpType:
        """The ONNX op type of that name.

        Raises:
            ValueError: no node of the model is of that type.
        """
        self._find_type(name)
        return OpType(name)

    def _find_type(self, name: str) -> Target:
        if name not in self._of_type:
            raise ValueError(
                f"set_precision: no node of type {name!r}; the model has "
                f"{', '.join(sorted(self._of_type))}"
            )
        return Target("type", f"type {name}", self._of_type[name])

    def _find_name(self, name: str) -> Target:
        if name in self._of_node:
            return Target("leaf", name, self._of_node[name])
        if name in self._of_tensor:
            ops = self._of_tensor[name]
            return Target("leaf" if len(ops) == 1 else "container", name, ops)
        if name in self._of_type:
            return self._find_type(name)
        known = {**self._of_tensor, **self._of_node}
        if any(character in name for character in "*?["):
            matched = fnmatch.filter(known, name)
            found = sorted({index for each in matched for index in known[each]})
            if found:
                return Target("type", name, found)
        near = difflib.get_close_matches(name, known, n=3)
        raise ValueError(
            f"set_precision: no node, tensor or op type of the model is called {name!r}"
            + (f"; near to it: {', '.join(near)}" if near else "")
        )


def _add(found: dict[str, list[int]], name: str, index: int) -> None:
    indices = found.setdefault(name, [])
    if index not in indices:
        indices.append(index)
