// SPDX-License-Identifier: Apache-2.0

/// \file
/// Reads the document of an XGBoost model, JSON or UBJ; see xgboost_json.hpp and xgboost_ubj.hpp
/// for the functions to call.

#ifndef QUERN_IO_XGBOOST_READER_HPP
#define QUERN_IO_XGBOOST_READER_HPP

#include "quern/boosting/model.hpp"
#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/io/detail/level_order.hpp"
#include "quern/io/json_values.hpp"
#include "quern/io/xgboost_base_score.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace io::detail {

class XgboostReader : public JsonValues {
 public:
  using JsonValues::JsonValues;

  /// The model of a document that was decoded from so many bytes.
  [[nodiscard]] boosting::Model read(const Json& document, std::size_t bytes) {
    // A category costs up to its number in bits; hostile ones shall not cost more than the file
    // did.
    category_words_left_ = bytes * 4 + 65536;
    return read_model({&document, ""});
  }

 private:
  [[nodiscard]] double number(const JsonPlace& at) const {
    if (!at.value->is_number()) fail_type(at, "a number");
    return narrow(at, at.value->get<double>());
  }
  /// Rounds to a finite float: the limit is half a step above the largest. Also false for NaN.
  [[nodiscard]] static bool fits_float(double x) noexcept {
    return is_finite_bits(x) && x > -0x1.ffffffp127 && x < 0x1.ffffffp127;
  }
  /// XGBoost's numbers are floats; a double too large for one is not of its making.
  [[nodiscard]] double narrow(const JsonPlace& at, double x) const {
    if (!fits_float(x)) fail(at.path, "a number that fits a float", x);
    return static_cast<double>(static_cast<float>(x));
  }
  /// A number an entry, without building an entry's path unless it is wrong.
  [[nodiscard]] std::vector<double> numbers(const JsonPlace& at, std::size_t size) const {
    const Json::array_t& values = array_of(at, size);
    std::vector<double> out(size);
    for (std::size_t i = 0; i < size; ++i) {
      const double x =
          values[i].is_number() ? values[i].get<double>() : number(element(at, values, i));
      out[i] = fits_float(x) ? static_cast<double>(static_cast<float>(x))
                             : narrow(element(at, values, i), x);
    }
    return out;
  }

  // --- the model --------------------------------------------------------------------------------

  boosting::Model read_model(const JsonPlace& root) {
    boosting::Model model;
    model.input_type = tree::InputType::float32;
    const JsonPlace learner = get(root, "learner");
    const JsonPlace param = get(learner, "learner_model_param");
    model.features =
        integer(get(param, "num_feature"), 0, (std::numeric_limits<std::int32_t>::max)());
    model.objective = text(get(get(learner, "objective"), "name"));
    read_booster(get(learner, "gradient_booster"), model);
    read_outputs(param, model);
    // A logistic model of several targets: each is told from the others by itself.
    if (model.objective == "binary:logistic" && model.outputs > 1) model.objective = "multi:ova";
    read_objective(get(learner, "objective"), model);
    read_feature_lists(learner, model);
    if (find(learner, "attributes") != nullptr) read_attributes(get(learner, "attributes"), model);
    model.check(source());
    return model;
  }

  void read_booster(const JsonPlace& booster, boosting::Model& model) {
    const std::string name = text(get(booster, "name"));
    if (name == "gblinear") return read_linear(get(booster, "model"), model);
    if (name != "gbtree" && name != "dart")
      fail(booster.path + ".name", "'gbtree', 'dart' or 'gblinear'",
           "'" + name.substr(0, 40) + "'");
    const JsonPlace gbtree = name == "dart" ? get(booster, "gbtree") : booster;
    const JsonPlace body = get(gbtree, "model");
    const JsonPlace trees = get(body, "trees");
    const Json::array_t& list = array(trees);
    if (const JsonPlace p = get(body, "gbtree_model_param"); find(p, "num_parallel_tree")) {
      // Old files say 0 for 1.
      model.parallel_trees = static_cast<std::int32_t>(
          (std::max)(integer(get(p, "num_parallel_tree"), 0, 1 << 30), std::int64_t{1}));
    }
    for (std::size_t t = 0; t < list.size(); ++t) {
      model.trees.push_back(read_tree(element(trees, list, t), model.features));
    }
    for (std::int64_t info : integers(get(body, "tree_info"), list.size(), 0, 1 << 30)) {
      model.tree_outputs.push_back(static_cast<std::int32_t>(info));
    }
    if (name == "dart") model.tree_weights = numbers(get(booster, "weight_drop"), list.size());
  }

