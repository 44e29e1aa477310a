# SPDX-License-Identifier: BSD-3-Clause
"""Paths of the shipped config files, under the reference's names."""

from __future__ import annotations

from aimetpp.common.configs import find_config


def get_path_for_per_channel_config() -> str:
    """The default config: weights of convolutions and matrix products per channel."""
    return str(find_config("default"))


def get_path_for_per_tensor_config() -> str:
    """The default config with one encoding per weight."""
    return str(find_config("default_per_tensor"))
