// SPDX-License-Identifier: Apache-2.0

/// \file
/// Reads LightGBM's text models; see lightgbm_text.hpp for the functions to call.

#ifndef QUERN_IO_LIGHTGBM_READER_HPP
#define QUERN_IO_LIGHTGBM_READER_HPP

#include "quern/boosting/model.hpp"
#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/io/lightgbm_objective.hpp"
#include "quern/io/number.hpp"
#include "quern/io/quote.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace io::detail {

/// Lines "key=value" up to where the block ends.
class LightgbmBlock {
 public:
  struct Entry {
    std::string_view value;
    std::int64_t line = 0;
  };

  LightgbmBlock(const std::string& source, std::string name)
      : source_(source), name_(std::move(name)) {}

  void add(std::string_view text, std::int64_t line) {
    const std::size_t equals = text.find('=');
    const bool bare = equals == std::string_view::npos;
    const std::string_view key = bare ? text : text.substr(0, equals);
    const Entry entry{bare ? std::string_view() : text.substr(equals + 1), line};
    if (!entries_.emplace(key, entry).second) fail(line, key, "a line once", "another");
  }

  template <class Got>
  [[noreturn]] void fail(std::int64_t line, std::string_view key, std::string_view expected,
                         const Got& got) const {
    throw ParseError(
        error_text(source_ + ":" + std::to_string(line), name_ + std::string(key), expected, got));
  }

  [[nodiscard]] bool has(std::string_view key) const { return entries_.contains(key); }
  [[nodiscard]] const Entry& get(std::string_view key) const {
    const auto found = entries_.find(key);
    if (found == entries_.end()) fail(last_line, key, "a line '" + std::string(key) + "='", "none");
    return found->second;
  }

  [[nodiscard]] static std::vector<std::string_view> words(std::string_view text) {
    std::vector<std::string_view> out;
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t end = (std::min)(text.find(' ', at), text.size());
      if (end > at) out.push_back(text.substr(at, end - at));
      at = end + 1;
    }
    return out;
  }

  [[nodiscard]] std::int64_t integer(std::string_view key, std::int64_t low,
                                     std::int64_t high) const {
    return parse_integer(key, get(key), get(key).value, low, high);
  }
  [[nodiscard]] std::vector<std::int64_t> integers(std::string_view key, std::size_t size,
                                                   std::int64_t low, std::int64_t high) const {
    std::vector<std::int64_t> out;
    for (std::string_view word : list(key, size)) {
      out.push_back(parse_integer(key, get(key), word, low, high));
    }
    return out;
  }
  /// Finite numbers, or with \p infinite also infinities; never NaN.
  [[nodiscard]] std::vector<double> numbers(std::string_view key, std::size_t size,
                                            bool infinite = false) const {
    std::vector<double> out;
    for (std::string_view word : list(key, size)) {
      const Number<double> number = parse_whole_number<double>(word);
      const bool read = number.status == NumberStatus::ok;
      if (!read || (!infinite && !is_finite_bits(number.value)))
        fail(get(key).line, key, infinite ? "numbers" : "finite numbers", quote_text(word));
      out.push_back(number.value);
    }
    return out;
  }
  /// What prediction does not need: zeros where the line is missing or a number is none.
  [[nodiscard]] std::vector<double> statistics(std::string_view key, std::size_t size) const {
    if (!has(key)) return std::vector<double>(size, 0.0);
    std::vector<double> out;
    for (std::string_view word : list(key, size)) {
      const Number<double> number = parse_whole_number<double>(word);
      const bool good = number.status == NumberStatus::ok && is_finite_bits(number.value);
      out.push_back(good ? number.value : 0.0);
    }
    return out;
  }

  std::int64_t last_line = 0;  ///< where the block ends

 private:
  [[nodiscard]] std::vector<std::string_view> list(std::string_view key, std::size_t size) const {
    const Entry& entry = get(key);
    std::vector<std::string_view> out = words(entry.value);
    if (out.size() != size) fail(entry.line, key, std::to_string(size) + " entries", out.size());
    return out;
  }
  [[nodiscard]] std::int64_t parse_integer(std::string_view key, const Entry& entry,
                                           std::string_view word, std::int64_t low,
                                           std::int64_t high) const {
    std::int64_t number = 0;
    const auto result = std::from_chars(word.data(), word.data() + word.size(), number);
    if (result.ec != std::errc() || result.ptr != word.data() + word.size())
      fail(entry.line, key, "integers", quote_text(word));
    if (number < low || number > high)
      fail(entry.line, key, std::to_string(low) + ".." + std::to_string(high), number);
    return number;
  }

  const std::string& source_;
  std::string name_;
  std::map<std::string_view, Entry> entries_;
};

