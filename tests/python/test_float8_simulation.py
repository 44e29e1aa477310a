# SPDX-License-Identifier: BSD-3-Clause
"""8-bit floating-point formats in a simulation."""

import copy
import io
import json

import pytest
import torch
from onnx import helper
from onnx_models import make_model, random_arrays
from torch import nn

from aimetpp.common.amp.utils import AMPSearchAlgo
from aimetpp.common.defs import CallbackFunc, QuantizationDataType
from aimetpp.mixed_precision import (
    MixedPrecisionConfigurator,
    Precision,
    choose_mixed_precision,
)
from aimetpp.onnx import QuantizationSimModel as OnnxSimModel
from aimetpp.quantsim import QuantizationSimModel
from aimetpp.quantsim.config_utils import (
    set_blockwise_quantization_for_weights,
    set_quantizers_to_float8,
)


@pytest.fixture
def calibrated():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4)
    )
    x = torch.randn(4, 3, 8, 8)
    sim = QuantizationSimModel(model.eval(), x)
    sim.compute_encodings(lambda m: m(x))
    return sim, x


def rounded(x, largest, dtype=torch.float8_e4m3fn):
    """`x` with the scale that makes `largest` the format's largest."""
    scale = largest / torch.finfo(dtype).max
    bound = torch.finfo(dtype).max
    return (x / scale).clamp(-bound, bound).to(dtype).float() * scale


def test_chosen_modules_compute_as_written_out(calibrated):
    sim, x = calibrated
    conv, linear = sim.model[0], sim.model[3]

    def largest(quantizer):
        ends = torch.maximum(quantizer.min.abs(), quantizer.max.abs())
        return ends.detach().clone()

    weights = [
        rounded(conv.weight, conv.weight.abs().amax((1, 2, 3), keepdim=True)),
        rounded(linear.weight, linear.weight.abs().amax(1, keepdim=True)),
    ]
    inputs, outputs = x.abs().amax(), largest(linear.output_quantizers[0])
    relu = sim.model[1].output_quantizers[0]
    set_quantizers_to_float8(sim, [nn.Conv2d, nn.Linear])
    assert sim.precisions().count("fp8_e4m3") == 4
    y = nn.functional.conv2d(rounded(x, inputs), weights[0], conv.bias)
    y = relu(y.relu()).flatten(1)
    y = rounded(nn.functional.linear(y, weights[1], linear.bias), outputs)
    torch.testing.assert_close(sim.model(x), y, rtol=1e-5, atol=1e-5)


def test_another_format_and_back(calibrated):
    sim, x = calibrated
    before = sim.model(x)
    set_quantizers_to_float8(sim, lambda module: True)
    set_quantizers_to_float8(sim, lambda module: True, torch.float8_e5m2)
    assert set(sim.precisions()) == {"fp8_e5m2"}
    coarse = sim.model(x)
    assert not torch.equal(coarse, before)
    coarse.sum().backward()
    assert sim.model[0].weight.grad.abs().sum() > 0
    sim.apply_precisions(["int8"] * len(sim.precisions()))
    assert torch.equal(sim.model(x), before)


def net_and_data():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4)
    )
    return model.eval(), torch.randn(4, 3, 8, 8)


def scales(sim):
    found = [q.scale for q in sim.quantizers_by_index]
    return [None if scale is None else scale.tolist() for scale in found]


@pytest.mark.parametrize("scheme", ["min_max", "tf_enhanced", "percentile", "mse"])
def test_scale_does_not_depend_on_the_way_there(scheme):
    """The same by calibration in the format, by setting it afterwards, and by way of
    other precisions, whatever they made of the range.
    """
    model, x = net_and_data()
    found = []
    for before, after in (
        (["fp8_e4m3"], []),
        ([], ["fp8_e4m3"]),
        ([], ["int4", "fp8_e4m3"]),
    ):
        sim = QuantizationSimModel(model, x, quant_scheme=scheme)
        count = len(sim.precisions())
        for name in before:
            sim.apply_precisions([name] * count)
        sim.compute_encodings(lambda m: m(x))
        # Activations are seen behind weights of the precision of the calibration.
        for name in after:
            sim.apply_precisions([name] * count)
        assert sim.is_calibrated()
        found.append([
            q.scale
            for q, spec in zip(
                sim.quantizers_by_index, sim.placement.quantizers, strict=True
            )
            if spec.kind in ("param", "input")
        ])  # fmt: skip
    for one, *others in zip(*found, strict=True):
        assert all(torch.equal(one, other) for other in others)
    weight = model[0].weight.abs().amax((1, 2, 3))
    torch.testing.assert_close(
        sim.model[0].param_quantizers["weight"].scale, weight / 448
    )


