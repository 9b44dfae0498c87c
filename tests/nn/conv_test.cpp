// SPDX-License-Identifier: Apache-2.0

/// \file
/// Convolutions: PyTorch's values and gradients, finite differences, minimal filtering, both
/// layouts against each other, masks, causality, adjointness, threads, wrong options.

#include "quern/nn/conv.hpp"

#include "nn/gradients.hpp"
#include "nn/reference.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace quern::test::nn_conv {
namespace {

/// (N, C, H, W) to (N, H, W, C).
template <class T>
nn::Tensor<T> to_last(const nn::Tensor<T>& x) {
  const auto& s = x.shape();
  const Index channels = s[1], pixels = x.size() / (s[0] * s[1]);
  nn::Extents shape = {s[0]};
  shape.insert(shape.end(), s.begin() + 2, s.end());
  shape.push_back(channels);
  nn::Tensor<T> y(shape);
  for (Index n = 0; n < s[0]; ++n) {
    for (Index c = 0; c < channels; ++c) {
      for (Index p = 0; p < pixels; ++p) {
        y[(n * pixels + p) * channels + c] = x[(n * channels + c) * pixels + p];
      }
    }
  }
  return y;
}

struct Case {
  Index inputs, outputs;
  nn::Conv2dOptions options;
  bool transposed = false;
};

template <class T>
std::unique_ptr<nn::Layer<T>> make(Case c, nn::Layout layout) {
  c.options.layout = layout;
  if (c.transposed) {
    return std::make_unique<nn::ConvTranspose2d<T>>(c.inputs, c.outputs, c.options);
  }
  return std::make_unique<nn::Conv2d<T>>(c.inputs, c.outputs, c.options);
}

/// PyTorch's numbers of one case: within 1e-5 of the largest (float sums in another order).
template <class T>
void check_reference(const std::string& name, const Case& c) {
  for (const nn::Layout layout : {nn::Layout::channels_first, nn::Layout::channels_last}) {
    const bool last = layout == nn::Layout::channels_last;
    SCOPED_TRACE(name + (last ? " channels last" : ""));
    const auto load = [&](const char* what) { return nn_reference<T>(name + what); };
    const auto image = [&](const char* what) { return last ? to_last(load(what)) : load(what); };
    const auto layer = make<T>(c, layout);
    const auto parameters = nn::parameters_of(*layer);
    const nn::Tensor<T> w = load("_w"), b = load("_b"), x = image("_x"), dy = image("_gy");
    std::copy(w.span().begin(), w.span().end(), parameters[0].values.begin());
    std::copy(b.span().begin(), b.span().end(), parameters[1].values.begin());
    nn::Cache<T> cache;
    nn::Tensor<T> y(layer->output_shape(x.shape())), dx(x.shape());
    nn::Gradients<T> gradients(parameters);
    layer->forward(x.view(), y.view(), cache, nn::Mode::training);
    expect_near_all(y, image("_y"), 1e-5, "y");
    layer->backward(dy.view(), dx.view(), cache, gradients);
    expect_near_all(dx, image("_gx"), 1e-5, "gx");
    const nn::Tensor<T> dw = load("_gw"), db = load("_gb");
    expect_near_all<T>(gradients[0], dw.span(), 1e-5, "gw");
    expect_near_all<T>(gradients[1], db.span(), 1e-5, "gb");
  }
}

TEST(NnConv, PyTorchsValuesAndGradients) {
  const std::vector<std::pair<std::string, Case>> cases = {
      {"0_conv", {2, 4, {.kernel = 4, .stride = 2, .padding = 1}}},
      {"1_conv", {4, 6, {.kernel = 3, .padding = 1, .groups = 2}}},
      {"2_conv", {3, 4, {.kernel = 3, .stride = 2, .dilation = 2}}},
      {"3_convT", {4, 2, {.kernel = 4, .stride = 2, .padding = 1}, true}},
      {"4_convT", {3, 4, {.kernel = 3, .stride = 2, .padding = 1, .output_padding = 1}, true}}};
  for (const auto& [name, c] : cases) {
    check_reference<float>(name, c);
    check_reference<double>(name, c);
  }
}

TEST(NnConv, GradientsAgainstFiniteDifferences) {
  const std::vector<Case> cases = {
      {3, 5, {.kernel = {3, 2}, .stride = {1, 2}, .padding = {1, 0}}},
      {9, 3, {.kernel = 3, .padding = 1}},               // few outputs
      {1, 9, {.kernel = 3, .stride = 2, .padding = 2}},  // few inputs
      {10, 6, {.kernel = 1, .groups = 2, .bias = false}},
      {8, 17, {.kernel = 2, .dilation = 2}},
      {4, 4, {.kernel = 3, .padding = 1, .groups = 4}},
      {9, 9, {.kernel = {2, 3}, .stride = 2, .padding = 1, .groups = 9}},
      {9, 9, {.kernel = 3, .stride = 2, .groups = 9}, true},
      {3, 2, {.kernel = 3, .padding = 1, .mask = nn::ConvMask::a}},
      {9, 2, {.kernel = 3, .padding = 1, .mask = nn::ConvMask::b}},
      {3, 9, {.kernel = 3, .padding = 1, .mask = nn::ConvMask::rows_above}},
      {9, 5, {.kernel = 3, .padding = 1, .mask = nn::ConvMask::rows}},
      {5, 9, {.kernel = 3, .stride = 2, .padding = 1, .output_padding = 1}, true},
      {9, 1, {.kernel = 4, .stride = 2, .padding = 1}, true},
      {4, 6, {.kernel = 2, .stride = 3, .groups = 2}, true},
  };
  for (std::size_t k = 0; k < cases.size(); ++k) {
    for (const nn::Layout layout : {nn::Layout::channels_first, nn::Layout::channels_last}) {
      const bool last = layout == nn::Layout::channels_last;
      SCOPED_TRACE(std::to_string(k) + (last ? " channels last" : ""));
      const auto layer = make<double>(cases[k], layout);
      layer->initialize(k + 3);
      const Index c = cases[k].inputs;
      nn::Tensor<double> x =
          random_tensor<double>(last ? nn::Extents{2, 4, 5, c} : nn::Extents{2, c, 4, 5}, k);
      check_gradients(*layer, x);
    }
  }
}

/// Mean square of the differences from `exact`, by its own.
template <class T>
double mean_error(const nn::Tensor<T>& y, const nn::Tensor<double>& exact) {
  double apart = 0, all = 0;
  for (Index i = 0; i < y.size(); ++i) {
    apart += std::pow(static_cast<double>(y[i]) - exact[i], 2);
    all += exact[i] * exact[i];
  }
  return std::sqrt(apart / all);
}

/// Forward and gradients of one algorithm, on values that T holds exactly.
template <class T>
struct Passes {
  nn::Tensor<T> y, dx, dw;

