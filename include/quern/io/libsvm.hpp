// SPDX-License-Identifier: Apache-2.0

/// \file
/// LIBSVM (SVMlight) text to a SparseTable: "label[:weight] [qid:n] index:value … # comment".

#ifndef QUERN_IO_LIBSVM_HPP
#define QUERN_IO_LIBSVM_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/io/input.hpp"
#include "quern/io/number.hpp"
#include "quern/io/table.hpp"

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <system_error>
#include <unordered_set>
#include <utility>

QUERN_NAMESPACE_BEGIN
namespace io {

/// What the first column's index is in the file.
enum class IndexBase : std::uint8_t {
  automatic,  ///< 0 when the file has an index 0 anywhere, else 1
  zero,       ///< as XGBoost reads: column 0 stays empty when the file counts from 1
  one,
};

/// How read_libsvm reads.
struct LibsvmOptions {
  IndexBase index_base = IndexBase::automatic;
  /// Columns of the table; 0: the largest index decides. A larger index is an error. Give the
  /// training table's cols and index_base when reading data to predict.
  std::int64_t cols = 0;
  Limits limits{};
};

namespace detail {

template <class T>
class LibsvmReader {
 public:
  LibsvmReader(const Input& input, const LibsvmOptions& options)
      : input_(input),
        options_(options),
        begin_(input.text().data()),
        end_(begin_ + input.text().size()) {
    constexpr std::int64_t most = (std::numeric_limits<std::int32_t>::max)();
    if (options.cols < 0 || options.cols > most) {
      throw ValueError(error_text(input.function(), "cols", "0..2147483647", options.cols));
    }
    if (options.index_base == IndexBase::one) lowest_ = 1;
  }

  [[nodiscard]] SparseTable<T> read() {
    if (input_.text().starts_with("\xef\xbb\xbf")) begin_ += 3;
    // Every row takes two bytes ("1\n"), every value four (" 1:1"): a fair guess for both.
    const std::size_t bytes = static_cast<std::size_t>(end_ - begin_);
    table_.columns.reserve(bytes / 8);
    table_.values.reserve(bytes / 8);
    for (const char* p = begin_; p != end_;) {
      p = skip_blanks(p);
      if (!row_ends_at(p)) p = read_row(p);
      p = next_line(p);
    }
    if (table_.labels.empty()) input_.fail_at(0, "expected at least one row, got none");
    finish();
    return std::move(table_);
  }

 private:
  static bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r'; }
  const char* skip_blanks(const char* p) const {
    while (p != end_ && is_blank(*p)) ++p;
    return p;
  }
  [[nodiscard]] bool row_ends_at(const char* p) const {
    return p == end_ || *p == '\n' || *p == '#';
  }
  const char* next_line(const char* p) const {
    while (p != end_ && *p != '\n') ++p;
    return p == end_ ? p : p + 1;
  }
  [[noreturn]] void fail(const char* p, std::string_view message) const {
    input_.fail_at(static_cast<std::size_t>(p - input_.text().data()), message);
  }
  /// What stands at `p`, up to the next blank.
  [[nodiscard]] std::string word_at(const char* p) const {
    const char* q = p;
    while (q != end_ && !is_blank(*q) && *q != '\n') ++q;
    return quote_text({p, static_cast<std::size_t>(q - p)});
  }

  /// A number that a blank, the end of the row or `stop` follows; "nan" where `nan_allowed`.
  const char* read_value(const char* p, const char* what, char stop, bool nan_allowed, T& value) {
    const Number<T> number = parse_number<T>(p, end_);
    const char* after = number.end;
    if (number.status == NumberStatus::too_large) {
      fail(p, std::string(what) + " is too large for the element type: " + word_at(p));
    }
    value = number.value;
    if (number.status == NumberStatus::not_a_number) {
      const std::string_view rest(p, static_cast<std::size_t>(end_ - p));
      const bool missing = nan_allowed && (rest.starts_with("nan") || rest.starts_with("NaN"));
      after = missing ? p + 3 : nullptr;
      value = (std::numeric_limits<T>::quiet_NaN)();
    }
    if (after == nullptr || !(row_ends_at(after) || is_blank(*after) || *after == stop)) {
      fail(p, "expected a number for " + std::string(what) + ", got " + word_at(p));
    }
    return after;
  }

  const char* read_row(const char* p) {
    T label{};
    p = read_value(p, "the label", ':', false, label);
    table_.labels.push_back(label);
    if (p != end_ && *p == ':') p = read_weight(p + 1);
    p = skip_blanks(p);
    p = read_group(p);
    row_start_ = table_.columns.size();
    for (p = skip_blanks(p); !row_ends_at(p); p = skip_blanks(p)) p = read_pair(p);
    table_.row_offsets.push_back(static_cast<std::int64_t>(table_.columns.size()));
    return p;
  }

