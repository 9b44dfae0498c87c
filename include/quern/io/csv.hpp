// SPDX-License-Identifier: Apache-2.0

/// \file
/// Delimited text (CSV, TSV, …; also gzip) to a Table: numbers, missing values, categories.

#ifndef QUERN_IO_CSV_HPP
#define QUERN_IO_CSV_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/io/csv_columns.hpp"
#include "quern/io/csv_options.hpp"
#include "quern/io/csv_text.hpp"
#include "quern/io/input.hpp"
#include "quern/io/number.hpp"
#include "quern/io/table.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace io {
namespace detail {

/// The text behind a UTF-8 byte order mark. UTF-16 has zeros between its letters and would come
/// out as nonsense, so it is refused.
inline std::string_view skip_byte_order_mark(const Input& input) {
  std::string_view text = input.text();
  if (text.starts_with("\xff\xfe") || text.starts_with("\xfe\xff")) {
    input.fail_at(0, "the text is UTF-16: expected UTF-8");
  }
  if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
  return text;
}

template <class T>
class CsvReader {
 public:
  CsvReader(const Input& input, const CsvOptions& options)
      : input_(input),
        options_(options),
        text_(skip_byte_order_mark(input)),
        delimiter_(options.delimiter != '\0' ? options.delimiter : guess_delimiter(text_)),
        scanner_(input, text_, delimiter_) {}

  [[nodiscard]] Table<T> read() {
    check_options();
    read_head();
    make_room();
    const std::int64_t rows = read_rows(room_);
    // Columns that turned out to be categorical late are read again up to there.
    if (again_ > 0) read_rows(again_);
    finish(rows);
    return std::move(table_);
  }

 private:
  void check_options() const {
    const char d = options_.delimiter;
    if (d == '"' || d == '\n' || d == '\r' || is_digit(d)) {
      throw ValueError(
          error_text(input_.function(), "delimiter", "a delimiter", quote_text({&d, 1})));
    }
  }

  void read_head() {
    const char* const first_at = scanner_.record_at(scanner_.begin());
    if (first_at == scanner_.end()) input_.fail_at(0, "expected at least one record, got none");
    std::vector<std::string> first;
    std::vector<std::string> second;
    const char* const first_end = read_record(scanner_, first_at, options_.max_columns, first);
    bool header = options_.header == CsvHeader::present;
    if (options_.header == CsvHeader::automatic) {
      const char* const p = scanner_.record_at(next_line(first_end));
      if (p != scanner_.end()) read_record(scanner_, p, options_.max_columns, second);
      header = looks_like_header(options_, first, second);
    }
    data_ = scanner_.record_at(header ? next_line(first_end) : first_at);
    const std::size_t count = first.size();
    if (!header) first.clear();
    columns_ = CsvPlanner(input_, options_, first, count).plan();
    names_ = std::move(first);
    for (const CsvColumn& column : columns_) {
      features_ += column.role == CsvRole::feature;
      has_labels_ = has_labels_ || column.role == CsvRole::label;
      has_weights_ = has_weights_ || column.role == CsvRole::weight;
    }
  }

  [[nodiscard]] const char* next_line(const char* p) const {
    return p == scanner_.end() ? p : p + 1;
  }

  /// Memory for as many rows as there can be: no more than lines, and every field takes a byte, so
  /// that no text makes a table much larger than itself.
  void make_room() {
    std::int64_t lines = 0;
    for (const char* p = data_; p != scanner_.end(); ++lines) {
      const void* const newline =
          std::memchr(p, '\n', static_cast<std::size_t>(scanner_.end() - p));
      p = newline == nullptr ? scanner_.end()
                             : scanner_.record_at(static_cast<const char*>(newline) + 1);
    }
    const std::int64_t fields = scanner_.end() - data_ + 1;
    room_ = (std::min)(lines, fields / static_cast<std::int64_t>(columns_.size()) + 1);
    table_.features = NdArray<T, 2>({room_, features_}, core::Fill::none);
    if (has_labels_) table_.labels.resize(static_cast<std::size_t>(room_));
    if (has_weights_) table_.weights.resize(static_cast<std::size_t>(room_));
  }

  std::int64_t read_rows(std::int64_t most) {
    const char* p = data_;
    std::int64_t row = 0;
    for (; p != scanner_.end() && row < most; ++row) {
      p = scanner_.record_at(next_line(read_row(p, row)));
    }
    return row;
  }

