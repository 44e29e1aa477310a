# SPDX-License-Identifier: BSD-3-Clause
"""Mixed-precision quantization for PyTorch: simulate, search, fine-tune, export."""

import torch  # noqa: F401 - its libraries must be loaded before ours

from aimetpp import _loader

_loader.load()

from aimetpp._loader import cmake_prefix_path  # noqa: E402
from aimetpp.adaround import Adaround, AdaroundParameters  # noqa: E402
from aimetpp.amp.mixed_precision_algo import (  # noqa: E402
    EvalCallbackFactory,
    GreedyMixedPrecisionAlgo,
)
from aimetpp.batch_norm_fold import (  # noqa: E402
    fold_all_batch_norms,
    fold_all_batch_norms_to_scale,
)
from aimetpp.bias_correction import correct_bias  # noqa: E402
from aimetpp.bn_reestimation import reestimate_bn_stats  # noqa: E402
from aimetpp.common.amp.utils import AMPSearchAlgo  # noqa: E402
from aimetpp.common.defs import (  # noqa: E402
    CallbackFunc,
    QuantizationDataType,
    QuantScheme,
)
from aimetpp.cross_layer_equalization import equalize_model  # noqa: E402
from aimetpp.mixed_precision import (  # noqa: E402
    MixedPrecisionConfigurator,
    Precision,
    choose_fast_mixed_precision,
    choose_mixed_precision,
)
from aimetpp.quantsim import QuantizationSimModel, QuantParams  # noqa: E402
from aimetpp.seq_mse import apply_seq_mse  # noqa: E402

__version__ = "0.1.0"

__all__ = [
    "AMPSearchAlgo",
    "Adaround",
    "AdaroundParameters",
    "CallbackFunc",
    "EvalCallbackFactory",
    "GreedyMixedPrecisionAlgo",
    "MixedPrecisionConfigurator",
    "Precision",
    "QuantParams",
    "QuantScheme",
    "QuantizationDataType",
    "QuantizationSimModel",
    "apply_seq_mse",
    "cmake_prefix_path",
    "choose_fast_mixed_precision",
    "choose_mixed_precision",
    "correct_bias",
    "equalize_model",
    "fold_all_batch_norms",
    "fold_all_batch_norms_to_scale",
    "reestimate_bn_stats",
]
