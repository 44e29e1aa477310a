# SPDX-License-Identifier: BSD-3-Clause
"""The demo's data and model: scikit-learn's digits and a small CNN."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

NUM_TRAIN = 1200
CHANNELS = 8
# A net that is 97 % right and loses 8 points with 4-bit weights, so that there is
# something to search; with other seeds it is 94 to 97 % and 0 to 14 points.
DEFAULT_SEED = 2
EPOCHS = 30
FINE_TUNE_EPOCHS = 8
_BATCH_SIZE = 64
_LEARNING_RATE = 3e-3
_FINE_TUNE_RATE = 2e-4
_TEMPERATURE = 2.0


@dataclass(frozen=True)
class Digits:
    """Grey images [N, 1, 8, 8] in [0, 1] and their labels [N]."""

    train_images: torch.Tensor
    train_labels: torch.Tensor
    test_images: torch.Tensor
    test_labels: torch.Tensor

    @property
    def points_per_image(self) -> float:
        """What one test image is worth, in points (percent) of accuracy."""
        return 100 / len(self.test_labels)


def load_digits() -> Digits:
    """1200 images to train and 597 to test, in the data set's own order.

    The writers of the last images are not those of the first.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed; the message says how.
    """
    try:
        from sklearn import datasets
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the demo takes its images from scikit-learn, which is not installed: "
            "pip install scikit-learn",
            name=error.name,
        ) from error
    raw = datasets.load_digits()
    images = torch.tensor(raw.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(raw.target)
    return Digits(
        images[:NUM_TRAIN], labels[:NUM_TRAIN], images[NUM_TRAIN:], labels[NUM_TRAIN:]
    )


class DigitsNet(nn.Module):
    """A residual block, a depthwise convolution, two branches, two linear layers."""

    def __init__(self, channels: int = CHANNELS) -> None:
        super().__init__()
        c = channels
        self.stem = nn.Conv2d(1, c, 3, padding=1, bias=False)
        self.stem_bn = nn.BatchNorm2d(c)
        self.conv1 = nn.Conv2d(c, c, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(c)
        self.conv2 = nn.Conv2d(c, c, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(c)
        self.depthwise = nn.Conv2d(c, c, 3, padding=1, groups=c, bias=False)
        self.depthwise_bn = nn.BatchNorm2d(c)
        self.left = nn.Conv2d(c, c, 1)
        self.right = nn.Conv2d(c, c, 3, padding=1)
        self.fc1 = nn.Linear(2 * c * 2 * 2, 4 * c)
        self.fc2 = nn.Linear(4 * c, 10)
        self.stem_relu, self.relu1, self.add_relu = nn.ReLU(), nn.ReLU(), nn.ReLU()
        self.depthwise_relu, self.cat_relu = nn.ReLU(), nn.ReLU()
        self.fc1_relu = nn.ReLU()
        self.max_pool, self.avg_pool = nn.MaxPool2d(2), nn.AvgPool2d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, 1, 8, 8] -> logits [N, 10]."""
        x = self.stem_relu(self.stem_bn(self.stem(x)))
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        x = self.max_pool(self.add_relu(x + y))
        x = self.depthwise_relu(self.depthwise_bn(self.depthwise(x)))
        x = self.cat_relu(torch.cat([self.left(x), self.right(x)], dim=1))
        x = torch.flatten(self.avg_pool(x), 1)
        return self.fc2(self.fc1_relu(self.fc1(x)))


def train_float(data: Digits, seed: int) -> DigitsNet:
    """Trains from scratch; the same seed gives the same net on the same machine."""
    torch.manual_seed(seed)
    model = DigitsNet()
    steps = EPOCHS * -(-NUM_TRAIN // _BATCH_SIZE)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=_LEARNING_RATE, weight_decay=1e-4
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=_LEARNING_RATE, total_steps=steps
    )
    generator = torch.Generator().manual_seed(seed)
    model.train()
    for _ in range(EPOCHS):
        for batch in torch.randperm(NUM_TRAIN, generator=generator).split(_BATCH_SIZE):
            optimizer.zero_grad()
            logits = model(data.train_images[batch])
            F.cross_entropy(logits, data.train_labels[batch]).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def fine_tune(
    model: nn.Module,
    teacher: torch.Tensor,
    data: Digits,
    seed: int,
    epochs: int | None = None,
    rate: float = _FINE_TUNE_RATE,
) -> None:
    """QAT: trains a simulation's model, weights and ranges, in place.

    The targets are the float model's softened answers: the labels are all learnt
    already, and say less about each image (Hinton et al. 2015). Batch norm keeps
    its statistics, which a few epochs at a small rate hardly move.

    Args:
        model: the simulation's model.
        teacher: logits of the float model for the training images. [1200, 10]
        data: images.
        seed: of the order of the images.
        epochs: None: FINE_TUNE_EPOCHS.
        rate: of learning, at the start.
    """
    epochs = FINE_TUNE_EPOCHS if epochs is None else epochs
    soft_targets = F.log_softmax(teacher / _TEMPERATURE, dim=1)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=rate)
    steps = epochs * -(-NUM_TRAIN // _BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(seed)
    model.eval()
    for _ in range(epochs):
        for batch in torch.randperm(NUM_TRAIN, generator=generator).split(_BATCH_SIZE):
            optimizer.zero_grad()
            logits = model(data.train_images[batch])
            answers = F.log_softmax(logits / _TEMPERATURE, dim=1)
            loss = F.kl_div(
                answers, soft_targets[batch], reduction="batchmean", log_target=True
            )
            (loss * _TEMPERATURE**2).backward()
            optimizer.step()
            schedule.step()


@torch.no_grad()
def correct_answers(model: nn.Module, data: Digits) -> torch.Tensor:
    """For each test image, whether the model names it right. Bool [597]."""
    return model(data.test_images).argmax(1) == data.test_labels


def accuracy(model: nn.Module, data: Digits) -> float:
    """Share of test images that the model names right, 0 to 1."""
    return correct_answers(model, data).float().mean().item()
