// SPDX-License-Identifier: Apache-2.0

/// \file
/// Why a model predicts what it predicts: Shapley values of its features and of their pairs.

#ifndef QUERN_BOOSTING_EXPLAIN_HPP
#define QUERN_BOOSTING_EXPLAIN_HPP

#include "quern/boosting/model.hpp"
#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/tree/dataset.hpp"
#include "quern/tree/shap.hpp"

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace boosting {

namespace detail {

/// use(row, column, value) for every value that is not missing.
template <class T, class Use>
void for_each_value(const MatrixView<const T>& x, const Use& use) {
  for (Index r = 0; r < x.rows(); ++r) {
    for (Index f = 0; f < x.cols(); ++f)
      if (!is_nan_bits(x(r, f))) use(r, f, x(r, f));
  }
}
template <class T, class Use>
void for_each_value(const tree::CsrView<T>& x, const Use& use) {
  for (std::int64_t r = 0; r < x.rows(); ++r) {
    const std::int64_t end = x.row_offsets[static_cast<std::size_t>(r) + 1];
    for (std::int64_t i = x.row_offsets[static_cast<std::size_t>(r)]; i < end; ++i) {
      const auto at = static_cast<std::size_t>(i);
      if (!is_nan_bits(x.values[at])) use(r, std::int64_t{x.columns[at]}, x.values[at]);
    }
  }
}

}  // namespace detail

struct ExplainOptions {
  std::int64_t rounds = -1;  ///< only the first so many rounds; -1: the best, else all
  int threads = 0;           ///< 0: the default number
};

/// Explains a model as it was when this was made; the model itself is not kept. Const and
/// thread-safe.
///
///     const quern::boosting::Explainer explainer(model);
///     quern::NdArray<double, 3> shap({x.rows(), explainer.outputs(), explainer.features() + 1});
///     explainer.shap_values(quern::view(x), shap.view());
///
/// Values are in margin space, in double, and have the same bits in any batch and for any number
/// of threads; each row sums to the margin. They equal `pred_contribs` of XGBoost and LightGBM.
template <class = void>
class BasicExplainer {
 public:
  /// Throws what Model::check throws, and ValueError for a tree that is deeper than 1024, tests
  /// more than 256 features on a path or has linear leaves.
  explicit BasicExplainer(const Model& model)
      : rounds_(model.rounds()),
        used_rounds_(model.used_rounds()),
        trees_per_round_(model.trees_per_round()),
        linear_weights_(model.linear_weights) {
    model.check("quern::boosting::Explainer");
    forest_ = tree::ShapForest(forest_source(model));
  }

  [[nodiscard]] std::int64_t features() const noexcept { return forest_.features; }
  [[nodiscard]] std::int64_t outputs() const noexcept { return forest_.outputs(); }
  [[nodiscard]] std::int64_t rounds() const noexcept { return rounds_; }

  /// out(r, k, f) = what feature f adds to margin k of row r, out(r, k, features) = the mean margin
  /// of the training rows, by the trees' covers. \p features: (rows, features), dense in any order
  /// or CSR, NaN is missing; \p out: (rows, outputs, features + 1). ShapeError where shapes do not
  /// fit, ValueError for rounds that the model does not have.
  void shap_values(const tree::FeatureView& features, NdView<double, 3> out,
                   const ExplainOptions& options = {}) const {
    if (!linear_weights_.empty()) return linear_values(features, out);
    tree::shap_values(forest_, features, out,
                      {.trees = trees_of(options.rounds), .threads = options.threads});
  }

  /// out(r, k, f, g), f != g: half of the interaction of features f and g (the matrix is
  /// symmetric); out(r, k, f, f): the rest of f's own value, so that a row of the matrix sums to
  /// it; the last row and column hold only the mean, in the corner. \p out: (rows, outputs,
  /// features + 1, features + 1). Errors as shap_values().
  void shap_interactions(const tree::FeatureView& features, NdView<double, 4> out,
                         const ExplainOptions& options = {}) const {
    if (!linear_weights_.empty()) return linear_interactions(features, out);
    tree::shap_interactions(forest_, features, out,
                            {.trees = trees_of(options.rounds), .threads = options.threads});
  }

 private:
  /// A linear model adds w x for each feature that is there: to the mean of a model without data,
  /// which is its bias.
  void linear_values(const tree::FeatureView& features, NdView<double, 3> out) const {
    static constexpr const char* function = "quern::boosting::Explainer::shap_values";
    const Shape<3> shape = {
        std::visit([](const auto& x) { return tree::detail::rows_of(x); }, features), outputs(),
        this->features() + 1};
    const std::int64_t cols =
        std::visit([](const auto& x) { return tree::detail::cols_of(x); }, features);
    if (cols != this->features())
      throw ShapeError(
          error_text(function, "features", std::to_string(this->features()) + " columns", cols));
    expect_shape(function, "out", out, shape);
    const auto weight = [&](std::int64_t f, std::int64_t k) {
      return linear_weights_[static_cast<std::size_t>(f * outputs() + k)];
    };
    for (Index r = 0; r < out.extent(0); ++r) {
      for (Index k = 0; k < out.extent(1); ++k) {
        for (Index f = 0; f < cols; ++f) out(r, k, f) = 0;
        out(r, k, cols) = forest_.base[static_cast<std::size_t>(k)] + weight(cols, k);
      }
    }
    std::visit(
        [&](const auto& x) {
          tree::detail::check_features(function, x);
          detail::for_each_value(x, [&](std::int64_t r, std::int64_t f, auto value) {
            const double v = forest_.compares_doubles()
                                 ? static_cast<double>(value)
                                 : static_cast<double>(static_cast<float>(value));
            for (Index k = 0; k < out.extent(1); ++k) out(r, k, f) = weight(f, k) * v;
          });
        },
        features);
  }

  void linear_interactions(const tree::FeatureView& features, NdView<double, 4> out) const {
    const std::int64_t n = this->features() + 1;
    expect_shape("quern::boosting::Explainer::shap_interactions", "out", out,
                 {out.extent(0), outputs(), n, n});
    for (Index r = 0; r < out.extent(0); ++r)
      for (Index k = 0; k < out.extent(1); ++k)
        for (Index f = 0; f < n; ++f)
          for (Index g = 0; g < n; ++g) out(r, k, f, g) = 0;
    linear_values(features,
                  NdView<double, 3>(out.data(), {out.extent(0), out.extent(1), n},
                                    {out.stride(0), out.stride(1), out.stride(2) + out.stride(3)}));
  }

  [[nodiscard]] std::int64_t trees_of(std::int64_t rounds) const {
    if (rounds < -1 || rounds > rounds_)
      throw ValueError(error_text("quern::boosting::Explainer", "rounds",
                                  "-1 or 0.." + std::to_string(rounds_), rounds));
    return (rounds < 0 ? used_rounds_ : rounds) * trees_per_round_;
  }

  std::int64_t rounds_ = 0;
  std::int64_t used_rounds_ = 0;
  std::int64_t trees_per_round_ = 1;
  std::vector<double> linear_weights_;  ///< (features + 1, outputs), or empty: trees
  tree::ShapForest forest_;
};
/// (A template, so that a program compiles it only where it uses it.)
using Explainer = BasicExplainer<>;

/// Shapley values of a model that is explained once; see Explainer.
template <class = void>
inline void shap_values(const Model& model, const tree::FeatureView& features,
                        NdView<double, 3> out, const ExplainOptions& options = {}) {
  Explainer(model).shap_values(features, out, options);
}
template <class = void>
inline void shap_values(const Explainer& explainer, const tree::FeatureView& features,
                        NdView<double, 3> out, const ExplainOptions& options = {}) {
  explainer.shap_values(features, out, options);
}

/// Interaction values of a model that is explained once; see Explainer.
template <class = void>
inline void shap_interactions(const Model& model, const tree::FeatureView& features,
                              NdView<double, 4> out, const ExplainOptions& options = {}) {
  Explainer(model).shap_interactions(features, out, options);
}
template <class = void>
inline void shap_interactions(const Explainer& explainer, const tree::FeatureView& features,
                              NdView<double, 4> out, const ExplainOptions& options = {}) {
  explainer.shap_interactions(features, out, options);
}

}  // namespace boosting
QUERN_NAMESPACE_END

#endif  // QUERN_BOOSTING_EXPLAIN_HPP
