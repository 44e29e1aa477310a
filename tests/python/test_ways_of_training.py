# SPDX-License-Identifier: BSD-3-Clause
"""Training resumed, compiled, checkpointed, under autocast and in two processes."""

from __future__ import annotations

import copy
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from qat_models import LEARNING, Net, batches, make_optimizer, make_sim, train
from torch import nn
from torch.utils.checkpoint import checkpoint

from aimetpp.quantsim import QuantizationSimModel

torch.set_num_threads(1)


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


def gradients(forward, sim: QuantizationSimModel) -> list[torch.Tensor]:
    x, labels = batches(1)[0]
    nn.functional.cross_entropy(forward(x), labels).backward()
    return [p.grad for p in sim.model.parameters() if p.grad is not None]


# The default backend compiles loops of its own, which sum in another order.
@pytest.mark.parametrize("learns", ["min_max", "scale"])
def test_compiled_by_inductor_it_has_the_same_gradients(learns):
    sim = make_sim(learns)
    other = copy.deepcopy(sim)
    expected = gradients(sim.model, sim)
    found = gradients(torch.compile(other.model, fullgraph=True), other)
    assert len(found) == len(expected) == len(list(sim.model.parameters()))
    assert all(gradient.any() for gradient in expected[:2])
    for mine, its in zip(expected, found, strict=True):
        assert (its - mine).norm() <= 1e-3 * mine.norm() + 1e-6


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
from qat_models import batches, make_optimizer, make_sim

torch.set_num_threads(1)
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


@pytest.mark.parametrize("learns", ["min_max", "scale"])
def test_two_processes_learn_what_one_does(learns, tmp_path):
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent.parent)])
    workers = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank), str(tmp_path), learns],
            env={**os.environ, "PYTHONPATH": path},
        )
        for rank in range(2)
    ]
    assert [worker.wait(timeout=300) for worker in workers] == [0, 0]
    states = [torch.load(tmp_path / f"state{rank}.pt") for rank in range(2)]
    sim = make_sim(learns)
    sim.model.eval()
    before = {key: value.clone() for key, value in sim.model.state_dict().items()}
    train(sim.model, make_optimizer(sim), batches(3))
    ranges = [key for key in before if "quantizers" in key and key.endswith("max")]
    for key in ranges:
        assert not torch.equal(sim.model.state_dict()[key], before[key])
    for key, expected in sim.model.state_dict().items():
        assert torch.equal(states[0][key], states[1][key])
        torch.testing.assert_close(states[0][key], expected, rtol=1e-4, atol=1e-5)
