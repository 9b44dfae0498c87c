// SPDX-License-Identifier: Apache-2.0

/// \file
/// What RWKV-6's and RWKV-7's layers share: checks of sizes, the norm of each head with a gain and
/// an offset a channel.

#ifndef QUERN_SSM_DETAIL_RWKV_WEIGHTS_HPP
#define QUERN_SSM_DETAIL_RWKV_WEIGHTS_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/nn/detail/column_sums.hpp"
#include "quern/nn/layer_norm.hpp"
#include "quern/nn/tensor.hpp"
#include "quern/ssm/detail/row_work.hpp"
#include "quern/ssm/rwkv4_mixing.hpp"

#include <span>
#include <string>
#include <string_view>

QUERN_NAMESPACE_BEGIN
namespace ssm::detail {

inline Index rwkv_heads(std::string_view owner, Index dim, Index head_dim) {
  if (dim >= 1 && head_dim >= 1 && dim % head_dim == 0) return dim / head_dim;
  throw ValueError(
      error_text(owner, "options.head_dim", "a divisor of " + std::to_string(dim), head_dim));
}
inline void check_depth(std::string_view owner, const RwkvDepth& depth) {
  if (depth.layer >= 0 && depth.layer < depth.layers) return;
  throw ValueError(error_text(owner, "depth.layer",
                              "below " + std::to_string(depth.layers) + " layers", depth.layer));
}

/// y = (x - mean) / deviation of each head, times the gain plus the offset of each channel.
template <class T>
void head_norm(const nn::TensorView<const T>& x, Index heads, double eps, const T* gain,
               const T* offset, const nn::TensorView<T>& y, nn::Tensor<T>& means,
               nn::Tensor<T>& scales, int threads) {
  const Index width = x.extent(2), dim = width / heads, rows = x.extent(0) * x.extent(1);
  means.resize({rows, heads});
  scales.resize({rows, heads});
  nn::detail::row_norm_forward<T>(x.data(), rows * heads, dim, true, eps, nullptr, nullptr,
                                  y.data(), means.data(), scales.data(), threads);
  for_rows(rows, threads, [&](Index i) {
    for (Index j = 0; j < width; ++j) y[i * width + j] = y[i * width + j] * gain[j] + offset[j];
  });
}

/// dx overwritten, dgain and doffset added to (empty: left out).
template <class T>
void head_norm_back(const nn::TensorView<const T>& x, const nn::TensorView<const T>& dy,
                    Index heads, const T* gain, const nn::Tensor<T>& means,
                    const nn::Tensor<T>& scales, const nn::TensorView<T>& dx, std::span<T> dgain,
                    std::span<T> doffset, int threads) {
  const Index width = x.extent(2), dim = width / heads, rows = x.extent(0) * x.extent(1);
  nn::Tensor<T> scaled({rows, width}), products({rows, width});
  for_rows(rows, threads, [&](Index i) {
    for (Index j = 0; j < width; ++j) {
      const Index at = i * width + j, head = i * heads + j / dim;
      scaled[at] = dy[at] * gain[j];
      products[at] = dy[at] * (x[at] - means[head]) * scales[head];
    }
  });
  nn::detail::row_norm_backward<T>(x.data(), scaled.data(), rows * heads, dim, true, nullptr,
                                   means.data(), scales.data(), dx.data(), nullptr, nullptr,
                                   threads);
  if (dgain.empty()) return;
  nn::detail::add_column_sums<T>(products.view().rows(), dgain, threads);
  nn::detail::add_column_sums<T>(dy.rows(), doffset, threads);
}

}  // namespace ssm::detail
QUERN_NAMESPACE_END

#endif  // QUERN_SSM_DETAIL_RWKV_WEIGHTS_HPP
