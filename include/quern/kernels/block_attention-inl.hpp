// SPDX-License-Identifier: Apache-2.0

/// \file
/// Softmax attention of a block of queries to a list of keys, and its gradients: the running
/// maximum and sum of Milakov and Gimelshein, arXiv:1805.02867, as FlashAttention uses them
/// (Dao et al., arXiv:2205.14135; Dao, arXiv:2307.08691). kernels/block_attention_types.hpp says
/// what goes in.
///
/// Logits of a chunk of 64 keys and the task's queries are held turned, a row for each key: then
/// queries lie along the vectors, so maximum and sum need no reduction across lanes, and all five
/// products have a right-hand matrix whose rows lie in memory as they are wanted. Only the queries
/// (and the gradient of their outputs) are transposed, once a task. Groups of kBlockRows rows skip
/// what none of them can see, so a window or a diagonal costs little more than its own logits.
///
/// A maximum begins at half the lowest number instead of minus infinity, and what is masked is the
/// lowest number: no infinity arises that was not there before, and -ffast-math changes nothing.
/// A query that sees nothing has output 0. NaN or +infinity in a visible logit gives NaN.

#if defined(QUERN_KERNELS_BLOCK_ATTENTION_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_BLOCK_ATTENTION_INL_HPP
#undef QUERN_KERNELS_BLOCK_ATTENTION_INL_HPP
#else
#define QUERN_KERNELS_BLOCK_ATTENTION_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/block_attention_types.hpp"
#include "quern/kernels/block_product-inl.hpp"
#include "quern/kernels/elementwise-inl.hpp"
#include "quern/kernels/gemm_pack-inl.hpp"
#include "quern/kernels/math-inl.hpp"

#include "hwy/highway.h"

#include <cstddef>
#include <cstdint>
#include <cstring>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

namespace detail {

/// Rows of no numbers may lie nowhere.
template <class T>
HWY_INLINE void copy_row(const T* from, std::ptrdiff_t n, T* to) {
  if (n > 0) std::memcpy(to, from, static_cast<std::size_t>(n) * sizeof(T));
}

inline constexpr std::ptrdiff_t kTokens = block_attention_size;

template <class T>
struct LowestLogit;
template <>
struct LowestLogit<float> {
  static constexpr float value = -0x1.fffffep127F;
};
template <>
struct LowestLogit<double> {
  static constexpr double value = -0x1.fffffffffffffp1023;
};

/// Rows of `dim` elements, times scale, become columns of `out`, kTokens apart. Columns beyond
/// `count` are 0.
template <class T>
HWY_INLINE void transpose_rows(const T* const* rows, std::ptrdiff_t count, std::ptrdiff_t dim,
                               T scale, T* HWY_RESTRICT out) {
  std::ptrdiff_t i = 0;
#if HWY_TARGET != HWY_SCALAR
  constexpr std::ptrdiff_t kSquare = 16 / static_cast<std::ptrdiff_t>(sizeof(T));
  const std::ptrdiff_t whole = dim / kSquare * kSquare;
  for (; i + kSquare <= count; i += kSquare) {
    for (std::ptrdiff_t p = 0; p < whole; p += kSquare) {
      pack_square(rows + i, p, out + p * kTokens + i, kTokens);
    }
    for (std::ptrdiff_t r = i; r < i + kSquare; ++r) {
      for (std::ptrdiff_t p = whole; p < dim; ++p) out[p * kTokens + r] = rows[r][p];
    }
  }
#endif
  for (; i < count; ++i) {
    for (std::ptrdiff_t p = 0; p < dim; ++p) out[p * kTokens + i] = rows[i][p];
  }
  for (; i < kTokens; ++i) {
    for (std::ptrdiff_t p = 0; p < dim; ++p) out[p * kTokens + i] = T{0};
  }
  if (scale != T{1}) HWY_NAMESPACE::scale(scale, out, static_cast<std::size_t>(dim * kTokens), out);
}

/// y += x for one row.
template <class T>
HWY_INLINE void add_block_row(const T* x, std::ptrdiff_t n, T* y) {
  axpy(T{1}, x, static_cast<std::size_t>(n), y);
}

/// A task while it runs: its queries and one chunk of its keys.
template <class T>
class BlockAttentionRun {
 public:
  using D = hn::ScalableTag<T>;
  using DI = hn::RebindToSigned<D>;
  using V = hn::VFromD<D>;
  using Int = hn::TFromD<DI>;

