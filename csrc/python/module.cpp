// SPDX-License-Identifier: BSD-3-Clause
// The Python bindings: results of the torch-free parts as read-only objects,
// precisions as their names ("int8"), aimetpp::Error as ValueError, TypeError
// or RuntimeError.
#include <pybind11/functional.h>
#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>

#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include <tuple>

#include "config/integer_biases.h"
#include "config/placement.h"
#include "core/error.h"
#include "core/float_grid.h"
#include "core/types.h"
#include "fold/batch_norm_folds.h"
#include "fold/equalizable_chains.h"
#include "fold/op_chain.h"
#include "graph/jit_reader.h"
#include "graph/op_graph.h"
#include "graph/op_traits.h"
#include "io/config_json.h"
#include "python/convert.h"
#include "python/eager_ops.h"
#include "python/masks.h"
#include "python/onnx.h"
#include "python/quantized_call.h"
#include "python/replay.h"
#include "python/requests.h"
#include "python/search.h"
#include "python/statistics.h"
#include "quantizer/encoding.h"
#include "quantizer/statistics.h"

namespace py = pybind11;

namespace aimetpp::python {
namespace {

void translate_error(std::exception_ptr pointer) {
  if (!pointer) return;
  try {
    std::rethrow_exception(pointer);
  } catch (const Error& error) {
    PyObject* type = PyExc_RuntimeError;
    if (error.kind() == ErrorKind::value) type = PyExc_ValueError;
    if (error.kind() == ErrorKind::type) type = PyExc_TypeError;
    PyErr_SetString(type, error.what());
  }
}

graph::OpGraph read_graph(py::handle ir, std::vector<graph::Call> calls,
                          std::vector<graph::Site> sites, int num_inputs) {
  // torch._C registers torch::jit::Graph; only jit_reader.cpp sees its type.
  py::detail::type_caster_generic caster(graph::jit_graph_type());
  if (!caster.load(ir, /*convert=*/false)) {
    raise_type_error("read_graph: `ir` must be a torch._C.Graph, got ",
                     std::string(py::str(py::type::of(ir))));
  }
  return graph::read_jit_graph(
      *static_cast<const torch::jit::Graph*>(caster.value), std::move(calls),
      std::move(sites), num_inputs);
}

// Gives free memory back to the system where the C library does not by itself:
// a trace takes some 20 KiB for each node, most of it call stacks as text.
void return_free_memory() {
#if defined(__GLIBC__)
  malloc_trim(0);
#endif
}

// What the tracer makes and read_graph takes.
void bind_trace(py::module_& m) {
  m.def("return_free_memory", &return_free_memory);
  py::class_<graph::Call>(m, "Call")
      .def(py::init([](std::string module, int ordinal, bool functional,
                       std::string type, std::string source) {
             return graph::Call{std::move(module), ordinal, functional,
                                std::move(type), std::move(source)};
           }),
           py::arg("module"), py::arg("ordinal"), py::arg("functional"),
           py::arg("type"), py::arg("source"))
      .def_readonly("module", &graph::Call::module)
      .def_readonly("ordinal", &graph::Call::ordinal)
      .def_readonly("functional", &graph::Call::functional)
      .def_readonly("type", &graph::Call::type)
      .def_readonly("source", &graph::Call::source)
      .def_property_readonly("name", &graph::Call::name);
  bind_masks(m);
  py::class_<graph::Site>(m, "Site")
      .def(py::init([](int id, const std::string& kind, int call, int slot,
                       std::string param, graph::MaskFacts mask) {
             return graph::Site{id,   site_kind_of(kind), call,
                                slot, std::move(param),   mask};
           }),
           py::arg("id"), py::arg("kind"), py::arg("call"), py::arg("slot"),
           py::arg("param"), py::arg("mask") = graph::MaskFacts{})
      .def_readonly("id", &graph::Site::id)
      .def_property_readonly("kind",
                             [](const graph::Site& site) {
                               return std::string(graph::to_string(site.kind));
                             })
      .def_readonly("call", &graph::Site::call)
      .def_readonly("slot", &graph::Site::slot)
      .def_readonly("param", &graph::Site::param);
}

void bind_graph(py::module_& m) {
  py::class_<graph::Param>(m, "Param")
      .def_readonly("site", &graph::Param::site)
      .def_readonly("name", &graph::Param::name)
      .def_readonly("shape", &graph::Param::shape);
  py::class_<graph::Tensor>(m, "Tensor")
      .def_property_readonly(
          "origin",
          [](const graph::Tensor& tensor) {
            return std::string(graph::to_string(tensor.origin));
          })
      .def_readonly("producer", &graph::Tensor::producer)
      .def_readonly("model_input", &graph::Tensor::model_input)
      .def_readonly("is_model_output", &graph::Tensor::is_model_output)
      .def_readonly("is_floating", &graph::Tensor::is_floating)
      .def_readonly("shape", &graph::Tensor::shape)
      .def_property_readonly("uses", [](const graph::Tensor& tensor) {
        std::vector<std::pair<int, int>> uses;
        for (const auto& use : tensor.uses) uses.emplace_back(use.op, use.slot);
        return uses;
      });
  py::class_<graph::Op>(m, "Op")
      .def_readonly("kind", &graph::Op::kind)
      .def_readonly("onnx_type", &graph::Op::onnx_type)
      .def_property_readonly("role",
                             [](const graph::Op& op) {
                               return std::string(graph::to_string(op.role));
                             })
      .def_readonly("call", &graph::Op::call)
      .def_readonly("name", &graph::Op::name)
      .def_readonly("source", &graph::Op::source)
      .def_readonly("inputs", &graph::Op::inputs)
      .def_readonly("input_sites", &graph::Op::input_sites)
      .def_readonly("outputs", &graph::Op::outputs)
      .def_readonly("output_sites", &graph::Op::output_sites)
      .def_readonly("params", &graph::Op::params)
      .def_readonly("macs", &graph::Op::macs);
  py::class_<graph::OpGraph>(m, "OpGraph")
      .def_readonly("calls", &graph::OpGraph::calls)
      .def_readonly("sites", &graph::OpGraph::sites)
      .def_readonly("ops", &graph::OpGraph::ops)
      .def_readonly("tensors", &graph::OpGraph::tensors)
      .def_readonly("model_inputs", &graph::OpGraph::model_inputs)
      .def_readonly("model_outputs", &graph::OpGraph::model_outputs)
      .def("site_name", &graph::OpGraph::site_name)
      .def("op_of_site", &graph::OpGraph::op_of_site)
      .def("tensor_of_site", &graph::OpGraph::tensor_of_site)
      .def("value_source", &graph::OpGraph::value_source)
      .def("to_text", &graph::OpGraph::to_text);
  m.def("read_graph", &read_graph, py::arg("ir"), py::arg("calls"),
        py::arg("sites"), py::arg("num_inputs"));
  m.def("op_role", [](const std::string& kind) {
    return std::string(graph::to_string(graph::op_traits(kind).role));
  });
  m.def("canonical_kind", &graph::canonical_kind);
}

void bind_folds(py::module_& m) {
  m.def("foldable_batch_norms", &fold::foldable_batch_norms, py::arg("graph"));
  m.def("forward_foldable_batch_norms", &fold::forward_foldable_batch_norms,
        py::arg("graph"));
  py::enum_<fold::Activation>(m, "Activation")
      .value("none", fold::Activation::none)
      .value("relu", fold::Activation::relu)
      .value("relu6", fold::Activation::relu6);
  py::class_<fold::NormalizedInput>(m, "NormalizedInput")
      .def_readonly("layer", &fold::NormalizedInput::layer)
      .def_readonly("batch_norm", &fold::NormalizedInput::batch_norm)
      .def_readonly("activation", &fold::NormalizedInput::activation);
  m.def("following_activation", &fold::following_activation, py::arg("graph"),
        py::arg("op"));
  m.def("normalized_inputs", &fold::normalized_inputs, py::arg("graph"));
  py::class_<fold::EqualizableChain>(m, "EqualizableChain")
      .def_readonly("layers", &fold::EqualizableChain::layers)
      .def_readonly("between", &fold::EqualizableChain::between);
  m.def(
      "equalizable_chains",
      [](const graph::OpGraph& graph, bool replace_relu6,
         const std::vector<int>& transparent,
         const std::vector<int>& excluded) {
        return fold::equalizable_chains(
            graph, replace_relu6 ? fold::Relu6::replaced : fold::Relu6::stops,
            transparent, excluded);
      },
      py::arg("graph"), py::arg("replace_relu6"), py::arg("transparent"),
      py::arg("excluded"));
}

void bind_config(py::module_& m) {
  py::class_<config::QuantConfig>(m, "QuantConfig");
  m.def("parse_quant_config", &io::parse_quant_config, py::arg("text"),
        py::arg("origin"));
  py::class_<config::QuantizerSpec>(m, "QuantizerSpec")
      .def_readonly("precision", &config::QuantizerSpec::precision)
      .def_readonly("symmetric", &config::QuantizerSpec::symmetric)
      .def_readonly("strict_symmetric",
                    &config::QuantizerSpec::strict_symmetric)
      .def_readonly("unsigned_symmetric",
                    &config::QuantizerSpec::unsigned_symmetric)
      .def_readonly("channel_axis", &config::QuantizerSpec::channel_axis)
      .def_property_readonly("constraints",
                             [](const config::QuantizerSpec& spec) {
                               const auto limits = spec.constraints.value_or(
                                   config::EncodingConstraints{});
                               return std::make_pair(limits.min, limits.max);
                             })
      .def_property_readonly("kind",
                             [](const config::QuantizerSpec& spec) {
                               return std::string(graph::to_string(spec.kind));
                             })
      .def_readonly("masked_below", &config::QuantizerSpec::masked_below)
      .def_readonly("sites", &config::QuantizerSpec::sites);
  py::class_<config::Placement>(m, "Placement")
      .def_readonly("quantizers", &config::Placement::quantizers)
      .def_readonly("quantizer_of_site", &config::Placement::quantizer_of_site)
      .def("rules", [](const config::Placement& placement, std::size_t site) {
        std::vector<std::tuple<std::string, std::string, std::string>> rules;
        for (const auto& rule : placement.rules.at(site)) {
          rules.emplace_back(rule.section, rule.rule, rule.effect);
        }
        return rules;
      });
  m.def("quantizer_of_input", &config::quantizer_of_input, py::arg("graph"),
        py::arg("placement"), py::arg("op"), py::arg("slot"));
  m.def("quantizer_covering", &config::quantizer_covering, py::arg("graph"),
        py::arg("placement"), py::arg("site"));
  py::class_<config::IntegerBias>(m, "IntegerBias")
      .def_readonly("op", &config::IntegerBias::op)
      .def_readonly("site", &config::IntegerBias::site)
      .def_readonly("input", &config::IntegerBias::input)
      .def_readonly("factor", &config::IntegerBias::factor)
      .def_readonly("weight", &config::IntegerBias::weight);
  m.def("integer_biases", &config::integer_biases, py::arg("graph"),
        py::arg("placement"));
  m.def(
      "place_quantizers",
      [](const graph::OpGraph& graph, const config::QuantConfig& config,
         Precision activation, Precision param) {
        return config::place_quantizers(graph, config, {activation, param});
      },
      py::arg("graph"), py::arg("config"), py::arg("activation"),
      py::arg("param"));
}

void bind_quantizer(py::module_& m) {
  using quantizer::Statistics;
  py::class_<Statistics>(m, "Statistics")
      .def_static(
          "for_scheme",
          [](int num_channels, const std::string& scheme, int first_updates) {
            return Statistics::for_scheme(num_channels, scheme_of(scheme),
                                          first_updates);
          },
          py::arg("num_channels"), py::arg("scheme"),
          py::arg("first_updates") = 1)
      .def("update", &update_statistics, py::arg("tensor"),
           py::arg("channel_axis") = py::none())
      .def("merge", &Statistics::merge, py::arg("other"))
      .def_property_readonly("empty", &Statistics::empty)
      .def_property_readonly("num_bytes", &Statistics::bytes)
      .def(
          "__eq__",
          [](const Statistics& one, const Statistics& other) {
            return one == other;
          },
          py::is_operator())
      .def("__deepcopy__",
           [](const Statistics& statistics, const py::dict&) {
             return Statistics(statistics);
           })
      .def("to_bytes", &statistics_to_bytes)
      .def_static("from_bytes", &statistics_from_bytes, py::arg("state"))
      .def(py::pickle(&statistics_to_bytes, &statistics_from_bytes));
  m.def("ranges_from_statistics", &ranges_from_statistics,
        py::arg("statistics"), py::arg("scheme"), py::arg("bitwidth"),
        py::arg("symmetry"), py::arg("percentile"));
  m.def("power_of_two_ranges", &power_of_two_ranges, py::arg("statistics"),
        py::arg("bitwidth"), py::arg("symmetry"));
  m.def("content_hash", &content_hash, py::arg("tensor"));
  m.def("find_grid_steps", &find_grid_steps, py::arg("matrix"),
        py::arg("bitwidth"));
  py::class_<quantizer::Encoding>(m, "Encoding")
      .def_readonly("scale", &quantizer::Encoding::scale)
      .def_readonly("offset", &quantizer::Encoding::offset)
      .def_readonly("min", &quantizer::Encoding::min)
      .def_readonly("max", &quantizer::Encoding::max);
  m.def(
      "encoding_of_range",
      [](double min, double max, int bitwidth, const std::string& symmetry) {
        return quantizer::encoding_of_range({min, max}, bitwidth,
                                            symmetry_of(symmetry));
      },
      py::arg("min"), py::arg("max"), py::arg("bitwidth"), py::arg("symmetry"));
  // Of values of which none is negative, where that makes a difference.
  m.def(
      "integer_grid",
      [](int bitwidth, const std::string& symmetry) {
        const QuantGrid grid =
            quantizer::grid_of_range({}, bitwidth, symmetry_of(symmetry));
        return std::make_pair(grid.qmin, grid.qmax);
      },
      py::arg("bitwidth"), py::arg("symmetry"));
}

}  // namespace
}  // namespace aimetpp::python

