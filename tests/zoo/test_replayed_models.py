# SPDX-License-Identifier: BSD-3-Clause
"""Replayed evaluations of the models that people use: outputs to the last bit those of
computed ones.
"""

import pytest
import torch
from architectures import ARCHITECTURES, make, run
from torch.utils import _pytree as pytree

from aimetpp.quantsim import QuantizationSimModel

# Of each kind, those that take least time.
NAMES = [
    "torchvision/resnet18",
    "torchvision/mobilenet_v2",
    "torchvision/squeezenet1_1",
    "torchvision/shufflenet_v2_x0_5",
    "torchvision/vit",
    "timm/test_nfnet",
    "timm/test_mambaout",
    "timm/test_vit_relpos",
    "transformers/BertForSequenceClassification",
    "transformers/GPT2LMHeadModel",
    "transformers/LlamaForCausalLM",
    "transformers/T5Model",
    "transformers/Wav2Vec2Model",
    "custom/text_recurrence",
    "custom/speech_encoder_decoder",
    "custom/volume_unet",
]
STEPS = 4  # of either kind


def settings(sim):
    """(around full precision, precisions): groups alone, then narrowed one by one."""
    groups = sim.quantizer_groups()
    chosen = [groups[i * (len(groups) - 1) // (STEPS - 1)] for i in range(STEPS)]
    index = {id(q): i for i, q in enumerate(sim.quantizers_by_index)}
    by_site = {s.id: index[id(s.quantizer)] for s in sim.sites() if s.quantizer}
    start = sim.precisions()
    for group in chosen:
        alone = ["fp32"] * len(start)
        for site in group.sites:
            alone[by_site[site]] = "int8"
        yield True, alone
    walk = list(start)
    yield False, start
    for group in chosen:
        for site in group.sites:
            walk[by_site[site]] = "int8"
        yield False, list(walk)


def evaluate(sim, example, assignments, replay=None):
    found = []
    for around_float, precisions in assignments:
        sim.apply_precisions(precisions)
        if replay is not None:
            replay.around_float = around_float
        leaves = pytree.tree_leaves(run(sim.model, example))
        found.append([x.clone() for x in leaves if isinstance(x, torch.Tensor)])
    return found


def test_the_names_are_in_the_zoo():
    assert set(NAMES) <= set(ARCHITECTURES) and len(set(NAMES)) >= 15


@pytest.mark.parametrize("name", NAMES)
def test_replayed_outputs_are_those_of_computed_forwards(name):
    model, example = make(name)
    sim = QuantizationSimModel(
        model, example, default_output_bw=16, default_param_bw=16
    )
    sim.compute_encodings(lambda m: run(m, example))
    sim.model.eval()
    assignments = list(settings(sim))
    computed = evaluate(sim, example, assignments)
    with sim.replaying(1 << 30) as replay:
        replayed = evaluate(sim, example, assignments, replay)
        assert replay.given_up == ""
        # The first forward is not recorded, the second finds nothing, what changes at
        # the model's input changes everything, and what is given for the first time is
        # computed too.
        assert replay.replayed >= STEPS - 1
    for expected, got in zip(computed, replayed, strict=True):
        assert len(expected) == len(got)
        for x, y in zip(expected, got, strict=True):
            assert torch.equal(x.view(torch.uint8), y.view(torch.uint8))
