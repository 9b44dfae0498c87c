// SPDX-License-Identifier: Apache-2.0

/// \file
/// The recurrences of RWKV-4 and RWKV-7 with their ways back, and the causal convolution.

#include "quern/core/nd_array.hpp"
#include "quern/ssm/causal_conv.hpp"
#include "quern/ssm/rwkv4.hpp"
#include "quern/ssm/rwkv7.hpp"
#include "report.hpp"

#include <benchmark/benchmark.h>

namespace {

using quern::Index;
using quern::NdArray;
namespace ssm = quern::ssm;

template <int Rank>
NdArray<float, Rank> filled(const quern::Shape<Rank>& shape, float scale, float shift) {
  NdArray<float, Rank> x(shape);
  for (Index i = 0; i < x.size(); ++i) {
    x.data()[i] = (static_cast<float>(i * 7919 % 1024) / 512 - 1) * scale + shift;
  }
  return x;
}

void rwkv4(benchmark::State& state) {
  const Index length = state.range(0), channels = state.range(1);
  const bool back = state.range(2) != 0;
  const auto k = filled<3>({1, length, channels}, 1, 0), v = filled<3>({1, length, channels}, 1, 0);
  const auto w = filled<1>({channels}, 0.5F, -1), u = filled<1>({channels}, 1, 0);
  NdArray<float, 3> y(k.extents()), dk(k.extents()), dv(k.extents());
  const ssm::Rwkv4Inputs<float> in{k.view(), v.view(), w.view(), u.view()};
  for (auto _ : state) {
    if (back) {
      ssm::rwkv4_vjp<float>(in, k.view(), {}, {dk.view(), dv.view()}, {.threads = 1});
    } else {
      ssm::rwkv4<float>(in, y.view(), {}, {.threads = 1});
    }
  }
  bench::report(state, static_cast<double>(k.size()), "ns/(step, channel)");
}

void rwkv7(benchmark::State& state) {
  const quern::Shape<4> shape = {1, state.range(0), state.range(1), 64};
  const bool back = state.range(2) != 0;
  const auto r = filled<4>(shape, 1, 0), k = filled<4>(shape, 1, 0), v = filled<4>(shape, 1, 0);
  const auto decay = filled<4>(shape, 0.05F, 0.9F);
  const auto a = filled<4>(shape, 0.05F, 0), b = filled<4>(shape, 0.05F, 0);
  NdArray<float, 4> y(shape), dr(shape), dw(shape), dk(shape), dv(shape), da(shape), db(shape);
  const auto heads = [](auto& x) { return x.view().permuted({0, 2, 1, 3}); };
  const ssm::Rwkv7Inputs<float> in{heads(r), heads(decay), heads(k), heads(v), heads(a), heads(b)};
  for (auto _ : state) {
    if (back) {
      ssm::rwkv7_vjp<float>(in, heads(r), {},
                            {heads(dr), heads(dw), heads(dk), heads(dv), heads(da), heads(db)},
                            {.threads = 1});
    } else {
      ssm::rwkv7<float>(in, heads(y), {}, {.threads = 1});
    }
  }
  bench::report(state, static_cast<double>(v.size()), "ns/(step, channel)");
}

void conv(benchmark::State& state) {
  const Index length = state.range(0), channels = state.range(1);
  const bool back = state.range(2) != 0;
  const auto x = filled<3>({1, length, channels}, 1, 0);
  const auto w = filled<2>({channels, 4}, 1, 0);
  NdArray<float, 3> y(x.extents());
  NdArray<float, 2> dw(w.extents());
  for (auto _ : state) {
    if (back) {
      ssm::causal_conv_vjp<float>({x.view(), w.view()}, x.view(), {}, {y.view(), dw.view()},
                                  {.silu = true, .threads = 1});
    } else {
      ssm::causal_conv<float>({x.view(), w.view()}, y.view(), {}, {.silu = true, .threads = 1});
    }
  }
  bench::report(state, static_cast<double>(x.size()), "ns/(step, channel)");
  bench::report_bytes(state, static_cast<double>(x.size()) * (back ? 12 : 8));
}

}  // namespace

BENCHMARK(rwkv4)->Name("rwkv4")->Args({1024, 1024, 0})->Args({1024, 1024, 1});
BENCHMARK(rwkv7)->Name("rwkv7")->Args({1024, 32, 0})->Args({1024, 32, 1});
BENCHMARK(conv)->Name("causal_conv")->Args({2048, 1536, 0})->Args({2048, 1536, 1});
