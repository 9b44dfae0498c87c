// SPDX-License-Identifier: Apache-2.0

/// \file
/// Rational transfer functions as recurrences, v_t = u_t - sum_i a_i v_{t-1-i}, y_t = h0 u_t +
/// sum_i b_i v_{t-i} (one step later where delayed), and their gradients. The state is the last
/// `order` values of v, the latest first. In double within. A step is two products of vectors: v in
/// the order of time with coefficients from the last to the first.

#ifndef QUERN_SSM_DETAIL_RTF_RECURRENCE_HPP
#define QUERN_SSM_DETAIL_RTF_RECURRENCE_HPP

#include "quern/core/config.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/ssm/rtf_types.hpp"
#include "quern/ssm/sequence.hpp"

#include <cstddef>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace ssm {
namespace detail {

template <class T>
struct RtfRecurrence {
  NdView<const T, 3> u;
  NdView<const T, 2> initial;
  NdView<T, 3> y;
  NdView<T, 2> last;
  Sequences sequences;
};

template <class T>
struct RtfRecurrenceVjp {
  NdView<const T, 3> u;
  NdView<const T, 2> initial;
  NdView<const T, 3> dy;
  NdView<const T, 2> dlast;
  NdView<T, 3> du;
  NdView<T, 2> dinitial;
  Sequences sequences;
};

/// Coefficients of one channel, from the last to the first.
struct RtfRows {
  std::vector<double> a, b;
  double h0 = 0;
  std::size_t order;

  template <class T>
  RtfRows(const RtfParameters<T>& p, const RtfStable& stable, Index channel)
      : order(static_cast<std::size_t>(p.a.extent(1))) {
    for (Index k = p.a.extent(1); k-- > 0;) {
      a.push_back(stable.a(channel, k));
      b.push_back(static_cast<double>(p.b(channel, k)));
    }
    if (!p.h0.is_null()) h0 = static_cast<double>(p.h0(channel));
  }
};

/// v of one channel and sequence: `order` values from before, then one a step.
template <class T>
std::vector<double> rtf_values(const RtfRows& rows, const NdView<const T, 3>& u,
                               const NdView<const T, 2>& initial, const Sequence& s, Index i,
                               Index channel) {
  const Index order = static_cast<Index>(rows.order);
  std::vector<double> v(static_cast<std::size_t>(order + s.length));
  const auto at = [&](Index t) -> double& { return v[static_cast<std::size_t>(t + order)]; };
  for (Index k = 0; k < order && !initial.is_null(); ++k) {
    at(-1 - k) = static_cast<double>(initial(i, channel * order + k));
  }
  for (Index t = 0; t < s.length; ++t) {
    const double past = QUERN_DISPATCH(dot<double>(rows.a.data(), &at(t - order), rows.order));
    at(t) = static_cast<double>(u(s.batch, s.begin + t, channel)) - past;
  }
  return v;
}

template <class T>
void rtf_recurrence(const RtfParameters<T>& p, const RtfStable& stable, const RtfRecurrence<T>& job,
                    const RtfOptions& options) {
  const Index order = p.a.extent(1), delay = options.delayed ? 1 : 0;
  parallel_for(
      p.a.extent(0),
      [&](Index channel) {
        const RtfRows rows(p, stable, channel);
        for (Index i = 0; i < job.sequences.size(); ++i) {
          const Sequence s = job.sequences[i];
          const auto v = rtf_values(rows, job.u, job.initial, s, i, channel);
          const auto at = [&](Index t) { return v[static_cast<std::size_t>(t + order)]; };
          for (Index t = 0; t < s.length; ++t) {
            const double* const seen = v.data() + t + 1 - delay;
            const double sum = QUERN_DISPATCH(dot<double>(rows.b.data(), seen, rows.order));
            const double u = static_cast<double>(job.u(s.batch, s.begin + t, channel));
            job.y(s.batch, s.begin + t, channel) = static_cast<T>(rows.h0 * u + sum);
          }
          for (Index k = 0; k < order && !job.last.is_null(); ++k) {
            job.last(i, channel * order + k) = static_cast<T>(at(s.length - 1 - k));
          }
        }
      },
      options.threads);
}

/// Gradients of a and b are added to da and db, in the order of `rows`.
template <class T>
void rtf_sequence_vjp(const RtfRows& rows, const RtfRecurrenceVjp<T>& job, Index channel, Index i,
                      Index delay, std::vector<double>& da, std::vector<double>& db, double& dh0) {
  const Index order = static_cast<Index>(rows.order);
  const Sequence s = job.sequences[i];
  const auto v = rtf_values(rows, job.u, job.initial, s, i, channel);
  std::vector<double> g(v.size());
  const auto place = [&](Index t) { return static_cast<std::size_t>(t + order); };
  const auto add = [&](double scale, const double* x, double* to) {
    QUERN_DISPATCH(axpy<double>(scale, x, rows.order, to));
  };
  for (Index k = 0; k < order && !job.dlast.is_null(); ++k) {
    g[place(s.length - 1 - k)] = static_cast<double>(job.dlast(i, channel * order + k));
  }
  for (Index t = s.length; t-- > 0;) {
    const double dy = static_cast<double>(job.dy(s.batch, s.begin + t, channel));
    dh0 += dy * static_cast<double>(job.u(s.batch, s.begin + t, channel));
    const Index seen = t + 1 - delay;
    add(dy, v.data() + seen, db.data());
    add(dy, rows.b.data(), g.data() + seen);
    const double gv = g[place(t)];
    add(-gv, v.data() + t, da.data());
    add(-gv, rows.a.data(), g.data() + t);
    if (!job.du.is_null()) {
      job.du(s.batch, s.begin + t, channel) = static_cast<T>(gv + rows.h0 * dy);
    }
  }
  for (Index k = 0; k < order && !job.dinitial.is_null(); ++k) {
    job.dinitial(i, channel * order + k) = static_cast<T>(g[place(-1 - k)]);
  }
}

template <class T>
void rtf_recurrence_vjp(const RtfParameters<T>& p, const RtfStable& stable,
                        const RtfRecurrenceVjp<T>& job, const RtfGradients<T>& gradients,
                        const RtfOptions& options) {
  const Index order = p.a.extent(1), delay = options.delayed ? 1 : 0;
  parallel_for(
      p.a.extent(0),
      [&](Index channel) {
        std::vector<double> da(static_cast<std::size_t>(order)), db(da.size());
        const RtfRows rows(p, stable, channel);
        double dh0 = 0;
        for (Index i = 0; i < job.sequences.size(); ++i) {
          rtf_sequence_vjp(rows, job, channel, i, delay, da, db, dh0);
        }
        for (Index k = 0; k < order; ++k) {
          const auto at = static_cast<std::size_t>(order - 1 - k);
          if (!gradients.b.is_null()) gradients.b(channel, k) += static_cast<T>(db[at]);
          if (gradients.a.is_null()) continue;
          gradients.a(channel, k) += static_cast<T>(da[at] * stable.scale(channel, k));
        }
        if (!gradients.h0.is_null()) gradients.h0(channel) += static_cast<T>(dh0);
      },
      options.threads);
}

}  // namespace detail
}  // namespace ssm
QUERN_NAMESPACE_END

#endif  // QUERN_SSM_DETAIL_RTF_RECURRENCE_HPP
