#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Two rules that no formatter knows:
# - no torch header that pulls in all of torch: each costs 6 to 21 seconds in
#   every file that includes it;
# - every C++ source stands in the explicit lists of the CMake description.
set -euo pipefail
cd "$(dirname "$0")/.."
failed=0

pattern='#include *[<"](torch/extension|torch/all|torch/torch|ATen/ATen)\.h[>"]'
if grep -rnE "$pattern" csrc; then
  echo "aimetpp: the headers above are too wide; include the narrow ones that" \
    "declare what is used." >&2
  failed=1
fi

while IFS= read -r file; do
  if ! grep -qE "(^|[ (])$file( |\)|$)" CMakeLists.txt cmake/Tests.cmake; then
    echo "aimetpp: $file is in no list of CMakeLists.txt or cmake/Tests.cmake." >&2
    failed=1
  fi
done < <(find csrc tests/cpp -name '*.cpp' -o -name '*.cu')
exit "$failed"
