// SPDX-License-Identifier: Apache-2.0

/// \file
/// The linear recurrent unit (Orvieto et al., arXiv:2303.06349): x_t = lambda x_{t-1} + e^gamma B
/// u_t, y = Re(C x) + D u with lambda = e^(-e^nu + i e^theta), which no value of nu makes unstable.

#ifndef QUERN_SSM_LRU_HPP
#define QUERN_SSM_LRU_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/ssm/detail/mimo.hpp"
#include "quern/ssm/s5.hpp"
#include "quern/ssm/sequence.hpp"

#include <cmath>
#include <complex>
#include <cstdint>
#include <span>
#include <type_traits>

QUERN_NAMESPACE_BEGIN
namespace ssm {

/// What an LRU is made of. Unlike S4 and S5, its output has no factor 2.
template <class T>
struct LruParameters {
  NdView<const T, 1> nu_log = {};           ///< (states): |lambda| = e^(-e^nu_log)
  NdView<const T, 1> theta_log = {};        ///< (states): its phase is e^theta_log
  NdView<const T, 1> gamma_log = {};        ///< (states): rows of B are scaled by e^gamma_log
  NdView<const std::complex<T>, 2> b = {};  ///< (states, channels)
  NdView<const std::complex<T>, 2> c = {};  ///< (channels, states)
  NdView<const T, 1> d = {};                ///< (channels); null: 0
};

/// Gradients of LruParameters, by the same names; null ones are left out, others added to.
template <class T>
struct LruGradients {
  NdView<T, 1> nu_log = {};
  NdView<T, 1> theta_log = {};
  NdView<T, 1> gamma_log = {};
  NdView<std::complex<T>, 2> b = {};
  NdView<std::complex<T>, 2> c = {};
  NdView<T, 1> d = {};
};

/// Options of an LRU.
struct LruOptions {
  /// Offsets of packed sequences, 0 … length, not decreasing; empty: each batch entry is one.
  std::span<const std::int64_t> offsets = {};
  int threads = 0;           ///< 0: the default, see parallel_for
  bool check_finite = true;  ///< ValueError for a NaN or an infinity, with its place
};

namespace detail {

template <class T>
class LruModel {
 public:
  using Complex = std::complex<double>;

  LruModel(const char* function, const LruParameters<T>& p)
      : p_(p), states_(p.b.extent(0)), channels_(p.b.extent(1)), steps_(1, states_, false) {
    expect_size(function, "nu_log", p.nu_log.extent(0), states_, "values, one a state");
    expect_size(function, "theta_log", p.theta_log.extent(0), states_, "values, one a state");
    expect_size(function, "gamma_log", p.gamma_log.extent(0), states_, "values, one a state");
    expect_shape(function, "c", p.c, {channels_, states_});
    if (!p.d.is_null()) expect_size(function, "d", p.d.extent(0), channels_, "values");
    for (Index k = 0; k < states_; ++k) steps_.set(0, k, lambda(k));
  }

  [[nodiscard]] Index states() const { return states_; }
  [[nodiscard]] Index channels() const { return channels_; }
  [[nodiscard]] const MimoSteps<T>& steps() const { return steps_; }
  [[nodiscard]] double decay(Index k) const { return std::exp(static_cast<double>(p_.nu_log(k))); }
  [[nodiscard]] double phase(Index k) const {
    return std::exp(static_cast<double>(p_.theta_log(k)));
  }
  [[nodiscard]] Complex lambda(Index k) const { return std::polar(std::exp(-decay(k)), phase(k)); }
  [[nodiscard]] double gamma(Index k) const {
    return std::exp(static_cast<double>(p_.gamma_log(k)));
  }
  [[nodiscard]] MimoMatrices<T> matrices() const {
    return {p_.b, p_.c, 1, [&](Index k) { return Complex(gamma(k)); }};
  }

