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

TEST(ReportText, WhatSaysTheSameIsOneRowPerKind) {
  std::vector<ReportLine> lines = two_stages(20);
  lines[0].detail = "int8 -> int16";  // stage0.0.conv.weight differs
  EXPECT_EQ(printed(rows_of_section(lines)),
            "[] stage0\n"
            " [1] stage0.0.conv.weight: int8 -> int16\n"
            " [1] stage0.{1-19} (19 x weight): int8 -> int4\n"
            "[1-21] {stage0, stage1} (40 x activation): int8 -> int16\n"
            "[2-21] stage1.{0-19} (20 x weight): int8 -> int4\n");
}

TEST(ReportText, AWholeModelThatSaysTheSameIsOneRowPerKind) {
  EXPECT_EQ(printed(rows_of_section(two_stages(20))),
            "[1-21] {stage0, stage1} (40 x weight): int8 -> int4\n"
            "[1-21] {stage0, stage1} (40 x activation): int8 -> int16\n");
}

TEST(ReportText, RequestsThatAreNotInARowAreRanges) {
  std::vector<ReportLine> lines = two_stages(20);
  lines.erase(lines.begin() + 44, lines.begin() + 46);  // stage1.2: request 4
  EXPECT_EQ(printed(rows_of_section(lines)),
            "[1-3, 5-21] {stage0, stage1} (39 x weight): int8 -> int4\n"
            "[1-3, 5-21] {stage0, stage1} (39 x activation): int8 -> int16\n");
}

TEST(ReportText, ItemsOfASequenceStandInTheirOrder) {
  std::vector<ReportLine> lines = two_stages(20);
  std::swap(lines[4],
            lines[38]);  // stage0.2.conv.weight, stage0.19.conv.weight
  lines[6].detail = "int8 already";  // stage0.3.conv.weight
  EXPECT_EQ(printed(rows_of_section(lines)),
            "[] stage0\n"
            " [1] stage0.{0-2, 4-19} (19 x weight): int8 -> int4\n"
            " [1] stage0.3.conv.weight: int8 already\n"
            "[1-21] {stage0, stage1} (40 x activation): int8 -> int16\n"
            "[2-21] stage1.{0-19} (20 x weight): int8 -> int4\n");
}

TEST(ReportText, WhatTakesTurnsIsARowForEach) {
  std::vector<ReportLine> lines = two_stages(20);
  for (std::size_t index = 0; index < lines.size(); index += 4) {
    lines[index].detail = "int8 -> int2";  // the weights of even blocks
  }
  EXPECT_TRUE(mentions(printed(rows_of_section(lines)),
                       "[] stage0\n"
                       " [1] stage0.{0, 2, 4, 6, 8, 10, 12, 14, 16, 18} "
                       "(10 x weight): int8 -> int2\n"
                       " [1] stage0.{1, 3, 5, 7, 9, 11, 13, 15, 17, 19} "
                       "(10 x weight): int8 -> int4\n"))
      << printed(rows_of_section(lines));
}

TEST(ReportText, ARowSaysTheGistAndWhatItGaveWayTo) {
  std::vector<ReportLine> lines;
  for (int index = 0; index < 40; ++index) {
    const std::string name = std::to_string(index);
    lines.push_back({0,
                     name,
                     "int4; q" + name + " is int8",
                     name,
                     "conv2d",
                     "int4; int8 by {by}",
                     {index / 2 + 1}});
  }
  EXPECT_EQ(printed(rows_of_section(lines)),
            "[1] {0-39} (40 x conv2d): int4; int8 by requests 2-21\n");
  lines.resize(30);
  EXPECT_TRUE(mentions(printed(rows_of_section(lines)), "q29 is int8"));
}

TEST(ReportText, ARowIsAboutNoMoreThanItsLines) {
  std::vector<ReportLine> lines = two_stages(20);
  for (int index = 0; index < 3; ++index) {
    const std::string name = "stage1/add_" + std::to_string(index);
    lines.push_back({0, name, "int8", "stage1", "add"});
    lines.push_back({0, "/mul_" + name, "int8", "", "mul"});
    lines.push_back({0, "head:" + name, "int8", "head", "relu"});
  }
  lines.push_back({0, "one", "int8", "stage1.7.conv", "bias"});
  EXPECT_EQ(printed(rows_of_section(lines)),
            "[1-21] {stage0, stage1} (40 x weight): int8 -> int4\n"
            "[1-21] {stage0, stage1} (40 x activation): int8 -> int16\n"
            "[1] stage1/* (3 x add): int8\n"
            "[1] /* (3 x mul): int8\n"
            "[1] head (3 x relu): int8\n"
            "[1] one: int8\n");
}

TEST(ReportText, RequestsStayInTheirOrder) {
  std::vector<ReportLine> lines;
  for (int index = 0; index < 40; ++index) {
    const std::string source = index < 38 ? "a.py:1" : "a.py:2";
    ReportLine line{index, "c" + std::to_string(index),
                    index % 2 == 0 ? "activation int4" : "activation int8"};
    line.facts = {{"source", source}};
    lines.push_back(line);
  }
  EXPECT_EQ(printed(rows_of_requests(lines)),
            "[1, 3, 5, 7, 9, 11, ... (19)] c0, c2, c4, ... (19 requests): "
            "activation int4\n"
            "[2, 4, 6, 8, 10, 12, ... (19)] c1, c3, c5, ... (19 requests): "
            "activation int8\n"
            "[39] c38: activation int4\n"
            "[40] c39: activation int8\n");
  lines.resize(2);
  EXPECT_EQ(printed(rows_of_requests(lines)),
            "[1] c0: activation int4\n[2] c1: activation int8\n");
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
