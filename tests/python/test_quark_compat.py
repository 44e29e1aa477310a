# SPDX-License-Identifier: BSD-3-Clause
"""The scripts of AMD Quark's tutorial on mixed precision, under its module names."""

from __future__ import annotations

import sys
from pathlib import Path

import onnx
import pytest
from onnx_models import samples, small_network
from test_compat import run

from aimetpp.compat import counterpart

pytest.importorskip("onnxruntime")

# In front of both: what the tutorial leaves to the reader. Its code names `quark.onnx`
# without having imported it.
START = """
import numpy as np
import quark.onnx
from onnxruntime.quantization import CalibrationDataReader

images = np.load('images.npy')

class Reader(CalibrationDataReader):
    def __init__(self):
        self.batches = iter(np.split(images, 4))

    def get_next(self):
        batch = next(self.batches, None)
        return None if batch is None else {'x': batch}
"""
LAYER_WISE = """
from quark.onnx import ModelQuantizer, PowerOfTwoMethod, QuantType
from quark.onnx.quantization.config.config import Config, QuantizationConfig
from typing import Dict

data_type_0, data_type_1 = quark.onnx.VitisQuantType.QInt8, QuantType.QInt16
quant_config = QuantizationConfig(
    calibrate_method=quark.onnx.PowerOfTwoMethod.NonOverflow,
    quant_format=quark.onnx.VitisQuantFormat.QDQ,
    activation_type=quark.onnx.VitisQuantType.QInt16,
    weight_type=quark.onnx.QuantType.QInt8,
    specific_tensor_precision=True,
    extra_options={"MixedPrecisionTensor":{data_type_0:['x', 'r1'],
                                           data_type_1:['w2', 's']}}
)
config = Config(global_quant_config=quant_config)
"""
AUTO = """
from quark.onnx import ModelQuantizer, PowerOfTwoMethod, QuantType
from quark.onnx.quantization.config.config import Config, QuantizationConfig

def top1_acc(outputs):
    got = np.concatenate([output[0] for output in outputs])
    return float((got.argmax(1) == np.load('labels.npy')).mean())

quant_config = QuantizationConfig(
    calibrate_method=quark.onnx.CalibrationMethod.Percentile,
    quant_format=quark.onnx.VitisQuantFormat.QDQ,
    activation_type=quark.onnx.VitisQuantType.QInt16,
    weight_type=QuantType.QInt8,
    include_auto_mp=True,
    extra_options={
        'AutoMixprecision': {
            'ActTargetQuantType':QuantType.QInt8,
            'WeightTargetQuantType':QuantType.QInt8,
            'OutputIndex': 0,
            'Top1AccTarget': 0.1,
            'EvaluateFunction': top1_acc,
        },
    },
)
config = Config(global_quant_config=quant_config)
"""
END = """
quantizer = ModelQuantizer(config)
quantizer.quantize_model('float.onnx', 'quantized.onnx', Reader())
"""


def prepare(folder: Path) -> None:
    import numpy as np
    import onnxruntime

    onnx.save(small_network(), folder / "float.onnx")
    np.save(folder / "images.npy", samples(32))
    session = onnxruntime.InferenceSession(folder / "float.onnx")
    (outputs,) = session.run(None, {"x": samples(32)})
    np.save(folder / "labels.npy", outputs.argmax(1))


def types_of_tensors(path: Path) -> dict[str, int]:
    """The ONNX type to which each tensor is quantized, by the float tensor's name."""
    graph = onnx.load(path).graph
    zero_points = {t.name: t.data_type for t in graph.initializer}
    return {
        node.input[0].removesuffix("_quantized"): zero_points[node.input[2]]
        for node in graph.node
        if node.op_type.endswith("eLinear")
        and len(node.input) > 2
        and (node.op_type == "QuantizeLinear" or node.input[0] in zero_points)
    }


def test_layer_wise_mixed_precision_runs(tmp_path: Path) -> None:
    prepare(tmp_path)
    done = run(START + LAYER_WISE + END, tmp_path)
    assert done.returncode == 0, done.stderr
    signed = {onnx.TensorProto.INT8: 8, onnx.TensorProto.INT16: 16}
    bits = {
        **signed,
        onnx.TensorProto.UINT8: 8,
        onnx.TensorProto.UINT16: 16,
    }
    found = {
        k: bits[v] for k, v in types_of_tensors(tmp_path / "quantized.onnx").items()
    }
    expected = {"x": 8, "r1": 8, "w2": 16, "s": 16, "w1": 8, "w3": 8, "c2": 16}
    assert {name: found[name] for name in expected} == expected


def test_auto_mixed_precision_runs(tmp_path: Path) -> None:
    prepare(tmp_path)
    report = """
result = quantizer.result
print(len(result.narrowed), result.stop_reason, result.fp32_score)
assert result.fp32_score - result.final_score <= 0.1
"""
    done = run(START + AUTO + END + report, tmp_path)
    assert done.returncode == 0, done.stderr
    count, reason, score = done.stdout.split()
    # 8 bits throughout are near enough, and the result says what they stand for.
    assert reason == "target_met_by_all_narrow" and score == "1.0"
    assert int(count) > 0
    assert (tmp_path / "quantized.onnx").exists()


def test_names_of_all_modules_are_the_same_objects(tmp_path: Path) -> None:
    script = """
import quark.onnx.quantization.config.spec as spec
from quark.onnx.quantization.api import ModelQuantizer
from quark.onnx.quantization.config.algorithm import AutoMixprecisionConfig
from quark.onnx import ModelQuantizer as again
import aimetpp.quark, aimetpp.quark.config
assert ModelQuantizer is again is aimetpp.quark.ModelQuantizer
assert spec.Int8Spec is aimetpp.quark.Int8Spec
assert aimetpp.quark.config.Config is aimetpp.quark.Config
for name in ("quark.torch", "quark.onnx.tools"):
    try:
        __import__(name)
    except ModuleNotFoundError as error:
        print(error)
"""
    done = run(script, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "quark.torch: of quark, aimetpp has only quark.onnx, " in done.stdout
    assert "quark.onnx.tools: of quark, aimetpp has only quark.onnx, " in done.stdout
    assert counterpart("quark.onnx") == "aimetpp.quark"
    assert counterpart("quark") is None
    assert "quark" not in sys.modules
