# SPDX-License-Identifier: BSD-3-Clause
"""The calibrated simulation that a configuration asks for.

A tensor is quantized where any node that is to be quantized reads or writes it; a
weight where one reads it.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import onnx

from aimetpp import _C
from aimetpp.common.configs import find_config
from aimetpp.onnx.mixed_precision import MixedPrecisionConfigurator
from aimetpp.onnx.naming import NodeNameBook, OpType
from aimetpp.onnx.quantsim import QuantizationSimModel
from aimetpp.quark.config import Plan

__all__ = ["apply_requests", "simulate"]


def simulate(plan: Plan, model: Any, data: list[dict[str, Any]]) -> Any:
    """The simulation, calibrated and at the precisions of the whole model.

    Raises:
        ValueError: a node or an op type that is not there.
    """
    sim = _build(plan, model, data, fused=True)
    chosen = _chosen_ops(sim, plan)
    if len(chosen) < sum(op.call >= 0 for op in sim.graph.ops):
        cut = _cut_chains(sim, chosen)
        if cut:
            sim = _build(plan, model, data, fused=False)
        touched = _touched(sim, chosen, cut)
        off = [i for i in range(len(sim.precisions())) if i not in touched]
        precisions = sim.precisions()
        for index in off:
            precisions[index] = "fp32"
        sim.apply_precisions(precisions)
        sim.pin_quantizers(off)
    _set_calibration(sim, plan)
    sim.int32_bias = plan.int32_bias
    sim.compute_encodings(lambda session: [session.run(None, feeds) for feeds in data])
    wanted = {"param": plan.weight}
    sim.apply_precisions(
        [
            now if now == "fp32" else wanted.get(spec.kind, plan.activation)
            for now, spec in zip(
                sim.precisions(), sim.placement.quantizers, strict=True
            )
        ]
    )
    return sim


def _set_calibration(sim: Any, plan: Plan) -> None:
    """Gives each quantizer the scheme and the symmetry that it is to be calibrated
    with; what is said of layers later wins.
    """
    kinds = [spec.kind for spec in sim.placement.quantizers]
    quantizers = sim.quantizers_by_index

    def set_scheme(index: int, scheme: str | None) -> None:
        # Bounds fixed by the config leave nothing to search for.
        quantizer = quantizers[index]
        if scheme is not None and quantizer.fixed_min is quantizer.fixed_max is None:
            quantizer.scheme = scheme

    for index, kind in enumerate(kinds):
        set_scheme(index, plan.weight_scheme if kind == "param" else plan.scheme)
    book = NodeNameBook(sim)
    for request in plan.requests:
        for name in request.nodes:
            ops = set(book.find(OpType(name) if request.by_type else name).ops)
            for index in _touched(sim, ops, {}):
                if kinds[index] == "param":
                    set_scheme(index, request.weight_scheme)
                    continue
                set_scheme(index, request.scheme)
                if request.symmetric is not None:
                    quantizers[index].symmetric = request.symmetric
    if plan.percentile is not None:
        for quantizer in quantizers:
            quantizer.percentile = plan.percentile


def _build(plan: Plan, model: Any, data: list[dict[str, Any]], fused: bool) -> Any:
    config = json.loads(
        find_config("default" if plan.per_channel else "default_per_tensor").read_text()
    )
    config["defaults"]["ops"]["is_symmetric"] = plan.symmetric
    if not fused:
        config["supergroups"] = []
    with tempfile.TemporaryDirectory(prefix="aimetpp-quark-") as folder:
        path = Path(folder) / "config.json"
        path.write_text(json.dumps(config), encoding="utf-8")
        return QuantizationSimModel(
            model,
            dummy_input=data[0],
            quant_scheme=plan.scheme,
            config_file=path,
            activation_type=_calibrated(plan.activation),
            param_type=_calibrated(plan.weight),
            providers=plan.providers,
        )


def _calibrated(precision: str) -> str:
    """An integer type, since a float type has no range to calibrate, and what it is
    narrowed to has.
    """
    return precision if precision.startswith("int") else "int8"


def _chosen_ops(sim: Any, plan: Plan) -> set[int]:
    """The ops that are to be quantized."""
    ops = {index: op for index, op in enumerate(sim.graph.ops) if op.call >= 0}
    names = {op.name for op in ops.values()}
    for name in (*plan.only_nodes, *plan.exclude):
        if name not in names:
            raise ValueError(f"the model has no node {name!r} that could be quantized")
    _check_types(plan.only_types, {op.onnx_type for op in ops.values()})
    left = _ops_of_requests(sim, plan)
    chosen = {
        index
        for index, op in ops.items()
        if index not in left
        and op.name not in plan.exclude
        and (not plan.only_nodes or op.name in plan.only_nodes)
        and (not plan.only_types or op.onnx_type in plan.only_types)
    }
    if not chosen:
        raise ValueError("no node is left to quantize")
    return chosen


def _check_types(asked: list[str], there: set[str]) -> None:
    for name in asked:
        if name not in there and not onnx.defs.has(name):
            raise ValueError(
                f"op_types_to_quantize: {name!r} is no ONNX op type and none of the "
                f"model's, {', '.join(sorted(there))}"
            )


def _ops_of_requests(sim: Any, plan: Plan) -> set[int]:
    """The ops that the requests, of which the latest wins, leave in float."""
    book = NodeNameBook(sim)
    left: set[int] = set()
    for request in plan.requests:
        for name in request.nodes:
            found = book.find(OpType(name) if request.by_type else name).ops
            left = left | set(found) if request.is_float else left - set(found)
    return left


def _cut_chains(sim: Any, chosen: set[int]) -> dict[int, bool]:
    """By tensor inside of a chain that is one kernel, whether its maker is chosen and
    its reader is not; nothing where that is so of none.
    """
    graph, placement = sim.graph, sim.placement
    ops, of_site = graph.ops, placement.quantizer_of_site
    readers: dict[int, set[int]] = {}
    for index, op in enumerate(ops):
        for tensor in op.inputs:
            readers.setdefault(tensor, set()).add(index)
    inside = {
        tensor: index in chosen and bool(readers.get(tensor, set()) - chosen)
        for index, op in enumerate(ops)
        for tensor, site in zip(op.outputs, op.output_sites, strict=True)
        if site >= 0
        and of_site[site] < 0
        and any(section == "supergroups" for section, _, _ in placement.rules(site))
    }
    return inside if any(inside.values()) else {}


def _touched(sim: Any, chosen: set[int], inside: dict[int, bool]) -> set[int]:
    """The quantizers that are on: of what chosen ops read and write.

    Ops that only move data are quantized where what they read is.

    Args:
        sim: all of whose quantizers are on.
        chosen: ops.
        inside: tensors inside of chains, and whether they are quantized after all.
    """
    graph, placement = sim.graph, sim.placement
    ops, of_site = graph.ops, placement.quantizer_of_site
    found: set[int] = set()
    for index in chosen:
        op = ops[index]
        found.update(of_site[param.site] for param in op.params)
        if op.role == "grid_preserving":
            continue
        for slot, tensor in enumerate(op.inputs):
            if inside.get(tensor, True):
                found.add(_C.quantizer_of_input(graph, placement, index, slot))
        for tensor, site in zip(op.outputs, op.output_sites, strict=True):
            if site >= 0 and inside.get(tensor, True):
                found.add(of_site[site])
    return found - {-1}


def apply_requests(sim: Any, plan: Plan) -> None:
    """Sets and pins the precisions that layers of their own are to have."""
    left_out = [i for i, now in enumerate(sim.precisions()) if now == "fp32"]
    for request in plan.requests:
        if request.is_float:
            continue  # left out already
        nodes: list[Any] = list(request.nodes)
        if request.by_type:
            nodes = [OpType(name) for name in nodes]
        _set_nodes(sim, [(n, request.activation, request.weight) for n in nodes])
    precisions = sim.precisions()
    for index in left_out:
        precisions[index] = "fp32"
    sim.apply_precisions(precisions)


def _set_nodes(sim: Any, requests: list[tuple[Any, str | None, str | None]]) -> None:
    if not requests:
        return
    configurator = MixedPrecisionConfigurator(sim)
    weightless = {
        op.name
        for op in sim.graph.ops
        if all(param.name != "weight" for param in op.params)
    }
    for node, activation, weight in requests:
        has_weight = weight is not None and node not in weightless
        params = {"weight": weight} if has_weight else None
        configurator.set_precision(node, activation, params)
    configurator.apply(log_file=None, strict=False)
