#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Forbids the torch headers that pull in all of torch: each costs 6 to 21 seconds
# in every file that includes it.
set -euo pipefail
cd "$(dirname "$0")/.."

pattern='#include *[<"](torch/extension|torch/all|torch/torch|ATen/ATen)\.h[>"]'
if grep -rnE "$pattern" csrc; then
  echo "aimetpp: the headers above are too wide; include the narrow ones that" \
    "declare what is used." >&2
  exit 1
fi
