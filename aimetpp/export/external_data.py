# SPDX-License-Identifier: BSD-3-Clause
"""ONNX models that are too large for one file."""

from __future__ import annotations

import onnx
from google.protobuf.message import EncodeError
from onnx import TensorProto, external_data_helper

# Protobuf ends at 2 GiB.
MAX_MODEL_BYTES = 2**31 - 1
_SMALLEST_MOVED = 1024  # bytes; scales and shapes stay in the model
_ALIGNMENT = 4096  # of a tensor in the data file, so that it can be mapped


def fits_one_file(model: onnx.ModelProto, max_bytes: int | None = None) -> bool:
    """Whether a model can keep its weights, which protobuf refuses to count where they
    are too many.

    Args:
        model: with its weights.
        max_bytes: the largest model that can; None: MAX_MODEL_BYTES.
    """
    try:
        size: int = model.ByteSize()
    except EncodeError:
        return False
    return size <= (MAX_MODEL_BYTES if max_bytes is None else max_bytes)


def onnx_bytes(
    model: onnx.ModelProto, data_name: str, max_bytes: int | None = None
) -> tuple[bytes, bytes]:
    """A model and the file with its weights, as the bytes of both.

    Args:
        model: changed where its weights move.
        data_name: of the file with the weights, beside the model's.
        max_bytes: the largest model that keeps its weights; None: MAX_MODEL_BYTES.

    Returns:
        The model; the weights, empty where they are in the model.
    """
    if fits_one_file(model, max_bytes):
        return model.SerializeToString(), b""
    data = bytearray()
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.STRING or not tensor.HasField("raw_data"):
            continue
        content = tensor.raw_data
        if len(content) < _SMALLEST_MOVED:
            continue
        data.extend(b"\0" * (-len(data) % _ALIGNMENT))
        external_data_helper.set_external_data(
            tensor, data_name, offset=len(data), length=len(content)
        )
        data.extend(content)
        tensor.ClearField("raw_data")
    return model.SerializeToString(), bytes(data)
