# SPDX-License-Identifier: BSD-3-Clause
"""Settings of a simulation that a config file cannot express."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from aimetpp import _C
from aimetpp.common.text import shortened
from aimetpp.nn.computed import weight_of
from aimetpp.nn.wrap import QuantizationMixin
from aimetpp.quantization import QuantizeDequantize
from aimetpp.quantization.float import FLOAT8_DTYPES

if TYPE_CHECKING:
    from aimetpp.quantsim.simulation import QuantizationSimModel

_MAX_GRID_BITWIDTH = 8  # as csrc/quantizer/weight_grid.h has it
_WHO = "set_blockwise_quantization_for_weights"
_Transposed = (
    torch.nn.ConvTranspose1d,
    torch.nn.ConvTranspose2d,
    torch.nn.ConvTranspose3d,
)
_WithChannels = (
    torch.nn.Linear,
    torch.nn.Conv1d,
    torch.nn.Conv2d,
    torch.nn.Conv3d,
    *_Transposed,
)


def set_blockwise_quantization_for_weights(
    sim: QuantizationSimModel,
    arg: Sequence[type[torch.nn.Module]]
    | Sequence[torch.nn.Module]
    | Callable[[torch.nn.Module], bool],
    bitwidth: int,
    symmetric: bool,
    block_size: int | Sequence[int],
) -> None:
    """Gives each block of a weight a range of its own.

    Weights of a calibrated simulation are calibrated again at once. A weight that
    does not divide into such blocks keeps its quantizer, with a warning.

    Args:
        sim: the simulation; quantizers of its weights are replaced.
        arg: which modules: a list of types, a list of modules of `sim.model`, or a
            function that says True.
        bitwidth: of the weights, 2 to 32.
        symmetric: grid around zero.
        block_size: elements of a block along each axis of the weight, -1 for the
            whole axis; or one number, of input channels, for convolutions and linear
            layers: each output channel then has its own blocks, which span the
            kernel.

    Raises:
        TypeError: `arg` is none of these.
        ValueError: `arg` chooses nothing; a module without a quantized weight, or with
            other axes than `block_size`; one number for a module without input and
            output channels.
    """
    chosen = _chosen(sim, arg)
    skipped = []
    replaced = []
    for name, module in chosen:
        index = _weight_index(sim, name, module)
        weight = weight_of(module, "weight")
        assert weight is not None
        sizes = _block_sizes(name, module, weight, block_size)
        if any(total % size for total, size in zip(weight.shape, sizes, strict=True)):
            skipped.append(f"{name}.weight {tuple(weight.shape)}")
            continue
        old = sim._bank.entries[index].integer
        counts = tuple(n // size for n, size in zip(weight.shape, sizes, strict=True))
        quantizer = QuantizeDequantize(
            counts,
            bitwidth,
            symmetric,
            strict_symmetric=old.strict_symmetric and symmetric,
            unsigned_symmetric=old.unsigned_symmetric and symmetric,
            scheme=old.scheme,
            block_size=sizes,
        )
        quantizer.percentile = old.percentile
        quantizer.fixed_min, quantizer.fixed_max = old.fixed_min, old.fixed_max
        replaced.append((index, quantizer))
    for index, quantizer in replaced:
        sim._bank.replace_integer(index, quantizer)
    if skipped:
        warnings.warn(
            f"{_WHO}: these weights do not divide into blocks of {block_size} and keep "
            f"their quantizers: {shortened(skipped)}",
            RuntimeWarning,
            stacklevel=2,
        )


def adopt_weight_grids(sim: QuantizationSimModel) -> dict[str, float]:
    """Gives weights that were quantized before the grid on which they lie.

    Ranges by any scheme quantize such a weight a second time wherever its largest
    value does not use the last step of its grid: after per-tensor quantization, or
    with steps that are powers of two. Here each channel (or block) of a weight with
    a symmetric quantizer of up to 8 bits whose float32 values are multiples of one
    step takes that step, and calibration no longer changes the quantizer's range;
    other channels keep the range that their values yield. Call it before
    `sim.compute_encodings`, since activations are observed behind the weights.

    Returns:
        By name, the share of the channels that lie on a grid, of the weights with
        any.
    """
    adopted: dict[str, float] = {}
    for spec, entry in zip(sim.placement.quantizers, sim._bank.entries, strict=True):
        quantizer, parameter = entry.current(), entry.slots[0].parameter()
        if (
            spec.kind != "param"
            or parameter is None
            or not isinstance(quantizer, QuantizeDequantize)
            or not quantizer.symmetric
            or quantizer.bitwidth > _MAX_GRID_BITWIDTH
        ):
            continue
        channels = _channels(quantizer, parameter.detach())
        steps = _C.find_grid_steps(channels, quantizer.bitwidth)
        found = steps > 0
        if not found.any():
            continue
        quantizer.calibrate_on(entry.slots[0].reference())
        qmin, qmax = quantizer.grid.tolist()
        low = quantizer.min.detach().flatten().cpu()
        high = quantizer.max.detach().flatten().cpu()
        quantizer.set_range(
            torch.where(found, steps * qmin, low),
            torch.where(found, steps * qmax, high),
        )
        quantizer.allow_overwrite(False)
        adopted[entry.label] = float(found.float().mean())
    return adopted


def _channels(quantizer: QuantizeDequantize, weight: torch.Tensor) -> torch.Tensor:
    """The values that share a range, one row for each range."""
    if quantizer.blocks is not None:
        return quantizer.blocks.split(weight)
    if quantizer.channel_axis is None:
        return weight.reshape(1, -1)
    return weight.movedim(quantizer.channel_axis, 0).flatten(1)


def set_quantizers_to_float8(
    sim: QuantizationSimModel,
    arg: Sequence[type[torch.nn.Module]]
    | Sequence[torch.nn.Module]
    | Callable[[torch.nn.Module], bool],
    dtype: torch.dtype = torch.float8_e4m3fn,
) -> None:
    """Rounds what modules read, hold and return to an 8-bit floating-point format.

    Every quantizer of the chosen modules that is on gets the precision "fp8_e4m3" or
    "fp8_e5m2", which manual and automatic mixed precision give too: a
    `FloatQuantizeDequantize` whose scale makes the largest magnitude that calibration
    saw the format's largest number; weights have one scale per channel. A quantizer
    that other modules share changes for all of them.

    Args:
        sim: a calibrated simulation.
        arg: which modules: a list of types, a list of modules of `sim.model`, or a
            function that says True.
        dtype: torch.float8_e4m3fn or torch.float8_e5m2.

    Raises:
        TypeError: `arg` is none of these.
        ValueError: another dtype; `arg` chooses nothing; block-wise weights.
        RuntimeError: a quantizer has no range yet. Nothing is changed then.
    """
    who = "set_quantizers_to_float8"
    if dtype not in FLOAT8_DTYPES.values():
        raise ValueError(
            f"{who}: dtype must be torch.float8_e4m3fn or torch.float8_e5m2, got "
            f"{dtype}"
        )
    containers = {
        container
        for _, module in _chosen(sim, arg, who)
        for container in (
            module.input_quantizers,
            module.output_quantizers,
            module.param_quantizers,
        )
    }
    precision = next(name for name, d in FLOAT8_DTYPES.items() if d == dtype)
    bank = sim._bank
    bank.adopt_standing()
    chosen = []
    for index, entry in enumerate(bank.entries):
        if entry.current() is None:
            continue
        if any(slot.container in containers for slot in entry.slots):
            if not entry.integer.is_initialized():
                raise RuntimeError(
                    f"{who}: {entry.label} has no range yet: run "
                    "sim.compute_encodings first"
                )
            chosen.append(index)
    precisions = bank.precisions()
    bank.check_standing(
        [precision if i in chosen else p for i, p in enumerate(precisions)]
    )
    for index in chosen:
        bank.set_precision(index, precision)


def _chosen(
    sim: QuantizationSimModel, arg: Any, who: str = _WHO
) -> list[tuple[str, QuantizationMixin]]:
    modules = list(sim.named_qmodules())
    is_meant = _test_of(arg, who)
    found = [(name, module) for name, module in modules if is_meant(module)]
    if isinstance(arg, Sequence):
        unknown = {item for item in arg if isinstance(item, torch.nn.Module)}
        unknown -= {module for _, module in modules}
        if unknown:
            raise ValueError(
                f"{who}: not a quantized module of this simulation's model: "
                f"{type(unknown.pop()).__name__}"
            )
    if not found:
        raise ValueError(f"{who}: arg chooses no quantized module, got {arg!r}")
    return found


def _test_of(arg: Any, who: str) -> Callable[[torch.nn.Module], bool]:
    """Says True of the modules that `arg` means."""
    if isinstance(arg, Sequence) and not isinstance(arg, str):
        if all(isinstance(item, type) for item in arg):
            return lambda module: isinstance(module, tuple(arg))
        if all(isinstance(item, torch.nn.Module) for item in arg):
            return lambda module: module in arg
    elif callable(arg) and not isinstance(arg, torch.nn.Module):
        return arg
    raise TypeError(
        f"{who}: arg must be a list of module types, a list of modules or a function "
        f"of a module, got {arg!r}"
    )


def _weight_index(
    sim: QuantizationSimModel, name: str, module: QuantizationMixin
) -> int:
    """The placement's index of the weight's quantizer."""
    slots = module.param_quantizers
    for index, entry in enumerate(sim._bank.entries):
        if any(s.container is slots and s.key == "weight" for s in entry.slots):
            return index
    raise ValueError(f"{_WHO}: {name} has no quantized weight")


def _block_sizes(
    name: str,
    module: torch.nn.Module,
    weight: torch.Tensor,
    block_size: int | Sequence[int],
) -> tuple[int, ...]:
    """Elements of a block along each axis of the weight."""
    if isinstance(block_size, int):
        if not isinstance(module, _WithChannels):
            raise ValueError(
                f"{_WHO}: block_size must be given for each axis of the weight of "
                f"{name}, a {type(module).__mro__[1].__name__}"
            )
        into, out = (0, 1) if isinstance(module, _Transposed) else (1, 0)
        given = [-1] * weight.dim()
        given[into], given[out] = block_size, 1
    else:
        given = list(block_size)
    if len(given) != weight.dim() or any(size < 1 and size != -1 for size in given):
        raise ValueError(
            f"{_WHO}: block_size must be 1 or more, or -1, for each of the "
            f"{weight.dim()} axes of {name}.weight, got {block_size}"
        )
    return tuple(
        total if size == -1 else size
        for total, size in zip(weight.shape, given, strict=True)
    )
