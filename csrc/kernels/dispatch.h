// SPDX-License-Identifier: BSD-3-Clause
// From what a call says to types and constants that loops are compiled for.
// Private to kernels/.
#pragma once

#include <type_traits>

#include "core/quant_math.h"
#include "kernels/fake_quant.h"

namespace aimetpp::kernels {

// Calls run(Stored{}) for elements that are stored so; Half and BFloat16: the
// device's names for them.
template <typename Half, typename BFloat16, typename Run>
void with_stored(Storage storage, const Run& run) {
  switch (storage) {
    case Storage::float32:
      return run(float{});
    case Storage::float64:
      return run(double{});
    case Storage::float16:
      return run(Half{});
    case Storage::bfloat16:
      return run(BFloat16{});
  }
}

// Calls run(mode as integral_constant).
template <typename Run>
void with_mode(QuantMode mode, const Run& run) {
  using enum QuantMode;
  switch (mode) {
    case fake_quantize:
      return run(std::integral_constant<QuantMode, fake_quantize>{});
    case quantize:
      return run(std::integral_constant<QuantMode, quantize>{});
    case dequantize:
      return run(std::integral_constant<QuantMode, dequantize>{});
  }
}

}  // namespace aimetpp::kernels
