// SPDX-License-Identifier: Apache-2.0

/// \file
/// The fused pass of an optimiser on 8,192 elements, which lie in the second cache: what the rules
/// cost when memory does not limit (bench/optim has the passes over memory). Nanoseconds an
/// element.

#include "quern/core/bfloat16.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/kernels/optim_types.hpp"

#include <benchmark/benchmark.h>

#include <cstddef>
#include <limits>
#include <vector>

namespace {

namespace kernels = quern::kernels;

void count(benchmark::State& state, std::size_t n) {
  using benchmark::Counter;
  const double elements = static_cast<double>(state.iterations()) * static_cast<double>(n);
  state.counters["ns/element"] = Counter(elements * 1e-9, Counter::kIsRate | Counter::kInvert);
}

template <class M, class Rule>
void step(benchmark::State& state, const Rule& rule) {
  constexpr std::size_t n = 8192;
  std::vector<float> p(n, 1.0F), g(n);
  for (std::size_t i = 0; i < n; ++i) g[i] = static_cast<float>(i % 17) - 8.0F;
  std::vector<M> s[kernels::max_optim_states];
  kernels::OptimChunk<float> chunk{p.data(), g.data(), n, 0, 1.0F, 0};
  kernels::OptimWork<float, M> work;
  work.chunks = &chunk;
  work.count = 1;
  for (int k = 0; k < kernels::max_optim_states; ++k) {
    s[k].assign(n + kernels::optim_state_padding, M{});
    work.states[k] = s[k].data();
  }
  work.prologue = {1.0F, (std::numeric_limits<float>::infinity)(), 0.0F, 1.0F, 7U};
  for (auto _ : state) {
    QUERN_DISPATCH(optim_step(rule, work));
    benchmark::DoNotOptimize(p.data());
  }
  count(state, n);
}

constexpr kernels::AdamRule<float> adam{0.9F, 0.1F, 0.999F, 0.001F, 1e-3F, 1.0F, 0.0F, 1e-8F};

void sgd(benchmark::State& state) { step<float>(state, kernels::SgdRule<float>{1e-3F}); }
void adam_float(benchmark::State& state) { step<float>(state, adam); }
void adam_bfloat16(benchmark::State& state) { step<quern::BFloat16>(state, adam); }
void amsgrad(benchmark::State& state) { step<float>(state, kernels::AmsgradRule<float>{adam}); }
BENCHMARK(sgd);
BENCHMARK(adam_float);
BENCHMARK(adam_bfloat16);
BENCHMARK(amsgrad);

void survey(benchmark::State& state) {
  constexpr std::size_t n = 8192;
  std::vector<float> p(n, 1.0F), g(n, 0.5F);
  const kernels::OptimChunk<float> chunk{p.data(), g.data(), n, 0, 1.0F, 0};
  const kernels::OptimChunk<float>* const chunks = &chunk;
  kernels::OptimSums sums;
  for (auto _ : state) {
    benchmark::DoNotOptimize(QUERN_DISPATCH(optim_survey(chunks, std::size_t{1}, 1.0F, &sums)));
  }
  count(state, n);
}
BENCHMARK(survey);

}  // namespace
