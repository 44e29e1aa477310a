# SPDX-License-Identifier: BSD-3-Clause
"""One forward that is served from a recording."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from aimetpp import _C


class Playback:
    """Where the calls of one forward find what they gave before (nn/replay.py).

    Args:
        recording: of the forward's batch.
        index: by (module, op, ordinal), the call's index in the graph; a module's own
            call has no op.
    """

    def __init__(
        self, recording: _C.Recording, index: dict[tuple[str, str, int], int]
    ) -> None:
        self._recording = recording
        self._index = index

    def call(
        self,
        key: tuple[str, str, int],
        args: Any,
        kwargs: Any,
        compute: Callable[[], Any],
        module: Any = None,
    ) -> Any:
        """What a call gives, kept or computed; `module` is None for a functional op."""
        index = self._index.get(key)
        if index is None:
            self._recording.note_read((args, kwargs))
            return compute()
        return self._recording.call(index, args, kwargs, compute, module)

    def note_read(self, func: Any, args: Any, kwargs: Any) -> None:
        """A function that is no call reads its arguments."""
        if func in _EXPOSING:
            self._recording.note_exposed((args, kwargs))
        elif func not in _NO_READERS:
            self._recording.note_read((args, kwargs))


# Functions that look at no values.
_NO_READERS = {
    torch.Tensor.size,
    torch.Tensor.dim,
    torch.Tensor.numel,
    torch.Tensor.stride,
    torch.Tensor.is_floating_point,
    torch.Tensor.shape.__get__,  # type: ignore[attr-defined]
    torch.Tensor.ndim.__get__,  # type: ignore[attr-defined]
    torch.Tensor.dtype.__get__,  # type: ignore[attr-defined]
    torch.Tensor.device.__get__,
}
# Functions after which a tensor may be written without its version changing.
_EXPOSING = {
    torch.Tensor.data.__get__,  # type: ignore[attr-defined]
    torch.Tensor.numpy,
    torch.Tensor.__array__,
    torch.Tensor.__dlpack__,
    torch.Tensor.data_ptr,
    torch.Tensor.untyped_storage,
    torch.Tensor.storage,
    torch.Tensor._typed_storage,
}
