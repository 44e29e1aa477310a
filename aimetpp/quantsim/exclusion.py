# SPDX-License-Identifier: BSD-3-Clause
"""Layers and parameters that a person leaves unquantized."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch

from aimetpp.export.keys import param_key
from aimetpp.nn.wrap import QUANTIZER_CONTAINERS

if TYPE_CHECKING:
    from aimetpp import _C
    from aimetpp.quantsim.bank import QuantizerBank


class ExclusionMethods:
    """The part of QuantizationSimModel that turns quantizers off for good."""

    model: torch.nn.Module
    graph: _C.OpGraph
    placement: _C.Placement
    excluded_layers: list[str]  # dotted names, in the order of exclusion
    _bank: QuantizerBank

    def exclude_layers_from_quantization(
        self, layers: Iterable[torch.nn.Module]
    ) -> None:
        """Turns off every quantizer of the given modules of `sim.model`, and of the
        modules inside them, for good: a precision that is asked for one of them later
        is an error. Encodings files name them under "excluded_layers".

        Raises:
            TypeError: not a list of modules.
            ValueError: a module that is not part of this simulation.
        """
        if isinstance(layers, torch.nn.Module | str):
            raise TypeError(
                "exclude_layers_from_quantization: a list of modules is required, got "
                f"{type(layers).__name__}"
            )
        chosen = list(layers)
        known = {module: name for name, module in self.model.named_modules()}
        for layer in chosen:
            if layer not in known:
                raise ValueError(
                    "exclude_layers_from_quantization: not a module of this "
                    f"simulation's model: {type(layer).__name__}"
                )
        excluded = set()
        for layer in chosen:
            if known[layer] not in self.excluded_layers:
                self.excluded_layers.append(known[layer])
            for module in layer.modules():
                for name in QUANTIZER_CONTAINERS:
                    container = module._modules.get(name)
                    if container is not None:
                        container._modules.update(dict.fromkeys(container._modules))
                        excluded.add(container)
        for entry in self._bank.entries:
            for slot in entry.slots:
                slot.excluded |= slot.container in excluded

    def exclude_param_from_quantization(self, param: str) -> None:
        """Turns off the quantizers of parameters, for good: whatever reads them.

        Args:
            param: a name such as "weight" for every parameter of that name, or the path
                of one ("layer1.conv1.weight").

        Raises:
            ValueError: no parameter of the model is named so.
        """
        found = False
        for site in self.graph.sites:
            path = param_key(self.graph, site).partition("[")[0]  # rows of it
            is_named = path == param or path.endswith(f".{param}")
            if site.kind != "param" or not is_named:
                continue
            found = True
            if (index := self.placement.quantizer_of_site[site.id]) >= 0:
                self._bank.set_precision(index, "fp32")
                for slot in self._bank.entries[index].slots:
                    slot.excluded = True
        if not found:
            raise ValueError(
                f"exclude_param_from_quantization: no parameter is named {param!r}"
            )
