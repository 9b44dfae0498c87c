// SPDX-License-Identifier: Apache-2.0

/// \file
/// HippoMemory: the past of many signals in a few coefficients each, kept online, and the signals
/// rebuilt from them.

#ifndef QUERN_SSM_HIPPO_MEMORY_HPP
#define QUERN_SSM_HIPPO_MEMORY_HPP

#include "quern/core/buffer.hpp"
#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/gemm.hpp"
#include "quern/kernels/hippo_types.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/ssm/discretize.hpp"
#include "quern/ssm/hippo.hpp"
#include "quern/ssm/sequence.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numbers>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace ssm {

/// Options of a memory.
struct HippoMemoryOptions {
  Measure measure = Measure::legs;
  /// Time between inputs, in units of the measure (windows are 2 long for legt and fout, 1 for
  /// lmu). LegS stretches with time and has none.
  double dt = 1e-3;
  DiscretizationOptions discretization = {};  ///< bilinear, as published
  int threads = 0;                            ///< 0: the default, see parallel_for
};

namespace detail {

/// Legendre polynomials P_n(x), n < order.
inline void legendre(double x, std::span<double> p) {
  for (std::size_t n = 0; n < p.size(); ++n) {
    const double k = static_cast<double>(n);
    p[n] = n == 0 ? 1 : n == 1 ? x : ((2 * k - 1) * x * p[n - 1] - (k - 1) * p[n - 2]) / k;
  }
}
/// Laguerre polynomials L_n(x), n < order.
inline void laguerre(double x, std::span<double> l) {
  for (std::size_t n = 0; n < l.size(); ++n) {
    const double k = static_cast<double>(n);
    l[n] = n == 0 ? 1 : n == 1 ? 1 - x : ((2 * k - 1 - x) * l[n - 1] - (k - 1) * l[n - 2]) / k;
  }
}

/// The functions whose sum, weighted by the coefficients, is the signal `age` before now; for LegS
/// age is a fraction of the whole past.
inline void hippo_basis(Measure measure, double age, std::span<double> f) {
  const auto scale = [&](auto&& factor) {
    for (std::size_t n = 0; n < f.size(); ++n) f[n] *= factor(static_cast<Index>(n));
  };
  switch (measure) {
    case Measure::legs:
      legendre(1 - 2 * age, f);
      return scale(legendre_norm);
    case Measure::legt:
      legendre(1 - age, f);
      return scale(legendre_norm);
    case Measure::lmu:
      return legendre(2 * age - 1, f);
    case Measure::lagt:
    case Measure::glagt: {
      const double beta = measure == Measure::lagt ? 0 : glagt_beta;
      const double factor = std::exp(-(1 - beta) * age / 2) / (beta > 0 ? std::sqrt(beta) : 1);
      laguerre(age, f);
      return scale([&](Index) { return factor; });
    }
    default:
      for (std::size_t n = 0; n < f.size(); ++n) {
        const double turn = std::numbers::pi * static_cast<double>(n / 2) * age;
        f[n] = n == 0 ? 1 : std::numbers::sqrt2 * (n % 2 == 0 ? std::cos(turn) : std::sin(turn));
      }
  }
}

/// How far back a measure sees; LegS as a fraction of its past.
inline double hippo_window(Measure measure) {
  switch (measure) {
    case Measure::legs:
    case Measure::lmu:
      return 1;
    case Measure::legt:
    case Measure::fout:
      return 2;
    default:
      return (std::numeric_limits<double>::max)();
  }
}

/// The factors of I - alpha dt A of LegT: see kernels::LegtTask.
template <class T>
struct LegtFactors {
  std::vector<T> p, l, u, inverse_d;

  LegtFactors() = default;
  LegtFactors(Index order, double dt, double alpha) {
    const double c = alpha * dt / 2;
    double f = 0;
    for (Index n = 0; n < order; ++n) {
      const double r = legendre_norm(n), h = alternating(n) * r;
      const double d = 1 + c * r * r - c * r * f * h;
      const double lower = (r - f * h) / d, upper = c * h - c * r * f;
      p.push_back(static_cast<T>(c * r));
      l.push_back(static_cast<T>(lower));
      u.push_back(static_cast<T>(upper));
      inverse_d.push_back(static_cast<T>(1 / d));
      f += lower * upper;
    }
  }
};

}  // namespace detail

