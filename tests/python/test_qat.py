# SPDX-License-Identifier: BSD-3-Clause
"""Quantization-aware training: gradients, what is learnt, saving and resuming."""

from __future__ import annotations

import copy
import io
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from aimetpp.quantization import QuantizeDequantize
from aimetpp.quantsim import QuantizationSimModel

torch.set_num_threads(1)
LEARNING = ["min_max", "scale", None]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.relu = nn.ReLU()
        self.body = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())
        self.fc = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.bn(self.conv(x)))
        return self.fc((self.body(x) + x).mean((2, 3)))


def batches(count: int = 8) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(5)
    return [
        (
            torch.randn(16, 2, 6, 6, generator=generator),
            torch.randint(0, 3, (16,), generator=generator),
        )
        for _ in range(count)
    ]


def make_sim(learns: str | None = "min_max", bits: int = 4) -> QuantizationSimModel:
    torch.manual_seed(0)
    sim = QuantizationSimModel(
        Net(),
        torch.zeros(2, 2, 6, 6),
        default_output_bw=bits,
        default_param_bw=bits,
    )
    sim.learn_ranges(learns, learns)
    sim.compute_encodings(lambda model: [model(x) for x, _ in batches(2)])
    sim.model.train()
    return sim


def make_optimizer(sim: QuantizationSimModel) -> torch.optim.Optimizer:
    groups = [{"params": list(sim.model_parameters()), "lr": 1e-2}]
    ranges = list(sim.quantizer_parameters())
    if ranges:
        groups.append({"params": ranges, "lr": 1e-3})
    return torch.optim.Adam(groups)


def train(model, optimizer, data) -> list[float]:
    losses = []
    for x, labels in data:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


# -- gradients and what is learnt ---------------------------------------------


def test_gradients_pass_straight_through_to_float_weights():
    sim = make_sim(bits=2)
    weight = sim.model.fc.weight
    before = weight.detach().clone()
    quantizer = sim.model.fc.param_quantizers["weight"]
    on_grid = quantizer(before).detach()
    assert on_grid.unique().numel() <= 4 * 3 and not torch.equal(on_grid, before)
    loss = nn.functional.cross_entropy(sim.model(batches()[0][0]), batches()[0][1])
    loss.backward()
    low, high = quantizer.get_min(), quantizer.get_max()
    step = quantizer.get_scale()
    inside = (before > low - step / 2) & (before < high + step / 2)
    assert (weight.grad[inside.detach()] != 0).any()
    assert (weight.grad[~inside.detach()] == 0).all()
    # A step far smaller than the grid moves the float weight, which is what is kept.
    torch.optim.SGD([weight], lr=1e-6).step()
    assert not torch.equal(weight, before)
    assert torch.equal(sim.model.state_dict()["fc.weight"], weight)
    assert torch.equal(quantizer(weight), quantizer(before))


def test_parameter_groups_are_disjoint_and_whole():
    sim = make_sim()
    own = {id(p) for p in sim.model_parameters()}
    ranges = [id(p) for p in sim.quantizer_parameters()]
    assert len(ranges) == len(set(ranges)) and own.isdisjoint(ranges)
    assert own | set(ranges) == {id(p) for p in sim.model.parameters()}
    assert [p.shape for p in sim.model_parameters()] == [
        p.shape for p in Net().parameters()
    ]


@pytest.mark.parametrize("learns", LEARNING)
def test_training_changes_what_it_is_asked_to(learns):
    sim = make_sim(learns)
    quantizers = {name: q for name, q in sim.named_quantizers()}
    before = {name: [e.clone() for e in q.ends()] for name, q in quantizers.items()}
    offsets = {name: q.get_offset().clone() for name, q in quantizers.items()}
    scales = {name: q.get_scale().clone() for name, q in quantizers.items()}
    losses = train(sim.model, make_optimizer(sim), batches() * 4)
    assert sum(losses[-8:]) < sum(losses[:8])
    moved = {
        name
        for name, q in quantizers.items()
        if not all(map(torch.equal, q.ends(), before[name]))
    }
    assert moved == (set() if learns is None else set(quantizers))
    if learns == "scale":
        for name, quantizer in quantizers.items():
            assert torch.equal(quantizer.get_offset(), offsets[name])
            assert not torch.equal(quantizer.get_scale(), scales[name])


