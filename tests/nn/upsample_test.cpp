// SPDX-License-Identifier: Apache-2.0

/// \file
/// Resampling, shuffles and max-unpooling against PyTorch, forward and backward, channels first and
/// last; backward is the transpose of forward; images against Pillow, OpenCV and PyTorch.

#include "quern/nn/upsample.hpp"

#include "gradients.hpp"
#include "quern/io/npy.hpp"
#include "quern/nn/conv.hpp"
#include "quern/nn/image.hpp"
#include "quern/nn/pooling.hpp"
#include "quern/nn/shuffle.hpp"
#include "quern/nn/unpool.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

namespace quern::test::upsampling {
namespace {

using nn::Extents;
using nn::Interpolation;
using nn::Layout;
using nn::Tensor;

std::string place(const std::string& name) {
  return std::string(QUERN_TEST_REFERENCE_DIR) + "/nn/" + name;
}

template <class V>
std::vector<V> unpacked(const std::string& name) {
  const auto array = io::read_npy<V, 1>(place(name));
  const std::vector<V> values(array.begin(), array.end());
  return values;
}

std::vector<double> numbers(const std::string& text) {
  std::vector<double> values;
  std::stringstream in(text);
  for (std::string part; std::getline(in, part, ',');) values.push_back(std::stod(part));
  return values;
}

/// A line of upsampling.txt.
struct Case {
  std::string text;
  std::string op;
  std::map<std::string, std::string> options;

