# SPDX-License-Identifier: BSD-3-Clause
"""What runs an ONNX model with its quantizers, as a session of onnxruntime does."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch

from aimetpp.onnx.bank import OnnxBank
from aimetpp.onnx.biases import BiasSpot
from aimetpp.onnx.quantized_graph import (
    INTEGER,
    Spots,
    observing_graph,
    quantized_graph,
)
from aimetpp.onnx.reading import Reading, as_array
from aimetpp.onnx.runtime import SessionMaker
from aimetpp.quantization.affine import AffineQuantizerBase


class SimSession:
    """Runs the simulation as an onnxruntime.InferenceSession runs a model.

    While no quantizer is on, it is onnxruntime's session of the model itself.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        reading: Reading,
        spots: Spots,
        bank: OnnxBank,
        maker: SessionMaker,
    ) -> None:
        self._model = model
        self._reading = reading
        self._spots = spots
        self._bank = bank
        self._maker = maker
        self._float = maker.make(model)
        self._quantized: Any = None
        self._modes: frozenset[str] = frozenset()
        self._observing: Any = None  # a session
        self._off = 0
        self._biases: tuple[BiasSpot, ...] = ()

    @property
    def biases(self) -> tuple[BiasSpot, ...]:
        """Biases that are rounded."""
        return self._biases

    @biases.setter
    def biases(self, biases: tuple[BiasSpot, ...]) -> None:
        self._biases = biases
        self._quantized = None

    def get_inputs(self) -> list[Any]:
        """The model's inputs: objects with `name`, `shape` and `type`."""
        return list(self._float.get_inputs())

    def get_outputs(self) -> list[Any]:
        """The model's outputs: objects with `name`, `shape` and `type`."""
        return list(self._float.get_outputs())

    def get_providers(self) -> list[str]:
        """The execution providers in use."""
        return list(self._float.get_providers())

    def run(
        self,
        output_names: Sequence[str] | None,
        input_feed: Mapping[str, Any],
        run_options: Any = None,
    ) -> list[Any]:
        """Runs the model.

        Args:
            output_names: which outputs; None: all, in their order.
            input_feed: an array for each input, by name.
            run_options: onnxruntime's RunOptions, or None.

        Returns:
            One array for each output.

        Raises:
            ValueError: an unknown output; other feeds than the model has inputs.
            RuntimeError: a quantizer that is on has no range.
            Exception: onnxruntime's own, of feeds that it cannot take.
        """
        self._check_names(output_names, input_feed)
        feeds = {name: as_array(value) for name, value in input_feed.items()}
        if self._observing is not None:
            return self._observe(output_names, feeds, run_options)
        if self._off or self._bank.is_off():
            return list(self._float.run(output_names, feeds, run_options))
        session = self._session()
        feeds.update(self._bank.param_feeds())
        feeds.update(self._bank.activation_feeds(self._modes))
        feeds.update((bias.feed, bias.rounded()) for bias in self._biases)
        return list(session.run(output_names, feeds, run_options))

    def _check_names(
        self, output_names: Sequence[str] | None, feeds: Mapping[str, Any]
    ) -> None:
        inputs = [value.name for value in self._float.get_inputs()]
        if set(feeds) != set(inputs):
            raise ValueError(
                f"session.run: the model's inputs are {', '.join(inputs)}; got "
                f"{', '.join(map(str, feeds)) or 'none'}"
            )
        outputs = [value.name for value in self._float.get_outputs()]
        for name in output_names or ():
            if name not in outputs:
                raise ValueError(
                    f"session.run: the model has no output {name!r}; it has "
                    f"{', '.join(outputs)}"
                )

    def _session(self) -> Any:
        """The session with quantizers; made anew where one quantizes in a way in which
        none did before.
        """
        modes = self._bank.modes()
        if self._quantized is None or not modes <= self._modes:
            self._modes |= modes or {INTEGER}
            graph = quantized_graph(
                self._model,
                self._reading,
                self._spots,
                self._modes,
                self._bank.masked_below(),
                self._biases,
            )
            self._quantized = self._maker.make(graph)
        return self._quantized

    @contextlib.contextmanager
    def quantizers_off(self) -> Iterator[None]:
        """Within the context the model runs in full precision."""
        self._off += 1
        try:
            yield
        finally:
            self._off -= 1

    @contextlib.contextmanager
    def observing(self) -> Iterator[None]:
        """Within the context runs show the quantizers of activations, which are off,
        what they would quantize; parameters are quantized.
        """
        graph = observing_graph(self._model, self._reading, self._spots)
        self._observing = self._maker.make(graph)
        try:
            yield
        finally:
            self._observing = None

    def _observe(
        self,
        output_names: Sequence[str] | None,
        feeds: dict[str, np.ndarray],
        run_options: Any,
    ) -> list[Any]:
        params = self._bank.param_feeds()
        names = [value.name for value in self._observing.get_outputs()]
        results = self._observing.run(None, {**feeds, **params}, run_options)
        values = {**feeds, **dict(zip(names, results, strict=True))}
        values.update(self._reading.constants)
        for spot in self._spots.activations:
            quantizer = self._bank.entries[spot.quantizer].current()
            if isinstance(quantizer, AffineQuantizerBase):
                array = np.ascontiguousarray(values[spot.tensor], np.float32)
                quantizer.observe(torch.from_numpy(array))
        if output_names is None:
            output_names = [value.name for value in self._float.get_outputs()]
        return [values[name] for name in output_names]
