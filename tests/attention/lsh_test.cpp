// SPDX-License-Identifier: Apache-2.0

/// \file
/// Reformer's attention: against reformer-pytorch 1.4.4 in float64; gradients against finite
/// differences; more rounds come nearer to attention over all keys; any length; lengths, threads,
/// batches, bad input.

#include "quern/attention/lsh.hpp"
#include "attention/reference.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace quern::test::lsh {
namespace {

using attention::LshOptions;
using attention::LshSaved;
using Array = NdArray<double, 4>;

template <class T>
struct Result {
  NdArray<T, 4> out, dqk, dv;
  LshSaved<T> saved;
};

/// The only place where this file's kernels are made.
template <class T>
Result<T> run(const NdView<const T, 4>& qk, const NdView<const T, 4>& v,
              const NdView<const T, 3>& rotations, const NdView<const T, 4>& dout,
              const LshOptions<T>& options) {
  Result<T> r{
      NdArray<T, 4>(v.extents()), NdArray<T, 4>(qk.extents()), NdArray<T, 4>(v.extents()), {}};
  attention::lsh_attention<T>(qk, v, rotations, r.out.view(), options, &r.saved);
  attention::lsh_attention_vjp<T>(qk, v, r.out.view(), r.saved, dout, r.dqk.view(), r.dv.view(),
                                  options);
  return r;
}

template <class T>
void check_reference(const std::string& folder, bool causal) {
  SCOPED_TRACE(folder);
  const auto read = [&](const char* name) { return attention_reference<T, 4>(folder, name); };
  const Result<T> r = run<T>(read("qk"), read("v"), attention_reference<T, 3>(folder, "rotations"),
                             read("dout"), {.bucket_size = 8, .causal = causal});
  const auto buckets = attention_reference_array(folder, "buckets").values;
  std::vector<double> got;
  for (const auto& head : r.saved.heads)
    for (const std::int32_t bucket : head.buckets) got.push_back(bucket);
  EXPECT_EQ(got, buckets);
  expect_attention_near(r.out, read("out"), attention_output_tolerance<T>, "out");
  expect_attention_near(r.dqk, read("dqk"), attention_gradient_tolerance<T>, "dqk");
  expect_attention_near(r.dv, read("dv"), attention_gradient_tolerance<T>, "dv");
}

TEST(LshAttention, References) {
  check_reference<float>("lsh_reformer_full", false);
  check_reference<float>("lsh_reformer_causal", true);
  check_reference<double>("lsh_reformer_full", false);
  check_reference<double>("lsh_reformer_causal", true);
}

TEST(LshAttention, GradientsAgainstFiniteDifferencesAtAnyLength) {
  for (const Index length : {37, 5}) {
    for (const bool causal : {false, true}) {
      SCOPED_TRACE(length);
      auto qk = attention_normal<double, 4>({2, 2, length, 6}, 61);
      auto v = attention_normal<double, 4>({2, 2, length, 5}, 62);
      const auto dout = attention_normal<double, 4>({2, 2, length, 5}, 63);
      const auto rotations = attention::lsh_rotations<double>(6, 2, 4, 64);
      const std::vector<std::int64_t> lengths = {length, length - 3};
      const LshOptions<double> options{.bucket_size = 7, .causal = causal, .lengths = lengths};
      const Result<double> r = run<double>(qk, v, rotations, dout, options);
      const std::function<void(Array&)> f = [&](Array& out) {
        attention::lsh_attention<double>(qk, v, rotations, out.view(), options);
      };
      expect_attention_gradient(qk, r.dqk, dout, f, "dqk", 1e-6);
      expect_attention_gradient(v, r.dv, dout, f, "dv");
      for (Index p = 0; p < 5; ++p) EXPECT_EQ(r.out(1, 1, length - 1, p), 0);
    }
  }
}

/// Attention of positions to all others with keys of length 1, by plain loops.
Array exact(const Array& qk, const Array& v) {
  Array out(v.extents());
  const Index n = qk.extent(2), dim = qk.extent(3);
  for (Index i = 0; i < n; ++i) {
    double total = 0;
    for (Index j = 0; j < n; ++j) {
      if (i == j) continue;
      double product = 0, square = 0;
      for (Index p = 0; p < dim; ++p) {
        product += qk(0, 0, i, p) * qk(0, 0, j, p);
        square += qk(0, 0, j, p) * qk(0, 0, j, p);
      }
      const double w = std::exp(product / std::sqrt(square * static_cast<double>(dim)));
      total += w;
      for (Index p = 0; p < v.extent(3); ++p) out(0, 0, i, p) += w * v(0, 0, j, p);
    }
    for (Index p = 0; p < v.extent(3); ++p) out(0, 0, i, p) /= total;
  }
  return out;
}

TEST(LshAttention, MoreRoundsComeNearerToAllKeys) {
  const auto qk = attention_normal<double, 4>({1, 1, 256, 16}, 71, 6);
  const auto v = attention_normal<double, 4>({1, 1, 256, 8}, 72);
  const Array expected = exact(qk, v);
  double before = 1e9;
  for (const Index rounds : {1, 4, 16, 64}) {
    Array out(v.extents());
    const auto rotations = attention::lsh_rotations<double>(16, rounds, 8, 73);
    attention::lsh_attention<double>(qk, v, rotations, out.view(), {.bucket_size = 32});
    double error = 0;
    for (Index i = 0; i < out.size(); ++i) {
      error += std::pow(out.data()[i] - expected.data()[i], 2);
    }
    EXPECT_LT(error, 0.8 * before) << rounds;
    before = error;
  }
  // One chunk that holds everything is attention to all keys, each met twice.
  Array out(v.extents());
  attention::lsh_attention<double>(qk, v, attention::lsh_rotations<double>(16, 1, 2, 74),
                                   out.view(), {.bucket_size = 256});
  expect_attention_near(out, expected, 1e-12, "one chunk");
}

TEST(LshAttention, ThreadsAndBatchChangeNothing) {
  const auto qk = attention_normal<double, 4>({3, 2, 100, 8}, 81);
  const auto v = attention_normal<double, 4>({3, 2, 100, 8}, 82);
  const auto dout = attention_normal<double, 4>({3, 2, 100, 8}, 83);
  const auto rotations = attention::lsh_rotations<double>(8, 3, 6, 84);
  const Result<double> one = run<double>(qk, v, rotations, dout, {.bucket_size = 16, .threads = 1});
  const Result<double> more =
      run<double>(qk, v, rotations, dout, {.bucket_size = 16, .threads = 3});
  EXPECT_TRUE(std::equal(one.out.begin(), one.out.end(), more.out.begin()));
  EXPECT_TRUE(std::equal(one.dqk.begin(), one.dqk.end(), more.dqk.begin()));
  EXPECT_TRUE(std::equal(one.dv.begin(), one.dv.end(), more.dv.begin()));
  Array out({1, 2, 100, 8});
  attention::lsh_attention<double>(NdView<const double, 4>(qk.view()).slice(0, 2, 1),
                                   NdView<const double, 4>(v.view()).slice(0, 2, 1), rotations,
                                   out.view(), {.bucket_size = 16});
  EXPECT_TRUE(std::equal(out.begin(), out.end(), &one.out(2, 0, 0, 0)));
}

/// Sequences in one row, an empty one among them and room at the end: each by itself.
TEST(LshAttention, PackedSequences) {
  const std::vector<std::int64_t> cumulative = {0, 37, 37, 50, 90};
  const auto qk = attention_normal<double, 4>({1, 2, 95, 8}, 85);
  const auto v = attention_normal<double, 4>({1, 2, 95, 6}, 86);
  const auto dout = attention_normal<double, 4>({1, 2, 95, 6}, 87);
  const auto rotations = attention::lsh_rotations<double>(8, 3, 6, 88);
  const LshOptions<double> options{.bucket_size = 7, .causal = true, .cumulative = cumulative};
  const Result<double> all = run<double>(qk, v, rotations, dout, options);
  for (std::size_t s = 1; s < cumulative.size(); ++s) {
    const Index first = cumulative[s - 1], n = cumulative[s] - first;
    const auto part = [&](const Array& a) {
      return NdView<const double, 4>(a.view()).slice(2, first, n);
    };
    const Result<double> one =
        run<double>(part(qk), part(v), rotations, part(dout), {.bucket_size = 7, .causal = true});
    for (const auto member : {&Result<double>::out, &Result<double>::dqk, &Result<double>::dv}) {
      const Array mine(part(all.*member));
      EXPECT_TRUE(std::equal(mine.begin(), mine.end(), (one.*member).begin()));
    }
  }
  for (Index t = 90; t < 95; ++t) EXPECT_EQ(all.out(0, 1, t, 2) + all.dqk(0, 1, t, 2), 0);
  const std::vector<std::int64_t> wrong = {0, 37, 96}, lengths = {95};
  EXPECT_THROW(run<double>(qk, v, rotations, dout, {.cumulative = wrong}), ValueError);
  EXPECT_THROW(run<double>(qk, v, rotations, dout, {.lengths = lengths, .cumulative = cumulative}),
               ValueError);
}

TEST(LshAttention, BadInput) {
  const Array a({1, 2, 10, 8}), b({1, 2, 9, 8});
  Array out({1, 2, 10, 8});
  const auto rotations = attention::lsh_rotations<double>(8, 2, 4, 1);
  const auto wrong = attention::lsh_rotations<double>(7, 2, 4, 1);
  EXPECT_THROW(attention::lsh_attention<double>(a, b, rotations, out.view()), ShapeError);
  EXPECT_THROW(attention::lsh_attention<double>(a, a, wrong, out.view()), ShapeError);
  EXPECT_THROW(attention::lsh_attention<double>(a, a, rotations, out.view(), {.bucket_size = 0}),
               ValueError);
  EXPECT_THROW(static_cast<void>(attention::lsh_rotations<double>(8, 2, 3, 1)), ValueError);
  const std::vector<std::int64_t> two = {10, 10}, long_one = {11}, nobody = {0};
  EXPECT_THROW(attention::lsh_attention<double>(a, a, rotations, out.view(), {.lengths = two}),
               ShapeError);
  EXPECT_THROW(attention::lsh_attention<double>(a, a, rotations, out.view(), {.lengths = long_one}),
               ValueError);
  Array none({1, 2, 0, 8});
  attention::lsh_attention<double>(none, none, rotations, none.view());
  // Nobody counts, and no channels: zeros, and the mean of what is seen.
  out.fill(7);
  attention::lsh_attention<double>(a, a, rotations, out.view(), {.lengths = nobody});
  for (const double x : out) EXPECT_EQ(x, 0);
  Array ones({1, 2, 10, 8});
  ones.fill(1);
  attention::lsh_attention<double>(Array({1, 2, 10, 0}), ones,
                                   attention::lsh_rotations<double>(0, 2, 4, 1), out.view());
  for (const double x : out) EXPECT_NEAR(x, 1, 1e-12);
  // A number that is none reaches what is near it and no other head.
  auto odd = attention_normal<double, 4>({1, 2, 10, 8}, 2);
  odd(0, 1, 4, 3) = std::numeric_limits<double>::quiet_NaN();
  attention::lsh_attention<double>(odd, ones, rotations, out.view());
  for (Index i = 0; i < 10; ++i) EXPECT_TRUE(std::isfinite(out(0, 0, i, 0)));
}

}  // namespace
}  // namespace quern::test::lsh
