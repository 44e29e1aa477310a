# SPDX-License-Identifier: BSD-3-Clause
"""Small images leave a second thread nothing to do but wait."""

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