  explicit BlockAttentionRun(const BlockAttentionTask<T>& task)
      : task_(task), lanes_(static_cast<std::ptrdiff_t>(hn::Lanes(D()))) {
    width_ = (task.queries + lanes_ - 1) / lanes_ * lanes_;
    if (width_ > kTokens) width_ = kTokens;
    T* at = task.scratch;
    const auto take = [&](std::ptrdiff_t count) {
      T* const here = at;
      at += count * kTokens;
      return here;
    };
    turned_q_ = take(task.dim);
    logits_ = take(kTokens);
    key_rows_ = take(task.dim);
    value_rows_ = take(task.value_dim);
    free_ = at;
    load_queries();
  }

  // Of the queries.
  [[nodiscard]] HWY_INLINE std::int64_t query_id(std::ptrdiff_t i) const {
    return task_.query_ids != nullptr ? task_.query_ids[i] : task_.first_query + i;
  }
  [[nodiscard]] T* free_scratch() const { return free_; }
  [[nodiscard]] T* logits() const { return logits_; }
  [[nodiscard]] std::ptrdiff_t keys() const { return keys_; }
  [[nodiscard]] const T* chunk_keys() const { return k_; }
  [[nodiscard]] const T* chunk_values() const { return v_; }
  [[nodiscard]] std::ptrdiff_t key_stride() const { return k_stride_; }
  [[nodiscard]] std::ptrdiff_t value_stride() const { return v_stride_; }
  [[nodiscard]] HWY_INLINE std::int64_t key_id(std::ptrdiff_t j) const {
    return task_.key_ids != nullptr ? task_.key_ids[begin_ + j] : task_.first_key + begin_ + j;
  }

  /// Goes to the chunk of keys from `begin` on. False where no query sees any of them.
  bool load_chunk(std::ptrdiff_t begin) {
    begin_ = begin;
    keys_ = task_.keys - begin < kTokens ? task_.keys - begin : kTokens;
    bool any = false;
    full_ = !task_.replace_self;
    for (std::ptrdiff_t j = 0; j < keys_; ++j) {
      const std::int64_t id = key_id(j);
      places_[j] = static_cast<Int>(id);
      any = any || (id <= latest_ && id >= earliest_);
      full_ = full_ && id >= common_low_ && id <= common_high_;
    }
    if (!any) return false;
    bound_groups();
    load_rows();
    return true;
  }

  /// logits = keys times queries, where somebody sees them.
  void compute_logits() {
    product_of_rows(k_, k_stride_, turned_q_, task_.dim, logits_);
    if (!full_) mask_logits();
  }
  /// out = rows of this chunk (keys or values) times turned queries, where somebody sees them.
  HWY_INLINE void product_of_rows(const T* rows, std::ptrdiff_t stride, const T* turned,
                                  std::ptrdiff_t depth, T* out) const {
    for (std::ptrdiff_t j = 0; j < keys_; j += kBlockRows) {
      const std::ptrdiff_t from = seen_from_[j], to = seen_to_[j];
      if (from >= to) continue;
      const std::ptrdiff_t count = keys_ - j < kBlockRows ? keys_ - j : kBlockRows;
      block_product<false>(BlockProduct<T>{rows + j * stride, stride, 1, turned + from, kTokens,
                                           out + j * kTokens + from, kTokens, count, to - from,
                                           depth});
    }
  }

  /// sums (queries x cols) += weights^T (keys x queries, turned) times rows of the chunk.
  HWY_INLINE void add_to_queries(const T* weights, const T* rows, std::ptrdiff_t stride,
                                 std::ptrdiff_t cols, T* sums) const {
    for (std::ptrdiff_t i = 0; i < task_.queries; i += kBlockRows) {
      const std::ptrdiff_t left = task_.queries - i;
      const std::ptrdiff_t count = left < kBlockRows ? left : kBlockRows;
      const std::ptrdiff_t from = key_low_[i / kBlockRows], to = key_high_[i / kBlockRows];
      if (from >= to) continue;
      block_product<true>(BlockProduct<T>{weights + from * kTokens + i, 1, kTokens,
                                          rows + from * stride, stride, sums + i * cols, cols,
                                          count, cols, to - from});
    }
  }

  /// sums (keys x cols) += weights (keys x queries) times rows of the queries.
  HWY_INLINE void add_to_keys(const T* weights, const T* rows, std::ptrdiff_t stride,
                              std::ptrdiff_t cols, T* sums, std::ptrdiff_t sums_stride) const {
    for (std::ptrdiff_t j = 0; j < keys_; j += kBlockRows) {
      const std::ptrdiff_t from = seen_from_[j];
      const std::ptrdiff_t to = seen_to_[j] < task_.queries ? seen_to_[j] : task_.queries;
      if (from >= to) continue;
      const std::ptrdiff_t count = keys_ - j < kBlockRows ? keys_ - j : kBlockRows;
      block_product<true>(BlockProduct<T>{weights + j * kTokens + from, kTokens, 1,
                                          rows + from * stride, stride, sums + j * sums_stride,
                                          sums_stride, count, cols, to - from});
    }
  }

