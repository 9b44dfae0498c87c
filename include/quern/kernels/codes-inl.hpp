// SPDX-License-Identifier: Apache-2.0

/// \file
/// What codebooks do with rows beside the search itself: moving them to another origin, fetching
/// and adding rows by code, distances, the rotation trick.
///
/// Rows are contiguous, \p cols long, and a stride apart. All are bound by memory; a row's bits
/// depend on that row (and its code) alone. Sums of squares are those of reduce-inl.hpp.

#if defined(QUERN_KERNELS_CODES_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_CODES_INL_HPP
#undef QUERN_KERNELS_CODES_INL_HPP
#else
#define QUERN_KERNELS_CODES_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/elementwise-inl.hpp"
#include "quern/kernels/gemm_epilogue-inl.hpp"
#include "quern/kernels/gemm_types.hpp"
#include "quern/kernels/partial-inl.hpp"
#include "quern/kernels/reduce-inl.hpp"

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

/// (x[i] - y[i])^2 to be summed.
template <class T>
struct SquaredDifferences {
  using Element = T;
  const T* x;
  const T* y;

  template <class D, class V>
  HWY_INLINE V add(D d, std::size_t i, V sum) const {
    const V apart = hn::Sub(hn::LoadU(d, x + i), hn::LoadU(d, y + i));
    return hn::MulAdd(apart, apart, sum);
  }
  template <class D, class V>
  HWY_INLINE V add_partial(D d, std::size_t i, std::size_t count, V sum) const {
    const V apart = hn::Sub(load_partial(d, x + i, count), load_partial(d, y + i, count));
    return hn::MulAdd(apart, apart, sum);
  }
};

/// out[i] = f(d, i-th vector's loader) over a row.
template <class T, class F>
HWY_INLINE void for_row(std::size_t n, const F& f) {
  const hn::ScalableTag<T> d;
  const std::size_t lanes = hn::Lanes(d);
  std::size_t i = 0;
  for (; i + lanes <= n; i += lanes) f.whole(d, i);
  if (i < n) f.part(d, i, n - i);
}

/// out = s x + a y + b z.
template <class T>
struct ThreeTerms {
  T s, a, b;
  const T* x;
  const T* y;
  const T* z;
  T* out;

  template <class D, class V>
  HWY_INLINE V value(D d, V u, V v, V w) const {
    return hn::MulAdd(hn::Set(d, b), w, hn::MulAdd(hn::Set(d, a), v, hn::Mul(hn::Set(d, s), u)));
  }
  template <class D>
  HWY_INLINE void whole(D d, std::size_t i) const {
    hn::StoreU(value(d, hn::LoadU(d, x + i), hn::LoadU(d, y + i), hn::LoadU(d, z + i)), d, out + i);
  }
  template <class D>
  HWY_INLINE void part(D d, std::size_t i, std::size_t n) const {
    store_partial(
        value(d, load_partial(d, x + i, n), load_partial(d, y + i, n), load_partial(d, z + i, n)),
        d, out + i, n);
  }
};

/// out = x - y.
template <class T>
struct Difference {
  const T* x;
  const T* y;
  T* out;
  template <class D>
  HWY_INLINE void whole(D d, std::size_t i) const {
    hn::StoreU(hn::Sub(hn::LoadU(d, x + i), hn::LoadU(d, y + i)), d, out + i);
  }
  template <class D>
  HWY_INLINE void part(D d, std::size_t i, std::size_t n) const {
    store_partial(hn::Sub(load_partial(d, x + i, n), load_partial(d, y + i, n)), d, out + i, n);
  }
};

/// out += x.
template <class T>
struct Addition {
  const T* x;
  T* out;
  template <class D>
  HWY_INLINE void whole(D d, std::size_t i) const {
    hn::StoreU(hn::Add(hn::LoadU(d, out + i), hn::LoadU(d, x + i)), d, out + i);
  }
  template <class D>
  HWY_INLINE void part(D d, std::size_t i, std::size_t n) const {
    store_partial(hn::Add(load_partial(d, out + i, n), load_partial(d, x + i, n)), d, out + i, n);
  }
};

/// out += a (x - y).
template <class T>
struct ScaledDifference {
  T a;
  const T* x;
  const T* y;
  T* out;
  template <class D, class V>
  HWY_INLINE V value(D d, V u, V v, V w) const {
    return hn::MulAdd(hn::Set(d, a), hn::Sub(u, v), w);
  }
  template <class D>
  HWY_INLINE void whole(D d, std::size_t i) const {
    hn::StoreU(value(d, hn::LoadU(d, x + i), hn::LoadU(d, y + i), hn::LoadU(d, out + i)), d,
               out + i);
  }
  template <class D>
  HWY_INLINE void part(D d, std::size_t i, std::size_t n) const {
    store_partial(
        value(d, load_partial(d, x + i, n), load_partial(d, y + i, n), load_partial(d, out + i, n)),
        d, out + i, n);
  }
};

}  // namespace detail

