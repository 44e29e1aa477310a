# SPDX-License-Identifier: BSD-3-Clause
"""ONNX files of a simulation, and the encodings files beside them.

QuantizeLinear and DequantizeLinear stand where the simulation's quantizers do; the
encodings file is keyed by the tensor names of the ONNX file.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import torch
from torch.onnx import symbolic_helper
from torch.utils import _pytree as pytree

from aimetpp.common.inference import eval_mode, tensors_alone_in_state
from aimetpp.export.calling import flat_forward, run_example, tensors_by_name
from aimetpp.export.encodings import (
    Encoding,
    FileHeader,
    check_version,
    document,
    site_encodings,
    to_json,
)
from aimetpp.export.external_data import fits_one_file, onnx_bytes
from aimetpp.export.files import (
    require_writable_file,
    require_writable_folder,
    write_together,
)
from aimetpp.export.integer_types import raise_opset, required_opset
from aimetpp.export.qdq import (
    MARKER_DOMAIN,
    MARKER_OP,
    QdqResult,
    insert_qdq,
)
from aimetpp.export.symbolics import missing_ops, registered, unknown_ops_explained

if TYPE_CHECKING:
    from aimetpp.quantsim import QuantizationSimModel

# What PyTorch's TorchScript-based exporter can write. Per-channel needs 13.
MIN_OPSET, MAX_OPSET = 13, 20


@dataclass(frozen=True)
class QdqModel:
    """An ONNX model with QDQ nodes, and the encoding of each of its tensors."""

    model: onnx.ModelProto
    tensors: QdqResult
    # Whether the biases' encodings belong into the file; None: where its version
    # has them.
    export_int32_bias: bool | None = None

    def param_encodings(self, version: str) -> dict[str, Encoding]:
        """Those of parameters that an encodings file of that version holds."""
        asked = self.export_int32_bias
        has_biases = version == "2.0.0" if asked is None else asked
        return {**self.tensors.params, **(self.tensors.biases if has_biases else {})}


def build_qdq_model(
    sim: QuantizationSimModel,
    args: Any,
    *,
    opset_version: int | None = None,
    input_names: list[str] | None = None,
    output_names: list[str] | None = None,
    dynamic_axes: Mapping[str, Any] | None = None,
    dynamic_batch: bool = False,
    export_int32_bias: bool | None = None,
    **export_options: Any,
) -> QdqModel:
    """Exports `sim.model` in eval mode and puts QDQ nodes where its quantizers are.

    Args:
        sim: a calibrated simulation.
        args: like the simulation's dummy input: tensor, tuple, list or dict.
        opset_version: 13 to 20 (default 20); the file's opset is 21 where the
            precisions need it (integers of other than 8 bits).
        input_names: of the flattened tensors in order; by default the forward's
            argument names.
        output_names: the same; by default "output", or "output_0", "output_1", ...
        dynamic_axes: as `torch.onnx.export` has it; an unknown name is an error.
        dynamic_batch: makes axis 0 of every input and output dynamic.
        export_int32_bias: False leaves biases in float; otherwise they are 32-bit
            integers in steps of input scale x weight scale, and have encodings in
            files of version 2.0.0, with True in those of other versions too.
        **export_options: passed on to `torch.onnx.export`.

    Raises:
        ValueError: a site's precision cannot be expressed in ONNX, or a wrong opset,
            name count or option.
        RuntimeError: a quantizer is not calibrated, the model does not run with
            `args`, or the exporter failed.
    """
    opset = MAX_OPSET if opset_version is None else opset_version
    _check_options(opset, export_options)
    encodings = site_encodings(sim)
    names = {site.id: site.name for site in sim.sites()}
    needed_opset = required_opset(encodings, names)
    model = export_with_markers(
        sim,
        args,
        opset_version=opset,
        input_names=input_names,
        output_names=output_names,
        dynamic_axes=dynamic_axes,
        dynamic_batch=dynamic_batch,
        **export_options,
    )
    model = raise_opset(model, needed_opset)
    params = [site.id for site in sim.sites() if site.kind == "param"]
    int32_bias = export_int32_bias is not False
    tensors = insert_qdq(model, encodings, names, params, int32_bias)
    if fits_one_file(model):  # the checker takes no larger one
        onnx.checker.check_model(model, full_check=True)
    return QdqModel(model, tensors, export_int32_bias)


def export_with_markers(
    sim: QuantizationSimModel,
    args: Any,
    *,
    off_too: bool = False,
    opset_version: int = MAX_OPSET,
    input_names: list[str] | None = None,
    output_names: list[str] | None = None,
    dynamic_axes: Mapping[str, Any] | None = None,
    dynamic_batch: bool = False,
    **export_options: Any,
) -> onnx.ModelProto:
    """Exports `sim.model` in eval mode with a marker node where each quantizer stands.

    The arguments are those of `build_qdq_model`; `off_too` asks for markers where
    quantizers stand that are off, too.
    """
    signature = _Signature.of(sim, args, input_names, output_names)
    signature.check_names(dynamic_axes or {})
    if dynamic_batch:
        batch_axes = {name: {0: "batch"} for name in signature.batched}
        dynamic_axes = {**batch_axes, **dict(dynamic_axes or {})}
    return _run_exporter(
        sim,
        signature,
        off_too,
        opset_version=opset_version,
        dynamic_axes=dict(dynamic_axes) if dynamic_axes else None,
        **export_options,
    )


def _check_options(opset: int, options: Mapping[str, Any]) -> None:
    if not MIN_OPSET <= opset <= MAX_OPSET:
        raise ValueError(
            f"opset_version must be between {MIN_OPSET} and {MAX_OPSET} (the file gets "
            f"21 where its precisions need it), got {opset}"
        )
    fixed = {"dynamo", "f", "model", "custom_opsets", "training", "kwargs"}
    wrong = sorted(fixed & set(options))
    if wrong:
        raise ValueError(
            f"onnx.export: {', '.join(wrong)} cannot be chosen: the simulation is "
            "exported by the TorchScript-based exporter, in eval mode"
        )


@dataclass(frozen=True)
class _Signature:
    """Arguments of the forward, and names of its flattened tensors."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    input_names: list[str]
    output_names: list[str]
    batched: list[str]  # inputs and outputs that have an axis 0

    @classmethod
    def of(
        cls,
        sim: QuantizationSimModel,
        example: Any,
        input_names: list[str] | None,
        output_names: list[str] | None,
    ) -> _Signature:
        from aimetpp.quantsim.tracing import split_dummy_input

        args, kwargs = split_dummy_input(example)
        with torch.no_grad(), eval_mode(sim.model), sim.marker_mode():
            result = run_example(sim.model, args, kwargs)
        inputs = tensors_by_name(sim.model, args, kwargs)
        outputs = [x for x in pytree.tree_leaves(result) if isinstance(x, torch.Tensor)]
        single = len(outputs) == 1
        chosen_inputs = _chosen_names("input_names", input_names, list(inputs))
        default = [
            _free_name("output" if single else f"output_{k}", chosen_inputs)
            for k in range(len(outputs))
        ]
        chosen_outputs = _chosen_names("output_names", output_names, default)
        tensors = [*inputs.values(), *outputs]
        every = zip([*chosen_inputs, *chosen_outputs], tensors, strict=True)
        batched = [name for name, tensor in every if tensor.dim() > 0]
        return cls(args, kwargs, chosen_inputs, chosen_outputs, batched)

    def check_names(self, axes: Mapping[str, Any]) -> None:
        """Raises a ValueError for dynamic axes of what is no input and no output."""
        known = [*self.input_names, *self.output_names]
        unknown = [name for name in axes if name not in known]
        if unknown:
            raise ValueError(
                f"dynamic_axes: {', '.join(unknown)} must be among the inputs and "
                f"outputs, which are {', '.join(known)}"
            )


