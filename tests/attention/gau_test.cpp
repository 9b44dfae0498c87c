// SPDX-License-Identifier: Apache-2.0

/// \file
/// The gated attention unit: against FLASH-pytorch 0.1.9 in float64 with all gradients,
/// softmax-plus against its definition; finite differences for what the references leave out;
/// masks, lengths, threads, batches, bad input.

#include "quern/attention/gau.hpp"
#include "attention/gated_reference.hpp"
#include "attention/reference.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

namespace quern::test::gau {
namespace {

using attention::GateActivation;
using attention::GatedUnitOptions;
using attention::GateNorm;

/// The only place where this file's kernels are made.
template <class T>
GatedFunctions<T> functions() {
  return {
      [](const auto& x, const auto& w, auto out, const auto& options, auto* saved) {
        attention::gau<T>(x, w, out, options, saved);
      },
      [](const auto& x, const auto& w, const auto& saved, const auto& dout, auto dx, const auto& g,
         const auto& options) { attention::gau_vjp<T>(x, w, saved, dout, dx, g, options); }};
}

template <class T>
void check_references() {
  const GatedFunctions<T> f = functions<T>();
  check_gated_reference<T>(f, "gau_relu2_full", {});
  check_gated_reference<T>(f, "gau_relu2_causal", {.causal = true});
  check_gated_reference<T>(f, "gau_laplace_causal",
                           {.causal = true, .activation = GateActivation::laplace});
  check_gated_reference<T>(f, "gau_relu2_masked", {});
}
TEST(Gau, ReferencesFloat) { check_references<float>(); }
TEST(Gau, ReferencesDouble) { check_references<double>(); }

template <class T>
void check_softmax_plus(const std::string& folder, bool causal) {
  const auto read = [&](const char* name) { return attention_reference<T, 3>(folder, name); };
  const auto q = read("q"), k = read("k"), v = read("v"), dout = read("dout");
  NdArray<T, 3> out(v.extents()), dq(q.extents()), dk(k.extents()), dv(v.extents());
  const GatedUnitOptions<T> options{.causal = causal, .activation = GateActivation::softmax_plus};
  attention::SparseSaved<T> saved;
  attention::gated_attention<T>(q, k, v, out.view(), options, &saved);
  attention::gated_attention_vjp<T>(q, k, v, out, saved, dout, dq.view(), dk.view(), dv.view(),
                                    options);
  expect_attention_near(out, read("out"), attention_output_tolerance<T>, "out");
  expect_attention_near(dq, read("dq"), attention_gradient_tolerance<T>, "dq");
  expect_attention_near(dk, read("dk"), attention_gradient_tolerance<T>, "dk");
  expect_attention_near(dv, read("dv"), attention_gradient_tolerance<T>, "dv");
}
TEST(Gau, SoftmaxPlusReferences) {
  check_softmax_plus<float>("gau_softmaxplus_core_full", false);
  check_softmax_plus<float>("gau_softmaxplus_core_causal", true);
  check_softmax_plus<double>("gau_softmaxplus_core_full", false);
  check_softmax_plus<double>("gau_softmaxplus_core_causal", true);
}

TEST(Gau, GradientsAgainstFiniteDifferences) {
  const GatedFunctions<double> f = functions<double>();
  const std::vector<std::int64_t> lengths = {19, 11};
  auto plain = random_gated(9, 14, 6, 2, GateNorm::none, false, 100);
  check_gated_gradients(f, plain, {2, 19, 9},
                        {.causal = true,
                         .norm = GateNorm::none,
                         .residual = false,
                         .rotary_dims = 6,
                         .length_scale = 7,
                         .lengths = lengths});
  auto scaled = random_gated(8, 6, 5, 2, GateNorm::scale, true, 200);
  check_gated_gradients(f, scaled, {2, 19, 8},
                        {.activation = GateActivation::laplace,
                         .norm = GateNorm::scale,
                         .token_shift = true,
                         .length_scale = 3});
  auto soft = random_gated(8, 6, 5, 2, GateNorm::layer, false, 300);
  check_gated_gradients(
      f, soft, {2, 19, 8},
      {.causal = true, .activation = GateActivation::softmax_plus, .lengths = lengths});
}

/// More queries and keys than a tile has: causal outputs are those of the beginning alone.
TEST(Gau, TilesAndCausality) {
  auto w = random_gated(6, 8, 5, 2, GateNorm::layer, true, 400);
  const auto x = attention_normal<double, 3>({1, 1300, 6}, 401);
  const GatedUnitOptions<double> options{.causal = true, .length_scale = 64};
  NdArray<double, 3> out({1, 1300, 6}), first({1, 300, 6});
  const auto weights = w.views<const double>();
  attention::gau<double>(x, weights, out.view(), options);
  attention::gau<double>(NdView<const double, 3>(x.view()).slice(1, 0, 300), weights, first.view(),
                         options);
  const NdArray<double, 3> beginning(NdView<const double, 3>(out.view()).slice(1, 0, 300));
  expect_attention_near(beginning, first, 1e-12, "out");
}

TEST(Gau, ThreadsBatchAndLayoutChangeNothing) {
  auto w = random_gated(8, 12, 5, 2, GateNorm::layer, true, 500);
  const auto weights = w.views<const double>();
  const auto x = attention_normal<double, 3>({3, 300, 8}, 501);
  const auto run = [&](int threads) {
    NdArray<double, 3> out(x.extents()), dx(x.extents());
    GatedArrays<double> dw = w.zeros();
    attention::GatedUnitSaved<double> saved;
    const GatedUnitOptions<double> options{.threads = threads};
    attention::gau<double>(x, weights, out.view(), options, &saved);
    attention::gau_vjp<double>(x, weights, saved, x, dx.view(), dw.views<double>(), options);
    std::vector<double> all(out.begin(), out.end());
    all.insert(all.end(), dx.begin(), dx.end());
    dw.each(w, [&](const char*, auto& g, auto&) { all.insert(all.end(), g.begin(), g.end()); });
    return all;
  };
  const std::vector<double> one = run(1);
  EXPECT_EQ(one, run(2));
  EXPECT_EQ(one, run(3));
  NdArray<double, 3> alone({1, 300, 8}), turned({8, 300, 1});
  const auto row = NdView<const double, 3>(x.view()).slice(0, 1, 1);
  attention::gau<double>(row, weights, alone.view());
  EXPECT_TRUE(std::equal(alone.begin(), alone.end(), one.begin() + 2400));
  attention::gau<double>(row, weights, turned.view().permuted({2, 1, 0}));
  EXPECT_EQ(turned(3, 100, 0), alone(0, 100, 3));
}

TEST(Gau, PackedSequences) {
  auto w = random_gated(8, 6, 5, 2, GateNorm::layer, true, 700);
  check_gated_packed(functions<double>(), w, 8,
                     {.causal = true, .token_shift = true, .rotary_dims = 4});
  check_gated_packed(functions<double>(), w, 8, {.activation = GateActivation::laplace});
  auto soft = random_gated(8, 6, 5, 2, GateNorm::layer, false, 701);
  check_gated_packed(functions<double>(), soft, 8,
                     {.causal = true, .activation = GateActivation::softmax_plus});
}

TEST(Gau, WindowGradients) {
  const GatedFunctions<double> f = functions<double>();
  for (const bool causal : {false, true}) {
    auto w = random_gated(8, 6, 5, 2, GateNorm::layer, true, 710);
    check_gated_gradients(f, w, {2, 19, 8}, {.causal = causal, .length_scale = 6, .window = 4});
    auto soft = random_gated(8, 6, 5, 2, GateNorm::layer, false, 711);
    check_gated_gradients(
        f, soft, {2, 19, 8},
        {.causal = causal, .activation = GateActivation::softmax_plus, .window = 4});
  }
}

/// GAU's attention by its definition: weights of query i, at position i + offset, and key j.
NdArray<double, 3> definition(const NdArray<double, 3>& q, const NdArray<double, 3>& k,
                              const NdArray<double, 3>& v,
                              const GatedUnitOptions<double>& options) {
  const Index n = q.extent(1), keys = k.extent(1), dim = q.extent(2);
  const bool softmax = options.activation == GateActivation::softmax_plus;
  NdArray<double, 3> out({q.extent(0), n, v.extent(2)});
  for (Index b = 0; b < q.extent(0); ++b) {
    for (Index i = 0; i < n; ++i) {
      const Index at = i + options.causal_offset.value_or(0);
      std::vector<Index> seen;
      for (Index j = 0; j < keys; ++j) {
        const bool near = options.window < 0 || std::abs(at - j) <= options.window;
        if (near && !(options.causal && j > at)) seen.push_back(j);
      }
      const double l = static_cast<double>(seen.size());
      double total = 0;
      for (const Index j : seen) {
        double product = 0;
        for (Index c = 0; c < dim; ++c) product += q(b, i, c) * k(b, j, c);
        const double logit = product * std::log(l) / std::log(512.0) / std::sqrt(double(dim));
        const double positive = (std::max)(0.0, product / static_cast<double>(keys));
        const double weight = softmax ? std::exp(logit) : positive * positive;
        total += softmax ? weight : 0;
        for (Index c = 0; c < v.extent(2); ++c) out(b, i, c) += weight * v(b, j, c);
      }
      for (Index c = 0; c < v.extent(2) && total != 0; ++c) out(b, i, c) /= total;
    }
  }
  return out;
}

TEST(Gau, AttentionToOtherTokensByWindowsAndOffsets) {
  auto q = attention_normal<double, 3>({2, 7, 3}, 720),
       k = attention_normal<double, 3>({2, 11, 3}, 721);
  auto v = attention_normal<double, 3>({2, 11, 4}, 722);
  const auto dout = attention_normal<double, 3>({2, 7, 4}, 723);
  for (const Index offset : {-2, 3, 8}) {
    for (const int kind : {0, 1, 2, 3}) {
      SCOPED_TRACE(std::to_string(offset) + " " + std::to_string(kind));
      GatedUnitOptions<double> options;
      options.causal = kind % 2 == 0;
      options.window = kind < 2 ? 2 : -1;
      options.causal_offset = offset;
      if (kind == 1 && offset >= 0) options.activation = GateActivation::softmax_plus;
      NdArray<double, 3> out(dout.extents()), dq(q.extents()), dk(k.extents()), dv(v.extents());
      attention::SparseSaved<double> saved;
      attention::gated_attention<double>(q, k, v, out.view(), options, &saved);
      expect_attention_near(out, definition(q, k, v, options), 1e-13, "out");
      attention::gated_attention_vjp<double>(q, k, v, out, saved, dout, dq.view(), dk.view(),
                                             dv.view(), options);
      const std::function<void(NdArray<double, 3>&)> f = [&](NdArray<double, 3>& to) {
        attention::gated_attention<double>(q, k, v, to.view(), options);
      };
      expect_attention_gradient(q, dq, dout, f, "dq", 1e-6);
      expect_attention_gradient(k, dk, dout, f, "dk", 1e-6);
      expect_attention_gradient(v, dv, dout, f, "dv", 1e-6);
    }
  }
  NdArray<double, 3> out(dout.extents());
  EXPECT_THROW(attention::gated_attention<double>(q, k, v, out.view(), {.causal = true}),
               ValueError)
      << "no offset";
}

TEST(Gau, BadInput) {
  auto w = random_gated(8, 12, 5, 2, GateNorm::layer, true, 600);
  const auto weights = w.views<const double>();
  const NdArray<double, 3> x({2, 4, 8}), narrow({2, 4, 7});
  NdArray<double, 3> out({2, 4, 8}), none({0, 4, 8});
  const auto call = [&](const GatedUnitOptions<double>& options) {
    attention::gau<double>(x, weights, out.view(), options);
  };
  EXPECT_THROW(attention::gau<double>(narrow, weights, out.view()), ShapeError);
  EXPECT_THROW(attention::gau<double>(out, weights, out.view()), ShapeError);
  EXPECT_THROW(call({.norm = GateNorm::scale}), ShapeError);
  EXPECT_THROW(call({.rotary_dims = 3}), ValueError);
  EXPECT_THROW(call({.rotary_dims = 6}), ValueError);
  EXPECT_THROW(call({.activation = GateActivation::softmax_plus}), ValueError);
  EXPECT_THROW(call({.window = -2}), ValueError);
  EXPECT_THROW(call({.causal_offset = 1}), ValueError) << "queries and keys are one";
  const std::vector<std::int64_t> lengths = {1, 5};
  EXPECT_THROW(call({.lengths = lengths}), ValueError);
  attention::gau<double>(none, weights, none.view());
  // Nobody is a key: what is left is the way around.
  const std::vector<std::int64_t> nobody = {0, 0};
  call({.lengths = nobody});
  // A key is what both a mask and lengths show.
  const NdArray<std::uint8_t, 2> last_only = [] {
    NdArray<std::uint8_t, 2> mask({2, 4});
    mask(0, 3) = mask(1, 3) = 1;
    return mask;
  }();
  const std::vector<std::int64_t> three = {3, 3};
  call({.mask = last_only.view(), .lengths = three});
  EXPECT_THROW(call({.length_scale = -1}), ValueError);
  for (Index i = 0; i < out.size(); ++i) {
    EXPECT_DOUBLE_EQ(out.data()[i], w.out_bias(i % 8));
  }
}

}  // namespace
}  // namespace quern::test::gau
