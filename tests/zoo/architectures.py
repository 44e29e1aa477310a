# SPDX-License-Identifier: BSD-3-Clause
"""The models of the zoo: random weights, small inputs, nothing downloaded.

Each entry of ARCHITECTURES makes (model in eval mode, example input). Their
classifiers have ten classes where the package lets one choose.
"""

import math
from typing import Any

import custom_models
import timm_models
import torch
import torchvision_models
import transformers_models
from torch import nn
from torch.utils import _pytree as pytree
from zoo_entries import Entries, Example

ARCHITECTURES = Entries(
    torchvision_models.ENTRIES
    | timm_models.ENTRIES
    | transformers_models.ENTRIES
    | custom_models.ENTRIES
)


def run(model: nn.Module, example: Any) -> Any:
    """One forward without gradients, a dict's entries as keyword arguments."""
    with torch.no_grad():
        return model(**example) if isinstance(example, dict) else model(example)


def sqnr(expected: Any, got: Any) -> float:
    """Signal power over noise power of all floating tensors in a nested result, in dB.

    Raises:
        AssertionError: they are not as many, or not all finite.
    """
    signal = noise = 0.0
    pairs = zip(pytree.tree_leaves(expected), pytree.tree_leaves(got), strict=True)
    for x, y in pairs:
        if isinstance(x, torch.Tensor) and x.is_floating_point():
            assert y.isfinite().all() and x.any()
            signal += x.double().square().sum().item()
            noise += (x.double() - y.double()).square().sum().item()
    return 10 * math.log10(signal / noise) if noise else math.inf


def _follow_input(norm: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
    norm.running_mean.fill_(args[0].mean())
    norm.running_var.fill_(args[0].var())


def make(name: str) -> Example:
    """The named model in eval mode and its input, the same on every call.

    Before training, activations vanish in some models before they reach the output.
    So every batch norm gets the mean and variance of all it reads (per channel, a few
    small images would make the model amplify all noise), and a classifier of zeros
    gets random weights.
    """
    torch.manual_seed(0)
    model, example = ARCHITECTURES[name]()
    model.eval()
    for parameter in model.parameters():
        if parameter.dim() > 1 and not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    hooks = [
        module.register_forward_pre_hook(_follow_input)
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
    ]
    if hooks:
        run(model, example)
    for hook in hooks:
        hook.remove()
    return model, example
