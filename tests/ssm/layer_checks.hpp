// SPDX-License-Identifier: Apache-2.0

/// \file
/// What every sequence layer owes: gradients that are the differences, steps that are the positions
/// of forward, states that can be saved, copied and reset, copies with the same weights, the same
/// bits for any number of threads.

#ifndef QUERN_TESTS_SSM_LAYER_CHECKS_HPP
#define QUERN_TESTS_SSM_LAYER_CHECKS_HPP

#include "quern/nn/layer.hpp"
#include "quern/nn/sequence_layer.hpp"
#include "quern/ssm/detail/mixer_state.hpp"

#include "ssm/differences.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace quern::test {

inline nn::Tensor<double> normal_tensor(const nn::Extents& extents, unsigned seed) {
  Index size = 1;
  for (const Index e : extents) size *= e;
  const NdArray<double, 1> values = normal_array<double, 1>({size}, seed);
  nn::Tensor<double> x(extents);
  std::copy(values.begin(), values.end(), x.data());
  return x;
}

/// Weights moved off their initial values: zeros and ones hide mistakes.
inline void disturb_weights(nn::Layer<double>& layer) {
  unsigned seed = 100;
  for (auto& p : nn::parameters_of(layer)) {
    const auto noise = normal_array<double, 1>({p.values.size()}, ++seed, 0.1);
    for (Index i = 0; i < p.values.size(); ++i) p.values[i] += noise(i);
  }
}

inline void check_layer_gradients(nn::Layer<double>& layer, Index batch, Index length, Index dim) {
  nn::Tensor<double> x = normal_tensor({batch, length, dim}, 1);
  const nn::Extents shape = layer.output_shape(x.shape());
  const nn::Tensor<double> dy = normal_tensor(shape, 2);
  nn::Tensor<double> y(shape), dx(x.shape());
  nn::Cache<double> cache;
  layer.forward(x.view(), y.view(), cache, nn::Mode::training);
  nn::Gradients<double> gradients(nn::parameters_of(layer));
  layer.backward(dy.view(), dx.view(), cache, gradients);
  const auto loss = [&] {
    nn::Cache<double> other;
    layer.forward(x.view(), y.view(), other, nn::Mode::inference);
    return dot(y, dy);
  };
  expect_gradient("input", x.span(), std::as_const(dx).span(), loss, 1e-5);
  const auto list = nn::parameters_of(layer);
  for (std::size_t k = 0; k < list.size(); ++k) {
    expect_gradient(list[k].name, list[k].values.span(), gradients[k], loss, 1e-5);
  }
  // A second call adds; nothing but the input's gradient where no other is wanted.
  layer.backward(dy.view(), {}, cache, gradients);
  nn::Tensor<double> again(x.shape());
  layer.backward(dy.view(), again.view(), cache, {});
  for (Index i = 0; i < dx.size(); ++i) ASSERT_EQ(again[i], dx[i]);
}

/// A step says so where it is given what another layer, or one of other sizes, has made.
inline void expect_other_states_refused(const nn::SequenceLayer<double>& layer,
                                        const nn::SequenceLayer<double>& narrower, Index dim) {
  nn::Tensor<double> in({1, dim}), out({1, dim});
  const auto theirs = narrower.make_state(1);
  EXPECT_THROW(layer.step(in.view(), out.view(), *theirs), ShapeError) << layer.type();
  ssm::detail::MixerState<double> foreign("another layer", 1);
  EXPECT_THROW(layer.step(in.view(), out.view(), foreign), ValueError) << layer.type();
}

inline void check_layer_steps(nn::SequenceLayer<double>& layer, Index batch, Index length,
                              Index dim) {
  const nn::Tensor<double> x = normal_tensor({batch, length, dim}, 3);
  const nn::Extents shape = layer.output_shape(x.shape());
  const Index width = shape.back();
  nn::Tensor<double> y(shape), in({batch, dim}), out({batch, width}), other({batch, width});
  nn::Cache<double> cache;
  layer.forward(x.view(), y.view(), cache, nn::Mode::inference);
  auto state = layer.make_state(batch), saved = layer.make_state(batch);
  for (const bool again : {false, true}) {
    if (again) state->reset();
    for (Index t = 0; t < length; ++t) {
      for (Index b = 0; b < batch; ++b) {
        std::copy_n(x.data() + (b * length + t) * dim, dim, in.data() + b * dim);
      }
      if (t == length / 2) {
        std::vector<std::byte> bytes;
        state->save(bytes);
        saved->load(bytes);
        auto copy = state->clone();
        layer.step(in.view(), out.view(), *copy);
        layer.step(in.view(), other.view(), *saved);
        for (Index i = 0; i < out.size(); ++i) ASSERT_EQ(out[i], other[i]);
        bytes.pop_back();
        EXPECT_THROW(saved->load(bytes), Error);
      }
      layer.step(in.view(), out.view(), *state);
      for (Index b = 0; b < batch; ++b) {
        for (Index i = 0; i < width; ++i) {
          ASSERT_NEAR(out[b * width + i], y[(b * length + t) * width + i], 1e-11) << "step " << t;
        }
      }
    }
  }
  EXPECT_THROW(layer.step(x.view(), out.view(), *state), ShapeError);
}

inline void check_layer(nn::SequenceLayer<double>& layer, Index dim) {
  disturb_weights(layer);
  check_layer_gradients(layer, 2, 7, dim);
  check_layer_steps(layer, 2, 9, dim);
  const nn::Tensor<double> x = normal_tensor({2, 70, dim}, 4);
  const nn::Extents shape = layer.output_shape(x.shape());
  const std::unique_ptr<nn::Layer<double>> copy = layer.clone();
  nn::Tensor<double> y(shape), z(shape), dx(x.shape()), dz(x.shape());
  const nn::Tensor<double> dy = normal_tensor(shape, 5);
  nn::Cache<double> one, three;
  one.context.threads = 1;
  three.context.threads = 3;
  layer.forward(x.view(), y.view(), one, nn::Mode::training);
  copy->forward(x.view(), z.view(), three, nn::Mode::training);
  for (Index i = 0; i < y.size(); ++i) ASSERT_EQ(y[i], z[i]);
  nn::Gradients<double> g(nn::parameters_of(layer)), h(nn::parameters_of(layer));
  layer.backward(dy.view(), dx.view(), one, g);
  copy->backward(dy.view(), dz.view(), three, h);
  for (Index i = 0; i < dx.size(); ++i) ASSERT_EQ(dx[i], dz[i]);
  for (std::size_t i = 0; i < g.memory().size(); ++i) ASSERT_EQ(g.memory()[i], h.memory()[i]);
  EXPECT_THROW(static_cast<void>(layer.output_shape({2, 7, dim + 1})), ShapeError);
  EXPECT_THROW(static_cast<void>(layer.output_shape({7, dim})), ShapeError);
  nn::Tensor<double> none({2, 0, dim}), nothing(layer.output_shape({2, 0, dim}));
  layer.forward(none.view(), nothing.view(), one, nn::Mode::inference);
}

}  // namespace quern::test

#endif  // QUERN_TESTS_SSM_LAYER_CHECKS_HPP
