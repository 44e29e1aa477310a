# SPDX-License-Identifier: BSD-3-Clause
"""Manual mixed precision: a person says which layers get which precision."""

from __future__ import annotations

import difflib
import fnmatch
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import torch

from aimetpp import _C
from aimetpp.common.files import atomic_write
from aimetpp.common.precision import Precision, is_precision, precision_name
from aimetpp.common.text import source_of_caller
from aimetpp.mixed_precision.mmp_report import PrecisionChange, Report, ReportLine
from aimetpp.mixed_precision.structure import flatten_activation
from aimetpp.nn.wrap import QUANTIZER_CONTAINERS
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


def _caller() -> str:
    return source_of_caller((_PACKAGE_FOLDER,))


@dataclass(frozen=True)
class _LeafOp:
    name: str
    module: str  # the leaf, or the module that calls a functional op
    functional: bool
    num_inputs: int
    within: frozenset[str]  # `module` and all modules around it, "" included


def _list_ops(graph: _C.OpGraph) -> dict[int, _LeafOp]:
    """The ops that a user can name, by index: those called by the user's code."""
    calls = graph.calls
    found = {}
    for index, op in enumerate(graph.ops):
        if op.call < 0:
            continue
        call = calls[op.call]
        path = call.module.split(".")
        within = frozenset(".".join(path[:depth]) for depth in range(len(path) + 1))
        num_inputs = sum(site >= 0 for site in op.input_sites)
        found[index] = _LeafOp(
            op.name, call.module, call.functional, num_inputs, within
        )
    return found


