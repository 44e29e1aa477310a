# SPDX-License-Identifier: BSD-3-Clause
"""Automatic mixed precision of Keras models, under the module names of AIMET."""
