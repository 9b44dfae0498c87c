// SPDX-License-Identifier: Apache-2.0

/// \file
/// The selective scan and its way back, in the cache and out of it, and one step.

#include "quern/core/buffer.hpp"
#include "quern/kernels/kernels.hpp"
#include "report.hpp"

#include <benchmark/benchmark.h>

#include <cstddef>
#include <vector>

namespace {

using quern::kernels::SelectiveScanTask;
using quern::kernels::SelectiveScanVjpTask;

template <class T>
struct Scan {
  std::ptrdiff_t steps, channels, states;
  std::vector<T> u, delta, b, c, a, h, y, kept, grad, dh, da;

  static std::vector<T> filled(std::ptrdiff_t n, T scale, T shift) {
    std::vector<T> x(static_cast<std::size_t>(n));
    for (std::size_t i = 0; i < x.size(); ++i) {
      x[i] = static_cast<T>(static_cast<double>(i * 7919 % 1024) / 512 - 1) * scale + shift;
    }
    return x;
  }
  Scan(std::ptrdiff_t l, std::ptrdiff_t d, std::ptrdiff_t n)
      : steps(l),
        channels(d),
        states(n),
        u(filled(l * d, 1, 0)),
        delta(filled(l * d, 1, -3)),
        b(filled(l * n, 1, 0)),
        c(b),
        a(filled(n * d, 0.5, -1)),
        h(filled(n * d, 1, 0)),
        y(u),
        kept((static_cast<std::size_t>(l) / 32 + 1) * h.size()),
        grad(u),
        dh(h),
        da(h) {}
  [[nodiscard]] SelectiveScanTask<T> task(std::ptrdiff_t first, std::ptrdiff_t count) {
    SelectiveScanTask<T> t;
    t.steps = steps;
    t.channels = count;
    t.states = states;
    t.u = {u.data() + first, channels};
    t.delta = {delta.data() + first, channels};
    t.b = {b.data(), states};
    t.c = {c.data(), states};
    t.a = {a.data() + first, channels};
    t.skip = u.data() + first;
    t.softplus = true;
    t.h = {h.data() + first, channels};
    t.y = {y.data() + first, channels};
    return t;
  }
  [[nodiscard]] double work() const { return static_cast<double>(steps * channels); }
};

template <class T>
void forward(benchmark::State& state) {
  Scan<T> scan(state.range(0), state.range(1), state.range(2));
  for (auto _ : state) {
    for (std::ptrdiff_t first = 0; first < scan.channels; first += 64) {
      benchmark::DoNotOptimize(QUERN_DISPATCH(selective_scan<T>(scan.task(first, 64))));
    }
  }
  bench::report(state, scan.work(), "ns/(step, channel)");
}

template <class T>
void backward(benchmark::State& state) {
  Scan<T> scan(state.range(0), state.range(1), state.range(2));
  std::vector<T> db(scan.b.size()), dc(scan.b.size()), du(scan.u.size()), ddelta(scan.u.size());
  quern::core::Buffer<T> scratch(QUERN_DISPATCH(selective_scan_vjp_scratch<T>(128)));
  for (auto _ : state) {
    for (std::ptrdiff_t first = 0; first < scan.channels; first += 128) {
      SelectiveScanVjpTask<T> task;
      task.scan = scan.task(first, 128);
      task.scan.kept = {scan.kept.data() + first, scan.channels};
      task.scan.kept_tile = scan.channels * scan.states;
      task.dy = {scan.grad.data() + first, scan.channels};
      task.dh = {scan.dh.data() + first, scan.channels};
      task.du = {du.data() + first, scan.channels};
      task.ddelta = {ddelta.data() + first, scan.channels};
      task.db = {db.data(), scan.states};
      task.dc = {dc.data(), scan.states};
      task.da = {scan.da.data() + first, scan.channels};
      task.scratch = scratch.data();
      QUERN_DISPATCH(selective_scan_vjp<T>(task));
      benchmark::ClobberMemory();
    }
  }
  bench::report(state, scan.work(), "ns/(step, channel)");
}

template <class T>
void one_step(benchmark::State& state) {
  Scan<T> scan(1, state.range(0), state.range(1));
  for (auto _ : state) {
    benchmark::DoNotOptimize(QUERN_DISPATCH(selective_scan<T>(scan.task(0, scan.channels))));
  }
  bench::report(state, scan.work(), "ns/channel");
}

}  // namespace

BENCHMARK(forward<float>)
    ->Name("selective_scan/float")
    ->Args({256, 64, 16})
    ->Args({2048, 1536, 16})
    ->Args({16384, 1536, 16});
BENCHMARK(forward<double>)->Name("selective_scan/double")->Args({2048, 256, 16});
BENCHMARK(backward<float>)
    ->Name("selective_scan_vjp/float")
    ->Args({256, 128, 16})
    ->Args({2048, 1536, 16});
BENCHMARK(one_step<float>)->Name("selective_scan_step/float")->Args({1536, 16});
