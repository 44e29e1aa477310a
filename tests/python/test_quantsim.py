# SPDX-License-Identifier: BSD-3-Clause
"""QuantizationSimModel on small models: sites, slots, calibration, running."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from aimetpp.quantization import FloatQuantizeDequantize, QuantizeDequantize
from aimetpp.quantsim import QuantizationSimModel


class Residual(nn.Module):
    """Functional add, a ReLU used twice, cat, flatten."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(4)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.branch = nn.Conv2d(4, 4, 1)
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        x = self.relu(self.bn1(self.conv1(x)))
        y = self.conv2(x)
        y += x
        y = self.relu(y)
        z = torch.cat([y, self.branch(y)], dim=1)
        return self.fc(F.adaptive_avg_pool2d(z, 1).flatten(1))


@pytest.fixture
def residual():
    torch.manual_seed(0)
    return Residual().eval()


@pytest.fixture
def images():
    return torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def sim(residual, images):
    sim = QuantizationSimModel(residual, images[:1])
    sim.compute_encodings(lambda model: model(images))
    return sim


def names(sim):
    return [site.name for site in sim.sites() if site.quantizer is not None]


def test_sites_of_functional_ops_and_reused_modules(sim):
    assert names(sim) == [
        "conv1.input.0",
        "conv1.weight",
        "relu",
        "conv2.weight",
        "conv2",  # the add fuses with the ReLU behind it
        "relu:1",
        "branch.weight",
        "branch",
        "/cat_0",
        "/adaptive_avg_pool2d_0",
        "fc.weight",
        "fc",
    ]


def test_model_keeps_identity(sim, residual):
    assert isinstance(sim.model.conv1, nn.Conv2d)
    assert isinstance(sim.model, Residual)
    own = [k for k in sim.model.state_dict() if "quantizers" not in k]
    assert own == list(residual.state_dict())
    assert torch.equal(sim.model.conv1.weight, residual.conv1.weight)


def test_quantizers_off_equals_float(sim, residual, images):
    with sim.quantizers_off():
        assert torch.equal(sim.model(images), residual(images))
    noise = (sim.model(images) - residual(images)).abs().max()
    assert 0 < noise < 0.1 * residual(images).abs().max()


def test_wide_quantization_is_close_to_float(residual, images):
    sim = QuantizationSimModel(
        residual, images[:1], default_output_bw=16, default_param_bw=16
    )
    sim.compute_encodings(lambda model: model(images))
    assert torch.allclose(sim.model(images), residual(images), atol=1e-3)


def test_bitwidth_change_needs_no_data(sim, residual, images):
    wanted = QuantizationSimModel(residual, images[:1], default_output_bw=4)
    wanted.compute_encodings(lambda model: model(images))
    quantizer = sim.model.relu.output_quantizers[1]
    quantizer.bitwidth = 4
    other = wanted.model.relu.output_quantizers[1]
    assert torch.equal(quantizer.min, other.min)
    assert torch.equal(quantizer.max, other.max)


def test_two_calls_have_two_quantizers(sim):
    first, second = sim.model.relu.output_quantizers
    assert first is not None and second is not None and first is not second
    assert not torch.equal(first.max, second.max)


def test_in_place_add_is_quantized_where_it_stands(residual, images):
    class Statement(nn.Module):
        def forward(self, x, y):
            z = x * 1.5
            z.add_(y)  # the result is used through the old name
            return z

    x, y = images[:, 0], images[:, 1]
    sim = QuantizationSimModel(Statement(), (x, y), default_output_bw=3)
    sim.compute_encodings(lambda model: model(x, y))
    assert len(sim.model(x, y).unique()) <= 8
    x.requires_grad_()
    assert len(sim.model(x, y).unique()) <= 8


def test_gradients_reach_weights_and_ranges(sim, images):
    sim.model.train()
    sim.model(images).square().sum().backward()
    for name, parameter in sim.model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_inplace_relu_trains(images):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 1))
    sim = QuantizationSimModel(model, images[:1])
    sim.compute_encodings(lambda m: m(images))
    sim.model(images).sum().backward()
    assert sim.model[0].weight.grad.abs().sum() > 0


def test_copy_and_pickle(sim, images):
    expected = sim.model(images)
    assert torch.equal(copy.deepcopy(sim.model)(images), expected)
    assert torch.equal(pickle.loads(pickle.dumps(sim.model))(images), expected)


