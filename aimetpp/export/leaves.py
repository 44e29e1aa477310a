# SPDX-License-Identifier: BSD-3-Clause
"""Encodings files of all versions, read and checked: one entry per tensor."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aimetpp.common.defs import QuantizationDataType
from aimetpp.common.precision import Precision

VERSIONS = ("0.6.1", "1.0.0", "2.0.0")
DEFAULT_VERSION = "1.0.0"
# Of versions 1.0.0 and 2.0.0: scales of scales, which no quantizer here has.
_SCALES_OF_SCALES = ("per_block_int_scale", "compressed_bw")
# Of version 1.0.0.
_EXTENTS = ("PER_TENSOR", "PER_CHANNEL", "PER_BLOCK")
# The 8-bit floats by exponent and mantissa bits, and by ONNX's name.
_FLOAT8: dict[tuple[Any, Any], str] = {(4, 3): "fp8_e4m3", (5, 2): "fp8_e5m2"}
_FLOAT8_NAMES = {"float8e4m3fn": "fp8_e4m3", "float8e5m2": "fp8_e5m2"}


def check_version(version: str | None) -> str:
    """`version`, or the default for None.

    Raises:
        ValueError: an encoding version that is not known.
    """
    if version is None:
        return DEFAULT_VERSION
    if version not in VERSIONS:
        raise ValueError(
            f"encoding_version must be one of {', '.join(VERSIONS)}, got {version!r}"
        )
    return version


@dataclass(frozen=True)
class Leaf:
    """One tensor's entry in a file.

    Attributes:
        precision: "int8", "fp16", "bf16", "fp8_e4m3", "fp8_e5m2".
        symmetric: of a grid that is centred on zero.
        scale, offset: one per range, blocks in row-major order; empty for the float
            formats. Offsets are of a grid that starts at 0; with `signed` of one that
            starts at its lowest integer (negated ONNX zero points), -127 or -128.
        signed: see `offset`.
        axis: of the ranges, where the file says so.
        float_scale: of the 8-bit floats, one per range.

    Raises:
        ValueError: numbers that no quantizer has.
    """

    precision: str
    symmetric: bool = False
    scale: tuple[float, ...] = ()
    offset: tuple[int, ...] = ()
    signed: bool = False
    axis: int | None = None
    float_scale: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        precision = Precision.parse(self.precision)
        _check_scales(self.float_scale or self.scale)
        if precision.data_type != QuantizationDataType.int:
            return
        if len(self.scale) != len(self.offset) or not self.scale:
            raise ValueError(f"{len(self.scale)} scales, {len(self.offset)} offsets")
        lowest = 1 - 2**precision.bitwidth
        for given, offset in zip(self.offset, self.offset_from(0), strict=True):
            if not lowest <= offset <= 0:
                number = f"zero point {-given}" if self.signed else f"offset {given}"
                raise ValueError(f"zero is not on the grid: {number}")

    def offset_from(self, lowest: int) -> tuple[int, ...]:
        """Offsets of a grid that starts at 0, where the quantizer's starts at `lowest`
        if it is signed.
        """
        if not self.signed:
            return self.offset
        start = min(lowest, 0) or -(2 ** (Precision.parse(self.precision).bitwidth - 1))
        return tuple(offset + start for offset in self.offset)


@dataclass(frozen=True)
class EncodingsFile:
    """What a file holds.

    Attributes:
        leaves: by name; activations of a file keyed by modules as "conv1.output.0".
        params: names of parameters; None where the file does not tell them apart.
        by_tensor: names are those of an ONNX file's tensors.
    """

    leaves: dict[str, Leaf]
    params: frozenset[str] | None
    by_tensor: bool


def read_encodings(source: Mapping[str, Any] | str | os.PathLike[str]) -> EncodingsFile:
    """Reads an encodings file of version 0.6.1 (keyed by modules or by tensors), 1.0.0
    or 2.0.0, or one with nothing but parameters' entries of 0.6.1 by name.

    Args:
        source: path, or the parsed content.

    Raises:
        TypeError: neither a path nor a dict.
        ValueError: not such a file; the message says which entry is wrong and how.
    """
    where, content = _content(source)
    if not isinstance(content, Mapping):
        raise ValueError(f"load_encodings: {where} is not an encodings file")
    version = content.get("version", VERSIONS[0])
    if version not in VERSIONS:
        raise ValueError(
            f"load_encodings: {where} must be of version {', '.join(VERSIONS)}, got "
            f"{version!r}"
        )
    file = _read(content, where)
    if not file.leaves:
        raise ValueError(f"load_encodings: {where} holds no encodings")
    return file


def _read(content: Mapping[str, Any], where: str) -> EncodingsFile:
    if "encodings" in content:
        leaves = _named_leaves(content["encodings"], _leaf_2_0_0, where)
        return EncodingsFile(_by_name(leaves, where), None, by_tensor=True)
    sections = ("activation_encodings", "param_encodings")
    if "version" not in content and not any(s in content for s in sections):
        content = {"param_encodings": content}
    activations, params = (content.get(section, {}) for section in sections)
    if isinstance(activations, list) or isinstance(params, list):
        first = [*_named_leaves(activations or [], _leaf_1_0_0, where)]
        second = [*_named_leaves(params or [], _leaf_1_0_0, where)]
        names = frozenset(name for name, _ in second)
        return EncodingsFile(_by_name([*first, *second], where), names, by_tensor=True)
    if not isinstance(activations, Mapping) or not isinstance(params, Mapping):
        raise ValueError(f"load_encodings: {where} has sections of an unknown kind")
    by_tensor = any(isinstance(entry, list) for entry in activations.values())
    flat = activations if by_tensor else dict(_by_module(activations, where))
    entries = [*flat.items(), *params.items()]
    leaves = [(n, _leaf(n, e, _leaf_0_6_1, where)) for n, e in entries]
    return EncodingsFile(_by_name(leaves, where), frozenset(params), by_tensor)


def _by_name(leaves: Iterable[tuple[str, Leaf]], where: str) -> dict[str, Leaf]:
    found: dict[str, Leaf] = {}
    for name, leaf in leaves:
        if name in found:
            raise ValueError(f"load_encodings: {where} has two entries named {name!r}")
        found[name] = leaf
    return found


def _content(source: Any) -> tuple[str, Any]:
    """A file's name and what it holds."""
    if isinstance(source, Mapping):
        return "the given dict", source
    if not isinstance(source, str | os.PathLike):
        raise TypeError(
            "load_encodings: encodings must be a path or a dict, got "
            f"{type(source).__name__}"
        )
    where = os.fspath(source)
    try:
        text = Path(where).read_text(encoding="utf-8")
        return where, json.loads(text, object_pairs_hook=_without_repeats)
    except ValueError as error:
        raise ValueError(f"load_encodings: {where} is not JSON: {error}") from error


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = Counter(name for name, _ in pairs)
        raise ValueError(f"two entries named {names.most_common(1)[0][0]!r}")
    return content


