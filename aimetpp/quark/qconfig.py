# SPDX-License-Identifier: BSD-3-Clause
"""The names of Quark's later releases: QConfig and its search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from aimetpp.quark.auto import (
    COMPUTE_OPS,
    AutoPlan,
    check_plan,
    mean_cosine_distance,
    mean_l2,
    noise_to_signal,
)
from aimetpp.quark.config import NodeRequest, Plan, read_extra_options
from aimetpp.quark.specs import (
    QLayerConfig,
    QuantGranularity,
    ScaleType,
    calibration_of,
    check_global,
    check_layer,
    check_target,
)


@dataclass
class AutoMixprecisionConfig:
    """Auto mixed precision.

    Attributes:
        target_layer_config: the narrow QLayerConfig, or a list of them; its specs
            differ from the model's in precision only.
        target_op_type: layers that are searched.
        include_layers, exclude_layers: nodes by name.
        data_size: samples of the reader; 0: all.
        metric_output_index: the model output that is looked at.
        metric_distance_fn: (float outputs, quantized outputs) -> lower is better; by
            sample, by output.
        metric_evaluate_fn: (outputs) -> higher is better.
        metric_default: "l2", "cosine" or "sqnr" where neither is given.
        metric_threshold: largest distance, or loss of the evaluated score; 0 allows no
            loss, None none at all: everything is narrowed.
        metric_optimize_object: must be "speed": from wide to narrow.
        no_input_qdq_shared: leave out layers whose input others read as well.
        skip_breaking: go on past a layer that breaks the threshold.
    """

    target_layer_config: Any
    target_op_type: Sequence[str] = COMPUTE_OPS
    include_layers: list[str] | None = None
    exclude_layers: list[str] | None = None
    data_size: int = 0
    metric_output_index: int | None = 0
    metric_distance_fn: Callable[..., float] | None = None
    metric_evaluate_fn: Callable[..., float] | None = None
    metric_default: str = "l2"
    metric_threshold: float | None = 0
    metric_optimize_object: str = "speed"
    no_input_qdq_shared: bool = False
    skip_breaking: bool = False


@dataclass
class QConfig:
    """Configuration of the whole model, of layers and of op types.

    Attributes:
        global_config: of all layers.
        specific_layer_config: {QLayerConfig: [node names or globs]}; of its specs,
            what is not the precision counts in calibration, and scale_type and
            quant_granularity must be the model's.
        layer_type_config: {QLayerConfig, or None for float: [op types]}.
        exclude: nodes that stay in float.
        algo_config: at most one AutoMixprecisionConfig.
        use_external_data_format: must be False.
        extra_options: as of QuantizationConfig, but for AutoMixprecision.
    """

    global_config: QLayerConfig
    specific_layer_config: dict[QLayerConfig, list[str]] = field(default_factory=dict)
    layer_type_config: dict[QLayerConfig | None, list[str]] = field(
        default_factory=dict
    )
    exclude: list[str] = field(default_factory=list)
    algo_config: list[Any] = field(default_factory=list)
    use_external_data_format: bool = False
    extra_options: dict[str, Any] = field(default_factory=dict)


def read_qconfig(config: QConfig) -> Plan:
    """The plan of a QConfig.

    Raises:
        TypeError: something of the wrong type.
        ValueError: a value, a key or an attribute that has no effect here.
    """
    if config.use_external_data_format:
        raise ValueError("use_external_data_format=True is not supported")
    spec, weight = config.global_config.activation_spec(), config.global_config.weight
    if spec is None or weight is None:
        raise ValueError("QConfig: global_config must have activation and weight specs")
    check_global(spec, weight)
    plan = Plan(
        spec.precision,
        weight.precision,
        spec.calibration_method.value,
        weight.calibration_method.value,
        power_of_two=spec.scale_type is ScaleType.PowerOf2,
        per_channel=weight.quant_granularity is QuantGranularity.Channel,
        symmetric=spec.symmetric,
        exclude=list(config.exclude),
    )
    # From coarse to fine: the latest request wins.
    for by_type, requests in (
        (True, config.layer_type_config),
        (False, config.specific_layer_config),
    ):
        for layers, names in requests.items():
            if layers is not None:
                check_layer(layers, names, spec, weight)
            plan.requests.append(_request(layers, list(names), by_type))
    _check_named_once(config)
    if "AutoMixprecision" in config.extra_options:
        raise ValueError("QConfig: AutoMixprecisionConfig goes into algo_config")
    read_extra_options(plan, _without_flag(config.extra_options))
    if len(config.algo_config) > 1:
        raise ValueError("QConfig: algo_config takes one AutoMixprecisionConfig")
    for algo in config.algo_config:
        if not isinstance(algo, AutoMixprecisionConfig):
            raise TypeError(
                "QConfig: algo_config takes an AutoMixprecisionConfig, got "
                f"{type(algo).__name__}"
            )
        plan.auto = _auto_plan(algo, plan, config.global_config)
    return plan


def _without_flag(options: dict[str, Any]) -> dict[str, Any]:
    """The options without what Quark asks for beside MixedPrecisionTensor."""
    key = "SpecificTensorPrecision"
    if key not in options:
        return options
    if options[key] is not True or "MixedPrecisionTensor" not in options:
        raise ValueError(
            f"extra_options[{key!r}] must be True and go with 'MixedPrecisionTensor', "
            f"got {options[key]!r}"
        )
    return {name: value for name, value in options.items() if name != key}


def _request(
    layers: QLayerConfig | None, names: list[str], by_type: bool
) -> NodeRequest:
    if layers is None:
        return NodeRequest(names, "fp32", "fp32", by_type)
    spec = layers.activation_spec()
    weight = layers.weight
    return NodeRequest(
        names,
        None if spec is None else spec.precision,
        None if weight is None else weight.precision,
        by_type,
        *calibration_of(spec),
        calibration_of(weight)[0],
    )


def _auto_plan(
    algo: AutoMixprecisionConfig, plan: Plan, wide: QLayerConfig
) -> AutoPlan:
    if algo.metric_optimize_object != "speed":
        raise ValueError('metric_optimize_object must be "speed": from wide to narrow')
    targets = algo.target_layer_config
    narrow = []
    for layers in targets if isinstance(targets, list) else [targets]:
        if not isinstance(layers, QLayerConfig):
            raise TypeError(
                f"target_layer_config: a QLayerConfig is required, got {layers!r}"
            )
        spec = layers.activation_spec()
        check_target(layers, wide)
        narrow.append(
            (
                plan.activation if spec is None else spec.precision,
                plan.weight if layers.weight is None else layers.weight.precision,
            )
        )
    distance, target = _measure_of(algo)
    measured = target is not None
    auto = AutoPlan(
        narrow,
        distance=distance,
        evaluate=algo.metric_evaluate_fn,
        target=target,
        output_index=algo.metric_output_index if measured else None,
        data_size=algo.data_size or None,
        op_types=tuple(algo.target_op_type),
        include=list(algo.include_layers or ()),
        exclude=list(algo.exclude_layers or ()),
        skip_breaking=algo.skip_breaking,
        no_input_shared=algo.no_input_qdq_shared,
    )
    check_plan(auto)
    return auto


_DISTANCES = {"l2": mean_l2, "cosine": mean_cosine_distance, "sqnr": noise_to_signal}


def _measure_of(
    algo: AutoMixprecisionConfig,
) -> tuple[Callable[..., float] | None, float | None]:
    """The distance, None with an evaluate function, and the largest one allowed.

    Raises:
        TypeError: a threshold or a size of the wrong type.
        ValueError: attributes of which one has no effect beside another.
    """
    given = algo.metric_distance_fn or algo.metric_evaluate_fn
    if algo.metric_distance_fn is not None and algo.metric_evaluate_fn is not None:
        raise ValueError("metric_distance_fn or metric_evaluate_fn, not both")
    if given is not None and algo.metric_default != "l2":
        raise ValueError(
            f"metric_default={algo.metric_default!r} has no effect beside a function"
        )
    if algo.metric_default not in _DISTANCES:
        raise ValueError(
            f"metric_default must be one of {sorted(_DISTANCES)}, got "
            f"{algo.metric_default!r}"
        )
    size, target = algo.data_size, algo.metric_threshold
    if isinstance(size, bool) or not isinstance(size, int):
        raise TypeError(f"data_size must be an int, got {size!r}")
    if size < 0:
        raise ValueError(f"data_size must be at least 0, got {size}")
    if target is None:
        for name, there in {
            "a metric function": given is not None,
            "metric_default": algo.metric_default != "l2",
            "metric_output_index": algo.metric_output_index not in (0, None),
        }.items():
            if there:
                raise ValueError(
                    f"{name} has no effect with metric_threshold=None, where nothing "
                    "is measured"
                )
        return None, None
    if isinstance(target, bool) or not isinstance(target, int | float):
        raise TypeError(f"metric_threshold must be a number, got {target!r}")
    if algo.metric_default == "sqnr":
        return noise_to_signal, 10 ** (target / 10)  # given as minus decibels
    if not target >= 0:
        raise ValueError(f"metric_threshold must be at least 0, got {target}")
    if algo.metric_evaluate_fn is not None:
        return None, target
    return algo.metric_distance_fn or _DISTANCES[algo.metric_default], target


def _check_named_once(config: QConfig) -> None:
    for where, requests in (
        ("layer_type_config", config.layer_type_config),
        ("specific_layer_config", config.specific_layer_config),
    ):
        seen = set(config.exclude) if where == "specific_layer_config" else set()
        for names in requests.values():
            for name in names:
                if name in seen:
                    raise ValueError(
                        f"QConfig: {where}: {name!r} is asked for twice, or also in "
                        "exclude"
                    )
                seen.add(name)
