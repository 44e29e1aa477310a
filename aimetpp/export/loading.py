# SPDX-License-Identifier: BSD-3-Clause
"""Encodings files -> the quantizers of a simulation."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aimetpp.export.float8_loading import check_float8, load_float8
from aimetpp.export.keys import activation_keys, param_key
from aimetpp.export.leaves import EncodingsFile, Leaf, read_encodings
from aimetpp.quantization import QuantizeDequantize

if TYPE_CHECKING:
    from aimetpp.quantsim import QuantizationSimModel


def _quantizers_by_key(sim: QuantizationSimModel) -> dict[str, set[int]]:
    """Indices in the placement by key; none where the site has no quantizer.

    A parameter that is read in several calls has a site in each.
    """
    indices: dict[str, set[int]] = {}
    for site in sim.graph.sites:
        if site.kind == "param":
            key = param_key(sim.graph, site)
        else:
            key = ".".join(activation_keys(sim.graph, site))
        index = sim.placement.quantizer_of_site[site.id]
        indices.setdefault(key, set()).update([index] if index >= 0 else [])
    return indices


def load_encodings(
    sim: QuantizationSimModel,
    source: Mapping[str, Any] | str | os.PathLike[str],
    strict: bool = True,
    partial: bool = True,
    requires_grad: bool | None = None,
    allow_overwrite: bool = True,
    onnx_export_args: Mapping[str, Any] | None = None,
) -> None:
    """Gives quantizers the encodings of a file, keyed by modules
    (`save_encodings_to_json`) or by the tensors of the exported ONNX file, in version
    0.6.1, 1.0.0 or 2.0.0.

    Scales and offsets are afterwards exactly those of the file. All of the file is
    checked before anything is changed. Encodings that follow from others are passed
    over: of tensors that only move another's values, and of 32-bit biases.

    Args:
        sim: a simulation of the same model.
        source: path, or the parsed content.
        strict: a name that the simulation has no quantizer for is an error;
            otherwise it is skipped.
        partial: quantizers without an entry keep their state; otherwise they are
            turned off.
        requires_grad: whether the loaded ranges are trained; None: as they are.
        allow_overwrite: whether calibration may change the loaded ranges.
        onnx_export_args: where names are an ONNX file's: the arguments of its export
            that change names (`input_names`, `output_names`).

    Raises:
        RuntimeError: names that do not match, all of them listed; a wrong number of
            channels.
        ValueError: not such a file; two entries that disagree on one quantizer.
    """
    file = read_encodings(source)
    leaves, quantizers = _known(sim, file, strict, onnx_export_args or {})
    check_float8(sim, leaves, quantizers)
    apply_leaves(sim, leaves, quantizers, partial, requires_grad, allow_overwrite)
    load_float8(sim, leaves, quantizers, allow_overwrite)


def load_param_encodings(
    sim: QuantizationSimModel, source: Mapping[str, Any] | str | os.PathLike[str]
) -> None:
    """Gives parameters' quantizers the encodings of a file of any version, for good.

    Raises:
        RuntimeError, ValueError: as `load_encodings`; a file without parameters.
    """
    file = read_encodings(source)
    params = file.params
    if params is None:
        keys = {param_key(sim.graph, s) for s in sim.graph.sites if s.kind == "param"}
        params = frozenset(keys & set(file.leaves))
    if not params:
        where = source if isinstance(source, str | os.PathLike) else "the given dict"
        raise ValueError(f"load_encodings: {where} holds no parameter encodings")
    leaves = {name: leaf for name, leaf in file.leaves.items() if name in params}
    only_params = EncodingsFile(leaves, params, by_tensor=False)
    known, quantizers = _known(sim, only_params, True, {})
    check_float8(sim, known, quantizers)
    apply_leaves(sim, known, quantizers, True, False, allow_overwrite=False)
    load_float8(sim, known, quantizers, allow_overwrite=False)


def _known(
    sim: QuantizationSimModel,
    file: EncodingsFile,
    strict: bool,
    onnx_export_args: Mapping[str, Any],
) -> tuple[dict[str, Leaf], dict[str, set[int]]]:
    """The file's entries that count, and indices in the placement by their names."""
    leaves = dict(file.leaves)
    quantizers = _quantizers_by_key(sim)
    derived: set[str] = set()
    if file.by_tensor:
        found, derived = _quantizers_by_tensor(sim, leaves, onnx_export_args)
        quantizers = {**found, **quantizers}
    for name, leaf in file.leaves.items():
        is_bias = leaf.precision == "int32" and not quantizers.get(name)
        if name in derived or is_bias:
            del leaves[name]
    unknown = [key for key in leaves if key not in quantizers]
    without = [key for key in leaves if key in quantizers and not quantizers[key]]
    if strict and (unknown or without):
        parts = []
        if unknown:
            parts.append(f"not in the model: {', '.join(unknown)}")
        if without:
            parts.append(f"no quantizer there: {', '.join(without)}")
        raise RuntimeError(f"load_encodings: names do not match; {'; '.join(parts)}")
    known = {key: leaf for key, leaf in leaves.items() if quantizers.get(key)}
    return known, quantizers


