// SPDX-License-Identifier: Apache-2.0

/// \file
/// Attention of a block of queries and its gradients against plain loops in double, at every level:
/// key ranges a query, gathered queries and keys, keys met twice, a replaced own logit, several
/// tasks for one query, queries that see nothing.

#include "quern/kernels/kernels.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

namespace quern::test::block_attention {
namespace {

constexpr std::size_t rows = 150, dim = 20, value_dim = 13;

/// One list of queries, and the lists of keys that they go through one after the other.
struct Case {
  std::vector<std::int64_t> queries;
  std::vector<std::vector<std::int64_t>> keys;
  std::vector<std::int64_t> low = std::vector<std::int64_t>(rows, 0);
  std::vector<std::int64_t> high = std::vector<std::int64_t>(rows, rows);
  std::int64_t limit = rows;
  bool replace_self = false;
  bool ranges = false;  ///< lists are ranges and given as such
};

template <class T>
struct Data {
  std::vector<T> q, k, v, dout;
  Data() : q(rows * dim), k(rows * dim), v(rows * value_dim), dout(rows * value_dim) {
    std::mt19937_64 random(7);
    std::normal_distribution<double> normal;
    for (auto* x : {&q, &k, &v, &dout})
      for (T& value : *x) value = static_cast<T>(normal(random));
  }
};

struct Result {
  std::vector<double> out = std::vector<double>(rows * value_dim, 0.0);
  std::vector<double> dq = std::vector<double>(rows * dim, 0.0);
  std::vector<double> dk = dq;
  std::vector<double> dv = out;
};

constexpr double case_scale = 0.3, case_self = -5e4;

template <class T>
Result naive(const Case& c, const Data<T>& x) {
  Result r;
  const auto at = [](const std::vector<T>& a, std::size_t i, std::size_t n, std::size_t p) {
    return static_cast<double>(a[i * n + p]);
  };
  for (const std::int64_t query : c.queries) {
    const auto i = static_cast<std::size_t>(query);
    std::vector<std::size_t> seen;
    for (const auto& list : c.keys)
      for (const std::int64_t j : list)
        if (j >= c.low[i] && j <= c.high[i] && j < c.limit)
          seen.push_back(static_cast<std::size_t>(j));
    std::vector<double> logit(seen.size(), 0.0);
    double top = -1e300, total = 0;
    for (std::size_t s = 0; s < seen.size(); ++s) {
      for (std::size_t p = 0; p < dim; ++p)
        logit[s] += case_scale * at(x.q, i, dim, p) * at(x.k, seen[s], dim, p);
      if (c.replace_self && seen[s] == i) logit[s] = case_self;
      top = (std::max)(top, logit[s]);
    }
    for (double& l : logit) total += l = std::exp(l - top);
    double delta = 0;
    for (std::size_t p = 0; p < value_dim; ++p) {
      for (std::size_t s = 0; s < seen.size(); ++s)
        r.out[i * value_dim + p] += logit[s] / total * at(x.v, seen[s], value_dim, p);
      delta += r.out[i * value_dim + p] * at(x.dout, i, value_dim, p);
    }
    for (std::size_t s = 0; s < seen.size(); ++s) {
      const double weight = logit[s] / total;
      double slope = -delta;
      for (std::size_t p = 0; p < value_dim; ++p) {
        r.dv[seen[s] * value_dim + p] += weight * at(x.dout, i, value_dim, p);
        slope += at(x.dout, i, value_dim, p) * at(x.v, seen[s], value_dim, p);
      }
      if (c.replace_self && seen[s] == i) continue;
      for (std::size_t p = 0; p < dim; ++p) {
        r.dq[i * dim + p] += case_scale * weight * slope * at(x.k, seen[s], dim, p);
        r.dk[seen[s] * dim + p] += case_scale * weight * slope * at(x.q, i, dim, p);
      }
    }
  }
  return r;
}

template <class T>
void expect_near(const std::vector<T>& got, const std::vector<double>& expected, double tolerance) {
  double scale = 0;
  for (const double e : expected) scale = (std::max)(scale, std::fabs(e));
  for (std::size_t i = 0; i < got.size(); ++i) {
    ASSERT_NEAR(static_cast<double>(got[i]), expected[i], tolerance * scale) << i;
  }
}

template <class T>
void check(const Case& c) {
  const Data<T> x;
  std::vector<T> scratch(
      static_cast<std::size_t>(kernels::block_attention_scratch(dim, value_dim, true) + 64));
  std::vector<T> largest(rows), total(rows), delta(rows), out(rows * value_dim, T{9});
  std::vector<T> dq(rows * dim), dk(rows * dim), dv(rows * value_dim);
  kernels::BlockAttentionTask<T> task;
  task.q = x.q.data(), task.k = x.k.data(), task.v = x.v.data();
  task.q_stride = task.k_stride = task.dim = dim;
  task.v_stride = task.value_dim = value_dim;
  task.scale = static_cast<T>(case_scale), task.self_logit = static_cast<T>(case_self);
  task.replace_self = c.replace_self;
  task.lowest = c.low.data(), task.highest = c.high.data(), task.key_limit = c.limit;
  task.query_ids = c.ranges ? nullptr : c.queries.data();
  task.first_query = c.queries[0], task.queries = static_cast<std::ptrdiff_t>(c.queries.size());
  // Aligned to a vector.
  const std::size_t off = reinterpret_cast<std::uintptr_t>(scratch.data()) % 64 / sizeof(T);
  task.scratch = scratch.data() + (64 / sizeof(T) - off) % (64 / sizeof(T));
  kernels::BlockAttentionSums<T> sums{largest.data(), total.data(), out.data(), value_dim};
  kernels::BlockAttentionGradients<T> g{
      largest.data(), total.data(), delta.data(), x.dout.data(), value_dim, dq.data(), dim,
      dk.data(),      dim,          dv.data(),    value_dim};
  const auto each = [&](auto&& call) {
    for (std::size_t r = 0; r < c.keys.size(); ++r) {
      task.key_ids = c.ranges ? nullptr : c.keys[r].data();
      task.first_key = c.keys[r][0], task.keys = static_cast<std::ptrdiff_t>(c.keys[r].size());
      sums.first = r == 0, sums.last = r + 1 == c.keys.size();
      call();
    }
  };
  each([&] { QUERN_DISPATCH(block_attention<T>(task, sums)); });
  const double tolerance = std::numeric_limits<T>::epsilon() * 64;
  const Result expected = naive(c, x);
  for (const std::int64_t query : c.queries) {
    const auto i = static_cast<std::size_t>(query);
    for (std::size_t p = 0; p < value_dim; ++p) {
      ASSERT_NEAR(static_cast<double>(out[i * value_dim + p]), expected.out[i * value_dim + p],
                  tolerance * 4);
      delta[i] += out[i * value_dim + p] * x.dout[i * value_dim + p];
    }
  }
  each([&] { QUERN_DISPATCH(block_attention_gradients<T>(task, g)); });
  expect_near(dq, expected.dq, tolerance);
  expect_near(dk, expected.dk, tolerance);
  expect_near(dv, expected.dv, tolerance);
}

void check_levels(const Case& c) {
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(simd::name(level));
    check<float>(c);
    check<double>(c);
  }
}

std::vector<std::int64_t> range(std::int64_t first, std::int64_t count, std::int64_t step = 1) {
  std::vector<std::int64_t> list;
  for (std::int64_t i = 0; i < count; ++i) list.push_back(first + i * step);
  return list;
}

TEST(BlockAttention, RangesDiagonalsAndWindows) {
  Case full{range(3, 64), {range(0, 150)}};
  full.ranges = true;
  check_levels(full);
  Case window{range(61, 64), {range(0, 129)}};
  window.ranges = true;
  for (std::size_t i = 0; i < rows; ++i) {
    const auto place = static_cast<std::int64_t>(i);
    window.low[i] = place - 17, window.high[i] = place + 5;
  }
  window.limit = 110;  // the last queries see fewer and fewer keys, then none
  check_levels(window);
  Case one{range(149, 1), {range(0, 150)}};
  one.ranges = true;
  check_levels(one);
}

TEST(BlockAttention, ListsInAnyOrderAndTwice) {
  Case c{range(1, 37, 4), {range(149, 50, -3), {5, 5, 7, 140, 6, 5}, range(2, 70, 2)}};
  for (std::size_t i = 0; i < rows; ++i) {
    c.high[i] = static_cast<std::int64_t>(i);
    c.low[i] = i % 3 == 0 ? 20 : 0;
  }
  check_levels(c);
}

TEST(BlockAttention, OwnKeyLast) {
  Case c{range(0, 40, 2), {range(0, 40, 2), range(10, 30)}};
  for (std::size_t i = 0; i < rows; ++i) c.high[i] = static_cast<std::int64_t>(i);
  c.replace_self = true;
  check_levels(c);
}

}  // namespace
}  // namespace quern::test::block_attention
