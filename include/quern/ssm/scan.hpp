// SPDX-License-Identifier: Apache-2.0

/// \file
/// First-order scans h_t = a_t h_{t-1} + b_t of many channels, real or complex, with multipliers
/// that may change at every step; forwards, backwards, over sequences packed one after the other,
/// and the exact gradients of all of it.
///
/// A NaN or an infinity that enters a recurrence stays in it, so the last states tell whether there
/// was one: nothing else is looked at unless they do. Then the error says where it came in.

#ifndef QUERN_SSM_SCAN_HPP
#define QUERN_SSM_SCAN_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/kernels/scan_types.hpp"
#include "quern/ssm/sequence.hpp"

#include <algorithm>
#include <complex>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

QUERN_NAMESPACE_BEGIN
namespace ssm {

/// Options of a scan.
struct ScanOptions {
  bool reverse = false;  ///< h_t = a_t h_{t+1} + b_t, from the end
  /// Offsets of packed sequences, 0 … length, not decreasing; empty: each batch entry is one.
  std::span<const std::int64_t> offsets = {};
  int threads = 0;           ///< 0: the default, see parallel_for
  bool check_finite = true;  ///< ValueError for a NaN or an infinity, with its place
};

namespace detail {

/// A scan's arguments once they fit each other.
template <class T>
struct ScanJob {
  NdView<const T, 3> a;
  NdView<const T, 3> b;
  NdView<const T, 2> initial;
  NdView<T, 3> out;
  NdView<T, 2> last;
  Sequences sequences;
  bool reverse = false;
};

/// Channels that one task takes: wide enough for four vectors, narrow enough to share out, down to
/// a cache line where there are few. (Two passes over pieces of time would share out one channel
/// too, but read and multiply everything twice, which two threads do not win back.)
inline Index scan_task_channels(Index sequences, Index channels) {
  Index each = 256;
  while (each > 16 && sequences * ((channels + each - 1) / each) < 8) each /= 2;
  return each;
}

template <class T>
const RealOf<T>* as_scalars(const T* x) {
  return reinterpret_cast<const RealOf<T>*>(x);
}
template <class T>
RealOf<T>* as_scalars(T* x) {
  return reinterpret_cast<RealOf<T>*>(x);
}

/// Pointer to and stride between the steps of a sequence, in the order that a scan takes them.
template <class T>
struct Steps {
  T* data = nullptr;
  Index stride = 0;

