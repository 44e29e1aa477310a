# SPDX-License-Identifier: BSD-3-Clause
"""The data of a technique that runs the model layer by layer."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import torch

from aimetpp.common.batches import first_samples, run_batch
from aimetpp.common.inference import inference
from aimetpp.nn.runtime import frame

ForwardFn = Callable[[torch.nn.Module, Any], Any]


class _Reached(Exception):
    """The layer that is looked at has run: the rest of the forward is not needed."""


class Samples:
    """Batches that are kept, so that every pass sees the same ones in the same order.

    Args:
        who: the function that asks, for messages.
        data_loader: yields what `forward_fn` takes, or the model's inputs, alone or
            with labels behind them.
        example: an example input of the model; None: the first batch tells.
        num_batches: at most so many; None: all.
        num_samples: at most so many samples; None: all.
        forward_fn: called as `forward_fn(model, batch)`.

    Raises:
        TypeError: `data_loader` is not iterable or `forward_fn` not callable.
        ValueError: no data.
    """

    def __init__(
        self,
        who: str,
        data_loader: Iterable[Any],
        example: Any = None,
        num_batches: int | None = None,
        num_samples: int | None = None,
        forward_fn: ForwardFn | None = None,
    ) -> None:
        if not isinstance(data_loader, Iterable):
            raise TypeError(
                f"{who}: data_loader must yield batches, got "
                f"{type(data_loader).__name__}"
            )
        if forward_fn is not None and not callable(forward_fn):
            raise TypeError(
                f"{who}: forward_fn must be callable, got {type(forward_fn).__name__}"
            )
        for name, count in (("batches", num_batches), ("samples", num_samples)):
            if count is not None and count < 1:
                raise ValueError(f"{who}: num_{name} must be at least 1, got {count}")
        chosen = itertools.islice(data_loader, num_batches)
        self._batches = list(first_samples(chosen, num_samples))
        if not self._batches:
            raise ValueError(f"{who}: data_loader yields no batch")
        self.example = self._first_input() if example is None else example
        self._forward_fn = forward_fn

    def _first_input(self) -> Any:
        first = self._batches[0]
        return first[0] if isinstance(first, tuple | list) else first

    def run(
        self, model: torch.nn.Module, training: Iterable[torch.nn.Module] = ()
    ) -> None:
        """Runs all batches through the model, without gradients.

        Args:
            model: in eval mode meanwhile.
            training: modules of it that are in training mode meanwhile.
        """
        chosen = list(training)
        with inference(model):
            for module in chosen:
                module.training = True
            try:
                for batch in self._batches:
                    run_batch(model, self.example, batch, self._forward_fn)
            finally:
                for module in chosen:
                    module.training = False

    def run_until(
        self,
        model: torch.nn.Module,
        module: torch.nn.Module,
        calls: int,
        see: Callable[[torch.Tensor, torch.Tensor], None],
    ) -> None:
        """Runs all batches up to a module's last call.

        Args:
            model: in eval mode without gradients meanwhile.
            module: of `model`.
            calls: how often one forward calls it.
            see: gets the first input and the output of each call.
        """
        count = 0

        def hook(_: Any, args: Any, output: Any) -> None:
            nonlocal count
            with frame(None):  # what is computed here is no part of the model
                see(args[0], output)
            count += 1
            if count == calls:
                raise _Reached

        handle = module.register_forward_hook(hook)
        try:
            with inference(model):
                for batch in self._batches:
                    count = 0
                    try:
                        run_batch(model, self.example, batch, self._forward_fn)
                    except _Reached:
                        continue
        finally:
            handle.remove()
