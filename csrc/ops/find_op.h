// SPDX-License-Identifier: BSD-3-Clause
// An op of the library by its name, typed, as the dispatcher has it. Callers
// keep it: the search costs as much as a call. Private to ops/.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

#include <string>

namespace aimetpp::ops {

template <typename Signature>
auto find_op(const std::string& name) {
  return c10::Dispatcher::singleton()
      .findSchemaOrThrow(("aimetpp::" + name).c_str(), "")
      .template typed<Signature>();
}

}  // namespace aimetpp::ops
