// SPDX-License-Identifier: Apache-2.0

/// \file
/// Normalisation of channels: batch norm (Ioffe and Szegedy, arXiv:1502.03167) and group norm (Wu
/// and He, arXiv:1803.08494; with one group a channel it is instance norm).

#ifndef QUERN_NN_CHANNEL_NORM_HPP
#define QUERN_NN_CHANNEL_NORM_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/nn/detail/channel_norm.hpp"
#include "quern/nn/layer.hpp"
#include "quern/nn/layout.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace nn {

/// Options of BatchNorm and GroupNorm.
struct ChannelNormOptions {
  double eps = 1e-5;
  double momentum = 0.1;  ///< batch norm: share of the new in the running statistics
  bool affine = true;     ///< a weight (1 at first) and a bias (0) a channel
  Layout layout = Layout::channels_first;
};

namespace detail {

/// Weight and bias a channel, and checks.
template <class T>
class ChannelNorm : public Layer<T> {
 public:
  [[nodiscard]] Extents output_shape(const Extents& in) const override {
    const bool last = options_.layout == Layout::channels_last;
    if (in.size() < 2 || (last ? in.back() : in[1]) != channels_) {
      throw ShapeError(error_text(this->type(), "in",
                                  "two dimensions or more with " + std::to_string(channels_) +
                                      (last ? " channels at the end" : " channels at 1"),
                                  shape_text(in)));
    }
    return in;
  }
  void parameters(ParameterList<T>& out, const std::string& prefix) override {
    if (weight_.size() == 0) return;
    out.push_back({.name = prefix + "weight", .values = weight_.view(), .decay = false});
    out.push_back({.name = prefix + "bias", .values = bias_.view(), .decay = false});
  }
  void initialize(std::uint64_t /*seed*/, const std::string& /*prefix*/ = {}) override {
    std::fill(weight_.span().begin(), weight_.span().end(), T{1});
    std::fill(bias_.span().begin(), bias_.span().end(), T{});
  }
  [[nodiscard]] TensorView<T> weight() { return weight_.view(); }
  [[nodiscard]] TensorView<T> bias() { return bias_.view(); }

 protected:
  ChannelNorm(std::string_view type, Index channels, const ChannelNormOptions& options)
      : channels_(channels), options_(options) {
    if (channels < 1) throw ValueError(error_text(type, "channels", "at least 1", channels));
    if (!(options.eps >= 0) || !is_finite_bits(options.eps)) {
      throw ValueError(error_text(type, "eps", "a finite number of at least 0", options.eps));
    }
    expect_in_range(type, "momentum", options.momentum, 0.0, 1.0);
    if (options.affine) {
      weight_.resize({channels});
      bias_.resize({channels});
    }
    ChannelNorm::initialize(0);
  }
  ChannelNorm(const ChannelNorm& other)
      : Layer<T>(other),
        channels_(other.channels_),
        options_(other.options_),
        weight_(other.weight_.clone()),
        bias_(other.bias_.clone()) {}

  [[nodiscard]] double gain(Index c) const {
    return weight_.size() == 0 ? 1 : static_cast<double>(weight_[c]);
  }
  [[nodiscard]] T offset(Index c) const { return bias_.size() == 0 ? T{} : bias_[c]; }
  [[nodiscard]] bool last() const { return options_.layout == Layout::channels_last; }

  Index channels_;
  ChannelNormOptions options_;
  Tensor<T> weight_;
  Tensor<T> bias_;
};

}  // namespace detail

/// y = (x - mean) / sqrt(variance + eps) weight + bias for each channel of (N, C, …) or (N, …, C).
/// In training mean and variance (of the population) are the batch's (a shard's, where training is
/// cut into shards); in inference the running ones, which update() moves towards the shards'
/// moments taken together: r += momentum (new - r), with the unbiased variance, as PyTorch does.
/// ValueError for training with one value a channel.
template <class T>
class BatchNorm final : public detail::ChannelNorm<T> {
 public:
  explicit BatchNorm(Index channels, const ChannelNormOptions& options = {})
      : detail::ChannelNorm<T>("quern::nn::BatchNorm", channels, options) {
    mean_.resize({channels}, core::Fill::zero);
    variance_.resize({channels});
    batches_.resize(std::span<const Index>(), core::Fill::zero);
    std::fill(variance_.span().begin(), variance_.span().end(), T{1});
  }
  BatchNorm(const BatchNorm& other)
      : detail::ChannelNorm<T>(other),
        mean_(other.mean_.clone()),
        variance_(other.variance_.clone()),
        batches_(other.batches_.clone()) {}

  [[nodiscard]] TensorView<T> running_mean() { return mean_.view(); }
  [[nodiscard]] TensorView<T> running_variance() { return variance_.view(); }

