# SPDX-License-Identifier: BSD-3-Clause
"""What one test leaves behind must not reach the next."""

import os
import sys
from collections.abc import Iterator

import pytest

os.environ["KERAS_BACKEND"] = "torch"  # Keras reads it once, when it is imported


@pytest.fixture(autouse=True)
def no_compiled_code() -> Iterator[None]:
    """torch.compile counts recompilations per function, for the whole process."""
    yield
    compiler = sys.modules.get("torch._dynamo")
    if compiler is not None:
        compiler.reset()
