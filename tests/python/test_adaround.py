# SPDX-License-Identifier: BSD-3-Clause
"""AdaRound: what it decides, what it gains, and how it reaches a simulation."""

import json

import pytest
import torch
from ptq_models import digits, simulated, sqnr, trained_digits
from torch import nn

from aimetpp.adaround import Adaround, AdaroundParameters
from aimetpp.batch_norm_fold import fold_all_batch_norms
from aimetpp.demo.digits import accuracy
from aimetpp.ptq.rounding import RoundingPlan, SoftRounding
from aimetpp.quantization import QuantizeDequantize
from aimetpp.quantsim import QuantizationSimModel


def quantizer(bits=3):
    made = QuantizeDequantize((), bits, symmetric=True)
    made.set_range(-4, 3)  # steps of 1
    return made


def test_soft_rounding_starts_at_the_weight_and_ends_on_the_grid():
    weight = torch.tensor([[-5.0, -1.7, -0.2], [0.4, 1.5, 9.0]])
    rounding = SoftRounding(quantizer(), weight)
    start = rounding.weight(rounding.fraction())
    torch.testing.assert_close(start, weight.clamp(-4, 3), rtol=0, atol=1e-3)
    down = rounding.weight(torch.zeros_like(weight))
    assert down.tolist() == [[-4, -2, -1], [0, 1, 3]]
    up = rounding.weight(torch.ones_like(weight))
    assert up.tolist() == [[-4, -1, 0], [1, 2, 3]]
    for position, end in ((1e3, 1.0), (-1e3, 0.0)):
        rounding.position.fill_(position)
        assert torch.equal(rounding.fraction(), torch.full_like(weight, end))


@pytest.mark.parametrize("beta", [None, 4.5])
def test_a_step_is_that_of_autograd_and_adam(beta):
    torch.manual_seed(0)
    weight = 8 * torch.randn(6, 7)  # some beyond the grid's ends
    rounding = SoftRounding(quantizer(), weight)
    position = rounding.position.clone().requires_grad_()
    optimizer = torch.optim.Adam([position], lr=0.01)
    for _ in range(20):
        gradient = torch.randn_like(weight)
        fraction = (1.2 * torch.sigmoid(position) - 0.1).clamp(0, 1)
        loss = (rounding.weight(fraction) * gradient).sum()
        if beta is not None:
            loss = loss + 0.3 * (1 - (2 * fraction - 1).abs().pow(beta)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rounding.descend(gradient, beta, 0.3)
        torch.testing.assert_close(rounding.position, position.detach())


def test_the_exponent_is_annealed_after_the_warm_start():
    plan = RoundingPlan(1000, 0.01, (20, 2), 0.2)
    assert plan.beta(0) is None and plan.beta(199) is None
    assert plan.beta(200) == pytest.approx(20)
    assert plan.beta(600) == pytest.approx(11)
    assert plan.beta(999) == pytest.approx(2, abs=1e-3)


def test_correlated_inputs_are_rounded_together(tmp_path):
    """Both weights are nearest to 0, but their sum, which alone counts, is 0.85."""
    model = nn.Sequential(nn.Linear(3, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[0.4, 0.45, -2.0]]))
    torch.manual_seed(0)
    x = torch.randn(64, 1) * torch.tensor([[1.0, 1.0, 0.0]])
    params = AdaroundParameters([x], 1, default_num_iterations=1500)
    rounded = Adaround.apply_adaround(
        model, x, params, tmp_path, "sum", 2, default_quant_scheme="min_max"
    )
    weight = rounded[0].weight.detach().flatten()
    assert weight[:2].sum() == 1 and weight[2] == -2
    assert model[0].weight[0, 0].item() == pytest.approx(0.4)  # the model stays
    # Rounding to nearest gives nothing but zeros.
    sim = QuantizationSimModel(model, x, default_param_bw=2)
    sim.compute_encodings(lambda m: m(x))
    assert sim.model[0].param_quantizers["weight"](model[0].weight)[0, :2].sum() == 0