PYBIND11_MODULE(_C, m) {
  m.doc() = "C++ side of aimetpp: graph, placement, groups, search, requests.";
  m.attr("torch_version") = AIMETPP_TORCH_VERSION;
  py::register_exception_translator(&aimetpp::python::translate_error);
  py::class_<aimetpp::NarrowFloat>(m, "NarrowFloat")
      .def_readonly("name", &aimetpp::NarrowFloat::name)
      .def_readonly("exponent_bits", &aimetpp::NarrowFloat::exponent_bits)
      .def_readonly("mantissa_bits", &aimetpp::NarrowFloat::mantissa_bits)
      .def_readonly("saturates", &aimetpp::NarrowFloat::saturates)
      .def_property_readonly("bitwidth",
                             [](const aimetpp::NarrowFloat& row) {
                               return row.precision.bitwidth();
                             })
      .def_property_readonly("largest", [](const aimetpp::NarrowFloat& row) {
        return aimetpp::largest_value({row.exponent_bits, row.mantissa_bits});
      });
  m.def("narrow_floats", [] {
    const auto rows = aimetpp::narrow_floats();
    return std::vector<aimetpp::NarrowFloat>(rows.begin(), rows.end());
  });
  m.def("parse_precision", [](const std::string& name) {
    return aimetpp::Precision::parse(name);
  });
  aimetpp::python::bind_trace(m);
  aimetpp::python::bind_graph(m);
  aimetpp::python::bind_onnx(m);
  aimetpp::python::bind_folds(m);
  aimetpp::python::bind_config(m);
  aimetpp::python::bind_quantizer(m);
  aimetpp::python::bind_groups(m);
  aimetpp::python::bind_search(m);
  aimetpp::python::bind_requests(m);
  aimetpp::python::bind_eager_ops(m);
  aimetpp::python::bind_quantized_call(m);
  aimetpp::python::bind_replay(m);
}
