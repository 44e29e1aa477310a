# SPDX-License-Identifier: BSD-3-Clause
"""Precision requests on known models: where each is realized, worked out by hand."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from packages import timm, torchvision
from torch import nn

from aimetpp.common.defs import QuantizationDataType
from aimetpp.mixed_precision import MixedPrecisionConfigurator
from aimetpp.quantsim import QuantizationSimModel


@functools.cache
def simulation(name: str) -> QuantizationSimModel:
    torch.manual_seed(0)
    if name == "vit":
        model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1)
    elif name == "googlenet":
        model = torchvision.models.googlenet(
            weights=None, init_weights=False, aux_logits=False
        )
    else:
        model = getattr(torchvision.models, name)(weights=None)
    size = 64 if name == "googlenet" else 32
    return QuantizationSimModel(model.eval(), torch.randn(1, 3, size, size))


def changed(sim: QuantizationSimModel) -> dict[str, str]:
    """First site of each quantizer that is not int8 -> its precision."""
    return {
        sim.graph.site_name(spec.sites[0]): precision
        for spec, precision in zip(
            sim.placement.quantizers, sim.precisions(), strict=True
        )
        if precision != "int8"
    }


def apply(name: str, asks: list[tuple], strict: bool) -> tuple[dict[str, str], Any]:
    sim = simulation(name)
    sim.apply_precisions(["int8"] * len(sim.placement.quantizers))
    mmp = MixedPrecisionConfigurator(sim)
    for ask in asks:
        if ask[0] in ("input", "output"):
            getattr(mmp, f"set_model_{ask[0]}_precision")(ask[1])
        else:
            mmp.set_precision(*ask)
    report = mmp.apply(None, strict=strict)
    return changed(sim), report


W4, W16 = {"weight": "int4"}, {"weight": "int16"}
STEM = {"conv1.input.0": "int16", "conv1.weight": "int4", "relu": "int16"}
DOWN = {"layer1.1.relu:1": "int16", "layer2.0.downsample.1": "int16"}
CASES: dict[str, tuple[str, list[tuple], dict[str, str]]] = {
    "first_of_conv_bn_relu": ("resnet18", [("conv1", "int16", W4)], STEM),
    "last_of_conv_bn_relu": ("resnet18", [("relu", "int16")], {"relu": "int16"}),
    "a_pool_moves_values": ("resnet18", [("maxpool", "int16")], {"relu": "int16"}),
    "a_relu_called_twice": (
        "resnet18",
        [("layer1.0.relu", "int16")],
        {"layer1.0.relu": "int16", "layer1.0.relu:1": "int16"},
    ),
    "through_a_flatten": (
        "resnet18",
        [("fc", (16, QuantizationDataType.float), W4)],
        {"avgpool": "fp16", "fc": "fp16", "fc.weight": "int4"},
    ),
    "container": ("resnet18", [("layer2.0.downsample", "int16")], DOWN),
    "container_then_leaf": (
        "resnet18",
        [("layer2.0.downsample", "int16", W16), ("layer2.0.downsample.0", None, W4)],
        {**DOWN, "layer2.0.downsample.0.weight": "int4"},
    ),
    "leaf_then_container": (
        "resnet18",
        [("layer2.0.downsample.0", None, W4), ("layer2.0.downsample", "int16", W16)],
        {**DOWN, "layer2.0.downsample.0.weight": "int16"},
    ),
    "glob": (
        "resnet18",
        [("layer[23].*.downsample.0", None, W4)],
        {f"layer{n}.0.downsample.0.weight": "int4" for n in (2, 3)},
    ),
    "input_and_output": (
        "resnet18",
        [("input", ["int16"]), ("output", "bf16")],
        {"conv1.input.0": "int16", "fc": "bf16"},
    ),
    "siblings_that_agree": (
        "resnet18",
        [("layer2.0.downsample.0", "int4"), ("layer2.0.conv1", "int4")],
        {
            "layer1.1.relu:1": "int4",
            "layer2.0.relu": "int4",
            "layer2.0.downsample.1": "int4",
        },
    ),
    "input_of_a_matmul": (
        "vit",
        [("blocks.0.attn/matmul_1", ["int16", None])],
        {"blocks.0.attn/softmax_0": "int16", "blocks.0.attn/matmul_1": "int16"},
    ),
    "through_an_unbind": (
        "vit",
        [("blocks.0.attn/matmul_1", [None, "int16"])],
        {"blocks.0.attn.qkv": "int16"},
    ),
    "glob_of_functional_ops": (
        "vit",
        [("*/softmax_*", "int16")],
        {"blocks.0.attn/matmul_0": "int16", "blocks.0.attn/softmax_0": "int16"},
    ),
    "parameter_of_a_sum": (
        "vit",
        [("/add_0", None, {"pos_embed": "int16"})],
        {"/add_0.pos_embed": "int16"},
    ),
    "type_then_output": (
        "vit",
        [(nn.LayerNorm, None, W16), ("head", "int4"), ("output", "int16")],
        {
            "blocks.0.norm1.weight": "int16",
            "blocks.0.norm2.weight": "int16",
            "norm.weight": "int16",
            "norm": "int4",
            "head": "int16",
        },
    ),
    "branch_of_a_concatenation": (
        "googlenet",
        [("inception3a.branch1.conv", "int16")],
        {"conv3/relu_0": "int16", "inception3a.branch1/relu_0": "int16"},
    ),
    "reader_of_a_concatenation": (
        "googlenet",
        [("inception3b.branch1.conv", "int4")],
        {"inception3a.branch1/relu_0": "int4", "inception3b.branch1/relu_0": "int4"},
    ),
    "residual_sum": (
        "mobilenet_v2",
        [("features.3/add_0", ["int16", "int4"])],
        {
            "features.2.conv.3": "int16",
            "features.3.conv.3": "int4",
            "features.3/add_0": "int16",
        },
    ),
    "depthwise": (
        "mobilenet_v2",
        [("features.1.conv.0.0", "int16", W16)],
        {
            "features.0.2": "int16",
            "features.1.conv.0.0.weight": "int16",
            "features.1.conv.0.2": "int16",
        },
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_where_a_request_is_realized(case):
    name, asks, expected = CASES[case]
    found, report = apply(name, asks, strict=True)
    assert found == expected, str(report)


SIBLINGS = [
    ("layer2.0.conv1", "int16", W16),
    ("layer2.0.downsample.0", "int4"),
]


def test_siblings_that_differ_are_a_conflict():
    with pytest.raises(RuntimeError) as error:
        apply("resnet18", SIBLINGS, strict=True)
    for part in (
        "request 1 (layer2.0.conv1, test_requests_in_models.py:",
        "request 2 (layer2.0.downsample.0, test_requests_in_models.py:",
        "decided by the quantizer layer1.1.relu:1",
    ):
        assert part in str(error.value)
    assert changed(simulation("resnet18")) == {}


@pytest.mark.parametrize("latest", ["int4", "int16"])
def test_of_siblings_that_differ_the_latest_wins(latest):
    asks = SIBLINGS if latest == "int4" else SIBLINGS[::-1]
    found, report = apply("resnet18", asks, strict=False)
    assert found == {
        "layer1.1.relu:1": latest,
        "layer2.0.relu": "int16",
        "layer2.0.conv1.weight": "int16",
        "layer2.0.downsample.1": "int4",
    }
    assert [line.request for line in report.overruled] == [1]
