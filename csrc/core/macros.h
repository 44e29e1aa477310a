// SPDX-License-Identifier: BSD-3-Clause
// Compiler-facing macros; nothing else belongs here.
#pragma once

// A function that the host compiler and nvcc both compile, so that CPU and CUDA
// run one formula.
#if defined(__CUDACC__)
#define AIMETPP_HOST_DEVICE __host__ __device__
#else
#define AIMETPP_HOST_DEVICE
#endif

// For what must be compiled for the instruction set of its caller: the linker
// keeps one out-of-line copy of a function, compiled for any of them.
#define AIMETPP_ALWAYS_INLINE inline __attribute__((always_inline))

// Everything is built with -fvisibility=hidden; this marks what a program that
// links libaimetpp may call.
#define AIMETPP_API __attribute__((visibility("default")))
