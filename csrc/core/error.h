// SPDX-License-Identifier: BSD-3-Clause
// The one exception type of the torch-free code. The Python module maps its
// kind to ValueError, TypeError or RuntimeError.
#pragma once

#include <stdexcept>
#include <string>

#include "core/macros.h"
#include "core/text.h"

namespace aimetpp {

enum class ErrorKind {
  value,    // an argument of the right type with a wrong value
  type,     // an argument of a wrong type
  runtime,  // the state of things does not allow the call
};

class AIMETPP_API Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message)
      : std::runtime_error(message), kind_(kind) {}
  [[nodiscard]] ErrorKind kind() const { return kind_; }

 private:
  ErrorKind kind_;
};

// Messages say: who asked, what was required, what was got.
template <typename... Parts>
[[noreturn]] void raise_value_error(const Parts&... parts) {
  throw Error(ErrorKind::value, concat(parts...));
}

template <typename... Parts>
[[noreturn]] void raise_type_error(const Parts&... parts) {
  throw Error(ErrorKind::type, concat(parts...));
}

template <typename... Parts>
[[noreturn]] void raise_runtime_error(const Parts&... parts) {
  throw Error(ErrorKind::runtime, concat(parts...));
}

}  // namespace aimetpp
