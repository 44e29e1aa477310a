# SPDX-License-Identifier: BSD-3-Clause
"""One of two ranks that calibrate on shares of the data, as a process:
`calibration_rank.py STORE RANK MODE`. Prints the ranges as JSON, by scheme.

MODE: "shares"; "one share", where rank 1 has no data; "other model"; "dies", where rank
1 ends before it gives its part.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from aimetpp.common import shared_work
from aimetpp.common.shared_work import join_ranks
from aimetpp.quantsim import QuantizationSimModel

SCHEMES = ("min_max", "tf_enhanced", "percentile", "mse")
shared_work.LEASE_SECONDS = 2.0


def simulation(scheme: str, layers: int = 2) -> QuantizationSimModel:
    torch.manual_seed(0)
    parts = [part for _ in range(layers) for part in (nn.Linear(8, 8), nn.ReLU())]
    return QuantizationSimModel(
        nn.Sequential(*parts), torch.ones(1, 8), quant_scheme=scheme
    )


def batches() -> list[torch.Tensor]:
    """Each of another width, the widest in the second half."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(64, 8, generator=generator) * (1 + i / 4) for i in range(6)]


def calibrate(sim: QuantizationSimModel, data: list[torch.Tensor]) -> None:
    sim.compute_encodings(lambda model: [model(x) for x in data])


def ranges(sim: QuantizationSimModel) -> list[list[float]]:
    return [
        [*quantizer.min.flatten().tolist(), *quantizer.max.flatten().tolist()]
        for quantizer in sim.quantizers_by_index
    ]


def main(path: str, rank: int, mode: str) -> None:
    store = dist.FileStore(path, 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    if mode == "dies" and rank == 1:
        with join_ranks("merge_calibration").taking_part():
            os._exit(0)
    found: dict[str, Any] = {}
    for scheme in SCHEMES:
        sim = simulation(scheme, 3 if mode == "other model" and rank == 1 else 2)
        shares = [batches(), []] if mode == "one share" else None
        mine = shares[rank] if shares else batches()[rank * 3 :][:3]
        if mine:
            calibrate(sim, mine)
        sim.merge_calibration()
        found[scheme] = {"ranges": ranges(sim), "uncalibrated": sim.uncalibrated()}
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
