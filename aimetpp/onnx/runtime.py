# SPDX-License-Identifier: BSD-3-Clause
"""onnxruntime: imported where it is needed, and sessions of a model."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from aimetpp.export.external_data import fits_one_file


def onnxruntime() -> Any:
    """The module.

    Raises:
        ImportError: it is not installed; the message says how to get it.
    """
    try:
        import onnxruntime as module
    except ImportError as error:
        raise ImportError(
            "aimetpp.onnx runs models with onnxruntime, which is not installed: "
            "pip install 'aimetpp[onnx]' or pip install onnxruntime"
        ) from error
    return module


@dataclass(frozen=True)
class SessionMaker:
    """How sessions are made.

    Attributes:
        providers: execution providers, as onnxruntime takes them.
        custom_ops: libraries of ops that onnxruntime does not have.
        folder: where a model of more than 2 GiB is put while its session is made;
            None: the system's folder for temporary files.
    """

    providers: Sequence[Any]
    custom_ops: tuple[str, ...] = ()
    folder: str | None = None

    def make(self, model: onnx.ModelProto, optimize: bool = True) -> Any:
        """A session of `model`; `optimize` lets onnxruntime fuse nodes.

        Raises:
            Exception: onnxruntime's own, of a model that it cannot run.
        """
        runtime = onnxruntime()
        options = runtime.SessionOptions()
        options.log_severity_level = 3  # errors
        if not optimize:
            levels = runtime.GraphOptimizationLevel
            options.graph_optimization_level = levels.ORT_DISABLE_ALL
        for library in self.custom_ops:
            options.register_custom_ops_library(library)
        providers = list(self.providers)
        if fits_one_file(model):
            return runtime.InferenceSession(
                model.SerializeToString(), options, providers=providers
            )
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            path = Path(folder) / "model.onnx"
            copied = onnx.ModelProto()
            copied.CopyFrom(model)  # saving moves the data out of the model
            onnx.save_model(copied, str(path), save_as_external_data=True)
            return runtime.InferenceSession(str(path), options, providers=providers)


def choose_providers(
    providers: Sequence[Any] | None, use_cuda: bool | None, device: int
) -> list[Any]:
    """The execution providers.

    Args:
        providers: as onnxruntime takes them; None: by `use_cuda`.
        use_cuda: True: CUDA; False: the CPU; None: CUDA where this onnxruntime has it.
        device: which CUDA device.

    Raises:
        ValueError: both are given, or one that this onnxruntime does not have.
    """
    available = onnxruntime().get_available_providers()
    has_cuda = "CUDAExecutionProvider" in available
    if providers is not None:
        if use_cuda is not None:
            raise ValueError("give either providers or use_cuda, not both")
        for provider in providers:
            name = provider if isinstance(provider, str) else provider[0]
            if name not in available:
                raise ValueError(
                    f"providers: this onnxruntime has no {name!r}; it has "
                    f"{', '.join(available)}"
                )
        return list(providers)
    if use_cuda and not has_cuda:
        raise ValueError(
            "use_cuda=True needs an onnxruntime with CUDA (the package "
            "onnxruntime-gpu); this one has none"
        )
    if use_cuda or (use_cuda is None and has_cuda):
        cuda = ("CUDAExecutionProvider", {"device_id": device})
        return [cuda, "CPUExecutionProvider"]
    return ["CPUExecutionProvider"]
