# SPDX-License-Identifier: BSD-3-Clause
# aimetpp_options: the compile options that all our own targets share.

add_library(aimetpp_options INTERFACE)
target_compile_features(aimetpp_options INTERFACE cxx_std_20)
target_include_directories(aimetpp_options INTERFACE
  "${PROJECT_SOURCE_DIR}/csrc")
# No contraction into fused multiply-adds: CPU and CUDA must round alike.
target_compile_options(aimetpp_options INTERFACE
  "$<$<COMPILE_LANGUAGE:CXX>:-ffp-contract=off;-Wall;-Wextra;-Wpedantic;-ffile-prefix-map=${PROJECT_SOURCE_DIR}/=>"
  "$<$<COMPILE_LANGUAGE:CUDA>:--fmad=false;-Xcompiler=-Wall,-Wextra>")
if(AIMETPP_WERROR)
  target_compile_options(aimetpp_options INTERFACE
    "$<$<COMPILE_LANGUAGE:CXX>:-Werror>"
    "$<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings>")
endif()
if(AIMETPP_SANITIZE)
  target_compile_options(aimetpp_options INTERFACE
    "$<$<COMPILE_LANGUAGE:CXX>:-fsanitize=address,undefined;-fno-sanitize-recover=all;-fno-omit-frame-pointer>")
  target_compile_definitions(aimetpp_options INTERFACE _GLIBCXX_ASSERTIONS)
  target_link_options(aimetpp_options INTERFACE -fsanitize=address,undefined)
endif()
