# SPDX-License-Identifier: BSD-3-Clause
"""Networks of the shape of ResNet-18 and MobileNetV2, with few channels."""

from __future__ import annotations

import torch
from torch import nn


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut; one ReLU module, used twice."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += identity
        return self.relu(y)


class ResNet18(nn.Module):
    """Input [n, 3, h, w], output [n, 4]."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        blocks = []
        inputs = width
        for stage in range(4):
            outputs = width << stage
            blocks.append(BasicBlock(inputs, outputs, 1 if stage == 0 else 2))
            blocks.append(BasicBlock(outputs, outputs, 1))
            inputs = outputs
        self.layers = nn.Sequential(*blocks)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.fc(torch.flatten(self.avgpool(self.layers(x)), 1))


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, projection; a shortcut where shapes allow."""

    def __init__(self, inputs: int, outputs: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = inputs * expand
        layers: list[nn.Module] = []
        if expand != 1:
            layers += _conv_bn_relu6(inputs, hidden, 1, 1, 1)
        layers += _conv_bn_relu6(hidden, hidden, 3, stride, hidden)
        layers += [nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
        self.conv = nn.Sequential(*layers)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x) if self.shortcut else self.conv(x)


class MobileNetV2(nn.Module):
    """Input [n, 3, h, w], output [n, 4]; 53 multiplying layers as the original."""

    # Expansion, outputs, repetitions, first stride.
    STAGES = ((1, 2, 1, 1), (6, 3, 2, 2), (6, 4, 3, 2), (6, 6, 4, 2))
    LATER_STAGES = ((6, 8, 3, 1), (6, 10, 3, 2), (6, 12, 1, 1))

    def __init__(self) -> None:
        super().__init__()
        layers = _conv_bn_relu6(3, 4, 3, 2, 1)
        inputs = 4
        for expand, outputs, count, first_stride in self.STAGES + self.LATER_STAGES:
            for index in range(count):
                stride = first_stride if index == 0 else 1
                layers.append(InvertedResidual(inputs, outputs, stride, expand))
                inputs = outputs
        layers += _conv_bn_relu6(inputs, 16, 1, 1, 1)
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(16, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.adaptive_avg_pool2d(self.features(x), (1, 1))
        return self.classifier(torch.flatten(x, 1))


def _conv_bn_relu6(
    inputs: int, outputs: int, size: int, stride: int, groups: int
) -> list[nn.Module]:
    conv = nn.Conv2d(
        inputs, outputs, size, stride, size // 2, groups=groups, bias=False
    )
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU6(inplace=True)]
