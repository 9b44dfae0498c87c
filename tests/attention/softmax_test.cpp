// SPDX-License-Identifier: Apache-2.0

/// \file
/// Softmax attention against references of PyTorch, against its definition at many sizes, gradients
/// against finite differences; windows, lengths, masked rows, bits.

#include "quern/attention/softmax.hpp"

#include "reference.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace quern::test::softmax_attention {
namespace {

using attention::SoftmaxOptions;

// One instantiation each, called through these.
template <class T>
void forward(const NdArray<T, 4>& q, const NdArray<T, 4>& k, const NdArray<T, 4>& v,
             NdArray<T, 4>& out, const SoftmaxOptions& options) {
  attention::softmax_attention<T>(q.view(), k.view(), v.view(), out.view(), {}, options);
}

template <class T>
void reference_case(const std::string& name, SoftmaxOptions options) {
  SCOPED_TRACE(name);
  const auto read = [&](const char* what) { return attention_reference<T, 4>(name, what); };
  const NdArray<T, 4> q = read("q"), k = read("k"), v = read("v"), dout = read("dout");
  NdArray<T, 4> out(dout.extents()), dq(q.extents()), dk(k.extents()), dv(v.extents());
  forward(q, k, v, out, options);
  expect_attention_near(out, read("out"), attention_output_tolerance<T>, "out");
  attention::softmax_attention_vjp<T>(q.view(), k.view(), v.view(), {}, dout.view(), dq.view(),
                                      dk.view(), dv.view(), options);
  expect_attention_near(dq, read("dq"), attention_gradient_tolerance<T>, "dq");
  expect_attention_near(dk, read("dk"), attention_gradient_tolerance<T>, "dk");
  expect_attention_near(dv, read("dv"), attention_gradient_tolerance<T>, "dv");
}

template <class T>
class SoftmaxAttention : public ::testing::Test {};
using Scalars = ::testing::Types<float, double>;
TYPED_TEST_SUITE(SoftmaxAttention, Scalars);

TYPED_TEST(SoftmaxAttention, References) {
  using T = TypeParam;
  SoftmaxOptions causal, padded;
  causal.visible.causal = true;
  const std::vector<std::int64_t> lengths{48};
  padded.visible.key_sequences.lengths = lengths;
  reference_case<T>("softmax_full", {});
  reference_case<T>("softmax_causal", causal);
  reference_case<T>("softmax_gqa_causal", causal);
  reference_case<T>("softmax_cross_padded", padded);
}

/// The definition, in double.
template <class T>
NdArray<double, 4> naive(const NdArray<T, 4>& q, const NdArray<T, 4>& k, const NdArray<T, 4>& v,
                         Index left, Index right, Index offset) {
  NdArray<double, 4> out({q.extent(0), q.extent(1), q.extent(2), v.extent(3)});
  const Index share = q.extent(1) / k.extent(1);
  for (Index b = 0; b < q.extent(0); ++b) {
    for (Index h = 0; h < q.extent(1); ++h) {
      for (Index i = 0; i < q.extent(2); ++i) {
        double total = 0;
        for (Index j = 0; j < k.extent(2); ++j) {
          if (j - i - offset > right || i + offset - j > left) continue;
          double score = 0;
          for (Index c = 0; c < q.extent(3); ++c) {
            score +=
                static_cast<double>(q(b, h, i, c)) * static_cast<double>(k(b, h / share, j, c));
          }
          const double w = std::exp(score / std::sqrt(static_cast<double>(q.extent(3))));
          total += w;
          for (Index c = 0; c < v.extent(3); ++c) {
            out(b, h, i, c) += w * static_cast<double>(v(b, h / share, j, c));
          }
        }
        for (Index c = 0; c < v.extent(3); ++c) {
          if (total > 0) out(b, h, i, c) /= total;
        }
      }
    }
  }
  return out;
}

TYPED_TEST(SoftmaxAttention, AgainstItsDefinition) {
  using T = TypeParam;
  constexpr Index all = 1 << 20;
  struct Size {
    Index n, keys, d, dv, left, right, offset;
  };
  for (const Size& s : {Size{1, 1, 1, 1, all, all, 0}, Size{3, 130, 7, 5, all, all, 0},
                        Size{200, 200, 20, 33, all, 0, 0}, Size{97, 65, 16, 16, 10, 0, -20},
                        Size{50, 170, 9, 3, 12, 5, 100}, Size{1, 90, 8, 8, all, 0, 89},
                        Size{130, 70, 4, 4, all, all, 0}}) {
    const NdArray<T, 4> q = attention_normal<T, 4>({2, 2, s.n, s.d}, 1);
    const NdArray<T, 4> k = attention_normal<T, 4>({2, 1, s.keys, s.d}, 2);
    const NdArray<T, 4> v = attention_normal<T, 4>({2, 1, s.keys, s.dv}, 3);
    SoftmaxOptions options;
    options.visible.left = s.left == all ? -1 : s.left;
    options.visible.right = s.right == all ? -1 : s.right;
    options.visible.offset = s.offset;
    NdArray<T, 4> out({2, 2, s.n, s.dv}), again(out.extents());
    out.fill(T{7});
    forward(q, k, v, out, options);
    expect_attention_near(out, naive(q, k, v, s.left, s.right, s.offset),
                          attention_output_tolerance<T>, "n " + std::to_string(s.n));
    options.threads = 3;
    forward(q, k, v, again, options);
    EXPECT_TRUE(std::equal(out.begin(), out.end(), again.begin())) << "threads";
  }
}

TEST(SoftmaxAttentionGradients, AgainstFiniteDifferences) {
  // 600 keys of one head are cut into ranges; the small ones have grouped queries and a window.
  struct Size {
    Index n, keys, heads, left, right;
  };
  for (const Size& s : {Size{9, 600, 1, -1, -1}, Size{300, 300, 1, -1, 0}, Size{30, 30, 2, 7, 2}}) {
    NdArray<double, 4> q = attention_normal<double, 4>({1, s.heads, s.n, 5}, 1);
    NdArray<double, 4> k = attention_normal<double, 4>({1, 1, s.keys, 5}, 2);
    NdArray<double, 4> v = attention_normal<double, 4>({1, 1, s.keys, 3}, 3);
    const NdArray<double, 4> dout = attention_normal<double, 4>({1, s.heads, s.n, 3}, 4);
    SoftmaxOptions options;
    options.visible.left = s.left, options.visible.right = s.right;
    NdArray<double, 4> dq(q.extents()), dk(k.extents()), dv(v.extents());
    attention::softmax_attention_vjp<double>(q.view(), k.view(), v.view(), {}, dout.view(),
                                             dq.view(), dk.view(), dv.view(), options);
    const std::function<void(NdArray<double, 4>&)> f = [&](NdArray<double, 4>& out) {
      forward(q, k, v, out, options);
    };
    expect_attention_gradient(q, dq, dout, f, "q");
    expect_attention_gradient(k, dk, dout, f, "k");
    expect_attention_gradient(v, dv, dout, f, "v");
    NdArray<double, 4> again(dq.extents());
    options.threads = 3;
    attention::softmax_attention_vjp<double>(q.view(), k.view(), v.view(), {}, dout.view(),
                                             again.view(), {}, {}, options);
    EXPECT_TRUE(std::equal(dq.begin(), dq.end(), again.begin())) << "threads";
  }
}

TEST(SoftmaxAttentionSequences, PackedPaddedAndStridedAgree) {
  const std::vector<std::int64_t> lengths{5, 0, 40}, cumulative{0, 5, 5, 45};
  const NdArray<float, 4> q = attention_normal<float, 4>({1, 2, 45, 8}, 1);
  const NdArray<float, 4> k = attention_normal<float, 4>({1, 2, 45, 8}, 2);
  const NdArray<float, 4> v = attention_normal<float, 4>({1, 2, 45, 8}, 3);
  SoftmaxOptions options;
  options.visible.causal = true;
  options.visible.sequences.cumulative = cumulative;
  NdArray<float, 4> packed(q.extents());
  forward(q, k, v, packed, options);
  // The same as (batch, length, heads, dim), padded with what must not reach anything.
  NdArray<float, 4> qp({3, 41, 2, 8}), kp(qp), vp(qp), out(qp);
  for (auto* x : {&qp, &kp, &vp, &out}) x->fill(std::numeric_limits<float>::quiet_NaN());
  for (Index s = 0; s < 3; ++s) {
    const Index begin = cumulative[static_cast<std::size_t>(s)];
    for (Index t = 0; t < lengths[static_cast<std::size_t>(s)]; ++t) {
      for (Index h = 0; h < 2; ++h) {
        for (Index c = 0; c < 8; ++c) {
          qp(s, t, h, c) = q(0, h, begin + t, c);
          kp(s, t, h, c) = k(0, h, begin + t, c);
          vp(s, t, h, c) = v(0, h, begin + t, c);
        }
      }
    }
  }
  options.visible.sequences = {};
  options.visible.sequences.lengths = lengths;
  const std::array<int, 4> order{0, 2, 1, 3};
  const auto turned = [&](const NdArray<float, 4>& x) { return x.view().permuted(order); };
  attention::softmax_attention<float>(turned(qp), turned(kp), turned(vp),
                                      out.view().permuted(order), {}, options);
  for (Index s = 0; s < 3; ++s) {
    const Index begin = cumulative[static_cast<std::size_t>(s)];
    for (Index t = 0; t < 41; ++t) {
      const bool inside = t < lengths[static_cast<std::size_t>(s)];
      for (Index h = 0; h < 2; ++h) {
        for (Index c = 0; c < 8; ++c) {
          ASSERT_EQ(out(s, t, h, c), inside ? packed(0, h, begin + t, c) : 0.0F);
        }
      }
    }
  }
}

TEST(SoftmaxAttentionRows, MaskedHugeAndNotFinite) {
  NdArray<float, 4> q({1, 1, 4, 1}), k({1, 1, 3, 1}), v({1, 1, 3, 1}), out({1, 1, 4, 1});
  NdArray<float, 3> sums({1, 1, 4});
  q.fill(1);
  k(0, 0, 0, 0) = 3e4F, k(0, 0, 1, 0) = -3e4F, k(0, 0, 2, 0) = 1;
  for (Index j = 0; j < 3; ++j) v(0, 0, j, 0) = static_cast<float>(j + 1);
  SoftmaxOptions options;
  options.visible.causal = true;
  options.visible.offset = -1;  // query 0 sees nothing
  attention::softmax_attention<float>(q.view(), k.view(), v.view(), out.view(), sums.view(),
                                      options);
  EXPECT_EQ(out(0, 0, 0, 0), 0);
  EXPECT_EQ(sums(0, 0, 0), -std::numeric_limits<float>::infinity());
  EXPECT_EQ(out(0, 0, 3, 0), 1);
  EXPECT_NEAR(sums(0, 0, 3), 3e4, 0.01);
  NdArray<float, 4> dq(q.extents()), dk(k.extents()), dv(v.extents()), dout(out.extents());
  dout.fill(1);
  attention::softmax_attention_vjp<float>(q.view(), k.view(), v.view(), {}, dout.view(), dq.view(),
                                          dk.view(), dv.view(), options);
  for (const auto* g : {&dq, &dk, &dv}) {
    for (const float x : *g) EXPECT_TRUE(std::isfinite(x));
  }
  EXPECT_EQ(dv(0, 0, 0, 0), 3);
  q(0, 0, 2, 0) = std::numeric_limits<float>::quiet_NaN();
  forward(q, k, v, out, options);
  EXPECT_TRUE(std::isnan(out(0, 0, 2, 0)));
  EXPECT_EQ(out(0, 0, 3, 0), 1) << "one query's NaN is its own";
}

TEST(SoftmaxAttentionErrors, SayWhatDoesNotFit) {
  const NdArray<float, 4> q({1, 4, 6, 8}), k({1, 3, 6, 8}), two({1, 2, 5, 8});
  NdArray<float, 4> out(q.extents());
  EXPECT_THROW(forward(q, k, k, out, {}), ShapeError);
  SoftmaxOptions options;
  options.visible.causal = true;
  EXPECT_THROW(forward(q, two, two, out, options), ValueError) << "no offset";
  options.visible.offset = 0;
  EXPECT_NO_THROW(forward(q, two, two, out, options));
  const std::vector<std::int64_t> lengths{7};
  options.visible.sequences.lengths = lengths;
  EXPECT_THROW(forward(q, two, two, out, options), ValueError);
  NdArray<float, 4> empty({1, 4, 0, 8}), none({1, 2, 0, 8}), no_dim({1, 2, 5, 0}),
      no_out({1, 4, 6, 0});
  EXPECT_NO_THROW(forward(empty, none, none, empty, {}));
  out.fill(3);
  forward(q, none, none, out, {});
  for (const float x : out) EXPECT_EQ(x, 0) << "no keys at all";
}

}  // namespace
}  // namespace quern::test::softmax_attention
