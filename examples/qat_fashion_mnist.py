# SPDX-License-Identifier: BSD-3-Clause
"""Why quantization-aware training is needed, and how it is done.

A MobileNetV2-like net of 120,602 parameters on Fashion-MNIST, to run with 8-bit
activations and 4-bit weights, one range per tensor:

 1. train in float. At a high rate some channels in front of the depthwise layers fall
    silent, and their batch norms divide by the root of eps alone;
 2. fold the batch norms, as hardware does: the weights of these channels are then
    hundreds of times the others', a range that holds them has no steps left for the
    others, and the accuracy is that of guessing (Sheng et al., A Quantization-Friendly
    Separable Convolution for MobileNets, arXiv:1803.08607);
 3. equalize across layers, which gives all channels similar ranges: a start to train
    from;
 4. train weights and ranges through the quantizers.

    apt-get install dataset-fashion-mnist        # Debian; or four .gz files in --data
    python examples/qat_fashion_mnist.py --results-dir results

What it prints and how long it takes is in docs/qat.md. Writes float.pt, qat.pt
(state_dict and optimizer, for --resume), qat_accuracy.html, precision_profile.json, the
encodings and an ONNX file.
"""

from __future__ import annotations

import argparse
import copy
import gzip
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from bokeh.embed import file_html
from bokeh.plotting import figure
from bokeh.resources import INLINE
from torch import nn
from tqdm import tqdm

from aimetpp.batch_norm_fold import fold_all_batch_norms
from aimetpp.common.files import atomic_write
from aimetpp.cross_layer_equalization import equalize_model
from aimetpp.quantsim import QuantizationSimModel

BATCH_SIZE = 128
INPUT_SHAPE = (1, 1, 28, 28)
FLOAT_RATE = 1.0
# Of the same optimizer: a fifth of the mean of the float training's last epoch. Of that
# itself the loss jumps to 7 in the first ten steps, and may not come back.
QAT_RATE = 2e-3
RANGE_RATE = 2e-4
NUM_CALIBRATION = 1024
IMAGE_HEADER, LABEL_HEADER = 16, 8  # bytes


class Block(nn.Module):
    """Inverted residual: expand, depthwise, project."""

    def __init__(self, inputs: int, outputs: int, stride: int, expand: int = 4) -> None:
        super().__init__()
        hidden = inputs * expand
        self.expand = conv_bn_relu(inputs, hidden, 1)
        self.depthwise = conv_bn_relu(hidden, hidden, 3, stride, groups=hidden)
        self.project = nn.Sequential(
            nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        )
        self.is_residual = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.is_residual else y


