# SPDX-License-Identifier: BSD-3-Clause
"""Running a model without changing it, and where it runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from aimetpp import _C


@contextlib.contextmanager
def eval_mode(model: Any) -> Iterator[None]:
    """Eval mode; each module's training flag is put back.

    Nothing, where the model is no module of PyTorch.
    """
    if not isinstance(model, torch.nn.Module):
        yield
        return
    training = _C.modules_in_training(model)
    if training:
        model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextlib.contextmanager
def inference(model: Any) -> Iterator[None]:
    """Eval mode and no gradients; each module's training flag is put back.

    Nothing, where the model is no module of PyTorch.
    """
    if not isinstance(model, torch.nn.Module):
        yield
        return
    with eval_mode(model), torch.no_grad():
        yield


@contextlib.contextmanager
def tensors_alone_in_state(model: torch.nn.Module) -> Iterator[None]:
    """Within the context the model's state_dict leaves out what modules put in by
    `get_extra_state`: PyTorch's tracer takes tensors alone.
    """
    own = model.__dict__.get("state_dict")

    def state_dict(*args: Any, **kwargs: Any) -> dict[str, Any]:
        state: dict[str, Any] = (own or type(model).state_dict.__get__(model))(
            *args, **kwargs
        )
        for name, value in list(state.items()):
            if not isinstance(value, torch.Tensor):
                del state[name]
        return state

    model.__dict__["state_dict"] = state_dict
    try:
        yield
    finally:
        if own is None:
            del model.__dict__["state_dict"]
        else:
            model.__dict__["state_dict"] = own


def device_of(model: Any) -> torch.device:
    """Where a model's first parameter lies; the CPU, where it has none or is no module
    of PyTorch.
    """
    if not isinstance(model, torch.nn.Module):
        return torch.device("cpu")
    return next((p.device for p in model.parameters()), torch.device("cpu"))
