# SPDX-License-Identifier: BSD-3-Clause
"""ONNX's integer types: which one holds a grid, and from which opset on."""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import TensorProto, version_converter

from aimetpp.export.encodings import Encoding

# Smallest opset with 4 and 16-bit QuantizeLinear types, and with blocks.
WIDE_TYPES_OPSET = 21
# With 8-bit floats.
FLOAT8_OPSET = 19
_MAX_BITWIDTH = 16

FLOAT8_TYPES = {
    "fp8_e4m3": TensorProto.FLOAT8E4M3FN,
    "fp8_e5m2": TensorProto.FLOAT8E5M2,
}
_SIGNED = {4: TensorProto.INT4, 8: TensorProto.INT8, 16: TensorProto.INT16}
_UNSIGNED = {4: TensorProto.UINT4, 8: TensorProto.UINT8, 16: TensorProto.UINT16}


def container_bitwidth(encoding: Encoding, site: str) -> int:
    """Bits of the ONNX integer type that holds the encoding's grid: 4, 8 or 16.

    Raises:
        ValueError: the grid is wider than ONNX can express.
    """
    for bits in _SIGNED:
        if encoding.bitwidth <= bits:
            return bits
    raise ValueError(
        f"ONNX export: site {site!r} is {encoding.precision}, and QuantizeLinear has "
        f"integer types of up to {_MAX_BITWIDTH} bits; set it to int{_MAX_BITWIDTH} or "
        "less, fp8_e4m3, fp8_e5m2, fp16, bf16 or fp32"
    )


def required_opset(
    encodings: Mapping[int, Encoding], site_names: Mapping[int, str]
) -> int:
    """The smallest opset whose nodes can express all encodings.

    Raises:
        ValueError: no opset can; the message names the site.
    """
    integers = {site: e for site, e in encodings.items() if not e.is_float}
    bits = {container_bitwidth(e, site_names[s]) for s, e in integers.items()}
    if any(e.blocks is not None for e in integers.values()) or bits - {8}:
        return WIDE_TYPES_OPSET
    return FLOAT8_OPSET if any(e.is_scaled_float for e in encodings.values()) else 13


def raise_opset(model: onnx.ModelProto, version: int) -> onnx.ModelProto:
    """The model, which may be changed, at `version`, or as it is where that is lower.

    Raises:
        RuntimeError: onnx's own, of a model that it cannot convert.
    """
    current = next(opset for opset in model.opset_import if not opset.domain)
    if current.version >= version:
        return model
    # From 20 to 21 nodes change in nothing but the types they allow, but for one.
    ops = {node.op_type for node in model.graph.node}
    if (current.version, version) == (20, 21) and "GroupNormalization" not in ops:
        current.version = version
        return model
    return version_converter.convert_version(model, version)


def grid_type(encoding: Encoding, site: str) -> int:
    """The TensorProto type of QuantizeLinear's output that holds the encoding's grid.

    Raises:
        ValueError: the grid is wider than ONNX can express.
    """
    if encoding.is_scaled_float:
        return FLOAT8_TYPES[encoding.precision]
    bits = container_bitwidth(encoding, site)
    return (_SIGNED if encoding.qmin < 0 else _UNSIGNED)[bits]


def is_narrower_than_type(encoding: Encoding, site: str) -> bool:
    """True where the type holds integers that the grid does not have.

    Raises:
        ValueError: the grid is wider than ONNX can express.
    """
    bits = container_bitwidth(encoding, site)
    low = -(1 << (bits - 1)) if encoding.qmin < 0 else 0
    return (encoding.qmin, encoding.qmax) != (low, low + (1 << bits) - 1)
