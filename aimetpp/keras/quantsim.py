# SPDX-License-Identifier: BSD-3-Clause
"""QuantizationSimModel of a Keras model."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import keras
import torch

from aimetpp.common.defs import QuantizationDataType, QuantScheme
from aimetpp.keras.models import (
    attach,
    check_model,
    copied,
    detach,
    dummy_of,
    register_quantized,
)
from aimetpp.quantsim import QuantizationSimModel as TorchQuantizationSimModel

__all__ = ["QuantizationSimModel"]


class QuantizationSimModel(TorchQuantizationSimModel):
    """Simulates a quantized version of a Keras model on Keras's PyTorch backend.

    `sim.model` is a Keras model with the same layers: `predict`, `evaluate`, `fit` (for
    quantization-aware training) and `save` (of the float weights as they are now) are
    Keras's own.

    Args:
        model: a built keras.Model.
        quant_scheme: as of aimetpp.quantsim.QuantizationSimModel.
        rounding_mode: "nearest"; there is no other.
        default_output_bw, default_param_bw: bit-widths, 2 to 32.
        in_place: quantize `model` itself instead of a copy. A subclassed model is
            copied by its `get_config`, and the copy compared with it.
        config_file: path or shipped name; None: "default".
        default_data_type: QuantizationDataType.int, or .float with 16 bits.
        dummy_input: an example input with which the model is traced, tensors or arrays,
            as it is given to the model; by default random values in the shapes of the
            model's inputs.

    Raises:
        TypeError: an argument of the wrong type.
        ValueError: an unbuilt model, a subclassed one whose config does not describe
            it, an open dimension without dummy_input; else as there.
        RuntimeError: Keras on another backend; else as there.
    """

    def __init__(
        self,
        model: Any,
        quant_scheme: QuantScheme | str | None = QuantScheme.post_training_tf_enhanced,
        rounding_mode: str = "nearest",
        default_output_bw: int = 8,
        default_param_bw: int = 8,
        in_place: bool = False,
        config_file: str | os.PathLike[str] | None = None,
        default_data_type: QuantizationDataType = QuantizationDataType.int,
        *,
        dummy_input: Any = None,
    ) -> None:
        check_model(model, "QuantizationSimModel")
        if rounding_mode != "nearest":
            raise ValueError(f'rounding_mode must be "nearest", got {rounding_mode!r}')
        dummy_input = dummy_of(model, dummy_input)
        prepared = model if in_place else copied(model, example=dummy_input)
        attach(prepared, share=True)
        try:
            super().__init__(
                prepared,
                dummy_input,
                quant_scheme,
                default_output_bw,
                default_param_bw,
                True,
                config_file,
                default_data_type,
            )
        except BaseException:
            detach(prepared)
            raise
        register_quantized(prepared)

    def __deepcopy__(self, memo: dict[int, Any]) -> QuantizationSimModel:
        raise TypeError(
            "the simulation of a Keras model cannot be copied: build another one, and "
            "carry precisions over with save_precision_profile"
        )

    def export_options(self) -> dict[str, Any]:
        """In an ONNX file the inputs of a Functional or Sequential model keep their
        names, and the batch is dynamic.
        """
        options: dict[str, Any] = {"dynamic_batch": True}
        inputs: Any = getattr(self.model, "inputs", None)
        example = self.dummy_input
        if isinstance(example, tuple) and len(example) == 1:
            example = example[0]
        if inputs and isinstance(example, list | torch.Tensor):
            options["input_names"] = [tensor.name for tensor in inputs]
        return options

    @property
    def callback_factory(self) -> Any:
        """What makes built-in metrics of arrays for Keras models."""
        from aimetpp.keras.amp.mixed_precision_algo import EvalCallbackFactory

        return EvalCallbackFactory

    @staticmethod
    def get_original_model(model: Any, qdq_weights: bool = False) -> Any:
        """The Keras model without quantizers, with the weights as they are now.

        Args:
            model: `sim.model`, or the simulation.
            qdq_weights: must be False.

        Raises:
            ValueError: `qdq_weights`; a subclassed model that cannot be copied.
        """
        if qdq_weights:
            raise ValueError("get_original_model: qdq_weights is not there for Keras")
        quantized: Any = (
            model.model if isinstance(model, QuantizationSimModel) else model
        )
        if not getattr(quantized, "inputs", None):
            sim = quantized.__dict__["_aimetpp_sim"]()
            with sim.quantizers_off():
                return copied(quantized, example=sim.dummy_input)
        with tempfile.TemporaryDirectory(prefix="aimetpp-keras-") as folder:
            path = Path(folder) / "model.keras"
            quantized.save(path)
            return keras.models.load_model(path)