  /// largest becomes the running maximum, logits become e^(logit - largest), total is their sum,
  /// and factor what sums from before must be multiplied with. True where a factor is not 1.
  bool soften(T* largest, T* total, T* factor) const {
    const D d;
    bool moved = false;
    for (std::ptrdiff_t at = 0; at < width_; at += lanes_) {
      const V before = hn::LoadU(d, largest + at);
      const V top = column_maximum(before, at);
      const V change = HWY_NAMESPACE::exp(d, hn::Sub(before, top));
      hn::StoreU(change, d, factor + at);
      hn::StoreU(top, d, largest + at);
      const V sum = hn::MulAdd(hn::LoadU(d, total + at), change, exponentials(top, at));
      hn::StoreU(sum, d, total + at);
      moved = moved || !hn::AllTrue(d, hn::Eq(before, top));
    }
    return moved;
  }

  /// logits become the weights e^(logit - largest) / total; the last pass over them.
  void weigh(const T* largest, const T* inverse_total) const {
    const D d;
    for (std::ptrdiff_t at = 0; at < width_; at += lanes_) {
      const V top = hn::LoadU(d, largest + at);
      const V inverse = hn::LoadU(d, inverse_total + at);
      for (std::ptrdiff_t j = 0; j < keys_; ++j) {
        T* const here = logits_ + j * kTokens + at;
        if (!sees(j, at)) {
          hn::StoreU(hn::Zero(d), d, here);
          continue;
        }
        const V e = HWY_NAMESPACE::exp(d, hn::Sub(hn::LoadU(d, here), top));
        hn::StoreU(hn::Mul(e, inverse), d, here);
      }
    }
  }

  /// gradients (of the weights) become those of q . k: scale weight (gradient - delta).
  void turn_gradients(const T* weights, const T* delta, T* gradients) const {
    const D d;
    const V scale = hn::Set(d, task_.scale);
    for (std::ptrdiff_t at = 0; at < width_; at += lanes_) {
      const V mean = hn::LoadU(d, delta + at);
      for (std::ptrdiff_t j = 0; j < keys_; ++j) {
        T* const here = gradients + j * kTokens + at;
        if (!sees(j, at)) {
          hn::StoreU(hn::Zero(d), d, here);
          continue;
        }
        const V weight = hn::Mul(hn::LoadU(d, weights + j * kTokens + at), scale);
        V turned = hn::Mul(weight, hn::Sub(hn::LoadU(d, here), mean));
        // A weight of 0 has no gradient, also where the product with garbage is not finite.
        turned = hn::IfThenZeroElse(hn::Eq(weight, hn::Zero(d)), turned);
        if (task_.replace_self) turned = hn::IfThenZeroElse(is_self(d, j, at), turned);
        hn::StoreU(turned, d, here);
      }
    }
  }

  /// Rows of the queries in some matrix, one after the other: in place, or gathered into `room`.
  const T* query_rows(const T* matrix, std::ptrdiff_t* stride, std::ptrdiff_t cols, T* room) const {
    if (task_.query_ids == nullptr) return matrix + task_.first_query * *stride;
    for (std::ptrdiff_t i = 0; i < task_.queries; ++i) {
      copy_row(matrix + query_id(i) * *stride, cols, room + i * cols);
    }
    *stride = cols;
    return room;
  }
  /// Rows of the queries in some matrix as columns.
  void turn_query_rows(const T* matrix, std::ptrdiff_t stride, std::ptrdiff_t cols, T scale,
                       T* out) const {
    const T* rows[kTokens];
    for (std::ptrdiff_t i = 0; i < task_.queries; ++i) rows[i] = matrix + query_id(i) * stride;
    transpose_rows(rows, task_.queries, cols, scale, out);
  }

 private:
  void load_queries() {
    turn_query_rows(task_.q, task_.q_stride, task_.dim, task_.scale, turned_q_);
    const std::int64_t last_key = task_.key_limit - 1;
    earliest_ = common_high_ = last_key + 1;
    latest_ = -1;
    common_low_ = 0;
    for (std::ptrdiff_t i = 0; i < kTokens; ++i) {
      std::int64_t low = 0, high = -1;
      if (i < task_.queries) {
        const std::int64_t id = query_id(i);
        own_[i] = static_cast<Int>(id);
        low = task_.lowest[id] > 0 ? task_.lowest[id] : 0;
        high = task_.highest[id] < last_key ? task_.highest[id] : last_key;
        if (low < earliest_) earliest_ = low;
        if (high > latest_) latest_ = high;
        if (low > common_low_) common_low_ = low;
        if (high < common_high_) common_high_ = high;
      } else {
        own_[i] = -1;
      }
      low_[i] = static_cast<Int>(low);
      high_[i] = static_cast<Int>(high);
    }
    if (task_.queries < width_) common_high_ = -1;  // lanes beyond the queries see nothing
  }

