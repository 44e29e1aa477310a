# SPDX-License-Identifier: BSD-3-Clause
"""Manual mixed precision: who is meant by a request, and precisions."""

from __future__ import annotations

import pytest
import torch
from mmp_models import Block, apply_one, changed, make_sim, two_in_two_out

from aimetpp.common.defs import QuantizationDataType
from aimetpp.mixed_precision import MixedPrecisionConfigurator, Precision
from aimetpp.mixed_precision.structure import flatten_activation

CONV3 = {"relu1": "int16", "block/add_0": "int16", "conv3.weight": "int16"}


@pytest.mark.parametrize("how", ["module", "name", "site", "glob"])
def test_leaf_by_module_name_site_and_glob(how):
    sim = make_sim()
    arg = {
        "module": sim.model.conv3,
        "name": "conv3",
        "site": next(s for s in sim.sites() if s.name == "conv3"),
        "glob": "conv3*",
    }[how]
    apply_one(sim, arg, "int16", {"weight": "int16"})
    assert changed(sim) == CONV3
    assert sim.model.relu1.output_quantizers[0].bitwidth == 16
    assert sim.model.conv3.param_quantizers["weight"].bitwidth == 16


@pytest.mark.parametrize("how", ["module", "name", "type"])
def test_container_covers_its_leaves_and_functional_ops(how):
    sim = make_sim()
    arg = {"module": sim.model.block, "name": "block", "type": Block}[how]
    apply_one(sim, arg, "int16", {"weight": "int4"})
    assert changed(sim) == {
        "relu1": "int16",
        "block.conv.weight": "int4",
        "block.relu": "int16",
        "block/add_0": "int16",
    }


def test_type_takes_subclasses_and_the_original_class():
    sim = make_sim()
    apply_one(sim, torch.nn.modules.conv._ConvNd, None, {"weight": "int4"})
    assert changed(sim) == {
        "conv1.weight": "int4",
        "block.conv.weight": "int4",
        "conv3.weight": "int4",
    }


def test_whole_model_and_functional_site():
    sim = make_sim()
    apply_one(sim, sim.model, "int16", {"weight": "int16"})
    assert set(sim.precisions()) == {"int16"}

    sim = make_sim()
    apply_one(sim, "block/add_0", ["int16", None])
    assert changed(sim) == {"block.relu": "int16", "block/add_0": "int16"}


def test_supergroup_members():
    sim = make_sim()
    apply_one(sim, sim.model.conv1, "int16")
    assert changed(sim) == {"conv1.input.0": "int16", "relu1": "int16"}

    sim = make_sim()
    apply_one(sim, sim.model.relu1, "int16")
    assert changed(sim) == {"relu1": "int16"}


def test_model_input_and_output():
    sim = make_sim()
    mmp = MixedPrecisionConfigurator(sim)
    mmp.set_model_input_precision("int16")
    mmp.set_model_output_precision(["fp16"])
    mmp.apply(None)
    assert changed(sim) == {"conv1.input.0": "int16", "fc": "fp16"}


def test_nested_inputs_and_outputs():
    sim = two_in_two_out()
    mmp = MixedPrecisionConfigurator(sim)
    mmp.set_model_input_precision((None, ["int16", None]))
    mmp.set_model_output_precision({"parts": [None, "int4"]})
    mmp.apply(None)
    assert changed(sim) == {"right.input.0": "int16", "right": "int4"}


def test_mismatched_structure_says_what_is_required():
    mmp = MixedPrecisionConfigurator(two_in_two_out())
    with pytest.raises(ValueError, match=r"\[tensor 0, \[tensor 1, tensor 2\]\]"):
        mmp.set_model_input_precision(["int8", ["int8"]])
    with pytest.raises(ValueError, match=r"'parts': \[tensor \d, tensor \d\]"):
        mmp.set_model_output_precision(["int8", "int8"])
    with pytest.raises(ValueError, match="keys.*'nothing'"):
        mmp.set_model_output_precision({"nothing": "int8"})
    with pytest.raises(TypeError, match="set_model_input_precision: activation"):
        mmp.set_model_input_precision(8)


