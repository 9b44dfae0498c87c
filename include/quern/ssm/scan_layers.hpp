// SPDX-License-Identifier: Apache-2.0

/// \file
/// S5 and the linear recurrent unit as layers: mixers from (batch, length, dim) to the same with
/// one state space for all channels.
///
/// Parameter groups are the papers': what moves the states (poles, steps, B) at a quarter of the
/// rate and without weight decay, C and D as the rest.

#ifndef QUERN_SSM_SCAN_LAYERS_HPP
#define QUERN_SSM_SCAN_LAYERS_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/random.hpp"
#include "quern/nn/sequence_layer.hpp"
#include "quern/ssm/hippo.hpp"
#include "quern/ssm/layer_state.hpp"
#include "quern/ssm/lru.hpp"
#include "quern/ssm/s5.hpp"

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <numbers>
#include <string>
#include <string_view>

QUERN_NAMESPACE_BEGIN
namespace ssm {

/// Options of S5Layer.
struct S5LayerOptions {
  Index states = 64;  ///< conjugate pairs
  Index blocks = 1;   ///< the poles are so many copies of those of a smaller LegS
  double dt_min = 1e-3, dt_max = 1e-1;
  bool bidirectional = false;  ///< further states run from the end; then there are no steps
  DiscretizationOptions discretization = {Discretization::zero_order_hold};
};

/// Options of LruLayer.
struct LruLayerOptions {
  Index states = 64;
  double r_min = 0, r_max = 1;              ///< moduli of the poles at the start
  double max_phase = 2 * std::numbers::pi;  ///< and their largest phase
};

namespace detail {

template <class T>
nn::Parameter<T> slow_parameter(const std::string& name, nn::Tensor<T>& x) {
  return {.name = name, .values = x.view(), .decay = false, .lr_scale = 0.25};
}

}  // namespace detail

/// S5 as a layer. Parameters Lambda_re, Lambda_im, log_step (states), B (states, dim, 2), C (dim,
/// states or 2 states, 2), D (dim). Poles that training moves to the right of the imaginary axis
/// count as on it. ValueError for sizes below 1, for states that the blocks do not divide, and for
/// dt_min not above 0.
template <class T>
class S5Layer final : public nn::SequenceLayer<T> {
 public:
  explicit S5Layer(Index dim, const S5LayerOptions& options = {}) : dim_(dim), options_(options) {
    detail::expect_positive(type(), "dim", dim);
    detail::expect_positive(type(), "states", options.states);
    detail::expect_positive(type(), "blocks", options.blocks);
    if (options.states % options.blocks != 0) {
      throw ValueError(error_text(type(), "states", "a multiple of blocks", options.states));
    }
    if (!(options.dt_min > 0 && options.dt_max >= options.dt_min)) {
      throw ValueError(
          error_text(type(), "dt_min, dt_max", "0 < dt_min <= dt_max", options.dt_min));
    }
    lambda_re_.resize({options.states});
    lambda_im_.resize({options.states});
    log_step_.resize({options.states});
    b_.resize({options.states, dim, 2});
    c_.resize({dim, readouts(), 2});
    d_.resize({dim});
    this->initialize(0);
  }