def test_a_frozen_encoding_stays_while_others_learn(tmp_path):
    sim = make_sim()
    sim.save_encodings_to_json(tmp_path, "encodings")
    sim.set_and_freeze_param_encodings(tmp_path / "encodings.json")
    sim.learn_ranges("scale", "scale")  # does not thaw what was frozen by hand
    frozen = sim.model.fc.param_quantizers["weight"]
    before = frozen.min.detach().clone(), frozen.max.detach().clone()
    output = sim.model.fc.output_quantizers[0]
    scale = output.get_scale().detach().clone()
    assert not {id(frozen.min), id(frozen.max)} & {
        id(p) for p in sim.quantizer_parameters()
    }
    train(sim.model, make_optimizer(sim), batches())
    assert torch.equal(frozen.min, before[0]) and torch.equal(frozen.max, before[1])
    assert not torch.equal(output.get_scale(), scale)


def test_learning_can_be_chosen_again():
    sim = make_sim(None)
    assert list(sim.quantizer_parameters()) == []
    sim.learn_ranges(activations="scale", params="min_max")
    assert sim.model.fc.output_quantizers[0].learns == "scale"
    assert sim.model.fc.param_quantizers["weight"].learns == "min_max"
    assert list(sim.quantizer_parameters())
    with pytest.raises(ValueError, match="params must be one of"):
        sim.learn_ranges(None, "lsq")
    assert sim.model.fc.output_quantizers[0].learns == "scale"


# -- the gradient of a scale ----------------------------------------------------


@pytest.mark.parametrize("shape", [(), (3, 1)])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("samples_first", [True, False])
def test_a_gradient_step_on_the_scale_is_that_of_lsq(shape, symmetric, samples_first):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, 8, generator=generator)
    upstream = torch.randn(3, 8, generator=generator)
    quantizer = QuantizeDequantize(shape, 4, symmetric)
    quantizer.set_range(-0.9, 1.4)
    quantizer.learn("scale", samples_first=samples_first)
    step = quantizer.get_scale().detach().clone()
    offset = quantizer.get_offset().detach().clone()
    (quantizer(x) * upstream).sum().backward()

    # Equation 3 of the paper, slowly: v/s rounded less v/s inside, the end outside.
    low = int(quantizer.grid[0]) + offset
    high = int(quantizer.grid[1]) + offset
    ratio = x / step
    slope = torch.where(
        ratio.round() < low, low, torch.where(ratio.round() > high, high, 0.0)
    )
    inside = (ratio.round() >= low) & (ratio.round() <= high)
    slope = torch.where(inside, ratio.round() - ratio, slope)
    gradient = (
        (upstream * slope).sum()
        if shape == ()
        else ((upstream * slope).sum(1, keepdim=True))
    )
    elements = x.numel() / max(1, math.prod(shape))
    if samples_first:
        elements /= 3
    largest = torch.maximum(low.abs(), high.abs())
    expected = step - 0.1 * gradient / (elements * largest).sqrt()

    torch.optim.SGD([quantizer.min, quantizer.max], lr=0.1).step()
    torch.testing.assert_close(quantizer.get_scale(), expected, rtol=1e-5, atol=1e-7)
    assert torch.equal(quantizer.get_offset(), offset)


def test_learning_the_scale_leaves_the_values_as_they_are():
    x = torch.linspace(-2, 2, 101)
    for symmetric in (True, False):
        quantizer = QuantizeDequantize((), 8, symmetric)
        quantizer.set_range(-0.7, 1.1)
        before, encoding = quantizer(x), quantizer.get_encodings()
        quantizer.learn("scale")
        torch.testing.assert_close(quantizer(x), before, rtol=1e-6, atol=0)
        quantizer.learn("min_max")
        assert "fixed_offset" not in quantizer.state_dict()
        assert quantizer.get_encodings()["offset"] == encoding["offset"]
        assert quantizer.get_encodings()["scale"] == pytest.approx(encoding["scale"])