def _free_name(wanted: str, taken: list[str]) -> str:
    return wanted if wanted not in taken else _free_name(f"{wanted}_", taken)


def _chosen_names(what: str, given: list[str] | None, default: list[str]) -> list[str]:
    if given is None:
        return default
    if len(given) != len(default):
        raise ValueError(
            f"{what} must name {len(default)} tensors (flattened), got {len(given)}"
        )
    return list(given)


def _marker(g: Any, x: Any, site: Any) -> Any:
    """What the exporter writes for the site ops."""
    output = g.op(
        f"{MARKER_DOMAIN}::{MARKER_OP}",
        x,
        id_i=symbolic_helper._maybe_get_const(site, "i"),
        dtype_s=x.type().scalarType(),
    )
    return output.setType(x.type())


def _run_exporter(
    sim: QuantizationSimModel, signature: _Signature, off_too: bool, **options: Any
) -> onnx.ModelProto:
    opset = options["opset_version"]
    with (
        tempfile.TemporaryDirectory(prefix="aimetpp-onnx-") as folder,
        warnings.catch_warnings(),
        eval_mode(sim.model),
        tensors_alone_in_state(sim.model),
        sim.marker_mode(off_too),
        flat_forward(sim.model, signature.args, signature.kwargs) as tensors,
        registered("aimetpp::site", _marker, opset),
        registered("aimetpp::constant_site", _marker, opset),
        missing_ops(opset),
        unknown_ops_explained(sim.graph),
    ):
        warnings.simplefilter("ignore", category=torch.jit.TracerWarning)
        warnings.simplefilter("ignore", category=DeprecationWarning)
        path = os.path.join(folder, "model.onnx")
        torch.onnx.export(
            sim.model,
            tensors,
            path,
            input_names=signature.input_names,
            output_names=signature.output_names,
            custom_opsets={MARKER_DOMAIN: 1},
            dynamo=False,
            **options,
        )
        return onnx.load(path)