def conv_bn_relu(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Bias-free convolution, batch norm, ReLU6."""
    return nn.Sequential(
        nn.Conv2d(
            inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False
        ),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(),
    )


class Net(nn.Module):
    """[N, 1, 28, 28] -> logits [N, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn_relu(1, 16, 3, stride=2)
        self.blocks = nn.Sequential(
            Block(16, 24, 1),
            Block(24, 24, 1),
            Block(24, 48, 2),
            Block(48, 48, 1),
            Block(48, 72, 1),
            Block(72, 72, 1),
        )
        self.head = conv_bn_relu(72, 128, 1)
        self.classifier = nn.Linear(128, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.head(self.blocks(self.stem(x)))
        return self.classifier(x.mean((2, 3)))


def load_images(folder: Path, part: str, count: int | None) -> list[torch.Tensor]:
    """[images of mean 0 and deviation 1, labels] of "train" or "t10k".

    Raises:
        FileNotFoundError: the data set is not there.
    """
    images = folder / f"{part}-images-idx3-ubyte.gz"
    labels = folder / f"{part}-labels-idx1-ubyte.gz"
    if not images.is_file() or not labels.is_file():
        raise FileNotFoundError(
            f"no {images.name} and {labels.name} in {folder}: install Debian's package "
            "dataset-fashion-mnist, or give their folder with --data"
        )
    pixels, classes = (
        np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, -1, header)
        for path, header in ((images, IMAGE_HEADER), (labels, LABEL_HEADER))
    )
    x = torch.from_numpy(pixels.reshape(-1, 1, 28, 28)[:count].astype(np.float32))
    y = torch.from_numpy(classes[:count].astype(np.int64))
    return [(x / 255 - 0.286) / 0.353, y]


def shuffled(data: list[torch.Tensor], seed: int) -> Iterator[list[torch.Tensor]]:
    """Batches in a new order, half of the images mirrored."""
    generator = torch.Generator().manual_seed(seed)
    images, labels = data
    for chosen in torch.randperm(len(images), generator=generator).split(BATCH_SIZE):
        batch = images[chosen]
        mirrored = torch.rand(len(batch), generator=generator) < 0.5
        batch = torch.where(mirrored[:, None, None, None], batch.flip(3), batch)
        yield [batch, labels[chosen]]


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    data: list[torch.Tensor],
    epoch: int,
    what: str,
) -> None:
    """One epoch, with a progress bar."""
    model.train()
    total = -(-len(data[0]) // BATCH_SIZE)
    with tqdm(
        total=total, desc=f"{what} epoch {epoch + 1}", leave=False, disable=None
    ) as bar:
        for images, labels in shuffled(data, seed=epoch):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
            schedule.step()
            bar.update()
            bar.set_postfix(loss=f"{loss.item():.3f}")


@torch.no_grad()
def accuracy(model: nn.Module, data: list[torch.Tensor]) -> float:
    """Share of images named right, 0 to 1."""
    model.eval()
    answers = [model(batch).argmax(1) for batch in data[0].split(1000)]
    return (torch.cat(answers) == data[1]).float().mean().item()


def float_model(folder: Path, data: list[torch.Tensor], epochs: int) -> nn.Module:
    """Trained here, or by an earlier run."""
    torch.manual_seed(0)
    model = Net().to(memory_format=torch.channels_last)  # the faster one on CPUs
    path = folder / "float.pt"
    if path.is_file():
        model.load_state_dict(torch.load(path, weights_only=True))
        return model.eval()
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=FLOAT_RATE,
        momentum=0.9,
        nesterov=True,
        weight_decay=4e-5,
    )
    steps = epochs * -(-len(data[0]) // BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for epoch in range(epochs):
        train(model, optimizer, schedule, data, epoch, "float")
    torch.save(model.state_dict(), path)
    return model.eval()


def simulate(
    model: nn.Module, images: torch.Tensor, learn: str = "min_max"
) -> QuantizationSimModel:
    """8-bit activations, 4-bit weights, one range per tensor, calibrated."""
    sim = QuantizationSimModel(
        model,
        images[:1],
        default_output_bw=8,
        default_param_bw=4,
        config_file="default_per_tensor",
    )
    sim.learn_ranges(activations=learn, params=learn)
    sim.compute_encodings(lambda quantized: quantized(images[:NUM_CALIBRATION]))
    return sim


def quantization_aware_training(
    sim: QuantizationSimModel,
    data: list[torch.Tensor],
    test: list[torch.Tensor],
    epochs: int,
    path: Path,
    resume: bool,
) -> list[float]:
    """Trains weights and ranges; the test accuracy after each epoch.

    The rate is divided by ten after half of the epochs. The state is saved after every
    epoch; a resumed run goes on as if it had never stopped.
    """
    optimizer = torch.optim.SGD(
        [
            {"params": list(sim.model_parameters()), "lr": QAT_RATE},
            {"params": list(sim.quantizer_parameters()), "lr": RANGE_RATE},
        ],
        momentum=0.9,
        nesterov=True,
    )
    half = -(-epochs // 2) * -(-len(data[0]) // BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, half, gamma=0.1)
    scores: list[float] = []
    if resume:
        state = torch.load(path, weights_only=True)
        sim.model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        scores = state["scores"]
    for epoch in range(len(scores), epochs):
        train(sim.model, optimizer, schedule, data, epoch, "QAT")
        scores.append(accuracy(sim.model, test))
        print(f"QAT epoch {epoch + 1}: {scores[-1]:.2%}")
        torch.save(
            {
                "model": sim.model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "schedule": schedule.state_dict(),
                "scores": scores,
            },
            path,
        )
    return scores


def plot(path: Path, floating: float, folded: float, scores: list[float]) -> None:
    """The accuracy before training and by epoch, as a page that needs no network."""
    chart = figure(
        title="Quantization-aware training, A8W4 per tensor",
        x_axis_label="epoch",
        y_axis_label="test accuracy",
        y_range=(0, 1),
        height=420,
        sizing_mode="stretch_width",
    )
    epochs = list(range(len(scores)))
    chart.line(epochs, scores, line_width=2, legend_label="equalized, then trained")
    chart.scatter(epochs, scores, size=7)
    for value, dash, label in (
        (floating, "dashed", "float"),
        (folded, "dotted", "folded, calibrated"),
    ):
        ends = [0, epochs[-1]]
        chart.line(ends, [value] * 2, color="black", line_dash=dash, legend_label=label)
    chart.legend.location = "bottom_right"
    atomic_write(path, file_html(chart, INLINE, "Quantization-aware training"))


def parse_arguments() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", default="/usr/share/datasets/fashion-mnist")
    parser.add_argument("--results-dir", default="qat_results")
    parser.add_argument("--float-epochs", type=int, default=8)
    parser.add_argument("--qat-epochs", type=int, default=2)
    parser.add_argument("--train-images", type=int, help="use only the first so many")
    parser.add_argument("--test-images", type=int, help="use only the first so many")
    parser.add_argument("--learn", choices=["min_max", "scale"], default="min_max")
    parser.add_argument("--resume", action="store_true", help="go on with qat.pt")
    return parser.parse_args()


def main() -> int:
    """Runs it all; 0."""
    arguments = parse_arguments()
    data, folder = Path(arguments.data), Path(arguments.results_dir)
    training = load_images(data, "train", arguments.train_images)
    test = load_images(data, "t10k", arguments.test_images)
    folder.mkdir(parents=True, exist_ok=True)

    model = float_model(folder, training, arguments.float_epochs)
    floating = accuracy(model, test)
    parameters = sum(p.numel() for p in model.parameters())
    print(f"float: {floating:.2%}, {parameters} parameters")

    folded = copy.deepcopy(model)
    fold_all_batch_norms(folded, INPUT_SHAPE)
    collapsed = accuracy(simulate(folded, training[0]).model, test)
    print(f"A8W4, folded and calibrated: {collapsed:.2%}")

    equalize_model(model, INPUT_SHAPE)
    sim = simulate(model, training[0], arguments.learn)
    equalized = accuracy(sim.model, test)
    print(f"A8W4, equalized and calibrated: {equalized:.2%}")

    scores = quantization_aware_training(
        sim, training, test, arguments.qat_epochs, folder / "qat.pt", arguments.resume
    )
    plot(folder / "qat_accuracy.html", floating, collapsed, [equalized, *scores])
    if floating > collapsed:
        share = (scores[-1] - collapsed) / (floating - collapsed)
        print(f"A8W4 after QAT: {scores[-1]:.2%}, {share:.0%} of the drop won back")

    sim.model.eval()
    sim.save_precision_profile(folder / "precision_profile.json")
    sim.export(folder, "fashion_mnist", training[0][:1], dynamic_batch=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
