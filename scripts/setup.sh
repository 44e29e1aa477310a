#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# Makes this machine ready: system packages, the virtual environment, and the
# Python packages of the requirement groups that are named as arguments.
#   PYTHON=python3 VENV=.venv TORCH=torch==2.13.0 scripts/setup.sh build demo
# Does only what is left to do, and says each step in one line. Ends with one
# sentence on standard error where something is missing that it cannot install.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
VENV=${VENV:-.venv}
TORCH=${TORCH:-torch==2.13.0}
CXX=${CXX:-c++}

say() { echo "aimetpp setup: $*"; }

stop() {
  echo "aimetpp setup: $*" >&2
  exit 1
}

check_compiler() {
  local found
  found=$(command -v "$CXX" || true)
  [ -n "$found" ] || stop "no C++ compiler: '$CXX' is not on PATH. Install one" \
    "that knows C++20 (on Debian or Ubuntu: apt-get install g++), or name it with" \
    "CXX=..."
  printf '#include <compare>\nstatic_assert(__cplusplus >= 202002L);\n' \
    >"$scratch/probe.cpp"
  "$CXX" -std=c++20 -fsyntax-only "$scratch/probe.cpp" 2>/dev/null ||
    stop "the C++ compiler $found does not compile C++20. Install GCC 11 or newer" \
      "(on Debian or Ubuntu: apt-get install g++), or name another with CXX=..."
}

check_python() {
  command -v "$PYTHON" >/dev/null || stop "'$PYTHON' is not on PATH. Install" \
    "Python 3.10 or newer (on Debian or Ubuntu: apt-get install python3" \
    "python3-venv python3-dev), or name it with PYTHON=..."
  python_version=$("$PYTHON" -c \
    'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) ||
    stop "'$PYTHON' does not run as a Python interpreter; name another with" \
      "PYTHON=..."
  "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    stop "Python 3.10 or newer is needed, and '$PYTHON' is $python_version. Install" \
      "a newer one and name it with PYTHON=..."
}

# Whether the compiler finds a header outside this project.
has_header() {
  echo "#include <$1>" | "$CXX" -std=c++20 -E -x c++ - >/dev/null 2>&1
}

python_has_venv() { "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null; }

python_has_headers() {
  "$PYTHON" -c 'import os, sys, sysconfig
header = os.path.join(sysconfig.get_path("include"), "Python.h")
sys.exit(not os.path.isfile(header))'
}

# Debian splits venv and the headers off its own Python, and only off that.
python_is_debians() {
  command -v apt-get >/dev/null &&
    [ "$("$PYTHON" -c 'import sys; print(sys.base_prefix)')" = /usr ]
}

find_missing_packages() {
  missing=()
  has_header nlohmann/json.hpp || missing+=(nlohmann-json3-dev)
  has_header gtest/gtest.h || missing+=(libgtest-dev)
  local suffix=""
  python_has_venv || suffix="venv"
  python_has_headers || suffix="$suffix dev"
  local part
  for part in $suffix; do
    if python_is_debians; then
      missing+=("python$python_version-$part")
    else
      stop "'$PYTHON' ($python_version) lacks its $part part (venv: the modules" \
        "venv and ensurepip; dev: Python.h). Install it the way that Python was" \
        "installed, or name another Python with PYTHON=..."
    fi
  done
}

install_system_packages() {
  find_missing_packages
  [ ${#missing[@]} -gt 0 ] || return 0
  local command="apt-get install ${missing[*]}"
  command -v apt-get >/dev/null || stop "missing: ${missing[*]} (Debian's names)." \
    "There is no apt-get here: install them with this system's package manager."
  [ "$(id -u)" = 0 ] || stop "missing system packages: ${missing[*]}. Installing" \
    "them takes root rights: run '$command' as root, then this again."
  say "installing system packages: ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq </dev/null >"$scratch/apt.log" 2>&1 ||
    say "apt-get update failed; trying with the package lists that are there"
  apt-get install -y -qq --no-install-recommends "${missing[@]}" \
    </dev/null >>"$scratch/apt.log" 2>&1 || {
    cat "$scratch/apt.log" >&2
    stop "'$command' failed, for the reason above."
  }
}

# The environment is made anew when it does not work or its Python is of another
# version.
make_environment() {
  local have
  have=$("$VENV/bin/python" -c \
    'import pip, sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true)
  if [ "$have" != "$python_version" ]; then
    say "making the virtual environment $VENV with Python $python_version"
    "$PYTHON" -m venv --clear "$VENV" ||
      stop "'$PYTHON -m venv $VENV' failed, for the reason above."
  fi
  mkdir -p "$VENV/.installed"
}

# A group is installed anew when its requirement files or TORCH change.
install_group() {
  local group=$1 files=("requirements/$1.txt") wanted=() options=() file
  [ -f "${files[0]}" ] || stop "there is no requirement group '$group'."
  [ "$group" != build ] || files+=(requirements/run.txt)
  [ "$group" != build ] || wanted+=("$TORCH")
  # Packages that would otherwise bring the PyTorch that they were built with.
  [ "$group" != zoo ] || options+=(--no-deps)
  local key
  key=$(cat "${files[@]}" <(printf '%s\n' "${wanted[@]}") | sha256sum)
  local stamp="$VENV/.installed/$group"
  [ "$(cat "$stamp" 2>/dev/null)" != "$key" ] || return 0
  say "installing Python packages: $group (${wanted[*]+${wanted[*]}, }${files[*]})"
  for file in "${files[@]}"; do wanted+=(-r "$file"); done
  "$VENV/bin/python" -m pip install -qq --no-input --disable-pip-version-check \
    "${options[@]+${options[@]}}" "${wanted[@]}" </dev/null ||
    stop "pip could not install the group '$group', for the reason above."
  echo "$key" >"$stamp"
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
check_compiler
check_python
install_system_packages
make_environment
for group in "$@"; do install_group "$group"; done
say "ready: $VENV, Python $python_version"
