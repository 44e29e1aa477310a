// SPDX-License-Identifier: BSD-3-Clause
#include "graph/op_table.h"

namespace aimetpp::graph {
namespace {

constexpr OpRow kCompute[] = {
    // Products with a weight or of two activations.
    {"Conv", "conv1d conv2d conv3d convolution conv_tbc"},
    {"ConvTranspose", "conv_transpose1d conv_transpose2d conv_transpose3d"},
    {"DeformConv", "deform_conv2d"},
    {"Gemm", "linear addmm addmv"},
    {"", "bilinear"},
    {"MatMul",
     "matmul mm bmm mv dot inner outer baddbmm addbmm addr "
     "chain_matmul tensordot"},
    {"Einsum", "einsum"},
    {"Attention", "scaled_dot_product_attention multi_head_attention_forward"},
    {"LSTM", "lstm lstm_cell"},
    {"GRU", "gru gru_cell"},
    {"RNN", "rnn_tanh rnn_relu rnn_cell rnn_tanh_cell rnn_relu_cell"},
    // Lookups, whose result has the table's grid but not its input's.
    {"Gather", "embedding"},
    {"", "embedding_bag"},
    // Normalization.
    {"BatchNormalization", "batch_norm"},
    {"LayerNormalization", "layer_norm"},
    {"GroupNormalization", "group_norm"},
    {"InstanceNormalization", "instance_norm"},
    {"RMSNormalization", "rms_norm"},
    {"LRN", "local_response_norm"},
    {"LpNormalization", "normalize"},
    // Activation functions.
    {"Relu", "relu"},
    {"Clip", "relu6 hardtanh clamp clamp_min clamp_max"},
    {"PRelu", "prelu"},
    {"LeakyRelu", "leaky_relu rrelu"},
    {"Elu", "elu"},
    {"Selu", "selu"},
    {"Celu", "celu"},
    {"Gelu", "gelu"},
    {"Swish", "silu"},
    {"Mish", "mish"},
    {"", "glu log_sigmoid tanhshrink threshold softmin gumbel_softmax"},
    {"Sigmoid", "sigmoid"},
    {"HardSigmoid", "hardsigmoid"},
    {"HardSwish", "hardswish"},
    {"Shrink", "hardshrink softshrink"},
    {"Softplus", "softplus"},
    {"Softsign", "softsign"},
    {"Softmax", "softmax"},
    {"LogSoftmax", "log_softmax"},
    // Arithmetic.
    {"Add", "add add_bias"},  // nn/attention.py
    {"Sub", "sub"},
    {"Mul", "mul"},
    {"Div", "div floor_divide"},
    {"",
     "addcmul addcdiv lerp square rsqrt exp2 expm1 log2 log10 log1p logaddexp "
     "logit erfc erfinv atan2 sinc trunc frac hypot copysign "
     "nan_to_num"},
    {"Neg", "neg"},
    {"Abs", "abs"},
    {"Sign", "sign"},
    {"Reciprocal", "reciprocal"},
    {"Pow", "pow"},
    {"Sqrt", "sqrt"},
    {"Exp", "exp"},
    {"Log", "log"},
    {"ReduceLogSumExp", "logsumexp"},
    {"Erf", "erf"},
    {"Sin", "sin"},
    {"Cos", "cos"},
    {"Tan", "tan"},
    {"Sinh", "sinh"},
    {"Cosh", "cosh"},
    {"Tanh", "tanh"},
    {"Asin", "asin"},
    {"Acos", "acos"},
    {"Atan", "atan"},
    {"Asinh", "asinh"},
    {"Acosh", "acosh"},
    {"Atanh", "atanh"},
    {"Ceil", "ceil"},
    {"Floor", "floor"},
    {"Round", "round"},
    {"Mod", "fmod remainder"},
    {"Max", "maximum fmax"},
    {"Min", "minimum fmin"},
    // Reductions and running reductions that make new values.
    {"ReduceMean", "mean nanmean"},
    {"ReduceSum", "sum nansum"},
    {"ReduceProd", "prod"},
    {"ReduceL2", "norm"},
    {"",
     "renorm std var std_mean var_mean cumprod logcumsumexp "
     "trace cross cov corrcoef cdist dist pairwise_distance "
     "cosine_similarity inverse quantile"},
    {"CumSum", "cumsum"},
    {"Sub", "diff"},
    {"Det", "det"},
    // Pooling and resampling that average or interpolate.
    {"AveragePool", "avg_pool1d avg_pool2d avg_pool3d"},
    {"LpPool", "lp_pool1d lp_pool2d lp_pool3d"},
    {"GlobalAveragePool",
     "adaptive_avg_pool1d adaptive_avg_pool2d "
     "adaptive_avg_pool3d"},
    {"Resize",
     "interpolate upsample upsample_bilinear upsample_linear1d "
     "upsample_bilinear2d upsample_bilinear2d_aa "
     "upsample_bicubic2d upsample_bicubic2d_aa "
     "upsample_trilinear3d"},
    {"GridSample", "grid_sample grid_sampler"},
    {"AffineGrid", "affine_grid"},
    {"RoiAlign", "roi_align"},
    {"Col2Im", "fold col2im"},
    {"Where", "where"},
    {"STFT", "stft"},
    // Writes that add to what is there.
    {"ScatterElements", "scatter_add scatter_reduce"},
    {"ScatterND", "index_add index_reduce"},
    // Losses.
    {"SoftmaxCrossEntropyLoss", "cross_entropy cross_entropy_loss"},
    {"NegativeLogLikelihoodLoss", "nll_loss nll_loss_nd"},
    {"",
     "mse_loss l1_loss smooth_l1_loss huber_loss kl_div "
     "binary_cross_entropy binary_cross_entropy_with_logits "
     "ctc_loss"},
};

constexpr OpRow kMerging[] = {
    {"Concat",
     "cat stack hstack vstack dstack row_stack column_stack "
     "block_diag"},
    {"ScatterElements", "scatter"},
    {"ScatterND",
     "masked_scatter index_put index_copy select_scatter "
     "slice_scatter diagonal_scatter"},
};

constexpr OpRow kGridPreserving[] = {
    // Shapes.
    {"Reshape",
     "view view_as reshape reshape_as unflatten atleast_1d "
     "atleast_2d atleast_3d"},
    {"Flatten", "flatten ravel"},
    {"Transpose", "transpose t mT numpy_T adjoint permute movedim"},
    {"Squeeze", "squeeze"},
    {"Unsqueeze", "unsqueeze"},
    {"Expand", "expand expand_as broadcast_to broadcast_tensors meshgrid"},
    {"", "cartesian_prod as_strided unfold im2col"},
    {"Tile", "repeat tile repeat_interleave"},
    // Picks.
    {"Slice", "getitem slice narrow narrow_copy"},
    {"Gather", "select index_select take"},
    {"GatherND", "index"},
    {"GatherElements", "gather take_along_dim"},
    {"Compress", "masked_select"},
    {"",
     "diagonal diag diag_embed aminmax median nanmedian mode "
     "cummax cummin"},
    {"Split",
     "chunk split split_with_sizes tensor_split hsplit vsplit "
     "dsplit unbind unsafe_chunk unsafe_split "
     "unsafe_split_with_sizes"},
    {"ReduceMax", "amax max"},
    {"ReduceMin", "amin min"},
    {"TopK", "topk kthvalue sort msort"},
    {"Unique", "unique unique_consecutive"},
    {"Resize",
     "upsample_nearest upsample_nearest1d upsample_nearest2d "
     "upsample_nearest3d upsample_nearest_exact1d "
     "upsample_nearest_exact2d upsample_nearest_exact3d"},
    // Order.
    {"DepthToSpace", "pixel_shuffle"},
    {"SpaceToDepth", "pixel_unshuffle"},
    {"ChannelShuffle", "channel_shuffle native_channel_shuffle"},
    {"", "flip fliplr flipud rot90 roll"},
    // Padding and masks.
    {"Pad",
     "pad constant_pad_nd pad_enum reflection_pad1d "
     "reflection_pad2d reflection_pad3d replication_pad1d "
     "replication_pad2d replication_pad3d"},
    {"",
     "pad_packed_sequence pack_padded_sequence index_fill "
     "fill_diagonal"},
    {"Trilu", "tril triu"},
    {"Where", "masked_fill"},
    {"", "mask_add"},  // graph/masks.h
    {"ScatterND", "setitem"},
    // Max pooling picks.
    {"MaxPool",
     "max_pool max_pool1d max_pool2d max_pool3d "
     "adaptive_max_pool1d adaptive_max_pool2d "
     "adaptive_max_pool3d"},
    {"", "fractional_max_pool2d fractional_max_pool3d"},
    {"MaxUnpool", "max_unpool1d max_unpool2d max_unpool3d"},
    {"MaxRoiPool", "roi_pool"},
    // Same values in another place or number format.
    {"Identity",
     "identity positive contiguous clone copy detach alias lift "
     "lift_fresh requires_grad real data cpu cuda pin_memory"},
    {"Cast",
     "to type type_as float double half bfloat16 int long short "
     "char byte bool"},
    // Identities outside training.
    {"Dropout",
     "dropout dropout1d dropout2d dropout3d feature_dropout "
     "alpha_dropout feature_alpha_dropout"},
};

constexpr OpRow kMetadata[] = {
    // Attributes and Python protocol.
    {"",
     "get set delete len contains format repr str hash "
     "dir array array_wrap deepcopy reduce_ex setstate dlpack "
     "dlpack_device complex iter dim ndim ndimension dim_order "
     "stride storage_offset storage untyped_storage data_ptr "
     "element_size item tolist numpy device dtype layout "
     "get_device is_contiguous is_floating_point is_complex "
     "is_cuda is_tensor is_storage is_conj is_neg is_inference "
     "is_nonzero is_signed is_same_size is_pinned is_shared "
     "is_set_to has_names retain_grad register_hook backward "
     "result_type can_cast promote_types broadcast_shapes seed "
     "manual_seed NumToTensor Int Float Bool ScalarImplicit "
     "IntImplicit FloatImplicit set_data resize assert "
     "assert_async record_stream"},
    {"Shape", "size sizes shape shape_as_tensor"},
    {"Size", "numel nelement"},
    // Predicates.
    {"Equal", "eq"},
    {"",
     "ne equal allclose isclose isin isfinite isreal isposinf "
     "isneginf signbit any all"},
    {"Less", "lt"},
    {"LessOrEqual", "le"},
    {"Greater", "gt"},
    {"GreaterOrEqual", "ge"},
    {"IsNaN", "isnan"},
    {"IsInf", "isinf"},
    {"And", "logical_and"},
    {"Or", "logical_or"},
    {"Xor", "logical_xor"},
    {"Not", "logical_not"},
    {"BitwiseAnd", "bitwise_and"},
    {"BitwiseOr", "bitwise_or"},
    {"BitwiseXor", "bitwise_xor"},
    {"BitwiseNot", "bitwise_not"},
    {"BitShift", "bitwise_left_shift bitwise_right_shift"},
    // Indices and counts.
    {"ArgMax", "argmax"},
    {"ArgMin", "argmin"},
    {"",
     "argsort count_nonzero searchsorted bucketize histc "
     "bincount"},
    {"NonZero", "argwhere nonzero"},
    {"OneHot", "one_hot"},
    {"NonMaxSuppression", "nms batched_nms"},
    // Creation: their results are constants.
    {"",
     "tensor as_tensor asarray from_numpy scalar_tensor zeros "
     "ones full empty empty_strided empty_permuted linspace "
     "logspace vander tril_indices triu_indices combinations "
     "randint randperm random poisson binomial exponential "
     "geometric cauchy log_normal zero fill"},
    {"Range", "arange range"},
    {"EyeLike", "eye"},
    {"RandomUniform", "rand uniform"},
    {"RandomNormal", "randn normal"},
    {"Bernoulli", "bernoulli"},
    {"Multinomial", "multinomial"},
};

constexpr SpellingRow kSpellings[] = {
    {"div", "truediv true_divide divide"},
    {"floor_divide", "floordiv"},
    {"mul", "multiply"},
    {"sub", "subtract rsub"},
    {"cat", "concat concatenate"},
    {"positive", "pos"},
    {"flip", "reversed"},
    {"abs", "absolute"},
    {"neg", "negative"},
    {"bitwise_not", "invert"},
    {"remainder", "mod"},
    {"bitwise_and", "and"},
    {"bitwise_or", "or"},
    {"bitwise_xor", "xor"},
    {"bitwise_left_shift", "lshift"},
    {"bitwise_right_shift", "rshift"},
    {"lt", "less"},
    {"le", "less_equal"},
    {"gt", "greater"},
    {"ge", "greater_equal"},
    {"ne", "not_equal"},
    {"clamp", "clip"},
    {"trunc", "fix"},
    {"acos", "arccos"},
    {"asin", "arcsin"},
    {"atan", "arctan"},
    {"atan2", "arctan2"},
    {"acosh", "arccosh"},
    {"asinh", "arcsinh"},
    {"atanh", "arctanh"},
    {"sigmoid", "expit"},
    {"log_sigmoid", "logsigmoid"},
    {"transpose", "swapaxes swapdims"},
    {"movedim", "moveaxis"},
    {"convolution", "convolution_mode"},
    {"conv2d", "thnn_conv2d conv_depthwise2d"},
    {"batch_norm", "native_batch_norm cudnn_batch_norm"},
    {"layer_norm", "native_layer_norm"},
    {"group_norm", "native_group_norm"},
    {"dropout", "native_dropout"},
    {"rms_norm", "fused_rms_norm"},
    {"multi_head_attention_forward", "native_multi_head_attention"},
    {"scaled_dot_product_attention",
     "scaled_dot_product_flash_attention "
     "scaled_dot_product_flash_attention_for_cpu "
     "scaled_dot_product_efficient_attention "
     "scaled_dot_product_cudnn_attention "
     "scaled_dot_product_attention_math"},
    {"max_pool1d", "max_pool1d_with_indices"},
    {"max_pool2d", "max_pool2d_with_indices"},
    {"max_pool3d", "max_pool3d_with_indices"},
    {"norm", "linalg_vector_norm linalg_matrix_norm linalg_norm"},
    {"matmul", "linalg_matmul"},
    {"inverse", "linalg_inv"},
    {"det", "linalg_det"},
    {"cross", "linalg_cross"},
    {"diagonal", "linalg_diagonal"},
    {"adjoint", "matrix_H mH"},
};

}  // namespace

std::span<const OpRow> compute_rows() { return kCompute; }
std::span<const OpRow> merging_rows() { return kMerging; }
std::span<const OpRow> grid_preserving_rows() { return kGridPreserving; }
std::span<const OpRow> metadata_rows() { return kMetadata; }
std::span<const SpellingRow> spelling_rows() { return kSpellings; }

}  // namespace aimetpp::graph
