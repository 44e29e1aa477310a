# SPDX-License-Identifier: BSD-3-Clause
"""Definitions of automatic mixed precision."""