class LightgbmReader {
 public:
  LightgbmReader(std::string_view text, std::string source)
      : text_(text), source_(std::move(source)) {}

  [[nodiscard]] boosting::Model read() {
    std::string_view line;
    if (!next_line(line) || line != "tree")
      fail("a first line 'tree'", line.empty() ? "another" : quote_text(line));
    LightgbmBlock header(source_, "");
    while (next_line(line) && !is_tree(line) && line != end_of_trees) {
      if (!line.empty()) header.add(line, line_);
    }
    header.last_line = line_;
    boosting::Model model;
    read_header(header, model);
    while (is_tree(line)) read_block(line, model);
    if (line != end_of_trees) fail("a line 'end of trees'", "the end of the text");
    finish(header, model);
    return model;
  }

 private:
  static constexpr std::string_view end_of_trees = "end of trees";

  [[noreturn]] void fail(std::string_view expected, std::string_view got) const {
    throw ParseError(source_ + ":" + std::to_string(line_) + ": expected " + std::string(expected) +
                     ", got " + std::string(got));
  }
  [[nodiscard]] static bool is_tree(std::string_view line) { return line.starts_with("Tree="); }

  bool next_line(std::string_view& line) {
    line = {};
    if (at_ >= text_.size()) return false;
    const std::size_t end = (std::min)(text_.find('\n', at_), text_.size());
    line = text_.substr(at_, end - at_);
    if (line.ends_with('\r')) line.remove_suffix(1);
    at_ = end + 1;
    ++line_;
    return true;
  }

  void read_header(const LightgbmBlock& header, boosting::Model& model) const {
    if (header.has("version")) {
      const LightgbmBlock::Entry& version = header.get("version");
      if (version.value != "v2" && version.value != "v3" && version.value != "v4")
        header.fail(version.line, "version", "v2, v3 or v4", quote_text(version.value));
    }
    constexpr std::int64_t most = (std::numeric_limits<std::int32_t>::max)();
    model.input_type = tree::InputType::float64;
    model.features = header.integer("max_feature_idx", -1, most - 1) + 1;
    model.outputs = static_cast<std::int32_t>(header.integer("num_tree_per_iteration", 1, 1 << 24));
    // Outputs without trees cost memory that the file did not.
    if (static_cast<std::size_t>(model.outputs) > text_.size())
      header.fail(header.get("num_tree_per_iteration").line, "num_tree_per_iteration",
                  "outputs that have trees", model.outputs);
    model.base_margin.assign(static_cast<std::size_t>(model.outputs), 0.0);
    if (header.has("objective"))
      model.objective = objective_from_lightgbm(header.get("objective").value);
    read_names(header, model);
  }

  /// LightGBM wants a name a feature, too; so a short file has few features.
  static void read_names(const LightgbmBlock& header, boosting::Model& model) {
    const LightgbmBlock::Entry& entry = header.get("feature_names");
    const std::vector<std::string_view> names = LightgbmBlock::words(entry.value);
    if (static_cast<std::int64_t>(names.size()) != model.features)
      header.fail(entry.line, "feature_names", std::to_string(model.features) + " names",
                  names.size());
    bool given = false;
    for (std::size_t f = 0; f < names.size(); ++f) {
      given = given || names[f] != "Column_" + std::to_string(f);
    }
    if (given) model.feature_names.assign(names.begin(), names.end());
  }

