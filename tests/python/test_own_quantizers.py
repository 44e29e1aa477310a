# SPDX-License-Identifier: BSD-3-Clause
"""Quantizers that a user puts into the model, and precisions set afterwards."""

from __future__ import annotations

import pytest
import torch
from mmp_models import apply_one, make_sim

from aimetpp.mixed_precision import MixedPrecisionConfigurator
from aimetpp.quantization import (
    FloatQuantizeDequantize,
    Quantize,
    QuantizeDequantize,
)
from aimetpp.quantsim import QuantizationSimModel

DATA = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(3))


def calibrated():
    sim = make_sim()
    sim.compute_encodings(lambda model: model(DATA))
    return sim


def own(bitwidth: int = 8, end: float = 0.1) -> QuantizeDequantize:
    quantizer = QuantizeDequantize((), bitwidth, True)
    quantizer.set_range(-end, end)
    return quantizer


def site_of(sim, name):
    return next(site for site in sim.sites() if site.name == name)


@pytest.mark.parametrize("slots, key", [("param", "weight"), ("output", 0)])
def test_a_request_changes_it_and_keeps_its_ends(slots, key):
    sim = calibrated()
    quantizer, twin = own(), own()
    quantizers = getattr(sim.model.fc, f"{slots}_quantizers")
    quantizers[key] = quantizer
    request = (None, {"weight": "int4"}) if slots == "param" else ("int4", None)
    report = apply_one(sim, "fc", *request)
    assert quantizers[key] is quantizer and quantizer.precision == "int4"
    twin.bitwidth = 4  # what doing it by hand gives
    assert quantizer.get_min() == twin.get_min()
    assert quantizer.get_max() == twin.get_max()
    name = "fc.weight" if slots == "param" else "fc"
    assert {c.quantizer: c.range for c in report.changes}[name] == "as it was"


def test_it_comes_back_after_a_float_and_after_off():
    sim = calibrated()
    quantizer = own()
    sim.model.fc.param_quantizers["weight"] = quantizer
    for precision in ("fp16", "int6", "fp32", "int5"):
        apply_one(sim, "fc", None, {"weight": precision})
    assert sim.model.fc.param_quantizers["weight"] is quantizer
    assert quantizer.precision == "int5"


def test_a_float_one_is_kept_too():
    sim = calibrated()
    quantizer = FloatQuantizeDequantize(torch.float16, scale=0.5)
    sim.model.fc.param_quantizers["weight"] = quantizer
    apply_one(sim, "fc", None, {"weight": "int8"})
    assert sim.model.fc.param_quantizers["weight"].precision == "int8"
    apply_one(sim, "fc", None, {"weight": "fp16"})
    assert sim.model.fc.param_quantizers["weight"] is quantizer


def test_a_failed_apply_takes_it_back_to_what_it_was():
    sim = calibrated()
    quantizer = own()
    sim.model.fc.param_quantizers["weight"] = quantizer
    before = sim.model(DATA)
    mmp = MixedPrecisionConfigurator(sim)
    mmp.set_precision("fc", "int4", {"weight": "int3"})
    with pytest.raises(OSError):
        mmp.apply("/nowhere/mmp_log.txt")
    assert sim.model.fc.param_quantizers["weight"] is quantizer
    assert quantizer.precision == "int8"
    assert torch.equal(sim.model(DATA), before)


def test_one_of_several_sites_that_share_a_quantizer_is_an_error():
    sim = calibrated()
    sim.model.conv3.output_quantizers[0] = own()  # tied by the cat
    before = sim.precisions()
    mmp = MixedPrecisionConfigurator(sim)
    mmp.set_precision("fc", None, {"weight": "int4"})
    mmp.set_precision("conv3", "int16")
    with pytest.raises(ValueError, match="'block/add_0' the first, share one"):
        mmp.apply(None)
    assert sim.precisions() == before


def test_one_quantizer_at_two_places_cannot_differ():
    sim = calibrated()
    shared = own()
    sim.model.fc.param_quantizers["weight"] = shared
    sim.model.conv3.param_quantizers["weight"] = shared
    with pytest.raises(ValueError, match=r"'conv3.weight' and at 'fc.weight'"):
        apply_one(sim, "fc", None, {"weight": "int4"})
    assert shared.precision == "int8"
    mmp = MixedPrecisionConfigurator(sim)
    mmp.set_precision("fc", None, {"weight": "int4"})
    mmp.set_precision("conv3", None, {"weight": "int4"})
    mmp.apply(None)
    assert shared.precision == "int4"


def test_a_module_without_a_precision_to_set_is_an_error():
    sim = calibrated()
    sim.model.fc.output_quantizers[0] = Quantize((), 8, True)
    with pytest.raises(ValueError, match="'fc' cannot be set: a Quantize stands"):
        apply_one(sim, "fc", "int4")


def test_what_stands_where_the_config_has_none_is_shown():
    sim = calibrated()
    at_input, at_bias = own(2), own(6)
    sim.model.conv3.input_quantizers[0] = at_input
    sim.model.fc.param_quantizers["bias"] = at_bias
    assert site_of(sim, "conv3.input.0").quantizer is at_input
    assert site_of(sim, "fc.bias").quantizer is at_bias
    printed = {line.split()[0]: line for line in str(sim).splitlines()}
    assert "int2" in printed["conv3.input.0"] and "int6" in printed["fc.bias"]
    assert sim.explain("conv3.input.0").state.startswith("quantized by hand, int2")
    report = apply_one(sim, "conv3", "int16")
    assert report.summary[-1] == (
        "Put in by hand where the config has none, so no request reaches them: "
        "2 quantizers: conv3.input.0 (int2), fc.bias (int6)"
    )
    assert at_input.precision == "int2"


class Identities(torch.nn.Module):
    """`act` stands in a module with functional ops."""

    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(4, 4)
        self.act = torch.nn.Identity()

    def forward(self, x):
        return self.act(self.fc(x)) + 1


@pytest.mark.parametrize("run", ["eager", "compiled", "with gradients"])
def test_one_that_a_forward_calls_runs(run):
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    sim = QuantizationSimModel(Identities(), x)
    sim.compute_encodings(lambda model: model(x))
    plain = sim.model.fc.output_quantizers[0] = own(8, 2.0)
    for site in ("/add_0", "fc.input.0", "fc.weight", "fc.bias"):
        assert site in {s.name for s in sim.sites()}
    sim.model.act = coarse = own(3, 1.0)
    model = torch.compile(sim.model, fullgraph=True) if run == "compiled" else sim.model
    with torch.set_grad_enabled(run == "with gradients"):
        y = model(x)
    sim.model.act = torch.nn.Identity()
    seen = []
    plain.register_forward_hook(lambda *call: seen.append(call[2]))
    with torch.no_grad():
        sim.model(x)
        add = next(s.quantizer for s in sim.sites() if s.name == "/add_0")
        assert torch.equal(y, add(coarse(seen[0]) + 1))