  const char* read_row(const char* p, std::int64_t row) {
    T* const cells = table_.features.data() + row * features_;
    const std::size_t count = columns_.size();
    for (std::size_t i = 0; i < count; ++i) {
      CsvColumn& column = columns_[i];
      p = read_field(p, column, i, row, *cell_of(column, cells, row));
      if (i + 1 == count) break;
      if (scanner_.record_ends_at(p)) {
        scanner_.fail(p, "expected " + std::to_string(count) +
                             " fields as in the first record, got " + std::to_string(i + 1));
      }
      p = scanner_.next_field(p);
    }
    if (!scanner_.record_ends_at(p)) {
      scanner_.fail(p, "expected the end of the line after " + std::to_string(count) +
                           " fields as in the first record, got more");
    }
    return p;
  }

  T* cell_of(const CsvColumn& column, T* cells, std::int64_t row) {
    switch (column.role) {
      case CsvRole::feature:
        return cells + column.to;
      case CsvRole::label:
        return table_.labels.data() + row;
      case CsvRole::weight:
        return table_.weights.data() + row;
      case CsvRole::ignored:
        break;
    }
    return &ignored_;
  }

  /// Most fields are numbers with a delimiter right behind them: those take the short way.
  const char* read_field(const char* p, CsvColumn& column, std::size_t index, std::int64_t row,
                         T& cell) {
    p = scanner_.skip_blanks(p);
    if (!column.categorical && column.role != CsvRole::ignored) {
      const Number<T> number = parse_number<T>(p, scanner_.end());
      if (number.status == NumberStatus::ok) {
        const char* const after = scanner_.skip_behind(number.end);
        if (scanner_.field_ends_at(after, after != number.end)) {
          cell = number.value;
          return after;
        }
      }
    }
    std::string_view text;
    const char* const after = scanner_.read(p, text);
    if (column.role != CsvRole::ignored) read_text(p, text, column, index, row, cell);
    return after;
  }

  void read_text(const char* at, std::string_view text, CsvColumn& column, std::size_t index,
                 std::int64_t row, T& cell) {
    if (is_missing(options_, text)) {
      if (column.role != CsvRole::feature) {
        scanner_.fail(
            at, column.role == CsvRole::label ? "the label is missing" : "the weight is missing");
      }
      cell = (std::numeric_limits<T>::quiet_NaN)();
      return;
    }
    if (!column.categorical) {
      const Number<T> number = parse_whole_number<T>(text);
      cell = number.value;
      if (number.status == NumberStatus::ok) return;
      if (number.status == NumberStatus::too_large) {
        // An error only if the column stays numeric: "12e4567" may also be somebody's key.
        if (column.too_large == nullptr) column.too_large = at;
        return;
      }
      if (column.forced) {
        scanner_.fail(at, "expected a number in " + name_of(index) + ", got " + quote_text(text));
      }
      column.categorical = true;
      again_ = (std::max)(again_, row);
    }
    cell = static_cast<T>(code_of(at, text, column, index));
    if (cell < T(0)) cell = (std::numeric_limits<T>::quiet_NaN)();
  }

  /// The code of the text; −1 for one that a given dictionary lacks.
  std::int64_t code_of(const char* at, std::string_view text, CsvColumn& column,
                       std::size_t index) {
    Dictionary& dictionary = *column.dictionary;
    const std::int64_t code = dictionary.find(text);
    if (code >= 0) return code;
    if (dictionary.fixed()) {
      if (column.role == CsvRole::label) {
        scanner_.fail(at, "the label " + quote_text(text) + " is none of the schema's classes");
      }
      ++table_.unseen_categories;
      return -1;
    }
    // Codes must be exact in T.
    const std::int64_t exact = std::int64_t{1} << (std::min)(std::numeric_limits<T>::digits, 62);
    if (dictionary.size() >= (std::min)(options_.max_categories, exact)) {
      scanner_.fail(at,
                    name_of(index) + " is neither numeric nor a category: " + quote_text(text) +
                        " is text number " + std::to_string(dictionary.size() + 1) +
                        " of at most max_categories = " + std::to_string(options_.max_categories));
    }
    return dictionary.add(text);
  }

  [[nodiscard]] std::string name_of(std::size_t index) const {
    std::string name = "column " + std::to_string(index + 1);
    if (!names_.empty()) name += " (" + quote_text(names_[index]) + ")";
    return name;
  }

