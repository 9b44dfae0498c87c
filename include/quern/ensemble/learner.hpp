// SPDX-License-Identifier: Apache-2.0

/// \file
/// What a learner is: a few functions, no base class. Whatever has them can be bagged, boosted,
/// voted with and stacked: trees, forests, the learners of ensemble/learners, a type of the user's.

#ifndef QUERN_ENSEMBLE_LEARNER_HPP
#define QUERN_ENSEMBLE_LEARNER_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace ensemble {

/// (rows, features) in either order. Features are floats, as in the trees; sums over them are
/// doubles inside of the learners.
using Features = MatrixView<const float>;

/// Learns numbers. `fit` learns from targets (rows), weights (rows, >= 0, not all 0; empty: all 1)
/// and a seed for what is random in it, and forgets what it had learnt before. A row of weight 2 is
/// to count as two rows, a row of weight 0 as none. `predict` is const, overwrites (rows) values
/// and may be called from several threads at once.
template <class L>
concept Regressor = std::copyable<L> &&
    requires(L learner, const L& fitted, Features x, std::span<const float> column,
             std::uint64_t seed, std::span<float> out) {
  learner.fit(x, column, column, seed);
  fitted.predict(x, out);
};

/// Tells each row's class, (rows).
template <class L>
concept PredictsClasses = requires(const L& fitted, Features x, std::span<std::int32_t> out) {
  fitted.predict(x, out);
};
/// Tells each row's probability of each class, (rows, classes).
template <class L>
concept PredictsProbabilities = requires(const L& fitted, Features x, MatrixView<float> out) {
  fitted.predict_proba(x, out);
};

/// Learns classes 0..classes-1 (ClassLabels makes such of other labels). `fit` as a Regressor's;
/// it is told the number of classes, since a sample of the rows may lack some. It predicts classes,
/// probabilities or both.
template <class L>
concept Classifier = std::copyable<L> &&
    requires(L learner, Features x, std::span<const std::int32_t> y, std::int32_t classes,
             std::span<const float> weights, std::uint64_t seed) {
  learner.fit(x, y, classes, weights, seed);
} &&(PredictsClasses<L> || PredictsProbabilities<L>);

/// The classes of rows: codes 0..count-1.
struct Classes {
  std::span<const std::int32_t> codes;
  std::int32_t count = 0;

  [[nodiscard]] std::size_t size() const noexcept { return codes.size(); }
};

/// Labels that are any integers, and their codes 0..count()-1 in the order of the labels.
class ClassLabels {
 public:
  ClassLabels() = default;
  /// Learns the labels that occur; ValueError when there is none, or one of 2^63 or more.
  template <std::integral Label>
  explicit ClassLabels(std::span<const Label> labels) {
    constexpr std::string_view name = "quern::ensemble::ClassLabels";
    if (labels.empty()) throw ValueError(error_text(name, "labels", "at least one", 0));
    for (const Label label : labels) {
      if (!fits(label)) throw ValueError(error_text(name, "labels", "integers below 2^63", +label));
      labels_.push_back(static_cast<std::int64_t>(label));
    }
    std::sort(labels_.begin(), labels_.end());
    labels_.erase(std::unique(labels_.begin(), labels_.end()), labels_.end());
    codes_ = encode(labels);
  }
  template <std::integral Label>
  explicit ClassLabels(const std::vector<Label>& labels)
      : ClassLabels(std::span<const Label>(labels)) {}

  /// Of the labels that it was made from.
  [[nodiscard]] Classes classes() const noexcept { return {codes_, count()}; }
  [[nodiscard]] std::int32_t count() const noexcept {
    return static_cast<std::int32_t>(labels_.size());
  }
  /// The label of a code.
  [[nodiscard]] std::int64_t label(std::int32_t code) const {
    expect_in_range("quern::ensemble::ClassLabels::label", "code", code, 0, count() - 1);
    return labels_[static_cast<std::size_t>(code)];
  }

  /// Codes of other rows' labels; ValueError for a label that did not occur.
  template <std::integral Label>
  [[nodiscard]] std::vector<std::int32_t> encode(std::span<const Label> labels) const {
    std::vector<std::int32_t> codes;
    codes.reserve(labels.size());
    for (const Label label : labels) {
      const auto wanted = static_cast<std::int64_t>(label);
      const auto at = std::lower_bound(labels_.begin(), labels_.end(), wanted);
      if (!fits(label) || at == labels_.end() || *at != wanted)
        throw ValueError(error_text("quern::ensemble::ClassLabels::encode", "labels",
                                    "labels that were learnt", +label));
      codes.push_back(static_cast<std::int32_t>(at - labels_.begin()));
    }
    return codes;
  }
  template <std::integral Label>
  [[nodiscard]] std::vector<std::int32_t> encode(const std::vector<Label>& labels) const {
    return encode(std::span<const Label>(labels));
  }

 private:
  template <std::integral Label>
  static constexpr bool fits(Label label) noexcept {
    return label <= Label{0} || static_cast<std::uint64_t>(label) < (std::uint64_t{1} << 63);
  }

  std::vector<std::int64_t> labels_;
  std::vector<std::int32_t> codes_;
};

