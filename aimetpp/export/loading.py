# SPDX-License-Identifier: BSD-3-Clause
"""Encodings files keyed by module names -> the quantizers of a simulation."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aimetpp.export.keys import activation_keys, param_key
from aimetpp.quantization import QuantizeDequantize

if TYPE_CHECKING:
    from aimetpp.quantsim import QuantizationSimModel


@dataclass(frozen=True)
class Leaf:
    """One tensor's entry in a file.

    Attributes:
        precision: "int8", "fp16".
        symmetric: of an integer grid.
        scale: per tensor or per channel; empty for floats.
        offset: of a grid that starts at 0; the same.
    """

    precision: str
    symmetric: bool
    scale: tuple[float, ...]
    offset: tuple[int, ...]

    @classmethod
    def parse(cls, name: str, entries: Any) -> Leaf:
        """From the file's list of dicts, or one dict.

        Raises:
            ValueError: keys missing or of a wrong kind; the message names the entry.
        """
        channels = entries if isinstance(entries, list) else [entries]
        try:
            first = channels[0]
            bits = int(first["bitwidth"])
            if first["dtype"] == "float":
                is_bf16 = first.get("exponent_bits") == 8
                return cls("bf16" if is_bf16 else f"fp{bits}", False, (), ())
            return cls(
                precision=f"int{bits}",
                symmetric=str(first["is_symmetric"]) == "True",
                scale=tuple(float(channel["scale"]) for channel in channels),
                offset=tuple(int(channel["offset"]) for channel in channels),
            )
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(
                f"load_encodings: the entry of {name!r} must have bitwidth, dtype, "
                f"is_symmetric, scale and offset ({type(error).__name__}: {error})"
            ) from error


def parse_file(source: Any) -> tuple[str, Any]:
    """A file's name and content."""
    if not isinstance(source, str | os.PathLike):
        raise TypeError(
            "load_encodings: encodings must be a path or a dict, got "
            f"{type(source).__name__}"
        )
    where = os.fspath(source)
    try:
        return where, json.loads(Path(where).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"load_encodings: {where} is not JSON: {error}") from error


def read_param_encodings(source: str | os.PathLike[str]) -> Mapping[str, Any]:
    """The parameters' entries of a file, by name.

    Args:
        source: a file with a section "param_encodings", or of nothing but entries.

    Raises:
        ValueError: not such a file.
    """
    where, content = parse_file(source)
    if isinstance(content, Mapping):
        rest = {} if "activation_encodings" in content else content
        content = content.get("param_encodings", rest)
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"load_encodings: {where} holds no parameter encodings")
    return content


def _read(source: Any) -> Mapping[str, Any]:
    if isinstance(source, Mapping):
        content: Any = source
        where = "the given dict"
    else:
        where, content = parse_file(source)
    sections = ("activation_encodings", "param_encodings")
    if not isinstance(content, Mapping) or not all(
        isinstance(content.get(section, {}), Mapping) for section in sections
    ):
        raise ValueError(
            f"load_encodings: {where} must be keyed by module names, as "
            "save_encodings_to_json writes it"
        )
    if not any(section in content for section in sections):
        raise ValueError(f"load_encodings: {where} holds no encodings")
    return content


def _flatten(content: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """("conv1.output.0", entry), ("conv1.weight", entries), ..."""
    for module, kinds in content.get("activation_encodings", {}).items():
        for kind, slots in kinds.items():
            for slot, entry in slots.items():
                yield f"{module}.{kind}.{slot}", entry
    yield from content.get("param_encodings", {}).items()


def _quantizers_by_key(sim: QuantizationSimModel) -> dict[str, set[int]]:
    """Indices in the placement by key; none where the site has no quantizer.

    A parameter that is read in several calls has a site in each.
    """
    indices: dict[str, set[int]] = {}
    for site in sim.graph.sites:
        if site.kind == "param":
            key = param_key(sim.graph, site)
        else:
            key = ".".join(activation_keys(sim.graph, site))
        index = sim.placement.quantizer_of_site[site.id]
        indices.setdefault(key, set()).update([index] if index >= 0 else [])
    return indices


def load_encodings(
    sim: QuantizationSimModel,
    source: Mapping[str, Any] | str | os.PathLike[str],
    strict: bool = True,
    partial: bool = True,
    requires_grad: bool | None = None,
    allow_overwrite: bool = True,
) -> None:
    """Gives quantizers the encodings of a file that `save_encodings_to_json` wrote.

    Scales and offsets are afterwards exactly those of the file. All of the file is
    checked before anything is changed.

    Args:
        sim: a simulation of the same model.
        source: path, or the parsed content.
        strict: a name that the simulation has no quantizer for is an error;
            otherwise it is skipped.
        partial: quantizers without an entry keep their state; otherwise they are
            turned off.
        requires_grad: whether the loaded ranges are trained; None: as they are.
        allow_overwrite: whether calibration may change the loaded ranges.

    Raises:
        RuntimeError: names that do not match, all of them listed; a wrong number of
            channels.
        ValueError: not such a file; two entries that disagree on one quantizer.
    """
    leaves = {key: Leaf.parse(key, e) for key, e in _flatten(_read(source))}
    quantizers = _quantizers_by_key(sim)
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
    apply_leaves(sim, known, quantizers, partial, requires_grad, allow_overwrite)


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
        quantizers: indices in the placement by name.
        partial: as in `load_encodings`.
        requires_grad: as in `load_encodings`.
        allow_overwrite: as in `load_encodings`.

    Raises:
        RuntimeError: a wrong number of channels.
        ValueError: two entries that disagree on one quantizer.
    """
    chosen: dict[int, tuple[str, Leaf]] = {}
    for key, leaf in leaves.items():
        for index in quantizers[key]:
            other = chosen.setdefault(index, (key, leaf))
            if other[1] != leaf:
                raise ValueError(
                    f"load_encodings: {other[0]} and {key} share one quantizer, but "
                    "their encodings differ"
                )
    for index, (key, leaf) in chosen.items():
        _check_channels(sim._bank.entries[index].integer, key, leaf)
    precisions = sim.precisions()
    for index in range(len(precisions)):
        if index in chosen:
            precisions[index] = chosen[index][1].precision
        elif not partial:
            precisions[index] = "fp32"
    sim.apply_precisions(precisions)
    for index, (_, leaf) in chosen.items():
        if leaf.scale:
            quantizer = sim._bank.entries[index].integer
            quantizer.set_encoding(leaf.scale, leaf.offset, leaf.symmetric)
            quantizer.allow_overwrite(allow_overwrite)
            if requires_grad is not None:
                quantizer.min.requires_grad_(requires_grad)
                quantizer.max.requires_grad_(requires_grad)


def _check_channels(quantizer: QuantizeDequantize, key: str, leaf: Leaf) -> None:
    channels = quantizer.min.numel()
    if leaf.scale and len(leaf.scale) != channels:
        raise RuntimeError(
            f"load_encodings: {key} has {channels} channels, the file has "
            f"{len(leaf.scale)}"
        )