/// out = s x + a y + b z, of n elements; out may be one of them.
template <class T>
void three_terms(T s, const T* x, T a, const T* y, T b, const T* z, std::size_t n, T* out) {
  detail::for_row<T>(n, detail::ThreeTerms<T>{s, a, b, x, y, z, out});
}

/// Each row minus \p origin; in place where out == x.
template <class T>
void rows_minus(const T* x, std::ptrdiff_t x_stride, std::size_t rows, std::size_t cols,
                const T* origin, T* out, std::ptrdiff_t out_stride) {
  for (std::size_t i = 0; i < rows; ++i, x += x_stride, out += out_stride) {
    detail::for_row<T>(cols, detail::Difference<T>{x, origin, out});
  }
}

/// out row i = table row codes[i].
template <class T>
void fetch_rows(const T* table, std::ptrdiff_t table_stride, const std::int64_t* codes,
                std::size_t rows, std::size_t cols, T* out, std::ptrdiff_t out_stride) {
  for (std::size_t i = 0; i < rows; ++i, out += out_stride) {
    std::memcpy(out, table + codes[i] * table_stride, cols * sizeof(T));
  }
}

/// out += the rows of x that \p which names, in that order.
template <class T>
void add_rows(const T* x, std::ptrdiff_t x_stride, const std::int64_t* which, std::size_t count,
              std::size_t cols, T* out) {
  for (std::size_t i = 0; i < count; ++i) {
    detail::for_row<T>(cols, detail::Addition<T>{x + which[i] * x_stride, out});
  }
}

/// out += a (x - y), of n elements.
template <class T>
void add_difference(T a, const T* x, const T* y, std::size_t n, T* out) {
  detail::for_row<T>(n, detail::ScaledDifference<T>{a, x, y, out});
}

/// Sum of (x[i] - y[i])^2 in double.
template <class T>
double squared_distance(const T* x, const T* y, std::size_t n) {
  return sum_source(detail::SquaredDifferences<T>{x, y}, n);
}

/// distances[i] = |x row i - table row codes[i]|^2.
template <class T>
void code_distances(const T* x, std::ptrdiff_t x_stride, const T* table,
                    std::ptrdiff_t table_stride, const std::int64_t* codes, std::size_t rows,
                    std::size_t cols, T* distances) {
  for (std::size_t i = 0; i < rows; ++i) {
    const T* const row = x + static_cast<std::ptrdiff_t>(i) * x_stride;
    distances[i] = static_cast<T>(squared_distance(row, table + codes[i] * table_stride, cols));
  }
}

/// out[i] = sum of squares of row i.
template <class T>
void row_squares(const T* x, std::ptrdiff_t x_stride, std::size_t rows, std::size_t cols,
                 double* out) {
  for (std::size_t i = 0; i < rows; ++i, x += x_stride) out[i] = squared_norm(x, cols);
}

/// Rows divided by their length, which is taken to be at least 1e-12 (so a row of zeros stays one).
template <class T>
void unit_rows(const T* x, std::ptrdiff_t x_stride, std::size_t rows, std::size_t cols, T* out,
               std::ptrdiff_t out_stride) {
  const hn::CappedTag<double, 1> d;
  for (std::size_t i = 0; i < rows; ++i, x += x_stride, out += out_stride) {
    const double length = hn::GetLane(hn::Sqrt(hn::Set(d, squared_norm(x, cols))));
    scale(static_cast<T>(1 / (length < 1e-12 ? 1e-12 : length)), x, cols, out);
  }
}

/// Through the division by their length: each row of \p gradient becomes (g - u (u.g)) / |x|, u =
/// x / |x|; zero where |x| is below 1e-12.
template <class T>
void unit_rows_gradient(const T* x, std::ptrdiff_t x_stride, std::size_t rows, std::size_t cols,
                        T* gradient, std::ptrdiff_t gradient_stride) {
  const hn::CappedTag<double, 1> d;
  for (std::size_t i = 0; i < rows; ++i, x += x_stride, gradient += gradient_stride) {
    const double length = hn::GetLane(hn::Sqrt(hn::Set(d, squared_norm(x, cols))));
    if (length < 1e-12) {
      for (std::size_t j = 0; j < cols; ++j) gradient[j] = T(0);
      continue;
    }
    const double along = dot(x, gradient, cols) / (length * length * length);
    three_terms(static_cast<T>(1 / length), gradient, static_cast<T>(-along), x, T(0), x, cols,
                gradient);
  }
}

