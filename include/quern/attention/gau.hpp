// SPDX-License-Identifier: Apache-2.0

/// \file
/// The gated attention unit, forward, backward and one token at a time: one head, one projection
/// for queries and keys, values and gates of an expanded dimension. It stands for attention and
/// feed-forward layer together. W. Hua et al., "Transformer quality in linear time"
/// (arXiv:2202.10447); softmax-plus is J. Su's GAU-alpha. Quadratic in the length: flash.hpp is
/// not.

#ifndef QUERN_ATTENTION_GAU_HPP
#define QUERN_ATTENTION_GAU_HPP

#include "quern/attention/detail/gated_front.hpp"
#include "quern/attention/detail/gated_packed.hpp"
#include "quern/attention/detail/gated_tiles.hpp"
#include "quern/attention/gated_unit.hpp"
#include "quern/attention/relative_bias.hpp"
#include "quern/attention/sparse.hpp"
#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace attention {
namespace detail {

/// GAU's attention, what is the same for all rows of a batch.
template <class T>
class GauCore {
 public:
  /// Keys of a tile, at most.
  static constexpr Index key_cols = 512;

  GauCore(const char* function, const GatedShape& s, Index keys, const NdView<const T, 1>& table,
          const GatedUnitOptions<T>& options)
      : function_(function), s_(s), keys_(keys), options_(options) {
    const Index divisor = options.length_scale > 0 ? options.length_scale : keys;
    if (options.length_scale < 0) {
      throw ValueError(error_text(function, "length_scale", "0 or more", options.length_scale));
    }
    if (options.window < -1) {
      throw ValueError(error_text(function, "window", "-1 or more", options.window));
    }
    if (options.window >= 0) left_ = right_ = options.window;
    if (options.causal) right_ = 0;
    const bool placed = left_ < AttentionShape::unbounded || right_ < AttentionShape::unbounded;
    if (placed && s.length != keys && !options.causal_offset.has_value()) {
      throw ValueError(error_text(function, "causal_offset",
                                  "a value, since queries and keys are not equally many", "none"));
    }
    offset_ = options.causal_offset.value_or(0);
    expect_in_range<Index>(function, "causal_offset", offset_, -AttentionShape::unbounded,
                           AttentionShape::unbounded);
    scale_ = static_cast<T>(1.0 / static_cast<double>((std::max)(divisor, Index{1})));
    const bool softmax = options.activation == GateActivation::softmax_plus;
    if (softmax && (!table.is_null() || !options.mask.is_null())) {
      throw ValueError(error_text(function, "activation",
                                  "one with weights of its own where there is a relative bias or "
                                  "a mask (lengths it takes)",
                                  "softmax_plus"));
    }
    if (table.is_null()) return;
    bias_factor_ = std::sqrt(static_cast<double>(s.dim)) * static_cast<double>(scale_);
    bias_ = bias_by_distance<T>(table, s.length, options.causal, static_cast<T>(bias_factor_),
                                function);
  }

  /// q (batch, length, s), k (batch, keys, s), v (batch, keys, e), out (batch, length, e), adjacent
  /// columns.
  void forward(NdView<const T, 3> q, NdView<const T, 3> k, NdView<const T, 3> v, NdView<T, 3> out,
               SparseSaved<T>& saved) const {
    if (options_.activation == GateActivation::softmax_plus) {
      const NdArray<T, 3> scaled = scale_queries(q);
      sparse_attention<T>(one_head<const T>(scaled.view()), one_head(k), one_head(v), one_head(out),
                          softmax_pattern(), softmax_options(), &saved);
      return;
    }
    const Index query_rows = tile_rows();
    const Index blocks = block_count(s_.length, query_rows);
    parallel_for(
        s_.batch * blocks,
        [&](Index unit) {
          const Index b = unit / blocks;
          const BlockRange i = block_range(s_.length, query_rows, unit % blocks);
          GatedTiles<T> tiles(inputs(b, q, k, v));
          const MatrixView<T> to = out.subview(b).slice(0, i.begin, i.size());
          const Seen seen = seen_by(i.begin, i.end, keys_);
          if (seen.low == seen.high) fill_elements<T, 2>(to, T{0});
          for (Index j = seen.low; j < seen.high; j += key_cols) {
            tiles.forward(i.begin, i.size(), j, (std::min)(key_cols, seen.high - j), to,
                          j == seen.low ? T{0} : T{1});
          }
        },
        options_.threads);
  }