  [[nodiscard]] std::string_view type() const override { return "quern::ssm::S5Layer"; }
  [[nodiscard]] nn::Extents output_shape(const nn::Extents& in) const override {
    return detail::sequence_shape(type(), in, dim_);
  }
  void parameters(nn::ParameterList<T>& out, const std::string& prefix) override {
    out.push_back(detail::slow_parameter(prefix + "Lambda_re", lambda_re_));
    out.push_back(detail::slow_parameter(prefix + "Lambda_im", lambda_im_));
    out.push_back(detail::slow_parameter(prefix + "log_step", log_step_));
    out.push_back(detail::slow_parameter(prefix + "B", b_));
    out.push_back({prefix + "C", c_.view()});
    out.push_back({prefix + "D", d_.view()});
  }
  /// LegS's normal part in each block; B and C drawn for real states and turned to its
  /// eigenvectors.
  void initialize(std::uint64_t seed, const std::string& prefix = {}) override {
    const Index each = options_.states / options_.blocks;
    const NormalPlusLowRank form = normal_plus_low_rank(Measure::legsd, 2 * each);
    detail::draw_log_steps(log_step_, seed, prefix + "log_step", options_.dt_min, options_.dt_max);
    detail::draw_normal(d_, seed, prefix + "D", 1);
    Philox random_b(seed, prefix + "B"), random_c(seed, prefix + "C");
    const double b_scale = 1 / std::sqrt(static_cast<double>(dim_));
    const double c_scale = 1 / std::sqrt(2.0 * static_cast<double>(each));
    for (Index p = 0; p < options_.states; ++p) {
      const auto pole = form.w[static_cast<std::size_t>(p % each)];
      lambda_re_[p] = static_cast<T>(pole.real());
      lambda_im_[p] = static_cast<T>(pole.imag());
    }
    for (Index block = 0; block < options_.blocks; ++block) {
      for (Index h = 0; h < dim_; ++h) {
        turn(form, random_b, b_scale, true,
             [&](Index n, std::complex<double> z) { put(b_, (block * each + n) * dim_ + h, z); });
      }
    }
    for (Index h = 0; h < dim_; ++h) {
      for (Index first = 0; first < readouts(); first += each) {
        turn(form, random_c, c_scale, false,
             [&](Index n, std::complex<double> z) { put(c_, h * readouts() + first + n, z); });
      }
    }
  }
  [[nodiscard]] std::unique_ptr<nn::Layer<T>> clone() const override {
    auto copy = std::make_unique<S5Layer>(dim_, options_);
    copy->lambda_re_ = lambda_re_.clone(), copy->lambda_im_ = lambda_im_.clone();
    copy->log_step_ = log_step_.clone(), copy->b_ = b_.clone();
    copy->c_ = c_.clone(), copy->d_ = d_.clone();
    return copy;
  }
  [[nodiscard]] std::unique_ptr<nn::SequenceState<T>> make_state(Index batch) const override {
    if (options_.bidirectional) {
      throw ValueError(
          error_text(type(), "make_state", "a layer of one direction", "a bidirectional one"));
    }
    return std::make_unique<LayerState<T, std::complex<T>>>(type(), batch, options_.states);
  }
  void step(nn::TensorView<const T> in, nn::TensorView<T> out,
            nn::SequenceState<T>& state) const override {
    auto& mine = detail::state_of<T, std::complex<T>>(type(), state, options_.states);
    this->check_step(in, out, mine.batch(), dim_, dim_);
    const Values v = values();
    s5_step<T>(in.template as<2>(), view(v), mine.values(), out.template as<2>(), options(0));
  }

 protected:
  void compute(nn::TensorView<const T> in, nn::TensorView<T> out,
               nn::Cache<T>& cache) const override {
    const Values v = values();
    s5<T>(in.template as<3>(), view(v), {}, out.template as<3>(), {},
          options(cache.context.threads));
  }
  void differentiate(nn::TensorView<const T> dout, nn::TensorView<T> din, nn::Cache<T>& cache,
                     nn::GradientsView<T> to) const override {
    const Values v = values();
    NdArray<std::complex<T>, 1> dlambda({options_.states});
    NdArray<T, 1> ddt({options_.states});
    S5Gradients<T> g;
    if (!to.null()) {
      g = {.lambda = dlambda.view(),
           .b = detail::as_complex(to[3], Shape<2>{options_.states, dim_}),
           .c = detail::as_complex(to[4], Shape<2>{dim_, readouts()}),
           .dt = ddt.view(),
           .d = detail::as_real(to[5], Shape<1>{dim_})};
    }
    s5_vjp<T>(cache.input.template as<3>(), view(v), {}, dout.template as<3>(), {},
              din.null() ? NdView<T, 3>() : din.template as<3>(), g, {},
              options(cache.context.threads));
    for (Index p = 0; p < options_.states && !to.null(); ++p) {
      const auto at = static_cast<std::size_t>(p);
      to[0][at] += dlambda(p).real();
      to[1][at] += dlambda(p).imag();
      to[2][at] += ddt(p) * v.dt(p);
    }
  }

 private:
  struct Values {
    NdArray<std::complex<T>, 1> lambda;
    NdArray<T, 1> dt;
  };

