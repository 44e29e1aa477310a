// SPDX-License-Identifier: BSD-3-Clause
// One line of a resolution's report: a sentence for people, facts for programs.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "graph/op_graph.h"

namespace aimetpp::mixed {

using Names = std::vector<std::string>;
// Precision names by slot or by parameter.
using PrecisionNames = std::map<std::string, std::string>;

// monostate: nothing there. The entries of a list may be missing too.
using Fact =
    std::variant<std::monostate, int, std::string, Names, std::vector<int>,
                 std::vector<std::optional<std::string>>, PrecisionNames>;
// The names are literals.
using Facts = std::vector<std::pair<std::string_view, Fact>>;

struct ReportLine {
  int request = graph::kNone;  // index of the request, kNone where derived
  std::string subject;         // leaf, tensor or site name
  std::string detail;
  std::string module{};  // dotted name of the module it is about; "": the root
  // What the subject is: "activation" or a parameter's name where it is a
  // quantizer; where it is a leaf, the op's kind, and what of it.
  std::string kind{};
  // What many lines that are printed as one say together: the detail without
  // names of single quantizers; "{by}" stands for the requests in `by`. Empty:
  // the detail.
  std::string gist{};
  std::vector<int> by{};  // requests that this gave way to
  Facts facts{};          // by name, see docs/mmp.md
};

}  // namespace aimetpp::mixed
