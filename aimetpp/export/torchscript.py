# SPDX-License-Identifier: BSD-3-Clause
"""TorchScript files of a simulation: with the library's ops, or with plain aten ops."""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from aimetpp.common.files import atomic_write
from aimetpp.common.inference import eval_mode
from aimetpp.export.calling import named_forward, run_example
from aimetpp.export.encoding import require_ordered
from aimetpp.export.files import require_writable_folder
from aimetpp.quantization import QuantizeDequantize

if TYPE_CHECKING:
    from aimetpp.quantsim import QuantizationSimModel


def aten_fake_quantize(
    x: torch.Tensor,
    scale: torch.Tensor,
    offset: torch.Tensor,
    qmin: int,
    qmax: int,
    channel_axis: int | None,
) -> torch.Tensor:
    """Fake quantization in aten ops only.

    (clamp(round(x / scale) - offset, qmin, qmax) + offset) * scale, rounding half to
    even.

    Args:
        x: any shape; half-precision input is computed in float32.
        scale: float32, one number, or one for each index along `channel_axis` of `x`,
            in any shape of that many elements.
        offset: of the same kind.
        qmin: lowest integer of the grid.
        qmax: highest integer of the grid.
        channel_axis: None for per-tensor.

    Returns:
        A tensor of `x`'s shape and dtype.
    """
    scale = _along(channel_axis, scale, x)
    offset = _along(channel_axis, offset, x)
    dtype = x.dtype
    if dtype in (torch.float16, torch.bfloat16):
        x = x.to(torch.float32)
    q = torch.clamp(torch.round(x / scale) - offset, qmin, qmax)
    return ((q + offset) * scale).to(dtype)


def aten_float_quantize(
    x: torch.Tensor,
    dtype: torch.dtype,
    largest: float | None,
    scale: torch.Tensor | None,
    channel_axis: int | None,
) -> torch.Tensor:
    """Rounding to a floating-point format in aten ops only: round(x / scale) * scale.

    Args:
        x: any shape; half-precision input is computed in float32.
        dtype: the format.
        largest: what values beyond it become; None: infinite.
        scale: float32, one number, or one for each index along `channel_axis` of `x`;
            None for 1.
        channel_axis: None for per-tensor.

    Returns:
        A tensor of `x`'s shape and dtype.
    """
    y = x.to(torch.float64 if x.dtype is torch.float64 else torch.float32)
    steps = None if scale is None else _along(channel_axis, scale, x)
    if steps is not None:
        y = y / steps
    if largest is not None:
        y = torch.clamp(y, -largest, largest)
    y = y.to(dtype).to(y.dtype)
    return (y if steps is None else y * steps).to(x.dtype)


