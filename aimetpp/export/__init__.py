# SPDX-License-Identifier: BSD-3-Clause
"""What leaves a simulation: ONNX, encodings, TorchScript."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aimetpp.export.encodings import check_version, module_document, to_json
from aimetpp.export.files import require_writable_folder, write_together
from aimetpp.export.onnx import build_qdq_model, onnx_files
from aimetpp.export.torchscript import torchscript_bytes

if TYPE_CHECKING:
    from aimetpp.quantsim import QuantizationSimModel


def export_files(
    sim: QuantizationSimModel,
    model_stem: str,
    encodings_stem: str,
    example: Any,
    *,
    encoding_version: str | None = None,
    with_model: bool = True,
    with_torchscript: bool = False,
    **options: Any,
) -> None:
    """Writes what `sim.export` does: all files together or none; old ones then stay.

    Args:
        sim: a calibrated simulation.
        model_stem: path without suffix, of `.onnx` and `.torchscript.pth`.
        encodings_stem: the same of `.encodings` and `_torch.encodings`.
        example: like the simulation's dummy input.
        encoding_version: of `.encodings`; None: the default.
        with_model: whether the ONNX file is written.
        with_torchscript: whether the TorchScript file is.
        **options: see `build_qdq_model`.

    Raises:
        OSError: a folder cannot be written; nothing has been computed.
        ValueError, RuntimeError: as `build_qdq_model` and `torchscript_bytes`.
    """
    version = check_version(encoding_version)
    target, by_tensor = Path(f"{model_stem}.onnx"), Path(f"{encodings_stem}.encodings")
    for path in (target, by_tensor):
        require_writable_folder(path.parent)
    exported = build_qdq_model(sim, example, **options)
    files = onnx_files(sim, exported, target, version, by_tensor, with_model)
    files[Path(f"{encodings_stem}_torch.encodings")] = to_json(module_document(sim))
    if with_torchscript:
        script = torchscript_bytes(sim, example)
        files[Path(f"{model_stem}.torchscript.pth")] = script
    write_together(files)


def require_only(arguments: Mapping[str, tuple[bool, bool]]) -> None:
    """Checks arguments of AIMET's export that can have one value only here.

    Args:
        arguments: what was given and that value, by name.

    Raises:
        ValueError: another value.
    """
    for name, (given, only) in arguments.items():
        if given is not only:
            raise ValueError(
                f"export: {name} can only be {only}, got {given!r}: the ONNX file "
                "holds QDQ nodes and integer parameters, and the encodings file every "
                "tensor that lies on a grid"
            )


__all__ = ["export_files", "require_only"]