def test_a_new_bitwidth_while_scales_are_learnt_keeps_the_range():
    quantizer = QuantizeDequantize((), 8, symmetric=False)
    quantizer.set_range(-0.7, 1.1)
    quantizer.learn("scale")
    quantizer.bitwidth = 4  # no statistics: the grid follows, the range stays
    assert quantizer.get_scale().item() == pytest.approx(1.8 / 15)
    assert quantizer.get_offset().item() == -6  # -0.7 / 0.12 = -5.83
    quantizer.set_range(-1.0, 2.0)
    assert quantizer.get_offset().item() == -5


def test_unknown_learning_is_an_error():
    with pytest.raises(ValueError, match=r"learn: one of .*'scale', None.*'lsq'"):
        QuantizeDequantize((), 8, True).learn("lsq")


# -- in all the ways that models are trained --------------------------------------


@pytest.mark.parametrize("learns", LEARNING)
def test_a_resumed_training_goes_on_to_the_bit(learns):
    data = batches(6)
    sim = make_sim(learns)
    optimizer = make_optimizer(sim)
    train(sim.model, optimizer, data[:3])
    saved = io.BytesIO()
    torch.save([sim.model.state_dict(), optimizer.state_dict()], saved)
    losses = train(sim.model, optimizer, data[3:])

    saved.seek(0)
    state, optimizer_state = torch.load(saved, weights_only=True)
    torch.manual_seed(7)
    other = QuantizationSimModel(
        Net(), torch.zeros(2, 2, 6, 6), default_output_bw=4, default_param_bw=4
    )
    other.learn_ranges(learns, learns)
    other.model.train()
    other.model.load_state_dict(state)
    resumed = make_optimizer(other)
    resumed.load_state_dict(optimizer_state)
    assert train(other.model, resumed, data[3:]) == losses
    mine, its = sim.model.state_dict(), other.model.state_dict()
    assert mine.keys() == its.keys()
    assert all(torch.equal(mine[key], its[key]) for key in mine)


def test_a_state_with_scales_needs_a_simulation_that_learns_them():
    state = make_sim("scale").model.state_dict()
    with pytest.raises(RuntimeError, match="Unexpected key.*fixed_offset"):
        make_sim().model.load_state_dict(state)