 private:
  const LruParameters<T>& p_;
  Index states_;
  Index channels_;
  MimoSteps<T> steps_;
};

}  // namespace detail

/// y = LRU(u); shapes, states and errors as those of s5.
template <class T>
void lru(std::type_identity_t<NdView<const T, 3>> u,
         const std::type_identity_t<LruParameters<T>>& parameters,
         std::type_identity_t<NdView<const std::complex<T>, 2>> initial, NdView<T, 3> y,
         std::type_identity_t<NdView<std::complex<T>, 2>> last = {},
         const LruOptions& options = {}) {
  constexpr const char* function = "quern::ssm::lru";
  const detail::LruModel<T> model(function, parameters);
  expect_size(function, "u", u.extent(2), model.channels(), "channels");
  expect_shape(function, "y", y, u.extents());
  expect_apart(function, "y", y, "u", u);
  const detail::Sequences sequences(function, options.offsets, u.extent(0), u.extent(1));
  detail::expect_state(function, "initial", initial, sequences.size(), model.states());
  detail::expect_state(function, "last", last, sequences.size(), model.states());
  const detail::MimoJob<T> job{.u = u,
                               .d = parameters.d,
                               .initial = initial,
                               .y = y,
                               .last = last,
                               .sequences = sequences,
                               .length = u.extent(1),
                               .threads = options.threads};
  detail::mimo_forward(job, model.steps(), model.matrices());
  if (options.check_finite) detail::expect_finite_result<T>(function, u, y, initial);
}

/// Gradients of lru: du and dinitial are overwritten, those of parameters added to; null ones are
/// left out. `dlast` is the gradient of the last states (null: 0).
template <class T>
void lru_vjp(std::type_identity_t<NdView<const T, 3>> u,
             const std::type_identity_t<LruParameters<T>>& parameters,
             std::type_identity_t<NdView<const std::complex<T>, 2>> initial, NdView<const T, 3> dy,
             std::type_identity_t<NdView<const std::complex<T>, 2>> dlast,
             std::type_identity_t<NdView<T, 3>> du,
             const std::type_identity_t<LruGradients<T>>& gradients,
             std::type_identity_t<NdView<std::complex<T>, 2>> dinitial = {},
             const LruOptions& options = {}) {
  constexpr const char* function = "quern::ssm::lru_vjp";
  using Complex = std::complex<double>;
  const detail::LruModel<T> model(function, parameters);
  const Index states = model.states();
  expect_size(function, "u", u.extent(2), model.channels(), "channels");
  expect_shape(function, "dy", dy, u.extents());
  if (!du.is_null()) expect_shape(function, "du", du, u.extents());
  const detail::Sequences sequences(function, options.offsets, u.extent(0), u.extent(1));
  detail::expect_state(function, "initial", initial, sequences.size(), states);
  detail::expect_state(function, "dlast", dlast, sequences.size(), states);
  detail::expect_state(function, "dinitial", dinitial, sequences.size(), states);
  const detail::MimoJob<T> job{.u = u,
                               .d = parameters.d,
                               .initial = initial,
                               .dy = dy,
                               .dlast = dlast,
                               .du = du,
                               .dinitial = dinitial,
                               .sequences = sequences,
                               .length = u.extent(1),
                               .threads = options.threads};
  const auto sums = detail::mimo_vjp(job, model.steps(), model.matrices());
  NdArray<Complex, 1> dgamma({states});
  detail::add_input_gradient<T>(
      sums.b, parameters.b, [&](Index k) { return Complex(model.gamma(k)); }, gradients.b, dgamma);
  detail::add_output_gradient<T>(sums.c, 1, gradients.c);
  for (Index h = 0; h < model.channels() && !gradients.d.is_null(); ++h) {
    gradients.d(h) += sums.d(h);
  }
  for (Index k = 0; k < states; ++k) {
    // dlambda = lambda (-e^nu dnu + i e^theta dtheta).
    const Complex along = std::conj(Complex(sums.a(k))) * model.lambda(k);
    if (!gradients.nu_log.is_null()) {
      gradients.nu_log(k) += static_cast<T>(-model.decay(k) * along.real());
    }
    if (!gradients.theta_log.is_null()) {
      gradients.theta_log(k) += static_cast<T>(-model.phase(k) * along.imag());
    }
    if (!gradients.gamma_log.is_null()) {
      gradients.gamma_log(k) += static_cast<T>(model.gamma(k) * dgamma(k).real());
    }
  }
}

/// One position: y (batch, channels) from u (batch, channels); `state` (batch, states) moves on.
template <class T>
void lru_step(std::type_identity_t<NdView<const T, 2>> u,
              const std::type_identity_t<LruParameters<T>>& parameters,
              NdView<std::complex<T>, 2> state, std::type_identity_t<NdView<T, 2>> y,
              const LruOptions& options = {}) {
  const auto as_sequence = [](const auto& v) {
    using View = std::remove_cvref_t<decltype(v)>;
    return NdView<typename View::element_type, 3>(v.data(), {v.extent(0), 1, v.extent(1)},
                                                  {v.stride(0), v.extent(1), v.stride(1)});
  };
  lru<T>(as_sequence(u), parameters, state, as_sequence(y), state, options);
}

}  // namespace ssm
QUERN_NAMESPACE_END

#endif  // QUERN_SSM_LRU_HPP
