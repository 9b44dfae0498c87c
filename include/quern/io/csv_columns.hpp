// SPDX-License-Identifier: Apache-2.0

/// \file
/// What read_csv does with each column of a file: its role, its kind and its dictionary.

#ifndef QUERN_IO_CSV_COLUMNS_HPP
#define QUERN_IO_CSV_COLUMNS_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/io/csv_options.hpp"
#include "quern/io/csv_text.hpp"
#include "quern/io/input.hpp"
#include "quern/io/number.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <numeric>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace io::detail {

/// Text to code; new texts get the next code until the dictionary is fixed.
class Dictionary {
 public:
  Dictionary() = default;
  /// A dictionary that is complete: unknown texts have no code.
  explicit Dictionary(const std::vector<std::string>& texts) : fixed_(true) {
    for (const std::string& text : texts) add(text);
  }

  [[nodiscard]] bool fixed() const noexcept { return fixed_; }
  [[nodiscard]] std::int64_t size() const noexcept {
    return static_cast<std::int64_t>(codes_.size());
  }
  /// −1 for a text that is not there.
  [[nodiscard]] std::int64_t find(std::string_view text) const {
    const auto found = codes_.find(text);
    return found == codes_.end() ? -1 : found->second;
  }
  std::int64_t add(std::string_view text) {
    return codes_.emplace(std::string(text), size()).first->second;
  }

  /// The texts in ascending order of their bytes, and for each code its place there.
  [[nodiscard]] std::pair<std::vector<std::string>, std::vector<std::int64_t>> sorted() const {
    std::vector<std::pair<std::string, std::int64_t>> entries(codes_.begin(), codes_.end());
    std::sort(entries.begin(), entries.end());
    std::pair<std::vector<std::string>, std::vector<std::int64_t>> result;
    result.second.resize(entries.size());
    for (auto& [text, code] : entries) {
      result.second[static_cast<std::size_t>(code)] =
          static_cast<std::int64_t>(result.first.size());
      result.first.push_back(std::move(text));
    }
    return result;
  }

 private:
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const {
      return std::hash<std::string_view>()(text);
    }
  };
  std::unordered_map<std::string, std::int64_t, Hash, std::equal_to<>> codes_;
  bool fixed_ = false;
};

enum class CsvRole : std::uint8_t { feature, label, weight, ignored };

struct CsvColumn {
  CsvRole role = CsvRole::feature;
  bool categorical = false;
  bool forced = false;              ///< the kind was given and does not follow from what is found
  std::int64_t to = 0;              ///< index of the feature
  const char* too_large = nullptr;  ///< the first number that T cannot hold
  std::unique_ptr<Dictionary> dictionary;
};

/// The fields of one record as texts of their own; returns where the record ends.
inline const char* read_record(CsvScanner& scanner, const char* p, std::int64_t most,
                               std::vector<std::string>& fields) {
  fields.clear();
  for (;;) {
    std::string_view text;
    p = scanner.read(scanner.skip_blanks(p), text);
    if (static_cast<std::int64_t>(fields.size()) >= most) {
      scanner.fail(p, "more than max_columns = " + std::to_string(most) + " fields");
    }
    fields.emplace_back(text);
    if (scanner.record_ends_at(p)) return p;
    p = scanner.next_field(p);
  }
}

inline bool is_missing(const CsvOptions& options, std::string_view text) {
  for (const std::string& token : options.missing) {
    if (token == text) return true;
  }
  return false;
}

inline bool is_number(std::string_view text) {
  return parse_whole_number<double>(text).status != NumberStatus::not_a_number;
}

/// Whether the first record holds names, by the rule of CsvOptions::header.
inline bool looks_like_header(const CsvOptions& options, const std::vector<std::string>& first,
                              const std::vector<std::string>& second) {
  const std::unordered_set<std::string_view> names(first.begin(), first.end());
  if (options.schema != nullptr && !options.schema->feature_names.empty()) {
    const auto& wanted = options.schema->feature_names;
    const auto here = [&](const std::string& name) { return names.count(name) > 0; };
    if (std::all_of(wanted.begin(), wanted.end(), here)) return true;
  }
  if (names.size() != first.size()) return false;
  for (std::size_t i = 0; i < first.size(); ++i) {
    if (i == 0 && first.size() > 1 && first[0].empty()) continue;
    if (is_missing(options, first[i]) || is_number(first[i])) return false;
  }
  return second.empty() || std::any_of(second.begin(), second.end(), [&](const std::string& text) {
           return is_missing(options, text) || is_number(text);
         });
}

/// Decides the role and kind of every column.
class CsvPlanner {
 public:
  /// `names` is empty without a header.
  CsvPlanner(const Input& input, const CsvOptions& options, const std::vector<std::string>& names,
             std::size_t count)
      : input_(input), options_(options), names_(names), columns_(count) {
    for (std::size_t i = 0; i < names_.size(); ++i) {
      const auto [at, fresh] = by_name_.emplace(names_[i], i);
      if (!fresh && !names_[i].empty()) {
        fail("columns " + std::to_string(at->second + 1) + " and " + std::to_string(i + 1) +
             " have the same name " + quote_text(names_[i]));
      }
    }
  }

