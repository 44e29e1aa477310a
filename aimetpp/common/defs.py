# SPDX-License-Identifier: BSD-3-Clause
"""Definitions that user code names: data types, schemes, callbacks."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from enum import Enum
from typing import Any


class QuantizationDataType(Enum):
    """What a quantizer maps to: an integer grid, or a narrower float."""

    undefined = 0
    int = 1
    float = 2


class QuantScheme(Enum):
    """How calibration chooses a quantizer's range."""

    min_max = 1
    post_training_tf = 1
    post_training_tf_enhanced = 2
    training_range_learning_with_tf_init = 3
    training_range_learning_with_tf_enhanced_init = 4
    post_training_percentile = 6
    post_training_mse = 7

    @classmethod
    def parse(cls, scheme: QuantScheme | str | None) -> str:
        """The scheme's plain name: "min_max", "tf_enhanced", "percentile" or "mse".

        Ranges are learnable in every scheme, so that "range learning with an
        initialization" is the scheme of that initialization.

        Args:
            scheme: a member; one of those names, "tf" or a member's name; None is
                "min_max".

        Raises:
            ValueError: an unknown name; the message lists the known ones.
            TypeError: neither a member nor a string.
        """
        if scheme is None:
            return "min_max"
        if isinstance(scheme, cls):
            return _SCHEME_NAMES[scheme]
        if not isinstance(scheme, str):
            raise TypeError(
                "quant_scheme must be a QuantScheme or a string, got "
                f"{type(scheme).__name__}"
            )
        if scheme in _SCHEME_NAMES.values():
            return scheme
        if scheme == "tf":
            return "min_max"
        if scheme in cls.__members__:
            return _SCHEME_NAMES[cls.__members__[scheme]]
        raise ValueError(
            "quant_scheme must be a QuantScheme or one of "
            f'"tf", {", ".join(repr(n) for n in sorted(set(_SCHEME_NAMES.values())))}, '
            f"got {scheme!r}"
        )

    @classmethod
    def from_str(cls, alias: str) -> QuantScheme:
        """The member with a plain name ("tf_enhanced") or member name.

        Raises:
            ValueError: an unknown name.
        """
        name = cls.parse(alias)
        if alias in cls.__members__:
            return cls.__members__[alias]
        return next(member for member in cls if _SCHEME_NAMES[member] == name)


_SCHEME_NAMES = {
    QuantScheme.min_max: "min_max",
    QuantScheme.post_training_tf_enhanced: "tf_enhanced",
    QuantScheme.training_range_learning_with_tf_init: "min_max",
    QuantScheme.training_range_learning_with_tf_enhanced_init: "tf_enhanced",
    QuantScheme.post_training_percentile: "percentile",
    QuantScheme.post_training_mse: "mse",
}


class CallbackFunc:
    """A callback with the second argument that it is called with.

    Args:
        func: called as `func(model, func_callback_args)`, or as `func(model)` where
            it needs no second argument and `func_callback_args` is None.
        func_callback_args: any object, such as a data loader or a tuple.

    Raises:
        TypeError: `func` is not callable.
    """

    def __init__(
        self, func: Callable[..., Any], func_callback_args: Any = None
    ) -> None:
        if not callable(func):
            raise TypeError(
                f"CallbackFunc: func must be callable, got {type(func).__name__}"
            )
        self.func = func
        self.args = func_callback_args

    def __call__(self, model: Any) -> Any:
        """What the function returns for the model."""
        if self.args is None and takes_one(self.func):
            return self.func(model)
        return self.func(model, self.args)


def takes_one(func: Callable[..., Any]) -> bool:
    """True where `func(a)` is a valid call; False where not, or where nobody knows."""
    try:
        inspect.signature(func).bind(None)
    except (TypeError, ValueError):  # ValueError: a builtin without a signature
        return False
    return True
