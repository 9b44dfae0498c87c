// SPDX-License-Identifier: Apache-2.0

/// \file
/// Writes the document of an XGBoost 3 model, JSON or UBJ; see xgboost_json.hpp and xgboost_ubj.hpp
/// for the functions to call.

#ifndef QUERN_IO_XGBOOST_WRITER_HPP
#define QUERN_IO_XGBOOST_WRITER_HPP

#include "quern/boosting/model.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/io/detail/level_order.hpp"
#include "quern/io/detail/scalar_trees.hpp"
#include "quern/io/document_sinks.hpp"
#include "quern/io/xgboost_base_score.hpp"
#include "quern/tree/float_key.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace io::detail {

/// \p Sink: JsonSink or UbjSink.
template <class Sink>
class XgboostWriter {
 public:
  /// \p function names the public function that was called.
  XgboostWriter(const boosting::Model& model, std::string function)
      : function_(std::move(function)),
        scalar_(model, function_),
        model_(scalar_.get()),
        objective_(name_of(model.objective)) {
    for (std::size_t t = 0; t < model_.trees.size(); ++t) check_tree(t);
    check_utf8("objective", model.objective);
    for (const std::string& name : model.feature_names) check_utf8("feature_names", name);
    choose_base_scores();
  }

  [[nodiscard]] std::string write() {
    out_.begin_object();
    out_.key("learner");
    out_.begin_object();
    out_.key("attributes");
    out_.begin_object();
    if (model_.best_round >= 0) member("best_iteration", std::to_string(model_.best_round));
    out_.end_object();
    out_.key("feature_names");
    strings(model_.feature_names);
    out_.key("feature_types");
    strings(feature_types());
    out_.key("gradient_booster");
    booster();
    out_.key("learner_model_param");
    learner_param();
    out_.key("objective");
    objective();
    out_.end_object();
    out_.key("version");
    untyped_integers(3, [](std::size_t i) { return i == 0 ? 3 : 0; });
    out_.end_object();
    return out_.take();
  }

 private:
  /// One against all others is to XGBoost a logistic model of several targets; to it a custom loss
  /// is one whose margins are the predictions.
  [[nodiscard]] static std::string name_of(const std::string& objective) {
    if (objective == "multi:ova") return "binary:logistic";
    return objective == "custom" ? "reg:squarederror" : objective;
  }

  void check_tree(std::size_t t) const {
    const tree::Tree& tree = model_.trees[t];
    const std::string where = "model, tree " + std::to_string(t);
    if (!tree.linear.empty())
      throw ValueError(error_text(function_, where, "constant leaves",
                                  "linear leaves, which XGBoost does not have"));
    for (const tree::Node& n : tree.nodes) {
      if (!n.is_leaf() && n.kind == tree::SplitKind::numeric && !n.is_plain())
        throw ValueError(error_text(function_, where, "splits that only NaN is missing for",
                                    "one that takes zeros for missing"));
    }
  }
  void check_utf8(const char* field, const std::string& name) const {
    try {
      (void)nlohmann::json(name).dump();
    } catch (const nlohmann::json::exception&) {
      throw ValueError(error_text(function_, field, "UTF-8 text", "other bytes"));
    }
  }

  /// Where the float of a base score is too coarse (a logistic margin of 10 moves by 1e-3), the
  /// first tree of the output, or the linear bias, takes the rest.
  void choose_base_scores() {
    const BaseScoreLink link = base_score_link(objective_);
    first_tree_add_.assign(model_.trees.size(), 0.0);
    for (std::size_t k = 0; k < model_.base_margin.size(); ++k) {
      // XGBoost's gblinear starts every output from the first one's base score.
      const double start = model_.base_margin[model_.is_linear() ? 0 : k];
      const float score = base_score_of_margin(link, start);
      const double rest =
          model_.base_margin[k] - margin_of_base_score(link, static_cast<double>(score));
      base_scores_.push_back(score);
      biases_.push_back(0);
      if (std::abs(rest) <= 1e-6 * (std::max)(1.0, std::abs(model_.base_margin[k]))) continue;
      biases_.back() = rest;
      for (std::size_t t = 0; t < model_.trees.size(); ++t) {
        if (model_.tree_outputs[t] != static_cast<std::int32_t>(k) || weight(t) == 0) continue;
        first_tree_add_[t] = rest / weight(t);
        break;
      }
    }
  }

