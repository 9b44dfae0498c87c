// SPDX-License-Identifier: Apache-2.0

/// \file
/// Parameters, gradients and options of rational transfer functions, and the test of stability.

#ifndef QUERN_SSM_RTF_TYPES_HPP
#define QUERN_SSM_RTF_TYPES_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace ssm {

/// K^(w) = h0 + b(w) / a(w) with a(w) = 1 + sum_i a_i w^(i+1), i < order, and b(w) = sum_i b_i
/// w^(i+1) (delayed) or sum_i b_i w^i.
template <class T>
struct RtfParameters {
  NdView<const T, 2> a = {};   ///< (channels, order)
  NdView<const T, 2> b = {};   ///< (channels, order)
  NdView<const T, 1> h0 = {};  ///< (channels); null: 0
};

/// Gradients of RtfParameters, by the same names; null ones are left out, others added to.
template <class T>
struct RtfGradients {
  NdView<T, 2> a = {};
  NdView<T, 2> b = {};
  NdView<T, 1> h0 = {};
};

/// Options of rational transfer functions.
struct RtfOptions {
  /// Above 0: b is the numerator of a kernel cut after so many taps, as the paper learns it
  /// (rtf_readout gives the recurrence's); sequences may be that long at most, and there are no
  /// states. 0: b is the recurrence's own.
  Index truncated = 0;
  bool delayed = true;  ///< the paper's first form; false: its second, where b_0 is at tap 0
  /// Offsets of packed sequences, 0 … length, not decreasing; empty: each batch entry is one.
  std::span<const std::int64_t> offsets = {};
  bool clip_poles = false;   ///< unstable denominators are drawn into the unit circle
  int threads = 0;           ///< 0: the default, see parallel_for
  bool check_finite = true;  ///< ValueError for a NaN or an infinity, with its place
};

namespace detail {

/// Whether all roots of z^n + a_0 z^(n-1) + … lie within the unit circle: Schur and Cohn's
/// reduction.
inline bool is_stable(std::vector<double> a) {
  for (std::size_t n = a.size(); n > 0; --n) {
    const double k = a[n - 1];
    if (!(std::fabs(k) < 1)) return false;
    const std::vector<double> before(a);
    for (std::size_t i = 0; i + 1 < n; ++i) {
      a[i] = (before[i] - k * before[n - 2 - i]) / (1 - k * k);
    }
  }
  return true;
}

/// Denominators that are stable: as given, or (clipped) with roots scaled by the largest factor
/// that makes them so, to a thousandth part.
class RtfStable {
 public:
  template <class T>
  RtfStable(const char* function, const RtfParameters<T>& p, bool clip)
      : order_(p.a.extent(1)), factors_(static_cast<std::size_t>(p.a.extent(0)), 1.0) {
    std::vector<double> row(static_cast<std::size_t>(order_));
    for (Index k = 0; k < p.a.extent(0); ++k) {
      for (Index i = 0; i < order_; ++i) {
        row[static_cast<std::size_t>(i)] = static_cast<double>(p.a(k, i));
        if (is_finite_bits(p.a(k, i)) && is_finite_bits(p.b(k, i))) continue;
        throw ValueError(error_text(
            function, "a, b", "finite numbers",
            "NaN or infinity at (" + std::to_string(k) + ", " + std::to_string(i) + ")"));
      }
      const bool stable = is_stable(row);
      if (!stable && !clip) {
        throw ValueError(error_text(function, "a", "roots within the unit circle",
                                    "an unstable channel " + std::to_string(k)));
      }
      double& factor = factors_[static_cast<std::size_t>(k)];
      if (!stable) factor = largest_factor(row);
      for (Index i = 0; i < order_; ++i) {
        values_.push_back(static_cast<double>(p.a(k, i)) *
                          std::pow(factor, static_cast<double>(i + 1)));
      }
    }
  }

  [[nodiscard]] double a(Index channel, Index i) const {
    return values_[static_cast<std::size_t>(channel * order_ + i)];
  }
  /// Of a by the given one.
  [[nodiscard]] double scale(Index channel, Index i) const {
    return std::pow(factors_[static_cast<std::size_t>(channel)], static_cast<double>(i + 1));
  }

 private:
  static double largest_factor(const std::vector<double>& row) {
    double low = 0, high = 1;
    while (high - low > 1e-3 * high && high > 1e-30) {
      const double middle = low > 0 ? (low + high) / 2 : high / 2;
      std::vector<double> scaled(row);
      for (std::size_t i = 0; i < row.size(); ++i) {
        scaled[i] *= std::pow(middle, static_cast<double>(i + 1));
      }
      (is_stable(scaled) ? low : high) = middle;
    }
    return low;
  }

  Index order_;
  std::vector<double> factors_;
  std::vector<double> values_;
};

template <class T>
void check_rtf(const char* function, const RtfParameters<T>& p, const RtfOptions& options,
               Index length, bool states) {
  if (p.a.extent(1) < 1) throw ShapeError(error_text(function, "a", "an order above 0", 0));
  expect_shape(function, "b", p.b, p.a.extents());
  if (!p.h0.is_null()) {
    expect_size(function, "h0", p.h0.extent(0), p.a.extent(0), "values, one a channel");
  }
  if (options.check_finite) expect_finite_values(function, "h0", p.h0);
  if (options.truncated < 0 || (options.truncated > 0 && length > options.truncated)) {
    throw ShapeError(error_text(function, "truncated", "at least the length", options.truncated));
  }
  if (options.truncated > 0 && (states || !options.delayed)) {
    throw ShapeError(
        error_text(function, "truncated", "0 with states or without a delay", options.truncated));
  }
}

}  // namespace detail
}  // namespace ssm
QUERN_NAMESPACE_END

#endif  // QUERN_SSM_RTF_TYPES_HPP
