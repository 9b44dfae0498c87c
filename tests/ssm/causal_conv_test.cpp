// SPDX-License-Identifier: Apache-2.0

/// \file
/// The causal convolution against its sum written out, its gradients against differences, and
/// against itself in steps, pieces and packed sequences.

#include "quern/ssm/causal_conv.hpp"

#include "ssm/differences.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace quern::test::causal_conv {
namespace {

using ssm::CausalConvInputs;
using ssm::CausalConvOptions;

template <class T>
double written_out(const NdArray<T, 3>& x, const NdArray<T, 2>& w, const NdArray<T, 1>& bias,
                   const NdArray<T, 3>& before, Index b, Index t, Index i, bool silu) {
  const Index taps = w.extent(1);
  double sum = bias(i);
  for (Index k = 0; k < taps; ++k) {
    const Index at = t - taps + 1 + k;
    sum += static_cast<double>(w(i, k)) * (at < 0 ? before(b, at + taps - 1, i) : x(b, at, i));
  }
  return silu ? sum / (1 + std::exp(-sum)) : sum;
}

template <class T>
void expect_written_out(Index length, Index channels, Index taps) {
  const auto x = normal_array<T, 3>({2, length, channels}, 1);
  const auto w = normal_array<T, 2>({channels, taps}, 2);
  const auto bias = normal_array<T, 1>({channels}, 3);
  const auto before = normal_array<T, 3>({2, taps - 1, channels}, 4);
  for (const bool silu : {false, true}) {
    CausalConvOptions options;
    options.silu = silu;
    NdArray<T, 3> out({2, length, channels}), last({2, taps - 1, channels});
    ssm::causal_conv<T>({x.view(), w.view(), bias.view(), before.view()}, out.view(), last.view(),
                        options);
    const double tolerance = 40 * static_cast<double>(std::numeric_limits<T>::epsilon());
    for (Index b = 0; b < 2; ++b) {
      for (Index i = 0; i < channels; ++i) {
        for (Index t = 0; t < length; ++t) {
          ASSERT_NEAR(out(b, t, i), written_out(x, w, bias, before, b, t, i, silu), tolerance);
        }
        for (Index j = 0; j < taps - 1; ++j) {
          const Index t = length - taps + 1 + j;
          ASSERT_EQ(last(b, j, i), t >= 0 ? x(b, t, i) : before(b, length + j, i));
        }
      }
    }
  }
}

TEST(CausalConv, IsTheSum) {
  expect_written_out<float>(300, 7, 4);
  expect_written_out<float>(9, 150, 4);
  expect_written_out<double>(5, 33, 3);
  expect_written_out<double>(2, 3, 7);
  expect_written_out<double>(4, 3, 1);
  expect_written_out<double>(0, 3, 3);
}

TEST(CausalConv, GradientsAreTheDifferences) {
  const std::vector<std::int64_t> offsets = {0, 2, 2, 90};
  for (const bool packed : {false, true}) {
    for (const Index taps : {Index{1}, Index{4}}) {
      const Index batch = packed ? 1 : 2, sequences = packed ? 3 : 2, length = 90, channels = 5;
      CausalConvOptions options;
      options.silu = true;
      if (packed) options.offsets = offsets;
      auto x = normal_array<double, 3>({batch, length, channels}, 1);
      auto w = normal_array<double, 2>({channels, taps}, 2);
      auto bias = normal_array<double, 1>({channels}, 3);
      auto before = normal_array<double, 3>({sequences, taps - 1, channels}, 4);
      const auto dy = normal_array<double, 3>({batch, length, channels}, 5);
      const auto dlast = normal_array<double, 3>({sequences, taps - 1, channels}, 6);
      NdArray<double, 3> out(dy.extents()), last(dlast.extents());
      const auto loss = [&] {
        ssm::causal_conv<double>({x.view(), w.view(), bias.view(), before.view()}, out.view(),
                                 last.view(), options);
        return dot(out, dy) + dot(last, dlast);
      };
      NdArray<double, 3> gx(x.extents()), gbefore(before.extents());
      NdArray<double, 2> gw(w.extents());
      NdArray<double, 1> gbias(bias.extents());
      ssm::causal_conv_vjp<double>({x.view(), w.view(), bias.view(), before.view()}, dy.view(),
                                   dlast.view(),
                                   {gx.view(), gw.view(), gbias.view(), gbefore.view()}, options);
      expect_gradient("x", span_of(x), span_of(gx), loss);
      expect_gradient("weight", span_of(w), span_of(gw), loss);
      expect_gradient("bias", span_of(bias), span_of(gbias), loss);
      expect_gradient("before", span_of(before), span_of(gbefore), loss);
    }
  }
}

TEST(CausalConv, StepsAndPiecesAreTheWhole) {
  constexpr Index length = 20, channels = 37, taps = 4;
  const auto x = normal_array<float, 3>({2, length, channels}, 1);
  const auto w = normal_array<float, 2>({channels, taps}, 2);
  NdArray<float, 3> whole(x.extents()), last({2, taps - 1, channels});
  CausalConvOptions options;
  options.silu = true;
  ssm::causal_conv<float>({x.view(), w.view()}, whole.view(), last.view(), options);
  NdArray<float, 3> state({2, taps - 1, channels}), out(x.extents());
  for (Index t = 0; t < length; ++t) {
    ssm::causal_conv_step<float>(x.view().subview(t, 1), w.view(), {}, state.view(),
                                 out.view().subview(t, 1), options);
  }
  for (Index i = 0; i < out.size(); ++i) ASSERT_EQ(out.data()[i], whole.data()[i]);
  for (Index i = 0; i < last.size(); ++i) ASSERT_EQ(state.data()[i], last.data()[i]);
  NdArray<float, 3> middle({2, taps - 1, channels});
  for (const Index cut : {Index{1}, Index{2}, Index{11}}) {
    ssm::causal_conv<float>({x.view().slice(1, 0, cut), w.view()}, out.view().slice(1, 0, cut),
                            middle.view(), options);
    ssm::causal_conv<float>({x.view().slice(1, cut, length - cut), w.view(), {}, middle.view()},
                            out.view().slice(1, cut, length - cut), {}, options);
    for (Index i = 0; i < out.size(); ++i) ASSERT_EQ(out.data()[i], whole.data()[i]);
  }
}

TEST(CausalConv, ThreadsDoNotMatterNorStrides) {
  const auto x = normal_array<float, 3>({3, 300, 70}, 1),
             dy = normal_array<float, 3>({3, 300, 70}, 2);
  const auto w = normal_array<float, 2>({70, 4}, 3);
  std::vector<NdArray<float, 3>> outs;
  std::vector<NdArray<float, 2>> gradients;
  for (const int threads : {1, 2, 3}) {
    CausalConvOptions options;
    options.threads = threads;
    NdArray<float, 3> out({3, 70, 300});
    NdArray<float, 2> gw({70, 4});
    ssm::causal_conv<float>({x.view(), w.view()}, out.view().permuted({0, 2, 1}), {}, options);
    ssm::causal_conv_vjp<float>({x.view(), w.view()}, dy.view(), {}, {{}, gw.view()}, options);
    outs.push_back(out);
    gradients.push_back(gw);
  }
  for (const std::size_t k : {1u, 2u}) {
    for (Index i = 0; i < outs[0].size(); ++i) ASSERT_EQ(outs[0].data()[i], outs[k].data()[i]);
    for (Index i = 0; i < 280; ++i) ASSERT_EQ(gradients[0].data()[i], gradients[k].data()[i]);
  }
}

TEST(CausalConv, WrongInputIsNamed) {
  auto x = normal_array<float, 3>({2, 20, 5}, 1);
  const auto w = normal_array<float, 2>({5, 4}, 2);
  NdArray<float, 3> out(x.extents()), state({2, 4, 5});
  EXPECT_THROW(ssm::causal_conv<float>({x.view(), w.view(), {}, state.view()}, out.view()),
               ShapeError);
  EXPECT_THROW(ssm::causal_conv<float>({x.view(), w.view()}, x.view()), ShapeError);
  x(1, 13, 4) = std::numeric_limits<float>::infinity();
  try {
    ssm::causal_conv<float>({x.view(), w.view()}, out.view());
    ADD_FAILURE();
  } catch (const ValueError& e) {
    EXPECT_NE(
        std::string(e.what()).find("x: expected finite numbers, got NaN or infinity at (1, 13, 4)"),
        std::string::npos)
        << e.what();
  }
}

}  // namespace
}  // namespace quern::test::causal_conv
