# SPDX-License-Identifier: BSD-3-Clause
"""QuantizationSimModel on the models that people use, as they come from timm,
torchvision and transformers.
"""

import math

import pytest
from architectures import ARCHITECTURES, make, run, sqnr

from aimetpp.quantsim import QuantizationSimModel

# Of W16A16 against float, in dB. One 16-bit quantizer leaves 80 to 100, a hundred in
# a row 60 to 80. A class token at a fiftieth of the other tokens' size, which the
# normalization behind it scales up, costs 34 of them: the vision transformers' 55.
MIN_SQNR = 50.0

# Where a model's own numbers do not allow that.
OTHER_MIN_SQNR = {
    # Layer scales of 1e-5: no scale is smaller than 1.2e-7, a hundredth of that.
    "timm/mobilenetv4_hybrid_medium": 25.0,
}


def test_the_zoo_is_large():
    packages = [name.partition("/")[0] for name in ARCHITECTURES]
    assert len(packages) >= 50
    assert all(packages.count(p) >= 10 for p in ("timm", "torchvision", "transformers"))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_simulation(name):
    model, example = make(name)
    expected = run(model, example)
    sim = QuantizationSimModel(
        model, example, default_output_bw=16, default_param_bw=16
    )
    sim.compute_encodings(lambda m: run(m, example))
    assert sim.uncalibrated() == []

    with sim.quantizers_off():
        assert sqnr(expected, run(sim.model, example)) > 120
    result = run(sim.model, example)
    assert type(result) is type(expected)
    assert OTHER_MIN_SQNR.get(name, MIN_SQNR) <= sqnr(expected, result) < math.inf

    grouped = {site for group in sim.quantizer_groups() for site in group.sites}
    assert grouped == {s.id for s in sim.sites() if s.quantizer is not None}
    bit_ops = sim.bit_ops()
    sim.apply_precisions(["int8"] * len(sim.precisions()))
    assert 0.249 < sim.bit_ops() / bit_ops < 0.5
    assert math.isfinite(sqnr(expected, run(sim.model, example)))
