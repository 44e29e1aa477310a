# SPDX-License-Identifier: BSD-3-Clause
"""What runs during a quantized model's forward: which module is calling, and the
mode that sees functional ops (`x + y`, `torch.cat`) outside leaf modules.

A module whose own forward calls functional ops opens a frame; a leaf module opens
an opaque one, inside which nothing is seen. Functional calls are matched with what
was traced by (calling module, op, ordinal within one forward of the outermost
frame).
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from aimetpp import _C
from aimetpp.nn.attention import PARTS, add_bias, is_added_mask
from aimetpp.nn.off_path import called_alone, report_untraced

if TYPE_CHECKING:
    from aimetpp.nn.playback import Playback
    from aimetpp.nn.replay import Replay
    from aimetpp.quantsim.tracing import Tracer


@dataclass
class FunctionalCall:
    """One traced functional call: where its quantizers stand.

    `inputs` and `outputs` hold, for each markable tensor in order, the key of its
    quantizer in the calling module's `functional_quantizers`.
    """

    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    # Which input the op overwrites and returns (`x += y`); None: a new tensor.
    overwrites: int | None = None
    source: str = ""
    name: str = ""  # as in the graph: "layer1.0/add_0"


@dataclass
class ModuleRecord:
    """What a wrapped module knows of itself; shared by copies of the module."""

    name: str
    num_inputs: int = 0
    num_outputs: int = 0
    num_calls: int = 0
    overwrites: int | None = None  # as in FunctionalCall: nn.ReLU(inplace=True)
    # Names of weights that it computes before each use (weight norm).
    computed: tuple[str, ...] = ()
    # Parameters that its forward writes into.
    written: set[str] = field(default_factory=set)
    # By (op, ordinal); only modules that call functional ops have any.
    functional: dict[tuple[str, int], FunctionalCall] = field(default_factory=dict)
    # The module's `functional_quantizers`.
    quantizers: torch.nn.ModuleDict = field(default_factory=torch.nn.ModuleDict)
    # Quantized parameters kept between forwards without gradients.
    weights: _C.WeightCache = field(default_factory=_C.WeightCache)
    # "error" or "warn": what a functional call that was not traced does.
    untraced: str = "error"
    warned: bool = False
    # What the counters were when the module was entered, once per call traced: the
    # first so many entries of the model's call sequence (module name, op).
    starts: list[int] = field(default_factory=list)
    sequence: list[tuple[str, str]] = field(default_factory=list)


class Context:
    """Counters of one outermost forward: (module name, op) -> calls so far."""

    def __init__(self, record: ModuleRecord | None = None) -> None:
        self.counts: dict[tuple[str, str], int] = {}
        self.entered: list[ModuleRecord] = []  # filled under torch.compile
        if record is not None and record.name:
            self._continue_at(record)

    def _continue_at(self, record: ModuleRecord) -> None:
        """Counts what the model's forward runs before a module that runs on its own,
        as gradient checkpointing does in the backward pass.
        """
        if len(record.starts) > 1:
            raise called_alone(record, len(record.starts))
        for start in record.starts:
            for module, op in record.sequence[:start]:
                self.next(module, op)

    def next(self, module: str, op: str) -> int:
        key = (module, op)
        ordinal = self.counts.get(key, 0)
        self.counts[key] = ordinal + 1
        return ordinal


class RuntimeState:
    """The stack of modules being run. One forward at a time in a process."""

    def __init__(self) -> None:
        self.turn = threading.RLock()  # of the thread whose forward runs
        # A module with functional ops; inside a leaf None, or the mode where the
        # leaf took it off. C++ holds this list.
        self.frames: list[Any] = []
        self.mode: FunctionalMode | None = None
        self.context: Context | None = None
        self.tracer: Tracer | None = None
        self.replay: Replay | None = None  # serves outermost forwards
        self.playback: Playback | None = None  # of the forward that it serves


STATE = RuntimeState()

Run = TypeVar("Run", bound=Callable[..., Any])


def in_turn(run: Run) -> Run:
    """`run`, of which other threads wait for the end before they run another one."""

    @functools.wraps(run)
    def locked(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return run(*args, **kwargs)
        with STATE.turn:
            return run(*args, **kwargs)

    return locked  # type: ignore[return-value]


def is_eager() -> bool:
    """False while something traces the forward: the path through Python is what
    torch.compile reads, and no trace may hold an in-place op or a kept weight.
    """
    return (
        not torch.compiler.is_compiling()
        and STATE.tracer is None
        and not torch._C._is_tracing()
    )


def is_markable(value: object) -> bool:
    """True for what can be a site: a floating tensor that is not a scalar."""
    return (
        isinstance(value, torch.Tensor)
        and value.is_floating_point()
        and value.dim() > 0
    )


def map_markable(fn: Callable[[int, torch.Tensor], torch.Tensor], tree: Any) -> Any:
    """Replaces the k-th markable tensor t of a nested structure by fn(k, t)."""
    if isinstance(tree, torch.Tensor):
        return fn(0, tree) if is_markable(tree) else tree
    leaves, spec = pytree.tree_flatten(tree)
    position = 0
    for index, leaf in enumerate(leaves):
        if is_markable(leaf):
            leaves[index] = fn(position, leaf)
            position += 1
    return pytree.tree_unflatten(leaves, spec)


def has_markable(tree: Any) -> bool:
    """True where a nested structure holds a markable tensor."""
    if isinstance(tree, torch.Tensor):
        return is_markable(tree)
    return any(is_markable(leaf) for leaf in pytree.tree_leaves(tree))


_OP_NAMES: dict[Any, str | None] = {}


def op_name(func: Any) -> str | None:
    """The canonical name of a torch function that makes new values ("add"), or None
    for one that moves values, asks for metadata or creates a tensor.
    """
    try:
        return _OP_NAMES[func]
    except KeyError:
        pass
    kind = _computing_kind(func)
    # What torch.compile's tracing writes to a dict becomes part of the graph.
    if not torch.compiler.is_compiling():
        _OP_NAMES[func] = kind
    return kind


# torch.compile cannot look into the bindings, may call functions that an eager
# forward does not, and since PyTorch 2.15 reads "wrapped" as the name of a decorated
# function, such as `1 - x` calls.
@torch.compiler.assume_constant_result
def _computing_kind(func: Any) -> str | None:
    name = getattr(func, "__name__", "")
    if name == "fn":  # F.max_pool2d and its like are dispatchers of this name
        name = "max_pool"
    known = name and _C.op_role(name) == "compute"
    return _C.canonical_kind(name) if known else None


def run_quantized(
    function: Callable[..., Any],
    args: Any,
    kwargs: Any,
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    overwrites: int | None,
) -> Any:
    """Calls `function` with its k-th markable input passed through `inputs[k]` and
    its k-th markable result through `outputs[k]` (None: left alone).

    An op that overwrites its input is quantized in place, since the input's other
    names (the variable in `x.add_(y)`) must see the quantized values too. With
    gradients it runs on a copy, because autograd may have saved its result.
    """
    if all(q is None for q in outputs):
        overwrites = None
    target: list[torch.Tensor] = []
    if overwrites is not None or any(q is not None for q in inputs):

        def enter(k: int, x: torch.Tensor) -> torch.Tensor:
            quantizer = inputs[k] if k < len(inputs) else None
            if k == overwrites:
                target.append(x)
            # What autograd saves must not be the tensor that is overwritten.
            if overwrites is not None and torch.is_grad_enabled():
                x = x.clone()
            return x if quantizer is None else quantizer(x)

        args, kwargs = map_markable(enter, (args, kwargs))
    result = function(*args, **kwargs)
    if all(q is None for q in outputs):
        return result

    return quantize_results(result, outputs, target[0] if target else None)


def quantize_results(
    result: Any, outputs: Sequence[Any], target: torch.Tensor | None
) -> Any:
    """The k-th markable result passed through `outputs[k]`; the first is written to
    `target`, if there is one.
    """

    def leave(k: int, x: torch.Tensor) -> torch.Tensor:
        quantizer = outputs[k] if k < len(outputs) else None
        y = x if quantizer is None else quantizer(x)
        return target.copy_(y) if target is not None and k == 0 else y

    return map_markable(leave, result)


class FunctionalMode(TorchFunctionMode):
    """Quantizes functional ops called by the module on top of the frame stack."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return self.call(func, *args, **(kwargs or {}))

    def call(self, func: Any, *args: Any, **kwargs: Any) -> Any:
        """Calls `func`, quantizing its inputs and results where it is a site."""
        module = STATE.frames[-1] if STATE.frames else None
        if module is None:
            return func(*args, **kwargs)
        parts = PARTS.get(func)
        if parts is not None:
            return parts(self, *args, **kwargs)
        op = op_name(func)
        if op is not None and isinstance(kwargs.get("out"), torch.Tensor):
            out = kwargs.pop("out")  # not an input
            result = self.call(func, *args, **kwargs)
            return out.resize_(result.shape).copy_(result)
        if op is None or not has_markable((args, kwargs)):
            if func is torch.Tensor.unflatten:  # torch.compile cannot look into it
                func = torch.unflatten
            if STATE.playback is not None:
                STATE.playback.note_read(func, args, kwargs)
            return func(*args, **kwargs)
        if STATE.tracer is not None:
            return STATE.tracer.functional_call(module, op, func, args, kwargs)
        return run_functional(module, op, func, args, kwargs)


