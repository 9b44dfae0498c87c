// SPDX-License-Identifier: Apache-2.0

/// \file
/// S5 (Smith et al., arXiv:2208.04933): one diagonal state space of many inputs and outputs, x' =
/// Lambda x + B u, y = 2 Re(C x) + D u, as a scan; with steps of any lengths, in one direction or
/// both.

#ifndef QUERN_SSM_S5_HPP
#define QUERN_SSM_S5_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/ssm/detail/mimo.hpp"
#include "quern/ssm/detail/modes.hpp"
#include "quern/ssm/discretize.hpp"
#include "quern/ssm/sequence.hpp"

#include <complex>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace ssm {

/// What an S5 is made of.
template <class T>
struct S5Parameters {
  NdView<const std::complex<T>, 1> lambda = {};  ///< (states), real parts not above 0
  NdView<const std::complex<T>, 2> b = {};       ///< (states, channels)
  /// (channels, states); or (channels, 2 states): the second half is for states that run from the
  /// end, so that y sees both directions.
  NdView<const std::complex<T>, 2> c = {};
  NdView<const T, 1> dt = {};  ///< (states), above 0
  NdView<const T, 1> d = {};   ///< (channels); null: 0
  /// (batch, length): factors of dt at each position, for samples at uneven times; null: 1.
  NdView<const T, 2> intervals = {};
};

/// Gradients of S5Parameters, by the same names; null ones are left out. That of intervals is
/// overwritten, the others are added to.
template <class T>
struct S5Gradients {
  NdView<std::complex<T>, 1> lambda = {};
  NdView<std::complex<T>, 2> b = {};
  NdView<std::complex<T>, 2> c = {};
  NdView<T, 1> dt = {};
  NdView<T, 1> d = {};
  NdView<T, 2> intervals = {};
};

/// Options of S5.
struct S5Options {
  DiscretizationOptions discretization = {Discretization::zero_order_hold};
  bool conjugate = true;  ///< states stand for conjugate pairs: y = 2 Re(C x); false: Re(C x)
  /// Offsets of packed sequences, 0 … length, not decreasing; empty: each batch entry is one.
  std::span<const std::int64_t> offsets = {};
  bool clip_poles = false;   ///< real parts of lambda above 0 count as 0 instead of being refused
  int threads = 0;           ///< 0: the default, see parallel_for
  bool check_finite = true;  ///< ValueError for a NaN or an infinity, with its place
};

namespace detail {

/// Checked parameters and the steps of every state.
template <class T>
class S5Model {
 public:
  using Complex = std::complex<double>;

  S5Model(const char* function, const S5Parameters<T>& p, const S5Options& options, Index batch,
          Index length)
      : p_(p), options_(options), states_(p.lambda.extent(0)), channels_(p.b.extent(1)) {
    expect_shape(function, "b", p.b, {states_, channels_});
    both_ = states_ > 0 && p.c.extent(1) == 2 * states_;
    expect_shape(function, "c", p.c, {channels_, both_ ? 2 * states_ : states_});
    expect_size(function, "dt", p.dt.extent(0), states_, "values, one a state");
    expect_steps(function, p.dt);
    if (!p.d.is_null()) expect_size(function, "d", p.d.extent(0), channels_, "values");
    if (!p.intervals.is_null()) expect_shape(function, "intervals", p.intervals, {batch, length});
    for (Index k = 0; k < states_; ++k) {
      lambda_.push_back(stable_pole(function, "lambda", p.lambda(k), options.clip_poles, 0, k));
      fixed_.push_back(
          diagonal_step(lambda_.back(), static_cast<double>(p.dt(k)), options.discretization));
    }
    make_steps(function, batch, length);
  }

  [[nodiscard]] Index states() const { return states_; }
  [[nodiscard]] Index channels() const { return channels_; }
  [[nodiscard]] bool both() const { return both_; }
  [[nodiscard]] bool varies() const { return !p_.intervals.is_null(); }
  [[nodiscard]] const MimoSteps<T>& steps() const { return steps_; }
  [[nodiscard]] double scale() const { return options_.conjugate ? 2 : 1; }
  /// Of the rows of B: 1 where steps have factors of their own.
  [[nodiscard]] Complex factor(Index k) const {
    return varies() ? Complex(1) : fixed_[static_cast<std::size_t>(k)].f;
  }
  [[nodiscard]] MimoMatrices<T> matrices(bool reverse) const {
    const auto c = p_.c.slice(1, reverse ? states_ : 0, states_);
    return {p_.b, c, scale(), [&](Index k) { return factor(k); }};
  }

