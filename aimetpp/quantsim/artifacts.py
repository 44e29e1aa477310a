# SPDX-License-Identifier: BSD-3-Clause
"""What leaves a simulation and comes back: exports, encodings."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from aimetpp.common.files import atomic_write
from aimetpp.quantization import (
    FloatQuantizeDequantize,
    QuantizeDequantize,
    QuantizerBase,
)
from aimetpp.quantization.base import keep_masked

if TYPE_CHECKING:
    from aimetpp import _C
    from aimetpp.quantsim.bank import QuantizerBank
    from aimetpp.quantsim.entries import Slot
    from aimetpp.quantsim.simulation import QuantizationSimModel


class _Portable(torch.nn.Module):
    """Stands in a slot while a model is exported without our ops: a quantizer as it
    is now, with its scale and offset as constants.
    """

    scale: torch.Tensor
    offset: torch.Tensor

    def __init__(self, quantizer: QuantizeDequantize) -> None:
        super().__init__()
        scale, offset = quantizer.get_scale(), quantizer.get_offset()
        if scale is None or offset is None:
            raise RuntimeError(
                f"portable_mode: quantizer {quantizer.label!r} has no range yet: run "
                "sim.compute_encodings(...) with data that reaches it first"
            )
        self.register_buffer("scale", scale.detach())
        self.register_buffer("offset", offset.detach())
        self.qmin, self.qmax = quantizer.grid.tolist()
        self.channel_axis = quantizer.channel_axis
        self.blocks = quantizer.blocks
        self.masked_below = quantizer.masked_below

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        from aimetpp.export.torchscript import aten_fake_quantize

        values = x if self.blocks is None else self.blocks.split(x)
        y = aten_fake_quantize(
            values, self.scale, self.offset, self.qmin, self.qmax, self.channel_axis
        )
        y = y if self.blocks is None else self.blocks.join(y, x.shape)
        return keep_masked(x, y, self.masked_below)


class _PortableFloat(torch.nn.Module):
    """A float quantizer as aten ops, as it is now."""

    scale: torch.Tensor | None

    def __init__(self, quantizer: FloatQuantizeDequantize) -> None:
        super().__init__()
        self.register_buffer("scale", quantizer.scale)
        self.dtype = quantizer.dtype
        self.largest = quantizer.largest if quantizer.saturates else None
        self.channel_axis = quantizer.channel_axis
        self.masked_below = quantizer.masked_below

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        from aimetpp.export.torchscript import aten_float_quantize

        y = aten_float_quantize(
            x, self.dtype, self.largest, self.scale, self.channel_axis
        )
        return keep_masked(x, y, self.masked_below)


class _OnnxExporter:
    """`sim.onnx`: export to ONNX under the reference's name."""

    def __init__(self, sim: Any) -> None:
        self._sim = sim

    def export(
        self,
        args: Any,
        f: str | os.PathLike[str],
        *,
        encoding_version: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Writes ONNX with QuantizeLinear/DequantizeLinear nodes to `f` and the
        encodings beside it, with the suffix `.encodings`.

        Args:
            args: example input, as `dummy_input` of the simulation.
            f: path of the .onnx file.
            encoding_version: "0.6.1", "1.0.0" (the default) or "2.0.0".
            **kwargs: input_names, output_names, dynamic_axes, as in
                torch.onnx.export.

        Raises:
            RuntimeError: a quantizer is not calibrated.
            ValueError: an unknown version, or a precision ONNX cannot express.
            OSError: the file cannot be written; nothing is left behind.
        """
        from aimetpp.export import onnx as onnx_export

        options = {**self._sim.export_options(), **kwargs}
        onnx_export.export_onnx(
            self._sim, args, f, encoding_version=encoding_version, **options
        )


class ArtifactMethods:
    """The part of QuantizationSimModel that reads and writes files."""

    model: torch.nn.Module
    graph: _C.OpGraph
    dummy_input: Any
    _bank: QuantizerBank
    _pinned: set[int]

    @property
    def onnx(self) -> _OnnxExporter:
        """ONNX export: `sim.onnx.export(args, f)`."""
        return _OnnxExporter(self)

    def export_options(self) -> dict[str, Any]:
        """Options of an ONNX export where the user gives others or none."""
        return {}

    def export(
        self,
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
        **kwargs: Any,
    ) -> None:
        """Writes `<prefix>.onnx` (QDQ), `<prefix>.encodings` and
        `<prefix>_torch.encodings` (keyed by module) into the folder `path`.

        All files appear together; where it fails, none does, and old ones stay.

        Args:
            path: the folder; made if missing.
            filename_prefix: of the file names; with folders, which are made, if you
                like.
            dummy_input: example input; None: the simulation's own.
            onnx_export_args: as for `sim.onnx.export`.
            propagate_encodings: False; AIMET's, without a meaning here.
            export_to_torchscript: also writes `<prefix>.torchscript.pth`.
            use_embedded_encodings: False: the ONNX file holds QDQ nodes anyway.
            export_model: False: writes the encodings files only.
            filename_prefix_encodings: of those, if not `filename_prefix`.
            apply_param_qdq: True: the ONNX file holds parameters as integers.
            **kwargs: as for `sim.onnx.export`. `encoding_version` is that of
                `<prefix>.encodings`; `<prefix>_torch.encodings` is always 0.6.1.

        Raises:
            RuntimeError: a quantizer is not calibrated, or the exporter failed.
            ValueError: a precision that ONNX cannot express; the message names the
                site; another value of what has one only; an empty prefix.
            OSError: the folder cannot be written; nothing has been computed.
        """
        from aimetpp.export import export_files, require_only

        if not filename_prefix:
            raise ValueError("export: filename_prefix must not be empty")
        require_only(
            {
                "propagate_encodings": (propagate_encodings, False),
                "use_embedded_encodings": (use_embedded_encodings, False),
                "apply_param_qdq": (apply_param_qdq, True),
            }
        )
        export_files(
            cast("QuantizationSimModel", self),
            os.path.join(path, filename_prefix),
            os.path.join(path, filename_prefix_encodings or filename_prefix),
            self.dummy_input if dummy_input is None else dummy_input,
            with_model=export_model,
            with_torchscript=export_to_torchscript,
            **{**self.export_options(), **(onnx_export_args or {}), **kwargs},
        )

    def export_torchscript(
        self,
        path: str | os.PathLike[str],
        portable: bool = False,
        example_inputs: Any = None,
    ) -> None:
        """Writes the simulation as a TorchScript file.

        Args:
            path: the file to write.
            portable: plain aten ops, so that it loads where aimetpp is not
                installed; otherwise our ops, which need libaimetpp.
            example_inputs: as `dummy_input`; None: the simulation's own.

        Raises:
            RuntimeError: a quantizer is not calibrated, or the traced model does
                not compute what the simulation does.
        """
        from aimetpp.export.torchscript import export_torchscript

        export_torchscript(
            cast("QuantizationSimModel", self),
            path,
            portable=portable,
            example_inputs=example_inputs,
        )

    @contextlib.contextmanager
    def portable_mode(self) -> Iterator[None]:
        """Within the context quantizers compute with plain aten ops."""

        def replace(slot: Slot, quantizer: QuantizerBase) -> torch.nn.Module:
            if isinstance(quantizer, QuantizeDequantize):
                return _Portable(quantizer)
            if isinstance(quantizer, FloatQuantizeDequantize):
                return _PortableFloat(quantizer)
            return quantizer

        sim = cast("QuantizationSimModel", self)
        with sim.constant_biases(), self._bank.swapped(replace):
            yield

    def save_encodings_to_json(
        self, path: str | os.PathLike[str], filename_prefix: str
    ) -> None:
        """Writes `<path>/<prefix>.json`: every encoding, keyed by module."""
        from aimetpp.export.encodings import save_encodings_to_json

        save_encodings_to_json(
            cast("QuantizationSimModel", self), path, filename_prefix
        )

    def load_encodings(
        self,
        encodings: dict[str, Any] | str | os.PathLike[str],
        strict: bool = True,
        partial: bool = True,
        requires_grad: bool | None = None,
        allow_overwrite: bool = True,
        *,
        onnx_export_args: dict[str, Any] | None = None,
    ) -> None:
        """Sets encodings from a file, keyed by modules (`save_encodings_to_json`) or by
        the tensors of the exported ONNX file (versions 0.6.1, 1.0.0, 2.0.0).

        Args:
            encodings: path, or the parsed content.
            strict: names that the model does not have are an error.
            partial: quantizers without an entry keep their state; otherwise they
                are turned off.
            requires_grad: whether the loaded ranges are trained; None: as they are.
            allow_overwrite: whether calibration may change the loaded ranges.
            onnx_export_args: where names are an ONNX file's: the arguments of its
                export that change names (`input_names`, `output_names`).

        Raises:
            TypeError: neither a path nor a dict.
            RuntimeError: names that do not match, all of them listed.
            ValueError: not an encodings file.
        """
        from aimetpp.export.encodings import load_encodings

        load_encodings(
            cast("QuantizationSimModel", self),
            encodings,
            strict=strict,
            partial=partial,
            requires_grad=requires_grad,
            allow_overwrite=allow_overwrite,
            onnx_export_args=onnx_export_args,
        )

    def set_and_freeze_param_encodings(
        self, encoding_path: str | os.PathLike[str]
    ) -> None:
        """Sets the parameters' encodings from a file, for good: neither calibration
        nor training changes them.

        Args:
            encoding_path: a file as for `load_encodings`, of which only the
                parameters count, or one that holds nothing but their entries by name
                (0.6.1).

        Raises:
            RuntimeError: names that do not match, all of them listed.
            ValueError: not such a file.
        """
        from aimetpp.export.loading import load_param_encodings

        load_param_encodings(cast("QuantizationSimModel", self), encoding_path)

    def export_weights_to_safetensors(
        self, path: str | os.PathLike[str], filename_prefix: str
    ) -> None:
        """Writes `<path>/<prefix>.safetensors`: the model's own parameters and buffers,
        by their names in its state_dict, without quantization.

        With a precision profile and an encodings file it is all that another process
        needs beside the model's code: see `aimetpp.export.safetensors.load`.

        Raises:
            OSError: the folder cannot be written.
        """
        from aimetpp.export.files import require_writable_folder
        from aimetpp.export.safetensors import to_bytes

        folder = Path(path)
        require_writable_folder(folder)
        sim = cast("QuantizationSimModel", self)
        original = sim.get_original_model(sim.model)
        content = to_bytes(original.state_dict())
        atomic_write(folder / f"{filename_prefix}.safetensors", content)


def load_encodings_to_sim(
    quant_sim_model: QuantizationSimModel,
    pytorch_encoding_path: dict[str, Any] | str | os.PathLike[str],
) -> None:
    """Gives a simulation the encodings of a file, and no others: a quantizer without
    an entry in the file is turned off.

    Args:
        quant_sim_model: the simulation.
        pytorch_encoding_path: file keyed by module, as `save_encodings_to_json` and
            `export` (`<prefix>_torch.encodings`) write it.

    Raises:
        RuntimeError: names that do not match, all of them listed.
        ValueError: not an encodings file.
    """
    quant_sim_model.load_encodings(pytorch_encoding_path, strict=True, partial=False)
