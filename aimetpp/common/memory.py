# SPDX-License-Identifier: BSD-3-Clause
"""How much memory something takes, and how much is free."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from pathlib import Path

import torch


class PeakMemory:
    """The most memory that was held within a context, all that is held counted.

    On a GPU: what PyTorch had allocated there, whose peak statistics are reset.
    Elsewhere: the process's resident memory; where the system cannot reset its peak,
    that of the process since it began.

    Args:
        device: where the work is done.

    Attributes:
        peak_bytes: after the context.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.peak_bytes = 0

    def __enter__(self) -> PeakMemory:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            with contextlib.suppress(OSError):  # not Linux, or not allowed
                Path("/proc/self/clear_refs").write_text("5")
        return self

    def __exit__(self, *_: object) -> None:
        if self._device.type == "cuda":
            self.peak_bytes = torch.cuda.max_memory_allocated(self._device)
        else:
            self.peak_bytes = _resident_peak()


def _resident_peak() -> int:
    for line in _lines("/proc/self/status"):
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device; of a container, within its limit."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = [os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemAvailable:"):  # with what the page cache would give
            free = [int(line.split()[1]) * 1024]
    # A container's own limit.
    limit = _lines("/sys/fs/cgroup/memory.max")
    used = _lines("/sys/fs/cgroup/memory.current")
    if limit and used and limit[0].isdigit():
        free.append(int(limit[0]) - int(used[0]))
    return max(min(free), 0)


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(errors="replace").splitlines()
    except OSError:  # not Linux, or no limits
        return []