  /// (features + 1, outputs), as the model has it; it checks the size.
  void read_linear(const JsonPlace& body, boosting::Model& model) const {
    const JsonPlace weights = get(body, "weights");
    const std::size_t size = array(weights).size();
    if (size == 0) fail(weights.path, "a weight a feature and a bias", "none");
    model.linear_weights = numbers(weights, size);
  }

  /// Parameters that judging or training the model further needs; old files lack some.
  void read_objective(const JsonPlace& objective, boosting::Model& model) const {
    boosting::ObjectiveParams& params = model.objective_params;
    const auto values = [&](const char* group, const char* key) -> std::vector<double> {
      if (find(objective, group) == nullptr) return {};
      const JsonPlace at = get(objective, group);
      return find(at, key) != nullptr ? base_scores(get(at, key)) : std::vector<double>{};
    };
    const auto number_of = [&](const char* group, const char* key, double& out) {
      const std::vector<double> list = values(group, key);
      if (list.size() == 1) out = list[0];
    };
    number_of("pseudo_huber_param", "huber_slope", params.huber_slope);
    number_of("tweedie_regression_param", "tweedie_variance_power", params.tweedie_variance_power);
    number_of("poisson_regression_param", "max_delta_step", params.poisson_max_delta_step);
    number_of("aft_loss_param", "aft_loss_distribution_scale", params.aft_loss_distribution_scale);
    params.quantile_alpha = values("quantile_loss_param", "quantile_alpha");
    if (params.quantile_alpha.size() != static_cast<std::size_t>(model.outputs))
      params.quantile_alpha.clear();
    if (find(objective, "aft_loss_param") == nullptr) return;
    const JsonPlace aft = get(objective, "aft_loss_param");
    if (find(aft, "aft_loss_distribution") == nullptr) return;
    const std::string kind = text(get(aft, "aft_loss_distribution"));
    if (kind == "logistic") params.aft_loss_distribution = boosting::AftDistribution::logistic;
    if (kind == "extreme") params.aft_loss_distribution = boosting::AftDistribution::extreme;
  }

  void read_outputs(const JsonPlace& param, boosting::Model& model) {
    std::int64_t outputs = integer(get(param, "num_class"), 0, 1 << 30);
    if (outputs <= 1 && find(param, "num_target") != nullptr) {
      outputs = integer(get(param, "num_target"), 0, 1 << 30);
    }
    outputs = (std::max)(outputs, std::int64_t{1});
    const JsonPlace at = get(param, "base_score");
    std::vector<double> scores = base_scores(at);
    // Every output has a tree or a base score of its own, so memory is bounded by the file.
    const auto most = static_cast<std::int64_t>(
        (std::max)({model.trees.size(), model.linear_weights.size(), scores.size()}));
    if (outputs > (std::max)(most, std::int64_t{4096}))
      fail(param.path, "outputs that have trees", outputs);
    if (scores.size() == 1) scores.resize(static_cast<std::size_t>(outputs), scores[0]);
    if (static_cast<std::int64_t>(scores.size()) != outputs)
      fail(at.path, std::to_string(outputs) + " values", scores.size());
    // XGBoost's gblinear starts every output from the first one's.
    if (model.is_linear()) scores.assign(scores.size(), scores[0]);
    const BaseScoreLink link = base_score_link(model.objective);
    model.outputs = static_cast<std::int32_t>(outputs);
    model.base_margin.clear();
    for (double score : scores) {
      if (!is_base_score(link, score)) fail(at.path, "the range of the objective", score);
      model.base_margin.push_back(margin_of_base_score(link, score));
    }
  }

  /// "[5E-1]", "[1E0,2E0]", "5E-1", 0.5 or [0.5].
  std::vector<double> base_scores(const JsonPlace& at) const {
    if (at.value->is_number()) return {number(at)};
    if (at.value->is_array()) return numbers(at, at.value->size());
    const std::string whole = text(at);
    std::string_view rest = whole;
    const bool list = !rest.empty() && rest.front() == '[';
    if (list) {
      if (rest.size() < 2 || rest.back() != ']')
        fail(at.path, "a closing ]", "'" + whole.substr(0, 40) + "'");
      rest = rest.substr(1, rest.size() - 2);
    }
    std::vector<double> scores;
    while (true) {
      float score = 0;
      const auto result = std::from_chars(rest.data(), rest.data() + rest.size(), score);
      if (result.ec != std::errc() || !is_finite_bits(score))
        fail(at.path, "numbers", "'" + whole.substr(0, 40) + "'");
      scores.push_back(static_cast<double>(score));
      rest.remove_prefix(static_cast<std::size_t>(result.ptr - rest.data()));
      if (rest.empty()) return scores;
      if (!list || rest.front() != ',') fail(at.path, "numbers", "'" + whole.substr(0, 40) + "'");
      rest.remove_prefix(1);
    }
  }

