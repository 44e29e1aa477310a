# SPDX-License-Identifier: BSD-3-Clause
# Decides from AIMETPP_CUDA (AUTO, ON, OFF) what becomes of the CUDA sources:
#   AIMETPP_CUDA_LINKED   compiled and linked into libaimetpp
#   AIMETPP_CUDA_OBJECTS  nvcc without a CUDA PyTorch: the torch-free kernels can
#                         be compiled to objects, by a target of that name
# The choice is said in one status line. Whether this machine has a GPU plays no
# part in it.

include(CheckLanguage)

set(AIMETPP_CUDA_LINKED OFF)
set(AIMETPP_CUDA_OBJECTS OFF)
if(NOT AIMETPP_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "AIMETPP_CUDA must be AUTO, ON or OFF, got ${AIMETPP_CUDA}.")
endif()

set(_nvcc_version "")
if(NOT AIMETPP_CUDA STREQUAL "OFF")
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 80 90)
  endif()
  # CMake remembers that there was no nvcc; one may have been installed since.
  if(NOT CMAKE_CUDA_COMPILER)
    unset(CMAKE_CUDA_COMPILER CACHE)
  endif()
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    execute_process(
      COMMAND "${CMAKE_CUDA_COMPILER}" --version
      OUTPUT_VARIABLE _nvcc_text)
    string(REGEX MATCH "release ([0-9]+\\.[0-9]+)" _match "${_nvcc_text}")
    set(_nvcc_version "${CMAKE_MATCH_1}")
  endif()
endif()
string(REGEX MATCH "^[0-9]+" _nvcc_major "${_nvcc_version}")
string(REGEX MATCH "^[0-9]+" _torch_cuda_major "${TORCH_CUDA_VERSION}")

if(AIMETPP_CUDA STREQUAL "OFF")
  set(_cuda_choice "off, as asked")
elseif(NOT _nvcc_version)
  set(_cuda_choice "off, no working nvcc was found")
elseif(NOT _torch_cuda_major)
  set(_cuda_choice
    "not linked, no CUDA PyTorch; nvcc ${_nvcc_version} compiles the kernels to objects (target aimetpp_cuda_objects)")
  set(AIMETPP_CUDA_OBJECTS ON)
elseif(NOT _nvcc_major STREQUAL _torch_cuda_major)
  set(_cuda_choice
    "off, PyTorch was built with CUDA ${TORCH_CUDA_VERSION} and nvcc is ${_nvcc_version}")
else()
  set(_cuda_choice
    "on, PyTorch's CUDA ${TORCH_CUDA_VERSION}, nvcc ${_nvcc_version}")
  set(AIMETPP_CUDA_LINKED ON)
endif()
if(AIMETPP_CUDA STREQUAL "ON" AND NOT AIMETPP_CUDA_LINKED)
  message(FATAL_ERROR
    "AIMETPP_CUDA=ON needs a CUDA PyTorch and an nvcc of the same major version; "
    "here CUDA is ${_cuda_choice}.")
endif()
if(AIMETPP_CUDA_LINKED OR AIMETPP_CUDA_OBJECTS)
  enable_language(CUDA)
  list(JOIN CMAKE_CUDA_ARCHITECTURES ", " _cuda_archs)
  string(APPEND _cuda_choice "; architectures ${_cuda_archs}")
endif()
if(AIMETPP_CUDA_LINKED)
  find_package(CUDAToolkit REQUIRED)
endif()
message(STATUS "CUDA kernels: ${_cuda_choice}")
