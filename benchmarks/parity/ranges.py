# SPDX-License-Identifier: BSD-3-Clause
"""Ranges and encodings that aimet-torch chooses, as golden numbers for aimetpp.

Run with an interpreter that has aimet-torch (2.42.0 was used), not aimetpp:

    python benchmarks/parity/ranges.py tests/golden/encodings.json

The file holds no data, only how to make it: `values` is a linear congruential
generator in exact double arithmetic that tests/cpp/quantizer/test_golden.cpp
repeats number by number. That test then compares what aimetpp derives from the
same data.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from parity_data import batch, values

# Per-channel cases have the channels first and one batch. Constants are in
# "extremes_only": there the histogram schemes differ on purpose.
CASES: list[dict[str, Any]] = [
    {"name": "bell", "batches": [batch([5000], 1)]},
    {"name": "outlier", "batches": [batch([5000], 2, set=[[17, 9.0]])]},
    {"name": "relu", "batches": [batch([4000], 3, "uniform", 6.0)]},
    {"name": "negative", "batches": [batch([3000], 4, "uniform", -0.37, -0.01)]},
    {"name": "shifted", "batches": [batch([3000], 5, "bell", 0.5, 10.0)]},
    {"name": "small", "batches": [batch([3000], 6, "bell", 1e-6)]},
    {"name": "large", "batches": [batch([3000], 7, "bell", 3e5)]},
    {"name": "few", "batches": [batch([7], 8)]},
    {
        "name": "growing",
        "batches": [
            batch([2000], 9, "bell", 1.0, 0.3),
            batch([2000], 10, "bell", 2.5),
            batch([2000], 11, "bell", 0.5),
        ],
    },
    {
        "name": "beyond_growth",
        "batches": [batch([2000], 12), batch([2000], 13, "bell", 40.0, -3.0)],
    },
    {
        "name": "infinities",
        "histograms_only": True,
        "batches": [batch([2000], 14, set=[[3, "inf"], [99, "-inf"]])],
    },
    {"name": "channels", "batches": [batch([6, 150], 15)]},
    {"name": "short_channels", "batches": [batch([5, 9], 16, "bell", 0.1)]},
    {"name": "zeros", "extremes_only": True, "batches": [batch([10], 1, "constant")]},
    {
        "name": "constant",
        "extremes_only": True,
        "batches": [batch([10], 1, "constant", 1.0, 0.731)],
    },
]
BITWIDTHS = [2, 4, 8, 16]
PERCENTILES = [100.0, 99.9, 99.0, 90.0]


def analyzers(shape: tuple[int, ...]) -> list[tuple[str, float, Any]]:
    """(scheme, percentile, analyzer); mse: the settings of aimetpp's scheme."""
    from aimet_torch.quantization import encoding_analyzer as ea

    return [
        ("min_max", 100.0, ea.MinMaxEncodingAnalyzer(shape)),
        ("tf_enhanced", 100.0, ea.TfEnhancedEncodingAnalyzer(shape)),
        (
            "mse",
            100.0,
            ea.SqnrEncodingAnalyzer(
                shape,
                num_bins=2048,
                asymmetric_delta_candidates=65,
                symmetric_delta_candidates=401,
                offset_candidates=41,
                max_parallelism=1,
                gamma=1.0,
            ),
        ),
        *(
            ("percentile", p, ea.PercentileEncodingAnalyzer(shape, percentile=p))
            for p in PERCENTILES
        ),
    ]


def encode(
    low: torch.Tensor, high: torch.Tensor, bitwidth: int, symmetric: bool
) -> dict[str, Any]:
    """The range and what aimet-torch's quantizer makes of it, as lists."""
    from aimet_torch.quantization.affine import QuantizeDequantize

    quantizer = QuantizeDequantize(
        shape=tuple(low.shape), bitwidth=bitwidth, symmetric=symmetric
    )
    quantizer.set_range(low, high)
    numbers = {
        "min": low,
        "max": high,
        "scale": quantizer.get_scale(),
        "offset": quantizer.get_offset(),
        "grid_min": quantizer.get_min(),
        "grid_max": quantizer.get_max(),
    }
    return {key: tensor.flatten().tolist() for key, tensor in numbers.items()}


def run_case(case: dict[str, Any]) -> dict[str, Any]:
    """The case with "num_channels", "results" and "histogram" added."""
    shape = case["batches"][0]["shape"]
    num_channels = shape[0] if len(shape) > 1 else 1
    results = []
    histogram = None
    for scheme, percentile, analyzer in analyzers(
        (num_channels, 1) if num_channels > 1 else ()
    ):
        if case.get("extremes_only") and scheme != "min_max":
            continue
        if case.get("histograms_only") and scheme == "min_max":
            continue
        for entry in case["batches"]:
            analyzer.update_stats(values(entry))
        if scheme == "tf_enhanced" and num_channels == 1:
            stats = analyzer.observer.get_stats()[0]
            histogram = {
                "lo": stats.min.item(),
                "hi": stats.max.item(),
                "counts": [int(count) for count in stats.histogram.tolist()],
            }
        for bitwidth in BITWIDTHS:
            for symmetric in (False, True):
                low, high = analyzer.compute_encodings(2**bitwidth - 1, symmetric)
                results.append(
                    {
                        "scheme": scheme,
                        "percentile": percentile,
                        "bitwidth": bitwidth,
                        "symmetric": symmetric,
                        **encode(low, high, bitwidth, symmetric),
                    }
                )
    return {
        **case,
        "num_channels": num_channels,
        "histogram": histogram,
        "results": results,
    }


def main(arguments: list[str]) -> int:
    """Writes the file named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path, help="the JSON file to write")
    output = parser.parse_args(arguments).output
    try:
        import aimet_torch
    except ImportError as error:
        print(f"This interpreter has no aimet-torch: {error}", file=sys.stderr)
        return 1
    golden = {
        "producer": f"aimet-torch {aimet_torch.__version__}, torch {torch.__version__}",
        "cases": [run_case(case) for case in CASES],
    }
    lines = ",\n".join(json.dumps(case) for case in golden["cases"])
    output.write_text(
        f'{{"producer": {json.dumps(golden["producer"])}, "cases": [\n{lines}\n]}}\n'
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
