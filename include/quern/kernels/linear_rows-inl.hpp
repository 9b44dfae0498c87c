// SPDX-License-Identifier: Apache-2.0

/// \file
/// Linear models over chosen rows of a matrix: margins, gradients, and whole passes of SVRG and
/// SAGA.
///
/// Rows are picked by index, so a mini-batch is never copied together. A margin is two chains of
/// multiply-adds, even vectors and odd ones, whatever rows it is computed along with: four rows at
/// once are the eight chains that an FMA of 4 cycles and two ports need. Gradients keep up to eight
/// vectors of columns in registers while they go through the rows. A batch's second reading is from
/// the first-level cache (32 rows x 100 floats: 12.5 KiB).
///
/// A step of SVRG or SAGA updates w and takes the next row's product with the new w in one loop:
/// each vector of w is loaded and stored once a step. Rows of later steps are prefetched, which
/// random order would otherwise make a cache miss each.

#if defined(QUERN_KERNELS_LINEAR_ROWS_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_LINEAR_ROWS_INL_HPP
#undef QUERN_KERNELS_LINEAR_ROWS_INL_HPP
#else
#define QUERN_KERNELS_LINEAR_ROWS_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/elementwise-inl.hpp"
#include "quern/kernels/linear_rows_types.hpp"
#include "quern/kernels/math-inl.hpp"
#include "quern/kernels/partial-inl.hpp"

#include "hwy/highway.h"

#include <cstddef>
#include <cstdint>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

