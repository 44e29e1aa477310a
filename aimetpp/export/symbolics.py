# SPDX-License-Identifier: BSD-3-Clause
"""ONNX nodes for ops that PyTorch's TorchScript-based exporter does not know, or writes
so that no runtime takes them. transformers' decoders need them: they count packed
sequences by `cumsum(diff(positions) != 1)`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import onnx
import torch
from torch.onnx import symbolic_helper, symbolic_opset11
from torch.onnx._internal.torchscript_exporter.registration import registry
from torch.onnx.errors import UnsupportedOperatorError

from aimetpp import _C
from aimetpp.common.text import shortened

_END = 2**63 - 1


@contextmanager
def registered(name: str, symbolic: Callable[..., Any], opset: int) -> Iterator[None]:
    """Within the context the exporter writes the op `name` as `symbolic` says."""
    is_new = name not in registry.all_functions()
    torch.onnx.register_custom_op_symbolic(name, symbolic, opset)
    try:
        yield
    finally:
        torch.onnx.unregister_custom_op_symbolic(name, opset)
        if is_new:  # the exporter fails over a name without any symbolic
            registry._registry.pop(name)


@contextmanager
def missing_ops(opset: int) -> Iterator[None]:
    """Within the context the exporter writes the ops of this file, too. What the user
    has registered for them stays.
    """
    with ExitStack() as stack:
        if not registry.is_registered_op("aten::diff", opset):
            stack.enter_context(registered("aten::diff", _diff, opset))
        cumsum = registry.get_function_group("aten::cumsum")
        if cumsum is None or cumsum.get(opset) is symbolic_opset11.cumsum:
            stack.enter_context(registered("aten::cumsum", _cumsum, opset))
        yield


@contextmanager
def unknown_ops_explained(graph: _C.OpGraph) -> Iterator[None]:
    """Within the context an op that the exporter does not know is an error that says
    where it is and what to do, without a print of the whole model.

    Raises:
        RuntimeError: see above.
    """
    log = torch._C._jit_onnx_log
    torch._C._jit_onnx_log = lambda *_: None
    try:
        yield
    except UnsupportedOperatorError as error:
        places = [
            f"{op.name} ({op.source})"
            for op in graph.ops
            if f"'aten::{op.kind}'" in str(error).replace("::special_", "::")
        ]
        raise RuntimeError(
            f"ONNX export: {error}{f', at {shortened(places)}' if places else ''}; "
            "torch.onnx.register_custom_op_symbolic can say how it is written in ONNX"
        ) from error
    finally:
        torch._C._jit_onnx_log = log


@symbolic_helper.parse_args("v", "i", "i", "v", "v")
def _diff(g: Any, x: Any, n: int, dim: int, prepend: Any, append: Any) -> Any:
    """torch.diff: `n` times x[1:] - x[:-1] along `dim`; of bools, if they differ."""
    parts = [p for p in (prepend, x, append) if not symbolic_helper._is_none(p)]
    difference = "Xor" if x.type().scalarType() == "Bool" else "Sub"
    if len(parts) > 1:
        x = g.op("Concat", *parts, axis_i=dim)
    for _ in range(n):
        later, earlier = _slice(g, x, dim, 1, _END), _slice(g, x, dim, 0, -1)
        x = g.op(difference, later, earlier)
    return x


def _cumsum(g: Any, x: Any, dim: Any, dtype: Any = None) -> Any:
    """torch.cumsum, which sums bools and narrow integers in 64 bits; ONNX's does not
    take all of them, and sums in the type that it gets.
    """
    if x.type().scalarType() in ("Bool", "Byte", "Char", "Short", "Int"):
        x = g.op("Cast", x, to_i=onnx.TensorProto.INT64)
    return symbolic_opset11.cumsum(g, x, dim, dtype)


def _slice(g: Any, x: Any, axis: int, start: int, end: int) -> Any:
    """x[start:end] along `axis`."""
    numbers = (torch.tensor([number]) for number in (start, end, axis))
    return g.op("Slice", x, *(g.op("Constant", value_t=t) for t in numbers))
