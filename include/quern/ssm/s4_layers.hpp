// SPDX-License-Identifier: Apache-2.0

/// \file
/// S4D and S4 as layers: mixers from (batch, length, dim) to the same, one state space a channel.
/// Norms, activations, products across channels and residual connections are nn's.
///
/// Steps work the constants out once for each state, at its first step.
///
/// Parameter groups are the S4 repository's: A, B and dt at a tenth of the rate and without weight
/// decay, C and D as the rest.

#ifndef QUERN_SSM_S4_LAYERS_HPP
#define QUERN_SSM_S4_LAYERS_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/nn/sequence_layer.hpp"
#include "quern/ssm/hippo.hpp"
#include "quern/ssm/layer_state.hpp"
#include "quern/ssm/s4.hpp"
#include "quern/ssm/s4d.hpp"

#include <cmath>
#include <complex>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <numbers>
#include <string>
#include <string_view>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace ssm {

/// Where S4D's poles start (Gu et al., arXiv:2206.11893).
enum class S4dStart {
  lin,   ///< -1/2 - i pi n
  inv,   ///< -1/2 - i order / pi (order / (2 n + 1) - 1)
  legs,  ///< eigenvalues of LegS's normal part
  real,  ///< -(n + 1)
  quad   ///< -1/2 - i (1 + 2 n)^2 / pi
};

/// The poles of a start, one of each conjugate pair. ValueError below one mode.
template <class = void>
[[nodiscard]] inline std::vector<std::complex<double>> s4d_poles(S4dStart start, Index modes) {
  detail::expect_positive("quern::ssm::s4d_poles", "modes", modes);
  if (start == S4dStart::legs) return normal_plus_low_rank(Measure::legsd, 2 * modes).w;
  std::vector<std::complex<double>> poles;
  const double order = 2 * static_cast<double>(modes), pi = std::numbers::pi;
  for (Index k = 0; k < modes; ++k) {
    const double n = static_cast<double>(k), odd = 2 * n + 1;
    switch (start) {
      case S4dStart::lin:
        poles.emplace_back(-0.5, -pi * n);
        break;
      case S4dStart::inv:
        poles.emplace_back(-0.5, -order / pi * (order / odd - 1));
        break;
      case S4dStart::quad:
        poles.emplace_back(-0.5, -odd * odd / pi);
        break;
      default:
        poles.emplace_back(-(n + 1), 0);
        break;
    }
  }
  return poles;
}

/// Options of S4dLayer and S4Layer.
struct S4LayerOptions {
  Index modes = 32;  ///< conjugate pairs a channel
  double dt_min = 1e-3, dt_max = 1e-1;
  bool bidirectional = false;      ///< a second kernel runs from the end; then there are no steps
  S4dStart start = S4dStart::lin;  ///< S4D
  DiscretizationOptions discretization = {Discretization::zero_order_hold};  ///< S4D
  Measure measure = Measure::legs;  ///< S4: legs, legt, …
};

namespace detail {

/// What both layers have: dt, A, C, D, with A = -e^log_a_real + i a_imag.
template <class T>
class S4LayerBase : public nn::SequenceLayer<T> {
 public:
  [[nodiscard]] Index dim() const noexcept { return dim_; }
  [[nodiscard]] nn::Extents output_shape(const nn::Extents& in) const override {
    return sequence_shape(this->type(), in, dim_);
  }
  [[nodiscard]] std::unique_ptr<nn::SequenceState<T>> make_state(Index batch) const override {
    if (options_.bidirectional) {
      throw ValueError(error_text(this->type(), "make_state", "a layer of one direction",
                                  "a bidirectional one"));
    }
    return std::make_unique<LayerState<T, std::complex<T>>>(this->type(), batch,
                                                            dim_ * options_.modes);
  }

 protected:
  S4LayerBase(std::string_view layer, Index dim, const S4LayerOptions& options)
      : dim_(dim), options_(options) {
    expect_positive(layer, "dim", dim);
    expect_positive(layer, "modes", options.modes);
    if (!(options.dt_min > 0 && options.dt_max >= options.dt_min)) {
      throw ValueError(error_text(layer, "dt_min, dt_max", "0 < dt_min <= dt_max", options.dt_min));
    }
    const Index modes = options.modes;
    log_dt_.resize({dim});
    log_a_real_.resize({dim, modes});
    a_imag_.resize({dim, modes});
    c_.resize({dim, modes, 2});
    if (options.bidirectional) c_back_.resize({dim, modes, 2});
    d_.resize({dim});
  }