  [[nodiscard]] double weight(std::size_t t) const {
    return model_.tree_weights.empty() ? 1.0 : model_.tree_weights[t];
  }

  void member(std::string_view key, std::string_view value) {
    out_.key(key);
    out_.string(value);
  }
  void strings(const std::vector<std::string>& list) {
    out_.begin_array(list.size());
    for (const std::string& s : list) out_.string(s);
    out_.end_array();
  }
  /// Some arrays have to be without a type for XGBoost to find its integers.
  template <class Value>
  void untyped_integers(std::size_t size, const Value& value) {
    out_.begin_array(size);
    for (std::size_t i = 0; i < size; ++i) out_.integer(value(i));
    out_.end_array();
  }
  /// "key":[one entry a node]
  template <class T, class Value>
  void nodes(const char* key, const tree::Tree& tree, const Value& value) {
    out_.key(key);
    out_.template numbers<T>(tree.nodes.size(),
                             [&](std::size_t i) { return value(static_cast<std::int32_t>(i)); });
  }

  [[nodiscard]] std::vector<std::string> feature_types() const {
    std::vector<std::string> types;
    for (tree::FeatureKind kind : model_.feature_kinds) {
      types.emplace_back(kind == tree::FeatureKind::categorical ? "c" : "q");
    }
    for (const tree::Tree& tree : model_.trees) {
      for (const tree::Node& n : tree.nodes) {
        if (n.is_leaf() || n.kind != tree::SplitKind::categorical) continue;
        types.resize(static_cast<std::size_t>(model_.features), "q");
        types[static_cast<std::size_t>(n.feature)] = "c";
      }
    }
    return types;
  }

  void booster() {
    if (model_.is_linear()) return linear();
    const bool dart = std::any_of(model_.tree_weights.begin(), model_.tree_weights.end(),
                                  [](double w) { return w != 1.0; });
    out_.begin_object();
    if (dart) {
      out_.key("gbtree");
      out_.begin_object();
    }
    out_.key("model");
    trees();
    member("name", "gbtree");
    out_.end_object();
    if (!dart) return;
    member("name", "dart");
    out_.key("weight_drop");
    out_.begin_array(model_.trees.size());
    for (std::size_t t = 0; t < model_.trees.size(); ++t)
      out_.number(static_cast<float>(weight(t)));
    out_.end_array();
    out_.end_object();
  }

  void linear() {
    const std::size_t size = model_.linear_weights.size();
    const std::size_t first_bias = size - biases_.size();
    out_.begin_object();
    out_.key("model");
    out_.begin_object();
    out_.key("boosted_rounds");
    out_.integer(1);  // not known
    out_.key("weights");
    out_.template numbers<float>(size, [&](std::size_t i) {
      const double rest = i < first_bias ? 0.0 : biases_[i - first_bias];
      return static_cast<float>(model_.linear_weights[i] + rest);
    });
    out_.end_object();
    member("name", "gblinear");
    out_.end_object();
  }

  void trees() {
    out_.begin_object();
    out_.key("cats");
    out_.begin_object();
    out_.key("enc");
    strings({});
    for (const char* key : {"feature_segments", "sorted_idx"}) {
      out_.key(key);
      out_.template numbers<std::int32_t>(0, [](std::size_t) { return 0; });
    }
    out_.end_object();
    out_.key("gbtree_model_param");
    out_.begin_object();
    member("num_parallel_tree", std::to_string(model_.parallel_trees));
    member("num_trees", std::to_string(model_.trees.size()));
    out_.end_object();
    out_.key("iteration_indptr");
    untyped_integers(static_cast<std::size_t>(model_.rounds()) + 1, [&](std::size_t i) {
      return static_cast<std::int64_t>(i) * model_.trees_per_round();
    });
    out_.key("tree_info");
    untyped_integers(model_.trees.size(), [&](std::size_t t) { return model_.tree_outputs[t]; });
    out_.key("trees");
    out_.begin_array(model_.trees.size());
    for (std::size_t t = 0; t < model_.trees.size(); ++t) {
      // XGBoost predicts by left child + 1; models of others need not be numbered so.
      const tree::Tree& tree = model_.trees[t];
      siblings_are_neighbours(tree) ? write_tree(t, tree) : write_tree(t, in_level_order(tree));
    }
    out_.end_array();
    out_.end_object();
  }

