# SPDX-License-Identifier: BSD-3-Clause
"""What the subcommands of `python -m aimetpp` do."""
