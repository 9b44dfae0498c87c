// SPDX-License-Identifier: Apache-2.0

/// \file
/// The decayed recurrence's kernel on a tile in the cache, and the whole of a sequence.

#include "quern/kernels/decayed_recurrence.hpp"
#include "report.hpp"

#include <benchmark/benchmark.h>

#include <cstddef>
#include <vector>

namespace {

using quern::Index;
namespace kernels = quern::kernels;

/// 64 steps of a state of dim x dim. Arguments: dim, decay.
template <class T>
void recurrence_kernel(benchmark::State& state) {
  const std::ptrdiff_t dim = state.range(0), steps = 64;
  const kernels::RecurrenceLayout layout = QUERN_DISPATCH(recurrence_layout<T>());
  const std::size_t size = static_cast<std::size_t>(dim * steps);
  std::vector<T> write(size, T(0.01)), read(size, T(0.02)), values(size, T(0.5));
  std::vector<T> decay(size, state.range(1) == 1 ? T(0.99) : T(-0.01)), out(size),
      sums(static_cast<std::size_t>(dim * dim));
  kernels::RecurrenceTile<T> tile;
  tile.steps = steps;
  tile.row_blocks = dim / layout.rows;
  tile.stride = tile.value_stride = tile.write_stride = tile.read_stride = dim;
  tile.decay_stride = dim;
  tile.write = write.data();
  tile.read = read.data();
  tile.values = values.data();
  tile.kind = static_cast<kernels::TileDecay>(state.range(1));
  tile.decay = decay.data();
  tile.out = out.data();
  tile.state = sums.data();
  for (auto _ : state) {
    QUERN_DISPATCH(recurrence_tile<T>(tile));
    benchmark::ClobberMemory();
  }
  bench::report(state, static_cast<double>(steps), "ns/step");
}

/// Length by 8 heads, dim 64. Arguments: length, whether the gradients are computed too.
void recurrence_sequence(benchmark::State& state) {
  const Index n = state.range(0);
  const quern::Shape<4> shape{1, 8, n, 64};
  quern::NdArray<float, 4> q(shape), k(shape), v(shape), out(shape), dq(shape), dk(shape),
      dv(shape);
  for (auto* x : {&q, &k, &v}) x->fill(0.01F);
  kernels::RecurrenceViews<float> in;
  in.q = q.view(), in.k = k.view(), in.v = v.view();
  kernels::RecurrenceGradients<float> to;
  to.q = dq.view(), to.k = dk.view(), to.v = dv.view();
  kernels::RecurrenceOptions options;
  options.threads = 1;
  for (auto _ : state) {
    kernels::decayed_recurrence<float>(in, out.view(), {}, options);
    if (state.range(1) != 0) {
      kernels::decayed_recurrence_vjp<float>(in, out.view(), {}, to, options);
    }
    benchmark::ClobberMemory();
  }
  bench::report(state, static_cast<double>(8 * n), "ns/step");
}

}  // namespace

BENCHMARK(recurrence_kernel<float>)
    ->Name("recurrence/kernel/float")
    ->ArgsProduct({{64, 128}, {0, 1, 2, 3}});
BENCHMARK(recurrence_kernel<double>)->Name("recurrence/kernel/double")->Args({64, 0});
BENCHMARK(recurrence_sequence)->Name("recurrence/sequence")->ArgsProduct({{1024, 16384}, {0, 1}});
