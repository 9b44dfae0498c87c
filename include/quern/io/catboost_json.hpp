// SPDX-License-Identifier: Apache-2.0

/// \file
/// CatBoost's JSON models, read: symmetric trees over numeric features.
///
/// A tree becomes a full binary tree with Tree::symmetric set, the file's last split at the root,
/// so that leaf i of the file is the i-th leaf from the left; each class has a tree of its own.
/// CatBoost compares floats and adds doubles, and so does the model. Cover is the leaf weights.

#ifndef QUERN_IO_CATBOOST_JSON_HPP
#define QUERN_IO_CATBOOST_JSON_HPP

#include "quern/boosting/model.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/file.hpp"
#include "quern/io/json_values.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace io {

namespace detail {

class CatboostReader : public JsonValues {
 public:
  using JsonValues::JsonValues;

  [[nodiscard]] boosting::Model read(const Json& document) {
    const JsonPlace root{&document, ""};
    boosting::Model model;
    model.input_type = tree::InputType::float32;
    read_features(get(root, "features_info"), model);
    if (find(root, "trees") != nullptr)
      fail("trees", "symmetric trees only (oblivious_trees)", "trees of another growing policy");
    const JsonPlace trees = get(root, "oblivious_trees");
    read_scale(root, trees, model);
    const Json::array_t& list = array(trees);
    for (std::size_t t = 0; t < list.size(); ++t) read_tree(element(trees, list, t), model);
    model.objective = objective(root);
    model.check(source());
    return model;
  }

 private:
  struct Feature {
    std::int32_t column = 0;
    bool nan_left = true;
  };

  void read_features(const JsonPlace& info, boosting::Model& model) {
    for (const char* other : {"categorical_features", "text_features", "embedding_features"}) {
      const Json* list = find(info, other);
      if (list != nullptr && !list->empty())
        fail(info.path + "." + other, "none: only numeric features can be read", list->size());
    }
    const JsonPlace floats = get(info, "float_features");
    const Json::array_t& list = array(floats);
    constexpr std::int64_t most = 1 << 24;
    std::map<std::int64_t, std::string> names;
    bool named = false;
    for (std::size_t i = 0; i < list.size(); ++i) {
      const JsonPlace at = element(floats, list, i);
      const std::int64_t index = integer(get(at, "feature_index"), 0, most);
      const std::int64_t column = integer(get(at, "flat_feature_index"), 0, most);
      const Feature feature{static_cast<std::int32_t>(column), nan_left(at)};
      if (!features_.emplace(index, feature).second)
        fail(at.path + ".feature_index", "an index once", index);
      const std::string name = find(at, "feature_id") ? text(get(at, "feature_id")) : "";
      if (!names.emplace(column, name.empty() ? std::to_string(column) : name).second)
        fail(at.path + ".flat_feature_index", "an index once", column);
      named = named || !name.empty();
      model.features = (std::max)(model.features, column + 1);
    }
    if (!named || static_cast<std::int64_t>(names.size()) != model.features) return;
    for (const auto& [column, name] : names) model.feature_names.push_back(name);
  }

  [[nodiscard]] bool nan_left(const JsonPlace& feature) const {
    if (find(feature, "nan_value_treatment") == nullptr) return true;
    const JsonPlace at = get(feature, "nan_value_treatment");
    const std::string rule = text(at);
    if (rule == "AsTrue") return false;
    // AsIs: NaN is above no border.
    if (rule != "AsFalse" && rule != "AsIs")
      fail(at.path, "AsIs, AsFalse or AsTrue", "'" + rule.substr(0, 40) + "'");
    return true;
  }

  /// [scale, [bias of each output]], in older files [scale, bias].
  void read_scale(const JsonPlace& root, const JsonPlace& trees, boosting::Model& model) {
    model.base_margin = {0.0};
    if (find(root, "scale_and_bias") != nullptr) {
      const JsonPlace at = get(root, "scale_and_bias");
      const Json::array_t& pair = array_of(at, 2);
      scale_ = finite(element(at, pair, 0));
      const JsonPlace bias = element(at, pair, 1);
      model.base_margin = bias.value->is_array() ? finites(bias, bias.value->size())
                                                 : std::vector<double>{finite(bias)};
      if (model.base_margin.empty()) fail(bias.path, "a bias", "none");
    }
    const Json::array_t& list = array(trees);
    if (list.empty()) return set_outputs(model, model.base_margin.size());
    const JsonPlace first = element(trees, list, 0);
    const std::size_t leaves = std::size_t{1} << depth(first);
    const JsonPlace values = get(first, "leaf_values");
    const std::size_t size = array(values).size();
    if (size == 0 || size % leaves != 0)
      fail(values.path, "a multiple of " + std::to_string(leaves), size);
    const std::size_t outputs = size / leaves;
    if (model.base_margin.size() == 1) model.base_margin.resize(outputs, model.base_margin[0]);
    if (model.base_margin.size() != outputs)
      fail("scale_and_bias[1]", std::to_string(outputs) + " biases", model.base_margin.size());
    set_outputs(model, outputs);
  }
  void set_outputs(boosting::Model& model, std::size_t outputs) const {
    model.outputs = static_cast<std::int32_t>((std::min)(outputs, std::size_t{1} << 30));
  }

  [[nodiscard]] std::size_t depth(const JsonPlace& tree) const {
    const JsonPlace splits = get(tree, "splits");
    if (splits.value->is_null()) return 0;
    const std::size_t size = array(splits).size();
    if (size > 24) fail(splits.path, "at most 24 splits", size);
    return size;
  }

