// SPDX-License-Identifier: Apache-2.0

/// \file
/// FAVOR+ features against references, gradients, the stabiliser, orthogonality, and how the error
/// falls with the number of features.

#include "quern/attention/performer.hpp"
#include "quern/attention/linear.hpp"

#include "reference.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <functional>
#include <string>
#include <utility>

namespace quern::test::performer {
namespace {

using attention::LinearGradients;
using attention::LinearInputs;
using attention::LinearOptions;
using attention::LinearState;
using attention::PerformerFeatures;
using attention::PerformerKernel;
using attention::PerformerOptions;
using attention::PerformerStabiliser;

template <class T>
void attend(const LinearInputs<T>& in, NdArray<T, 4>& out, const LinearOptions& options,
            LinearState<T>* state = nullptr) {
  attention::linear_attention<T>(in, out.view(), state, {}, options);
}
template <class T>
void attend_vjp(const LinearInputs<T>& in, const NdArray<T, 4>& dout, const LinearGradients<T>& to,
                const LinearOptions& options, const LinearState<T>* initial = nullptr) {
  attention::linear_attention_vjp<T>(in, {{}, {}, initial}, dout.view(), to, options);
}

template <class T>
class Performer : public ::testing::Test {
 protected:
  static NdArray<T, 4> read(const std::string& name, const char* what) {
    return attention_reference<T, 4>(name, what);
  }
};
using Scalars = ::testing::Types<float, double>;
TYPED_TEST_SUITE(Performer, Scalars);

TYPED_TEST(Performer, ExactReferences) {
  using T = TypeParam;
  for (const bool causal : {false, true}) {
    const std::string name = causal ? "favor_exact_causal" : "favor_exact_full";
    const auto read = [&](const char* what) { return this->read(name, what); };
    const PerformerFeatures<T> map(attention_reference<T, 2>(name, "W"));
    const NdArray<T, 4> q = read("q"), k = read("k"), v = read("v"), dout = read("dout");
    LinearInputs<T> in;
    in.q = q.view(), in.k = k.view(), in.v = v.view(), in.query_map = &map;
    LinearOptions options;
    options.visible.causal = causal;
    options.eps = 0;
    NdArray<T, 4> out(dout.extents()), dq(q.extents()), dk(k.extents()), dv(v.extents());
    attend(in, out, options);
    expect_attention_near(out, read("out"), attention_output_tolerance<T>, "out");
    LinearGradients<T> to;
    to.q = dq.view(), to.k = dk.view(), to.v = dv.view();
    attend_vjp(in, dout, to, options);
    expect_attention_near(dq, read("dq"), attention_gradient_tolerance<T>, "dq");
    expect_attention_near(dk, read("dk"), attention_gradient_tolerance<T>, "dk");
    expect_attention_near(dv, read("dv"), attention_gradient_tolerance<T>, "dv");
  }
}

/// Published code: each head's keys have a constant of their own, and 1e-6 is added to every
/// component of the keys' sum where attention is causal.
template <class T>
void published_case(const std::string& name, PerformerKernel kernel, bool causal) {
  SCOPED_TRACE(name);
  const auto read = [&](const char* what) { return attention_reference<T, 4>(name, what); };
  const NdArray<T, 4> q = read("q"), k = read("k"), v = read("v"), dout = read("dout");
  const NdArray<T, 4> expected = read("out"), edq = read("dq"), edk = read("dk"), edv = read("dv");
  const bool softmax = kernel == PerformerKernel::exp;
  for (Index h = 0; h < q.extent(1); ++h) {
    const auto head = [&](const NdArray<T, 4>& x) {
      return NdArray<T, 4>(x.view().slice(1, h, 1));
    };
    const NdArray<T, 4> qh = head(q), kh = head(k), vh = head(v), dh = head(dout);
    const NdArray<T, 2> w = attention_reference<T, 2>(name, "W");
    PerformerOptions<T> options;
    options.kernel = kernel;
    options.eps = softmax ? 1e-4 : 1e-3;
    options.stabiliser = PerformerStabiliser::constants;
    const PerformerFeatures<T> query_map(w, options);
    options.constant = attention::performer_largest<T>(kh.view().subview(0).subview(0), w);
    const PerformerFeatures<T> key_map(w, options);
    if (softmax && !causal) {
      NdArray<T, 2> phi({70, 44});
      key_map.apply(kh.view().subview(0).subview(0), phi.view(), nullptr);
      expect_attention_near(phi, head(read("phi_k")), 1e-5, "phi_k");
      query_map.apply(qh.view().subview(0).subview(0), phi.view(), nullptr);
      expect_attention_near(phi, head(read("phi_q")), 1e-5, "phi_q");
    }
    LinearInputs<T> in;
    in.q = qh.view(), in.k = kh.view(), in.v = vh.view();
    in.query_map = &query_map, in.key_map = &key_map;
    LinearOptions linear;
    linear.visible.causal = causal;
    linear.eps = 0;
    LinearState<T> state(1, 1, 44, 16);
    state.normaliser.fill(T(1e-6));
    NdArray<T, 4> out(dh.extents()), dq(qh.extents()), dk(kh.extents()), dv(vh.extents());
    const LinearState<T> before = state;
    attend(in, out, linear, causal ? &state : nullptr);
    expect_attention_near(out, head(expected), 2 * attention_output_tolerance<T>, "out");
    LinearGradients<T> to;
    to.q = dq.view(), to.k = dk.view(), to.v = dv.view();
    attend_vjp(in, dh, to, linear, causal ? &before : nullptr);
    const double tolerance = attention_gradient_tolerance<T>;
    expect_attention_near(dq, head(edq), tolerance, "dq");
    expect_attention_near(dk, head(edk), tolerance, "dk");
    expect_attention_near(dv, head(edv), tolerance, "dv");
  }
}

TYPED_TEST(Performer, PublishedReferences) {
  using T = TypeParam;
  published_case<T>("performer_softmax_full", PerformerKernel::exp, false);
  published_case<T>("performer_softmax_causal", PerformerKernel::exp, true);
  published_case<T>("performer_relu_full", PerformerKernel::relu, false);
  published_case<T>("performer_relu_causal", PerformerKernel::relu, true);
}

TEST(PerformerProjection, BlocksAreOrthogonalAndDrawsDiffer) {
  const NdArray<double, 2> w = attention::performer_projection<double>(20, 8, 3);
  for (Index a = 0; a < 20; ++a) {
    for (Index b = 0; b < a; ++b) {
      if (a / 8 != b / 8) continue;
      double product = 0;
      for (Index c = 0; c < 8; ++c) product += w(a, c) * w(b, c);
      EXPECT_NEAR(product, 0, 1e-12);
    }
  }
  const NdArray<double, 2> same = attention::performer_projection<double>(20, 8, 3);
  const NdArray<double, 2> other = attention::performer_projection<double>(20, 8, 3, 1);
  EXPECT_TRUE(std::equal(w.begin(), w.end(), same.begin()));
  EXPECT_NE(w(0, 0), other(0, 0));
  const NdArray<double, 2> equal = attention::performer_projection<double>(20, 8, 3, 0, true);
  double length = 0;
  for (Index c = 0; c < 8; ++c) length += equal(5, c) * equal(5, c);
  EXPECT_NEAR(length, 8, 1e-12);
}

TEST(PerformerGradients, AgainstFiniteDifferences) {
  for (const PerformerKernel kernel :
       {PerformerKernel::exp, PerformerKernel::elu1, PerformerKernel::relu}) {
    for (const Index features : {Index{0}, Index{12}}) {
      SCOPED_TRACE(std::to_string(static_cast<int>(kernel)) + " " + std::to_string(features));
      PerformerOptions<double> options;
      options.kernel = kernel;
      options.eps = kernel == PerformerKernel::exp ? 0 : 0.01;
      const PerformerFeatures<double> map(attention::performer_projection<double>(features, 5, 1),
                                          options);
      NdArray<double, 4> q = attention_normal<double, 4>({1, 1, 10, 5}, 1);
      NdArray<double, 4> k = attention_normal<double, 4>({1, 1, 10, 5}, 2);
      const NdArray<double, 4> v = attention_normal<double, 4>({1, 1, 10, 3}, 3);
      const NdArray<double, 4> dout = attention_normal<double, 4>({1, 1, 10, 3}, 4);
      const auto inputs = [&] {
        LinearInputs<double> in;
        in.q = q.view(), in.k = k.view(), in.v = v.view(), in.query_map = &map;
        return in;
      };
      LinearOptions linear;
      linear.visible.causal = true;
      NdArray<double, 4> dq(q.extents()), dk(k.extents());
      LinearGradients<double> to;
      to.q = dq.view(), to.k = dk.view();
      attend_vjp(inputs(), dout, to, linear);
      const std::function<void(NdArray<double, 4>&)> f = [&](NdArray<double, 4>& out) {
        attend(inputs(), out, linear);
      };
      expect_attention_gradient(q, dq, dout, f, "q", 1e-6);
      expect_attention_gradient(k, dk, dout, f, "k", 1e-6);
    }
  }
}

TEST(PerformerStabiliserTest, NeitherLeaksNorDependsOnTheFuture) {
  const PerformerFeatures<float> map(attention::performer_projection<float>(32, 8, 2));
  const NdArray<float, 4> q = attention_normal<float, 4>({1, 1, 40, 8}, 1);
  NdArray<float, 4> k = attention_normal<float, 4>({1, 1, 40, 8}, 2);
  const NdArray<float, 4> v = attention_normal<float, 4>({1, 1, 40, 8}, 3);
  LinearInputs<float> in;
  in.q = q.view(), in.k = k.view(), in.v = v.view(), in.query_map = &map;
  LinearOptions options;
  options.visible.causal = true;
  NdArray<float, 4> out(q.extents()), changed(q.extents()), steps(q.extents());
  attend(in, out, options);
  for (Index c = 0; c < 8; ++c) k(0, 0, 39, c) *= 20;  // the last key is far larger than all
  attend(in, changed, options);
  for (Index t = 0; t < 39; ++t) {
    for (Index c = 0; c < 8; ++c) ASSERT_EQ(out(0, 0, t, c), changed(0, 0, t, c));
  }
  LinearState<float> state(1, 1, 32, 8);
  for (Index t = 0; t < 40; ++t) {
    LinearInputs<float> one = in;
    for (auto* a : {&one.q, &one.k, &one.v}) *a = a->slice(2, t, 1);
    attention::linear_attention<float>(one, steps.view().slice(2, t, 1), &state, {}, options);
  }
  expect_attention_near(steps, changed, 2e-6, "decode");  // fades are rounded in another order
}

TEST(PerformerErrorTest, FallsWithFeaturesAndWarns) {
  const NdArray<double, 4> q = attention_normal<double, 4>({1, 1, 100, 16}, 1, 0.5);
  const NdArray<double, 4> k = attention_normal<double, 4>({1, 1, 100, 16}, 2, 0.5);
  const MatrixView<const double> q2 = q.view().subview(0).subview(0);
  const MatrixView<const double> k2 = k.view().subview(0).subview(0);
  const auto error = [&](Index features) {
    const PerformerFeatures<double> map(attention::performer_projection<double>(features, 16, 5));
    return attention::performer_error<double>(q2, k2, map);
  };
  const double few = error(16).relative, some = error(256).relative, many = error(4096).relative;
  EXPECT_LT(some, 0.6 * few);
  EXPECT_LT(many, 0.4 * some);
  EXPECT_FALSE(error(4096).useless);
  const NdArray<double, 4> wide = attention_normal<double, 4>({1, 1, 100, 16}, 3, 2.5);
  const PerformerFeatures<double> map(attention::performer_projection<double>(64, 16, 5));
  EXPECT_TRUE(attention::performer_error<double>(wide.view().subview(0).subview(0),
                                                 wide.view().subview(0).subview(0), map)
                  .useless);
}

TEST(PerformerErrors, SayWhatDoesNotFit) {
  PerformerOptions<float> options;
  options.eps = 1e-4;
  EXPECT_THROW(PerformerFeatures<float>(NdArray<float, 2>(), options), ValueError);
  const PerformerFeatures<float> map(attention::performer_projection<float>(8, 4, 1));
  NdArray<float, 2> x({3, 5}), phi({3, 8});
  float scales[3];
  EXPECT_THROW(map.apply(x.view(), phi.view(), scales), ShapeError);
  EXPECT_THROW(static_cast<void>(attention::performer_projection<float>(-1, 4, 1)), ValueError);
}

}  // namespace
}  // namespace quern::test::performer
