// SPDX-License-Identifier: Apache-2.0

/// \file
/// Weights of gated units for the tests of GAU and FLASH: from a reference's files, or random.

#ifndef QUERN_TESTS_ATTENTION_GATED_REFERENCE_HPP
#define QUERN_TESTS_ATTENTION_GATED_REFERENCE_HPP

#include "attention/reference.hpp"
#include "quern/attention/gated_unit.hpp"

#include <functional>
#include <string>

namespace quern::test {

/// Owns all weights of a unit, or their gradients.
template <class T>
struct GatedArrays {
  NdArray<T, 1> norm_weight, norm_bias, hidden_bias, qk_bias, bias_table, out_bias;
  NdArray<T, 2> hidden_weight, qk_weight, gamma, beta, out_weight;

  template <class Element>
  [[nodiscard]] attention::GatedUnitArrays<Element> views() {
    attention::GatedUnitArrays<Element> v;
    const auto one = [](NdArray<T, 1>& a) {
      return a.size() > 0 ? NdView<Element, 1>(a.view()) : NdView<Element, 1>();
    };
    v.norm_weight = one(norm_weight), v.norm_bias = one(norm_bias);
    v.hidden_weight = hidden_weight.view(), v.hidden_bias = hidden_bias.view();
    v.qk_weight = qk_weight.view(), v.qk_bias = qk_bias.view();
    v.gamma = gamma.view(), v.beta = beta.view();
    v.bias_table = one(bias_table);
    v.out_weight = out_weight.view(), v.out_bias = out_bias.view();
    return v;
  }
  /// fn(name, array of this, array of other) for all arrays of rank 1, then of rank 2.
  template <class F>
  void each(GatedArrays& other, const F& fn) {
    fn("norm_weight", norm_weight, other.norm_weight);
    fn("norm_bias", norm_bias, other.norm_bias);
    fn("hidden_bias", hidden_bias, other.hidden_bias);
    fn("qk_bias", qk_bias, other.qk_bias);
    fn("bias_table", bias_table, other.bias_table);
    fn("out_bias", out_bias, other.out_bias);
    fn("hidden_weight", hidden_weight, other.hidden_weight);
    fn("qk_weight", qk_weight, other.qk_weight);
    fn("gamma", gamma, other.gamma);
    fn("beta", beta, other.beta);
    fn("out_weight", out_weight, other.out_weight);
  }
  [[nodiscard]] GatedArrays zeros() {
    GatedArrays z;
    each(z, [](const char*, auto& mine, auto& theirs) { theirs.resize(mine.extents()); });
    return z;
  }
};

/// Weights of a case, prefix "w.", or their gradients, "dw.".
template <class T>
GatedArrays<T> gated_reference(const std::string& folder, const std::string& prefix,
                               attention::GateNorm norm) {
  const bool flash = folder.find("flash") == 0;
  const auto one = [&](const std::string& name) {
    const AttentionArray a = attention_reference_array(folder, prefix + name);
    NdArray<T, 1> values({static_cast<Index>(a.values.size())});
    std::transform(a.values.begin(), a.values.end(), values.begin(),
                   [](double x) { return static_cast<T>(x); });
    return values;
  };
  const auto two = [&](const std::string& name) {
    return attention_reference<T, 2>(folder, prefix + name);
  };
  GatedArrays<T> w;
  if (norm == attention::GateNorm::layer) {
    w.norm_weight = one("norm.weight"), w.norm_bias = one("norm.bias");
  } else {
    w.norm_weight = one("norm.g");
  }
  w.bias_table = one("rel_pos_bias.relative_attention_bias.weight");
  w.hidden_weight = two("to_hidden.0.weight"), w.hidden_bias = one("to_hidden.0.bias");
  w.qk_weight = two("to_qk.0.weight"), w.qk_bias = one("to_qk.0.bias");
  const std::string offset = flash ? "qk_offset_scale." : "offsetscale.";
  w.gamma = two(offset + "gamma"), w.beta = two(offset + "beta");
  const std::string out = flash ? "to_out." : "to_out.0.";
  w.out_weight = two(out + "weight"), w.out_bias = one(out + "bias");
  return w;
}

inline GatedArrays<double> random_gated(Index dim, Index e, Index s, Index heads,
                                        attention::GateNorm norm, bool bias, std::uint64_t seed) {
  GatedArrays<double> w;
  const auto one = [&](Index n, double deviation) {
    return attention_normal<double, 1>({n}, ++seed, deviation);
  };
  const auto two = [&](Index r, Index c, double deviation) {
    return attention_normal<double, 2>({r, c}, ++seed, deviation);
  };
  if (norm == attention::GateNorm::layer) w.norm_weight = one(dim, 1), w.norm_bias = one(dim, 0.3);
  if (norm == attention::GateNorm::scale) w.norm_weight = one(1, 1);
  if (bias) w.bias_table = one(32, 0.5);
  w.hidden_weight = two(2 * e, dim, 0.4), w.hidden_bias = one(2 * e, 0.2);
  w.qk_weight = two(s, dim, 0.4), w.qk_bias = one(s, 0.2);
  w.gamma = two(heads, s, 1), w.beta = two(heads, s, 0.5);
  w.out_weight = two(dim, e, 0.3), w.out_bias = one(dim, 0.2);
  return w;
}

/// One unit's functions, so that GAU and FLASH share their checks.
template <class T>
struct GatedFunctions {
  std::function<void(const NdView<const T, 3>&, const attention::GatedUnitWeights<T>&, NdView<T, 3>,
                     const attention::GatedUnitOptions<T>&, attention::GatedUnitSaved<T>*)>
      forward;
  std::function<void(const NdView<const T, 3>&, const attention::GatedUnitWeights<T>&,
                     const attention::GatedUnitSaved<T>&, const NdView<const T, 3>&, NdView<T, 3>,
                     const attention::GatedUnitGradients<T>&,
                     const attention::GatedUnitOptions<T>&)>
      backward;
};

template <class T>
void check_gated_reference(const GatedFunctions<T>& f, const std::string& folder,
                           attention::GatedUnitOptions<T> options) {
  SCOPED_TRACE(folder);
  GatedArrays<T> w = gated_reference<T>(folder, "w.", options.norm);
  GatedArrays<T> expected = gated_reference<T>(folder, "dw.", options.norm);
  GatedArrays<T> dw = w.zeros();
  const auto x = attention_reference<T, 3>(folder, "x");
  const auto dout = attention_reference<T, 3>(folder, "dout");
  NdArray<std::uint8_t, 2> mask;
  if (folder.find("masked") != std::string::npos) {
    mask = attention_reference_array(folder, "mask").template as<std::uint8_t, 2>();
    options.mask = NdView<const std::uint8_t, 2>(mask.view());
  }
  NdArray<T, 3> out(x.extents()), dx(x.extents());
  attention::GatedUnitSaved<T> saved;
  const auto weights = w.template views<const T>();
  f.forward(x.view(), weights, out.view(), options, &saved);
  f.backward(x.view(), weights, saved, dout.view(), dx.view(), dw.template views<T>(), options);
  expect_attention_near(out, attention_reference<T, 3>(folder, "out"),
                        attention_output_tolerance<T>, "out");
  const double tolerance = attention_gradient_tolerance<T>;
  expect_attention_near(dx, attention_reference<T, 3>(folder, "dx"), tolerance, "dx");
  dw.each(expected, [&](const char* name, auto& got, auto& wanted) {
    expect_attention_near(got, wanted, tolerance, name);
  });
}

/// All gradients against finite differences.
inline void check_gated_gradients(const GatedFunctions<double>& f, GatedArrays<double>& w,
                                  const Shape<3>& shape,
                                  const attention::GatedUnitOptions<double>& options,
                                  double tolerance = 1e-6) {
  auto x = attention_normal<double, 3>(shape, 91);
  const auto dout = attention_normal<double, 3>(shape, 92);
  GatedArrays<double> dw = w.zeros();
  NdArray<double, 3> out(shape), dx(shape);
  attention::GatedUnitSaved<double> saved;
  f.forward(x.view(), w.views<const double>(), out.view(), options, &saved);
  f.backward(x.view(), w.views<const double>(), saved, dout.view(), dx.view(), dw.views<double>(),
             options);
  const std::function<void(NdArray<double, 3>&)> again = [&](NdArray<double, 3>& to) {
    f.forward(x.view(), w.views<const double>(), to.view(), options, nullptr);
  };
  expect_attention_gradient(x, dx, dout, again, "dx", tolerance);
  w.each(dw, [&](const char* name, auto& values, auto& gradient) {
    if (values.size() > 0) {
      expect_attention_gradient(values, gradient, dout, again, name, tolerance);
    }
  });
}

/// Sequences in one row, an empty one among them and room at the end: each by itself.
inline void check_gated_packed(const GatedFunctions<double>& f, GatedArrays<double>& w, Index dim,
                               attention::GatedUnitOptions<double> options) {
  const std::vector<std::int64_t> cumulative = {0, 25, 25, 31, 55};
  const auto x = attention_normal<double, 3>({1, 58, dim}, 93);
  const auto dout = attention_normal<double, 3>({1, 58, dim}, 94);
  const auto weights = w.views<const double>();
  const auto run = [&](Index first, Index n, GatedArrays<double>& dw, NdArray<double, 3>& out,
                       NdArray<double, 3>& dx) {
    const auto part = [&](const NdArray<double, 3>& a) {
      return NdView<const double, 3>(a.view()).slice(1, first, n);
    };
    attention::GatedUnitSaved<double> saved;
    out.resize({1, n, dim}), dx.resize({1, n, dim});
    f.forward(part(x), weights, out.view(), options, &saved);
    f.backward(part(x), weights, saved, part(dout), dx.view(), dw.views<double>(), options);
  };
  GatedArrays<double> dw = w.zeros(), expected = w.zeros();
  NdArray<double, 3> out, dx, one_out, one_dx;
  options.cumulative = cumulative;
  run(0, 58, dw, out, dx);
  options.cumulative = {};
  for (std::size_t s = 1; s < cumulative.size(); ++s) {
    const Index first = cumulative[s - 1], n = cumulative[s] - first;
    if (n == 0) continue;
    run(first, n, expected, one_out, one_dx);
    EXPECT_TRUE(std::equal(one_out.begin(), one_out.end(), out.begin() + first * dim));
    EXPECT_TRUE(std::equal(one_dx.begin(), one_dx.end(), dx.begin() + first * dim));
  }
  for (Index i = 55 * dim; i < 58 * dim; ++i) EXPECT_EQ(out.data()[i] + dx.data()[i], 0);
  dw.each(expected, [&](const char* name, auto& got, auto& wanted) {
    expect_attention_near(got, wanted, 1e-13, name);
  });
}

}  // namespace quern::test

#endif  // QUERN_TESTS_ATTENTION_GATED_REFERENCE_HPP
