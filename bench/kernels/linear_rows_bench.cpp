// SPDX-License-Identifier: Apache-2.0

/// \file
/// Passes over 100,000 rows of 100 columns: mini-batches of 1 and 32, SVRG, SAGA, in order and
/// shuffled. GB/s of rows read, as a fraction of the memory limit too, and nanoseconds a row.

#include "limits.hpp"

#include "quern/core/random.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/kernels/linear_rows_types.hpp"

#include <benchmark/benchmark.h>

#include <cstddef>
#include <cstdint>
#include <numeric>
#include <vector>

namespace {

constexpr std::size_t kRows = 100000, kColumns = 100;

template <class T>
struct Problem {
  std::vector<T> x = std::vector<T>(kRows * kColumns), y = std::vector<T>(kRows);
  std::vector<T> w = std::vector<T>(kColumns), mean = w, table = std::vector<T>(kRows);
  std::vector<T> steps = std::vector<T>(kRows, T(1e-3));
  std::vector<std::int64_t> order = std::vector<std::int64_t>(kRows);

  explicit Problem(bool shuffled) {
    quern::Philox random(1);
    for (T& v : x) v = static_cast<T>(random.uniform<float>() - 0.5F);
    for (T& v : y) v = static_cast<T>(random.integer(2));
    std::iota(order.begin(), order.end(), std::int64_t{0});
    if (shuffled) random.shuffle(order);
  }
  [[nodiscard]] quern::kernels::RowSet<T> rows() const {
    return {x.data(), kColumns, order.data(), kRows, kColumns};
  }
};

template <class T>
void count(benchmark::State& state) {
  using benchmark::Counter;
  const double rows = static_cast<double>(state.iterations()) * kRows;
  const double bytes = rows * kColumns * sizeof(T);
  state.counters["GB/s"] = Counter(bytes * 1e-9, Counter::kIsRate);
  state.counters["of_limit"] = Counter(bytes * 1e-9 / bench::limits(1).read, Counter::kIsRate);
  state.counters["ns/row"] = Counter(rows * 1e-9, Counter::kIsRate | Counter::kInvert);
}

/// Arguments: rows an update, shuffled.
template <class T>
void batches(benchmark::State& state) {
  Problem<T> p(state.range(1) != 0);
  const quern::kernels::BatchPass<T> pass{
      p.rows(),       p.y.data(), true,      static_cast<std::size_t>(state.range(0)),
      p.steps.data(), T(1e-4),    p.w.data()};
  for (auto _ : state) QUERN_DISPATCH(batch_pass<T>(pass));
  count<T>(state);
}
BENCHMARK(batches<float>)->ArgsProduct({{1, 32}, {0, 1}});
BENCHMARK(batches<double>)->ArgsProduct({{1, 32}, {0, 1}});

/// Arguments: SAGA (else SVRG), shuffled.
template <class T>
void variance_reduced(benchmark::State& state) {
  Problem<T> p(state.range(1) != 0);
  const quern::kernels::VarianceReducedPass<T> pass{
      p.rows(), p.y.data(), true,           state.range(0) != 0, T(1e-3),
      T(1e-4),  T(1e-5),    p.table.data(), p.mean.data(),       p.w.data()};
  for (auto _ : state) QUERN_DISPATCH(variance_reduced_pass<T>(pass));
  count<T>(state);
}
BENCHMARK(variance_reduced<float>)->ArgsProduct({{0, 1}, {0, 1}});
BENCHMARK(variance_reduced<double>)->ArgsProduct({{0, 1}, {0, 1}});

}  // namespace
