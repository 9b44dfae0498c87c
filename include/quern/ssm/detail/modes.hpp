// SPDX-License-Identifier: Apache-2.0

/// \file
/// Complex modes of many channels, each with a step of its own: their powers, sums of powers and
/// moments by tiles of channels. What S4D is built from.

#ifndef QUERN_SSM_DETAIL_MODES_HPP
#define QUERN_SSM_DETAIL_MODES_HPP

#include "quern/core/buffer.hpp"
#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/kernels/vandermonde_types.hpp"
#include "quern/ssm/detail/complex_number.hpp"
#include "quern/ssm/discretize.hpp"
#include "quern/ssm/sequence.hpp"

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstddef>
#include <string>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace ssm {
namespace detail {

/// Gradients of every mode's multiplier and input factor, in double.
struct ModeGradients {
  NdArray<std::complex<double>, 2> a, f;
  ModeGradients(Index channels, Index modes) : a({channels, modes}), f({channels, modes}) {}
};

/// lambda with its real part clipped to 0, or ValueError that names the place.
template <class T>
std::complex<double> stable_pole(const char* function, const char* argument, std::complex<T> lambda,
                                 bool clip, Index row, Index col) {
  const std::complex<double> pole(lambda);
  if (is_finite_value(pole) && pole.real() <= 0) return pole;
  if (is_finite_value(pole) && clip) return {0, pole.imag()};
  const std::string at = " at (" + std::to_string(row) + ", " + std::to_string(col) + ")";
  throw ValueError(error_text(function, argument, "finite poles with real parts not above 0",
                              std::to_string(pole.real()) + at));
}

template <class T>
class ModeTile;

/// The steps of all modes of all channels.
template <class T>
class ModeSteps {
 public:
  using Complex = std::complex<double>;

  ModeSteps(const char* function, const NdView<const std::complex<T>, 2>& a,
            const NdView<const T, 1>& dt, const DiscretizationOptions& options, bool clip)
      : channels_(a.extent(0)), modes_(a.extent(1)) {
    expect_steps(function, dt);
    steps_.reserve(static_cast<std::size_t>(a.size()));
    for (Index k = 0; k < channels_; ++k) {
      const double step = static_cast<double>(dt(k));
      dt_.push_back(step);
      for (Index n = 0; n < modes_; ++n) {
        lambda_.push_back(stable_pole(function, "a", a(k, n), clip, k, n));
        clipped_.push_back(a(k, n).real() > 0);
        steps_.push_back(diagonal_step(lambda_.back(), step, options));
      }
    }
  }

  [[nodiscard]] Index channels() const { return channels_; }
  [[nodiscard]] Index modes() const { return modes_; }
  [[nodiscard]] const DiagonalStep& operator()(Index channel, Index mode) const {
    return steps_[at(channel, mode)];
  }
  /// a^n, its phase worked out anew.
  [[nodiscard]] Complex power(Index channel, Index mode, Index n) const {
    if (n == 0) return 1;
    const DiagonalStep& s = (*this)(channel, mode);
    if (s.a == Complex(0)) return 0;
    const Complex z = static_cast<double>(n) * s.log_a;
    return std::polar(std::exp(z.real()), z.imag());
  }

  /// Calls body(tile) for tiles of channels on several threads.
  template <class Body>
  void for_tiles(int threads, Body&& body) const {
    constexpr Index lanes = static_cast<Index>(kernels::power_lanes<T>);
    parallel_for((channels_ + lanes - 1) / lanes,
                 [&](Index k) {
                   ModeTile<T> tile(*this, k * lanes, (std::min)(channels_, (k + 1) * lanes));
                   body(tile);
                 },
                 threads);
  }

  /// Adds what the gradients of multipliers and factors say of lambda and dt.
  void finish(const ModeGradients& g, const NdView<std::complex<T>, 2>& dlambda,
              const NdView<T, 1>& ddt) const {
    for (Index k = 0; k < channels_; ++k) {
      const double dt = dt_[static_cast<std::size_t>(k)];
      double sum = 0;
      for (Index n = 0; n < modes_; ++n) {
        const DiagonalStep& s = (*this)(k, n);
        const Complex lambda = lambda_[at(k, n)];
        const Complex dz = std::conj(s.da_dz) * g.a(k, n) + std::conj(dt * s.dg_dz) * g.f(k, n);
        sum += (std::conj(g.f(k, n)) * (s.f / dt) + std::conj(dz) * lambda).real();
        if (dlambda.is_null()) continue;
        Complex mine = dt * dz;
        if (clipped_[at(k, n)]) mine.real(0);
        dlambda(k, n) += std::complex<T>(mine);
      }
      if (!ddt.is_null()) ddt(k) += static_cast<T>(sum);
    }
  }

