# SPDX-License-Identifier: BSD-3-Clause
"""Small nets with batch norms whose statistics are not trivial."""

import copy

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def with_statistics(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model in eval mode, as if its batch norms had been trained."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, _BatchNorm) and module.running_mean is not None:
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            if module.affine:
                with torch.no_grad():
                    # Of either sign.
                    module.weight.normal_(generator=generator)
                    module.bias.normal_(generator=generator)
    return model.eval()


@torch.no_grad()
def relative_change(
    before: nn.Module, after: nn.Module, *inputs: torch.Tensor
) -> float:
    """Largest difference of the outputs, relative to the largest output."""
    expected, got = before.double()(*inputs), after.double()(*inputs)
    return ((expected - got).abs().max() / expected.abs().max()).item()


def copied(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model)


def num_batch_norms(model: nn.Module) -> int:
    return sum(isinstance(module, _BatchNorm) for module in model.modules())
