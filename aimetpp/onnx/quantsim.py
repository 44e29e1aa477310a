# SPDX-License-Identifier: BSD-3-Clause
"""QuantizationSimModel: an ONNX model that computes as quantized hardware would."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import onnx
import torch

from aimetpp import _C
from aimetpp.common.configs import find_config
from aimetpp.common.defs import QuantizationDataType, QuantScheme
from aimetpp.common.precision import precision_name
from aimetpp.onnx.bank import OnnxBank
from aimetpp.onnx.biases import IntegerBiasMethods
from aimetpp.onnx.quantized_graph import find_spots
from aimetpp.onnx.reading import example_feeds, load_model, read_model
from aimetpp.onnx.runtime import SessionMaker, choose_providers
from aimetpp.onnx.session import SimSession
from aimetpp.quantization import QuantizerBase
from aimetpp.quantsim.precisions import calibration_callback
from aimetpp.quantsim.profiles import ProfileMethods
from aimetpp.quantsim.sites import Explanation, Site, SiteMethods


class _NoReplay:
    """Every run computes everything."""

    around_float = False
    given_up = "sessions run whole graphs"
    replayed = num_refused = strays = 0

    def batch_by_batch(self) -> contextlib.AbstractContextManager[Callable[[], None]]:
        return contextlib.nullcontext(lambda: None)


class QuantizationSimModel(IntegerBiasMethods, SiteMethods, ProfileMethods):
    """Simulates a quantized version of an ONNX model.

    Every tensor that a node makes, every model input and every stored tensor that a
    node reads is a site, named as the tensor; the config says which are quantized.
    `session` runs the model, as onnxruntime's session does, with quantization noise.

    Args:
        model: an onnx.ModelProto, which is copied, or the path of a file, whose
            external data is read. Any opset that onnxruntime runs; below 11 it is
            converted to 11.
        dummy_input: an example input with which the model is run once, for shapes: a
            dict by input name, an array or tensor, or a list of them in the order of
            the inputs; None: random numbers, with 1 for every open size.
        quant_scheme: how calibration chooses ranges: a QuantScheme, or "min_max"
            (the default), "tf", "tf_enhanced", "percentile", "mse".
        rounding_mode: "nearest", half to even; there is no other.
        default_param_bw, default_activation_bw: bit-widths, 2 to 32.
        use_symmetric_encodings: False: activations are symmetric where the config says
            so, which is the place to ask for it.
        use_cuda: run on CUDA; None: where this onnxruntime has it.
        device: which CUDA device.
        config_file: path or shipped name; None: "default" (per-channel weights).
        default_data_type: QuantizationDataType.int, or .float with 16 bits.
        user_onnx_libs: libraries of custom ops, to be registered with onnxruntime.
        path: a folder for temporary files, which only models of more than 2 GiB need.
        param_type, activation_type: a precision such as aimetpp.onnx.int8 or "int16",
            in place of the bit-width and data type.
        providers: onnxruntime's execution providers, in place of `use_cuda`.
        int32_bias: round biases as exported files do: see the property.

    Attributes:
        model: the model, with a name for every node.
        session: runs the simulation: get_inputs(), get_outputs(), run(names, feeds).

    Raises:
        ImportError: onnxruntime is not installed.
        TypeError: an argument of the wrong type.
        ValueError: a bit-width, scheme, config or option with a wrong value; a model
            that is quantized already; a dummy input that does not fit it.
        FileNotFoundError: no such model or config.
    """

    _bank: OnnxBank

    def __init__(
        self,
        model: onnx.ModelProto | str | os.PathLike[str],
        dummy_input: Any = None,
        quant_scheme: QuantScheme | str | None = None,
        rounding_mode: str = "nearest",
        default_param_bw: int = 8,
        default_activation_bw: int = 8,
        use_symmetric_encodings: bool = False,
        use_cuda: bool | None = None,
        device: int = 0,
        config_file: str | os.PathLike[str] | None = None,
        default_data_type: QuantizationDataType = QuantizationDataType.int,
        user_onnx_libs: Sequence[str] | None = None,
        path: str | os.PathLike[str] | None = None,
        *,
        param_type: Any = None,
        activation_type: Any = None,
        providers: Sequence[Any] | None = None,
        int32_bias: bool = True,
    ) -> None:
        if rounding_mode != "nearest":
            raise ValueError(
                f'rounding_mode must be "nearest" (half to even), got {rounding_mode!r}'
            )
        if use_symmetric_encodings:
            raise ValueError(
                "use_symmetric_encodings: symmetric activations are asked for in the "
                'config, by "is_symmetric" of defaults.ops'
            )
        activation, param = (
            precision_name(
                (bitwidth, default_data_type) if asked is None else asked, argument
            )
            for asked, bitwidth, argument in (
                (activation_type, default_activation_bw, "default_activation_bw"),
                (param_type, default_param_bw, "default_param_bw"),
            )
        )
        self.quant_scheme = QuantScheme.parse(quant_scheme)
        config_path = find_config(config_file)
        self._config_text = config_path.read_text(encoding="utf-8")
        self.config_name = config_path.stem
        config = _C.parse_quant_config(self._config_text, str(config_path))
        maker = SessionMaker(
            choose_providers(providers, use_cuda, device),
            tuple(user_onnx_libs or ()),
            None if path is None else os.fspath(path),
        )
        self.model = load_model(model)
        self.dummy_input = example_feeds(self.model, dummy_input)
        reading = read_model(self.model, self.dummy_input, maker)
        self.reading = reading
        self.graph = reading.graph
        self.placement = _C.place_quantizers(self.graph, config, activation, param)
        self.spots = find_spots(self.model, reading, self.placement)
        self._bank = OnnxBank(
            self.graph, self.placement, self.quant_scheme, self.spots, reading.constants
        )
        self._pinned = set()
        self.excluded_layers: list[str] = []  # what encodings files tell
        self.session = SimSession(self.model, reading, self.spots, self._bank, maker)
        self.int32_bias = int32_bias
        self._warn_of_unsupported_ops("default_activation_bw", stacklevel=3)

    @property
    def runner(self) -> SimSession:
        """What callbacks are called with: the session."""
        return self.session

    # -- calibration --------------------------------------------------------

    def compute_encodings(
        self,
        forward_pass_callback: Callable[..., Any],
        forward_pass_callback_args: Any = None,
    ) -> None:
        """Calibrates: runs data through the model and sets every quantizer's range.

        While the callback runs, activations are not quantized but observed, and
        weights are quantized. What is observed is kept, so that a later change of
        bit-width needs no data.

        Args:
            forward_pass_callback: called as `callback(session)`, or
                `callback(session, args)` where args are given or it takes two.
            forward_pass_callback_args: its second argument.

        Raises:
            TypeError: the callback is not callable.
            ValueError: a NaN reached a quantizer; the message names it.
        """
        callback = calibration_callback(
            forward_pass_callback, forward_pass_callback_args
        )
        self._bank.calibrate_params()
        with contextlib.ExitStack() as stack:
            for index in dict.fromkeys(s.quantizer for s in self.spots.activations):
                quantizer = self._bank.entries[index].current()
                if quantizer is not None:
                    stack.enter_context(quantizer.compute_encodings())
            with self.session.observing():
                callback(self.session)
        self._finish_calibration()

    @contextlib.contextmanager
    def quantizers_off(self) -> Iterator[None]:
        """Within the context `session` computes in full precision."""
        with self.session.quantizers_off():
            yield

    @contextlib.contextmanager
    def replaying(self, memory_budget: int | None = None) -> Iterator[_NoReplay]:
        """What a search asks for; onnxruntime keeps no activations between runs.

        Raises:
            ValueError: a memory budget, which would have no effect.
        """
        if memory_budget is not None:
            raise ValueError("memory_budget has no effect on an ONNX model")
        yield _NoReplay()

    def export(
        self,
        path: str | os.PathLike[str],
        filename_prefix: str,
        *,
        encoding_version: str | None = None,
        export_int32_bias: bool | None = None,
    ) -> None:
        """Writes `<prefix>.onnx` (QDQ) and `<prefix>.encodings`, keyed by tensors, into
        the folder `path`. Tensors keep their names.

        Args:
            path: the folder; made if missing.
            filename_prefix: file name without suffix.
            encoding_version: "0.6.1", "1.0.0" (default) or "2.0.0".
            export_int32_bias: False leaves biases in float; None: they are 32-bit
                integers; True: those have encodings in files of every version.

        Raises:
            RuntimeError: a quantizer is not calibrated.
            ValueError: a precision that ONNX cannot express.
            OSError: the folder cannot be written; nothing is left behind.
        """
        from aimetpp.onnx.export import export

        export(
            self,
            path,
            filename_prefix,
            encoding_version=encoding_version,
            export_int32_bias=export_int32_bias,
        )

    def load_encodings(
        self,
        encodings: dict[str, Any] | str | os.PathLike[str],
        strict: bool = True,
        partial: bool = True,
        allow_overwrite: bool = True,
    ) -> None:
        """Sets encodings from a file or dict as `export` writes it, of any version.

        Args:
            encodings: path, or the parsed content.
            strict: a name that is no tensor of the model is an error. Entries of
                tensors without a quantizer, which lie on the grid of another one, are
                not needed.
            partial: quantizers without an entry keep their state; otherwise they
                are turned off.
            allow_overwrite: whether calibration may change the loaded ranges.

        Raises:
            TypeError: neither a path nor a dict.
            RuntimeError: names that do not match, or a wrong number of channels.
            ValueError: not such a file; entries that disagree on one quantizer.
        """
        from aimetpp.onnx.loading import load_encodings

        load_encodings(self, encodings, strict, partial, allow_overwrite)

    def set_and_freeze_param_encodings(
        self, encoding_path: str | os.PathLike[str]
    ) -> None:
        """Sets the weights' encodings from a file, for good: calibration does not
        change them.

        Args:
            encoding_path: a file as for `load_encodings`, of which only the weights
                count.

        Raises:
            RuntimeError, ValueError: as `load_encodings`.
        """
        from aimetpp.onnx.loading import load_encodings

        load_encodings(self, encoding_path, True, True, False, params_only=True)

    @property
    def group_class(self) -> Any:
        """Groups name tensors."""
        from aimetpp.onnx.amp.quantizer_groups import QuantizerGroup

        return QuantizerGroup

    @property
    def callback_factory(self) -> Any:
        """What makes built-in metrics of arrays for the session."""
        from aimetpp.onnx.amp.mixed_precision_algo import EvalCallbackFactory

        return EvalCallbackFactory

    # -- looking inside -----------------------------------------------------

    @property
    def input_structure(self) -> dict[str, int]:
        """The index of each model input, by name."""
        return {value.name: i for i, value in enumerate(self.model.graph.input)}

    @property
    def output_structure(self) -> dict[str, int]:
        """The index of each model output, by name."""
        return {value.name: i for i, value in enumerate(self.model.graph.output)}

    def explain(self, site_or_name: Site | str) -> Explanation:
        """Which rule of which config section turned a site on or off.

        Args:
            site_or_name: a Site; the name of a tensor; or that of a node, for all
                its sites.

        Raises:
            TypeError: something else.
            ValueError: no such tensor or node.
        """
        if isinstance(site_or_name, Site):
            return self._explain(site_or_name)
        if not isinstance(site_or_name, str):
            raise TypeError(
                "explain: a Site or a name is required, got "
                f"{type(site_or_name).__name__}"
            )
        sites, calls, records = self.sites(), self.graph.calls, self.graph.sites
        found = [site for site in sites if site.name == site_or_name] or [
            s for s in sites if calls[records[s.id].call].name == site_or_name
        ]
        if not found:
            raise ValueError(f"explain: no tensor or node is named {site_or_name!r}")
        if len(found) == 1:
            return self._explain(found[0])
        return self._explain_all(site_or_name, found)

    def named_quantizers(self) -> Iterator[tuple[str, QuantizerBase]]:
        """(tensor's name, quantizer) of every quantizer that is on."""
        for entry in self._bank.entries:
            quantizer = entry.current()
            if quantizer is not None:
                yield entry.label, quantizer

    @property
    def qc_quantize_op_dict(self) -> dict[str, torch.nn.Module | None]:
        """The quantizer of every tensor that has one, None where it is off."""
        from aimetpp.onnx.amp.quantizer_groups import OpQuantizers

        spots = (*self.spots.activations, *self.spots.params)
        entries: Any = self._bank.entries
        quantizers = {spot.tensor: spot.quantizer for spot in spots}
        return OpQuantizers(self, quantizers, entries)  # type: ignore[return-value]

    def fingerprint(self) -> str:
        """SHA-256 of model, config, scheme and calibration statistics."""
        digest = hashlib.sha256()
        graph = self.model.graph
        for parts in (  # one by one: protobuf writes no model of more than 2 GiB
            *(graph.input, graph.output, graph.node, graph.initializer),
            *(graph.sparse_initializer, self.model.functions, self.model.opset_import),
        ):
            for part in parts:
                digest.update(part.SerializeToString(deterministic=True))
        texts = [self.graph.to_text(), self._config_text, self.quant_scheme]
        for text in texts + ["int32 biases"] * self.int32_bias:
            digest.update(text.encode())
        for entry in self._bank.entries:
            if entry.integer.statistics is not None:
                digest.update(entry.integer.statistics.to_bytes())
        return digest.hexdigest()


def load_encodings_to_sim(
    quant_sim_model: QuantizationSimModel,
    onnx_encoding_path: dict[str, Any] | str | os.PathLike[str],
    strict: bool = True,
) -> None:
    """Gives a simulation the encodings of a file, and no others: a quantizer without
    an entry in the file is turned off.

    Args:
        quant_sim_model: the simulation.
        onnx_encoding_path: as of `QuantizationSimModel.load_encodings`.
        strict: as there.

    Raises:
        TypeError, RuntimeError, ValueError: as there.
    """
    quant_sim_model.load_encodings(onnx_encoding_path, strict, partial=False)
