# SPDX-License-Identifier: BSD-3-Clause
"""Weights that a module computes from its parameters before each use: weight norm,
spectral norm, pruning, any parametrization.

What is computed is what the layer multiplies by, and is quantized like a parameter of
that name. How it is computed is not looked into.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.utils.parametrize import is_parametrized
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from aimetpp.nn.runtime import STATE, frame

# The child of a parametrized module that computes its weights.
PARAMETRIZATIONS = "parametrizations"


def _weight_of_hook(hook: Any) -> str | None:
    """The attribute that a forward pre-hook computes; None for any other hook."""
    if isinstance(hook, WeightNorm | SpectralNorm):
        return hook.name
    if isinstance(hook, BasePruningMethod):
        return hook._tensor_name
    return None


class _UnseenHook:
    """A hook of the kind above: the ops that it calls are no sites."""

    def __init__(self, hook: Any, weight: str) -> None:
        self.hook = hook
        self.weight = weight

    def __call__(self, module: torch.nn.Module, inputs: Any) -> Any:
        with frame(None):
            return self.hook(module, inputs)


def is_weight_hook(hook: Any) -> bool:
    """True for a hidden hook that computes a weight."""
    return isinstance(hook, _UnseenHook)


def hide_weight_hooks(module: torch.nn.Module) -> None:
    """Makes the ops of a module's weight-computing hooks invisible."""
    for key, hook in module._forward_pre_hooks.items():
        weight = _weight_of_hook(hook)
        if weight is not None:
            module._forward_pre_hooks[key] = _UnseenHook(hook, weight)


def restore_weight_hooks(module: torch.nn.Module) -> None:
    """Puts the module's own hooks back."""
    for key, hook in module._forward_pre_hooks.items():
        if isinstance(hook, _UnseenHook):
            module._forward_pre_hooks[key] = hook.hook


def computed_weights(module: torch.nn.Module) -> tuple[str, ...]:
    """Names of the weights that a module computes before each use."""
    names: list[str] = []
    for hook in module._forward_pre_hooks.values():
        name = hook.weight if isinstance(hook, _UnseenHook) else _weight_of_hook(hook)
        if name is not None:
            names.append(name)
    if is_parametrized(module):
        names += module._modules[PARAMETRIZATIONS]._modules  # type: ignore[union-attr]
    return tuple(names)


def weight_names(module: torch.nn.Module) -> tuple[str, ...]:
    """The parameters that a module uses as they are, and the weights it computes."""
    computed = computed_weights(module)
    sources = {f"{name}_{part}" for name in computed for part in ("g", "v", "orig")}
    own = [name for name in module._parameters if name not in sources]
    return (*own, *(name for name in computed if name not in own))


def weight_of(module: torch.nn.Module, name: str) -> torch.Tensor | None:
    """A parameter, or what a computed weight is with the parameters of now."""
    if name in module._parameters:
        return module._parameters[name]
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, _UnseenHook) and hook.weight == name:
            hook(module, ())
    weight: torch.Tensor = getattr(module, name)
    return weight


def detached_weights(model: torch.nn.Module) -> dict[int, torch.Tensor]:
    """By id, copies of the weights that hooks computed with gradients, which
    `copy.deepcopy` refuses: its memo for copying `model`.
    """
    copies: dict[int, torch.Tensor] = {}
    for module in model.modules():
        for name in computed_weights(module):
            weight = module.__dict__.get(name)
            if isinstance(weight, torch.Tensor) and weight.grad_fn is not None:
                copies[id(weight)] = weight.detach().clone()
    return copies


def computed_value(module: Any, name: str, original: Any) -> torch.Tensor:
    """The value of a computed weight that a quantized module, or another, asks for.

    Args:
        module: the quantized module.
        name: the weight.
        original: a parametrized class's own property of that name, else None.
    """
    if original is None:
        value = module.__dict__[name]
    else:
        with frame(None):
            value = original.__get__(module)
    if STATE.tracer is not None:
        value = STATE.tracer.computed_weight(module, name, value)
    return value
