// SPDX-License-Identifier: BSD-3-Clause
// Requests that claim one tensor with different precisions.
#include <gtest/gtest.h>

#include <string>

#include "core/error.h"
#include "mixed/resolver.h"
#include "resolver_models.h"

namespace aimetpp::mixed::testing {
namespace {

TEST(ResolverConflict, NamesBothRequestsByNumberAndSourceLine) {
  const std::string message =
      error_of(residual(),
               {leaf("fc", {"int16"}), leaf("conv3", {"int16"}),
                leaf("conv2", {"int4"})},
               ErrorKind::runtime);
  EXPECT_TRUE(mentions(message, "request 2 (conv3, demo.py:12)")) << message;
  EXPECT_TRUE(mentions(message, "request 3 (conv2, demo.py:13)")) << message;
  EXPECT_TRUE(mentions(message, "quantizer relu1")) << message;
  EXPECT_FALSE(mentions(message, "request 1 ")) << message;
}

TEST(ResolverConflict, ProducerAndReaderInBothOrders) {
  error_of(residual(), {leaf("relu1", {"int4"}), leaf("conv3", {"int16"})},
           ErrorKind::runtime);
  error_of(residual(), {leaf("conv3", {"int16"}), leaf("relu1", {"int4"})},
           ErrorKind::runtime);
}

TEST(ResolverConflict, OneRequestThatWantsTwoPrecisionsOfTiedInputs) {
  const std::string message = error_of(
      two_inputs(), {leaf("/cat_0", {"int16", "int4"})}, ErrorKind::runtime);
  EXPECT_TRUE(mentions(message, "request 1 (/cat_0, demo.py:11) asks"))
      << message;
}

TEST(ResolverConflict, AListForOneTensorIsOneThroughATypeToo) {
  Model m;
  GraphBuilder& b = m.builder;
  const int x = b.leaf("relu", "r", {b.input()});
  b.output(b.leaf("add", "sum", {x, x}));
  m.place();
  const std::string message =
      error_of(m, {type({"sum"}, {"int16", "int4"})}, ErrorKind::runtime);
  EXPECT_TRUE(mentions(message, "sum input 0")) << message;
  EXPECT_TRUE(mentions(message, "sum input 1")) << message;
}

TEST(ResolverConflict, NotBetweenAModelInputAndItsReadersInEitherOrder) {
  const Model model = shared_input();
  EXPECT_EQ(changed(model, resolve(model, {leaf("q", {"int4"}),
                                           model_input({"int16"})})),
            (std::map<std::string, std::string>{{"p.input.0", "int16"},
                                                {"q", "int4"}}));
  const Resolved resolution =
      resolve(model, {model_input({"int16"}), leaf("q", {"int4"})});
  EXPECT_EQ(changed(model, resolution),
            (std::map<std::string, std::string>{{"p.input.0", "int4"},
                                                {"q", "int4"}}));
  EXPECT_TRUE(has_line(resolution.overruled, 0, "p input 0", "int16"))
      << text_of(resolution);
}

TEST(ResolverConflict, TwoReadersOfAModelInputStillAreOne) {
  const Model model = shared_input();
  const Ask input = model_input({"int16"});
  const Ask p = leaf("p", {"int8"});
  const Ask q = leaf("q", {"int4"});
  error_of(model, {input, p, q}, ErrorKind::runtime);
  error_of(model, {q, input, p, q}, ErrorKind::runtime);
  EXPECT_NO_THROW(resolve(model, {p, q, input}));
  EXPECT_NO_THROW(resolve(model, {p, input, q}));
}

TEST(ResolverConflict, ModelInputAndWhatReadsItBehindALayerInBothOrders) {
  Model m;
  GraphBuilder& b = m.builder;
  const int x = b.input();
  const int flat = b.leaf("flatten", "flat", {x});
  b.output(b.leaf("linear", "near", {x}, with_weight()));
  b.output(b.leaf("linear", "far", {flat}, with_weight()));
  m.place();
  error_of(m, {model_input({"int16"}), leaf("far", {"int4"})},
           ErrorKind::runtime);
  error_of(m, {leaf("far", {"int4"}), model_input({"int16"})},
           ErrorKind::runtime);
}

TEST(ResolverConflict, NotBetweenTwoCallsOfOneModule) {
  const Model model = reused();
  const Resolved resolution =
      resolve(model, {leaf("act", {"int16"}), leaf("act:1", {"int4"})});
  EXPECT_EQ(
      changed(model, resolution),
      (std::map<std::string, std::string>{
          {"u", "int16"}, {"act", "int16"}, {"v", "int4"}, {"act:1", "int4"}}));
}

TEST(ResolverConflict, NotWithWhatCameThroughAContainerOrAType) {
  const Model model = residual();
  EXPECT_NO_THROW(resolve(
      model, {leaf("conv3", {"int16"}), type({"conv1", "conv2"}, {"int4"})}));
  EXPECT_NO_THROW(resolve(model, {container({"conv2", "relu2"}, "int4"),
                                  leaf("conv3", {"int16"})}));
}

}  // namespace
}  // namespace aimetpp::mixed::testing
