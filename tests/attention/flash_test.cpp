// SPDX-License-Identifier: Apache-2.0

/// \file
/// FLASH: against FLASH-pytorch 0.1.9 in float64 with all gradients; finite differences; groups
/// that do not divide the length; a group that holds everything is GAU; threads, batches, bad
/// input.

#include "quern/attention/flash.hpp"
#include "attention/gated_reference.hpp"
#include "attention/reference.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace quern::test::flash_unit {
namespace {

using attention::GateActivation;
using attention::GatedUnitOptions;
using attention::GateNorm;

/// The only place where this file's kernels are made.
template <class T>
GatedFunctions<T> functions() {
  return {
      [](const auto& x, const auto& w, auto out, const auto& options, auto* saved) {
        attention::flash<T>(x, w, out, options, saved);
      },
      [](const auto& x, const auto& w, const auto& saved, const auto& dout, auto dx, const auto& g,
         const auto& options) { attention::flash_vjp<T>(x, w, saved, dout, dx, g, options); }};
}

template <class T>
void check_references() {
  const GatedFunctions<T> f = functions<T>();
  check_gated_reference<T>(f, "flash_full", {.group = 16});
  check_gated_reference<T>(f, "flash_causal", {.causal = true, .group = 16});
  check_gated_reference<T>(f, "flash_full_masked", {.group = 16});
  check_gated_reference<T>(f, "flash_causal_rotary_scalenorm_shift",
                           {.causal = true,
                            .norm = GateNorm::scale,
                            .token_shift = true,
                            .rotary_dims = 8,
                            .group = 16});
}
TEST(Flash, ReferencesFloat) { check_references<float>(); }
TEST(Flash, ReferencesDouble) { check_references<double>(); }

TEST(Flash, GradientsAgainstFiniteDifferences) {
  const GatedFunctions<double> f = functions<double>();
  const std::vector<std::int64_t> lengths = {19, 12};
  auto w = random_gated(9, 7, 6, 4, GateNorm::layer, true, 100);
  check_gated_gradients(f, w, {2, 19, 9},
                        {.causal = true,
                         .activation = GateActivation::laplace,
                         .rotary_dims = 2,
                         .group = 5,
                         .lengths = lengths});
  auto plain = random_gated(9, 7, 6, 4, GateNorm::none, false, 200);
  check_gated_gradients(f, plain, {2, 19, 9},
                        {.norm = GateNorm::none, .residual = false, .group = 8});
}

TEST(Flash, CausalOutputsAreThoseOfTheBeginning) {
  auto w = random_gated(6, 8, 5, 4, GateNorm::layer, true, 300);
  const auto x = attention_normal<double, 3>({1, 700, 6}, 301);
  const GatedUnitOptions<double> options{.causal = true, .rotary_dims = 4, .group = 96};
  NdArray<double, 3> out({1, 700, 6}), first({1, 201, 6});
  const auto weights = w.views<const double>();
  attention::flash<double>(x, weights, out.view(), options);
  attention::flash<double>(NdView<const double, 3>(x.view()).slice(1, 0, 201), weights,
                           first.view(), options);
  const NdArray<double, 3> beginning(NdView<const double, 3>(out.view()).slice(1, 0, 201));
  expect_attention_near(beginning, first, 1e-12, "out");
}

TEST(Flash, ThreadsAndBatchChangeNothing) {
  auto w = random_gated(8, 12, 5, 4, GateNorm::layer, true, 500);
  const auto weights = w.views<const double>();
  const auto x = attention_normal<double, 3>({3, 300, 8}, 501);
  for (const bool causal : {false, true}) {
    const auto run = [&](int threads) {
      NdArray<double, 3> out(x.extents()), dx(x.extents());
      GatedArrays<double> dw = w.zeros();
      attention::GatedUnitSaved<double> saved;
      const GatedUnitOptions<double> options{.causal = causal, .group = 64, .threads = threads};
      attention::flash<double>(x, weights, out.view(), options, &saved);
      attention::flash_vjp<double>(x, weights, saved, x, dx.view(), dw.views<double>(), options);
      std::vector<double> all(out.begin(), out.end());
      all.insert(all.end(), dx.begin(), dx.end());
      dw.each(w, [&](const char*, auto& g, auto&) { all.insert(all.end(), g.begin(), g.end()); });
      return all;
    };
    const std::vector<double> one = run(1);
    EXPECT_EQ(one, run(2));
    EXPECT_EQ(one, run(3));
    NdArray<double, 3> alone({1, 300, 8});
    attention::flash<double>(NdView<const double, 3>(x.view()).slice(0, 2, 1), weights,
                             alone.view(), {.causal = causal, .group = 64});
    EXPECT_TRUE(std::equal(alone.begin(), alone.end(), one.begin() + 4800));
  }
}

TEST(Flash, PackedSequences) {
  auto w = random_gated(9, 7, 6, 4, GateNorm::layer, true, 100);
  check_gated_packed(functions<double>(), w, 9,
                     {.causal = true, .token_shift = true, .rotary_dims = 4, .group = 8});
  check_gated_packed(functions<double>(), w, 9, {.group = 8});
}

TEST(Flash, BadInput) {
  auto two_rows = random_gated(8, 12, 5, 2, GateNorm::layer, true, 600);
  auto w = random_gated(8, 12, 5, 4, GateNorm::layer, true, 600);
  const NdArray<double, 3> x({2, 4, 8});
  NdArray<double, 3> out({2, 4, 8}), none({2, 0, 8});
  EXPECT_THROW(attention::flash<double>(x, two_rows.views<const double>(), out.view()), ShapeError);
  const auto weights = w.views<const double>();
  EXPECT_THROW(attention::flash<double>(x, weights, out.view(), {.group = 0}), ValueError);
  EXPECT_THROW(attention::flash<double>(x, weights, out.view(),
                                        {.activation = GateActivation::softmax_plus}),
               ValueError);
  EXPECT_THROW(attention::flash<double>(x, weights, out.view(), {.window = 3}), ValueError);
  const std::vector<std::int64_t> cumulative = {0, 4};
  EXPECT_THROW(attention::flash<double>(x, weights, out.view(), {.cumulative = cumulative}),
               ShapeError)
      << "two rows";
  attention::flash<double>(none, weights, none.view());
}

}  // namespace
}  // namespace quern::test::flash_unit