  /// Gradients are overwritten; dtable is added to.
  void backward(NdView<const T, 3> q, NdView<const T, 3> k, NdView<const T, 3> v,
                NdView<const T, 3> out, const SparseSaved<T>& saved, NdView<const T, 3> dout,
                NdView<T, 3> dq, NdView<T, 3> dk, NdView<T, 3> dv, NdView<T, 1> dtable) const {
    if (options_.activation == GateActivation::softmax_plus) {
      const NdArray<T, 3> scaled = scale_queries(q);
      sparse_attention_vjp<T>(one_head<const T>(scaled.view()), one_head(k), one_head(v),
                              one_head(out), saved, one_head(dout), one_head(dq), one_head(dk),
                              one_head(dv), softmax_pattern(), softmax_options());
      scale_rows(dq);
      return;
    }
    for (const NdView<T, 3>* g : {&dq, &dk, &dv}) fill_elements<T, 3>(*g, T{0});
    const bool wants_bias = !bias_.empty() && !dtable.is_null();
    const Index query_rows = tile_rows();
    NdArray<double, 2> dbias({s_.batch, wants_bias ? 2 * s_.length - 1 : 0});
    parallel_for(
        s_.batch,
        [&](Index b) {
          GatedTiles<T> tiles(inputs(b, q, k, v));
          const TileGradients<T> g{dq.subview(b), dk.subview(b), dv.subview(b),
                                   wants_bias ? &dbias(b, s_.length - 1) : nullptr};
          for (Index i = 0; i < s_.length; i += query_rows) {
            const Index rows = (std::min)(query_rows, s_.length - i);
            const Seen seen = seen_by(i, i + rows, keys_);
            for (Index j = seen.low; j < seen.high; j += key_cols) {
              tiles.backward(i, rows, j, (std::min)(key_cols, seen.high - j),
                             dout.subview(b).slice(0, i, rows), g);
            }
          }
        },
        options_.threads);
    if (!wants_bias) return;
    for (Index b = 0; b < s_.batch; ++b) {
      add_bias_gradient<T>({&dbias(b, 0), static_cast<std::size_t>(2 * s_.length - 1)}, s_.length,
                           options_.causal, bias_factor_, dtable, function_);
    }
  }

 private:
  /// Queries of a tile: many make better products, few waste less above the diagonal.
  [[nodiscard]] Index tile_rows() const { return s_.length <= 1024 ? 64 : 256; }
  template <class Element>
  static NdView<Element, 4> one_head(const NdView<Element, 3>& x) {
    return {x.data(),
            {x.extent(0), 1, x.extent(1), x.extent(2)},
            {x.stride(0), 0, x.stride(1), x.stride(2)}};
  }
  [[nodiscard]] TileInputs<T> inputs(Index b, const NdView<const T, 3>& q,
                                     const NdView<const T, 3>& k,
                                     const NdView<const T, 3>& v) const {
    TileInputs<T> in{q.subview(b), k.subview(b), v.subview(b)};
    in.scale = scale_;
    in.bias = bias_.empty() ? nullptr : bias_.data() + (s_.length - 1);
    in.offset = offset_, in.left = left_, in.right = right_;
    in.activation = options_.activation;
    in.threads = options_.threads;
    return in;
  }

  [[nodiscard]] SparseOptions<T> softmax_options() const {
    return {.scale = T{1},
            .causal_offset = offset_,
            .lengths = options_.lengths,
            .threads = options_.threads};
  }
  [[nodiscard]] SparsePattern softmax_pattern() const {
    return options_.window < 0 ? SparsePattern::dense(options_.causal)
                               : SparsePattern::window_global(options_.window, 0, options_.causal);
  }
  /// Keys [low, high) of which queries [begin, end) see some.
  struct Seen {
    Index low, high;
  };
  [[nodiscard]] Seen seen_by(Index begin, Index end, Index keys) const {
    const Index low = (std::clamp)(begin + offset_ - left_, Index{0}, keys);
    return {low, (std::clamp)(end + offset_ + right_, low, keys)};
  }
  /// Rows times log(l) / log(512) / sqrt(s), l the number of keys that a query sees.
  void scale_rows(const NdView<T, 3>& x) const {
    for (Index b = 0; b < s_.batch; ++b) {
      const Index keys =
          options_.lengths.empty() ? keys_ : options_.lengths[static_cast<std::size_t>(b)];
      for (Index t = 0; t < s_.length; ++t) {
        const Seen seen = seen_by(t, t + 1, keys);
        scale_row(softmax_plus_scale(seen.high - seen.low, s_.qk), &x(b, t, 0), s_.qk);
      }
    }
  }
  [[nodiscard]] NdArray<T, 3> scale_queries(const NdView<const T, 3>& q) const {
    NdArray<T, 3> scaled(q);
    if (s_.qk > 0) scale_rows(scaled.view());
    return scaled;
  }

