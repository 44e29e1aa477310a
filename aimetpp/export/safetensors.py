# SPDX-License-Identifier: BSD-3-Clause
"""Tensors in the safetensors format: names, dtypes and shapes as JSON, then raw data.

A file holds nothing that runs when it is read. The layout is that of
https://github.com/huggingface/safetensors: eight bytes with the length of the header,
the header, the tensors one behind the other, little endian.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_DTYPES = {name: dtype for dtype, name in _NAMES.items()}
_LENGTH = struct.Struct("<Q")
_ALIGNMENT = 8


def to_bytes(tensors: Mapping[str, torch.Tensor]) -> bytes:
    """The content of a file.

    Raises:
        ValueError: a dtype that the format does not have, or no tensor; the message
            names it.
    """
    header: dict[str, Any] = {}
    data: list[bytes] = []
    end = 0
    for name, tensor in tensors.items():
        kind = getattr(tensor, "dtype", type(tensor).__name__)
        if kind not in _NAMES:
            raise ValueError(f"safetensors: {name!r} is {kind}; it cannot be stored")
        flat = tensor.detach().cpu().contiguous().flatten()
        data.append(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"")
        start, end = end, end + len(data[-1])
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return b"".join([_LENGTH.pack(len(text)), text, *data])


def load(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """The tensors of a file, by name.

    Raises:
        OSError: it cannot be read.
        ValueError: not such a file, or damaged.
    """
    content = Path(path).read_bytes()
    try:
        (length,) = _LENGTH.unpack_from(content)
        data_start = _LENGTH.size + length
        header = json.loads(content[_LENGTH.size : data_start])
        header.pop("__metadata__", None)
        return {
            name: _tensor(entry, content[data_start:]) for name, entry in header.items()
        }
    except (struct.error, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{os.fspath(path)} is no whole safetensors file: {error}"
        ) from error


def _tensor(entry: Mapping[str, Any], data: bytes) -> torch.Tensor:
    dtype, shape = _DTYPES[entry["dtype"]], [int(size) for size in entry["shape"]]
    start, end = entry["data_offsets"]
    size = math.prod(shape) * dtype.itemsize
    if not 0 <= start <= end <= len(data) or end - start != size:
        raise ValueError(f"{end - start} bytes at {start} for {shape} of {dtype}")
    if size == 0:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(data[start:end]), dtype=dtype).reshape(shape)
