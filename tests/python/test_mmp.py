# SPDX-License-Identifier: BSD-3-Clause
"""Manual mixed precision on real simulations."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch

from aimetpp import QuantizationSimModel
from aimetpp.common.defs import QuantizationDataType
from aimetpp.mixed_precision import MixedPrecisionConfigurator, Precision
from aimetpp.mixed_precision.structure import flatten_activation


class Block(torch.nn.Module):
    """conv+relu with a residual add written as `+`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(4, 4, 3, padding=1)
        self.relu = torch.nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.conv(x)) + x


class Net(torch.nn.Module):
    """conv1+bn1+relu1 -> {block, conv3} -> cat -> pool -> flat -> fc."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = torch.nn.Conv2d(3, 4, 3, padding=1)
        self.bn1 = torch.nn.BatchNorm2d(4)
        self.relu1 = torch.nn.ReLU()
        self.block = Block()
        self.conv3 = torch.nn.Conv2d(4, 4, 1)
        self.pool = torch.nn.AdaptiveMaxPool2d(2)
        self.flat = torch.nn.Flatten()
        self.fc = torch.nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu1(self.bn1(self.conv1(x)))
        y = torch.cat([self.block(x), self.conv3(x)], 1)
        return self.fc(self.flat(self.pool(y)))


class TwoInTwoOut(torch.nn.Module):
    """Inputs (a, [b, c]) -> {"sum": ..., "parts": (left, right)}."""

    def __init__(self) -> None:
        super().__init__()
        self.left = torch.nn.Linear(4, 4)
        self.right = torch.nn.Linear(4, 4)
        self.third = torch.nn.Linear(4, 4)

    def forward(self, a: torch.Tensor, rest: list[torch.Tensor]) -> dict:
        left, right, third = self.left(a), self.right(rest[0]), self.third(rest[1])
        return {"sum": left * right * third, "parts": (left, right)}


class Embedder(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(10, 4)
        self.fc = torch.nn.Linear(4, 4)

    def forward(self, ids: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.embed(ids) + x)


def make_sim(model: torch.nn.Module | None = None, dummy: object = None, **kwargs):
    torch.manual_seed(0)
    model = (model or Net()).eval()
    dummy = torch.randn(2, 3, 8, 8) if dummy is None else dummy
    return QuantizationSimModel(model, dummy, **kwargs)


def two_in_two_out():
    x = torch.randn(2, 4)
    return make_sim(TwoInTwoOut(), (x, [x + 1, x + 2]))


def changed(sim) -> dict[str, str]:
    """First site of each quantizer that is not int8 -> its precision."""
    return {
        sim.graph.site_name(spec.sites[0]): precision
        for spec, precision in zip(
            sim.placement.quantizers, sim.precisions(), strict=True
        )
        if precision != "int8"
    }


def apply_one(sim, *args, strict: bool = True, **kwargs):
    mmp = MixedPrecisionConfigurator(sim)
    mmp.set_precision(*args, **kwargs)
    return mmp.apply(None, strict=strict)


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


# -- the reference's defects 21 to 27 and 45, by number --------------------------


@pytest.mark.parametrize("child_first", [True, False])
def test_21_latest_wins_where_not_strict(child_first):
    sim = make_sim()
    mmp = MixedPrecisionConfigurator(sim)
    asks = [("conv3", "int16"), ("relu1", "int4")]
    for name, precision in asks if child_first else reversed(asks):
        mmp.set_precision(name, precision)
    mmp.apply(None, strict=False)
    assert changed(sim)["relu1"] == ("int4" if child_first else "int16")


def test_22_a_conflict_changes_that_tensor_only():
    sim = make_sim()
    mmp = MixedPrecisionConfigurator(sim)
    mmp.set_precision(sim.model.conv3, "int16", {"weight": "int16"})
    mmp.set_precision(sim.model.block.conv, "int4")
    report = mmp.apply(None, strict=False)
    assert changed(sim) == {
        "relu1": "int4",
        "block.relu": "int4",
        "block/add_0": "int16",
        "conv3.weight": "int16",
    }
    assert [(line.request, line.subject) for line in report.overruled] == [
        (1, "conv3 input 0")
    ]


def test_23_an_output_is_raised_too():
    sim = make_sim()
    apply_one(sim, sim.model.relu1, "int16")
    assert sim.model.relu1.output_quantizers[0].bitwidth == 16
    assert sim.model.conv1.input_quantizers[0].bitwidth == 8


@pytest.mark.parametrize("strict", [True, False])
def test_24_functional_parent(strict):
    class Functional(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = torch.nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(x * x + 1)

    sim = make_sim(Functional(), torch.randn(2, 4))
    apply_one(sim, sim.model.fc, "int16", strict=strict)
    assert changed(sim) == {"/add_0": "int16", "fc": "int16"}


def test_25_integer_model_input_wrong_param_and_missing_type():
    def fresh():
        return make_sim(Embedder(), (torch.tensor([[1, 2]]), torch.randn(1, 2, 4)))

    sim = fresh()
    mmp = MixedPrecisionConfigurator(sim)
    mmp.set_model_input_precision("int16")  # the integer input is passed over
    mmp.apply(None)
    assert list(changed(sim).values()) == ["int16"]

    mmp = MixedPrecisionConfigurator(fresh())
    mmp.set_model_input_precision(["int16", None])
    with pytest.raises(ValueError, match="request 1 .*entry 0 .*no quantizer"):
        mmp.apply(None)

    sim = make_sim()
    for args, message in [
        (("fc", None, {"wieght": "int4"}), 'no parameter "wieght"; .*weight'),
        (("fc", None, {"bias": "int4"}), '"bias" has no quantizer'),
        ((torch.nn.LSTM, "int8"), r"request 1 \(type LSTM.*matches no layer"),
    ]:
        with pytest.raises(ValueError, match=message):
            apply_one(sim, *args)
        report = apply_one(sim, *args, strict=False)
        assert len(report.overruled) == 1 and changed(sim) == {}


def test_26_ranges_follow_from_kept_statistics():
    data = torch.randn(4, 3, 8, 8)
    sim = make_sim()
    sim.compute_encodings(lambda model: model(data))
    apply_one(sim, "conv3", "int4", {"weight": "int4"})
    # The slow way: the new precision first, then data.
    slow = make_sim()
    apply_one(slow, "conv3", "int4", {"weight": "int4"})
    slow.compute_encodings(lambda model: model(data))
    for found, expected in [
        (sim.model.relu1.output_quantizers[0], slow.model.relu1.output_quantizers[0]),
        (
            sim.model.conv3.param_quantizers["weight"],
            slow.model.conv3.param_quantizers["weight"],
        ),
    ]:
        assert found is not expected and found.bitwidth == 4
        torch.testing.assert_close(found.get_scale(), expected.get_scale())
        torch.testing.assert_close(found.get_min(), expected.get_min())
    # A symmetric 4-bit grid has 8 steps below zero and 7 above.
    weight = sim.model.conv3.weight.detach().flatten(1)
    scale = torch.maximum(weight.amax(1) / 7, -weight.amin(1) / 8)
    found = sim.model.conv3.param_quantizers["weight"].get_scale().detach()
    torch.testing.assert_close(found.flatten(), scale)


def test_26_an_uncalibrated_sim_stays_uncalibrated():
    sim = make_sim()
    apply_one(sim, "conv3", "int16")
    assert not sim.model.relu1.output_quantizers[0].is_initialized()
    assert "relu1" in sim.uncalibrated()


def _kernels(tmp_path: Path, op_type: dict) -> str:
    config = {
        "defaults": {
            "ops": {"is_output_quantized": "True"},
            "params": {"is_quantized": "True", "is_symmetric": "True"},
        },
        "params": {"bias": {"is_quantized": "False"}},
        "op_type": op_type,
        "supergroups": [],
        "model_input": {"is_input_quantized": "True"},
        "model_output": {},
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    return str(path)


def test_27_supported_kernels_of_weighted_and_weightless_layers(tmp_path):
    def pair(act, param=None):
        kernel = {"activation": {"bitwidth": act, "dtype": "int"}}
        if param:
            kernel["param"] = {"bitwidth": param, "dtype": "int"}
        return kernel

    config = _kernels(
        tmp_path,
        {
            "Conv": {"supported_kernels": [pair(8, 8), pair(16, 8)]},
            "Relu": {"supported_kernels": [pair(8), pair(16)]},
        },
    )
    sim = make_sim(config_file=config)
    apply_one(sim, "conv3", "int16")  # weight stays int8: a kernel exists
    apply_one(sim, "relu1", "int16")
    before = sim.precisions()
    with pytest.raises(RuntimeError, match="conv3: no supported kernel.*int4 weight"):
        apply_one(sim, "conv3", None, {"weight": "int4"})
    with pytest.raises(RuntimeError, match="block.relu: no supported kernel for int4"):
        apply_one(sim, "block.relu", "int4")
    assert sim.precisions() == before
    report = apply_one(sim, "block.relu", "int4", strict=False)
    assert any("no supported kernel" in line.detail for line in report.overruled)


def test_27_errors_leave_sim_and_log_as_they_were(tmp_path):
    sim = make_sim()
    log = tmp_path / "log.txt"
    log.write_text("earlier")
    mmp = MixedPrecisionConfigurator(sim)
    mmp.set_precision("conv3", "int16")
    mmp.set_precision("relu1", "int4")
    with pytest.raises(RuntimeError, match="conflicting"):
        mmp.apply(str(log))
    assert log.read_text() == "earlier" and changed(sim) == {}
    report = mmp.apply(log, strict=False)  # the requests are still there
    assert log.read_text() == str(report)
    assert mmp.apply(None).requests == []  # and are used up now


def test_45_no_activation_and_agreeing_siblings():
    sim = make_sim()
    mmp = MixedPrecisionConfigurator(sim)
    mmp.set_precision(sim.model.block.conv, None, {"weight": "int4"})
    mmp.set_precision(sim.model.block.relu, None)
    mmp.set_precision(sim.model.conv3, "int16")
    mmp.set_precision(sim.model.block.conv, "int16")
    mmp.apply(None)
    assert changed(sim) == {
        "relu1": "int16",
        "block.relu": "int16",
        "block.conv.weight": "int4",
        "block/add_0": "int16",
    }


# -- all or nothing, the report ---------------------------------------------------


def test_strict_conflict_names_both_calls():
    sim = make_sim()
    mmp = MixedPrecisionConfigurator(sim)
    mmp.set_precision("fc", None)
    mmp.set_precision("conv3", "int16")
    mmp.set_precision("block.conv", "int4")
    with pytest.raises(RuntimeError) as error:
        mmp.apply(None)
    lines = Path(__file__).read_text().splitlines()
    for number, call in [(2, '("conv3", "int16")'), (3, '("block.conv", "int4")')]:
        place = str(error.value).split(f"request {number} (")[1].split(")")[0]
        source = int(place.rsplit(":", 1)[1])
        assert place.split(", ")[1].startswith("test_mmp.py:")
        assert call in lines[source - 1]


def test_a_log_that_cannot_be_written_changes_nothing(tmp_path):
    sim = make_sim()
    mmp = MixedPrecisionConfigurator(sim)
    mmp.set_precision("conv3", "int16")
    with pytest.raises(OSError):
        mmp.apply(tmp_path / "no" / "such" / "folder.txt")
    with pytest.raises(OSError):
        mmp.apply(tmp_path)
    closed = io.StringIO()
    closed.close()
    with pytest.raises(ValueError, match="closed file"):
        mmp.apply(closed)
    with pytest.raises(TypeError, match="log_file"):
        mmp.apply(3)
    assert changed(sim) == {}
    mmp.apply(None)
    assert changed(sim)["relu1"] == "int16"


def test_a_sim_that_fails_to_change_leaves_no_log(tmp_path, monkeypatch):
    sim = make_sim()
    mmp = MixedPrecisionConfigurator(sim)
    mmp.set_precision("conv3", "int16")

    def fail(precisions):
        raise RuntimeError("no memory")

    monkeypatch.setattr(sim, "apply_precisions", fail)
    log = tmp_path / "log.txt"
    with pytest.raises(RuntimeError, match="no memory"):
        mmp.apply(log)
    assert not log.exists()
    log.write_text("earlier")
    with pytest.raises(RuntimeError, match="no memory"):
        mmp.apply(log)
    assert log.read_text() == "earlier"


def test_report_as_text_json_and_html():
    sim = make_sim()
    mmp = MixedPrecisionConfigurator(sim)
    mmp.set_precision(sim.model.conv3, "int16", {"weight": "int16"})
    mmp.set_precision(torch.nn.Linear, None, {"weight": "int4"})
    stream = io.StringIO()
    report = mmp.apply(stream)
    text = stream.getvalue()
    assert text == str(report)
    for title in ("Requests", "Inferred", "Propagated", "Realized", "Overruled"):
        assert f"\n{title}\n{'-' * len(title)}\n" in text
    assert "[1] conv3.weight: int8 -> int16" in text
    assert "relu1: int16 is seen too by block.conv, block/add_0" in text
    document = json.loads(report.to_json())
    assert document["strict"] is True
    assert document["requests"][1]["subject"] == "type Linear"
    assert {
        "quantizer": "block/add_0",
        "sites": ["block/add_0", "conv3", "/cat_0"],
        "before": "int8",
        "after": "int16",
        "request": 1,
    } in document["changes"]
    page = report.to_html()
    assert page.count("<table>") == 5 and "int8 -&gt; int16" in page
    assert "http" not in page


def test_the_default_log_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sim = make_sim()
    report = MixedPrecisionConfigurator(sim).apply()
    assert (tmp_path / "mmp_log.txt").read_text() == str(report)


def test_applying_again_changes_nothing():
    sim = make_sim()
    first = apply_one(sim, sim.model.block, "int16", {"weight": "int4"})
    second = apply_one(sim, sim.model.block, "int16", {"weight": "int4"})
    assert len(first.changes) == 4 and second.changes == []


def test_the_simulation_runs_at_the_new_precisions():
    sim = make_sim()
    data = torch.randn(4, 3, 8, 8)
    sim.compute_encodings(lambda model: model(data))
    reference = sim.get_original_model(sim.model)(data)

    def noise() -> float:
        return float((sim.model(data) - reference).square().mean())

    with torch.no_grad():
        at8 = noise()
        apply_one(sim, sim.model, "int16", {"weight": "int16"})
        at16 = noise()
        apply_one(sim, sim.model, "fp32", {"weight": "fp32"})
        assert at16 < at8 / 100
        assert noise() < 1e-12
