# SPDX-License-Identifier: BSD-3-Clause
"""Paths of the shipped config files, under the reference's names."""