  void write_tree(std::size_t t, const tree::Tree& tree) {
    std::int64_t deleted = 0;
    for (std::int32_t i = 0; i < tree.size(); ++i) deleted += tree.in_use(i) ? 0 : 1;
    out_.begin_object();
    out_.key("id");
    out_.integer(static_cast<std::int64_t>(t));
    values(tree, first_tree_add_[t]);
    categories(tree);
    links(tree);
    out_.key("tree_param");
    out_.begin_object();
    member("num_deleted", std::to_string(deleted));
    member("num_feature", std::to_string(model_.features));
    member("num_nodes", std::to_string(tree.size()));
    member("size_leaf_vector", "1");
    out_.end_object();
    out_.end_object();
  }

  [[nodiscard]] static bool categorical(const tree::Node& n) {
    return !n.is_leaf() && n.kind == tree::SplitKind::categorical;
  }

  void values(const tree::Tree& tree, double add) {
    const auto value = [&](std::int32_t i) { return static_cast<float>(tree.node(i).value + add); };
    nodes<float>("base_weights", tree, [&](std::int32_t i) {
      return tree.node(i).is_leaf() ? value(i) : static_cast<float>(tree.node(i).value);
    });
    nodes<float>("loss_changes", tree,
                 [&](std::int32_t i) { return static_cast<float>(tree.node(i).gain); });
    nodes<float>("split_conditions", tree, [&](std::int32_t i) {
      if (tree.node(i).is_leaf()) return value(i);
      return categorical(tree.node(i)) ? 0.0f : threshold(tree.node(i).threshold);
    });
    nodes<float>("sum_hessian", tree,
                 [&](std::int32_t i) { return static_cast<float>(tree.node(i).cover); });
  }

  void links(const tree::Tree& tree) {
    constexpr std::int32_t nobody = 2147483647;  // of roots; deleted nodes test such a feature
    nodes<std::uint8_t>("default_left", tree, [&](std::int32_t i) {
      return tree.node(i).missing_left() || !tree.in_use(i) ? 1 : 0;
    });
    nodes<std::int32_t>("left_children", tree, [&](std::int32_t i) { return tree.node(i).left; });
    nodes<std::int32_t>("parents", tree, [&](std::int32_t i) {
      return i == 0 ? nobody : (std::max)(tree.node(i).parent, 0);
    });
    nodes<std::int32_t>("right_children", tree, [&](std::int32_t i) { return tree.node(i).right; });
    nodes<std::int32_t>("split_indices", tree, [&](std::int32_t i) {
      return tree.in_use(i) ? (std::max)(tree.node(i).feature, 0) : nobody;
    });
    nodes<std::uint8_t>("split_type", tree,
                        [&](std::int32_t i) { return categorical(tree.node(i)) ? 1 : 0; });
  }

  /// JSON has no infinities: the ends of the floats stand in, which only input as large can tell.
  [[nodiscard]] static float threshold(double t) {
    constexpr float largest = (std::numeric_limits<float>::max)();
    return (std::clamp)(tree::round_up_to_float(t), -largest, largest);
  }

