# SPDX-License-Identifier: BSD-3-Clause
"""Names, initializers and edges of an ONNX graph that is being rewritten."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx
from onnx import TensorProto, helper


def names_read_by(node: onnx.NodeProto) -> Iterator[str]:
    """Tensors that a node reads, inside its subgraphs too."""
    yield from node.input
    for attribute in node.attribute:
        for inner in attribute.g.node:
            yield from names_read_by(inner)
        yield from (value.name for value in attribute.g.output)


def rename_tensors(
    node: onnx.NodeProto, names: Mapping[str, str], outputs: bool = False
) -> None:
    """Renames what a node reads, inside its subgraphs too, and where `outputs` is True
    what it makes.
    """
    for tensors in (node.input, node.output) if outputs else (node.input,):
        for index, name in enumerate(tensors):
            tensors[index] = names.get(name, name)
    for attribute in node.attribute:
        for inner in attribute.g.node:
            rename_tensors(inner, names, outputs)
        for value in attribute.g.output:
            value.name = names.get(value.name, value.name)


class GraphEditor:
    """Hands out unused names and keeps the initializers of one graph."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.outputs = {value.name for value in graph.output}
        self.initializers = {tensor.name: tensor for tensor in graph.initializer}
        self._names = {name for node in graph.node for name in node.output}
        self._names |= set(self.initializers) | {value.name for value in graph.input}
        self._names |= {name for node in graph.node for name in names_read_by(node)}

    def unique_name(self, wanted: str) -> str:
        """`wanted`, with a number if it is taken; taken from now on."""
        name, count = wanted, 0
        while name in self._names:
            count += 1
            name = f"{wanted}_{count}"
        self._names.add(name)
        return name

    def add_initializer(self, name: str, tensor: onnx.TensorProto) -> str:
        """Adds `tensor` and returns the name that it got."""
        tensor.name = self.unique_name(name)
        self.graph.initializer.append(tensor)
        self.initializers[tensor.name] = tensor
        return tensor.name

    def add_scalar(self, name: str, value: float) -> str:
        """A float32 scalar initializer; returns the name that it got."""
        tensor = helper.make_tensor("", TensorProto.FLOAT, [], [value])
        return self.add_initializer(name, tensor)

    def producers(self) -> dict[str, onnx.NodeProto]:
        """The node that makes each tensor."""
        return {name: node for node in self.graph.node for name in node.output if name}

    def drop_unused(self) -> None:
        """Drops initializers that nobody reads, and Identity nodes in front of them."""
        while True:
            used = {name for node in self.graph.node for name in names_read_by(node)}
            used |= self.outputs
            dead = [
                node
                for node in self.graph.node
                if node.op_type == "Identity" and node.output[0] not in used
            ]
            if not dead:
                break
            for node in dead:
                self.graph.node.remove(node)
        kept = [tensor for tensor in self.graph.initializer if tensor.name in used]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)