namespace detail {

/// Into the second-level cache: on its way there a line holds none of the few fill buffers of the
/// first level, so that many rows at once come at the speed of memory.
template <class T>
HWY_INLINE void prefetch_row_to_l2(const T* row, std::size_t columns) {
  constexpr std::size_t kLine = 64 / sizeof(T);
  for (std::size_t j = 0; j < columns; j += kLine) __builtin_prefetch(row + j, 0, 2);
}

template <class T>
HWY_INLINE void prefetch_row(const T* row, std::size_t columns) {
  constexpr std::size_t kLine = 64 / sizeof(T);
  for (std::size_t j = 0; j < columns; j += kLine) hwy::Prefetch(row + j);
}

template <class D, class V>
HWY_INLINE hn::TFromD<D> add_lanes(D d, V even, V odd) {
  return hn::GetLane(hn::SumOfLanes(d, hn::Add(even, odd)));
}

/// Product of one row with w.
template <class T>
HWY_INLINE T row_product(const T* HWY_RESTRICT x, const T* HWY_RESTRICT w, std::size_t n) {
  const hn::ScalableTag<T> d;
  const std::size_t lanes = hn::Lanes(d);
  auto even = hn::Zero(d), odd = hn::Zero(d);
  std::size_t j = 0;
  for (; j + 2 * lanes <= n; j += 2 * lanes) {
    even = hn::MulAdd(hn::LoadU(d, x + j), hn::LoadU(d, w + j), even);
    odd = hn::MulAdd(hn::LoadU(d, x + j + lanes), hn::LoadU(d, w + j + lanes), odd);
  }
  if (j + lanes <= n) {
    even = hn::MulAdd(hn::LoadU(d, x + j), hn::LoadU(d, w + j), even);
    j += lanes;
  }
  if (j < n) {
    odd = hn::MulAdd(load_partial(d, x + j, n - j), load_partial(d, w + j, n - j), odd);
  }
  return add_lanes(d, even, odd);
}

/// The same for four rows; each has the bits of row_product.
template <class T>
HWY_INLINE void four_row_products(const T* HWY_RESTRICT x0, const T* HWY_RESTRICT x1,
                                  const T* HWY_RESTRICT x2, const T* HWY_RESTRICT x3,
                                  const T* HWY_RESTRICT w, std::size_t n, T* HWY_RESTRICT out) {
  const hn::ScalableTag<T> d;
  const std::size_t lanes = hn::Lanes(d);
  auto e0 = hn::Zero(d), e1 = e0, e2 = e0, e3 = e0, o0 = e0, o1 = e0, o2 = e0, o3 = e0;
  std::size_t j = 0;
  for (; j + 2 * lanes <= n; j += 2 * lanes) {
    const auto u = hn::LoadU(d, w + j), v = hn::LoadU(d, w + j + lanes);
    e0 = hn::MulAdd(hn::LoadU(d, x0 + j), u, e0);
    e1 = hn::MulAdd(hn::LoadU(d, x1 + j), u, e1);
    e2 = hn::MulAdd(hn::LoadU(d, x2 + j), u, e2);
    e3 = hn::MulAdd(hn::LoadU(d, x3 + j), u, e3);
    o0 = hn::MulAdd(hn::LoadU(d, x0 + j + lanes), v, o0);
    o1 = hn::MulAdd(hn::LoadU(d, x1 + j + lanes), v, o1);
    o2 = hn::MulAdd(hn::LoadU(d, x2 + j + lanes), v, o2);
    o3 = hn::MulAdd(hn::LoadU(d, x3 + j + lanes), v, o3);
  }
  if (j + lanes <= n) {
    const auto u = hn::LoadU(d, w + j);
    e0 = hn::MulAdd(hn::LoadU(d, x0 + j), u, e0);
    e1 = hn::MulAdd(hn::LoadU(d, x1 + j), u, e1);
    e2 = hn::MulAdd(hn::LoadU(d, x2 + j), u, e2);
    e3 = hn::MulAdd(hn::LoadU(d, x3 + j), u, e3);
    j += lanes;
  }
  if (j < n) {
    const std::size_t rest = n - j;
    const auto v = load_partial(d, w + j, rest);
    o0 = hn::MulAdd(load_partial(d, x0 + j, rest), v, o0);
    o1 = hn::MulAdd(load_partial(d, x1 + j, rest), v, o1);
    o2 = hn::MulAdd(load_partial(d, x2 + j, rest), v, o2);
    o3 = hn::MulAdd(load_partial(d, x3 + j, rest), v, o3);
  }
  out[0] = add_lanes(d, e0, o0);
  out[1] = add_lanes(d, e1, o1);
  out[2] = add_lanes(d, e2, o2);
  out[3] = add_lanes(d, e3, o3);
}

/// out[i] = product of row i with w.
template <class T>
HWY_INLINE void margins(const RowSet<T>& set, const T* w, T* out) {
  std::size_t i = 0;
  for (; i + 4 <= set.count; i += 4) {
    four_row_products(set.row(i), set.row(i + 1), set.row(i + 2), set.row(i + 3), w, set.columns,
                      out + i);
  }
  for (; i < set.count; ++i) out[i] = row_product(set.row(i), w, set.columns);
}

/// Columns j .. j + 8 vectors of the gradient.
template <class T>
HWY_INLINE void eight_columns(const RowSet<T>& set, const T* HWY_RESTRICT r, std::size_t j,
                              T* HWY_RESTRICT g) {
  const hn::ScalableTag<T> d;
  const std::size_t lanes = hn::Lanes(d);
  T* to = g + j;
  auto g0 = hn::LoadU(d, to), g1 = hn::LoadU(d, to + lanes);
  auto g2 = hn::LoadU(d, to + 2 * lanes), g3 = hn::LoadU(d, to + 3 * lanes);
  auto g4 = hn::LoadU(d, to + 4 * lanes), g5 = hn::LoadU(d, to + 5 * lanes);
  auto g6 = hn::LoadU(d, to + 6 * lanes), g7 = hn::LoadU(d, to + 7 * lanes);
  for (std::size_t i = 0; i < set.count; ++i) {
    const T* x = set.row(i) + j;
    const auto f = hn::Set(d, r[i]);
    g0 = hn::MulAdd(f, hn::LoadU(d, x), g0);
    g1 = hn::MulAdd(f, hn::LoadU(d, x + lanes), g1);
    g2 = hn::MulAdd(f, hn::LoadU(d, x + 2 * lanes), g2);
    g3 = hn::MulAdd(f, hn::LoadU(d, x + 3 * lanes), g3);
    g4 = hn::MulAdd(f, hn::LoadU(d, x + 4 * lanes), g4);
    g5 = hn::MulAdd(f, hn::LoadU(d, x + 5 * lanes), g5);
    g6 = hn::MulAdd(f, hn::LoadU(d, x + 6 * lanes), g6);
    g7 = hn::MulAdd(f, hn::LoadU(d, x + 7 * lanes), g7);
  }
  hn::StoreU(g0, d, to);
  hn::StoreU(g1, d, to + lanes);
  hn::StoreU(g2, d, to + 2 * lanes);
  hn::StoreU(g3, d, to + 3 * lanes);
  hn::StoreU(g4, d, to + 4 * lanes);
  hn::StoreU(g5, d, to + 5 * lanes);
  hn::StoreU(g6, d, to + 6 * lanes);
  hn::StoreU(g7, d, to + 7 * lanes);
}

/// Up to three vectors of columns and a part of one, `size` columns in all.
template <class T>
HWY_INLINE void last_columns(const RowSet<T>& set, const T* HWY_RESTRICT r, std::size_t j,
                             std::size_t size, T* HWY_RESTRICT g) {
  const hn::ScalableTag<T> d;
  const std::size_t lanes = hn::Lanes(d), whole = size / lanes, rest = size % lanes;
  T* to = g + j;
  const auto zero = hn::Zero(d);
  auto g0 = whole > 0 ? hn::LoadU(d, to) : zero;
  auto g1 = whole > 1 ? hn::LoadU(d, to + lanes) : zero;
  auto g2 = whole > 2 ? hn::LoadU(d, to + 2 * lanes) : zero;
  auto part = rest > 0 ? load_partial(d, to + whole * lanes, rest) : zero;
  for (std::size_t i = 0; i < set.count; ++i) {
    const T* x = set.row(i) + j;
    const auto f = hn::Set(d, r[i]);
    if (whole > 0) g0 = hn::MulAdd(f, hn::LoadU(d, x), g0);
    if (whole > 1) g1 = hn::MulAdd(f, hn::LoadU(d, x + lanes), g1);
    if (whole > 2) g2 = hn::MulAdd(f, hn::LoadU(d, x + 2 * lanes), g2);
    if (rest > 0) part = hn::MulAdd(f, load_partial(d, x + whole * lanes, rest), part);
  }
  if (whole > 0) hn::StoreU(g0, d, to);
  if (whole > 1) hn::StoreU(g1, d, to + lanes);
  if (whole > 2) hn::StoreU(g2, d, to + 2 * lanes);
  if (rest > 0) store_partial(part, d, to + whole * lanes, rest);
}

/// Derivative of one row's loss by its margin.
template <class T>
HWY_INLINE T derivative(bool logistic, T margin, T label) {
  if (!logistic) return margin - label;
  const hn::ScalableTag<T> d;
  return hn::GetLane(sigmoid(d, hn::Set(d, margin))) - label;
}

/// Vector j of a step; adds the product of the new w with `next` to the sum.
template <bool kSaga, class T, class V>
HWY_INLINE V step_vector(const VarianceReducedPass<T>& pass, const T* HWY_RESTRICT x,
                         const T* HWY_RESTRICT next, std::size_t j, V change, V share, V sum) {
  const hn::ScalableTag<T> d;
  const auto keep = hn::Set(d, T{1} - pass.step * pass.l2), minus_step = hn::Set(d, -pass.step);
  const auto row = hn::LoadU(d, x), m = hn::LoadU(d, pass.mean + j);
  const auto old = hn::LoadU(d, pass.w + j);
  const auto v = hn::MulAdd(minus_step, hn::MulAdd(change, row, m), hn::Mul(keep, old));
  hn::StoreU(v, d, pass.w + j);
  if (kSaga) hn::StoreU(hn::MulAdd(share, row, m), d, pass.mean + j);
  return hn::MulAdd(hn::LoadU(d, next), v, sum);
}

/// One step of a pass, and the product of the new w with `next`. kSaga: the mean changes.
template <bool kSaga, class T>
HWY_INLINE T step_and_product(const VarianceReducedPass<T>& pass, const T* HWY_RESTRICT x,
                              const T* HWY_RESTRICT next, T delta) {
  const hn::ScalableTag<T> d;
  const std::size_t lanes = hn::Lanes(d), n = pass.rows.columns;
  T* HWY_RESTRICT w = pass.w;
  T* HWY_RESTRICT mean = pass.mean;
  const auto keep = hn::Set(d, T{1} - pass.step * pass.l2), minus_step = hn::Set(d, -pass.step);
  const auto change = hn::Set(d, delta), share = hn::Set(d, pass.share * delta);
  auto even = hn::Zero(d), odd = hn::Zero(d);
  std::size_t j = 0;
  for (; j + 2 * lanes <= n; j += 2 * lanes) {
    even = step_vector<kSaga>(pass, x + j, next + j, j, change, share, even);
    odd = step_vector<kSaga>(pass, x + j + lanes, next + j + lanes, j + lanes, change, share, odd);
  }
  if (j + lanes <= n) {
    even = step_vector<kSaga>(pass, x + j, next + j, j, change, share, even);
    j += lanes;
  }
  if (j < n) {
    const std::size_t rest = n - j;
    const auto row = load_partial(d, x + j, rest), m = load_partial(d, mean + j, rest);
    const auto old = load_partial(d, w + j, rest);
    const auto v = hn::MulAdd(minus_step, hn::MulAdd(change, row, m), hn::Mul(keep, old));
    store_partial(v, d, w + j, rest);
    if (kSaga) store_partial(hn::MulAdd(share, row, m), d, mean + j, rest);
    odd = hn::MulAdd(load_partial(d, next + j, rest), v, odd);
  }
  return add_lanes(d, even, odd);
}

template <bool kSaga, class T>
HWY_INLINE void pass_over_rows(const VarianceReducedPass<T>& shared) {
  const VarianceReducedPass<T> pass = shared;  // in registers: w might overlap it for all we know
  constexpr std::size_t kAhead = 8;
  const RowSet<T>& set = pass.rows;
  if (set.count == 0) return;
  T margin = row_product(set.row(0), pass.w, set.columns);
  for (std::size_t k = 0; k < set.count; ++k) {
    if (k + kAhead < set.count) prefetch_row(set.row(k + kAhead), set.columns);
    const std::size_t at = set.rows == nullptr ? k : static_cast<std::size_t>(set.rows[k]);
    const T s = derivative(pass.logistic, margin, pass.labels[at]);
    const T delta = s - pass.table[at];
    const std::size_t next = k + 1 < set.count ? k + 1 : k;
    margin = step_and_product<kSaga>(pass, set.row(k), set.row(next), delta);
    if (kSaga) pass.table[at] = s;
  }
}

}  // namespace detail

