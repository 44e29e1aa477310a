// SPDX-License-Identifier: BSD-3-Clause
// Text for error messages and reports.
#pragma once

#include <cstddef>
#include <functional>
#include <sstream>
#include <string>
#include <string_view>

namespace aimetpp {

template <typename... Parts>
std::string concat(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

// "a, b, c" of what `text_of`, a function or a member, makes of each item.
template <typename Items, typename TextOf = std::identity>
std::string join(const Items& items, const TextOf& text_of = {}) {
  std::string text;
  bool is_first = true;
  for (const auto& item : items) {
    if (!is_first) text += ", ";
    is_first = false;
    text += std::invoke(text_of, item);
  }
  return text;
}

// "1 layer", "2 layers".
inline std::string counted(std::size_t count, std::string_view noun) {
  return concat(count, " ", noun, count == 1 ? "" : "s");
}

}  // namespace aimetpp
