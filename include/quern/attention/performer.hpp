// SPDX-License-Identifier: Apache-2.0

/// \file
/// Performer (FAVOR+): positive features, many of them random, whose products stand for e^(q . k).
/// With linear_attention this is softmax attention in linear time, approximately: see
/// performer_error() for how approximately.
///
/// K. Choromanski et al., "Rethinking attention with Performers", ICLR 2021.

#ifndef QUERN_ATTENTION_PERFORMER_HPP
#define QUERN_ATTENTION_PERFORMER_HPP

#include "quern/attention/feature_map.hpp"
#include "quern/core/buffer.hpp"
#include "quern/core/config.hpp"
#include "quern/core/eigen_view.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
#include "quern/core/random.hpp"
#include "quern/kernels/attention_types.hpp"
#include "quern/kernels/feature_map_types.hpp"
#include "quern/kernels/gemm.hpp"
#include "quern/kernels/kernels.hpp"

#include <Eigen/Core>
#include <Eigen/QR>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace attention {

/// Random directions of FAVOR+, (features, dim): rows in blocks of `dim` that are orthogonal to
/// each other, lengths as of normal vectors (or all sqrt(dim) where `equal_lengths`, which has less
/// variance). `draw` numbers redraws: the same seed and draw give the same directions.
template <class T>
[[nodiscard]] NdArray<T, 2> performer_projection(Index features, Index dim, std::uint64_t seed,
                                                 std::uint64_t draw = 0,
                                                 bool equal_lengths = false) {
  if (features < 0 || dim < 0) {
    throw ValueError(error_text("quern::attention::performer_projection", "features, dim",
                                "0 or more", (std::min)(features, dim)));
  }
  NdArray<T, 2> w({features, dim});
  Philox random(seed, "performer projection", draw);
  for (Index first = 0; first < features && dim > 0; first += dim) {
    Eigen::MatrixXd normal(dim, dim);
    for (Index c = 0; c < dim; ++c) {
      for (Index r = 0; r < dim; ++r) normal(r, c) = random.normal();
    }
    const Eigen::HouseholderQR<Eigen::MatrixXd> qr(normal);
    // Signs as of the diagonal of R make the directions uniform.
    const Eigen::MatrixXd directions = qr.householderQ();
    for (Index f = first; f < (std::min)(first + dim, features); ++f) {
      double length = std::sqrt(static_cast<double>(dim));
      if (!equal_lengths) {
        double squares = 0;
        for (Index c = 0; c < dim; ++c) {
          const double x = random.normal();
          squares += x * x;
        }
        length = std::sqrt(squares);
      }
      const double sign = qr.matrixQR()(f - first, f - first) < 0 ? -1 : 1;
      for (Index c = 0; c < dim; ++c) {
        w(f, c) = static_cast<T>(length * sign * directions(c, f - first));
      }
    }
  }
  return w;
}

/// What is made of a direction's product u with the scaled input x.
enum class PerformerKernel {
  exp,   ///< e^(u - |x|^2 / 2): unbiased for e^(q . k)
  elu1,  ///< elu(u) + 1: its first order
  relu   ///< max(u, 0) + eps: generalised attention
};

/// What is taken out of an exponent so that it does not overflow.
enum class PerformerStabiliser {
  exact,     ///< the row's largest, put back exactly: see FeatureMap
  none,      ///< nothing
  constants  ///< `constant`, or each row's own largest where that is infinite, and not put back:
             ///< what published code does before it adds its eps, which then weighs tokens
             ///< differently
};

template <class T>
struct PerformerOptions {
  PerformerKernel kernel = PerformerKernel::exp;
  double scale = -1;  ///< of the inputs; negative: dim^(-1/4), so that q . k comes over sqrt(dim)
  double eps = 0;     ///< added to each feature (exp: before the division by sqrt(features))
  PerformerStabiliser stabiliser = PerformerStabiliser::exact;
  T constant = std::numeric_limits<T>::infinity();
};

/// FAVOR+ as a feature map. Without directions (an empty projection) the kernel applies to the
/// scaled inputs themselves.
template <class T>
class PerformerFeatures final : public FeatureMap<T> {
 public:
  explicit PerformerFeatures(NdArray<T, 2> projection, const PerformerOptions<T>& options = {})
      : w_(std::move(projection)), options_(options) {
    if (!(options.eps >= 0)) {
      throw ValueError(error_text(function, "eps", "0 or more", options.eps));
    }
    if (options.eps > 0 && scaled()) {
      throw ValueError(error_text(function, "eps", "0 with the exact stabiliser", options.eps));
    }
    turn();
  }

