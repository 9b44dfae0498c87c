// SPDX-License-Identifier: Apache-2.0

/// \file
/// Two rows woven into one. Rates count the bytes of sources and result once.

#include "quern/kernels/kernels.hpp"
#include "report.hpp"

#include <benchmark/benchmark.h>

#include <cstddef>
#include <vector>

namespace {

void interleave(benchmark::State& state) {
  const auto size = static_cast<std::size_t>(state.range(0));
  std::vector<float> a(size), b(size), out(2 * size);
  const float* const sources[] = {a.data(), b.data()};
  for (auto _ : state) {
    QUERN_DISPATCH(interleave_rows<float>(sources, 2, size, out.data(), false));
    benchmark::ClobberMemory();
  }
  bench::report_bytes(state, static_cast<double>(4 * size) * sizeof(float));
}

}  // namespace

BENCHMARK(interleave)->Arg(256)->Arg(4096);
