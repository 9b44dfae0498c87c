// SPDX-License-Identifier: Apache-2.0

/// \file
/// Linformer: against its formula in float64 (equal to the linformer 0.2.3 module); gradients
/// against finite differences; lengths; a projection that keeps every token is softmax attention;
/// causal is refused.

#include "quern/attention/linformer.hpp"
#include "attention/reference.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

namespace quern::test::linformer {
namespace {

using attention::LinformerOptions;
using Array = NdArray<double, 4>;
using Matrix = NdArray<double, 2>;

template <class T>
struct Result {
  NdArray<T, 4> out, dq, dk, dv;
  NdArray<T, 2> de, df;
};

/// The only place where this file's kernels are made.
template <class T>
Result<T> run(const NdView<const T, 4>& q, const NdView<const T, 4>& k, const NdView<const T, 4>& v,
              const MatrixView<const T>& e, const MatrixView<const T>& f,
              const NdView<const T, 4>& dout, const LinformerOptions<T>& options = {}) {
  Result<T> r{NdArray<T, 4>(dout.extents()), NdArray<T, 4>(q.extents()),
              NdArray<T, 4>(k.extents()),    NdArray<T, 4>(v.extents()),
              NdArray<T, 2>(e.extents()),    NdArray<T, 2>(f.extents())};
  attention::LinformerSaved<T> saved;
  attention::linformer_attention<T>(q, k, v, e, f, r.out.view(), options, &saved);
  attention::linformer_attention_vjp<T>(q, k, v, e, f, r.out.view(), saved, dout, r.dq.view(),
                                        r.dk.view(), r.dv.view(), r.de.view(), r.df.view(),
                                        options);
  return r;
}

template <class T>
void check_reference() {
  const auto read = [](const char* name) { return attention_reference<T, 4>("linformer", name); };
  const auto matrix = [](const char* name) { return attention_reference<T, 2>("linformer", name); };
  const Result<T> r =
      run<T>(read("q"), read("k"), read("v"), matrix("E"), matrix("F"), read("dout"));
  expect_attention_near(r.out, read("out"), attention_output_tolerance<T>, "out");
  const double tolerance = attention_gradient_tolerance<T>;
  expect_attention_near(r.dq, read("dq"), tolerance, "dq");
  expect_attention_near(r.dk, read("dk"), tolerance, "dk");
  expect_attention_near(r.dv, read("dv"), tolerance, "dv");
  expect_attention_near(r.de, matrix("dE"), tolerance, "dE");
  expect_attention_near(r.df, matrix("dF"), tolerance, "dF");
}
TEST(Linformer, ReferenceFloat) { check_reference<float>(); }
TEST(Linformer, ReferenceDouble) { check_reference<double>(); }

TEST(Linformer, GradientsAgainstFiniteDifferencesWithLengths) {
  auto q = attention_normal<double, 4>({2, 4, 9, 6}, 1);
  auto k = attention_normal<double, 4>({2, 2, 20, 6}, 2);
  auto v = attention_normal<double, 4>({2, 2, 20, 5}, 3);
  auto e = attention_normal<double, 2>({25, 7}, 4), f = attention_normal<double, 2>({25, 7}, 5);
  const auto dout = attention_normal<double, 4>({2, 4, 9, 5}, 6);
  const std::vector<std::int64_t> lengths = {20, 13};
  const LinformerOptions<double> options{.lengths = lengths};
  const Result<double> r = run<double>(q, k, v, e, f, dout, options);
  const std::function<void(Array&)> forward = [&](Array& out) {
    attention::linformer_attention<double>(q, k, v, e, f, out.view(), options);
  };
  expect_attention_gradient(q, r.dq, dout, forward, "dq");
  expect_attention_gradient(k, r.dk, dout, forward, "dk");
  expect_attention_gradient(v, r.dv, dout, forward, "dv");
  expect_attention_gradient(e, r.de, dout, forward, "de");
  expect_attention_gradient(f, r.df, dout, forward, "df");
  // Padding changes nothing.
  for (Index j = 13; j < 20; ++j) k(1, 1, j, 2) = 1e6;
  Array again(dout.extents());
  attention::linformer_attention<double>(q, k, v, e, f, again.view(), options);
  EXPECT_TRUE(std::equal(again.begin(), again.end(), r.out.begin()));
}

/// Sequences in one row, queries and keys of different lengths: each by itself.
TEST(Linformer, PackedSequences) {
  const std::vector<std::int64_t> cumulative = {0, 9, 9, 30}, keys = {0, 20, 35, 55};
  const auto q = attention_normal<double, 4>({1, 4, 32, 6}, 1);
  const auto k = attention_normal<double, 4>({1, 2, 60, 6}, 2);
  const auto v = attention_normal<double, 4>({1, 2, 60, 5}, 3);
  const auto e = attention_normal<double, 2>({60, 7}, 4),
             f = attention_normal<double, 2>({60, 7}, 5);
  const auto dout = attention_normal<double, 4>({1, 4, 32, 5}, 6);
  const Result<double> all =
      run<double>(q, k, v, e, f, dout, {.cumulative = cumulative, .key_cumulative = keys});
  Matrix de(e.extents());
  for (const std::size_t s : {std::size_t{0}, std::size_t{2}}) {
    const auto part = [](const Array& a, const std::vector<std::int64_t>& at, std::size_t i) {
      return Array(NdView<const double, 4>(a.view()).slice(2, at[i], at[i + 1] - at[i]));
    };
    const Result<double> one = run<double>(part(q, cumulative, s), part(k, keys, s),
                                           part(v, keys, s), e, f, part(dout, cumulative, s), {});
    const auto equal = [&](const Array& a, const Array& b) {
      EXPECT_TRUE(std::equal(a.begin(), a.end(), b.begin()));
    };
    equal(part(all.out, cumulative, s), one.out);
    equal(part(all.dq, cumulative, s), one.dq);
    equal(part(all.dk, keys, s), one.dk);
    equal(part(all.dv, keys, s), one.dv);
    for (Index i = 0; i < de.size(); ++i) de.data()[i] += one.de.data()[i];
  }
  expect_attention_near(all.de, de, 1e-14, "de");
  EXPECT_EQ(all.out(0, 3, 31, 4) + all.dk(0, 1, 25, 3) + all.dk(0, 1, 57, 3), 0);
  const std::vector<std::int64_t> fewer = {0, 20, 55};
  EXPECT_THROW(
      run<double>(q, k, v, e, f, dout, {.cumulative = cumulative, .key_cumulative = fewer}),
      ShapeError);
}

/// The identity as projection is softmax attention: an approximation with as many rows as tokens.
TEST(Linformer, EveryTokenKeptIsSoftmaxAttention) {
  const auto q = attention_normal<double, 4>({1, 2, 30, 8}, 11);
  Matrix identity({30, 30});
  for (Index i = 0; i < 30; ++i) identity(i, i) = 1;
  const Result<double> r = run<double>(q, q, q, identity, identity, q, {.threads = 1});
  Array expected(q.extents());
  attention::sparse_attention<double>(q, q, q, expected.view(),
                                      attention::SparsePattern::dense(false));
  expect_attention_near(r.out, expected, 1e-14, "out");
  const Result<double> more = run<double>(q, q, q, identity, identity, q, {.threads = 3});
  EXPECT_TRUE(std::equal(r.de.begin(), r.de.end(), more.de.begin()));
  EXPECT_TRUE(std::equal(r.dk.begin(), r.dk.end(), more.dk.begin()));
}

TEST(Linformer, RefusesCausalAndBadShapes) {
  const Array a({1, 2, 10, 8});
  Array out({1, 2, 10, 8});
  const Matrix e({10, 4}), short_one({9, 4}), other({10, 5});
  const auto call = [&](const Matrix& x, const Matrix& y, const LinformerOptions<double>& o = {}) {
    attention::linformer_attention<double>(a, a, a, x, y, out.view(), o);
  };
  try {
    call(e, e, {.causal = true});
    FAIL() << "causal Linformer";
  } catch (const ValueError& error) {
    EXPECT_NE(std::string(error.what()).find("cannot be causal"), std::string::npos);
  }
  EXPECT_THROW(call(short_one, e), ShapeError);
  EXPECT_THROW(call(e, other), ShapeError);
  const std::vector<std::int64_t> long_one = {11}, nobody = {0};
  EXPECT_THROW(call(e, e, {.lengths = long_one}), ValueError);
  out.fill(7);
  call(e, e, {.lengths = nobody});
  for (const double x : out) EXPECT_EQ(x, 0);
  const Array three({1, 3, 10, 8});
  EXPECT_THROW(attention::linformer_attention<double>(a, three, three, e, e, out.view()),
               ShapeError);
  Array none({1, 2, 0, 8}), no_dim({1, 2, 10, 0});
  attention::linformer_attention<double>(none, none, none, e, e, none.view());
  attention::linformer_attention<double>(no_dim, no_dim, no_dim, e, e, no_dim.view());
}

}  // namespace
}  // namespace quern::test::linformer
