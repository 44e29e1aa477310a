# SPDX-License-Identifier: BSD-3-Clause
"""Who reads a tensor in one forward: what no graph of the values shows, as of a buffer,
or of its type alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from aimetpp.common.inference import inference
from aimetpp.quantsim.tracing import split_dummy_input


class _Readers(TorchFunctionMode):
    """Notes for each watched tensor the modules, and the calls outside them, that
    read it.
    """

    def __init__(self, watched: set[int]) -> None:
        super().__init__()
        self.readers: dict[int, set[Any]] = {key: set() for key in watched}
        self.inside: list[torch.nn.Module] = []
        self._calls = itertools.count()

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        reader = self.inside[-1] if self.inside else next(self._calls)
        for leaf in pytree.tree_leaves((args, kwargs)):
            if id(leaf) in self.readers:
                self.readers[id(leaf)].add(reader)
        return func(*args, **kwargs)


def read_more_than_once(
    model: torch.nn.Module,
    dummy_input: Any,
    tensors: Iterable[torch.Tensor],
    modules: Iterable[torch.nn.Module],
) -> set[int]:
    """Ids of the tensors that one forward in eval mode reads at several places.

    Args:
        model: run once.
        dummy_input: a tensor, a tuple or list (positional) or a dict (keywords).
        tensors: parameters or buffers of the model.
        modules: all that happens in one of these is one place.
    """
    args, kwargs = pytree.tree_map(
        # The model may write into its inputs.
        lambda x: x.clone() if isinstance(x, torch.Tensor) else x,
        split_dummy_input(dummy_input),
    )
    mode = _Readers({id(tensor) for tensor in tensors})
    handles = []
    for module in modules:
        handles += [
            module.register_forward_pre_hook(lambda m, _: mode.inside.append(m)),
            module.register_forward_hook(
                lambda *_: mode.inside.pop() and None, always_call=True
            ),
        ]
    try:
        with inference(model), mode:
            model(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return {key for key, readers in mode.readers.items() if len(readers) > 1}