  Passes(Case c, nn::ConvAlgorithm algorithm, nn::Layout layout, const nn::Tensor<float>& image,
         int threads = 1) {
    c.options.algorithm = algorithm;
    const auto layer = make<T>(c, layout);
    const auto parameters = nn::parameters_of(*layer);
    const auto drawn = [](const nn::Extents& shape, std::uint64_t seed) {
      const nn::Tensor<float> from = random_tensor<float>(shape, seed);
      nn::Tensor<T> to(shape);
      std::copy(from.span().begin(), from.span().end(), to.span().begin());
      return to;
    };
    const nn::Tensor<T> w = drawn(parameters[0].values.shape(), 7);
    std::copy(w.span().begin(), w.span().end(), parameters[0].values.begin());
    nn::Tensor<T> x(image.shape());
    std::copy(image.span().begin(), image.span().end(), x.span().begin());
    nn::Cache<T> cache;
    cache.context.threads = threads;
    y.resize(layer->output_shape(x.shape()));
    dx.resize(x.shape());
    dw.resize(w.shape());
    layer->forward(x.view(), y.view(), cache, nn::Mode::training);
    nn::Gradients<T> gradients(parameters);
    layer->backward(drawn(y.shape(), 8).view(), dx.view(), cache, gradients);
    std::copy(gradients[0].begin(), gradients[0].end(), dw.span().begin());
  }
};

/// Whether `all` begins with the values of `some`.
bool starts_with(const nn::Tensor<float>& all, const nn::Tensor<float>& some) {
  return std::equal(some.span().begin(), some.span().end(), all.span().begin());
}

const std::vector<Case> minimal_cases = {
    {1, 3, {.kernel = 3, .padding = 1}},
    {3, 17, {.kernel = 3, .padding = 2}},
    {16, 33, {.kernel = 3, .padding = {0, 1}}},
    {33, 16, {.kernel = 2}},
    {34, 6, {.kernel = 3, .padding = 1, .groups = 2}},
    {17, 33, {.kernel = 4, .stride = 2, .padding = 1}},
    {5, 16, {.kernel = 6, .stride = 2, .padding = 2}},
    {16, 3, {.kernel = {6, 3}, .stride = {2, 1}, .padding = 3}},
    {33, 17, {.kernel = 4, .stride = 2, .padding = 1}, true},
    {16, 5, {.kernel = 3, .padding = 1}, true},
    {6, 34, {.kernel = 4, .stride = 2, .padding = 0, .output_padding = 1, .groups = 2}, true},
    {9, 17, {.kernel = {9, 6}, .stride = {3, 2}, .padding = {4, 1}}, true}};

/// Minimal filtering, against direct sums in double, of images of every awkward size.
TEST(NnConv, MinimalFiltering) {
  for (std::size_t k = 0; k < minimal_cases.size(); ++k) {
    const Case& c = minimal_cases[k];
    for (const nn::Extents& size : {nn::Extents{3, 1, 1}, {1, 2, 5}, {2, 9, 13}, {3, 7, 8}}) {
      for (const bool last : {false, true}) {
        SCOPED_TRACE(std::to_string(k) + " " + nn::shape_text(size) + (last ? " last" : ""));
        if (!c.transposed && (size[1] + 2 * c.options.padding.h < c.options.kernel.h ||
                              size[2] + 2 * c.options.padding.w < c.options.kernel.w)) {
          continue;
        }
        const nn::Extents shape = last ? nn::Extents{size[0], size[1], size[2], c.inputs}
                                       : nn::Extents{size[0], c.inputs, size[1], size[2]};
        const nn::Layout layout = last ? nn::Layout::channels_last : nn::Layout::channels_first;
        const nn::Tensor<float> x = random_tensor<float>(shape, k);
        const Passes<double> exact(c, nn::ConvAlgorithm::direct, layout, x);
        const Passes<float> single(c, nn::ConvAlgorithm::minimal, layout, x);
        const Passes<double> twice(c, nn::ConvAlgorithm::minimal, layout, x);
        EXPECT_LT(mean_error(single.y, exact.y), 1e-6);
        EXPECT_LT(mean_error(single.dx, exact.dx), 1e-6);
        EXPECT_LT(mean_error(single.dw, exact.dw), 1e-6);
        EXPECT_LT(mean_error(twice.y, exact.y), 2e-15);
        EXPECT_LT(mean_error(twice.dx, exact.dx), 2e-15);
        EXPECT_LT(mean_error(twice.dw, exact.dw), 2e-15);
      }
    }
  }
}

TEST(NnConv, MinimalFilteringOnAnyThreads) {
  for (const bool transposed : {false, true}) {
    const Case c{20, 33, {.kernel = 4, .stride = 2, .padding = 1}, transposed};
    for (const nn::Layout layout : {nn::Layout::channels_first, nn::Layout::channels_last}) {
      const bool last = layout == nn::Layout::channels_last;
      const nn::Tensor<float> x =
          random_tensor<float>(last ? nn::Extents{5, 37, 30, 20} : nn::Extents{5, 20, 37, 30}, 3);
      const Passes<float> one(c, nn::ConvAlgorithm::minimal, layout, x, 1);
      for (const int threads : {2, 3}) {
        const Passes<float> more(c, nn::ConvAlgorithm::minimal, layout, x, threads);
        EXPECT_TRUE(starts_with(more.y, one.y));
        EXPECT_TRUE(starts_with(more.dx, one.dx));
        EXPECT_TRUE(starts_with(more.dw, one.dw));
      }
    }
  }
}

/// What is taken without being asked for: an image's values do not depend on the batch.
TEST(NnConv, AlgorithmDoesNotDependOnTheBatch) {
  const Case c{32, 32, {.kernel = 3, .padding = 1}};
  const nn::Tensor<float> x = random_tensor<float>({3, 9, 9, 32}, 3);
  const auto run = [&](nn::ConvAlgorithm algorithm, Index images) {
    nn::Tensor<float> some({images, 9, 9, 32});
    std::copy_n(x.data(), some.size(), some.data());
    return Passes<float>(c, algorithm, nn::Layout::channels_last, some).y;
  };
  const nn::Tensor<float> all = run(nn::ConvAlgorithm::automatic, 3);
  const nn::Tensor<float> one = run(nn::ConvAlgorithm::automatic, 1);
  const nn::Tensor<float> minimal = run(nn::ConvAlgorithm::minimal, 3);
  EXPECT_TRUE(starts_with(minimal, all));
  EXPECT_TRUE(starts_with(all, one));
}

/// Widths around the vector, and sizes that take several blocks: both layouts, one answer.
TEST(NnConv, LayoutsAgree) {
  for (const Index channels : {1, 3, 7, 8, 16, 33, 64, 70, 130}) {
    for (const bool transposed : {false, true}) {
      SCOPED_TRACE(channels);
      const Case c{channels, 136 - channels, {.kernel = 3, .stride = 2, .padding = 1}, transposed};
      const auto first = make<float>(c, nn::Layout::channels_first);
      const auto last = make<float>(c, nn::Layout::channels_last);
      const nn::Tensor<float> x = random_tensor<float>({2, channels, 37, 21}, 4);
      nn::Cache<float> cache_first, cache_last;
      nn::Tensor<float> y(first->output_shape(x.shape())), dx(x.shape());
      const nn::Tensor<float> x_last = to_last(x);
      nn::Tensor<float> y_last(last->output_shape(x_last.shape())), dx_last(x_last.shape());
      first->forward(x.view(), y.view(), cache_first, nn::Mode::training);
      last->forward(x_last.view(), y_last.view(), cache_last, nn::Mode::training);
      expect_near_all(to_last(y), y_last, 2e-6, "y");
      const nn::Tensor<float> dy = random_tensor<float>(y.shape(), 5), dy_last = to_last(dy);
      nn::Gradients<float> g(nn::parameters_of(*first)), g_last(nn::parameters_of(*last));
      first->backward(dy.view(), dx.view(), cache_first, g);
      last->backward(dy_last.view(), dx_last.view(), cache_last, g_last);
      expect_near_all(to_last(dx), dx_last, 2e-6, "dx");
      expect_near_all<float>(g[0], g_last[0], 1e-5, "dw");
      expect_near_all<float>(g[1], g_last[1], 1e-5, "db");
    }
  }
}

/// Against sums in double, written out.
TEST(NnConv, WideChannelsAgainstPlainLoops) {
  const Index n = 2, ci = 37, co = 70, height = 9, width = 11;
  nn::Conv2d<float> layer(ci, co, {.kernel = 3, .padding = 1, .layout = nn::Layout::channels_last});
  const nn::Tensor<float> x = random_tensor<float>({n, height, width, ci}, 6);
  const nn::Tensor<float> y = nn::apply(layer, x.view());
  for (Index at = 0; at < n * height * width; ++at) {
    const Index image = at / (height * width), i = at / width % height, j = at % width;
    for (Index o = 0; o < co; ++o) {
      double sum = static_cast<double>(layer.bias()[o]);
      for (Index tap = 0; tap < 9; ++tap) {
        const Index h = i + tap / 3 - 1, w = j + tap % 3 - 1;
        if (h < 0 || h >= height || w < 0 || w >= width) continue;
        for (Index c = 0; c < ci; ++c) {
          sum += static_cast<double>(x[((image * height + h) * width + w) * ci + c]) *
                 static_cast<double>(layer.weight()[(o * ci + c) * 9 + tap]);
        }
      }
      ASSERT_NEAR(y[at * co + o], sum, 2e-5);
    }
  }
}

TEST(NnConv, MaskedKernelOfPixelCnn) {
  const nn::Tensor<float> codes = nn_reference<float>("pixelcnn_codes");
  const nn::Tensor<float> table = nn_reference<float>("pixelcnn_emb");
  const nn::Tensor<float> w = nn_reference<float>("pixelcnn_WA");
  const Index channels = 6;
  nn::Tensor<float> x({2, channels, 5, 5});
  for (Index i = 0; i < codes.size(); ++i) {
    for (Index c = 0; c < channels; ++c) {
      x[(i / 25 * channels + c) * 25 + i % 25] = table[static_cast<Index>(codes[i]) * channels + c];
    }
  }
  nn::Conv2d<float> layer(channels, channels,
                          {.kernel = 3, .padding = 1, .bias = false, .mask = nn::ConvMask::a});
  std::copy(w.span().begin(), w.span().end(), layer.weight().begin());
  expect_near_all(nn::apply(layer, x.view()), nn_reference<float>("pixelcnn_h_after_A"), 1e-5, "h");
}

TEST(NnConv, OneDimensionAndCausality) {
  for (const nn::Layout layout : {nn::Layout::channels_first, nn::Layout::channels_last}) {
    const bool last = layout == nn::Layout::channels_last;
    nn::Conv1d<double> causal(3, 4, {.kernel = 3, .dilation = 2, .causal = true, .layout = layout});
    nn::Tensor<double> x =
        random_tensor<double>(last ? nn::Extents{2, 9, 3} : nn::Extents{2, 3, 9}, 8);
    check_gradients(causal, x);
    const nn::Tensor<double> before = nn::apply(causal, x.view());
    EXPECT_EQ(before.size(), 2 * 4 * 9);
    for (Index c = 0; c < 3; ++c) x[last ? 3 * 5 + c : 9 * c + 5] += 1;
    const nn::Tensor<double> after = nn::apply(causal, x.view());
    for (Index t = 0; t < 9; ++t) {
      const Index at = last ? 4 * t : t;
      EXPECT_EQ(before[at] == after[at], t < 5 || t == 6 || t == 8) << t;
    }
    nn::Conv1d<double> strided(3, 2, {.kernel = 4, .stride = 2, .padding = 1, .layout = layout});
    check_gradients(strided, x);
  }
}

TEST(NnConv, SameBitsForAnyThreads) {
  for (const nn::Layout layout : {nn::Layout::channels_first, nn::Layout::channels_last}) {
    const auto conv = make<float>({20, 40, {.kernel = 3, .padding = 1}}, layout);
    const auto up = make<float>({20, 40, {.kernel = 4, .stride = 2, .padding = 1}, true}, layout);
    const bool last = layout == nn::Layout::channels_last;
    const nn::Tensor<float> x =
        random_tensor<float>(last ? nn::Extents{5, 40, 30, 20} : nn::Extents{5, 20, 40, 30}, 4);
    const auto alone = make<float>({20, 20, {.kernel = 3, .padding = 1, .groups = 20}}, layout);
    check_threads(*conv, x);
    check_threads(*up, x);
    check_threads(*alone, x);
  }
}

TEST(NnConv, EmptyBatch) {
  nn::Conv2d<float> layer(3, 4, {.kernel = 3});
  nn::Tensor<float> x({0, 3, 5, 5});
  EXPECT_EQ(nn::apply(layer, x.view()).shape(), (nn::Extents{0, 4, 3, 3}));
}

TEST(NnConv, WrongInput) {
  EXPECT_THROW(nn::Conv2d<float>(0, 4), ValueError);
  EXPECT_THROW(nn::Conv2d<float>(3, 4, {.groups = 2}), ValueError);
  EXPECT_THROW(nn::Conv2d<float>(3, 4, {.kernel = 0}), ValueError);
  EXPECT_THROW(nn::Conv2d<float>(3, 4, {.stride = {1, 0}}), ValueError);
  EXPECT_THROW(nn::Conv2d<float>(3, 4, {.padding = -1}), ValueError);
  EXPECT_THROW(nn::Conv2d<float>(3, 4, {.output_padding = 1}), ValueError);
  EXPECT_THROW(nn::Conv2d<float>(3, 4, {.kernel = 4, .mask = nn::ConvMask::a}), ValueError);
  EXPECT_THROW(nn::ConvTranspose2d<float>(3, 4, {.stride = 2, .output_padding = 2}), ValueError);
  EXPECT_THROW(nn::ConvTranspose2d<float>(3, 4, {.mask = nn::ConvMask::b}), ValueError);
  EXPECT_THROW(nn::Conv1d<float>(3, 4, {.padding = 1, .causal = true}), ValueError);
  nn::Conv2d<float> layer(3, 4);
  EXPECT_THROW(static_cast<void>(layer.output_shape({1, 3, 2, 5})), ShapeError);
  EXPECT_THROW(static_cast<void>(layer.output_shape({1, 4, 5, 5})), ShapeError);
  try {
    static_cast<void>(layer.output_shape({3, 5, 5}));
    FAIL();
  } catch (const ShapeError& e) {
    EXPECT_STREQ(
        e.what(),
        "quern::nn::Conv2d: in: expected 4 dimensions with 3 channels at 1, got 3 x 5 x 5");
  }
}

}  // namespace
}  // namespace quern::test::nn_conv