@pytest.mark.parametrize(
    ("activation", "structure", "count", "expected"),
    [
        ("int8", (0, 1), 2, ["int8"]),
        (None, (0, 1), 2, []),
        ([None, "int8"], (0, 1), 2, [None, "int8"]),
        (["int8"], 0, 1, ["int8"]),
        (["int8", None], ([0, 1],), 2, ["int8", None]),
        ([["int8", None]], ([0, 1],), 2, ["int8", None]),
        (["int8"], ([0, 1],), 2, ["int8", "int8"]),
        ({"b": "int4"}, {"a": 0, "b": 1}, 2, [None, "int4"]),
        (["int4", None], ({"a": 0, "b": None, "c": 1}, 2), 3, ["int4", "int4", None]),
        ((8, QuantizationDataType.int), (0, 1), 2, ["int8"]),
    ],
)
def test_flatten_activation(activation, structure, count, expected):
    assert flatten_activation(activation, structure, count, "activation") == expected


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("int4", "int4"),
        ("int5", "int5"),
        ("fp16", "fp16"),
        ("bf16", "bf16"),
        ("fp32", "fp32"),
        ((16, QuantizationDataType.int), "int16"),
        ((16, QuantizationDataType.float), "fp16"),
        (Precision(QuantizationDataType.int, 12), "int12"),
        (Precision.parse("bf16"), "bf16"),
    ],
)
def test_spellings_of_a_precision(spelling, name):
    sim = make_sim()
    apply_one(sim, sim.model.relu1, spelling)
    assert changed(sim) == {"relu1": name}


def test_precision_values_and_order():
    int8, fp16 = Precision.parse("int8"), Precision.parse("fp16")
    assert int8 == Precision(QuantizationDataType.int, 8) and int8.name == "int8"
    assert int8 < Precision.parse("int16") < fp16 < Precision.parse("bf16")
    for data_type, bitwidth in [("int", 1), ("int", 33), ("float", 8)]:
        with pytest.raises(ValueError, match=f"{bitwidth}"):
            Precision(QuantizationDataType[data_type], bitwidth)
    with pytest.raises(ValueError, match="data_type"):
        Precision(QuantizationDataType.undefined, 8)


def test_off_and_on_again():
    sim = make_sim()
    apply_one(sim, sim.model.relu1, "fp32")
    assert sim.model.relu1.output_quantizers[0] is None
    apply_one(sim, sim.model.relu1, "int8")
    assert sim.model.relu1.output_quantizers[0].bitwidth == 8


def test_wrong_arguments_are_errors_at_once():
    sim = make_sim()
    mmp = MixedPrecisionConfigurator(sim)
    with pytest.raises(TypeError, match="QuantizationSimModel"):
        MixedPrecisionConfigurator(sim.model)
    with pytest.raises(ValueError, match='"int2" to "int32".*"int1"'):
        mmp.set_precision(sim.model.fc, "int1")
    with pytest.raises(ValueError, match="param.'weight'."):
        mmp.set_precision(sim.model.fc, None, {"weight": "int99"})
    with pytest.raises(TypeError, match="param must be a dict"):
        mmp.set_precision(sim.model.fc, "int8", ["int8"])
    with pytest.raises(TypeError, match="arg must be"):
        mmp.set_precision(3, "int8")
    with pytest.raises(TypeError, match="arg must be"):
        mmp.set_precision(int, "int8")
    with pytest.raises(ValueError, match="not a layer of sim.model"):
        mmp.set_precision(torch.nn.Linear(2, 2), "int8")
    with pytest.raises(ValueError, match="'conv4'; near to it: .*conv3"):
        mmp.set_precision("conv4", "int8")
    with pytest.raises(ValueError, match="'nothing\\*'"):
        mmp.set_precision("nothing*", "int8")
    with pytest.raises(ValueError, match="fc has 1, got 2"):
        mmp.set_precision(sim.model.fc, ["int8", "int8"])
    with pytest.raises(ValueError, match="block/add_0 has 2, got 1"):
        mmp.set_precision("block/add_0", ["int8"])
    weight = next(s for s in sim.sites() if s.name == "fc.weight")
    with pytest.raises(ValueError, match="site of a parameter"):
        mmp.set_precision(weight, "int8")
    assert mmp.apply(None).requests == []  # none of these was kept


