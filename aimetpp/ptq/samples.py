# SPDX-License-Identifier: BSD-3-Clause
"""The data of a technique that runs the model layer by layer."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable
from typing import Any

import torch

from aimetpp.common.batches import first_samples, run_batch
from aimetpp.common.inference import inference
from aimetpp.nn.runtime import frame

ForwardFn = Callable[[torch.nn.Module, Any], Any]


def _input_of(batch: Any) -> Any:
    return batch[0] if isinstance(batch, tuple | list) else batch


def require_count(who: str, name: str, count: int | None) -> None:
    """Checks a count of batches or samples; None is all of them.

    Raises:
        TypeError: not an int.
        ValueError: less than 1.
    """
    if count is None:
        return
    if not isinstance(count, int) or isinstance(count, bool):
        raise TypeError(f"{who}: {name} must be an int, got {type(count).__name__}")
    if count < 1:
        raise ValueError(f"{who}: {name} must be at least 1, got {count}")


class _Reached(Exception):
    """The layer that is looked at has run: the rest of the forward is not needed."""


class Samples:
    """Batches, kept so that every pass sees the same ones in the same order.

    Args:
        who: the function that asks, for messages.
        data_loader: yields what `forward_fn` takes, or the model's inputs, alone or
            with labels behind them.
        example: an example input of the model; None: the first batch tells.
        num_batches: at most so many; None: all.
        num_samples: at most so many samples; None: all.
        forward_fn: called as `forward_fn(model, batch)`.
        kept: False: for one pass, after which no batch is left.

    Raises:
        TypeError: `data_loader` is not iterable, `forward_fn` not callable, or a count
            no int.
        ValueError: no data, or a count below 1.
    """

    def __init__(
        self,
        who: str,
        data_loader: Iterable[Any],
        example: Any = None,
        num_batches: int | None = None,
        num_samples: int | None = None,
        forward_fn: ForwardFn | None = None,
        kept: bool = True,
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
        require_count(who, "num_batches", num_batches)
        require_count(who, "num_samples", num_samples)
        chosen = itertools.islice(data_loader, num_batches)
        batches = first_samples(chosen, num_samples)
        first = list(itertools.islice(batches, 1))
        if not first:
            raise ValueError(f"{who}: data_loader yields no batch")
        all_of_them = itertools.chain(first, batches)
        self._batches: Iterable[Any] = list(all_of_them) if kept else all_of_them
        self.example = _input_of(first[0]) if example is None else example
        self._forward_fn = forward_fn

    def first(self, num_samples: int) -> Samples:
        """The first ones of them."""
        chosen = copy.copy(self)
        chosen._batches = list(first_samples(self._batches, num_samples))
        return chosen

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

        def hook(_: Any, args: Any, kwargs: Any, output: Any) -> None:
            nonlocal count
            with frame(None):  # what is computed here is no part of the model
                see((*args, *kwargs.values())[0], output)
            count += 1
            if count == calls:
                raise _Reached

        handle = module.register_forward_hook(hook, with_kwargs=True)
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
