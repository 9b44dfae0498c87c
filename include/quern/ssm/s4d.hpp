// SPDX-License-Identifier: Apache-2.0

/// \file
/// S4D (Gu et al., arXiv:2206.11893): for each channel a diagonal state space of complex modes,
/// y = 2 Re(C x) + D u, x' = A x + u, one of each conjugate pair kept; as a convolution and as a
/// recurrence.
///
/// The convolution's kernel K_l = 2 Re sum_n C_n f_n a_n^l is a sum of powers (kernels/
/// vandermonde-inl.hpp). States before and after a sequence are sums and moments of the same
/// powers, so a sequence in pieces costs what the whole does.

#ifndef QUERN_SSM_S4D_HPP
#define QUERN_SSM_S4D_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
#include "quern/ssm/convolution.hpp"
#include "quern/ssm/detail/mode_stepper.hpp"
#include "quern/ssm/detail/modes.hpp"
#include "quern/ssm/discretize.hpp"
#include "quern/ssm/sequence.hpp"

#include <algorithm>
#include <complex>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>

QUERN_NAMESPACE_BEGIN
namespace ssm {

/// What an S4D is made of. Complex views hold one of each conjugate pair; B is 1 (part of C).
template <class T>
struct S4dParameters {
  NdView<const std::complex<T>, 2> a = {};  ///< (channels, modes), real parts not above 0
  NdView<const std::complex<T>, 2> c = {};  ///< (channels, modes)
  NdView<const T, 1> dt = {};               ///< (channels), above 0
  NdView<const T, 1> d = {};                ///< (channels); null: 0
  /// (channels, modes): C of a kernel that runs from the end, for models that see both directions.
  NdView<const std::complex<T>, 2> c_back = {};
};

/// Gradients of S4dParameters, by the same names; null ones are left out, others added to.
template <class T>
struct S4dGradients {
  NdView<std::complex<T>, 2> a = {};
  NdView<std::complex<T>, 2> c = {};
  NdView<T, 1> dt = {};
  NdView<T, 1> d = {};
  NdView<std::complex<T>, 2> c_back = {};
};

/// Options of S4D.
struct S4dOptions {
  DiscretizationOptions discretization = {Discretization::zero_order_hold};
  /// Offsets of packed sequences, 0 … length, not decreasing; empty: each batch entry is one.
  std::span<const std::int64_t> offsets = {};
  bool clip_poles = false;   ///< real parts of `a` above 0 count as 0 instead of being refused
  int threads = 0;           ///< 0: the default, see parallel_for
  bool check_finite = true;  ///< ValueError for a NaN or an infinity, with its place
};

namespace detail {

template <class T>
void check_s4d(const char* function, const S4dParameters<T>& p, const S4dOptions& options) {
  const Index channels = p.a.extent(0);
  expect_shape(function, "c", p.c, p.a.extents());
  expect_size(function, "dt", p.dt.extent(0), channels, "values, one a channel");
  if (!p.d.is_null()) expect_size(function, "d", p.d.extent(0), channels, "values, one a channel");
  if (!p.c_back.is_null()) expect_shape(function, "c_back", p.c_back, p.a.extents());
  if (p.a.extent(1) < 1) throw ShapeError(error_text(function, "a", "at least one mode", 0));
  if (!options.check_finite) return;
  expect_finite_values(function, "c", p.c);
  expect_finite_values(function, "c_back", p.c_back);
  expect_finite_values(function, "d", p.d);
}

/// ShapeError for states beside a kernel that looks ahead: there is none.
template <class T>
void check_states(const char* function, const S4dParameters<T>& p, bool states) {
  if (!states || p.c_back.is_null()) return;
  throw ShapeError(error_text(function, "c_back", "none where states are asked for", "one"));
}

template <class T>
ConvolutionOptions convolution_options(const char* function, const S4dOptions& options) {
  return {options.offsets, options.threads, options.check_finite, function};
}

template <class T>
ModeSteps<T> s4d_steps(const char* function, const S4dParameters<T>& p, const S4dOptions& options) {
  return ModeSteps<T>(function, p.a, p.dt, options.discretization, options.clip_poles);
}

/// Row l of the kernel, (length, channels): K_l = 2 Re sum C f a^l, with D at l = 0.
template <class T>
void s4d_kernel_rows(const ModeSteps<T>& steps, const NdView<const std::complex<T>, 2>& c,
                     const NdView<const T, 1>& d, const NdView<T, 2>& kernel, int threads) {
  steps.for_tiles(threads, [&](ModeTile<T>& tile) {
    tile.set_weights([&](Index channel, Index mode) {
      return 2.0 * std::complex<double>(c(channel, mode)) * steps(channel, mode).f;
    });
    tile.add_sum(kernel, false);
    if (d.is_null() || kernel.extent(0) == 0) return;
    for (Index k = tile.first(); k < tile.last(); ++k) kernel(0, k) += d(k);
  });
}

/// The gradients that a kernel's gradient gives: of C f to where they belong, of powers to da.
template <class T>
void s4d_kernel_rows_vjp(const ModeSteps<T>& steps, const NdView<const std::complex<T>, 2>& c,
                         const NdView<const T, 2>& dkernel, const NdView<std::complex<T>, 2>& dc,
                         const NdView<T, 1>& dd, ModeGradients& gradients, int threads) {
  using Complex = std::complex<double>;
  steps.for_tiles(threads, [&](ModeTile<T>& tile) {
    tile.moments(dkernel, false);
    tile.for_modes([&](Index channel, Index mode, Complex p, Complex r) {
      const Complex weight = 2.0 * Complex(c(channel, mode)), f = steps(channel, mode).f;
      if (!dc.is_null()) dc(channel, mode) += std::complex<T>(std::conj(2.0 * f * p));
      gradients.f(channel, mode) += std::conj(weight * p);
      gradients.a(channel, mode) += std::conj(weight * f * r);
    });
    if (dd.is_null() || dkernel.extent(0) == 0) return;
    for (Index k = tile.first(); k < tile.last(); ++k) dd(k) += dkernel(0, k);
  });
}

}  // namespace detail

/// The kernel of the convolution that an S4D is, (length, channels), D included. ShapeError where
/// shapes do not fit; ValueError for dt not above 0, for real parts of `a` above 0 (unless clipped)
/// and for what is not finite.
template <class T>
void s4d_kernel(const std::type_identity_t<S4dParameters<T>>& parameters, NdView<T, 2> kernel,
                const S4dOptions& options = {}) {
  constexpr const char* function = "quern::ssm::s4d_kernel";
  detail::check_s4d(function, parameters, options);
  expect_size(function, "kernel", kernel.extent(1), parameters.a.extent(0), "channels");
  detail::expect_unit_stride(function, "kernel", kernel);
  const auto steps = detail::s4d_steps(function, parameters, options);
  detail::s4d_kernel_rows(steps, parameters.c, parameters.d, kernel, options.threads);
}

/// y = S4D(u). u and y are (batch, length, channels); `initial` (null: 0) and `last` (null: left
/// out) are the states before and after, (sequences, channels modes), each channel's modes
/// together. Errors as s4d_kernel, and ValueError with the place for u that is not finite.
template <class T>
void s4d(std::type_identity_t<NdView<const T, 3>> u,
         const std::type_identity_t<S4dParameters<T>>& parameters,
         std::type_identity_t<NdView<const std::complex<T>, 2>> initial, NdView<T, 3> y,
         std::type_identity_t<NdView<std::complex<T>, 2>> last = {},
         const S4dOptions& options = {}) {
  constexpr const char* function = "quern::ssm::s4d";
  using Complex = std::complex<double>;
  const S4dParameters<T>& p = parameters;
  const Index channels = p.a.extent(0), modes = p.a.extent(1);
  detail::check_s4d(function, p, options);
  expect_size(function, "u", u.extent(2), channels, "channels");
  detail::check_states(function, p, !initial.is_null() || !last.is_null());
  const detail::Sequences sequences(function, options.offsets, u.extent(0), u.extent(1));
  detail::expect_state(function, "initial", initial, sequences.size(), channels * modes);
  detail::expect_state(function, "last", last, sequences.size(), channels * modes);
  if (options.check_finite) detail::expect_finite_values(function, "initial", initial);
  const auto steps = detail::s4d_steps(function, p, options);
  const Index longest = (std::max)(Index{1}, sequences.longest());
  NdArray<T, 2> kernel({longest, channels}, core::Fill::none), back;
  detail::s4d_kernel_rows<T>(steps, p.c, p.d, kernel.view(), options.threads);
  if (!p.c_back.is_null()) {
    back.resize({longest, channels}, core::Fill::none);
    detail::s4d_kernel_rows<T>(steps, p.c_back, {}, back.view(), options.threads);
  }
  const NdView<const T, 2> ahead = back.empty() ? NdView<const T, 2>() : back.view();
  causal_convolution<T>(u, kernel.view(), y, ahead,
                        detail::convolution_options<T>(function, options));
  if (initial.is_null() && last.is_null()) return;
  const detail::UnitStride<const T, 3> u_unit(u);
  steps.for_tiles(options.threads, [&](detail::ModeTile<T>& tile) {
    for (Index s = 0; s < sequences.size(); ++s) {
      const detail::Sequence sequence = sequences[s];
      const auto rows = [&](const auto& v) {
        return v.subview(sequence.batch).slice(0, sequence.begin, sequence.length);
      };
      const auto before = [&](Index channel, Index mode) {
        return initial.is_null() ? Complex(0) : Complex(initial(s, channel * modes + mode));
      };
      if (!last.is_null()) {  // before y, which may read what last is: one array for both
        tile.moments(rows(u_unit.view()), true);
      }
      if (!initial.is_null()) {
        tile.set_weights([&](Index channel, Index mode) {
          return 2.0 * Complex(p.c(channel, mode)) * steps(channel, mode).a * before(channel, mode);
        });
        tile.add_sum(rows(y), true);
      }
      if (last.is_null()) continue;
      tile.for_modes([&](Index channel, Index mode, Complex moment, Complex) {
        const Complex carried = steps.power(channel, mode, sequence.length) * before(channel, mode);
        last(s, channel * modes + mode) =
            std::complex<T>(carried + steps(channel, mode).f * moment);
      });
    }
  });
}

/// Gradients of s4d: du and dinitial are overwritten, those of parameters added to; null ones are
/// left out. `dlast` is the gradient of the last states (null: 0).
template <class T>
void s4d_vjp(std::type_identity_t<NdView<const T, 3>> u,
             const std::type_identity_t<S4dParameters<T>>& parameters,
             std::type_identity_t<NdView<const std::complex<T>, 2>> initial, NdView<const T, 3> dy,
             std::type_identity_t<NdView<const std::complex<T>, 2>> dlast,
             std::type_identity_t<NdView<T, 3>> du,
             const std::type_identity_t<S4dGradients<T>>& gradients,
             std::type_identity_t<NdView<std::complex<T>, 2>> dinitial = {},
             const S4dOptions& options = {}) {
  constexpr const char* function = "quern::ssm::s4d_vjp";
  const S4dParameters<T>& p = parameters;
  const Index channels = p.a.extent(0), modes = p.a.extent(1);
  detail::check_s4d(function, p, options);
  expect_size(function, "u", u.extent(2), channels, "channels");
  detail::check_states(function, p, !initial.is_null() || !dlast.is_null() || !dinitial.is_null());
  const detail::Sequences sequences(function, options.offsets, u.extent(0), u.extent(1));
  detail::expect_state(function, "initial", initial, sequences.size(), channels * modes);
  detail::expect_state(function, "dlast", dlast, sequences.size(), channels * modes);
  detail::expect_state(function, "dinitial", dinitial, sequences.size(), channels * modes);
  if (options.check_finite) detail::expect_finite_values(function, "initial", initial);
  const auto steps = detail::s4d_steps(function, p, options);
  const Index longest = (std::max)(Index{1}, sequences.longest());
  NdArray<T, 2> kernel({longest, channels}, core::Fill::none), dkernel({longest, channels});
  NdArray<T, 2> back, dback;
  detail::s4d_kernel_rows<T>(steps, p.c, p.d, kernel.view(), options.threads);
  const bool both = !p.c_back.is_null();
  if (both) {
    back.resize({longest, channels}, core::Fill::none);
    dback.resize({longest, channels});
    detail::s4d_kernel_rows<T>(steps, p.c_back, {}, back.view(), options.threads);
  }
  causal_convolution_vjp<T>(
      u, kernel.view(), dy, du, dkernel.view(), both ? back.view() : NdView<T, 2>(),
      both ? dback.view() : NdView<T, 2>(), detail::convolution_options<T>(function, options));
  detail::ModeGradients sums(channels, modes);
  detail::s4d_kernel_rows_vjp<T>(steps, p.c, dkernel.view(), gradients.c, gradients.d, sums,
                                 options.threads);
  if (both) {
    detail::s4d_kernel_rows_vjp<T>(steps, p.c_back, dback.view(), gradients.c_back, {}, sums,
                                   options.threads);
  }
  if (!initial.is_null() || !dlast.is_null() || !dinitial.is_null()) {
    detail::s4d_states_vjp<T>(
        {u, p.c, initial, dy, dlast, du, gradients.c, dinitial, sequences, options.threads}, steps,
        sums);
  }
  steps.finish(sums, gradients.a, gradients.dt);
}

/// S4D's constants, worked out once for many steps: what s4d_step does at every call. The
/// parameters are read here and not again. Errors as s4d_kernel's; ShapeError with a c_back.
template <class T>
class S4dStepper {
 public:
  explicit S4dStepper(const S4dParameters<T>& parameters, const S4dOptions& options = {})
      : check_finite_(options.check_finite),
        modes_(parameters.a.extent(0), parameters.a.extent(1), 0) {
    constexpr const char* function = "quern::ssm::S4dStepper";
    detail::check_s4d(function, parameters, options);
    detail::check_states(function, parameters, true);
    const auto steps = detail::s4d_steps(function, parameters, options);
    using Rows = detail::ModeStepper;
    for (Index k = 0; k < steps.channels(); ++k) {
      for (Index n = 0; n < steps.modes(); ++n) {
        const DiagonalStep& s = steps(k, n);
        modes_.set(k, Rows::less, n, detail::cx(s.a - 1.0));
        modes_.set(k, Rows::in, n, detail::cx(s.f));
        modes_.set(k, Rows::out, n, detail::cx(2.0 * std::complex<double>(parameters.c(k, n))));
      }
      if (!parameters.d.is_null()) modes_.set_through(k, static_cast<double>(parameters.d(k)));
    }
  }

