# SPDX-License-Identifier: BSD-3-Clause
"""Who is meant by what a user names: modules, types, names, globs, sites."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from aimetpp import _C
from aimetpp.mixed_precision.name_match import NameMatcher, is_glob
from aimetpp.nn.wrap import QUANTIZER_CONTAINERS
from aimetpp.quantsim.inspection import Site

if TYPE_CHECKING:
    from aimetpp.quantsim import QuantizationSimModel


@dataclass(frozen=True)
class NamedOp:
    """An op that the user's code calls."""

    name: str
    module: str  # the leaf, or the module that calls a functional op
    functional: bool
    num_inputs: int


@dataclass(frozen=True)
class Target:
    """What a request is about.

    Attributes:
        kind: "leaf", "container" or "type".
        subject: what to call it in a report.
        ops: indices of the ops that it covers.
        attentions: names of the modules where all are torch.nn.MultiheadAttention.
    """

    kind: str
    subject: str
    ops: Iterable[int]
    attentions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # Requests that name the same share the list.
        object.__setattr__(self, "ops", _C.OpList(list(self.ops)))


class NameBook:
    """Everything in a simulation that a request can name."""

    def __init__(self, sim: QuantizationSimModel) -> None:
        self._sim = sim
        graph = sim.graph
        calls = graph.calls
        self.ops: dict[int, NamedOp] = {}
        own: dict[str, list[int]] = {}  # by the module that calls
        for index, op in enumerate(graph.ops):
            if op.call < 0:
                continue
            call = calls[op.call]
            num_inputs = sum(site >= 0 for site in op.input_sites)
            self.ops[index] = NamedOp(op.name, call.module, call.functional, num_inputs)
            own.setdefault(call.module, []).append(index)
        self._stand_ins = self._find_stand_ins(own)
        own.update(self._stand_ins)
        self._op_by_name = {op.name: index for index, op in self.ops.items()}
        # A module that stands at several places has a name for each of them, and its
        # calls are recorded under the first.
        self._modules: dict[str, torch.nn.Module] = {}
        self._ops_of: dict[int, frozenset[int]] = {}  # by id of the module
        first_names: dict[int, str] = {}
        for name, module in sim.model.named_modules(remove_duplicate=False):
            if not any(part in QUANTIZER_CONTAINERS for part in name.split(".")):
                self._modules[name] = module
                first_names.setdefault(id(module), name)
        for module in reversed(self._modules.values()):  # children before parents
            covered = set(own.get(first_names[id(module)], ()))
            for child in module.children():
                covered |= self._ops_of.get(id(child), frozenset())
            self._ops_of[id(module)] = frozenset(covered)
        self._first_names = first_names
        self._module_matcher = NameMatcher(self._modules)
        self._op_matcher = NameMatcher(self._op_by_name)
        self._found: dict[Any, Target] = {}  # by name or type

    def _find_stand_ins(self, own: dict[str, list[int]]) -> dict[str, list[int]]:
        """Modules that are not called, but whose parameters a functional op reads, as
        the output projection of an attention: such a module is that op.

        Args:
            own: indices of ops by the module that calls.
        """
        reads = self._sim.param_reads
        found: dict[str, list[int]] = {}
        ops = self._sim.graph.ops
        for index in (i for i, op in self.ops.items() if op.functional):
            for param in ops[index].params:
                read = reads.get(param.site)
                if read is None:
                    continue
                called = (f"{name}." for name in own)
                if any(name.startswith(f"{read.module}.") for name in called):
                    continue
                if index not in found.setdefault(read.module, []):
                    found[read.module].append(index)
        return found

    def find(self, arg: Any) -> Target:
        """What `arg` of `set_precision` means.

        Raises:
            TypeError: something that names nothing.
            ValueError: nothing of that name is in the model.
        """
        if isinstance(arg, torch.nn.Module):
            return self._find_module(arg)
        if isinstance(arg, type) and issubclass(arg, torch.nn.Module):
            if arg not in self._found:
                self._found[arg] = self._find_type(arg)
            return self._found[arg]
        if isinstance(arg, Site):
            graph = self._sim.graph
            if arg.id >= len(graph.sites) or graph.site_name(arg.id) != arg.name:
                raise ValueError(
                    f"set_precision: site {arg.name!r} is not one of this simulation"
                )
            return self._find_site(arg)
        if isinstance(arg, str):
            if arg not in self._found:
                self._found[arg] = self._find_name(arg)
            return self._found[arg]
        raise TypeError(
            "set_precision: arg must be a module of sim.model, a torch.nn.Module "
            f"class, a name or a Site, got {type(arg).__name__}"
        )

    def type_named(self, name: str) -> type[torch.nn.Module]:
        """The class of modules in the model, or a base of theirs, by its name, with
        or without the Python module it is defined in.

        Raises:
            ValueError: no module is of such a class, or classes of several Python
                modules have that name.
        """
        found: dict[str, type[torch.nn.Module]] = {}
        for module in self._modules.values():
            for base in type(module).__mro__:
                full = f"{base.__module__}.{base.__qualname__}"
                if name in (full, base.__name__) and issubclass(base, torch.nn.Module):
                    found.setdefault(full, base)
        # The wrapped class bears the name of the user's class, which it extends.
        distinct = [
            base
            for base in found.values()
            if not any(base in other.__mro__[1:] for other in found.values())
        ]
        if len(distinct) != 1:
            problem = (
                f"several classes: {', '.join(sorted(found))}"
                if distinct
                else "no class of a module in sim.model"
            )
            raise ValueError(f"type {name!r} is the name of {problem}")
        return distinct[0]

    def check_params(self, param: Mapping[str, Any], target: Target) -> None:
        """Whether the names whose precision is None are parameters: no request says so
        later.

        Raises:
            ValueError: one is a parameter of no layer that is covered.
        """
        covered = list(target.ops)
        ops = self._sim.graph.ops
        known = {each.name for op in covered for each in ops[op].params}
        for op in covered:
            module = self._modules.get(self.ops[op].module)
            if module is not None:
                known.update(module._parameters)  # a bias that it may have, too
        unknown = [n for n, value in param.items() if value is None and n not in known]
        if covered and unknown:
            raise ValueError(
                f"set_precision: {target.subject} has no parameter {unknown[0]!r}; "
                + (f"there is {', '.join(sorted(known))}" if known else "it has none")
            )

    def _covered(self, modules: Iterable[torch.nn.Module]) -> frozenset[int]:
        return frozenset().union(*(self._ops_of[id(m)] for m in modules))

    def _find_type(self, wanted: type[torch.nn.Module]) -> Target:
        names = [n for n, module in self._modules.items() if isinstance(module, wanted)]
        covered = self._covered(self._modules[name] for name in names)
        return Target(
            "type", f"type {wanted.__name__}", covered, self._attentions(names)
        )

    def _attentions(self, names: list[str]) -> tuple[str, ...]:
        attention = torch.nn.MultiheadAttention
        if not all(isinstance(self._modules[name], attention) for name in names):
            return ()
        return tuple(
            dict.fromkeys(self._first_names[id(self._modules[n])] for n in names)
        )

    def _find_module(self, module: torch.nn.Module) -> Target:
        name = self._first_names.get(id(module))
        if name is not None and self._modules[name] is module:
            return self.find(name)
        raise ValueError(
            f"set_precision: this {type(module).__name__} is not a layer of sim.model; "
            "pass the module that stands in sim.model, or its name"
        )

    def _module_target(self, name: str) -> Target:
        module = self._modules[name]
        ops = self._covered([module])
        is_leaf = self._first_names[id(module)] in self._stand_ins or (
            not any(True for _ in self._children(module))
            and not any(self.ops[op].functional for op in ops)
        )
        subject = name or type(self._sim.model).__name__
        kind = "leaf" if is_leaf else "container"
        return Target(kind, subject, ops, self._attentions([name]))

    def _children(self, module: torch.nn.Module) -> Iterable[torch.nn.Module]:
        return (child for child in module.children() if id(child) in self._ops_of)

    def _find_site(self, site: Site) -> Target:
        if site.kind == "param":
            raise ValueError(
                f"set_precision: {site.name!r} is the site of a parameter; pass its "
                "layer and param={name: precision}"
            )
        op = self._sim.graph.op_of_site(site.id)
        return Target("leaf", site.name, [] if op < 0 else [op])

    def _by_first_name(self, name: str) -> str:
        """The name of a call by the first name of its module."""
        for separator in ("/", ":"):
            module, found, call = name.rpartition(separator)
            if found and module in self._modules:
                first = self._first_names[id(self._modules[module])]
                return f"{first}{separator}{call}"
        return name

    def _find_name(self, name: str) -> Target:
        if name in self._modules:
            return self._module_target(name)
        if name in self._op_by_name:
            return Target("leaf", name, [self._op_by_name[name]])
        if self._by_first_name(name) in self._op_by_name:
            return self.find(self._by_first_name(name))
        if is_glob(name):
            modules = self._module_matcher.matches(name)
            found = set(self._covered(self._modules[each] for each in modules))
            matched = self._op_matcher.matches(name)
            found.update(self._op_by_name[each] for each in matched)
            if found:
                attentions = () if matched else self._attentions(modules)
                return Target("type", name, found, attentions)
        for site in self._sim.sites():
            if site.name == name:
                return self._find_site(site)
        known = dict.fromkeys([*self._modules, *self._op_by_name])
        near = difflib.get_close_matches(name, known, n=3)
        raise ValueError(
            f"set_precision: no module or functional op of sim.model is called {name!r}"
            + (f"; near to it: {', '.join(near)}" if near else "")
        )