def export_onnx(
    sim: QuantizationSimModel,
    args: Any,
    f: str | os.PathLike[str],
    *,
    encoding_version: str | None = None,
    **options: Any,
) -> None:
    """Writes `f` (ONNX with QDQ nodes) and `<stem>.encodings` beside it.

    Both files appear together or not at all; old ones stay where it fails.

    Args:
        sim: a calibrated simulation.
        args: like the simulation's dummy input.
        f: the ONNX file.
        encoding_version: "0.6.1", "1.0.0" (default) or "2.0.0".
        **options: see `build_qdq_model`.

    Raises:
        OSError: the folder cannot be written; nothing has been computed.
        ValueError, RuntimeError: as `build_qdq_model`.
    """
    target = Path(f)
    version = check_version(encoding_version)
    require_writable_folder(target.parent)
    require_writable_file(target)
    exported = build_qdq_model(sim, args, **options)
    write_together(onnx_files(sim, exported, target, version))


def onnx_files(
    sim: Any,
    exported: QdqModel,
    target: Path,
    version: str,
    encodings_path: Path | None = None,
    with_model: bool = True,
) -> dict[Path, str | bytes]:
    """Contents of the ONNX file, of the file with its weights where it is too large for
    one, and of its encodings file, by path.

    Raises:
        ValueError: the ONNX file and its encodings would be one file.
    """
    content = document(
        exported.tensors.activations,
        exported.param_encodings(version),
        FileHeader.of(sim),
        version,
    )
    encodings_path = encodings_path or target.with_suffix(".encodings")
    if encodings_path == target:
        raise ValueError(
            f"ONNX export: {os.fspath(target)} is the name of the encodings file; the "
            "model's needs another suffix, such as .onnx"
        )
    files: dict[Path, str | bytes] = {encodings_path: to_json(content)}
    if with_model:
        data_path = target.with_name(f"{target.name}.data")
        files[target], data = onnx_bytes(exported.model, data_path.name)
        if data:
            files[data_path] = data
    return files


__all__ = ["QdqModel", "build_qdq_model", "export_onnx", "onnx_files"]