def _quantizers_by_tensor(
    sim: QuantizationSimModel,
    names: Mapping[str, Leaf],
    onnx_export_args: Mapping[str, Any],
) -> tuple[dict[str, set[int]], set[str]]:
    """Indices in the placement by the name of a tensor of the ONNX file, and names
    whose encodings follow from others.
    """
    from aimetpp.export.tensor_names import sites_by_tensor

    sites, derived = sites_by_tensor(sim, names, onnx_export_args)
    of_site = sim.placement.quantizer_of_site
    return {
        name: {of_site[site] for site in found if of_site[site] >= 0}
        for name, found in sites.items()
    }, derived


def apply_leaves(
    sim: Any,
    leaves: Mapping[str, Leaf],
    quantizers: Mapping[str, set[int]],
    partial: bool,
    requires_grad: bool | None,
    allow_overwrite: bool,
) -> None:
    """Gives quantizers their encodings; all are checked before anything is changed.

    Args:
        sim: a simulation, of any front.
        leaves: encodings by name.
        quantizers: indices in the placement by name.
        partial: as in `load_encodings`.
        requires_grad: as in `load_encodings`.
        allow_overwrite: as in `load_encodings`.

    Raises:
        RuntimeError: a wrong number of channels.
        ValueError: two entries that disagree on one quantizer.
    """
    chosen: dict[int, tuple[str, Leaf]] = {}
    for key, leaf in leaves.items():
        for index in quantizers[key]:
            other = chosen.setdefault(index, (key, leaf))
            if other[1] != leaf:
                raise ValueError(
                    f"load_encodings: {other[0]} and {key} share one quantizer, but "
                    "their encodings differ"
                )
    sim._bank.adopt_standing()
    for index, (key, leaf) in chosen.items():
        _check_channels(sim._bank.entries[index].integer, key, leaf)
    precisions = sim.precisions()
    for index in range(len(precisions)):
        if index in chosen:
            precisions[index] = chosen[index][1].precision
        elif not partial:
            precisions[index] = "fp32"
    sim.apply_precisions(precisions)
    for index, (_, leaf) in chosen.items():
        if leaf.scale:
            quantizer = sim._bank.entries[index].integer
            offset = leaf.offset_from(int(quantizer.grid[0]))
            quantizer.set_encoding(leaf.scale, offset, leaf.symmetric)
            quantizer.allow_overwrite(allow_overwrite)
            if requires_grad is not None:
                quantizer.min.requires_grad_(requires_grad)
                quantizer.max.requires_grad_(requires_grad)


def _check_channels(quantizer: QuantizeDequantize, key: str, leaf: Leaf) -> None:
    channels = quantizer.min.numel()
    if leaf.scale and len(leaf.scale) != channels:
        raise RuntimeError(
            f"load_encodings: {key} has {channels} channels, the file has "
            f"{len(leaf.scale)}"
        )
