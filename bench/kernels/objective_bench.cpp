// SPDX-License-Identifier: Apache-2.0

/// \file
/// Derivatives of losses: logistic, Poisson, pseudo-Huber, and softmax probabilities of ten
/// classes.

#include "quern/kernels/kernels.hpp"
#include "report.hpp"

#include <benchmark/benchmark.h>

#include <cstdint>
#include <random>
#include <vector>

namespace {

void logistic(benchmark::State& state) {
  const std::int64_t rows = state.range(0);
  std::vector<float> margins(static_cast<std::size_t>(rows), 0.3f), labels = margins;
  std::vector<float> pairs(static_cast<std::size_t>(2 * rows));
  for (auto _ : state) {
    QUERN_DISPATCH(
        logistic_gradients<float>(margins.data(), labels.data(), nullptr, rows, pairs.data()));
    benchmark::ClobberMemory();
  }
  bench::report(state, static_cast<double>(rows), "ns/row");
}

void poisson(benchmark::State& state) {
  const std::int64_t rows = state.range(0);
  std::vector<float> margins(static_cast<std::size_t>(rows), 0.3f), labels = margins;
  std::vector<float> pairs(static_cast<std::size_t>(2 * rows));
  for (auto _ : state) {
    QUERN_DISPATCH(
        poisson_gradients<float>(margins.data(), labels.data(), nullptr, rows, 0.7, pairs.data()));
    benchmark::ClobberMemory();
  }
  bench::report(state, static_cast<double>(rows), "ns/row");
}

void pseudo_huber(benchmark::State& state) {
  const std::int64_t rows = state.range(0);
  std::vector<float> margins(static_cast<std::size_t>(rows), 0.3f), labels = margins;
  std::vector<float> pairs(static_cast<std::size_t>(2 * rows));
  for (auto _ : state) {
    QUERN_DISPATCH(pseudo_huber_gradients<float>(margins.data(), labels.data(), nullptr, rows, 1.0,
                                                 pairs.data()));
    benchmark::ClobberMemory();
  }
  bench::report(state, static_cast<double>(rows), "ns/row");
}

void softmax(benchmark::State& state) {
  const std::int64_t rows = state.range(0), classes = 10;
  std::vector<float> margins(static_cast<std::size_t>(rows * classes), 0.3f), out = margins;
  for (auto _ : state) {
    QUERN_DISPATCH(softmax_probabilities<float>(margins.data(), rows, classes, out.data()));
    benchmark::ClobberMemory();
  }
  bench::report(state, static_cast<double>(rows * classes), "ns/value");
}

}  // namespace

BENCHMARK(logistic)->Name("objective/logistic")->ArgName("rows")->Arg(1024)->Arg(1000000);
BENCHMARK(poisson)->Name("objective/poisson")->ArgName("rows")->Arg(1024)->Arg(1000000);
BENCHMARK(pseudo_huber)->Name("objective/pseudo_huber")->ArgName("rows")->Arg(1024)->Arg(1000000);
BENCHMARK(softmax)->Name("objective/softmax")->ArgName("rows")->Arg(1024)->Arg(60000);
