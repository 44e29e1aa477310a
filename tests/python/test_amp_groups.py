# SPDX-License-Identifier: BSD-3-Clause
"""QuantizerGroup: names, methods, what find_quantizer_group finds."""

from __future__ import annotations

import pytest
from amp_models import A4W4, A8W4, FLOAT, INT, bits, make_sim

from aimetpp.amp.candidates import candidate_text, parse_candidates
from aimetpp.amp.quantizer_groups import QuantizerGroup, find_quantizer_group


def test_names_and_lists() -> None:
    group = QuantizerGroup(
        input_quantizers=("conv1_input_quantizer_idx_0", "a.b:1_input_quantizer_idx_2"),
        output_quantizers=("relu",),
        parameter_quantizers=("conv1.weight",),
    )
    assert group.to_list() == [
        ("input", "conv1_input_quantizer_idx_0"),
        ("input", "a.b:1_input_quantizer_idx_2"),
        ("output", "relu"),
        ("weight", "conv1.weight"),
    ]
    assert group.get_input_quantizer_modules() == ("conv1", "a.b:1")
    assert str(group) == "relu + conv1.weight"
    assert str(QuantizerGroup(parameter_quantizers=("fc.weight",))) == "fc.weight"
    assert {group: 1}[QuantizerGroup(*group.__dict__.values())] == 1


def test_every_quantizer_is_in_one_group() -> None:
    sim = make_sim()
    dictionary, groups = find_quantizer_group(sim)
    named = [name for group in groups for _, name in group.to_list()]
    assert sorted(named) == sorted(dictionary)
    found = [id(q) for group in groups for q in group.get_active_quantizers(dictionary)]
    on = [id(quantizer) for _, quantizer in sim.named_quantizers()]
    assert sorted(found) == sorted(on)
    assert groups == sim.quantizer_groups()


def test_weights_are_with_the_activation_they_read() -> None:
    _, groups = find_quantizer_group(make_sim())
    by_weight = {name: g for g in groups for name in g.parameter_quantizers}
    assert by_weight["conv1.weight"].input_quantizers == (
        "conv1_input_quantizer_idx_0",
    )
    # relu's output is read by conv2, by the add, and by the concatenation.
    assert "relu" in by_weight["conv2.weight"].output_quantizers
    assert by_weight["fc.weight"].name == "/mean_0"
    assert "fc" in by_weight["fc.weight"].supported_kernel_ops


def test_candidates_are_set_and_read() -> None:
    sim = make_sim()
    dictionary, groups = find_quantizer_group(sim)
    group = next(g for g in groups if "fc.weight" in g.parameter_quantizers)
    group.set_quantizers_to_candidate(dictionary, A8W4)
    assert group.get_candidate(dictionary) == A8W4
    assert sim.model.fc.param_quantizers["weight"].bitwidth == 4
    assert bits(sim)["/mean_0"] == "int8"
    fp16 = ((16, FLOAT), (16, FLOAT))
    group.set_quantizers_to_candidate(dictionary, fp16)
    assert group.get_candidate(dictionary) == fp16
    assert dictionary["fc.weight"] is sim.model.fc.param_quantizers["weight"]
    group.set_quantizers_to_candidate(dictionary, ((8, INT), (32, FLOAT)))
    assert sim.model.fc.param_quantizers["weight"] is None
    assert len(group.get_active_quantizers(dictionary)) == 1

    activation = next(g for g in groups if not g.parameter_quantizers)
    activation.set_quantizers_to_candidate(dictionary, A4W4)
    assert activation.get_candidate(dictionary) == ((4, INT),)
    with pytest.raises(TypeError, match="must come from find_quantizer_group"):
        group.set_quantizers_to_candidate(dict(dictionary), A4W4)


def test_groups_leave_out_what_is_off() -> None:
    sim = make_sim()
    sim.model.fc.param_quantizers["weight"] = None
    _, groups = find_quantizer_group(sim)
    assert all("fc.weight" not in g.parameter_quantizers for g in groups)


def test_candidates_may_be_written_with_words() -> None:
    assert parse_candidates([((8, "int"), (4, "int")), ("bf16", (16, "float"))]) == [
        ("int8", "int4"),
        ("bf16", "fp16"),
    ]
    assert candidate_text(((8, INT), (4, INT))) == "A8 W4"
    assert candidate_text(("bf16", (16, FLOAT))) == "Abf16 Wfp16"
    assert candidate_text(((8, INT),)) == "A8"
    with pytest.raises(ValueError, match="int2"):
        parse_candidates([("int99", "int8")])