  void read_tree(const JsonPlace& at, boosting::Model& model) {
    const std::size_t levels = depth(at);
    const std::size_t leaves = std::size_t{1} << levels;
    const auto outputs = static_cast<std::size_t>(model.outputs);
    const std::vector<double> values = finites(get(at, "leaf_values"), leaves * outputs);
    std::vector<double> weights(leaves, 0.0);
    if (find(at, "leaf_weights") != nullptr) weights = finites(get(at, "leaf_weights"), leaves);
    tree::Tree tree;
    tree.symmetric = true;
    tree.nodes.assign(2 * leaves - 1, tree::Node());
    for (std::size_t level = 0; level < levels; ++level) add_level(at, levels, level, tree);
    for (std::size_t leaf = 0; leaf < leaves; ++leaf)
      tree.nodes[leaves - 1 + leaf].cover = weights[leaf];
    for (std::size_t i = leaves - 1; i-- > 0;)
      tree.nodes[i].cover = tree.nodes[2 * i + 1].cover + tree.nodes[2 * i + 2].cover;
    for (std::size_t k = 0; k < outputs; ++k) {
      for (std::size_t leaf = 0; leaf < leaves; ++leaf)
        tree.nodes[leaves - 1 + leaf].value = scale_ * values[leaf * outputs + k];
      model.trees.push_back(tree);
      model.tree_outputs.push_back(static_cast<std::int32_t>(k));
    }
  }

  /// The nodes of a level: split i of the file sets bit i of a leaf's number.
  void add_level(const JsonPlace& at, std::size_t levels, std::size_t level, tree::Tree& tree) {
    const JsonPlace splits = get(at, "splits");
    const JsonPlace split = element(splits, array(splits), levels - 1 - level);
    if (find(split, "split_type") != nullptr) {
      const JsonPlace type = get(split, "split_type");
      if (text(type) != "FloatFeature")
        fail(type.path, "'FloatFeature': only numeric splits can be read",
             "'" + text(type).substr(0, 40) + "'");
    }
    const JsonPlace index = get(split, "float_feature_index");
    const auto number = integer(index, 0, 1 << 24);
    const auto found = features_.find(number);
    if (found == features_.end()) fail(index.path, "a feature of the model", number);
    const double border = finite(get(split, "border"));
    const std::size_t first = (std::size_t{1} << level) - 1;
    for (std::size_t i = first; i <= 2 * first; ++i) {
      tree::Node& node = tree.nodes[i];
      node.left = static_cast<std::int32_t>(2 * i + 1);
      node.right = node.left + 1;
      tree.nodes[2 * i + 1].parent = tree.nodes[2 * i + 2].parent = static_cast<std::int32_t>(i);
      node.feature = found->second.column;
      node.default_left = found->second.nan_left;
      node.threshold = above(border);
    }
  }

  /// The least float above a border: x > border goes right, and x >= above(border) is the same for
  /// floats.
  [[nodiscard]] static double above(double border) {
    constexpr float infinity = (std::numeric_limits<float>::infinity)();
    constexpr auto largest = static_cast<double>((std::numeric_limits<float>::max)());
    if (border >= largest) return static_cast<double>(infinity);
    if (border < -largest) return -largest;
    const float near = static_cast<float>(border);
    return static_cast<double>(static_cast<double>(near) > border ? near
                                                                  : std::nextafter(near, infinity));
  }

  /// XGBoost's name of the loss, where it has one that predicts the same; else CatBoost's.
  [[nodiscard]] std::string objective(const JsonPlace& root) const {
    JsonPlace at = root;
    for (const char* key : {"model_info", "params", "loss_function"}) {
      if (find(at, key) == nullptr) return "reg:squarederror";
      at = get(at, key);
      if (!at.value->is_object()) return "reg:squarederror";
    }
    if (find(at, "type") == nullptr) return "reg:squarederror";
    const std::string loss = text(get(at, "type"));
    constexpr std::pair<std::string_view, std::string_view> names[] = {
        {"RMSE", "reg:squarederror"},      {"MAE", "reg:absoluteerror"},
        {"Quantile", "reg:quantileerror"}, {"Poisson", "count:poisson"},
        {"Tweedie", "reg:tweedie"},        {"Huber", "reg:pseudohubererror"},
        {"Logloss", "binary:logistic"},    {"CrossEntropy", "binary:logistic"},
        {"MultiClass", "multi:softprob"},  {"MultiClassOneVsAll", "multi:ova"},
        {"YetiRank", "rank:ndcg"},         {"PairLogit", "rank:pairwise"},
        {"QueryRMSE", "reg:squarederror"}};
    for (const auto& [theirs, ours] : names) {
      if (theirs == loss) return std::string(ours);
    }
    return loss;
  }

  std::map<std::int64_t, Feature> features_;
  double scale_ = 1;
};

}  // namespace detail

/// Reads a model from the text of a CatBoost JSON file. ParseError, naming \p source and the place,
/// for anything that is not such a model: categorical, text and embedding features and trees that
/// are not symmetric are refused by name. Memory stays within a fixed multiple of the input's size.
[[nodiscard]] inline boosting::Model catboost_json_from_bytes(std::span<const std::byte> bytes,
                                                              const std::string& source = "model") {
  detail::CatboostReader reader(source);
  return reader.read(reader.parse(bytes));
}

/// Reads a CatBoost JSON file. IoError when it cannot be read, ParseError for its content.
[[nodiscard]] inline boosting::Model load_catboost_json(const std::string& path) {
  return catboost_json_from_bytes(read_file(path), path);
}

}  // namespace io
QUERN_NAMESPACE_END

#endif  // QUERN_IO_CATBOOST_JSON_HPP