  [[nodiscard]] const NdArray<T, 2>& projection() const noexcept { return w_; }
  /// Other directions: redrawing between steps of training.
  void set_projection(NdArray<T, 2> projection) {
    w_ = std::move(projection);
    turn();
  }

  [[nodiscard]] Index features(Index dim) const override { return w_.empty() ? dim : w_.extent(0); }
  [[nodiscard]] bool scaled() const override {
    return options_.kernel == PerformerKernel::exp &&
           options_.stabiliser == PerformerStabiliser::exact;
  }

  void apply(MatrixView<const T> x, MatrixView<T> phi, T* scales) const override {
    check_dim(x.cols());
    constexpr Index most = 64;  // products of so many rows stay in the cache until they are used
    core::Buffer<T> memory(static_cast<std::size_t>((std::min)(most, x.rows()) * width_));
    for (Index r = 0; r < x.rows(); r += most) {
      const Index count = (std::min)(most, x.rows() - r);
      map_rows(x.slice(0, r, count), phi.slice(0, r, count), memory.data(),
               scales == nullptr ? nullptr : scales + r);
    }
  }

  void vjp(MatrixView<const T> x, MatrixView<const T> phi, MatrixView<const T> dphi,
           MatrixView<T> dx) const override {
    const T factor = input_scale(x.cols());
    const Index rows = x.rows(), m = phi.cols(), dim = x.cols();
    NdArray<T, 2> du({rows, m}, core::Fill::none);
    const bool is_exp = options_.kernel == PerformerKernel::exp;
    if (is_exp) {
      const T eps = static_cast<T>(options_.eps) * feature_scale(m);
      const auto n = static_cast<std::size_t>(m);
      for (Index r = 0; r < rows; ++r) {
        T* const u = du.view().row_data(r);
        QUERN_DISPATCH(multiply<T>(phi.row_data(r), dphi.row_data(r), n, u));
        if (eps != T{0}) QUERN_DISPATCH(axpy<T>(-eps, dphi.row_data(r), n, u));
      }
    } else {
      products(x, factor, du.view());
      const auto n = static_cast<std::size_t>(m);
      for (Index r = 0; r < rows; ++r) {
        T* const u = du.view().row_data(r);
        const T* const d = dphi.row_data(r);
        if (options_.kernel == PerformerKernel::elu1) {
          QUERN_DISPATCH(transform_gradient(kernels::Elu1{}, u, d, n, u));
        } else {
          QUERN_DISPATCH(transform_gradient(kernels::Relu{}, u, d, n, u));
        }
      }
    }
    if (w_.empty()) {
      for (Index r = 0; r < rows; ++r) {
        for (Index c = 0; c < dim; ++c) dx(r, c) = factor * du(r, c);
      }
    } else {
      kernels::gemm<T>(du.view(), w_.view(), dx, {.alpha = factor, .threads = 1});
    }
    // -|x|^2 / 2 of the exponent.
    for (Index r = 0; r < rows && is_exp; ++r) {
      const double total =
          QUERN_DISPATCH(sum<T>(du.view().row_data(r), static_cast<std::size_t>(m)));
      const T back = static_cast<T>(-total) * factor * factor;
      QUERN_DISPATCH(axpy<T>(back, x.row_data(r), static_cast<std::size_t>(dim), dx.row_data(r)));
    }
  }

 private:
  static constexpr const char* function = "quern::attention::PerformerFeatures";

