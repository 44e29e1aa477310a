# SPDX-License-Identifier: BSD-3-Clause
"""Encodings as plain numbers, and the JSON files that hold them.

A file keyed by ONNX tensor names (versions 0.6.1, 1.0.0, 2.0.0) goes with an
exported ONNX file; one keyed by module names (`save_encodings_to_json`) needs none
to be loaded back. `loading` takes both.

In every file's `offset` the grid starts at 0 whatever the sign of its integers, so
that offset = min / scale; 2.0.0 gives ONNX zero points instead.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import aimetpp
from aimetpp import _C
from aimetpp.common.files import atomic_write
from aimetpp.common.precision import Precision
from aimetpp.export.encoding import Encoding
from aimetpp.export.files import require_writable_folder
from aimetpp.export.keys import activation_keys, param_key
from aimetpp.export.leaves import DEFAULT_VERSION, VERSIONS, check_version
from aimetpp.export.loading import load_encodings
from aimetpp.quantization.blocks import Blocks

if TYPE_CHECKING:
    from aimetpp.quantsim import QuantizationSimModel

# The float formats: as version 2.0.0 and ONNX call them, and what is written in the
# other versions where the bit-width alone does not tell them apart.
_FLOAT_NAMES = {
    "fp16": "float16",
    "bf16": "bfloat16",
    "fp8_e4m3": "float8e4m3fn",
    "fp8_e5m2": "float8e5m2",
}
_FORMAT_BITS = {
    form.name: {
        "exponent_bits": form.exponent_bits,
        "mantissa_bits": form.mantissa_bits,
    }
    for form in _C.narrow_floats()
    if form.name != "fp16"
}


def leaf_0_6_1(encoding: Encoding) -> list[dict[str, Any]]:
    """One dict per channel or block; `is_symmetric` is a string, as the format has
    it.
    """
    if encoding.is_float:
        leaf = {
            "bitwidth": encoding.bitwidth,
            "dtype": "float",
            **_FORMAT_BITS.get(encoding.precision, {}),
        }
        return [{**leaf, "scale": scale} for scale in encoding.scale] or [leaf]
    ends = (encoding.qmin, encoding.qmax)
    return [
        {
            "min": scale * (offset + ends[0]),
            "max": scale * (offset + ends[1]),
            "scale": scale,
            "offset": offset + encoding.qmin,
            "bitwidth": encoding.bitwidth,
            "dtype": "int",
            "is_symmetric": str(encoding.symmetric),
        }
        for scale, offset in zip(encoding.scale, encoding.offset, strict=True)
    ]


def leaf_1_0_0(name: str, encoding: Encoding) -> dict[str, Any]:
    """One object per tensor, with a list of scales and offsets.

    Raises:
        ValueError: blocks that the format cannot express.
    """
    if encoding.is_float:
        return {
            "name": name,
            "dtype": "FLOAT",
            "bw": encoding.bitwidth,
            **_extent_1_0_0(name, encoding),
            **_FORMAT_BITS.get(encoding.precision, {}),
            **({"scale": list(encoding.scale)} if encoding.scale else {}),
        }
    return {
        "name": name,
        "dtype": "INT",
        "bw": encoding.bitwidth,
        "is_sym": encoding.symmetric,
        "scale": list(encoding.scale),
        "offset": encoding.file_offset,
        **_extent_1_0_0(name, encoding),
    }


def _extent_1_0_0(name: str, encoding: Encoding) -> dict[str, Any]:
    if encoding.blocks is not None:
        _, size = _block_axis(name, encoding.blocks)
        if 1 not in encoding.blocks.size:
            raise ValueError(
                f"encodings file: {name!r}: version 1.0.0 has blocks of single "
                f"channels only, got block_size {encoding.blocks.size}; use 2.0.0"
            )
        return {"enc_type": "PER_BLOCK", "block_size": size}
    per_tensor = encoding.channel_axis is None
    return {"enc_type": "PER_TENSOR" if per_tensor else "PER_CHANNEL"}


def _block_axis(name: str, blocks: Blocks) -> tuple[int, int]:
    try:
        return blocks.axis_and_size()
    except ValueError as error:
        raise ValueError(f"encodings file: {name!r}: {error}") from error


def leaf_2_0_0(name: str, encoding: Encoding) -> dict[str, Any]:
    """One object per tensor in the words of ONNX QuantizeLinear.

    Raises:
        ValueError: blocks that the format cannot express.
    """
    if encoding.is_float:
        float_leaf = {"name": name, "output_dtype": _FLOAT_NAMES[encoding.precision]}
        return {**float_leaf, **_scales_2_0_0(encoding)}
    sign = "" if encoding.qmin < 0 else "u"
    leaf: dict[str, Any] = {
        "name": name,
        "output_dtype": f"{sign}int{encoding.bitwidth}",
    }
    if encoding.blocks is not None:
        return {**leaf, **_blocks_2_0_0(name, encoding, encoding.blocks)}
    return {**leaf, **_scales_2_0_0(encoding)}


def _scales_2_0_0(encoding: Encoding) -> dict[str, Any]:
    """Scales and zero points per tensor or per channel, if there are any."""
    if not encoding.scale:
        return {}
    per_tensor = encoding.channel_axis is None
    scale, zero_point = list(encoding.scale), encoding.zero_point
    found: dict[str, Any] = {"y_scale": scale[0] if per_tensor else scale}
    if any(zero_point):
        found["y_zero_point"] = zero_point[0] if per_tensor else zero_point
    if not per_tensor:
        found["axis"] = encoding.channel_axis
    return found


def _blocks_2_0_0(name: str, encoding: Encoding, blocks: Blocks) -> dict[str, Any]:
    """Scales and zero points nested as the blocks are in the tensor."""
    axis, size = _block_axis(name, blocks)
    leaf: dict[str, Any] = {
        "y_scale": np.reshape(encoding.scale, blocks.counts).tolist()
    }
    if any(encoding.zero_point):
        leaf["y_zero_point"] = np.reshape(encoding.zero_point, blocks.counts).tolist()
    return {**leaf, "axis": axis, "block_size": size}


@dataclass(frozen=True)
class FileHeader:
    """What an encodings file says besides the encodings."""

    quantizer_args: Mapping[str, Any]
    excluded_layers: tuple[str, ...] = ()

    @classmethod
    def of(cls, sim: QuantizationSimModel) -> FileHeader:
        """The defaults with which the simulation was built."""
        specs = sim.placement.quantizers
        params = [spec for spec in specs if spec.kind == "param"]
        activations = [spec for spec in specs if spec.kind != "param"]
        param = params[0].precision if params else "int8"
        activation = activations[0].precision if activations else "int8"
        args = {
            "quant_scheme": str(sim.quant_scheme),
            "param_bitwidth": Precision.parse(param).bitwidth,
            "activation_bitwidth": Precision.parse(activation).bitwidth,
            "dtype": "int" if activation.startswith("int") else "float",
            "is_symmetric": any(spec.symmetric for spec in params),
            "per_channel_quantization": any(spec.channel_axis >= 0 for spec in params),
        }
        return cls(args, tuple(sim.excluded_layers))


def document(
    activations: Mapping[str, Encoding],
    params: Mapping[str, Encoding],
    header: FileHeader,
    version: str,
) -> dict[str, Any]:
    """The content of an encodings file keyed by tensor names.

    Args:
        activations: encodings by tensor name, in the order of the file.
        params: the same of parameters.
        header: what else the file says; version 2.0.0 says nothing else.
        version: one of VERSIONS.
    """
    start: dict[str, Any] = {
        "producer": {"package": "aimetpp", "version": aimetpp.__version__},
        "version": version,
    }
    if version == "2.0.0":
        both = {**params, **activations}
        return {**start, "encodings": [leaf_2_0_0(n, e) for n, e in both.items()]}
    end = {
        "excluded_layers": list(header.excluded_layers),
        "quantizer_args": dict(header.quantizer_args),
    }
    if version == "0.6.1":
        sections: dict[str, Any] = {
            "activation_encodings": {n: leaf_0_6_1(e) for n, e in activations.items()},
            "param_encodings": {n: leaf_0_6_1(e) for n, e in params.items()},
        }
    else:
        sections = {
            "activation_encodings": [leaf_1_0_0(n, e) for n, e in activations.items()],
            "param_encodings": [leaf_1_0_0(n, e) for n, e in params.items()],
        }
    return {**start, **sections, **end}


def site_encodings(sim: QuantizationSimModel) -> dict[int, Encoding]:
    """The encoding of every site whose quantizer is on, by site id.

    Sites that share a quantizer share one `Encoding` object.

    Raises:
        RuntimeError: a quantizer that is on has not been calibrated.
    """
    found: dict[int, Encoding] = {}
    by_quantizer: dict[int, Encoding] = {}
    for site in sim.sites():
        if site.quantizer is None:
            continue
        key = id(site.quantizer)
        if key not in by_quantizer:
            by_quantizer[key] = Encoding.of(site.quantizer, site.name)
        found[site.id] = by_quantizer[key]
    return found


def module_document(sim: QuantizationSimModel) -> dict[str, Any]:
    """The content of an encodings file keyed by module names.

    Raises:
        RuntimeError: a quantizer that is on has not been calibrated.
    """
    activations: dict[str, dict[str, dict[str, Any]]] = {}
    params: dict[str, Any] = {}
    for site_id, encoding in site_encodings(sim).items():
        site = sim.graph.sites[site_id]
        leaf = leaf_0_6_1(encoding)
        if site.kind == "param":
            params[param_key(sim.graph, site)] = leaf
        else:
            call, kind, slot = activation_keys(sim.graph, site)
            activations.setdefault(call, {}).setdefault(kind, {})[slot] = leaf[0]
    header = FileHeader.of(sim)
    return {
        "producer": {"package": "aimetpp", "version": aimetpp.__version__},
        "version": "0.6.1",
        "activation_encodings": activations,
        "param_encodings": params,
        "excluded_layers": list(header.excluded_layers),
        "quantizer_args": dict(header.quantizer_args),
    }


def to_json(content: Mapping[str, Any]) -> str:
    """JSON text in the layout of the format's own files. NaN is refused."""
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def save_encodings_to_json(
    sim: QuantizationSimModel, path: str | os.PathLike[str], filename_prefix: str
) -> None:
    """Writes `<path>/<filename_prefix>.json`: every encoding, keyed by module names.

    Raises:
        OSError: the folder cannot be written.
        RuntimeError: a quantizer that is on has not been calibrated.
    """
    folder = Path(path)
    require_writable_folder(folder)
    target = folder / f"{filename_prefix}.json"
    atomic_write(target, to_json(module_document(sim)))


__all__ = [
    "DEFAULT_VERSION",
    "VERSIONS",
    "Encoding",
    "FileHeader",
    "check_version",
    "document",
    "leaf_0_6_1",
    "leaf_1_0_0",
    "leaf_2_0_0",
    "load_encodings",
    "module_document",
    "save_encodings_to_json",
    "site_encodings",
    "to_json",
]
