// SPDX-License-Identifier: Apache-2.0

/// \file
/// Layers of sparse, hashed, projected and gated attention, transformer blocks and language models:
/// all gradients against finite differences, equal bits for any number of threads, clones, decoding
/// against the whole sequence, states saved and loaded.

#include "attention/reference.hpp"
#include "nn/gradients.hpp"
#include "quern/attention/gated_layers.hpp"
#include "quern/attention/language_model.hpp"
#include "quern/attention/sparse_layers.hpp"
#include "quern/attention/transformer.hpp"
#include "quern/optim/optimizer.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace quern::test::attention_layers {
namespace {

using attention::GatedUnitOptions;
using attention::MultiHeadSizes;
using attention::SparsePattern;
using Layer = nn::Layer<double>;
using SequenceLayer = nn::SequenceLayer<double>;

/// Weights that make every part matter.
void scatter(Layer& layer, std::uint64_t seed) {
  Philox random(seed, "layers test");
  for (const auto& p : nn::parameters_of(layer)) {
    for (double& x : p.values.span()) x += 0.3 * random.normal();
  }
}

void check_layer(Layer& layer, const nn::Extents& shape, double tolerance = 1e-7) {
  SCOPED_TRACE(std::string(layer.type()));
  scatter(layer, 7);
  auto in = random_tensor<double>(shape, 8);
  check_gradients(layer, in, {.tolerance = tolerance});
  check_threads<double>(layer, in);
  const auto copy = layer.clone();
  const nn::Tensor<double> one = nn::apply<double>(layer, in.view());
  const nn::Tensor<double> two = nn::apply<double>(*copy, in.view());
  EXPECT_TRUE(std::ranges::equal(one.span(), two.span())) << "clone";
}

/// Steps, a copied and a loaded state give what forward gives.
void check_decode(const SequenceLayer& layer, Index batch, Index length, Index dim) {
  SCOPED_TRACE(std::string(layer.type()));
  const auto in = random_tensor<double>({batch, length, dim}, 9);
  const nn::Tensor<double> whole = nn::apply<double>(layer, in.view());
  auto state = layer.make_state(batch);
  auto copy = layer.make_state(batch);
  nn::Tensor<double> x({batch, dim}), y({batch, dim}), z({batch, dim});
  for (Index t = 0; t < length; ++t) {
    for (Index b = 0; b < batch; ++b) {
      std::copy_n(in.data() + (b * length + t) * dim, dim, x.data() + b * dim);
    }
    if (t == length / 2) {
      std::vector<std::byte> bytes;
      state->save(bytes);
      copy->load(bytes);
    }
    layer.step(x.view(), y.view(), *state);
    for (Index b = 0; b < batch; ++b) {
      for (Index p = 0; p < dim; ++p) {
        ASSERT_NEAR(y[b * dim + p], whole[(b * length + t) * dim + p], 1e-11) << t;
      }
    }
    if (t < length / 2) continue;
    layer.step(x.view(), z.view(), *copy);
    ASSERT_TRUE(std::ranges::equal(y.span(), z.span())) << t;
  }
  state->reset();
  for (Index b = 0; b < batch; ++b) {
    std::copy_n(in.data() + b * length * dim, dim, x.data() + b * dim);
  }
  state->clone()->reset();
  layer.step(x.view(), y.view(), *state);
  for (Index p = 0; p < dim; ++p) ASSERT_NEAR(y[p], whole[p], 1e-11) << "begun anew";
}

TEST(AttentionLayers, SparseSelfAttention) {
  attention::SparseSelfAttention<double> local(
      {.dim = 6, .heads = 2, .rotary_dims = 2},
      SparsePattern::local(3, {.causal = true, .exact = true}));
  check_layer(local, {2, 11, 6});
  check_decode(local, 2, 60, 6);
  attention::SparseSelfAttention<double> blocks(
      {.dim = 6, .heads = 1}, SparsePattern::local(4, {.causal = true, .look_backward = 2}));
  check_decode(blocks, 1, 90, 6);
  attention::SparseSelfAttention<double> grouped(
      {.dim = 5, .heads = 4, .kv_heads = 2, .head_dim = 3, .bias = false},
      SparsePattern::strided(4));
  check_layer(grouped, {1, 9, 5});
  check_decode(grouped, 1, 30, 5);
  const attention::SparseSelfAttention<double> both({.dim = 4, .heads = 2},
                                                    SparsePattern::window_global(2, 1));
  EXPECT_THROW(static_cast<void>(both.make_state(1)), ValueError);
  EXPECT_THROW(
      attention::SparseSelfAttention<double>({.dim = 5, .heads = 2}, SparsePattern::dense(true)),
      ValueError);
  EXPECT_THROW(attention::SparseSelfAttention<double>({.dim = 6, .heads = 3, .kv_heads = 2},
                                                      SparsePattern::dense(true)),
               ValueError);
}

TEST(AttentionLayers, LocalCacheStaysOfConstantSize) {
  const attention::SparseSelfAttention<double> layer({.dim = 4, .heads = 1},
                                                     SparsePattern::local(4, {.causal = true}));
  auto state = layer.make_state(1);
  nn::Tensor<double> x({1, 4}), y({1, 4});
  std::size_t most = 0;
  for (int t = 0; t < 500; ++t) {
    layer.step(x.view(), y.view(), *state);
    std::vector<std::byte> bytes;
    state->save(bytes);
    most = (std::max)(most, bytes.size());
  }
  EXPECT_LT(most, 4096U);
}

TEST(AttentionLayers, LshAndLinformer) {
  attention::LshSelfAttention<double> lsh({.dim = 6, .heads = 2},
                                          {.rounds = 2, .bucket_size = 4, .causal = true});
  check_layer(lsh, {2, 9, 6}, 1e-6);
  attention::LinformerSelfAttention<double> linformer({.dim = 6, .heads = 2}, 12, 3);
  check_layer(linformer, {2, 9, 6});
  using Lsh = attention::LshSelfAttention<double>;
  EXPECT_THROW(Lsh({.dim = 6, .heads = 2}, {.bucket_size = 0}), ValueError);
  EXPECT_THROW(Lsh({.dim = 6, .heads = 2}, {.rounds = 0}), ValueError);
}

/// A step given what another layer has made.
template <class Refusal>
void expect_refused(const SequenceLayer& layer, const SequenceLayer& other, Index dim) {
  const auto theirs = other.make_state(1);
  nn::Tensor<double> x({1, dim}), y({1, dim});
  EXPECT_THROW(layer.step(x.view(), y.view(), *theirs), Refusal) << layer.type();
}

TEST(AttentionLayers, StatesOfOthersAreRefused) {
  const attention::SparseSelfAttention<double> sparse({.dim = 8, .heads = 2},
                                                      SparsePattern::dense(true));
  const attention::SparseSelfAttention<double> four({.dim = 8, .heads = 4},
                                                    SparsePattern::dense(true));
  const attention::GatedUnitOptions<double> options = {.causal = true, .length_scale = 9};
  const attention::GauLayer<double> gau({.dim = 8, .expanded = 9, .qk = 4}, options);
  const attention::GauLayer<double> narrow({.dim = 6, .expanded = 9, .qk = 4}, options);
  const attention::FlashLayer<double> flash({.dim = 8, .qk = 4}, options);
  expect_refused<ValueError>(sparse, gau, 8);
  expect_refused<ValueError>(gau, flash, 8);
  expect_refused<ValueError>(flash, sparse, 8);
  expect_refused<ShapeError>(sparse, four, 8);
  expect_refused<ShapeError>(gau, narrow, 8);
}

TEST(AttentionLayers, GatedUnitsRefuseWhatTheyCannotDo) {
  using Gau = attention::GauLayer<double>;
  using Flash = attention::FlashLayer<double>;
  const attention::GatedSizes sizes = {.dim = 8, .qk = 4};
  EXPECT_THROW(Gau(sizes, {.rotary_dims = 3}), ValueError);
  EXPECT_THROW(Gau(sizes, {.rotary_dims = 6}), ValueError);
  EXPECT_THROW(Gau(sizes, {.length_scale = -3}), ValueError);
  EXPECT_THROW(Gau({.dim = 8, .qk = 4, .buckets = 6}, {}), ValueError);
  EXPECT_THROW(static_cast<void>(Gau(sizes, {.causal = true}).make_state(1)), ValueError);
  EXPECT_THROW(Flash(sizes, {.group = 0}), ValueError);
  EXPECT_THROW(Flash(sizes, {.activation = attention::GateActivation::softmax_plus}), ValueError);
  EXPECT_THROW(Flash(sizes, {.window = 3}), ValueError);
}

TEST(AttentionLayers, GatedUnits) {
  attention::GauLayer<double> gau({.dim = 6, .expanded = 7, .qk = 4},
                                  {.causal = true, .length_scale = 5});
  check_layer(gau, {2, 9, 6}, 1e-6);
  check_decode(gau, 2, 20, 6);
  attention::FlashLayer<double> flash(
      {.dim = 6, .qk = 4},
      {.causal = true, .norm = attention::GateNorm::scale, .rotary_dims = 4, .group = 4});
  check_layer(flash, {2, 9, 6}, 1e-6);
  check_decode(flash, 2, 20, 6);
  // FLASH-pytorch's names.
  std::vector<std::string> names;
  for (const auto& p : nn::parameters_of<double>(flash, "f.")) names.push_back(p.name);
  EXPECT_EQ(names[0], "f.norm.g");
  EXPECT_EQ(names[5], "f.qk_offset_scale.gamma");
  EXPECT_EQ(names[7], "f.rel_pos_bias.relative_attention_bias.weight");
  EXPECT_EQ(names[8], "f.to_out.weight");
}

std::unique_ptr<SequenceLayer> softmax_block(Index dim) {
  return std::make_unique<attention::TransformerBlock<double>>(
      dim,
      std::make_unique<attention::SparseSelfAttention<double>>(
          MultiHeadSizes{.dim = dim, .heads = 2, .rotary_dims = 2}, SparsePattern::dense(true)),
      2 * dim);
}

attention::LanguageModel<double> model(bool tied, Index positions) {
  attention::LanguageModel<double>::Blocks blocks;
  blocks.push_back(softmax_block(6));
  blocks.push_back(std::make_unique<attention::FlashLayer<double>>(
      attention::GatedSizes{.dim = 6, .qk = 4},
      GatedUnitOptions<double>{.causal = true, .group = 4}));
  return {{.vocabulary = 11, .dim = 6, .tied = tied, .positions = positions}, std::move(blocks)};
}

nn::Tensor<double> some_tokens(Index batch, Index length) {
  nn::Tensor<double> tokens({batch, length});
  for (Index i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<double>(i * 7 % 11);
  return tokens;
}

TEST(AttentionLayers, TransformerBlock) {
  const auto block = softmax_block(6);
  check_layer(*block, {2, 7, 6}, 1e-6);
  check_decode(*block, 2, 20, 6);
  EXPECT_THROW(attention::TransformerBlock<double>(4, nullptr), ValueError);
}

TEST(AttentionLayers, LanguageModelGradients) {
  for (const bool tied : {true, false}) {
    auto m = model(tied, tied ? 0 : 9);
    scatter(m, 3);
    const nn::Tensor<double> tokens = some_tokens(2, 9);
    const std::vector<std::int64_t> targets(18, 4);
    nn::Cache<double> cache;
    nn::Tensor<double> logits({2, 9, 11}), dlogits({2, 9, 11});
    const auto loss = [&] {
      m.forward(tokens.view(), logits.view(), cache, nn::Mode::training);
      return attention::next_token_loss<double>(logits.view(), targets, dlogits.view());
    };
    loss();
    const auto parameters = nn::parameters_of<double>(m);
    nn::Gradients<double> gradients(parameters);
    m.backward(dlogits.view(), {}, cache, gradients);
    for (std::size_t k = 0; k < parameters.size(); ++k) {
      const auto values = parameters[k].values.span();
      for (std::size_t i = values.size() / 3; i < values.size(); i += values.size() / 2 + 1) {
        const double before = values[i];
        values[i] = before + 1e-5;
        const double above = loss();
        values[i] = before - 1e-5;
        const double below = loss();
        values[i] = before;
        EXPECT_NEAR(gradients[k][i], (above - below) / 2e-5, 1e-7) << parameters[k].name;
      }
    }
  }
}

/// Any optimiser trains it: a rule that the beginning tells is learnt.
TEST(AttentionLayers, LanguageModelLearns) {
  auto m = model(true, 0);
  const auto parameters = nn::parameters_of<double>(m);
  nn::Gradients<double> gradients(parameters);
  std::vector<optim::Parameter<double>> trained;
  for (std::size_t k = 0; k < parameters.size(); ++k) {
    trained.push_back({parameters[k].name, parameters[k].values.span(), gradients[k]});
  }
  optim::Optimizer<optim::AdamW, double> optimizer(std::move(trained), optim::AdamW{.lr = 1e-2});
  nn::Tensor<double> tokens({2, 12}), logits({2, 12, 11}), dlogits({2, 12, 11});
  std::vector<std::int64_t> next(24);
  for (Index i = 0; i < 24; ++i) {
    // Steps of 1 in one row and of 3 in the other.
    const Index place = i % 12, step = i < 12 ? 1 : 3;
    tokens[i] = static_cast<double>(place * step % 11);
    next[static_cast<std::size_t>(i)] = (place + 1) * step % 11;
  }
  nn::Cache<double> cache;
  double first = 0, last = 0;
  for (int step = 0; step < 150; ++step) {
    m.forward(tokens.view(), logits.view(), cache, nn::Mode::training);
    last = attention::next_token_loss<double>(logits.view(), next, dlogits.view());
    if (step == 0) first = last;
    gradients.zero();
    m.backward(dlogits.view(), {}, cache, gradients);
    optimizer.step();
  }
  EXPECT_GT(first, 2);
  EXPECT_LT(last, 0.5);
}

TEST(AttentionLayers, LanguageModelDecodesAndGenerates) {
  auto m = model(true, 0);
  scatter(m, 5);
  const nn::Tensor<double> tokens = some_tokens(2, 15);
  const nn::Tensor<double> whole = nn::apply<double>(m, tokens.view());
  auto state = m.make_state(2);
  nn::Tensor<double> logits({2, 11});
  for (Index t = 0; t < 15; ++t) {
    if (t == 6) {
      std::vector<std::byte> bytes;
      state->save(bytes);
      state->reset();
      state->load(bytes);
    }
    const std::vector<std::int64_t> now = {static_cast<std::int64_t>(tokens[t]),
                                           static_cast<std::int64_t>(tokens[15 + t])};
    m.step(now, logits.view(), *state);
    for (Index i = 0; i < 22; ++i) {
      ASSERT_NEAR(logits[i], whole[(i / 11 * 15 + t) * 11 + i % 11], 1e-11) << t;
    }
  }
  const std::vector<std::int64_t> prompt = {1, 2, 3};
  const auto first = attention::generate<double>(m, prompt, {.tokens = 20, .seed = 4});
  EXPECT_EQ(first.size(), 20U);
  EXPECT_EQ(first, attention::generate<double>(m, prompt, {.tokens = 20, .seed = 4}));
  EXPECT_NE(first, attention::generate<double>(m, prompt, {.tokens = 20, .seed = 5}));
  const auto best = attention::generate<double>(m, prompt, {.tokens = 9, .temperature = 0});
  EXPECT_EQ(best, attention::generate<double>(m, prompt, {.tokens = 9, .top_k = 1, .seed = 8}));
  EXPECT_THROW(static_cast<void>(attention::generate<double>(m, {}, {})), ValueError);
  nn::Tensor<double> bad = some_tokens(1, 2);
  bad[1] = 11;
  EXPECT_THROW(static_cast<void>(nn::apply<double>(m, bad.view())), ValueError);
  bad[1] = 1.5;
  EXPECT_THROW(static_cast<void>(nn::apply<double>(m, bad.view())), ValueError);
  const auto refused = [&](const attention::GenerateOptions& options) {
    EXPECT_THROW(static_cast<void>(attention::generate<double>(m, prompt, options)), ValueError);
  };
  refused({.tokens = -4});
  refused({.temperature = -1});
  refused({.temperature = std::nan("")});
  refused({.top_k = -2});
}

}  // namespace
}  // namespace quern::test::attention_layers
