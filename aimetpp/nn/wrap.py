# SPDX-License-Identifier: BSD-3-Clause
"""Quantized modules: the user's own modules, given a subclass of their class.

A leaf keeps its parameters, its state_dict keys and its identity as an instance of
its original class, and gains `input_quantizers`, `output_quantizers` (ModuleList)
and `param_quantizers` (ModuleDict), whose entries may be None. No class needs to
be registered. A module with children that calls functional ops gains
`functional_quantizers` (ModuleDict).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch

from aimetpp import _C
from aimetpp.nn.computed import (
    PARAMETRIZATIONS,
    computed_value,
    computed_weights,
    hide_weight_hooks,
    restore_weight_hooks,
)
from aimetpp.nn.integer_bias import IntegerBias, what_quantizes
from aimetpp.nn.off_path import called_alone, report_untraced
from aimetpp.nn.runtime import (
    STATE,
    ModuleRecord,
    frame,
    in_turn,
    is_eager,
    quantize_results,
    run_quantized,
)

_ITERATED = (torch.nn.Sequential, torch.nn.ModuleList, torch.nn.ModuleDict)
_LEAF_CLASSES: dict[type, type] = {}
_FRAME_CLASSES: dict[type, Any] = {}
# Forwards that only clamp: C++ runs them together with the quantizer behind them.
_CLAMPS = {torch.nn.ReLU.forward: "relu", torch.nn.Hardtanh.forward: "hardtanh"}


class BaseQuantizationMixin(torch.nn.Module):
    """Mixin of every quantized module."""

    _aimetpp: ModuleRecord
    functional_quantizers: torch.nn.ModuleDict

    def __reduce_ex__(self, protocol: Any) -> Any:
        # The class is made at run time: name the original one instead.
        cls = type(self)
        kind = "leaf" if issubclass(cls, QuantizationMixin) else "frame"
        params = self.__dict__["_parameters"] if kind == "leaf" else ()
        names = (*params, *self._aimetpp.computed)
        # Recurrent layers leave out what cannot be pickled. (Python 3.10's object
        # has no __getstate__.)
        getstate = getattr(self, "__getstate__", None)
        state = self.__dict__ if getstate is None else getstate()
        return _rebuild, (cls.__mro__[1], kind, names), state

    def get_original_module(self) -> torch.nn.Module:
        """The module as it was, sharing parameters and children with this one."""
        original_class: Any = type(self).__mro__[1]
        module = original_class.__new__(original_class)
        module.__dict__ = self.__dict__.copy()
        module._modules = {
            name: child
            for name, child in module._modules.items()
            if name not in QUANTIZER_CONTAINERS
        }
        del module.__dict__["_aimetpp"]
        return module


QUANTIZER_CONTAINERS = frozenset(
    (
        "input_quantizers",
        "output_quantizers",
        "param_quantizers",
        "functional_quantizers",
        "bias_rounding",
    )
)


class QuantizationMixin(BaseQuantizationMixin):
    """Mixin of a quantized leaf module."""

    input_quantizers: torch.nn.ModuleList
    output_quantizers: torch.nn.ModuleList
    param_quantizers: torch.nn.ModuleDict
    # Where there are any: IntegerBias by parameter, for those without a quantizer.
    bias_rounding: torch.nn.ModuleDict


def _rebuild(original_class: Any, kind: str, params: tuple[str, ...]) -> Any:
    made = _frame_class if kind == "frame" else _leaf_class
    cls = _with_param_properties(made(original_class), params)
    return cls.__new__(cls)


def is_leaf(module: torch.nn.Module, name: str) -> bool:
    """True for a module whose calls are sites: no children, not a container, not
    Identity (which has nothing to quantize). A model that is one user-written
    module without children is not a leaf: what it computes is what there is.
    """
    if isinstance(module, (*_ITERATED, torch.nn.Identity)):
        return False
    if name == "" and not type(module).__module__.startswith("torch.nn."):
        return False
    return all(child == PARAMETRIZATIONS for child in module._modules)


def _param_property(name: str, original: Any) -> property:
    """A parameter, or a weight computed from some, that is quantized while its module's
    forward runs, and is itself at all other times.

    Args:
        name: the attribute.
        original: a parametrized class's own property of that name, else None.
    """

    def get(self: Any) -> Any:
        if name in self._parameters:
            parameter = self._parameters[name]
        elif name in self._aimetpp.computed:
            parameter = computed_value(self, name, original)
        elif name in self.__dict__:  # a parameter of another instance of the class
            return self.__dict__[name]
        else:
            raise AttributeError(name)
        if parameter is None or not self.__dict__.get("_aimetpp_running"):
            return parameter
        if STATE.tracer is not None:
            return STATE.tracer.param(self, name, parameter)
        quantizer = what_quantizes(self, name)
        if quantizer is None:
            return parameter
        is_parameter = name in self._parameters
        if is_eager() and is_parameter and name not in self._aimetpp.written:
            return self._aimetpp.weights.get(name, quantizer, parameter)
        return quantizer(parameter)

    def set_plain(self: Any, value: Any) -> None:
        if original is not None:
            original.__set__(self, value)
        else:
            self.__dict__[name] = value

    return property(get, set_plain)


def _flat_weights_property() -> property:
    """Recurrent layers read their parameters from this list, not by name."""

    def get(self: Any) -> Any:
        if not self.__dict__.get("_aimetpp_running"):
            return self.__dict__["_flat_weights"]
        return [getattr(self, name) for name in self._flat_weights_names]

    def set_plain(self: Any, value: Any) -> None:
        # A forward that finds other weights than the last one did stores them: the
        # quantized ones must not stay behind.
        if not self.__dict__.get("_aimetpp_running"):
            self.__dict__["_flat_weights"] = value

    return property(get, set_plain)


def _leaf_forward(self: Any, *args: Any, **kwargs: Any) -> Any:
    self.__dict__["_aimetpp_running"] = True
    try:
        return self._aimetpp_original_forward(*args, **kwargs)
    finally:
        self.__dict__["_aimetpp_running"] = False


@in_turn
def _quantized_leaf_forward(self: Any, *args: Any, **kwargs: Any) -> Any:
    if is_eager():
        call = _call_ordinal(self._aimetpp)
        compute = functools.partial(
            _C.leaf_call, self, args, kwargs, call, STATE.frames, STATE.mode
        )
        if STATE.playback is None:
            return compute()
        key = (self._aimetpp.name, "", call)
        return STATE.playback.call(key, args, kwargs, compute, self)
    if STATE.tracer is not None:
        with frame(None):
            return STATE.tracer.leaf_call(self, _leaf_forward, args, kwargs)
    return _leaf_call(self, args, kwargs, _call_ordinal(self._aimetpp))


def _leaf_call(self: Any, args: Any, kwargs: Any, call: int) -> Any:
    """One call of a leaf, in Python: what _C.leaf_call does for an eager forward."""
    record: ModuleRecord = self._aimetpp
    first_in, first_out = call * record.num_inputs, call * record.num_outputs
    inputs = list(self._modules["input_quantizers"]._modules.values())
    outputs = list(self._modules["output_quantizers"]._modules.values())
    with frame(None):
        return run_quantized(
            functools.partial(_leaf_forward, self),
            args,
            kwargs,
            inputs[first_in : first_in + record.num_inputs],
            outputs[first_out : first_out + record.num_outputs],
            record.overwrites,
        )


_C.register_run_time(run_quantized, quantize_results, _leaf_call)


def _call_ordinal(record: ModuleRecord) -> int:
    """Which call of the module in this forward it is; at least as many as were traced
    for one that was not, whose inputs and results have no quantizers.
    """
    if STATE.context is None:
        if record.num_calls > 1:
            raise called_alone(record, record.num_calls)
        return 0
    call = STATE.context.next(record.name, "")
    if call >= record.num_calls:
        report_untraced(record, f"module {record.name!r}", call, record.num_calls)
    return call


def _run_frame(self: Any, *args: Any, **kwargs: Any) -> Any:
    with frame(self):
        return self._aimetpp_original_forward(*args, **kwargs)


def _run_iterating_frame(self: Any, *args: Any, **kwargs: Any) -> Any:
    # Forwards of Sequential, ModuleList and ModuleDict subclasses run over their
    # children: the quantizers must not be among them meanwhile.
    held = self._modules.pop("functional_quantizers", None)
    try:
        return _run_frame(self, *args, **kwargs)
    finally:
        if held is not None:
            self._modules["functional_quantizers"] = held


def _frame_forward(cls: Any) -> Callable[..., Any]:
    """The forward of frames of a class; an outermost one may be replayed."""
    run = _run_iterating_frame if issubclass(cls, _ITERATED) else _run_frame

    @in_turn
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        if STATE.replay is not None and not STATE.frames and is_eager():
            return STATE.replay.forward(self, run, args, kwargs)
        return run(self, *args, **kwargs)

    return forward


def _leaf_class(cls: Any) -> Any:
    if cls not in _LEAF_CLASSES:
        _LEAF_CLASSES[cls] = type(
            f"Quantized{cls.__name__}",
            (cls, QuantizationMixin),
            {
                "forward": _quantized_leaf_forward,
                "_aimetpp_original_forward": cls.forward,
                "_aimetpp_clamps": _CLAMPS.get(cls.forward),
                "__module__": __name__,
                "__reduce_ex__": BaseQuantizationMixin.__reduce_ex__,
            },
        )
    return _LEAF_CLASSES[cls]


def _no_fused_path_property() -> property:
    """nn.TransformerEncoderLayer reads it only to choose its fused path, in which no
    op is seen and nothing quantized: 0 is "an activation without a fused path".
    """

    def set_plain(self: Any, value: Any) -> None:
        self.__dict__["activation_relu_or_gelu"] = value

    return property(lambda self: 0, set_plain)


def _frame_class(cls: Any) -> Any:
    if cls not in _FRAME_CLASSES:
        _FRAME_CLASSES[cls] = type(
            cls.__name__,
            (cls, BaseQuantizationMixin),
            {
                "forward": _frame_forward(cls),
                "_aimetpp_original_forward": cls.forward,
                "__module__": cls.__module__,
                "__reduce_ex__": BaseQuantizationMixin.__reduce_ex__,
            },
        )
        if issubclass(cls, torch.nn.TransformerEncoderLayer):
            _FRAME_CLASSES[cls].activation_relu_or_gelu = _no_fused_path_property()
            _add_unused_properties(_FRAME_CLASSES[cls], ("activation_relu_or_gelu",))
    return _FRAME_CLASSES[cls]


def _with_param_properties(cls: Any, names: tuple[str, ...]) -> Any:
    for name in names:
        if name not in cls.__dict__:
            original = getattr(cls, name, None)
            own = original if isinstance(original, property) else None
            setattr(cls, name, _param_property(name, own))
    if issubclass(cls, torch.nn.RNNBase):
        cls._flat_weights = _flat_weights_property()
        names = (*names, "_flat_weights")
    _add_unused_properties(cls, names)
    return cls


def _add_unused_properties(cls: Any, names: tuple[str, ...]) -> None:
    # TorchScript would try to compile properties of a traced module.
    unused = set(getattr(cls, "__jit_unused_properties__", ())) | set(names)
    cls.__jit_unused_properties__ = sorted(unused)


def may_call_functional_ops(module: torch.nn.Module) -> bool:
    """False for containers that have no forward of their own."""
    forward = type(module).forward
    return forward not in (torch.nn.Module.forward, torch.nn.Sequential.forward)


def _kept_weights(model: torch.nn.Module) -> Iterator[_C.WeightCache]:
    for module in model.modules():
        if isinstance(module, QuantizationMixin):
            yield module._aimetpp.weights
        elif isinstance(module, IntegerBias):
            yield module.kept


def kept_weight_bytes(model: torch.nn.Module) -> int:
    """Bytes of quantized parameters that are kept for the next forward."""
    return sum(weights.bytes for weights in _kept_weights(model))


def release_kept_weights(model: torch.nn.Module) -> None:
    """Frees them; the next forward without gradients makes them again."""
    for weights in _kept_weights(model):
        weights.clear()


def wrap_leaf(module: torch.nn.Module, name: str) -> None:
    """Turns `module` into a quantized leaf, in place, with empty slots."""
    _wrap(module, name, _leaf_class(type(module)), tuple(module._parameters))
    module.input_quantizers = torch.nn.ModuleList()
    module.output_quantizers = torch.nn.ModuleList()
    module.param_quantizers = torch.nn.ModuleDict()


def wrap_frame(module: torch.nn.Module, name: str) -> None:
    """Makes `module`'s forward a frame in which functional ops are seen."""
    _wrap(module, name, _frame_class(type(module)), ())