  /// One tree, whose first line is \p line; then \p line is what follows the block.
  void read_block(std::string_view& line, boosting::Model& model) {
    const std::string number = std::to_string(model.trees.size());
    if (line.substr(5) != number) fail("'Tree=" + number + "'", quote_text(line));
    LightgbmBlock block(source_, "tree " + number + ": ");
    while (next_line(line) && !is_tree(line) && line != end_of_trees) {
      if (!line.empty()) block.add(line, line_);
    }
    block.last_line = line_;
    model.trees.push_back(read_tree(block, model.features));
    const auto place = static_cast<std::int64_t>(model.trees.size() - 1) % model.outputs;
    model.tree_outputs.push_back(static_cast<std::int32_t>(place));
  }

  [[nodiscard]] static tree::Tree read_tree(const LightgbmBlock& block, std::int64_t features) {
    const auto leaves = static_cast<std::size_t>(block.integer("num_leaves", 1, 1 << 30));
    const std::vector<double> values = block.numbers("leaf_value", leaves);
    const std::size_t inner = leaves - 1;
    tree::Tree tree;
    tree.nodes.resize(inner + leaves);
    if (inner > 0) {
      read_splits(block, features, tree, inner);
      read_statistics(block, tree, inner);
    }
    for (std::size_t l = 0; l < leaves; ++l) tree.nodes[inner + l].value = values[l];
    if (block.has("is_linear") && block.integer("is_linear", 0, 1) == 1)
      read_linear(block, features, tree, inner);
    return tree;
  }

  /// Inner node i of the file is node i, leaf l is node inner + l.
  static void read_splits(const LightgbmBlock& block, std::int64_t features, tree::Tree& tree,
                          std::size_t inner) {
    const auto leaves = static_cast<std::int64_t>(inner) + 1;
    const auto left = block.integers("left_child", inner, -leaves, leaves - 2);
    const auto right = block.integers("right_child", inner, -leaves, leaves - 2);
    const auto feature = block.integers("split_feature", inner, 0, features - 1);
    const auto type = block.integers("decision_type", inner, 0, 11);
    const auto threshold = block.numbers("threshold", inner, true);
    const std::vector<std::int64_t> sets = read_sets(block, tree);
    for (std::size_t i = 0; i < inner; ++i) {
      tree::Node& node = tree.nodes[i];
      node.feature = static_cast<std::int32_t>(feature[i]);
      node.left = child(block, tree, i, "left_child", left[i]);
      node.right = child(block, tree, i, "right_child", right[i]);
      node.default_left = (type[i] & 2) != 0;
      constexpr tree::MissingRule rules[] = {tree::MissingRule::none, tree::MissingRule::zero,
                                             tree::MissingRule::nan};
      if ((type[i] & 1) == 0) {
        node.missing = rules[type[i] >> 2];
        node.threshold = next_up(threshold[i]);
        continue;
      }
      // A category in the set goes left there, right here; NaN goes with the others.
      std::swap(node.left, node.right);
      node.kind = tree::SplitKind::categorical;
      node.default_left = true;
      const double set = threshold[i];
      const auto count = static_cast<double>(sets.size()) - 1;
      if (!(set >= 0 && set < count) || set != std::floor(set))
        block.fail(block.get("threshold").line, "threshold", "a number of a category set", set);
      const auto s = static_cast<std::size_t>(set);
      node.category_begin = static_cast<std::uint32_t>(sets[s]);
      node.category_count = static_cast<std::uint32_t>(sets[s + 1] - sets[s]);
    }
  }

  /// Where the sets begin in the tree's words, and where the last one ends.
  static std::vector<std::int64_t> read_sets(const LightgbmBlock& block, tree::Tree& tree) {
    const std::int64_t count =
        block.has("num_cat") ? block.integer("num_cat", 0, (1 << 30) - 1) : 0;
    if (count == 0) return {0};
    const std::size_t words = LightgbmBlock::words(block.get("cat_threshold").value).size();
    for (std::int64_t word : block.integers("cat_threshold", words, 0, 4294967295)) {
      tree.category_words.push_back(static_cast<std::uint32_t>(word));
    }
    auto begins = block.integers("cat_boundaries", static_cast<std::size_t>(count) + 1, 0,
                                 static_cast<std::int64_t>(words));
    if (!std::is_sorted(begins.begin(), begins.end()))
      block.fail(block.get("cat_boundaries").line, "cat_boundaries", "ascending numbers", "others");
    return begins;
  }

