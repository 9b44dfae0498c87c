// SPDX-License-Identifier: Apache-2.0

/// \file
/// What layers do to each row of a (positions, channels) matrix, by kernels: gates, sums of
/// products, the mixing of a position with the one before it.

#ifndef QUERN_SSM_DETAIL_ROW_WORK_HPP
#define QUERN_SSM_DETAIL_ROW_WORK_HPP

#include "quern/core/config.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/activation_types.hpp"
#include "quern/kernels/functors.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/nn/tensor.hpp"

#include <algorithm>
#include <cstddef>
#include <span>
#include <type_traits>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace ssm::detail {

/// Rows of a task.
inline constexpr Index row_block = 64;

/// fn(row) for all rows, in blocks on several threads.
template <class F>
void for_rows(Index rows, int threads, F&& fn) {
  parallel_for(
      block_count(rows, row_block),
      [&](Index block) {
        const BlockRange range = block_range(rows, row_block, block);
        for (Index i = range.begin; i < range.end; ++i) fn(i);
      },
      threads);
}

template <class T>
using ReadRows = std::type_identity_t<MatrixView<const T>>;

/// y = a f(b); y may be a or b.
template <class T, class F>
void gate_rows(F f, ReadRows<T> a, ReadRows<T> b, MatrixView<T> y, int threads) {
  const auto n = static_cast<std::size_t>(y.cols());
  for_rows(y.rows(), threads, [&](Index i) {
    const T *const pa = a.row_data(i), *const pb = b.row_data(i);
    QUERN_DISPATCH(gate(f, pa, pb, n, y.row_data(i)));
  });
}
/// da = dy f(b), db = dy a f'(b); da or db may be dy.
template <class T, class F>
void gate_rows_back(F f, ReadRows<T> a, ReadRows<T> b, ReadRows<T> dy, MatrixView<T> da,
                    MatrixView<T> db, int threads) {
  const auto n = static_cast<std::size_t>(dy.cols());
  for_rows(dy.rows(), threads, [&](Index i) {
    const T *const pa = a.row_data(i), *const pb = b.row_data(i), *const g = dy.row_data(i);
    QUERN_DISPATCH(gate_gradient(f, pa, pb, g, n, da.row_data(i), db.row_data(i)));
  });
}
/// y += x.
template <class T>
void add_rows(ReadRows<T> x, MatrixView<T> y, int threads) {
  const auto n = static_cast<std::size_t>(y.cols());
  for_rows(y.rows(), threads, [&](Index i) {
    const T* const p = x.row_data(i);
    QUERN_DISPATCH(axpy(T{1}, p, n, y.row_data(i)));
  });
}
/// y = x.
template <class T>
void copy_rows(ReadRows<T> x, MatrixView<T> y, int threads) {
  for_rows(y.rows(), threads,
           [&](Index i) { std::copy_n(x.row_data(i), y.cols(), y.row_data(i)); });
}

/// sums[j] += sum over rows of a[i][j] b[i][j]: blocks of rows, added in order.
template <class T>
void add_column_products(ReadRows<T> a, ReadRows<T> b, std::span<T> sums, int threads) {
  const Index rows = a.rows(), each = (std::max)(row_block, (rows + 63) / 64);
  const Index blocks = block_count(rows, each);
  const std::size_t n = sums.size();
  std::vector<T> parts(static_cast<std::size_t>(blocks) * n);
  parallel_for(
      blocks,
      [&](Index block) {
        const BlockRange range = block_range(rows, each, block);
        T* const to = parts.data() + static_cast<std::size_t>(block) * n;
        for (Index i = range.begin; i < range.end; ++i) {
          const T *const pa = a.row_data(i), *const pb = b.row_data(i);
          QUERN_DISPATCH(add_products(pa, pb, n, to));
        }
      },
      threads);
  for (std::size_t j = 0; j < n; ++j) {
    double total = 0;
    for (std::size_t at = j; at < parts.size(); at += n) total += static_cast<double>(parts[at]);
    sums[j] += static_cast<T>(total);
  }
}

/// apart = x of the position before, less x; before the first position comes `before` (a row a
/// batch entry), or zeros where it is null.
template <class T>
void shift_apart(const nn::TensorView<const T>& x, const T* before, const nn::TensorView<T>& apart,
                 int threads) {
  const Index length = x.extent(1), width = x.extent(2);
  for_rows(x.extent(0) * length, threads, [&](Index i) {
    const T* const now = x.data() + i * width;
    const T* past = i % length > 0 ? now - width : nullptr;
    if (past == nullptr && before != nullptr) past = before + i / length * width;
    T* const to = apart.data() + i * width;
    for (Index j = 0; j < width; ++j) to[j] = (past == nullptr ? T{0} : past[j]) - now[j];
  });
}
/// dx += what dapart gives to it: less at its own position, more at the one before.
template <class T>
void shift_apart_back(const nn::TensorView<const T>& dapart, const nn::TensorView<T>& dx,
                      int threads) {
  const Index length = dx.extent(1), width = dx.extent(2);
  for_rows(dx.extent(0) * length, threads, [&](Index i) {
    const T* const own = dapart.data() + i * width;
    const T* const next = i % length + 1 < length ? own + width : nullptr;
    T* const to = dx.data() + i * width;
    for (Index j = 0; j < width; ++j) to[j] += (next == nullptr ? T{0} : next[j]) - own[j];
  });
}

