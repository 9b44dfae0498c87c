// SPDX-License-Identifier: Apache-2.0

/// \file
/// f(x A) B: the small networks of low rank that steer RWKV-6 and RWKV-7, and their gradients.

#ifndef QUERN_SSM_DETAIL_LOW_RANK_HPP
#define QUERN_SSM_DETAIL_LOW_RANK_HPP

#include "quern/core/config.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/kernels/activation_types.hpp"
#include "quern/kernels/gemm.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/nn/activation.hpp"
#include "quern/nn/tensor.hpp"

#include <cstddef>
#include <span>

QUERN_NAMESPACE_BEGIN
namespace ssm::detail {

/// y = x (down, up are (inputs, rank), (rank, outputs)); `pre` and `hidden` (rows, rank) are kept.
template <class T, class F>
void low_rank(F f, MatrixView<const T> x, MatrixView<const T> down, MatrixView<const T> up,
              MatrixView<T> pre, MatrixView<T> hidden, MatrixView<T> y, int threads) {
  kernels::gemm<T>(x, down, pre, {.threads = threads});
  const T* const from = pre.data();
  nn::detail::for_elements(pre.size(), threads, [&](Index first, Index count) {
    QUERN_DISPATCH(
        transform(f, from + first, static_cast<std::size_t>(count), hidden.data() + first));
  });
  kernels::gemm<T>(hidden, up, y, {.threads = threads});
}

/// dx (+)= , ddown +=, dup += (empty: left out); `work` (rows, rank) is scratch.
template <class T, class F>
void low_rank_back(F f, MatrixView<const T> x, MatrixView<const T> down, MatrixView<const T> up,
                   MatrixView<const T> pre, MatrixView<const T> hidden, MatrixView<const T> dy,
                   MatrixView<T> work, MatrixView<T> dx, bool add, std::span<T> ddown,
                   std::span<T> dup, int threads) {
  if (!dup.empty()) {
    kernels::gemm<T>(hidden.transposed(), dy, MatrixView<T>(dup.data(), up.extents()),
                     {.beta = T{1}, .threads = threads});
  }
  kernels::gemm<T>(dy, up.transposed(), work, {.threads = threads});
  const T *const before = pre.data(), *const g = work.data();
  nn::detail::for_elements(pre.size(), threads, [&](Index first, Index count) {
    QUERN_DISPATCH(transform_gradient(f, before + first, g + first, static_cast<std::size_t>(count),
                                      work.data() + first));
  });
  if (!ddown.empty()) {
    kernels::gemm<T>(x.transposed(), work, MatrixView<T>(ddown.data(), down.extents()),
                     {.beta = T{1}, .threads = threads});
  }
  kernels::gemm<T>(work, down.transposed(), dx, {.beta = add ? T{1} : T{0}, .threads = threads});
}

}  // namespace ssm::detail
QUERN_NAMESPACE_END

#endif  // QUERN_SSM_DETAIL_LOW_RANK_HPP
