# SPDX-License-Identifier: BSD-3-Clause
"""Which tensors of torchvision's models have a quantizer of their own, and which
share one.
"""

import json

import pytest
from architectures import make
from packages import torchvision  # noqa: F401 - first, where its ops do not load

from aimetpp.quantsim import QuantizationSimModel


def simulate(name, config=None):
    model, example = make(name)
    return QuantizationSimModel(model, example, config_file=config)


def outputs(sim):
    """Output sites that are on, by name."""
    return {
        site.name: site.quantizer
        for site in sim.sites()
        if site.kind == "output" and site.quantizer is not None
    }


def distinct(quantizers):
    return len({id(quantizer) for quantizer in quantizers})


# The names of resnet18's blocks, and of those whose shortcut is a convolution.
BLOCKS = [f"layer{i}.{k}" for i in (1, 2, 3, 4) for k in (0, 1)]
SHORTCUTS = ["layer2.0", "layer3.0", "layer4.0"]


def test_resnet18_has_30_output_quantizers():
    # The stem's ReLU; in each block both calls of its ReLU, the second of which is
    # fused with the add before it, and the batch norm before the add; the batch norms
    # of three shortcuts; pooling; the classifier. 1 + 8 * 3 + 3 + 1 + 1 = 30.
    found = outputs(simulate("torchvision/resnet18"))
    expected = ["relu", "avgpool", "fc"]
    for block in BLOCKS:
        expected += [f"{block}.relu", f"{block}.bn2", f"{block}.relu:1"]
    expected += [f"{block}.downsample.1" for block in SHORTCUTS]
    assert sorted(found) == sorted(expected) and len(found) == 30
    assert distinct(found.values()) == 30


def test_resnet18_without_supergroups_quantizes_every_add_and_relu(tmp_path):
    config = tmp_path / "config.json"
    text = {
        "defaults": {
            "ops": {"is_output_quantized": "True"},
            "params": {"is_quantized": "True", "is_symmetric": "True"},
        },
        "params": {"bias": {"is_quantized": "False"}},
        "op_type": {},
        "supergroups": [],
        "model_input": {"is_input_quantized": "True"},
        "model_output": {},
    }
    config.write_text(json.dumps(text))
    found = outputs(simulate("torchvision/resnet18", config))
    adds = [f"{block}/add_0" for block in BLOCKS]
    relus = ["relu"] + [
        f"{block}.relu{call}" for block in BLOCKS for call in ("", ":1")
    ]
    assert len(adds) == 8 and len(relus) == 17
    assert distinct(found[name] for name in adds + relus) == 25
    # Beside them the 20 batch norms, into which convolutions fold, pooling and the
    # classifier.
    assert len(found) == distinct(found.values()) == 25 + 20 + 2


def check_tie(sim, members):
    found = outputs(sim)
    assert distinct(found[name] for name in members) == 1
    *producers, cat = members
    for name in producers:
        (site,) = [s for s in sim.sites() if s.name == name]
        assert f"tie of {cat}" in str(sim.explain(site))


def test_googlenet_branches_share_the_quantizer_of_their_concatenation():
    sim = simulate("torchvision/googlenet")
    branches = ["branch1", "branch2.1", "branch3.1", "branch4.1"]
    blocks = ["3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b"]
    for block in blocks:
        name = f"inception{block}"
        check_tie(sim, [*(f"{name}.{b}/relu_0" for b in branches), f"{name}/cat_0"])
    cats = [f"inception{block}/cat_0" for block in blocks]
    assert distinct(outputs(sim)[cat] for cat in cats) == len(blocks)


def test_squeezenet_expansions_share_the_quantizer_of_their_concatenation():
    sim = simulate("torchvision/squeezenet1_1")
    for fire in ("features.3", "features.12"):
        names = ["expand1x1_activation", "expand3x3_activation"]
        check_tie(sim, [*(f"{fire}.{n}" for n in names), f"{fire}/cat_0"])


@pytest.mark.parametrize("bits", [4, 8])
def test_densenet_block_lies_on_one_grid(bits):
    # Every layer reads a concatenation of what all layers before it made, and the
    # block ends with one of all: its tensors are on one grid.
    sim = simulate("torchvision/densenet121")
    found = outputs(sim)
    block = [n for n in found if n.startswith("features.denseblock1")]
    cats = [n for n in block if "/cat_" in n]
    made = [n for n in block if n.endswith(".conv2")]
    assert len(made) == 6 and len(cats) == 7
    assert distinct(found[name] for name in made + cats) == 1
    found[made[0]].bitwidth = bits
    assert {found[name].bitwidth for name in cats} == {bits}
