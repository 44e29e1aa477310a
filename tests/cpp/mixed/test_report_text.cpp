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
  EXPECT_EQ(printed(rows_of_section(lines)),
            "[1-2, 4, 6, ... 20] {stage0, stage1}.{0, 2, ... 18}.conv.weight "
            "(20 x weight): int8 -> int2\n"
            "[1-21] {stage0, stage1} (40 x activation): int8 -> int16\n"
            "[1, 3, ... 21] {stage0, stage1}.{1, 3, ... 19}.conv.weight "
            "(20 x weight): int8 -> int4\n");
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

// Twenty blocks in each of two stages; the relus of every other block say one
// thing and the sums another.
TEST(ReportText, PartsThatTakeTurnsAreARowForEach) {
  std::vector<ReportLine> lines;
  for (int stage = 0; stage < 2; ++stage) {
    for (int block = 0; block < 20; ++block) {
      const std::string at =
          std::to_string(stage) + "." + std::to_string(block);
      const bool is_even = block % 2 == 0;
      lines.push_back({block, at + ".relu", is_even ? "int4" : "int16",
                       at + ".relu", "activation"});
      lines.push_back({block + 1, at + "/add_0", is_even ? "int16" : "int4", at,
                       "activation"});
    }
  }
  EXPECT_EQ(printed(rows_of_section(lines)),
            "[1, 3, ... 19] {0-1}.{0, 2, ... 18}.relu (20 x activation): "
            "int4\n"
            "[2, 4, ... 20] {0-1}.{0, 2, ... 18}/add_0 (20 x activation): "
            "int16\n"
            "[2, 4, ... 20] {0-1}.{1, 3, ... 19}.relu (20 x activation): "
            "int16\n"
            "[3, 5, ... 21] {0-1}.{1, 3, ... 19}/add_0 (20 x activation): "
            "int4\n");
}

TEST(ReportText, OwnLinesThatSayTheSameAreOneRow) {
  std::vector<ReportLine> lines;
  for (int index = 0; index < 40; ++index) {
    lines.push_back({index, "r" + std::to_string(index % 20),
                     index == 7 ? "int8" : "int4", "", "request"});
  }
  EXPECT_EQ(printed(rows_of_section(lines)),
            "[1-7, 9-40] r0, r1, r2, ... (39 x request): int4\n"
            "[8] r7: int8\n");
}

TEST(ReportText, AThousandDifferentRequestsFromOneLineAreNotAThousandRows) {
  std::vector<ReportLine> lines;
  for (int index = 0; index < 1000; ++index) {
    ReportLine line{index, "c" + std::to_string(index),
                    "activation int4, scale " + std::to_string(index)};
    line.facts = {{"source", std::string("a.py:1")}};
    lines.push_back(line);
  }
  const std::vector<ReportRow> rows = rows_of_requests(lines);
  ASSERT_EQ(rows.size(), 41u);
  EXPECT_EQ(printed({rows.back()}),
            "[41-1000] c40, c41, c42, ... (960 requests): 960 other settings "
            "at a.py:1\n");
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
            "[1, 3, ... 37] c0, c2, c4, ... (19 requests): "
            "activation int4\n"
            "[2, 4, ... 38] c1, c3, c5, ... (19 requests): "
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
  const Resolved resolution =
      resolve(m, {type(names, {"int16"}), type(names, {"int4"})});
  ASSERT_EQ(resolution.overruled.size(), 1u) << text_of(resolution);
  EXPECT_EQ(resolution.overruled[0].request, 0);
  EXPECT_EQ(resolution.overruled[0].detail,
            "100 leaf calls (c0, c1, c2, ...): request 2 speaks of them later");
}

}  // namespace
}  // namespace aimetpp::mixed::testing
