// SPDX-License-Identifier: Apache-2.0

/// \file
/// S4 as a recurrence: a step of x' = A x + b u under the bilinear method, (I - h A) x_k = (I + h
/// A) x_{k-1} + 2 h b u_k with h = dt / 2, costs O(modes) since A is diagonal plus low rank; and
/// its gradients. In double within; states are stored as T.

#ifndef QUERN_SSM_DETAIL_S4_RECURRENCE_HPP
#define QUERN_SSM_DETAIL_S4_RECURRENCE_HPP

#include "quern/core/config.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
#include "quern/ssm/detail/dplr.hpp"
#include "quern/ssm/detail/mode_stepper.hpp"
#include "quern/ssm/detail/modes.hpp"
#include "quern/ssm/s4_types.hpp"
#include "quern/ssm/sequence.hpp"

#include <algorithm>
#include <complex>
#include <cstddef>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace ssm {
namespace detail {

/// One channel's model. A state x is the modes that are kept; dot_k(x) = P_k^* x over the whole
/// spectrum, which for conjugate pairs is 2 Re of the sum over those kept.
class S4Channel {
 public:
  using State = std::vector<Cx>;

  template <class T>
  S4Channel(const char* function, const S4Parameters<T>& q, const S4Options& options, Index channel)
      : pairs_(options.conjugate),
        rank_(static_cast<std::size_t>(q.p.extent(1))),
        h(static_cast<double>(q.dt(channel)) / 2) {
    for (Index n = 0; n < q.lambda.extent(1); ++n) {
      const auto pole =
          stable_pole(function, "lambda", q.lambda(channel, n), options.clip_poles, channel, n);
      lambda.push_back(cx(pole));
      clipped.push_back(q.lambda(channel, n).real() > 0);
      inverse_.push_back(inverse(Cx{1, 0} - Cx{h, 0} * lambda.back()));
      b.push_back(cx(std::complex<double>(q.b(channel, n))));
      c.push_back(cx(std::complex<double>(q.c(channel, n))));
      for (Index k = 0; k < q.p.extent(1); ++k) {
        p_[static_cast<std::size_t>(k)].push_back(cx(std::complex<double>(q.p(channel, k, n))));
      }
    }
    make_core();
  }

