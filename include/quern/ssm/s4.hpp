// SPDX-License-Identifier: Apache-2.0

/// \file
/// S4 (Gu et al., arXiv:2111.00396): for each channel a state space with a diagonal plus low rank
/// transition under the bilinear method, as a convolution (detail/dplr.hpp) and as a recurrence
/// (detail/s4_recurrence.hpp), which carries states.

#ifndef QUERN_SSM_S4_HPP
#define QUERN_SSM_S4_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
#include "quern/ssm/convolution.hpp"
#include "quern/ssm/detail/dplr.hpp"
#include "quern/ssm/detail/s4_recurrence.hpp"
#include "quern/ssm/s4_types.hpp"
#include "quern/ssm/sequence.hpp"

#include <algorithm>
#include <complex>
#include <cstddef>
#include <type_traits>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace ssm {
namespace detail {

/// Rows (C, P_1^*, …) and columns (B, P_1, …) of mode n of the whole spectrum; the second half, of
/// conjugates, follows the first.
template <class T>
void s4_mode(const S4Parameters<T>& p, const NdView<const std::complex<T>, 2>& c, Index channel,
             Index n, bool conjugated, std::complex<double>* row, std::complex<double>* column) {
  const auto turned = [&](std::complex<T> z) {
    const std::complex<double> x(z);
    return conjugated ? std::conj(x) : x;
  };
  row[0] = turned(c(channel, n));
  column[0] = turned(p.b(channel, n));
  for (Index k = 0; k < p.p.extent(1); ++k) {
    column[1 + k] = turned(p.p(channel, k, n));
    row[1 + k] = std::conj(column[1 + k]);
  }
}

/// Calls body(tile of the whole spectrum, first channel, last channel), on several threads.
template <class T, class Body>
void for_s4_tiles(const char* function, const S4Parameters<T>& p,
                  const NdView<const std::complex<T>, 2>& c, const S4Options& options,
                  Body&& body) {
  using Complex = std::complex<double>;
  constexpr Index lanes = static_cast<Index>(DplrTile::lanes);
  const Index channels = p.lambda.extent(0), modes = p.lambda.extent(1), rank = p.p.extent(1);
  const Index copies = options.conjugate ? 2 : 1;
  parallel_for((channels + lanes - 1) / lanes,
               [&](Index k) {
                 const Index first = k * lanes, last = (std::min)(channels, first + lanes);
                 DplrTile tile(copies * modes, rank);
                 for (Index channel = first; channel < last; ++channel) {
                   const auto lane = static_cast<std::size_t>(channel - first);
                   tile.set_step(lane, static_cast<double>(p.dt(channel)));
                   for (Index n = 0; n < copies * modes; ++n) {
                     Complex row[3], column[3];
                     const Index at = n % modes;
                     s4_mode(p, c, channel, at, n >= modes, row, column);
                     const Complex pole = stable_pole(function, "lambda", p.lambda(channel, at),
                                                      options.clip_poles, channel, at);
                     tile.set_mode(n, lane, n >= modes ? std::conj(pole) : pole, row, column);
                   }
                 }
                 body(tile, first, last);
               },
               options.threads);
}

template <class T>
CircleNodes s4_nodes(Index length, const S4Options& options) {
  constexpr bool single = std::is_same_v<T, float>;
  return CircleNodes(length, single ? 1e-8 : 1e-15, single ? 1 : 4, options.truncated,
                     options.conjugate);
}

template <class T>
void s4_kernel_rows(const char* function, const S4Parameters<T>& p,
                    const NdView<const std::complex<T>, 2>& c, const NdView<const T, 1>& d,
                    const NdView<T, 2>& kernel, const S4Options& options) {
  const CircleNodes nodes = s4_nodes<T>(kernel.extent(0), options);
  for_s4_tiles(function, p, c, options, [&](DplrTile& tile, Index first, Index last) {
    tile.taps(nodes, kernel.extent(0), [&](Index t, double scale, const double* z) {
      for (Index k = first; k < last; ++k) kernel(t, k) = static_cast<T>(scale * z[k - first]);
    });
    for (Index k = first; k < last && !d.is_null() && kernel.extent(0) > 0; ++k) {
      kernel(0, k) += d(k);
    }
  });
}

template <class T>
void s4_kernel_rows_vjp(const char* function, const S4Parameters<T>& p,
                        const NdView<const std::complex<T>, 2>& c,
                        const NdView<const T, 2>& dkernel, const NdView<std::complex<T>, 2>& dc,
                        const NdView<T, 1>& dd, const S4Gradients<T>& g, const S4Options& options) {
  using Complex = std::complex<double>;
  const CircleNodes nodes = s4_nodes<T>(dkernel.extent(0), options);
  const Index modes = p.lambda.extent(1), rank = p.p.extent(1);
  for_s4_tiles(function, p, c, options, [&](DplrTile& tile, Index first, Index last) {
    tile.taps_vjp(nodes, dkernel.extent(0), [&](Index t, double scale, double* to) {
      for (Index k = first; k < last; ++k) {
        to[k - first] = scale * static_cast<double>(dkernel(t, k));
      }
    });
    for (Index k = first; k < last; ++k) {
      const auto lane = static_cast<std::size_t>(k - first);
      if (!g.dt.is_null()) g.dt(k) += static_cast<T>(tile.ddt(lane));
      if (!dd.is_null() && dkernel.extent(0) > 0) dd(k) += dkernel(0, k);
      for (Index n = 0; n < (options.conjugate ? 2 * modes : modes); ++n) {
        const bool turned = n >= modes;
        const Index at = n % modes;
        Complex row[3], column[3], drow[3], dcolumn[3];
        s4_mode(p, c, k, at, turned, row, column);
        tile.mode_gradients(n, lane, row, column, drow, dcolumn);
        const auto mine = [&](Complex z) { return std::complex<T>(turned ? std::conj(z) : z); };
        Complex dpole = tile.dlambda(n, lane);
        if (p.lambda(k, at).real() > 0) dpole.real(0);
        if (!g.lambda.is_null()) g.lambda(k, at) += mine(dpole);
        if (!dc.is_null()) dc(k, at) += mine(drow[0]);
        if (!g.b.is_null()) g.b(k, at) += mine(dcolumn[0]);
        for (Index r = 0; r < rank && !g.p.is_null(); ++r) {
          g.p(k, r, at) += mine(dcolumn[1 + r] + std::conj(drow[1 + r]));
        }
      }
    }
  });
}

}  // namespace detail

