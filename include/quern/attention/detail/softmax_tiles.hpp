// SPDX-License-Identifier: Apache-2.0

/// \file
/// Softmax attention by tiles for one head of one sequence: forward, and the gradients of a range
/// of keys. T. Dao et al., "FlashAttention", NeurIPS 2022, with scores transposed
/// (attention_types.hpp).

#ifndef QUERN_ATTENTION_DETAIL_SOFTMAX_TILES_HPP
#define QUERN_ATTENTION_DETAIL_SOFTMAX_TILES_HPP

#include "quern/core/buffer.hpp"
#include "quern/core/config.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/kernels/attention_types.hpp"
#include "quern/kernels/kernels.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>

QUERN_NAMESPACE_BEGIN
namespace attention::detail {

inline constexpr double log2_e = 1.4426950408889634;
/// Keys of a tile; with 96 queries of 64 dimensions, everything stays in half a megabyte of L2.
inline constexpr Index key_tile = 64;
/// Below every score, yet finite: differences of such are numbers.
template <class T>
inline constexpr T score_floor = std::numeric_limits<T>::lowest() / 4;

/// One head of one sequence. Query i sees keys j with -left <= j - i - offset <= right.
template <class T>
struct SoftmaxHead {
  MatrixView<const T> q, k, v;
  T scale{};
  Index offset = 0, left = 0, right = 0;

  /// Keys that some query of [begin, end) sees.
  [[nodiscard]] Index first_key(Index begin) const {
    return (std::clamp)(begin + offset - left, Index{0}, k.rows());
  }
  [[nodiscard]] Index last_key(Index end) const {
    return (std::clamp)(end - 1 + offset + right + 1, Index{0}, k.rows());
  }
  /// Scores of keys [j, j + keys) for queries from i on.
  [[nodiscard]] kernels::ScoreTile<T> tile(Index i, Index queries, Index j, Index keys, Index cols,
                                           T* scores) const {
    kernels::ScoreTile<T> t;
    t.keys = keys;
    t.cols = cols;
    t.scores = scores;
    t.low = j - offset - right - i;
    t.high = j - offset + left - i + 1;
    t.masked = t.low + keys - 1 > 0 || t.high < queries;
    return t;
  }
};

inline Index round_up(Index n, Index multiple) { return (n + multiple - 1) / multiple * multiple; }

/// Rows as they lie where their elements are neighbours, else a copy of them.
template <class T>
class RowTile {
 public:
  RowTile(Index rows, Index cols) : own_(static_cast<std::size_t>(rows * cols)), cols_(cols) {}
  void set(const MatrixView<const T>& from) {
    if (from.last_stride_is_one()) {
      data_ = from.data();
      stride_ = from.row_stride();
      return;
    }
    for (Index r = 0; r < from.rows(); ++r) {
      for (Index c = 0; c < cols_; ++c) own_[static_cast<std::size_t>(r * cols_ + c)] = from(r, c);
    }
    data_ = own_.data();
    stride_ = cols_;
  }
  [[nodiscard]] const T* data() const noexcept { return data_; }
  [[nodiscard]] Index stride() const noexcept { return stride_; }

 private:
  core::Buffer<T> own_;
  Index cols_;
  const T* data_ = nullptr;
  Index stride_ = 0;
};

/// to[c][r] = scale * from(r, c), columns beyond the rows of `from` are zeros.
template <class T>
void transpose_rows(const MatrixView<const T>& from, T scale, Index cols, T* to) {
  const Index rows = from.rows();
  for (Index c = 0; c < from.cols(); ++c, to += cols) {
    const T* at = from.data() + c * from.col_stride();
    for (Index r = 0; r < rows; ++r, at += from.row_stride()) to[r] = scale * *at;
    std::fill(to + rows, to + cols, T{0});
  }
}

/// Forward for blocks of queries. Holds scratch memory of one thread.
template <class T>
class SoftmaxForward {
 public:
  SoftmaxForward(simd::Level level, Index queries, Index dim, Index value_dim)
      : level_(level),
        layout_(QUERN_DISPATCH_AT(level, tile_layout<T>())),
        dim_(dim),
        value_dim_(value_dim),
        cols_((std::min)(query_block(layout_),
                         round_up((std::max)(queries, Index{1}), layout_.lanes))),
        memory_(static_cast<std::size_t>((dim + value_dim + key_tile + 3) * cols_)),
        k_(key_tile, dim),
        v_(key_tile, value_dim) {
    q_ = memory_.data();
    out_ = q_ + dim * cols_;
    scores_ = out_ + value_dim * cols_;
    largest_ = scores_ + key_tile * cols_;
    sums_ = largest_ + cols_;
    correction_ = sums_ + cols_;
  }

