# SPDX-License-Identifier: BSD-3-Clause
# make demo | test | check | build | setup | format | clean
# Variables: PYTHON=python3.12, TORCH=torch==2.14.0, VENV=folder, WERROR=1,
# CMAKE_ARGS="-DAIMETPP_CUDA=OFF", CMAKE_BUILD_PARALLEL_LEVEL=jobs.

PYTHON ?= python3
VENV ?= .venv
WERROR ?=
CMAKE_ARGS ?=
SHELL := /bin/bash
MAKEFLAGS += --no-print-directory
.DELETE_ON_ERROR:
.PHONY: setup build demo test gtest cuda-objects arm-objects sanitize check tidy format \
  clean distclean setup-build setup-demo setup-test setup-check

export PYTHON VENV CMAKE_ARGS
ifneq ($(origin CXX),default)
export CXX
endif

RUN := $(abspath $(VENV))/bin
CMAKE := $(RUN)/cmake
COMMON_CMAKE_ARGS := -DAIMETPP_WERROR=$(if $(WERROR),ON,OFF) \
  -DAIMETPP_BUILD_TESTS=ON
# Torch-free build folders: the sanitizer run, and what clang-tidy reads (without
# -Werror, which would make errors of clang's warnings in GCC's headers).
TORCH_FREE := -G Ninja -DCMAKE_MAKE_PROGRAM=$(RUN)/ninja -DAIMETPP_TORCH=OFF \
  -DAIMETPP_CUDA=OFF $(COMMON_CMAKE_ARGS) $(CMAKE_ARGS)
HEADERS := $(wildcard csrc/*/*.h csrc/*/*/*.h)
JOBS := $(or $(CMAKE_BUILD_PARALLEL_LEVEL),$(shell nproc))
CPP_FILES = $(shell find csrc tests/cpp benchmarks examples -name '*.h' \
  -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh')

setup: setup-demo
setup-build:
	@scripts/setup.sh build
setup-demo:
	@scripts/setup.sh build demo
setup-test:
	@scripts/setup.sh build demo test zoo
setup-check:
	@scripts/setup.sh build demo test zoo check

BUILD_EXTENSION = echo "aimetpp: building the extension in build/dev" && \
  CMAKE_ARGS="$(COMMON_CMAKE_ARGS) $(CMAKE_ARGS)" \
  $(RUN)/python setup.py -q build_ext --inplace

build: setup-build
	@$(BUILD_EXTENSION)

demo: setup-demo
	@$(BUILD_EXTENSION)
	@echo "aimetpp: running the demo, results in demo_results"
	@$(RUN)/python -m aimetpp demo --results-dir demo_results

test: setup-test
	@$(BUILD_EXTENSION)
	@$(MAKE) gtest cuda-objects arm-objects sanitize
	@echo "aimetpp: running pytest"
	@$(RUN)/python -m pytest -q

gtest:
	@echo "aimetpp: building and running the GoogleTest binaries"
	@$(CMAKE) --build build/dev -j $(JOBS)
	@build/dev/aimetpp_core_tests --gtest_brief=1
	@build/dev/aimetpp_torch_tests --gtest_brief=1

# Where CUDA is linked into the library there is no such target: the kernels
# were compiled with it.
cuda-objects:
	@if ! $(RUN)/ninja -C build/dev -t query aimetpp_cuda_objects \
	    >/dev/null 2>&1; then \
	  echo "aimetpp: no separate CUDA objects to compile here"; \
	else \
	  echo "aimetpp: compiling the CUDA kernels to objects" && \
	  $(CMAKE) --build build/dev --target aimetpp_cuda_objects -j $(JOBS); \
	fi

# Whether the kernels compile for another instruction set than this machine's:
# NEON in particular. On Debian the compiler is g++-aarch64-linux-gnu; it is not
# installed for this.
ARM_CXX ?= aarch64-linux-gnu-g++
ARM_FLAGS := -std=c++20 -O3 -ffp-contract=off -fno-trapping-math -Icsrc \
  -Wall -Wextra -Wpedantic $(if $(WERROR),-Werror)
ARM_SOURCES := $(wildcard csrc/core/*.cpp csrc/kernels/cpu/*.cpp csrc/quantizer/*.cpp)
arm-objects:
	@if ! command -v $(ARM_CXX) >/dev/null; then \
	  echo "aimetpp: no $(ARM_CXX), so the kernels are not compiled for aarch64"; \
	else \
	  echo "aimetpp: compiling the kernels for aarch64" && \
	  $(MAKE) -j $(JOBS) $(ARM_SOURCES:%.cpp=build/arm/%.o); \
	fi
build/arm/%.o: %.cpp $(HEADERS)
	@mkdir -p $(@D)
	@$(ARM_CXX) $(ARM_FLAGS) -c $< -o $@

sanitize:
	@echo "aimetpp: running the torch-free tests under ASan and UBSan"
	@$(CMAKE) -S . -B build/sanitize $(TORCH_FREE) \
	  -DAIMETPP_SANITIZE=ON >/dev/null
	@$(CMAKE) --build build/sanitize -j $(JOBS)
	@build/sanitize/aimetpp_core_tests --gtest_brief=1

check: setup-check
	@echo "aimetpp: clang-format"
	@$(RUN)/clang-format --dry-run -Werror $(CPP_FILES)
	@echo "aimetpp: includes and source lists"
	@scripts/check_sources.sh
	@echo "aimetpp: clang-tidy on the torch-free part"
	@$(CMAKE) -S . -B build/tidy $(TORCH_FREE) -DAIMETPP_WERROR=OFF >/dev/null
	@$(MAKE) -j $(JOBS) tidy
	@echo "aimetpp: ruff"
	@$(RUN)/ruff check -q .
	@$(RUN)/ruff format --check -q .
	@echo "aimetpp: mypy"
	@$(RUN)/mypy --no-error-summary

# One stamp for each file that was found clean.
TIDY_SOURCES := $(filter-out csrc/graph/jit_reader.cpp, \
  $(wildcard csrc/core/*.cpp csrc/quantizer/*.cpp csrc/graph/*.cpp \
  csrc/config/*.cpp csrc/groups/*.cpp csrc/mixed/*.cpp csrc/io/*.cpp \
  csrc/kernels/cpu/*.cpp))
tidy: $(TIDY_SOURCES:%.cpp=build/tidy/%.clean)
build/tidy/%.clean: %.cpp $(HEADERS) .clang-tidy requirements/check.txt
	@mkdir -p $(@D)
	@$(RUN)/clang-tidy -p build/tidy --quiet --warnings-as-errors='*' $< \
	  2> $@.log || { cat $@.log; exit 1; }
	@touch $@

format: setup-check
	@$(RUN)/clang-format -i $(CPP_FILES)
	@$(RUN)/ruff check -q --fix .
	@$(RUN)/ruff format -q .

clean:
	rm -rf build dist *.egg-info demo_results .pytest_cache .mypy_cache \
	  .ruff_cache aimetpp/*.so aimetpp/_build_info.json
	find aimetpp tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

distclean: clean
	rm -rf "$(VENV)"
