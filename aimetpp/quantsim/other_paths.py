# SPDX-License-Identifier: BSD-3-Clause
"""Whether a model takes the same path with other values than those of dummy_input."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch.utils import _pytree as pytree

from aimetpp import _C
from aimetpp.common.inference import inference
from aimetpp.common.text import source_of_caller
from aimetpp.nn.off_path import LIBRARY_FOLDERS
from aimetpp.nn.runtime import STATE, in_turn
from aimetpp.quantsim.tracing import Tracer, split_dummy_input


class _SecondForward:
    """Stands in for the tracer in a second forward: compares the calls of modules and
    functional ops, in their order, with those that were traced.
    """

    def __init__(self, traced: Tracer) -> None:
        self._traced = traced
        self._position = 0
        self.difference = ""
        self.writers: dict[str, Any] = {}  # leaves that write into parameters, by name
        # What the leaf that runs has read of its parameters, and how that was.
        self._copies: dict[str, tuple[torch.Tensor, tuple[int, ...]]] = {}

    def _see(self, module: str, op: str) -> None:
        if self.difference:
            return
        calls = self._traced.sequence
        position, self._position = self._position, self._position + 1
        if position < len(calls) and calls[position] == (module, op):
            return
        where = source_of_caller(LIBRARY_FOLDERS)
        now = f"{_described(module, op)} ({where})"
        self.difference = f"{self._expected(position)} was traced, {now} ran"

    @property
    def last(self) -> str:
        """The call at which it is."""
        return self._expected(max(self._position - 1, 0))

    def _expected(self, position: int) -> str:
        if position >= len(self._traced.calls):
            return "the end of the forward"
        call = self._traced.calls[position]
        op = call.type if call.functional else ""
        return f"{_described(call.module, op)} ({call.source})"

    def finish(self) -> None:
        """The forward is at its end."""
        if not self.difference and self._position < len(self._traced.sequence):
            expected = self._expected(self._position)
            self.difference = f"{expected} was traced, the forward ended before it"

    # What a tracer is asked to do.

    def frame_entered(self, module: Any) -> None:
        """Nothing to compare: what it calls will be."""

    def param(self, module: Any, name: str, parameter: torch.Tensor) -> torch.Tensor:
        """A copy of the parameter, as what is quantized is one."""
        if name not in self._copies:
            copied = parameter.detach().clone().requires_grad_(parameter.requires_grad)
            self._copies[name] = copied, _state(copied)
        return self._copies[name][0]

    def computed_weight(
        self, module: Any, name: str, value: torch.Tensor
    ) -> torch.Tensor:
        """The weight itself."""
        return value

    def leaf_call(
        self, module: Any, forward: Callable[..., Any], args: Any, kwargs: Any
    ) -> Any:
        """Runs a leaf module."""
        record = module._aimetpp
        self._see(record.name, "")
        self._copies = {}
        result = forward(module, *args, **kwargs)
        for name, (copied, state) in self._copies.items():
            if _state(copied) != state:
                record.written.add(name)
                self.writers[record.name] = module
        return result

    def functional_call(
        self, module: Any, op: str, func: Any, args: Any, kwargs: Any
    ) -> Any:
        """Runs a functional op."""
        self._see(module._aimetpp.name, op)
        return func(*args, **kwargs)


def _state(tensor: torch.Tensor) -> tuple[int, ...]:
    """What a write into a tensor changes, also one past its version counter."""
    content = _C.content_hash(tensor) if tensor.is_cpu else 0
    version = 0 if tensor.is_inference() else tensor._version
    return tensor.data_ptr(), version, content


def _text_of_write(name: str, module: Any) -> str:
    written = ", ".join(map(repr, sorted(module._aimetpp.written)))
    return (
        f"the forward of module {name!r}, of class {type(module).__mro__[1].__name__}, "
        f"writes into its parameter {written}. Where that is quantized, it writes into "
        "the quantized copy, and the parameter stays as it is: compute the value by a "
        "parametrization (torch.nn.utils.parametrize), or write after each step of "
        "the optimizer"
    )


def _described(module: str, op: str) -> str:
    caller = f"module {module!r}" if module else "the root module"
    return f"functional op {op!r} of {caller}" if op else caller


def _other_values(x: Any) -> Any:
    """A tensor of the same shape and kind with other values: signs turned, zeros made
    ones, tokens moved by one position. Masks and lengths stay: others need not be
    valid.
    """
    if not isinstance(x, torch.Tensor):
        return x
    if x.is_floating_point():
        turned = torch.where(x == 0, torch.ones_like(x), -x)
        return torch.where(x.isfinite(), turned, x)
    return x.roll(1, -1) if x.dim() > 1 and x.dtype != torch.bool else x.clone()


@in_turn
def warn_of_other_paths(
    model: torch.nn.Module, dummy_input: Any, traced: Tracer
) -> None:
    """Runs a traced model (see `trace`) once more, with other values than those of
    dummy_input, and warns where it takes another path.

    What runs on the path of dummy_input is simulated all the same; off it, a forward
    stops with an error, or with `sim.untraced_ops = "warn"` runs unquantized.
    """
    args, kwargs = pytree.tree_map(_other_values, split_dummy_input(dummy_input))
    second = _SecondForward(traced)
    STATE.tracer = second  # type: ignore[assignment]
    try:
        with inference(model), torch.random.fork_rng(devices=[]):
            model(*args, **kwargs)
        second.finish()
    except Exception as error:
        _warn(
            "whether the model takes the same path with other values than those of "
            f"dummy_input could not be checked: its forward fails with them in or "
            f"after {second.last} ({type(error).__name__}: {error})"
        )
        return
    finally:
        STATE.tracer = None
        for name, module in second.writers.items():
            _warn(_text_of_write(name, module))
    if second.difference:
        _warn(
            "with other values than those of dummy_input the model takes another path: "
            f"{second.difference}"
        )


def _warn(text: str) -> None:
    warnings.warn(f"QuantizationSimModel: {text}", RuntimeWarning, stacklevel=6)
