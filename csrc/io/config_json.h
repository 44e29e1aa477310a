// SPDX-License-Identifier: BSD-3-Clause
// JSON text -> QuantConfig.
#pragma once

#include <string>

#include "config/quant_config.h"
#include "core/macros.h"

namespace aimetpp::io {

// The keys are those of AIMET's quantsim config files. All six sections are
// required, though each may be empty. Booleans are JSON booleans or "True" and
// "False".
//
// `supergroup_pass_list` is accepted for compatibility, with the names of
// chains that are one op here anyway: "MatmulAdd" (a linear layer),
// "LayerNormalization", "RMSNormalization". Nothing is left for it to do.
// Op types are ONNX types; in `op_type` also QNN's names for them ("Conv2d",
// "FullyConnected", "ElementWiseAdd"), which win over the ONNX type's entry.
// Two of them for one ONNX type (Conv2d, DepthWiseConv2d) can't be told apart
// and are an error. `is_input_quantized` in op_type may only be true: an input
// is quantized where it is made, which `is_output_quantized` of that op type
// turns off. False in model_input and model_output means the same as absent. In
// supported_kernels, dtype "int" takes bit-widths 2 to 32, "float" 16 and 32.
//
// `origin` (a file name) opens every error message. Throws a value error that
// gives the JSON path, what was found there and what is allowed: malformed
// JSON, a missing section, a key that is unknown or stands twice, a wrong type,
// an unknown op type (with the nearest known one).
AIMETPP_API config::QuantConfig parse_quant_config(const std::string& text,
                                                   const std::string& origin);

}  // namespace aimetpp::io
