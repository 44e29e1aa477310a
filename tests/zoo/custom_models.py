# SPDX-License-Identifier: BSD-3-Clause
"""The zoo's own models: recurrent, one- and three-dimensional, transposed."""

import torch
from torch import nn
from zoo_entries import Entries

ENTRIES = Entries()


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


ENTRIES.add(
    "custom/text_recurrence",
    TextRecurrence,
    lambda: torch.randint(0, 100, (2, 9)),
)
ENTRIES.add(
    "custom/speech_encoder_decoder",
    SpeechEncoderDecoder,
    lambda: torch.randn(2, 1, 256),
)
ENTRIES.add("custom/volume_unet", VolumeUNet, lambda: torch.randn(1, 1, 8, 8, 8))
