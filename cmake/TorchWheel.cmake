# SPDX-License-Identifier: BSD-3-Clause
# Imported targets for the PyTorch that is installed in the chosen Python:
#   torch_wheel::torch   the C++ library with its headers
#   torch_wheel::python  the above and torch's pybind11 side
#   torch_wheel::cuda    the CUDA side, only where this PyTorch has one
# find_package(Torch) is not used: with a CUDA build of PyTorch it insists on a
# full CUDA toolkit and on GPU architectures of its own choice.
#
# Sets TORCH_VERSION ("2.13.0+cpu"), TORCH_CUDA_VERSION (empty without CUDA),
# TORCH_LIB_DIR and TORCH_CXX11_ABI (0 or 1).

set(_torch_probe [[
import os, torch
print(os.path.dirname(torch.__file__))
print(torch.__version__)
print(torch.version.cuda or "")
print(int(torch.compiled_with_cxx11_abi()))
]])
execute_process(
  COMMAND "${Python3_EXECUTABLE}" -c "${_torch_probe}"
  OUTPUT_VARIABLE _torch_answer
  ERROR_VARIABLE _torch_error
  RESULT_VARIABLE _torch_result)
if(NOT _torch_result EQUAL 0)
  message(FATAL_ERROR
    "aimetpp is compiled against an installed PyTorch, and ${Python3_EXECUTABLE} "
    "cannot import torch. Install PyTorch 2.11 or newer in that Python, or name "
    "another Python with -DPython3_EXECUTABLE=...\n${_torch_error}")
endif()
string(REPLACE "\n" ";" _torch_answer "${_torch_answer}")
list(GET _torch_answer 0 _torch_dir)
list(GET _torch_answer 1 TORCH_VERSION)
list(GET _torch_answer 2 TORCH_CUDA_VERSION)
list(GET _torch_answer 3 TORCH_CXX11_ABI)
if(TORCH_VERSION VERSION_LESS 2.11)
  message(FATAL_ERROR
    "aimetpp needs PyTorch 2.11 or newer, and ${Python3_EXECUTABLE} has "
    "${TORCH_VERSION}.")
endif()
set(TORCH_LIB_DIR "${_torch_dir}/lib")
message(STATUS "PyTorch ${TORCH_VERSION} in ${_torch_dir}")

function(_torch_wheel_library name)
  add_library(torch_wheel::${name} SHARED IMPORTED)
  set_target_properties(torch_wheel::${name} PROPERTIES
    IMPORTED_LOCATION "${TORCH_LIB_DIR}/lib${name}.so"
    INTERFACE_LINK_LIBRARIES "${ARGN}")
endfunction()

_torch_wheel_library(c10)
set_target_properties(torch_wheel::c10 PROPERTIES
  INTERFACE_INCLUDE_DIRECTORIES
    "${_torch_dir}/include;${_torch_dir}/include/torch/csrc/api/include"
  INTERFACE_SYSTEM_INCLUDE_DIRECTORIES
    "${_torch_dir}/include;${_torch_dir}/include/torch/csrc/api/include"
  INTERFACE_COMPILE_DEFINITIONS AIMETPP_TORCH_VERSION="${TORCH_VERSION}")
_torch_wheel_library(torch_cpu torch_wheel::c10)
_torch_wheel_library(torch torch_wheel::torch_cpu)
_torch_wheel_library(torch_python torch_wheel::torch)
add_library(torch_wheel::python ALIAS torch_wheel::torch_python)
if(TORCH_CUDA_VERSION)
  _torch_wheel_library(c10_cuda torch_wheel::c10)
  _torch_wheel_library(torch_cuda torch_wheel::torch_cpu torch_wheel::c10_cuda)
  add_library(torch_wheel::cuda ALIAS torch_wheel::torch_cuda)
endif()
