# SPDX-License-Identifier: BSD-3-Clause
"""What leaves a simulation: ONNX, encodings, TorchScript."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aimetpp.export.encodings import check_version, module_document, to_json
from aimetpp.export.files import require_writable_folder, write_together
from aimetpp.export.onnx import build_qdq_model, onnx_files
from aimetpp.export.torchscript import torchscript_bytes

if TYPE_CHECKING:
    from aimetpp.quantsim import QuantizationSimModel


def export(
    sim: QuantizationSimModel,
    path: str | os.PathLike[str],
    filename_prefix: str,
    dummy_input: Any = None,
    onnx_export_args: Mapping[str, Any] | None = None,
    propagate_encodings: bool = False,
    export_to_torchscript: bool = False,
    use_embedded_encodings: bool = False,
    export_model: bool = True,
    filename_prefix_encodings: str | None = None,
    apply_param_qdq: bool = True,
    *,
    encoding_version: str | None = None,
    **options: Any,
) -> None:
    """Writes `<prefix>.onnx`, `<prefix>.encodings` and `<prefix>_torch.encodings`.

    All files appear together; where it fails, none does, and old ones stay.

    Args:
        sim: a calibrated simulation.
        path: the folder; made if missing.
        filename_prefix: of the file names; with folders, which are made, if you like.
        dummy_input: like the simulation's; None: the simulation's.
        onnx_export_args: see `aimetpp.export.onnx.build_qdq_model`.
        propagate_encodings: False; AIMET's, without a meaning here.
        export_to_torchscript: also writes `<prefix>.torchscript.pth`.
        use_embedded_encodings: False: the ONNX file holds QDQ nodes anyway.
        export_model: False: writes the encodings files only.
        filename_prefix_encodings: of the encodings files, if not `filename_prefix`.
        apply_param_qdq: True: the ONNX file holds parameters as integers.
        encoding_version: of `<prefix>.encodings`: "0.6.1", "1.0.0" (default) or
            "2.0.0". `<prefix>_torch.encodings`, keyed by modules, is always 0.6.1.
        **options: as onnx_export_args.

    Raises:
        OSError: the folder cannot be written; nothing has been computed.
        ValueError: a precision that ONNX cannot express; the message names the site;
            another value of what has one only.
        RuntimeError: a quantizer is not calibrated, or the exporter failed.
    """
    version = check_version(encoding_version)
    _require("propagate_encodings", propagate_encodings, False)
    _require("use_embedded_encodings", use_embedded_encodings, False)
    _require("apply_param_qdq", apply_param_qdq, True)
    folder = Path(path)
    encodings_prefix = filename_prefix_encodings or filename_prefix
    for prefix in (filename_prefix, encodings_prefix):
        require_writable_folder((folder / f"{prefix}.onnx").parent)
    example = sim.dummy_input if dummy_input is None else dummy_input
    exported = build_qdq_model(sim, example, **{**(onnx_export_args or {}), **options})
    files = onnx_files(
        sim,
        exported,
        folder / f"{filename_prefix}.onnx",
        version,
        folder / f"{encodings_prefix}.encodings",
        with_model=export_model,
    )
    by_module = folder / f"{encodings_prefix}_torch.encodings"
    files[by_module] = to_json(module_document(sim))
    if export_to_torchscript:
        script = torchscript_bytes(sim, example)
        files[folder / f"{filename_prefix}.torchscript.pth"] = script
    write_together(files)


def _require(name: str, given: bool, only: bool) -> None:
    if given is not only:
        raise ValueError(
            f"export: {name} can only be {only}, got {given!r}: the ONNX file holds "
            "QDQ nodes and integer parameters, and the encodings file every tensor "
            "that lies on a grid"
        )


__all__ = ["export"]
