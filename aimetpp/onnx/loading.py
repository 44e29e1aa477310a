# SPDX-License-Identifier: BSD-3-Clause
"""Encodings files keyed by tensors -> the quantizers of an ONNX simulation."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aimetpp.common.text import shortened
from aimetpp.export.leaves import read_encodings
from aimetpp.export.loading import apply_leaves

if TYPE_CHECKING:
    from aimetpp.onnx.quantsim import QuantizationSimModel


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
    leaves = read_encodings(source).leaves
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
