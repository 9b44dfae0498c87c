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

/// c (+)= a b; with `turned`, a^T b.
template <class T>
void padded_product(simd::Level level, const T* a, Index a_stride, bool turned, const Padded<T>& b,
                    Index rows, Index depth, Padded<T>& c, bool add, Index c_row = 0,
                    Index b_row = 0) {
  kernels::TileProduct<T> p;
  p.rows = rows, p.depth = depth, p.cols = c.stride;
  p.a = a;
  p.a_row_stride = turned ? 1 : a_stride;
  p.a_depth_stride = turned ? a_stride : 1;
  p.b = b.row(b_row), p.b_stride = b.stride;
  p.c = c.row(c_row), p.c_stride = c.stride;
  p.add = add;
  QUERN_DISPATCH_AT(level, tile_product<T>(p));
}

inline constexpr Index full_tile = 128;

/// Sum of phi(k) [v, 1]^T over all keys, and the largest scale of the keys' features.
template <class T>
struct KeySums {
  Padded<T> sums;  ///< (features, value_dim + 1 where normalised)
  T level{};

  KeySums(simd::Level simd, const kernels::TileLayout& layout, const LinearHead<T>& head)
      : sums(layout, head.features(), head.v.cols() + (head.normalise ? 1 : 0)) {
    const Index keys = head.k.rows(), m = head.features();
    const bool scaled = head.key_map.scaled();
    Padded<T> phi(layout, full_tile, m), v(layout, full_tile, sums.cols);
    core::Buffer<T> scales(static_cast<std::size_t>(scaled ? keys : 0));
    const FeatureRows<T> features(head.k, head.key_map, 0, head.normalise,
                                  scaled ? scales.data() : nullptr);
    const TimelineRows<T> values(head.v, 0, head.normalise);
    level = scaled ? -std::numeric_limits<T>::infinity() : T{0};
    for (Index t = 0; t < keys; t += full_tile) {
      const Index count = (std::min)(full_tile, keys - t);
      features.load(t, count, 0, m, phi.data(), phi.stride);
      values.load(t, count, 0, sums.cols, v.data(), v.stride);
      if (scaled) rescale(scales.data() + t, count, phi);
      padded_product(simd, phi.data(), phi.stride, true, v, m, count, sums, true);
    }
  }

 private:
  /// Brings the sums and the new features to one level.
  void rescale(const T* scales, Index count, Padded<T>& phi) {
    T now = level;
    for (Index s = 0; s < count; ++s) now = (std::max)(now, scales[s]);
    if (now == -std::numeric_limits<T>::infinity()) return;
    const auto apply = [](T* x, Index n, T log_factor) {
      const T factor = static_cast<T>(std::exp(static_cast<double>(log_factor)));
      QUERN_DISPATCH(scale<T>(factor, x, static_cast<std::size_t>(n), x));
    };
    if (now != level) apply(sums.data(), sums.rows * sums.stride, level - now);
    for (Index s = 0; s < count; ++s) apply(phi.row(s), phi.cols, scales[s] - now);
    level = now;
  }
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
  for (Index i = 0; i < queries; i += full_tile) {
    const Index count = (std::min)(full_tile, queries - i);
    features.load(i, count, 0, m, phi.data(), phi.stride);
    padded_product(level, phi.data(), phi.stride, false, keys.sums, count, m, tile, false);
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
    padded_product(level, phi.data(), phi.stride, false, turned, count, m, scores, false);
    padded_product(level, scores.data(), scores.stride, false, v, count, keys, tile, false);
    sink.store(i, count, 0, dv, tile.data(), tile.stride);
  }
}

