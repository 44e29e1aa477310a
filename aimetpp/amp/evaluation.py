# SPDX-License-Identifier: BSD-3-Clause
"""Built-in metrics: how far a simulation's output is from the float model's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

from aimetpp import _C
from aimetpp.amp.accumulators import (
    L2,
    Accumulator,
    Cosine,
    Distance,
    Kl,
    Loss,
    Sqnr,
    Top1,
)
from aimetpp.common.batches import first_samples, run_batch, split_batch
from aimetpp.common.defs import CallbackFunc
from aimetpp.common.inference import inference
from aimetpp.nn.wrap import QUANTIZER_CONTAINERS

ForwardFn = Callable[[torch.nn.Module, Any], Any]


class Metric:
    """Compares a model with itself in full precision, batch by batch."""

    def __init__(
        self,
        metric: str,
        make: Callable[[], Accumulator],
        data_loader: Iterable[Any],
        forward_fn: ForwardFn | None,
        sim: Any,
        num_samples: int | None,
        output_index: int | None,
    ) -> None:
        self.metric = metric
        self._make = make
        self._data_loader = data_loader
        self._forward_fn = forward_fn
        self._sim = sim
        self._num_samples = num_samples
        self._output_index = output_index
        self._batches: list[Any] | None = None
        # Float outputs by batch, and the state of the weights that made them.
        self._references: list[Any] = []
        self._weights: Any = None

    def metric_identity(self) -> tuple[Any, ...]:
        """What tells this metric from another one; reads the samples."""
        return (
            self.metric,
            self._forward_fn,
            self._make,
            self._output_index,
            self._samples(),
        )

    def __call__(self, model: Any) -> float:
        sim = self._sim or getattr(model, "_aimetpp_sim", lambda: None)()
        if sim is None:
            raise RuntimeError(
                f"{self.metric}: the model belongs to no QuantizationSimModel; give "
                "the simulation as the first argument"
            )
        return self._scores(sim, model, [lambda: None], lambda: None)[0]

    def stream(
        self,
        sim: Any,
        settings: Sequence[Callable[[], None]],
        begin_batch: Callable[[], None],
    ) -> list[float]:
        """The score of each setting, batch by batch: what a setting computes of a batch
        need not be kept longer than that batch.

        Args:
            sim: the simulation.
            settings: each sets the simulation's precisions.
            begin_batch: called before each batch.
        """
        return self._scores(self._sim or sim, sim.runner, settings, begin_batch)

    def _scores(
        self,
        sim: Any,
        model: Any,
        settings: Sequence[Callable[[], None]],
        begin_batch: Callable[[], None],
    ) -> list[float]:
        sums = [self._make() for _ in settings]
        with inference(model):
            references = self._reference_outputs(sim, model)
            for batch, reference in zip(self._samples(), references, strict=True):
                begin_batch()
                labels = self._labels(sim, batch)
                for set_up, accumulator in zip(settings, sums, strict=True):
                    set_up()
                    accumulator.add(reference, self._outputs(sim, model, batch), labels)
        return [accumulator.score() for accumulator in sums]

    def num_batches(self) -> int:
        """Batches of the samples that count."""
        return len(self._samples())

    def _samples(self) -> list[Any]:
        if self._batches is None:
            batches = self._loaded_batches()
            self._batches = list(first_samples(batches, self._num_samples))
            if not self._batches:
                raise ValueError(f"{self.metric}: the data loader has no batches")
        return self._batches

    def _loaded_batches(self) -> Iterable[Any]:
        return self._data_loader

    def _reference_outputs(self, sim: Any, model: Any) -> list[Any]:
        """Outputs in full precision, on the CPU; computed again for other weights."""
        weights = self._state_of_weights(model)
        if weights != self._weights:
            with sim.quantizers_off():
                self._references = [
                    [t.cpu() for t in self._outputs(sim, model, batch)]
                    for batch in self._samples()
                ]
            self._weights = weights
        return self._references

    def _state_of_weights(self, model: Any) -> Any:
        return _C.model_stamp(model, QUANTIZER_CONTAINERS)

    def _outputs(self, sim: Any, model: Any, batch: Any) -> list[torch.Tensor]:
        output = _tensors(self._forward(sim, model, batch))
        if self._output_index is None:
            return output
        if self._output_index >= len(output):
            raise ValueError(
                f"output_index must be below {len(output)}, the number of the model's "
                f"outputs, got {self._output_index}"
            )
        return [output[self._output_index]]

    def _forward(self, sim: Any, model: Any, batch: Any) -> Any:
        return run_batch(model, sim.dummy_input, batch, self._forward_fn)

    def _labels(self, sim: Any, batch: Any) -> Any:
        return split_batch(sim.dummy_input, batch)[1]


class EvalCallbackFactory:
    """Makes evaluation callbacks from a data loader.

    Every metric is higher for a better match, and depends on the samples only: not
    on how they are batched, the last batch is cut to the number of samples asked
    for. The samples are read once and kept, so that every evaluation sees the same.

    Args:
        data_loader: an iterable of batches: tensors; or tuples or lists that begin
            with the model's inputs and may go on with labels; or dicts.
        forward_fn: called as `forward_fn(model, batch)`, returns the output. The
            default gives the model as many leading entries of the batch as the
            simulation's dummy input has, moved to the model's device.
        output_index: which of the model's outputs counts, in the order in which they
            lie in a nested output; None for all.

    Raises:
        TypeError: `data_loader` is not iterable, `forward_fn` not callable or
            `output_index` not an int.
        ValueError: `output_index` is negative.
    """

    _metric_class: type[Metric] = Metric

    def __init__(
        self,
        data_loader: Iterable[Any],
        forward_fn: ForwardFn | None = None,
        *,
        output_index: int | None = None,
    ) -> None:
        if not isinstance(data_loader, Iterable):
            raise TypeError(
                "EvalCallbackFactory: data_loader must be an iterable of batches, got "
                f"{type(data_loader).__name__}"
            )
        if forward_fn is not None and not callable(forward_fn):
            raise TypeError(
                "EvalCallbackFactory: forward_fn must be callable, got "
                f"{type(forward_fn).__name__}"
            )
        check_output_index(output_index, "EvalCallbackFactory")
        self._data_loader = data_loader
        self._forward_fn = forward_fn
        self._output_index = output_index

    def sqnr(
        self, sim_or_num_samples: Any = None, num_samples: int | None = 128
    ) -> CallbackFunc:
        """Signal-to-quantization-noise ratio in dB over all samples and outputs.

        10 log10(sum of reference^2 / sum of (reference - output)^2); infinite for
        a perfect match.

        Args:
            sim_or_num_samples: the simulation (by default the one that the model
                belongs to), or the number of samples.
            num_samples: how many samples; None for all.
        """
        return self._metric("sqnr", Sqnr, sim_or_num_samples, num_samples)

    def kl(
        self,
        sim_or_num_samples: Any = None,
        num_samples: int | None = 128,
        dim: int = -1,
    ) -> CallbackFunc:
        """Minus the mean Kullback-Leibler divergence from the reference, in nats.

        Between the softmax of the reference and that of the output.

        Args:
            sim_or_num_samples: as in `sqnr`.
            num_samples: as in `sqnr`.
            dim: the dimension of the classes.
        """
        return self._metric(
            f"kl(dim={dim})", lambda: Kl(dim), sim_or_num_samples, num_samples
        )

    def l2(
        self, sim_or_num_samples: Any = None, num_samples: int | None = 128
    ) -> CallbackFunc:
        """Minus the root of the mean squared difference, in units of the output.

        Args:
            sim_or_num_samples: as in `sqnr`.
            num_samples: as in `sqnr`.
        """
        return self._metric("l2", L2, sim_or_num_samples, num_samples)

    def distance(
        self, sim_or_num_samples: Any = None, num_samples: int | None = 128
    ) -> CallbackFunc:
        """Minus the mean Euclidean distance between output and reference.

        Over samples and outputs; 0 for a perfect match.

        Args:
            sim_or_num_samples: as in `sqnr`.
            num_samples: as in `sqnr`.
        """
        return self._metric("distance", Distance, sim_or_num_samples, num_samples)

    def top1(
        self, sim_or_num_samples: Any = None, num_samples: int | None = 128
    ) -> CallbackFunc:
        """Share of the samples whose highest output is the label's, 0 to 1.

        The output must be [samples, classes]; batches must hold labels.

        Args:
            sim_or_num_samples: as in `sqnr`.
            num_samples: as in `sqnr`.
        """
        return self._metric("top1", Top1, sim_or_num_samples, num_samples)

    def cosine(
        self, sim_or_num_samples: Any = None, num_samples: int | None = 128
    ) -> CallbackFunc:
        """Mean over samples of the cosine between output and reference.

        Each sample is flattened; two zero vectors match.

        Args:
            sim_or_num_samples: as in `sqnr`.
            num_samples: as in `sqnr`.
        """
        return self._metric("cosine", Cosine, sim_or_num_samples, num_samples)

    def loss(
        self,
        loss_fn: Callable[[Any, Any], Any],
        sim_or_num_samples: Any = None,
        num_samples: int | None = 128,
    ) -> CallbackFunc:
        """Minus the mean loss against the labels; batches must hold labels.

        Args:
            loss_fn: called as `loss_fn(output, labels)` with tensors, or with arrays
                where it raises a TypeError or AttributeError at these; returns the mean
                over the batch, or one value per sample.
            sim_or_num_samples: as in `sqnr`.
            num_samples: as in `sqnr`.
        """
        if not callable(loss_fn):
            raise TypeError(
                f"loss: loss_fn must be callable, got {type(loss_fn).__name__}"
            )
        name = getattr(loss_fn, "__qualname__", type(loss_fn).__qualname__)
        return self._metric(
            f"loss({name})", lambda: Loss(loss_fn), sim_or_num_samples, num_samples
        )

    def _metric(
        self,
        name: str,
        make: Callable[[], Accumulator],
        sim_or_num_samples: Any,
        num_samples: int | None,
    ) -> CallbackFunc:
        sim = sim_or_num_samples
        if isinstance(sim, int) and not isinstance(sim, bool):
            sim, num_samples = None, sim
        if sim is not None and not hasattr(sim, "quantizers_off"):
            raise TypeError(
                f"{name}: the first argument must be a QuantizationSimModel or a "
                f"number of samples, got {type(sim).__name__}"
            )
        if num_samples is not None and not isinstance(num_samples, int):
            raise TypeError(
                f"{name}: num_samples must be an int or None, got {num_samples!r}"
            )
        if num_samples is not None and num_samples < 1:
            raise ValueError(f"{name}: num_samples must be positive, got {num_samples}")
        metric = self._metric_class(
            f"{name} over {num_samples or 'all'} samples",
            make,
            self._data_loader,
            self._forward_fn,
            sim,
            num_samples,
            self._output_index,
        )
        return CallbackFunc(metric)


def check_output_index(index: Any, where: str) -> None:
    """Raises a TypeError for no int, a ValueError for a negative one."""
    if index is None:
        return
    if not isinstance(index, int) or isinstance(index, bool):
        raise TypeError(f"{where}: output_index must be an int or None, got {index!r}")
    if index < 0:
        raise ValueError(f"{where}: output_index must be at least 0, got {index}")


def _tensors(output: Any) -> list[torch.Tensor]:
    """The floating tensors of a nested output."""
    return [
        leaf
        for leaf in pytree.tree_leaves(output)
        if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()
    ]
