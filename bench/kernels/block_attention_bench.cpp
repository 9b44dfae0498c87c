// SPDX-License-Identifier: Apache-2.0

/// \file
/// One task of attention over blocks: 64 queries, a window of keys, forward and backward.

#include "limits.hpp"
#include "quern/core/buffer.hpp"
#include "quern/kernels/kernels.hpp"

#include <benchmark/benchmark.h>

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

namespace {

/// GFLOP/s, and the fraction of the measured multiply-add peak of one core.
template <class T>
void report_flops(benchmark::State& state, double flops) {
  const bench::Limits& limits = bench::limits(1);
  const double rate = static_cast<double>(state.iterations()) * flops * 1e-9;
  const double peak = std::is_same_v<T, float> ? limits.fma_f32 : limits.fma_f64;
  state.counters["GFLOP/s"] = benchmark::Counter(rate, benchmark::Counter::kIsRate);
  state.counters["of peak"] = benchmark::Counter(rate / peak, benchmark::Counter::kIsRate);
}

namespace kernels = quern::kernels;

/// range(0) keys that everybody sees (range(1) = 0) or, causal, the last 64 along the diagonal.
template <class T, bool kGradients>
void attention(benchmark::State& state) {
  const std::ptrdiff_t keys = state.range(0), dim = 64;
  std::vector<T> q(static_cast<std::size_t>(keys * dim), T(0.1)), k = q, v = q, out = q, dout = q;
  std::vector<T> dq = q, dk = q, dv = q, largest(q.size()), total(q.size()), delta(q.size());
  std::vector<std::int64_t> low(static_cast<std::size_t>(keys), 0), high;
  for (std::ptrdiff_t i = 0; i < keys; ++i) high.push_back(state.range(1) != 0 ? i : keys - 1);
  quern::core::Buffer<T> scratch(
      static_cast<std::size_t>(kernels::block_attention_scratch(dim, dim, true)));
  kernels::BlockAttentionTask<T> task;
  task.q = q.data(), task.k = k.data(), task.v = v.data();
  task.q_stride = task.k_stride = task.v_stride = task.dim = task.value_dim = dim;
  task.scale = T(0.125);
  task.lowest = low.data(), task.highest = high.data(), task.key_limit = keys;
  task.first_query = keys - 64, task.queries = 64, task.keys = keys;
  task.scratch = scratch.data();
  const kernels::BlockAttentionSums<T> sums{largest.data(), total.data(), out.data(), dim};
  QUERN_DISPATCH(block_attention<T>(task, sums));
  const kernels::BlockAttentionGradients<T> g{
      largest.data(), total.data(), delta.data(), dout.data(), dim, dq.data(), dim,
      dk.data(),      dim,          dv.data(),    dim};
  for (auto _ : state) {
    if constexpr (kGradients) {
      QUERN_DISPATCH(block_attention_gradients<T>(task, g));
    } else {
      QUERN_DISPATCH(block_attention<T>(task, sums));
    }
    benchmark::ClobberMemory();
  }
  const double products = kGradients ? 10.0 : 4.0;
  const double seen = static_cast<double>(keys) - (state.range(1) != 0 ? 31.5 : 0.0);
  report_flops<T>(state, products * 64 * seen * static_cast<double>(dim));
}

}  // namespace

BENCHMARK((attention<float, false>))->Name("block_attention/float")->Args({256, 0})->Args({192, 1});
BENCHMARK((attention<float, true>))
    ->Name("block_attention_gradients/float")
    ->Args({256, 0})
    ->Args({192, 1});
BENCHMARK((attention<double, false>))->Name("block_attention/double")->Args({256, 0});
