# SPDX-License-Identifier: BSD-3-Clause
"""A front as aimet-torch 2.42 searches it, beside which benchmarks/amp.py measures.

As shipped, its every calibration looks for the grid that weights may lie on already,
which takes more than ten times as long as all the rest of a search. Here that is taken
out.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from packages import torchvision
from torch import nn


@dataclass(frozen=True)
class ReferenceFront:
    """What the search took, in CPU seconds, and how often it evaluated."""

    seconds: float
    phase1_seconds: float
    evaluations: int


class _Batches:
    """A data loader, as far as the metric needs one."""

    def __init__(self, batches: list[torch.Tensor]) -> None:
        self.batches = batches
        self.batch_size = len(batches[0])

    def __iter__(self) -> Any:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def reference_front(
    name: str, batches: list[torch.Tensor], candidates: list[tuple[Any, Any]]
) -> ReferenceFront | None:
    """One search with the arguments of `front` in benchmarks/amp.py; None where
    aimet-torch cannot be imported.
    """
    logging.disable(logging.CRITICAL)
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            return _front(name, batches, candidates)
        except ImportError:
            return None
        finally:
            logging.disable(logging.NOTSET)


def _front(
    name: str, batches: list[torch.Tensor], candidates: list[tuple[Any, Any]]
) -> ReferenceFront:
    from aimet_torch.amp.mixed_precision_algo import EvalCallbackFactory
    from aimet_torch.batch_norm_fold import fold_all_batch_norms
    from aimet_torch.common.amp.utils import AMPSearchAlgo
    from aimet_torch.common.defs import CallbackFunc, QuantizationDataType
    from aimet_torch.mixed_precision import choose_mixed_precision
    from aimet_torch.quantsim import QuantizationSimModel

    _without_grid_search()
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None).eval()
    _make_modules(model)
    fold_all_batch_norms(model, (1, 3, 64, 64))
    sim = QuantizationSimModel(
        model,
        batches[0][:1],
        quant_scheme="tf",
        default_output_bw=16,
        default_param_bw=16,
    )

    def calibrate(model: nn.Module, _: Any = None) -> None:
        with torch.no_grad():
            for batch in batches:
                model(batch)

    sim.compute_encodings(calibrate, None)
    kinds = QuantizationDataType
    translated = [
        tuple((bits, getattr(kinds, kind.name)) for bits, kind in candidate)
        for candidate in candidates
    ]
    samples = sum(len(batch) for batch in batches)
    metric = EvalCallbackFactory(_Batches(batches)).sqnr(samples)
    ends: dict[str, list[float]] = {"phase 1": [], "phase 2": []}
    phase1, phase2 = (
        CallbackFunc(_noted(metric.func, found), metric.args) for found in ends.values()
    )
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        choose_mixed_precision(
            sim,
            batches[0][:1],
            translated,
            phase1,
            phase2,
            None,
            folder,
            True,
            CallbackFunc(calibrate, None),
            amp_search_algo=AMPSearchAlgo.BruteForce,
        )
        seconds = time.process_time() - start
    first, last = ends["phase 1"][0], ends["phase 1"][-1]
    return ReferenceFront(seconds, last - first, sum(map(len, ends.values())))


def _noted(func: Callable[..., Any], ends: list[float]) -> Callable[..., Any]:
    """Calls `func`, and notes at what CPU time each call ended."""

    def call(*args: Any) -> Any:
        result = func(*args)
        ends.append(time.process_time())
        return result

    return call


def _without_grid_search() -> None:
    from aimet_torch.nn import base

    def fail(*_: Any, **__: Any) -> Any:
        raise base._DecompositionError

    base._decompose_prequantized_tensor = fail


def _make_modules(model: nn.Module) -> None:
    """Additions and activations of residual blocks as modules of their own: the
    reference quantizes no others.
    """
    from aimet_torch.nn.modules.custom import Add

    class Block(torchvision.models.resnet.BasicBlock):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            identity = x if self.downsample is None else self.downsample(x)
            out = self.relu(self.bn1(self.conv1(x)))
            return self.relu2(self.add(self.bn2(self.conv2(out)), identity))

    for module in model.modules():
        if type(module) is torchvision.models.resnet.BasicBlock:
            module.__class__ = Block
            module.add, module.relu2 = Add(), nn.ReLU(inplace=True)
