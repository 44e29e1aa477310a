# SPDX-License-Identifier: BSD-3-Clause
"""Attention functions as the ops that they consist of.

PyTorch shows `F.multi_head_attention_forward` and `F.scaled_dot_product_attention` to
a function mode as one call each. A simulation runs them in parts, each of which is a
functional op of the calling module: projections, scaling, products, mask, softmax.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable
from typing import Any, Protocol

import torch
import torch.nn.functional as F

from aimetpp import _C


class PartsMode(Protocol):
    """The function mode: entered, it sees every function; `call` shows it one."""

    def __enter__(self) -> Any: ...

    def __exit__(self, *error: Any) -> None: ...

    def call(self, func: Any, *args: Any, **kwargs: Any) -> Any: ...


def _body_of(function: Any) -> Any:
    """A copy of a function of torch.nn.functional that does not hand itself over to
    modes, so that they see what it calls.
    """
    names = dict(vars(F))
    for name in names:
        if name.startswith("has_torch_function"):
            names[name] = _never
    body = types.FunctionType(
        function.__code__, names, function.__name__, function.__defaults__
    )
    body.__kwdefaults__ = function.__kwdefaults__
    return body


def _never(*args: Any) -> bool:
    return False


def add_bias(scores: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """What attention functions and baddbmm add to a product: a mask, or a bias. An op
    of its own: where it comes or stays away, the caller's additions keep their numbers.
    """
    return scores + bias


def is_added_mask(op: str, args: tuple[Any, ...]) -> bool:
    """Whether a call of `add_bias` adds 0 and very low numbers only, which lie on no
    grid: a mask needs no quantizer, also where none was when the model was traced.
    """
    return op == add_bias.__name__ and _C.classify_mask(args[1]).only_masks


_MULTI_HEAD_ATTENTION = _body_of(F.multi_head_attention_forward)


def _multi_head_attention(mode: PartsMode, *args: Any, **kwargs: Any) -> Any:
    with mode:
        return _MULTI_HEAD_ATTENTION(*args, **kwargs)


def _scaled_dot_product_attention(
    mode: PartsMode,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """As torch's function: query [..., L, E], key [..., S, E], value [..., S, V] ->
    [..., L, V]; attn_mask broadcasts to [..., L, S].

    Scores stay finite: a masked one is the dtype's lowest number, whose probability
    is 0 beside any other. Where a row has no other, torch's result is 0, not NaN.
    """
    if enable_gqa:
        key = key.repeat_interleave(query.size(-3) // key.size(-3), -3)
        value = value.repeat_interleave(query.size(-3) // value.size(-3), -3)
    if scale is None:
        scale = 1 / math.sqrt(query.size(-1))
    scores = mode.call(
        torch.matmul, mode.call(torch.mul, query, scale), key.transpose(-2, -1)
    )
    lowest = torch.finfo(query.dtype).min
    empty: torch.Tensor | None = None
    if is_causal:
        if attn_mask is not None:
            raise RuntimeError(
                "scaled_dot_product_attention: attn_mask must be None with "
                "is_causal=True"
            )
        shape = (query.size(-2), key.size(-2))
        seen = torch.ones(shape, dtype=torch.bool, device=query.device).tril()
        scores = scores.masked_fill(~seen, lowest)
    elif attn_mask is not None and attn_mask.dtype == torch.bool:
        empty = ~attn_mask.any(-1, keepdim=True)
        scores = scores.masked_fill(~attn_mask, lowest)
    elif attn_mask is not None:
        empty = (attn_mask == float("-inf")).all(-1, keepdim=True)
        scores = mode.call(add_bias, scores, attn_mask.clamp(min=lowest))
    probabilities = mode.call(torch.softmax, scores, -1)
    if dropout_p > 0.0:
        probabilities = F.dropout(probabilities, dropout_p)
    result: torch.Tensor = mode.call(torch.matmul, probabilities, value)
    return result if empty is None else result.masked_fill(empty, 0.0)


def _baddbmm(
    mode: PartsMode,
    input: torch.Tensor,  # noqa: A002 - torch's name
    batch1: torch.Tensor,
    batch2: torch.Tensor,
    *,
    beta: float = 1,
    alpha: float = 1,
) -> torch.Tensor:
    """Scores and what is added to them: beta * input + alpha * (batch1 @ batch2)."""
    result: torch.Tensor = mode.call(torch.bmm, batch1, batch2)
    if alpha != 1:
        result = mode.call(torch.mul, result, alpha)
    if beta == 0:
        return result
    if beta != 1:
        input = mode.call(torch.mul, input, beta)  # noqa: A001
    return mode.call(add_bias, result, input)


PARTS: dict[Any, Callable[..., Any]] = {
    F.multi_head_attention_forward: _multi_head_attention,
    F.scaled_dot_product_attention: _scaled_dot_product_attention,
    torch.baddbmm: _baddbmm,
    torch.Tensor.baddbmm: _baddbmm,
}