  [[nodiscard]] Index readouts() const {
    return options_.bidirectional ? 2 * options_.states : options_.states;
  }
  static void put(nn::Tensor<T>& to, Index at, std::complex<double> z) {
    to[2 * at] = static_cast<T>(z.real());
    to[2 * at + 1] = static_cast<T>(z.imag());
  }
  /// V^* x or x^T V for a real random x of the block.
  template <class Store>
  static void turn(const NormalPlusLowRank& form, Philox& random, double scale, bool conjugate,
                   Store&& store) {
    const Index order = form.v.extent(0);
    std::vector<std::complex<double>> sums(form.w.size());
    for (Index i = 0; i < order; ++i) {
      const double x = scale * random.normal();
      for (Index n = 0; n < order / 2; ++n) {
        const auto v = form.v(i, n);
        sums[static_cast<std::size_t>(n)] += x * (conjugate ? std::conj(v) : v);
      }
    }
    for (Index n = 0; n < order / 2; ++n) store(n, sums[static_cast<std::size_t>(n)]);
  }
  [[nodiscard]] Values values() const {
    Values v{NdArray<std::complex<T>, 1>({options_.states}), NdArray<T, 1>({options_.states})};
    for (Index p = 0; p < options_.states; ++p) {
      v.lambda(p) = {lambda_re_[p], lambda_im_[p]};
      v.dt(p) = std::exp(log_step_[p]);
    }
    return v;
  }
  [[nodiscard]] S5Parameters<T> view(const Values& v) const {
    return {.lambda = v.lambda.view(),
            .b = detail::as_complex(b_, Shape<2>{options_.states, dim_}),
            .c = detail::as_complex(c_, Shape<2>{dim_, readouts()}),
            .dt = v.dt.view(),
            .d = detail::as_real(d_, Shape<1>{dim_})};
  }
  [[nodiscard]] S5Options options(int threads) const {
    return {.discretization = options_.discretization, .clip_poles = true, .threads = threads};
  }

  Index dim_;
  S5LayerOptions options_;
  nn::Tensor<T> lambda_re_, lambda_im_, log_step_, b_, c_, d_;
};

/// The linear recurrent unit as a layer. Parameters nu_log, theta_log, gamma_log (states), B
/// (states, dim, 2), C (dim, states, 2), D (dim). ValueError for sizes below 1 and moduli that are
/// not 0 <= r_min < r_max <= 1.
template <class T>
class LruLayer final : public nn::SequenceLayer<T> {
 public:
  explicit LruLayer(Index dim, const LruLayerOptions& options = {}) : dim_(dim), options_(options) {
    detail::expect_positive(type(), "dim", dim);
    detail::expect_positive(type(), "states", options.states);
    if (!(options.r_min >= 0 && options.r_min < options.r_max && options.r_max <= 1)) {
      throw ValueError(
          error_text(type(), "r_min, r_max", "0 <= r_min < r_max <= 1", options.r_min));
    }
    for (nn::Tensor<T>* x : {&nu_log_, &theta_log_, &gamma_log_}) x->resize({options.states});
    b_.resize({options.states, dim, 2});
    c_.resize({dim, options.states, 2});
    d_.resize({dim});
    this->initialize(0);
  }

