# SPDX-License-Identifier: BSD-3-Clause
# The GoogleTest binaries. aimetpp_core_tests knows no torch and takes seconds;
# aimetpp_torch_tests links libaimetpp and PyTorch.

find_package(GTest QUIET)
if(NOT GTest_FOUND)
  message(FATAL_ERROR
    "GoogleTest was not found. On Debian or Ubuntu: apt-get install "
    "libgtest-dev. To build without tests: -DAIMETPP_BUILD_TESTS=OFF.")
endif()
enable_testing()

function(aimetpp_add_test name)
  add_executable(${name} ${ARGN})
  target_include_directories(${name} PRIVATE tests/cpp)
  target_compile_definitions(${name} PRIVATE
    AIMETPP_TEST_DIR="${PROJECT_SOURCE_DIR}/tests/cpp"
    AIMETPP_CONFIG_DIR="${PROJECT_SOURCE_DIR}/aimetpp/configs")
  if(NOT AIMETPP_SANITIZE)
    target_compile_options(${name} PRIVATE -O1)  # half the compile time of -O2
  endif()
  target_link_libraries(${name} PRIVATE
    aimetpp_options GTest::gtest GTest::gtest_main)
  add_test(NAME ${name} COMMAND ${name})
endfunction()

set(AIMETPP_CORE_TEST_SOURCES
  tests/cpp/config/test_hardware_rules.cpp
  tests/cpp/config/test_integer_biases.cpp
  tests/cpp/config/test_masks.cpp
  tests/cpp/config/test_placement.cpp
  tests/cpp/config/test_placement_properties.cpp
  tests/cpp/config/test_placement_settings.cpp
  tests/cpp/config/test_rescale.cpp
  tests/cpp/config/test_rule_log.cpp
  tests/cpp/config/test_supergroups.cpp
  tests/cpp/config/test_ties.cpp
  tests/cpp/config/test_unmarked_ops.cpp
  tests/cpp/core/test_quant_math.cpp
  tests/cpp/core/test_reciprocal_grid.cpp
  tests/cpp/core/test_types.cpp
  tests/cpp/cuda/test_emulation.cpp
  tests/cpp/cuda/test_float_quant.cpp
  tests/cpp/cuda/test_gradient.cpp
  tests/cpp/cuda/test_many.cpp
  tests/cpp/cuda/test_observed.cpp
  tests/cpp/cuda/test_transform.cpp
  tests/cpp/cuda/test_walk.cpp
  tests/cpp/fold/test_batch_norm_folds.cpp
  tests/cpp/fold/test_equalizable_chains.cpp
  tests/cpp/kernels/test_clamped.cpp
  tests/cpp/kernels/test_content_hash.cpp
  tests/cpp/kernels/test_fake_quant.cpp
  tests/cpp/kernels/test_float_quant.cpp
  tests/cpp/kernels/test_observed.cpp
  tests/cpp/kernels/test_storage.cpp
  tests/cpp/kernels/test_strided.cpp
  tests/cpp/graph/test_batch_size.cpp
  tests/cpp/graph/test_downstream.cpp
  tests/cpp/graph/test_mac_count.cpp
  tests/cpp/graph/test_masks.cpp
  tests/cpp/graph/test_onnx_reader.cpp
  tests/cpp/graph/test_op_graph.cpp
  tests/cpp/graph/test_op_traits.cpp
  tests/cpp/groups/test_build_groups.cpp
  tests/cpp/groups/test_supported_candidates.cpp
  tests/cpp/io/test_config_json.cpp
  tests/cpp/mixed/test_budget_solver.cpp
  tests/cpp/mixed/test_convert_ops.cpp
  tests/cpp/mixed/test_convert_points.cpp
  tests/cpp/mixed/test_cost_model.cpp
  tests/cpp/mixed/test_cost_table.cpp
  tests/cpp/mixed/test_memory_model.cpp
  tests/cpp/mixed/test_greedy_search.cpp
  tests/cpp/mixed/test_greedy_search_properties.cpp
  tests/cpp/mixed/test_narrowing_search.cpp
  tests/cpp/mixed/test_report_text.cpp
  tests/cpp/mixed/test_resolution_report.cpp
  tests/cpp/mixed/test_resolver.cpp
  tests/cpp/mixed/test_resolver_conflicts.cpp
  tests/cpp/mixed/test_resolver_placement.cpp
  tests/cpp/mixed/test_search_counts.cpp
  tests/cpp/mixed/test_search_space.cpp
  tests/cpp/mixed/test_walk_search.cpp
  tests/cpp/quantizer/test_encoding.cpp
  tests/cpp/quantizer/test_extremes.cpp
  tests/cpp/quantizer/test_golden.cpp
  tests/cpp/quantizer/test_histogram.cpp
  tests/cpp/quantizer/test_histogram_sum.cpp
  tests/cpp/quantizer/test_range_search.cpp
  tests/cpp/quantizer/test_ranges.cpp
  tests/cpp/quantizer/test_statistics.cpp
  tests/cpp/quantizer/test_weight_grid.cpp
)
# The CUDA kernels, compiled for the host: tests/cpp/cuda/emulation stands in for
# CUDA's headers.
set(_emulated_sources "")
foreach(_source IN LISTS AIMETPP_CUDA_KERNEL_SOURCES)
  get_filename_component(_name "${_source}" NAME_WE)
  set(_wrapper "${PROJECT_BINARY_DIR}/emulated_cuda/${_name}.cpp")
  file(CONFIGURE OUTPUT "${_wrapper}" CONTENT
    "#include \"${PROJECT_SOURCE_DIR}/${_source}\"\n")
  list(APPEND _emulated_sources "${_wrapper}")
endforeach()

set(_emulation_sources
  tests/cpp/cuda/emulation/emulation.cpp
  tests/cpp/cuda/emulation/jump.cpp
)
# It takes most of these tests' time where it is instrumented.
set_source_files_properties(${_emulation_sources}
  PROPERTIES COMPILE_OPTIONS -O2)
add_library(aimetpp_emulated_cuda OBJECT
  ${_emulated_sources} ${_emulation_sources})
target_include_directories(aimetpp_emulated_cuda PUBLIC
  tests/cpp tests/cpp/cuda/emulation)
target_link_libraries(aimetpp_emulated_cuda PUBLIC aimetpp_options)
if(NOT AIMETPP_SANITIZE)
  target_compile_options(aimetpp_emulated_cuda PRIVATE -O1)
endif()

aimetpp_add_test(aimetpp_core_tests ${AIMETPP_CORE_TEST_SOURCES})
target_link_libraries(aimetpp_core_tests PRIVATE
  aimetpp_emulated_cuda aimetpp_kernels)

if(AIMETPP_TORCH)
  set(AIMETPP_TORCH_TEST_SOURCES
    tests/cpp/graph/test_jit_reader.cpp
  )
  aimetpp_add_test(aimetpp_torch_tests ${AIMETPP_TORCH_TEST_SOURCES})
  target_link_libraries(aimetpp_torch_tests PRIVATE aimetpp)
  # The ops' CUDA side over the emulated kernels; where the library has it
  # linked, tests/gpu runs it.
  if(NOT AIMETPP_CUDA_LINKED)
    target_sources(aimetpp_torch_tests PRIVATE
      csrc/ops/fake_quant_cuda.cpp
      csrc/ops/float_quant_cuda.cpp
      tests/cpp/cuda/test_ops.cpp)
    target_link_libraries(aimetpp_torch_tests PRIVATE aimetpp_emulated_cuda)
  endif()
endif()