  /// Adds what gradients of multipliers and factors say of lambda and dt (and of one interval).
  double finish(Index k, double interval, Complex da, Complex df, const S5Gradients<T>& g) const {
    const auto at = static_cast<std::size_t>(k);
    const double dt = static_cast<double>(p_.dt(k)) * interval;
    const DiagonalStep s =
        varies() ? diagonal_step(lambda_[at], dt, options_.discretization) : fixed_[at];
    const Complex dz = std::conj(s.da_dz) * da + std::conj(dt * s.dg_dz) * df;
    const double ddt = (std::conj(df) * (s.f / dt) + std::conj(dz) * lambda_[at]).real();
    Complex dlambda = dt * dz;
    if (p_.lambda(k).real() > 0) dlambda.real(0);
    if (!g.lambda.is_null()) g.lambda(k) += std::complex<T>(dlambda);
    if (!g.dt.is_null()) g.dt(k) += static_cast<T>(ddt * interval);
    return ddt * static_cast<double>(p_.dt(k));
  }

 private:
  void make_steps(const char* function, Index batch, Index length) {
    steps_ = MimoSteps<T>(varies() ? batch * length : 1, states_, varies());
    if (!varies()) {
      for (Index k = 0; k < states_; ++k) {
        steps_.set(0, k, fixed_[static_cast<std::size_t>(k)].a);
      }
      return;
    }
    for (Index i = 0; i < batch * length; ++i) {
      const double interval = static_cast<double>(p_.intervals(i / length, i % length));
      if (!is_finite_bits(interval) || interval <= 0) {
        throw ValueError(error_text(function, "intervals", "finite numbers above 0",
                                    std::to_string(interval) + " at (" +
                                        std::to_string(i / length) + ", " +
                                        std::to_string(i % length) + ")"));
      }
      for (Index k = 0; k < states_; ++k) {
        const DiagonalStep s =
            diagonal_step(lambda_[static_cast<std::size_t>(k)],
                          static_cast<double>(p_.dt(k)) * interval, options_.discretization);
        steps_.set(i, k, s.a);
        steps_.f(i, k) = std::complex<T>(s.f);
      }
    }
  }

  const S5Parameters<T>& p_;
  const S5Options& options_;
  Index states_;
  Index channels_;
  bool both_ = false;
  std::vector<Complex> lambda_;
  std::vector<DiagonalStep> fixed_;
  MimoSteps<T> steps_;
};

/// ValueError with the place of what made an output not finite.
template <class T>
void expect_finite_result(const char* function, const NdView<const T, 3>& u,
                          const NdView<const T, 3>& y,
                          const NdView<const std::complex<T>, 2>& initial) {
  if (all_finite(y)) return;
  expect_finite_values(function, "u", u);
  if (!initial.is_null()) expect_finite_values(function, "initial", initial);
  throw ValueError(
      error_text(function, "parameters", "finite numbers", "parameters that give NaN or infinity"));
}

template <class T>
void expect_no_states(const char* function, bool both, bool states) {
  if (!both || !states) return;
  throw ShapeError(error_text(function, "c", "one direction where states are asked for", "both"));
}

}  // namespace detail

/// y = S5(u); u and y are (batch, length, channels). `initial` (null: 0) and `last` (null: left
/// out) are the states before and after, (sequences, states). ShapeError where shapes do not fit;
/// ValueError for dt and intervals that are not above 0, for real parts of lambda above 0 (unless
/// clipped), and for what is not finite.
template <class T>
void s5(std::type_identity_t<NdView<const T, 3>> u,
        const std::type_identity_t<S5Parameters<T>>& parameters,
        std::type_identity_t<NdView<const std::complex<T>, 2>> initial, NdView<T, 3> y,
        std::type_identity_t<NdView<std::complex<T>, 2>> last = {}, const S5Options& options = {}) {
  constexpr const char* function = "quern::ssm::s5";
  const detail::S5Model<T> model(function, parameters, options, u.extent(0), u.extent(1));
  expect_size(function, "u", u.extent(2), model.channels(), "channels");
  expect_shape(function, "y", y, u.extents());
  expect_apart(function, "y", y, "u", u);
  detail::expect_no_states<T>(function, model.both(), !initial.is_null() || !last.is_null());
  const detail::Sequences sequences(function, options.offsets, u.extent(0), u.extent(1));
  detail::expect_state(function, "initial", initial, sequences.size(), model.states());
  detail::expect_state(function, "last", last, sequences.size(), model.states());
  detail::MimoJob<T> job{.u = u,
                         .d = parameters.d,
                         .initial = initial,
                         .y = y,
                         .last = last,
                         .sequences = sequences,
                         .length = u.extent(1),
                         .threads = options.threads};
  detail::mimo_forward(job, model.steps(), model.matrices(false));
  if (model.both()) {
    job.reverse = job.add = true;
    detail::mimo_forward(job, model.steps(), model.matrices(true));
  }
  if (options.check_finite) detail::expect_finite_result<T>(function, u, y, initial);
}

