// SPDX-License-Identifier: Apache-2.0

/// \file
/// Feature maps of linear attention: what stands for the exponential of a score, phi(q) . phi(k).
/// Those that are known by name, and those of the user, called on whole blocks of rows.
///
/// A. Katharopoulos et al., "Transformers are RNNs", ICML 2020 (elu + 1); S. Zhang et al., "The
/// hedgehog and the porcupine", ICLR 2024 (exp and softmax of features).

#ifndef QUERN_ATTENTION_FEATURE_MAP_HPP
#define QUERN_ATTENTION_FEATURE_MAP_HPP

#include "quern/core/buffer.hpp"
#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/kernels/activation_types.hpp"
#include "quern/kernels/feature_map_types.hpp"
#include "quern/kernels/functors.hpp"
#include "quern/kernels/kernels.hpp"

#include <algorithm>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <utility>

QUERN_NAMESPACE_BEGIN
namespace attention {

/// phi: rows of `dim` numbers to rows of features(dim) numbers.
///
/// A map may leave out a factor e^scale of a row that would overflow, and say what it left out: the
/// features are then values * e^scale. For queries it cancels in the normaliser; for keys attention
/// keeps a running maximum of scales and states relative to it, so it cancels exactly too, and
/// without a look at later keys. Without a normaliser nothing cancels: attention refuses such maps.
template <class T>
class FeatureMap {
 public:
  virtual ~FeatureMap() = default;
  [[nodiscard]] virtual Index features(Index dim) const { return dim; }
  /// Whether features are never negative, so that a sum of them can normalise.
  [[nodiscard]] virtual bool non_negative() const { return true; }
  /// Whether each feature depends on the input of its own place alone.
  [[nodiscard]] virtual bool elementwise() const { return false; }
  /// Whether rows have scales.
  [[nodiscard]] virtual bool scaled() const { return false; }
  /// phi (rows x features) of x (rows x dim); rows are contiguous in both. `scales`, one a row, is
  /// null where scaled() is false.
  virtual void apply(MatrixView<const T> x, MatrixView<T> phi, T* scales) const = 0;
  /// Whether vjp() looks at phi; where not it may be given anything.
  [[nodiscard]] virtual bool vjp_reads_features() const { return true; }
  /// dx = gradient by x, given that by the features as apply() returned them (a scale counts as
  /// constant, for what it changes cancels). Elements of rows are adjacent.
  virtual void vjp(MatrixView<const T> x, MatrixView<const T> phi, MatrixView<const T> dphi,
                   MatrixView<T> dx) const = 0;
};

/// Feature maps that have names.
enum class Feature {
  identity,  ///< x: no normaliser unless all are known to be non-negative
  elu1,      ///< elu(x) + 1
  relu,      ///< max(x, 0)
  relu2,     ///< max(x, 0)^2
  softplus,  ///< log(1 + e^x)
  exp,       ///< e^x, its row's largest taken out: only with a normaliser, where it cancels
  softmax    ///< softmax over the row's features
};

/// A map by name.
template <class T>
class NamedFeature final : public FeatureMap<T> {
 public:
  explicit NamedFeature(Feature name) : name_(name) {}

  [[nodiscard]] bool non_negative() const override { return name_ != Feature::identity; }
  [[nodiscard]] bool elementwise() const override {
    return name_ != Feature::exp && name_ != Feature::softmax;
  }
  [[nodiscard]] bool scaled() const override { return name_ == Feature::exp; }
  [[nodiscard]] bool vjp_reads_features() const override { return !elementwise(); }

  void apply(MatrixView<const T> x, MatrixView<T> phi, T* scales) const override {
    const auto n = static_cast<std::size_t>(x.cols());
    if (name_ == Feature::softmax) {
      return QUERN_DISPATCH(softmax_rows<T>(static_cast<std::size_t>(x.rows()), n, x.data(),
                                            x.row_stride(), phi.data(), phi.row_stride()));
    }
    if (elementwise() && x.is_contiguous() && phi.is_contiguous()) {
      return map(x.data(), static_cast<std::size_t>(x.size()), phi.data());
    }
    for (Index r = 0; r < x.rows(); ++r) {
      const T* const from = x.row_data(r);
      T* const to = phi.row_data(r);
      if (name_ == Feature::exp) {
        scales[r] = QUERN_DISPATCH(max_value<T>(from, n));
        QUERN_DISPATCH(transform(kernels::ExpMinus<T>{scales[r]}, from, n, to));
      } else {
        map(from, n, to);
      }
    }
  }

