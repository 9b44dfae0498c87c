// SPDX-License-Identifier: Apache-2.0

/// \file
/// CsvOptions: how delimited text is read, and Column: how a column is named.

#ifndef QUERN_IO_CSV_OPTIONS_HPP
#define QUERN_IO_CSV_OPTIONS_HPP

#include "quern/core/config.hpp"
#include "quern/io/gzip.hpp"
#include "quern/io/table.hpp"

#include <charconv>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace io {

/// A column, by its index in the file (from 0; −1 is the last one) or by its name in the header.
struct Column {
  Column(int column_index) : index(column_index) {}                  // NOLINT: implicit on purpose
  Column(std::string column_name) : name(std::move(column_name)) {}  // NOLINT: implicit
  Column(const char* column_name) : name(column_name) {}             // NOLINT: implicit

  /// What a command line says: an integer is an index, everything else is a name.
  [[nodiscard]] static Column parse(std::string_view text) {
    int value = 0;
    const char* const end = text.data() + text.size();
    const std::from_chars_result read = std::from_chars(text.data(), end, value);
    if (read.ec == std::errc() && read.ptr == end) return Column(value);
    return Column(std::string(text));
  }

  std::optional<int> index;
  std::string name;  ///< when there is no index
};

/// Whether the first record holds names.
enum class CsvHeader : std::uint8_t {
  automatic,  ///< see CsvOptions::header
  present,
  absent,
};

/// How read_csv reads.
struct CsvOptions {
  /// 0 finds it: the first of tab, semicolon and comma that all of the first 64 lines have equally
  /// often, else the commonest in the first line, else blanks, else a comma. With ' ' any run of
  /// blanks separates fields.
  char delimiter = '\0';
  /// automatic: the first record is a header when its fields are distinct texts (no number, no
  /// missing value; at most the first may be empty) and the second record has a number or a
  /// missing value or does not exist, or when it holds all feature names of `schema`.
  CsvHeader header = CsvHeader::automatic;
  std::optional<Column> label{};   ///< none: the table has no labels
  std::optional<Column> weight{};  ///< none: the table has no weights
  std::vector<Column> ignore{};    ///< columns that are neither features nor anything else
  /// Columns that hold categories even where all texts are numbers. What is in neither list is
  /// numeric when every text that is not missing is a number.
  std::vector<Column> categorical{};
  std::vector<Column> numeric{};  ///< columns where other text is an error
  /// Texts that mean "missing", compared after blanks and quotes were taken off.
  std::vector<std::string> missing{"", "?", "NA", "N/A", "NaN", "nan", "NULL", "null"};
  /// A text column with more distinct texts than this is an error, not a category.
  std::int64_t max_categories = 65536;
  std::int64_t max_columns = std::int64_t{1} << 20;
  Limits limits{};
  /// The schema of the training data, for reading data to predict. Features are found by name when
  /// the file has a header and the schema has names, otherwise by position; a label column may be
  /// absent; text that the dictionary does not have becomes missing and is counted in
  /// Table::unseen_categories. Must outlive the call.
  const TableSchema* schema = nullptr;
};

}  // namespace io
QUERN_NAMESPACE_END

#endif  // QUERN_IO_CSV_OPTIONS_HPP
