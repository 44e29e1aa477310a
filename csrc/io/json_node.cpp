// SPDX-License-Identifier: BSD-3-Clause
#include "io/json_node.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "core/error.h"
#include "core/text.h"

namespace aimetpp::io {

using nlohmann::json;

namespace {

// The parser by itself would keep the last of two members of one name.
json parse(const std::string& text, const std::string& origin) {
  std::vector<std::set<std::string>> open_objects;
  const auto check_duplicates = [&](int, json::parse_event_t event,
                                    json& parsed) {
    if (event == json::parse_event_t::object_start) {
      open_objects.emplace_back();
    } else if (event == json::parse_event_t::object_end) {
      open_objects.pop_back();
    } else if (event == json::parse_event_t::key &&
               !open_objects.back().insert(parsed.get<std::string>()).second) {
      raise_value_error(origin, ": key ", parsed.dump(),
                        " stands twice in one object; allowed: once");
    }
    return true;
  };
  try {
    return json::parse(text, check_duplicates);
  } catch (const json::exception& error) {
    // Without the library's "[json.exception.parse_error.101] ".
    const std::string_view what = error.what();
    const std::size_t end = what.find("] ");
    raise_value_error(
        origin, ": not valid JSON: ",
        end == std::string_view::npos ? what : what.substr(end + 2));
  }
}

}  // namespace

JsonNode::JsonNode(const json& value, std::string path,
                   const std::string& origin)
    : value_(&value), path_(std::move(path)), origin_(&origin) {}

void JsonNode::fail(const std::string& problem) const {
  raise_value_error(*origin_, ": ", path_, ": ", problem);
}

void JsonNode::fail_found(const std::string& allowed) const {
  constexpr std::size_t kMaxShown = 60;
  std::string found =
      value_->dump(-1, ' ', true, json::error_handler_t::replace);
  if (found.size() > kMaxShown) {
    found = found.substr(0, kMaxShown) + "...";
  }
  fail("found " + found + " (" + value_->type_name() +
       "); allowed: " + allowed);
}

void JsonNode::check_object() const {
  if (!value_->is_object()) {
    fail_found("an object");
  }
}

bool JsonNode::has(const std::string& key) const {
  return value_->contains(key);
}

JsonNode JsonNode::at(const std::string& key) const {
  return {value_->at(key), path_ + "." + key, *origin_};
}

void JsonNode::check_keys(
    std::initializer_list<std::string_view> allowed) const {
  check_object();
  for (const auto& member : value_->items()) {
    if (std::ranges::find(allowed, member.key()) == allowed.end()) {
      at(member.key()).fail("unknown key; allowed: " + join(allowed));
    }
  }
}

void JsonNode::check_required(
    std::initializer_list<std::string_view> keys) const {
  for (const std::string_view key : keys) {
    if (!has(std::string(key))) {
      fail("\"" + std::string(key) + "\" is missing; required: " + join(keys));
    }
  }
}

std::vector<std::pair<std::string, JsonNode>> JsonNode::members() const {
  check_object();
  std::vector<std::pair<std::string, JsonNode>> nodes;
  for (const auto& member : value_->items()) {
    nodes.emplace_back(member.key(), at(member.key()));
  }
  return nodes;
}

std::vector<JsonNode> JsonNode::elements(std::size_t min_count,
                                         std::string_view what) const {
  if (!value_->is_array() || value_->size() < min_count) {
    fail_found("a list of at least " + std::to_string(min_count) + " " +
               std::string(what));
  }
  std::vector<JsonNode> nodes;
  for (std::size_t i = 0; i < value_->size(); ++i) {
    nodes.emplace_back((*value_)[i], path_ + "[" + std::to_string(i) + "]",
                       *origin_);
  }
  return nodes;
}

bool JsonNode::boolean() const {
  if (value_->is_boolean()) {
    return value_->get<bool>();
  }
  if (*value_ == "True" || *value_ == "False") {
    return *value_ == "True";
  }
  fail_found(R"(true, false, "True" or "False")");
}

std::optional<bool> JsonNode::optional_boolean(const std::string& key) const {
  return has(key) ? std::optional(at(key).boolean()) : std::nullopt;
}

std::string JsonNode::string(const std::string& allowed) const {
  if (!value_->is_string()) {
    fail_found(allowed);
  }
  return value_->get<std::string>();
}

double JsonNode::number() const {
  if (!value_->is_number()) {
    fail_found("a number");
  }
  return value_->get<double>();
}

std::int64_t JsonNode::integer() const {
  if (!value_->is_number_integer()) {
    fail_found("an integer");
  }
  return value_->get<std::int64_t>();
}

JsonDocument::JsonDocument(const std::string& text, std::string origin)
    : origin_(std::move(origin)),
      value_(std::make_unique<json>(parse(text, origin_))) {}

JsonDocument::~JsonDocument() = default;

JsonNode JsonDocument::root() const { return {*value_, "$", origin_}; }

}  // namespace aimetpp::io
