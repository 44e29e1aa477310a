# SPDX-License-Identifier: BSD-3-Clause
"""The zoo's models of transformers, made small."""

from collections.abc import Callable
from typing import Any

import torch
from packages import transformers
from torch import nn
from zoo_entries import Entries, images, tokens

ENTRIES = Entries()

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

    ENTRIES.add(f"transformers/{name}", build, example)


_add_transformer(
    "BertForSequenceClassification",
    tokens(input_ids=12),
    config="BertConfig",
)
_add_transformer("RobertaModel", tokens(input_ids=12), config="RobertaConfig")
_add_transformer(
    "DistilBertModel",
    tokens(input_ids=12),
    config="DistilBertConfig",
    sizes={"vocab_size": 100, "dim": 64, "n_layers": 2, "n_heads": 4},
    hidden_dim=128,
)
_add_transformer(
    "AlbertModel", tokens(input_ids=12), config="AlbertConfig", embedding_size=32
)
_add_transformer(
    "ElectraModel", tokens(input_ids=12), config="ElectraConfig", embedding_size=32
)
_add_transformer(
    "GPT2LMHeadModel",
    tokens(input_ids=12),
    config="GPT2Config",
    sizes={"vocab_size": 100, "n_embd": 64, "n_layer": 2, "n_head": 4, **_SPECIAL},
    use_cache=False,
)
_add_transformer(
    "LlamaForCausalLM",
    tokens(input_ids=12),
    config="LlamaConfig",
    num_key_value_heads=2,
    use_cache=False,
)
_add_transformer(
    "T5Model",
    tokens(input_ids=12, decoder_input_ids=7),
    config="T5Config",
    sizes={"vocab_size": 100, "d_model": 64, "d_kv": 16, "d_ff": 128},
    num_layers=2,
    num_heads=4,
    use_cache=False,
)
_add_transformer(
    "BartModel",
    tokens(input_ids=12, decoder_input_ids=7),
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
_add_transformer("ViTModel", images(32), config="ViTConfig", sizes=_VISION)
_add_transformer(
    "CLIPVisionModel", images(32), config="CLIPVisionConfig", sizes=_VISION
)
_add_transformer(
    "CLIPTextModel",
    tokens(input_ids=12),
    config="CLIPTextConfig",
    sizes=_SIZES | _SPECIAL,
)
_add_transformer(
    "SegformerForSemanticSegmentation",
    images(64),
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