def _by_module(activations: Mapping[str, Any], where: str) -> Iterator[tuple[str, Any]]:
    """("conv1.output.0", entry), ..."""
    for module, kinds in activations.items():
        if not isinstance(kinds, Mapping):
            raise ValueError(
                f"load_encodings: {where}: {module!r} must have 'input' or 'output'"
            )
        for kind, slots in kinds.items():
            for slot, entry in slots.items():
                yield f"{module}.{kind}.{slot}", entry


def _named_leaves(entries: Any, parse: Any, where: str) -> Iterable[tuple[str, Leaf]]:
    if not isinstance(entries, list):
        raise ValueError(f"load_encodings: {where} must have a list of encodings")
    for entry in entries:
        if not isinstance(entry, Mapping) or "name" not in entry:
            raise ValueError(f"load_encodings: {where} has an entry without a name")
        name = entry["name"]
        wrong = [key for key in _SCALES_OF_SCALES if key in entry]
        if wrong:
            raise ValueError(
                f"load_encodings: {where}: the entry of {name!r} has {wrong[0]}: "
                "scales that are quantized themselves (LPBQ) are not supported"
            )
        yield name, _leaf(name, entry, parse, where)


def _leaf(name: str, entry: Any, parse: Any, where: str) -> Leaf:
    try:
        return parse(entry)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        keys = {
            _leaf_0_6_1: "bitwidth, dtype, is_symmetric, scale and offset",
            _leaf_1_0_0: "bw, dtype, is_sym, scale and offset",
            _leaf_2_0_0: "output_dtype and y_scale",
        }[parse]
        raise ValueError(
            f"load_encodings: {where}: the entry of {name!r} must have {keys} "
            f"({type(error).__name__}: {error})"
        ) from error


