// SPDX-License-Identifier: BSD-3-Clause
// Config x graph -> which sites have a quantizer, what it is like, and why.
//
// Every site starts off. The sections are applied in this order, a later one
// overriding an earlier one; within a section, ops are visited in graph order.
//
//  1. defaults: outputs of compute ops. Outputs of grid-preserving ops (a view,
//     a max pool) need no quantizer: their values lie on their input's grid.
//     Params: `defaults.params`.
//  2. params, by name. A name that contains "bias" and has no rule of its own
//     ("bias_ih_l0") follows the rule for "bias".
//  3. op_type, by ONNX type. `is_input_quantized` turns on the quantizer where
//     the tensor is made, or the op's own input site where that is a model
//     input, a constant or an op without sites. `is_output_quantized: true`
//     turns on a grid-preserving op too. `is_symmetric` holds for the op's
//     output and own input sites, and for what `is_input_quantized` turned on.
//     A linear layer follows "MatMul" where "Gemm" says nothing, a pooling to
//     one element "AveragePool" (or "MaxPool") where its "Global" type doesn't.
//  4. supergroups: a batch norm that folds into the op before it takes over
//     that op's output setting, and loses its params; then inside each chain
//     nothing is quantized but the last op's output.
//  5. model_input: each model input, and each constant, parameter or buffer of
//     more than one element that an op reads as an activation, at the input
//     sites of the ops that read its values, seen through grid-preserving ops.
//  6. model_output: outputs of the model that no quantizer upstream covers.
//  7. graph: a quantized tensor times a positive constant (`x / 8`) needs no
//     quantizer of its own, unless op_type asks for one or a concatenation
//     needs the result on its own grid.
//
// What an op without sites makes (one that runs out of Python's sight) is
// quantized where it is read, by the rules for its output.
//
// Then sites are joined into quantizers: input sites that read the same values
// share one, and so do the output of a concatenation and whatever quantizes its
// inputs. A shared quantizer is symmetric as its last site in graph order with
// an `is_symmetric` of its own op type says, and constrained to the smallest
// range that covers the constraints of all its sites, if all have one; a range
// [-a, a] makes it symmetric where no op type says otherwise. Last come the
// rules of defaults.hw_version (config/hardware_rules.h).
#pragma once

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "config/quant_config.h"
#include "config/supergroups.h"
#include "core/macros.h"
#include "core/types.h"
#include "graph/op_graph.h"

namespace aimetpp::config {

// One quantizer to be made. Several sites share it where they must agree: the
// readers of one model input, the inputs and the output of a concatenation.
struct QuantizerSpec {
  Precision precision;
  bool symmetric = false;
  bool strict_symmetric = false;
  bool unsigned_symmetric = false;
  // Params only: one encoding for each index along this axis; kNone:
  // per-tensor.
  int channel_axis = graph::kNone;
  std::optional<EncodingConstraints> constraints;
  // input: has input sites only; output: has an output site; param.
  graph::SiteKind kind = graph::SiteKind::output;
  std::vector<int> sites;  // site ids, ascending
  // Values not above it are masked (graph/masks.h): they count in no range and
  // pass unchanged.
  std::optional<double> masked_below = {};
};

// Why a site is on or off: which rule of which section said so, in the order in
// which they were applied.
struct RuleEffect {
  std::string section;  // "defaults", "params", "op_type", "supergroups",
                        // "model_input", "model_output", "graph"
  std::string rule;     // "supergroups[0] [Conv, Relu]"
  std::string effect;   // "off: the result of the chain is at relu1"
  friend bool operator==(const RuleEffect&, const RuleEffect&) = default;
};

struct Placement {
  // In graph order of their first site (see sites_in_graph_order).
  std::vector<QuantizerSpec> quantizers;
  std::vector<int> quantizer_of_site;                       // kNone: off
  std::vector<std::vector<RuleEffect>> rules;               // by site
  std::vector<std::vector<SupportedKernel>> kernels_of_op;  // empty: anything
  std::vector<Supergroup> supergroups;                      // as matched
  // By op: its result stays inside a chain that hardware runs as one; the last
  // op of the chain quantizes.
  std::vector<bool> is_fused;
  // Ops whose result is their first input times a constant, on a grid that
  // needs no quantizer of its own.
  std::set<int> rescales;

  // The result of an op lies on the grid of its first input, or a multiple of
  // it: both have one precision.
  [[nodiscard]] bool keeps_precision(const graph::OpGraph& graph,
                                     int op) const {
    return graph.ops[op].role == graph::OpRole::grid_preserving ||
           rescales.contains(op);
  }
  // kNone also where `site` is kNone.
  [[nodiscard]] int quantizer_at(int site) const {
    return site == graph::kNone ? graph::kNone : quantizer_of_site[site];
  }
};

struct PlacementDefaults {
  Precision activation;
  Precision param;
};

AIMETPP_API Placement place_quantizers(const graph::OpGraph& graph,
                                       const QuantConfig& config,
                                       const PlacementDefaults& defaults);

// The quantizer on whose grid (or a multiple of it) the values lie that `op`
// reads at input `slot`: that of the input site, else the nearest one upstream,
// through ops that keep their input's precision only. kNone where a compute op
// without a quantizer (the inside of a supergroup, an op that the config leaves
// alone) or an unquantized model input or constant comes first, or where `op`
// has no such input.
AIMETPP_API int quantizer_of_input(const graph::OpGraph& graph,
                                   const Placement& placement, int op,
                                   int slot);

// The quantizer on whose grid (or a multiple of it) the tensor at a site lies:
// its own, else the one upstream as above. kNone where there is none, as inside
// a supergroup.
AIMETPP_API int quantizer_covering(const graph::OpGraph& graph,
                                   const Placement& placement, int site);

// The sites of the ops in graph order; of one op: inputs, params, outputs.
// Sites of calls that never ran are not in it; a shared param's site comes
// once.
AIMETPP_API std::vector<int> sites_in_graph_order(const graph::OpGraph& graph);

}  // namespace aimetpp::config
