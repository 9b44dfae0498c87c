// SPDX-License-Identifier: Apache-2.0

/// \file
/// Reformer's attention by locality-sensitive hashing, forward and backward: N. Kitaev, L. Kaiser,
/// A. Levskaya, "Reformer: the efficient transformer" (arXiv:2001.04451), with the conventions of
/// reformer-pytorch and without its condition on the length.
///
/// Queries and keys are one array. In each round every position is put into a bucket by random
/// rotations, positions are sorted by bucket, cut into chunks, and see their own and the chunk
/// before. Keys have length 1; a position sees itself only where it sees nothing else. Rounds are
/// weighted by how much each found, which is softmax over all that was found, keys found twice
/// counting twice.
///
/// There is no attention to other positions than its own (queries are the keys), hence no grouped
/// queries either: as many heads of values as of queries.

#ifndef QUERN_ATTENTION_LSH_HPP
#define QUERN_ATTENTION_LSH_HPP

#include "quern/attention/attention_options.hpp"
#include "quern/attention/detail/packed.hpp"
#include "quern/attention/sparse.hpp"
#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/random.hpp"
#include "quern/kernels/gemm.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <type_traits>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace attention {

/// Options of lsh_attention.
template <class T>
struct LshOptions {
  Index bucket_size = 64;  ///< positions in a chunk
  bool causal = false;
  T scale = T{0};  ///< of the logits; 0: one over the root of dim
  /// Positions that count in each row of the batch (outputs of the rest are 0); empty: all.
  std::span<const std::int64_t> lengths = {};
  /// Sequences packed in one row (batch of 1): sequence s is [cumulative[s], cumulative[s + 1]) and
  /// hashed, sorted and cut by itself; outputs of what follows the last are 0. Empty: none.
  std::span<const std::int64_t> cumulative = {};
  int threads = 0;
};

/// What forward leaves for the backward pass: sums over what was found, and the order that the
/// hashes gave, for each row of the batch and head.
template <class T>
struct LshSaved {
  struct Head {
    std::vector<SparseRound> rounds;
    std::vector<std::int64_t> ids;
    std::vector<std::int32_t> buckets;  ///< (rounds, length)
  };
  SparseSaved<T> sums;
  std::vector<Head> heads;      ///< batch times heads
  std::vector<LshSaved> parts;  ///< of packed sequences, one each
};

/// Random rotations for lsh_attention: standard normal, (dim, rounds, buckets / 2). About length /
/// bucket_size buckets are right; their number is even (ValueError).
template <class T>
[[nodiscard]] NdArray<T, 3> lsh_rotations(Index dim, Index rounds, Index buckets,
                                          std::uint64_t seed, std::uint64_t stream = 0) {
  constexpr const char* function = "quern::attention::lsh_rotations";
  expect_in_range<Index>(function, "rounds", rounds, 1, 1024);
  if (buckets < 2 || buckets % 2 != 0) {
    throw ValueError(error_text(function, "buckets", "an even number, at least 2", buckets));
  }
  NdArray<T, 3> rotations({dim, rounds, buckets / 2}, core::Fill::none);
  Philox random(seed, "attention: LSH rotations", stream);
  for (T& x : rotations) x = random.normal<T>();
  return rotations;
}

