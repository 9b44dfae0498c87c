// SPDX-License-Identifier: Apache-2.0

/// \file
/// The selective scan with complex poles against selective_scan_ref, with gradients against
/// differences, fixed and changing b and c, in pieces.

#include "quern/ssm/complex_scan.hpp"

#include "ssm/differences.hpp"
#include "ssm/recurrences.hpp"
#include "ssm/reference.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <complex>
#include <cstdint>
#include <string>
#include <vector>

namespace quern::test::complex_scan {
namespace {

using ssm::ComplexScanInputs;
using ssm::SelectiveScanOptions;

template <class T, int Rank>
NdArray<std::complex<T>, Rank> complex_array(const Shape<Rank>& extents, unsigned seed) {
  const auto re = normal_array<T, Rank>(extents, seed),
             im = normal_array<T, Rank>(extents, seed + 50);
  NdArray<std::complex<T>, Rank> x(extents);
  for (Index i = 0; i < x.size(); ++i) x.data()[i] = {re.data()[i], im.data()[i]};
  return x;
}
/// The same memory as real numbers: gradients by parts.
template <int Rank>
std::span<double> parts_of(NdArray<std::complex<double>, Rank>& x) {
  return {reinterpret_cast<double*>(x.data()), static_cast<std::size_t>(2 * x.size())};
}
template <int Rank>
double real_dot(const NdArray<std::complex<double>, Rank>& a,
                const NdArray<std::complex<double>, Rank>& b) {
  double sum = 0;
  for (Index i = 0; i < a.size(); ++i) sum += (a.data()[i] * std::conj(b.data()[i])).real();
  return sum;
}

TEST(ComplexScan, Reference) {
  const auto real = [](const char* array) {
    return ssm_reference<double>(std::string("mamba_complexA__") + array);
  };
  const auto complex = [](const char* array) {
    return ssm_reference<std::complex<double>>(std::string("mamba_complexA__") + array);
  };
  const auto u = real("u"), delta = real("delta"), y = real("y");
  const auto a = complex("A"), b = complex("B"), c = complex("C"), last = complex("last_state");
  ComplexScanInputs<double> in;
  in.u = u.view<3>().permuted({0, 2, 1});
  in.delta = delta.view<3>().permuted({0, 2, 1});
  in.a = a.view<2>();
  in.fixed_b = b.view<2>();
  in.fixed_c = c.view<2>();
  SelectiveScanOptions options;
  options.softplus = false;
  NdArray<double, 3> out(u.view<3>().extents());
  NdArray<std::complex<double>, 3> state(last.view<3>().extents());
  ssm::complex_scan(in, out.view().permuted({0, 2, 1}), state.view(), options);
  expect_close(out.data(), y.values, y.size(), 1e-13, "y");
  expect_close(state.data(), last.values, last.size(), 1e-13, "last_state");
}

TEST(ComplexScan, GradientsAreTheDifferences) {
  const std::vector<std::int64_t> offsets = {0, 3, 3, 40};
  for (const bool fixed : {false, true}) {
    SelectiveScanOptions options;
    if (fixed) options.offsets = offsets;
    const Index batch = fixed ? 1 : 2, sequences = fixed ? 3 : 2, length = 40, d = 3, n = 2;
    auto u = normal_array<double, 3>({batch, length, d}, 1);
    auto delta = normal_array<double, 3>({batch, length, d}, 2),
         z = normal_array<double, 3>({batch, length, d}, 3);
    auto skip = normal_array<double, 1>({d}, 4), bias = normal_array<double, 1>({d}, 5);
    auto a = complex_array<double, 2>({d, n}, 6);
    auto fb = complex_array<double, 2>({d, n}, 7), fc = complex_array<double, 2>({d, n}, 8);
    auto b = complex_array<double, 3>({batch, length, n}, 9),
         c = complex_array<double, 3>({batch, length, n}, 10);
    auto h0 = complex_array<double, 3>({sequences, d, n}, 11);
    for (auto& x : a) x = {-std::exp(x.real()), 4 * x.imag()};
    ComplexScanInputs<double> in;
    in.u = u.view(), in.delta = delta.view(), in.a = a.view(), in.z = z.view();
    in.skip = skip.view(), in.delta_bias = bias.view(), in.initial_state = h0.view();
    if (fixed) {
      in.fixed_b = fb.view(), in.fixed_c = fc.view();
    } else {
      in.b = b.view(), in.c = c.view();
    }
    const auto dy = normal_array<double, 3>(u.extents(), 20);
    const auto dlast = complex_array<double, 3>(h0.extents(), 21);
    auto gu = u, gdelta = u, gz = u;
    NdArray<double, 1> gskip({d}), gbias({d});
    NdArray<std::complex<double>, 2> ga({d, n}), gfb({d, n}), gfc({d, n});
    NdArray<std::complex<double>, 3> gb(b.extents()), gc(b.extents()), gh0(h0.extents());
    ssm::ComplexScanGradients<double> g;
    g.u = gu.view(), g.delta = gdelta.view(), g.z = gz.view(), g.a = ga.view();
    g.skip = gskip.view(), g.delta_bias = gbias.view(), g.initial_state = gh0.view();
    if (fixed) {
      g.fixed_b = gfb.view(), g.fixed_c = gfc.view();
    } else {
      g.b = gb.view(), g.c = gc.view();
    }
    ssm::complex_scan_vjp(in, dy.view(), dlast.view(), g, options);
    NdArray<double, 3> out(u.extents());
    NdArray<std::complex<double>, 3> last(h0.extents());
    const auto loss = [&] {
      ssm::complex_scan(in, out.view(), last.view(), options);
      return dot(out, dy) + real_dot(last, dlast);
    };
    expect_gradient("u", span_of(u), span_of(gu), loss);
    expect_gradient("delta", span_of(delta), span_of(gdelta), loss);
    expect_gradient("z", span_of(z), span_of(gz), loss);
    expect_gradient("skip", span_of(skip), span_of(gskip), loss);
    expect_gradient("bias", span_of(bias), span_of(gbias), loss);
    expect_gradient("a", parts_of(a), parts_of(ga), loss);
    expect_gradient("h0", parts_of(h0), parts_of(gh0), loss);
    expect_gradient("b", fixed ? parts_of(fb) : parts_of(b), fixed ? parts_of(gfb) : parts_of(gb),
                    loss);
    expect_gradient("c", fixed ? parts_of(fc) : parts_of(c), fixed ? parts_of(gfc) : parts_of(gc),
                    loss);
  }
}

TEST(ComplexScan, PiecesThreadsAndErrors) {
  const Index length = 50, d = 70, n = 3;
  const auto u = normal_array<float, 3>({2, length, d}, 1),
             delta = normal_array<float, 3>({2, length, d}, 2);
  auto a = complex_array<float, 2>({d, n}, 3);
  const auto b = complex_array<float, 2>({d, n}, 4), c = complex_array<float, 2>({d, n}, 5);
  for (auto& x : a) x = {-std::abs(x.real()), x.imag()};
  ComplexScanInputs<float> in;
  in.u = u.view(), in.delta = delta.view(), in.a = a.view();
  in.fixed_b = b.view(), in.fixed_c = c.view();
  NdArray<float, 3> whole(u.extents()), out(u.extents());
  NdArray<std::complex<float>, 3> state({2, d, n});
  ssm::complex_scan(in, whole.view());
  ComplexScanInputs<float> part = in;
  part.initial_state = state.view();
  for (const auto& [at, count] : {std::pair<Index, Index>{0, 33}, {33, 1}, {34, 16}}) {
    part.u = in.u.slice(1, at, count);
    part.delta = in.delta.slice(1, at, count);
    SelectiveScanOptions options;
    options.threads = 1 + static_cast<int>(at % 3);
    ssm::complex_scan(part, out.view().slice(1, at, count), state.view(), options);
  }
  expect_same(out, whole, 0, "pieces");
  a(2, 1) = {0.5F, 1};
  expect_words("a: expected finite poles with real parts not above 0, got 0.5 at (2, 1)",
               [&] { ssm::complex_scan(in, out.view()); });
  a(2, 1) = {-0.5F, 1};
  in.fixed_c = {};
  expect_words("fixed_c", [&] { ssm::complex_scan(in, out.view()); });
}

TEST(ComplexScan, LongSequencesInFloatAndAnyStep) {
  const Index length = 16384, d = 3, n = 4;
  const auto u = normal_array<float, 3>({1, length, d}, 1);
  const auto b = complex_array<float, 2>({d, n}, 4), c = complex_array<float, 2>({d, n}, 5);
  NdArray<std::complex<float>, 2> a({d, n});
  for (Index i = 0; i < a.size(); ++i)
    a.data()[i] = {-0.5F, 3.1415927F * static_cast<float>(i % n)};
  NdArray<std::complex<double>, 2> a64({d, n}), b64({d, n}), c64({d, n});
  for (Index i = 0; i < a.size(); ++i) {
    a64.data()[i] = a.data()[i], b64.data()[i] = b.data()[i], c64.data()[i] = c.data()[i];
  }
  const auto u64 = converted<double>(u);
  SelectiveScanOptions options;
  options.softplus = false;
  for (const double step : {1e-8, 1e-3, 1e-1, 1e3}) {
    SCOPED_TRACE(step);
    auto delta = normal_array<float, 3>({1, length, d}, 2);
    for (float& x : delta) x = static_cast<float>(step) * (1 + std::abs(x));
    const auto delta64 = converted<double>(delta);
    ComplexScanInputs<float> in;
    in.u = u.view(), in.delta = delta.view(), in.a = a.view();
    in.fixed_b = b.view(), in.fixed_c = c.view();
    ComplexScanInputs<double> in64;
    in64.u = u64.view(), in64.delta = delta64.view(), in64.a = a64.view();
    in64.fixed_b = b64.view(), in64.fixed_c = c64.view();
    NdArray<float, 3> out(u.extents());
    NdArray<double, 3> want(u.extents());
    ssm::complex_scan(in, out.view(), {}, options);
    ssm::complex_scan(in64, want.view(), {}, options);
    expect_close(out.data(), want.data(), static_cast<std::size_t>(out.size()), 1e-5, "out");
  }
  // No step keeps the state.
  ComplexScanInputs<double> none;
  const auto state = complex_array<double, 3>({1, d, n}, 7);
  NdArray<std::complex<double>, 3> last(state.extents());
  none.u = none.delta = u64.view().slice(1, 0, 0), none.a = a64.view();
  none.fixed_b = b64.view(), none.fixed_c = c64.view(), none.initial_state = state.view();
  NdArray<double, 3> nothing({1, 0, d});
  ssm::complex_scan(none, nothing.view(), last.view(), options);
  for (Index i = 0; i < state.size(); ++i) EXPECT_EQ(last.data()[i], state.data()[i]);
}

}  // namespace
}  // namespace quern::test::complex_scan
