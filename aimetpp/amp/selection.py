# SPDX-License-Identifier: BSD-3-Clause
"""Which quantizer groups a search covers: `include` and `exclude`."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Iterable
from typing import Any

import torch

from aimetpp import _C
from aimetpp.amp.quantizer_groups import GroupMembers, NamedGroup
from aimetpp.amp.simulation import Simulation


def select_groups(
    sim: Simulation, groups: list[GroupMembers], include: Any, exclude: Any
) -> list[GroupMembers]:
    """The groups that are searched; the others keep their precision.

    Args:
        sim: the simulation.
        groups: all its groups.
        include: None for all; else modules of `sim.model`, dotted names, globs,
            site names or QuantizerGroups, one or a list. A module means every group
            that holds a quantizer of it or of a module inside it.
        exclude: the same, taken away afterwards.

    Raises:
        TypeError: an item of another type.
        ValueError: an item that matches nothing, or nothing left to search.
    """
    chosen = groups
    if include is not None:
        wanted = _matched(sim, groups, include, "include")
        chosen = [members for members in chosen if members.group in wanted]
    if exclude is not None:
        unwanted = _matched(sim, groups, exclude, "exclude")
        chosen = [members for members in chosen if members.group not in unwanted]
    if groups and not chosen:
        raise ValueError("include and exclude leave no quantizer group to search")
    return chosen


def without_pinned(sim: Simulation, groups: list[GroupMembers]) -> list[GroupMembers]:
    """The groups without the quantizers that are pinned (`sim.pin`), which a search
    leaves at their precision; groups that hold no others are left out.
    """
    pinned = sim.pinned_quantizers()
    if pinned.isdisjoint(index for members in groups for index in members.quantizers):
        return groups
    free = [
        dataclasses.replace(
            members,
            activation_quantizers=[
                index for index in members.activation_quantizers if index not in pinned
            ],
            param_quantizers=[
                index for index in members.param_quantizers if index not in pinned
            ],
        )
        for members in groups
    ]
    # Where none is left, one without quantizers: a search of it scores the simulation
    # and finds nothing to narrow.
    return [members for members in free if members.quantizers] or free[:1]


def supported_candidates(
    sim: Simulation,
    groups: list[GroupMembers],
    candidates: list[tuple[str, str]],
    use_all: bool,
) -> list[list[int]]:
    """By group the indices of the candidates that its ops have kernels for, beside
    what is pinned.

    Args:
        sim: the simulation.
        groups: those searched.
        candidates: (activation, param) precision names.
        use_all: whatever the config's kernels are.
    """
    now = sim.precisions()
    pinned = {index: now[index] for index in sim.pinned_quantizers()}
    supported = []
    for members in groups:
        is_free = use_all or not members.quantizers
        group, graph, placement = members.native, sim.graph, sim.placement
        supported.append(
            _C.supported_candidates(
                group, graph, placement, candidates, is_free, pinned
            )
        )
    return supported


def reading_groups(
    sim: Simulation, groups: list[GroupMembers], op_types: Any
) -> dict[NamedGroup, list[int]]:
    """The groups with a quantizer of what ops of some types read: input or parameter.

    Args:
        sim: the simulation.
        groups: those looked at.
        op_types: ONNX types ("Conv") or kinds ("conv2d").

    Returns:
        By group the indices in `sim.graph.ops`; in the order of the first of them.

    Raises:
        TypeError: not a list or tuple of strings.
        ValueError: a type of which the model has no op; no group left.
    """
    if isinstance(op_types, str) or not all(isinstance(t, str) for t in op_types):
        raise TypeError(f"op_types must be a list of op types, got {op_types!r}")
    group_of = {index: m.group for m in groups for index in m.quantizers}
    missing = set(op_types)
    found: dict[NamedGroup, list[int]] = {}
    for index, op in enumerate(sim.graph.ops):
        names = {op.onnx_type, op.kind} & set(op_types)
        missing -= names
        if not names:
            continue
        read = [
            _C.quantizer_of_input(sim.graph, sim.placement, index, slot)
            for slot in range(len(op.inputs))
        ]
        read += [sim.placement.quantizer_of_site[param.site] for param in op.params]
        for group in dict.fromkeys(group_of[q] for q in read if q in group_of):
            found.setdefault(group, []).append(index)
    if not found:
        raise ValueError(
            f"op_types: no quantizer group to search is read by {list(op_types)}"
            + (f"; the model has no {sorted(missing)}" if missing else "")
        )
    return found


def _matched(
    sim: Simulation, groups: list[GroupMembers], items: Any, argument: str
) -> set[NamedGroup]:
    single = isinstance(items, str | torch.nn.Module | NamedGroup)
    if not single and not isinstance(items, Iterable):
        raise TypeError(
            f"{argument} must be a list of modules, names or groups, got "
            f"{type(items).__name__}"
        )
    found: set[NamedGroup] = set()
    for item in [items] if single else items:
        matches = {m.group for m in groups if _matches(sim, m.group, item, argument)}
        if not matches:
            raise ValueError(
                f"{argument}: no quantizer group has a quantizer of {_describe(item)}"
            )
        found |= matches
    return found


def _matches(sim: Simulation, group: NamedGroup, item: Any, argument: str) -> bool:
    if isinstance(item, NamedGroup):
        return group == item
    if isinstance(item, torch.nn.Module):
        modules: Any = getattr(sim.model, "named_modules", tuple)()
        names = [name for name, module in modules if module is item]
        if not names:
            raise ValueError(
                f"{argument}: not a module of sim.model: {_describe(item)}"
            )
        return any(_inside(sim, site, names[0]) for site in group.sites)
    if isinstance(item, str):
        return any(_named(sim, site, item) for site in group.sites)
    raise TypeError(
        f"{argument}: items must be modules, names or QuantizerGroups, got "
        f"{type(item).__name__}"
    )


def _inside(sim: Simulation, site: int, module: str) -> bool:
    owner = sim.graph.calls[sim.graph.sites[site].call].module
    return not module or owner == module or owner.startswith(module + ".")


def _named(sim: Simulation, site: int, pattern: str) -> bool:
    call = sim.graph.calls[sim.graph.sites[site].call]
    names = (call.module, call.name, sim.graph.site_name(site))
    return _inside(sim, site, pattern) or any(
        fnmatch.fnmatchcase(name, pattern) for name in names
    )


def _describe(item: Any) -> str:
    return repr(item) if isinstance(item, str) else type(item).__name__