  static Index query_block(const kernels::TileLayout& layout) {
    return 2 * layout.vectors * layout.lanes;
  }

  /// Queries [begin, end), as many as query_block() at most. log_sums (natural) may be null.
  void run(const SoftmaxHead<T>& head, Index begin, Index end, const MatrixView<T>& out,
           T* log_sums) {
    const Index queries = end - begin;
    const T factor = static_cast<T>(static_cast<double>(head.scale) * log2_e);
    transpose_rows(head.q.slice(0, begin, queries), factor, cols_, q_);
    std::fill_n(out_, value_dim_ * cols_, T{0});
    std::fill_n(largest_, cols_, score_floor<T>);
    std::fill_n(sums_, cols_, T{0});
    const Index last = head.last_key(end);
    for (Index j = head.first_key(begin); j < last; j += key_tile) {
      keys(head, begin, queries, j, (std::min)(key_tile, last - j));
    }
    store(begin, queries, out, log_sums);
  }

 private:
  void keys(const SoftmaxHead<T>& head, Index i, Index queries, Index j, Index count) {
    k_.set(head.k.slice(0, j, count));
    v_.set(head.v.slice(0, j, count));
    kernels::TileProduct<T> p;
    p.rows = count, p.cols = cols_, p.depth = dim_;
    p.a = k_.data(), p.a_row_stride = k_.stride(), p.a_depth_stride = 1;
    p.b = q_, p.b_stride = cols_;
    p.c = scores_, p.c_stride = cols_;
    QUERN_DISPATCH_AT(level_, tile_product<T>(p));
    const kernels::ScoreTile<T> tile = head.tile(i, queries, j, count, cols_, scores_);
    if (QUERN_DISPATCH_AT(level_, softmax_tile<T>(tile, largest_, sums_, correction_))) {
      QUERN_DISPATCH_AT(level_, scale_columns<T>(value_dim_, cols_, correction_, out_));
    }
    p.rows = value_dim_, p.depth = count;
    p.a = v_.data(), p.a_row_stride = 1, p.a_depth_stride = v_.stride();
    p.b = scores_;
    p.c = out_;
    p.add = true;
    QUERN_DISPATCH_AT(level_, tile_product<T>(p));
  }

  void store(Index begin, Index queries, const MatrixView<T>& out, T* log_sums) {
    for (Index i = 0; i < queries; ++i) {
      correction_[i] = sums_[i] == T{0} ? T{0} : T{1} / sums_[i];
      if (log_sums == nullptr) continue;
      const double sum = static_cast<double>(sums_[i]);
      log_sums[begin + i] =
          sums_[i] == T{0}
              ? -std::numeric_limits<T>::infinity()
              : static_cast<T>(static_cast<double>(largest_[i]) / log2_e + std::log(sum));
    }
    for (Index i = 0; i < queries; ++i) {
      T* const to = out.row_data(begin + i);
      for (Index c = 0; c < value_dim_; ++c) {
        to[c * out.col_stride()] = out_[c * cols_ + i] * correction_[i];
      }
    }
  }

