// SPDX-License-Identifier: Apache-2.0

/// \file
/// Naive Bayes: features independent within a class, normal or multinomial.

#ifndef QUERN_ENSEMBLE_LEARNERS_NAIVE_BAYES_HPP
#define QUERN_ENSEMBLE_LEARNERS_NAIVE_BAYES_HPP

#include "quern/core/archive.hpp"
#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/parallel.hpp"
#include "quern/ensemble/detail/linear_map.hpp"
#include "quern/ensemble/learner.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace ensemble {

namespace detail {

/// A class without rows: its probability is 0.
inline constexpr double no_class = -1e300;

/// Logarithms of the classes' shares of the weight.
inline std::vector<double> log_priors(std::span<const double> weight_of_class) {
  double all = 0;
  for (const double w : weight_of_class) all += w;
  std::vector<double> out;
  for (const double w : weight_of_class) out.push_back(w > 0 ? std::log(w / all) : no_class);
  return out;
}

/// Log-likelihoods to probabilities.
inline void write_proba(std::vector<double> logs, Index row, MatrixView<float> out) {
  softmax(logs);
  for (Index c = 0; c < out.cols(); ++c)
    out(row, c) = static_cast<float>(logs[static_cast<std::size_t>(c)]);
}

}  // namespace detail

struct GaussianNaiveBayesOptions {
  double smoothing = 1e-9;  ///< >= 0: this share of the largest feature's variance is added to all
};

/// Each feature normally distributed within each class.
template <class = void>
class BasicGaussianNaiveBayes {
 public:
  explicit BasicGaussianNaiveBayes(GaussianNaiveBayesOptions options = {}) : options_(options) {
    expect_in_range(name, "smoothing", options.smoothing, 0.0,
                    (std::numeric_limits<double>::max)());
  }

  void fit(Features x, std::span<const std::int32_t> y, std::int32_t classes,
           std::span<const float> weights = {}, std::uint64_t /*seed*/ = 0) {
    detail::check_rows(name, x, y.size(), weights);
    detail::check_classes(name, {y, classes});
    detail::check_finite_features(name, x);
    // Class `classes` stands for all rows, whose largest variance is the measure of smoothing.
    Moments sums(x.cols(), classes + 1);
    const auto each = [&](auto&& add) {
      for (Index i = 0; i < x.rows(); ++i) {
        const double w = detail::weight_of(weights, static_cast<std::size_t>(i));
        for (const Index c : {Index{y[static_cast<std::size_t>(i)]}, Index{classes}}) add(i, c, w);
      }
    };
    each([&](Index i, Index c, double w) { sums.add_mean(x, i, c, w); });
    sums.divide(sums.mean);
    each([&](Index i, Index c, double w) { sums.add_variance(x, i, c, w); });
    sums.divide(sums.variance);
    keep(sums, classes);
  }

  void predict_proba(Features x, MatrixView<float> out) const {
    detail::check_fitted(name, x, mean_.extent(1));
    detail::check_finite_features(name, x);
    expect_shape(name, "out", out, {x.rows(), classes()});
    parallel_for(block_count(x.rows(), detail::row_block), [&](std::int64_t b) {
      const BlockRange rows = block_range(x.rows(), detail::row_block, b);
      for (Index i = rows.begin; i < rows.end; ++i)
        detail::write_proba(log_likelihoods(x, i), i, out);
    });
  }

  [[nodiscard]] std::int32_t classes() const noexcept {
    return static_cast<std::int32_t>(mean_.extent(0));
  }
  /// (classes, features)
  [[nodiscard]] MatrixView<const double> means() const noexcept { return mean_.view(); }
  [[nodiscard]] MatrixView<const double> variances() const noexcept { return variance_.view(); }

  static constexpr std::string_view kind() { return "ensemble.gaussian_naive_bayes"; }
  void save(ArchiveWriter& out) const {
    out.array("priors", prior_);
    for (const auto& [title, of] : {std::pair{"means", &mean_}, {"variances", &variance_}})
      out.array(title, std::span<const double>(of->data(), static_cast<std::size_t>(of->size())));
  }
  void load(const ArchiveReader& in) {
    BasicGaussianNaiveBayes loaded(options_);
    loaded.prior_ = in.array<double>("priors");
    const std::size_t classes = loaded.prior_.size(), all = in.count("means");
    if (classes == 0 ? all != 0 : all % classes != 0)
      in.fail_section("means", "a multiple of the classes", std::to_string(all));
    const std::size_t features = classes == 0 ? 0 : all / classes;
    for (const auto& [title, to] :
         {std::pair{"means", &loaded.mean_}, {"variances", &loaded.variance_}}) {
      *to = NdArray<double, 2>({static_cast<Index>(classes), static_cast<Index>(features)});
      in.array_into(title, std::span<double>(to->data(), all));
    }
    for (const double v : loaded.variance_)
      if (!(v > 0)) in.fail_section("variances", "numbers above 0", std::to_string(v));
    loaded.find_constants();
    *this = std::move(loaded);
  }

 private:
  static constexpr std::string_view name = "quern::ensemble::GaussianNaiveBayes";

  /// Means and variances of each class, in two passes.
  struct Moments {
    NdArray<double, 2> mean, variance;
    std::vector<double> weight;