 private:
  [[nodiscard]] std::size_t at(Index channel, Index mode) const {
    return static_cast<std::size_t>(channel * modes_ + mode);
  }

  Index channels_;
  Index modes_;
  std::vector<double> dt_;
  std::vector<Complex> lambda_;
  std::vector<bool> clipped_;
  std::vector<DiagonalStep> steps_;
};

/// The modes of some channels, laid out for the kernels.
template <class T>
class ModeTile {
 public:
  using Complex = std::complex<double>;

  ModeTile(const ModeSteps<T>& steps, Index first, Index last)
      : steps_(steps), first_(first), last_(last) {
    const std::size_t size = static_cast<std::size_t>(steps.modes()) * 2 * lanes;
    q_ = core::Buffer<T>(size, core::Fill::zero);
    for (core::Buffer<double>* b : {&q_block_, &q_slope_, &g_, &p_, &r_}) {
      *b = core::Buffer<double>(size, core::Fill::zero);
    }
    static_assert(kernels::power_block == 32);
    each([&](Index channel, Index mode, std::size_t place) {
      const Cx q = cx(steps(channel, mode).a);
      const Cx q2 = q * q, q4 = q2 * q2, q8 = q4 * q4, q16 = q8 * q8, q32 = q16 * q16;
      const Cx slope = Cx{32, 0} * (q16 * (q8 * (q4 * (q2 * q))));
      set(q_, place, steps(channel, mode).a);
      set(q_block_, place, {q32.re, q32.im});
      set(q_slope_, place, {slope.re, slope.im});
    });
  }

  [[nodiscard]] Index first() const { return first_; }
  [[nodiscard]] Index last() const { return last_; }

  /// The weights of the next add_sum: weight(channel, mode).
  template <class Weight>
  void set_weights(Weight&& weight) {
    each([&](Index channel, Index mode, std::size_t place) {
      set(weights_of(), place, weight(channel, mode));
    });
  }

  /// Row l of these channels = (or +=) Re sum weight a^l. Powers start anew every 8192 rows.
  void add_sum(const NdView<T, 2>& rows, bool add) {
    constexpr Index stretch = 8192;
    const core::Buffer<double> weights = g_.clone();
    for (Index begin = 0; begin < rows.extent(0); begin += stretch) {
      if (begin > 0) {
        each([&](Index channel, Index mode, std::size_t place) {
          const Complex w(weights[place], weights[place + lanes]);
          set(g_, place, w * steps_.power(channel, mode, begin));
        });
      }
      kernels::PowerSumTask<T> task;
      task.modes = static_cast<std::size_t>(steps_.modes());
      task.rows = static_cast<std::size_t>((std::min)(stretch, rows.extent(0) - begin));
      task.channels = static_cast<std::size_t>(last_ - first_);
      task.q = q_.data();
      task.q_block = q_block_.data();
      task.g = g_.data();
      task.out = &rows(begin, first_);
      task.stride = rows.stride(0);
      task.add = add;
      QUERN_DISPATCH(power_sum<T>(task));
    }
  }
  /// The same from the last row to the first.
  void add_sum_backwards(const NdView<T, 2>& rows) {
    if (rows.extent(0) == 0) return;
    add_sum(NdView<T, 2>(&rows(rows.extent(0) - 1, 0), rows.extents(),
                         {-rows.stride(0), rows.stride(1)}),
            true);
  }

  /// sum_l x_l a^l and sum_l l x_l a^(l-1) of rows x, which count from the last one if `backwards`.
  void moments(const NdView<const T, 2>& rows, bool backwards) {
    kernels::PowerMomentsTask<T> task;
    task.modes = static_cast<std::size_t>(steps_.modes());
    task.rows = static_cast<std::size_t>(rows.extent(0));
    task.channels = static_cast<std::size_t>(last_ - first_);
    task.q = q_.data();
    task.q_block = q_block_.data();
    task.q_slope = q_slope_.data();
    if (task.rows > 0) task.x = &rows(backwards ? rows.extent(0) - 1 : 0, first_);
    task.stride = backwards ? -rows.stride(0) : rows.stride(0);
    task.p = p_.data();
    task.r = r_.data();
    QUERN_DISPATCH(power_moments<T>(task));
  }
  /// Calls body(channel, mode, value, derivative) with the last moments().
  template <class Body>
  void for_modes(Body&& body) {
    each([&](Index channel, Index mode, std::size_t place) {
      body(channel, mode, Complex(p_[place], p_[place + lanes]),
           Complex(r_[place], r_[place + lanes]));
    });
  }