/// out[i] = product of row i of the set with w.
template <class T>
void rows_times_vector(const RowSet<T>& set, const T* w, T* out) {
  for (std::size_t i = 0; i < set.count; i += 4) {
    // The rows after these, while these are worked on.
    for (std::size_t k = i + 4; k < i + 8 && k < set.count; ++k) {
      detail::prefetch_row(set.row(k), set.columns);
    }
    detail::margins(set.part(i, set.count - i < 4 ? set.count - i : 4), w, out + i);
  }
}

/// g[j] += sum over the set of r[i] (row i)[j].
template <class T>
void add_vector_times_rows(const RowSet<T>& set, const T* r, T* g) {
  const hn::ScalableTag<T> d;
  const std::size_t lanes = hn::Lanes(d);
  std::size_t j = 0;
  for (; j + 8 * lanes <= set.columns; j += 8 * lanes) detail::eight_columns(set, r, j, g);
  while (j < set.columns) {
    const std::size_t left = set.columns - j;
    const std::size_t size = left < 4 * lanes ? left : 3 * lanes;
    detail::last_columns(set, r, j, size, g);
    j += size;
  }
}

/// r[i] = factor (sigmoid(m[i]) - y[i]), or factor (m[i] - y[i]). In place where r == m.
template <class T>
void loss_derivatives(bool logistic, const T* m, const T* y, T factor, std::size_t n, T* r) {
  const hn::ScalableTag<T> d;
  const std::size_t lanes = hn::Lanes(d);
  const auto f = hn::Set(d, factor);
  for (std::size_t i = 0; i < n; i += lanes) {
    const std::size_t size = n - i < lanes ? n - i : lanes;
    const bool whole = size == lanes;
    auto v = whole ? hn::LoadU(d, m + i) : load_partial(d, m + i, size);
    const auto label = whole ? hn::LoadU(d, y + i) : load_partial(d, y + i, size);
    if (logistic) v = sigmoid(d, v);
    v = hn::Mul(f, hn::Sub(v, label));
    if (whole) {
      hn::StoreU(v, d, r + i);
    } else {
      store_partial(v, d, r + i, size);
    }
  }
}