/// Keeps `order` coefficients of each of `channels` signals. A step costs O(order) a channel for
/// LegS and LegT under a generalised bilinear method, and O(order^2) otherwise (LegS under a
/// zero-order hold even O(order^3)); memory and cost do not grow with time. LegS begins with the
/// first input as its only coefficient.
template <class T>
class HippoMemory {
 public:
  /// ValueError for an order or a number of channels below 1, a dt that is not above 0 and alpha
  /// outside [0, 1].
  HippoMemory(Index order, Index channels, const HippoMemoryOptions& options = {})
      : options_(options), order_(order), channels_(channels) {
    detail::expect_order(function, order, 1);
    if (channels < 1) throw ValueError(error_text(function, "channels", "at least 1", channels));
    detail::expect_step(function, options.dt);
    alpha_ = detail::gbt_alpha(function, options.discretization);
    hold_ = options.discretization.method == Discretization::zero_order_hold;
    for (Index n = 0; n < order; ++n) norms_.push_back(static_cast<T>(detail::legendre_norm(n)));
    state_.resize({order, channels});
    if (legs()) {
      if (hold_) transition_ = hippo(options.measure, order);
      return;
    }
    make_steps();
  }

  [[nodiscard]] Index order() const noexcept { return order_; }
  [[nodiscard]] Index channels() const noexcept { return channels_; }
  /// Inputs so far.
  [[nodiscard]] Index seen() const noexcept { return seen_; }
  /// (order, channels).
  [[nodiscard]] NdView<const T, 2> coefficients() const { return state_.view(); }

  /// Back to before the first input.
  void reset() {
    state_.fill(T{0});
    seen_ = 0;
  }
  /// Goes on from coefficients (order, channels) after `seen` inputs.
  void restore(std::type_identity_t<NdView<const T, 2>> coefficients, Index seen) {
    constexpr const char* where = "quern::ssm::HippoMemory::restore";
    expect_shape(where, "coefficients", coefficients, {order_, channels_});
    if (seen < 0) throw ValueError(error_text(where, "seen", "at least 0", seen));
    detail::copy_values<T>(coefficients, state_.view());
    seen_ = seen;
  }

  /// Takes inputs (steps, channels), the oldest first. ShapeError for another number of channels;
  /// ValueError, with the place, for input that is not finite (nothing has been taken then).
  void update(std::type_identity_t<NdView<const T, 2>> inputs) {
    constexpr const char* where = "quern::ssm::HippoMemory::update";
    expect_size(where, "inputs", inputs.extent(1), channels_, "channels");
    detail::expect_finite_values(where, "inputs", inputs);
    if (inputs.extent(0) == 0) return;
    const detail::UnitStride<const T, 2> unit(inputs);
    NdView<const T, 2> u = unit.view();
    if (legs() && seen_ == 0) {
      std::copy_n(u.data(), channels_, state_.data());
      seen_ = 1;
      u = u.slice(0, 1, u.extent(0) - 1);
    }
    advance(u);
    seen_ += u.extent(0);
  }

  /// The adjoint of update. After updates that brought the memory to seen(), the last of which took
  /// `steps` inputs: dcoefficients (order, channels) holds the gradient of the coefficients now,
  /// and becomes that of the coefficients before; dinputs (steps, channels), unless null, is
  /// overwritten with the inputs'. The memory itself is not changed (steps are linear).
  void update_vjp(Index steps, NdView<T, 2> dcoefficients,
                  std::type_identity_t<NdView<T, 2>> dinputs) const {
    constexpr const char* where = "quern::ssm::HippoMemory::update_vjp";
    expect_shape(where, "dcoefficients", dcoefficients, {order_, channels_});
    if (!dinputs.is_null()) expect_shape(where, "dinputs", dinputs, {steps, channels_});
    detail::expect_unit_stride(where, "dcoefficients", dcoefficients);
    detail::expect_unit_stride(where, "dinputs", dinputs);
    expect_in_range(where, "steps", steps, 0, seen_);
    const bool first = legs() && steps > 0 && seen_ == steps;
    NdView<T, 2> du = dinputs;
    if (first && !du.is_null()) du = du.slice(0, 1, steps - 1);
    retreat(seen_, steps - (first ? 1 : 0), dcoefficients, du);
    if (!first) return;
    for (Index c = 0; c < channels_; ++c) {
      if (!dinputs.is_null()) dinputs(0, c) = dcoefficients(0, c);
      for (Index n = 0; n < order_; ++n) dcoefficients(n, c) = T{0};
    }
  }