  [[nodiscard]] std::size_t modes() const { return lambda.size(); }
  [[nodiscard]] std::size_t rank() const { return rank_; }
  [[nodiscard]] Cx p(std::size_t k, std::size_t n) const { return p_[k][n]; }
  [[nodiscard]] Cx dot(std::size_t k, const State& x) const {
    Cx sum;
    for (std::size_t n = 0; n < modes(); ++n) sum = sum + conj(p_[k][n]) * x[n];
    return pairs_ ? Cx{2 * sum.re, 0} : sum;
  }
  /// A x, or A^* x.
  void apply(const State& x, bool adjoint, State& out) const {
    for (std::size_t n = 0; n < modes(); ++n) {
      out[n] = (adjoint ? conj(lambda[n]) : lambda[n]) * x[n];
    }
    for (std::size_t k = 0; k < rank_; ++k) {
      const Cx s = dot(k, x);
      for (std::size_t n = 0; n < modes(); ++n) out[n] = out[n] - p_[k][n] * s;
    }
  }
  /// x = (I - h A)^-1 x, or its adjoint.
  void solve(State& x, bool adjoint) const {
    for (std::size_t n = 0; n < modes(); ++n) x[n] = diagonal(n, adjoint) * x[n];
    Cx s[2], t[2];
    for (std::size_t k = 0; k < rank_; ++k) s[k] = dot(k, x);
    for (std::size_t k = 0; k < rank_; ++k) {
      for (std::size_t j = 0; j < rank_; ++j) {
        t[k] = t[k] + (adjoint ? conj(core_[j][k]) : core_[k][j]) * s[j];
      }
    }
    for (std::size_t k = 0; k < rank_; ++k) {
      for (std::size_t n = 0; n < modes(); ++n) {
        x[n] = x[n] - diagonal(n, adjoint) * p_[k][n] * t[k];
      }
    }
  }
  /// x moves on by one input; `work` is as long.
  void step(double u, State& x, State& work) const {
    apply(x, false, work);
    for (std::size_t n = 0; n < modes(); ++n) {
      x[n] = x[n] + Cx{h, 0} * work[n] + Cx{2 * h * u, 0} * b[n];
    }
    solve(x, false);
  }
  /// The step as the kernel of modes takes it, for conjugate pairs, whose products P^* x are real:
  /// x' = alpha x + beta u - sum of w_k D P_k with alpha = D (I + h Lambda), beta = 2 h D b and
  /// w = h P^* x + core P^* (alpha x - h D P P^* x + beta u).
  void rows(ModeStepper& to, Index channel) const {
    const auto count = static_cast<Index>(modes());
    const auto at = [](Index n) { return static_cast<std::size_t>(n); };
    State alpha(modes()), beta(modes()), column[2];
    for (std::size_t n = 0; n < modes(); ++n) {
      const Cx less = Cx{2 * h, 0} * (inverse_[n] * lambda[n]);
      alpha[n] = Cx{1, 0} + less;
      beta[n] = Cx{2 * h, 0} * (inverse_[n] * b[n]);
      to.set(channel, ModeStepper::less, static_cast<Index>(n), less);
      to.set(channel, ModeStepper::in, static_cast<Index>(n), beta[n]);
      to.set(channel, ModeStepper::out, static_cast<Index>(n), Cx{2, 0} * c[n]);
    }
    for (std::size_t k = 0; k < rank_; ++k) {
      for (std::size_t n = 0; n < modes(); ++n) column[k].push_back(inverse_[n] * p_[k][n]);
    }
    for (std::size_t k = 0; k < rank_; ++k) {
      double gain = 0;
      State from(modes());
      for (std::size_t n = 0; n < modes(); ++n) from[n] = Cx{2 * h, 0} * conj(p_[k][n]);
      for (std::size_t j = 0; j < rank_; ++j) {
        const double core = core_[k][j].re;
        gain += core * dot(j, beta).re;
        for (std::size_t n = 0; n < modes(); ++n) {
          from[n] = from[n] + Cx{2 * core, 0} * (conj(p_[j][n]) * alpha[n]);
        }
        for (std::size_t l = 0; l < rank_; ++l) {
          const double back = 2 * core * h * dot(j, column[l]).re;
          for (std::size_t n = 0; n < modes(); ++n) {
            from[n] = from[n] - Cx{back, 0} * conj(p_[l][n]);
          }
        }
      }
      to.set_gain(channel, static_cast<Index>(k), gain);
      for (Index n = 0; n < count; ++n) {
        to.set(channel, to.from(static_cast<Index>(k)), n, from[at(n)]);
        to.set(channel, to.to(static_cast<Index>(k)), n, column[k][at(n)]);
      }
    }
  }
  [[nodiscard]] double output(const State& x) const {
    double sum = 0;
    for (std::size_t n = 0; n < modes(); ++n) sum += (c[n] * x[n]).re;
    return out_scale() * sum;
  }
  [[nodiscard]] double out_scale() const { return pairs_ ? 2 : 1; }

 private:
  [[nodiscard]] Cx diagonal(std::size_t n, bool adjoint) const {
    return adjoint ? conj(inverse_[n]) : inverse_[n];
  }
  /// h (I + h P^* D P)^-1, of Woodbury's identity.
  void make_core() {
    Cx m[2][2] = {{{1, 0}, {}}, {{}, {1, 0}}};
    for (std::size_t k = 0; k < rank_; ++k) {
      for (std::size_t j = 0; j < rank_; ++j) {
        State x(modes());
        for (std::size_t n = 0; n < modes(); ++n) x[n] = inverse_[n] * p_[j][n];
        m[k][j] = m[k][j] + Cx{h, 0} * dot(k, x);
      }
    }
    const Cx det = inverse(m[0][0] * m[1][1] - m[0][1] * m[1][0]) * Cx{h, 0};
    core_[0][0] = m[1][1] * det, core_[1][1] = m[0][0] * det;
    core_[0][1] = (Cx{} - m[0][1]) * det, core_[1][0] = (Cx{} - m[1][0]) * det;
  }

  bool pairs_;
  std::size_t rank_;
  State inverse_;
  State p_[2];
  Cx core_[2][2];