 public:
  static T softmax_plus_scale(Index seen, Index dim) {
    const double l = static_cast<double>((std::max)(seen, Index{1}));
    return static_cast<T>(std::log(l) / (std::log(512.0) * std::sqrt(static_cast<double>(dim))));
  }

 private:
  const char* function_;
  GatedShape s_;
  Index keys_;
  const GatedUnitOptions<T>& options_;
  Index offset_ = 0, left_ = AttentionShape::unbounded, right_ = AttentionShape::unbounded;
  T scale_ = T{1};
  double bias_factor_ = 0;
  std::vector<T> bias_;
};

template <class T>
GatedShape core_shape(const char* function, const NdView<const T, 3>& q,
                      const NdView<const T, 3>& k, const NdView<const T, 3>& v,
                      const GatedUnitOptions<T>& options) {
  expect_shape(function, "k", k, {q.extent(0), k.extent(1), q.extent(2)});
  expect_shape(function, "v", v, {q.extent(0), k.extent(1), v.extent(2)});
  if (!options.lengths.empty() && options.activation != GateActivation::softmax_plus) {
    throw ValueError(error_text(function, "lengths",
                                "none: the weights of padding are zero where its values are",
                                options.lengths.size()));
  }
  return {q.extent(0), q.extent(1), q.extent(2), v.extent(2), q.extent(2), 2};
}

/// The sequences of a packed row of queries and keys.
template <class T>
GatedRow<T> core_row(const char* function, const NdView<const T, 3>& q, const NdView<const T, 3>& k,
                     const GatedUnitOptions<T>& options) {
  if (k.extent(1) != q.extent(1)) {
    throw ShapeError(
        error_text(function, "k",
                   "as many tokens as q where sequences are packed, " + std::to_string(q.extent(1)),
                   k.extent(1)));
  }
  return GatedRow<T>(function, q, options);
}
template <class T>
void resize_sums(SparseSaved<T>& sums, Index length) {
  for (NdArray<T, 3>* a : {&sums.largest, &sums.total}) a->resize({1, 1, length});
}

}  // namespace detail

/// GAU's attention by itself: out = f(q k^T / keys) v, or with softmax-plus. q (batch, length, s),
/// k (batch, keys, s), v (batch, keys, e), out (batch, length, e); any strides. Of the options it
/// reads causal, causal_offset (0 or more with softmax-plus), window, activation, length_scale,
/// lengths (softmax-plus only), cumulative (as many queries as keys) and threads. A query that sees
/// no key has output 0. ShapeError and ValueError for what does not fit.
template <class T>
void gated_attention(std::type_identity_t<NdView<const T, 3>> q,
                     std::type_identity_t<NdView<const T, 3>> k,
                     std::type_identity_t<NdView<const T, 3>> v, NdView<T, 3> out,
                     const std::type_identity_t<GatedUnitOptions<T>>& options = {},
                     std::type_identity_t<SparseSaved<T>>* saved = nullptr) {
  constexpr const char* function = "quern::attention::gated_attention";
  const detail::GatedShape s = detail::core_shape<T>(function, q, k, v, options);
  expect_shape(function, "out", out, {s.batch, s.length, s.expanded});
  if (!options.cumulative.empty()) {
    const detail::GatedRow<T> packed = detail::core_row<T>(function, q, k, options);
    packed.clear(out);
    SparseSaved<T> part;
    if (saved != nullptr) detail::resize_sums(*saved, s.length);
    packed.row.for_each([&](std::size_t, Index first, Index n) {
      const auto of = [&](const auto& x) { return x.slice(1, first, n); };
      gated_attention<T>(of(q), of(k), of(v), of(out), packed.each, &part);
      if (saved == nullptr || options.activation != GateActivation::softmax_plus) return;
      detail::copy_sums(part.largest, 0, saved->largest, first, n);
      detail::copy_sums(part.total, 0, saved->total, first, n);
    });
    return;
  }
  const detail::InputRows<T, 3> q_rows(q), k_rows(k), v_rows(v);
  const detail::OutputRows<T, 3> out_rows(out);
  SparseSaved<T> own;
  detail::GauCore<T>(function, s, k.extent(1), {}, options)
      .forward(q_rows.view(), k_rows.view(), v_rows.view(), out_rows.view(),
               saved != nullptr ? *saved : own);
  out_rows.finish();
}