  void set_poles(const std::vector<std::complex<double>>& poles) {
    for (Index k = 0; k < dim_; ++k) {
      for (Index n = 0; n < options_.modes; ++n) {
        const auto pole = poles[static_cast<std::size_t>(n)];
        log_a_real_[k * options_.modes + n] =
            static_cast<T>(std::log((std::max)(1e-4, -pole.real())));
        a_imag_[k * options_.modes + n] = static_cast<T>(pole.imag());
      }
    }
  }
  void draw(std::uint64_t seed, const std::string& prefix) {
    draw_log_steps(log_dt_, seed, prefix + "log_dt", options_.dt_min, options_.dt_max);
    draw_normal(c_, seed, prefix + "C", std::sqrt(0.5));
    draw_normal(c_back_, seed, prefix + "C_back", std::sqrt(0.5));
    draw_normal(d_, seed, prefix + "D", 1);
  }
  /// The first parameters are log_dt, log_A_real and A_imag.
  void slow_parameters(nn::ParameterList<T>& out, const std::string& prefix) {
    const auto slow = [&](const char* name, nn::Tensor<T>& x) {
      out.push_back({.name = prefix + name, .values = x.view(), .decay = false, .lr_scale = 0.1});
    };
    slow("log_dt", log_dt_);
    slow("log_A_real", log_a_real_);
    slow("A_imag", a_imag_);
  }
  /// The last are C, D and, in both directions, C_back.
  void output_parameters(nn::ParameterList<T>& out, const std::string& prefix) {
    out.push_back({prefix + "C", c_.view()});
    out.push_back({prefix + "D", d_.view()});
    if (options_.bidirectional) out.push_back({prefix + "C_back", c_back_.view()});
  }
  void copy_to(S4LayerBase& other) const {
    other.log_dt_ = log_dt_.clone(), other.log_a_real_ = log_a_real_.clone();
    other.a_imag_ = a_imag_.clone(), other.c_ = c_.clone(), other.d_ = d_.clone();
    if (options_.bidirectional) other.c_back_ = c_back_.clone();
  }

  [[nodiscard]] Shape<2> mode_shape() const { return {dim_, options_.modes}; }

  /// dt and A as they are used.
  struct Values {
    NdArray<std::complex<T>, 2> a;
    NdArray<T, 1> dt;
  };
  [[nodiscard]] Values values() const {
    Values v{NdArray<std::complex<T>, 2>(mode_shape()), NdArray<T, 1>({dim_})};
    for (Index i = 0; i < v.a.size(); ++i) {
      v.a.data()[i] = {-std::exp(log_a_real_[i]), a_imag_[i]};
    }
    for (Index k = 0; k < dim_; ++k) v.dt(k) = std::exp(log_dt_[k]);
    return v;
  }
  /// Adds what gradients of dt and A say of their parameters.
  void chain(const Values& v, const NdArray<std::complex<T>, 2>& da, const NdArray<T, 1>& ddt,
             const nn::GradientsView<T>& to) const {
    for (Index k = 0; k < dim_; ++k) to[0][static_cast<std::size_t>(k)] += ddt(k) * v.dt(k);
    for (Index i = 0; i < da.size(); ++i) {
      to[1][static_cast<std::size_t>(i)] += da.data()[i].real() * v.a.data()[i].real();
      to[2][static_cast<std::size_t>(i)] += da.data()[i].imag();
    }
  }

  Index dim_;
  S4LayerOptions options_;
  nn::Tensor<T> log_dt_, log_a_real_, a_imag_, c_, c_back_, d_;
};

}  // namespace detail

/// S4D as a layer. Parameters log_dt (dim), log_A_real and A_imag (dim, modes), C (dim, modes, 2),
/// D (dim), and C_back. ValueError for sizes below 1 and dt_min not above 0.
template <class T>
class S4dLayer final : public detail::S4LayerBase<T> {
  using Base = detail::S4LayerBase<T>;

 public:
  explicit S4dLayer(Index dim, const S4LayerOptions& options = {})
      : Base("quern::ssm::S4dLayer", dim, options) {
    this->initialize(0);
  }

