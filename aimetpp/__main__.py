# SPDX-License-Identifier: BSD-3-Clause
"""`python -m aimetpp`."""

import sys

from aimetpp.cli import main

if __name__ == "__main__":
    sys.exit(main())