def _along(axis: int | None, values: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """One value, or one for each index along `axis` of `x`, to broadcast with `x`."""
    shape = [1] * x.dim() if axis is not None else []
    if axis is not None:
        shape[axis] = -1
    return values.reshape(shape)


def trace_simulation(
    sim: QuantizationSimModel, example_inputs: Any = None, portable: bool = False
) -> torch.jit.ScriptModule:
    """Traces `sim.model` in eval mode, and checks the trace on the example.

    Args:
        sim: a calibrated simulation.
        example_inputs: like the simulation's dummy input; None: the dummy input.
        portable: only aten ops in the trace, so that it loads where aimetpp is not
            installed; ranges and bit-widths are then constants.

    Raises:
        RuntimeError: a quantizer is not calibrated, or has a negative step; the trace
            does not compute what the simulation does.
    """
    from aimetpp.quantsim.tracing import split_dummy_input

    example = sim.dummy_input if example_inputs is None else example_inputs
    args, kwargs = split_dummy_input(example)
    for name, quantizer in sim.named_quantizers():
        if isinstance(quantizer, QuantizeDequantize):
            require_ordered(quantizer, quantizer.label or name)
    mode = sim.portable_mode() if portable else contextlib.nullcontext()
    with torch.no_grad(), warnings.catch_warnings(), eval_mode(sim.model):
        warnings.simplefilter("ignore", category=torch.jit.TracerWarning)
        _ignore_deprecation()
        expected = run_example(sim.model, args, kwargs)
        with mode, named_forward(sim.model, kwargs), _kinds_explained(expected):
            traced = torch.jit.trace(
                sim.model,
                example_inputs=args if not kwargs else None,
                example_kwarg_inputs=kwargs or None,
                check_trace=False,
                strict=False,
            )
        got = traced(*args, **kwargs)
    if portable:
        _require_aten_only(traced)
    _require_equal(got, expected, portable)
    return traced


@contextlib.contextmanager
def _kinds_explained(result: Any) -> Iterator[None]:
    """Says of a result that TorchScript has no type for what it consists of; the
    tracer prints its numbers.
    """
    try:
        yield
    except RuntimeError as error:
        if "cannot infer type" not in str(error):
            raise
        raise RuntimeError(
            "export_torchscript: lists and dicts of a TorchScript file hold entries of "
            f"one kind; this model returns {_structure(result)}: wrap it in a module "
            "that returns a tuple"
        ) from None


def _structure(result: Any) -> str:
    if isinstance(result, dict):
        entries = (f"{key}: {_structure(value)}" for key, value in result.items())
        return f"{{{', '.join(entries)}}}"
    if isinstance(result, tuple | list):
        entries = (_structure(value) for value in result)
        return f"{type(result).__name__}({', '.join(entries)})"
    return type(result).__name__


def _ignore_deprecation() -> None:
    # A FutureWarning since PyTorch 2.14, a DeprecationWarning before; whoever asks
    # for a TorchScript file can act on neither.
    warnings.filterwarnings("ignore", message=r"`torch\.jit\.\w+` is deprecated")


def _require_aten_only(traced: torch.jit.ScriptModule) -> None:
    kinds = {node.kind() for node in traced.inlined_graph.nodes()}
    ours = sorted(kind for kind in kinds if kind.startswith("aimetpp::"))
    if ours:
        raise RuntimeError(
            "export_torchscript: portable=True must leave only aten ops in the file, "
            f"got {', '.join(ours)}"
        )


def _require_equal(got: Any, expected: Any, portable: bool) -> None:
    """Bit for bit; a portable trace may differ by the rounding of float32."""
    pairs = zip(pytree.tree_leaves(got), pytree.tree_leaves(expected), strict=True)
    for index, (a, b) in enumerate(pairs):
        if not isinstance(b, torch.Tensor):
            continue
        tolerance = 1e-6 * float(b.abs().max()) if portable and b.numel() else 0.0
        if not torch.allclose(a, b, rtol=0.0, atol=tolerance, equal_nan=True):
            worst = float((a.double() - b.double()).abs().max())
            raise RuntimeError(
                f"export_torchscript: output {index} of the trace differs from the "
                f"simulation's by up to {worst:g} on example_inputs; is the model "
                "random, or does it keep state between calls?"
            )


def torchscript_bytes(
    sim: QuantizationSimModel, example_inputs: Any = None, portable: bool = False
) -> bytes:
    """The content of a TorchScript file; see `trace_simulation`."""
    traced = trace_simulation(sim, example_inputs, portable)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        _ignore_deprecation()
        torch.jit.save(traced, buffer)
    return buffer.getvalue()


def export_torchscript(
    sim: QuantizationSimModel,
    path: str | os.PathLike[str],
    portable: bool = False,
    example_inputs: Any = None,
) -> None:
    """Writes the simulation as one TorchScript file, atomically.

    Args:
        sim: a calibrated simulation.
        path: the file.
        portable: False: the file holds the library's ops and is loaded after
            `import aimetpp` or, in C++, beside libaimetpp. True: aten ops only.
        example_inputs: like the simulation's dummy input; None: the dummy input.

    Raises:
        OSError: the folder cannot be written; nothing has been computed.
        RuntimeError: as `trace_simulation`.
    """
    target = Path(path)
    require_writable_folder(target.parent)
    atomic_write(target, torchscript_bytes(sim, example_inputs, portable))
