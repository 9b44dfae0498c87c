// SPDX-License-Identifier: Apache-2.0

/// \file
/// What the kernels of HiPPO's online memories work on.

#ifndef QUERN_KERNELS_HIPPO_TYPES_HPP
#define QUERN_KERNELS_HIPPO_TYPES_HPP

#include "quern/core/config.hpp"

#include <cstddef>

QUERN_NAMESPACE_BEGIN
namespace kernels {

/// Steps of a memory: `state` is (order, channels), inputs (steps, channels), channels adjacent.
template <class T>
struct HippoTask {
  std::size_t steps = 0;
  std::size_t order = 0;
  std::size_t channels = 0;
  const T* input = nullptr;
  std::ptrdiff_t input_stride = 0;
  T* state = nullptr;
  std::ptrdiff_t state_stride = 0;
  const T* norms = nullptr;  ///< sqrt(2 n + 1) for n < order
};

/// LegS: step s divides time by first + s.
template <class T>
struct LegsTask : HippoTask<T> {
  double first = 1;    ///< the number of inputs before this one, >= 1
  double alpha = 0.5;  ///< weight of the step's end
  T* work = nullptr;   ///< order numbers
};

/// LegT, its matrix factored: I - alpha dt A = L U with L = 1 + tril(p l^T), U = diag(d) +
/// triu(u h^T), h_n = (-1)^n sqrt(2 n + 1).
template <class T>
struct LegtTask : HippoTask<T> {
  T dt = 0;
  const T* p = nullptr;
  const T* l = nullptr;
  const T* u = nullptr;
  const T* inverse_d = nullptr;
  T* work = nullptr;  ///< (order, 4 widest vectors): see hippo_work_size
};

/// Numbers of a LegtTask's work space.
template <class T>
constexpr std::size_t hippo_work_size(std::size_t order) {
  return order * 256 / sizeof(T);
}

}  // namespace kernels
QUERN_NAMESPACE_END

#endif  // QUERN_KERNELS_HIPPO_TYPES_HPP
