// SPDX-License-Identifier: BSD-3-Clause
#include "mixed/report_text.h"

#include <cstdio>
#include <map>

#include "core/text.h"

namespace aimetpp::mixed {
namespace {

std::string short_number(double value) {
  char buffer[32];
  std::snprintf(buffer, sizeof(buffer), "%.4g", value);
  return buffer;
}

// "int8 12, int16 3", by bit-width.
std::string counts_of(const std::vector<Precision>& precisions) {
  std::map<Precision, int> counts;
  for (const Precision& precision : precisions) ++counts[precision];
  return join(counts, [](const auto& entry) {
    return concat(entry.first.name(), " ", entry.second);
  });
}

void write_section(std::string& text, const std::string& title,
                   const std::vector<ReportRow>& rows) {
  text += "\n" + title + "\n" + std::string(title.size(), '-') + "\n";
  if (rows.empty()) text += "(none)\n";
  for (const ReportRow& row : rows) {
    text.append(2 * static_cast<std::size_t>(row.depth), ' ');
    if (row.detail.empty()) {
      text += row.subject + "\n";
      continue;
    }
    const std::string number =
        row.requests.empty() ? std::string("-") : row.requests;
    text += concat("[", number, "] ", row.subject, ": ", row.detail, "\n");
  }
}

}  // namespace

std::vector<std::string> summary_of(const Resolution& resolution,
                                    const ResolutionReport& report) {
  const std::size_t count = resolution.precisions.size();
  std::string bit_ops = concat(
      "Bit-operations per sample: ", short_number(resolution.bit_ops_before),
      " -> ", short_number(resolution.bit_ops_after));
  if (resolution.bit_ops_before > 0) {
    bit_ops += concat(
        " (",
        short_number(resolution.bit_ops_after / resolution.bit_ops_before),
        " of before)");
  }
  return {concat(counted(report.requests.size(), "request"), ", ",
                 resolution.changes.size(), " of ", counted(count, "quantizer"),
                 " changed, ", report.overruled.size(), " overruled"),
          bit_ops, "Quantizers before: " + counts_of(resolution.before),
          "Quantizers after: " + counts_of(resolution.precisions)};
}

std::string to_text(const Resolution& resolution,
                    const ResolutionReport& report,
                    const std::vector<std::string>& notes) {
  std::string text = "Manual mixed precision\n======================\n";
  for (const std::string& line : summary_of(resolution, report))
    text += line + "\n";
  for (const std::string& note : notes) text += note + "\n";
  text += "(the number in brackets is that of the request)\n";
  write_section(text, "Requests", rows_of_requests(report.requests));
  write_section(text, "Inferred", rows_of_section(report.inferred));
  write_section(text, "Propagated", rows_of_section(report.propagated));
  write_section(text, "Realized", rows_of_section(report.realized));
  write_section(text, "Overruled", rows_of_section(report.overruled));
  write_section(text, "Unchanged", rows_of_section(report.unchanged));
  return text;
}

}  // namespace aimetpp::mixed