/// Where in a table of \p codes rows the one nearest to \p x is, all in double; the lowest of
/// equals.
template <class T>
std::int64_t nearest_in_double(const T* x, const T* table, std::ptrdiff_t table_stride,
                               std::int64_t codes, std::size_t cols) {
  std::int64_t best = 0;
  double least = 0;
  for (std::int64_t k = 0; k < codes; ++k, table += table_stride) {
    double sums[4] = {0, 0, 0, 0};
    std::size_t i = 0;
    for (; i + 4 <= cols; i += 4) {
      for (std::size_t j = 0; j < 4; ++j) {
        const double apart = static_cast<double>(x[i + j]) - static_cast<double>(table[i + j]);
        sums[j] = sums[j] + apart * apart;
      }
    }
    for (; i < cols; ++i) {
      const double apart = static_cast<double>(x[i]) - static_cast<double>(table[i]);
      sums[0] = sums[0] + apart * apart;
    }
    const double distance = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    if (k == 0 || distance < least) {
      least = distance;
      best = k;
    }
  }
  return best;
}

/// The rotation trick's linear map of one row: what takes x to the direction and length of q,
/// applied to w; the other way round (its transpose) with \p transposed. Nothing moves where x or q
/// is zero: out = w.
template <class T>
void rotate_row(const T* x, const T* q, const T* w, std::size_t n, bool transposed, T* out) {
  const hn::CappedTag<double, 1> d;
  const double x_length = hn::GetLane(hn::Sqrt(hn::Set(d, squared_norm(x, n))));
  const double q_length = hn::GetLane(hn::Sqrt(hn::Set(d, squared_norm(q, n))));
  if (!(x_length > 0) || !(q_length > 0)) {
    if (out != w) std::memcpy(out, w, n * sizeof(T));
    return;
  }
  const double x_dot_w = dot(x, w, n) / x_length;
  const double q_dot_w = dot(q, w, n) / q_length;
  const double half_sum = 1 + dot(x, q, n) / (x_length * q_length);  // half |e + q|^2
  // Opposite directions have no mirror between them: e turns into q by a reflection alone.
  const double along = half_sum > 1e-12 ? (x_dot_w + q_dot_w) / half_sum : 0;
  const double length = q_length / x_length;
  const double to_x = (transposed ? 2 * q_dot_w : 0) - along;
  const double to_q = (transposed ? 0 : 2 * x_dot_w) - along;
  three_terms(static_cast<T>(length), w, static_cast<T>(length * to_x / x_length), x,
              static_cast<T>(length * to_q / q_length), q, n, out);
}

/// StoreArgMin that also knows the second smallest value: a lane's second is the smaller of what it
/// had and what the newcomer displaces (or is itself).
template <class T>
struct TileEpilogue<StoreArgMinTwo<T>> {
  using D = hn::ScalableTag<T>;
  using Best = TileEpilogue<StoreArgMin<T>>;

  static constexpr bool kInRegisters = true;
  static constexpr bool kByRows = false;

  TileEpilogue(const StoreArgMinTwo<T>& e, const GemmTask<T>& task)
      : e_(e), best_(e.best, task), begin_(task.row_begin), end_(task.row_end) {
    const D d;
    const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
    values_ = task.state_scratch;
    seconds_ = values_ + 2 * (end_ - begin_) * lanes;
    for (std::ptrdiff_t i = 0; i < (end_ - begin_) * lanes; ++i) seconds_[i] = values_[0];
  }

  template <bool kFull, class V>
  HWY_INLINE void operator()(D d, V sum, std::ptrdiff_t row, std::ptrdiff_t col,
                             std::ptrdiff_t count) const {
    const std::ptrdiff_t at = (row - begin_) * static_cast<std::ptrdiff_t>(hn::Lanes(d));
    const V value = best_.template value_of<kFull>(d, sum, col, count);
    const V worse = hn::Max(value, hn::LoadU(d, values_ + at));
    const V second = hn::LoadU(d, seconds_ + at);
    auto less = hn::Lt(worse, second);
    if (!kFull) less = hn::And(less, hn::FirstN(d, static_cast<std::size_t>(count)));
    hn::StoreU(hn::IfThenElse(less, worse, second), d, seconds_ + at);
    best_.template keep<kFull>(d, value, row, col, count);
  }

  template <int kRows>
  HWY_INLINE void prefetch(std::ptrdiff_t, std::ptrdiff_t) const {}
  void finish() const {
    best_.finish();
    const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(D()));
    for (std::ptrdiff_t i = 0; i < end_ - begin_; ++i) {
      const T* const values = values_ + i * lanes;
      const T* const seconds = seconds_ + i * lanes;
      // Second of all: the least of the lanes' seconds and of the bests that lost.
      T first = values[0], second = seconds[0];
      for (std::ptrdiff_t l = 1; l < lanes; ++l) {
        const T loser = values[l] < first ? first : values[l];
        first = values[l] < first ? values[l] : first;
        second = loser < second ? loser : second;
        second = seconds[l] < second ? seconds[l] : second;
      }
      e_.seconds[begin_ + i] = second;
    }
  }

 private:
  const StoreArgMinTwo<T>& e_;
  Best best_;
  std::ptrdiff_t begin_;
  std::ptrdiff_t end_;
  T* values_;
  T* seconds_;
};

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_CODES_INL_HPP
