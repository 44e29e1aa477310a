# SPDX-License-Identifier: BSD-3-Clause
"""aimetpp.onnx on models as exporters and other tools write them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import onnxruntime.datasets
import pytest
import torch
from architectures import ARCHITECTURES, make

from aimetpp.onnx import QuantizationSimModel

# Of each package, one of each kind of layer, small enough to export in about a second.
EXPORTED = (
    "torchvision/resnet18",
    "torchvision/mobilenet_v2",
    "torchvision/mobilenet_v3_small",
    "torchvision/squeezenet1_1",
    "torchvision/shufflenet_v2_x0_5",
    "torchvision/regnet_y_400mf",
    "torchvision/mnasnet0_5",
    "torchvision/lraspp_mobilenet_v3",
    "timm/mobilenetv1_100",
    "timm/mobilenetv4_conv_small",
    "timm/repvgg_a0",
    "timm/test_coatnet",
    "timm/test_mambaout",
    "timm/test_vit_relpos",
    "transformers/BertForSequenceClassification",
    "transformers/DistilBertModel",
    "transformers/AlbertModel",
    "transformers/CLIPVisionModel",
    "transformers/CLIPTextModel",
    "transformers/ViTModel",
    "custom/text_recurrence",
    "custom/speech_encoder_decoder",
    "custom/volume_unet",
)


def exported(name: str, path: Path) -> dict[str, np.ndarray]:
    """Writes a model of the zoo; returns what to feed it with."""
    model, example = make(name)
    args, kwargs = ((), example) if isinstance(example, dict) else ((example,), None)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, args, str(path), kwargs=kwargs, dynamo=False)
    tensors = example.values() if isinstance(example, dict) else (example,)
    inputs = onnx.load(str(path), load_external_data=False).graph.input
    return {
        value.name: tensor.numpy()
        for value, tensor in zip(inputs, tensors, strict=True)
    }


def float_outputs(path: Path, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(str(path), providers=providers)
    return session.run(None, feeds)


def relative_error(expected: list[Any], got: list[Any]) -> float:
    floats = [(a, b) for a, b in zip(expected, got, strict=True) if a.dtype.kind == "f"]
    return max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in floats)


def check_simulation(path: Path, feeds: dict[str, np.ndarray]) -> QuantizationSimModel:
    """Off it is the model, with one quantizer of 32 bits within 1e-5, with all of 16
    bits near to it; each quantizer is calibrated and in a group.
    """
    expected = float_outputs(path, feeds)
    sim = QuantizationSimModel(
        path, feeds, default_param_bw=16, default_activation_bw=16
    )
    sim.compute_encodings(lambda session: session.run(None, feeds))
    assert sim.uncalibrated() == []
    got = sim.session.run(None, feeds)
    assert 0 < relative_error(expected, got) < 0.05
    with sim.quantizers_off():
        for one, other in zip(expected, sim.session.run(None, feeds), strict=True):
            np.testing.assert_array_equal(one, other)

    grouped = {site for group in sim.quantizer_groups() for site in group.sites}
    assert grouped == {s.id for s in sim.sites() if s.quantizer is not None}
    kinds = [spec.kind for spec in sim.placement.quantizers]
    first_param = kinds.index("param")
    sim.apply_precisions(
        ["int21" if i == first_param else "fp32" for i in range(len(kinds))]
    )
    assert relative_error(expected, sim.session.run(None, feeds)) < 1e-5
    return sim


def test_there_are_twenty_models():
    assert len(EXPORTED) >= 20 and set(EXPORTED) <= set(ARCHITECTURES)


@pytest.mark.parametrize("name", EXPORTED)
def test_exported(name, tmp_path):
    path = tmp_path / "model.onnx"
    check_simulation(path, exported(name, path))


def test_opset_21_with_external_data(tmp_path):
    path = tmp_path / "model.onnx"
    feeds = exported("torchvision/squeezenet1_1", path)
    model = onnx.load(str(path))
    next(o for o in model.opset_import if not o.domain).version = 21
    model.ir_version = 10
    onnx.save_model(
        model, str(path), save_as_external_data=True, location="weights.bin"
    )
    assert path.stat().st_size < 200_000 < (tmp_path / "weights.bin").stat().st_size
    check_simulation(path, feeds)


def test_a_classifier_of_another_tool():
    """LinearClassifier, Normalizer and ZipMap of OnnxMLTools, without PyTorch."""
    path = Path(onnxruntime.datasets.get_example("logreg_iris.onnx"))
    feeds = {"float_input": np.float32([[5.1, 3.5], [6.2, 2.9], [7.7, 3.8]])}
    labels, chances = float_outputs(path, feeds)
    sim = QuantizationSimModel(path, feeds)
    sim.compute_encodings(lambda session: session.run(None, feeds))
    assert list(sim.qc_quantize_op_dict) == [
        "float_input",
        "probability_tensor",
        "probability_tensor_normalized",
    ]
    got_labels, got = sim.session.run(None, feeds)
    np.testing.assert_array_equal(got_labels, labels)
    for expected, found in zip(chances, got, strict=True):
        assert found == pytest.approx(expected, abs=0.02)


def test_a_file_of_an_old_opset():
    """A Sigmoid of opset 9; a Mul of opset 7 that lists its weight as an input."""
    for name, value in (("sigmoid.onnx", "x"), ("mul_1.onnx", "X")):
        path = Path(onnxruntime.datasets.get_example(name))
        shape = onnx.load(str(path)).graph.input[0].type.tensor_type.shape.dim
        array = np.linspace(-1, 1, int(np.prod([d.dim_value for d in shape])))
        feeds = {value: array.reshape([d.dim_value for d in shape]).astype(np.float32)}
        sim = QuantizationSimModel(path, feeds)
        sim.compute_encodings(lambda session, feeds=feeds: session.run(None, feeds))
        error = relative_error(float_outputs(path, feeds), sim.session.run(None, feeds))
        assert 0 < error < 0.02