  /// For each group of keys the vectors of queries that may see one of it, and for each group of
  /// queries the keys that it may see. Bounds, not more: what lies between is masked one by one.
  void bound_groups() {
    for (std::ptrdiff_t j = 0; j < keys_; j += kBlockRows) {
      const std::ptrdiff_t end = j + kBlockRows < keys_ ? j + kBlockRows : keys_;
      Int least = places_[j], most = places_[j];
      for (std::ptrdiff_t r = j + 1; r < end; ++r) {
        least = places_[r] < least ? places_[r] : least;
        most = places_[r] > most ? places_[r] : most;
      }
      std::ptrdiff_t from = 0, to = task_.queries;
      if (!full_) {
        while (from < to && (high_[from] < least || low_[from] > most)) ++from;
        while (to > from && (high_[to - 1] < least || low_[to - 1] > most)) --to;
      }
      const std::ptrdiff_t first = from / lanes_ * lanes_;
      const std::ptrdiff_t last = from < to ? (to + lanes_ - 1) / lanes_ * lanes_ : first;
      for (std::ptrdiff_t r = j; r < end; ++r) seen_from_[r] = first, seen_to_[r] = last;
    }
    for (std::ptrdiff_t i = 0; i < task_.queries; i += kBlockRows) {
      const std::ptrdiff_t end = i + kBlockRows < task_.queries ? i + kBlockRows : task_.queries;
      Int least = low_[i], most = high_[i];
      for (std::ptrdiff_t r = i + 1; r < end; ++r) {
        least = low_[r] < least ? low_[r] : least;
        most = high_[r] > most ? high_[r] : most;
      }
      std::ptrdiff_t from = 0, to = keys_;
      if (!full_) {
        while (from < to && (places_[from] < least || places_[from] > most)) ++from;
        while (to > from && (places_[to - 1] < least || places_[to - 1] > most)) --to;
      }
      key_low_[i / kBlockRows] = from;
      key_high_[i / kBlockRows] = to;
    }
  }

  void load_rows() {
    if (task_.key_ids == nullptr) {
      k_ = task_.k + (task_.first_key + begin_) * task_.k_stride;
      v_ = task_.v + (task_.first_key + begin_) * task_.v_stride;
      k_stride_ = task_.k_stride;
      v_stride_ = task_.v_stride;
      return;
    }
    for (std::ptrdiff_t j = 0; j < keys_; ++j) {
      const std::int64_t id = key_id(j);
      copy_row(task_.k + id * task_.k_stride, task_.dim, key_rows_ + j * task_.dim);
      copy_row(task_.v + id * task_.v_stride, task_.value_dim, value_rows_ + j * task_.value_dim);
    }
    k_ = key_rows_, k_stride_ = task_.dim;
    v_ = value_rows_, v_stride_ = task_.value_dim;
  }

  /// Whether the vector of queries at `at` was computed for key j.
  [[nodiscard]] HWY_INLINE bool sees(std::ptrdiff_t j, std::ptrdiff_t at) const {
    return at >= seen_from_[j] && at < seen_to_[j];
  }
  HWY_INLINE hn::Mask<D> is_self(D d, std::ptrdiff_t j, std::ptrdiff_t at) const {
    const DI di;
    const auto own = hn::LoadU(di, own_ + at);
    return hn::RebindMask(d, hn::Eq(own, hn::Set(di, places_[j])));
  }

  void mask_logits() const {
    const D d;
    const DI di;
    const V lowest = hn::Set(d, LowestLogit<T>::value);
    for (std::ptrdiff_t at = 0; at < width_; at += lanes_) {
      const auto low = hn::LoadU(di, low_ + at);
      const auto high = hn::LoadU(di, high_ + at);
      for (std::ptrdiff_t j = 0; j < keys_; ++j) {
        if (!sees(j, at)) continue;
        T* const here = logits_ + j * kTokens + at;
        const auto place = hn::Set(di, places_[j]);
        V x = hn::LoadU(d, here);
        if (task_.replace_self) {
          x = hn::IfThenElse(is_self(d, j, at), hn::Set(d, task_.self_logit), x);
        }
        const auto hidden = hn::Or(hn::Lt(place, low), hn::Gt(place, high));
        hn::StoreU(hn::IfThenElse(hn::RebindMask(d, hidden), lowest, x), d, here);
      }
    }
  }