/// Gradients of gated_attention, overwritten.
template <class T>
void gated_attention_vjp(std::type_identity_t<NdView<const T, 3>> q,
                         std::type_identity_t<NdView<const T, 3>> k,
                         std::type_identity_t<NdView<const T, 3>> v,
                         std::type_identity_t<NdView<const T, 3>> out,
                         const std::type_identity_t<SparseSaved<T>>& saved,
                         std::type_identity_t<NdView<const T, 3>> dout, NdView<T, 3> dq,
                         NdView<T, 3> dk, NdView<T, 3> dv,
                         const std::type_identity_t<GatedUnitOptions<T>>& options = {}) {
  constexpr const char* function = "quern::attention::gated_attention_vjp";
  const detail::GatedShape s = detail::core_shape<T>(function, q, k, v, options);
  expect_shape(function, "dout", dout, {s.batch, s.length, s.expanded});
  expect_shape(function, "dq", dq, q.extents());
  expect_shape(function, "dk", dk, k.extents());
  expect_shape(function, "dv", dv, v.extents());
  if (!options.cumulative.empty()) {
    const detail::GatedRow<T> packed = detail::core_row<T>(function, q, k, options);
    const bool softmax = options.activation == GateActivation::softmax_plus;
    for (const NdView<T, 3>* x : {&dq, &dk, &dv}) packed.clear(*x);
    packed.row.for_each([&](std::size_t, Index first, Index n) {
      const auto of = [&](const auto& x) { return x.slice(1, first, n); };
      SparseSaved<T> part;
      detail::resize_sums(part, n);
      if (softmax) detail::copy_sums(saved.largest, first, part.largest, 0, n);
      if (softmax) detail::copy_sums(saved.total, first, part.total, 0, n);
      gated_attention_vjp<T>(of(q), of(k), of(v), of(out), part, of(dout), of(dq), of(dk), of(dv),
                             packed.each);
    });
    return;
  }
  const detail::InputRows<T, 3> q_rows(q), k_rows(k), v_rows(v), out_rows(out), dout_rows(dout);
  const detail::OutputRows<T, 3> dq_rows(dq), dk_rows(dk), dv_rows(dv);
  detail::GauCore<T>(function, s, k.extent(1), {}, options)
      .backward(q_rows.view(), k_rows.view(), v_rows.view(), out_rows.view(), saved,
                dout_rows.view(), dq_rows.view(), dk_rows.view(), dv_rows.view(), {});
  for (const auto* rows : {&dq_rows, &dk_rows, &dv_rows}) rows->finish();
}

