// SPDX-License-Identifier: BSD-3-Clause
#include "mixed/report_text.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "resolver_models.h"

namespace aimetpp::mixed::testing {
namespace {

std::string printed(const std::vector<ReportRow>& rows) {
  std::string text;
  for (const ReportRow& row : rows) {
    text.append(row.depth, ' ');
    text += "[" + row.requests + "] " + row.subject;
    text += row.detail.empty() ? "\n" : ": " + row.detail + "\n";
  }
  return text;
}

// Stages of `blocks` blocks, each a conv's weight and its output.
std::vector<ReportLine> two_stages(int blocks) {
  std::vector<ReportLine> lines;
  for (int stage = 0; stage < 2; ++stage) {
    for (int block = 0; block < blocks; ++block) {
      const std::string module = "stage" + std::to_string(stage) + "." +
                                 std::to_string(block) + ".conv";
      const int request = stage == 0 ? 0 : 1 + block;
      lines.push_back(
          {request, module + ".weight", "int8 -> int4", module, "weight"});
      lines.push_back({request, module, "int8 -> int16", module, "activation"});
    }
  }
  return lines;
}

TEST(ReportText, AShortSectionIsPrintedLineByLine) {
  EXPECT_EQ(printed(rows_of_section({{0, "a", "int4", "a", "activation"},
                                     {kNone, "b", "int8", "b", "activation"}})),
            "[1] a: int4\n[] b: int8\n");
  EXPECT_TRUE(rows_of_section({}).empty());
}

TEST(ReportText, WhatSaysTheSameIsOneRowPerContainerAndKind) {
  std::vector<ReportLine> lines = two_stages(20);
  lines[0].detail = "int8 -> int16";  // stage0.0.conv.weight differs
  EXPECT_EQ(printed(rows_of_section(lines)),
            "[] stage0\n"
            " [1] stage0.0.conv.weight: int8 -> int16\n"
            " [1] stage0.0.conv: int8 -> int16\n"
            " [1] stage0.1 to stage0.19 (19 x activation): int8 -> int16\n"
            " [1] stage0.1 to stage0.19 (19 x weight): int8 -> int4\n"
            "[2-21] stage1.* (20 x activation): int8 -> int16\n"
            "[2-21] stage1.* (20 x weight): int8 -> int4\n");
}

TEST(ReportText, AWholeModelThatSaysTheSameIsOneRowPerKind) {
  EXPECT_EQ(printed(rows_of_section(two_stages(20))),
            "[1-21] * (40 x activation): int8 -> int16\n"
            "[1-21] * (40 x weight): int8 -> int4\n");
}

TEST(ReportText, RequestsThatAreNotInARowAreRanges) {
  std::vector<ReportLine> lines = two_stages(20);
  lines.erase(lines.begin() + 44, lines.begin() + 46);  // stage1.2: request 4
  EXPECT_EQ(printed(rows_of_section(lines)),
            "[1-3, 5-21] * (39 x activation): int8 -> int16\n"
            "[1-3, 5-21] * (39 x weight): int8 -> int4\n");
}

TEST(ReportText, ItemsOfASequenceStandInTheirOrder) {
  std::vector<ReportLine> lines = two_stages(20);
  std::swap(lines[4],
            lines[38]);  // stage0.2.conv.weight, stage0.19.conv.weight
  lines[6].detail = "int8 already";  // stage0.3.conv.weight
  const std::string text = printed(rows_of_section(lines));
  EXPECT_TRUE(mentions(text,
                       "[] stage0\n"
                       " [1] stage0.0 to stage0.2 (3 x activation): "
                       "int8 -> int16\n"
                       " [1] stage0.0 to stage0.2 (3 x weight): int8 -> int4\n"
                       " [1] stage0.3.conv.weight: int8 already\n"
                       " [1] stage0.3.conv: int8 -> int16\n"
                       " [1] stage0.4 to stage0.19 (16 x activation): "))
      << text;
}

TEST(ReportText, ReplacedByTheHundredIsOneLine) {
  Model m;
  GraphBuilder& b = m.builder;
  int x = b.input();
  std::vector<std::string> names;
  for (int index = 0; index < 100; ++index) {
    names.push_back("c" + std::to_string(index));
    x = b.leaf("conv2d", names.back(), {x}, with_weight());
  }
  b.output(x);
  m.place();
  const Resolution resolution =
      resolve(m, {type(names, {"int16"}), type(names, {"int4"})});
  ASSERT_EQ(resolution.overruled.size(), 1u) << to_text(resolution);
  EXPECT_EQ(resolution.overruled[0].request, 0);
  EXPECT_EQ(resolution.overruled[0].detail,
            "100 leaf calls (c0, c1, c2, ...): request 2 speaks of them later");
}

}  // namespace
}  // namespace aimetpp::mixed::testing