def _is_own_op(func: Any) -> bool:
    """True for the library's ops: a quantizer runs that a user put into a module."""
    return getattr(func, "__module__", "") == torch.ops.aimetpp.site.__module__


def run_functional(module: Any, op: str, func: Any, args: Any, kwargs: Any) -> Any:
    """Runs one functional call of `module`, quantizing what was traced there."""
    record: ModuleRecord = module._aimetpp
    context = STATE.context
    ordinal = context.next(record.name, op) if context is not None else 0
    call = record.functional.get((op, ordinal))
    if call is None:
        if STATE.playback is not None:
            STATE.playback.note_read(func, args, kwargs)
        result = func(*args, **kwargs)
        is_known = _is_own_op(func) or (is_eager() and is_added_mask(op, args))
        if has_markable(result) and not is_known:
            known = sum(1 for name, _ in record.functional if name == op)
            where = f"module {record.name!r}" if record.name else "the root module"
            what = f"functional op {op!r} in {where}"
            report_untraced(record, what, ordinal, known)
        return result
    quantizers = record.quantizers._modules
    inputs = [quantizers[key] for key in call.inputs]
    outputs = [quantizers[key] for key in call.outputs]
    if not is_eager():
        return run_quantized(func, args, kwargs, inputs, outputs, call.overwrites)
    compute = functools.partial(
        _C.functional_call,
        func,
        args,
        kwargs,
        inputs,
        outputs,
        call.overwrites,
        call.name,
    )
    if STATE.playback is None:
        return compute()
    return STATE.playback.call((record.name, op, ordinal), args, kwargs, compute)


