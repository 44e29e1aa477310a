# SPDX-License-Identifier: BSD-3-Clause
"""How tensors and layers are quantized, in the names of Quark's later releases."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import ClassVar


class CalibMethod(Enum):
    """How a spec's range is chosen."""

    MinMax = "min_max"
    Percentile = "percentile"
    MinMSE = "mse"


class ScaleType(Enum):
    """Which scales a spec allows."""

    Float32 = "float32"
    PowerOf2 = "power_of_2"


class QuantGranularity(Enum):
    """How many ranges a tensor has."""

    Tensor = "tensor"
    Channel = "channel"


@dataclass(frozen=True)
class QTensorConfig:
    """How one kind of tensor is quantized.

    Attributes:
        symmetric: the grid's zero is in its middle.
        scale_type: float or powers of two.
        calibration_method: how ranges are chosen.
        quant_granularity: one range, or one per channel.
        precision: of the class.
    """

    symmetric: bool = True
    scale_type: ScaleType = ScaleType.Float32
    calibration_method: CalibMethod = CalibMethod.Percentile
    quant_granularity: QuantGranularity = QuantGranularity.Tensor
    precision: ClassVar[str] = ""


@dataclass(frozen=True)
class Int8Spec(QTensorConfig):
    """8-bit integers."""

    precision = "int8"


@dataclass(frozen=True)
class UInt8Spec(QTensorConfig):
    """8-bit integers, asymmetric."""

    symmetric: bool = False
    precision = "int8"


@dataclass(frozen=True)
class XInt8Spec(QTensorConfig):
    """8-bit integers with scales that are powers of two."""

    scale_type: ScaleType = ScaleType.PowerOf2
    calibration_method: CalibMethod = CalibMethod.MinMSE
    precision = "int8"


@dataclass(frozen=True)
class Int16Spec(QTensorConfig):
    """16-bit integers."""

    precision = "int16"


@dataclass(frozen=True)
class UInt16Spec(QTensorConfig):
    """16-bit integers, asymmetric."""

    symmetric: bool = False
    precision = "int16"


@dataclass(frozen=True)
class Int32Spec(QTensorConfig):
    """32-bit integers."""

    precision = "int32"


@dataclass(frozen=True)
class Float16Spec(QTensorConfig):
    """IEEE half precision."""

    precision = "fp16"


@dataclass(frozen=True)
class BFloat16Spec(QTensorConfig):
    """bfloat16."""

    precision = "bf16"


@dataclass(frozen=True)
class QLayerConfig:
    """How layers are quantized.

    Attributes:
        input_tensors, activation, output_tensors: spec of activations; given more than
            once they must be of one precision, since a tensor between two layers is the
            output of one and the input of the other.
        weight: spec of weights.
        bias: must be None or an Int32Spec.
    """

    input_tensors: QTensorConfig | None = None
    activation: QTensorConfig | None = None
    weight: QTensorConfig | None = None
    bias: QTensorConfig | None = None
    output_tensors: QTensorConfig | None = None

    def activation_spec(self) -> QTensorConfig | None:
        """The one spec of its activations; None where it has none.

        Raises:
            TypeError: something that is no spec.
            ValueError: specs that differ.
        """
        specs = [self.input_tensors, self.activation, self.output_tensors]
        given = [spec for spec in specs if spec is not None]
        for spec in (*given, self.weight, self.bias):
            if spec is not None and not isinstance(spec, QTensorConfig):
                raise TypeError(f"QLayerConfig: a spec is required, got {spec!r}")
        if any(spec != given[0] for spec in given):
            raise ValueError("QLayerConfig: specs of inputs and outputs must be equal")
        if self.bias is not None and self.bias.precision != "int32":
            raise ValueError("QLayerConfig: biases are 32-bit integers")
        return given[0] if given else None


def _is_integer(spec: QTensorConfig | None) -> bool:
    """Float formats have no range, so that nothing about one matters."""
    return spec is not None and spec.precision.startswith("int")


def calibration_of(spec: QTensorConfig | None) -> tuple[str | None, bool | None]:
    """Scheme and symmetry; None of what has no range."""
    if spec is None or not _is_integer(spec):
        return None, None
    return spec.calibration_method.value, spec.symmetric


def check_global(activation: QTensorConfig, weight: QTensorConfig) -> None:
    """Raises a ValueError for fields of the model's specs that have no effect."""
    _check_spec("global_config", "activation", activation, activation.scale_type)
    _check_spec("global_config", "weight", weight, activation.scale_type)


def check_layer(
    layer: QLayerConfig,
    names: list[str],
    activation: QTensorConfig,
    weight: QTensorConfig,
) -> None:
    """Raises a ValueError for fields of layers' specs that have no effect.

    Args:
        layer: the layers' config.
        names: of the layers.
        activation: the model's spec.
        weight: the same, of weights.
    """
    where = f"the config of {', '.join(map(str, names))}"
    spec = layer.activation_spec()
    if spec is not None:
        _check_spec(where, "activation", spec, activation.scale_type)
    if layer.weight is not None:
        _check_spec(where, "weight", layer.weight, activation.scale_type)
        if _is_integer(layer.weight) and (
            layer.weight.quant_granularity is not weight.quant_granularity
        ):
            raise ValueError(
                f"QConfig: {where}: weight: quant_granularity must be that of "
                f"global_config, {weight.quant_granularity}, got "
                f"{layer.weight.quant_granularity}"
            )


def check_target(layer: QLayerConfig, wide: QLayerConfig) -> None:
    """Raises a ValueError for fields of a search's target in which it differs from the
    model's: a search only changes what a tensor is quantized to.
    """
    for kind, target, model in (
        ("activation", layer.activation_spec(), wide.activation_spec()),
        ("weight", layer.weight, wide.weight),
    ):
        if target is None or model is None:
            continue
        if not (_is_integer(target) and _is_integer(model)):
            continue
        for name in (
            *("symmetric", "scale_type"),
            *("calibration_method", "quant_granularity"),
        ):
            asked, there = getattr(target, name), getattr(model, name)
            if asked != there:
                raise ValueError(
                    f"target_layer_config: {kind}: {name} must be that of "
                    f"global_config, {there}, got {asked}"
                )


def _check_spec(
    where: str, kind: str, spec: QTensorConfig, scale_type: ScaleType
) -> None:
    if not _is_integer(spec):
        return
    name = f"QConfig: {where}: {kind}"
    if spec.scale_type is not scale_type:
        raise ValueError(
            f"{name}: scale_type must be the same everywhere, {scale_type}, got "
            f"{spec.scale_type}"
        )
    if not spec.symmetric and (
        kind == "weight" or spec.scale_type is ScaleType.PowerOf2
    ):
        what = "weights" if kind == "weight" else "ranges of powers of two"
        raise ValueError(f"{name}: {what} are symmetric, got symmetric=False")
    if kind == "activation" and spec.quant_granularity is not QuantGranularity.Tensor:
        raise ValueError(
            f"{name}: activations have one range, QuantGranularity.Tensor, got "
            f"{spec.quant_granularity}"
        )
