# SPDX-License-Identifier: BSD-3-Clause
"""What training changes of a quantizer's range, and by what."""

from __future__ import annotations

import torch

from aimetpp.quantization.base import QuantizerBase

# What changes a range while training; None leaves it as it is.
LEARNING = ("min_max", "scale", "moving_average", None)

DEFAULT_MOMENTUM = 0.01


class LearnableRange(QuantizerBase):
    """A range [min, max] and how training changes it.

    "min_max": both ends are parameters of their own (range learning; Jain et al.,
    Trained Quantization Thresholds, arXiv:1903.08066).

    "scale": the step of the grid is what is learnt, zero stays the integer that it
    is, and the gradient is multiplied by 1 / sqrt(elements * largest integer of the
    grid), so that scales learn at the pace of weights (Esser et al., Learned Step
    Size Quantization, arXiv:1902.08153). The parameters are still `min` and `max`,
    which get opposite gradients: a step of plain gradient descent at rate r changes
    the scale by r times that product.

    "moving_average": the range follows the data, not the loss. Each forward in
    training mode moves both ends by `momentum` of their distance to the range of what
    it quantizes (Jacob et al., Quantization and Training of Neural Networks for
    Efficient Integer-Arithmetic-Only Inference, arXiv:1712.05877, section 3.1), which
    is quantized with the range from before: one read of the tensor does both.
    """

    min: torch.nn.Parameter
    max: torch.nn.Parameter
    grid: torch.Tensor
    # With "scale": the grid's offset, of `min`'s shape, saved with the model.
    fixed_offset: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self._learns: str | None = "min_max"
        self._samples_first = False
        self._momentum = DEFAULT_MOMENTUM

    @property
    def learns(self) -> str | None:
        """What training changes: "min_max", "scale", "moving_average" or None."""
        return self._learns

    @property
    def has_learnable_range(self) -> bool:
        """Whether `min` and `max` are to be trained, unless somebody froze them."""
        return self._learns in ("min_max", "scale")

    def learn(
        self,
        what: str | None,
        samples_first: bool = False,
        momentum: float = DEFAULT_MOMENTUM,
    ) -> None:
        """Chooses what training changes of the range.

        Call it before the optimizer is made, and, where a state is loaded, before
        that. The range itself stays as it is.

        Args:
            what: "min_max", "scale", "moving_average" (of one range for the whole
                tensor) or None.
            samples_first: the first dimension of the tensors that it quantizes counts
                samples, which the gradient of a scale is not divided by.
            momentum: of a moving average, above 0 and at most 1.

        Raises:
            ValueError: something else.
        """
        if not 0 < momentum <= 1:
            raise ValueError(
                f"learn: momentum must be above 0 and at most 1, got {momentum}"
            )
        self.require_learnable(what)
        if self._learns == "scale":
            low, high = self.ends()
            with torch.no_grad():
                self.min.copy_(low)
                self.max.copy_(high)
            del self.fixed_offset
        self._learns = what
        self._samples_first = samples_first
        self._momentum = momentum
        for end in (self.min, self.max):
            end.requires_grad_(self.has_learnable_range)
        if what == "scale":
            nan = torch.full_like(self.min.detach(), float("nan"))
            self.register_buffer("fixed_offset", nan)
            self._fix_offset()

    def require_learnable(self, what: str | None) -> None:
        """Raises ValueError where training cannot change the range so."""
        if what not in LEARNING:
            raise ValueError(f"learn: one of {LEARNING} is required, got {what!r}")
        if what == "moving_average" and self.min.dim() > 0:
            raise ValueError(
                f"{self._describe()}: a moving average is for one range for the whole "
                f"tensor, but its ranges are of shape {tuple(self.min.shape)}"
            )

    def _fix_offset(self) -> None:
        """Where scales are learnt: takes the offset that the range has now."""
        if self._learns == "scale" and self.is_initialized():
            self._learns = "min_max"
            with torch.no_grad():
                self.fixed_offset.copy_(self._range_offset())
            self._learns = "scale"

    def _range_offset(self) -> torch.Tensor:
        """The offset that the grid has with the range [min, max]."""
        raise NotImplementedError

    def is_crossed(self) -> bool:
        """Whether training has moved an end past the other one."""
        low, high = self.ends()
        return bool((high < low).any())

    def ends(self, x: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """The range in effect, each end of `min`'s shape, with gradients.

        Args:
            x: what is to be quantized: its size scales the gradient of a scale.
        """
        if self._learns != "scale":
            return self.min, self.max
        lowest = self.grid[0] + self.fixed_offset
        highest = self.grid[1] + self.fixed_offset
        steps = highest - lowest
        scale = (self.max - self.min) / steps
        if x is not None and torch.is_grad_enabled():
            elements = x.numel() / self.min.numel()
            if self._samples_first and x.dim() > 0:
                elements /= x.shape[0]
            # Per unit of scale each end moves by half of the steps, and each end's
            # gradient is the scale's divided by the steps.
            largest = torch.maximum(lowest.abs(), highest.abs())
            factor = steps.square() / (2 * (elements * largest).sqrt())
            value = scale.detach()
            scale = value + (scale - value) * factor
        return scale * lowest, scale * highest
