// SPDX-License-Identifier: Apache-2.0

/// \file
/// Linear attention of one head where every query sees every key: two products. Q (K^T V) first
/// sums up keys and values, (Q K^T) V first makes the scores, which is cheaper for few of them.

#ifndef QUERN_ATTENTION_DETAIL_LINEAR_FULL_HPP
#define QUERN_ATTENTION_DETAIL_LINEAR_FULL_HPP

#include "quern/attention/detail/linear_causal.hpp"
#include "quern/attention/detail/linear_head.hpp"
#include "quern/core/buffer.hpp"
#include "quern/core/config.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/kernels/attention_types.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/kernels/linear_rows_types.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>

QUERN_NAMESPACE_BEGIN
namespace attention::detail {

/// A matrix in scratch memory whose rows are padded to whole vectors, with zeros.
template <class T>
struct Padded {
  Index rows = 0, cols = 0, stride = 0;
  core::Buffer<T> memory;

  Padded(const kernels::TileLayout& layout, Index r, Index c)
      : rows(r),
        cols(c),
        stride((c + layout.lanes - 1) / layout.lanes * layout.lanes),
        memory(static_cast<std::size_t>(r * stride), core::Fill::zero) {}
  [[nodiscard]] T* data() noexcept { return memory.data(); }
  [[nodiscard]] const T* data() const noexcept { return memory.data(); }
  [[nodiscard]] const T* row(Index i) const noexcept { return memory.data() + i * stride; }
  [[nodiscard]] T* row(Index i) noexcept { return memory.data() + i * stride; }
};

/// Rows in memory that are a right-hand operand: `cols` elements, a multiple of the lanes.
template <class T>
struct RowsAt {
  const T* data = nullptr;
  Index stride = 0, cols = 0;

  RowsAt() = default;
  RowsAt(const Padded<T>& x) : data(x.data()), stride(x.stride), cols(x.stride) {}
};

/// c (+)= a b; with `turned`, a^T b. Meanwhile it asks for `ahead` and `also`.
template <class T>
void padded_product(simd::Level level, const T* a, Index a_stride, bool turned, const RowsAt<T>& b,
                    Index rows, Index depth, Padded<T>& c, bool add,
                    const kernels::Ahead& ahead = {}, const kernels::Ahead& also = {}) {
  kernels::TileProduct<T> p;
  p.rows = rows, p.depth = depth, p.cols = (std::min)(b.cols, c.stride);
  p.a = a;
  p.a_row_stride = turned ? 1 : a_stride;
  p.a_depth_stride = turned ? a_stride : 1;
  p.b = b.data, p.b_stride = b.stride;
  p.c = c.data(), p.c_stride = c.stride;
  p.add = add;
  p.ahead[0] = ahead, p.ahead[1] = also;
  QUERN_DISPATCH_AT(level, tile_product<T>(p));
}

inline constexpr Index full_tile = 128;

/// `count` rows of `cols` elements, `stride` apart.
template <class T>
kernels::RowSet<T> row_set(const T* rows, Index stride, Index count, Index cols) {
  return {rows, stride, nullptr, static_cast<std::size_t>(count), static_cast<std::size_t>(cols)};
}

/// A sum of phi v^T over rows and that of phi itself, which as a column more of v would cost a
/// vector's worth of products; or gradients by these.
template <class T>
struct FeatureSums {
  Padded<T> sums;         ///< (features, value_dim)
  core::Buffer<T> total;  ///< (features), where normalised

  FeatureSums(const kernels::TileLayout& layout, const LinearHead<T>& head)
      : sums(layout, head.features(), head.v.cols()),
        total(static_cast<std::size_t>(head.normalise ? head.features() : 0), core::Fill::zero) {}