  static std::int32_t child(const LightgbmBlock& block, tree::Tree& tree, std::size_t parent,
                            const char* key, std::int64_t c) {
    const auto inner = (tree.size() - 1) / 2;
    const std::int64_t to = c >= 0 ? c : inner + ~c;
    const std::string here = std::string(key) + " of split " + std::to_string(parent);
    if (to <= static_cast<std::int64_t>(parent))
      block.fail(block.get(key).line, here, "a later split or a leaf", c);
    tree::Node& node = tree.nodes[static_cast<std::size_t>(to)];
    if (node.parent >= 0)
      block.fail(block.get(key).line, here, "a child that no other split has", c);
    node.parent = static_cast<std::int32_t>(parent);
    return static_cast<std::int32_t>(to);
  }

  /// The first double above x: x <= t is x < next_up(t). Only infinite x tell more than finite t.
  [[nodiscard]] static double next_up(double x) {
    constexpr double infinity = (std::numeric_limits<double>::infinity)();
    return x >= (std::numeric_limits<double>::max)() ? infinity : std::nextafter(x, infinity);
  }

  static void read_statistics(const LightgbmBlock& block, tree::Tree& tree, std::size_t inner) {
    const auto gain = block.statistics("split_gain", inner);
    const auto value = block.statistics("internal_value", inner);
    const auto count = block.statistics("internal_count", inner);
    const auto leaf_count = block.statistics("leaf_count", inner + 1);
    for (std::size_t i = 0; i < inner; ++i) {
      tree.nodes[i].gain = gain[i];
      tree.nodes[i].value = value[i];
      tree.nodes[i].cover = count[i];
    }
    for (std::size_t l = 0; l <= inner; ++l) tree.nodes[inner + l].cover = leaf_count[l];
  }

  static void read_linear(const LightgbmBlock& block, std::int64_t features, tree::Tree& tree,
                          std::size_t inner) {
    const std::size_t leaves = inner + 1;
    const auto constants = block.numbers("leaf_const", leaves);
    constexpr std::int64_t most = 1 << 30;
    const auto counts = block.integers("num_features", leaves, 0, most);
    const std::size_t terms = LightgbmBlock::words(block.get("leaf_features").value).size();
    tree::LinearLeaves& linear = tree.linear;
    linear.offsets.assign(inner + 1, 0);
    for (std::int64_t count : counts) linear.offsets.push_back(linear.offsets.back() + count);
    if (linear.offsets.back() != static_cast<std::int64_t>(terms))
      block.fail(block.get("leaf_features").line, "leaf_features",
                 std::to_string(linear.offsets.back()) + " entries", terms);
    for (std::int64_t f : block.integers("leaf_features", terms, 0, features - 1)) {
      linear.features.push_back(static_cast<std::int32_t>(f));
    }
    linear.coefficients = block.numbers("leaf_coeff", terms);
    linear.constants.assign(inner, 0.0);
    linear.constants.insert(linear.constants.end(), constants.begin(), constants.end());
  }

  void finish(const LightgbmBlock& header, boosting::Model& model) const {
    if (model.trees.size() % static_cast<std::size_t>(model.outputs) != 0)
      fail("whole rounds of " + std::to_string(model.outputs) + " trees",
           std::to_string(model.trees.size()));
    const double rounds = static_cast<double>((std::max)(model.rounds(), std::int64_t{1}));
    if (header.has("average_output")) model.tree_weights.assign(model.trees.size(), 1.0 / rounds);
    for (const tree::Tree& tree : model.trees) {
      for (const tree::Node& n : tree.nodes) {
        if (n.is_leaf() || n.kind != tree::SplitKind::categorical) continue;
        model.feature_kinds.resize(static_cast<std::size_t>(model.features),
                                   tree::FeatureKind::numeric);
        model.feature_kinds[static_cast<std::size_t>(n.feature)] = tree::FeatureKind::categorical;
      }
    }
    model.check(source_);
  }

  std::string_view text_;
  std::string source_;
  std::size_t at_ = 0;
  std::int64_t line_ = 0;
};

}  // namespace io::detail
QUERN_NAMESPACE_END

#endif  // QUERN_IO_LIGHTGBM_READER_HPP