def _wrap(module: Any, name: str, cls: Any, params: tuple[str, ...]) -> None:
    computed = computed_weights(module)
    hide_weight_hooks(module)
    module.__dict__["_aimetpp"] = ModuleRecord(name, computed=computed)
    module.__class__ = _with_param_properties(cls, (*params, *computed))


def unwrap(module: torch.nn.Module) -> None:
    """Gives a wrapped module its own class back, in place."""
    assert isinstance(module, BaseQuantizationMixin)
    module.__class__ = type(module).__mro__[1]
    restore_weight_hooks(module)
    del module.__dict__["_aimetpp"]
    module.__dict__.pop("_aimetpp_running", None)
    for name in QUANTIZER_CONTAINERS:
        module._modules.pop(name, None)


def unwrap_all(model: torch.nn.Module) -> None:
    """Gives every wrapped module of `model` its own class back, in place."""
    for module in list(model.modules()):
        if isinstance(module, BaseQuantizationMixin):
            unwrap(module)


def become_identity(module: QuantizationMixin) -> None:
    """Makes a quantized leaf pass its input through, in place, to its own output
    quantizers; its parameters and buffers are gone.
    """
    module.__class__ = _leaf_class(torch.nn.Identity)
    module._parameters.clear()
    module._buffers.clear()
    module.param_quantizers.clear()