/// The class with the most of a row's scores; the lowest on a tie.
inline void most_likely(MatrixView<const float> scores, std::span<std::int32_t> out) {
  expect_size("quern::ensemble::most_likely", "out", static_cast<Index>(out.size()), scores.rows(),
              "(the rows)");
  for (Index i = 0; i < scores.rows(); ++i) {
    Index best = 0;
    for (Index c = 1; c < scores.cols(); ++c)
      if (scores(i, c) > scores(i, best)) best = c;
    out[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(best);
  }
}

/// Each row's class, whatever the learner tells.
template <Classifier L>
[[nodiscard]] std::vector<std::int32_t> predict_classes(const L& fitted, Features x,
                                                        std::int32_t classes) {
  std::vector<std::int32_t> out(static_cast<std::size_t>(x.rows()));
  if constexpr (PredictsClasses<L>) {
    fitted.predict(x, std::span<std::int32_t>(out));
  } else {
    NdArray<float, 2> scores({x.rows(), Index{classes}});
    fitted.predict_proba(x, scores.view());
    most_likely(scores.view(), out);
  }
  return out;
}

/// Probabilities (rows, classes), 1 for the predicted class where the learner knows no more.
/// ShapeError where out has other rows than x, or other classes than the learner.
template <Classifier L>
void predict_scores(const L& fitted, Features x, MatrixView<float> out) {
  if constexpr (PredictsProbabilities<L>) {
    fitted.predict_proba(x, out);
  } else {
    constexpr std::string_view function = "quern::ensemble::predict_scores";
    expect_size(function, "out", out.rows(), x.rows(), "rows");
    std::vector<std::int32_t> classes(static_cast<std::size_t>(x.rows()));
    fitted.predict(x, std::span<std::int32_t>(classes));
    if constexpr (requires { Index{fitted.classes()}; })
      expect_size(function, "out", out.cols(), Index{fitted.classes()}, "columns (the classes)");
    for (const std::int32_t c : classes) {
      if (c < 0 || c >= out.cols())
        throw ShapeError(
            error_text(function, "out", "a column for class " + std::to_string(c), out.cols()));
    }
    for (Index i = 0; i < out.rows(); ++i)
      for (Index c = 0; c < out.cols(); ++c)
        out(i, c) = classes[static_cast<std::size_t>(i)] == c ? 1.0f : 0.0f;
  }
}
template <Classifier L>
[[nodiscard]] NdArray<float, 2> predict_proba(const L& fitted, Features x, std::int32_t classes) {
  NdArray<float, 2> out({x.rows(), Index{classes}});
  predict_scores(fitted, x, out.view());
  return out;
}

/// Each row's value.
template <Regressor L>
[[nodiscard]] std::vector<float> predict_values(const L& fitted, Features x) {
  std::vector<float> out(static_cast<std::size_t>(x.rows()));
  fitted.predict(x, std::span<float>(out));
  return out;
}

namespace detail {

/// Throws unless there are rows and columns, a target for each row, and weights (none, or one for
/// each row) that are finite, >= 0 and not all 0.
inline void check_rows(std::string_view function, Features x, std::size_t targets,
                       std::span<const float> weights) {
  if (x.rows() == 0) throw ShapeError(error_text(function, "x", "at least one row", 0));
  if (x.cols() == 0) throw ShapeError(error_text(function, "x", "at least one column", 0));
  expect_size(function, "y", static_cast<Index>(targets), x.rows(), "(the rows)");
  if (weights.empty()) return;
  expect_size(function, "weights", static_cast<Index>(weights.size()), x.rows(), "(the rows)");
  bool some = false;
  for (const float w : weights) {
    if (!is_finite_bits(w) || w < 0)
      throw ValueError(error_text(function, "weights", "finite numbers >= 0", w));
    some = some || w > 0;
  }
  if (!some) throw ValueError(error_text(function, "weights", "at least one above 0", "none"));
}

inline void check_classes(std::string_view function, Classes y) {
  if (y.count < 1) throw ValueError(error_text(function, "classes", "at least 1", y.count));
  for (const std::int32_t code : y.codes)
    expect_in_range(function, "y (codes of classes)", code, 0, y.count - 1);
}

/// For learners that have no notion of a missing value.
inline void check_finite_features(std::string_view function, Features x) {
  for (Index i = 0; i < x.rows(); ++i) {
    for (Index f = 0; f < x.cols(); ++f) {
      if (is_finite_bits(x(i, f))) continue;
      throw ValueError(error_text(
          function, "x(" + std::to_string(i) + ", " + std::to_string(f) + ")", "a finite number",
          is_nan_bits(x(i, f)) ? "NaN (missing values are for trees)" : "infinity"));
    }
  }
}

inline void check_targets(std::string_view function, std::span<const float> y) {
  for (const float v : y) expect_finite(function, "y", v);
}

inline double weight_of(std::span<const float> weights, std::size_t row) {
  return weights.empty() ? 1.0 : static_cast<double>(weights[row]);
}

}  // namespace detail

}  // namespace ensemble
QUERN_NAMESPACE_END

#endif  // QUERN_ENSEMBLE_LEARNER_HPP