  void categories(const tree::Tree& tree) {
    std::vector<std::uint32_t> all;
    std::vector<std::int32_t> owners;
    std::vector<std::size_t> begins;
    std::vector<std::size_t> sizes;
    for (std::int32_t i = 0; i < tree.size(); ++i) {
      const tree::Node& n = tree.node(i);
      if (!categorical(n)) continue;
      owners.push_back(i);
      begins.push_back(all.size());
      for (std::uint32_t c = 0; c < 32 * n.category_count; ++c) {
        if (tree.in_category_set(n, c)) all.push_back(c);
      }
      sizes.push_back(all.size() - begins.back());
    }
    list<std::int32_t>("categories", all);
    list<std::int32_t>("categories_nodes", owners);
    list<std::int64_t>("categories_segments", begins);
    list<std::int64_t>("categories_sizes", sizes);
  }
  template <class T, class Values>
  void list(const char* key, const Values& values) {
    out_.key(key);
    out_.template numbers<T>(values.size(), [&](std::size_t i) { return values[i]; });
  }

  [[nodiscard]] bool classes() const { return objective_.starts_with("multi:"); }

  void learner_param() {
    // A vector in a string, as XGBoost 3 has it.
    JsonSink scores;
    scores.numbers<float>(base_scores_.size(), [&](std::size_t k) { return base_scores_[k]; });
    out_.begin_object();
    member("base_score", scores.take());
    member("boost_from_average", "1");
    member("num_class", std::to_string(classes() ? model_.outputs : 0));
    member("num_feature", std::to_string(model_.features));
    member("num_target", std::to_string(classes() ? 1 : model_.outputs));
    out_.end_object();
  }

  void param(std::string_view group, std::string_view key, std::string_view value) {
    out_.key(group);
    out_.begin_object();
    if (!key.empty()) member(key, value);
    out_.end_object();
  }

  static std::string number(double x) {
    char text[40];
    const auto end = std::to_chars(text, text + sizeof text, static_cast<float>(x)).ptr;
    return {text, end};
  }

  /// XGBoost wants each objective's parameters.
  void objective() {
    static constexpr const char* aft_names[] = {"normal", "logistic", "extreme"};
    const std::string& name = objective_;
    const boosting::ObjectiveParams& params = model_.objective_params;
    out_.begin_object();
    member("name", name);
    if (classes()) {
      param("softmax_multiclass_param", "num_class", std::to_string(model_.outputs));
    } else if (name == "count:poisson") {
      param("poisson_regression_param", "max_delta_step", number(params.poisson_max_delta_step));
    } else if (name == "reg:tweedie") {
      param("tweedie_regression_param", "tweedie_variance_power",
            number(params.tweedie_variance_power));
    } else if (name == "reg:pseudohubererror") {
      param("pseudo_huber_param", "huber_slope", number(params.huber_slope));
    } else if (name == "survival:aft") {
      out_.key("aft_loss_param");
      out_.begin_object();
      member("aft_loss_distribution", aft_names[static_cast<int>(params.aft_loss_distribution)]);
      member("aft_loss_distribution_scale", number(params.aft_loss_distribution_scale));
      out_.end_object();
    } else if (name == "reg:quantileerror") {
      JsonSink levels;
      const std::vector<double>& alpha = params.quantile_alpha;
      levels.numbers<float>(base_scores_.size(), [&](std::size_t k) {
        return alpha.empty()
                   ? (static_cast<float>(k) + 1.0f) / (static_cast<float>(model_.outputs) + 1.0f)
                   : static_cast<float>(alpha[k]);
      });
      param("quantile_loss_param", "quantile_alpha", levels.take());
    } else if (name.starts_with("rank:")) {
      param("lambdarank_param", "", "");
    } else if (name.starts_with("reg:") || name.starts_with("binary:")) {
      param("reg_loss_param", "scale_pos_weight", "1");
    }
    out_.end_object();
  }

  std::string function_;
  ScalarModel scalar_;
  const boosting::Model& model_;
  std::string objective_;  // XGBoost's name
  Sink out_;
  std::vector<float> base_scores_;
  std::vector<double> first_tree_add_;  // to every leaf
  std::vector<double> biases_;          // (outputs): the same of a linear model
};

}  // namespace io::detail
QUERN_NAMESPACE_END

#endif  // QUERN_IO_XGBOOST_WRITER_HPP
