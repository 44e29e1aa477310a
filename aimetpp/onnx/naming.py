# SPDX-License-Identifier: BSD-3-Clause
"""Who is meant by what a user names: nodes, tensors, op types, globs, sites."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aimetpp.mixed_precision.naming import NamedOp, Target
from aimetpp.quantsim.sites import Site

if TYPE_CHECKING:
    from aimetpp.onnx.quantsim import QuantizationSimModel


@dataclass(frozen=True)
class OpType:
    """All nodes of one ONNX type."""

    name: str


@dataclass(frozen=True)
class TensorTarget(Target):
    """A request about tensors, and not all that the nodes around them read and make.

    Attributes:
        ops: those whose params a request for params is about.
        inputs: inputs (op, slot) that read the tensors.
        results: ops that make them.
        params: where they are stored: by name of the param, of `ops`.
    """

    inputs: list[tuple[int, int]] = field(default_factory=list)
    results: list[int] = field(default_factory=list)
    params: dict[str, list[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class TensorPorts:
    """As AttentionPorts: inputs for each entry of a request, and ops whose outputs the
    first entry speaks of.
    """

    inputs: list[list[tuple[int, int]]]
    results: list[int]


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
        self._makers = makers
        self._of_tensor = {**readers, **makers}
        self._params: dict[str, list[tuple[int, str]]] = {}
        self._inputs: dict[str, list[tuple[int, int]]] = {}
        for index in self.ops:
            op = graph.ops[index]
            for param in op.params:
                name = graph.site_name(param.site)
                self._params.setdefault(name, []).append((index, param.name))
            for slot, input_site in enumerate(op.input_sites):
                if input_site >= 0:
                    name = graph.site_name(input_site)
                    self._inputs.setdefault(name, []).append((index, slot))

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
            kind = "leaf" if len(self._of_tensor[name]) == 1 else "container"
            return self._tensors(kind, name, [], [name])
        if name in self._of_type:
            return self._find_type(name)
        known = {**self._of_tensor, **self._of_node}
        if any(character in name for character in "*?["):
            matched = fnmatch.filter(known, name)
            if matched:
                return self._find_glob(name, matched)
        near = difflib.get_close_matches(name, known, n=3)
        raise ValueError(
            f"set_precision: no node, tensor or op type of the model is called {name!r}"
            + (f"; near to it: {', '.join(near)}" if near else "")
        )

    def _find_glob(self, glob: str, matched: list[str]) -> Target:
        """Nodes, and tensors that are not read or made by one of these. Params are
        meant where there is nothing else.
        """
        nodes = {i for name in matched for i in self._of_node.get(name, ())}
        tensors = [
            name
            for name in matched
            if name not in self._of_node and not nodes.issuperset(self._of_tensor[name])
        ]
        activations = [name for name in tensors if not self._is_stored(name)]
        if nodes and not activations:
            return Target("type", glob, nodes)
        return self._tensors("type", glob, nodes, activations or tensors)

    def _is_stored(self, name: str) -> bool:
        return name in self._params and name not in self._makers

    def _tensors(
        self, kind: str, subject: str, nodes: Iterable[int], names: list[str]
    ) -> TensorTarget:
        graph = self._sim.graph
        ops, results, inputs = set(nodes), set(nodes), set()
        params: dict[str, list[int]] = {}
        for index in results:
            sites = enumerate(graph.ops[index].input_sites)
            inputs |= {(index, slot) for slot, site in sites if site >= 0}
        for name in names:
            ops.update(self._of_tensor[name])
            if self._is_stored(name):
                for index, param in self._params[name]:
                    params.setdefault(param, []).append(index)
            elif name in self._makers:
                results.update(self._makers[name])
            else:
                inputs.update(self._inputs.get(name, ()))
        return TensorTarget(
            kind, subject, ops, (), sorted(inputs), sorted(results), params
        )


def _add(found: dict[str, list[int]], name: str, index: int) -> None:
    indices = found.setdefault(name, [])
    if index not in indices:
        indices.append(index)
