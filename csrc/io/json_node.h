// SPDX-License-Identifier: BSD-3-Clause
// A JSON document whose values know where they stand, so that every error gives
// the path, what was found and what is allowed.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace aimetpp::io {

// A value in a document, which must outlive it. All members throw value errors:
// "config.json: $.params.bias.is_quantized: found 3 (number); allowed: ...".
class JsonNode {
 public:
  JsonNode(const nlohmann::json& value, std::string path,
           const std::string& origin);

  [[noreturn]] void fail(const std::string& problem) const;
  [[noreturn]] void fail_found(const std::string& allowed) const;

  // Objects. `has` is false for a value of another type; `at` needs the key.
  [[nodiscard]] bool has(const std::string& key) const;
  [[nodiscard]] JsonNode at(const std::string& key) const;
  void check_keys(std::initializer_list<std::string_view> allowed) const;
  void check_required(std::initializer_list<std::string_view> keys) const;
  // In the order of their names.
  [[nodiscard]] std::vector<std::pair<std::string, JsonNode>> members() const;

  // The elements of a list; `what` names them in the error.
  [[nodiscard]] std::vector<JsonNode> elements(std::size_t min_count,
                                               std::string_view what) const;

  // A JSON boolean, "True" or "False".
  [[nodiscard]] bool boolean() const;
  [[nodiscard]] std::optional<bool> optional_boolean(
      const std::string& key) const;
  [[nodiscard]] std::string string(const std::string& allowed) const;
  [[nodiscard]] double number() const;
  [[nodiscard]] std::int64_t integer() const;

 private:
  void check_object() const;

  const nlohmann::json* value_;
  std::string path_;
  const std::string* origin_;
};

// Throws a value error for text that is not JSON, and for a key that stands
// twice in one object.
class JsonDocument {
 public:
  JsonDocument(const std::string& text, std::string origin);
  ~JsonDocument();
  JsonDocument(const JsonDocument&) = delete;
  JsonDocument& operator=(const JsonDocument&) = delete;

  [[nodiscard]] JsonNode root() const;  // path "$"

 private:
  std::string origin_;
  std::unique_ptr<nlohmann::json> value_;
};

}  // namespace aimetpp::io