  [[nodiscard]] T input_scale(Index dim) const {
    if (options_.scale >= 0) return static_cast<T>(options_.scale);
    return dim > 0 ? static_cast<T>(std::pow(static_cast<double>(dim), -0.25)) : T{1};
  }
  [[nodiscard]] static T feature_scale(Index m) {
    return m > 0 ? static_cast<T>(1 / std::sqrt(static_cast<double>(m))) : T{1};
  }
  void check_dim(Index dim) const {
    if (w_.empty() || w_.extent(1) == dim) return;
    throw ShapeError(error_text(
        function, "x", std::to_string(w_.extent(1)) + " columns, as the projection has", dim));
  }
  /// Keeps the scaled directions as columns, side by side: what products with rows read.
  void turn() {
    constexpr Index multiple = 16;  // of every level's lanes
    const Index dim = w_.empty() ? 0 : w_.extent(1), m = w_.empty() ? 0 : w_.extent(0);
    width_ = block_count(m, multiple) * multiple;
    turned_ = core::Buffer<T>(static_cast<std::size_t>(dim * width_), core::Fill::zero);
    const T factor = input_scale(dim);
    for (Index f = 0; f < m; ++f) {
      for (Index c = 0; c < dim; ++c) {
        turned_[static_cast<std::size_t>(c * width_ + f)] = factor * w_(f, c);
      }
    }
  }
  /// u (rows, width_) = factor x W^T.
  void products(MatrixView<const T> x, T* u) const {
    kernels::TileProduct<T> p;
    p.rows = x.rows(), p.depth = x.cols(), p.cols = width_;
    p.a = x.data(), p.a_row_stride = x.row_stride(), p.a_depth_stride = 1;
    p.b = turned_.data(), p.b_stride = width_;
    p.c = u, p.c_stride = width_;
    QUERN_DISPATCH(tile_product<T>(p));
  }
  /// The same into a matrix of any strides.
  void products(MatrixView<const T> x, T factor, MatrixView<T> u) const {
    for (Index r = 0; r < x.rows() && w_.empty(); ++r) {
      QUERN_DISPATCH(
          scale<T>(factor, x.row_data(r), static_cast<std::size_t>(x.cols()), u.row_data(r)));
    }
    if (w_.empty()) return;
    core::Buffer<T> row(static_cast<std::size_t>(width_));
    for (Index r = 0; r < x.rows(); ++r) {
      products(x.slice(0, r, 1), row.data());
      std::copy_n(row.data(), u.cols(), u.row_data(r));
    }
  }
  /// Features of few rows; `u`: memory for their products.
  void map_rows(MatrixView<const T> x, MatrixView<T> phi, T* u, T* scales) const {
    const T factor = input_scale(x.cols());
    const auto m = static_cast<std::size_t>(phi.cols());
    Index stride = width_;
    if (w_.empty()) {
      products(x, factor, phi);
      u = phi.data(), stride = phi.row_stride();
    } else {
      products(x, u);
    }
    if (options_.kernel == PerformerKernel::exp) return exp_of(x, factor, u, stride, phi, scales);
    const T eps = static_cast<T>(options_.eps);
    for (Index r = 0; r < x.rows(); ++r) {
      T* const row = phi.row_data(r);
      if (options_.kernel == PerformerKernel::elu1) {
        QUERN_DISPATCH(transform(kernels::Elu1{}, u + r * stride, m, row));
      } else {
        QUERN_DISPATCH(transform(kernels::Relu{}, u + r * stride, m, row));
      }
      for (std::size_t f = 0; f < m && eps != T{0}; ++f) row[f] += eps;
    }
  }
  void exp_of(MatrixView<const T> x, T factor, const T* u, Index stride, MatrixView<T> phi,
              T* scales) const {
    constexpr Index most = 64;
    T halves[most], largest[most];
    const double square = 0.5 * static_cast<double>(factor) * static_cast<double>(factor);
    for (Index r = 0; r < x.rows(); ++r) {
      halves[r] = static_cast<T>(square * QUERN_DISPATCH(squared_norm<T>(
                                              x.row_data(r), static_cast<std::size_t>(x.cols()))));
    }
    kernels::ExpRows<T> rows;
    rows.rows = static_cast<std::size_t>(x.rows()),
    rows.cols = static_cast<std::size_t>(phi.cols());
    rows.u = u, rows.u_stride = stride;
    rows.phi = phi.data(), rows.phi_stride = phi.row_stride();
    rows.factor = feature_scale(phi.cols());
    rows.offset = rows.factor * static_cast<T>(options_.eps);
    const bool exact = options_.stabiliser == PerformerStabiliser::exact;
    const bool given = options_.constant < std::numeric_limits<T>::infinity();
    const bool constants = options_.stabiliser == PerformerStabiliser::constants;
    rows.shifts = exact ? nullptr : halves;
    rows.own = exact || (constants && !given);
    rows.largest = exact ? largest : nullptr;
    for (Index r = 0; r < x.rows() && constants && given; ++r) halves[r] += options_.constant;
    QUERN_DISPATCH(exp_rows<T>(rows));
    for (Index r = 0; r < x.rows() && exact; ++r) scales[r] = largest[r] - halves[r];
  }