    Moments(Index features, Index classes)
        : mean({classes, features}),
          variance({classes, features}),
          weight(static_cast<std::size_t>(classes)) {}
    void add_mean(Features x, Index i, Index c, double w) {
      weight[static_cast<std::size_t>(c)] += w;
      for (Index f = 0; f < x.cols(); ++f) mean(c, f) += w * static_cast<double>(x(i, f));
    }
    void add_variance(Features x, Index i, Index c, double w) {
      for (Index f = 0; f < x.cols(); ++f) {
        const double d = static_cast<double>(x(i, f)) - mean(c, f);
        variance(c, f) += w * d * d;
      }
    }
    void divide(NdArray<double, 2>& of) const {
      for (Index c = 0; c < of.extent(0); ++c) {
        const double w = weight[static_cast<std::size_t>(c)];
        for (Index f = 0; f < of.extent(1) && w > 0; ++f) of(c, f) /= w;
      }
    }
  };

  void keep(const Moments& sums, Index classes) {
    const Index features = sums.mean.extent(1);
    double largest = 0;
    for (Index f = 0; f < features; ++f) largest = (std::max)(largest, sums.variance(classes, f));
    // Features that are all constant still need a variance to divide by.
    const double added = (std::max)(options_.smoothing * largest, 1e-30);
    prior_ = detail::log_priors(
        std::span<const double>(sums.weight).first(static_cast<std::size_t>(classes)));
    mean_ = NdArray<double, 2>({classes, features});
    variance_ = NdArray<double, 2>({classes, features});
    for (Index c = 0; c < classes; ++c) {
      for (Index f = 0; f < features; ++f) {
        mean_(c, f) = sums.mean(c, f);
        variance_(c, f) = sums.variance(c, f) + added;
      }
    }
    find_constants();
  }

  void find_constants() {
    constant_ = prior_;
    for (Index c = 0; c < mean_.extent(0); ++c)
      for (Index f = 0; f < mean_.extent(1); ++f)
        constant_[static_cast<std::size_t>(c)] -=
            0.5 * std::log(2 * 3.14159265358979323846 * variance_(c, f));
  }

  [[nodiscard]] std::vector<double> log_likelihoods(Features x, Index i) const {
    std::vector<double> logs = constant_;
    for (Index c = 0; c < mean_.extent(0); ++c) {
      double squares = 0;
      for (Index f = 0; f < x.cols(); ++f) {
        const double d = static_cast<double>(x(i, f)) - mean_(c, f);
        squares += d * d / variance_(c, f);
      }
      logs[static_cast<std::size_t>(c)] -= 0.5 * squares;
    }
    return logs;
  }

  GaussianNaiveBayesOptions options_;
  NdArray<double, 2> mean_, variance_;    // (classes, features)
  std::vector<double> prior_, constant_;  // (classes): logarithms
};
/// (A template, so that a program compiles it only where it uses it.)
using GaussianNaiveBayes = BasicGaussianNaiveBayes<>;

struct MultinomialNaiveBayesOptions {
  double alpha = 1;  ///< > 0: added to every count (Laplace's smoothing)
};

/// Features are counts of a draw of words: >= 0, any scale.
template <class = void>
class BasicMultinomialNaiveBayes {
 public:
  explicit BasicMultinomialNaiveBayes(MultinomialNaiveBayesOptions options = {})
      : options_(options) {
    expect_in_range(name, "alpha", options.alpha, 1e-10, (std::numeric_limits<double>::max)());
  }

  void fit(Features x, std::span<const std::int32_t> y, std::int32_t classes,
           std::span<const float> weights = {}, std::uint64_t /*seed*/ = 0) {
    detail::check_rows(name, x, y.size(), weights);
    detail::check_classes(name, {y, classes});
    detail::check_finite_features(name, x);
    detail::LinearMap map(x.cols(), classes);
    std::vector<double> weight(static_cast<std::size_t>(classes));
    for (Index i = 0; i < x.rows(); ++i) {
      const double w = detail::weight_of(weights, static_cast<std::size_t>(i));
      const Index c = y[static_cast<std::size_t>(i)];
      weight[static_cast<std::size_t>(c)] += w;
      for (Index f = 0; f < x.cols(); ++f) {
        if (x(i, f) < 0) throw ValueError(error_text(name, "x", "counts >= 0", x(i, f)));
        map.weights(f, c) += w * static_cast<double>(x(i, f));
      }
    }
    for (Index c = 0; c < classes; ++c) {
      double all = 0;
      for (Index f = 0; f < x.cols(); ++f) all += map.weights(f, c) += options_.alpha;
      for (Index f = 0; f < x.cols(); ++f) map.weights(f, c) = std::log(map.weights(f, c) / all);
    }
    map.intercepts = detail::log_priors(weight);
    map_ = std::move(map);
  }

  void predict_proba(Features x, MatrixView<float> out) const {
    expect_shape(name, "out", out, {x.rows(), map_.outputs()});
    map_.for_each_row(name, x, [&](Index i, std::span<const double> logs) {
      detail::write_proba({logs.begin(), logs.end()}, i, out);
    });
  }

  [[nodiscard]] std::int32_t classes() const noexcept {
    return static_cast<std::int32_t>(map_.outputs());
  }
  /// (features, classes): logarithms of the features' shares.
  [[nodiscard]] MatrixView<const double> log_shares() const noexcept { return map_.weights.view(); }

  static constexpr std::string_view kind() { return "ensemble.multinomial_naive_bayes"; }
  void save(ArchiveWriter& out) const { map_.save(out); }
  void load(const ArchiveReader& in) { map_.load(in); }

 private:
  static constexpr std::string_view name = "quern::ensemble::MultinomialNaiveBayes";

  MultinomialNaiveBayesOptions options_;
  detail::LinearMap map_;
};
/// (A template, so that a program compiles it only where it uses it.)
using MultinomialNaiveBayes = BasicMultinomialNaiveBayes<>;

}  // namespace ensemble
QUERN_NAMESPACE_END

#endif  // QUERN_ENSEMBLE_LEARNERS_NAIVE_BAYES_HPP
