# SPDX-License-Identifier: BSD-3-Clause
# find_package(aimetpp) after find_package(Torch): the target aimetpp::aimetpp is
# libaimetpp of this Python package, the ops that TorchScript files exported by
# sim.export_torchscript call. A program needs no header of ours to run such files.
#
# The folder to search is what aimetpp.cmake_prefix_path() returns.

get_filename_component(_aimetpp_dir "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
set(_aimetpp_library "${_aimetpp_dir}/libaimetpp.so")
set(_aimetpp_info "${_aimetpp_dir}/_build_info.json")
if(NOT EXISTS "${_aimetpp_library}" OR NOT EXISTS "${_aimetpp_info}")
  set(aimetpp_FOUND FALSE)
  set(aimetpp_NOT_FOUND_MESSAGE
    "${_aimetpp_dir} holds no compiled libaimetpp.so: build or install aimetpp first")
  return()
endif()
file(READ "${_aimetpp_info}" _aimetpp_json)
string(JSON _aimetpp_torch GET "${_aimetpp_json}" torch_version)
# The part after "+" names the flavour (cpu, cu130), not the interface.
string(REGEX REPLACE "\\+.*" "" _aimetpp_torch "${_aimetpp_torch}")
if(NOT Torch_FOUND)
  set(aimetpp_FOUND FALSE)
  set(aimetpp_NOT_FOUND_MESSAGE "find_package(Torch) must come first")
  return()
endif()
string(REGEX REPLACE "\\+.*" "" _aimetpp_found_torch "${Torch_VERSION}")
if(_aimetpp_found_torch AND NOT _aimetpp_found_torch STREQUAL _aimetpp_torch)
  set(aimetpp_FOUND FALSE)
  set(aimetpp_NOT_FOUND_MESSAGE
    "libaimetpp was compiled against PyTorch ${_aimetpp_torch}, and find_package(Torch) found ${_aimetpp_found_torch}")
  return()
endif()

if(NOT TARGET aimetpp::aimetpp)
  # The program names no symbol of the library: loading it registers the ops, so
  # the linker must not drop it as unneeded.
  add_library(aimetpp::aimetpp INTERFACE IMPORTED)
  set_target_properties(aimetpp::aimetpp PROPERTIES INTERFACE_LINK_LIBRARIES
    "-Wl,--push-state,--no-as-needed;${_aimetpp_library};-Wl,--pop-state")
endif()