def _check_all_seen(context: Context) -> None:
    """torch.compile does not show every function to a mode (not `torch.relu_` nor
    `F.hardswish`): one that it kept back must not go unquantized unnoticed.
    """
    for record in context.entered:
        for (op, ordinal), call in record.functional.items():
            if op == add_bias.__name__:  # shown whenever it is called
                continue
            if context.counts.get((record.name, op), 0) <= ordinal:
                raise RuntimeError(
                    f"functional op {op!r} (call {ordinal + 1} in "
                    f"{record.name or 'the root module'}, {call.source}) was traced "
                    "when the simulation was built, but torch.compile did not show "
                    "it: call the out-of-place function or use a module instead, or "
                    "run this input without torch.compile"
                )


class frame:  # noqa: N801 - a context manager, used like a function
    """Puts `module` (None: an opaque leaf) on the frame stack; the outermost frame
    also starts the counters and the functional mode, and turns off the fused paths
    of PyTorch's attention modules, which no mode sees.
    """

    def __init__(self, module: Any) -> None:
        self.module = module
        self.outermost = False
        self.mode: FunctionalMode | None = None
        self.fast_path = False

    def __enter__(self) -> None:
        above = STATE.frames[-1] if STATE.frames else None
        off = isinstance(above, FunctionalMode)  # an eager leaf took it off
        if self.module is None:
            STATE.frames.append(above if off else None)
            return
        if not STATE.frames:
            self.outermost = True
            # torch.compile traces no such setting, and shows the mode every op.
            if not torch.compiler.is_compiling():
                self.fast_path = torch.backends.mha.get_fastpath_enabled()
                torch.backends.mha.set_fastpath_enabled(False)
            STATE.context = Context(self.module._aimetpp)
            STATE.mode = self.mode = FunctionalMode()
        elif off:
            self.mode = above
        if self.mode is not None:
            self.mode.__enter__()
        STATE.frames.append(self.module)
        if STATE.tracer is not None:
            STATE.tracer.frame_entered(self.module)
        if torch.compiler.is_compiling():
            assert STATE.context is not None
            STATE.context.entered.append(self.module._aimetpp)

    def __exit__(self, *error: Any) -> None:
        STATE.frames.pop()
        if self.mode is not None:
            self.mode.__exit__(*error)
        if self.outermost:
            if not torch.compiler.is_compiling():
                torch.backends.mha.set_fastpath_enabled(self.fast_path)
                _C.release_scratch()
            STATE.mode = None
            context, STATE.context = STATE.context, None
            if context is not None and error[0] is None:
                _check_all_seen(context)
