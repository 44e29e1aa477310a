# SPDX-License-Identifier: BSD-3-Clause
"""What leaves a simulation: ONNX, encodings, TorchScript."""

from __future__ import annotations

import os
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
    *,
    onnx_export_args: dict[str, Any] | None = None,
    encoding_version: str | None = None,
    filename_prefix_encodings: str | None = None,
    export_to_torchscript: bool = False,
    **options: Any,
) -> None:
    """Writes `<prefix>.onnx`, `<prefix>.encodings` and `<prefix>_torch.encodings`.

    All files appear together; where it fails, none does, and old ones stay.

    Args:
        sim: a calibrated simulation.
        path: the folder; made if missing.
        filename_prefix: of the file names.
        dummy_input: like the simulation's; None: the simulation's.
        onnx_export_args: see `aimetpp.export.onnx.build_qdq_model`.
        encoding_version: of `<prefix>.encodings`: "0.6.1", "1.0.0" (default) or
            "2.0.0". `<prefix>_torch.encodings`, keyed by modules, is always 0.6.1.
        filename_prefix_encodings: of the encodings files, if not `filename_prefix`.
        export_to_torchscript: also writes `<prefix>.torchscript.pth`.
        **options: as onnx_export_args.

    Raises:
        OSError: the folder cannot be written; nothing has been computed.
        ValueError: a precision that ONNX cannot express; the message names the site.
        RuntimeError: a quantizer is not calibrated, or the exporter failed.
    """
    version = check_version(encoding_version)
    folder = Path(path)
    require_writable_folder(folder)
    example = sim.dummy_input if dummy_input is None else dummy_input
    exported = build_qdq_model(sim, example, **{**(onnx_export_args or {}), **options})
    encodings_prefix = filename_prefix_encodings or filename_prefix
    files = onnx_files(
        sim,
        exported,
        folder / f"{filename_prefix}.onnx",
        version,
        folder / f"{encodings_prefix}.encodings",
    )
    by_module = folder / f"{encodings_prefix}_torch.encodings"
    files[by_module] = to_json(module_document(sim))
    if export_to_torchscript:
        script = torchscript_bytes(sim, example)
        files[folder / f"{filename_prefix}.torchscript.pth"] = script
    write_together(files)


__all__ = ["export"]