def test_state_dict_restores_ranges_and_bitwidths(sim, residual, images):
    sim.model.relu.output_quantizers[0].bitwidth = 5
    other = QuantizationSimModel(residual, images[:1])
    other.model.load_state_dict(sim.model.state_dict())
    assert other.model.relu.output_quantizers[0].bitwidth == 5
    assert torch.equal(other.model(images), sim.model(images))


def test_original_model(sim, residual, images):
    original = QuantizationSimModel.get_original_model(sim)
    assert type(original) is Residual and type(original.conv1) is nn.Conv2d
    assert torch.equal(original(images), residual(images))
    assert list(original.state_dict()) == list(residual.state_dict())


def test_precisions(sim, images):
    before = sim.precisions()
    output = sim.model(images)
    sim.apply_precisions(["fp16"] * len(before))
    assert isinstance(sim.model.conv1.input_quantizers[0], FloatQuantizeDequantize)
    sim.apply_precisions(["fp32"] * len(before))
    assert sim.model.conv1.input_quantizers[0] is None
    sim.apply_precisions(before)
    assert isinstance(sim.model.conv1.input_quantizers[0], QuantizeDequantize)
    assert torch.equal(sim.model(images), output)


def test_profile_round_trip(sim, residual, images, tmp_path):
    sim.apply_precisions(["int4"] + sim.precisions()[1:])
    sim.save_precision_profile(tmp_path / "p.json")
    other = QuantizationSimModel(residual, images[:1])
    other.load_precision_profile(tmp_path / "p.json")
    assert other.precisions() == sim.precisions()
    small = QuantizationSimModel(nn.Linear(3, 3), torch.randn(1, 3))
    with pytest.raises(ValueError, match="not a profile of this model"):
        small.load_precision_profile(tmp_path / "p.json")


def test_keyword_inputs_and_nested_outputs(images):
    class Nested(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(8, 4), nn.Linear(8, 4)

        def forward(self, left, right=None):
            return {"sum": self.a(left) + self.b(right), "pair": (self.a(right), 3)}

    x, y = images[0, 0], images[0, 1]
    sim = QuantizationSimModel(Nested(), {"left": x, "right": y})
    sim.compute_encodings(lambda model: model(left=x, right=y))
    result = sim.model(x, y)
    assert set(result) == {"sum", "pair"} and result["pair"][1] == 3
    assert sim.output_structure == {"sum": 0, "pair": (1, None)}


def test_explain(sim):
    layer = sim.explain(sim.model.conv1)
    assert layer == sim.explain("conv1")
    assert [(p.site, p.enabled) for p in layer.parts] == [
        ("conv1.input.0", True),
        ("conv1.weight", True),
        ("conv1.bias", False),
        ("conv1", False),
    ]
    assert layer.enabled and "conv1: not quantized" in str(layer)
    assert layer.rules == [rule for part in layer.parts for rule in part.rules]
    assert sim.explain("fc.weight").enabled
    (output,) = [site for site in sim.sites() if site.name == "conv1"]
    assert sim.explain(output) == layer.parts[3]
    with pytest.raises(ValueError, match="nothing"):
        sim.explain("nothing")
    with pytest.raises(TypeError, match="got int"):
        sim.explain(3)


def test_print_names_every_layer(sim):
    text = str(sim)
    for name in ("conv1.weight", "relu:1", "/add_0", "fc"):
        assert name in text


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        (
            {"default_output_bw": 1},
            ValueError,
            "default_output_bw: .*between 2 and 32, got 1",
        ),
        ({"default_param_bw": 33}, ValueError, "default_param_bw"),
        ({"default_param_bw": "8"}, TypeError, "default_param_bw: .* must be an int"),
        ({"quant_scheme": "best"}, ValueError, "quant_scheme"),
        ({"config_file": "nowhere"}, FileNotFoundError, "default_per_tensor"),
    ],
)
def test_bad_arguments(residual, images, arguments, error, match):
    with pytest.raises(error, match=match):
        QuantizationSimModel(residual, images[:1], **arguments)