 public:
  double h;  ///< half of the step
  State lambda, b, c;
  std::vector<bool> clipped;
};

template <class T>
void load_state(const NdView<const std::complex<T>, 2>& from, Index s, Index first,
                S4Channel::State& x) {
  for (std::size_t n = 0; n < x.size(); ++n) {
    x[n] = from.is_null() ? Cx{} : cx(std::complex<double>(from(s, first + static_cast<Index>(n))));
  }
}
template <class T>
void store_state(const S4Channel::State& x, const NdView<std::complex<T>, 2>& to, Index s,
                 Index first) {
  for (std::size_t n = 0; n < x.size() && !to.is_null(); ++n) {
    to(s, first + static_cast<Index>(n)) = {static_cast<T>(x[n].re), static_cast<T>(x[n].im)};
  }
}

/// The rows of all channels, of conjugate pairs.
template <class T>
ModeStepper s4_rows(const char* function, const S4Parameters<T>& q, const S4Options& options) {
  ModeStepper rows(q.lambda.extent(0), q.lambda.extent(1), q.p.extent(1));
  for (Index k = 0; k < q.lambda.extent(0); ++k) {
    S4Channel(function, q, options, k).rows(rows, k);
    if (!q.d.is_null()) rows.set_through(k, static_cast<double>(q.d(k)));
  }
  return rows;
}

/// Conjugate pairs by the kernel of modes: y and the states.
template <class T>
void s4_pairs(const ModeStepper& rows, const NdView<const T, 3>& u,
              const NdView<const std::complex<T>, 2>& initial, const NdView<T, 3>& y,
              const NdView<std::complex<T>, 2>& last, const Sequences& sequences, int threads) {
  const Index modes = rows.modes();
  parallel_for(
      rows.channels(),
      [&](Index k) {
        std::vector<double> work(rows.work_size());
        std::vector<std::complex<T>> x(static_cast<std::size_t>(modes));
        for (Index i = 0; i < sequences.size(); ++i) {
          const Sequence s = sequences[i];
          for (Index n = 0; n < modes; ++n) {
            x[static_cast<std::size_t>(n)] =
                initial.is_null() ? std::complex<T>() : initial(i, k * modes + n);
          }
          const auto steps = [&](const auto& v) {
            return v.subview(s.batch).slice(0, s.begin, s.length).subview(k, 1);
          };
          rows.template sequence<T>(k, steps(u), x.data(), x.data(), steps(y), work.data());
          for (Index n = 0; n < modes && !last.is_null(); ++n) {
            last(i, k * modes + n) = x[static_cast<std::size_t>(n)];
          }
        }
      },
      threads);
}

template <class T>
void s4_recurrence(const char* function, const S4Parameters<T>& q, const NdView<const T, 3>& u,
                   const NdView<const std::complex<T>, 2>& initial, const NdView<T, 3>& y,
                   const NdView<std::complex<T>, 2>& last, const Sequences& sequences,
                   const S4Options& options) {
  if (options.conjugate) {
    const ModeStepper rows = s4_rows(function, q, options);
    return s4_pairs(rows, u, initial, y, last, sequences, options.threads);
  }
  const Index modes = q.lambda.extent(1);
  parallel_for(
      q.lambda.extent(0),
      [&](Index k) {
        const S4Channel channel(function, q, options, k);
        S4Channel::State x(channel.modes()), work(channel.modes());
        for (Index i = 0; i < sequences.size(); ++i) {
          const Sequence s = sequences[i];
          load_state(initial, i, k * modes, x);
          for (Index t = s.begin; t < s.begin + s.length; ++t) {
            const double input = static_cast<double>(u(s.batch, t, k));
            channel.step(input, x, work);
            const double through = q.d.is_null() ? 0 : static_cast<double>(q.d(k)) * input;
            y(s.batch, t, k) = static_cast<T>(channel.output(x) + through);
          }
          store_state(x, last, i, k * modes);
        }
      },
      options.threads);
}

template <class T>
struct S4RecurrenceVjp {
  NdView<const T, 3> u;
  NdView<const std::complex<T>, 2> initial;
  NdView<const T, 3> dy;
  NdView<const std::complex<T>, 2> dlast;
  NdView<T, 3> du;
  NdView<std::complex<T>, 2> dinitial;
  Sequences sequences;
};

/// Sums of one channel's gradients.
struct S4ChannelSums {
  using State = S4Channel::State;
  State lambda, b, c, p[2];
  double dt = 0, d = 0;
  explicit S4ChannelSums(std::size_t modes)
      : lambda(modes), b(modes), c(modes), p{State(modes), State(modes)} {}

