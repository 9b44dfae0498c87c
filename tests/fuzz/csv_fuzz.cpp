// SPDX-License-Identifier: Apache-2.0

/// \file
/// The CSV reader on anything: first with its own guesses, then with what it made of the text as
/// the schema. The first byte chooses options.

#include "quern/io/csv.hpp"
#include "target.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

namespace quern::test::csv_fuzz {

namespace {

quern::io::CsvOptions options_for(std::uint8_t choice) {
  constexpr char delimiters[] = {'\0', ',', '\t', ' '};
  quern::io::CsvOptions options;
  options.delimiter = delimiters[choice & 3];
  if ((choice & 4) != 0) options.label = -1;
  if ((choice & 8) != 0) options.categorical = {0};
  if ((choice & 16) != 0) options.header = quern::io::CsvHeader::present;
  if ((choice & 32) != 0) options.weight = 0;
  options.limits.max_bytes = 1 << 20;
  options.max_columns = 4096;
  return options;
}

void expect(bool holds) {
  if (!holds) std::abort();
}

}  // namespace

QUERN_FUZZ_TARGET(csv) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  quern::io::CsvOptions options = options_for(data[0]);
  try {
    const quern::io::Table<float> table = quern::io::parse_csv<float>(text, options);
    expect(static_cast<std::int64_t>(table.schema.feature_kinds.size()) == table.cols());
    if (table.cols() == 0) return 0;  // no names tell whether there was a header
    options.schema = &table.schema;
    options.header = table.schema.feature_names.empty() ? quern::io::CsvHeader::absent
                                                        : quern::io::CsvHeader::present;
    const quern::io::Table<float> again = quern::io::parse_csv<float>(text, options);
    expect(again.rows() == table.rows() && again.cols() == table.cols());
    expect(again.unseen_categories == 0);
  } catch (const quern::Error&) {
  }
  try {
    options.schema = nullptr;
    const auto table = quern::io::parse_csv<double>(text, options);
    expect(table.rows() >= 0);
  } catch (const quern::Error&) {
  }
  return 0;
}

}  // namespace quern::test::csv_fuzz
