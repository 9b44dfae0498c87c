// SPDX-License-Identifier: Apache-2.0

/// \file
/// The way back of the selective scan, on one thread.

#include "kernels/selective_scan_sequence.hpp"
#include "quern/core/buffer.hpp"
#include "quern/kernels/kernels.hpp"
#include "report.hpp"

#include <benchmark/benchmark.h>

#include <cstddef>
#include <vector>

namespace {

using quern::kernels::SelectiveScanVjpTask;

template <class T>
void backward(benchmark::State& state) {
  bench::Scan<T> scan(state.range(0), state.range(1), state.range(2));
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

}  // namespace

BENCHMARK(backward<float>)
    ->Name("selective_scan_vjp/float")
    ->Args({256, 128, 16})
    ->Args({2048, 1536, 16});
