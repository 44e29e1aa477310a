# SPDX-License-Identifier: BSD-3-Clause
"""The zoo's models of torchvision."""

from collections.abc import Callable

import torch
from packages import torchvision
from torch import nn
from zoo_entries import Entries, images

ENTRIES = Entries()

for _name, _size in {
    "resnet18": 64,
    "resnext50_32x4d": 64,
    "mobilenet_v2": 64,
    "mobilenet_v3_small": 64,
    "efficientnet_b0": 64,
    "densenet121": 64,
    "googlenet": 64,
    "inception_v3": 75,
    "squeezenet1_1": 64,
    "shufflenet_v2_x0_5": 64,
    "regnet_y_400mf": 64,
    "convnext_tiny": 64,
    "mnasnet0_5": 64,
    "swin_t": 64,
}.items():
    _options = {"num_classes": 10}
    if _name in ("googlenet", "inception_v3"):
        _options |= {"aux_logits": False, "init_weights": False}
    ENTRIES.add(
        f"torchvision/{_name}",
        lambda name=_name, options=_options: torchvision.models.get_model(
            name, **options
        ),
        images(_size),
    )

# Their classifiers alone have over 50 million weights: their features, then.
for _name in ("alexnet", "vgg11_bn"):
    ENTRIES.add(
        f"torchvision/{_name}",
        lambda name=_name: torchvision.models.get_model(name, num_classes=10).features,
        images(64),
    )


def _segmentation(name: str) -> nn.Module:
    return torchvision.models.get_model(
        name, weights=None, weights_backbone=None, num_classes=5, aux_loss=None
    )


def _lraspp() -> nn.Module:
    return torchvision.models.get_model(
        "lraspp_mobilenet_v3_large", weights=None, weights_backbone=None, num_classes=5
    )


def _fpn() -> nn.Module:
    return torchvision.models.detection.backbone_utils.resnet_fpn_backbone(
        backbone_name="resnet18", weights=None, trainable_layers=5
    )


def _deeplab() -> nn.Module:
    return _segmentation("deeplabv3_mobilenet_v3_large")


def _fcn() -> nn.Module:
    backbone = torchvision.models.resnet18()
    features = torchvision.models._utils.IntermediateLayerGetter(
        backbone, {"layer4": "out"}
    )
    head = torchvision.models.segmentation.fcn.FCNHead(512, 5)
    return torchvision.models.segmentation.FCN(features, head)


def _clip() -> Callable[[], torch.Tensor]:
    return lambda: torch.randn(1, 3, 4, 32, 32)


ENTRIES.add("torchvision/fcn_resnet18", _fcn, images(64))
ENTRIES.add("torchvision/deeplabv3_mobilenet_v3", _deeplab, images(64))
ENTRIES.add("torchvision/lraspp_mobilenet_v3", _lraspp, images(64))
ENTRIES.add("torchvision/resnet18_fpn", _fpn, images(64))
ENTRIES.add("torchvision/r3d_18", lambda: torchvision.models.video.r3d_18(), _clip())
ENTRIES.add(
    "torchvision/vit",
    lambda: torchvision.models.VisionTransformer(
        image_size=32,
        patch_size=8,
        num_layers=3,
        num_heads=4,
        hidden_dim=64,
        mlp_dim=128,
        num_classes=10,
    ),
    images(32),
)
