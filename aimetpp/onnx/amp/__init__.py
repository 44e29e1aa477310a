# SPDX-License-Identifier: BSD-3-Clause
"""Automatic mixed precision of ONNX models."""
