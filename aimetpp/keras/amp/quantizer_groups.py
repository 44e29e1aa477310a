# SPDX-License-Identifier: BSD-3-Clause
"""Quantizer groups of Keras simulations: the same as of any other."""

from aimetpp.amp.quantizer_groups import QuantizerGroup, find_quantizer_group

__all__ = ["QuantizerGroup", "find_quantizer_group"]
