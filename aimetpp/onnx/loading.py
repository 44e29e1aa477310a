# SPDX-License-Identifier: BSD-3-Clause
"""Encodings files keyed by tensors -> the quantizers of an ONNX simulation."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from aimetpp.common.text import shortened
from aimetpp.export.encodings import VERSIONS
from aimetpp.export.loading import Leaf, apply_leaves, parse_file

if TYPE_CHECKING:
    from aimetpp.onnx.quantsim import QuantizationSimModel

_SECTIONS = ("activation_encodings", "param_encodings")
_FLOATS = {"float16": "fp16", "bfloat16": "bf16"}


def load_encodings(
    sim: QuantizationSimModel,
    source: Mapping[str, Any] | str | os.PathLike[str],
    strict: bool,
    partial: bool,
    allow_overwrite: bool,
    params_only: bool = False,
) -> None:
    """As `QuantizationSimModel.load_encodings` has it; `params_only` takes over the
    encodings of weights and no others.
    """
    leaves = dict(_leaves(source))
    quantizers: dict[str, set[int]] = {}
    for index, spec in enumerate(sim.placement.quantizers):
        if not params_only or spec.kind == "param":
            for site in spec.sites:
                quantizers.setdefault(sim.graph.site_name(site), set()).add(index)
    unknown = [name for name in leaves if name not in sim.reading.element_types]
    if strict and unknown:
        raise RuntimeError(
            f"load_encodings: no tensors of the model: {shortened(unknown)}"
        )
    # Tensors on the grid of another one have entries, and no quantizers.
    known = {name: leaf for name, leaf in leaves.items() if name in quantizers}
    if not known:
        raise RuntimeError("load_encodings: no quantizer stands at any of the tensors")
    apply_leaves(sim, known, quantizers, partial, None, allow_overwrite)


def _leaves(source: Any) -> Iterator[tuple[str, Leaf]]:
    where, content = "the given dict", source
    if not isinstance(source, Mapping):
        where, content = parse_file(source)
    version = content.get("version") if isinstance(content, Mapping) else None
    if version not in VERSIONS:
        raise ValueError(
            f"load_encodings: {where} must be an encodings file of version "
            f"{', '.join(VERSIONS)}, got {version!r}"
        )
    try:
        if version == "2.0.0":
            for entry in content["encodings"]:
                yield entry["name"], _leaf_2_0_0(entry)
            return
        for section in _SECTIONS:
            entries = content.get(section, {})
            if version == "0.6.1":
                yield from ((n, Leaf.parse(n, entry)) for n, entry in entries.items())
            else:
                yield from ((entry["name"], _leaf_1_0_0(entry)) for entry in entries)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"load_encodings: {where} is not an encodings file of version {version} "
            f"keyed by tensors ({type(error).__name__}: {error})"
        ) from error


def _leaf_1_0_0(entry: Mapping[str, Any]) -> Leaf:
    _reject_blocks(entry)
    if entry["dtype"] == "FLOAT":
        is_bf16 = entry.get("exponent_bits") == 8
        return Leaf("bf16" if is_bf16 else f"fp{entry['bw']}", False, (), ())
    scale, offset = tuple(entry["scale"]), tuple(entry["offset"])
    return Leaf(f"int{entry['bw']}", bool(entry["is_sym"]), scale, offset)


def _leaf_2_0_0(entry: Mapping[str, Any]) -> Leaf:
    """A signed type's grid is symmetric, an unsigned one's is not."""
    _reject_blocks(entry)
    dtype = str(entry["output_dtype"])
    if dtype in _FLOATS:
        return Leaf(_FLOATS[dtype], False, (), ())
    bits = int(dtype.removeprefix("u").removeprefix("int"))
    scale = entry["y_scale"]
    scales = tuple(scale) if isinstance(scale, list) else (scale,)
    zero = entry.get("y_zero_point", [0] * len(scales))
    zeros = zero if isinstance(zero, list) else [zero]
    signed = not dtype.startswith("u")
    lowest = -(2 ** (bits - 1)) if signed else 0
    return Leaf(f"int{bits}", signed, scales, tuple(lowest - z for z in zeros))


def _reject_blocks(entry: Mapping[str, Any]) -> None:
    if "block_size" in entry:
        raise ValueError(
            f"load_encodings: {entry['name']!r} is encoded in blocks, which "
            "simulations of ONNX models do not have"
        )