  HWY_INLINE V column_maximum(V top, std::ptrdiff_t at) const {
    const D d;
    for (std::ptrdiff_t j = 0; j < keys_; ++j) {
      if (sees(j, at)) top = hn::Max(top, hn::LoadU(d, logits_ + j * kTokens + at));
    }
    return top;
  }
  /// Replaces a column's logits by e^(logit - top), what nobody sees by 0; gives their sum.
  HWY_INLINE V exponentials(V top, std::ptrdiff_t at) const {
    const D d;
    V sum = hn::Zero(d);
    for (std::ptrdiff_t j = 0; j < keys_; ++j) {
      T* const here = logits_ + j * kTokens + at;
      if (!sees(j, at)) {
        hn::StoreU(hn::Zero(d), d, here);
        continue;
      }
      const V e = HWY_NAMESPACE::exp(d, hn::Sub(hn::LoadU(d, here), top));
      hn::StoreU(e, d, here);
      sum = hn::Add(sum, e);
    }
    return sum;
  }

  static constexpr std::ptrdiff_t kGroups = kTokens / kBlockRows + 1;
  const BlockAttentionTask<T>& task_;
  std::ptrdiff_t lanes_;
  std::ptrdiff_t width_ = 0;  ///< of a row of logits: queries and what fills the last vector
  T* turned_q_;
  T* logits_;
  T* key_rows_;
  T* value_rows_;
  T* free_;
  std::int64_t earliest_ = 0, latest_ = 0;         ///< any query sees at most these keys
  std::int64_t common_low_ = 0, common_high_ = 0;  ///< every query sees these
  std::ptrdiff_t begin_ = 0, keys_ = 0;
  bool full_ = false;
  const T* k_ = nullptr;
  const T* v_ = nullptr;
  std::ptrdiff_t k_stride_ = 0, v_stride_ = 0;
  Int low_[kTokens], high_[kTokens], own_[kTokens], places_[kTokens];
  std::ptrdiff_t seen_from_[kTokens], seen_to_[kTokens];  ///< whole vectors of queries, for a key
  std::ptrdiff_t key_low_[kGroups], key_high_[kGroups];
};

}  // namespace detail

/// Attention of a task's queries: see BlockAttentionTask and BlockAttentionSums.
template <class T>
void block_attention(const BlockAttentionTask<T>& task, const BlockAttentionSums<T>& sums) {
  using detail::kTokens;
  detail::BlockAttentionRun<T> run(task);
  const std::ptrdiff_t cols = task.value_dim;
  T* const out = run.free_scratch();
  HWY_ALIGN T largest[kTokens];
  HWY_ALIGN T total[kTokens];
  HWY_ALIGN T factor[kTokens];
  for (std::ptrdiff_t i = 0; i < kTokens; ++i) {
    const bool fresh = sums.first || i >= task.queries;
    largest[i] = fresh ? detail::LowestLogit<T>::value / 2 : sums.largest[run.query_id(i)];
    total[i] = fresh ? T{0} : sums.total[run.query_id(i)];
  }
  for (std::ptrdiff_t i = 0; i < task.queries; ++i) {
    if (sums.first) {
      std::memset(out + i * cols, 0, static_cast<std::size_t>(cols) * sizeof(T));
    } else {
      detail::copy_row(sums.out + run.query_id(i) * sums.out_stride, cols, out + i * cols);
    }
  }
  for (std::ptrdiff_t begin = 0; begin < task.keys; begin += kTokens) {
    if (!run.load_chunk(begin)) continue;
    run.compute_logits();
    if (run.soften(largest, total, factor)) {
      for (std::ptrdiff_t i = 0; i < task.queries; ++i) {
        if (factor[i] != T{1})
          scale(factor[i], out + i * cols, static_cast<std::size_t>(cols), out + i * cols);
      }
    }
    run.add_to_queries(run.logits(), run.chunk_values(), run.value_stride(), cols, out);
  }
  for (std::ptrdiff_t i = 0; i < task.queries; ++i) {
    const std::int64_t id = run.query_id(i);
    sums.largest[id] = largest[i];
    sums.total[id] = total[i];
    const T inverse = total[i] != T{0} ? T{1} / total[i] : T{0};
    scale(sums.last ? inverse : T{1}, out + i * cols, static_cast<std::size_t>(cols),
          sums.out + id * sums.out_stride);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_BLOCK_ATTENTION_INL_HPP
