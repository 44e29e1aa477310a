# SPDX-License-Identifier: BSD-3-Clause
"""Calling a user's evaluation."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from aimetpp.amp.metric_identity import plain_name
from aimetpp.common.inference import inference


class NotANumberError(TypeError, ValueError):
    """A callback returned something that is no score."""


def check_callback(callback: Any, argument: str) -> Callable[[Any], Any]:
    """A callable of the model.

    Raises:
        TypeError: neither a CallbackFunc nor callable.
    """
    if not callable(callback):
        raise TypeError(
            f"{argument} must be a CallbackFunc or a callable of the model, got "
            f"{type(callback).__name__}"
        )
    return callback


def score_of(callback: Callable[[Any], Any], model: Any, argument: str) -> float:
    """What a callback says of the model.

    Raises:
        NotANumberError: it returned something that is not a number.
    """
    with inference(model):
        result = callback(model)
    if not isinstance(result, str | bytes):
        with contextlib.suppress(TypeError, ValueError, RuntimeError):
            return float(result)
    kind = "None" if result is None else type(result).__name__
    text = f" {result!r:.60}" if isinstance(result, str | bytes) else ""
    raise NotANumberError(
        f"{argument} ({plain_name(callback)}) must return a number, got {kind}{text}"
    )
