// SPDX-License-Identifier: Apache-2.0

/// \file
/// What both units of the consumer program do. Everything is static: each unit runs its own copy,
/// built with its own flags, of the same work. CONSUMER_LIGHT leaves out all but the kernels, which
/// saves most of the compile time, where the way that quern is found or the choice of instructions
/// is in question and not the rooms above.

#ifndef QUERN_TESTS_CONSUMER_HPP
#define QUERN_TESTS_CONSUMER_HPP

#ifdef CONSUMER_HIGHWAY_FIRST
#include <hwy/highway.h>
#endif

#ifdef CONSUMER_LIGHT
#include "quern/kernels/gemm.hpp"
#else
#include "quern/quern.hpp"
#endif

#include <cstdint>
#include <string>
#include <vector>

/// What a unit found out.
struct Findings {
  double product = 0;
  double prediction = 0;
  std::string level;
};

// Memory is held by std::vector here, not by Eigen: units that differ in Eigen's alignment may not
// both own Eigen objects, since the linker keeps one copy of Eigen's own functions
// (docs/building.md).
using Matrix = quern::MatrixView<float>;

// The sum of a matrix product of more than one block in each direction.
static double multiply() {
  std::vector<float> a(70 * 300, 0.5F), b(300 * 50, 0.25F), c(70 * 50);
  quern::kernels::gemm<float>(Matrix(a.data(), {70, 300}), Matrix(b.data(), {300, 50}),
                              Matrix(c.data(), {70, 50}));
  double sum = 0;
  for (float x : c) sum += static_cast<double>(x);
  return sum;
}

#ifdef CONSUMER_LIGHT
static double train() { return 1; }
#else
// The sum of what boosted trees predict after a few rounds on a made-up table.
static double train() {
  std::vector<float> x, y;
  for (int i = 0; i < 400; ++i) {
    const int row[] = {i % 7, i % 11, i % 13};
    for (int value : row) x.push_back(static_cast<float>(value));
    y.push_back(static_cast<float>(row[0] * row[1] + row[2]));
  }
  const auto data = quern::tree::make_dataset(Matrix(x.data(), {400, 3}), y);
  quern::boosting::Booster booster({.num_round = 5, .max_depth = 4});
  booster.fit(data);
  const auto predicted = booster.predict(data);
  double sum = 0;
  for (std::int64_t i = 0; i < predicted.extent(0); ++i)
    sum += static_cast<double>(predicted(i, 0)) * static_cast<double>(i % 17);
  return sum;
}
#endif

static Findings find_out() {
  Findings findings;
  findings.product = multiply();
  findings.prediction = train();
  findings.level = quern::simd::name(quern::simd::active_level());
  return findings;
}

#endif  // QUERN_TESTS_CONSUMER_HPP