  NdArray<T, 2> w_;
  PerformerOptions<T> options_;
  core::Buffer<T> turned_;  ///< (dim, width_)
  Index width_ = 0;
};

/// The largest product of a direction with any of the rows: the constant that published code takes
/// out of the exponents of all keys of a head.
template <class T>
[[nodiscard]] T performer_largest(MatrixView<const T> x, const NdArray<T, 2>& projection) {
  NdArray<T, 2> u({x.rows(), projection.extent(0)}, core::Fill::none);
  const double factor = std::pow(static_cast<double>((std::max)(x.cols(), Index{1})), -0.25);
  kernels::gemm<T>(x, projection.view().transposed(), u.view(), {.alpha = static_cast<T>(factor)});
  return QUERN_DISPATCH(max_value<T>(u.data(), static_cast<std::size_t>(u.size())));
}

/// How far a map's weights are from softmax's.
struct PerformerError {
  double relative =
      0;  ///< |weights - softmax weights| / |softmax weights|, root mean square of rows
  bool useless = false;  ///< relative is above 0.5: attention is not what is computed
};

/// Measures it for the caller's own queries and keys (rows x dim, unscaled: softmax is of
/// q . k / sqrt(dim)): up to `samples` queries, evenly spread, against all keys.
template <class T>
[[nodiscard]] PerformerError performer_error(std::type_identity_t<MatrixView<const T>> q,
                                             std::type_identity_t<MatrixView<const T>> k,
                                             const FeatureMap<T>& map, Index samples = 64) {
  constexpr const char* function = "quern::attention::performer_error";
  if (q.cols() != k.cols()) {
    throw ShapeError(error_text(function, "k", std::to_string(q.cols()) + " columns", k.cols()));
  }
  if (samples < 1) throw ValueError(error_text(function, "samples", "at least 1", samples));
  PerformerError error;
  if (q.rows() == 0 || k.rows() == 0) return error;
  const NdArray<T, 2> q_rows(q), k_rows(k);
  const Index m = map.features(q.cols()), keys = k.rows();
  NdArray<T, 2> phi_k({keys, m}), phi_q({1, m});
  std::vector<T> scales(static_cast<std::size_t>(keys), T{0});
  map.apply(k_rows.view(), phi_k.view(), map.scaled() ? scales.data() : nullptr);
  const double most = static_cast<double>(*std::max_element(scales.begin(), scales.end()));
  const double by = 1 / std::sqrt(static_cast<double>((std::max)(q.cols(), Index{1})));
  const Index count = (std::min)(samples, q.rows());
  std::vector<double> exact(static_cast<std::size_t>(keys)), made(exact.size());
  double sum = 0;
  for (Index s = 0; s < count; ++s) {
    const Index i = s * q.rows() / count;
    T own{};
    map.apply(q_rows.view().block(i, 0, 1, q.cols()), phi_q.view(), map.scaled() ? &own : nullptr);
    double exact_total = 0, made_total = 0, largest = -std::numeric_limits<double>::infinity();
    for (std::size_t j = 0; j < exact.size(); ++j) {
      const auto at = static_cast<Index>(j);
      exact[j] = by * QUERN_DISPATCH(dot<T>(q_rows.view().row_data(i), k_rows.view().row_data(at),
                                            static_cast<std::size_t>(q.cols())));
      largest = (std::max)(largest, exact[j]);
      made[j] = QUERN_DISPATCH(
                    dot<T>(phi_q.data(), phi_k.view().row_data(at), static_cast<std::size_t>(m))) *
                std::exp(static_cast<double>(scales[j]) - most);
      made_total += made[j];
    }
    for (double& e : exact) exact_total += e = std::exp(e - largest);
    double apart = 0, length = 0;
    for (std::size_t j = 0; j < exact.size(); ++j) {
      const double e = exact[j] / exact_total, a = made_total > 0 ? made[j] / made_total : 0;
      apart += (a - e) * (a - e);
      length += e * e;
    }
    sum += apart / length;
  }
  error.relative = std::sqrt(sum / static_cast<double>(count));
  error.useless = !(error.relative <= 0.5);
  return error;
}

}  // namespace attention
QUERN_NAMESPACE_END

#endif  // QUERN_ATTENTION_PERFORMER_HPP
