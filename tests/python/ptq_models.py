# SPDX-License-Identifier: BSD-3-Clause
"""Small nets with batch norms whose statistics are not trivial."""

import copy
import functools

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from aimetpp.demo.digits import Digits, load_digits
from aimetpp.quantsim import QuantizationSimModel


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


class MobileDigits(nn.Module):
    """A small MobileNet for 8x8 images: depthwise and pointwise convolutions, ReLU6."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()

        def block(inputs, outputs, groups=1, kernel=3):
            conv = nn.Conv2d(
                inputs, outputs, kernel, padding="same", groups=groups, bias=False
            )
            return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU6())

        c = channels
        self.stem = block(1, c)
        self.depthwise1, self.pointwise1 = block(c, c, groups=c), block(c, c, kernel=1)
        self.pool = nn.MaxPool2d(2)
        self.depthwise2, self.pointwise2 = block(c, c, groups=c), block(c, c, kernel=1)
        self.fc = nn.Linear(c, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(self.pointwise1(self.depthwise1(self.stem(x))))
        x = self.pointwise2(self.depthwise2(x))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


@functools.cache
def digits() -> Digits:
    return load_digits()


@functools.cache
def _trained() -> MobileDigits:
    torch.manual_seed(0)
    data, model = digits(), MobileDigits()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    batch, epochs = 64, 25
    steps = epochs * -(-len(data.train_images) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
    for _ in range(epochs):
        for chosen in torch.randperm(len(data.train_images)).split(batch):
            optimizer.zero_grad()
            logits = model(data.train_images[chosen])
            F.cross_entropy(logits, data.train_labels[chosen]).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def trained_digits() -> MobileDigits:
    """A copy of one trained net; accuracy about 96 % on 597 test images."""
    return copied(_trained())


def simulated(model: nn.Module, **options) -> QuantizationSimModel:
    """A simulation calibrated with training images."""
    data = digits()
    sim = QuantizationSimModel(model, data.train_images[:1], **options)
    sim.compute_encodings(lambda m: m(data.train_images[:256]))
    return sim


@torch.no_grad()
def sqnr(model: nn.Module, quantized: nn.Module) -> float:
    """Of the logits of the test images, in dB."""
    images = digits().test_images
    expected = model(images)
    noise = quantized(images) - expected
    return (10 * torch.log10(expected.square().sum() / noise.square().sum())).item()