/// The unit: norm, projections, attention, gates, projection back, residual. x and out (batch,
/// length, dim), any strides; `saved` may be null. ShapeError where extents do not fit, ValueError
/// for options that contradict each other.
template <class T>
void gau(std::type_identity_t<NdView<const T, 3>> x,
         const std::type_identity_t<GatedUnitWeights<T>>& w, NdView<T, 3> out,
         const std::type_identity_t<GatedUnitOptions<T>>& options = {},
         std::type_identity_t<GatedUnitSaved<T>>* saved = nullptr) {
  constexpr const char* function = "quern::attention::gau";
  if (!options.cumulative.empty()) {
    return detail::gated_packed<T>(function, x, out, options, saved,
                                   [&](const auto& in, const auto& to, const auto& each,
                                       GatedUnitSaved<T>* part) { gau<T>(in, w, to, each, part); });
  }
  const detail::GatedShape s = detail::gated_shape<T>(function, x, w, 2, options);
  expect_shape(function, "out", out, x.extents());
  expect_apart(function, "out", out, "x", x);
  const detail::GauCore<T> core(function, s, s.length, w.bias_table, options);
  if (s.rows() == 0 || s.dim == 0) return;
  const detail::InputRows<T, 3, true> x_rows(x);
  const detail::OutputRows<T, 3, true> out_rows(out);
  GatedUnitSaved<T> own;
  GatedUnitSaved<T>& a = saved != nullptr ? *saved : own;
  detail::gated_front<T>(x_rows.view().data(), s, w, options, a);
  a.attended.resize({s.rows(), s.expanded}, core::Fill::none);
  const NdView<const T, 3> heads = a.heads.view();
  core.forward(detail::by_sequence<const T>(heads.subview(0), s),
               detail::by_sequence<const T>(heads.subview(1), s),
               detail::by_sequence<const T>(detail::gated_values(a), s),
               detail::by_sequence<T>(a.attended.view(), s), a.softmax);
  detail::gated_back<T>(x_rows.view().data(), s, w, options, a, out_rows.view().data());
  out_rows.finish();
}

/// Gradients of gau: dx is overwritten (a null view leaves it out), those of the weights are added
/// to (null views are left out). `saved` is what forward left.
template <class T>
void gau_vjp(std::type_identity_t<NdView<const T, 3>> x,
             const std::type_identity_t<GatedUnitWeights<T>>& w,
             const std::type_identity_t<GatedUnitSaved<T>>& saved,
             std::type_identity_t<NdView<const T, 3>> dout, NdView<T, 3> dx,
             const std::type_identity_t<GatedUnitGradients<T>>& g,
             const std::type_identity_t<GatedUnitOptions<T>>& options = {}) {
  constexpr const char* function = "quern::attention::gau_vjp";
  if (!options.cumulative.empty()) {
    return detail::gated_packed_vjp<T>(
        function, x, saved, dout, dx, options,
        [&](const auto& in, const auto& part, const auto& slope, const auto& to, const auto& each) {
          gau_vjp<T>(in, w, part, slope, to, g, each);
        });
  }
  const detail::GatedShape s = detail::gated_shape<T>(function, x, w, 2, options);
  detail::check_gated_arrays<T>(function, g, s, options.norm, false);
  expect_shape(function, "dout", dout, x.extents());
  if (!dx.is_null()) expect_shape(function, "dx", dx, x.extents());
  if (s.rows() == 0 || s.dim == 0) return;
  expect_shape(function, "saved", saved.attended.view(), {s.rows(), s.expanded});
  const detail::GauCore<T> core(function, s, s.length, w.bias_table, options);
  const detail::InputRows<T, 3, true> dout_rows(dout);
  NdArray<T, 3> own;
  if (dx.is_null()) own.resize(x.extents(), core::Fill::none);
  const detail::OutputRows<T, 3, true> dx_rows(dx.is_null() ? own.view() : dx);
  NdArray<T, 2> dattended({s.rows(), s.expanded}, core::Fill::none);
  NdArray<T, 2> dhidden({s.rows(), 2 * s.expanded}, core::Fill::none);
  NdArray<T, 3> dheads(saved.heads.extents(), core::Fill::none);
  detail::gated_back_vjp<T>(dout_rows.view().data(), s, w, options, saved, g, dattended, dhidden);
  const NdView<const T, 3> heads = saved.heads.view();
  core.backward(detail::by_sequence<const T>(heads.subview(0), s),
                detail::by_sequence<const T>(heads.subview(1), s),
                detail::by_sequence<const T>(detail::gated_values(saved), s),
                detail::by_sequence<const T>(saved.attended.view(), s), saved.softmax,
                detail::by_sequence<const T>(dattended.view(), s),
                detail::by_sequence<T>(dheads.view().subview(0), s),
                detail::by_sequence<T>(dheads.view().subview(1), s),
                detail::by_sequence<T>(dhidden.view().slice(1, 0, s.expanded), s), g.bias_table);
  detail::hide_tokens(s, options, dhidden, dheads);
  detail::gated_front_vjp<T>(s, w, options, saved, g, dheads, dhidden, dout_rows.view().data(),
                             dx_rows.view().data());
  dx_rows.finish();
}

}  // namespace attention
QUERN_NAMESPACE_END

#endif  // QUERN_ATTENTION_GAU_HPP
