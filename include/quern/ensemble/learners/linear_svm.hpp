// SPDX-License-Identifier: Apache-2.0

/// \file
/// Linear support-vector machine by dual coordinate descent.
///
/// C.-J. Hsieh, K.-W. Chang, C.-J. Lin, S. S. Keerthi, S. Sundararajan, "A dual coordinate descent
/// method for large-scale linear SVM", ICML 2008, algorithm 1 (without shrinking).

#ifndef QUERN_ENSEMBLE_LEARNERS_LINEAR_SVM_HPP
#define QUERN_ENSEMBLE_LEARNERS_LINEAR_SVM_HPP

#include "quern/core/archive.hpp"
#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/parallel.hpp"
#include "quern/core/random.hpp"
#include "quern/ensemble/detail/linear_map.hpp"
#include "quern/ensemble/learner.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace ensemble {

enum class SvmLoss : std::uint8_t {
  hinge,         ///< max(0, 1 - margin)
  squared_hinge  ///< its square
};

struct LinearSvmOptions {
  SvmLoss loss = SvmLoss::squared_hinge;
  double c = 1;  ///< > 0: factor of the losses against half the squared length of the weights
  double tolerance = 1e-4;  ///< of the dual's projected gradient: largest less smallest in a sweep
  std::int32_t max_iterations = 1000;  ///< sweeps over the rows
};

namespace detail {

/// One machine: rows of one class against all others.
template <class = void>
class BasicSvmDual {
 public:
  /// \p rows (rows, features) and a constant 1 behind each: the intercept is a weight like others.
  BasicSvmDual(MatrixView<const float> rows, std::span<const std::int8_t> signs,
               std::span<const float> weights, const LinearSvmOptions& options)
      : rows_(rows), signs_(signs), options_(options) {
    const std::size_t n = signs.size();
    for (std::size_t i = 0; i < n; ++i) {
      const double c = options.c * weight_of(weights, i);
      if (c == 0) continue;  // a row that is not there
      const bool squared = options.loss == SvmLoss::squared_hinge;
      const double diagonal = squared ? 0.5 / c : 0.0;
      members_.push_back({i, diagonal, squared ? (std::numeric_limits<double>::max)() : c,
                          norm(row(i)) + diagonal, 0.0});
    }
    w_.resize(static_cast<std::size_t>(rows.cols()) + 1);
  }

  /// The weights, the intercept last.
  std::vector<double> solve(std::uint64_t seed, std::uint64_t stream) {
    Philox rng(seed, "linear svm", stream);
    for (std::int32_t sweep = 0; sweep < options_.max_iterations; ++sweep) {
      rng.shuffle(members_);
      double most = -(std::numeric_limits<double>::max)(), least = -most;
      for (Member& m : members_) {
        const double projected = step(m);
        most = (std::max)(most, projected);
        least = (std::min)(least, projected);
      }
      if (most - least <= options_.tolerance) break;
    }
    return w_;
  }

 private:
  struct Member {
    std::size_t row;
    double diagonal, upper, curvature, alpha;
  };

  [[nodiscard]] std::span<const float> row(std::size_t i) const {
    return {rows_.data() + static_cast<Index>(i) * rows_.cols(),
            static_cast<std::size_t>(rows_.cols())};
  }
  static double norm(std::span<const float> x) {
    double sum = 1;
    for (const float v : x) sum += static_cast<double>(v) * static_cast<double>(v);
    return sum;
  }
  /// Four sums, so that additions need not wait for each other.
  [[nodiscard]] double score(std::span<const float> x) const {
    double s0 = w_[x.size()], s1 = 0, s2 = 0, s3 = 0;
    std::size_t f = 0;
    for (; f + 4 <= x.size(); f += 4) {
      s0 += w_[f] * static_cast<double>(x[f]);
      s1 += w_[f + 1] * static_cast<double>(x[f + 1]);
      s2 += w_[f + 2] * static_cast<double>(x[f + 2]);
      s3 += w_[f + 3] * static_cast<double>(x[f + 3]);
    }
    for (; f < x.size(); ++f) s0 += w_[f] * static_cast<double>(x[f]);
    return (s0 + s1) + (s2 + s3);
  }