/// Mini-batch updates. The gradient is never stored: derivatives that hold the step's factor are
/// added, times their rows, to w itself.
template <class T>
void batch_pass(const BatchPass<T>& pass) {
  const std::size_t n = pass.rows.count, columns = pass.rows.columns;
  T r[BatchPass<T>::max_batch], y[BatchPass<T>::max_batch];
  for (std::size_t begin = 0, k = 0; begin < n; begin += pass.batch, ++k) {
    const RowSet<T> set = pass.rows.part(begin, n - begin < pass.batch ? n - begin : pass.batch);
    const std::size_t ahead = begin + (pass.batch < 8 ? 8 : pass.batch);
    for (std::size_t i = 0; i < set.count; ++i) {
      const std::size_t at = begin + i;
      y[i] = pass.labels[set.rows == nullptr ? at : static_cast<std::size_t>(set.rows[i])];
    }
    // The next batch's rows come while this one is worked on.
    for (std::size_t i = 0; i < set.count; i += 4) {
      const std::size_t size = set.count - i < 4 ? set.count - i : 4;
      for (std::size_t next = ahead + i; next < ahead + i + size && next < n; ++next)
        detail::prefetch_row_to_l2(pass.rows.row(next), columns);
      detail::margins(set.part(i, size), pass.w, r + i);
    }
    const T step = pass.steps[k];
    loss_derivatives(pass.logistic, r, y, -step / static_cast<T>(set.count), set.count, r);
    if (pass.l2 != T{0}) scale(T{1} - step * pass.l2, pass.w, columns, pass.w);
    add_vector_times_rows(set, r, pass.w);
  }
}

/// Steps of SVRG or SAGA, one for each row of the pass.
template <class T>
void variance_reduced_pass(const VarianceReducedPass<T>& pass) {
  if (pass.saga) {
    detail::pass_over_rows<true>(pass);
  } else {
    detail::pass_over_rows<false>(pass);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_LINEAR_ROWS_INL_HPP