namespace detail {

/// The bucket of every position in every round: where [x R, -x R] is largest.
template <class T>
void lsh_buckets(MatrixView<const T> x, NdView<const T, 3> rotations,
                 std::vector<std::int32_t>& buckets) {
  const Index length = x.rows(), rounds = rotations.extent(1), half = rotations.extent(2);
  constexpr Index piece = 128;
  NdArray<T, 2> turned({(std::min)(piece, length), rounds * half}, core::Fill::none);
  const MatrixView<const T> r(rotations.data(), {x.cols(), rounds * half});
  buckets.resize(static_cast<std::size_t>(rounds * length));
  for (Index begin = 0; begin < length; begin += piece) {
    const Index count = (std::min)(piece, length - begin);
    kernels::gemm<T>(x.slice(0, begin, count), r, turned.view().slice(0, 0, count), {.threads = 1});
    for (Index i = 0; i < count; ++i) {
      for (Index round = 0; round < rounds; ++round) {
        const T* const row = &turned(i, round * half);
        const auto n = static_cast<std::size_t>(half);
        const std::size_t high = QUERN_DISPATCH(arg_max<T>(row, n));
        const std::size_t low = QUERN_DISPATCH(arg_min<T>(row, n));
        const bool positive = !(row[high] < -row[low]);
        buckets[static_cast<std::size_t>(round * length + begin + i)] =
            static_cast<std::int32_t>(positive ? high : n + low);
      }
    }
  }
}

/// Sorts the positions of each round by bucket and cuts them into chunks: tasks of a chunk's
/// queries with its own keys and those of the chunk before, the last of all before the first.
template <class T>
void lsh_plan(typename LshSaved<T>::Head& head, Index length, Index rounds, Index buckets,
              Index size, const std::shared_ptr<SparseBounds>& bounds) {
  const Index last_size = length > 0 ? (length - 1) % size + 1 : 0;
  head.ids.assign(static_cast<std::size_t>(last_size + rounds * length), 0);
  head.rounds.assign(static_cast<std::size_t>(rounds), SparseRound{});
  std::vector<Index> place(static_cast<std::size_t>(buckets) + 1);
  for (Index r = 0; r < rounds; ++r) {
    const std::int32_t* const bucket = head.buckets.data() + r * length;
    std::fill(place.begin(), place.end(), 0);
    for (Index i = 0; i < length; ++i) ++place[static_cast<std::size_t>(bucket[i]) + 1];
    for (std::size_t b = 1; b < place.size(); ++b) place[b] += place[b - 1];
    const Index begin = last_size + r * length;
    for (Index i = 0; i < length; ++i) {
      const Index to = begin + place[static_cast<std::size_t>(bucket[i])]++;
      head.ids[static_cast<std::size_t>(to)] = i;
    }
    SparseRound& round = head.rounds[static_cast<std::size_t>(r)];
    round.bounds = bounds;
    Index before = r == 0 || length <= size ? last_size : (length - 1) % size + 1;
    for (Index at = 0; at < length; at += size) {
      const Index count = (std::min)(size, length - at);
      for (Index q = 0; q < count; q += SparsePlan::task_size) {
        round.tasks.push_back({0, (std::min)(SparsePlan::task_size, count - q), begin + at + q, 0,
                               before + count, begin + at - before});
      }
      before = count;
    }
  }
  // What comes before the first chunk.
  std::copy_n(head.ids.end() - last_size, last_size, head.ids.begin());
}

/// y = x / max(|x|, 1e-12), and that length, a row.
template <class T>
void unit_rows(MatrixView<const T> x, MatrixView<T> y, T* lengths) {
  row_products<T>(x, x, lengths);
  for (Index i = 0; i < x.rows(); ++i) {
    lengths[i] = (std::max)(std::sqrt(lengths[i]), T(1e-12));
    std::copy_n(x.row_data(i), x.cols(), y.row_data(i));
    scale_row(T{1} / lengths[i], y.row_data(i), x.cols());
  }
}

/// dx += the gradient of unit_rows: (dy - y (y . dy)) / |x|.
template <class T>
void unit_rows_vjp(MatrixView<const T> y, const T* lengths, MatrixView<const T> dy,
                   MatrixView<T> dx) {
  for (Index i = 0; i < y.rows(); ++i) {
    const auto n = static_cast<std::size_t>(y.cols());
    const T along =
        static_cast<T>(QUERN_DISPATCH(dot<T>(y.row_data(i), dy.row_data(i), n))) / lengths[i];
    QUERN_DISPATCH(axpy<T>(T{1} / lengths[i], dy.row_data(i), n, dx.row_data(i)));
    QUERN_DISPATCH(axpy<T>(-along, y.row_data(i), n, dx.row_data(i)));
  }
}

/// Checked arguments of both passes, with keys of length 1.
template <class T>
struct LshCall {
  InputRows<T, 4> qk, v;
  NdArray<T, 4> keys;
  NdArray<T, 3> lengths;
  BlockInputs<T> in;

  LshCall(const char* function, const NdView<const T, 4>& given_qk,
          const NdView<const T, 4>& given_v, const LshOptions<T>& options)
      : qk(given_qk), v(given_v) {
    const NdView<const T, 4> q = qk.view();
    check_attention<T>(function, q, q, v.view(), options.lengths);
    expect_in_range<Index>(function, "bucket_size", options.bucket_size, 1, Index{1} << 30);
    keys = NdArray<T, 4>(q.extents(), core::Fill::none);
    lengths = NdArray<T, 3>({q.extent(0), q.extent(1), q.extent(2)}, core::Fill::none);
    in.q = q, in.k = keys.view(), in.v = v.view();
    in.scale = logit_scale(options.scale, q.extent(3));
    in.replace_self = true, in.self_logit = T(-5e4);
    in.lengths = options.lengths, in.threads = options.threads;
    if (q.extent(2) == 0) return;
    parallel_for(
        q.extent(0) * q.extent(1),
        [&](Index u) {
          const Index b = u / q.extent(1), h = u % q.extent(1);
          unit_rows<T>(q.subview(b).subview(h), keys.view().subview(b).subview(h),
                       &lengths(b, h, 0));
        },
        options.threads);
  }
};

/// Every sequence of a packed row by itself: see below.
template <class T>
void lsh_packed(const char* function, NdView<const T, 4> qk, NdView<const T, 4> v,
                NdView<const T, 3> rotations, NdView<T, 4> out, const LshOptions<T>& options,
                LshSaved<T>* saved);
template <class T>
void lsh_packed_vjp(const char* function, NdView<const T, 4> qk, NdView<const T, 4> v,
                    NdView<const T, 4> out, const LshSaved<T>& saved, NdView<const T, 4> dout,
                    NdView<T, 4> dqk, NdView<T, 4> dv, const LshOptions<T>& options);

}  // namespace detail