def _own_modules(model: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """The user's own modules by dotted name, without the quantizers in them."""
    return {
        name: module
        for name, module in model.named_modules()
        if not any(part in QUANTIZER_CONTAINERS for part in name.split("."))
    }


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

    def __init__(self, sim: QuantizationSimModel) -> None:
        for attribute in ("model", "graph", "placement", "apply_precisions"):
            if not hasattr(sim, attribute):
                raise TypeError(
                    "MixedPrecisionConfigurator: sim must be a QuantizationSimModel, "
                    f"got {type(sim).__name__}"
                )
        self._sim = sim
        self._modules = _own_modules(sim.model)
        self._ops = _list_ops(sim.graph)
        self._requests: list[_C.Request] = []

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
                Site, which stands for the op that it belongs to.
            activation: for the layer's inputs and outputs; a list gives the inputs
                one by one and the outputs its first, None in it leaves one as it is.
                None leaves all activations as they are.
            param: precision by parameter name ("weight").

        Raises:
            TypeError: an argument of the wrong type.
            ValueError: an unknown name, a module that is not in `sim.model`, an
                unknown precision, or a list that does not fit a layer's inputs.
        """
        target, subject, ops = self._find(arg)
        names = self._activations_of_leaves(activation, ops)
        params = _params(param)
        self._requests.append(
            _C.Request(target, subject, _caller(), ops, names, params)
        )

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
        self._requests.append(
            _C.Request(f"model_{side}", f"model {side}", _caller(), [], names, {})
        )

    # -- applying -------------------------------------------------------------

    def apply(
        self,
        log_file: str | os.PathLike[str] | IO[str] | None = "./mmp_log.txt",
        strict: bool = True,
    ) -> Report:
        """Resolves all requests, changes the simulation and writes the report.

        Where an error is raised, the simulation and the log file are as they were and
        the requests are kept; otherwise the requests are used up.

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
        before = sim.precisions()
        resolution = _C.resolve_requests(
            sim.graph, sim.placement, before, self._requests, bool(strict)
        )
        report = Report(sim, resolution, bool(strict))
        previous = _read_if_there(Path(log_file)) if is_path else None  # type: ignore[arg-type]
        try:
            if is_path:
                atomic_write(log_file, str(report))  # type: ignore[arg-type]
            sim.apply_precisions(resolution.precisions)
            if log_file is not None and not is_path:
                log_file.write(str(report))  # type: ignore[union-attr]
        except BaseException:
            if sim.precisions() != before:
                sim.apply_precisions(before)
            if is_path:
                _restore(Path(log_file), previous)  # type: ignore[arg-type]
            raise
        self._requests = []
        return report

    # -- who is meant ---------------------------------------------------------

    def _find(self, arg: Any) -> tuple[str, str, list[int]]:
        """(target, subject, op indices) of what a user named."""
        if isinstance(arg, torch.nn.Module):
            return self._find_module(arg)
        if isinstance(arg, type) and issubclass(arg, torch.nn.Module):
            names = [n for n, m in self._modules.items() if isinstance(m, arg)]
            return "type", f"type {arg.__name__}", self._ops_within(names)
        if isinstance(arg, Site):
            return self._find_site(arg)
        if isinstance(arg, str):
            return self._find_name(arg)
        raise TypeError(
            "set_precision: arg must be a module of sim.model, a torch.nn.Module "
            f"class, a name or a Site, got {type(arg).__name__}"
        )

    def _find_module(self, module: torch.nn.Module) -> tuple[str, str, list[int]]:
        for name, known in self._modules.items():
            if known is module:
                return self._module_request(name)
        raise ValueError(
            f"set_precision: this {type(module).__name__} is not a layer of sim.model; "
            "pass the module that stands in sim.model, or its name"
        )

    def _module_request(self, name: str) -> tuple[str, str, list[int]]:
        ops = self._ops_within([name])
        is_leaf = all(
            self._ops[op].module == name and not self._ops[op].functional for op in ops
        )
        subject = name or type(self._sim.model).__name__
        return ("leaf" if is_leaf else "container"), subject, ops

    def _find_site(self, site: Site) -> tuple[str, str, list[int]]:
        graph = self._sim.graph
        if site.id >= len(graph.sites) or graph.site_name(site.id) != site.name:
            raise ValueError(
                f"set_precision: site {site.name!r} is not one of this simulation"
            )
        if site.kind == "param":
            raise ValueError(
                f"set_precision: {site.name!r} is the site of a parameter; pass its "
                "layer and param={name: precision}"
            )
        op = graph.op_of_site(site.id)
        return "leaf", site.name, [] if op < 0 else [op]

    def _find_name(self, name: str) -> tuple[str, str, list[int]]:
        if name in self._modules:
            return self._module_request(name)
        ops = {op.name: index for index, op in self._ops.items()}
        if name in ops:
            return "leaf", name, [ops[name]]
        if any(character in name for character in "*?["):
            found = set(self._ops_within(fnmatch.filter(self._modules, name)))
            found.update(ops[each] for each in fnmatch.filter(ops, name))
            if found:
                return "type", name, sorted(found)
        near = difflib.get_close_matches(name, [*self._modules, *ops], n=3)
        raise ValueError(
            f"set_precision: no module or functional op of sim.model is called {name!r}"
            + (f"; near to it: {', '.join(near)}" if near else "")
        )

    def _ops_within(self, modules: Iterable[str]) -> list[int]:
        """Ops that these modules, or modules inside them, call."""
        roots = set(modules)
        return [i for i, op in self._ops.items() if not roots.isdisjoint(op.within)]

    def _activations_of_leaves(
        self, activation: Any, ops: list[int]
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
        for op in (self._ops[index] for index in ops):
            if len(names) != op.num_inputs:
                raise ValueError(
                    f"{argument} must hold one entry per input; {op.name} has "
                    f"{op.num_inputs}, got {len(names)}"
                )
        return names


def _params(param: Mapping[str, Any] | None) -> dict[str, str]:
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


def _read_if_there(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _restore(path: Path, content: bytes | None) -> None:
    if content is None:
        path.unlink(missing_ok=True)
    elif path.read_bytes() != content:
        atomic_write(path, content)