  void vjp(MatrixView<const T> x, MatrixView<const T> phi, MatrixView<const T> dphi,
           MatrixView<T> dx) const override {
    const auto n = static_cast<std::size_t>(x.cols());
    if (elementwise() && x.is_contiguous() && dphi.is_contiguous() && dx.is_contiguous()) {
      return differentiate(x.data(), dphi.data(), static_cast<std::size_t>(x.size()), dx.data());
    }
    for (Index r = 0; r < x.rows(); ++r) {
      const T *from = x.row_data(r), *f = phi.row_data(r), *df = dphi.row_data(r);
      T* const to = dx.row_data(r);
      if (name_ == Feature::softmax) {
        const T mean = static_cast<T>(QUERN_DISPATCH(dot<T>(f, df, n)));
        for (std::size_t c = 0; c < n; ++c) to[c] = f[c] * (df[c] - mean);
      } else if (name_ == Feature::exp) {
        for (std::size_t c = 0; c < n; ++c) to[c] = f[c] * df[c];
      } else {
        differentiate(from, df, n, to);
      }
    }
  }

 private:
  void map(const T* x, std::size_t n, T* y) const {
    switch (name_) {
      case Feature::elu1:
        return QUERN_DISPATCH(transform(kernels::Elu1{}, x, n, y));
      case Feature::relu:
        return QUERN_DISPATCH(transform(kernels::Relu{}, x, n, y));
      case Feature::relu2:
        return QUERN_DISPATCH(transform(kernels::ReluSquare{}, x, n, y));
      case Feature::softplus:
        return QUERN_DISPATCH(transform(kernels::Softplus{}, x, n, y));
      default:
        std::copy_n(x, n, y);
    }
  }
  void differentiate(const T* x, const T* dy, std::size_t n, T* dx) const {
    switch (name_) {
      case Feature::elu1:
        return QUERN_DISPATCH(transform_gradient(kernels::Elu1{}, x, dy, n, dx));
      case Feature::relu:
        return QUERN_DISPATCH(transform_gradient(kernels::Relu{}, x, dy, n, dx));
      case Feature::relu2:
        return QUERN_DISPATCH(transform_gradient(kernels::ReluSquare{}, x, dy, n, dx));
      case Feature::softplus:
        return QUERN_DISPATCH(transform_gradient(kernels::Softplus{}, x, dy, n, dx));
      default:
        std::copy_n(dy, n, dx);
    }
  }

  Feature name_;
};

/// The user's own map: callables on blocks of rows. `apply_rows(x, phi)` fills phi;
/// `vjp_rows(x, phi, dphi, dx)` fills dx, and may be left out where no gradient is asked for.
/// Negative features are found when they come where a normaliser sums them.
template <class T>
class CustomFeature final : public FeatureMap<T> {
 public:
  using Apply = std::function<void(MatrixView<const T>, MatrixView<T>)>;
  using Vjp = std::function<void(MatrixView<const T>, MatrixView<const T>, MatrixView<const T>,
                                 MatrixView<T>)>;

  /// `features`: how many there are for `dim` inputs; 0: as many.
  explicit CustomFeature(Apply apply_rows, Vjp vjp_rows = {}, Index features = 0)
      : apply_(std::move(apply_rows)), vjp_(std::move(vjp_rows)), features_(features) {}

  [[nodiscard]] Index features(Index dim) const override { return features_ > 0 ? features_ : dim; }
  [[nodiscard]] bool non_negative() const override { return false; }
  void apply(MatrixView<const T> x, MatrixView<T> phi, T* /*scales*/) const override {
    apply_(x, phi);
  }
  void vjp(MatrixView<const T> x, MatrixView<const T> phi, MatrixView<const T> dphi,
           MatrixView<T> dx) const override {
    if (!vjp_) {
      throw ValueError(error_text("quern::attention::CustomFeature", "vjp_rows",
                                  "a gradient of the map", "none"));
    }
    vjp_(x, phi, dphi, dx);
  }

 private:
  Apply apply_;
  Vjp vjp_;
  Index features_;
};

}  // namespace attention
QUERN_NAMESPACE_END

#endif  // QUERN_ATTENTION_FEATURE_MAP_HPP