/// Attention of qk (batch, heads, length, dim) to itself with values v (batch, heads, length,
/// value_dim); rotations (dim, rounds, buckets / 2) are those of lsh_rotations. Any length and any
/// strides; out (batch, heads, length, value_dim) is overwritten. Not causal in the strict sense
/// even where `causal` hides later keys: later positions move what falls into one chunk. ShapeError
/// where extents do not fit.
template <class T>
void lsh_attention(detail::SparseInput<T> qk, detail::SparseInput<T> v,
                   std::type_identity_t<NdView<const T, 3>> rotations, NdView<T, 4> out,
                   const std::type_identity_t<LshOptions<T>>& options = {},
                   std::type_identity_t<LshSaved<T>>* saved = nullptr) {
  constexpr const char* function = "quern::attention::lsh_attention";
  if (!options.cumulative.empty()) {
    return detail::lsh_packed<T>(function, qk, v, rotations, out, options, saved);
  }
  detail::LshCall<T> call(function, qk, v, options);
  const Index batch = qk.extent(0), heads = qk.extent(1), length = qk.extent(2);
  expect_shape(function, "rotations", rotations,
               {qk.extent(3), rotations.extent(1), rotations.extent(2)});
  if (length > 0 && (rotations.extent(1) < 1 || rotations.extent(2) < 1)) {
    throw ShapeError(error_text(function, "rotations", "at least one round and two buckets",
                                shape_text(rotations.extents())));
  }
  expect_shape(function, "out", out, {batch, heads, length, v.extent(3)});
  expect_apart(function, "out", out, "qk", qk);
  expect_apart(function, "out", out, "v", v);
  const NdArray<T, 3> turns(rotations);
  LshSaved<T> own;
  LshSaved<T>& s = saved != nullptr ? *saved : own;
  s.heads.assign(static_cast<std::size_t>(batch * heads), {});
  s.sums.largest.resize({batch, heads, length});
  s.sums.total.resize({batch, heads, length});
  const auto bounds = std::make_shared<SparseBounds>();
  bounds->lowest.assign(static_cast<std::size_t>(length), 0);
  for (Index i = 0; i < length; ++i) bounds->highest.push_back(options.causal ? i : length - 1);
  parallel_for(
      batch * heads,
      [&](Index u) {
        typename LshSaved<T>::Head& head = s.heads[static_cast<std::size_t>(u)];
        const Index b = u / heads;
        const Index count =
            options.lengths.empty() ? length : options.lengths[static_cast<std::size_t>(b)];
        detail::lsh_buckets<T>(call.qk.view().subview(b).subview(u % heads).slice(0, 0, count),
                               turns.view(), head.buckets);
        detail::lsh_plan<T>(head, count, turns.extent(1), 2 * turns.extent(2), options.bucket_size,
                            bounds);
      },
      options.threads);
  const detail::OutputRows<T, 4> out_rows(out);
  if (!options.lengths.empty()) detail::fill_elements<T, 4>(out_rows.view(), T{0});
  detail::block_attention_forward<T>(
      call.in,
      [&](Index b, Index h) {
        const auto& head = s.heads[static_cast<std::size_t>(b * heads + h)];
        return detail::BlockPlan<T>{&head.rounds, head.ids.data()};
      },
      out_rows.view(), s.sums.largest.view(), s.sums.total.view());
  out_rows.finish();
}

