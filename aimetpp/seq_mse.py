# SPDX-License-Identifier: BSD-3-Clause
"""SeqMSE: weight ranges that leave each layer's output nearest to the float one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

from aimetpp.ptq.ranges import INPUT_SYMMETRIES, OUTPUT_LOSSES, search_ranges
from aimetpp.ptq.reading import names_of
from aimetpp.ptq.samples import Samples, require_count
from aimetpp.quantsim import QuantizationSimModel

__all__ = ["SeqMseParams", "SequentialMse", "apply_seq_mse"]

ForwardFn = Callable[[torch.nn.Module, Any], Any]


@dataclass(frozen=True)
class SeqMseParams:
    """How `SequentialMse.apply_seq_mse` searches.

    Args:
        num_batches: at most so many batches; None: all.
        num_candidates: ranges tried for each channel: 1/n, 2/n, ... of the largest.
        inp_symmetry: what the float and the quantized layer are compared on: "symqt":
            both on what the layers before, quantized, put out; "symfp": both on what
            they put out in the float model; "asym": each on its own.
        loss_fn: "mse" or "l1", of the layer's outputs.
        forward_fn: called as `forward_fn(model, batch)`.

    Raises:
        ValueError: a value out of range.
    """

    num_batches: int | None
    num_candidates: int = 20
    inp_symmetry: str = "symqt"
    loss_fn: str = "mse"
    forward_fn: ForwardFn | None = None

    def __post_init__(self) -> None:
        require_count("SeqMseParams", "num_batches", self.num_batches)
        require_count("SeqMseParams", "num_candidates", self.num_candidates)
        for name, known in (
            ("inp_symmetry", INPUT_SYMMETRIES),
            ("loss_fn", OUTPUT_LOSSES),
        ):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"SeqMseParams: {name} must be one of "
                    f"{', '.join(map(repr, known))}, got {getattr(self, name)!r}"
                )


def apply_seq_mse(
    sim: QuantizationSimModel,
    data_loader: Iterable[Any],
    num_candidates: int = 20,
    forward_fn: ForwardFn | None = None,
    modules_to_exclude: Iterable[torch.nn.Module] | None = None,
) -> list[str]:
    """Sets and freezes the ranges of the weights of convolution and linear modules.

    Layers go in the order of the forward. Of ranges narrower than the largest weight,
    each channel gets the one with which the layer's output, for what the quantized
    layers before it put out, has the least squared error. To be called before
    `sim.compute_encodings`, which then leaves these ranges.

    Args:
        sim: a simulation; changed in place.
        data_loader: yields inputs, alone or with labels behind them; all of one shape.
        num_candidates: ranges tried for each channel: 1/n, 2/n, ... of the largest.
        forward_fn: called as `forward_fn(model, batch)`.
        modules_to_exclude: modules of `sim.model` that are left alone, and are not
            quantized meanwhile.

    Returns:
        The names of the layers.

    Raises:
        TypeError: an argument of the wrong type.
        ValueError: a value out of range; no data; a module that is not in the model.
            After an error on the way all ranges are as they were.
    """
    params = SeqMseParams(None, num_candidates, forward_fn=forward_fn)
    return _apply(sim, data_loader, params, modules_to_exclude)


class SequentialMse:
    """`apply_seq_mse` with its parameters in one object."""

    @classmethod
    def apply_seq_mse(
        cls,
        model: torch.nn.Module,  # noqa: ARG003 - the simulation has the float weights
        sim: QuantizationSimModel,
        data_loader: Iterable[Any],
        params: SeqMseParams,
        modules_to_exclude: Iterable[torch.nn.Module] | None = None,
    ) -> list[str]:
        """See the function `apply_seq_mse`.

        Args:
            model: not needed: the simulation has the float weights.
            sim: a simulation; changed in place.
            data_loader: as for the function.
            params: how to search.
            modules_to_exclude: as for the function.
        """
        return _apply(sim, data_loader, params, modules_to_exclude)


def _apply(
    sim: QuantizationSimModel,
    data_loader: Iterable[Any],
    params: SeqMseParams,
    modules_to_exclude: Iterable[torch.nn.Module] | None,
) -> list[str]:
    if not isinstance(sim, QuantizationSimModel):
        raise TypeError(
            "apply_seq_mse: sim must be a QuantizationSimModel, got "
            f"{type(sim).__name__}"
        )
    excluded = names_of(
        sim.model, modules_to_exclude or (), "apply_seq_mse: modules_to_exclude"
    )
    samples = Samples(
        "apply_seq_mse",
        data_loader,
        sim.dummy_input,
        num_batches=params.num_batches,
        forward_fn=params.forward_fn,
    )
    return search_ranges(
        sim,
        samples,
        params.num_candidates,
        params.inp_symmetry,
        params.loss_fn,
        set(excluded),
    )