  /// (value_dim + 1 where normalised, features): the other way round, total at the end.
  [[nodiscard]] Padded<T> turned(const kernels::TileLayout& layout) const {
    Padded<T> to(layout, sums.cols + (total.empty() ? 0 : 1), sums.rows);
    for (Index r = 0; r < sums.rows; ++r) {
      for (Index c = 0; c < sums.cols; ++c) to.row(c)[r] = sums.row(r)[c];
    }
    if (!total.empty()) std::copy(total.begin(), total.end(), to.row(sums.cols));
    return to;
  }
};

/// Those of all keys.
template <class T>
struct KeySums : FeatureSums<T> {
  using FeatureSums<T>::sums;
  using FeatureSums<T>::total;
  T level{};  ///< the largest scale of the keys' features; sums are relative to e^ it

  KeySums(simd::Level simd, const kernels::TileLayout& layout, const LinearHead<T>& head)
      : FeatureSums<T>(layout, head), simd_(simd) {
    const Index keys = head.k.rows(), m = head.features();
    const bool scaled = head.key_map.scaled();
    Padded<T> phi(layout, full_tile, m), v(layout, full_tile, sums.cols);
    core::Buffer<T> scales(static_cast<std::size_t>(scaled ? keys : 0));
    const FeatureRows<T> features(head.k, head.key_map, 0, head.normalise,
                                  scaled ? scales.data() : nullptr);
    const TimelineRows<T> values(head.v, 0);
    level = scaled ? -std::numeric_limits<T>::infinity() : T{0};
    T weights[full_tile];
    std::fill_n(weights, full_tile, T{1});
    for (Index t = 0; t < keys; t += full_tile) {
      const Index count = (std::min)(full_tile, keys - t);
      features.load(t, count, 0, m, phi.data(), phi.stride);
      RowsAt<T> b(v);
      b.data = scaled ? nullptr : values.direct(t, count, 0, v.stride, b.stride);
      if (b.data == nullptr) {
        values.load(t, count, 0, sums.cols, v.data(), v.stride);
        b = v;
      }
      if (scaled) weigh(scales.data() + t, count, weights, v);
      const Index next = t + full_tile;
      padded_product<T>(simd, phi.data(), phi.stride, true, b, m, count, sums, true,
                        features.memory(next, full_tile), values.memory(next, full_tile));
      if (total.empty()) continue;
      QUERN_DISPATCH_AT(simd, add_vector_times_rows<T>(row_set(phi.data(), phi.stride, count, m),
                                                       weights, total.data()));
    }
  }

 private:
  /// Brings the sums to the level of them and these keys, and weighs the keys' values with what
  /// their features are to be multiplied by.
  void weigh(const T* scales, Index count, T* weights, Padded<T>& v) {
    T now = level;
    for (Index s = 0; s < count; ++s) now = (std::max)(now, scales[s]);
    if (now == -std::numeric_limits<T>::infinity()) return;
    const auto power = [](T x) { return static_cast<T>(std::exp(static_cast<double>(x))); };
    if (now != level) {
      const T factor = power(level - now);
      const auto apply = [&](T* x, std::size_t n) {
        QUERN_DISPATCH_AT(simd_, scale<T>(factor, x, n, x));
      };
      apply(sums.data(), static_cast<std::size_t>(sums.rows * sums.stride));
      apply(total.data(), total.size());
    }
    for (Index s = 0; s < count; ++s) weights[s] = power(scales[s] - now);
    QUERN_DISPATCH_AT(
        simd_, scale_rows<T>(static_cast<std::size_t>(count), static_cast<std::size_t>(v.stride),
                             weights, v.data(), v.stride, v.data(), v.stride));
    level = now;
  }

