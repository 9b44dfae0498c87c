// SPDX-License-Identifier: Apache-2.0

/// \file
/// Forests: trees a second to grow and (row, tree) pairs a second to predict, on images' columns of
/// bytes and on columns of distinct numbers, one thread.

#include "quern/ensemble/extra_trees.hpp"
#include "quern/ensemble/random_forest.hpp"

#include <benchmark/benchmark.h>

#include <cmath>
#include <cstdint>
#include <vector>

namespace {

constexpr std::int64_t columns = 100;

struct Table {
  std::vector<float> x;
  std::vector<std::int32_t> y;
  std::int64_t rows;
  [[nodiscard]] quern::ensemble::Features view() const { return {x.data(), {rows, columns}}; }
};

/// Ten classes; a third of the values are 0. \p bytes: whole numbers of 0..255.
Table make(std::int64_t rows, bool bytes) {
  Table t{{}, {}, rows};
  quern::Philox rng(1, "forest bench");
  for (std::int64_t r = 0; r < rows; ++r) {
    const auto label = static_cast<std::int32_t>(rng.integer(10));
    t.y.push_back(label);
    for (std::int64_t f = 0; f < columns; ++f) {
      const double v = 60 * rng.normal() + (f % 10 == label ? 90 : 30);
      const double cut = v < 0 ? 0 : v > 255 ? 255 : v;
      t.x.push_back(static_cast<float>(bytes ? std::floor(cut) : v));
    }
  }
  return t;
}

template <class Forest>
void grow(benchmark::State& state) {
  const Table t = make(state.range(0), state.range(1) != 0);
  constexpr std::int32_t trees = 10;
  for (auto _ : state) {
    Forest forest({.n_estimators = trees, .n_jobs = 1});
    forest.fit(t.view(), t.y, 10);
    benchmark::DoNotOptimize(forest.size());
  }
  state.SetItemsProcessed(state.iterations() * trees);  // trees a second
}

void predict(benchmark::State& state) {
  const Table t = make(4000, true);
  constexpr std::int32_t trees = 50;
  quern::ensemble::RandomForestClassifier forest({.n_estimators = trees, .n_jobs = 1});
  forest.fit(t.view(), t.y, 10);
  std::vector<float> out(static_cast<std::size_t>(t.rows) * 10);
  for (auto _ : state) {
    forest.predict_proba(t.view(), quern::MatrixView<float>(out.data(), {t.rows, 10}));
    benchmark::DoNotOptimize(out.data());
  }
  state.SetItemsProcessed(state.iterations() * t.rows * trees);
}

void add_shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"rows", "bytes"})->Args({4000, 1})->Args({4000, 0})->Args({40000, 1});
  b->Unit(benchmark::kMillisecond);
}

BENCHMARK(grow<quern::ensemble::RandomForestClassifier>)->Apply(add_shapes);
BENCHMARK(grow<quern::ensemble::ExtraTreesClassifier>)->Apply(add_shapes);
BENCHMARK(predict);

}  // namespace