def test_bad_models_and_inputs(residual, images, sim):
    with pytest.raises(RuntimeError, match="without quantized modules"):
        QuantizationSimModel(sim.model, images[:1])
    with pytest.raises(RuntimeError, match=r"could not be traced.*\(1, 7, 8, 8\)"):
        QuantizationSimModel(residual, torch.randn(1, 7, 8, 8))
    with pytest.raises(TypeError, match="dummy_input"):
        QuantizationSimModel(residual, 3)
    with pytest.raises(TypeError, match=r"torch.nn.Module"):
        QuantizationSimModel(F.relu, images[:1])

    class Opaque(Residual):
        def forward(self, x):
            return super().forward(x).detach().numpy()

    with pytest.raises(RuntimeError, match="must return a tensor.*ndarray"):
        QuantizationSimModel(Opaque(), images[:1])


def test_failed_in_place_construction_leaves_the_model(residual, images):
    with pytest.raises(RuntimeError):
        QuantizationSimModel(residual, torch.randn(1, 7, 8, 8), in_place=True)
    assert type(residual) is Residual and type(residual.conv1) is nn.Conv2d
    residual(images)


def test_uncalibrated(residual, images):
    sim = QuantizationSimModel(residual, images[:1])
    assert not sim.is_calibrated() and "fc" in sim.uncalibrated()
    with pytest.raises(RuntimeError, match=r"'conv1.*compute_encodings"):
        sim.model(images)
    with pytest.warns(RuntimeWarning, match="no data reached"):
        sim.compute_encodings(lambda model: None)
    with pytest.raises(TypeError, match="forward_pass_callback"):
        sim.compute_encodings(images)


def test_nan_in_calibration_names_the_quantizer(residual, images):
    sim = QuantizationSimModel(residual, images[:1])
    bad = images.clone()
    bad[0, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"conv1\.input\.0"):
        sim.compute_encodings(lambda model: model(bad))
    assert not sim.is_calibrated()


def test_untraced_functional_op(images):
    class Switch(nn.Module):
        extra = False

        def forward(self, x):
            x = x * 2
            return x - 1 if self.extra else x

    sim = QuantizationSimModel(Switch(), images[:1])
    sim.compute_encodings(lambda model: model(images))
    sim.model.extra = True
    with pytest.raises(RuntimeError, match=r"'sub'.*test_quantsim\.py:.*not traced"):
        sim.model(images)
    sim.untraced_ops = "warn"
    with pytest.warns(RuntimeWarning, match="'sub'"):
        sim.model(images)


def test_compile_fullgraph(sim, images):
    expected = sim.model(images)
    compiled = torch.compile(sim.model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        assert torch.allclose(compiled(images), expected, atol=1e-6)


def test_lstm_weights_are_quantized(images):
    model = nn.LSTM(8, 4, batch_first=True)
    x = images[:, 0]
    sim = QuantizationSimModel(model, x)
    sim.compute_encodings(lambda m: m(x))
    quantizers = sim.model.param_quantizers
    assert quantizers["weight_ih_l0"] is not None and quantizers["bias_ih_l0"] is None
    assert not torch.equal(sim.model(x)[0], model(x)[0])


def test_export_program(sim, images):
    program = torch.export.export(sim.model, (images,))
    with torch.no_grad():
        assert torch.allclose(program.module()(images), sim.model(images), atol=1e-6)


def test_reused_and_tied_parameters_have_one_quantizer(images):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.twice = nn.Linear(8, 8)
            self.other = nn.Linear(8, 8)
            self.other.weight = self.twice.weight

        def forward(self, x):
            return self.other(self.twice(torch.relu(self.twice(x))))

    x = images[0, 0]
    sim = QuantizationSimModel(Tied(), x)
    quantizer = sim.model.twice.param_quantizers["weight"]
    assert sim.model.other.param_quantizers["weight"] is quantizer
    assert sum(spec.kind == "param" for spec in sim.placement.quantizers) == 1
    sim.compute_encodings(lambda model: model(x))
    assert sim.is_calibrated()
    sim.model(x)


def test_made_outside_of_inference_mode_and_run_inside():
    model, x = nn.Linear(4, 4), torch.randn(2, 4)
    with (
        torch.inference_mode(),
        pytest.raises(RuntimeError, match="made outside of torch.inference_mode"),
    ):
        QuantizationSimModel(model, x)
    sim = QuantizationSimModel(model, x)
    with torch.inference_mode():
        sim.compute_encodings(lambda m: m(x))
        inside = sim.model(x)
    assert torch.equal(inside, sim.model(x))
    sim.model(x).sum().backward()