def _check_scales(scales: Iterable[float]) -> None:
    numbers = np.array(tuple(scales), dtype=np.float32)
    if not (np.isfinite(numbers) & (numbers > 0)).all():
        raise ValueError("a scale that is no positive float32 number")


def _whole(number: Any) -> int:
    if isinstance(number, bool) or int(number) != float(number):
        raise ValueError(f"{number!r} is no whole number")
    return int(number)


def _is_float(kind: Any) -> bool:
    if kind not in ("int", "float", "INT", "FLOAT"):
        raise ValueError(f"dtype {kind!r}")
    return bool(kind.lower() == "float")


def _float_leaf(entry: Mapping[str, Any], bits: int, scales: Iterable[Any]) -> Leaf:
    """Raises ValueError for a float of which scales say nothing or too little."""
    if bits != 8:
        return Leaf("bf16" if entry.get("exponent_bits") == 8 else f"fp{bits}")
    parts = entry.get("exponent_bits"), entry.get("mantissa_bits")
    if parts not in _FLOAT8:
        raise ValueError(
            "an 8-bit float must have 4 exponent_bits and 3 mantissa_bits, or 5 and 2, "
            f"got {parts[0]} and {parts[1]}"
        )
    float_scale = tuple(map(float, scales))
    if not float_scale:
        raise ValueError("an 8-bit float must have a scale")
    return Leaf(_FLOAT8[parts], float_scale=float_scale)


def _leaf_0_6_1(entry: Any) -> Leaf:
    channels = entry if isinstance(entry, list) else [entry]
    first = channels[0]
    for key in ("bitwidth", "dtype", "is_symmetric"):
        if any(channel.get(key) != first.get(key) for channel in channels):
            raise ValueError(f"channels with different {key}")
    bits = _whole(first["bitwidth"])
    if _is_float(first["dtype"]):
        return _float_leaf(first, bits, [c["scale"] for c in channels if "scale" in c])
    return Leaf(
        precision=f"int{bits}",
        symmetric={"True": True, "False": False}[str(first["is_symmetric"])],
        scale=tuple(float(channel["scale"]) for channel in channels),
        offset=tuple(_whole(channel["offset"]) for channel in channels),
    )


def _leaf_1_0_0(entry: Mapping[str, Any]) -> Leaf:
    bits = _whole(entry["bw"])
    if _is_float(entry["dtype"]):
        return _float_leaf(entry, bits, entry.get("scale", []))
    extent = entry.get("enc_type", "PER_CHANNEL")
    if extent not in _EXTENTS:
        raise ValueError(f"enc_type {extent!r}, not one of {', '.join(_EXTENTS)}")
    if extent == "PER_TENSOR" and len(entry["scale"]) > 1:
        raise ValueError(f"PER_TENSOR with {len(entry['scale'])} scales")
    return Leaf(
        precision=f"int{bits}",
        symmetric=bool(entry["is_sym"]),
        scale=tuple(map(float, entry["scale"])),
        offset=tuple(map(_whole, entry["offset"])),
    )


def _leaf_2_0_0(entry: Mapping[str, Any]) -> Leaf:
    kind = entry["output_dtype"]
    floats = {"float16": "fp16", "bfloat16": "bf16"}
    if kind in floats:
        return Leaf(floats[kind])
    if kind in _FLOAT8_NAMES:
        scales = np.ravel(entry["y_scale"]).tolist()
        return Leaf(_FLOAT8_NAMES[kind], float_scale=tuple(map(float, scales)))
    bits = int(kind.removeprefix("u").removeprefix("int"))
    scale = np.ravel(entry["y_scale"]).tolist()
    zero_point = np.ravel(entry.get("y_zero_point", [0] * len(scale))).tolist()
    is_signed = not kind.startswith("u")
    return Leaf(
        precision=f"int{bits}",
        symmetric=is_signed and not any(zero_point),
        scale=tuple(map(float, scale)),
        offset=tuple(-_whole(zero) for zero in zero_point),
        signed=is_signed,
        axis=None if "block_size" in entry else entry.get("axis"),
    )