  [[nodiscard]] std::string_view type() const override { return "quern::nn::BatchNorm"; }
  void buffers(ParameterList<T>& out, const std::string& prefix) override {
    out.push_back({prefix + "running_mean", mean_.view()});
    out.push_back({prefix + "running_var", variance_.view()});
    out.push_back(
        {.name = prefix + "num_batches_tracked", .values = batches_.view(), .integer = true});
  }
  void update(std::span<Cache<T>* const> shards) override {
    bool any = false;
    for (Index c = 0; c < this->channels_; ++c) {
      detail::Moments all;
      for (Cache<T>* const shard : shards) {
        const Saved& saved = shard->template saved<Saved>();
        if (!saved.moments.empty()) all.merge(saved.moments[static_cast<std::size_t>(c)]);
      }
      if (all.count == 0) continue;
      any = true;
      const double unbiased = all.deviation / (all.count > 1 ? all.count - 1 : 1);
      move(mean_[c], all.mean);
      move(variance_[c], unbiased);
    }
    if (any) batches_[0] += T{1};
  }
  [[nodiscard]] std::unique_ptr<Layer<T>> clone() const override {
    return std::make_unique<BatchNorm>(*this);
  }

 protected:
  void compute(TensorView<const T> in, TensorView<T> out, Cache<T>& cache) const override {
    const detail::ChannelParts parts = detail::channel_parts(in, this->last(), false);
    const Index channels = this->channels_;
    Tensor<T>& mean = cache.tensor(0, {channels});
    Tensor<T>& scale = cache.tensor(1, {channels});
    std::vector<detail::Moments>& moments = cache.template saved<Saved>().moments;
    moments.clear();
    if (cache.keep()) {
      if (parts.total == 1) {
        throw ValueError(error_text(type(), "in", "more than one value a channel in training",
                                    shape_text(in.extents())));
      }
      moments = batch_moments(in, parts, cache.context.threads);
    }
    std::vector<T> a(static_cast<std::size_t>(channels)), b(a.size());
    for (Index c = 0; c < channels; ++c) {
      const auto at = static_cast<std::size_t>(c);
      mean[c] = cache.keep() ? static_cast<T>(moments[at].mean) : mean_[c];
      const double variance =
          cache.keep() ? moments[at].variance() : static_cast<double>(variance_[c]);
      scale[c] = static_cast<T>(1 / std::sqrt(variance + this->options_.eps));
      a[at] = static_cast<T>(this->gain(c) / std::sqrt(variance + this->options_.eps));
      b[at] = this->offset(c);
    }
    detail::apply_norm<T>(in.data(), mean.data(), a.data(), b.data(), 0, out.data(), parts,
                          cache.context.threads);
  }

  void differentiate(TensorView<const T> dout, TensorView<T> din, Cache<T>& cache,
                     GradientsView<T> gradients) const override {
    const detail::ChannelParts parts = detail::channel_parts(dout, this->last(), false);
    const Tensor<T>& mean = cache.tensor(0);
    const Tensor<T>& scale = cache.tensor(1);
    const T* const x = cache.input.data();
    const int threads = cache.context.threads;
    const auto sums = detail::part_gradient_sums<T>(x, dout.data(), mean.data(), 0, parts, threads);
    const auto channels = static_cast<std::size_t>(this->channels_);
    std::vector<T> a(channels), b(channels), c(channels);
    for (std::size_t k = 0; k < channels; ++k) {
      detail::GradientSums total;
      for (std::size_t at = k; at < sums.size(); at += channels) {
        total.plain += sums[at].plain;
        total.along += sums[at].along;
      }
      const double r = static_cast<double>(scale[static_cast<Index>(k)]);
      const double ar = this->gain(static_cast<Index>(k)) * r;
      const double n = static_cast<double>(parts.total);
      a[k] = static_cast<T>(ar);
      b[k] = static_cast<T>(-ar * r * r * total.along / n);
      c[k] = static_cast<T>(-ar * total.plain / n);
      if (gradients.null() || this->weight_.size() == 0) continue;
      gradients[0][k] += static_cast<T>(total.along * r);
      gradients[1][k] += static_cast<T>(total.plain);
    }
    if (din.null()) return;
    detail::apply_norm_gradient<T>(x, dout.data(), mean.data(), a.data(), b.data(), c.data(), 0,
                                   din.data(), parts, threads);
  }

 private:
  struct Saved {
    std::vector<detail::Moments> moments;
  };

  static std::vector<detail::Moments> batch_moments(const TensorView<const T>& in,
                                                    const detail::ChannelParts& parts,
                                                    int threads) {
    const auto all = detail::part_moments<T>(in.data(), parts, threads);
    std::vector<detail::Moments> moments(static_cast<std::size_t>(parts.channels));
    for (std::size_t at = 0; at < all.size(); ++at) moments[at % moments.size()].merge(all[at]);
    return moments;
  }
  void move(T& running, double fresh) const {
    const double before = static_cast<double>(running);
    running = static_cast<T>(before + this->options_.momentum * (fresh - before));
  }

  Tensor<T> mean_;
  Tensor<T> variance_;
  Tensor<T> batches_;
};

