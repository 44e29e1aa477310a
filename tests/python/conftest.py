# SPDX-License-Identifier: BSD-3-Clause
"""What one test leaves behind must not reach the next."""

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def no_compiled_code() -> Iterator[None]:
    """torch.compile counts recompilations per function, for the whole process."""
    yield
    compiler = sys.modules.get("torch._dynamo")
    if compiler is not None:
        compiler.reset()