 private:
  static constexpr std::size_t lanes = kernels::power_lanes<T>;

  core::Buffer<double>& weights_of() { return g_; }
  template <class U>
  static void set(core::Buffer<U>& to, std::size_t place, Complex value) {
    to[place] = static_cast<U>(value.real());
    to[place + lanes] = static_cast<U>(value.imag());
  }
  template <class Body>
  void each(Body&& body) const {
    for (Index mode = 0; mode < steps_.modes(); ++mode) {
      for (Index channel = first_; channel < last_; ++channel) {
        body(channel, mode,
             static_cast<std::size_t>(mode) * 2 * lanes +
                 static_cast<std::size_t>(channel - first_));
      }
    }
  }

  const ModeSteps<T>& steps_;
  Index first_;
  Index last_;
  core::Buffer<T> q_;
  core::Buffer<double> q_block_, q_slope_, g_, p_, r_;
};

/// What the gradients of states need.
template <class T>
struct ModeStatesVjp {
  NdView<const T, 3> u;
  NdView<const std::complex<T>, 2> c;
  NdView<const std::complex<T>, 2> initial;
  NdView<const T, 3> dy;
  NdView<const std::complex<T>, 2> dlast;
  NdView<T, 3> du;
  NdView<std::complex<T>, 2> dc;
  NdView<std::complex<T>, 2> dinitial;
  Sequences sequences;
  int threads = 0;
};

/// Gradients of y_t += 2 Re sum C a^(t+1) x_0 and of x_L = a^L x_0 + sum_t f a^(L-1-t) u_t.
template <class T>
void s4d_states_vjp(const ModeStatesVjp<T>& job, const ModeSteps<T>& steps, ModeGradients& g) {
  using Complex = std::complex<double>;
  const Index modes = steps.modes();
  const UnitStride<const T, 3> u_unit(job.u), dy_unit(job.dy);
  steps.for_tiles(job.threads, [&](ModeTile<T>& tile) {
    for (Index s = 0; s < job.sequences.size(); ++s) {
      const Sequence sequence = job.sequences[s];
      const auto rows = [&](const auto& v) {
        return v.subview(sequence.batch).slice(0, sequence.begin, sequence.length);
      };
      const auto state = [&](const auto& v, Index k, Index n) {
        return v.is_null() ? Complex(0) : Complex(v(s, k * modes + n));
      };
      tile.moments(rows(dy_unit.view()), false);
      tile.for_modes([&](Index k, Index n, Complex p, Complex r) {
        // The weight is 2 C a x_0 at row 0.
        const Complex a = steps(k, n).a, c = 2.0 * Complex(job.c(k, n));
        const Complex x = state(job.initial, k, n), end = state(job.dlast, k, n);
        const double length = static_cast<double>(sequence.length);
        const Complex carried = steps.power(k, n, sequence.length);
        const Complex slope =
            sequence.length == 0 ? Complex(0) : length * steps.power(k, n, sequence.length - 1);
        if (!job.dc.is_null()) job.dc(k, n) += std::complex<T>(std::conj(2.0 * a * x * p));
        g.a(k, n) += std::conj(c * x * (p + a * r)) + std::conj(slope * x) * end;
        if (job.dinitial.is_null()) return;
        job.dinitial(s, k * modes + n) =
            std::complex<T>(std::conj(c * a * p) + std::conj(carried) * end);
      });
      if (job.dlast.is_null()) continue;
      tile.moments(rows(u_unit.view()), true);
      tile.for_modes([&](Index k, Index n, Complex p, Complex r) {
        const Complex end = state(job.dlast, k, n);
        g.f(k, n) += std::conj(p) * end;
        g.a(k, n) += std::conj(steps(k, n).f * r) * end;
      });
      if (job.du.is_null()) continue;
      tile.set_weights(
          [&](Index k, Index n) { return std::conj(state(job.dlast, k, n)) * steps(k, n).f; });
      tile.add_sum_backwards(rows(job.du));
    }
  });
}

}  // namespace detail
}  // namespace ssm
QUERN_NAMESPACE_END

#endif  // QUERN_SSM_DETAIL_MODES_HPP
