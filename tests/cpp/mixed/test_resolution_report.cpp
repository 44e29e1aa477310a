// SPDX-License-Identifier: BSD-3-Clause
// What a resolution refuses, and what it tells.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "core/error.h"
#include "mixed/resolver.h"
#include "resolver_models.h"

namespace aimetpp::mixed::testing {
namespace {

Precision int_of(int bitwidth) { return Precision::integer(bitwidth); }

TEST(ResolverIneffective, IsAValueErrorThatSaysWhy) {
  const Model model = residual();
  std::string message =
      error_of(model, {leaf("conv3", {"int16"}, {{"wieght", "int4"}})},
               ErrorKind::value);
  EXPECT_TRUE(mentions(message, "request 1 (conv3, demo.py:11)")) << message;
  EXPECT_TRUE(mentions(message, "no parameter \"wieght\"")) << message;
  EXPECT_TRUE(mentions(message, "bias, weight")) << message;

  message = error_of(model, {leaf("conv3", {}, {{"bias", "int4"}})},
                     ErrorKind::value);
  EXPECT_TRUE(mentions(message, "\"bias\" has no quantizer (params: off)"))
      << message;

  message = error_of(model, {leaf("relu1", {"int16"}), type({}, {"int16"})},
                     ErrorKind::value);
  EXPECT_TRUE(mentions(message, "request 2")) << message;
  EXPECT_TRUE(mentions(message, "matches no layer")) << message;
}

TEST(ResolverIneffective, NoQuantizerForTheActivation) {
  Model model;
  GraphBuilder& b = model.builder;
  const int soft = b.leaf("softmax", "soft", {b.input()});
  const int scaled = b.functional("mul", "", {soft, b.constant()});
  b.output(b.leaf("softmax", "last", {scaled}));
  model.off("soft").off("/mul_0").off("last");
  model.place();
  std::string message =
      error_of(model, {leaf("last", {"int16"})}, ErrorKind::value);
  EXPECT_TRUE(mentions(message, "activation (int16) finds no quantizer"))
      << message;
  message = error_of(model, {leaf("/mul_0", {"", "int16"})}, ErrorKind::value);
  EXPECT_TRUE(mentions(message, "entry 1 of activation")) << message;
}

TEST(ResolverIneffective, OneLeafOfATypeIsEnough) {
  const Model model = residual();
  EXPECT_NO_THROW(resolve(
      model, {container({"conv3", "pool"}, "int16", {{"weight", "int4"}})}));
}

TEST(ResolverIneffective, IsAReportLineWhereNotStrict) {
  const Model model = residual();
  const Resolved resolution = resolve(
      model, {type({}, {"int16"}), leaf("conv3", {}, {{"bias", "int4"}})},
      false);
  EXPECT_TRUE(has_line(resolution.overruled, 0, "nothing", "matches no layer"));
  EXPECT_TRUE(has_line(resolution.overruled, 1, "conv3", "has no quantizer"));
  EXPECT_TRUE(resolution.changes.empty());
}

TEST(ResolverIneffective, AskingForNothingIsFine) {
  EXPECT_TRUE(resolve(residual(), {leaf("conv3", {""})}).changes.empty());
}

TEST(ResolverArguments, LengthOfActivations) {
  const Model model = residual();
  EXPECT_TRUE(mentions(
      error_of(model, {leaf("conv3", {"int8", "int8"})}, ErrorKind::value),
      "conv3 has 1 input,"));
  EXPECT_TRUE(mentions(
      error_of(model, {model_input({"int8", "int8"})}, ErrorKind::value),
      "the model has 1 input,"));
  EXPECT_TRUE(
      mentions(error_of(model, {model_output({"int8", ""})}, ErrorKind::value),
               "the model has 1 output,"));
}

TEST(ResolverArguments, LengthOfCurrentAndRangeOfOps) {
  const Model model = residual();
  EXPECT_THROW(resolve_requests(model.graph, model.placement, {}, {}, true),
               Error);
  std::vector<Request> requests = requests_of(model, {leaf("fc", {"int8"})});
  requests.front().ops = {99};
  EXPECT_THROW(resolve_requests(model.graph, model.placement, current_of(model),
                                requests, true),
               Error);
}

TEST(ResolverKernels, WeightWithTheActivationItReads) {
  Model model = residual();
  model.placement.kernels_of_op[model.op("conv3")] = {{int_of(8), int_of(8)},
                                                      {int_of(16), int_of(8)}};
  EXPECT_NO_THROW(resolve(model, {leaf("conv3", {"int16"})}));
  const std::string message =
      error_of(model, {leaf("conv3", {"int16"}, {{"weight", "int4"}})},
               ErrorKind::runtime);
  EXPECT_TRUE(mentions(message,
                       "conv3: no supported kernel for int16 input "
                       "with int4 weight; supported: int8/int8, int16/int8"))
      << message;
  EXPECT_TRUE(mentions(message, "asked by request 1 (conv3, demo.py:11)"))
      << message;
}

TEST(ResolverKernels, NamesTheRequestsThatDecidedAndNoOther) {
  Model model = residual();
  model.placement.kernels_of_op[model.op("conv3")] = {{int_of(8), int_of(8)}};
  const std::vector<Ask> requests = {
      leaf("conv3", {"int4"}, {{"weight", "int4"}}),
      leaf("conv3", {}, {{"weight", "int16"}}), leaf("fc", {"int16"}),
      leaf("conv3", {"int16"})};
  const std::string message = error_of(model, requests, ErrorKind::runtime);
  EXPECT_TRUE(mentions(message,
                       "asked by request 2 (conv3, demo.py:12), request 4 "
                       "(conv3, demo.py:14)"))
      << message;
  for (const char* other : {"request 1 ", "request 3 "}) {
    EXPECT_FALSE(mentions(message, other)) << message;
  }
  const Resolved resolution = resolve(model, requests, false);
  const auto line =
      std::ranges::find_if(resolution.overruled, [](const ReportLine& each) {
        return mentions(each.detail, "no supported kernel");
      });
  ASSERT_NE(line, resolution.overruled.end());
  EXPECT_EQ(fact_of<std::vector<int>>(*line, "by"), (std::vector<int>{2, 4}));
}

TEST(ResolverKernels, ASiblingIsCheckedToo) {
  Model model = residual();
  model.placement.kernels_of_op[model.op("conv2")] = {{int_of(8), int_of(8)}};
  const std::string message =
      error_of(model, {leaf("conv3", {"int16"})}, ErrorKind::runtime);
  EXPECT_TRUE(mentions(message, "conv2: no supported kernel")) << message;
  EXPECT_NO_THROW(resolve(model, {leaf("fc", {"int16"})}));
}

TEST(ResolverKernels, WeightlessByWhatItPutsOut) {
  Model model = residual();
  model.placement.kernels_of_op[model.op("/add_0")] = {
      {int_of(8), std::nullopt}, {int_of(16), int_of(8)}};
  EXPECT_NO_THROW(resolve(model, {leaf("/add_0", {"int16"})}));
  EXPECT_TRUE(
      mentions(error_of(model, {leaf("/add_0", {"fp16"})}, ErrorKind::runtime),
               "/add_0: no supported kernel for fp16 output"));
}

TEST(ResolverKernels, IsAReportLineWhereNotStrict) {
  Model model = residual();
  model.placement.kernels_of_op[model.op("fc")] = {{int_of(8), int_of(8)}};
  const Resolved resolution =
      resolve(model, {leaf("fc", {}, {{"weight", "int4"}})}, false);
  EXPECT_EQ(changed(model, resolution),
            (std::map<std::string, std::string>{{"fc.weight", "int4"}}));
  EXPECT_TRUE(
      has_line(resolution.overruled, kNone, "fc", "no supported kernel"));
}

TEST(Resolver, AQuantizerThatIsOffComesBack) {
  const Model model = residual();
  std::vector<Precision> current = current_of(model);
  const int quantizer =
      model.placement.quantizer_of_site[model.graph.ops[model.op("fc")]
                                            .output_sites.front()];
  current[quantizer] = Precision::fp32();
  const Resolution resolution =
      resolve_requests(model.graph, model.placement, current,
                       requests_of(model, {model_output({"int8"})}), true);
  ASSERT_EQ(resolution.changes.size(), 1u);
  EXPECT_EQ(resolution.changes[0].quantizer, quantizer);
  EXPECT_EQ(resolution.changes[0].before, Precision::fp32());
  EXPECT_EQ(resolution.changes[0].after, int_of(8));
  EXPECT_EQ(resolution.changes[0].request, 0);
}

TEST(Resolver, ModelInputThatIsViewedFirst) {
  Model model;
  GraphBuilder& b = model.builder;
  const int x = b.input();
  const int viewed = b.bare("view", {x});
  b.output(b.leaf("linear", "fc", {viewed}, with_weight()));
  model.place();
  // The quantizer of the viewed model input stands at its first computing
  // reader, as config placement puts it.
  const int site = model.graph.ops[model.op("fc")].input_sites.front();
  model.placement.quantizer_of_site[site] =
      static_cast<int>(model.placement.quantizers.size());
  model.placement.quantizers.push_back({int_of(8),
                                        false,
                                        false,
                                        false,
                                        kNone,
                                        {},
                                        graph::SiteKind::input,
                                        {site}});
  EXPECT_EQ(changed(model, resolve(model, {model_input({"int16"})})),
            (std::map<std::string, std::string>{{"fc.input.0", "int16"}}));
}

TEST(ResolutionReport, SectionsSayWhatBecameOfARequest) {
  const Model model = residual();
  const Resolved resolution = resolve(
      model,
      {leaf("fc", {"int16"}), leaf("conv3", {"int16"}, {{"weight", "int4"}}),
       container({"conv2", "relu2"}, "int8")},
      true);
  const std::string text = text_of(resolution);
  EXPECT_TRUE(has_line(resolution.requests, 1, "conv3",
                       "activation int16, weight int4 at demo.py:12"))
      << text;
  EXPECT_TRUE(has_line(resolution.inferred, 1, "conv3",
                       "input int16, output int16, weight int4"))
      << text;
  EXPECT_TRUE(has_line(resolution.propagated, 0, "fc input 0",
                       "int16 -> /add_0, through flat, pool"))
      << text;
  // The container covers relu2 as well: nothing went from one to the other.
  EXPECT_FALSE(has_line(resolution.propagated, 2, "conv2 output", "relu2"))
      << text;
  EXPECT_TRUE(has_line(resolution.realized, 1, "conv3.weight", "int8 -> int4"))
      << text;
  EXPECT_TRUE(has_line(resolution.realized, 2, "relu2", "int8 already"))
      << text;
  EXPECT_TRUE(has_line(resolution.overruled, 1, "conv3 input 0",
                       "int16; relu1 is int8 by request 3 (conv2 input 0)"))
      << text;
  for (const char* title : {"\nRequests\n", "\nInferred\n", "\nPropagated\n",
                            "\nRealized\n", "\nOverruled\n", "\nUnchanged\n"}) {
    EXPECT_TRUE(mentions(text, title)) << text;
  }
}

TEST(ResolutionReport, SiblingsAndTiedProducersThatSeeAChange) {
  const Model shared = residual();
  Resolved resolution = resolve(shared, {leaf("conv3", {"int16"})});
  EXPECT_TRUE(
      has_line(resolution.propagated, 0, "relu1", "int16 is seen too by conv2"))
      << text_of(resolution);
  const Model tied = two_inputs();
  resolution = resolve(tied, {leaf("a", {"int16"})});
  EXPECT_TRUE(has_line(resolution.propagated, 0, "a, b, /cat_0",
                       "int16 is seen too by b, /cat_0, c, d"))
      << text_of(resolution);
}

TEST(ResolutionReport, FactsNameASharedQuantizerByItsFirstSite) {
  const Resolved resolution =
      resolve(two_inputs(), {leaf("d", {"int4"}), leaf("c", {"int16"})}, false);
  const auto elsewhere = [](const ReportLine& line) {
    return fact_of<std::string>(line, "what") == "decided elsewhere";
  };
  ASSERT_GT(std::ranges::count_if(resolution.propagated, elsewhere), 0);
  for (const ReportLine& line : resolution.propagated) {
    if (!elsewhere(line)) continue;
    EXPECT_EQ(fact_of<Names>(line, "quantizers"), Names{"a"}) << line.subject;
    EXPECT_TRUE(mentions(line.detail, "-> a, b, /cat_0")) << line.detail;
  }
  ASSERT_EQ(resolution.overruled.size(), 1U);
  EXPECT_EQ(fact_of<std::string>(resolution.overruled[0], "quantizer"), "a");
  EXPECT_TRUE(
      mentions(resolution.overruled[0].detail, "a, b, /cat_0 is int16"));
  EXPECT_EQ(fact_of<std::string>(resolution.realized[0], "quantizer"), "a");
}

TEST(ResolutionReport, UnchangedIsWhatNoRequestReached) {
  const Resolved resolution =
      resolve(residual(), {leaf("conv3", {"int16"}, {{"weight", "int8"}})});
  std::vector<std::string> names;
  for (const ReportLine& line : resolution.unchanged) {
    EXPECT_EQ(line.request, kNone);
    EXPECT_EQ(line.detail, "int8");
    names.push_back(line.subject);
  }
  // conv3.weight was reached, though it is as it was.
  EXPECT_EQ(names, (std::vector<std::string>{"conv1.input.0", "conv1.weight",
                                             "conv2.weight", "relu2", "/add_0",
                                             "fc.weight", "fc"}));
  EXPECT_EQ(resolution.reached.size(), 3u);
}

TEST(ResolutionReport, BitOperationsBeforeAndAfter) {
  // Four multiplying ops of one MAC each, 8 x 8 bits before. conv3's weight
  // becomes int4: 8 x 4. relu1 at 16 bits is read by conv2 (x 8) and conv3.
  const Resolved narrow =
      resolve(residual(), {leaf("conv3", {}, {{"weight", "int4"}})});
  EXPECT_EQ(narrow.bit_ops_before, 4 * 64);
  EXPECT_EQ(narrow.bit_ops_after, 3 * 64 + 32);
  const Resolved wide =
      resolve(residual(), {leaf("conv3", {"int16"}, {{"weight", "int4"}})});
  EXPECT_EQ(wide.bit_ops_after, 2 * 64 + 128 + 64);
  EXPECT_TRUE(mentions(
      text_of(wide), "Bit-operations per sample: 256 -> 320 (1.25 of before)"))
      << text_of(wide);
  EXPECT_TRUE(
      mentions(text_of(wide), "Quantizers after: int4 1, int8 7, int16 2\n"))
      << text_of(wide);
}

TEST(ResolutionReport, ReplacedRequestIsOverruledLeafByLeaf) {
  const Resolved resolution =
      resolve(residual(), {leaf("conv3", {"int16"}, {{"weight", "int16"}}),
                           leaf("conv3", {"int4"})});
  EXPECT_TRUE(has_line(resolution.overruled, 0, "conv3",
                       "input int16, output int16; request 2 speaks of it "
                       "later"))
      << text_of(resolution);
  EXPECT_TRUE(has_line(resolution.inferred, 0, "conv3", "weight int16"));
  EXPECT_TRUE(has_line(resolution.inferred, 1, "conv3", "input int4"));
}

TEST(ResolutionReport, SectionsAreInGraphOrderWhateverTheOrderOfTheCalls) {
  const Resolved resolution =
      resolve(residual(),
              {leaf("fc", {"int16"}), leaf("conv3", {"int4"}),
               leaf("conv1", {"int16"}, {{"weight", "int4"}})},
              false);
  Names inferred, realized;
  for (const ReportLine& line : resolution.inferred) {
    inferred.push_back(line.subject);
  }
  for (const ReportLine& line : resolution.realized) {
    realized.push_back(line.subject);
  }
  EXPECT_EQ(inferred, (Names{"conv1", "conv3", "fc"}));
  EXPECT_EQ(realized, (Names{"conv1.input.0", "conv1.weight", "relu1", "conv3",
                             "/add_0", "fc"}));
}

TEST(ResolutionReport, ManyReplacedByManyNameThemAll) {
  Model m;
  GraphBuilder& b = m.builder;
  int x = b.input();
  Names names;
  for (int index = 0; index < 20; ++index) {
    names.push_back("c" + std::to_string(index));
    x = b.leaf("conv2d", names.back(), {x}, with_weight());
  }
  b.output(x);
  m.place();
  const Resolved resolution =
      resolve(m, {type(names, {"int16"}, {{"weight", "int16"}}),
                  type({"c3", "c4", "c5"}, {"int4"}),
                  type(names, {}, {{"weight", "int4"}}),
                  type({names.begin() + 3, names.end()}, {"int8"})});
  ASSERT_EQ(resolution.overruled.size(), 5u) << text_of(resolution);
  EXPECT_EQ(
      resolution.overruled[0].detail,
      "20 leaf calls (c0, c1, c2, ...): requests 3, 4 speak of them later");
  EXPECT_EQ(resolution.overruled[2].detail,
            "input int4, output int4; request 4 speaks of it later");
}

TEST(ResolutionReport, AListForALayerOfSeveralOpsSpeaksOfItsPorts) {
  const Model model = residual();
  std::vector<Request> requests =
      requests_of(model, {container({"conv2", "conv3"}, "int8")});
  requests.front().activations = {Precision::integer(4), std::nullopt,
                                  Precision::integer(16)};
  requests.front().ports = {
      {{model.op("conv1"), 0}}, {}, {{model.op("fc"), 0}}};
  requests.front().results = {model.op("conv2")};
  const Resolution resolution = resolve_requests(
      model.graph, model.placement, current_of(model), requests, true);
  EXPECT_EQ(
      changed(model, resolution),
      (std::map<std::string, std::string>{
          {"conv1.input.0", "int4"}, {"relu2", "int4"}, {"/add_0", "int16"}}));
  requests.front().activations.pop_back();
  EXPECT_THROW(resolve_requests(model.graph, model.placement, current_of(model),
                                requests, true),
               Error);
}

TEST(ResolutionReport, InsideOfASupergroup) {
  const Resolved resolution = resolve(residual(), {leaf("relu1", {"int16"})});
  EXPECT_TRUE(has_line(resolution.propagated, 0, "relu1 input 0",
                       "inside its supergroup"))
      << text_of(resolution);
  EXPECT_TRUE(resolution.overruled.empty());
}

}  // namespace
}  // namespace aimetpp::mixed::testing
