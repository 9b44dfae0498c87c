// SPDX-License-Identifier: Apache-2.0

/// \file
/// GAU and FLASH token by token: equal to the whole sequence at once; states copied, saved, loaded
/// and begun anew; what a step cannot do.

#include "quern/attention/gated_decode.hpp"
#include "attention/gated_reference.hpp"
#include "attention/reference.hpp"

#include <gtest/gtest.h>

#include <cstddef>
#include <vector>

namespace quern::test::gated_decode {
namespace {

using attention::GateActivation;
using attention::GatedUnitOptions;
using attention::GateNorm;
using Sequence = NdArray<double, 3>;

constexpr Index batch = 2, length = 90, dim = 8;

/// All positions of x from `begin` on, step by step.
template <class Step>
void run_steps(const Sequence& x, Sequence& out, Index begin, Index end, const Step& step) {
  for (Index t = begin; t < end; ++t) {
    step(NdView<const double, 3>(x.view()).subview(t, 1), out.view().subview(t, 1));
  }
}

template <class State, class Step>
void check_state(State state, const Sequence& x, const Sequence& expected, const Step& step) {
  Sequence out(x.extents());
  run_steps(x, out, 0, 40, [&](auto in, auto to) { step(in, to, state); });
  State copy = state;
  std::vector<std::byte> bytes;
  state.save(bytes);
  run_steps(x, out, 40, length, [&](auto in, auto to) { step(in, to, state); });
  expect_attention_near(out, expected, 1e-12, "steps");
  const Sequence first = out;
  run_steps(x, out, 40, length, [&](auto in, auto to) { step(in, to, copy); });
  EXPECT_TRUE(std::equal(out.begin(), out.end(), first.begin())) << "a copy goes on as it was";
  state.load(bytes);
  EXPECT_EQ(state.position(), 40);
  run_steps(x, out, 40, length, [&](auto in, auto to) { step(in, to, state); });
  EXPECT_TRUE(std::equal(out.begin(), out.end(), first.begin())) << "loaded";
  state.reset();
  run_steps(x, out, 0, length, [&](auto in, auto to) { step(in, to, state); });
  EXPECT_TRUE(std::equal(out.begin(), out.end(), first.begin())) << "begun anew";
  bytes.pop_back();
  EXPECT_THROW(state.load(bytes), ParseError);
  bytes.resize(bytes.size() + 2);
  EXPECT_THROW(state.load(bytes), ParseError);
  bytes[0] = std::byte{7};
  EXPECT_THROW(state.load(bytes), ParseError);
}

TEST(GatedDecode, FlashInConstantMemory) {
  auto w = random_gated(dim, 12, 6, 4, GateNorm::scale, true, 700);
  const auto weights = w.views<const double>();
  const auto x = attention_normal<double, 3>({batch, length, dim}, 701);
  const GatedUnitOptions<double> options{
      .causal = true, .norm = GateNorm::scale, .token_shift = true, .rotary_dims = 4, .group = 16};
  Sequence expected(x.extents());
  attention::flash<double>(x, weights, expected.view(), options);
  const attention::FlashState<double> start(batch, weights, 16);
  check_state(start, x, expected, [&](auto in, auto out, auto& state) {
    attention::flash_step<double>(in, weights, out, state, options);
  });
  std::vector<std::byte> early, late;
  attention::FlashState<double> state = start;
  state.save(early);
  Sequence out(x.extents());
  run_steps(x, out, 0, length, [&](auto in, auto to) {
    attention::flash_step<double>(in, weights, to, state, options);
  });
  state.save(late);
  EXPECT_EQ(early.size(), late.size());
}

void check_gau(const GatedUnitOptions<double>& options, bool bias) {
  auto w = random_gated(dim, 12, 6, 2, GateNorm::layer, bias, 800);
  const auto weights = w.views<const double>();
  const auto x = attention_normal<double, 3>({batch, length, dim}, 801);
  Sequence expected(x.extents());
  attention::gau<double>(x, weights, expected.view(), options);
  check_state(attention::GauState<double>(batch, weights), x, expected,
              [&](auto in, auto out, auto& state) {
                attention::gau_step<double>(in, weights, out, state, options);
              });
}

TEST(GatedDecode, GauWithEveryActivation) {
  check_gau({.causal = true, .rotary_dims = 6, .length_scale = 50}, true);
  check_gau({.causal = true, .activation = GateActivation::laplace, .length_scale = 20}, true);
  check_gau({.causal = true, .activation = GateActivation::softmax_plus}, false);
}

TEST(GatedDecode, GauWithAWindowInConstantMemory) {
  const GatedUnitOptions<double> options{
      .causal = true, .rotary_dims = 6, .length_scale = 50, .window = 7};
  check_gau(options, true);
  check_gau({.causal = true, .activation = GateActivation::softmax_plus, .window = 5}, false);
  auto w = random_gated(dim, 12, 6, 2, GateNorm::layer, true, 800);
  const auto weights = w.views<const double>();
  attention::GauState<double> state(1, weights);
  NdArray<double, 2> x({1, dim}), out({1, dim});
  Index most = 0;
  std::vector<std::byte> bytes;
  for (Index t = 0; t < 1000; ++t) {
    attention::gau_step<double>(x, weights, out.view(), state, options);
    most = (std::max)(most, state.kept());
  }
  EXPECT_LE(most, 2 * 8 + 66);
  state.save(bytes);
  EXPECT_LT(bytes.size(), 100U * 18 * 8);
}

TEST(GatedDecode, WhatAStepCannotDo) {
  auto w = random_gated(dim, 12, 6, 2, GateNorm::layer, true, 900);
  const auto weights = w.views<const double>();
  attention::GauState<double> state(batch, weights);
  const NdArray<double, 2> x({batch, dim}), more({batch + 1, dim});
  NdArray<double, 2> out({batch, dim});
  const auto call = [&](const NdArray<double, 2>& in, const GatedUnitOptions<double>& options) {
    attention::gau_step<double>(in, weights, out.view(), state, options);
  };
  EXPECT_THROW(call(x, {.length_scale = 5}), ValueError) << "not causal";
  EXPECT_THROW(call(x, {.causal = true}), ValueError) << "length not known";
  EXPECT_THROW(call(more, {.causal = true, .length_scale = 5}), ShapeError);
  auto four = random_gated(dim, 12, 6, 4, GateNorm::layer, true, 901);
  attention::FlashState<double> other(batch, four.views<const double>(), 8);
  EXPECT_THROW(attention::flash_step<double>(x, four.views<const double>(), out.view(), other,
                                             {.causal = true, .group = 16}),
               ShapeError);
}

}  // namespace
}  // namespace quern::test::gated_decode