  /// The signals `ages` steps ago (0: the newest input), (ages, channels). For LegS the oldest is
  /// seen() - 1. ValueError for ages outside of what the measure sees, and for foud and legsd,
  /// whose coefficients are not those of a basis.
  [[nodiscard]] NdArray<T, 2> reconstruct(std::span<const double> ages) const {
    constexpr const char* where = "quern::ssm::HippoMemory::reconstruct";
    const Measure measure = options_.measure;
    if (measure == Measure::foud || measure == Measure::legsd) {
      throw ValueError(error_text(where, "measure", "one with a basis", name(measure)));
    }
    const double unit =
        legs() ? 1 / static_cast<double>((std::max)(seen_ - 1, Index{1})) : options_.dt;
    const double window = detail::hippo_window(measure);
    const Index rows = static_cast<Index>(ages.size());
    NdArray<T, 2> basis({rows, order_}), signals({rows, channels_});
    std::vector<double> f(static_cast<std::size_t>(order_));
    for (Index i = 0; i < rows; ++i) {
      const double age = ages[static_cast<std::size_t>(i)] * unit;
      expect_in_range(where, "ages times dt", age, 0, window * (1 + 1e-12));
      detail::hippo_basis(measure, age, f);
      for (Index n = 0; n < order_; ++n) {
        basis(i, n) = static_cast<T>(f[static_cast<std::size_t>(n)]);
      }
    }
    kernels::gemm<T>(basis.view(), state_.view(), signals.view(), {.threads = options_.threads});
    return signals;
  }

 private:
  static constexpr const char* function = "quern::ssm::HippoMemory";
  /// Channels that a thread takes: four of the widest vectors.
  static constexpr Index tile = 256 / sizeof(T);

  [[nodiscard]] bool legs() const { return options_.measure == Measure::legs; }
  [[nodiscard]] bool factored() const { return options_.measure == Measure::legt && !hold_; }

  /// What does not change with time: LegT's factors, and A_d, B_d (whose transposes gradients use).
  void make_steps() {
    if (factored()) factors_ = detail::LegtFactors<T>(order_, options_.dt, alpha_);
    const Transition t = hippo(options_.measure, order_);
    detail::Matrix ad, bd;
    discretize_transition(t, options_.dt, ad, bd);
    a_.resize({order_, order_});
    b_.resize({order_, 1});
    detail::from_matrix(ad, a_.view());
    detail::from_matrix(bd, b_.view());
  }
  void discretize_transition(const Transition& t, double dt, detail::Matrix& ad,
                             detail::Matrix& bd) const {
    const detail::Matrix a = detail::to_matrix(t.a.view());
    const detail::Matrix b = detail::to_matrix(NdView<const double, 2>(t.b.data(), {order_, 1}));
    detail::discretize(function, a, b, dt, options_.discretization, ad, bd);
  }
  /// A_d and B_d of LegS under a zero-order hold after k inputs: exact for time as a logarithm.
  void hold_step(Index k, NdView<T, 2> a, NdView<T, 2> b) const {
    detail::Matrix ad, bd;
    const double count = static_cast<double>(k);
    discretize_transition(transition_, std::log1p(1 / count), ad, bd);
    detail::from_matrix(ad, a);
    detail::from_matrix(bd, b);
  }

  template <class Body>
  void for_channels(Body&& body) const {
    parallel_for((channels_ + tile - 1) / tile,
                 [&](Index k) { body(k * tile, (std::min)(tile, channels_ - k * tile)); },
                 options_.threads);
  }
  void fill(kernels::HippoTask<T>& task, Index channel, Index count, NdView<T, 2> state,
            Index steps) const {
    task.steps = static_cast<std::size_t>(steps);
    task.order = static_cast<std::size_t>(order_);
    task.channels = static_cast<std::size_t>(count);
    task.state = state.data() + channel;
    task.state_stride = state.stride(0);
    task.norms = norms_.data();
  }

