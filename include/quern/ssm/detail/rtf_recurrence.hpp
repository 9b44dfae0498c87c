// SPDX-License-Identifier: Apache-2.0

/// \file
/// Rational transfer functions as recurrences, v_t = u_t - sum_i a_i v_{t-1-i}, y_t = h0 u_t +
/// sum_i b_i v_{t-i} (one step later where delayed), and their gradients. The state is the last
/// `order` values of v, the latest first. In double within.

#ifndef QUERN_SSM_DETAIL_RTF_RECURRENCE_HPP
#define QUERN_SSM_DETAIL_RTF_RECURRENCE_HPP

#include "quern/core/config.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
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

/// v of one channel and sequence: `order` values from before, then one a step.
template <class T>
std::vector<double> rtf_values(const RtfStable& stable, Index order, const NdView<const T, 3>& u,
                               const NdView<const T, 2>& initial, const Sequence& s, Index i,
                               Index channel) {
  std::vector<double> v(static_cast<std::size_t>(order + s.length));
  const auto at = [&](Index t) -> double& { return v[static_cast<std::size_t>(t + order)]; };
  for (Index k = 0; k < order && !initial.is_null(); ++k) {
    at(-1 - k) = static_cast<double>(initial(i, channel * order + k));
  }
  for (Index t = 0; t < s.length; ++t) {
    double value = static_cast<double>(u(s.batch, s.begin + t, channel));
    for (Index k = 0; k < order; ++k) value -= stable.a(channel, k) * at(t - 1 - k);
    at(t) = value;
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
        for (Index i = 0; i < job.sequences.size(); ++i) {
          const Sequence s = job.sequences[i];
          const auto v = rtf_values(stable, order, job.u, job.initial, s, i, channel);
          const auto at = [&](Index t) { return v[static_cast<std::size_t>(t + order)]; };
          const double h0 = p.h0.is_null() ? 0 : static_cast<double>(p.h0(channel));
          for (Index t = 0; t < s.length; ++t) {
            double sum = h0 * static_cast<double>(job.u(s.batch, s.begin + t, channel));
            for (Index k = 0; k < order; ++k) {
              sum += static_cast<double>(p.b(channel, k)) * at(t - delay - k);
            }
            job.y(s.batch, s.begin + t, channel) = static_cast<T>(sum);
          }
          for (Index k = 0; k < order && !job.last.is_null(); ++k) {
            job.last(i, channel * order + k) = static_cast<T>(at(s.length - 1 - k));
          }
        }
      },
      options.threads);
}

template <class T>
void rtf_sequence_vjp(const RtfParameters<T>& p, const RtfStable& stable,
                      const RtfRecurrenceVjp<T>& job, Index channel, Index i, Index delay,
                      std::vector<double>& da, std::vector<double>& db, double& dh0) {
  const Index order = p.a.extent(1);
  const Sequence s = job.sequences[i];
  const auto v = rtf_values(stable, order, job.u, job.initial, s, i, channel);
  std::vector<double> g(v.size());
  const auto place = [&](Index t) { return static_cast<std::size_t>(t + order); };
  const double h0 = p.h0.is_null() ? 0 : static_cast<double>(p.h0(channel));
  for (Index k = 0; k < order && !job.dlast.is_null(); ++k) {
    g[place(s.length - 1 - k)] = static_cast<double>(job.dlast(i, channel * order + k));
  }
  for (Index t = s.length; t-- > 0;) {
    const double dy = static_cast<double>(job.dy(s.batch, s.begin + t, channel));
    dh0 += dy * static_cast<double>(job.u(s.batch, s.begin + t, channel));
    for (Index k = 0; k < order; ++k) {
      db[static_cast<std::size_t>(k)] += dy * v[place(t - delay - k)];
      g[place(t - delay - k)] += dy * static_cast<double>(p.b(channel, k));
    }
    const double gv = g[place(t)];
    for (Index k = 0; k < order; ++k) {
      da[static_cast<std::size_t>(k)] -= gv * v[place(t - 1 - k)];
      g[place(t - 1 - k)] -= gv * stable.a(channel, k);
    }
    if (!job.du.is_null()) {
      job.du(s.batch, s.begin + t, channel) = static_cast<T>(gv + h0 * dy);
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
        double dh0 = 0;
        for (Index i = 0; i < job.sequences.size(); ++i) {
          rtf_sequence_vjp(p, stable, job, channel, i, delay, da, db, dh0);
        }
        for (Index k = 0; k < order; ++k) {
          const auto at = static_cast<std::size_t>(k);
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