/// One query head's part of the gradients; `keys` are sums of its keys.
template <class T>
void linear_full_vjp(simd::Level level, const LinearHead<T>& head, const KeySums<T>& keys,
                     MatrixView<const T> out, MatrixView<const T> dout, const T* normalisers,
                     Padded<T>& dsums, MatrixView<T> dq) {
  const kernels::TileLayout layout = QUERN_DISPATCH_AT(level, tile_layout<T>());
  const Index queries = head.q.rows(), m = head.features(), values = keys.sums.cols;
  Padded<T> turned(layout, values, m);
  for (Index r = 0; r < m; ++r) {
    for (Index c = 0; c < values; ++c) turned.row(c)[r] = keys.sums.row(r)[c];
  }
  // Tile by tile: arrays as long as the queries would leave the cache.
  Padded<T> phi(layout, full_tile, m), dy(layout, full_tile, values), tile(layout, full_tile, m);
  const FeatureRows<T> features(head.q, head.query_map, 0, head.normalise);
  LinearHead<T> part = head;
  part.offset = 0;
  for (Index i = 0; i < queries; i += full_tile) {
    const Index count = (std::min)(full_tile, queries - i);
    part.q = head.q.slice(0, i, count);
    features.load(i, count, 0, m, phi.data(), phi.stride);
    linear_output_gradient<T>(part, out.is_null() ? out : out.slice(0, i, count),
                              dout.slice(0, i, count), normalisers + i, count, dy.data(),
                              dy.stride);
    padded_product(level, phi.data(), phi.stride, true, dy, m, count, dsums, true);
    padded_product(level, dy.data(), dy.stride, false, turned, count, values, tile, false);
    feature_vjp(part.q, head.query_map, 0, phi.data(), tile.data(),
                dq.is_null() ? dq : dq.slice(0, i, count), phi.stride);
  }
}

/// dk and dv from the gradient by the sums.
template <class T>
void linear_full_key_vjp(simd::Level level, const LinearHead<T>& head, const KeySums<T>& keys,
                         const Padded<T>& dsums, MatrixView<T> dk, MatrixView<T> dv) {
  const kernels::TileLayout layout = QUERN_DISPATCH_AT(level, tile_layout<T>());
  const Index n = head.k.rows(), m = head.features(), values = dsums.cols;
  Padded<T> turned(layout, values, m), tile_v(layout, full_tile, values);
  for (Index r = 0; r < m; ++r) {
    for (Index c = 0; c < values; ++c) turned.row(c)[r] = dsums.row(r)[c];
  }
  core::Buffer<T> scales(static_cast<std::size_t>(head.key_map.scaled() ? n : 0));
  const FeatureRows<T> features(head.k, head.key_map, 0, head.normalise, scales.data());
  const TimelineRows<T> rows(head.v, 0, head.normalise);
  Padded<T> phi(layout, full_tile, m), tile_k(layout, full_tile, m);
  Padded<T> tile_dv(layout, full_tile, values);
  for (Index t = 0; t < n; t += full_tile) {
    const Index count = (std::min)(full_tile, n - t);
    features.load(t, count, 0, m, phi.data(), phi.stride);
    for (Index s = 0; s < count && !scales.empty(); ++s) {
      const double apart =
          static_cast<double>(scales[static_cast<std::size_t>(t + s)] - keys.level);
      QUERN_DISPATCH(scale<T>(static_cast<T>(std::exp(apart)), phi.row(s),
                              static_cast<std::size_t>(m), phi.row(s)));
    }
    rows.load(t, count, 0, values, tile_v.data(), tile_v.stride);
    padded_product(level, tile_v.data(), tile_v.stride, false, turned, count, values, tile_k,
                   false);
    padded_product(level, phi.data(), phi.stride, false, dsums, count, m, tile_dv, false);
    if (!dv.is_null()) copy_rows(tile_dv.data(), tile_dv.stride, dv.slice(0, t, count));
    feature_vjp(head.k.slice(0, t, count), head.key_map, 0, phi.data(), tile_k.data(),
                dk.is_null() ? dk : dk.slice(0, t, count), phi.stride);
  }
}

}  // namespace attention::detail
QUERN_NAMESPACE_END

#endif  // QUERN_ATTENTION_DETAIL_LINEAR_FULL_HPP
