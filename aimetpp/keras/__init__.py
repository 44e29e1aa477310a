# SPDX-License-Identifier: BSD-3-Clause
"""Keras models on Keras's PyTorch backend.

Set the environment variable KERAS_BACKEND=torch before Keras is imported. Keras on
TensorFlow or JAX is not supported.
"""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

try:
    import keras as _keras  # noqa: F401
except ImportError as error:
    raise ImportError(
        "aimetpp.keras needs Keras 3, which is not installed: "
        "pip install 'aimetpp[keras]'"
    ) from error

from aimetpp.keras.batch_norm_fold import fold_all_batch_norms
from aimetpp.keras.mixed_precision import (
    choose_fast_mixed_precision,
    choose_mixed_precision,
)
from aimetpp.keras.quantsim import QuantizationSimModel

__all__ = [
    "QuantizationSimModel",
    "choose_fast_mixed_precision",
    "choose_mixed_precision",
    "fold_all_batch_norms",
]