def test_calibration_observes_and_renews_the_scale():
    model, x = net_and_data()
    sim = QuantizationSimModel(model, x)
    sim.apply_precisions(["fp8_e5m2"] * len(sim.precisions()))
    assert not sim.is_calibrated()
    with pytest.raises(RuntimeError, match="has no scale yet: run compute_encodings"):
        sim.model(x)
    sim.compute_encodings(lambda m: m(x))
    first = sim.model[0].input_quantizers[0].scale
    assert first.item() == pytest.approx(x.abs().max().item() / 57344)
    sim.compute_encodings(lambda m: m(3 * x))
    assert sim.model[0].input_quantizers[0].scale.item() == pytest.approx(
        3 * first.item()
    )
    sim.apply_precisions(["int8"] * len(sim.precisions()))
    assert sim.is_calibrated()
    with torch.no_grad():
        sim.model[0].weight.mul_(2)
    sim.apply_precisions(["fp8_e5m2"] * len(sim.precisions()))
    quantizer = sim.model[0].param_quantizers["weight"]
    expected = sim.model[0].weight.abs().amax((1, 2, 3)) / 57344
    torch.testing.assert_close(quantizer.scale, expected.detach())


def test_nan_in_calibration_names_the_quantizer():
    model, x = net_and_data()
    sim = QuantizationSimModel(model, x)
    sim.apply_precisions(["fp8_e4m3"] * len(sim.precisions()))
    with pytest.raises(ValueError, match="calibration data must not hold NaN"):
        sim.compute_encodings(lambda m: m(x * torch.nan))


def test_state_half_precision_and_copies(calibrated):
    sim, x = calibrated
    sim.apply_precisions(["fp8_e4m3"] * len(sim.precisions()))
    y = sim.model(x)
    other = QuantizationSimModel(*net_and_data())
    other.apply_precisions(["fp8_e4m3"] * len(other.precisions()))
    other.model.load_state_dict(sim.model.state_dict())
    assert torch.equal(other.model(x), y)
    half = copy.deepcopy(sim.model).bfloat16()
    assert half[0].input_quantizers[0].scale.dtype == torch.float32
    assert half(x.bfloat16()).dtype == torch.bfloat16
    original = sim.get_original_model(sim, qdq_weights=True)
    quantizer = sim.model[0].param_quantizers["weight"]
    assert torch.equal(original[0].weight, quantizer(sim.model[0].weight))


def test_an_error_takes_scales_back(calibrated):
    sim, x = calibrated
    sim.apply_precisions(["fp8_e4m3"] * len(sim.precisions()))
    before, y = scales(sim), sim.model(x)
    with pytest.raises(ZeroDivisionError), sim.undone_on_error():
        sim.model[0].weight.data *= 2
        sim.apply_precisions(["int8"] * len(before))
        sim.apply_precisions(["fp8_e4m3"] * len(before))
        sim.model[0].weight.data /= 2
        raise ZeroDivisionError
    assert scales(sim) == before
    assert torch.equal(sim.model(x), y)


def test_manual_mixed_precision(calibrated):
    sim, x = calibrated
    configurator = MixedPrecisionConfigurator(sim)
    configurator.set_precision(
        sim.model[3], "fp8_e4m3", {"weight": Precision.parse("fp8_e5m2")}
    )
    report = configurator.apply(io.StringIO())
    assert report.realized
    linear = sim.model[3]
    assert linear.param_quantizers["weight"].precision == "fp8_e5m2"
    assert sim.model[1].output_quantizers[0].precision == "fp8_e4m3"
    assert sim.model[0].param_quantizers["weight"].precision == "int8"
    assert sim.model(x).isfinite().all()
    with pytest.raises(ValueError, match='write "fp8_e4m3" or "fp8_e5m2"'):
        configurator.set_precision(sim.model[0], (8, QuantizationDataType.float))
    with pytest.raises(ValueError, match='"fp8_e4m3", "fp8_e5m2" or "fp32", got "fp8"'):
        configurator.set_precision(sim.model[0], "fp8")


def test_precisions_as_values():
    e4m3 = Precision(QuantizationDataType.float, 8, exponent_bits=4)
    assert (e4m3.name, Precision.parse("fp8_e4m3")) == ("fp8_e4m3", e4m3)
    names = ["fp16", "fp8_e5m2", "int16", "fp8_e4m3", "int8"]
    ordered = sorted(map(Precision.parse, names))
    assert [p.name for p in ordered] == names[::-1][:2] + ["fp8_e5m2", "int16", "fp16"]
    for arguments in ((QuantizationDataType.float, 8), (QuantizationDataType.int, 8)):
        with pytest.raises(ValueError, match="exponent"):
            Precision(*arguments, exponent_bits=3)
    with pytest.raises(ValueError, match="must be 8, 16 or 32"):
        Precision(QuantizationDataType.float, 4)


class Closeness:
    """Minus the distance to the float model."""

    def __init__(self, model, x):
        self.x, self.target = x, model(x).detach()

    def __call__(self, model):
        return -float((model(self.x) - self.target).norm())


