# SPDX-License-Identifier: BSD-3-Clause
"""Mixed-precision quantization for PyTorch: simulate, search, fine-tune, export."""

import torch  # noqa: F401 - its libraries must be loaded before ours

from aimetpp import _loader

_loader.load()

from aimetpp.amp.mixed_precision_algo import (  # noqa: E402
    EvalCallbackFactory,
    GreedyMixedPrecisionAlgo,
)
from aimetpp.common.amp.utils import AMPSearchAlgo  # noqa: E402
from aimetpp.common.defs import (  # noqa: E402
    CallbackFunc,
    QuantizationDataType,
    QuantScheme,
)
from aimetpp.mixed_precision import (  # noqa: E402
    MixedPrecisionConfigurator,
    Precision,
    choose_fast_mixed_precision,
    choose_mixed_precision,
)
from aimetpp.quantsim import QuantizationSimModel  # noqa: E402

__version__ = "0.1.0"

__all__ = [
    "AMPSearchAlgo",
    "CallbackFunc",
    "EvalCallbackFactory",
    "GreedyMixedPrecisionAlgo",
    "MixedPrecisionConfigurator",
    "Precision",
    "QuantScheme",
    "QuantizationDataType",
    "QuantizationSimModel",
    "choose_fast_mixed_precision",
    "choose_mixed_precision",
]