  void read_feature_lists(const JsonPlace& learner, boosting::Model& model) {
    if (find(learner, "feature_names") != nullptr)
      model.feature_names = strings(get(learner, "feature_names"));
    if (find(learner, "feature_types") == nullptr) return;
    for (const std::string& type : strings(get(learner, "feature_types"))) {
      model.feature_kinds.push_back(type == "c" ? tree::FeatureKind::categorical
                                                : tree::FeatureKind::numeric);
    }
  }

  void read_attributes(const JsonPlace& attributes, boosting::Model& model) {
    if (find(attributes, "best_iteration") == nullptr || model.is_linear()) return;
    const std::int64_t last = (std::max)(model.rounds() - 1, std::int64_t{0});
    model.best_round = integer(get(attributes, "best_iteration"), 0, last);
  }

  // --- a tree -----------------------------------------------------------------------------------

  tree::Tree read_tree(const JsonPlace& at, std::int64_t features) {
    tree::Tree tree;
    const JsonPlace left_at = get(at, "left_children");
    const std::size_t n = array(left_at).size();
    if (n == 0) fail(left_at.path, "at least one node", 0);
    if (n > std::size_t{1} << 30) fail(left_at.path, "at most 2^30 nodes", n);
    check_tree_param(at, n);
    const auto last = static_cast<std::int64_t>(n) - 1;
    constexpr std::int64_t wide = (std::numeric_limits<std::uint32_t>::max)();
    const auto left = integers(left_at, n, -1, last);
    const auto right = integers(get(at, "right_children"), n, -1, last);
    const auto split = integers(get(at, "split_indices"), n, 0, wide);
    const auto condition = numbers(get(at, "split_conditions"), n);
    const auto default_left = integers(get(at, "default_left"), n, 0, 1);
    const auto gain = statistics(at, "loss_changes", n);
    const auto cover = statistics(at, "sum_hessian", n);
    const auto weight = statistics(at, "base_weights", n);
    tree.nodes.resize(n);
    for (std::size_t i = 0; i < n; ++i) {
      tree::Node& node = tree.nodes[i];
      node.gain = gain[i];
      node.cover = cover[i];
      if ((left[i] < 0) != (right[i] < 0))
        fail(at.path + ", node " + std::to_string(i), "two children or none", "one");
      if (left[i] < 0) {
        node.value = condition[i];
        continue;
      }
      if (split[i] >= features)
        fail(at.path + ".split_indices[" + std::to_string(i) + "]",
             "a feature below " + std::to_string(features), split[i]);
      node.left = static_cast<std::int32_t>(left[i]);
      node.right = static_cast<std::int32_t>(right[i]);
      node.feature = static_cast<std::int32_t>(split[i]);
      node.threshold = condition[i];
      node.value = weight[i];
      node.default_left = default_left[i] != 0;
    }
    link_parents(at, tree);
    read_categories(at, tree);
    return in_order(tree) ? tree : in_level_order(tree);
  }

  void check_tree_param(const JsonPlace& at, std::size_t n) const {
    const JsonPlace param = get(at, "tree_param");
    const std::int64_t nodes = integer(get(param, "num_nodes"), 0, 1 << 30);
    if (nodes != static_cast<std::int64_t>(n))
      fail(param.path + ".num_nodes", std::to_string(n) + ", as there are children", nodes);
    if (find(param, "size_leaf_vector") != nullptr &&
        integer(get(param, "size_leaf_vector"), 0, 1 << 30) > 1)
      fail(param.path + ".size_leaf_vector", "one value a leaf", "vector leaves");
  }

  std::vector<double> statistics(const JsonPlace& at, const char* key, std::size_t n) const {
    if (find(at, key) == nullptr) return std::vector<double>(n, 0.0);
    return numbers(get(at, key), n);
  }