  void finish(std::int64_t rows) {
    if (rows < room_) {
      NdArray<T, 2> exact({rows, features_}, core::Fill::none);
      std::copy_n(table_.features.data(), rows * features_, exact.data());
      table_.features = std::move(exact);
      if (has_labels_) table_.labels.resize(static_cast<std::size_t>(rows));
      if (has_weights_) table_.weights.resize(static_cast<std::size_t>(rows));
    }
    for (std::size_t i = 0; i < columns_.size(); ++i) {
      if (columns_[i].too_large == nullptr || columns_[i].categorical) continue;
      scanner_.fail(columns_[i].too_large,
                    "a number in " + name_of(i) + " is too large for the element type");
    }
    fill_schema();
  }

  void fill_schema() {
    TableSchema& schema = table_.schema;
    if (options_.schema != nullptr) {
      schema = *options_.schema;
      return;
    }
    const std::size_t features = static_cast<std::size_t>(features_);
    schema.feature_kinds.assign(features, tree::FeatureKind::numeric);
    schema.categories.resize(features);
    if (!names_.empty()) schema.feature_names.resize(features);
    std::vector<std::pair<std::int64_t, std::vector<std::int64_t>>> moves;
    for (std::size_t i = 0; i < columns_.size(); ++i) {
      const CsvColumn& column = columns_[i];
      if (column.role == CsvRole::label) fill_label(column, i);
      if (column.role != CsvRole::feature) continue;
      const std::size_t f = static_cast<std::size_t>(column.to);
      if (!names_.empty()) {
        schema.feature_names[f] =
            names_[i].empty() ? "unnamed_" + std::to_string(i + 1) : std::move(names_[i]);
      }
      if (!column.categorical) continue;
      schema.feature_kinds[f] = tree::FeatureKind::categorical;
      auto [texts, places] = column.dictionary->sorted();
      schema.categories[f] = std::move(texts);
      moves.emplace_back(column.to, std::move(places));
    }
    sort_codes(moves);
  }

  void fill_label(const CsvColumn& column, std::size_t index) {
    if (!names_.empty()) table_.schema.label_name = names_[index];
    if (!column.categorical) return;
    auto [texts, places] = column.dictionary->sorted();
    table_.schema.label_categories = std::move(texts);
    for (T& label : table_.labels) {
      label = static_cast<T>(places[static_cast<std::size_t>(label)]);
    }
  }

  /// From codes in order of appearance to codes in order of text, all columns in one walk.
  void sort_codes(const std::vector<std::pair<std::int64_t, std::vector<std::int64_t>>>& moves) {
    for (std::int64_t row = 0; row < table_.rows() && !moves.empty(); ++row) {
      T* const cells = table_.features.data() + row * features_;
      for (const auto& [feature, places] : moves) {
        T& cell = cells[feature];
        if (!is_nan_bits(cell)) cell = static_cast<T>(places[static_cast<std::size_t>(cell)]);
      }
    }
  }

  const Input& input_;
  const CsvOptions& options_;
  std::string_view text_;
  char delimiter_;
  CsvScanner scanner_;
  const char* data_ = nullptr;  ///< the first record that is not the header
  std::vector<std::string> names_;
  std::vector<CsvColumn> columns_;
  std::int64_t features_ = 0;
  std::int64_t room_ = 0;   ///< rows that there is memory for
  std::int64_t again_ = 0;  ///< rows to read again
  bool has_labels_ = false;
  bool has_weights_ = false;
  T ignored_{};
  Table<T> table_;
};

}  // namespace detail

/// Reads a table from delimited text in memory (gzip too). T is float or double; numbers are
/// rounded to the nearest T. `name` stands for the file in messages. Throws ParseError with
/// "name:line:column" for malformed text and ValueError for options that do not fit the file.
template <class T = float>
[[nodiscard]] Table<T> parse_csv(std::string_view text, const CsvOptions& options = {},
                                 std::string_view name = "memory") {
  const Input input = Input::memory(text, name, options.limits, "quern::io::parse_csv");
  return detail::CsvReader<T>(input, options).read();
}

/// The same from a file; IoError where it cannot be read. docs/io/csv.md has the whole story.
template <class T = float>
[[nodiscard]] Table<T> read_csv(const std::string& path, const CsvOptions& options = {}) {
  const Input input = Input::file(path, options.limits, "quern::io::read_csv");
  return detail::CsvReader<T>(input, options).read();
}

}  // namespace io
QUERN_NAMESPACE_END

#endif  // QUERN_IO_CSV_HPP