  [[nodiscard]] std::string_view type() const override { return "quern::ssm::S4dLayer"; }
  void parameters(nn::ParameterList<T>& out, const std::string& prefix) override {
    this->slow_parameters(out, prefix);
    this->output_parameters(out, prefix);
  }
  void initialize(std::uint64_t seed, const std::string& prefix = {}) override {
    this->set_poles(s4d_poles(this->options_.start, this->options_.modes));
    this->draw(seed, prefix);
  }
  [[nodiscard]] std::unique_ptr<nn::Layer<T>> clone() const override {
    auto copy = std::make_unique<S4dLayer>(this->dim_, this->options_);
    this->copy_to(*copy);
    return copy;
  }
  void step(nn::TensorView<const T> in, nn::TensorView<T> out,
            nn::SequenceState<T>& state) const override {
    auto& mine =
        detail::state_of<T, std::complex<T>>(type(), state, this->dim_ * this->options_.modes);
    this->check_step(in, out, mine.batch(), this->dim_, this->dim_);
    const auto& stepper = mine.template constants<S4dStepper<T>>([&] {
      const auto v = this->values();
      return S4dStepper<T>(view(v), options(0));
    });
    stepper.step(in.template as<2>(), mine.values(), out.template as<2>());
  }

 protected:
  void compute(nn::TensorView<const T> in, nn::TensorView<T> out,
               nn::Cache<T>& cache) const override {
    const auto v = this->values();
    s4d<T>(in.template as<3>(), view(v), {}, out.template as<3>(), {},
           options(cache.context.threads));
  }
  void differentiate(nn::TensorView<const T> dout, nn::TensorView<T> din, nn::Cache<T>& cache,
                     nn::GradientsView<T> to) const override {
    const auto v = this->values();
    NdArray<std::complex<T>, 2> da(this->mode_shape());
    NdArray<T, 1> ddt({this->dim_});
    S4dGradients<T> g;
    if (!to.null()) {
      g = {.a = da.view(),
           .c = detail::as_complex(to[3], this->mode_shape()),
           .dt = ddt.view(),
           .d = detail::as_real(to[4], Shape<1>{this->dim_})};
      if (this->options_.bidirectional) g.c_back = detail::as_complex(to[5], this->mode_shape());
    }
    s4d_vjp<T>(cache.input.template as<3>(), view(v), {}, dout.template as<3>(), {},
               din.null() ? NdView<T, 3>() : din.template as<3>(), g, {},
               options(cache.context.threads));
    if (!to.null()) this->chain(v, da, ddt, to);
  }

 private:
  [[nodiscard]] S4dParameters<T> view(const typename Base::Values& v) const {
    S4dParameters<T> p{.a = v.a.view(),
                       .c = detail::as_complex(this->c_, this->mode_shape()),
                       .dt = v.dt.view(),
                       .d = detail::as_real(this->d_, Shape<1>{this->dim_})};
    if (this->options_.bidirectional) {
      p.c_back = detail::as_complex(this->c_back_, this->mode_shape());
    }
    return p;
  }
  [[nodiscard]] S4dOptions options(int threads) const {
    return {.discretization = this->options_.discretization, .threads = threads};
  }
};

/// S4 as a layer: starts as LegS (or another measure's) normal-plus-low-rank form in every channel.
/// Parameters as S4dLayer, and P (dim, rank, modes, 2), B (dim, modes, 2).
template <class T>
class S4Layer final : public detail::S4LayerBase<T> {
  using Base = detail::S4LayerBase<T>;

 public:
  explicit S4Layer(Index dim, const S4LayerOptions& options = {})
      : Base("quern::ssm::S4Layer", dim, options) {
    rank_ = normal_plus_low_rank(options.measure, 2 * options.modes).p.extent(0);
    p_.resize({dim, rank_, options.modes, 2});
    b_.resize({dim, options.modes, 2});
    this->initialize(0);
  }