  simd::Level simd_;
};

/// Outputs of all queries by Q (K^T V).
template <class T>
void linear_full(simd::Level level, const LinearHead<T>& head, MatrixView<T> out, T* normalisers) {
  const kernels::TileLayout layout = QUERN_DISPATCH_AT(level, tile_layout<T>());
  const KeySums<T> keys(level, layout, head);
  const Index queries = head.q.rows(), m = head.features(), dv = head.v.cols();
  Padded<T> phi(layout, full_tile, m), tile(layout, full_tile, keys.sums.cols);
  core::Buffer<T> scales(static_cast<std::size_t>(head.query_map.scaled() ? queries : 0));
  const FeatureRows<T> features(head.q, head.query_map, 0, head.normalise, scales.data());
  core::Buffer<T> levels(static_cast<std::size_t>(head.key_map.scaled() ? queries : 0));
  std::fill(levels.begin(), levels.end(), keys.level);
  LinearSink<T> sink(head, out, dv, levels.data(), scales.data(), normalisers);
  T totals[full_tile];
  sink.totals = totals;
  for (Index i = 0; i < queries; i += full_tile) {
    const Index count = (std::min)(full_tile, queries - i);
    features.load(i, count, 0, m, phi.data(), phi.stride);
    const kernels::Ahead ahead = features.memory(i + full_tile, full_tile);
    padded_product<T>(level, phi.data(), phi.stride, false, keys.sums, count, m, tile, false,
                      ahead);
    if (head.normalise) {
      QUERN_DISPATCH_AT(level, rows_times_vector<T>(row_set<T>(phi.data(), phi.stride, count, m),
                                                    keys.total.data(), totals));
    }
    sink.store(i, count, 0, dv, tile.data(), tile.stride);
  }
}

/// The same by (Q K^T) V.
template <class T>
void linear_full_by_scores(simd::Level level, const LinearHead<T>& head, MatrixView<T> out,
                           T* normalisers) {
  const kernels::TileLayout layout = QUERN_DISPATCH_AT(level, tile_layout<T>());
  const Index queries = head.q.rows(), keys = head.k.rows(), m = head.features();
  const Index dv = head.v.cols(), values = dv + (head.normalise ? 1 : 0);
  Padded<T> phi_k(layout, keys, m), turned(layout, m, keys), v(layout, keys, values);
  FeatureRows<T>(head.k, head.key_map, 0, head.normalise)
      .load(0, keys, 0, m, phi_k.data(), phi_k.stride);
  TimelineRows<T>(head.v, 0, head.normalise).load(0, keys, 0, values, v.data(), v.stride);
  for (Index j = 0; j < keys; ++j) {
    for (Index c = 0; c < m; ++c) turned.row(c)[j] = phi_k.row(j)[c];
  }
  Padded<T> phi(layout, full_tile, m), scores(layout, full_tile, keys),
      tile(layout, full_tile, values);
  const FeatureRows<T> features(head.q, head.query_map, 0, head.normalise);
  LinearSink<T> sink(head, out, dv, nullptr, nullptr, normalisers);
  for (Index i = 0; i < queries; i += full_tile) {
    const Index count = (std::min)(full_tile, queries - i);
    features.load(i, count, 0, m, phi.data(), phi.stride);
    padded_product<T>(level, phi.data(), phi.stride, false, turned, count, m, scores, false);
    padded_product<T>(level, scores.data(), scores.stride, false, v, count, keys, tile, false);
    sink.store(i, count, 0, dv, tile.data(), tile.stride);
  }
}

/// One query head's part of the gradients; `keys` are sums of its keys.
template <class T>
void linear_full_vjp(simd::Level level, const LinearHead<T>& head, const KeySums<T>& keys,
                     MatrixView<const T> out, MatrixView<const T> dout, const T* normalisers,
                     FeatureSums<T>& dsums, MatrixView<T> dq) {
  const kernels::TileLayout layout = QUERN_DISPATCH_AT(level, tile_layout<T>());
  const Index queries = head.q.rows(), m = head.features(), dv = head.v.cols();
  const Padded<T> turned = keys.turned(layout);
  // Tile by tile: arrays as long as the queries would leave the cache.
  Padded<T> phi(layout, full_tile, m), dy(layout, full_tile, turned.rows),
      tile(layout, full_tile, m);
  const FeatureRows<T> features(head.q, head.query_map, 0, head.normalise);
  LinearHead<T> part = head;
  part.offset = 0;
  T slopes[full_tile];
  for (Index i = 0; i < queries; i += full_tile) {
    const Index count = (std::min)(full_tile, queries - i);
    part.q = head.q.slice(0, i, count);
    features.load(i, count, 0, m, phi.data(), phi.stride);
    linear_output_gradient<T>(part, out.is_null() ? out : out.slice(0, i, count),
                              dout.slice(0, i, count), normalisers + i, count, dy.data(),
                              dy.stride);
    const Index next = i + full_tile;
    padded_product<T>(level, phi.data(), phi.stride, true, dy, m, count, dsums.sums, true,
                      memory_of_rows(dout, next, full_tile), memory_of_rows(out, next, full_tile));
    if (head.normalise) {
      for (Index s = 0; s < count; ++s) slopes[s] = dy.row(s)[dv];
      QUERN_DISPATCH_AT(
          level, add_vector_times_rows<T>(row_set<T>(phi.data(), phi.stride, count, m), slopes,
                                          dsums.total.data()));
    }
    const kernels::Ahead queries_ahead = features.memory(next, full_tile);
    padded_product<T>(level, dy.data(), dy.stride, false, turned, count, turned.rows, tile, false,
                      queries_ahead);
    feature_vjp(part.q, head.query_map, 0, phi.data(), tile.data(),
                dq.is_null() ? dq : dq.slice(0, i, count), phi.stride);
  }
}

/// dk and dv from the gradient by the sums.
template <class T>
void linear_full_key_vjp(simd::Level level, const LinearHead<T>& head, const KeySums<T>& keys,
                         const FeatureSums<T>& dsums, MatrixView<T> dk, MatrixView<T> dv) {
  const kernels::TileLayout layout = QUERN_DISPATCH_AT(level, tile_layout<T>());
  const Index n = head.k.rows(), m = head.features(), width = head.v.cols();
  const Padded<T> turned = dsums.turned(layout);
  Padded<T> tile_v(layout, full_tile, turned.rows), tile_dv(layout, full_tile, width);
  core::Buffer<T> scales(static_cast<std::size_t>(head.key_map.scaled() ? n : 0));
  const FeatureRows<T> features(head.k, head.key_map, 0, head.normalise, scales.data());
  const TimelineRows<T> rows(head.v, 0, head.normalise);
  Padded<T> phi(layout, full_tile, m), tile_k(layout, full_tile, m);
  for (Index t = 0; t < n; t += full_tile) {
    const Index count = (std::min)(full_tile, n - t);
    features.load(t, count, 0, m, phi.data(), phi.stride);
    for (Index s = 0; s < count && !scales.empty(); ++s) {
      const double apart =
          static_cast<double>(scales[static_cast<std::size_t>(t + s)] - keys.level);
      QUERN_DISPATCH_AT(level, scale<T>(static_cast<T>(std::exp(apart)), phi.row(s),
                                        static_cast<std::size_t>(m), phi.row(s)));
    }
    rows.load(t, count, 0, turned.rows, tile_v.data(), tile_v.stride);
    padded_product<T>(level, tile_v.data(), tile_v.stride, false, turned, count, turned.rows,
                      tile_k, false, features.memory(t + full_tile, full_tile),
                      rows.memory(t + full_tile, full_tile));
    padded_product<T>(level, phi.data(), phi.stride, false, dsums.sums, count, m, tile_dv, false);
    if (!dv.is_null()) copy_rows(tile_dv.data(), tile_dv.stride, dv.slice(0, t, count));
    feature_vjp(head.k.slice(0, t, count), head.key_map, 0, phi.data(), tile_k.data(),
                dk.is_null() ? dk : dk.slice(0, t, count), phi.stride);
  }
}

}  // namespace attention::detail
QUERN_NAMESPACE_END

#endif  // QUERN_ATTENTION_DETAIL_LINEAR_FULL_HPP
