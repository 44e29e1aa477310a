# SPDX-License-Identifier: BSD-3-Clause
"""Model + example input -> OpGraph.

In one traced forward every site's tensor passes through a marker op, so that the IR
says which value belongs to which site.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree

from aimetpp import _C
from aimetpp.common.inference import inference, tensors_alone_in_state
from aimetpp.common.text import source_of_caller
from aimetpp.common.trees import know_dataclasses
from aimetpp.nn.off_path import LIBRARY_FOLDERS
from aimetpp.nn.runtime import (
    STATE,
    Context,
    FunctionalCall,
    in_turn,
    is_markable,
    map_markable,
)
from aimetpp.quantsim.batch_norm_call import FunctionalBatchNorm
from aimetpp.quantsim.param_read import ParamRead, rows_of_base


def functional_key(op: str, ordinal: int, kind: str, slot: int) -> str:
    """Key of a functional site's quantizer in `functional_quantizers`."""
    return f"{op}_{ordinal}_{kind}_{slot}"


def split_dummy_input(dummy_input: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A tensor, a tuple or list (positional) or a dict (keywords) as (args, kwargs).

    Raises:
        TypeError: anything else, or no tensor in it.
    """
    if isinstance(dummy_input, torch.Tensor):
        return (dummy_input,), {}
    know_dataclasses(dummy_input)
    if isinstance(dummy_input, dict):
        args: tuple[Any, ...] = ()
        kwargs = dict(dummy_input)
    elif isinstance(dummy_input, tuple | list):
        args, kwargs = tuple(dummy_input), {}
    else:
        raise TypeError(
            "dummy_input must be a tensor, a tuple or list of them, or a dict of "
            f"keyword arguments, got {type(dummy_input).__name__}"
        )
    leaves = pytree.tree_leaves((args, kwargs))
    if not any(isinstance(leaf, torch.Tensor) for leaf in leaves):
        raise TypeError("dummy_input must hold at least one tensor, got none")
    return args, kwargs


# Functional ops that apply additive masks, and merge them.
_MASKING_OPS = ("add", "add_bias", "sub", "where")
# Functional ops that scale by a constant (graph/rescale.h).
_SCALING_OPS = ("mul", "div")


class Tracer:
    """Records calls and sites while the model is traced, emitting markers."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.calls: list[_C.Call] = []
        self.sites: list[_C.Site] = []
        self.functional: dict[str, dict[tuple[str, int], FunctionalCall]] = {}
        self.slots: dict[str, tuple[int, int]] = {}  # leaf -> most inputs, outputs
        self.num_calls: dict[str, int] = {}
        # By site: parameters that a call reads as arguments.
        self.param_reads: dict[int, ParamRead] = {}
        self.batch_norm_calls: dict[int, FunctionalBatchNorm] = {}
        # (module, op) of every call in order, and where in it each module was entered.
        self.sequence: list[tuple[str, str]] = []
        self.frame_starts: dict[str, list[int]] = {}
        self._context = Context()
        self._applies_masks: set[int] = set()  # calls that may
        # One-element buffers, by id, as constants: no trace has seen these copies.
        self._numbers = {
            id(buffer): (buffer._version, buffer.detach().clone())
            for buffer in model.buffers()
            if buffer.numel() == 1 and buffer.is_floating_point()
        }
        self._call_stack: list[int] = []
        self._computed: dict[str, torch.Tensor] = {}
        self._param_sites: dict[tuple[int, str], int] = {}
        self._param_names = {
            id(parameter): name
            for name, parameter in model.named_parameters(remove_duplicate=True)
        }

    def frame_entered(self, module: Any) -> None:
        """A module with children begins its forward."""
        starts = self.frame_starts.setdefault(module._aimetpp.name, [])
        starts.append(len(self.sequence))

    def _ordinal(self, module: str, op: str) -> int:
        self.sequence.append((module, op))
        return self._context.next(module, op)

    def _add_call(self, module: str, ordinal: int, functional: bool, kind: str) -> int:
        source = source_of_caller(LIBRARY_FOLDERS)
        call = _C.Call(module, ordinal, functional, kind, source)
        self.calls.append(call)
        return len(self.calls) - 1

    def _mark(self, x: torch.Tensor, kind: str, call: int, slot: int) -> torch.Tensor:
        mask = _C.MaskFacts()
        if kind == "input" and call in self._applies_masks:
            negated = self.calls[call].type == "sub" and slot == 1
            mask = _C.classify_mask(x, negated=negated)
        site = _C.Site(len(self.sites), kind, call, slot, "", mask)
        self.sites.append(site)
        return torch.ops.aimetpp.site(x, site.id)

    def param(self, module: Any, name: str, parameter: torch.Tensor) -> torch.Tensor:
        """A leaf reads its parameter `name`."""
        if not is_markable(parameter):
            return parameter
        return self._mark_param(self._call_stack[-1], name, parameter, slot=0)

    def _mark_param(
        self, call: int, name: str, parameter: torch.Tensor, slot: int
    ) -> torch.Tensor:
        key = (call, name)
        if key not in self._param_sites:
            self._param_sites[key] = len(self.sites)
            self.sites.append(_C.Site(len(self.sites), "param", call, slot, name))
        return torch.ops.aimetpp.site(parameter, self._param_sites[key])

    def computed_weight(
        self, module: Any, name: str, value: torch.Tensor
    ) -> torch.Tensor:
        """A weight that `module` computed; whoever asks again gets the first value, as
        of a parameter.
        """
        path = f"{module._aimetpp.name}.{name}".lstrip(".")
        known = self._computed.setdefault(path, value)
        self._param_names[id(known)] = path
        return known

    def leaf_call(
        self, module: Any, forward: Callable[..., Any], args: Any, kwargs: Any
    ) -> Any:
        """One call of a leaf module: marks its inputs and outputs."""
        name = module._aimetpp.name
        ordinal = self._ordinal(name, "")
        self.num_calls[name] = ordinal + 1
        original = type(module).__mro__[1]
        call = self._add_call(name, ordinal, False, original.__name__)
        if not original.__module__.startswith("torch.nn."):
            self._applies_masks.add(call)
        self._call_stack.append(call)
        traced = self._traced(call, functools.partial(forward, module), args, kwargs)
        self._call_stack.pop()
        module._aimetpp.overwrites = traced.overwrites
        known = self.slots.get(name, (0, 0))
        self.slots[name] = (
            max(known[0], traced.num_inputs),
            max(known[1], traced.num_outputs),
        )
        return traced.result

    def functional_call(
        self, module: Any, op: str, func: Any, args: Any, kwargs: Any
    ) -> Any:
        """One functional op called by `module`: marks its inputs and outputs."""
        name = module._aimetpp.name
        ordinal = self._ordinal(name, op)
        call = self._add_call(name, ordinal, True, op)
        if op in _MASKING_OPS:
            self._applies_masks.add(call)
        if op in _SCALING_OPS:
            args = tuple(self._as_number(x) for x in args)
        if func is torch.nn.functional.batch_norm:
            bound = FunctionalBatchNorm.of_call(args, kwargs)
            self.batch_norm_calls[call] = bound
        traced = self._traced(call, func, args, kwargs)
        self.functional.setdefault(name, {})[op, ordinal] = FunctionalCall(
            [functional_key(op, ordinal, "input", k) for k in range(traced.num_inputs)],
            [
                functional_key(op, ordinal, "output", k)
                for k in range(traced.num_outputs)
            ],
            traced.overwrites,
            self.calls[call].source,
            self.calls[call].name,
        )
        return traced.result

    def _as_number(self, x: Any) -> Any:
        """A buffer of one element that was not written, as the number that it is: a
        product with it keeps its grid. Anything else as it is.
        """
        version, number = self._numbers.get(id(x), (None, None))
        return number if number is not None and x._version == version else x

    def _param_read(self, call: int, slot: int, x: torch.Tensor) -> ParamRead | None:
        """The parameter that an argument is; of a linear function's weight and bias
        also the parameter of which it is some rows, as packed projections are.
        """
        rows: tuple[int, int] | None = None
        parameter: torch.Tensor | None = x
        if self.calls[call].type == "linear" and x._base is not None:
            parameter, rows = x._base, rows_of_base(x)
            if rows is None:
                return None
        path = self._param_names.get(id(parameter))
        if path is None:
            return None
        module, _, name = path.rpartition(".")
        return ParamRead(slot, module, name, rows)

    def _refuse_unregistered(self, call: int, x: torch.Tensor) -> None:
        if isinstance(x, torch.nn.Parameter) and x.requires_grad:
            raise ValueError(
                f"{self.calls[call].name} reads a parameter that is not registered in "
                "the model. What a plain list or dict holds is not: use nn.ModuleList, "
                "ModuleDict or ParameterList"
            )

    def _traced(self, call: int, function: Any, args: Any, kwargs: Any) -> _TracedCall:
        """Runs one call with its inputs and results marked."""
        originals: list[torch.Tensor] = []
        marked: list[torch.Tensor] = []

        def enter(k: int, x: torch.Tensor) -> torch.Tensor:
            originals.append(x)
            read = self._param_read(call, k, x)
            if read is None:
                self._refuse_unregistered(call, x)
                marked.append(self._mark(x, "input", call, k))
                return marked[-1]
            marked.append(self._mark_param(call, read.path, x, k))
            self.param_reads[self._param_sites[call, read.path]] = read
            return marked[-1]

        args, kwargs = map_markable(enter, (args, kwargs))
        versions = [x._version for x in marked]
        result = function(*args, **kwargs)
        know_dataclasses(result)
        overwrites: int | None = None
        num_outputs = 0

        def leave(k: int, x: torch.Tensor) -> torch.Tensor:
            nonlocal overwrites, num_outputs
            num_outputs = k + 1
            y = self._mark(x, "output", call, k)
            # An op that only passes its input through does not raise its version.
            same = [
                i
                for i, tensor in enumerate(marked)
                if tensor is x and tensor._version > versions[i]
            ]
            if k == 0 and same:
                overwrites = same[0]
                return originals[overwrites].copy_(y)
            return y

        result = map_markable(leave, result)
        return _TracedCall(result, len(originals), num_outputs, overwrites)


@dataclass
class _TracedCall:
    result: Any
    num_inputs: int
    num_outputs: int
    overwrites: int | None


class _Flattened(torch.nn.Module):
    """The model as a function from flat tensors to flat tensors."""

    def __init__(self, model: torch.nn.Module, spec: Any, leaves: list[Any]) -> None:
        super().__init__()
        self.model = model
        self._spec = spec
        self._leaves = leaves
        self.output_structure: Any = None
        self.returned = ""

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        remaining = iter(tensors)
        leaves = [
            next(remaining) if isinstance(leaf, torch.Tensor) else leaf
            for leaf in self._leaves
        ]
        args, kwargs = pytree.tree_unflatten(leaves, self._spec)
        result = self.model(*args, **kwargs)
        know_dataclasses(result)
        self.returned = type(result).__name__
        outputs, spec = pytree.tree_flatten(result)
        kept = [x for x in outputs if isinstance(x, torch.Tensor)]
        indices = iter(range(len(kept)))
        self.output_structure = pytree.tree_unflatten(
            [next(indices) if isinstance(x, torch.Tensor) else None for x in outputs],
            spec,
        )
        return tuple(kept)


@dataclass
class TracedModel:
    """What one traced forward yields."""

    graph: _C.OpGraph
    tracer: Tracer
    input_structure: Any  # dummy_input's structure with flat tensor indices
    output_structure: Any


def _numbered(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    leaves, spec = pytree.tree_flatten(kwargs if kwargs else args)
    indices = iter(range(len(leaves)))
    return pytree.tree_unflatten(
        [next(indices) if isinstance(x, torch.Tensor) else None for x in leaves], spec
    )


@in_turn
def trace(
    model: torch.nn.Module, dummy_input: Any, who: str = "QuantizationSimModel"
) -> TracedModel:
    """Traces a prepared model (see `prepare`) in eval mode, once.

    Args:
        model: prepared.
        dummy_input: as for QuantizationSimModel.
        who: the function that asks, for messages.

    Raises:
        RuntimeError: the forward failed with this input, or cannot be traced; the
            message holds the module that was running.
    """
    args, kwargs = split_dummy_input(dummy_input)
    leaves, spec = pytree.tree_flatten((args, kwargs))
    # The model may write into its inputs.
    tensors = tuple(x.clone() for x in leaves if isinstance(x, torch.Tensor))
    flattened = _Flattened(model, spec, leaves)
    tracer = Tracer(model)
    STATE.tracer = tracer
    try:
        with (
            inference(model),
            tensors_alone_in_state(model),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore", category=torch.jit.TracerWarning)
            warnings.simplefilter("ignore", category=DeprecationWarning)
            ir, _ = torch.jit._get_trace_graph(flattened, tensors, strict=False)
    except Exception as error:
        where = tracer.calls[-1].name if tracer.calls else "the model's start"
        source = f" ({tracer.calls[-1].source})" if tracer.calls else ""
        raise RuntimeError(
            f"{who}: the model could not be traced with dummy_input "
            f"(tensor shapes {[tuple(t.shape) for t in tensors]}); it failed in or "
            f"after {where}{source}: {type(error).__name__}: {error}"
        ) from error
    finally:
        STATE.tracer = None
    outputs = pytree.tree_leaves(flattened.output_structure)
    if all(index is None for index in outputs):
        raise RuntimeError(
            f"{who}: the model could not be traced: it must return a tensor, or "
            "tensors in nested tuples, lists, dicts or dataclasses, but returned a "
            f"{flattened.returned} without any"
        )
    graph = _C.read_graph(ir, tracer.calls, tracer.sites, len(tensors))
    return TracedModel(
        graph, tracer, _numbered(args, kwargs), flattened.output_structure
    )