  /// Minimises the dual along one row's variable; returns the projected gradient there.
  double step(Member& m) {
    const std::span<const float> x = row(m.row);
    const double sign = signs_[m.row];
    const double gradient = sign * score(x) - 1 + m.diagonal * m.alpha;
    double projected = gradient;
    if (m.alpha <= 0) projected = (std::min)(gradient, 0.0);
    if (m.alpha >= m.upper) projected = (std::max)(gradient, 0.0);
    if (std::abs(projected) < 1e-14) return projected;
    const double before = m.alpha;
    m.alpha = (std::clamp)(before - gradient / m.curvature, 0.0, m.upper);
    const double change = sign * (m.alpha - before);
    for (std::size_t f = 0; f < x.size(); ++f) w_[f] += change * static_cast<double>(x[f]);
    w_[x.size()] += change;
    return projected;
  }

  MatrixView<const float> rows_;
  std::span<const std::int8_t> signs_;
  const LinearSvmOptions& options_;
  std::vector<Member> members_;
  std::vector<double> w_;
};
/// (A template, so that a program compiles it only where it uses it.)
using SvmDual = BasicSvmDual<>;

}  // namespace detail

/// Minimises |(a, b)|^2 / 2 + c sum_i w_i loss(+-(x_i . a + b)); the intercept b is penalised as
/// liblinear does it. Many classes: each against the others. Scale the features first.
template <class = void>
class BasicLinearSvm {
 public:
  explicit BasicLinearSvm(LinearSvmOptions options = {}) : options_(options) {
    constexpr double most = (std::numeric_limits<double>::max)();
    expect_in_range(name, "c", options.c, (std::numeric_limits<double>::min)(), most);
    expect_in_range(name, "tolerance", options.tolerance, 0.0, most);
    expect_in_range(name, "max_iterations", options.max_iterations, 0, 1 << 30);
  }

  void fit(Features x, std::span<const std::int32_t> y, std::int32_t classes,
           std::span<const float> weights = {}, std::uint64_t seed = 0) {
    detail::check_rows(name, x, y.size(), weights);
    detail::check_classes(name, {y, classes});
    detail::check_finite_features(name, x);
    const NdArray<float, 2> rows(x);  // rows in one piece each
    detail::LinearMap map(x.cols(), classes == 2 ? 1 : classes);
    parallel_for(map.outputs(), [&](std::int64_t machine) {
      const std::int64_t own = classes == 2 ? 1 : machine;
      std::vector<std::int8_t> signs;
      for (const std::int32_t code : y) signs.push_back(code == own ? 1 : -1);
      const std::vector<double> w = detail::SvmDual(rows.view(), signs, weights, options_)
                                        .solve(seed, static_cast<std::uint64_t>(machine));
      for (Index f = 0; f < x.cols(); ++f) map.weights(f, machine) = w[static_cast<std::size_t>(f)];
      map.intercepts[static_cast<std::size_t>(machine)] = w.back();
    });
    map_ = std::move(map);
    classes_ = classes;
  }

  void predict(Features x, std::span<std::int32_t> out) const {
    expect_size(name, "out", static_cast<Index>(out.size()), x.rows(), "(the rows)");
    map_.for_each_row(name, x, [&](Index i, std::span<const double> s) {
      const auto best = classes_ == 2 ? s[0] > 0 : std::max_element(s.begin(), s.end()) - s.begin();
      out[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(best);
    });
  }

  /// Distances from the boundaries, in units of the margin: (rows, classes), of two classes
  /// (rows, 1), that of class 1.
  [[nodiscard]] NdArray<double, 2> decision(Features x) const {
    NdArray<double, 2> out({x.rows(), map_.outputs()});
    map_.for_each_row(name, x, [&](Index i, std::span<const double> s) {
      std::copy(s.begin(), s.end(), out.data() + i * map_.outputs());
    });
    return out;
  }

  [[nodiscard]] std::int32_t classes() const noexcept { return classes_; }

  static constexpr std::string_view kind() { return "ensemble.linear_svm"; }
  void save(ArchiveWriter& out) const { detail::save_class_map(out, map_, classes_); }
  void load(const ArchiveReader& in) { detail::load_class_map(in, map_, classes_); }

 private:
  static constexpr std::string_view name = "quern::ensemble::LinearSvm";

  LinearSvmOptions options_;
  std::int32_t classes_ = 0;
  detail::LinearMap map_;
};
/// (A template, so that a program compiles it only where it uses it.)
using LinearSvm = BasicLinearSvm<>;

}  // namespace ensemble
QUERN_NAMESPACE_END

#endif  // QUERN_ENSEMBLE_LEARNERS_LINEAR_SVM_HPP
