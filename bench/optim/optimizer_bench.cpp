// SPDX-License-Identifier: Apache-2.0

/// \file
/// One step of an optimiser: on 16M parameters GB/s moved and the fraction of an update's in place,
/// on a thousand tensors of 16 values nanoseconds a tensor.

#include "limits.hpp"
#include "quern/core/bfloat16.hpp"
#include "quern/core/buffer.hpp"
#include "quern/optim/optimizer.hpp"

#include <benchmark/benchmark.h>

#include <cstddef>
#include <vector>

namespace {

using namespace quern::optim;

/// `moved`: bytes a parameter that a step reads and writes.
template <class Method, class M>
void large(benchmark::State& state, double moved) {
  const auto n = static_cast<std::size_t>(1) << 24;
  quern::core::Buffer<float> p(n, quern::core::Fill::zero), g(n, quern::core::Fill::zero);
  for (std::size_t i = 0; i < n; ++i) g[i] = static_cast<float>(i % 17) - 8.0F;
  const int threads = static_cast<int>(state.range(0));
  Optimizer<Method, float, M> optimizer({{.values = p.span(), .gradient = g.span()}}, Method{},
                                        {.threads = threads});
  for (auto _ : state) optimizer.step();
  using benchmark::Counter;
  const double bytes = static_cast<double>(state.iterations()) * moved * static_cast<double>(n);
  state.counters["GB/s"] = Counter(bytes * 1e-9, Counter::kIsRate);
  state.counters["of_limit"] =
      Counter(bytes * 1e-9 / bench::limits(threads).update, Counter::kIsRate);
}
void adamw(benchmark::State& state) { large<AdamW, float>(state, 28); }
void adamw_bf16(benchmark::State& state) { large<AdamW, quern::BFloat16>(state, 20); }
void sgd(benchmark::State& state) { large<Sgd, float>(state, 12); }
void lion(benchmark::State& state) { large<Lion, float>(state, 20); }
BENCHMARK(adamw)->Arg(1)->Arg(2)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK(adamw_bf16)->Arg(1)->Arg(2)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK(sgd)->Arg(1)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK(lion)->Arg(1)->UseRealTime()->Unit(benchmark::kMillisecond);

void small_tensors(benchmark::State& state) {
  const std::size_t tensors = 1000, each = 16;
  std::vector<float> p(tensors * each), g(tensors * each, 1.0F);
  std::vector<Parameter<float>> parameters;
  for (std::size_t k = 0; k < tensors; ++k) {
    parameters.push_back({.values = std::span(p).subspan(k * each, each),
                          .gradient = std::span<const float>(g).subspan(k * each, each)});
  }
  Optimizer<AdamW, float> optimizer(parameters, AdamW{});
  for (auto _ : state) optimizer.step();
  state.counters["per_tensor"] =
      benchmark::Counter(static_cast<double>(state.iterations() * 1000),
                         benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}
BENCHMARK(small_tensors)->Unit(benchmark::kMicrosecond);

}  // namespace