  const char* read_weight(const char* p) {
    T weight{};
    const char* const after = read_value(p, "the weight", ' ', false, weight);
    if (weight < T(0)) fail(p, "expected a weight of at least 0, got " + word_at(p));
    // Rows before the first weight have weight one.
    table_.weights.resize(table_.labels.size() - 1, T(1));
    table_.weights.push_back(weight);
    return after;
  }

  const char* read_group(const char* p) {
    constexpr std::string_view key = "qid:";
    const std::string_view rest(p, static_cast<std::size_t>(end_ - p));
    const bool has_group = rest.starts_with(key);
    const std::int64_t row = static_cast<std::int64_t>(table_.labels.size()) - 1;
    if (row > 0 && has_group != has_groups_) {
      fail(p, has_group ? "a qid, but the rows before have none" : "expected qid: as before");
    }
    has_groups_ = has_group;
    if (!has_group) return p;
    std::uint64_t group = 0;
    const char* const at = p + key.size();
    const std::from_chars_result read = std::from_chars(at, end_, group);
    if (read.ec != std::errc() || !(row_ends_at(read.ptr) || is_blank(*read.ptr))) {
      fail(at, "expected a whole number for qid, got " + word_at(at));
    }
    if (row == 0 || group != group_) {
      if (!groups_.insert(group).second) {
        fail(at, "rows of qid " + std::to_string(group) + " do not follow each other");
      }
      table_.group_offsets.push_back(row);
    }
    group_ = group;
    return read.ptr;
  }

  const char* read_pair(const char* p) {
    std::uint32_t index = 0;
    const std::from_chars_result read = std::from_chars(p, end_, index);
    constexpr std::uint32_t most = (std::numeric_limits<std::int32_t>::max)() - 1;
    if (read.ec == std::errc::result_out_of_range || index > most) {
      fail(p, "expected an index up to 2147483646, got " + word_at(p));
    }
    if (read.ec != std::errc() || read.ptr == end_ || *read.ptr != ':') {
      fail(p, "expected index:value, got " + word_at(p));
    }
    check_order(p, static_cast<std::int32_t>(index));
    T value{};
    const char* const after = read_value(read.ptr + 1, "the value", ' ', true, value);
    table_.columns.push_back(static_cast<std::int32_t>(index));
    table_.values.push_back(value);
    return after;
  }

  void check_order(const char* p, std::int32_t index) {
    if (index < lowest_) fail(p, "index 0 where indices count from 1");
    if (table_.columns.size() > row_start_ && index <= table_.columns.back()) {
      fail(p, "expected ascending indices, got " + std::to_string(index) + " after " +
                  std::to_string(table_.columns.back()));
    }
    if (index > largest_) {
      largest_ = index;
      largest_at_ = p;
    }
    has_zero_ = has_zero_ || index == 0;
  }

  void finish() {
    const bool from_one = options_.index_base == IndexBase::one ||
                          (options_.index_base == IndexBase::automatic && !has_zero_);
    table_.index_base = from_one ? 1 : 0;
    if (from_one) {
      for (std::int32_t& column : table_.columns) --column;
    }
    table_.cols = largest_ + 1 - table_.index_base;
    if (largest_at_ == nullptr) table_.cols = 0;
    if (options_.cols > 0) {
      if (table_.cols > options_.cols) {
        fail(largest_at_, "index " + std::to_string(largest_) + " is past the table's " +
                              std::to_string(options_.cols) + " columns");
      }
      table_.cols = options_.cols;
    }
    if (!table_.weights.empty()) table_.weights.resize(table_.labels.size(), T(1));
    if (has_groups_) table_.group_offsets.push_back(table_.rows());
  }

  const Input& input_;
  const LibsvmOptions& options_;
  const char* begin_;
  const char* end_;
  SparseTable<T> table_;
  std::size_t row_start_ = 0;
  std::int32_t lowest_ = 0;
  std::int64_t largest_ = -1;
  const char* largest_at_ = nullptr;
  bool has_zero_ = false;
  bool has_groups_ = false;
  std::uint64_t group_ = 0;
  std::unordered_set<std::uint64_t> groups_;
};

}  // namespace detail

/// Reads LIBSVM text in memory (gzip too). T is float or double. Indices must ascend within a row;
/// rows of one qid must follow each other; a row without a weight has weight one where others have
/// some. Throws ParseError with "name:line:column"; `name` stands for the file in messages.
template <class T = float>
[[nodiscard]] SparseTable<T> parse_libsvm(std::string_view text, const LibsvmOptions& options = {},
                                          std::string_view name = "memory") {
  const Input input = Input::memory(text, name, options.limits, "quern::io::parse_libsvm");
  return detail::LibsvmReader<T>(input, options).read();
}

/// The same from a file; IoError where it cannot be read.
template <class T = float>
[[nodiscard]] SparseTable<T> read_libsvm(const std::string& path,
                                         const LibsvmOptions& options = {}) {
  const Input input = Input::file(path, options.limits, "quern::io::read_libsvm");
  return detail::LibsvmReader<T>(input, options).read();
}

}  // namespace io
QUERN_NAMESPACE_END

#endif  // QUERN_IO_LIBSVM_HPP
