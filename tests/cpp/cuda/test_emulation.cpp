// SPDX-License-Identifier: BSD-3-Clause
// What stands in for a GPU: threads see each other as on a device, and what is
// wrong there does not pass here.
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <numeric>
#include <stdexcept>
#include <vector>

namespace {

using emulation::Order;

class Emulation : public ::testing::TestWithParam<Order> {
 protected:
  Emulation() { emulation::set_order(GetParam()); }
  ~Emulation() override { emulation::set_order(Order::ascending); }

  template <typename Kernel, typename... Arguments>
  static void run(unsigned blocks, unsigned threads, Kernel kernel,
                  Arguments... arguments) {
    const cudaLaunchConfig_t config{dim3(blocks), dim3(threads), nullptr};
    ASSERT_EQ(cudaLaunchKernelEx(&config, kernel, arguments...), cudaSuccess);
  }
};

INSTANTIATE_TEST_SUITE_P(Orders, Emulation,
                         ::testing::Values(Order::ascending, Order::descending,
                                           Order::shuffled));

__global__ void count_kernel(int* counts) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  counts[i] += static_cast<int>(i);
}

TEST_P(Emulation, RunsEveryThreadOnce) {
  std::vector<int> counts(5 * 7), expected(5 * 7);
  std::iota(expected.begin(), expected.end(), 0);
  run(5, 7, count_kernel, counts.data());
  EXPECT_EQ(counts, expected);
}

// Two threads' values change places again and again.
__global__ void mirror_kernel(int* values, int times, bool waits) {
  __shared__ int places[64];
  int value = values[threadIdx.x];
  for (int i = 0; i < times; ++i) {
    places[threadIdx.x] = value;
    if (waits) __syncthreads();
    value = places[blockDim.x - 1 - threadIdx.x];
    if (waits) __syncthreads();
  }
  values[threadIdx.x] = value;
}

TEST_P(Emulation, ThreadsWaitForTheirBlock) {
  std::vector<int> values(64), mirrored(64);
  std::iota(values.begin(), values.end(), 0);
  std::iota(mirrored.rbegin(), mirrored.rend(), 0);
  run(1, 64, mirror_kernel, values.data(), 3, true);
  EXPECT_EQ(values, mirrored);
  run(1, 64, mirror_kernel, values.data(), 3, false);
  EXPECT_NE(values, mirrored);  // so that a wait left out is noticed
}

__global__ void shift_kernel(const double* values, double* sums) {
  double sum = values[threadIdx.x];
  for (unsigned half = warpSize / 2; half > 0; half /= 2) {
    sum += __shfl_down_sync(0xffffffffU, sum, half);
  }
  if (threadIdx.x % warpSize == 0) sums[threadIdx.x / warpSize] = sum;
}

TEST_P(Emulation, LanesReadEachOther) {
  std::vector<double> values(96), sums(3);
  std::iota(values.begin(), values.end(), 0.0);
  run(1, 96, shift_kernel, values.data(), sums.data());
  EXPECT_EQ(sums, (std::vector<double>{496, 1520, 2544}));
}

__global__ void extremes_kernel(int* least, unsigned* largest) {
  const int value = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  atomicMin(least, value - 3);
  atomicMax(largest, static_cast<unsigned>(value));
}

TEST_P(Emulation, AtomicsKeepTheExtremes) {
  int least = 5;
  unsigned largest = 0;
  run(4, 33, extremes_kernel, &least, &largest);
  EXPECT_EQ(least, -3);
  EXPECT_EQ(largest, 131U);
}

__global__ void half_waits_kernel() {
  if (threadIdx.x < blockDim.x / 2) __syncthreads();
}

__global__ void half_mask_kernel(int* value) {
  *value = __shfl_down_sync(0xffffU, *value, 1);
}

TEST_P(Emulation, ReportsThreadsThatAreLeftAlone) {
  EXPECT_THROW(run(1, 64, half_waits_kernel), std::logic_error);
  int value = 0;
  EXPECT_THROW(run(1, 32, half_mask_kernel, &value), std::logic_error);
  EXPECT_THROW(run(0, 32, half_mask_kernel, &value), std::logic_error);
  std::vector<int> counts(4);
  run(1, 4, count_kernel, counts.data());  // works on as before
  EXPECT_EQ(counts, (std::vector<int>{0, 1, 2, 3}));
}

}  // namespace