  simd::Level level_;
  kernels::TileLayout layout_;
  Index dim_, value_dim_, cols_;
  core::Buffer<T> memory_;
  RowTile<T> k_, v_;
  T *q_ = nullptr, *out_ = nullptr, *scores_ = nullptr, *largest_ = nullptr, *sums_ = nullptr,
    *correction_ = nullptr;
};

/// Few queries, as in decode: a row of scores each, which is all that memory has to offer then.
template <class T>
void softmax_row(const SoftmaxHead<T>& head, Index i, core::Buffer<T>& scores, const T* q,
                 const MatrixView<T>& out, T* log_sums) {
  const Index first = head.first_key(i), last = head.last_key(i + 1), dim = head.v.cols();
  const Index keys = (std::max)(Index{0}, last - first);
  T* const to = out.row_data(i);
  for (Index c = 0; c < dim; ++c) to[c * out.col_stride()] = T{0};
  if (log_sums != nullptr) log_sums[i] = -std::numeric_limits<T>::infinity();
  if (keys == 0) return;
  if (static_cast<Index>(scores.size()) < keys + dim) {
    scores = core::Buffer<T>(static_cast<std::size_t>(2 * keys + dim));
  }
  T* const w = scores.data();
  T* const sum = w + keys;
  QUERN_DISPATCH(score_rows<T>(q, head.k.row_data(first), head.k.row_stride(), keys, head.k.cols(),
                               head.scale, w));
  if (log_sums != nullptr) {
    QUERN_DISPATCH(log_sum_exp_rows<T>(1, static_cast<std::size_t>(keys), w, keys, log_sums + i));
  }
  QUERN_DISPATCH(softmax_rows<T>(1, static_cast<std::size_t>(keys), w, keys, w, keys));
  std::fill_n(sum, dim, T{0});
  for (Index j = 0; j < keys; ++j) {
    QUERN_DISPATCH(axpy<T>(w[j], head.v.row_data(first + j), static_cast<std::size_t>(dim), sum));
  }
  for (Index c = 0; c < dim; ++c) to[c * out.col_stride()] = sum[c];
}

/// Gradients for keys [key_begin, key_end) of one key head, summed over its query heads.
template <class T>
class SoftmaxBackward {
 public:
  SoftmaxBackward(simd::Level level, Index queries, Index dim, Index value_dim, Index keys)
      : level_(level),
        layout_(QUERN_DISPATCH_AT(level, tile_layout<T>())),
        dim_(dim),
        value_dim_(value_dim),
        wide_(round_up(dim, layout_.lanes)),
        wide_value_(round_up(value_dim, layout_.lanes)),
        cols_((std::min)(SoftmaxForward<T>::query_block(layout_),
                         round_up((std::max)(queries, Index{1}), layout_.lanes))),
        memory_(static_cast<std::size_t>(
                    (2 * dim + value_dim + wide_ + wide_value_ + 2 * key_tile + 2) * cols_ +
                    keys * (wide_ + wide_value_)),
                core::Fill::zero),
        k_(key_tile, dim),
        v_(key_tile, value_dim) {
    T* at = memory_.data();
    const auto take = [&](Index size) {
      T* const here = at;
      at += size;
      return here;
    };
    q_turned_ = take(dim * cols_), dout_turned_ = take(value_dim * cols_), dq_ = take(dim * cols_);
    q_rows_ = take(wide_ * cols_), dout_rows_ = take(wide_value_ * cols_);
    scores_ = take(key_tile * cols_), gradients_ = take(key_tile * cols_);
    log_sums_ = take(cols_), means_ = take(cols_);
    dk_ = take(keys * wide_), dv_ = take(keys * wide_value_);
  }
  [[nodiscard]] Index block() const noexcept { return cols_; }

  /// Adds the part of queries [begin, end) to dk, dv, and sets (or adds to) their dq.
  void run(const SoftmaxHead<T>& head, Index begin, Index end, Index key_begin, Index key_end,
           const MatrixView<const T>& out, const MatrixView<const T>& dout, const T* log_sums,
           const MatrixView<T>& dq) {
    const Index queries = end - begin;
    const Index first = (std::max)(head.first_key(begin), key_begin);
    const Index last = (std::min)(head.last_key(end), key_end);
    std::fill_n(dq_, dim_ * cols_, T{0});
    if (first >= last) return store_queries(begin, queries, dq);
    const MatrixView<const T> q = head.q.slice(0, begin, queries);
    const MatrixView<const T> dy = dout.slice(0, begin, queries);
    transpose_rows(q, static_cast<T>(static_cast<double>(head.scale) * log2_e), cols_, q_turned_);
    transpose_rows(dy, T{1}, cols_, dout_turned_);
    copy_rows(q, wide_, q_rows_);
    copy_rows(dy, wide_value_, dout_rows_);
    for (Index i = 0; i < queries; ++i) {
      double mean = 0;
      for (Index c = 0; c < value_dim_; ++c) {
        mean += static_cast<double>(dy(i, c)) * static_cast<double>(out(begin + i, c));
      }
      means_[i] = static_cast<T>(mean);
      const T l = log_sums[begin + i];
      // A query without keys: a finite value whose weights are 0.
      log_sums_[i] = l == -std::numeric_limits<T>::infinity()
                         ? -score_floor<T>
                         : static_cast<T>(static_cast<double>(l) * log2_e);
    }
    // Lanes beyond the queries must have no weight.
    std::fill(log_sums_ + queries, log_sums_ + cols_, -score_floor<T>);
    std::fill(means_ + queries, means_ + cols_, T{0});
    for (Index j = first; j < last; j += key_tile) {
      keys(head, begin, queries, j, (std::min)(key_tile, last - j), key_begin);
    }
    store_queries(begin, queries, dq);
  }

