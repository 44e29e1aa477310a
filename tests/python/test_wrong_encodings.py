# SPDX-License-Identifier: BSD-3-Clause
"""Encodings files that are wrong: each is an error that says where, and nothing of the
simulation changes.
"""

import json
import math

import pytest
import torch
from torch import nn

from aimetpp.export.leaves import read_encodings
from aimetpp.quantsim import QuantizationSimModel

OLD = {"bitwidth": 8, "dtype": "int", "is_symmetric": "False", "scale": 0.5}
OLD["offset"] = -100
NAMED = {"name": "x", "bw": 8, "dtype": "INT", "is_sym": False}
NAMED |= {"scale": [0.5], "offset": [-100], "enc_type": "PER_TENSOR"}
QDQ = {"name": "x", "output_dtype": "uint8", "y_scale": 0.5, "y_zero_point": 100}


def old(**changes):
    return {"activation_encodings": {"x": [OLD | changes]}, "param_encodings": {}}


def named(*entries, **changes):
    return {"activation_encodings": [NAMED | changes, *entries]}


def qdq(*entries, **changes):
    return {"encodings": [QDQ | changes, *entries]}


@pytest.mark.parametrize("good", [old(), named(), qdq()])
def test_without_the_mistakes_they_are_read(good):
    leaf = read_encodings(good).leaves["x"]
    assert (leaf.precision, leaf.scale, leaf.offset) == ("int8", (0.5,), (-100,))


@pytest.mark.parametrize("scale", [math.nan, math.inf, -0.5, 0.0, 1e-60])
def test_scales_are_positive_numbers(scale):
    for wrong in (old(scale=scale), named(scale=[scale]), qdq(y_scale=scale)):
        with pytest.raises(ValueError, match="entry of 'x' .* no positive float32"):
            read_encodings(wrong)


@pytest.mark.parametrize("offset", [1, -256])
def test_zero_is_on_the_grid(offset):
    for wrong in (old(offset=offset), named(offset=[offset])):
        with pytest.raises(
            ValueError, match=f"'x' .* zero .* the grid: offset {offset}"
        ):
            read_encodings(wrong)
    with pytest.raises(ValueError, match="zero is not on the grid"):
        read_encodings(qdq(y_zero_point=-offset))
    with pytest.raises(ValueError, match="zero is not on the grid: zero point 128"):
        read_encodings(qdq(output_dtype="int8", y_zero_point=128))
    read_encodings(qdq(output_dtype="int8", y_zero_point=127))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (old(offset=-1.5), "-1.5 is no whole number"),
        (named(bw=7.5), "7.5 is no whole number"),
        (named(bw=True), "True is no whole number"),
        (old(bitwidth=33), "int33"),
        (named(bw=1), "int1"),
        (qdq(output_dtype="uint64"), "int64"),
        (old(dtype="complex"), "dtype 'complex'"),
        (named(dtype="FLOAT", bw=12), "fp12"),
        (old(is_symmetric="maybe"), "maybe"),
        (named(enc_type="PER_ROW"), "enc_type 'PER_ROW', not one of PER_TENSOR"),
        (named(scale=[1.0, 2.0], offset=[0, 0]), "PER_TENSOR with 2 scales"),
        (named(offset=[]), "1 scales, 0 offsets"),
        (named(scale=[], offset=[]), "0 scales, 0 offsets"),
        (qdq(y_zero_point=[1, 2]), "1 scales, 2 offsets"),
    ],
)
def test_the_entry_is_named_with_what_is_wrong(wrong, words):
    with pytest.raises(ValueError, match=f"the given dict: the entry of 'x' .*{words}"):
        read_encodings(wrong)


@pytest.mark.parametrize("key", ["bitwidth", "dtype", "is_symmetric"])
def test_channels_of_one_tensor_differ_in_numbers_only(key):
    other = {"bitwidth": 4, "dtype": "float", "is_symmetric": "True"}[key]
    content = old()
    content["activation_encodings"]["x"].append(OLD | {key: other})
    with pytest.raises(ValueError, match=f"'x' .* channels with different {key}"):
        read_encodings(content)


def test_a_name_stands_for_one_entry(tmp_path):
    for wrong in (
        named(NAMED),
        qdq(QDQ),
        {**named(), "param_encodings": [NAMED]},
        {"activation_encodings": {"x": [OLD]}, "param_encodings": {"x": [OLD]}},
    ):
        with pytest.raises(ValueError, match="two entries named 'x'"):
            read_encodings(wrong)
    path = tmp_path / "twice.json"
    entry = json.dumps([OLD])
    path.write_text(f'{{"param_encodings": {{"x": {entry}, "x": {entry}}}}}')
    with pytest.raises(ValueError, match="twice.json .* two entries named 'x'"):
        read_encodings(path)


@pytest.mark.parametrize("version", ["2.1.0", "0.6", 1, None])
def test_versions_are_those_that_are_known(version):
    with pytest.raises(ValueError, match=f"must be of version .*, got {version!r}"):
        read_encodings({**old(), "version": version})


@pytest.fixture(scope="module")
def sim():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.ConvTranspose2d(4, 2, 2))
    example = torch.randn(2, 1, 6, 6)
    sim = QuantizationSimModel(net.eval(), example, int32_bias=True)
    sim.compute_encodings(lambda model: model(example))
    return sim


def state(sim):
    ends = [
        (q.precision, *map(torch.Tensor.tolist, q.ends())) for q in sim._bank.modules()
    ]
    return sim.precisions(), ends


def entry_of(name, axis=None, scale=0.25):
    weight = {"name": name, "output_dtype": "int4", "y_scale": scale}
    return weight if axis is None else {**weight, "axis": axis}


def test_channels_lie_along_the_axis_of_the_file(sim):
    two = [0.5, 0.25]
    sim.load_encodings({"encodings": [entry_of("2.weight", 1, two)]})
    weight = sim.model[2].param_quantizers["weight"]
    assert weight.get_scale().flatten().tolist() == two
    before = state(sim)
    with pytest.raises(
        ValueError, match="2.weight .* axis 1, in the file along axis 0"
    ):
        sim.load_encodings({"encodings": [entry_of("2.weight", 0, [1.0, 2.0])]})
    assert state(sim) == before


def test_a_scale_below_the_smallest_one_changes_nothing(sim):
    before = state(sim)
    content = {
        "encodings": [
            entry_of("0.weight", 0, [0.5, 0.25, 1.0, 2.0]),
            entry_of("2.weight", 1, [0.5, 1e-9]),
        ]
    }
    with pytest.raises(ValueError, match="2.weight: the scale 1e-09 is smaller than"):
        sim.load_encodings(content, partial=False)
    assert state(sim) == before
