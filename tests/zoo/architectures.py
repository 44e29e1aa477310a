# SPDX-License-Identifier: BSD-3-Clause
"""The models of the zoo: random weights, small inputs, nothing downloaded.

Each entry of ARCHITECTURES makes (model in eval mode, example input). Their
classifiers have ten classes where the package lets one choose.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from packages import timm, torchvision, transformers
from torch import nn
from torch.utils import _pytree as pytree

Example = tuple[nn.Module, Any]

ARCHITECTURES: dict[str, Callable[[], Example]] = {}


def run(model: nn.Module, example: Any) -> Any:
    """One forward without gradients, a dict's entries as keyword arguments."""
    with torch.no_grad():
        return model(**example) if isinstance(example, dict) else model(example)


def sqnr(expected: Any, got: Any) -> float:
    """Signal power over noise power of all floating tensors in a nested result, in dB.

    Raises:
        AssertionError: they are not as many, or not all finite.
    """
    signal = noise = 0.0
    pairs = zip(pytree.tree_leaves(expected), pytree.tree_leaves(got), strict=True)
    for x, y in pairs:
        if isinstance(x, torch.Tensor) and x.is_floating_point():
            assert y.isfinite().all() and x.any()
            signal += x.double().square().sum().item()
            noise += (x.double() - y.double()).square().sum().item()
    return 10 * math.log10(signal / noise) if noise else math.inf