  [[nodiscard]] std::string_view type() const override { return "quern::ssm::S4Layer"; }
  void parameters(nn::ParameterList<T>& out, const std::string& prefix) override {
    this->slow_parameters(out, prefix);
    this->output_parameters(out, prefix);
    out.push_back({.name = prefix + "P", .values = p_.view(), .decay = false, .lr_scale = 0.1});
    out.push_back({.name = prefix + "B", .values = b_.view(), .decay = false, .lr_scale = 0.1});
  }
  void initialize(std::uint64_t seed, const std::string& prefix = {}) override {
    const NormalPlusLowRank form =
        normal_plus_low_rank(this->options_.measure, 2 * this->options_.modes);
    this->set_poles(form.w);
    this->draw(seed, prefix);
    const Index modes = this->options_.modes;
    const auto put = [](nn::Tensor<T>& to, Index at, std::complex<double> z) {
      to[2 * at] = static_cast<T>(z.real());
      to[2 * at + 1] = static_cast<T>(z.imag());
    };
    for (Index k = 0; k < this->dim_; ++k) {
      for (Index n = 0; n < modes; ++n) {
        put(b_, k * modes + n, form.b[static_cast<std::size_t>(n)]);
        for (Index r = 0; r < rank_; ++r) put(p_, (k * rank_ + r) * modes + n, form.p(r, n));
      }
    }
  }
  [[nodiscard]] std::unique_ptr<nn::Layer<T>> clone() const override {
    auto copy = std::make_unique<S4Layer>(this->dim_, this->options_);
    this->copy_to(*copy);
    copy->p_ = p_.clone();
    copy->b_ = b_.clone();
    return copy;
  }
  void step(nn::TensorView<const T> in, nn::TensorView<T> out,
            nn::SequenceState<T>& state) const override {
    auto& mine =
        detail::state_of<T, std::complex<T>>(type(), state, this->dim_ * this->options_.modes);
    this->check_step(in, out, mine.batch(), this->dim_, this->dim_);
    const auto& stepper = mine.template constants<S4Stepper<T>>([&] {
      const auto v = this->values();
      return S4Stepper<T>(view(v));
    });
    stepper.step(in.template as<2>(), mine.values(), out.template as<2>());
  }

 protected:
  void compute(nn::TensorView<const T> in, nn::TensorView<T> out,
               nn::Cache<T>& cache) const override {
    const auto v = this->values();
    s4<T>(in.template as<3>(), view(v), {}, out.template as<3>(), {},
          {.threads = cache.context.threads});
  }
  void differentiate(nn::TensorView<const T> dout, nn::TensorView<T> din, nn::Cache<T>& cache,
                     nn::GradientsView<T> to) const override {
    const auto v = this->values();
    NdArray<std::complex<T>, 2> da(this->mode_shape());
    NdArray<T, 1> ddt({this->dim_});
    S4Gradients<T> g;
    if (!to.null()) {
      const bool both = this->options_.bidirectional;
      const std::size_t next = both ? 6 : 5;
      g = {.lambda = da.view(),
           .p = detail::as_complex(to[next], low_rank_shape()),
           .b = detail::as_complex(to[next + 1], this->mode_shape()),
           .c = detail::as_complex(to[3], this->mode_shape()),
           .dt = ddt.view(),
           .d = detail::as_real(to[4], Shape<1>{this->dim_})};
      if (both) g.c_back = detail::as_complex(to[5], this->mode_shape());
    }
    s4_vjp<T>(cache.input.template as<3>(), view(v), {}, dout.template as<3>(), {},
              din.null() ? NdView<T, 3>() : din.template as<3>(), g, {},
              {.threads = cache.context.threads});
    if (!to.null()) this->chain(v, da, ddt, to);
  }

 private:
  [[nodiscard]] Shape<3> low_rank_shape() const {
    return {this->dim_, rank_, this->options_.modes};
  }
  [[nodiscard]] S4Parameters<T> view(const typename Base::Values& v) const {
    S4Parameters<T> p{.lambda = v.a.view(),
                      .p = detail::as_complex(p_, low_rank_shape()),
                      .b = detail::as_complex(b_, this->mode_shape()),
                      .c = detail::as_complex(this->c_, this->mode_shape()),
                      .dt = v.dt.view(),
                      .d = detail::as_real(this->d_, Shape<1>{this->dim_})};
    if (this->options_.bidirectional) {
      p.c_back = detail::as_complex(this->c_back_, this->mode_shape());
    }
    return p;
  }

  Index rank_ = 0;
  nn::Tensor<T> p_, b_;
};

}  // namespace ssm
QUERN_NAMESPACE_END

#endif  // QUERN_SSM_S4_LAYERS_HPP