  [[nodiscard]] bool has(const std::string& key) const { return options.contains(key); }
  [[nodiscard]] std::string of(const std::string& key) const {
    const auto found = options.find(key);
    return found == options.end() ? std::string() : found->second;
  }
  [[nodiscard]] Extents shape(const std::string& key) const {
    Extents extents;
    for (const double e : numbers(of(key).substr(of(key).find(':') + 1))) {
      extents.push_back(static_cast<Index>(e));
    }
    return extents;
  }
  template <class T, class V>
  [[nodiscard]] Tensor<T> array(const std::string& key, const std::vector<V>& from) const {
    Tensor<T> values(shape(key));
    const auto at = static_cast<std::size_t>(std::stol(of(key)));
    for (Index i = 0; i < values.size(); ++i) {
      values[i] = static_cast<T>(from[at + static_cast<std::size_t>(i)]);
    }
    return values;
  }
};

std::vector<Case> read_cases() {
  std::vector<Case> cases;
  std::ifstream in(place("upsampling.txt"));
  for (std::string line; std::getline(in, line);) {
    Case c;
    c.text = line;
    std::stringstream words(line);
    words >> c.op;
    for (std::string word; words >> word;) {
      c.options[word.substr(0, word.find('='))] = word.substr(word.find('=') + 1);
    }
    cases.push_back(c);
  }
  return cases;
}

const std::map<std::string, Interpolation> modes = {
    {"nearest", Interpolation::nearest},  {"nearest-exact", Interpolation::nearest_exact},
    {"linear", Interpolation::linear},    {"bilinear", Interpolation::linear},
    {"trilinear", Interpolation::linear}, {"bicubic", Interpolation::cubic},
    {"area", Interpolation::area}};

/// The layer that does what a case says; max-unpooling is not one.
template <class T>
std::unique_ptr<nn::Layer<T>> layer_of(const Case& c, Layout layout) {
  const auto number = [&](const char* key) { return static_cast<Index>(std::stol(c.of(key))); };
  const auto pair = [&](const char* key) {
    const auto values = numbers(c.of(key));
    const auto at = [&](std::size_t k) { return static_cast<Index>(values[k % values.size()]); };
    return nn::Pair(at(0), at(1));
  };
  if (c.op == "conv_transpose2d") {
    const Extents w = c.shape("w");
    return std::make_unique<nn::ConvTranspose2d<T>>(
        w[0], w[1] * number("groups"),
        nn::Conv2dOptions{.kernel = {w[2], w[3]},
                          .stride = pair("stride"),
                          .padding = pair("padding"),
                          .dilation = pair("dilation"),
                          .output_padding = pair("output_padding"),
                          .groups = number("groups"),
                          .bias = c.has("b"),
                          .layout = layout});
  }
  if (c.op == "max_pool2d") {
    return std::make_unique<nn::MaxPool2d<T>>(nn::PoolOptions{.kernel = pair("kernel"),
                                                              .stride = pair("stride"),
                                                              .padding = pair("padding"),
                                                              .dilation = pair("dilation"),
                                                              .ceil = c.of("ceil_mode") == "1",
                                                              .layout = layout});
  }
  if (c.op == "pixel_shuffle") return std::make_unique<nn::PixelShuffle<T>>(number("r"), layout);
  if (c.op == "pixel_unshuffle") {
    return std::make_unique<nn::PixelUnshuffle<T>>(number("r"), layout);
  }
  if (c.op == "channel_shuffle") {
    return std::make_unique<nn::ChannelShuffle<T>>(number("groups"), layout);
  }
  nn::UpsampleOptions options{.mode = modes.at(c.of("mode")),
                              .align_corners = c.of("align_corners") == "1",
                              .antialias = c.of("antialias") == "1",
                              .recompute_scale = c.of("recompute_scale_factor") == "1",
                              .layout = layout};
  if (c.has("scale_factor")) options.scale = numbers(c.of("scale_factor"));
  if (c.has("size")) {
    for (const double size : numbers(c.of("size"))) {
      options.size.push_back(static_cast<Index>(size));
    }
  }
  return std::make_unique<nn::Upsample<T>>(options);
}

/// Channels last of channels first, or back.
template <class T>
Tensor<T> turned(const Tensor<T>& x, bool to_last) {
  Extents shape = x.shape();
  const Index batch = shape[0], channels = to_last ? shape[1] : shape.back();
  const Index inner = batch * channels == 0 ? 0 : x.size() / batch / channels;
  if (to_last) {
    std::rotate(shape.begin() + 1, shape.begin() + 2, shape.end());
  } else {
    std::rotate(shape.begin() + 1, shape.end() - 1, shape.end());
  }
  Tensor<T> y(shape);
  for (Index n = 0; n < batch; ++n) {
    for (Index c = 0; c < channels; ++c) {
      for (Index i = 0; i < inner; ++i) {
        const Index first = (n * channels + c) * inner + i, last = (n * inner + i) * channels + c;
        y[to_last ? last : first] = x[to_last ? first : last];
      }
    }
  }
  return y;
}

template <class T>
void expect_near(const Tensor<T>& got, const Tensor<T>& want, double tolerance,
                 const std::string& what) {
  ASSERT_EQ(got.shape(), want.shape()) << what;
  for (Index i = 0; i < got.size(); ++i) {
    ASSERT_NEAR(got[i], want[i], tolerance) << what << " at " << i;
  }
}

template <class T>
void expect_case(const Case& c, const std::vector<float>& blob,
                 const std::vector<std::int32_t>& all_places, Layout layout) {
  const bool last = layout == Layout::channels_last;
  const auto give = [&](const char* key) {
    Tensor<T> x = c.array<T>(key, blob);
    return last ? turned(x, true) : std::move(x);
  };
  const Tensor<T> in = give("in"), want = give("out"), dout = give("gout"), dwant = give("gin");
  const auto layer = layer_of<T>(c, layout);
  ASSERT_EQ(layer->output_shape(in.shape()), want.shape()) << c.text;
  nn::Cache<T> cache;
  Tensor<T> out(want.shape()), din(in.shape());
  const auto parameters = nn::parameters_of<T>(*layer);
  const std::string names[] = {"w", "b"};
  for (std::size_t k = 0; k < parameters.size(); ++k) {
    const auto values = c.array<T>(names[k], blob);
    std::copy(values.span().begin(), values.span().end(), parameters[k].values.begin());
  }
  nn::Gradients<T> gradients(parameters);
  layer->forward(in.view(), out.view(), cache, nn::Mode::training);
  layer->backward(dout.view(), din.view(), cache, gradients);
  for (std::size_t k = 0; k < parameters.size(); ++k) {
    const auto expected = c.array<T>("g" + names[k], blob);
    for (std::size_t i = 0; i < gradients[k].size(); ++i) {
      ASSERT_NEAR(gradients[k][i], expected[static_cast<Index>(i)], 1e-5) << c.text << names[k];
    }
  }
  if (c.op == "max_pool2d" && !last) {
    const auto places = c.array<double>("idx", all_places);
    const auto found = nn::MaxPool2d<T>::indices(cache);
    for (Index i = 0; i < places.size(); ++i) {
      ASSERT_EQ(static_cast<double>(found[static_cast<std::size_t>(i)]), places[i]) << c.text;
    }
  }
  const bool convolution = c.op == "conv_transpose2d";
  const bool exact = (c.op != "interpolate" && !convolution) || c.of("mode").starts_with("nearest");
  expect_near(out, want, exact ? 0 : 4e-6, c.text);
  expect_near(din, dwant, 1e-5, c.text + " (gradient)");
  // The transpose: <Ux, y> = <x, U'y>; a convolution's bias is no part of a linear map.
  if (c.has("b")) return;
  double left = 0, right = 0, scale = 0;
  for (Index i = 0; i < out.size(); ++i) {
    left += static_cast<double>(out[i]) * static_cast<double>(dout[i]);
    scale += std::fabs(static_cast<double>(out[i]) * static_cast<double>(dout[i]));
  }
  for (Index i = 0; i < in.size(); ++i) {
    right += static_cast<double>(in[i]) * static_cast<double>(din[i]);
  }
  ASSERT_NEAR(left, right, 4 * static_cast<double>(std::numeric_limits<T>::epsilon()) * scale)
      << c.text;
}

TEST(NnUpsample, CasesOfPyTorch) {
  const auto blob = unpacked<float>("upsampling.npy.gz");
  const auto places = unpacked<std::int32_t>("upsampling_indices.npy.gz");
  int tested = 0;
  for (const Case& c : read_cases()) {
    if (c.op == "max_unpool2d") continue;
    expect_case<float>(c, blob, places, Layout::channels_first);
    expect_case<float>(c, blob, places, Layout::channels_last);
    if (tested++ % 4 == 0) expect_case<double>(c, blob, places, Layout::channels_first);
  }
  EXPECT_EQ(tested, 349);
}

TEST(NnUpsample, MaxUnpoolingOfPyTorch) {
  const auto blob = unpacked<float>("upsampling.npy.gz");
  const auto places = unpacked<std::int32_t>("upsampling_indices.npy.gz");
  for (const Case& c : read_cases()) {
    if (c.op != "max_unpool2d") continue;
    for (const bool last : {false, true}) {
      const Layout layout = last ? Layout::channels_last : Layout::channels_first;
      const auto give = [&](const char* key) {
        auto x = c.array<float>(key, blob);
        return last ? turned(x, true) : std::move(x);
      };
      auto index = c.array<double>("idx", places);
      if (last) index = turned(index, true);
      std::vector<std::int64_t> indices;
      for (const double i : index.span()) indices.push_back(static_cast<std::int64_t>(i));
      const auto in = give("in"), want = give("out"), dout = give("gout");
      Tensor<float> out(want.shape()), din(in.shape());
      nn::max_unpool2d<float>(in.view(), indices, out.view(), layout);
      nn::max_unpool2d_vjp<float>(dout.view(), indices, din.view(), layout);
      expect_near(out, want, 0, c.text);
      expect_near(din, give("gin"), 0, c.text);
      indices[0] = 1000;
      EXPECT_THROW(nn::max_unpool2d<float>(in.view(), indices, out.view(), layout), ValueError);
    }
  }
}

TEST(NnUpsample, LargeResultsWrittenAroundTheCaches) {
  const auto x = random_tensor<float>({1, 3, 220, 330}, 1);
  nn::ResampleOptions options{.mode = Interpolation::linear};
  Tensor<float> large({1, 3, 1110, 1111}), part({1, 1, 1110, 1111});
  nn::resample<float>(x.view(), large.view(), options);
  for (const int threads : {1, 3}) {
    options.threads = threads;
    for (Index c = 0; c < 3; ++c) {  // each channel alone is below the limit
      const nn::TensorView<const float> one(x.data() + c * 220 * 330, {1, 1, 220, 330});
      nn::resample<float>(one, part.view(), options);
      ASSERT_EQ(std::memcmp(part.data(), large.data() + c * part.size(), 4 * 1110 * 1111), 0);
    }
  }
  Tensor<float> shuffled({1, 16, 400, 400}), wide({1, 4, 800, 800});
  std::copy_n(large.data(), shuffled.size(), shuffled.data());
  nn::pixel_shuffle<float>(shuffled.view(), wide.view(), 2);
  EXPECT_EQ(wide[800], shuffled[2 * 160000]);
  EXPECT_EQ(wide[801], shuffled[3 * 160000]);
  Tensor<float> again({1, 16, 400, 400});
  nn::pixel_unshuffle<float>(wide.view(), again.view(), 2);
  EXPECT_TRUE(std::equal(again.span().begin(), again.span().end(), shuffled.span().begin()));
  Tensor<float> pooled({2, 8, 100, 100}), unpooled({2, 8, 400, 400}), back({2, 8, 100, 100});
  std::copy_n(large.data(), pooled.size(), pooled.data());
  std::vector<std::int64_t> indices;
  for (Index i = 0; i < pooled.size(); ++i) indices.push_back(i % 10000 * 16 + i % 7);
  nn::max_unpool2d<float>(pooled.view(), indices, unpooled.view());
  nn::max_unpool2d_vjp<float>(unpooled.view(), indices, back.view());
  EXPECT_TRUE(std::equal(back.span().begin(), back.span().end(), pooled.span().begin()));
  double sum = 0, expected = 0;
  for (const float v : unpooled.span()) sum += static_cast<double>(v);
  for (const float v : pooled.span()) expected += static_cast<double>(v);
  EXPECT_NEAR(sum, expected, 1e-9);
}

/// Results that are written around the caches have the bits of those that are not.
template <class T>
void expect_same_bits_when_large(Interpolation mode, Index factor) {
  const Index h = 96, w = 128, channels = factor == 2 ? 64 : 32;
  const auto x = random_tensor<T>({1, channels, h, w}, 5);
  Tensor<T> large({1, channels, factor * h, factor * w}), part({1, 1, factor * h, factor * w});
  const nn::ResampleOptions options{.mode = mode};
  nn::resample<T>(x.view(), large.view(), options);
  for (Index c = 0; c < channels; ++c) {
    const nn::TensorView<const T> one(x.data() + c * h * w, {1, 1, h, w});
    nn::resample<T>(one, part.view(), options);
    ASSERT_TRUE(std::equal(part.span().begin(), part.span().end(), large.data() + c * part.size()))
        << c;
  }
}

TEST(NnUpsample, WholeRowsWrittenAroundTheCaches) {
  for (const Interpolation mode :
       {Interpolation::nearest, Interpolation::linear, Interpolation::cubic}) {
    for (const Index factor : {2, 3}) {
      SCOPED_TRACE(::testing::Message() << static_cast<int>(mode) << " by " << factor);
      expect_same_bits_when_large<float>(mode, factor);
      expect_same_bits_when_large<double>(mode, factor);
    }
  }
  const auto x = random_tensor<float>({1, 100, 110, 32}, 6);
  Tensor<float> y({1, 300, 330, 32});
  nn::resample<float>(x.view(), y.view(), {.channels_last = true});
  for (Index i = 0; i < y.size(); ++i) {
    const Index pixel = i / 32;
    ASSERT_EQ(y[i], x[(pixel / 330 / 3 * 110 + pixel % 330 / 3) * 32 + i % 32]) << i;
  }
}

TEST(NnUpsample, NamedLayersAndTheBilinearTransposedKernel) {
  const auto x = random_tensor<double>({1, 2, 3, 4}, 2);
  const auto nearest = nn::UpsamplingNearest2d<double>({.scale = {2}});
  const auto bilinear = nn::UpsamplingBilinear2d<double>({.size = {5, 7}});
  const auto doubled = nn::apply(*nearest, x.view());
  EXPECT_EQ(doubled.shape(), (Extents{1, 2, 6, 8}));
  EXPECT_EQ(doubled[9], x[0]);
  const auto aligned = nn::apply(*bilinear, x.view());
  EXPECT_EQ(aligned[0], x[0]);
  EXPECT_EQ(aligned[6], x[3]);
  EXPECT_EQ(aligned[34], x[11]);
  EXPECT_NEAR(aligned[1], (x[0] + x[1]) / 2, 1e-15);
  Tensor<double> weight({2, 1, 4, 4});
  nn::fill_bilinear(weight.view());
  const double hat[] = {0.25, 0.75, 0.75, 0.25};
  for (Index i = 0; i < 32; ++i) EXPECT_EQ(weight[i], hat[i / 4 % 4] * hat[i % 4]);
  EXPECT_THROW(nn::fill_bilinear(Tensor<double>({2, 3}).view()), ShapeError);
}

TEST(NnUpsample, ATransposedConvolutionStartsAsBilinear) {
  for (const Index factor : {2, 3}) {
    const Index kernel = 2 * factor - factor % 2;
    nn::ConvTranspose2d<double> conv(
        2, 2,
        {.kernel = kernel, .stride = factor, .padding = factor / 2, .groups = 2, .bias = false});
    nn::fill_bilinear(conv.weight());
    const auto x = random_tensor<double>({1, 2, 5, 6}, 8);
    const auto learned = nn::apply(conv, x.view());
    Tensor<double> plain({1, 2, 5 * factor, 6 * factor});
    ASSERT_EQ(learned.shape(), plain.shape());
    nn::resample<double>(x.view(), plain.view(), {.mode = Interpolation::linear});
    for (Index c = 0; c < 2; ++c) {  // inside: at the edges one sees zeros, the other the edge
      for (Index i = factor; i < 4 * factor; ++i) {
        for (Index j = factor; j < 5 * factor; ++j) {
          const Index at = (c * 5 * factor + i) * 6 * factor + j;
          ASSERT_NEAR(learned[at], plain[at], 1e-12) << factor << ' ' << i << ' ' << j;
        }
      }
    }
  }
}

TEST(NnUpsample, WrongOptionsAndShapesAreNamed) {
  using Up = nn::Upsample<float>;
  EXPECT_THROW(Up({}), ValueError);
  EXPECT_THROW(Up({.size = {3}, .scale = {2}}), ValueError);
  EXPECT_THROW(Up({.size = {0}}), ValueError);
  EXPECT_THROW(Up({.scale = {-1}}), ValueError);
  EXPECT_THROW(Up({.scale = {2}, .align_corners = true}), ValueError);
  EXPECT_THROW(Up({.scale = {2}, .mode = Interpolation::area, .antialias = true}), ValueError);
  EXPECT_THROW(Up({.scale = {2}, .mode = Interpolation::lanczos}), ValueError);
  const Up layer(0.4);
  EXPECT_THROW((void)layer.output_shape({1, 2, 2}), ShapeError);
  EXPECT_THROW((void)layer.output_shape({1, 2}), ShapeError);
  EXPECT_THROW((void)Up({.size = {3, 4}}).output_shape({1, 2, 5}), ShapeError);
  EXPECT_THROW((void)nn::PixelShuffle<float>(2).output_shape({1, 6, 3, 3}), ShapeError);
  EXPECT_THROW((void)nn::PixelUnshuffle<float>(2).output_shape({1, 6, 3, 4}), ShapeError);
  Tensor<float> x({1, 6, 3, 3}), y({1, 6, 3, 3}), z({2, 6, 3, 3});
  EXPECT_THROW(nn::channel_shuffle<float>(x.view(), y.view(), 4), ShapeError);
  EXPECT_THROW(nn::resample<float>(x.view(), z.view()), ShapeError);
  EXPECT_THROW(nn::resample<float>(x.view(), x.view()), ShapeError);
}

TEST(NnUpsample, SharedMemoryAndHugeFactorsAreNamed) {
  nn::Tensor<float> memory({1, 4, 2, 2});
  const nn::TensorView<float> packed(memory.data(), {1, 4, 2, 2}),
      wide(memory.data(), {1, 1, 4, 4});
  EXPECT_THROW(nn::pixel_shuffle<float>(packed, wide, 2), ShapeError);
  EXPECT_THROW(nn::pixel_unshuffle<float>(wide, packed, 2), ShapeError);
  EXPECT_THROW(nn::channel_shuffle<float>(packed, packed, 2), ShapeError);
  const std::vector<std::int64_t> places(16, 0);
  EXPECT_THROW(nn::max_unpool2d<float>(packed, places, packed), ShapeError);
  EXPECT_THROW(nn::PixelShuffle<float>(Index{1} << 32), ValueError);
  EXPECT_THROW(nn::Upsample<float>(1e30), ValueError);
  EXPECT_THROW(static_cast<void>(
                   nn::axis_weights(4, 8, {.mode = nn::Interpolation::cubic, .scale = 1e-300})),
               ValueError);
}

TEST(NnUpsample, GradientsByFiniteDifferences) {
  nn::Upsample<double> cubic({.size = {5, 9}, .mode = Interpolation::cubic});
  auto x = random_tensor<double>({2, 2, 4, 5}, 3);
  check_gradients(cubic, x);
  check_threads(cubic, x);
  nn::Upsample<double> volume(
      {.scale = {1.5}, .mode = Interpolation::linear, .layout = Layout::channels_last});
  x = random_tensor<double>({1, 2, 3, 4, 2}, 4);
  check_gradients(volume, x);
  nn::PixelShuffle<double> shuffle(3, Layout::channels_last);
  x = random_tensor<double>({1, 2, 3, 18}, 5);
  check_gradients(shuffle, x);
}

// <U x, y> = <x, U^T y> for every kind, in one to three dimensions, enlarging and shrinking.
TEST(NnUpsample, BackwardIsTheAdjointOfForward) {
  Philox random(9, "sizes");
  const auto dot = [](const Tensor<double>& a, const Tensor<double>& b) {
    double sum = 0;
    for (Index i = 0; i < a.size(); ++i) sum += a[i] * b[i];
    return sum;
  };
  for (const auto mode : {Interpolation::nearest, Interpolation::nearest_exact,
                          Interpolation::linear, Interpolation::cubic, Interpolation::area}) {
    const bool smooth = mode == Interpolation::linear || mode == Interpolation::cubic;
    for (int variant = 0; variant < (smooth ? 3 : 1); ++variant) {
      for (std::size_t rank = 3; rank <= 5; ++rank) {
        const bool last = random.integer(2) == 1;
        nn::Extents in(rank, 2), out(rank, 2);
        in[last ? rank - 1 : 1] = out[last ? rank - 1 : 1] = 3;
        for (std::size_t d = last ? 1 : 2; d < rank - (last ? 1 : 0); ++d) {
          in[d] = 1 + static_cast<Index>(random.integer(9));
          out[d] = 1 + static_cast<Index>(random.integer(20));
        }
        const nn::ResampleOptions options{.mode = mode,
                                          .align_corners = variant == 1,
                                          .antialias = variant == 2,
                                          .channels_last = last};
        const auto x = random_tensor<double>(in, rank), y = random_tensor<double>(out, 9);
        Tensor<double> ux(out), uty(in);
        nn::resample<double>(x.view(), ux.view(), options);
        nn::resample_vjp<double>(y.view(), uty.view(), options);
        EXPECT_NEAR(dot(ux, y), dot(x, uty), 1e-11)
            << nn::shape_text(in) << " to " << nn::shape_text(out);
      }
    }
  }
}

TEST(NnUpsample, UnshuffleUndoesShuffle) {
  for (const Index factor : {2, 3, 4}) {
    for (const auto layout : {Layout::channels_first, Layout::channels_last}) {
      const Index c = 2 * factor * factor;
      const auto x = random_tensor<float>(
          layout == Layout::channels_last ? nn::Extents{2, 3, 5, c} : nn::Extents{2, c, 3, 5}, 1);
      const auto wide = nn::apply(nn::PixelShuffle<float>(factor, layout), x.view());
      const auto back = nn::apply(nn::PixelUnshuffle<float>(factor, layout), wide.view());
      ASSERT_EQ(back.shape(), x.shape());
      EXPECT_TRUE(std::equal(back.span().begin(), back.span().end(), x.span().begin()));
    }
  }
}

// ---- images -----------------------------------------------------------------------------------

struct ImageCase {
  std::string type, system, mode;
  int antialias;
  Index width, height;
  std::size_t offset;
};

template <class T>
void expect_image(const ImageCase& c, const NdArray<T, 3>& in, const std::vector<T>& all,
                  double tolerance, double share) {
  const std::map<std::string, Interpolation> kinds = {
      {"nearest", c.system == "pil" ? Interpolation::nearest_exact : Interpolation::nearest},
      {"linear", Interpolation::linear},
      {"bilinear", Interpolation::linear},
      {"cubic", Interpolation::cubic},
      {"bicubic", Interpolation::cubic},
      {"area", Interpolation::overlap},
      {"box", Interpolation::box},
      {"lanczos", Interpolation::lanczos}};
  NdArray<T, 3> out({c.height, c.width, in.extent(2)});
  nn::resize_image<T>(in.view(), out.view(),
                      {.mode = kinds.at(c.mode),
                       .antialias = c.antialias == 1,
                       .round_between = c.system != "cv2"});
  Index different = 0;
  for (Index i = 0; i < out.size(); ++i) {
    const double want = static_cast<double>(all[c.offset + static_cast<std::size_t>(i)]);
    ASSERT_NEAR(static_cast<double>(out.data()[i]), want, tolerance)
        << c.system << ' ' << c.mode << ' ' << c.antialias << ' ' << c.width << ' ' << i;
    different += static_cast<double>(out.data()[i]) != want ? 1 : 0;
  }
  EXPECT_LE(static_cast<double>(different), share * static_cast<double>(out.size()))
      << c.system << ' ' << c.mode << ' ' << c.antialias << ' ' << c.width;
}

TEST(NnImage, CasesOfPillowOpenCvAndPyTorch) {
  const auto u8 = io::read_npy<std::uint8_t, 3>(place("image_u8.npy"));
  const auto f32 = io::read_npy<float, 3>(place("image_f32.npy"));
  const auto bytes = unpacked<std::uint8_t>("images_u8.npy.gz");
  const auto floats = unpacked<float>("images_f32.npy.gz");
  std::ifstream in(place("images.txt"));
  int tested = 0;
  for (ImageCase c;
       in >> c.type >> c.system >> c.mode >> c.antialias >> c.width >> c.height >> c.offset;
       ++tested) {
    if (c.type == "f32") {
      expect_image<float>(c, f32, floats, 1e-6, 1);
    } else {
      // OpenCV has bytes in fixed point; Pillow and PyTorch round weights to 22 and 15 bits.
      expect_image<std::uint8_t>(c, u8, bytes, 1,
                                 c.mode == "nearest" ? 0
                                 : c.system == "cv2" ? 0.5
                                                     : 0.06);
    }
  }
  EXPECT_EQ(tested, 51);
}

}  // namespace
}  // namespace quern::test::upsampling
