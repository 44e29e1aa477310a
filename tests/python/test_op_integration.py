# SPDX-License-Identifier: BSD-3-Clause
"""The ops within PyTorch: opcheck, tracing, scripting, export, compile, the marker."""

from typing import ClassVar

import pytest
import torch
from torch import nn
from torch.library import opcheck
from torch.utils._python_dispatch import TorchDispatchMode

from aimetpp import ops

MODES = ["fake_quantize", "quantize", "dequantize"]


def arguments(dtype=torch.float32, axis=None, symmetric=False):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 4, 5, generator=generator).to(dtype).requires_grad_()
    spread = torch.linspace(1, 2, 1 if axis is None else x.size(axis))
    low = (-spread).requires_grad_()
    high = spread.clone().requires_grad_()
    return x, low, high, ops.integer_grid(4, symmetric), symmetric, axis


class Quantizer(nn.Module):
    """The least module around the op: a learnable range, a grid in a buffer."""

    def __init__(self, bitwidth: int = 4) -> None:
        super().__init__()
        self.min = nn.Parameter(torch.linspace(-1, -2, 4))
        self.max = nn.Parameter(torch.linspace(1, 2, 4))
        self.register_buffer("grid", ops.integer_grid(bitwidth, False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.ops.aimetpp.fake_quantize(
            x * 2, self.min, self.max, self.grid, False, 1
        )
        return y + 1


class TestOpcheck:
    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("axis", [None, 1, -1])
    @pytest.mark.parametrize("symmetric", [True, False])
    def test_forward(self, mode, axis, symmetric):
        opcheck(
            getattr(torch.ops.aimetpp, mode).default,
            arguments(axis=axis, symmetric=symmetric),
        )

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
    def test_dtypes(self, dtype):
        opcheck(torch.ops.aimetpp.fake_quantize.default, arguments(dtype))

    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("axis", [None, 1])
    def test_backward(self, mode, axis):
        x, low, high, *rest = (
            a.detach() if isinstance(a, torch.Tensor) else a
            for a in arguments(axis=axis)
        )
        op = getattr(torch.ops.aimetpp, f"{mode}_backward").default
        opcheck(op, (torch.randn_like(x), x, low, high, *rest))

    @pytest.mark.parametrize("axis", [None, 1])
    @pytest.mark.parametrize("op", ["input_gradient", "input_gradient_", "backward_"])
    def test_gradients_alone_and_in_place(self, op, axis):
        x, *rest = (
            a.detach() if isinstance(a, torch.Tensor) else a
            for a in arguments(axis=axis)
        )
        op = getattr(torch.ops.aimetpp, f"fake_quantize_{op}").default
        opcheck(op, (torch.randn_like(x), x, *rest))

    @pytest.mark.parametrize("axis", [None, 1])
    def test_into(self, axis):
        x, *rest = (
            a.detach() if isinstance(a, torch.Tensor) else a
            for a in arguments(axis=axis)
        )
        opcheck(
            torch.ops.aimetpp.fake_quantize_into.default, (torch.ones_like(x), x, *rest)
        )

    def test_strided(self):
        x, low, high, grid, symmetric, _ = arguments()
        strided = x.detach().transpose(0, 2)[:, ::2].requires_grad_()
        opcheck(
            torch.ops.aimetpp.fake_quantize.default,
            (strided, low, high, grid, symmetric, None),
        )

    @pytest.mark.parametrize("requires_grad", [True, False])
    def test_site(self, requires_grad):
        x = torch.randn(3, 4, requires_grad=requires_grad)
        opcheck(torch.ops.aimetpp.site.default, (x, 3))


class TestModelsWithTheOp:
    def gradients(self, module, quantizer, x):
        quantizer.zero_grad()
        x = x.clone().requires_grad_()
        module(x).square().sum().backward()
        return x.grad, quantizer.min.grad, quantizer.max.grad

    def check(self, module, quantizer, x):
        with torch.no_grad():
            torch.testing.assert_close(module(x), quantizer(x), rtol=0, atol=0)
        for a, b in zip(
            self.gradients(module, quantizer, x),
            self.gradients(quantizer, quantizer, x),
            strict=True,
        ):
            torch.testing.assert_close(a, b, rtol=0, atol=0)

    def test_trace(self):
        quantizer, x = Quantizer(), torch.randn(2, 4, 3)
        traced = torch.jit.trace(quantizer, x)
        assert str(traced.graph).count("aimetpp::fake_quantize") == 1
        self.check(traced, quantizer, torch.randn(5, 4, 3))

    def test_script(self):
        quantizer = Quantizer()
        self.check(torch.jit.script(quantizer), quantizer, torch.randn(5, 4, 3))

    def test_compile(self):
        quantizer = Quantizer()
        compiled = torch.compile(quantizer, fullgraph=True, backend="aot_eager")
        self.check(compiled, quantizer, torch.randn(5, 4, 3))

    def test_bitwidth_changes_without_recompiling(self):
        quantizer, x = Quantizer(), torch.randn(5, 4, 3)
        frames = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
        compiled = torch.compile(quantizer, fullgraph=True, backend=frames)
        compiled(x)
        quantizer.grid.copy_(ops.integer_grid(2, False))
        torch.testing.assert_close(compiled(x), quantizer(x), rtol=0, atol=0)
        assert frames.frame_count == 1

    def test_export(self):
        quantizer, x = Quantizer().eval(), torch.randn(2, 4, 3)
        batch = torch.export.Dim("batch", min=2)
        program = torch.export.export(quantizer, (x,), dynamic_shapes=({0: batch},))
        targets = [node.target for node in program.graph.nodes]
        assert torch.ops.aimetpp.fake_quantize.default in targets
        other = torch.randn(7, 4, 3)
        torch.testing.assert_close(
            program.module()(other), quantizer(other), rtol=0, atol=0
        )

    def test_autocast_keeps_the_dtype(self):
        x, *rest = arguments()
        with torch.autocast("cpu", torch.bfloat16):
            assert ops.fake_quantize(x.bfloat16(), *rest).dtype == torch.bfloat16
            assert ops.fake_quantize(x, *rest).dtype == torch.float32


class TestSite:
    def graph_of(self, function, *inputs):
        return torch.jit.trace(function, inputs).graph

    def test_is_one_node_with_its_id(self):
        graph = self.graph_of(lambda x: ops.site(x * 2, 7) + 1, torch.randn(3))
        (node,) = graph.findAllNodes("aimetpp::site")
        tensor, number = node.inputs()
        assert tensor.node().kind() == "aten::mul"
        assert number.toIValue() == 7
        assert [use.user.kind() for use in node.output().uses()] == ["aten::add"]

    def test_other_uses_of_its_input_stay(self):
        def function(x):
            h = x * 2
            marked = ops.site(h, 0)
            return h.relu() + marked.sigmoid()

        graph = self.graph_of(function, torch.randn(3))
        (node,) = graph.findAllNodes("aimetpp::site")
        (product,) = graph.findAllNodes("aten::mul")
        assert sorted(use.user.kind() for use in product.output().uses()) == [
            "aimetpp::site",
            "aten::relu",
        ]
        (use,) = node.output().uses()
        assert use.user.kind() == "aten::sigmoid"

    def test_parameter_and_repeated_call(self):
        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layer = nn.Linear(3, 3)

            def forward(self, x):
                weight = ops.site(self.layer.weight, 0)
                for number in (1, 2):
                    x = ops.site(nn.functional.linear(x, weight), number)
                return x

        graph = torch.jit.trace(Model(), torch.randn(2, 3)).inlined_graph
        nodes = graph.findAllNodes("aimetpp::site")
        ids = [list(node.inputs())[1].toIValue() for node in nodes]
        assert ids == [0, 1, 2]
        assert len(nodes[0].output().uses()) == 2

    def test_writes_reach_the_tensor_as_without_a_marker(self):
        def function(x):
            h = x * 2
            ops.site(h, 0).add_(1)
            return h

        x = torch.randn(3)
        assert torch.equal(function(x), x * 2 + 1)
        assert torch.equal(torch.jit.trace(function, x)(x), x * 2 + 1)

    def test_passes_the_gradient(self):
        x = torch.randn(3, requires_grad=True)
        (ops.site(x, 0) * torch.tensor([1.0, 2, 3])).sum().backward()
        assert x.grad.tolist() == [1, 2, 3]

    def test_compile(self):
        compiled = torch.compile(
            lambda x: ops.site(x, 0) * 2, fullgraph=True, backend="aot_eager"
        )
        assert compiled(torch.ones(3)).tolist() == [2, 2, 2]


class Overriding(torch.Tensor):
    """Notes which functions it is passed to."""

    seen: ClassVar[list[object]] = []

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        cls.seen.append(func)
        return super().__torch_function__(func, types, args, kwargs or {})


class TestEagerCall:
    """ops.fake_quantize goes to the dispatcher by itself, unless somebody looks."""

    @pytest.fixture(params=[ops.fake_quantize, ops.fake_quantize_])
    def function(self, request):
        return request.param

    @pytest.fixture
    def packet(self, function):
        return getattr(torch.ops.aimetpp, function.__name__)

    def run(self, function, x):
        low, high = torch.tensor(-1.0), torch.tensor(2.0)
        return function(x, low, high, ops.integer_grid(4, False), False)

    def test_is_the_op(self, function):
        x = torch.randn(5, 4)
        expected = self.run(torch.ops.aimetpp.fake_quantize, x)
        torch.testing.assert_close(self.run(function, x), expected, rtol=0, atol=0)

    def test_subclass_sees_the_op(self, function, packet):
        Overriding.seen.clear()
        self.run(function, torch.randn(3).as_subclass(Overriding))
        assert Overriding.seen.count(packet) == 1

    def test_function_mode_sees_the_op(self, function, packet):
        seen = []

        class Mode(torch.overrides.TorchFunctionMode):
            def __torch_function__(self, func, types, args=(), kwargs=None):
                seen.append(func)
                return func(*args, **(kwargs or {}))

        x = torch.randn(3)
        with Mode():
            self.run(function, x)
        assert seen.count(packet) == 1

    def test_dispatch_mode_sees_the_op(self, function, packet):
        seen = []

        class Mode(TorchDispatchMode):
            def __torch_dispatch__(self, func, types, args=(), kwargs=None):
                seen.append(func)
                return func(*args, **(kwargs or {}))

        x = torch.randn(3)
        with Mode():
            self.run(function, x)
        assert seen.count(packet.default) == 1

    def test_trace_script_and_compile(self):
        def twice(x: torch.Tensor, low: torch.Tensor, grid: torch.Tensor):
            return ops.fake_quantize(x, low, -low, grid, False) * 2

        arguments = torch.randn(4, 3), torch.tensor(-1.0), ops.integer_grid(4, False)
        expected = twice(*arguments)
        traced = torch.jit.trace(twice, arguments)
        assert str(traced.graph).count("aimetpp::fake_quantize") == 1
        for made in (
            traced,
            torch.jit.script(twice),
            torch.compile(twice, fullgraph=True, backend="aot_eager"),
        ):
            torch.testing.assert_close(made(*arguments), expected, rtol=0, atol=0)

    def test_gradients_are_the_ops(self):
        x, low, high, grid, symmetric, axis = arguments(axis=1)
        expected = torch.autograd.grad(
            torch.ops.aimetpp.fake_quantize(x, low, high, grid, symmetric, axis).sum(),
            (x, low, high),
        )
        y = ops.fake_quantize(x, low, high, grid, symmetric, axis)
        assert y.grad_fn.name() == "aimetpp::fake_quantize_backward"
        for a, b in zip(
            torch.autograd.grad(y.sum(), (x, low, high)), expected, strict=True
        ):
            torch.testing.assert_close(a, b, rtol=0, atol=0)

    def test_wrong_types_are_type_errors(self, function):
        x, end, grid = torch.zeros(3), torch.tensor(1.0), ops.integer_grid(4, False)
        for arguments in (
            (x, -1.0, end, grid, False),
            (x, -end, end, grid, "no"),
            (x, -end, end, grid, False, 0.5),
        ):
            with pytest.raises((TypeError, RuntimeError), match="fake_quantize"):
                function(*arguments)


class TestHistory:
    """What autograd keeps of a call, for each mode."""

    @pytest.fixture(params=MODES)
    def call(self, request):
        op = getattr(torch.ops.aimetpp, request.param)
        inputs = arguments(axis=1)
        return inputs[:3], lambda: op(*inputs)

    def test_values_are_kept_until_they_are_used(self, call):
        inputs, run = call
        y = run()
        first = torch.autograd.grad(y.sum(), inputs, retain_graph=True)
        again = torch.autograd.grad(y.sum(), inputs)
        for a, b in zip(first, again, strict=True):
            assert torch.equal(a, b)
        with pytest.raises(RuntimeError, match="second time"):
            torch.autograd.grad(y.sum(), inputs)

    def test_values_that_were_written_into_are_noticed(self, call):
        inputs, run = call
        y = run()
        with torch.no_grad():
            inputs[0].add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()

    def test_saved_tensor_hooks_are_called(self, call):
        inputs, run = call
        expected = torch.autograd.grad(run().sum(), inputs)
        packed, unpacked = [], []

        def pack(tensor):
            packed.append(tensor)
            return tensor

        def unpack(tensor):
            unpacked.append(tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
            y = run()
        gradients = torch.autograd.grad(y, inputs, torch.ones_like(y))
        assert len(packed) == len(unpacked) == 4
        for a, b in zip(gradients, expected, strict=True):
            assert torch.equal(a, b)

    def test_only_what_is_asked_for_gets_a_gradient(self, call):
        (x, low, high), run = call
        torch.autograd.backward(run().sum(), inputs=[low])
        assert low.grad is not None
        assert x.grad is None and high.grad is None

    def test_transforms_of_functions_are_refused(self):
        x, low, high, grid, symmetric, axis = arguments()

        def total(x):
            return torch.ops.aimetpp.fake_quantize(
                x, low.detach(), high.detach(), grid, symmetric, axis
            ).sum()

        with pytest.raises(RuntimeError, match=r"C\+\+ Function|functorch"):
            torch.func.grad(total)(x.detach())