  /// Writes what was summed up for the keys.
  void store(const MatrixView<T>& dk, const MatrixView<T>& dv) const {
    for (Index j = 0; j < dk.rows() && !dk.is_null(); ++j) {
      for (Index c = 0; c < dim_; ++c) dk(j, c) = dk_[j * wide_ + c];
    }
    for (Index j = 0; j < dv.rows() && !dv.is_null(); ++j) {
      for (Index c = 0; c < value_dim_; ++c) dv(j, c) = dv_[j * wide_value_ + c];
    }
  }

 private:
  static void copy_rows(const MatrixView<const T>& from, Index stride, T* to) {
    for (Index r = 0; r < from.rows(); ++r, to += stride) {
      for (Index c = 0; c < from.cols(); ++c) to[c] = from(r, c);
    }
  }

  void store_queries(Index begin, Index queries, const MatrixView<T>& dq) const {
    if (dq.is_null()) return;
    for (Index i = 0; i < queries; ++i) {
      T* const to = dq.row_data(begin + i);
      for (Index c = 0; c < dim_; ++c) to[c * dq.col_stride()] = dq_[c * cols_ + i];
    }
  }

  void keys(const SoftmaxHead<T>& head, Index i, Index queries, Index j, Index count,
            Index key_begin) {
    k_.set(head.k.slice(0, j, count));
    v_.set(head.v.slice(0, j, count));
    // Scores, and the gradient by the weights.
    kernels::TileProduct<T> p;
    p.rows = count, p.cols = cols_, p.depth = dim_;
    p.a = k_.data(), p.a_row_stride = k_.stride(), p.a_depth_stride = 1;
    p.b = q_turned_, p.b_stride = cols_;
    p.c = scores_, p.c_stride = cols_;
    QUERN_DISPATCH_AT(level_, tile_product<T>(p));
    p.depth = value_dim_;
    p.a = v_.data(), p.a_row_stride = v_.stride();
    p.b = dout_turned_;
    p.c = gradients_;
    QUERN_DISPATCH_AT(level_, tile_product<T>(p));
    const kernels::ScoreTile<T> tile = head.tile(i, queries, j, count, cols_, scores_);
    QUERN_DISPATCH_AT(level_, softmax_tile_vjp<T>(tile, log_sums_, means_, head.scale, gradients_));
    // dq += k^T gradients, dv += weights dout, dk += gradients q.
    p.add = true;
    p.rows = dim_, p.depth = count;
    p.a = k_.data(), p.a_row_stride = 1, p.a_depth_stride = k_.stride();
    p.b = gradients_;
    p.c = dq_;
    QUERN_DISPATCH_AT(level_, tile_product<T>(p));
    p.rows = count, p.depth = queries, p.cols = wide_value_;
    p.a = scores_, p.a_row_stride = cols_, p.a_depth_stride = 1;
    p.b = dout_rows_, p.b_stride = wide_value_;
    p.c = dv_ + (j - key_begin) * wide_value_, p.c_stride = wide_value_;
    QUERN_DISPATCH_AT(level_, tile_product<T>(p));
    p.cols = wide_;
    p.a = gradients_;
    p.b = q_rows_, p.b_stride = wide_;
    p.c = dk_ + (j - key_begin) * wide_, p.c_stride = wide_;
    QUERN_DISPATCH_AT(level_, tile_product<T>(p));
  }

  simd::Level level_;
  kernels::TileLayout layout_;
  Index dim_, value_dim_, wide_, wide_value_, cols_;
  core::Buffer<T> memory_;
  RowTile<T> k_, v_;
  T *q_turned_ = nullptr, *dout_turned_ = nullptr, *dq_ = nullptr, *q_rows_ = nullptr,
    *dout_rows_ = nullptr, *scores_ = nullptr, *gradients_ = nullptr, *log_sums_ = nullptr,
    *means_ = nullptr, *dk_ = nullptr, *dv_ = nullptr;
};

}  // namespace attention::detail
QUERN_NAMESPACE_END

#endif  // QUERN_ATTENTION_DETAIL_SOFTMAX_TILES_HPP