  [[nodiscard]] std::vector<CsvColumn> plan() {
    for (const Column& column : options_.ignore) take("ignore", column, CsvRole::ignored, true);
    if (options_.weight) take("weight", *options_.weight, CsvRole::weight, true);
    if (options_.schema == nullptr) {
      if (options_.label) take("label", *options_.label, CsvRole::label, true);
      number_features();
      for (const Column& column : options_.categorical) force("categorical", column, true);
      for (const Column& column : options_.numeric) force("numeric", column, false);
    } else {
      plan_label_of_schema();
      if (!names_.empty() && !options_.schema->feature_names.empty()) {
        match_names();
      } else {
        match_positions();
      }
      take_kinds_of_schema();
    }
    for (CsvColumn& column : columns_) {
      if (column.role == CsvRole::weight) column.forced = true, column.categorical = false;
      if (!column.dictionary) column.dictionary = std::make_unique<Dictionary>();
    }
    return std::move(columns_);
  }

 private:
  static constexpr std::size_t nowhere = static_cast<std::size_t>(-1);

  [[noreturn]] void fail(const std::string& message) const {
    throw ParseError(input_.function() + ": " + input_.name() + ": " + message);
  }
  [[noreturn]] void bad_option(const char* argument, const std::string& expected,
                               const std::string& got) const {
    throw ValueError(error_text(input_.function() + ": " + input_.name(), argument, expected, got));
  }

  /// Index of the column, `nowhere` when the header lacks the name.
  std::size_t find(const char* argument, const Column& column) const {
    if (column.index) {
      const std::int64_t count = static_cast<std::int64_t>(columns_.size());
      const std::int64_t i = *column.index < 0 ? *column.index + count : *column.index;
      if (i < 0 || i >= count) {
        bad_option(argument, "a column of the " + std::to_string(count) + " in the file",
                   std::to_string(*column.index));
      }
      return static_cast<std::size_t>(i);
    }
    if (names_.empty()) {
      bad_option(argument, "an index, since the file has no header", quote_text(column.name));
    }
    const auto found = by_name_.find(column.name);
    return found == by_name_.end() ? nowhere : found->second;
  }

  void take(const char* argument, const Column& column, CsvRole role, bool required) {
    const std::size_t i = find(argument, column);
    if (i == nowhere) {
      if (!required) return;
      bad_option(argument, "a name in the header", quote_text(column.name));
    }
    if (columns_[i].role != CsvRole::feature) {
      bad_option(argument, "a column without another role", "column " + std::to_string(i));
    }
    columns_[i].role = role;
  }

  void force(const char* argument, const Column& column, bool categorical) {
    const std::size_t i = find(argument, column);
    if (i == nowhere) bad_option(argument, "a name in the header", quote_text(column.name));
    if (columns_[i].forced && columns_[i].categorical != categorical) {
      bad_option(argument, "a column of one kind", "column " + std::to_string(i));
    }
    columns_[i].forced = true;
    columns_[i].categorical = categorical;
  }

  [[nodiscard]] std::int64_t count_features() const {
    return std::count_if(columns_.begin(), columns_.end(),
                         [](const CsvColumn& c) { return c.role == CsvRole::feature; });
  }

  void number_features() {
    std::int64_t features = 0;
    for (CsvColumn& column : columns_) {
      if (column.role == CsvRole::feature) column.to = features++;
    }
  }

  /// Data to predict may lack the label: by name it is not found; by position the file has exactly
  /// the columns of the features.
  void plan_label_of_schema() {
    const bool by_position = names_.empty() || options_.schema->feature_names.empty();
    if (by_position && count_features() == options_.schema->cols()) return;
    if (options_.label) {
      take("label", *options_.label, CsvRole::label, false);
    } else if (!names_.empty() && !options_.schema->label_name.empty()) {
      take("label", options_.schema->label_name, CsvRole::label, false);
    }
  }

  void match_names() {
    const auto& wanted = options_.schema->feature_names;
    std::vector<char> used(columns_.size(), 0);
    for (std::size_t f = 0; f < wanted.size(); ++f) {
      const auto found = by_name_.find(wanted[f]);
      if (found == by_name_.end()) {
        fail("the header lacks feature " + quote_text(wanted[f]) + " of the schema");
      }
      CsvColumn& column = columns_[found->second];
      if (column.role != CsvRole::feature || used[found->second] != 0) {
        fail("feature " + quote_text(wanted[f]) + " of the schema has another role here");
      }
      used[found->second] = 1;
      column.to = static_cast<std::int64_t>(f);
    }
    for (std::size_t i = 0; i < columns_.size(); ++i) {
      if (columns_[i].role == CsvRole::feature && used[i] == 0) columns_[i].role = CsvRole::ignored;
    }
  }

  void match_positions() {
    if (count_features() != options_.schema->cols()) {
      fail("expected " + std::to_string(options_.schema->cols()) +
           " features as in the schema, got " + std::to_string(count_features()));
    }
    number_features();
  }

  void take_kinds_of_schema() {
    const TableSchema& schema = *options_.schema;
    const auto fix = [](CsvColumn& column, const std::vector<std::string>& texts) {
      column.dictionary = std::make_unique<Dictionary>(texts);
    };
    for (CsvColumn& column : columns_) {
      const std::size_t f = static_cast<std::size_t>(column.to);
      column.forced = true;
      if (column.role == CsvRole::feature) {
        column.categorical = schema.feature_kinds[f] == tree::FeatureKind::categorical;
        if (column.categorical && f < schema.categories.size()) fix(column, schema.categories[f]);
      } else if (column.role == CsvRole::label && !schema.label_categories.empty()) {
        column.categorical = true;
        fix(column, schema.label_categories);
      }
    }
  }

  const Input& input_;
  const CsvOptions& options_;
  const std::vector<std::string>& names_;
  std::unordered_map<std::string_view, std::size_t> by_name_;
  std::vector<CsvColumn> columns_;
};

}  // namespace io::detail
QUERN_NAMESPACE_END

#endif  // QUERN_IO_CSV_COLUMNS_HPP