  /// One step: g is the gradient of its right-hand side, `before` and `after` its states.
  void add(const S4Channel& m, const State& g, const State& before, const State& after, double u,
           State& sum, State& work) {
    for (std::size_t n = 0; n < m.modes(); ++n) sum[n] = before[n] + after[n];
    m.apply(sum, false, work);
    const Cx h{m.h, 0};
    for (std::size_t n = 0; n < m.modes(); ++n) {
      lambda[n] = lambda[n] + h * conj(sum[n]) * g[n];
      b[n] = b[n] + Cx{2 * m.h * u, 0} * g[n];
      dt += (conj(g[n]) * work[n]).re / 2 + (conj(g[n]) * m.b[n]).re * u;
    }
    for (std::size_t k = 0; k < m.rank(); ++k) {
      const Cx of_sum = m.dot(k, sum), of_g = m.dot(k, g);
      for (std::size_t n = 0; n < m.modes(); ++n) {
        p[k][n] = p[k][n] - h * (conj(of_sum) * g[n] + conj(of_g) * sum[n]);
      }
    }
  }

  template <class T>
  void finish(const S4Channel& m, Index k, const S4Gradients<T>& to) {
    const auto add_to = [&](const auto& view, const State& from) {
      for (Index n = 0; n < static_cast<Index>(from.size()) && !view.is_null(); ++n) {
        const Cx z = from[static_cast<std::size_t>(n)];
        view(k, n) += std::complex<T>(static_cast<T>(z.re), static_cast<T>(z.im));
      }
    };
    for (std::size_t n = 0; n < m.modes(); ++n) {
      if (m.clipped[n]) lambda[n].re = 0;
    }
    add_to(to.lambda, lambda);
    add_to(to.b, b);
    add_to(to.c, c);
    for (std::size_t r = 0; r < m.rank() && !to.p.is_null(); ++r) {
      add_to(to.p.subview(static_cast<Index>(r), 1), p[r]);
    }
    if (!to.dt.is_null()) to.dt(k) += static_cast<T>(dt);
    if (!to.d.is_null()) to.d(k) += static_cast<T>(d);
  }
};

template <class T>
void s4_sequence_vjp(const S4RecurrenceVjp<T>& job, const S4Parameters<T>& q, const S4Channel& m,
                     Index k, Index i, S4ChannelSums& sums) {
  const Sequence s = job.sequences[i];
  const Index modes = static_cast<Index>(m.modes());
  const auto length = static_cast<std::size_t>(s.length);
  std::vector<S4Channel::State> states(length + 1, S4Channel::State(m.modes()));
  S4Channel::State g(m.modes()), sum(m.modes()), work(m.modes());
  load_state(job.initial, i, k * modes, states[0]);
  for (std::size_t t = 0; t < length; ++t) {
    states[t + 1] = states[t];
    m.step(static_cast<double>(job.u(s.batch, s.begin + static_cast<Index>(t), k)), states[t + 1],
           work);
  }
  load_state(job.dlast, i, k * modes, g);
  for (std::size_t t = length; t-- > 0;) {
    const Index at = s.begin + static_cast<Index>(t);
    const double u = static_cast<double>(job.u(s.batch, at, k));
    const double dy = static_cast<double>(job.dy(s.batch, at, k));
    const Cx scaled{m.out_scale() * dy, 0};
    for (std::size_t n = 0; n < m.modes(); ++n) {
      g[n] = g[n] + scaled * conj(m.c[n]);
      sums.c[n] = sums.c[n] + scaled * conj(states[t + 1][n]);
    }
    sums.d += dy * u;
    m.solve(g, true);
    sums.add(m, g, states[t], states[t + 1], u, sum, work);
    if (!job.du.is_null()) {
      double du = q.d.is_null() ? 0 : dy * static_cast<double>(q.d(k));
      for (std::size_t n = 0; n < m.modes(); ++n) du += 2 * m.h * (conj(g[n]) * m.b[n]).re;
      job.du(s.batch, at, k) = static_cast<T>(du);
    }
    m.apply(g, true, work);
    for (std::size_t n = 0; n < m.modes(); ++n) g[n] = g[n] + Cx{m.h, 0} * work[n];
  }
  store_state(g, job.dinitial, i, k * modes);
}

template <class T>
void s4_recurrence_vjp(const char* function, const S4Parameters<T>& q,
                       const S4RecurrenceVjp<T>& job, const S4Gradients<T>& gradients,
                       const S4Options& options) {
  parallel_for(
      q.lambda.extent(0),
      [&](Index k) {
        const S4Channel m(function, q, options, k);
        S4ChannelSums sums(m.modes());
        for (Index i = 0; i < job.sequences.size(); ++i) {
          s4_sequence_vjp(job, q, m, k, i, sums);
        }
        sums.finish(m, k, gradients);
      },
      options.threads);
}

}  // namespace detail
}  // namespace ssm
QUERN_NAMESPACE_END

#endif  // QUERN_SSM_DETAIL_S4_RECURRENCE_HPP