  /// One position: y (batch, channels) from u (batch, channels); `state` (batch, channels modes)
  /// moves on.
  void step(NdView<const T, 2> u, NdView<std::complex<T>, 2> state, NdView<T, 2> y) const {
    constexpr const char* function = "quern::ssm::S4dStepper::step";
    expect_shape(function, "u", u, {y.extent(0), modes_.channels()});
    expect_shape(function, "y", y, u.extents());
    expect_shape(function, "state", state, {y.extent(0), modes_.channels() * modes_.modes()});
    if (check_finite_) detail::expect_finite_values(function, "u", u);
    modes_.step<T>(u, state, y);
  }

 private:
  bool check_finite_;
  detail::ModeStepper modes_;
};

/// One position: y (batch, channels) from u (batch, channels); `state` (batch, channels modes)
/// moves on. Equals s4d's positions to rounding. For many steps S4dStepper works the constants out
/// once.
template <class T>
void s4d_step(std::type_identity_t<NdView<const T, 2>> u,
              const std::type_identity_t<S4dParameters<T>>& parameters,
              std::type_identity_t<NdView<std::complex<T>, 2>> state, NdView<T, 2> y,
              const S4dOptions& options = {}) {
  S4dStepper<T>(parameters, options).step(u, state, y);
}

}  // namespace ssm
QUERN_NAMESPACE_END

#endif  // QUERN_SSM_S4D_HPP
