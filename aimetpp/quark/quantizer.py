# SPDX-License-Identifier: BSD-3-Clause
"""ModelQuantizer: an ONNX file quantized as a configuration of AMD Quark says."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import onnx

from aimetpp import _C
from aimetpp.amp.quantizer_groups import build_members, find_quantizer_group
from aimetpp.amp.results import ParetoList
from aimetpp.amp.selection import reading_groups, select_groups
from aimetpp.export.external_data import onnx_bytes
from aimetpp.export.files import require_writable_folder, write_together
from aimetpp.mixed_precision.auto import auto_mixed_precision
from aimetpp.onnx.export import build_qdq_model
from aimetpp.quark.auto import AutoPlan, Outputs
from aimetpp.quark.config import Config, Plan, read_config
from aimetpp.quark.qconfig import QConfig, read_qconfig
from aimetpp.quark.simulation import apply_requests, simulate
from aimetpp.quark.types import feeds_of

__all__ = ["ModelQuantizer"]


class ModelQuantizer:
    """Quantizes ONNX models as a configuration says.

    Args:
        config: a Config with a QuantizationConfig, or a QConfig.

    Attributes:
        sim: the simulation of the last model.
        result: what its search has found; None without one.

    Raises:
        TypeError: another object, or something in it of the wrong type.
        ValueError: something in it that has no effect here.
    """

    def __init__(self, config: Config | QConfig) -> None:
        self._plan: Plan
        if isinstance(config, QConfig):
            self._plan = read_qconfig(config)
        elif isinstance(config, Config):
            self._plan = read_config(config.global_quant_config)
        else:
            raise TypeError(
                "ModelQuantizer: config must be a Config of a QuantizationConfig, or a "
                f"QConfig, got {type(config).__name__}"
            )
        self.sim: Any = None
        self.result: ParetoList | None = None

    def quantize_model(
        self,
        model_input: onnx.ModelProto | str | os.PathLike[str],
        model_output: str | os.PathLike[str] | None = None,
        calibration_data_reader: Any = None,
        calibration_data_path: Any = None,
    ) -> onnx.ModelProto:
        """Calibrates, quantizes and writes a model.

        Args:
            model_input: the float model.
            model_output: path of the quantized model, written whole or not at all, its
                folder made if missing; weights of more than 2 GiB go into a second file
                beside it. None: nothing is written.
            calibration_data_reader: a CalibrationDataReader, or an iterable of feeds
                (dicts of arrays by input name). Read once.
            calibration_data_path: must be None.

        Returns:
            The quantized model, with QuantizeLinear and DequantizeLinear nodes and the
            float model's tensor names.

        Raises:
            TypeError: no reader, or a wrong argument.
            ValueError: an unknown tensor or node; a calibration without data.
            FileNotFoundError: no such model.
            OSError: the output cannot be written.
        """
        if calibration_data_path is not None:
            raise ValueError("calibration_data_path: give a calibration_data_reader")
        if calibration_data_reader is None:
            raise TypeError("quantize_model: calibration_data_reader must be given")
        if model_output is not None:
            if Path(model_output).is_dir():
                raise IsADirectoryError(f"model_output is a folder: {model_output}")
            require_writable_folder(Path(model_output).parent)
        plan = self._plan
        data = list(itertools.islice(feeds_of(calibration_data_reader), plan.data_size))
        if not data:
            raise ValueError("calibration_data_reader: it has no data")
        self.sim = sim = simulate(plan, model_input, data)
        self.result = None
        apply_requests(sim, plan)
        _apply_tensors(sim, plan.tensors, "MixedPrecisionTensor")
        if plan.auto is not None:
            self.result = _narrow(sim, plan, plan.auto, data)
        if plan.power_of_two:
            snap_to_powers_of_two(sim)
        model = build_qdq_model(sim, None if plan.int32_bias else False).model
        if model_output is not None:
            _write(model, Path(model_output))
        return model


def _apply_tensors(sim: Any, wanted: dict[str, str], key: str) -> None:
    """Sets and pins the quantizers of tensors."""
    index_of = _quantizer_of_tensor(sim)
    precisions = sim.precisions()
    chosen: dict[int, tuple[str, str]] = {}
    for name, precision in wanted.items():
        if name not in index_of:
            raise ValueError(
                f"{key}: no tensor {name!r} is quantized (it is unknown, or inside ops "
                "that are one kernel)"
            )
        index = index_of[name]
        if precisions[index] == "fp32":
            raise ValueError(
                f"{key}: {name!r} stays in float: the nodes around it are left out"
            )
        other, known = chosen.setdefault(index, (name, precision))
        if known != precision:
            raise ValueError(
                f"{key}: {name!r} ({precision}) and {other!r} ({known}) have one "
                "quantizer"
            )
        precisions[index] = precision
    sim.apply_precisions(precisions)
    sim.pin_quantizers(chosen)


def _quantizer_of_tensor(sim: Any) -> dict[str, int]:
    spots = (*sim.spots.activations, *sim.spots.params)
    return {spot.tensor: spot.quantizer for spot in spots}


def snap_to_powers_of_two(sim: Any) -> None:
    """Makes the scale of every calibrated integer quantizer a power of two.

    With "mse" the one of least squared error over what calibration kept; else the next
    larger one, so that nothing overflows that the scheme's range holds.
    """
    for quantizer in sim.quantizers_by_index:
        if not quantizer.precision.startswith("int") or not quantizer.is_initialized():
            continue
        quantizer.restore_range()  # of this bit-width, not one snapped before
        if quantizer.scheme == "mse":
            symmetry = "symmetric" if quantizer.grid[0] < 0 else "unsigned_symmetric"
            quantizer.set_range(
                *_C.power_of_two_ranges(
                    quantizer.statistics, quantizer.bitwidth, symmetry
                )
            )
            continue
        scale = quantizer.get_scale().detach()
        # A scale that is one already, up to float32's rounding, stays.
        exponent = scale.double().log2().mul(2**16).round().div(2**16)
        snapped = exponent.ceil().exp2().to(scale.dtype)
        # In whole steps, so that the new scale is a power of two to the last bit.
        low, high = (
            (end.detach() / scale).round() * snapped
            for end in (quantizer.get_min(), quantizer.get_max())
        )
        quantizer.set_range(low, high)


class _OutputMetric:
    """Score of the session's outputs over the data; keeps the float model's."""

    def __init__(self, sim: Any, plan: Plan, auto: AutoPlan, data: list[Any]) -> None:
        self.metric = "L2Target" if auto.evaluate is None else "EvaluateFunction"
        self._sim = sim
        self._snap = plan.power_of_two
        self._auto = auto
        self._data = data if auto.data_size is None else data[: auto.data_size]
        self._reference: Outputs | None = None

    def __call__(self, session: Any) -> float:
        if self._snap:
            snap_to_powers_of_two(self._sim)
        outputs = self._outputs(session)
        if self._auto.evaluate is not None:
            score = self._auto.evaluate(outputs)
            try:
                return float(score)
            except (TypeError, ValueError) as error:
                raise TypeError(
                    f"EvaluateFunction must return a number, got {type(score).__name__}"
                ) from error
        assert self._auto.distance is not None
        if self._reference is None:
            with self._sim.quantizers_off():
                self._reference = self._outputs(session)
        return -float(self._auto.distance(self._reference, outputs))

    def _outputs(self, session: Any) -> Outputs:
        index = self._auto.output_index
        count = len(session.get_outputs())
        if index is not None and index >= count:
            raise ValueError(
                f"OutputIndex must be below {count}, the number of outputs, got {index}"
            )
        outputs = (session.run(None, feeds) for feeds in self._data)
        return [out if index is None else [out[index]] for out in outputs]


def _narrow(sim: Any, plan: Plan, auto: AutoPlan, data: list[Any]) -> ParetoList | None:
    """Auto mixed precision; None where nothing is measured."""
    if auto.tensors:
        _narrow_tensors(sim, auto)
        return None
    groups = _searched_groups(sim, auto)
    if auto.measures:
        return auto_mixed_precision(
            sim,
            (plan.activation, plan.weight),
            auto.narrow,
            target=auto.target,
            evaluate=_OutputMetric(sim, plan, auto, data),
            skip_breaking=auto.skip_breaking,
            max_narrowed=auto.num_target,
            include=groups,
        )
    quantizers, _ = find_quantizer_group(sim)
    for group in groups:
        group.set_quantizers_to_candidate(quantizers, auto.narrow[-1])
    return None


def _narrow_tensors(sim: Any, auto: AutoPlan) -> None:
    params = {spot.tensor for spot in sim.spots.params}
    activation, weight = auto.narrow[-1]
    wanted = {name: weight if name in params else activation for name in auto.tensors}
    _apply_tensors(sim, wanted, "TargetTensors")


def _searched_groups(sim: Any, auto: AutoPlan) -> list[Any]:
    """The groups of the layers that are searched, in graph order."""
    members = build_members(sim)
    if auto.include or auto.exclude:
        members = select_groups(
            sim, members, auto.include or None, auto.exclude or None
        )
    read_by = reading_groups(sim, members, auto.op_types)
    layers = sorted({op for ops in read_by.values() for op in ops})
    wanted = set(layers)
    indices = [*(auto.indices or ()), *auto.excluded_indices]
    for index in indices:
        if not 0 <= index < len(layers):
            names = [sim.graph.ops[op].name for op in layers]
            raise ValueError(
                f"TargetIndices, ExcludeIndices: there is no layer {index}; the layers "
                f"are {dict(enumerate(names))}"
            )
    if auto.indices is not None:
        wanted = {layers[index] for index in auto.indices}
    wanted -= {layers[index] for index in auto.excluded_indices}
    groups = [
        group
        for group, ops in read_by.items()
        if wanted & set(ops)
        and not (auto.no_input_shared and any(_shares_input(sim, op) for op in ops))
    ]
    if not groups:
        raise ValueError("AutoMixprecision: no layer is left to search")
    return groups


def _shares_input(sim: Any, op: int) -> bool:
    return len(sim.graph.tensors[sim.graph.ops[op].inputs[0]].uses) > 1


def _write(model: onnx.ModelProto, path: Path) -> None:
    data_path = path.with_name(f"{path.name}.data")
    content, weights = onnx_bytes(model, data_path.name)
    write_together({path: content, **({data_path: weights} if weights else {})})
