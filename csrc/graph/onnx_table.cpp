// SPDX-License-Identifier: BSD-3-Clause
#include "graph/onnx_table.h"

#include <algorithm>
#include <array>
#include <map>
#include <utility>

#include "graph/op_table.h"

namespace aimetpp::graph {
namespace {

using Names = std::map<std::string_view, std::string_view>;

// Types that the table of ops maps several kinds to, of which not the first one
// is meant, and types that it does not have.
constexpr std::array<std::pair<std::string_view, std::string_view>, 15> kOwn = {
    {{"CastLike", "to"},
     {"CenterCropPad", "pad"},
     {"Clip", "clamp"},
     {"ConstantOfShape", "full"},
     {"Gather", "index_select"},
     {"GlobalMaxPool", "adaptive_max_pool2d"},
     {"RandomNormalLike", "randn"},
     {"RandomUniformLike", "rand"},
     {"Reshape", "reshape"},
     {"ReverseSequence", "flip"},
     {"Scatter", "scatter"},
     {"ScatterElements", "scatter"},
     {"ScatterND", "setitem"},
     {"SequenceAt", "getitem"},
     {"Upsample", "upsample"}}};

const Names& kinds() {
  static const Names table = [] {
    Names names(kOwn.begin(), kOwn.end());
    for (const auto rows : {compute_rows(), merging_rows(),
                            grid_preserving_rows(), metadata_rows()}) {
      for (const OpRow& row : rows) {
        if (row.onnx_type.empty()) continue;
        names.try_emplace(row.onnx_type,
                          row.kinds.substr(0, row.kinds.find(' ')));
      }
    }
    return names;
  }();
  return table;
}

struct ParamRow {
  std::string_view onnx_types;  // with a space around each
  int first_input;
  std::array<std::string_view, 4> names;
};

constexpr ParamRow kParams[] = {
    {" Conv ConvTranspose Gemm LayerNormalization GroupNormalization "
     "InstanceNormalization BatchNormalization ",
     1,
     {"weight", "bias"}},
    {" DeformConv ", 1, {"weight", "", "bias"}},
    {" MatMul Einsum ", 0, {"weight", "weight", "weight", "weight"}},
    {" Gather ", 0, {"weight"}},
    {" PRelu RMSNormalization ", 1, {"weight"}},
    {" LSTM GRU RNN ", 1, {"weight_ih", "weight_hh", "bias"}},
};

}  // namespace

std::string kind_of_onnx_type(std::string_view onnx_type) {
  const auto found = kinds().find(onnx_type);
  return std::string(found == kinds().end() ? onnx_type : found->second);
}

std::string_view onnx_param_name(std::string_view onnx_type, int input) {
  std::string word = " ";
  word.append(onnx_type).append(" ");
  for (const ParamRow& row : kParams) {
    const int index = input - row.first_input;
    if (row.onnx_types.find(word) == std::string_view::npos) continue;
    const bool has = index >= 0 && index < static_cast<int>(row.names.size());
    return has ? row.names[index] : std::string_view{};
  }
  return {};
}

bool is_onnx_data_input(std::string_view onnx_type, int input) {
  constexpr std::array<std::string_view, 6> kFirstOnly = {
      "Clip", "Dropout", "Pad", "Resize", "Upsample", "CastLike"};
  // Running statistics are never quantized.
  if (onnx_type == "BatchNormalization") return input < 3;
  return input == 0 ||
         std::ranges::find(kFirstOnly, onnx_type) == kFirstOnly.end();
}

}  // namespace aimetpp::graph