class Shared(torch.nn.Module):
    """One Linear under three names, called through each."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(4, 4)
        self.second = self.first
        self.box = torch.nn.Sequential(self.first, torch.nn.Sigmoid())
        self.last = torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.box(self.second(self.first(x))))


@pytest.mark.parametrize("name", ["first", "second", "box.0", "*cond"])
def test_a_module_goes_by_all_its_names(name):
    sim = make_sim(Shared(), torch.randn(2, 4))
    apply_one(sim, name, "int16", {"weight": "int4"})
    assert changed(sim) == {
        "first.input.0": "int16",
        "first.weight": "int4",
        "first": "int16",
        "first:1": "int16",
        "first:2": "int16",
    }


def test_a_container_covers_what_is_shared_into_it():
    sim = make_sim(Shared(), torch.randn(2, 4))
    apply_one(sim, "box", None, {"weight": "int4"})
    assert changed(sim) == {"first.weight": "int4"}


def test_names_of_sites():
    sim = make_sim()
    apply_one(sim, "conv3.input.0", "int16")
    assert changed(sim) == {"relu1": "int16", "block/add_0": "int16"}
    with pytest.raises(ValueError, match="site of a parameter"):
        apply_one(sim, "conv3.weight", "int16")


class Mixed(torch.nn.Module):
    """Returns tensors and other things."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> dict:
        return {"y": self.fc(x), "none": None, "pair": (3, torch.tanh(x))}


def test_a_precision_for_what_is_no_tensor_is_an_error():
    sim = make_sim(Mixed(), torch.randn(2, 4))
    mmp = MixedPrecisionConfigurator(sim)
    for asked in ({"none": "int16"}, {"pair": ["int16", "int16"]}):
        with pytest.raises(ValueError, match="int16 where there is no tensor"):
            mmp.set_model_output_precision(asked)
    mmp.set_model_output_precision({"pair": "int16"})  # the tensor in it
    mmp.apply(None)
    assert changed(sim) == {"/tanh_0": "int16"}


class Recurrent(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = torch.nn.LSTM(4, 6, batch_first=True)
        self.fc = torch.nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y, (hidden, _) = self.rnn(x)
        return self.fc(y[:, -1]), hidden


def test_a_leaf_with_several_weights_and_outputs():
    sim = make_sim(Recurrent(), torch.randn(2, 5, 4))
    mmp = MixedPrecisionConfigurator(sim)
    mmp.set_precision("rnn", "int16", {"weight_hh_l0": "int4"})
    mmp.set_model_output_precision([None, "int12"])
    mmp.apply(None, strict=False)
    assert changed(sim) == {
        "rnn.input.0": "int16",
        "rnn.weight_hh_l0": "int4",
        "rnn": "int16",
        "rnn.output.1": "int12",
    }


class SplitReaders(torch.nn.Module):
    """One conv+relu, read in halves by two convs whose results are joined."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 8, 3)
        self.relu = torch.nn.ReLU()
        self.a = torch.nn.Conv2d(4, 4, 1)
        self.b = torch.nn.Conv2d(4, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        p, q = self.relu(self.stem(x)).chunk(2, 1)
        return torch.cat([self.a(p), self.b(q)], 1)


def test_readers_of_a_split_and_producers_of_a_join():
    sim = make_sim(SplitReaders(), torch.randn(2, 3, 8, 8))
    report = apply_one(sim, "a", "int16")
    assert changed(sim) == {"relu": "int16", "a": "int16"}
    seen = {line.subject: line.detail for line in report.propagated}
    assert seen["relu"] == "int16 is seen too by b"
    assert seen["a, b, /cat_0"] == "int16 is seen too by b, /cat_0"
    mmp = MixedPrecisionConfigurator(sim)
    mmp.set_precision("a", "int16")
    mmp.set_precision("b", "int4")
    with pytest.raises(RuntimeError, match=r"int16 \(a input 0\) and int4 \(b input"):
        mmp.apply(None)
