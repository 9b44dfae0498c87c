// SPDX-License-Identifier: Apache-2.0

/// \file
/// What tests of sequence layers share: steps equal forward's positions, states clone and save,
/// clones are independent, drawing is by seed.

#ifndef QUERN_TESTS_SSM_LAYERS_CHECK_HPP
#define QUERN_TESTS_SSM_LAYERS_CHECK_HPP

#include "quern/nn/sequence_layer.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <memory>
#include <vector>

namespace quern::test {

/// Steps from a fresh state give forward's positions, also when the state travels as bytes.
template <class T>
void check_steps(const nn::SequenceLayer<T>& layer, const nn::Tensor<T>& in, double tolerance) {
  const Index batch = in.shape()[0], length = in.shape()[1], dim = in.shape()[2];
  const nn::Tensor<T> whole = nn::apply<T>(layer, in.view());
  auto state = layer.make_state(batch);
  nn::Tensor<T> x({batch, dim}), y({batch, dim});
  double scale = 1;
  for (const T v : whole.span()) scale = (std::max)(scale, std::fabs(static_cast<double>(v)));
  for (Index t = 0; t < length; ++t) {
    for (Index b = 0; b < batch; ++b) {
      std::copy_n(in.data() + (b * length + t) * dim, dim, x.data() + b * dim);
    }
    if (t == length / 2) {
      std::vector<std::byte> bytes;
      state->save(bytes);
      auto other = layer.make_state(batch);
      other->load(bytes);
      bytes.pop_back();
      EXPECT_THROW(other->load(bytes), ParseError);
      state = other->clone();
      other->reset();
    }
    layer.step(x.view(), y.view(), *state);
    for (Index b = 0; b < batch; ++b) {
      for (Index k = 0; k < dim; ++k) {
        ASSERT_NEAR(y[b * dim + k], whole[(b * length + t) * dim + k], tolerance * scale)
            << "position " << t;
      }
    }
  }
}

/// A clone gives the same and has weights of its own; equal seeds draw equally.
template <class T>
void check_clone(nn::Layer<T>& layer, const nn::Tensor<T>& in) {
  layer.initialize(5, "a.");
  const auto copy = layer.clone();
  const nn::Tensor<T> before = nn::apply<T>(layer, in.view());
  layer.initialize(6, "a.");
  const nn::Tensor<T> after = nn::apply<T>(layer, in.view()), same = nn::apply<T>(*copy, in.view());
  EXPECT_TRUE(std::equal(before.span().begin(), before.span().end(), same.span().begin()));
  EXPECT_FALSE(std::equal(before.span().begin(), before.span().end(), after.span().begin()));
  layer.initialize(5, "a.");
  const nn::Tensor<T> again = nn::apply<T>(layer, in.view());
  EXPECT_TRUE(std::equal(before.span().begin(), before.span().end(), again.span().begin()));
}

}  // namespace quern::test

#endif  // QUERN_TESTS_SSM_LAYERS_CHECK_HPP