def _follow_input(norm: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
    norm.running_mean.fill_(args[0].mean())
    norm.running_var.fill_(args[0].var())


def make(name: str) -> Example:
    """The named model in eval mode and its input, the same on every call.

    Before training, activations vanish in some models before they reach the output.
    So every batch norm gets the mean and variance of all it reads (per channel, a few
    small images would make the model amplify all noise), and a classifier of zeros
    gets random weights.
    """
    torch.manual_seed(0)
    model, example = ARCHITECTURES[name]()
    model.eval()
    for parameter in model.parameters():
        if parameter.dim() > 1 and not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    hooks = [
        module.register_forward_pre_hook(_follow_input)
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
    ]
    if hooks:
        run(model, example)
    for hook in hooks:
        hook.remove()
    return model, example


def _add(name: str, build: Callable[[], nn.Module], example: Callable[[], Any]) -> None:
    ARCHITECTURES[name] = lambda: (build(), example())


def _images(size: int, batch: int = 2) -> Callable[[], torch.Tensor]:
    return lambda: torch.randn(batch, 3, size, size)


def _tokens(**lengths: int) -> Callable[[], dict[str, torch.Tensor]]:
    return lambda: {k: torch.randint(3, 100, (2, n)) for k, n in lengths.items()}


# -- torchvision ------------------------------------------------------------

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
    _add(
        f"torchvision/{_name}",
        lambda name=_name, options=_options: torchvision.models.get_model(
            name, **options
        ),
        _images(_size),
    )

# Their classifiers alone have over 50 million weights: their features, then.
for _name in ("alexnet", "vgg11_bn"):
    _add(
        f"torchvision/{_name}",
        lambda name=_name: torchvision.models.get_model(name, num_classes=10).features,
        _images(64),
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


_add("torchvision/fcn_resnet18", _fcn, _images(64))
_add("torchvision/deeplabv3_mobilenet_v3", _deeplab, _images(64))
_add("torchvision/lraspp_mobilenet_v3", _lraspp, _images(64))
_add("torchvision/resnet18_fpn", _fpn, _images(64))
_add("torchvision/r3d_18", lambda: torchvision.models.video.r3d_18(), _clip())
_add(
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
    _images(32),
)

# -- timm -------------------------------------------------------------------

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
    _add(
        f"timm/{_name}",
        lambda name=_name, options=_options: timm.create_model(name, **options),
        _images(_size),
    )

for _name, _size in {
    "deit_tiny_distilled_patch16_224": 64,
    "eva02_tiny_patch14_224": 56,
    "mixer_s32_224": 64,
}.items():
    _add(
        f"timm/{_name}",
        lambda name=_name, size=_size: timm.create_model(
            name, img_size=size, num_classes=10
        ),
        _images(_size),
    )

# -- transformers -----------------------------------------------------------

_SIZES = {
    "vocab_size": 100,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
}
_SPECIAL = {"bos_token_id": 0, "eos_token_id": 2}
_VISION = {
    "image_size": 32,
    "patch_size": 8,
    **{key: value for key, value in _SIZES.items() if key != "vocab_size"},
}


def _add_transformer(
    name: str,
    example: Callable[[], Any],
    *,
    sizes: dict[str, Any] = _SIZES,
    config: str = "",
    **more: Any,
) -> None:
    """`name` is the model's class; its config's is that with "Config" behind the
    prefix, unless `config` names it.
    """

    def build() -> nn.Module:
        made = getattr(transformers, config)(**(sizes | more))
        return getattr(transformers, name)(made)

    _add(f"transformers/{name}", build, example)


_add_transformer(
    "BertForSequenceClassification",
    _tokens(input_ids=12),
    config="BertConfig",
)
_add_transformer("RobertaModel", _tokens(input_ids=12), config="RobertaConfig")
_add_transformer(
    "DistilBertModel",
    _tokens(input_ids=12),
    config="DistilBertConfig",
    sizes={"vocab_size": 100, "dim": 64, "n_layers": 2, "n_heads": 4},
    hidden_dim=128,
)
_add_transformer(
    "AlbertModel", _tokens(input_ids=12), config="AlbertConfig", embedding_size=32
)
_add_transformer(
    "ElectraModel", _tokens(input_ids=12), config="ElectraConfig", embedding_size=32
)
_add_transformer(
    "GPT2LMHeadModel",
    _tokens(input_ids=12),
    config="GPT2Config",
    sizes={"vocab_size": 100, "n_embd": 64, "n_layer": 2, "n_head": 4, **_SPECIAL},
    use_cache=False,
)
_add_transformer(
    "LlamaForCausalLM",
    _tokens(input_ids=12),
    config="LlamaConfig",
    num_key_value_heads=2,
    use_cache=False,
)
_add_transformer(
    "T5Model",
    _tokens(input_ids=12, decoder_input_ids=7),
    config="T5Config",
    sizes={"vocab_size": 100, "d_model": 64, "d_kv": 16, "d_ff": 128},
    num_layers=2,
    num_heads=4,
    use_cache=False,
)
_add_transformer(
    "BartModel",
    _tokens(input_ids=12, decoder_input_ids=7),
    config="BartConfig",
    sizes={
        "vocab_size": 100,
        "d_model": 64,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 128,
        "decoder_ffn_dim": 128,
        "use_cache": False,
    },
)
_add_transformer("ViTModel", _images(32), config="ViTConfig", sizes=_VISION)
_add_transformer(
    "CLIPVisionModel", _images(32), config="CLIPVisionConfig", sizes=_VISION
)
_add_transformer(
    "CLIPTextModel",
    _tokens(input_ids=12),
    config="CLIPTextConfig",
    sizes=_SIZES | _SPECIAL,
)
_add_transformer(
    "SegformerForSemanticSegmentation",
    _images(64),
    config="SegformerConfig",
    sizes={"hidden_sizes": [8, 16, 32, 64], "decoder_hidden_size": 32},
    depths=[1, 1, 1, 1],
)
_add_transformer(
    "Wav2Vec2Model",
    lambda: torch.randn(1, 2000),
    config="Wav2Vec2Config",
    sizes=_SIZES,
    conv_dim=(32, 32, 32),
    conv_stride=(5, 2, 2),
    conv_kernel=(10, 3, 3),
    num_conv_pos_embeddings=16,
    num_conv_pos_embedding_groups=4,
)
_add_transformer(
    "WhisperModel",
    lambda: {
        "input_features": torch.randn(1, 16, 40),
        "decoder_input_ids": torch.randint(3, 100, (1, 6)),
    },
    config="WhisperConfig",
    sizes={
        "vocab_size": 100,
        "d_model": 64,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 128,
        "decoder_ffn_dim": 128,
        "num_mel_bins": 16,
        "max_source_positions": 20,
        "max_target_positions": 20,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 1,
        "use_cache": False,
    },
)

# -- recurrent, one- and three-dimensional, transposed -----------------------


class TextRecurrence(nn.Module):
    """Embedding, two LSTM layers in both directions, GRU, the last step's scores."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(100, 32)
        self.lstm = nn.LSTM(32, 24, num_layers=2, bidirectional=True, batch_first=True)
        self.gru = nn.GRU(48, 32, batch_first=True)
        self.head = nn.Linear(32, 10)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x, _ = self.lstm(self.embedding(tokens))
        x, last = self.gru(x)
        return self.head(last[-1])


class SpeechEncoderDecoder(nn.Module):
    """One-dimensional convolutions and their transposes, with a skip and a cat."""

    def __init__(self) -> None:
        super().__init__()
        self.down1 = nn.Conv1d(1, 16, 8, stride=4, padding=2)
        self.down2 = nn.Conv1d(16, 32, 8, stride=4, padding=2)
        self.up2 = nn.ConvTranspose1d(32, 16, 8, stride=4, padding=2)
        self.up1 = nn.ConvTranspose1d(32, 1, 8, stride=4, padding=2)
        self.glu = nn.GLU(dim=1)

    def forward(self, wave: torch.Tensor) -> torch.Tensor:
        skip = torch.relu(self.down1(wave))
        low, high = self.down2(skip).chunk(2, dim=1)
        middle = self.glu(torch.cat([low * 2, high, low, high], dim=1))
        return self.up1(torch.cat([torch.relu(self.up2(middle)), skip], dim=1))


class VolumeUNet(nn.Module):
    """Three-dimensional convolutions, a transposed one, group norms."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv3d(1, 8, 3, padding=1)
        self.norm = nn.GroupNorm(2, 8)
        self.down = nn.Conv3d(8, 16, 2, stride=2)
        self.up = nn.ConvTranspose3d(16, 8, 2, stride=2)
        self.last = nn.Conv3d(16, 3, 1)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        skip = nn.functional.silu(self.norm(self.first(x)))
        x = nn.functional.leaky_relu(self.up(self.down(skip)))
        return {"logits": self.last(torch.cat((skip, x), 1)), "features": skip}


_add(
    "custom/text_recurrence",
    TextRecurrence,
    lambda: torch.randint(0, 100, (2, 9)),
)
_add(
    "custom/speech_encoder_decoder",
    SpeechEncoderDecoder,
    lambda: torch.randn(2, 1, 256),
)
_add("custom/volume_unet", VolumeUNet, lambda: torch.randn(1, 1, 8, 8, 8))
