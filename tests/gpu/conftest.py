# SPDX-License-Identifier: BSD-3-Clause
"""Tests of the CUDA kernels: skipped, and so said, where they cannot run.

They need a GPU and a build that linked the kernels; nothing else here knows of them.

    python -m pytest tests/gpu
"""

import pytest
import torch

from aimetpp import ops


def reason_to_skip() -> str | None:
    """Why the kernels cannot run here; None where they can."""
    if not torch.cuda.is_available():
        return "PyTorch finds no CUDA device"
    one = torch.ones(1, device="cuda")
    try:
        ops.fake_quantize(one, -one, one, ops.integer_grid(8, False, "cuda"), False)
    except NotImplementedError:
        return "this build has no CUDA kernels"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = [item for item in items if "gpu" in item.path.parts]
    reason = reason_to_skip() if here else None
    if reason is not None:
        for item in here:
            item.add_marker(pytest.mark.skip(reason=reason))
