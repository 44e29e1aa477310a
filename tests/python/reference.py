# SPDX-License-Identifier: BSD-3-Clause
"""Fake quantization spelled out in NumPy: the definition that the ops must meet.

Values are computed in the ops' own precision, so they can be compared bit for bit;
gradients in float64 throughout, so they are compared with a tolerance.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FLOAT32_EPSILON = 2.0**-23


def compute_dtype(x_dtype: np.dtype, qmin: int, qmax: int) -> type:
    """float32, unless x is float64 or the grid is too fine for float32."""
    too_fine = FLOAT32_EPSILON > 0.25 / (qmax - qmin)
    return np.float64 if x_dtype == np.float64 or too_fine else np.float32


def affine_grid(min, max, qmin: int, qmax: int, symmetric: bool):
    """Scale and offset, in the dtype of min and max, which may be arrays."""
    dtype = min.dtype.type
    steps = qmax - qmin
    smallest = dtype(np.minimum(FLOAT32_EPSILON, 0.01 / steps))
    scale = (max - min) / dtype(steps)
    scale = np.where(scale < 0, -1, 1).astype(dtype) * np.maximum(
        np.abs(scale), smallest
    )
    if symmetric:
        offset = np.zeros_like(scale) - dtype(np.rint((qmin + qmax) / 2))
    else:
        offset = np.clip(np.rint(min / scale) - dtype(qmin), -dtype(qmax), -dtype(qmin))
    return scale, offset


def along_axis(values: NDArray, x: NDArray, axis: int | None) -> NDArray:
    """Reshapes one value per channel so that it broadcasts over x."""
    shape = [1] * x.ndim
    if axis is not None:
        shape[axis] = x.shape[axis]
    return values.reshape(shape)


def transform(
    mode: str,
    x: NDArray,
    min: NDArray,
    max: NDArray,
    qmin: int,
    qmax: int,
    symmetric: bool,
    axis: int | None = None,
) -> NDArray:
    """The value of fake_quantize, quantize or dequantize, in x's dtype."""
    dtype = compute_dtype(x.dtype, qmin, qmax)
    scale, offset = affine_grid(
        along_axis(min.astype(dtype), x, axis),
        along_axis(max.astype(dtype), x, axis),
        qmin,
        qmax,
        symmetric,
    )
    value = x.astype(dtype)
    if mode != "dequantize":
        with np.errstate(over="ignore"):
            value = np.rint(value / scale) - offset
        value = np.clip(value, dtype(qmin), dtype(qmax))
    if mode != "quantize":
        value = (value + offset) * scale
    if x.dtype == np.float16:  # float64 to float16 goes by way of float32
        value = value.astype(np.float32)
    return value.astype(x.dtype)


@dataclass
class Gradients:
    x: NDArray
    min: NDArray
    max: NDArray


def fake_quantize_gradients(
    grad: NDArray,
    x: NDArray,
    min: NDArray,
    max: NDArray,
    qmin: int,
    qmax: int,
    symmetric: bool,
    axis: int | None = None,
) -> Gradients:
    """Closed forms: dL/dx, and the sums per channel for dL/dmin and dL/dmax.

    Which elements are inside the grid is decided in the ops' precision, because an
    element on the border belongs to one side or the other.
    """
    dtype = compute_dtype(x.dtype, qmin, qmax)
    lows = along_axis(min.astype(dtype), x, axis)
    scale, offset = affine_grid(
        lows, along_axis(max.astype(dtype), x, axis), qmin, qmax, symmetric
    )
    ratio = x.astype(dtype) / scale
    unclamped = np.rint(ratio) - offset
    inside = (unclamped >= qmin) & (unclamped <= qmax)

    grad = grad.astype(np.float64)
    low, scale, offset, ratio = (
        a.astype(np.float64) for a in (lows, scale, offset, ratio)
    )
    clamped = np.clip(unclamped, qmin, qmax) + offset
    dscale = grad * np.where(inside, np.rint(ratio) - ratio, clamped)
    doffset = grad * np.where(inside, 0.0, scale)

    # Through scale = (max - min) / N and offset = round(min / scale) - qmin.
    steps = qmax - qmin
    free = np.rint(low / scale) - qmin
    moves = (not symmetric) & (free >= -qmax) & (free <= -qmin)
    direct = np.where(moves, doffset / scale, 0.0)
    dscale = dscale - direct * low / scale
    others = tuple(i for i in range(x.ndim) if axis is None or i != axis % x.ndim)
    dmin = (direct - dscale / steps).sum(axis=others).reshape(min.shape)
    dmax = (dscale / steps).sum(axis=others).reshape(max.shape)
    return Gradients(np.where(inside, grad, 0.0), dmin, dmax)