/// Gradients of lsh_attention, none through buckets and their order. dqk and dv are overwritten; a
/// null view leaves one out.
template <class T>
void lsh_attention_vjp(detail::SparseInput<T> qk, detail::SparseInput<T> v,
                       detail::SparseInput<T> out, const std::type_identity_t<LshSaved<T>>& saved,
                       detail::SparseInput<T> dout, std::type_identity_t<NdView<T, 4>> dqk,
                       std::type_identity_t<NdView<T, 4>> dv,
                       const std::type_identity_t<LshOptions<T>>& options = {}) {
  constexpr const char* function = "quern::attention::lsh_attention_vjp";
  if (!options.cumulative.empty()) {
    return detail::lsh_packed_vjp<T>(function, qk, v, out, saved, dout, dqk, dv, options);
  }
  detail::LshCall<T> call(function, qk, v, options);
  const Index batch = qk.extent(0), heads = qk.extent(1), length = qk.extent(2);
  const Shape<4> shape = {batch, heads, length, v.extent(3)};
  expect_shape(function, "out", out, shape);
  expect_shape(function, "dout", dout, shape);
  expect_size(function, "saved", static_cast<Index>(saved.heads.size()), batch * heads, "heads");
  if (!dqk.is_null()) expect_shape(function, "dqk", dqk, qk.extents());
  if (!dv.is_null()) expect_shape(function, "dv", dv, v.extents());
  const detail::InputRows<T, 4> out_rows(out), dout_rows(dout);
  const detail::OutputRows<T, 4> dqk_rows(dqk), dv_rows(dv);
  NdArray<T, 4> dk;
  if (!dqk.is_null()) dk = NdArray<T, 4>(qk.extents(), core::Fill::none);
  const auto plan = [&](Index b, Index h) {
    const auto& head = saved.heads[static_cast<std::size_t>(b * heads + h)];
    return detail::BlockPlan<T>{&head.rounds, head.ids.data()};
  };
  detail::BlockBackward<T, decltype(plan)>(
      call.in, plan, out_rows.view(), saved.sums.largest.view(), saved.sums.total.view(),
      dout_rows.view(), dqk_rows.view(), dqk.is_null() ? NdView<T, 4>() : dk.view(),
      dv_rows.view());
  if (!dqk.is_null() && length > 0) {
    parallel_for(
        batch * heads,
        [&](Index u) {
          const Index b = u / heads, h = u % heads;
          detail::unit_rows_vjp<T>(call.in.k.subview(b).subview(h), &call.lengths(b, h, 0),
                                   dk.view().subview(b).subview(h),
                                   dqk_rows.view().subview(b).subview(h));
        },
        options.threads);
  }
  dqk_rows.finish();
  dv_rows.finish();
}

namespace detail {

template <class T>
void lsh_packed(const char* function, NdView<const T, 4> qk, NdView<const T, 4> v,
                NdView<const T, 3> rotations, NdView<T, 4> out, const LshOptions<T>& options,
                LshSaved<T>* saved) {
  check_attention<T>(function, qk, qk, v, {});
  const PackedRow row(function, qk.extent(0), qk.extent(2), options.cumulative,
                      !options.lengths.empty());
  expect_shape(function, "out", out, {1, qk.extent(1), qk.extent(2), v.extent(3)});
  LshOptions<T> each = options;
  each.cumulative = {};
  if (saved != nullptr) {
    *saved = {};
    saved->parts.resize(row.size());
  }
  clear_gaps(row.spans(), out);
  row.for_each([&](std::size_t s, Index first, Index n) {
    lsh_attention<T>(qk.slice(2, first, n), v.slice(2, first, n), rotations, out.slice(2, first, n),
                     each, saved != nullptr ? &saved->parts[s] : nullptr);
  });
}

template <class T>
void lsh_packed_vjp(const char* function, NdView<const T, 4> qk, NdView<const T, 4> v,
                    NdView<const T, 4> out, const LshSaved<T>& saved, NdView<const T, 4> dout,
                    NdView<T, 4> dqk, NdView<T, 4> dv, const LshOptions<T>& options) {
  check_attention<T>(function, qk, qk, v, {});
  const PackedRow row(function, qk.extent(0), qk.extent(2), options.cumulative,
                      !options.lengths.empty());
  const Shape<4> shape{1, qk.extent(1), qk.extent(2), v.extent(3)};
  expect_shape(function, "out", out, shape);
  expect_shape(function, "dout", dout, shape);
  expect_size(function, "saved", static_cast<Index>(saved.parts.size()),
              static_cast<Index>(row.size()), "sequences");
  if (!dqk.is_null()) expect_shape(function, "dqk", dqk, qk.extents());
  if (!dv.is_null()) expect_shape(function, "dv", dv, v.extents());
  LshOptions<T> each = options;
  each.cumulative = {};
  clear_gaps(row.spans(), dqk);
  clear_gaps(row.spans(), dv);
  row.for_each([&](std::size_t s, Index first, Index n) {
    const auto part = [&](const auto& x) { return packed_part(x, 2, first, n); };
    lsh_attention_vjp<T>(part(qk), part(v), part(out), saved.parts[s], part(dout), part(dqk),
                         part(dv), each);
  });
}

}  // namespace detail

}  // namespace attention
QUERN_NAMESPACE_END

#endif  // QUERN_ATTENTION_LSH_HPP
