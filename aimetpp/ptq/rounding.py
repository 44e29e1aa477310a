# SPDX-License-Identifier: BSD-3-Clause
"""AdaRound: Nagel et al. 2020, "Up or down? Adaptive rounding for post-training
quantization".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from tqdm import tqdm

from aimetpp import _C
from aimetpp.nn.calibration import calibrate_params
from aimetpp.ptq.layerwise import (
    QuantizedLayer,
    activations_off,
    first_of_each_weight,
    gather,
    quantized_layers,
    warn_of_functional_weights,
)
from aimetpp.ptq.samples import Samples
from aimetpp.quantization import QuantizeDequantize
from aimetpp.quantsim import QuantizationSimModel

# The sigmoid is stretched to [-0.1, 1.1] and cut to [0, 1], so that its ends are
# reached (section 3.2).
_LOW, _HIGH = -0.1, 1.1
_LEARNING_RATE = 1e-2
# Adam's, as PyTorch has them.
_DECAYS, _EPSILON = (0.9, 0.999), 1e-8
_SAMPLES_PER_STEP = 32
_ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "none": lambda x: x,
    "relu": F.relu,
    "relu6": F.relu6,
}


@dataclass(frozen=True)
class RoundingPlan:
    """How the rounding of one layer is optimized.

    Args:
        iterations: steps of Adam.
        regularization: weight of the term that drives each weight to either side.
        beta_range: first and last exponent of that term.
        warm_start: the part of the steps that go without it.
    """

    iterations: int
    regularization: float
    beta_range: tuple[float, float]
    warm_start: float

    def beta(self, step: int) -> float | None:
        """The exponent at a step; None during the warm start."""
        start = self.warm_start * self.iterations
        if step < start:
            return None
        first, last = self.beta_range
        done = (step - start) / (self.iterations - start)
        return last + (first - last) * (1 + math.cos(math.pi * done)) / 2


class SoftRounding:
    """A weight whose elements are each somewhere between the grid's two neighbours.

    Gradients and Adam's steps are written out: for the small weights of a layer, an
    autograd graph and an optimizer cost more than what they compute.
    """

    @torch.no_grad()
    def __init__(self, quantizer: QuantizeDequantize, weight: torch.Tensor) -> None:
        weight = weight.float()
        qmin, qmax = (float(end) for end in quantizer.grid)
        self._low = quantizer.grid_values(torch.full_like(weight, qmin))
        self._high = quantizer.grid_values(torch.full_like(weight, qmax))
        self._step = (self._high - self._low) / (qmax - qmin)
        steps = weight / self._step
        self._floor = steps.floor()
        # The position at which the weight is what it was.
        rest = ((steps - self._floor - _LOW) / (_HIGH - _LOW)).clamp(1e-4, 1 - 1e-4)
        self.position = torch.logit(rest)
        self._mean = torch.zeros_like(weight)  # of gradients, as Adam keeps it
        self._square = torch.zeros_like(weight)
        self._num_steps = 0

    def fraction(self) -> torch.Tensor:
        """How far each element is from the neighbour below to the one above, 0 to 1."""
        return self._stretched(torch.sigmoid(self.position)).clamp(0, 1)

    def _stretched(self, sigmoid: torch.Tensor) -> torch.Tensor:
        return sigmoid * (_HIGH - _LOW) + _LOW

    def weight(self, fraction: torch.Tensor) -> torch.Tensor:
        """The weight with elements at these fractions, within the grid's ends."""
        return ((self._floor + fraction) * self._step).clamp(self._low, self._high)

    @torch.no_grad()
    def descend(
        self, gradient: torch.Tensor, beta: float | None, regularization: float
    ) -> None:
        """A step of Adam down the loss and the term that makes decisions,
        regularization * sum(1 - |2 fraction - 1| ^ beta).

        Args:
            gradient: of the loss, to the weight.
            beta: None: without that term.
            regularization: its weight.
        """
        sigmoid = torch.sigmoid(self.position)
        stretched = self._stretched(sigmoid)
        fraction = stretched.clamp(0, 1)
        value = (self._floor + fraction) * self._step
        slope = gradient * self._step
        slope *= (value >= self._low) & (value <= self._high)
        if beta is not None:
            side = 2 * fraction - 1
            power = side.abs().pow_(beta - 1).copysign_(side)
            slope.add_(power, alpha=-2 * beta * regularization)
        slope *= (stretched >= 0) & (stretched <= 1)
        slope *= sigmoid.sub_(sigmoid.square()).mul_(_HIGH - _LOW)
        self._num_steps += 1
        first, second = (1 - decay**self._num_steps for decay in _DECAYS)
        self._mean.lerp_(slope, 1 - _DECAYS[0])
        self._square.mul_(_DECAYS[1]).addcmul_(slope, slope, value=1 - _DECAYS[1])
        size = self._square.sqrt().div_(math.sqrt(second)).add_(_EPSILON)
        self.position.addcdiv_(self._mean, size, value=-_LEARNING_RATE / first)


