# SPDX-License-Identifier: BSD-3-Clause
"""Forwards that compute only what other quantizer settings change.

Between two forwards of a model with the same batch, most calls have the same inputs
and the same quantizers. `Replay` keeps what they gave, under a budget, and gives it
again: bit for bit what computing would give. What it cannot be sure of is computed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch._C import _len_torch_dispatch_stack
from torch.nn.modules import module as torch_module
from torch.overrides import _get_current_function_mode_stack
from torch.utils import _pytree as pytree
from torch.utils._device import DeviceContext

from aimetpp import _C
from aimetpp.nn.computed import is_weight_hook
from aimetpp.nn.playback import Playback
from aimetpp.nn.runtime import STATE
from aimetpp.nn.watch import Watch
from aimetpp.nn.wrap import QUANTIZER_CONTAINERS

# So often may a forward turn out to take another path than its recording.
_MAX_MISMATCHES = 3
_PLAIN = str | bytes | int | float
# A forward: called with the module and its arguments.
Run = Callable[..., Any]


@dataclass
class _Batch:
    """What is kept of one batch."""

    recording: _C.Recording
    inputs: list[Any]
    structure: Any
    # The quantizers' stamps at which it was recorded; None: not yet.
    settings: list[int] | None = None


class Replay:
    """Serves the forwards of a quantized model while it is `STATE.replay`.

    A batch is told by its content, and recorded when it comes for the second time.
    Nothing is replayed with gradients, in training mode, with hooks on modules, or
    of a model whose forward draws random numbers or changes the model.

    Args:
        model: `sim.model`.
        graph: of the simulation.
        placement: of the simulation.
        slots: for each quantizer of the placement, the dicts and keys in which it
            stands.
        quantizers_off: a context in which the model computes in full precision.
        budget: bytes that may be kept.

    Attributes:
        around_float: batches are recorded in full precision, and stay so; else what
            was computed last is what is kept.
        given_up: why nothing is replayed any more; "" while it is.
        replayed: forwards that replayed something.
        strays: calls that were given other numbers than the last time with the same
            batch, or other tensors though nothing upstream had changed.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        graph: _C.OpGraph,
        placement: _C.Placement,
        slots: list[list[tuple[dict[str, Any], str]]],
        quantizers_off: Callable[[], AbstractContextManager[None]],
        budget: int,
    ) -> None:
        self._graph, self._placement = graph, placement
        self._slots = slots
        self._quantizers_off = quantizers_off
        self._model = model
        self._modules: list[torch.nn.Module] = []
        self._ids: set[int] = set()
        # Calls that no output depends on are in no graph, but read the same parameters.
        left_out = QUANTIZER_CONTAINERS - {"param_quantizers"}
        self.store = _C.ActivationStore(budget, left_out)
        calls = graph.calls
        self._num_calls = len(calls)
        self._index = {
            (call.module, call.type if call.functional else "", call.ordinal): index
            for index, call in enumerate(calls)
        }
        with quantizers_off():
            self._float = _C.quantizer_stamps(slots)
        self._downstream: dict[tuple[int, ...], list[int]] = {}
        self._batches: dict[Any, _Batch] = {}
        self._seen: set[Any] = set()
        self._stamp: int | None = None
        self._settings: list[int] = []
        self._unfit = ""
        self._at_once = False
        self.around_float = False
        self.given_up = "" if budget > 0 else "no memory budget"
        self.replayed = self.strays = self._mismatches = self._unkept = 0

    def forward(self, module: Any, run: Run, args: Any, kwargs: Any) -> Any:
        """What `run(module, *args, **kwargs)`, an outermost forward, gives."""
        key = None
        if (
            not self.given_up
            and not torch.is_grad_enabled()
            and not _is_watched()
            and self._fits()
            and id(module) in self._ids
        ):
            key = _key_of(module, args, kwargs)
        if key is None:
            return run(module, *args, **kwargs)
        if key not in self._seen and not self._at_once:
            self._seen.add(key)
            return run(module, *args, **kwargs)
        # Inference tensors do not say whether they were written.
        with torch.inference_mode(False), torch.no_grad():
            batch = self._batches.get(key) or self._new_batch(key, args, kwargs)
            if batch is not None:
                return self._serve(batch, module, run, args, kwargs)
        return run(module, *args, **kwargs)

    @property
    def num_refused(self) -> int:
        """How often something was not kept, or dropped, for lack of room."""
        return self.store.num_refused + self._unkept

    @contextlib.contextmanager
    def batch_by_batch(self) -> Iterator[Callable[[], None]]:
        """Within the context a batch is recorded when it comes first, and forgotten
        with a call of what the context gives: for who runs all settings with one batch
        before the next.
        """
        self._at_once = True
        try:
            yield self._forget
        finally:
            self._at_once = False
            self._forget()

    def _fits(self) -> bool:
        stamp = _C.model_stamp(self._model, QUANTIZER_CONTAINERS)
        if stamp != self._stamp:
            self._stamp = stamp
            self._modules = _C.modules_of(self._model, QUANTIZER_CONTAINERS)
            self._ids = {id(module) for module in self._modules}
            self._forget()
            self._unfit = _why_unfit(self._modules)
        self._settings = _C.quantizer_stamps(self._slots)
        return not self._unfit

    def _forget(self) -> None:
        self._batches.clear()
        self._seen.clear()

    def _give_up(self, reason: str) -> None:
        self.given_up = reason
        self._forget()

    def _new_batch(self, key: Any, args: Any, kwargs: Any) -> _Batch | None:
        """A copy of the inputs, and nothing recorded; None: no room for them, or they
        cannot be copied as they are.
        """
        leaves, structure = pytree.tree_flatten((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        size = sum(x.numel() * x.element_size() for x in tensors)
        if self.store.bytes + size > self.store.budget:
            self._unkept += 1
            return None
        inputs = [x.clone() if isinstance(x, torch.Tensor) else x for x in leaves]
        copies = [x for x in inputs if isinstance(x, torch.Tensor)]
        if any(x.stride() != y.stride() for x, y in zip(tensors, copies, strict=True)):
            return None  # kernels may be chosen by it
        recording = _C.Recording(self.store, self._num_calls, copies)
        self._batches[key] = _Batch(recording, inputs, structure)
        return self._batches[key]

    def _serve(
        self, batch: _Batch, module: Any, run: Run, args: Any, kwargs: Any
    ) -> Any:
        """One forward; its inputs are the batch's own, and those that it writes into
        are given back.
        """
        fresh = batch.settings is None
        watch = (
            Watch(self._model, self._modules, QUANTIZER_CONTAINERS) if fresh else None
        )
        self._begin(batch)
        STATE.playback = Playback(batch.recording, self._index)
        try:
            output = self._run(batch, module, run)
            batch.recording.end()
        except _C.ReplayMismatch as error:
            STATE.playback = None
            batch.recording.clear()
            batch.settings = None
            output = self._run(batch, module, run)
            self._mismatches += 1
            if self._mismatches == _MAX_MISMATCHES:
                self._give_up(f"the model's path changes too often: {error}")
            return output
        finally:
            STATE.playback = None
        output = _without_kept(output, batch.recording)
        self.replayed += batch.recording.num_replayed > 0
        self.strays += batch.recording.num_strays
        if batch.recording.inputs_written:
            _write_back(batch.inputs, pytree.tree_leaves((args, kwargs)))
            self._give_up("the model writes into its inputs")
        elif watch is not None and (change := watch.change()):
            self._give_up(change)
        elif batch.recording.differs:
            self._give_up("a call with the same inputs gave another result")
        return output

    def _begin(self, batch: _Batch) -> None:
        """What is kept is of the forward that was last, or of full precision: as much
        of it as forwards with some quantizers on compute anyway.
        """
        if not self.around_float:
            batch.recording.begin(self._changed_calls(batch, self._settings), True)
            batch.settings = self._settings
            return
        if batch.settings != self._float:
            batch.recording.forget(self._changed_calls(batch, self._float))
            batch.settings = self._float
        batch.recording.begin(self._changed_calls(batch, self._settings), False)

    def _run(self, batch: _Batch, module: Any, run: Run) -> Any:
        args, kwargs = pytree.tree_unflatten(batch.inputs, batch.structure)
        return run(module, *args, **kwargs)

    def _changed_calls(self, batch: _Batch, settings: list[int]) -> Sequence[int]:
        if batch.settings is None:
            return range(self._num_calls)
        pairs = enumerate(zip(batch.settings, settings, strict=True))
        changed = tuple(index for index, (old, new) in pairs if old != new)
        if changed not in self._downstream:
            self._downstream[changed] = _C.downstream_calls(
                self._graph, self._placement, list(changed)
            )
        return self._downstream[changed]


def _key_of(module: Any, args: Any, kwargs: Any) -> Any:
    """What tells a batch from another; None where its content cannot be compared."""
    leaves, structure = pytree.tree_flatten((args, kwargs))
    parts: list[Any] = []
    for leaf in leaves:
        if type(leaf) is torch.Tensor and leaf.layout == torch.strided:
            content = _C.content_hash(leaf)
            layout = (leaf.shape, leaf.stride(), leaf.dtype, leaf.device)
            parts.append((*layout, content))
        elif leaf is None or isinstance(leaf, _PLAIN):
            parts.append((type(leaf), repr(leaf)))
        else:
            return None
    settings = (_C.numeric_settings(), torch.get_default_device())
    return id(module), repr(structure), *parts, *settings


def _is_watched() -> bool:
    """True where a mode of the user's sees the ops that a forward runs."""
    functions = _get_current_function_mode_stack()
    return _len_torch_dispatch_stack() > 0 or any(
        not isinstance(mode, DeviceContext) for mode in functions
    )


def _why_unfit(modules: list[torch.nn.Module]) -> str:
    """Why a model cannot be replayed now, or ""."""
    if torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks:
        return "there are hooks on all modules"
    for module in modules:
        if module.training:
            return "a module is in training mode"
        own = [
            hook
            for hook in module._forward_pre_hooks.values()
            if not is_weight_hook(hook)
        ]
        if own or module._forward_hooks:
            return f"a {type(module).__name__} has forward hooks"
    return ""


def _write_back(inputs: list[Any], given: list[Any]) -> None:
    for mine, theirs in zip(inputs, given, strict=True):
        if isinstance(mine, torch.Tensor):
            with torch.inference_mode(theirs.is_inference()), torch.no_grad():
                theirs.copy_(mine)


def _without_kept(output: Any, recording: _C.Recording) -> Any:
    """The output, without memory that is kept: its reader may write there."""

    def copied(leaf: Any) -> Any:
        held = isinstance(leaf, torch.Tensor) and recording.holds(leaf)
        return leaf.clone() if held else leaf

    return pytree.tree_map(copied, output)
