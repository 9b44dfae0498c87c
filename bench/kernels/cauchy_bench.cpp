// SPDX-License-Identifier: Apache-2.0

/// \file
/// Cauchy sums of S4's generating function and their gradients, a tile of channels.

#include "quern/kernels/kernels.hpp"

#include "quern/core/buffer.hpp"
#include "report.hpp"

#include <benchmark/benchmark.h>

#include <cstddef>

namespace {

void cauchy(benchmark::State& state, bool gradients) {
  constexpr std::size_t lanes = quern::kernels::cauchy_lanes<double>, modes = 64, nodes = 128;
  const auto each = static_cast<std::size_t>(state.range(0));
  using Buffer = quern::core::Buffer<double>;
  Buffer lambda(modes * 2 * lanes), products(modes * each * 2 * lanes), node(nodes * 4), dt(lanes);
  Buffer sums(nodes * each * 2 * lanes), dsums(sums.size()), dproducts(products.size());
  Buffer dlambda(lambda.size()), ddt(lanes);
  for (Buffer* b : {&products, &dsums, &dproducts, &dlambda, &ddt, &node}) {
    for (double& v : *b) v = 0.3;
  }
  for (double& v : lambda) v = -1;
  for (double& v : dt) v = 0.1;
  quern::kernels::CauchyTask<double> task;
  task.modes = modes, task.nodes = nodes, task.products_each = each;
  task.lambda = lambda.data(), task.dt = dt.data(), task.products = products.data();
  task.node = node.data(), task.sums = sums.data(), task.dsums = dsums.data();
  task.dproducts = dproducts.data(), task.dlambda = dlambda.data(), task.ddt = ddt.data();
  for (auto _ : state) {
    if (gradients) {
      QUERN_DISPATCH(cauchy_sums_vjp<double>(task));
    } else {
      QUERN_DISPATCH(cauchy_sums<double>(task));
    }
    benchmark::ClobberMemory();
  }
  bench::report(state, static_cast<double>(modes * nodes * lanes), "ns/(node, mode, channel)");
}

}  // namespace

BENCHMARK_CAPTURE(cauchy, sums, false)->Arg(1)->Arg(4)->Arg(9);
BENCHMARK_CAPTURE(cauchy, gradients, true)->Arg(4);