  /// Parents follow from the children that can be reached; what cannot is a node that pruning left
  /// behind, and becomes a leaf of nobody. A node reached twice is no tree's.
  void link_parents(const JsonPlace& at, tree::Tree& tree) const {
    std::vector<char> seen(tree.nodes.size(), 0);
    std::vector<std::int32_t> stack = {0};
    seen[0] = 1;
    while (!stack.empty()) {
      const std::int32_t i = stack.back();
      stack.pop_back();
      const tree::Node& node = tree.node(i);
      if (node.is_leaf()) continue;
      for (std::int32_t child : {node.left, node.right}) {
        char& reached = seen[static_cast<std::size_t>(child)];
        if (reached != 0)
          fail(at.path + ", node " + std::to_string(child), "one parent", "another");
        reached = 1;
        tree.node(child).parent = i;
        stack.push_back(child);
      }
    }
    for (std::size_t i = 0; i < seen.size(); ++i) {
      if (seen[i] == 0) tree.nodes[i] = tree::Node();
    }
  }

  void read_categories(const JsonPlace& at, tree::Tree& tree) {
    const std::size_t n = tree.nodes.size();
    if (find(at, "split_type") == nullptr) return;
    const auto types = integers(get(at, "split_type"), n, 0, 1);
    std::size_t expected = 0;
    for (std::size_t i = 0; i < n; ++i) {
      if (types[i] == 0 || tree.nodes[i].is_leaf()) continue;
      tree.nodes[i].kind = tree::SplitKind::categorical;
      ++expected;
    }
    if (expected == 0) return;
    const JsonPlace nodes_at = get(at, "categories_nodes");
    const std::size_t sets = array(nodes_at).size();
    const JsonPlace list_at = get(at, "categories");
    const auto size = static_cast<std::int64_t>(array(list_at).size());
    constexpr std::int64_t most = (std::int64_t{1} << 24) - 1;  // the largest exact in a float
    const auto list = integers(list_at, static_cast<std::size_t>(size), 0, most);
    const auto nodes = integers(nodes_at, sets, 0, static_cast<std::int64_t>(n) - 1);
    const auto begins = integers(get(at, "categories_segments"), sets, 0, size);
    const auto sizes = integers(get(at, "categories_sizes"), sets, 0, size);
    std::vector<char> filled(n, 0);
    for (std::size_t s = 0; s < sets; ++s) {
      const auto i = static_cast<std::size_t>(nodes[s]);
      const std::string here = nodes_at.path + "[" + std::to_string(s) + "]";
      if (sizes[s] > size - begins[s]) fail(here, "a range of the categories", sizes[s]);
      if (tree.nodes[i].is_leaf()) continue;  // pruned
      if (filled[i] != 0 || tree.nodes[i].kind != tree::SplitKind::categorical)
        fail(here, "a categorical node, once", nodes[s]);
      filled[i] = 1;
      const auto first = list.begin() + begins[s];
      add_category_set(here, tree, tree.nodes[i], std::span(first, first + sizes[s]));
      --expected;
    }
    if (expected != 0) fail(nodes_at.path, "a set for every categorical node", sets);
  }

  void add_category_set(const std::string& here, tree::Tree& tree, tree::Node& node,
                        std::span<const std::int64_t> set) {
    std::int64_t largest = -1;
    for (std::int64_t c : set) largest = (std::max)(largest, c);
    const auto words = static_cast<std::size_t>((largest + 32) / 32);
    if (words > category_words_left_) fail(here, "categories of sensible size", largest);
    category_words_left_ -= words;
    node.category_begin = static_cast<std::uint32_t>(tree.category_words.size());
    node.category_count = static_cast<std::uint32_t>(words);
    tree.category_words.resize(tree.category_words.size() + words, 0);
    for (std::int64_t c : set) {
      tree.category_words[node.category_begin + static_cast<std::size_t>(c / 32)] |= 1u << (c % 32);
    }
  }

  [[nodiscard]] static bool in_order(const tree::Tree& tree) {
    for (std::int32_t i = 0; i < tree.size(); ++i) {
      const tree::Node& n = tree.node(i);
      if (!n.is_leaf() && (n.left <= i || n.right <= i)) return false;
    }
    return true;
  }

  std::size_t category_words_left_ = 0;
};

}  // namespace io::detail
QUERN_NAMESPACE_END

#endif  // QUERN_IO_XGBOOST_READER_HPP
