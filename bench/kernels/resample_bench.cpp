// SPDX-License-Identifier: Apache-2.0

/// \file
/// Resampling of planes to double, channels first and last, and back. Rates count the
/// bytes of source and result once.

#include "quern/nn/resample.hpp"
#include "report.hpp"

#include <benchmark/benchmark.h>

#include <cstddef>
#include <vector>

namespace {

using quern::nn::Interpolation;

template <class T>
void resample(benchmark::State& state, Interpolation mode, bool channels_last, bool backward) {
  const quern::Index side = state.range(0);
  quern::nn::Tensor<T> small({4, 32, side, side}), large({4, 32, 2 * side, 2 * side});
  if (channels_last) {
    small.resize({4, side, side, 32}, quern::core::Fill::zero);
    large.resize({4, 2 * side, 2 * side, 32}, quern::core::Fill::zero);
  }
  const quern::nn::ResampleOptions options{
      .mode = mode, .channels_last = channels_last, .threads = 1};
  for (auto _ : state) {
    if (backward) {
      quern::nn::resample_vjp<T>(large.view(), small.view(), options);
    } else {
      quern::nn::resample<T>(small.view(), large.view(), options);
    }
    benchmark::ClobberMemory();
  }
  bench::report_bytes(state, static_cast<double>(small.size() + large.size()) * sizeof(T));
}

void resample_float(benchmark::State& state, Interpolation mode, bool last, bool backward) {
  resample<float>(state, mode, last, backward);
}
void resample_double(benchmark::State& state, Interpolation mode, bool last, bool backward) {
  resample<double>(state, mode, last, backward);
}

}  // namespace

BENCHMARK_CAPTURE(resample_float, nearest, Interpolation::nearest, false, false)->Arg(32)->Arg(128);
BENCHMARK_CAPTURE(resample_float, linear, Interpolation::linear, false, false)->Arg(32)->Arg(128);
BENCHMARK_CAPTURE(resample_float, linear_last, Interpolation::linear, true, false)->Arg(128);
BENCHMARK_CAPTURE(resample_float, linear_back, Interpolation::linear, false, true)->Arg(128);
BENCHMARK_CAPTURE(resample_float, cubic, Interpolation::cubic, false, false)->Arg(32)->Arg(128);
BENCHMARK_CAPTURE(resample_double, linear, Interpolation::linear, false, false)->Arg(128);