/// The same with mean and variance over each image and group of adjacent channels: no running
/// statistics, training and inference agree. groups = channels: instance norm; 1: all channels.
template <class T>
class GroupNorm final : public detail::ChannelNorm<T> {
 public:
  /// ValueError unless groups divides channels.
  GroupNorm(Index groups, Index channels, const ChannelNormOptions& options = {})
      : detail::ChannelNorm<T>("quern::nn::GroupNorm", channels, options), groups_(groups) {
    if (groups < 1 || channels % groups != 0) {
      throw ValueError(error_text(type(), "groups", "a divisor of the channels", groups));
    }
  }
  GroupNorm(const GroupNorm& other) = default;

  [[nodiscard]] std::string_view type() const override { return "quern::nn::GroupNorm"; }
  [[nodiscard]] std::unique_ptr<Layer<T>> clone() const override {
    return std::make_unique<GroupNorm>(*this);
  }

 protected:
  void compute(TensorView<const T> in, TensorView<T> out, Cache<T>& cache) const override {
    const detail::ChannelParts parts = image_parts(in);
    const Index channels = this->channels_, each = channels / groups_;
    const auto all = detail::part_moments<T>(in.data(), parts, cache.context.threads);
    Tensor<T>& mean = cache.tensor(0, {parts.parts * channels});
    Tensor<T>& scale = cache.tensor(1, {parts.parts * channels});
    Tensor<T>& a = cache.tensor(2, {parts.parts * channels});
    Tensor<T>& b = cache.tensor(3, {parts.parts * channels});
    for (Index first = 0; first < parts.parts * channels; first += each) {
      detail::Moments group;
      for (Index k = first; k < first + each; ++k) group.merge(all[static_cast<std::size_t>(k)]);
      const double r = 1 / std::sqrt(group.variance() + this->options_.eps);
      for (Index k = first; k < first + each; ++k) {
        mean[k] = static_cast<T>(group.mean);
        scale[k] = static_cast<T>(r);
        a[k] = static_cast<T>(r * this->gain(k % channels));
        b[k] = this->offset(k % channels);
      }
    }
    detail::apply_norm<T>(in.data(), mean.data(), a.data(), b.data(), channels, out.data(), parts,
                          cache.context.threads);
  }

  void differentiate(TensorView<const T> dout, TensorView<T> din, Cache<T>& cache,
                     GradientsView<T> gradients) const override {
    const detail::ChannelParts parts = image_parts(dout);
    const Index channels = this->channels_, each = channels / groups_;
    const T* const x = cache.input.data();
    const T* const mean = cache.tensor(0).data();
    const Tensor<T>& scale = cache.tensor(1);
    const int threads = cache.context.threads;
    const auto sums = detail::part_gradient_sums<T>(x, dout.data(), mean, channels, parts, threads);
    Tensor<T>& b = cache.tensor(4, {parts.parts * channels});
    Tensor<T>& c = cache.tensor(5, {parts.parts * channels});
    const double n = static_cast<double>(parts.pixels * each);
    for (Index first = 0; first < parts.parts * channels; first += each) {
      detail::GradientSums total;
      const double r = static_cast<double>(scale[first]);
      for (Index k = first; k < first + each; ++k) {
        const detail::GradientSums& s = sums[static_cast<std::size_t>(k)];
        total.plain += s.plain * this->gain(k % channels);
        total.along += s.along * this->gain(k % channels);
      }
      for (Index k = first; k < first + each; ++k) {
        b[k] = static_cast<T>(-r * r * r * total.along / n);
        c[k] = static_cast<T>(-r * total.plain / n);
      }
    }
    if (!gradients.null() && this->weight_.size() > 0) add_parameters(sums, scale, gradients);
    if (din.null()) return;
    detail::apply_norm_gradient<T>(x, dout.data(), mean, cache.tensor(2).data(), b.data(), c.data(),
                                   channels, din.data(), parts, threads);
  }

 private:
  /// (N, C) is N images of one pixel here.
  template <class U>
  [[nodiscard]] detail::ChannelParts image_parts(const TensorView<U>& x) const {
    return detail::channel_parts(x, this->last(), true);
  }
  void add_parameters(const std::vector<detail::GradientSums>& sums, const Tensor<T>& scale,
                      GradientsView<T>& gradients) const {
    const auto channels = static_cast<std::size_t>(this->channels_);
    for (std::size_t k = 0; k < channels; ++k) {
      double gain = 0, offset = 0;
      for (std::size_t at = k; at < sums.size(); at += channels) {
        gain += sums[at].along * static_cast<double>(scale[static_cast<Index>(at)]);
        offset += sums[at].plain;
      }
      gradients[0][k] += static_cast<T>(gain);
      gradients[1][k] += static_cast<T>(offset);
    }
  }

  Index groups_;
};

}  // namespace nn
QUERN_NAMESPACE_END

#endif  // QUERN_NN_CHANNEL_NORM_HPP
