// SPDX-License-Identifier: Apache-2.0

/// \file
/// One step of a recurrence in place at every level: against its definition, and where nothing
/// fades with the bits of a tile and of a tile's normaliser.

#include "quern/core/nd_view.hpp"
#include "quern/core/random.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/kernels/recurrence_step_types.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <string>
#include <vector>

namespace quern::test::recurrence_step {
namespace {

enum class Kind { none, all, rows };

template <class T>
std::vector<T> sized(Index n) {
  return std::vector<T>(static_cast<std::size_t>(n));
}

template <class T>
struct Problem {
  Index rows, lanes;
  Kind kind;
  std::vector<T> write, read, values, state, normaliser;
  std::vector<kernels::StepFade<T>> fades;
  Problem(Index m, Index n, Kind k) : rows(m), lanes(n), kind(k) {
    Philox random(3, "one step");
    const auto fill = [&](std::vector<T>& x, Index size) {
      for (Index i = 0; i < size; ++i) x.push_back(static_cast<T>(random.uniform(0.1, 1.0)));
    };
    fill(write, m), fill(read, m), fill(values, n), fill(state, m * n), fill(normaliser, m);
    for (Index r = 0; r < m + 1; ++r) {
      const double x = random.uniform(-2.0, 0.0);
      fades.push_back(x > -0.5 ? kernels::StepFade<T>{T{1}, static_cast<T>(std::expm1(x))}
                               : kernels::StepFade<T>{T{0}, static_cast<T>(std::exp(x))});
    }
  }
  [[nodiscard]] double fade(Index row) const {
    if (kind == Kind::none) return 1;
    const auto& f = fades[static_cast<std::size_t>(kind == Kind::rows ? row : 0)];
    return static_cast<double>(f.keep) + static_cast<double>(f.change);
  }
  /// Outputs and the total; state and normaliser are those after the step.
  std::vector<T> step() {
    std::vector<T> out = sized<T>(lanes + 1);
    kernels::RecurrenceStep<T> s;
    s.rows = rows, s.lanes = lanes, s.stride = lanes;
    s.write = write.data(), s.read = read.data(), s.values = values.data();
    s.fade = kind == Kind::none ? nullptr : fades.data(), s.fade_by_row = kind == Kind::rows;
    s.state = state.data(), s.out = out.data();
    s.normaliser = normaliser.data(), s.total = out.data() + lanes;
    QUERN_DISPATCH(recurrence_step<T>(s));
    return out;
  }
};

template <class T>
void expect_definition(Problem<T> p) {
  const Problem<T> before = p;
  const std::vector<T> out = p.step();
  const double bound = 64 * static_cast<double>(std::numeric_limits<T>::epsilon());
  std::vector<double> expected(out.size());
  for (Index r = 0; r < p.rows; ++r) {
    const auto row = static_cast<std::size_t>(r);
    const double f = before.fade(r), w = static_cast<double>(before.write[row]);
    const double read = static_cast<double>(before.read[row]);
    for (Index c = 0; c < p.lanes; ++c) {
      const auto at = static_cast<std::size_t>(r * p.lanes + c);
      const double s = f * static_cast<double>(before.state[at]) +
                       w * static_cast<double>(before.values[static_cast<std::size_t>(c)]);
      ASSERT_NEAR(static_cast<double>(p.state[at]), s, bound);
      expected[static_cast<std::size_t>(c)] += read * s;
    }
    const double z = f * static_cast<double>(before.normaliser[row]) + w;
    ASSERT_NEAR(static_cast<double>(p.normaliser[row]), z, bound);
    expected.back() += read * z;
  }
  for (std::size_t i = 0; i < out.size(); ++i) {
    ASSERT_NEAR(static_cast<double>(out[i]), expected[i], bound * (1 + expected[i])) << i;
  }
}

/// A tile of one step.
template <class T>
void expect_bits_of_tile(Problem<T> p) {
  const kernels::RecurrenceLayout layout = QUERN_DISPATCH(recurrence_layout<T>());
  const auto up = [](Index n, Index m) { return (n + m - 1) / m * m; };
  const Index stride = up(p.lanes, layout.lanes), padded = up(p.rows, layout.rows);
  std::vector<T> w = sized<T>(padded), r = w, z = w, v = sized<T>(stride), out = v;
  std::vector<T> state = sized<T>(padded * stride), partial = sized<T>(layout.rows);
  std::copy(p.write.begin(), p.write.end(), w.begin());
  std::copy(p.read.begin(), p.read.end(), r.begin());
  std::copy(p.normaliser.begin(), p.normaliser.end(), z.begin());
  std::copy(p.values.begin(), p.values.end(), v.begin());
  for (Index i = 0; i < p.rows; ++i) {
    std::copy_n(p.state.begin() + i * p.lanes, p.lanes, state.begin() + i * stride);
  }
  T total{};
  kernels::RecurrenceTile<T> tile;
  tile.steps = 1, tile.row_blocks = padded / layout.rows, tile.stride = stride;
  tile.write = w.data(), tile.read = r.data(), tile.values = v.data();
  tile.out = out.data(), tile.state = state.data();
  QUERN_DISPATCH(recurrence_tile<T>(tile));
  kernels::RecurrenceNormaliser<T> sums;
  sums.steps = 1, sums.row_blocks = tile.row_blocks;
  sums.write = w.data(), sums.read = r.data();
  sums.state = z.data(), sums.totals = &total, sums.partial = partial.data();
  QUERN_DISPATCH(recurrence_normaliser<T>(sums));
  const std::vector<T> got = p.step();
  EXPECT_TRUE(std::equal(got.begin(), got.end() - 1, out.begin()));
  EXPECT_EQ(got.back(), total);
  EXPECT_TRUE(std::equal(p.normaliser.begin(), p.normaliser.end(), z.begin()));
  for (Index i = 0; i < p.rows; ++i) {
    EXPECT_TRUE(std::equal(p.state.begin() + i * p.lanes, p.state.begin() + (i + 1) * p.lanes,
                           state.begin() + i * stride));
  }
}

/// Steps of a tile are steps one after the other.
template <class T>
void expect_normaliser_of_tile(Index rows, bool fades) {
  const kernels::RecurrenceLayout layout = QUERN_DISPATCH(recurrence_layout<T>());
  const Index steps = 5, blocks = (rows + layout.rows - 1) / layout.rows;
  const Index padded = blocks * layout.rows;
  std::vector<T> w = sized<T>(blocks * layout.rows * steps), r = w;
  std::vector<T> z = sized<T>(blocks * layout.rows), one = z;
  std::vector<T> totals = sized<T>(steps), partial = sized<T>(steps * layout.rows);
  Philox random(4, "normaliser");
  for (T& x : w) x = static_cast<T>(random.uniform(0.1, 1.0));
  for (T& x : r) x = static_cast<T>(random.uniform(0.1, 1.0));
  kernels::RecurrenceNormaliser<T> sums;
  sums.steps = steps, sums.row_blocks = blocks, sums.write = w.data(), sums.read = r.data();
  sums.write_stride = sums.read_stride = padded;
  sums.state = z.data(), sums.totals = totals.data(), sums.partial = partial.data();
  const T kept[] = {T(0.5), T(1), T(0.25), T(0), T(0.75)};
  if (fades) sums.fades = kept;
  QUERN_DISPATCH(recurrence_normaliser<T>(sums));
  for (Index t = 0; t < steps; ++t) {
    double total = 0;
    for (Index b = 0; b < blocks; ++b) {
      for (Index i = 0; i < layout.rows; ++i) {
        const auto at = static_cast<std::size_t>(t * padded + b * layout.rows + i);
        T& sum = one[static_cast<std::size_t>(b * layout.rows + i)];
        sum = (fades ? kept[t] * sum : sum) + w[at];
        total += static_cast<double>(r[at]) * static_cast<double>(sum);
      }
    }
    ASSERT_NEAR(static_cast<double>(totals[static_cast<std::size_t>(t)]), total, 1e-5 * total);
  }
  for (std::size_t i = 0; i < z.size(); ++i) ASSERT_NEAR(one[i], z[i], 1e-6);
}

template <class T>
class RecurrenceStepKernel : public ::testing::Test {};
using Scalars = ::testing::Types<float, double>;
TYPED_TEST_SUITE(RecurrenceStepKernel, Scalars);

TYPED_TEST(RecurrenceStepKernel, EveryLevelAndSize) {
  using T = TypeParam;
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(simd::name(level));
    for (const Index rows : {0, 1, 7, 64}) {
      expect_normaliser_of_tile<T>(rows, false);
      expect_normaliser_of_tile<T>(rows, true);
      for (const Index lanes : {0, 1, 5, 17, 64, 71}) {
        SCOPED_TRACE(std::to_string(rows) + " rows, lanes " + std::to_string(lanes));
        expect_bits_of_tile(Problem<T>(rows, lanes, Kind::none));
        for (const Kind kind : {Kind::none, Kind::all, Kind::rows}) {
          expect_definition(Problem<T>(rows, lanes, kind));
        }
      }
    }
  }
}

}  // namespace
}  // namespace quern::test::recurrence_step
