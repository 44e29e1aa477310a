# SPDX-License-Identifier: BSD-3-Clause
"""Encodings files -> the quantizers of a simulation."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import torch

from aimetpp.export.float8_loading import check_float8, load_float8
from aimetpp.export.keys import activation_keys, param_key
from aimetpp.export.leaves import EncodingsFile, Leaf, read_encodings
from aimetpp.quantization import QuantizeDequantize, QuantizerBase

if TYPE_CHECKING:
    from aimetpp.quantsim import QuantizationSimModel


class Targets:
    """The quantizers that encodings can be given to, by number: those of the placement
    by their index in it, and behind them those that a user put where it has none.

    Attributes:
        of_site: the number by site; none where no quantizer stands and the placement
            has none.
        own: the quantizers behind the placement's.
    """

    def __init__(self, sim: Any) -> None:
        self._bank = sim._bank
        of_site = sim.placement.quantizer_of_site
        self.of_site = {site: i for site, i in enumerate(of_site) if i >= 0}
        numbers = {
            id(current): index
            for index, entry in enumerate(self._bank.entries)
            if (current := entry.current()) is not None
        }
        self.own: list[QuantizerBase] = []
        for site, quantizer in self._bank.unplaced().items():
            if id(quantizer) not in numbers:
                numbers[id(quantizer)] = len(self._bank.entries) + len(self.own)
                self.own.append(quantizer)
            self.of_site[site] = numbers[id(quantizer)]

    def own_at(self, number: int) -> QuantizerBase | None:
        """The user's quantizer of that number; None for one of the placement."""
        behind = number - len(self._bank.entries)
        return self.own[behind] if behind >= 0 else None

    def entry(self, number: int) -> Any:
        """The placement's entry of that number."""
        return self._bank.entries[number]

    def quantizer(self, number: int) -> QuantizerBase:
        """What takes an integer encoding of that number; a user's may be another."""
        own = self.own_at(number)
        return self.entry(number).integer if own is None else own

    def remove_own(self, kept: Collection[int]) -> None:
        """Takes the users' quantizers out of their slots, but for those in `kept`."""
        for slot in self._bank.unplaced_slots():
            if self.of_site[slot.site] not in kept:
                slot.set(None)


def _quantizers_by_key(
    sim: QuantizationSimModel, targets: Targets
) -> dict[str, set[int]]:
    """Numbers of quantizers by key; none where the site has no quantizer.

    A parameter that is read in several calls has a site in each.
    """
    numbers: dict[str, set[int]] = {}
    for site in sim.graph.sites:
        if site.kind == "param":
            key = param_key(sim.graph, site)
        else:
            key = ".".join(activation_keys(sim.graph, site))
        found = targets.of_site.get(site.id)
        numbers.setdefault(key, set()).update([] if found is None else [found])
    return numbers


def load_encodings(
    sim: QuantizationSimModel,
    source: Mapping[str, Any] | str | os.PathLike[str],
    strict: bool = True,
    partial: bool = True,
    requires_grad: bool | None = None,
    allow_overwrite: bool = True,
    onnx_export_args: Mapping[str, Any] | None = None,
) -> None:
    """Gives quantizers the encodings of a file, keyed by modules
    (`save_encodings_to_json`) or by the tensors of the exported ONNX file, in version
    0.6.1, 1.0.0 or 2.0.0.

    Scales and offsets are afterwards exactly those of the file. All of the file is
    checked before anything is changed. Encodings that follow from others are passed
    over: of tensors that only move another's values, and of 32-bit biases.

    Args:
        sim: a simulation of the same model.
        source: path, or the parsed content.
        strict: a name that the simulation has no quantizer for is an error;
            otherwise it is skipped.
        partial: quantizers without an entry keep their state; otherwise they are
            turned off.
        requires_grad: whether the loaded ranges are trained; None: as they are.
        allow_overwrite: whether calibration may change the loaded ranges.
        onnx_export_args: where names are an ONNX file's: the arguments of its export
            that change names (`input_names`, `output_names`).

    Raises:
        RuntimeError: names that do not match, all of them listed; a wrong number of
            channels.
        ValueError: not such a file; two entries that disagree on one quantizer.
    """
    file = read_encodings(source)
    leaves, quantizers = _known(sim, file, strict, onnx_export_args or {})
    check_float8(Targets(sim), leaves, quantizers)
    apply_leaves(sim, leaves, quantizers, partial, requires_grad, allow_overwrite)
    load_float8(Targets(sim), leaves, quantizers, allow_overwrite)


def load_param_encodings(
    sim: QuantizationSimModel, source: Mapping[str, Any] | str | os.PathLike[str]
) -> None:
    """Gives parameters' quantizers the encodings of a file of any version, for good.

    Raises:
        RuntimeError, ValueError: as `load_encodings`; a file without parameters.
    """
    file = read_encodings(source)
    params = file.params
    if params is None:
        keys = {param_key(sim.graph, s) for s in sim.graph.sites if s.kind == "param"}
        params = frozenset(keys & set(file.leaves))
    if not params:
        where = source if isinstance(source, str | os.PathLike) else "the given dict"
        raise ValueError(f"load_encodings: {where} holds no parameter encodings")
    leaves = {name: leaf for name, leaf in file.leaves.items() if name in params}
    only_params = EncodingsFile(leaves, params, by_tensor=False)
    known, quantizers = _known(sim, only_params, True, {})
    check_float8(Targets(sim), known, quantizers)
    apply_leaves(sim, known, quantizers, True, False, allow_overwrite=False)
    load_float8(Targets(sim), known, quantizers, allow_overwrite=False)


