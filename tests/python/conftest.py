# SPDX-License-Identifier: BSD-3-Clause
"""What one test leaves behind must not reach the next."""

import os
import sys
from collections.abc import Iterator

import pytest
import torch

os.environ["KERAS_BACKEND"] = "torch"  # Keras reads it once, when it is imported


@pytest.fixture(autouse=True)
def no_compiled_code() -> Iterator[None]:
    """torch.compile counts recompilations per function, for the whole process."""
    yield
    compiler = sys.modules.get("torch._dynamo")
    if compiler is not None:
        compiler.reset()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """More threads sum in another order, and what they train is another net."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
