// SPDX-License-Identifier: Apache-2.0

/// \file
/// Rational transfer functions against exact kernels (slow poles, odd lengths) and, where poles are
/// fast, their authors' code; convolution = recurrence = steps = pieces, gradients, stability.

#include "quern/ssm/rtf.hpp"

#include "gradient.hpp"
#include "recurrences.hpp"
#include "reference.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

namespace quern::test::ssm_rtf {
namespace {

struct File {
  SsmArray<double> a, b, h0;
  explicit File(const std::string& name)
      : a(ssm_reference<double>(name + "__a")),
        b(ssm_reference<double>(name + "__b")),
        h0(ssm_reference<double>(name + "__h0")) {}
  [[nodiscard]] ssm::RtfParameters<double> view() const {
    return {.a = a.view<2>(), .b = b.view<2>(), .h0 = h0.view<1>()};
  }
};

/// A kernel as files hold it: (channels, length).
NdArray<double, 2> kernel_of(const ssm::RtfParameters<double>& p, Index length,
                             const ssm::RtfOptions& options) {
  NdArray<double, 2> kernel({length, p.a.extent(0)}), turned({p.a.extent(0), length});
  ssm::rtf_kernel<double>(p, kernel.view(), options);
  for (Index t = 0; t < length; ++t) {
    for (Index k = 0; k < p.a.extent(0); ++k) turned(k, t) = kernel(t, k);
  }
  return turned;
}

TEST(SsmRtf, ExactKernelsOfSlowPolesAndOddLengths) {
  for (const Index length : {12, 13}) {
    const std::string tail = "_slow_L" + std::to_string(length);
    const File first("rtf" + tail), second("rtf2" + tail);
    const auto want = ssm_reference<double>("rtf" + tail + "__K_exact");
    const auto kernel = kernel_of(first.view(), length, {.truncated = length});
    expect_close(kernel.data(), want.values, want.size(), 1e-11, "truncated");
    // The same from the recurrence's own readout.
    NdArray<double, 2> c({first.a.extents[0], first.a.extents[1]});
    ssm::rtf_readout<double>(first.view(), length, c.view());
    const auto exact = ssm_reference<double>("rtf" + tail + "__C_exact");
    expect_close(c.data(), exact.values, exact.size(), 1e-10, "readout");
    ssm::RtfParameters<double> p = first.view();
    p.b = c.view();
    const auto same = kernel_of(p, length, {});
    expect_close(same.data(), want.values, want.size(), 1e-10, "readout's kernel");
    const auto want2 = ssm_reference<double>("rtf2" + tail + "__K_exact");
    const auto kernel2 = kernel_of(second.view(), length, {.delayed = false});
    expect_close(kernel2.data(), want2.values, want2.size(), 1e-11, "second form");
  }
}

TEST(SsmRtf, FastPolesAgreeWithTheAuthorsCode) {
  const File first("rtf"), second("rtf2");
  const auto want = ssm_reference<double>("rtf__K_step"),
             want2 = ssm_reference<double>("rtf2__K_step");
  const Index length = want.extents[1];
  const auto kernel = kernel_of(first.view(), length, {.truncated = length});
  expect_close(kernel.data(), want.values, want.size(), 1e-8, "rtf");
  const auto kernel2 = kernel_of(second.view(), length, {.delayed = false});
  expect_close(kernel2.data(), want2.values, want2.size(), 1e-12, "rtf2");
  const auto u = ssm_reference<double>("rtf__u"), y = ssm_reference<double>("rtf__y");
  NdArray<double, 3> out({u.extents[0], u.extents[1], u.extents[2]});
  ssm::rtf<double>(u.view<3>(), first.view(), {}, out.view(), {}, {.truncated = length});
  expect_close(out.data(), y.values, y.size(), 1e-8, "y");
}

struct Model {
  NdArray<double, 2> a, b;
  NdArray<double, 1> h0;
  Model(Index channels, Index order)
      : a({channels, order}),
        b(ssm_random<double, 2>({channels, order}, 2)),
        h0(ssm_random<double, 1>({channels}, 3)) {
    for (Index k = 0; k < channels; ++k) {
      // (1 - 0.9 w e^i)(1 - 0.9 w e^-i) and weaker roots.
      std::vector<double> poly = {1};
      for (Index i = 0; i < order; ++i) {
        const double root = (i % 2 == 0 ? 0.9 : -0.7) / static_cast<double>(1 + i / 2 + k % 3);
        poly.push_back(0);
        for (std::size_t j = poly.size(); j-- > 1;) poly[j] -= root * poly[j - 1];
      }
      for (Index i = 0; i < order; ++i) a(k, i) = poly[static_cast<std::size_t>(i + 1)];
    }
  }
  [[nodiscard]] ssm::RtfParameters<double> view() const {
    return {.a = a.view(), .b = b.view(), .h0 = h0.view()};
  }
};

void check_gradients(bool states, ssm::RtfOptions options) {
  SCOPED_TRACE(::testing::Message() << states << options.truncated << options.delayed);
  const Index channels = 3, order = 4, length = 9;
  const std::vector<std::int64_t> offsets = {0, 5, 5, 9};
  if (states) options.offsets = offsets;
  const Index batch = states ? 1 : 2, sequences = states ? 3 : 2;
  Model m(channels, order);
  auto u = ssm_random<double, 3>({batch, length, channels}, 5);
  const auto w = ssm_random<double, 3>({batch, length, channels}, 6);
  auto x0 = ssm_random<double, 2>({sequences, channels * order}, 7);
  const auto v = ssm_random<double, 2>({sequences, channels * order}, 8);
  const NdView<const double, 2> none;
  const auto loss = [&] {
    NdArray<double, 3> y(u.extents());
    NdArray<double, 2> last(x0.extents());
    ssm::rtf<double>(u.view(), m.view(), states ? std::as_const(x0).view() : none, y.view(),
                     states ? last.view() : NdView<double, 2>(), options);
    return ssm_inner(w, y) + (states ? ssm_inner(v, last) : 0.0);
  };
  NdArray<double, 3> du(u.extents());
  NdArray<double, 2> da(m.a.extents()), db(m.b.extents()), dx0(x0.extents());
  NdArray<double, 1> dh0(m.h0.extents());
  ssm::rtf_vjp<double>(u.view(), m.view(), states ? std::as_const(x0).view() : none, w.view(),
                       states ? v.view() : none, du.view(),
                       {.a = da.view(), .b = db.view(), .h0 = dh0.view()},
                       states ? dx0.view() : NdView<double, 2>(), options);
  expect_ssm_gradient(u, du, loss, "u");
  expect_ssm_gradient(m.a, da, loss, "a");
  expect_ssm_gradient(m.b, db, loss, "b");
  expect_ssm_gradient(m.h0, dh0, loss, "h0");
  if (states) expect_ssm_gradient(x0, dx0, loss, "initial");
}

TEST(SsmRtf, GradientsAgainstDifferences) {
  check_gradients(false, {.truncated = 9});
  check_gradients(false, {.truncated = 12});
  check_gradients(false, {});
  check_gradients(false, {.delayed = false});
  check_gradients(true, {});
  check_gradients(true, {.delayed = false});
}

TEST(SsmRtf, ConvolutionStepsAndPiecesAgree) {
  for (const bool delayed : {true, false}) {
    const Index channels = 9, order = 6, length = 50;
    const Model m(channels, order);
    const ssm::RtfOptions options{.delayed = delayed};
    const auto u = ssm_random<double, 3>({2, length, channels}, 5);
    NdArray<double, 3> whole(u.extents()), steps(u.extents()), parts(u.extents());
    NdArray<double, 2> state({2, channels * order}), piece(state.extents());
    ssm::rtf<double>(u.view(), m.view(), {}, whole.view(), {}, options);
    for (Index t = 0; t < length; ++t) {
      ssm::rtf_step<double>(u.view().subview(t, 1), m.view(), state.view(),
                            steps.view().subview(t, 1), options);
    }
    for (Index t = 0; t < length; t += 27) {
      const Index n = (std::min)(Index{27}, length - t);
      ssm::rtf<double>(u.view().slice(1, t, n), m.view(), std::as_const(piece).view(),
                       parts.view().slice(1, t, n), piece.view(), options);
    }
    const auto size = static_cast<std::size_t>(u.size());
    expect_close(steps.data(), whole.data(), size, 1e-11, "steps");
    expect_close(parts.data(), whole.data(), size, 1e-11, "pieces");
    EXPECT_TRUE(std::equal(state.begin(), state.end(), piece.begin()));
  }
}

TEST(SsmRtf, FloatKernelAtLength16384IsDoubles) {
  const Index length = 16384;
  NdArray<double, 2> a({1, 2}), b({1, 2});
  const double radius = 1 - 1e-4, turn = 0.3;
  NdArray<float, 2> af({1, 2}), bf({1, 2}), kernel({length, 1});
  a(0, 0) = af(0, 0) = static_cast<float>(-2 * radius * std::cos(turn));
  a(0, 1) = af(0, 1) = static_cast<float>(radius * radius);
  b(0, 0) = bf(0, 0) = 0.7F, b(0, 1) = bf(0, 1) = -0.2F;
  NdArray<double, 2> exact({length, 1});
  ssm::rtf_kernel<float>({.a = af.view(), .b = bf.view()}, kernel.view());
  ssm::rtf_kernel<double>({.a = a.view(), .b = b.view()}, exact.view());
  expect_close(kernel.data(), exact.data(), static_cast<std::size_t>(length), 1e-6, "K");
}

TEST(SsmRtf, UnstableDenominatorsAreRefusedOrClipped) {
  Model m(2, 3);
  const auto u = ssm_random<double, 3>({1, 40, 2}, 1);
  NdArray<double, 3> y(u.extents());
  const auto run = [&](const ssm::RtfOptions& options = {}) {
    ssm::rtf<double>(u.view(), m.view(), {}, y.view(), {}, options);
  };
  run();
  m.a(1, 0) = -3;
  try {
    run();
    FAIL();
  } catch (const ValueError& error) {
    EXPECT_NE(std::string(error.what()).find("unstable channel 1"), std::string::npos);
  }
  run({.clip_poles = true});
  EXPECT_TRUE(ssm::detail::all_finite(y.view()));
  EXPECT_THROW(run({.truncated = 39}), ShapeError);
  m.a(1, 0) = std::nan("");
  EXPECT_THROW(run({.clip_poles = true}), ValueError);
  NdArray<double, 3> none({1, 0, 2});
  m.a(1, 0) = 0;
  ssm::rtf<double>(none.view(), m.view(), {}, none.view());
  NdArray<double, 2> state({1, 6}), last({1, 6}), narrow({1, 5});
  state(0, 4) = 3;
  ssm::rtf<double>(none.view(), m.view(), std::as_const(state).view(), none.view(), last.view());
  EXPECT_EQ(last(0, 4), 3);
  expect_words("initial: expected 1 x 6, got 1 x 5", [&] {
    ssm::rtf<double>(u.view(), m.view(), std::as_const(narrow).view(), y.view());
  });
  state(0, 5) = std::nan("");
  expect_words("initial: expected finite numbers, got NaN or infinity at (0, 5)", [&] {
    ssm::rtf<double>(u.view(), m.view(), std::as_const(state).view(), y.view());
  });
  expect_words("u: expected finite numbers, got NaN or infinity at (0, 5, 1)", [&] {
    auto bad = NdArray<double, 3>(u);
    bad(0, 5, 1) = std::numeric_limits<double>::infinity();
    ssm::rtf<double>(bad.view(), m.view(), {}, y.view());
  });
}

}  // namespace
}  // namespace quern::test::ssm_rtf