  void advance(const NdView<const T, 2>& u) {
    if (u.extent(0) == 0) return;
    if (!factored() && !(legs() && !hold_)) return advance_dense(u);
    for_channels([&](Index channel, Index count) {
      core::Buffer<T> work(kernels::hippo_work_size<T>(static_cast<std::size_t>(order_)));
      const auto run = [&](auto& task) {
        fill(task, channel, count, state_.view(), u.extent(0));
        task.input = u.data() + channel;
        task.input_stride = u.stride(0);
        task.work = work.data();
      };
      if (legs()) {
        kernels::LegsTask<T> task;
        run(task);
        task.first = static_cast<double>(seen_);
        task.alpha = alpha_;
        QUERN_DISPATCH(hippo_legs<T>(task));
      } else {
        kernels::LegtTask<T> task;
        run(task);
        task.dt = static_cast<T>(options_.dt);
        task.p = factors_.p.data(), task.l = factors_.l.data(), task.u = factors_.u.data();
        task.inverse_d = factors_.inverse_d.data();
        QUERN_DISPATCH(hippo_legt<T>(task));
      }
    });
  }

  /// x = A_d x + B_d u with whole matrices.
  void advance_dense(const NdView<const T, 2>& u) {
    NdArray<T, 2> next({order_, channels_}), a, b;
    if (legs()) a.resize({order_, order_}), b.resize({order_, 1});
    for (Index s = 0; s < u.extent(0); ++s) {
      if (legs()) hold_step(seen_ + s, a.view(), b.view());
      const NdView<const T, 2> ad = legs() ? a.view() : a_.view(),
                               bd = legs() ? b.view() : b_.view();
      kernels::gemm<T>(ad, state_.view(), next.view(), {.threads = options_.threads});
      kernels::gemm<T>(bd, u.slice(0, s, 1), next.view(),
                       {.beta = T{1}, .threads = options_.threads});
      std::swap(state_, next);
    }
  }

  void retreat(Index seen, Index steps, NdView<T, 2> g, NdView<T, 2> du) const {
    if (steps == 0) return;
    if (!legs() || hold_) return retreat_dense(seen, steps, g, du);
    for_channels([&](Index channel, Index count) {
      core::Buffer<T> work(static_cast<std::size_t>(order_));
      kernels::LegsTask<T> task;
      fill(task, channel, count, g, steps);
      task.work = work.data();
      task.first = static_cast<double>(seen - steps);
      task.alpha = alpha_;
      T* const to = du.is_null() ? nullptr : du.data() + channel;
      const Index stride = du.is_null() ? 0 : du.stride(0);
      QUERN_DISPATCH(hippo_legs_vjp<T>(task, to, stride));
    });
  }
  void retreat_dense(Index seen, Index steps, NdView<T, 2> g, NdView<T, 2> du) const {
    NdArray<T, 2> before({order_, channels_}), a, b;
    if (legs()) a.resize({order_, order_}), b.resize({order_, 1});
    for (Index s = steps; s-- > 0;) {
      if (legs()) hold_step(seen - steps + s, a.view(), b.view());
      const NdView<const T, 2> ad = legs() ? a.view() : a_.view(),
                               bd = legs() ? b.view() : b_.view();
      const NdView<const T, 2> now = g;
      if (!du.is_null()) kernels::gemm<T>(bd.transposed(), now, du.slice(0, s, 1));
      kernels::gemm<T>(ad.transposed(), now, before.view(), {.threads = options_.threads});
      detail::copy_values<T>(before.view(), g);
    }
  }

  HippoMemoryOptions options_;
  Index order_;
  Index channels_;
  Index seen_ = 0;
  double alpha_ = 0.5;
  bool hold_ = false;
  std::vector<T> norms_;
  NdArray<T, 2> state_, a_, b_;
  detail::LegtFactors<T> factors_;
  Transition transition_;
};

}  // namespace ssm
QUERN_NAMESPACE_END

#endif  // QUERN_SSM_HIPPO_MEMORY_HPP
