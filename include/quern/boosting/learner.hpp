// SPDX-License-Identifier: Apache-2.0

/// \file
/// Boosted trees with the functions of a learner (quern/ensemble/learner.hpp), so that they can be
/// voted with, stacked and bagged like any other.

#ifndef QUERN_BOOSTING_LEARNER_HPP
#define QUERN_BOOSTING_LEARNER_HPP

#include "quern/boosting/booster.hpp"
#include "quern/boosting/model_io.hpp"
#include "quern/boosting/options.hpp"
#include "quern/core/archive.hpp"
#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/tree/dataset.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace boosting {

namespace detail {

/// A booster that copies share, since nobody changes it any more.
template <class = void>
class BasicSharedBooster {
 public:
  void fit(Options options, const MatrixView<const float>& x, std::vector<float> labels,
           std::span<const float> weights) {
    tree::Dataset data = tree::make_dataset(x, std::move(labels));
    data.weights.assign(weights.begin(), weights.end());
    auto booster = std::make_shared<Booster>(std::move(options));
    booster->fit(data);
    booster_ = std::move(booster);
  }
  [[nodiscard]] const Booster& get() const {
    if (booster_ == nullptr)
      throw ValueError(error_text("quern::boosting", "learner", "one that was fitted", "none"));
    return *booster_;
  }
  void save(ArchiveWriter& out) const { write_model(out, get().model()); }
  void load(const ArchiveReader& in, Options options) {
    booster_ = std::make_shared<Booster>(read_model(in, "model"), std::move(options));
  }

 private:
  std::shared_ptr<const Booster> booster_;
};
/// (A template, so that a program compiles it only where it uses it.)
using SharedBooster = BasicSharedBooster<>;

}  // namespace detail

/// Classes 0..classes-1 by "binary:logistic" or "multi:softprob", whatever the options say.
template <class = void>
class BasicBoostedClassifier {
 public:
  explicit BasicBoostedClassifier(Options options = {}) : options_(std::move(options)) {}

  void fit(MatrixView<const float> x, std::span<const std::int32_t> y, std::int32_t classes,
           std::span<const float> weights = {}, std::uint64_t seed = 0) {
    constexpr const char* function = "quern::boosting::BoostedClassifier";
    if (classes < 1) throw ValueError(error_text(function, "classes", "at least 1", classes));
    std::vector<float> labels;
    for (const std::int32_t code : y) {
      expect_in_range(function, "y (codes of classes)", code, 0, classes - 1);
      labels.push_back(static_cast<float>(code));
    }
    Options options = options_;
    options.objective = classes > 2 ? "multi:softprob" : "binary:logistic";
    options.num_class = classes > 2 ? classes : 0;
    options.seed = seed;
    booster_.fit(std::move(options), x, std::move(labels), weights);
    classes_ = classes;
  }

  /// Probabilities (rows, classes).
  void predict_proba(MatrixView<const float> x, MatrixView<float> out) const {
    expect_shape("quern::boosting::BoostedClassifier", "out", out, {x.rows(), Index{classes_}});
    const NdArray<float, 2> p = booster_.get().predict(tree::make_dataset(x));
    for (Index i = 0; i < x.rows(); ++i) {
      for (Index c = 0; c < classes_ && classes_ > 2; ++c) out(i, c) = p(i, c);
      if (classes_ == 2) out(i, 1) = p(i, 0);
      if (classes_ <= 2) out(i, 0) = classes_ == 2 ? 1 - p(i, 0) : 1.0f;
    }
  }

  [[nodiscard]] const Booster& booster() const { return booster_.get(); }
  [[nodiscard]] std::int32_t classes() const noexcept { return classes_; }

  [[nodiscard]] static constexpr std::string_view kind() { return "boosting.classifier"; }
  void save(ArchiveWriter& out) const {
    out.scalar("classes", classes_);
    booster_.save(out);
  }
  void load(const ArchiveReader& in) {
    const auto classes = in.scalar<std::int32_t>("classes");
    detail::SharedBooster loaded;
    loaded.load(in, options_);
    if (classes < 1 || loaded.get().model().outputs != (classes > 2 ? classes : 1))
      in.fail_section("classes", "the number that the model is for", std::to_string(classes));
    booster_ = std::move(loaded);
    classes_ = classes;
  }

 private:
  Options options_;
  std::int32_t classes_ = 0;
  detail::SharedBooster booster_;
};
/// (A template, so that a program compiles it only where it uses it.)
using BoostedClassifier = BasicBoostedClassifier<>;

/// Numbers, by the options' objective.
template <class = void>
class BasicBoostedRegressor {
 public:
  explicit BasicBoostedRegressor(Options options = {}) : options_(std::move(options)) {}

  void fit(MatrixView<const float> x, std::span<const float> y, std::span<const float> weights = {},
           std::uint64_t seed = 0) {
    Options options = options_;
    options.seed = seed;
    booster_.fit(std::move(options), x, {y.begin(), y.end()}, weights);
  }
  /// Values (rows), the first output's where there are several.
  void predict(MatrixView<const float> x, std::span<float> out) const {
    expect_size("quern::boosting::BoostedRegressor", "out", static_cast<Index>(out.size()),
                x.rows(), "(the rows)");
    const NdArray<float, 2> p = booster_.get().predict(tree::make_dataset(x));
    for (Index i = 0; i < x.rows(); ++i) out[static_cast<std::size_t>(i)] = p(i, 0);
  }

  [[nodiscard]] const Booster& booster() const { return booster_.get(); }

  [[nodiscard]] static constexpr std::string_view kind() { return "boosting.regressor"; }
  void save(ArchiveWriter& out) const { booster_.save(out); }
  void load(const ArchiveReader& in) {
    detail::SharedBooster loaded;
    loaded.load(in, options_);
    booster_ = std::move(loaded);
  }

 private:
  Options options_;
  detail::SharedBooster booster_;
};
/// (A template, so that a program compiles it only where it uses it.)
using BoostedRegressor = BasicBoostedRegressor<>;

}  // namespace boosting
QUERN_NAMESPACE_END

#endif  // QUERN_BOOSTING_LEARNER_HPP
