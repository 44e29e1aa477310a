# SPDX-License-Identifier: BSD-3-Clause
"""ONNX exports of the zoo's models against their simulations: node by node, each fed
with the simulation's tensors, and as a whole.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from architectures import make, run, sqnr
from onnx import helper
from torch.utils import _pytree as pytree

from aimetpp.batch_norm_fold import fold_all_batch_norms
from aimetpp.export.calling import tensors_by_name
from aimetpp.export.onnx import build_qdq_model, export_with_markers
from aimetpp.export.qdq import MARKER_DOMAIN
from aimetpp.quantsim import QuantizationSimModel
from aimetpp.quantsim.tracing import split_dummy_input

torch.set_num_threads(1)

MODELS = (
    "torchvision/mobilenet_v2",
    "torchvision/mobilenet_v3_small",
    "torchvision/shufflenet_v2_x0_5",
    "timm/test_coatnet",
    "timm/test_mambaout",
    "transformers/BertForSequenceClassification",
    "transformers/T5Model",
    "transformers/GPT2LMHeadModel",
    "transformers/LlamaForCausalLM",
    "custom/text_recurrence",
    "custom/speech_encoder_decoder",
    "custom/volume_unet",
)
# Of activations and parameters.
EVERYWHERE = (("int8", "int8"), ("int4", "int4"))
# Other integer types, grids narrower than their types, Cast pairs.
ON_SMALL_MODELS = (("int16", "int8"), ("int6", "int3"), ("fp16", "bf16"))
# Values beyond are masks, which pass unquantized.
LARGEST = 1e30


class Recorder(torch.nn.Module):
    """Stands in a slot and keeps what the site's quantizer gave."""

    def __init__(self, site: int, quantizer: Any, found: dict[int, np.ndarray]) -> None:
        super().__init__()
        self._site, self._found = site, found
        self._quantize = quantizer.forward

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self._quantize(x)
        self._found[self._site] = y.numpy().copy()
        return y


def simulate(name: str, precisions: tuple[str, str]) -> tuple[Any, Any]:
    """A calibrated simulation, batch norms folded, with biases as files have them."""
    model, example = make(name)
    if isinstance(example, torch.Tensor) and example.is_floating_point():
        fold_all_batch_norms(model, tuple(example.shape))
    sim = QuantizationSimModel(model, example, int32_bias=True)
    sim.compute_encodings(lambda m: run(m, example))
    activation, param = precisions
    kinds = [spec.kind for spec in sim.placement.quantizers]
    sim.apply_precisions([param if k == "param" else activation for k in kinds])
    return sim, example


def tensors_of_sites(sim: QuantizationSimModel, example: Any) -> dict[int, str]:
    """The quantized tensor of the exported graph by site; of activations."""
    params = {site.id for site in sim.sites() if site.kind == "param"}
    found = {}
    for node in export_with_markers(sim, example).graph.node:
        if node.domain == MARKER_DOMAIN:
            site = {a.name: helper.get_attribute_value(a) for a in node.attribute}["id"]
            found[site] = node.output[0]
    return {site: name for site, name in found.items() if site not in params}


def cut(model: onnx.ModelProto, names: set[str]) -> onnx.ModelProto:
    """The graph cut at tensors: each is computed as "<name> computed", and fed."""
    pieces = onnx.ModelProto()
    pieces.CopyFrom(model)
    graph = pieces.graph
    for node in graph.node:
        for index, output in enumerate(node.output):
            if output in names:
                node.output[index] = f"{output} computed"
    others = [value for value in graph.output if value.name not in names]
    del graph.output[:]
    graph.output.extend(others)
    for name in sorted(names):
        kind = onnx.TensorProto.FLOAT
        graph.input.append(helper.make_tensor_value_info(name, kind, None))
        computed = helper.make_tensor_value_info(f"{name} computed", kind, None)
        graph.output.append(computed)
    return pieces


def run_onnx(
    model: onnx.ModelProto, feeds: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.graph_optimization_level = level
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    needed = [value.name for value in session.get_inputs()]
    names = [value.name for value in session.get_outputs()]
    outputs = session.run(None, {name: feeds[name] for name in needed})
    return dict(zip(names, outputs, strict=True))


def check_nodes(sim: Any, example: Any, model: onnx.ModelProto, feeds: Any) -> None:
    """Within an output step on 99.9 % of the elements of every quantized tensor."""
    found: dict[int, np.ndarray] = {}
    # A recorder is no quantizer to take a bias's step from.
    with (
        sim.constant_biases(),
        sim._bank.swapped(lambda slot, q: Recorder(slot.site, q, found)),
    ):
        run(sim.model, example)
    quantizers = {site.id: site.quantizer for site in sim.sites()}
    produced = {output for node in model.graph.node for output in node.output}
    tensors = {
        site: name
        for site, name in tensors_of_sites(sim, example).items()
        if name in produced  # readers of one tensor share its nodes
    }
    assert len(set(tensors.values())) == len(tensors) >= 4
    wanted = {name: found[site] for site, name in tensors.items()}
    got = run_onnx(cut(model, set(wanted)), {**feeds, **wanted})
    for site, name in tensors.items():
        shown = np.abs(wanted[name]) < LARGEST
        off = np.abs(got[f"{name} computed"] - wanted[name])[shown]
        scale = quantizers[site].get_encodings().get("scale")
        if scale is None:  # of fp16: a step is relative
            scale = [2.0**-10 * np.abs(wanted[name][shown]) + 2.0**-24]
        assert (off <= 1.01 * scale[0]).mean() >= 0.999, name


def check(name: str, precisions: tuple[str, str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sim, example = simulate(name, precisions)
        model = build_qdq_model(sim, example).model
        args, kwargs = split_dummy_input(example)
        tensors = tensors_by_name(sim.model, args, kwargs)
        feeds = {key: tensor.numpy() for key, tensor in tensors.items()}
        check_nodes(sim, example, model, feeds)
    # As a whole: nearer to the simulation by 10 dB than that is to float.
    expected = run(sim.model, example)
    with sim.quantizers_off():
        floating = run(sim.model, example)
    leaves = [x for x in pytree.tree_leaves(expected) if isinstance(x, torch.Tensor)]
    outputs = run_onnx(model, feeds).values()
    got = [torch.from_numpy(output) for output in outputs]
    apart = sqnr(pytree.tree_leaves(floating), pytree.tree_leaves(expected))
    assert sqnr(leaves, got) >= apart + 10


@pytest.mark.parametrize("precisions", EVERYWHERE, ids="".join)
@pytest.mark.parametrize("name", MODELS)
def test_exports_equal_their_simulations(name, precisions):
    check(name, precisions)


@pytest.mark.parametrize("precisions", ON_SMALL_MODELS, ids="".join)
@pytest.mark.parametrize("name", MODELS[-3:])
def test_in_other_precisions_too(name, precisions):
    check(name, precisions)
