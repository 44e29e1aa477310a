# SPDX-License-Identifier: BSD-3-Clause
"""torchvision, timm and transformers, wherever their wheels can be imported."""

import importlib
import types

import torch

_INSTALL = "run `make setup-test`, or pip install --no-deps -r requirements/zoo.txt"


def _import(name: str) -> types.ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"the tests of tests/zoo need {name}: {_INSTALL} ({error})"
        ) from error


def _import_torchvision() -> types.ModuleType:
    """torchvision's own ops are compiled for one build of PyTorch. Beside another (a
    CPU build, for the wheel on PyPI) they do not load, and importing torchvision
    then fails where it registers a fake kernel for `nms`. That no model here calls:
    its schema alone is enough.
    """
    try:
        return _import("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    for name in ("nms", "qnms"):
        torch.library.define(
            f"torchvision::{name}",
            "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        )
    return _import("torchvision")


torchvision = _import_torchvision()
timm = _import("timm")
transformers = _import("transformers")
