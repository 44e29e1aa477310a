# SPDX-License-Identifier: BSD-3-Clause
"""Calibration statistics of several ranks, as one."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping

from aimetpp import _C
from aimetpp.common.shared_work import join_ranks
from aimetpp.quantization import QuantizeDequantize


def merge_statistics(quantizers: Mapping[str, QuantizeDequantize]) -> None:
    """Gives every quantizer the statistics of all ranks, merged in the order of ranks,
    and the range that they yield. One that no rank has observed stays as it is.

    Args:
        quantizers: by a name that is the same in all ranks.

    Raises:
        RuntimeError: as `QuantizationSimModel.merge_calibration`.
        ValueError: the same.
    """
    work = join_ranks("merge_calibration")
    with work.taking_part():
        texts = work.exchange("statistics", _as_text(quantizers))
    ranks: list[dict[str, str | None]] = [json.loads(text) for text in texts]
    for rank, theirs in enumerate(ranks):
        differing = sorted(theirs.keys() ^ quantizers.keys())
        if differing:
            raise RuntimeError(
                f"merge_calibration: every rank must simulate the same model; rank "
                f"{rank} and rank {work.rank} do not both have the quantizer "
                f"{differing[0]!r}"
            )
    merged = {name: _merged(name, ranks) for name in quantizers}
    for name, quantizer in quantizers.items():
        statistics = merged[name]
        if statistics is not None:
            quantizer.take_statistics(statistics)


def _as_text(quantizers: Mapping[str, QuantizeDequantize]) -> str:
    states = {
        name: (
            base64.b64encode(quantizer.statistics.to_bytes()).decode()
            if quantizer.statistics is not None
            else None
        )
        for name, quantizer in quantizers.items()
    }
    return json.dumps(states)


def _merged(name: str, ranks: list[dict[str, str | None]]) -> _C.Statistics | None:
    merged: _C.Statistics | None = None
    for rank, theirs in enumerate(ranks):
        text = theirs[name]
        if text is None:
            continue
        statistics = _C.Statistics.from_bytes(base64.b64decode(text))
        if merged is None:
            merged = statistics
            continue
        try:
            merged.merge(statistics)
        except ValueError as error:
            raise ValueError(f"quantizer {name!r}, rank {rank}: {error}") from error
    return merged