  Steps(const NdView<T, 3>& v, const Sequence& s, Index channel, bool reverse) {
    if (v.is_null() || s.length == 0) return;
    const Index first = reverse ? s.begin + s.length - 1 : s.begin;
    data = &v(s.batch, first, channel);
    stride = reverse ? -v.stride(1) : v.stride(1);
  }
};

template <class T>
void scan_task(const ScanJob<T>& job, Index s, Index channel, Index channels) {
  const Sequence sequence = job.sequences[s];
  T* const state = &job.last(s, channel);
  for (Index c = 0; c < channels; ++c) {
    state[c] = job.initial.is_null() ? T{} : job.initial(s, channel + c);
  }
  if (sequence.length == 0) return;
  const Steps<const T> a(job.a, sequence, channel, job.reverse);
  const Steps<const T> b(job.b, sequence, channel, job.reverse);
  const Steps<T> out(job.out, sequence, channel, job.reverse);
  kernels::ScanTask<RealOf<T>> task;
  task.steps = static_cast<std::size_t>(sequence.length);
  task.channels = static_cast<std::size_t>(channels);
  task.a = as_scalars(a.data), task.a_stride = a.stride;
  task.b = as_scalars(b.data), task.b_stride = b.stride;
  task.out = as_scalars(out.data), task.out_stride = out.stride;
  task.state = as_scalars(state);
  if constexpr (std::is_same_v<T, RealOf<T>>) {
    QUERN_DISPATCH(scan_rows<T>(task));
  } else {
    QUERN_DISPATCH(scan_rows_complex<RealOf<T>>(task));
  }
}

/// Calls body(sequence, first channel, channels) for all, on several threads; cut by shapes only.
template <class Body>
void for_sequences(Index sequences, Index channels, int threads, Body&& body) {
  const Index each = scan_task_channels(sequences, channels);
  const Index tiles = (channels + each - 1) / each;
  parallel_for(
      sequences * tiles,
      [&](Index task) {
        const Index first = task % tiles * each;
        body(task / tiles, first, (std::min)(each, channels - first));
      },
      threads);
}

/// A vjp's arguments once they fit each other.
template <class T>
struct ScanVjpJob {
  NdView<const T, 3> a;
  NdView<const T, 3> h;
  NdView<const T, 3> dout;
  NdView<T, 2> start;  ///< initial states, 0 where there were none
  NdView<T, 2> carry;  ///< gradients of the last states, then of the initial ones
  NdView<T, 3> da;
  NdView<T, 3> db;
  bool reverse = false;
  bool summed = false;  ///< da is one row a batch entry
};

template <class T>
void scan_vjp_task(const ScanVjpJob<T>& job, const Sequence& sequence, Index s, Index channel,
                   Index count) {
  if (job.summed) std::fill_n(&job.da(sequence.batch, 0, channel), count, T{});
  if (sequence.length == 0) return;
  const Steps<const T> a(job.a, sequence, channel, job.reverse);
  const Steps<const T> h(job.h, sequence, channel, job.reverse);
  const Steps<const T> dout(job.dout, sequence, channel, job.reverse);
  const Steps<T> da(job.da, sequence, channel, job.reverse);
  const Steps<T> db(job.db, sequence, channel, job.reverse);
  kernels::ScanVjpTask<RealOf<T>> task;
  task.steps = static_cast<std::size_t>(sequence.length);
  task.channels = static_cast<std::size_t>(count);
  task.a = as_scalars(a.data), task.a_stride = a.stride;
  task.h = as_scalars(h.data), task.h_stride = h.stride;
  task.dout = as_scalars(dout.data), task.dout_stride = dout.stride;
  task.initial = as_scalars(&job.start(s, channel));
  task.carry = as_scalars(&job.carry(s, channel));
  // A stride of 0 asks for a sum, which a single step is not.
  task.da = as_scalars(da.data), task.da_stride = job.summed || da.stride != 0 ? da.stride : 1;
  task.db = as_scalars(db.data), task.db_stride = db.stride;
  if constexpr (std::is_same_v<T, RealOf<T>>) {
    QUERN_DISPATCH(scan_rows_vjp<T>(task));
  } else {
    QUERN_DISPATCH(scan_rows_complex_vjp<RealOf<T>>(task));
  }
}

/// Whether da wants the sum over time; ShapeError where that cannot be.
template <class T>
bool wants_sum(const char* function, const NdView<T, 3>& da, bool packed) {
  if (da.is_null()) return false;
  if (da.stride(0) == 0 && da.extent(0) > 1) {
    throw ShapeError(error_text(function, "da", "an entry for each of the batch", "stride 0"));
  }
  const bool summed = da.stride(1) == 0 && da.extent(1) != 1;
  if (summed && packed) {
    throw ShapeError(error_text(function, "da", "a step for each of packed sequences", "stride 0"));
  }
  return summed;
}

template <class T>
void expect_finite_states(const char* function, const NdView<const T, 2>& last,
                          const NdView<const T, 3>& a, const NdView<const T, 3>& b,
                          const NdView<const T, 2>& initial) {
  if (all_finite(last)) return;
  expect_finite_values(function, "a", a);
  expect_finite_values(function, "b", b);
  expect_finite_values(function, "initial", initial);
  throw ValueError(error_text(function, "a", "multipliers under which the state stays finite",
                              "a state that overflows"));
}

}  // namespace detail

/// h_t = a_t h_{t-1} + b_t along axis 1 of (batch, length, channels); T is float, double or a
/// std::complex of one. `a` may have stride 0 along any axis (multipliers that do not change). A
/// null `initial` is 0. `out` holds every h and may be b itself; `last`, unless null, the last of
/// each sequence. Both states are (sequences, channels): one sequence a batch entry, or one an
/// offset. A sequence of length 0 passes its state on.
/// ShapeError where shapes or offsets do not fit; ValueError for input that is not finite.
template <class T>
void scan(std::type_identity_t<NdView<const T, 3>> a, std::type_identity_t<NdView<const T, 3>> b,
          std::type_identity_t<NdView<const T, 2>> initial, NdView<T, 3> out,
          std::type_identity_t<NdView<T, 2>> last = {}, const ScanOptions& options = {}) {
  constexpr const char* function = "quern::ssm::scan";
  const detail::Sequences sequences(function, options.offsets, out.extent(0), out.extent(1));
  const Index channels = out.extent(2);
  expect_shape(function, "a", a, out.extents());
  expect_shape(function, "b", b, out.extents());
  detail::expect_state(function, "initial", initial, sequences.size(), channels);
  detail::expect_state(function, "last", last, sequences.size(), channels);
  expect_apart(function, "out", out, "a", a);
  const detail::UnitStride<const T, 3> a_unit(a), b_unit(b);
  detail::expect_unit_stride(function, "out", out);
  NdArray<T, 2> own_last({sequences.size(), channels}, core::Fill::none);
  const detail::ScanJob<T> job{a_unit.view(), b_unit.view(), initial,        out,
                               own_last,      sequences,     options.reverse};
  detail::for_sequences(sequences.size(), channels, options.threads,
                        [&](Index s, Index c, Index n) { detail::scan_task(job, s, c, n); });
  if (options.check_finite) {
    detail::expect_finite_states<T>(function, own_last.view(), a, b, initial);
  }
  detail::copy_values<T>(own_last.view(), last);
}

/// Gradients of scan. `h` is its `out`; `dout` and `dlast` (null: 0) are the gradients of out and
/// last. da, db and dinitial are overwritten, and left out where null. da with stride 0 along axis
/// 1 gets the sum over time (that of multipliers which do not change); such sums over axis 0 are
/// the caller's. Complex gradients are dL/dRe + i dL/dIm.
template <class T>
void scan_vjp(std::type_identity_t<NdView<const T, 3>> a,
              std::type_identity_t<NdView<const T, 3>> h,
              std::type_identity_t<NdView<const T, 2>> initial,
              std::type_identity_t<NdView<const T, 3>> dout,
              std::type_identity_t<NdView<const T, 2>> dlast, std::type_identity_t<NdView<T, 3>> da,
              std::type_identity_t<NdView<T, 3>> db,
              std::type_identity_t<NdView<T, 2>> dinitial = {}, const ScanOptions& options = {}) {
  constexpr const char* function = "quern::ssm::scan_vjp";
  const detail::Sequences sequences(function, options.offsets, dout.extent(0), dout.extent(1));
  const Index channels = dout.extent(2);
  expect_shape(function, "a", a, dout.extents());
  expect_shape(function, "h", h, dout.extents());
  if (!da.is_null()) expect_shape(function, "da", da, dout.extents());
  if (!db.is_null()) expect_shape(function, "db", db, dout.extents());
  detail::expect_state(function, "initial", initial, sequences.size(), channels);
  detail::expect_state(function, "dlast", dlast, sequences.size(), channels);
  detail::expect_state(function, "dinitial", dinitial, sequences.size(), channels);
  const bool summed = detail::wants_sum(function, da, !options.offsets.empty());
  const detail::UnitStride<const T, 3> a_unit(a), h_unit(h), dout_unit(dout);
  detail::expect_unit_stride(function, "da", da);
  detail::expect_unit_stride(function, "db", db);
  NdArray<T, 2> start({sequences.size(), channels}), carry({sequences.size(), channels});
  detail::copy_values<T>(initial, start.view());
  detail::copy_values<T>(dlast, carry.view());
  const detail::ScanVjpJob<T> job{
      a_unit.view(),   h_unit.view(), dout_unit.view(), start, carry, da, db,
      options.reverse, summed};
  detail::for_sequences(sequences.size(), channels, options.threads,
                        [&](Index s, Index channel, Index count) {
                          detail::scan_vjp_task(job, sequences[s], s, channel, count);
                        });
  detail::copy_values<T>(carry.view(), dinitial);
}

}  // namespace ssm
QUERN_NAMESPACE_END

#endif  // QUERN_SSM_SCAN_HPP
