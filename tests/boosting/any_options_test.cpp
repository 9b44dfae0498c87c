// SPDX-License-Identifier: Apache-2.0

/// \file
/// A property of training: whatever the options, the same bits for 1, 2 and 3 threads.

#include "quern/boosting/booster.hpp"
#include "quern/boosting/model_io.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

namespace quern::test::any_options {
namespace {

using boosting::Options;

template <class T>
T one_of(std::vector<T> choices) {
  return *rc::gen::elementOf(std::move(choices));
}
bool flag() { return *rc::gen::arbitrary<bool>(); }

Options any_options(int features) {
  Options o;
  o.objective = one_of<std::string>({"reg:squarederror", "binary:logistic", "multi:softprob",
                                     "reg:absoluteerror", "count:poisson"});
  o.booster = one_of<std::string>({"gbtree", "gbtree", "dart", "gblinear"});
  o.num_round = *rc::gen::inRange(1, 4);
  o.learning_rate = one_of<double>({0.1, 0.3, 1});
  o.max_depth = *rc::gen::inRange(0, 7);
  o.max_leaves = o.max_depth == 0 ? 12 : one_of<std::int32_t>({0, 9});
  o.grow_policy = one_of<tree::GrowPolicy>(
      {tree::GrowPolicy::depthwise, tree::GrowPolicy::lossguide, tree::GrowPolicy::symmetric});
  o.max_cat_to_onehot = one_of<std::int32_t>({1, 4, 100});
  o.max_cat_threshold = one_of<std::int32_t>({2, 64});
  o.min_child_weight = one_of<double>({0, 1, 20});
  o.gamma = one_of<double>({0, 0.5});
  o.reg_lambda = one_of<double>({0, 1});
  o.reg_alpha = one_of<double>({0, 0.1});
  o.max_delta_step = one_of<double>({0, 0.7});
  o.num_parallel_tree = one_of<std::int32_t>({1, 1, 3});
  o.sampling_method = one_of<std::string>({"uniform", "gradient_based", "goss"});
  if (o.sampling_method != "goss") o.subsample = one_of<double>({1, 0.6});
  o.colsample_bytree = one_of<double>({1, 0.7});
  o.colsample_bylevel = one_of<double>({1, 0.7});
  o.colsample_bynode = one_of<double>({1, 0.7});
  o.max_bin = one_of<std::int32_t>({2, 16, 255});
  o.linear_tree = flag() && flag();
  o.linear_lambda = one_of<double>({0, 0.1});
  if (!o.linear_tree && flag()) {
    for (int f = 0; f < features; ++f)
      o.monotone_constraints.push_back(static_cast<std::int8_t>(*rc::gen::inRange(-1, 2)));
  }
  if (flag()) o.interaction_constraints = {{0, 1}, {2, 3}};
  o.rate_drop = one_of<double>({0, 0.5});
  o.one_drop = flag();
  o.sample_type = one_of<std::string>({"uniform", "weighted"});
  o.normalize_type = one_of<std::string>({"tree", "forest"});
  o.feature_selector = one_of<std::string>({"cyclic", "shuffle", "random", "greedy", "thrifty"});
  o.top_k = one_of<std::int32_t>({0, 3});
  o.histogram_precision = one_of<tree::HistogramPrecision>({tree::HistogramPrecision::automatic,
                                                            tree::HistogramPrecision::packed,
                                                            tree::HistogramPrecision::full});
  o.gradient_order = one_of<int>({1, 2, 2});
  if (o.objective == "reg:absoluteerror" || o.gradient_order == 1) o.linear_tree = false;
  o.seed = *rc::gen::arbitrary<std::uint64_t>();
  if (*rc::gen::inRange(0, 4) == 0) {  // exact trees are depthwise
    o.tree_method = "exact";
    o.grow_policy = tree::GrowPolicy::depthwise;
    o.max_leaves = 0;
    o.max_depth = (std::max)(o.max_depth, 1);
  }
  return o;
}

struct Data {
  std::vector<float> x;
  tree::Dataset dataset;

  Data(std::int64_t rows, std::int64_t cols, const std::string& objective) {
    Philox rng(17, "any options");
    for (std::int64_t i = 0; i < rows * cols; ++i) {
      x.push_back(i % cols == 1 ? static_cast<float>(rng.integer(5)) : rng.normal<float>());
      if (rng.bernoulli(0.1)) x.back() = std::numeric_limits<float>::quiet_NaN();
    }
    std::vector<float> y;
    for (std::int64_t i = 0; i < rows; ++i) {
      const float a = x[static_cast<std::size_t>(i * cols)], b = rng.normal<float>();
      const float t = (a == a ? a : 0.0f) + b;
      const int level = t > 0.7f ? 2 : t > -0.5f ? 1 : 0;
      y.push_back(objective.starts_with("reg:")    ? t
                  : objective == "binary:logistic" ? static_cast<float>(level > 0)
                                                   : static_cast<float>(level));
    }
    dataset = tree::make_dataset(MatrixView<const float>(x.data(), {rows, cols}), y);
  }
};

RC_GTEST_PROP(AnyOptions, TheSameBitsForAnyNumberOfThreads, ()) {
  constexpr int features = 6;
  Options o = any_options(features);
  Data train(9000, features, o.objective), test(500, features, o.objective);
  // Column 1 holds the codes 0..4; what cannot have categories takes them for numbers.
  const bool monotone = !o.monotone_constraints.empty() && o.monotone_constraints[1] != 0;
  if (flag() && o.booster != "gblinear" && o.tree_method == "hist" && !monotone) {
    std::vector<tree::FeatureKind> kinds(features, tree::FeatureKind::numeric);
    kinds[1] = tree::FeatureKind::categorical;
    train.dataset.feature_kinds = test.dataset.feature_kinds = kinds;
  }
  if (flag()) {
    Philox rng(3, "weights");
    for (int i = 0; i < 9000; ++i) train.dataset.weights.push_back(rng.uniform<float>());
  }
  std::vector<std::byte> expected;
  std::vector<double> curve;
  for (const int threads : {1, 2, 3}) {
    o.nthread = threads;
    boosting::Booster b(o);
    const auto& h = b.fit(train.dataset, {.eval_sets = {{"test", &test.dataset}}});
    const std::vector<std::byte> bytes = boosting::model_to_bytes(b.model());
    if (threads == 1) {
      expected = bytes;
      curve = h.curves[0].values;
    }
    RC_ASSERT(bytes == expected);
    RC_ASSERT(h.curves[0].values == curve);
  }
}

}  // namespace
}  // namespace quern::test::any_options
