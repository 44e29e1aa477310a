# SPDX-License-Identifier: BSD-3-Clause
"""Outputs are quantized over themselves only where nobody else can see them."""

import copy
import weakref

import numpy as np
import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from aimetpp import ops
from aimetpp.quantization import QuantizeDequantize
from aimetpp.quantsim import QuantizationSimModel


class Leaf(nn.Module):
    """A leaf module that computes `function(self, x)` and notes where it lies."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.kept = []
        self.register_buffer("table", torch.linspace(-1, 1, 40).reshape(5, 8))
        self.address = 0

    def forward(self, x):
        result = self.function(self, x)
        first = result[0] if isinstance(result, tuple) else result
        self.address = first.data_ptr()
        return result


class Around(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.leaf = Leaf(function)

    def forward(self, x):
        return self.leaf(x)


def data():
    return torch.randn(5, 8, generator=torch.Generator().manual_seed(0))


def simulate(model, x):
    sim = QuantizationSimModel(model, x, default_output_bw=3, default_param_bw=3)
    sim.compute_encodings(lambda m: m(x))
    return sim


def put_quantizers(leaf):
    """Quantizers at every output and no input, whatever the config says."""
    for slot in range(len(leaf.output_quantizers)):
        quantizer = QuantizeDequantize((), 3, False)
        quantizer.set_range(-3.0, 4.0)
        leaf.output_quantizers[slot] = quantizer
    leaf.input_quantizers[0] = None


def run(function, hook=None):
    """(leaf, output) of a simulation of one leaf, run without gradients."""
    x = data()
    sim = simulate(Around(function), x)
    leaf = sim.model.leaf
    put_quantizers(leaf)
    leaf.kept.clear()
    if hook is not None:
        leaf.register_forward_hook(hook)
    with torch.no_grad():
        return leaf, sim.model(x)


def is_quantized(y):
    return len(torch.unique(y)) <= 8


def test_a_new_output_is_quantized_in_its_own_memory():
    leaf, y = run(lambda self, x: x * 2)
    assert is_quantized(y) and y.data_ptr() == leaf.address
    leaf, y = run(lambda self, x: nn.functional.relu_(x * 2))
    assert is_quantized(y) and y.data_ptr() == leaf.address


def keep(self, x):
    self.kept.append(x * 2)
    return self.kept[0]


def keep_view(self, x):
    y = x * 2
    self.kept.append(y[1:])
    return y


def keep_detached(self, x):
    y = x * 2
    self.kept.append(y.detach())
    return y


def keep_array(self, x):
    y = x * 2
    self.kept.append(y.numpy())
    return y


def keep_storage(self, x):
    y = x * 2
    self.kept.append(y.untyped_storage())
    return y


def return_view_of_kept(self, x):
    self.kept.append(x * 2)
    return self.kept[0].view(8, 5)


def keep_in_attribute(self, x):
    self.last = x * 2
    self.kept.append(self.last)
    return self.last


def keep_closure(self, x):
    y = x * 2
    self.kept.append(lambda: y)
    return y


def keep_weakly(self, x):
    y = x * 2
    self.kept.append(weakref.ref(y))
    return y


@pytest.mark.parametrize(
    "function",
    [
        keep,
        keep_view,
        keep_detached,
        keep_array,
        keep_storage,
        return_view_of_kept,
        keep_in_attribute,
        keep_closure,
        keep_weakly,
    ],
)
def test_what_the_module_keeps_is_not_touched(function):
    leaf, y = run(function)
    assert is_quantized(y) and y.data_ptr() != leaf.address
    kept = leaf.kept[0]
    if function in (keep_closure, keep_weakly):
        kept = kept()
    if kept is None:  # the weakly kept one has gone
        return
    if function is keep_storage:
        kept = torch.empty(0).set_(kept)
    seen = torch.as_tensor(kept).reshape(-1)
    expected = (data() * 2).reshape(-1)[-seen.numel() :]
    assert torch.equal(seen, expected)


def test_inputs_passed_through_are_not_touched():
    for function in (lambda self, x: x, lambda self, x: x.view(8, 5).view(5, 8)):
        x = data()
        sim = simulate(Around(function), x)
        put_quantizers(sim.model.leaf)
        with torch.no_grad():
            assert is_quantized(sim.model(x))
        assert torch.equal(x, data())


def test_parameters_and_buffers_that_are_returned_are_not_touched():
    leaf, y = run(lambda self, x: self.table)
    assert is_quantized(y)
    assert torch.equal(leaf.table, torch.linspace(-1, 1, 40).reshape(5, 8))


def test_memory_of_an_array_is_not_touched():
    array = np.linspace(-1, 1, 40, dtype=np.float32).reshape(5, 8)
    before = array.copy()
    _, y = run(lambda self, x: torch.from_numpy(array))
    assert is_quantized(y) and np.array_equal(array, before)


def test_an_output_returned_twice_is_quantized_once():
    class Twice(nn.Module):
        def forward(self, x):
            y = x * 2
            return y, y

    x = data()
    sim = simulate(nn.Sequential(Twice()), x)
    put_quantizers(sim.model[0])
    first, second = sim.model[0].output_quantizers
    second.set_range(-1.0, 1.0)
    with torch.no_grad():
        one, two = sim.model(x)
        assert torch.equal(one, first(x * 2))
        assert torch.equal(two, second(x * 2))


def test_overlapping_results_are_quantized_apart():
    leaf, y = run(lambda self, x: (x[:1] * 2).expand(5, 8))
    assert is_quantized(y) and y.data_ptr() != leaf.address


def test_hooks_and_outer_modes_keep_what_they_saw():
    seen = []
    _, y = run(lambda self, x: x * 2, hook=lambda m, i, o: seen.append(o))
    assert seen[0] is y

    class Functions(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            if getattr(func, "__name__", "") == "mul":
                seen.append((result, result.clone()))
            return result

    class Dispatches(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            if func is torch.ops.aten.mul.Tensor:
                seen.append((result, result.clone()))
            return result

    class Multiply(nn.Module):
        def forward(self, x):
            return torch.mul(x, 2)

    x = data()
    sim = simulate(Multiply(), x)
    with torch.no_grad():
        expected = sim.model(x)
        for mode in (Functions(), Dispatches()):
            seen.clear()
            with mode:
                assert torch.equal(sim.model(x), expected)
            assert len(seen) == 1
            assert torch.equal(*seen[0])


def test_functional_ops_are_quantized_in_place_too():
    class Add(nn.Module):
        def forward(self, x):
            y = x + 1
            self.kept = y
            z = y * y
            return z + y

    x = data()
    sim = simulate(Add(), x)
    with torch.no_grad():
        y = sim.model(x)
    quantizers = list(sim.functional_quantizers.values())
    assert len(quantizers) == 3
    a = quantizers[0](sim.model.functional_quantizers["add_0_input_0"](x) + 1)
    assert torch.equal(sim.model.kept, a)
    assert torch.equal(y, quantizers[2](quantizers[1](a * a) + a))


def test_an_op_that_overwrites_shows_quantized_values_under_every_name():
    class Overwrites(nn.Module):
        def __init__(self):
            super().__init__()
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x):
            y = x * 2
            alias = y.view(-1)
            self.relu(y)
            y.mul_(3)
            return y, alias

    x = data()
    sim = simulate(Overwrites(), x)
    results = []
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            y, alias = sim.model(x)
        assert torch.equal(y.reshape(-1), alias) and is_quantized(y)
        results.append(y.detach())
    assert torch.equal(*results)


def test_all_ways_of_running_agree():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Conv2d(8, 4, 1)
    ).eval()
    x = torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(1))
    sim = simulate(model, x)
    expected = sim.model(x)  # with gradients: out of place
    kept = x.clone()
    with torch.no_grad():
        for _ in range(2):
            assert torch.equal(sim.model(x), expected)
        traced = torch.jit.trace(sim.model, x)
        assert "fake_quantize_" not in str(traced.inlined_graph)
        assert torch.equal(traced(x), expected)
        assert torch.equal(copy.deepcopy(sim.model)(x), expected)
        compiled = torch.compile(sim.model, fullgraph=True, backend="eager")
        assert torch.equal(compiled(x), expected)
        exported = torch.export.export(sim.model, (x,)).module()
        assert torch.equal(exported(x), expected)
        vmapped = torch.func.vmap(sim.model)(x.unsqueeze(0))
        assert torch.allclose(vmapped[0], expected, atol=0.1)
    with torch.inference_mode():
        assert torch.equal(sim.model(x), expected)
    assert torch.equal(sim.model(x), expected)
    assert torch.equal(x, kept)


def test_quantizers_with_hooks_or_subclasses_are_called():
    x = data()
    sim = simulate(nn.ReLU(), x)
    quantizer = sim.model.output_quantizers[0]
    calls = []
    handle = quantizer.register_forward_hook(lambda m, i, o: calls.append(1))
    with torch.no_grad():
        expected = sim.model(x)
        assert calls == [1]
        handle.remove()
        assert torch.equal(sim.model(x), expected) and calls == [1]

        class Louder(type(quantizer)):
            def forward(self, x):
                calls.append(2)
                return super().forward(x)

        quantizer.__class__ = Louder
        assert torch.equal(sim.model(x), expected) and calls == [1, 2]


def test_the_op_in_place():
    x = data()
    arguments = (torch.tensor(-1.0), torch.tensor(1.0), ops.integer_grid(4, False))
    expected = ops.fake_quantize(x, *arguments, False)
    version = x._version
    y = ops.fake_quantize_(x, *arguments, False)
    assert y is x and torch.equal(x, expected) and x._version == version + 1
    strided = torch.zeros(5, 16)[:, ::2]
    strided.copy_(data())
    assert torch.equal(ops.fake_quantize_(strided, *arguments, False), expected)
    with pytest.raises(RuntimeError, match="fake_quantize_: has no gradient"):
        ops.fake_quantize_(data().requires_grad_() * 1, *arguments, False)
    torch.library.opcheck(
        torch.ops.aimetpp.fake_quantize_.default, (data(), *arguments, False)
    )
