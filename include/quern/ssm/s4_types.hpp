// SPDX-License-Identifier: Apache-2.0

/// \file
/// Parameters, gradients and options of S4.

#ifndef QUERN_SSM_S4_TYPES_HPP
#define QUERN_SSM_S4_TYPES_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/ssm/discretize.hpp"

#include <complex>
#include <cstdint>
#include <span>

QUERN_NAMESPACE_BEGIN
namespace ssm {

/// What an S4 is made of: A = diag(lambda) - sum_k P_k P_k^*. With S4Options::conjugate each mode
/// stands for a conjugate pair (see normal_plus_low_rank).
template <class T>
struct S4Parameters {
  NdView<const std::complex<T>, 2> lambda = {};  ///< (channels, modes), real parts not above 0
  NdView<const std::complex<T>, 3> p = {};       ///< (channels, rank, modes), rank 0, 1 or 2
  NdView<const std::complex<T>, 2> b = {};       ///< (channels, modes)
  NdView<const std::complex<T>, 2> c = {};       ///< (channels, modes)
  NdView<const T, 1> dt = {};                    ///< (channels), above 0
  NdView<const T, 1> d = {};                     ///< (channels); null: 0
  /// (channels, modes): C of a kernel that runs from the end.
  NdView<const std::complex<T>, 2> c_back = {};
};

/// Gradients of S4Parameters, by the same names; null ones are left out, others added to.
template <class T>
struct S4Gradients {
  NdView<std::complex<T>, 2> lambda = {};
  NdView<std::complex<T>, 3> p = {};
  NdView<std::complex<T>, 2> b = {};
  NdView<std::complex<T>, 2> c = {};
  NdView<T, 1> dt = {};
  NdView<T, 1> d = {};
  NdView<std::complex<T>, 2> c_back = {};
};

/// Options of S4.
struct S4Options {
  bool conjugate = true;  ///< y = 2 Re(C x) over half of the spectrum; false: Re(C x) over all
  /// Above 0: C is that of a kernel cut after so many taps, C (I - A_d^truncated), as the S4 papers
  /// learn it ("C tilde", here without a conjugate); sequences may be that long at most, and there
  /// are no states. 0: C is what states are read out with.
  Index truncated = 0;
  /// Offsets of packed sequences, 0 … length, not decreasing; empty: each batch entry is one.
  std::span<const std::int64_t> offsets = {};
  bool clip_poles = false;   ///< real parts of lambda above 0 count as 0 instead of being refused
  int threads = 0;           ///< 0: the default, see parallel_for
  bool check_finite = true;  ///< ValueError for a NaN or an infinity, with its place
};

namespace detail {

template <class T>
void check_s4(const char* function, const S4Parameters<T>& p, const S4Options& options,
              Index length, bool states) {
  const Index channels = p.lambda.extent(0), modes = p.lambda.extent(1);
  if (modes < 1) throw ShapeError(error_text(function, "lambda", "at least one mode", modes));
  expect_shape(function, "p", p.p, {channels, p.p.extent(1), modes});
  expect_in_range(function, "rank of p", p.p.extent(1), 0, 2);
  expect_shape(function, "b", p.b, p.lambda.extents());
  expect_shape(function, "c", p.c, p.lambda.extents());
  if (!p.c_back.is_null()) expect_shape(function, "c_back", p.c_back, p.lambda.extents());
  expect_size(function, "dt", p.dt.extent(0), channels, "values, one a channel");
  if (!p.d.is_null()) expect_size(function, "d", p.d.extent(0), channels, "values, one a channel");
  expect_steps(function, p.dt);
  if (options.truncated < 0 || (options.truncated > 0 && length > options.truncated)) {
    throw ShapeError(error_text(function, "truncated", "at least the length", options.truncated));
  }
  if (states && (options.truncated > 0 || !p.c_back.is_null())) {
    throw ShapeError(error_text(function, "states", "none with a truncated C or c_back", "some"));
  }
  if (!options.check_finite) return;
  expect_finite_values(function, "p", p.p);
  expect_finite_values(function, "b", p.b);
  expect_finite_values(function, "c", p.c);
  expect_finite_values(function, "c_back", p.c_back);
  expect_finite_values(function, "d", p.d);
}

}  // namespace detail
}  // namespace ssm
QUERN_NAMESPACE_END

#endif  // QUERN_SSM_S4_TYPES_HPP
