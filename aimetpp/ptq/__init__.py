# SPDX-License-Identifier: BSD-3-Clause
"""Post-training techniques: what is done to a trained model before, or instead of,
quantization-aware training. The public names are in `aimetpp.batch_norm_fold` and its
neighbours.
"""