/// The kernel of the convolution that an S4 is, (length, channels), D included. ShapeError where
/// shapes do not fit or the length passes options.truncated; ValueError for dt not above 0, for
/// real parts of lambda above 0 (unless clipped) and for what is not finite.
template <class T>
void s4_kernel(const std::type_identity_t<S4Parameters<T>>& parameters, NdView<T, 2> kernel,
               const S4Options& options = {}) {
  constexpr const char* function = "quern::ssm::s4_kernel";
  detail::check_s4(function, parameters, options, kernel.extent(0), false);
  expect_size(function, "kernel", kernel.extent(1), parameters.lambda.extent(0), "channels");
  detail::s4_kernel_rows(function, parameters, parameters.c, parameters.d, kernel, options);
}

/// y = S4(u); u and y are (batch, length, channels). Without states it is a convolution; with
/// `initial` (null: 0) or `last` (null: left out), (sequences, channels modes), it runs as the
/// recurrence, O(modes) a step. Errors as s4_kernel, and ValueError with the place for u that is
/// not finite.
template <class T>
void s4(std::type_identity_t<NdView<const T, 3>> u,
        const std::type_identity_t<S4Parameters<T>>& parameters,
        std::type_identity_t<NdView<const std::complex<T>, 2>> initial, NdView<T, 3> y,
        std::type_identity_t<NdView<std::complex<T>, 2>> last = {}, const S4Options& options = {}) {
  constexpr const char* function = "quern::ssm::s4";
  const detail::Sequences sequences(function, options.offsets, u.extent(0), u.extent(1));
  const bool states = !initial.is_null() || !last.is_null();
  detail::check_s4(function, parameters, options, sequences.longest(), states);
  const Index channels = parameters.lambda.extent(0),
              width = channels * parameters.lambda.extent(1);
  expect_size(function, "u", u.extent(2), channels, "channels");
  expect_shape(function, "y", y, u.extents());
  expect_apart(function, "y", y, "u", u);
  if (states) {
    detail::expect_state(function, "initial", initial, sequences.size(), width);
    detail::expect_state(function, "last", last, sequences.size(), width);
    if (options.check_finite) {
      detail::expect_finite_values(function, "u", u);
      detail::expect_finite_values(function, "initial", initial);
    }
    detail::s4_recurrence<T>(function, parameters, u, initial, y, last, sequences, options);
    return;
  }
  const Index longest = (std::max)(Index{1}, sequences.longest());
  NdArray<T, 2> kernel({longest, channels}, core::Fill::none), back;
  detail::s4_kernel_rows<T>(function, parameters, parameters.c, parameters.d, kernel.view(),
                            options);
  if (!parameters.c_back.is_null()) {
    back.resize({longest, channels}, core::Fill::none);
    detail::s4_kernel_rows<T>(function, parameters, parameters.c_back, {}, back.view(), options);
  }
  causal_convolution<T>(u, kernel.view(), y, back.empty() ? NdView<const T, 2>() : back.view(),
                        {options.offsets, options.threads, options.check_finite, function});
}

