// SPDX-License-Identifier: Apache-2.0

/// \file
/// Rational transfer functions as a layer: a mixer from (batch, length, dim) to the same.

#ifndef QUERN_SSM_RTF_LAYER_HPP
#define QUERN_SSM_RTF_LAYER_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/nn/sequence_layer.hpp"
#include "quern/ssm/layer_state.hpp"
#include "quern/ssm/rtf.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

QUERN_NAMESPACE_BEGIN
namespace ssm {

/// Options of RtfLayer.
struct RtfLayerOptions {
  Index order = 16;  ///< of numerator and denominator
};

/// Parameters a and b (dim, order), without weight decay as the paper has it, and h0 (dim). The
/// denominator starts as 1 (all memory learnt); one that training makes unstable is drawn into the
/// unit circle. b is the recurrence's own, so sequences may have any length. ValueError for sizes
/// below 1.
template <class T>
class RtfLayer final : public nn::SequenceLayer<T> {
 public:
  explicit RtfLayer(Index dim, const RtfLayerOptions& options = {}) : dim_(dim), options_(options) {
    detail::expect_positive(type(), "dim", dim);
    detail::expect_positive(type(), "order", options.order);
    a_.resize({dim, options.order});
    b_.resize({dim, options.order});
    h0_.resize({dim});
    this->initialize(0);
  }

  [[nodiscard]] std::string_view type() const override { return "quern::ssm::RtfLayer"; }
  [[nodiscard]] nn::Extents output_shape(const nn::Extents& in) const override {
    return detail::sequence_shape(type(), in, dim_);
  }
  void parameters(nn::ParameterList<T>& out, const std::string& prefix) override {
    out.push_back({.name = prefix + "a", .values = a_.view(), .decay = false});
    out.push_back({.name = prefix + "b", .values = b_.view(), .decay = false});
    out.push_back({prefix + "h0", h0_.view()});
  }
  void initialize(std::uint64_t seed, const std::string& prefix = {}) override {
    std::fill(a_.span().begin(), a_.span().end(), T{0});
    const double scale = 1 / std::sqrt(static_cast<double>(options_.order));
    detail::draw_normal(b_, seed, prefix + "b", scale);
    detail::draw_normal(h0_, seed, prefix + "h0", 1);
  }
  [[nodiscard]] std::unique_ptr<nn::Layer<T>> clone() const override {
    auto copy = std::make_unique<RtfLayer>(dim_, options_);
    copy->a_ = a_.clone(), copy->b_ = b_.clone(), copy->h0_ = h0_.clone();
    return copy;
  }
  [[nodiscard]] std::unique_ptr<nn::SequenceState<T>> make_state(Index batch) const override {
    return std::make_unique<LayerState<T, T>>(type(), batch, dim_ * options_.order);
  }
  void step(nn::TensorView<const T> in, nn::TensorView<T> out,
            nn::SequenceState<T>& state) const override {
    auto& mine = detail::state_of<T, T>(type(), state, dim_ * options_.order);
    this->check_step(in, out, mine.batch(), dim_, dim_);
    rtf_step<T>(in.template as<2>(), view(), mine.values(), out.template as<2>(),
                {.clip_poles = true});
  }

 protected:
  void compute(nn::TensorView<const T> in, nn::TensorView<T> out,
               nn::Cache<T>& cache) const override {
    rtf<T>(in.template as<3>(), view(), {}, out.template as<3>(), {},
           {.clip_poles = true, .threads = cache.context.threads});
  }
  void differentiate(nn::TensorView<const T> dout, nn::TensorView<T> din, nn::Cache<T>& cache,
                     nn::GradientsView<T> to) const override {
    RtfGradients<T> g;
    if (!to.null()) {
      g = {.a = detail::as_real(to[0], shape()),
           .b = detail::as_real(to[1], shape()),
           .h0 = detail::as_real(to[2], Shape<1>{dim_})};
    }
    rtf_vjp<T>(cache.input.template as<3>(), view(), {}, dout.template as<3>(), {},
               din.null() ? NdView<T, 3>() : din.template as<3>(), g, {},
               {.clip_poles = true, .threads = cache.context.threads});
  }

 private:
  [[nodiscard]] Shape<2> shape() const { return {dim_, options_.order}; }
  [[nodiscard]] RtfParameters<T> view() const {
    return {.a = detail::as_real(a_, shape()),
            .b = detail::as_real(b_, shape()),
            .h0 = detail::as_real(h0_, Shape<1>{dim_})};
  }

  Index dim_;
  RtfLayerOptions options_;
  nn::Tensor<T> a_, b_, h0_;
};

}  // namespace ssm
QUERN_NAMESPACE_END

#endif  // QUERN_SSM_RTF_LAYER_HPP
