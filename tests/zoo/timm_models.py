# SPDX-License-Identifier: BSD-3-Clause
"""The zoo's models of timm."""

from packages import timm
from zoo_entries import Entries, images

ENTRIES = Entries()

for _name, _size in {
    "mobilenetv1_100": 64,
    "mobilenetv4_conv_small": 64,
    "mobilenetv4_hybrid_medium": 64,
    "tf_efficientnetv2_b0": 64,
    "ghostnet_100": 64,
    "hrnet_w18_small": 64,
    "dla34": 64,
    "repvgg_a0": 64,
    "levit_128s": 224,
    "poolformer_s12": 64,
    "pvt_v2_b0": 64,
    "test_maxvit": 64,
    "test_coatnet": 64,
    "test_nfnet": 64,
    "test_mambaout": 64,
    "test_vit_relpos": 64,
}.items():
    _options = {"num_classes": 10}
    if _name in ("test_maxvit", "test_coatnet", "test_vit_relpos"):
        _options["img_size"] = _size
    ENTRIES.add(
        f"timm/{_name}",
        lambda name=_name, options=_options: timm.create_model(name, **options),
        images(_size),
    )

for _name, _size in {
    "deit_tiny_distilled_patch16_224": 64,
    "eva02_tiny_patch14_224": 56,
    "mixer_s32_224": 64,
}.items():
    ENTRIES.add(
        f"timm/{_name}",
        lambda name=_name, size=_size: timm.create_model(
            name, img_size=size, num_classes=10
        ),
        images(_size),
    )
