# SPDX-License-Identifier: BSD-3-Clause
"""Running ONNX models in onnxruntime, for the tests of the export."""

import pytest

ort = pytest.importorskip("onnxruntime")


def run(model, feeds, optimized=False):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if not optimized:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    data = model if isinstance(model, str | bytes) else model.SerializeToString()
    return ort.InferenceSession(data, options).run(None, feeds)
