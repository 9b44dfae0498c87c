// SPDX-License-Identifier: Apache-2.0

/// \file
/// Sparse attention: against local-attention 1.11.2 and torch's attention with a boolean mask, both
/// in float64 (tests/reference/attention); against dense attention with the pattern's own
/// definition as a mask; gradients against finite differences; lengths, offsets, grouped heads,
/// strides, threads, batches, bad input.

#include "quern/attention/sparse.hpp"
#include "attention/reference.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace quern::test::sparse {
namespace {

using attention::SparsePattern;
using Array = NdArray<double, 4>;

template <class T>
struct Result {
  NdArray<T, 4> out, dq, dk, dv;
};

/// The only place where this file's kernels are made.
template <class T>
Result<T> run(const NdView<const T, 4>& q, const NdView<const T, 4>& k, const NdView<const T, 4>& v,
              const NdView<const T, 4>& dout, const SparsePattern& pattern,
              const attention::SparseOptions<T>& options = {}) {
  Result<T> r{NdArray<T, 4>(dout.extents()), NdArray<T, 4>(q.extents()), NdArray<T, 4>(k.extents()),
              NdArray<T, 4>(v.extents())};
  attention::SparseSaved<T> saved;
  attention::sparse_attention<T>(q, k, v, r.out.view(), pattern, options, &saved);
  attention::sparse_attention_vjp<T>(q, k, v, r.out.view(), saved, dout, r.dq.view(), r.dk.view(),
                                     r.dv.view(), pattern, options);
  return r;
}

/// Compares the first rows of the queries and of the keys: all, unless the peer's padding reaches
/// the others.
template <class T>
void check_reference(const std::string& folder, const SparsePattern& pattern, Index query_rows = 70,
                     Index key_rows = 70) {
  SCOPED_TRACE(folder);
  const auto read = [&](const char* name) { return attention_reference<T, 4>(folder, name); };
  const NdArray<T, 4> q = read("q"), k = read("k"), v = read("v"), dout = read("dout");
  const Result<T> r = run<T>(q, k, v, dout, pattern);
  const auto first = [](const NdArray<T, 4>& a, Index rows) {
    return NdArray<T, 4>(NdView<const T, 4>(a.view()).slice(2, 0, rows));
  };
  expect_attention_near(first(r.out, query_rows), first(read("out"), query_rows),
                        attention_output_tolerance<T>, "out");
  expect_attention_near(first(r.dq, query_rows), first(read("dq"), query_rows),
                        attention_gradient_tolerance<T>, "dq");
  expect_attention_near(first(r.dk, key_rows), first(read("dk"), key_rows),
                        attention_gradient_tolerance<T>, "dk");
  expect_attention_near(first(r.dv, key_rows), first(read("dv"), key_rows),
                        attention_gradient_tolerance<T>, "dv");
}

template <class T>
void check_references() {
  check_reference<T>("local_causal_block", SparsePattern::local(16, {.causal = true}));
  check_reference<T>("local_causal_exact",
                     SparsePattern::local(16, {.causal = true, .exact = true}));
  check_reference<T>("local_full_block", SparsePattern::local(16), 48, 32);
  check_reference<T>("local_full_exact", SparsePattern::local(16, {.exact = true}), 54, 38);
  check_reference<T>("sparse_strided", SparsePattern::strided(8));
  check_reference<T>("sparse_fixed", SparsePattern::fixed(8, 2));
  check_reference<T>("sparse_atrous", SparsePattern::atrous(4));
  check_reference<T>("sparse_window_global", SparsePattern::window_global(6, 3));
  const NdArray<double, 2> given = attention_reference<double, 2>("sparse_block_sparse", "layout");
  NdArray<std::uint8_t, 2> layout(given.extents());
  for (Index i = 0; i < given.size(); ++i) layout.data()[i] = given.data()[i] != 0;
  check_reference<T>("sparse_block_sparse", SparsePattern::block_sparse(layout, 16));
}
TEST(SparseAttention, ReferencesFloat) { check_references<float>(); }
TEST(SparseAttention, ReferencesDouble) { check_references<double>(); }

struct Sizes {
  Index batch = 2, heads = 2, kv_heads = 2, queries = 0, keys = 0, dim = 7, value_dim = 5;
};

/// Softmax attention over a mask that is the pattern's definition, by plain loops.
Result<double> dense(const Array& q, const Array& k, const Array& v, const Array& dout,
                     const SparsePattern& pattern, Index offset,
                     const std::vector<std::int64_t>& lengths) {
  Result<double> r{Array(dout.extents()), Array(q.extents()), Array(k.extents()),
                   Array(v.extents())};
  const Index keys = k.extent(2), dim = q.extent(3), value_dim = v.extent(3);
  const double scale = 1 / std::sqrt(static_cast<double>(dim));
  std::vector<double> weight(static_cast<std::size_t>(keys));
  for (Index b = 0; b < q.extent(0); ++b) {
    const Index limit = lengths.empty() ? keys : lengths[static_cast<std::size_t>(b)];
    for (Index h = 0; h < q.extent(1); ++h) {
      const Index g = h / (q.extent(1) / k.extent(1));
      for (Index i = 0; i < q.extent(2); ++i) {
        double total = 0, delta = 0;
        for (Index j = 0; j < keys; ++j) {
          double logit = 0;
          for (Index p = 0; p < dim; ++p) logit += scale * q(b, h, i, p) * k(b, g, j, p);
          const bool seen = j < limit && pattern.sees(i + offset, j);
          total += weight[static_cast<std::size_t>(j)] = seen ? std::exp(logit) : 0;
        }
        if (total == 0) continue;
        for (Index j = 0; j < keys; ++j) {
          const double w = weight[static_cast<std::size_t>(j)] /= total;
          for (Index p = 0; p < value_dim; ++p) {
            r.out(b, h, i, p) += w * v(b, g, j, p);
            r.dv(b, g, j, p) += w * dout(b, h, i, p);
          }
        }
        for (Index p = 0; p < value_dim; ++p) delta += r.out(b, h, i, p) * dout(b, h, i, p);
        for (Index j = 0; j < keys; ++j) {
          double slope = -delta;
          for (Index p = 0; p < value_dim; ++p) slope += dout(b, h, i, p) * v(b, g, j, p);
          slope *= scale * weight[static_cast<std::size_t>(j)];
          for (Index p = 0; p < dim; ++p) {
            r.dq(b, h, i, p) += slope * k(b, g, j, p);
            r.dk(b, g, j, p) += slope * q(b, h, i, p);
          }
        }
      }
    }
  }
  return r;
}

void expect_same(const Result<double>& got, const Result<double>& expected, double tolerance) {
  expect_attention_near(got.out, expected.out, tolerance, "out");
  expect_attention_near(got.dq, expected.dq, tolerance, "dq");
  expect_attention_near(got.dk, expected.dk, tolerance, "dk");
  expect_attention_near(got.dv, expected.dv, tolerance, "dv");
}

std::vector<SparsePattern> patterns() {
  NdArray<std::uint8_t, 2> layout({9, 9});
  for (Index r = 0; r < 9; ++r)
    for (Index c = 0; c < 9; ++c) layout(r, c) = (r * 5 + c * 3) % 4 == 0 || r == c;
  return {SparsePattern::dense(true),
          SparsePattern::dense(false),
          SparsePattern::local(10, {.causal = true}),
          SparsePattern::local(7, {.exact = true, .look_backward = 3, .look_forward = 0}),
          SparsePattern::local(100, {.causal = true, .exact = true}),
          SparsePattern::strided(9),
          SparsePattern::strided(5, false),
          SparsePattern::atrous(3, false),
          SparsePattern::atrous(500),
          SparsePattern::fixed(12, 3),
          SparsePattern::fixed(12, 1, false),
          SparsePattern::window_global(4, 5, true),
          SparsePattern::window_global(9, 70),
          SparsePattern::block_sparse(layout, 13),
          SparsePattern::block_sparse(layout, 70, true)};
}

TEST(SparseAttention, EveryPatternIsItsDefinition) {
  const Sizes all[] = {{.queries = 150, .keys = 150},
                       {.heads = 4, .kv_heads = 1, .queries = 70, .keys = 133},
                       {.batch = 1, .heads = 1, .kv_heads = 1, .queries = 1, .keys = 90}};
  std::uint64_t seed = 1;
  for (const SparsePattern& pattern : patterns()) {
    for (const Sizes& s : all) {
      SCOPED_TRACE("pattern " + std::to_string(static_cast<int>(pattern.kind())) + ", queries " +
                   std::to_string(s.queries));
      const auto q = attention_normal<double, 4>({s.batch, s.heads, s.queries, s.dim}, ++seed);
      const auto k = attention_normal<double, 4>({s.batch, s.kv_heads, s.keys, s.dim}, ++seed);
      const auto v =
          attention_normal<double, 4>({s.batch, s.kv_heads, s.keys, s.value_dim}, ++seed);
      const auto dout =
          attention_normal<double, 4>({s.batch, s.heads, s.queries, s.value_dim}, ++seed);
      const Index offset = s.keys - s.queries;
      std::vector<std::int64_t> lengths;
      if (s.batch == 2 && s.queries == s.keys) lengths = {s.keys, 61};
      const Result<double> got =
          run<double>(q, k, v, dout, pattern, {.causal_offset = offset, .lengths = lengths});
      expect_same(got, dense(q, k, v, dout, pattern, offset, lengths), 1e-12);
    }
  }
}

TEST(SparseAttention, GradientsAgainstFiniteDifferences) {
  auto q = attention_normal<double, 4>({1, 2, 40, 6}, 31);
  auto k = attention_normal<double, 4>({1, 1, 40, 6}, 32);
  auto v = attention_normal<double, 4>({1, 1, 40, 9}, 33);
  const auto dout = attention_normal<double, 4>({1, 2, 40, 9}, 34);
  const SparsePattern pattern = SparsePattern::strided(6);
  const Result<double> r = run<double>(q, k, v, dout, pattern);
  const std::function<void(Array&)> f = [&](Array& out) {
    attention::sparse_attention<double>(q, k, v, out.view(), pattern);
  };
  expect_attention_gradient(q, r.dq, dout, f, "dq");
  expect_attention_gradient(k, r.dk, dout, f, "dk");
  expect_attention_gradient(v, r.dv, dout, f, "dv");
}

/// Strides other than 1 along dim, a layout of tokens before heads, threads, and rows of a batch by
/// themselves: the same bits.
TEST(SparseAttention, LayoutThreadsAndBatchChangeNothing) {
  const Shape<4> shape = {3, 2, 100, 8};
  const auto q = attention_normal<double, 4>(shape, 41), k = attention_normal<double, 4>(shape, 42);
  const auto v = attention_normal<double, 4>(shape, 43);
  const auto dout = attention_normal<double, 4>(shape, 44);
  for (const SparsePattern& pattern :
       {SparsePattern::window_global(9, 4), SparsePattern::strided(7)}) {
    const Result<double> one = run<double>(q, k, v, dout, pattern, {.threads = 1});
    for (const int threads : {2, 3}) {
      const Result<double> more = run<double>(q, k, v, dout, pattern, {.threads = threads});
      for (const auto member :
           {&Result<double>::out, &Result<double>::dq, &Result<double>::dk, &Result<double>::dv}) {
        EXPECT_TRUE(std::equal((one.*member).begin(), (one.*member).end(), (more.*member).begin()));
      }
    }
    const auto row = [](const Array& a) {
      return NdView<const double, 4>(a.view()).slice(0, 1, 1);
    };
    const Result<double> alone = run<double>(row(q), row(k), row(v), row(dout), pattern);
    EXPECT_TRUE(std::equal(alone.out.begin(), alone.out.end(), &one.out(1, 0, 0, 0)));
    EXPECT_TRUE(std::equal(alone.dq.begin(), alone.dq.end(), &one.dq(1, 0, 0, 0)));

    NdArray<double, 4> turned({8, 100, 2, 3});
    const auto turned_view = [&](NdArray<double, 4>& a) { return a.view().permuted({3, 2, 1, 0}); };
    for (Index i = 0; i < q.size(); ++i) {
      turned_view(turned)(i / 1600, i / 800 % 2, i / 8 % 100, i % 8) = q.data()[i];
    }
    NdArray<double, 4> out({8, 100, 2, 3});
    attention::sparse_attention<double>(turned_view(turned), k, v, turned_view(out), pattern);
    EXPECT_TRUE(std::equal(one.out.begin(), one.out.end(),
                           Array(NdView<const double, 4>(turned_view(out))).begin()));
  }
}

/// Sequences in one row, an empty one among them: each by itself.
TEST(SparseAttention, PackedSequences) {
  const std::vector<std::int64_t> cumulative = {0, 70, 70, 81, 150};
  const Shape<4> shape = {1, 4, 150, 8}, kv_shape = {1, 2, 150, 8};
  const auto q = attention_normal<double, 4>(shape, 45);
  const auto k = attention_normal<double, 4>(kv_shape, 46);
  const auto v = attention_normal<double, 4>(kv_shape, 47);
  const auto dout = attention_normal<double, 4>(shape, 48);
  const SparsePattern pattern = SparsePattern::window_global(5, 2);
  const Result<double> all = run<double>(q, k, v, dout, pattern, {.cumulative = cumulative});
  for (std::size_t s = 1; s < cumulative.size(); ++s) {
    const Index first = cumulative[s - 1], n = cumulative[s] - first;
    const auto part = [&](const Array& a) {
      return NdView<const double, 4>(a.view()).slice(2, first, n);
    };
    const Result<double> one = run<double>(part(q), part(k), part(v), part(dout), pattern);
    for (const auto member :
         {&Result<double>::out, &Result<double>::dq, &Result<double>::dk, &Result<double>::dv}) {
      const Array mine(part(all.*member));
      EXPECT_TRUE(std::equal(mine.begin(), mine.end(), (one.*member).begin()));
    }
  }
  const std::vector<std::int64_t> wrong = {0, 70, 149};
  EXPECT_THROW(run<double>(q, k, v, dout, pattern, {.cumulative = wrong}), ShapeError);
}

/// Packed queries with keys of other lengths.
TEST(SparseAttention, PackedSequencesWithKeysOfTheirOwn) {
  const std::vector<std::int64_t> cumulative = {0, 30, 41}, keys = {0, 50, 90};
  const auto q = attention_normal<double, 4>({1, 2, 41, 8}, 55);
  const auto k = attention_normal<double, 4>({1, 2, 90, 8}, 56);
  const auto v = attention_normal<double, 4>({1, 2, 90, 8}, 57);
  const auto dout = attention_normal<double, 4>({1, 2, 41, 8}, 58);
  const SparsePattern pattern = SparsePattern::local(9, {.causal = true, .exact = true});
  const Result<double> all =
      run<double>(q, k, v, dout, pattern,
                  {.causal_offset = 20, .cumulative = cumulative, .key_cumulative = keys});
  for (const std::size_t s : {std::size_t{0}, std::size_t{1}}) {
    const auto part = [&](const Array& a, const std::vector<std::int64_t>& at) {
      return NdView<const double, 4>(a.view()).slice(2, at[s], at[s + 1] - at[s]);
    };
    const Result<double> one = run<double>(part(q, cumulative), part(k, keys), part(v, keys),
                                           part(dout, cumulative), pattern, {.causal_offset = 20});
    const Array out(part(all.out, cumulative)), dk(part(all.dk, keys));
    EXPECT_TRUE(std::equal(out.begin(), out.end(), one.out.begin()));
    EXPECT_TRUE(std::equal(dk.begin(), dk.end(), one.dk.begin()));
  }
  EXPECT_THROW(run<double>(q, k, v, dout, pattern, {.cumulative = cumulative}), ShapeError);
}

TEST(SparseAttention, NothingToSeeAndNothingThere) {
  const auto q = attention_normal<double, 4>({2, 1, 20, 4}, 51);
  NdArray<double, 4> out({2, 1, 20, 4});
  const std::vector<std::int64_t> lengths = {0, 20};
  attention::sparse_attention<double>(q, q, q, out.view(), SparsePattern::dense(false),
                                      {.lengths = lengths});
  for (Index i = 0; i < 80; ++i) EXPECT_EQ(out.data()[i], 0);
  for (const Shape<4>& shape : {Shape<4>{0, 1, 20, 4}, Shape<4>{2, 0, 20, 4}, Shape<4>{2, 1, 0, 4},
                                Shape<4>{2, 1, 20, 0}}) {
    const Array empty(shape);
    const Result<double> r = run<double>(empty, empty, empty, empty, SparsePattern::strided(3));
    EXPECT_EQ(r.out.size(), 0);
  }
  // A NaN reaches the queries that see it and no others.
  auto k = q;
  k(0, 0, 10, 2) = std::numeric_limits<double>::quiet_NaN();
  attention::sparse_attention<double>(q, k, q, out.view(),
                                      SparsePattern::local(3, {.causal = true, .exact = true}));
  for (Index i = 0; i < 20; ++i) EXPECT_EQ(std::isnan(out(0, 0, i, 0)), i >= 10 && i <= 13) << i;
}

TEST(SparseAttention, BadInput) {
  const Array a({1, 4, 10, 8}), b({1, 3, 10, 8}), c({1, 4, 10, 7});
  Array out({1, 4, 10, 8});
  const SparsePattern pattern = SparsePattern::dense(true);
  const auto call = [&](const Array& q, const Array& k, const Array& v, NdView<double, 4> to,
                        const attention::SparseOptions<double>& options = {}) {
    attention::sparse_attention<double>(q, k, v, to, pattern, options);
  };
  EXPECT_THROW(call(a, b, b, out), ShapeError);
  EXPECT_THROW(call(a, c, a, out), ShapeError);
  EXPECT_THROW(call(a, a, c, out), ShapeError);
  EXPECT_THROW(call(out, a, a, out), ShapeError);
  const std::vector<std::int64_t> two = {1, 2}, long_one = {11};
  EXPECT_THROW(call(a, a, a, out, {.lengths = two}), ShapeError);
  EXPECT_THROW(call(a, a, a, out, {.lengths = long_one}), ValueError);
  EXPECT_THROW(call(a, a, a, out, {.causal_offset = -1}), ValueError);
  const std::vector<std::int64_t> row = {0, 4, 10}, one = {7};
  EXPECT_THROW(call(a, a, a, out, {.lengths = one, .cumulative = row}), ValueError) << "both";
  EXPECT_THROW(call(a, a, a, out, {.key_cumulative = row}), ValueError) << "of keys alone";
  EXPECT_THROW(
      attention::sparse_attention<double>(
          a, a, a, out.view(), attention::SparsePlan(pattern, 10, 10), {.cumulative = row}),
      ValueError);
  const auto told = [&](const std::vector<std::int64_t>& cumulative, const std::string& part) {
    try {
      call(a, a, a, out, {.cumulative = cumulative});
      ADD_FAILURE() << part;
    } catch (const ShapeError& e) {
      EXPECT_NE(std::string(e.what()).find(part), std::string::npos) << e.what();
    }
  };
  told({1, 10}, "expected 0 first, got 1");
  told({0, 6, 5, 10}, "expected numbers that do not decrease, got 5 after 6");
  told({0, 6}, "expected 10 last, the length, got 6");
  EXPECT_THROW(static_cast<void>(SparsePattern::local(0)), ValueError);
  EXPECT_THROW(static_cast<void>(SparsePattern::fixed(4, 5)), ValueError);
  EXPECT_THROW(attention::sparse_attention<double>(a, a, a, out.view(),
                                                   attention::SparsePlan(pattern, 10, 9)),
               ShapeError);
}

}  // namespace
}  // namespace quern::test::sparse
