# SPDX-License-Identifier: BSD-3-Clause
"""Automatic mixed precision: groups, search, metrics, results."""
