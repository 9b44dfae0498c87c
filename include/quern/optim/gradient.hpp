// SPDX-License-Identifier: Apache-2.0

/// \file
/// What is asked of all gradients before a step: their common norm, and whether they are finite.

#ifndef QUERN_OPTIM_GRADIENT_HPP
#define QUERN_OPTIM_GRADIENT_HPP

#include "quern/core/config.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/optim/detail/tensor_list.hpp"
#include "quern/optim/parameter.hpp"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace optim {

/// Of all gradients together.
struct GradientSurvey {
  double norm = 0;  ///< Euclidean; of no use unless finite
  bool finite = true;
};

namespace detail {

/// Sum of squares of all gradients times `scale`, over fixed blocks in order.
template <class T>
double sum_squares(const std::vector<TensorList<T>>& lists, T scale, int threads, bool& finite) {
  double total = 0;
  for (const TensorList<T>& list : lists) {
    std::vector<kernels::OptimSums> sums(list.chunks().size());
    std::vector<std::uint8_t> good(list.block_count(), 1);
    list.for_blocks(threads, [&](std::size_t block, std::size_t first, std::size_t count) {
      good[block] = QUERN_DISPATCH(
          optim_survey(list.chunks().data() + first, count, scale, sums.data() + first));
    });
    for (const std::uint8_t ok : good) finite = finite && ok != 0;
    for (const kernels::OptimSums& sum : sums) total += sum.gradient;
  }
  return total;
}

template <class T>
GradientSurvey survey(const std::vector<TensorList<T>>& lists, int threads) {
  GradientSurvey result;
  const double sum = sum_squares(lists, T{1}, threads, result.finite);
  result.norm = std::sqrt(sum);
  if (result.finite && sizeof(T) == sizeof(double) && !(sum < 1e300 && sum > 1e-280)) {
    // Squares of doubles overflow or vanish where the norm does not.
    const double scale = sum > 1 ? 0x1p-600 : 0x1p500;
    result.norm =
        std::sqrt(sum_squares(lists, static_cast<T>(scale), threads, result.finite)) / scale;
  }
  return result;
}

}  // namespace detail

/// Norm and finiteness of these parameters' gradients. For floats the norm is good to the last bit
/// of a float, however the tensors are cut.
template <class T>
[[nodiscard]] GradientSurvey survey_gradients(const std::vector<Parameter<T>>& parameters,
                                              int threads = 0) {
  for (std::size_t k = 0; k < parameters.size(); ++k) {
    detail::check_parameter("quern::optim::survey_gradients", parameters[k],
                            detail::parameter_name(parameters[k], 0, k));
  }
  std::vector<detail::TensorList<T>> lists;
  lists.emplace_back(parameters);
  return detail::survey(lists, threads);
}

}  // namespace optim
QUERN_NAMESPACE_END

#endif  // QUERN_OPTIM_GRADIENT_HPP