def _known(
    sim: QuantizationSimModel,
    file: EncodingsFile,
    strict: bool,
    onnx_export_args: Mapping[str, Any],
) -> tuple[dict[str, Leaf], dict[str, set[int]]]:
    """The file's entries that count, and numbers of quantizers by their names."""
    leaves = dict(file.leaves)
    targets = Targets(sim)
    quantizers = _quantizers_by_key(sim, targets)
    derived: set[str] = set()
    if file.by_tensor:
        found, derived = _quantizers_by_tensor(sim, targets, leaves, onnx_export_args)
        quantizers = {**found, **quantizers}
    for name, leaf in file.leaves.items():
        is_bias = leaf.precision == "int32" and not quantizers.get(name)
        if name in derived or is_bias:
            del leaves[name]
    unknown = [key for key in leaves if key not in quantizers]
    without = [key for key in leaves if key in quantizers and not quantizers[key]]
    if strict and (unknown or without):
        parts = []
        if unknown:
            parts.append(f"not in the model: {', '.join(unknown)}")
        if without:
            parts.append(f"no quantizer there: {', '.join(without)}")
        raise RuntimeError(f"load_encodings: names do not match; {'; '.join(parts)}")
    known = {key: leaf for key, leaf in leaves.items() if quantizers.get(key)}
    return known, quantizers


def _quantizers_by_tensor(
    sim: QuantizationSimModel,
    targets: Targets,
    names: Mapping[str, Leaf],
    onnx_export_args: Mapping[str, Any],
) -> tuple[dict[str, set[int]], set[str]]:
    """Numbers of quantizers by the name of a tensor of the ONNX file, and names whose
    encodings follow from others.
    """
    from aimetpp.export.tensor_names import sites_by_tensor

    sites, derived = sites_by_tensor(sim, names, onnx_export_args)
    of_site = targets.of_site
    return {
        name: {of_site[site] for site in found if site in of_site}
        for name, found in sites.items()
    }, derived


def apply_leaves(
    sim: Any,
    leaves: Mapping[str, Leaf],
    quantizers: Mapping[str, set[int]],
    partial: bool,
    requires_grad: bool | None,
    allow_overwrite: bool,
) -> None:
    """Gives quantizers their encodings; all are checked before anything is changed.

    Args:
        sim: a simulation, of any front.
        leaves: encodings by name.
        quantizers: numbers of quantizers (`Targets`) by name.
        partial: as in `load_encodings`.
        requires_grad: as in `load_encodings`.
        allow_overwrite: as in `load_encodings`.

    Raises:
        RuntimeError: a wrong number of channels.
        ValueError: two entries that disagree on one quantizer; a format or a scale that
            the quantizer cannot have; another axis.
    """
    chosen: dict[int, tuple[str, Leaf]] = {}
    for key, leaf in leaves.items():
        for number in quantizers[key]:
            other = chosen.setdefault(number, (key, leaf))
            if other[1] != leaf:
                raise ValueError(
                    f"load_encodings: {other[0]} and {key} share one quantizer, but "
                    "their encodings differ"
                )
    sim._bank.adopt_standing()
    targets = Targets(sim)
    for number, (key, leaf) in chosen.items():
        if (own := targets.own_at(number)) is not None:
            _check_format(own, key, leaf)
        _check_channels(targets.quantizer(number), key, leaf)
    precisions = sim.precisions()
    for index in range(len(precisions)):
        if index in chosen:
            precisions[index] = chosen[index][1].precision
        elif not partial:
            precisions[index] = "fp32"
    with sim.undone_on_error():
        sim.apply_precisions(precisions)
        if not partial:
            targets.remove_own(chosen)
        for number, (key, leaf) in chosen.items():
            _set_encoding(targets.quantizer(number), key, leaf)
    for number, (_, leaf) in chosen.items():
        quantizer = targets.quantizer(number)
        if isinstance(quantizer, QuantizeDequantize) and leaf.scale:
            quantizer.allow_overwrite(allow_overwrite)
            if requires_grad is not None:
                quantizer.min.requires_grad_(requires_grad)
                quantizer.max.requires_grad_(requires_grad)


def _set_encoding(quantizer: QuantizerBase, key: str, leaf: Leaf) -> None:
    if not isinstance(quantizer, QuantizeDequantize) or not leaf.scale:
        return
    quantizer.bitwidth = int(leaf.precision.removeprefix("int"))
    offset = leaf.offset_from(int(quantizer.grid[0]))
    quantizer.set_encoding(leaf.scale, offset, leaf.symmetric)
    scale = quantizer.get_scale()
    assert scale is not None
    got = scale.detach().flatten().cpu()
    if not torch.equal(got, torch.tensor(leaf.scale)):
        raise ValueError(
            f"load_encodings: {key}: the scale {min(leaf.scale):g} is smaller than any "
            f"that a quantizer of {leaf.precision} has"
        )


def _check_format(own: QuantizerBase, key: str, leaf: Leaf) -> None:
    if isinstance(own, QuantizeDequantize):
        fits = bool(leaf.scale)
    else:
        fits = own.precision == leaf.precision
    if not fits:
        raise ValueError(
            f"load_encodings: {key} is {leaf.precision} in the file, but a "
            f"{type(own).__name__} ({own.precision}) was put there by hand"
        )


def _check_channels(quantizer: QuantizerBase, key: str, leaf: Leaf) -> None:
    if not leaf.scale or not isinstance(quantizer, QuantizeDequantize):
        return
    channels = quantizer.min.numel()
    if len(leaf.scale) != channels:
        raise RuntimeError(
            f"load_encodings: {key} has {channels} channels, the file has "
            f"{len(leaf.scale)}"
        )
    axis = quantizer.channel_axis
    if channels > 1 and leaf.axis not in (None, axis):
        raise ValueError(
            f"load_encodings: {key} has its channels along axis {axis}, in the file "
            f"along axis {leaf.axis}"
        )
