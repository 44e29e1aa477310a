# SPDX-License-Identifier: BSD-3-Clause
"""Manual mixed precision: a person says which layers get which precision."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import torch

from aimetpp import _C
from aimetpp.common.files import atomic_write
from aimetpp.common.precision import Precision, is_precision, precision_name
from aimetpp.common.text import source_of_caller
from aimetpp.mixed_precision.attention_ports import INPUTS, AttentionPorts
from aimetpp.mixed_precision.mmp_report import PrecisionChange, Report, ReportLine
from aimetpp.mixed_precision.naming import NameBook, Target
from aimetpp.mixed_precision.request_file import read_requests
from aimetpp.mixed_precision.structure import flatten_activation
from aimetpp.quantsim.inspection import Site

if TYPE_CHECKING:
    from aimetpp.quantsim import QuantizationSimModel

__all__ = [
    "MixedPrecisionConfigurator",
    "Precision",
    "PrecisionChange",
    "Report",
    "ReportLine",
]

_PACKAGE_FOLDER = str(Path(__file__).parent.parent) + os.sep


class MixedPrecisionConfigurator:
    """Collects precision requests and applies them to a simulation at once.

    A precision is a name ("int4", "int8", "int16", "int2" to "int32", "fp16",
    "bf16", "fp32" for off), a Precision, or a pair (bitwidth, QuantizationDataType).

    Requests are kept in the order of the calls. For each input, output and parameter
    of each leaf layer the latest request that speaks of it wins. Two requests on
    leaves that want different precisions of one tensor are a conflict; a request
    through a container, a type or a glob is none, it is overruled by a later one.

    Args:
        sim: the simulation to change; it may be calibrated or not.

    Raises:
        TypeError: not a QuantizationSimModel.
    """

    # What a simulation of this kind has, and others do not.
    _required = ("model", "graph", "placement", "apply_precisions", "param_reads")

    def __init__(self, sim: QuantizationSimModel) -> None:
        if not all(hasattr(sim, attribute) for attribute in self._required):
            kind = type(sim)
            raise TypeError(
                f"{type(self).__module__}.MixedPrecisionConfigurator: sim must be a "
                f"QuantizationSimModel of its kind, got {kind.__module__}."
                f"{kind.__name__}"
            )
        self._sim = sim
        self._names = self._make_name_book(sim)
        self._requests: list[_C.Request] = []
        self._origin = ""  # of the requests being read from a file

    def _make_name_book(self, sim: Any) -> Any:
        return NameBook(sim)

    # -- requests -------------------------------------------------------------

    def set_precision(
        self,
        arg: torch.nn.Module | type[torch.nn.Module] | str | Site,
        activation: Any,
        param: Mapping[str, Any] | None = None,
    ) -> None:
        """Asks for a precision of one layer, or of several.

        Args:
            arg: a module of `sim.model` (a leaf, or a container: all leaves in it); a
                module class (subclasses too); a dotted module name; a name of a
                functional op ("layer1.0/add_0"); a glob over both ("layer1.*"); or a
                Site or its name, which stands for the op that it belongs to.
            activation: for the layer's inputs and outputs; a list gives the inputs
                one by one and the outputs its first, None in it leaves one as it is.
                None leaves all activations as they are. A list for an attention is
                [query, key, value] and leaves what is inside as it is; for anything
                else that covers several ops each of them must have that many inputs.
            param: precision by parameter name ("weight"); None leaves one as it is.

        Raises:
            TypeError: an argument of the wrong type.
            ValueError: an unknown name, a module that is not in `sim.model`, an
                unknown precision, a list that does not fit a layer's inputs, or None
                for a parameter that no layer has.
        """
        target = self._names.find(arg)
        names = self._activations_of_leaves(activation, target)
        ports = None
        if len(names) > 1 and target.attentions:
            ports = AttentionPorts()
            for attention in target.attentions:
                ports.add(self._sim, attention)
        params = params_asked(param)
        if param is not None and len(params) < len(param):
            self._names.check_params(param, target)
        self._add(target.kind, target.subject, target.ops, names, params, ports)

    def set_model_input_precision(self, activation: Any) -> None:
        """Asks for a precision of the model's inputs.

        Args:
            activation: one precision for all inputs, or precisions nested like the
                dummy input (list, tuple, dict), None leaving an input as it is.

        Raises:
            TypeError: something in it is no precision.
            ValueError: an unknown precision, or a structure of another shape.
        """
        self._add_model_request(
            "input", activation, self._sim.input_structure, self._sim.graph.model_inputs
        )

    def set_model_output_precision(self, activation: Any) -> None:
        """Asks for a precision of the model's outputs.

        Args:
            activation: one precision for all outputs, or precisions nested like what
                the model returns, None leaving an output as it is.

        Raises:
            TypeError: something in it is no precision.
            ValueError: an unknown precision, or a structure of another shape.
        """
        self._add_model_request(
            "output",
            activation,
            self._sim.output_structure,
            self._sim.graph.model_outputs,
        )

    def _add_model_request(
        self, side: str, activation: Any, structure: Any, tensors: list[int]
    ) -> None:
        names = flatten_activation(
            activation,
            structure,
            len(tensors),
            f"set_model_{side}_precision: activation",
        )
        self._add(f"model_{side}", f"model {side}", [], names, {})

    def load_requests(self, path: str | os.PathLike[str]) -> None:
        """Adds the requests of a JSON file, in its order.

        The file holds a list of objects, each with one of the keys "layer" (a dotted
        module name, the name of a functional op, or a glob), "type" (the name of a
        module class), "model_input" or "model_output". The last two have the
        precision, or precisions nested as the model nests them, as value; the first
        two go with "activation" and "param", as in `set_precision`.

        Raises:
            OSError: the file cannot be read.
            ValueError: not such a file, or a request that is wrong by itself; the
                message names its place, and none of the file's requests is added.
        """
        kept = list(self._requests)
        try:
            for origin, request in read_requests(path):
                self._origin = origin
                try:
                    self._add_read(request)
                except (TypeError, ValueError) as error:
                    raise ValueError(f"{origin}: {error}") from error
        except BaseException:
            self._requests = kept
            raise
        finally:
            self._origin = ""

    def _add_read(self, request: dict[str, Any]) -> None:
        if "model_input" in request:
            self.set_model_input_precision(request["model_input"])
        elif "model_output" in request:
            self.set_model_output_precision(request["model_output"])
        else:
            arg: Any = request.get("layer")
            if "type" in request:
                arg = self._names.type_named(request["type"])
            activation, param = request.get("activation"), request.get("param")
            self.set_precision(arg, activation, param)

    def _add(
        self,
        kind: str,
        subject: str,
        ops: Iterable[int],
        names: list[str | None],
        params: dict[str, str],
        ports: Any = None,  # as AttentionPorts
    ) -> None:
        source = self._origin or source_of_caller((_PACKAGE_FOLDER,))
        inputs, results = (ports.inputs, ports.results) if ports else ([], [])
        self._requests.append(
            _C.Request(kind, subject, source, ops, names, params, inputs, results)
        )

    # -- applying -------------------------------------------------------------

    def apply(
        self,
        log_file: str | os.PathLike[str] | IO[str] | None = "./mmp_log.txt",
        strict: bool = True,
    ) -> Report:
        """Resolves all requests, changes the simulation and writes the report.

        Where an error is raised, the simulation and the log file are as they were and
        the requests are kept; otherwise the requests are used up. The quantizers that
        they reached are pinned: automatic mixed precision leaves them at their
        precision (`sim.pinned_sites()`, `sim.unpin()`).

        Args:
            log_file: a path or an open text file for the report; None: no file.
            strict: conflicts, requests that can change nothing, and layers left
                without a supported kernel are errors; otherwise the latest request
                wins and the report lists them.

        Returns:
            The report.

        Raises:
            TypeError: `log_file` is neither a path nor writable.
            ValueError: a request that can change nothing, when strict.
            RuntimeError: a conflict or an unsupported kernel, when strict; the message
                names the requests by number and source line.
            OSError: the log file cannot be written.
        """
        is_path = isinstance(log_file, str | os.PathLike)
        if not (is_path or log_file is None or hasattr(log_file, "write")):
            raise TypeError(
                "apply: log_file must be a path or an open text file, got "
                f"{type(log_file).__name__}"
            )
        sim = self._sim
        resolution = _C.resolve_requests(
            sim.graph, sim.placement, sim.precisions(), self._requests, bool(strict)
        )
        with sim.undone_on_error():
            sim.apply_precisions(resolution.precisions)
            sim.pin_quantizers(resolution.reached)
            report = Report(sim, self._requests, resolution, bool(strict))
            if is_path:
                atomic_write(log_file, str(report))  # type: ignore[arg-type]
            elif log_file is not None:
                log_file.write(str(report))  # type: ignore[union-attr]
                if hasattr(log_file, "flush"):  # an error must come now, not at close
                    log_file.flush()
        self._requests = []
        return report

    def _activations_of_leaves(
        self, activation: Any, target: Target
    ) -> list[str | None]:
        argument = "set_precision: activation"
        if activation is None:
            return []
        if not isinstance(activation, list | tuple) or is_precision(activation):
            return [precision_name(activation, argument)]
        names = [
            None if each is None else precision_name(each, f"{argument}[{i}]")
            for i, each in enumerate(activation)
        ]
        if target.attentions:
            if len(names) != len(INPUTS):
                raise ValueError(
                    f"{argument} must hold one entry for each of {', '.join(INPUTS)} "
                    f"of {target.subject}, got {len(names)}"
                )
            return names
        for op in (self._names.ops[index] for index in target.ops):
            if len(names) != op.num_inputs:
                raise ValueError(
                    f"{argument} must hold one entry per input; {op.name} has "
                    f"{op.num_inputs}, got {len(names)}"
                )
        return names


def params_asked(param: Mapping[str, Any] | None) -> dict[str, str]:
    """The precisions that `param` of `set_precision` asks for, by parameter name."""
    if param is None:
        return {}
    if not isinstance(param, Mapping):
        raise TypeError(
            "set_precision: param must be a dict from parameter name to precision, got "
            f"{type(param).__name__}"
        )
    for name in param:
        if not isinstance(name, str):
            raise TypeError(f"set_precision: param names must be strings, got {name!r}")
    return {
        name: precision_name(value, f"set_precision: param[{name!r}]")
        for name, value in param.items()
        if value is not None
    }
