// SPDX-License-Identifier: Apache-2.0

/// \file
/// The selective scan against Mamba's selective_scan_ref with its gradients, against central
/// differences, and against itself cut into steps, pieces and packed sequences.

#include "quern/ssm/selective_scan.hpp"

#include "ssm/differences.hpp"
#include "ssm/reference.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace quern::test::selective_scan {
namespace {

using ssm::SelectiveScanGradients;
using ssm::SelectiveScanInputs;
using ssm::SelectiveScanOptions;

/// Arrays of a scan, gradients in arrays of the same shapes.
template <class T>
struct Arrays {
  NdArray<T, 3> u, delta, b, c, z, initial;
  NdArray<T, 2> a;
  NdArray<T, 1> skip, bias;

  Arrays(Index batch, Index length, Index channels, Index states, Index groups, Index sequences)
      : u(normal_array<T, 3>({batch, length, channels}, 1)),
        delta(normal_array<T, 3>({batch, length, channels}, 2)),
        b(normal_array<T, 3>({batch, length, groups * states}, 3)),
        c(normal_array<T, 3>({batch, length, groups * states}, 4)),
        z(normal_array<T, 3>({batch, length, channels}, 5)),
        initial(normal_array<T, 3>({sequences, channels, states}, 6)),
        a(normal_array<T, 2>({channels, states}, 7)),
        skip(normal_array<T, 1>({channels}, 8)),
        bias(normal_array<T, 1>({channels}, 9)) {
    for (T& pole : a) pole = -std::exp(pole);
  }
  [[nodiscard]] SelectiveScanInputs<T> inputs() const {
    return {u.view(),    delta.view(), a.view(), b.view(),      c.view(),
            skip.view(), bias.view(),  z.view(), initial.view()};
  }
  [[nodiscard]] SelectiveScanGradients<T> gradients() {
    return {u.view(),    delta.view(), a.view(), b.view(),      c.view(),
            skip.view(), bias.view(),  z.view(), initial.view()};
  }
  void zero() {
    for (auto* x : {&u, &delta, &b, &c, &z, &initial}) x->fill(T{-7});
    a.fill(T{0});
    skip.fill(T{0});
    bias.fill(T{0});
  }
};

template <class T>
void run(const Arrays<T>& x, NdArray<T, 3>& out, NdArray<T, 3>& last,
         const SelectiveScanOptions& options = {}) {
  ssm::selective_scan(x.inputs(), out.view(), last.view(), options);
}

NdView<const double, 3> by_time(const SsmArray<double>& x) {
  return x.view<3>().permuted({0, 2, 1});
}
double furthest(const NdView<const double, 3>& got, const NdView<const double, 3>& want) {
  double apart = 0;
  for (Index i = 0; i < got.extent(0); ++i) {
    for (Index j = 0; j < got.extent(1); ++j) {
      for (Index k = 0; k < got.extent(2); ++k) {
        apart = (std::max)(apart, std::fabs(got(i, j, k) - want(i, j, k)));
      }
    }
  }
  return apart;
}

// Double on both sides; 37 steps of a few roundings each.
constexpr double reference_tolerance = 2e-13;

void expect_reference(const std::string& name, bool full) {
  SCOPED_TRACE(name);
  const auto get = [&](const char* array) { return ssm_reference<double>(name + "__" + array); };
  const auto u = get("u"), delta = get("delta"), a = get("A"), b = get("B"), c = get("C");
  const auto skip = get("D"), bias = get("delta_bias"), z = get("z"), gy = get("gy");
  SelectiveScanInputs<double> in{by_time(u), by_time(delta), a.view<2>(), by_time(b), by_time(c)};
  if (full) {
    in.skip = skip.view<1>();
    in.delta_bias = bias.view<1>();
    in.z = by_time(z);
  }
  SelectiveScanOptions options;
  options.softplus = full;
  // Outputs as the reference has them: time last.
  const Shape<3> wide = u.view<3>().extents(), narrow = b.view<3>().extents();
  const auto turned = [](NdArray<double, 3>& x) { return x.view().permuted({0, 2, 1}); };
  NdArray<double, 3> y(wide), last({wide[0], wide[1], narrow[1]});
  ssm::SelectiveScanSaved<double> saved;
  ssm::selective_scan(in, turned(y), last.view(), options, &saved);
  EXPECT_LE(furthest(y.view(), get("y").view<3>()), reference_tolerance);
  EXPECT_LE(furthest(last.view(), get("last_state").view<3>()), reference_tolerance);

  NdArray<double, 3> du(wide), ddelta(wide), dz(wide), db(narrow), dc(narrow);
  NdArray<double, 2> da(a.view<2>().extents());
  NdArray<double, 1> dskip({wide[1]}), dbias({wide[1]});
  SelectiveScanGradients<double> g{turned(du), turned(ddelta), da.view(), turned(db), turned(dc)};
  if (full) {
    g.skip = dskip.view();
    g.delta_bias = dbias.view();
    g.z = turned(dz);
  }
  ssm::selective_scan_vjp(in, by_time(gy), {}, g, options, &saved);
  const auto expect = [&](const double* got, const char* array) {
    const SsmArray<double> want = get(array);
    expect_close(got, want.values, want.size(), reference_tolerance, array);
  };
  expect(du.data(), "g_u");
  expect(ddelta.data(), "g_delta");
  expect(da.data(), "g_A");
  expect(db.data(), "g_B");
  expect(dc.data(), "g_C");
  if (!full) return;
  expect(dz.data(), "g_z");
  expect(dskip.data(), "g_D");
  expect(dbias.data(), "g_delta_bias");
}

TEST(SelectiveScan, Reference) {
  expect_reference("mamba_full", true);
  expect_reference("mamba_plain", false);
}

TEST(SelectiveScan, GradientsAreTheDifferences) {
  const std::vector<std::int64_t> offsets = {0, 5, 5, 6, 41};
  for (const bool packed : {false, true}) {
    SelectiveScanOptions options;
    options.groups = 2;
    if (packed) options.offsets = offsets;
    const Index batch = packed ? 1 : 2, sequences = packed ? 4 : 2, length = 41;
    Arrays<double> x(batch, length, 6, 5, 2, sequences), g = x;
    g.zero();
    const auto dy = normal_array<double, 3>({batch, length, 6}, 20);
    const auto dlast = normal_array<double, 3>({sequences, 6, 5}, 21);
    NdArray<double, 3> out({batch, length, 6}), last({sequences, 6, 5});
    ssm::selective_scan_vjp(x.inputs(), dy.view(), dlast.view(), g.gradients(), options);
    const auto loss = [&] {
      run(x, out, last, options);
      return dot(out, dy) + dot(last, dlast);
    };
    expect_gradient("u", span_of(x.u), span_of(g.u), loss);
    expect_gradient("delta", span_of(x.delta), span_of(g.delta), loss);
    expect_gradient("a", span_of(x.a), span_of(g.a), loss);
    expect_gradient("b", span_of(x.b), span_of(g.b), loss);
    expect_gradient("c", span_of(x.c), span_of(g.c), loss);
    expect_gradient("z", span_of(x.z), span_of(g.z), loss);
    expect_gradient("skip", span_of(x.skip), span_of(g.skip), loss);
    expect_gradient("bias", span_of(x.bias), span_of(g.bias), loss);
    expect_gradient("initial", span_of(x.initial), span_of(g.initial), loss);
  }
}

TEST(SelectiveScan, StepsPiecesAndPacksAreTheWhole) {
  constexpr Index length = 70, channels = 19, states = 6;
  const Arrays<float> x(1, length, channels, states, 1, 1);
  NdArray<float, 3> whole({1, length, channels}), last({1, channels, states});
  run(x, whole, last);

  // One step after the other, states in both orders of memory.
  NdArray<float, 3> state = x.initial, out({1, length, channels});
  NdArray<float, 3> turned(NdView<const float, 3>(x.initial.view().permuted({0, 2, 1})));
  NdArray<float, 2> y({1, channels});
  for (Index t = 0; t < length; ++t) {
    const auto at = [&](const NdArray<float, 3>& v) { return v.view().subview(t, 1); };
    const ssm::SelectiveScanStepInputs<float> in{at(x.u), at(x.delta),   x.a.view(),    at(x.b),
                                                 at(x.c), x.skip.view(), x.bias.view(), at(x.z)};
    ssm::selective_scan_step(in, state.view(), out.view().subview(t, 1));
    ssm::selective_scan_step(in, turned.view().permuted({0, 2, 1}), y.view());
    for (Index i = 0; i < channels; ++i) {
      ASSERT_EQ(out(0, t, i), whole(0, t, i));
      ASSERT_EQ(y(0, i), whole(0, t, i));
    }
  }
  for (Index i = 0; i < last.size(); ++i) ASSERT_EQ(state.data()[i], last.data()[i]);

  // In two pieces, the state carried; the second piece also as the second of packed sequences.
  const auto cut = [&](Index begin, Index count, NdArray<float, 3>& from, NdArray<float, 3>& to) {
    SelectiveScanInputs<float> in = x.inputs();
    for (auto* v : {&in.u, &in.delta, &in.b, &in.c, &in.z}) *v = v->slice(1, begin, count);
    in.initial_state = from.view();
    ssm::selective_scan(in, out.view().slice(1, begin, count), to.view());
  };
  NdArray<float, 3> middle({1, channels, states}), end({1, channels, states});
  NdArray<float, 3> first = x.initial;
  cut(0, 33, first, middle);
  cut(33, length - 33, middle, end);
  for (Index i = 0; i < out.size(); ++i) ASSERT_EQ(out.data()[i], whole.data()[i]);
  for (Index i = 0; i < last.size(); ++i) ASSERT_EQ(end.data()[i], last.data()[i]);

  const std::vector<std::int64_t> offsets = {0, 33, 33, length};
  SelectiveScanOptions options;
  options.offsets = offsets;
  NdArray<float, 3> begins({3, channels, states}), ends({3, channels, states});
  for (Index k = 0; k < channels * states; ++k) {
    begins.data()[k] = x.initial.data()[k];
    begins.data()[channels * states + k] = static_cast<float>(k);
    begins.data()[2 * channels * states + k] = middle.data()[k];
  }
  SelectiveScanInputs<float> in = x.inputs();
  in.initial_state = begins.view();
  ssm::selective_scan(in, out.view(), ends.view(), options);
  for (Index i = 0; i < out.size(); ++i) ASSERT_EQ(out.data()[i], whole.data()[i]);
  EXPECT_EQ(ends(1, 3, 2), begins(1, 3, 2)) << "an empty sequence keeps its state";
  EXPECT_EQ(ends(2, 3, 2), last(0, 3, 2));
}

TEST(SelectiveScan, ThreadsDoNotMatter) {
  const Arrays<float> x(2, 67, 150, 16, 1, 2);
  const auto dy = normal_array<float, 3>({2, 67, 150}, 20);
  std::vector<NdArray<float, 3>> outs;
  std::vector<Arrays<float>> gradients;
  for (const int threads : {1, 2, 3}) {
    SelectiveScanOptions options;
    options.threads = threads;
    NdArray<float, 3> out({2, 67, 150}), last({2, 150, 16});
    run(x, out, last, options);
    gradients.push_back(x);
    gradients.back().zero();
    ssm::selective_scan_vjp(x.inputs(), dy.view(), {}, gradients.back().gradients(), options);
    outs.push_back(out);
  }
  for (const std::size_t k : {1u, 2u}) {
    for (Index i = 0; i < outs[0].size(); ++i) ASSERT_EQ(outs[0].data()[i], outs[k].data()[i]);
    const auto same = [&](const auto& p, const auto& q) {
      for (Index i = 0; i < p.size(); ++i) ASSERT_EQ(p.data()[i], q.data()[i]);
    };
    same(gradients[0].u, gradients[k].u);
    same(gradients[0].b, gradients[k].b);
    same(gradients[0].a, gradients[k].a);
    same(gradients[0].bias, gradients[k].bias);
  }
}

// Rounding inputs to float is no part of the error: both run on the same numbers.
TEST(SelectiveScan, LongSequencesInFloat) {
  constexpr Index length = 16384, channels = 8, states = 16;
  Arrays<float> x(1, length, channels, states, 1, 1);
  for (float& d : x.delta) d -= 3;  // steps of about 0.05
  for (Index i = 0; i < channels; ++i) {
    for (Index n = 0; n < states; ++n) x.a(i, n) = -static_cast<float>(n + 1) / 16;
  }
  Arrays<double> exact(1, length, channels, states, 1, 1);
  exact.u = converted<double>(x.u), exact.delta = converted<double>(x.delta);
  exact.b = converted<double>(x.b), exact.c = converted<double>(x.c);
  exact.z = converted<double>(x.z), exact.initial = converted<double>(x.initial);
  exact.a = converted<double>(x.a), exact.skip = converted<double>(x.skip);
  exact.bias = converted<double>(x.bias);
  NdArray<float, 3> out({1, length, channels}), last({1, channels, states});
  NdArray<double, 3> want({1, length, channels}), want_last({1, channels, states});
  run(x, out, last);
  run(exact, want, want_last);
  expect_close(out.data(), want.data(), static_cast<std::size_t>(out.size()), 1e-6, "out");
  expect_close(last.data(), want_last.data(), static_cast<std::size_t>(last.size()), 1e-6, "last");
}

TEST(SelectiveScan, AnyStepIsFine) {
  for (const double step : {1e-8, 1e-3, 1.0, 30.0, 1e3}) {
    Arrays<float> x(1, 50, 5, 4, 1, 1), g = x;
    x.delta.fill(static_cast<float>(step));
    x.bias.fill(0);
    SelectiveScanOptions options;
    options.softplus = false;
    NdArray<float, 3> out({1, 50, 5}), last({1, 5, 4});
    run(x, out, last, options);  // throws for what is not finite
    ssm::selective_scan_vjp(x.inputs(), out.view(), {}, g.gradients(), options);
    for (const float d : g.delta) ASSERT_TRUE(std::isfinite(d));
    for (const float d : g.a) ASSERT_TRUE(std::isfinite(d));
  }
  Arrays<float> x(1, 50, 5, 4, 1, 1);  // softplus of what is far out
  for (Index t = 0; t < 50; ++t) x.delta(0, t, 0) = t % 2 == 0 ? -300.F : 300.F;
  NdArray<float, 3> out({1, 50, 5}), last({1, 5, 4});
  run(x, out, last);
}

TEST(SelectiveScan, NothingToDo) {
  for (const Shape<3> shape : {Shape<3>{2, 0, 3}, Shape<3>{0, 4, 3}, Shape<3>{1, 1, 1}}) {
    Arrays<double> x(shape[0], shape[1], shape[2], 2, 1, shape[0]), g = x;
    NdArray<double, 3> out(shape), last({shape[0], shape[2], 2});
    run(x, out, last);
    const auto dlast = normal_array<double, 3>({shape[0], shape[2], 2}, 3);
    ssm::selective_scan_vjp(x.inputs(), out.view(), dlast.view(), g.gradients());
    if (shape[1] != 0) continue;
    for (Index i = 0; i < last.size(); ++i) {
      EXPECT_EQ(last.data()[i], x.initial.data()[i]);
      EXPECT_EQ(g.initial.data()[i], dlast.data()[i]);
    }
  }
}

template <class E>
void expect_error(const std::string& part, const Arrays<float>& x,
                  const SelectiveScanOptions& options = {}) {
  NdArray<float, 3> out(x.u.extents()), last({x.initial.extents()});
  try {
    run(x, out, last, options);
    ADD_FAILURE() << "no error with " << part;
  } catch (const E& e) {
    EXPECT_NE(std::string(e.what()).find(part), std::string::npos) << e.what();
  }
}

TEST(SelectiveScan, WrongInputIsNamed) {
  const Arrays<float> good(2, 40, 5, 4, 1, 2);
  Arrays<float> x = good;
  x.u(1, 33, 2) = std::numeric_limits<float>::quiet_NaN();
  expect_error<ValueError>("u: expected finite numbers, got NaN or infinity at (1, 33, 2)", x);
  x = good;
  x.c(0, 39, 1) = std::numeric_limits<float>::infinity();
  expect_error<ValueError>("c: expected finite numbers, got NaN or infinity at (0, 39, 1)", x);
  x = good;
  x.initial(1, 0, 3) = std::numeric_limits<float>::quiet_NaN();
  expect_error<ValueError>("initial_state", x);
  x = good;
  x.a(2, 1) = 0.5F;
  expect_error<ValueError>("a: expected finite poles not above 0, got 0.5 at (2, 1)", x);
  SelectiveScanOptions options;
  options.clip_poles = true;
  NdArray<float, 3> out(x.u.extents()), last({2, 5, 4});
  run(x, out, last, options);
  // A step clips the same poles.
  NdArray<float, 3> state = x.initial;
  NdArray<float, 2> y({2, 5});
  const auto first = [](const NdArray<float, 3>& v) { return v.view().subview(0, 1); };
  const ssm::SelectiveScanStepInputs<float> step{first(x.u),    first(x.delta), x.a.view(),
                                                 first(x.b),    first(x.c),     x.skip.view(),
                                                 x.bias.view(), first(x.z)};
  ssm::selective_scan_step(step, state.view(), y.view(), options);
  for (Index i = 0; i < 5; ++i) EXPECT_EQ(y(1, i), out(1, 0, i)) << i;
  const std::vector<std::int64_t> one = {0, 1};
  options.offsets = one;
  EXPECT_THROW(ssm::selective_scan_step(step, state.view(), y.view(), options), ValueError);
  options = {};
  options.softplus = false;
  x = good;
  x.bias.fill(0);
  x.delta.fill(0.1F);
  x.delta(1, 7, 4) = 0;
  expect_error<ValueError>("delta: expected steps above 0 (or softplus), got 0 at (1, 7, 4)", x,
                           options);
  x = good;
  x.initial = NdArray<float, 3>({2, 5, 3});
  expect_error<ShapeError>("initial_state: expected 2 x 5 x 4, got 2 x 5 x 3", x);
  x = good;
  x.u.fill(3e38F);
  expect_error<ValueError>("overflow", x);
  options = {};
  options.groups = 2;
  expect_error<ValueError>("options.groups", good, options);
  options = {};
  const std::vector<std::int64_t> offsets = {0, 40};
  options.offsets = offsets;
  expect_error<ShapeError>("offsets", good, options);
}

}  // namespace
}  // namespace quern::test::selective_scan
