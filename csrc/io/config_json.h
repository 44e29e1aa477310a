// SPDX-License-Identifier: BSD-3-Clause
// JSON text -> QuantConfig.
#pragma once

#include <string>

#include "config/quant_config.h"
#include "core/macros.h"

namespace aimetpp::io {

// `origin` (a file name) opens every error message. Throws a value error that
// gives the JSON path, what was found there and what is allowed: malformed JSON,
// a missing section, an unknown key, a wrong type, an unknown op type (with the
// nearest known one). Booleans may be JSON booleans or "True"/"False".
AIMETPP_API config::QuantConfig parse_quant_config(const std::string& text,
                                                   const std::string& origin);

}  // namespace aimetpp::io
