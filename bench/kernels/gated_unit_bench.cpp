// SPDX-License-Identifier: Apache-2.0

/// \file
/// What gated units do to logits and elements, in L2.

#include "quern/kernels/kernels.hpp"
#include "report.hpp"

#include <benchmark/benchmark.h>

#include <cstddef>
#include <vector>

namespace {

namespace kernels = quern::kernels;

/// 256 x 256 logits with a bias along the diagonals.
template <class T, class F, bool kGradient>
void activation(benchmark::State& state) {
  const std::size_t n = 256;
  std::vector<T> x(n * n, T(0.3)), slope(n * n, T(0.2)), bias(2 * n, T(0.1));
  const auto stride = static_cast<std::ptrdiff_t>(n);
  for (auto _ : state) {
    if constexpr (kGradient) {
      QUERN_DISPATCH(biased_activation_rows_gradient(F{}, n, n, T(0.5), bias.data() + n, x.data(),
                                                     stride, slope.data(), stride));
    } else {
      QUERN_DISPATCH(biased_activation_rows(F{}, n, n, T(0.5), bias.data() + n, x.data(), stride));
    }
    benchmark::ClobberMemory();
  }
  bench::report(state, static_cast<double>(n * n), "ns/element");
}

/// Rows of 128 times a vector plus another.
void offset(benchmark::State& state) {
  const std::size_t rows = 256, cols = 128;
  std::vector<float> x(rows * cols, 0.3F), y(x.size()), gamma(cols, 1.0F), beta(cols, 0.5F);
  const auto stride = static_cast<std::ptrdiff_t>(cols);
  for (auto _ : state) {
    QUERN_DISPATCH(scale_offset_rows(rows, cols, x.data(), stride, gamma.data(), beta.data(),
                                     y.data(), stride));
    benchmark::ClobberMemory();
  }
  bench::report_bytes(state, 2.0 * sizeof(float) * static_cast<double>(rows * cols));
}

}  // namespace

BENCHMARK((activation<float, kernels::SquaredRelu, false>))->Name("gated_unit/squared_relu/float");
BENCHMARK((activation<float, kernels::SquaredRelu, true>))
    ->Name("gated_unit/squared_relu_gradient/float");
BENCHMARK((activation<float, kernels::LaplaceActivation, false>))->Name("gated_unit/laplace/float");
BENCHMARK(offset)->Name("gated_unit/scale_offset/float");