/// Gradients of s4: du and dinitial are overwritten, those of parameters added to; null ones are
/// left out. With states (one of initial, dlast and dinitial) through the recurrence.
template <class T>
void s4_vjp(std::type_identity_t<NdView<const T, 3>> u,
            const std::type_identity_t<S4Parameters<T>>& parameters,
            std::type_identity_t<NdView<const std::complex<T>, 2>> initial, NdView<const T, 3> dy,
            std::type_identity_t<NdView<const std::complex<T>, 2>> dlast,
            std::type_identity_t<NdView<T, 3>> du,
            const std::type_identity_t<S4Gradients<T>>& gradients,
            std::type_identity_t<NdView<std::complex<T>, 2>> dinitial = {},
            const S4Options& options = {}) {
  constexpr const char* function = "quern::ssm::s4_vjp";
  const detail::Sequences sequences(function, options.offsets, u.extent(0), u.extent(1));
  const bool states = !initial.is_null() || !dlast.is_null() || !dinitial.is_null();
  detail::check_s4(function, parameters, options, sequences.longest(), states);
  const Index channels = parameters.lambda.extent(0),
              width = channels * parameters.lambda.extent(1);
  expect_size(function, "u", u.extent(2), channels, "channels");
  expect_shape(function, "dy", dy, u.extents());
  if (!du.is_null()) expect_shape(function, "du", du, u.extents());
  if (states) {
    detail::expect_state(function, "initial", initial, sequences.size(), width);
    detail::expect_state(function, "dlast", dlast, sequences.size(), width);
    detail::expect_state(function, "dinitial", dinitial, sequences.size(), width);
    if (options.check_finite) detail::expect_finite_values(function, "initial", initial);
    detail::s4_recurrence_vjp<T>(
        function, parameters, {u, initial, dy, dlast, du, dinitial, sequences}, gradients, options);
    return;
  }
  const Index longest = (std::max)(Index{1}, sequences.longest());
  NdArray<T, 2> kernel({longest, channels}, core::Fill::none), dkernel({longest, channels});
  NdArray<T, 2> back, dback;
  detail::s4_kernel_rows<T>(function, parameters, parameters.c, parameters.d, kernel.view(),
                            options);
  const bool both = !parameters.c_back.is_null();
  if (both) {
    back.resize({longest, channels}, core::Fill::none);
    dback.resize({longest, channels});
    detail::s4_kernel_rows<T>(function, parameters, parameters.c_back, {}, back.view(), options);
  }
  causal_convolution_vjp<T>(u, kernel.view(), dy, du, dkernel.view(),
                            both ? back.view() : NdView<T, 2>(),
                            both ? dback.view() : NdView<T, 2>(),
                            {options.offsets, options.threads, options.check_finite, function});
  detail::s4_kernel_rows_vjp<T>(function, parameters, parameters.c, dkernel.view(), gradients.c,
                                gradients.d, gradients, options);
  if (!both) return;
  detail::s4_kernel_rows_vjp<T>(function, parameters, parameters.c_back, dback.view(),
                                gradients.c_back, {}, gradients, options);
}

/// S4's constants, worked out once for many steps: what s4_step does at every call. The parameters
/// are read here and not again. Errors as s4_kernel's; ShapeError with a c_back or a truncated C,
/// ValueError for a whole spectrum (options.conjugate false: use s4_step).
template <class T>
class S4Stepper {
 public:
  explicit S4Stepper(const S4Parameters<T>& parameters, const S4Options& options = {})
      : check_finite_(options.check_finite), rows_(checked(parameters, options)) {}

  /// One position: y (batch, channels) from u (batch, channels); `state` (batch, channels modes)
  /// moves on.
  void step(NdView<const T, 2> u, NdView<std::complex<T>, 2> state, NdView<T, 2> y) const {
    expect_shape(function, "u", u, {y.extent(0), rows_.channels()});
    expect_shape(function, "y", y, u.extents());
    expect_shape(function, "state", state, {y.extent(0), rows_.channels() * rows_.modes()});
    if (check_finite_) detail::expect_finite_values(function, "u", u);
    rows_.template step<T>(u, state, y);
  }

 private:
  static constexpr const char* function = "quern::ssm::S4Stepper";

  static detail::ModeStepper checked(const S4Parameters<T>& parameters, const S4Options& options) {
    detail::check_s4(function, parameters, options, 1, true);
    if (!options.conjugate) {
      throw ValueError(error_text(function, "options.conjugate", "true", "false"));
    }
    return detail::s4_rows(function, parameters, options);
  }

  bool check_finite_;
  detail::ModeStepper rows_;
};

/// One position: y (batch, channels) from u (batch, channels); `state` (batch, channels modes)
/// moves on. Equals s4's positions to rounding. For many steps S4Stepper works the constants out
/// once.
template <class T>
void s4_step(std::type_identity_t<NdView<const T, 2>> u,
             const std::type_identity_t<S4Parameters<T>>& parameters,
             NdView<std::complex<T>, 2> state, std::type_identity_t<NdView<T, 2>> y,
             const S4Options& options = {}) {
  const auto as_sequence = [](const auto& v) {
    using View = std::remove_cvref_t<decltype(v)>;
    return NdView<typename View::element_type, 3>(v.data(), {v.extent(0), 1, v.extent(1)},
                                                  {v.stride(0), v.extent(1), v.stride(1)});
  };
  s4<T>(as_sequence(u), parameters, state, as_sequence(y), state, options);
}

}  // namespace ssm
QUERN_NAMESPACE_END

#endif  // QUERN_SSM_S4_HPP