@torch.enable_grad()  # also where the caller has turned gradients off
def round_layer(
    layer: QuantizedLayer,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    activation: str,
    plan: RoundingPlan,
) -> torch.Tensor:
    """The layer's weight, each element rounded up or down such that the layer's outputs
    are nearest to the targets.

    Args:
        layer: of a simulation; not changed.
        inputs: what it gets there.
        targets: what it puts out in the float model.
        activation: "none", "relu" or "relu6", applied to both outputs before they are
            compared.
        plan: the optimization.
    """
    original = layer.layer.weight.detach()
    rounding = SoftRounding(layer.quantizer, original)
    activate = _ACTIVATIONS[activation]
    expected = activate(targets)
    weight = original.clone().requires_grad_()
    # Errors count per output channel and place, as the regularization per weight.
    channels = layer.layer.out_channels
    generator = torch.Generator().manual_seed(0)
    with layer.computing_with(weight) as compute:
        for step in range(plan.iterations):
            with torch.no_grad():
                weight.copy_(rounding.weight(rounding.fraction()))
            size = (_SAMPLES_PER_STEP,)
            chosen = torch.randint(len(inputs), size, generator=generator)
            got = activate(compute(inputs[chosen]))
            loss = F.mse_loss(got, expected[chosen]) * channels
            (gradient,) = torch.autograd.grad(loss, weight)
            rounding.descend(gradient.float(), plan.beta(step), plan.regularization)
    with torch.no_grad():
        decided = rounding.weight((rounding.fraction() >= 0.5).float())
        return layer.quantizer(
            decided.to(original)
        )  # to the last bit what the grid has


def round_weights(
    model: torch.nn.Module,
    sim: QuantizationSimModel,
    samples: Samples,
    plan: RoundingPlan,
) -> list[QuantizedLayer]:
    """Rounds the weights of a simulation layer by layer, in place: each layer sees what
    the rounded ones before it put out. Activations are not quantized meanwhile.

    Args:
        model: the float model that the simulation was made of.
        sim: its parameters are calibrated here.
        samples: the data.
        plan: how each layer is optimized.

    Returns:
        The layers, whose weights are now on their grids.
    """
    warn_of_functional_weights(sim, "apply_adaround")
    calibrate_params(sim.model)
    layers = first_of_each_weight(quantized_layers(sim))
    with activations_off(sim):
        for layer in tqdm(layers, desc="AdaRound", unit="layer", disable=None):
            inputs = gather(sim.model, layer, samples, "inputs")
            targets = gather(model, layer, samples, "outputs")
            activation = _C.following_activation(sim.graph, layer.layer.op).name
            rounded = round_layer(layer, inputs, targets, activation, plan)
            with torch.no_grad():
                layer.layer.weight.copy_(rounded)
    return layers
