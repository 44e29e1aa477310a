// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "graph/op_traits.h"

namespace aimetpp::graph {
namespace {

TEST(CanonicalKind, JoinsTheSpellingsOfOneOp) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"add", "add"},
      {"add_", "add"},
      {"__add__", "add"},
      {"__iadd__", "add"},
      {"__radd__", "add"},
      {"aten::add_", "add"},
      {"add.Tensor", "add"},
      {"__rsub__", "sub"},
      {"rsub", "sub"},
      {"__truediv__", "div"},
      {"__itruediv__", "div"},
      {"__rmatmul__", "matmul"},
      {"__rpow__", "pow"},
      {"__ror__", "bitwise_or"},
      {"__rand__", "bitwise_and"},
      {"rand", "rand"},
      {"__rshift__", "bitwise_right_shift"},
      {"__rrshift__", "bitwise_right_shift"},
      {"__invert__", "bitwise_not"},
      {"multiply", "mul"},
      {"concatenate", "cat"},
      {"clip", "clamp"},
      {"special_expit", "sigmoid"},
      {"_softmax", "softmax"},
      {"_convolution", "convolution"},
      {"aten::_convolution_mode", "convolution"},
      {"index_put_", "index_put"},
      {"__getitem__", "getitem"},
      {"_scaled_dot_product_flash_attention_for_cpu",
       "scaled_dot_product_attention"},
      {"__", "__"},
      {"", ""},
  };
  for (const auto& [name, kind] : cases) {
    EXPECT_EQ(canonical_kind(name), kind) << name;
  }
}

TEST(OpTraits, RoleDecidesWhatIsASite) {
  for (const char* kind :
       {"add", "add_", "__rsub__", "relu", "cat", "softmax", "einsum", "matmul",
        "conv2d", "mean", "interpolate", "gelu", "layer_norm", "where",
        "scaled_dot_product_attention", "an_op_nobody_knows"}) {
    EXPECT_EQ(op_traits(kind).role, OpRole::compute) << kind;
  }
  for (const char* kind :
       {"view", "__getitem__", "chunk", "max_pool2d", "dropout", "contiguous",
        "permute", "to", "amax", "pixel_shuffle", "pad", "masked_fill_",
        "__setitem__", "copy_", "topk", "unbind", "detach",
        "upsample_nearest2d"}) {
    EXPECT_EQ(op_traits(kind).role, OpRole::grid_preserving) << kind;
  }
  for (const char* kind :
       {"__get__",     "size",      "__eq__", "gt",        "argmax",
        "__len__",     "zeros",     "randn",  "new_zeros", "new_full",
        "zeros_like",  "rand_like", "tensor", "as_tensor", "arange",
        "eye",         "linspace",  "numel",  "item",      "is_floating_point",
        "hann_window", "fill_",     "zero_"}) {
    EXPECT_EQ(op_traits(kind).role, OpRole::metadata) << kind;
  }
}

TEST(OpTraits, OnnxTypes) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"conv1d", "Conv"},
      {"_convolution", "Conv"},
      {"conv_transpose2d", "ConvTranspose"},
      {"linear", "Gemm"},
      {"bmm", "MatMul"},
      {"batch_norm", "BatchNormalization"},
      {"relu6", "Clip"},
      {"hardtanh", "Clip"},
      {"hardswish", "HardSwish"},
      {"embedding", "Gather"},
      {"max_pool3d", "MaxPool"},
      {"upsample_bilinear2d", "Resize"},
      {"upsample_nearest_exact1d", "Resize"},
      {"mean", "ReduceMean"},
      {"lstm", "LSTM"},
      {"to", "Cast"},
      {"glu", ""},
      {"an_op_nobody_knows", ""},
  };
  for (const auto& [kind, onnx_type] : cases) {
    EXPECT_EQ(op_traits(kind).onnx_type, onnx_type) << kind;
  }
}

TEST(OpTraits, OnlyMergingOpsTieTheirInputs) {
  EXPECT_TRUE(op_traits("concat").ties_inputs);
  EXPECT_TRUE(op_traits("stack").ties_inputs);
  EXPECT_TRUE(op_traits("index_put_").ties_inputs);
  EXPECT_FALSE(op_traits("add").ties_inputs);
  EXPECT_FALSE(op_traits("view").ties_inputs);
}

TEST(OpTraits, KnownKinds) {
  EXPECT_TRUE(is_known_kind("__iadd__"));
  EXPECT_TRUE(is_known_kind("size"));
  EXPECT_FALSE(is_known_kind("an_op_nobody_knows"));
}

TEST(OnnxTypes, EveryTypeInTheTableIsKnown) {
  for (const char* kind :
       {"conv2d", "cat", "lstm", "relu", "silu", "channel_shuffle", "roi_align",
        "fold", "deform_conv2d", "scaled_dot_product_attention", "rms_norm",
        "grid_sample", "tril", "bitwise_left_shift", "masked_select"}) {
    EXPECT_TRUE(is_known_onnx_type(op_traits(kind).onnx_type)) << kind;
  }
}

TEST(OnnxTypes, TypesOfTheShippedConfigsAreKnown) {
  for (const char* type : {"Conv",
                           "ConvTranspose",
                           "Gemm",
                           "MatMul",
                           "PRelu",
                           "BatchNormalization",
                           "Cast",
                           "Add",
                           "Relu",
                           "Clip",
                           "HardSwish",
                           "LeakyRelu",
                           "LayerNormalization",
                           "GroupNormalization",
                           "InstanceNormalization",
                           "RMSNormalization",
                           "ChannelShuffle",
                           "Gather",
                           "NonMaxSuppression",
                           "Sigmoid",
                           "Softmax",
                           "Sin",
                           "Cos",
                           "Tanh",
                           "Transpose",
                           "Resize"}) {
    EXPECT_TRUE(is_known_onnx_type(type)) << type;
  }
  EXPECT_FALSE(is_known_onnx_type("conv"));
  EXPECT_FALSE(is_known_onnx_type("Conv2d"));
  EXPECT_FALSE(is_known_onnx_type(""));
}

TEST(OnnxTypes, NearestInSpelling) {
  EXPECT_EQ(nearest_onnx_type("Conv2d"), "Conv");
  EXPECT_EQ(nearest_onnx_type("relu"), "Relu");
  EXPECT_EQ(nearest_onnx_type("BatchNormalisation"), "BatchNormalization");
  EXPECT_EQ(nearest_onnx_type("Softmaxx"), "Softmax");
  EXPECT_EQ(nearest_onnx_type("PReLU"), "PRelu");
}

}  // namespace
}  // namespace aimetpp::graph