def test_automatic_mixed_precision(tmp_path):
    model, x = net_and_data()
    sim = QuantizationSimModel(model, x, default_output_bw=16, default_param_bw=16)
    sim.compute_encodings(lambda m: m(x))
    wide = ((16, QuantizationDataType.int), (16, QuantizationDataType.int))
    score = Closeness(model, x)
    front = choose_mixed_precision(
        sim, x, [wide, ("fp8_e4m3", "fp8_e4m3"), ("fp8_e5m2", "fp8_e5m2")],
        score, score, None, str(tmp_path), True, CallbackFunc(lambda m, _: m(x)),
        amp_search_algo=AMPSearchAlgo.BruteForce,
    )  # fmt: skip
    # e4m3 has a bit more for the same cost, and ranges that need no e5m2.
    assert {candidate for *_, candidate in front} == {("fp8_e4m3", "fp8_e4m3")}
    assert front[-1][0] == pytest.approx(0.25)  # 8 x 8 of 16 x 16 bits
    assert set(sim.precisions()) == {"fp8_e4m3"}
    assert score(sim.model) == pytest.approx(front[-1][1])
    again = choose_mixed_precision(
        sim, x, [wide, ("fp8_e4m3", "fp8_e4m3"), ("fp8_e5m2", "fp8_e5m2")],
        score, score, None, str(tmp_path), False, CallbackFunc(lambda m, _: m(x)),
        amp_search_algo=AMPSearchAlgo.BruteForce,
    )  # fmt: skip
    assert again.evaluations == 0
    with pytest.raises(ValueError, match=r"candidates\[0\]: an 8-bit float"):
        choose_mixed_precision(
            sim, x, [((8, QuantizationDataType.float),) * 2], score, score, None,
            str(tmp_path), True, CallbackFunc(lambda m, _: m(x)),
        )  # fmt: skip


def test_supported_kernels_of_a_config(tmp_path):
    """A config whose convolutions take e4m3 alone: candidates of others skip them."""
    float8 = {"bitwidth": 8, "dtype": "float", "exponent_bits": 4}
    config = {
        "defaults": {
            "ops": {"is_output_quantized": "True"},
            "params": {"is_quantized": "True"},
        },
        "params": {"bias": {"is_quantized": "False"}},
        "op_type": {
            "Conv": {"supported_kernels": [{"activation": float8, "param": float8}]}
        },
        "supergroups": [],
        "model_input": {"is_input_quantized": "True"},
        "model_output": {},
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    model, x = net_and_data()
    with pytest.warns(RuntimeWarning, match="no kernel"):
        sim = QuantizationSimModel(model, x, config_file=str(path))
    sim.compute_encodings(lambda m: m(x))
    configurator = MixedPrecisionConfigurator(sim)
    configurator.set_precision(sim.model[0], "fp8_e4m3", {"weight": "fp8_e4m3"})
    configurator.apply(io.StringIO())
    assert sim.model[0].param_quantizers["weight"].precision == "fp8_e4m3"


def test_errors(calibrated):
    sim, _ = calibrated
    with pytest.raises(ValueError, match="dtype must be torch.float8_e4m3fn or"):
        set_quantizers_to_float8(sim, [nn.Linear], torch.float16)
    with pytest.raises(TypeError, match="set_quantizers_to_float8: arg must be"):
        set_quantizers_to_float8(sim, "Linear")
    with pytest.raises(ValueError, match="float8: arg chooses no quantized module"):
        set_quantizers_to_float8(sim, [nn.LSTM])
    uncalibrated = QuantizationSimModel(
        nn.Sequential(nn.Linear(3, 2)), torch.ones(1, 3)
    )
    with pytest.raises(RuntimeError, match="run sim.compute_encodings first"):
        set_quantizers_to_float8(uncalibrated, [nn.Linear])


def test_block_wise_weights_have_no_float8():
    model, x = net_and_data()
    sim = QuantizationSimModel(model, x)
    set_blockwise_quantization_for_weights(sim, [nn.Linear], 4, True, 32)
    sim.compute_encodings(lambda m: m(x))
    before = sim.precisions()
    with pytest.raises(ValueError, match="cannot be fp8_e4m3, which has a scale per"):
        set_quantizers_to_float8(sim, [nn.Linear])
    assert sim.precisions() == before


def test_simulations_of_onnx_models_refuse_it():
    weights = random_arrays(3, w=(6, 6))
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "first")]
    data = random_arrays(4, x=(3, 6))["x"]
    sim = OnnxSimModel(make_model(nodes, weights, {"x": ("N", 6)}, ["y"]), data)
    before = sim.precisions()
    with pytest.raises(ValueError, match="simulations of ONNX models"):
        sim.apply_precisions(["fp8_e4m3"] * len(before))
    assert sim.precisions() == before
