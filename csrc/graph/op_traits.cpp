// SPDX-License-Identifier: BSD-3-Clause
#include "graph/op_traits.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <map>
#include <numeric>
#include <set>
#include <span>

#include "graph/op_table.h"

namespace aimetpp::graph {
namespace {

// The op types of the ONNX standard, and those that backends add to it.
constexpr std::string_view kOnnxTypes =
    "Abs Acos Acosh Add AffineGrid And ArgMax ArgMin Asin Asinh Atan Atanh "
    "Attention AveragePool BatchNormalization Bernoulli BitShift BitwiseAnd "
    "BitwiseNot BitwiseOr BitwiseXor BlackmanWindow Cast CastLike Ceil Celu "
    "CenterCropPad Clip Col2Im Compress Concat ConcatFromSequence Constant "
    "ConstantOfShape Conv ConvInteger ConvTranspose Cos Cosh CumSum DFT "
    "DeformConv DepthToSpace DequantizeLinear Det Div Dropout "
    "DynamicQuantizeLinear Einsum Elu Equal Erf Exp Expand EyeLike Flatten "
    "Floor GRU Gather GatherElements GatherND Gelu Gemm GlobalAveragePool "
    "GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GridSample "
    "GroupNormalization HammingWindow HannWindow HardSigmoid HardSwish Hardmax "
    "Identity If ImageDecoder InstanceNormalization IsInf IsNaN LRN LSTM "
    "LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax Loop "
    "LpNormalization LpPool MatMul MatMulInteger Max MaxPool MaxRoiPool "
    "MaxUnpool Mean MeanVarianceNormalization MelWeightMatrix Min Mish Mod Mul "
    "Multinomial Neg NegativeLogLikelihoodLoss NonMaxSuppression NonZero Not "
    "OneHot Optional OptionalGetElement OptionalHasElement Or PRelu Pad Pow "
    "QLinearConv QLinearMatMul QuantizeLinear RMSNormalization RNN "
    "RandomNormal RandomNormalLike RandomUniform RandomUniformLike Range "
    "Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax "
    "ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare RegexFullMatch "
    "Relu Reshape Resize ReverseSequence RoiAlign RotaryEmbedding Round STFT "
    "Scan Scatter ScatterElements ScatterND Selu SequenceAt SequenceConstruct "
    "SequenceEmpty SequenceErase SequenceInsert SequenceLength SequenceMap "
    "Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax "
    "SoftmaxCrossEntropyLoss Softplus Softsign SpaceToDepth Split "
    "SplitToSequence Sqrt Squeeze StringConcat StringNormalizer StringSplit "
    "Sub Sum Swish Tan Tanh TensorScatter TfIdfVectorizer ThresholdedRelu Tile "
    "TopK Transpose Trilu Unique Unsqueeze Upsample Where Xor "
    "ChannelShuffle CropAndResize";

std::vector<std::string_view> words(std::string_view text) {
  std::vector<std::string_view> result;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(' '), text.size());
    if (end > 0) result.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return result;
}

using TraitsByKind = std::map<std::string_view, OpTraits>;

void add_rows(TraitsByKind& traits, std::span<const OpRow> rows, OpRole role,
              bool ties_inputs = false) {
  for (const OpRow& row : rows) {
    for (const std::string_view kind : words(row.kinds)) {
      traits[kind] = {role, std::string(row.onnx_type), ties_inputs};
    }
  }
}

const TraitsByKind& traits_by_kind() {
  static const TraitsByKind table = [] {
    TraitsByKind traits;
    add_rows(traits, compute_rows(), OpRole::compute);
    add_rows(traits, merging_rows(), OpRole::compute, /*ties_inputs=*/true);
    add_rows(traits, grid_preserving_rows(), OpRole::grid_preserving);
    add_rows(traits, metadata_rows(), OpRole::metadata);
    return traits;
  }();
  return table;
}

const std::map<std::string_view, std::string_view>& kind_by_spelling() {
  static const std::map<std::string_view, std::string_view> table = [] {
    std::map<std::string_view, std::string_view> kinds;
    for (const SpellingRow& row : spelling_rows()) {
      for (const std::string_view name : words(row.names)) {
        kinds[name] = row.kind;
      }
    }
    return kinds;
  }();
  return table;
}

const std::set<std::string_view>& onnx_types() {
  static const std::set<std::string_view> types = [] {
    const std::vector<std::string_view> names = words(kOnnxTypes);
    return std::set<std::string_view>(names.begin(), names.end());
  }();
  return types;
}

// "iadd", "radd" -> "add": Python's in-place and reflected operators.
std::string_view plain_operator(std::string_view name) {
  constexpr std::array<std::string_view, 14> kOperators = {
      "add", "sub", "mul", "div", "truediv", "floordiv", "matmul",
      "mod", "pow", "and", "or",  "xor",     "lshift",   "rshift"};
  const auto is_operator = [&](std::string_view text) {
    return std::ranges::find(kOperators, text) != kOperators.end();
  };
  const bool has_prefix = name.starts_with('i') || name.starts_with('r');
  if (!is_operator(name) && has_prefix && is_operator(name.substr(1))) {
    name.remove_prefix(1);
  }
  return name;
}

std::string lowercase(std::string_view text) {
  std::string result(text);
  std::ranges::transform(result, result.begin(), [](unsigned char c) {
    return static_cast<char>(std::tolower(c));
  });
  return result;
}

// Levenshtein distance.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i + 1;
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row.back();
}

}  // namespace

std::string canonical_kind(std::string_view name) {
  if (const auto colon = name.rfind("::"); colon != std::string_view::npos) {
    name.remove_prefix(colon + 2);
  }
  name = name.substr(0, name.find('.'));  // an overload: "add.Tensor"
  const bool dunder =
      name.size() > 4 && name.starts_with("__") && name.ends_with("__");
  const std::size_t first = name.find_first_not_of('_');
  if (first == std::string_view::npos) return std::string(name);
  name = name.substr(first, name.find_last_not_of('_') - first + 1);
  if (dunder) name = plain_operator(name);
  if (name.starts_with("special_")) name.remove_prefix(8);
  const auto found = kind_by_spelling().find(name);
  return std::string(found == kind_by_spelling().end() ? name : found->second);
}

const OpTraits& op_traits(std::string_view kind) {
  static const OpTraits unknown;
  static const OpTraits creation{OpRole::metadata, "", false};
  const std::string canonical = canonical_kind(kind);
  const auto found = traits_by_kind().find(canonical);
  if (found != traits_by_kind().end()) return found->second;
  if (canonical.starts_with("new_") || canonical.ends_with("_like") ||
      canonical.ends_with("_window")) {
    return creation;
  }
  return unknown;
}

bool is_known_kind(std::string_view kind) {
  return traits_by_kind().contains(canonical_kind(kind));
}

bool is_known_onnx_type(std::string_view onnx_type) {
  return onnx_types().contains(onnx_type);
}

std::string nearest_onnx_type(std::string_view onnx_type) {
  const std::string wanted = lowercase(onnx_type);
  return std::string(*std::ranges::min_element(
      onnx_types(), {}, [&](std::string_view candidate) {
        return edit_distance(wanted, lowercase(candidate));
      }));
}

}  // namespace aimetpp::graph
