# SPDX-License-Identifier: BSD-3-Clause
"""The steps of AIMET's example of mixed precision for Keras, under its module names."""

from __future__ import annotations

import json
from pathlib import Path

from test_compat import run

SCRIPT = """
import numpy as np
from aimet_tensorflow.keras.quantsim import QuantizationSimModel
from aimet_common.defs import CallbackFunc, QuantizationDataType, QuantScheme
from aimet_tensorflow.keras.batch_norm_fold import fold_all_batch_norms
from aimet_tensorflow.keras.mixed_precision import choose_mixed_precision
from aimet_tensorflow.keras.amp.mixed_precision_algo import GreedyMixedPrecisionAlgo
from keras import Input, Sequential, layers, utils

utils.set_random_seed(0)
model = Sequential([Input((8, 8, 1)), layers.Conv2D(4, 3, 2, use_bias=False),
                    layers.BatchNormalization(), layers.ReLU(), layers.Flatten(),
                    layers.Dense(5)])
images = np.random.default_rng(0).normal(size=(32, 8, 8, 1)).astype("float32")
labels = model.predict(images, verbose=0).argmax(1)
_, model = fold_all_batch_norms(model)

def get_eval_func(batch_size, num_iterations=32):
    def func_wrapper(model, iterations):
        if not iterations:
            iterations = num_iterations
        preds = model.predict(images[:iterations], batch_size=batch_size, verbose=0)
        return (preds.argmax(1) == labels[:iterations]).mean()
    return func_wrapper

eval_func = get_eval_func(16)
default_bitwidth = 16
candidate = [((16, QuantizationDataType.int), (8, QuantizationDataType.int)),
             ((8, QuantizationDataType.int), (8, QuantizationDataType.int))]
sim = QuantizationSimModel(model=model,
                           default_output_bw=default_bitwidth,
                           default_param_bw=default_bitwidth,)
sim.compute_encodings(eval_func, forward_pass_callback_args=16)
allowed_accuracy_drop = 0.09
eval_callback = CallbackFunc(eval_func, None)
forward_pass_callback = CallbackFunc(eval_func, 16)
GreedyMixedPrecisionAlgo.ENABLE_CONVERT_OP_REDUCTION = True
pareto_front_list = choose_mixed_precision(
    sim, candidate, eval_callback, eval_callback, allowed_accuracy_drop, "./cmp_res",
    clean_start=True, forward_pass_callback=forward_pass_callback)
print("Mixed Precision Model Accuracy: ", eval_func(sim.model, None))
sim.export(filename_prefix='mixed_precision_quant_model', path='.')

try:
    import aimet_tensorflow.quantsim
except ModuleNotFoundError as error:
    print(error)
"""


def test_the_example_of_mixed_precision_runs(tmp_path: Path) -> None:
    done = run(SCRIPT, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "aimetpp has only aimet_tensorflow.keras" in done.stdout
    info = dict(json.loads((tmp_path / "cmp_res" / "amp_info_list.json").read_text()))
    assert info["final relative bitops"] == 0.5
    for suffix in (".onnx", ".encodings", "_torch.encodings"):
        assert (tmp_path / f"mixed_precision_quant_model{suffix}").exists()