@pytest.fixture(scope="module")
def rounded(tmp_path_factory):
    """The trained net, folded; rounded to 3 bits; and the encodings file."""
    model = trained_digits()
    fold_all_batch_norms(model, (1, 1, 8, 8))
    data = digits()
    batches = [(data.train_images[i : i + 64], None) for i in range(0, 512, 64)]
    params = AdaroundParameters(batches, 8, default_num_iterations=300)
    folder = tmp_path_factory.mktemp("adaround")
    result = Adaround.apply_adaround(
        model,
        data.train_images[:1],
        params,
        folder,
        "digits",
        default_param_bw=3,
        param_bw_override_list=[(model.fc, 8)],
        default_quant_scheme="min_max",
    )
    return model, result, folder / "digits.encodings"


def test_a_trained_net_gets_better(rounded):
    model, result, file = rounded
    nearest = simulated(model, default_param_bw=3)
    nearest.model.fc.param_quantizers["weight"].bitwidth = 8
    data = digits()
    sim = QuantizationSimModel(result, data.train_images[:1], default_param_bw=3)
    sim.model.fc.param_quantizers["weight"].bitwidth = 8
    sim.set_and_freeze_param_encodings(file)
    sim.compute_encodings(lambda m: m(data.train_images[:256]))
    assert sqnr(model, sim.model) > sqnr(model, nearest.model) + 4
    assert accuracy(sim.model, data) > accuracy(nearest.model, data) + 0.05


def test_the_simulation_computes_with_the_rounded_weights(rounded):
    model, result, file = rounded
    sim = QuantizationSimModel(result, digits().train_images[:1], default_param_bw=3)
    sim.set_and_freeze_param_encodings(file)
    sim.compute_encodings(lambda m: m(digits().train_images[:64]))
    for name, module in result.named_modules():
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        weight = module.weight.detach()
        kept = sim.model.get_submodule(name).param_quantizers["weight"]
        assert torch.equal(kept(weight), weight)
        # Up or down, never further.
        before = model.get_submodule(name).weight.detach()
        assert ((weight - before).abs() <= kept.get_scale() * 1.001).all()
        assert not torch.equal(weight, kept(before))
    content = json.loads(file.read_text())["param_encodings"]
    assert content["fc.weight"][0]["bitwidth"] == 8
    assert content["stem.0.weight"][0]["bitwidth"] == 3
    assert len(content["stem.0.weight"]) == 16


def test_ignored_modules_and_wrong_arguments(tmp_path):
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    x = torch.randn(8, 3)
    params = AdaroundParameters([x], 1, default_num_iterations=5)
    result = Adaround.apply_adaround(
        model, x, params, tmp_path, "a", ignore_quant_ops_list=[model[0]]
    )
    assert torch.equal(result[0].weight, model[0].weight)
    assert not torch.equal(result[2].weight, model[2].weight)
    content = json.loads((tmp_path / "a.encodings").read_text())
    assert list(content["param_encodings"]) == ["2.weight"]
    with pytest.raises(ValueError, match="names a ReLU that is no module"):
        Adaround.apply_adaround(
            model, x, params, tmp_path, "a", param_bw_override_list=[(nn.ReLU(), 8)]
        )
    with pytest.raises(ValueError, match="'1', whose weight is not rounded"):
        Adaround.apply_adaround(
            model, x, params, tmp_path, "a", param_bw_override_list=[(model[1], 8)]
        )
    with pytest.raises(TypeError, match="params must be AdaroundParameters"):
        Adaround.apply_adaround(model, x, None, tmp_path, "a")
    with pytest.raises(ValueError, match="default_warm_start must be"):
        AdaroundParameters([x], 1, default_warm_start=1.0)
    with pytest.raises(ValueError, match="all batches must give inputs of one shape"):
        small, large = torch.ones(1, 1, 4, 4), torch.ones(1, 1, 5, 5)
        both = AdaroundParameters([small, large], 2)
        net = nn.Sequential(nn.Conv2d(1, 1, 3))
        Adaround.apply_adaround(net, small, both, tmp_path, "b")


def test_block_wise_weights():
    torch.manual_seed(0)
    made = QuantizeDequantize((2, 2), 3, symmetric=True, block_size=(1, 3))
    made.set_range([-4, -8, -2, -4], [3, 6, 1.5, 3])  # steps of 1, 2, 0.5, 1
    weight = torch.rand(2, 6) * 2 - 1
    rounding = SoftRounding(made, weight)
    steps = torch.tensor([[1.0] * 3 + [2.0] * 3, [0.5] * 3 + [1.0] * 3])
    down = rounding.weight(torch.zeros_like(weight))
    torch.testing.assert_close(down, (weight / steps).floor() * steps)
