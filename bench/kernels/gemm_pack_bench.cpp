// SPDX-License-Identifier: Apache-2.0

/// \file
/// Copies of a matrix into panels: as its rows lie, and across them. GB/s read and written.

#include "quern/kernels/gemm_types.hpp"
#include "quern/kernels/kernels.hpp"
#include "report.hpp"

#include <benchmark/benchmark.h>

#include <cstddef>
#include <vector>

namespace {

/// side: depth and columns of B; 256 is in the cache, 2048 is not.
template <class T, bool across>
void pack(benchmark::State& state) {
  const std::ptrdiff_t n = state.range(0);
  const auto layout = QUERN_DISPATCH(gemm_layout<T>());
  const std::ptrdiff_t padded = (n + layout.cols - 1) / layout.cols * layout.cols;
  std::vector<T> b(static_cast<std::size_t>(n * n), T{1});
  std::vector<T> out(static_cast<std::size_t>(n * padded));
  const quern::kernels::GemmOperand<T> operand{b.data(), across ? 1 : n, across ? n : 1};
  for (auto _ : state) {
    QUERN_DISPATCH(gemm_pack_b<T>(operand, n, n, 0, padded, padded, out.data()));
    benchmark::ClobberMemory();
  }
  bench::report_bytes(state, 2.0 * static_cast<double>(b.size() * sizeof(T)));
}

}  // namespace

BENCHMARK(pack<float, false>)->Name("gemm_pack/rows/float")->Arg(256)->Arg(2048);
BENCHMARK(pack<float, true>)->Name("gemm_pack/across/float")->Arg(256)->Arg(2048);
BENCHMARK(pack<double, false>)->Name("gemm_pack/rows/double")->Arg(256)->Arg(2048);
BENCHMARK(pack<double, true>)->Name("gemm_pack/across/double")->Arg(256)->Arg(2048);