@pytest.mark.parametrize("learns", ["min_max", "scale"])
def test_compiled_without_a_break_it_learns_the_same(learns):
    sim = make_sim(learns)
    other = copy.deepcopy(sim)
    compiled = torch.compile(other.model, fullgraph=True, backend="aot_eager")
    data = batches(3)
    expected = train(sim.model, make_optimizer(sim), data)
    found = train(compiled, make_optimizer(other), data)
    assert found == pytest.approx(expected, rel=1e-5)
    mine, its = sim.model.state_dict(), other.model.state_dict()
    for key in mine:
        torch.testing.assert_close(its[key], mine[key], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("learns", ["min_max", "scale"])
def test_checkpointed_it_learns_the_same(learns):
    class Checkpointed(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.relu(self.bn(self.conv(x)))
            y = x
            if self.training and torch.is_grad_enabled():
                y = checkpoint(self.body, x, use_reentrant=False)
            else:
                y = self.body(x)
            return self.fc((y + x).mean((2, 3)))

    plain = make_sim(learns)
    torch.manual_seed(0)
    sim = QuantizationSimModel(
        Checkpointed(),
        torch.zeros(2, 2, 6, 6),
        default_output_bw=4,
        default_param_bw=4,
    )
    sim.learn_ranges(learns, learns)
    sim.model.load_state_dict(plain.model.state_dict())
    sim.model.train()
    data = batches(3)
    expected = train(plain.model, make_optimizer(plain), data)
    assert train(sim.model, make_optimizer(sim), data) == expected


@pytest.mark.parametrize("learns", ["min_max", "scale"])
def test_under_autocast_ranges_and_weights_stay_float32(learns):
    sim = make_sim(learns, bits=8)
    optimizer = make_optimizer(sim)
    losses = []
    for x, labels in batches() * 2:
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = sim.model(x)
        assert output.dtype == torch.bfloat16
        loss = nn.functional.cross_entropy(output.float(), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[8:]) < sum(losses[:8])
    assert all(p.dtype == torch.float32 for p in sim.model.parameters())
    assert all(p.grad is not None for p in sim.quantizer_parameters())


WORKER = """
import sys
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from test_qat import batches, make_optimizer, make_sim

rank, folder, learns = int(sys.argv[1]), sys.argv[2], sys.argv[3]
dist.init_process_group(
    "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
)
sim = make_sim(learns)
sim.model.eval()  # batch norm keeps its statistics, as one process with all data would
model = DistributedDataParallel(sim.model)
optimizer = make_optimizer(sim)
for x, labels in batches(3):
    optimizer.zero_grad()
    half = slice(8 * rank, 8 * rank + 8)
    torch.nn.functional.cross_entropy(model(x[half]), labels[half]).backward()
    optimizer.step()
torch.save(sim.model.state_dict(), f"{folder}/state{rank}.pt")
dist.destroy_process_group()
"""


def test_two_processes_learn_what_one_does(tmp_path):
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent.parent)])
    workers = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank), str(tmp_path), "min_max"],
            env={**os.environ, "PYTHONPATH": path},
        )
        for rank in range(2)
    ]
    assert [worker.wait(timeout=300) for worker in workers] == [0, 0]
    states = [torch.load(tmp_path / f"state{rank}.pt") for rank in range(2)]
    sim = make_sim("min_max")
    sim.model.eval()
    train(sim.model, make_optimizer(sim), batches(3))
    for key, expected in sim.model.state_dict().items():
        assert torch.equal(states[0][key], states[1][key])
        torch.testing.assert_close(states[0][key], expected, rtol=1e-4, atol=1e-5)


# -- after training ---------------------------------------------------------------


def test_folded_parameters_are_on_their_grid_and_outputs_stay():
    sim = make_sim()
    train(sim.model, make_optimizer(sim), batches(3))
    sim.model.eval()
    x = batches()[0][0]
    expected, weight = sim.model(x), sim.model.fc.weight.detach().clone()
    quantizer = sim.model.fc.param_quantizers["weight"]
    on_grid, encodings = quantizer(weight), quantizer.get_encodings()
    sim.fold_param_quantizers()
    assert torch.equal(sim.model(x), expected)
    assert torch.equal(sim.model.fc.weight, on_grid)
    assert not sim.model.fc.weight.requires_grad and sim.model.fc.bias.requires_grad
    assert quantizer.get_encodings() == encodings
    quantizer.bitwidth = 2  # a new grid quantizes again
    assert quantizer(sim.model.fc.weight).unique().numel() <= 4 * 3


def test_folding_needs_ranges():
    sim = QuantizationSimModel(Net(), torch.zeros(2, 2, 6, 6))
    before = sim.model.fc.weight.detach().clone()
    with pytest.raises(RuntimeError, match="no range yet: conv.weight"):
        sim.fold_param_quantizers()
    assert torch.equal(sim.model.fc.weight, before)


def test_digits_at_four_bits_win_back_what_was_lost():
    digits = pytest.importorskip("aimetpp.demo.digits")
    pytest.importorskip("sklearn")
    data = digits.load_digits()
    model = digits.train_float(data, digits.DEFAULT_SEED)
    sim = QuantizationSimModel(
        model,
        data.train_images[:1],
        default_output_bw=4,
        default_param_bw=4,
        config_file="default_per_tensor",
    )
    sim.compute_encodings(lambda quantized: quantized(data.train_images[:512]))
    floating = digits.accuracy(model, data)
    quantized = digits.accuracy(sim.model.eval(), data)
    with torch.no_grad():
        teacher = model(data.train_images)
    digits.fine_tune(sim.model, teacher, data, digits.DEFAULT_SEED, epochs=16)
    trained = digits.accuracy(sim.model, data)
    assert floating - quantized > 0.1  # there is something to win back
    assert trained - quantized >= 0.8 * (floating - quantized)
