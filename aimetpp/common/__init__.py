# SPDX-License-Identifier: BSD-3-Clause
"""What every part shares: definitions, precisions, files, text."""