/// Gradients of s5: du and dinitial are overwritten, those of parameters added to (S5Gradients);
/// null ones are left out. `dlast` is the gradient of the last states (null: 0).
template <class T>
void s5_vjp(std::type_identity_t<NdView<const T, 3>> u,
            const std::type_identity_t<S5Parameters<T>>& parameters,
            std::type_identity_t<NdView<const std::complex<T>, 2>> initial, NdView<const T, 3> dy,
            std::type_identity_t<NdView<const std::complex<T>, 2>> dlast,
            std::type_identity_t<NdView<T, 3>> du,
            const std::type_identity_t<S5Gradients<T>>& gradients,
            std::type_identity_t<NdView<std::complex<T>, 2>> dinitial = {},
            const S5Options& options = {}) {
  constexpr const char* function = "quern::ssm::s5_vjp";
  using Complex = std::complex<double>;
  const detail::S5Model<T> model(function, parameters, options, u.extent(0), u.extent(1));
  const Index states = model.states(), length = u.extent(1), rows = u.extent(0) * length;
  expect_size(function, "u", u.extent(2), model.channels(), "channels");
  expect_shape(function, "dy", dy, u.extents());
  if (!du.is_null()) expect_shape(function, "du", du, u.extents());
  detail::expect_no_states<T>(function, model.both(),
                              !initial.is_null() || !dlast.is_null() || !dinitial.is_null());
  const detail::Sequences sequences(function, options.offsets, u.extent(0), length);
  detail::expect_state(function, "initial", initial, sequences.size(), states);
  detail::expect_state(function, "dlast", dlast, sequences.size(), states);
  detail::expect_state(function, "dinitial", dinitial, sequences.size(), states);
  NdArray<std::complex<T>, 2> da, df;
  if (model.varies()) da.resize({rows, states}), df.resize({rows, states});
  NdArray<double, 2> dintervals({u.extent(0), length});
  detail::MimoJob<T> job{.u = u,
                         .d = parameters.d,
                         .initial = initial,
                         .dy = dy,
                         .dlast = dlast,
                         .du = du,
                         .dinitial = dinitial,
                         .da = da.empty() ? NdView<std::complex<T>, 2>() : da.view(),
                         .df = df.empty() ? NdView<std::complex<T>, 2>() : df.view(),
                         .sequences = sequences,
                         .length = length,
                         .threads = options.threads};
  const auto one_direction = [&](bool reverse) {
    job.reverse = job.add = reverse;
    const auto sums = detail::mimo_vjp(job, model.steps(), model.matrices(reverse));
    NdArray<Complex, 1> dfactor({states});
    detail::add_input_gradient<T>(
        sums.b, parameters.b, [&](Index k) { return model.factor(k); }, gradients.b, dfactor);
    if (!gradients.c.is_null()) {
      const auto dc = gradients.c.slice(1, reverse ? states : 0, states);
      detail::add_output_gradient<T>(sums.c, model.scale(), dc);
    }
    for (Index h = 0; h < model.channels() && !gradients.d.is_null(); ++h) {
      gradients.d(h) += sums.d(h);
    }
    for (Index k = 0; k < states; ++k) {
      if (!model.varies()) model.finish(k, 1, Complex(sums.a(k)), dfactor(k), gradients);
      for (Index i = 0; i < rows && model.varies(); ++i) {
        const double interval = static_cast<double>(parameters.intervals(i / length, i % length));
        dintervals(i / length, i % length) +=
            model.finish(k, interval, Complex(da(i, k)), Complex(df(i, k)), gradients);
      }
    }
  };
  one_direction(false);
  if (model.both()) one_direction(true);
  if (gradients.intervals.is_null()) return;
  expect_shape(function, "gradients.intervals", gradients.intervals, {u.extent(0), length});
  for (Index i = 0; i < rows; ++i) {
    gradients.intervals(i / length, i % length) =
        static_cast<T>(dintervals(i / length, i % length));
  }
}

/// One position: y (batch, channels) from u (batch, channels); `state` (batch, states) moves on.
/// `parameters.intervals`, unless null, is (batch, 1).
template <class T>
void s5_step(std::type_identity_t<NdView<const T, 2>> u,
             const std::type_identity_t<S5Parameters<T>>& parameters,
             NdView<std::complex<T>, 2> state, std::type_identity_t<NdView<T, 2>> y,
             const S5Options& options = {}) {
  const auto as_sequence = [](const auto& v) {
    using View = std::remove_cvref_t<decltype(v)>;
    return NdView<typename View::element_type, 3>(v.data(), {v.extent(0), 1, v.extent(1)},
                                                  {v.stride(0), v.extent(1), v.stride(1)});
  };
  s5<T>(as_sequence(u), parameters, state, as_sequence(y), state, options);
}

}  // namespace ssm
QUERN_NAMESPACE_END

#endif  // QUERN_SSM_S5_HPP