  [[nodiscard]] std::string_view type() const override { return "quern::ssm::LruLayer"; }
  [[nodiscard]] nn::Extents output_shape(const nn::Extents& in) const override {
    return detail::sequence_shape(type(), in, dim_);
  }
  void parameters(nn::ParameterList<T>& out, const std::string& prefix) override {
    out.push_back(detail::slow_parameter(prefix + "nu_log", nu_log_));
    out.push_back(detail::slow_parameter(prefix + "theta_log", theta_log_));
    out.push_back(detail::slow_parameter(prefix + "gamma_log", gamma_log_));
    out.push_back(detail::slow_parameter(prefix + "B", b_));
    out.push_back({prefix + "C", c_.view()});
    out.push_back({prefix + "D", d_.view()});
  }
  /// Poles uniform on the ring, rows of B scaled so that states have the variance of inputs.
  void initialize(std::uint64_t seed, const std::string& prefix = {}) override {
    Philox moduli(seed, prefix + "nu_log"), phases(seed, prefix + "theta_log");
    const double low = options_.r_min * options_.r_min, high = options_.r_max * options_.r_max;
    for (Index p = 0; p < options_.states; ++p) {
      const double square =
          (std::clamp)(low + (high - low) * moduli.uniform<double>(), 1e-12, 1 - 1e-12);
      const double phase = (std::max)(options_.max_phase * phases.uniform<double>(), 1e-6);
      nu_log_[p] = static_cast<T>(std::log(-0.5 * std::log(square)));
      theta_log_[p] = static_cast<T>(std::log(phase));
      gamma_log_[p] = static_cast<T>(0.5 * std::log1p(-square));
    }
    detail::draw_normal(b_, seed, prefix + "B", 1 / std::sqrt(2.0 * static_cast<double>(dim_)));
    detail::draw_normal(c_, seed, prefix + "C",
                        1 / std::sqrt(static_cast<double>(options_.states)));
    detail::draw_normal(d_, seed, prefix + "D", 1);
  }
  [[nodiscard]] std::unique_ptr<nn::Layer<T>> clone() const override {
    auto copy = std::make_unique<LruLayer>(dim_, options_);
    copy->nu_log_ = nu_log_.clone(), copy->theta_log_ = theta_log_.clone();
    copy->gamma_log_ = gamma_log_.clone(), copy->b_ = b_.clone();
    copy->c_ = c_.clone(), copy->d_ = d_.clone();
    return copy;
  }
  [[nodiscard]] std::unique_ptr<nn::SequenceState<T>> make_state(Index batch) const override {
    return std::make_unique<LayerState<T, std::complex<T>>>(type(), batch, options_.states);
  }
  void step(nn::TensorView<const T> in, nn::TensorView<T> out,
            nn::SequenceState<T>& state) const override {
    auto& mine = detail::state_of<T, std::complex<T>>(type(), state, options_.states);
    this->check_step(in, out, mine.batch(), dim_, dim_);
    lru_step<T>(in.template as<2>(), view(), mine.values(), out.template as<2>());
  }

 protected:
  void compute(nn::TensorView<const T> in, nn::TensorView<T> out,
               nn::Cache<T>& cache) const override {
    lru<T>(in.template as<3>(), view(), {}, out.template as<3>(), {},
           {.threads = cache.context.threads});
  }
  void differentiate(nn::TensorView<const T> dout, nn::TensorView<T> din, nn::Cache<T>& cache,
                     nn::GradientsView<T> to) const override {
    LruGradients<T> g;
    if (!to.null()) {
      const Shape<1> states = {options_.states};
      g = {.nu_log = detail::as_real(to[0], states),
           .theta_log = detail::as_real(to[1], states),
           .gamma_log = detail::as_real(to[2], states),
           .b = detail::as_complex(to[3], Shape<2>{options_.states, dim_}),
           .c = detail::as_complex(to[4], Shape<2>{dim_, options_.states}),
           .d = detail::as_real(to[5], Shape<1>{dim_})};
    }
    lru_vjp<T>(cache.input.template as<3>(), view(), {}, dout.template as<3>(), {},
               din.null() ? NdView<T, 3>() : din.template as<3>(), g, {},
               {.threads = cache.context.threads});
  }

 private:
  [[nodiscard]] LruParameters<T> view() const {
    const Shape<1> states = {options_.states};
    return {.nu_log = detail::as_real(nu_log_, states),
            .theta_log = detail::as_real(theta_log_, states),
            .gamma_log = detail::as_real(gamma_log_, states),
            .b = detail::as_complex(b_, Shape<2>{options_.states, dim_}),
            .c = detail::as_complex(c_, Shape<2>{dim_, options_.states}),
            .d = detail::as_real(d_, Shape<1>{dim_})};
  }

  Index dim_;
  LruLayerOptions options_;
  nn::Tensor<T> nu_log_, theta_log_, gamma_log_, b_, c_, d_;
};

}  // namespace ssm
QUERN_NAMESPACE_END

#endif  // QUERN_SSM_SCAN_LAYERS_HPP