/// y = x + apart (base + amount); a null amount is zeros.
template <class T>
void blend(const nn::TensorView<const T>& x, const nn::TensorView<const T>& apart, const T* base,
           const nn::TensorView<const T>& amount, const nn::TensorView<T>& y, int threads) {
  const Index width = x.extent(2);
  const auto n = static_cast<std::size_t>(width);
  for_rows(x.extent(0) * x.extent(1), threads, [&](Index i) {
    const T* const more = amount.null() ? nullptr : amount.data() + i * width;
    const T *const px = x.data() + i * width, *const pa = apart.data() + i * width;
    QUERN_DISPATCH(blend_rows(px, pa, base, more, n, y.data() + i * width));
  });
}
/// Its gradients: dx += dy, dapart += dy (base + amount), damount = dy apart.
template <class T>
void blend_back(const nn::TensorView<const T>& dy, const nn::TensorView<const T>& apart,
                const T* base, const nn::TensorView<const T>& amount, const nn::TensorView<T>& dx,
                const nn::TensorView<T>& dapart, const nn::TensorView<T>& damount, int threads) {
  const Index width = dy.extent(2);
  const auto n = static_cast<std::size_t>(width);
  for_rows(dy.extent(0) * dy.extent(1), threads, [&](Index i) {
    const T* const more = amount.null() ? nullptr : amount.data() + i * width;
    const T *const g = dy.data() + i * width, *const pa = apart.data() + i * width;
    QUERN_DISPATCH(blend_rows_gradient(g, pa, base, more, n, dx.data() + i * width,
                                       dapart.data() + i * width, damount.data() + i * width));
  });
}

/// Token shift: y = mix x + (1 - mix) (x of the position before); before the first position comes
/// `before` (a row a batch entry), or zeros where it is null.
template <class T>
void mix_with_before(const nn::TensorView<const T>& x, std::span<const T> mix, const T* before,
                     const nn::TensorView<T>& y, int threads) {
  const Index length = x.extent(1), width = x.extent(2);
  const auto n = static_cast<std::size_t>(width);
  for_rows(x.extent(0) * length, threads, [&](Index i) {
    const T* const now = x.data() + i * width;
    const T* past = i % length > 0 ? now - width : nullptr;
    if (past == nullptr && before != nullptr) past = before + i / length * width;
    QUERN_DISPATCH(mix_rows(now, past, mix.data(), n, y.data() + i * width));
  });
}
/// Its gradients: dx += (overwritten where `first`), dmix +=.
template <class T>
void mix_with_before_back(const nn::TensorView<const T>& x, std::span<const T> mix,
                          const nn::TensorView<const T>& dy, const nn::TensorView<T>& dx,
                          bool first, std::span<T> dmix, int threads) {
  const Index length = x.extent(1), width = x.extent(2), rows = x.extent(0) * length;
  const auto n = static_cast<std::size_t>(width);
  if (!dx.null()) {
    for_rows(rows, threads, [&](Index i) {
      const T* const g = dy.data() + i * width;
      const T* const later = i % length + 1 < length ? g + width : nullptr;
      QUERN_DISPATCH(mix_rows_gradient(g, later, mix.data(), n, first, dx.data() + i * width));
    });
  }
  if (dmix.empty()) return;
  const Index each = (std::max)(row_block, (rows + 63) / 64), blocks = block_count(rows, each);
  std::vector<T> parts(static_cast<std::size_t>(blocks) * n);
  parallel_for(
      blocks,
      [&](Index block) {
        const BlockRange range = block_range(rows, each, block);
        T* const to = parts.data() + static_cast<std::size_t>(block) * n;
        for (Index i = range.begin; i < range.end; ++i) {
          const T* const now = x.data() + i * width;
          const T* const past = i % length > 0 ? now - width : nullptr;
          const T* const g = dy.data() + i * width;
          QUERN_DISPATCH(add_mix_gradient(now, past, g, n, to));
        }
      },
      threads);
  for (std::size_t j = 0; j < n; ++j) {
    double total = 0;
    for (std::size_t at = j; at < parts.size(); at += n) total += static_cast<double>(parts[at]);
    dmix[j] += static_cast<T>(total);
  }
}

}  // namespace ssm::detail
QUERN_NAMESPACE_END

#endif  // QUERN_SSM_DETAIL_ROW_WORK_HPP
