// SPDX-License-Identifier: Apache-2.0

/// \file
/// RWKV-6's time mixing as a layer: token shifts and decays that depend on the data through small
/// networks of low rank, the recurrence, a norm of each head, a silu gate.
///
/// B. Peng et al., "Eagle and Finch", 2024, section 4.2; names and initial values as in its
/// reference implementation (RWKV-v6).

#ifndef QUERN_SSM_RWKV6_MIXING_HPP
#define QUERN_SSM_RWKV6_MIXING_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/random.hpp"
#include "quern/kernels/activation_types.hpp"
#include "quern/nn/init.hpp"
#include "quern/nn/layer_norm.hpp"
#include "quern/nn/linear.hpp"
#include "quern/nn/sequence_layer.hpp"
#include "quern/ssm/detail/low_rank.hpp"
#include "quern/ssm/detail/mixer_state.hpp"
#include "quern/ssm/detail/row_work.hpp"
#include "quern/ssm/detail/rwkv_weights.hpp"
#include "quern/ssm/rwkv4_mixing.hpp"
#include "quern/ssm/rwkv6.hpp"
#include "quern/ssm/ssd.hpp"

#include <array>
#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

QUERN_NAMESPACE_BEGIN
namespace ssm {

/// Sizes of RWKV-6's time mixing; the paper's defaults.
struct Rwkv6Options {
  Index head_dim = 64;
  Index mix_rank = 32;    ///< of the networks of the five token shifts
  Index decay_rank = 64;  ///< of the network of decays
  double norm_eps = 64e-5;
  RwkvDepth depth = {};
};

/// (batch, length, dim) to the same. Only matrices take weight decay; time_decay learns at twice
/// the rate.
template <class T>
class Rwkv6Mixing final : public nn::SequenceLayer<T> {
 public:
  /// ValueError unless head_dim divides dim, and for sizes below 1.
  explicit Rwkv6Mixing(Index dim, const Rwkv6Options& options = {})
      : dim_(dim), options_(options), heads_(detail::rwkv_heads(type(), dim, options.head_dim)) {
    detail::check_depth(type(), options.depth);
    if (options.mix_rank < 1 || options.decay_rank < 1) {
      throw ValueError(error_text(type(), "ranks", "at least 1", 0));
    }
    const Index c = dim, low = options.mix_rank;
    for (const std::size_t n :
         {maa_x, maa_w, maa_k, maa_v, maa_r, maa_g, time_decay, bonus, gain, offset}) {
      w_[n].resize({c});
    }
    w_[maa_w1].resize({c, 5 * low});
    w_[maa_w2].resize({5, low, c});
    w_[decay_w1].resize({c, options.decay_rank});
    w_[decay_w2].resize({options.decay_rank, c});
    w_[bonus].resize({heads_, options.head_dim});
    for (const std::size_t n : {receptance, key, value, gate, output}) w_[n].resize({c, c});
    this->initialize(0);
  }

  [[nodiscard]] std::string_view type() const override { return "quern::ssm::Rwkv6Mixing"; }
  [[nodiscard]] nn::Extents output_shape(const nn::Extents& in) const override {
    detail::expect_sequence(type(), in, dim_);
    return in;
  }
  void parameters(nn::ParameterList<T>& out, const std::string& prefix) override {
    static constexpr std::array<const char*, weights> names = {
        "time_maa_x",    "time_maa_w",    "time_maa_k",        "time_maa_v", "time_maa_r",
        "time_maa_g",    "time_maa_w1",   "time_maa_w2",       "time_decay", "time_decay_w1",
        "time_decay_w2", "time_faaaa",    "receptance.weight", "key.weight", "value.weight",
        "gate.weight",   "output.weight", "ln_x.weight",       "ln_x.bias"};
    for (std::size_t n = 0; n < weights; ++n) {
      out.push_back({.name = prefix + names[n],
                     .values = w_[n].view(),
                     .decay = n >= receptance && n <= output,
                     .lr_scale = n == time_decay ? 2.0 : 1.0});
    }
  }
  void initialize(std::uint64_t seed, const std::string& prefix = {}) override;
  [[nodiscard]] std::unique_ptr<nn::Layer<T>> clone() const override {
    auto copy = std::make_unique<Rwkv6Mixing>(dim_, options_);
    detail::copy_parameters(*this, *copy);
    return copy;
  }
  [[nodiscard]] std::unique_ptr<nn::SequenceState<T>> make_state(Index batch) const override {
    auto state = std::make_unique<detail::MixerState<T>>(type(), batch);
    state->add({batch, dim_});
    state->add({batch, heads_, options_.head_dim, options_.head_dim});
    return state;
  }
  void step(nn::TensorView<const T> in, nn::TensorView<T> out,
            nn::SequenceState<T>& state) const override {
    auto& s = detail::mixer_state(type(), state,
                                  {{dim_}, {heads_, options_.head_dim, options_.head_dim}});
    this->check_step(in, out, s.batch(), dim_, dim_);
    nn::Cache<T> cache;
    cache.context.threads = 1;
    forward_all(in.reshaped({s.batch(), 1, dim_}), out.reshaped({s.batch(), 1, dim_}), cache,
                s[0].data(), s[1].template as<4>());
    std::copy(in.begin(), in.end(), s[0].begin());
    ++s.position;
  }

 protected:
  // Parameters, in the order of parameters(); the five shifts are in the order of the networks.
  // clang-format off
  enum Weight : std::size_t {
    maa_x, maa_w, maa_k, maa_v, maa_r, maa_g, maa_w1, maa_w2, time_decay, decay_w1,
    decay_w2, bonus, receptance, key, value, gate, output, gain, offset, weights
  };
  // clang-format on
  // Arrays of the cache: amounts and inputs of the five shifts are in their order.
  // clang-format off
  enum Kept : std::size_t {
    apart, mixed, pre5, hid5, amount = 4, shifted = 9, r = 14, k, v, g, pre_w, hid_w, logw,
    y, normed, gated, means, scales, d_out = 40, d_y, d_g, d_r, d_k, d_v, d_w, d_in,
    d_apart, d_amount, d_hid, d_part, d_x
  };
  // clang-format on

  void compute(nn::TensorView<const T> in, nn::TensorView<T> out,
               nn::Cache<T>& cache) const override {
    forward_all(in, out, cache, nullptr, {});
  }
  void differentiate(nn::TensorView<const T> dout, nn::TensorView<T> din, nn::Cache<T>& cache,
                     nn::GradientsView<T> gradients) const override;

 private:
  MatrixView<const T> matrix(std::size_t n) const { return w_[n].view().rows(); }
  /// The part of the second matrix of the shifts' networks that is of shift j.
  MatrixView<const T> up(std::size_t j) const {
    return matrix(maa_w2).slice(0, static_cast<Index>(j) * options_.mix_rank, options_.mix_rank);
  }
  static nn::TensorView<const T> read(nn::Cache<T>& cache, std::size_t n) {
    return std::as_const(cache.tensor(n)).view();
  }
  template <class U>
  [[nodiscard]] NdView<U, 4> heads_of(const nn::TensorView<U>& x) const {
    return detail::heads_first(detail::head_columns(x, 0, heads_, options_.head_dim));
  }
  [[nodiscard]] Rwkv6Inputs<T> inputs(nn::Cache<T>& cache) const {
    return {heads_of(read(cache, r)), heads_of(read(cache, k)), heads_of(read(cache, v)),
            heads_of(read(cache, logw)), w_[bonus].view().template as<2>()};
  }
  void forward_all(nn::TensorView<const T> in, nn::TensorView<T> out, nn::Cache<T>& cache,
                   const T* before, const NdView<T, 4>& state) const;
  void shifts_back(nn::Cache<T>& cache, const nn::TensorView<T>& dx,
                   nn::GradientsView<T> gradients) const;

  Index dim_;
  Rwkv6Options options_;
  Index heads_;
  std::array<nn::Tensor<T>, weights> w_;
};

template <class T>
void Rwkv6Mixing<T>::initialize(std::uint64_t seed, const std::string& prefix) {
  const double rising = options_.depth.rising(), falling = options_.depth.falling();
  for (Index i = 0; i < dim_; ++i) {
    const double along = static_cast<double>(i) / static_cast<double>(dim_);
    const double spread = dim_ > 1 ? static_cast<double>(i) / static_cast<double>(dim_ - 1) : 0;
    const double curve = std::pow(along, falling), half = std::pow(along, 0.5 * falling);
    for (const std::size_t n : {maa_x, maa_w, maa_k}) w_[n][i] = static_cast<T>(1 - curve);
    w_[maa_v][i] = static_cast<T>(1 - (curve + 0.3 * rising));
    for (const std::size_t n : {maa_r, maa_g}) w_[n][i] = static_cast<T>(1 - half);
    w_[time_decay][i] = static_cast<T>(-6 + 5 * std::pow(spread, 0.7 + 1.3 * rising));
    const double zigzag = 0.1 * static_cast<double>((i + 1) % 3 - 1);
    w_[bonus][i] = static_cast<T>(rising * (1 - spread) + zigzag);
  }
  const auto draw = [&](const char* name) { return Philox(seed, prefix + name); };
  nn::init::constant(w_[maa_w1].view(), T{0});
  nn::init::uniform(w_[maa_w2].view(), draw("time_maa_w2"), -0.01, 0.01);
  nn::init::constant(w_[decay_w1].view(), T{0});
  nn::init::uniform(w_[decay_w2].view(), draw("time_decay_w2"), -0.01, 0.01);
  const auto plain = [&](std::size_t n, const std::string& name) {
    nn::init::pytorch_default(w_[n].view(), nn::TensorView<T>(), seed, prefix + name);
  };
  plain(receptance, "receptance.");
  plain(key, "key.");
  plain(value, "value.");
  plain(gate, "gate.");
  plain(output, "output.");
  nn::init::constant(w_[gain].view(), T{1});
  nn::init::constant(w_[offset].view(), T{0});
}

template <class T>
void Rwkv6Mixing<T>::forward_all(nn::TensorView<const T> in, nn::TensorView<T> out,
                                 nn::Cache<T>& cache, const T* before,
                                 const NdView<T, 4>& state) const {
  const int threads = cache.context.threads;
  const Index rank = options_.mix_rank, positions = in.extent(0) * in.extent(1);
  const auto room = [&](std::size_t n, Index width) {
    return cache.tensor(n, {in.extent(0), in.extent(1), width}).view();
  };
  detail::shift_apart<T>(in, before, room(apart, dim_), threads);
  detail::blend<T>(in, read(cache, apart), w_[maa_x].data(), {}, room(mixed, dim_), threads);
  const MatrixView<T> pre = room(pre5, 5 * rank).rows(), hidden = room(hid5, 5 * rank).rows();
  kernels::gemm<T>(read(cache, mixed).rows(), matrix(maa_w1), pre, {.threads = threads});
  const T* const from = pre.data();
  nn::detail::for_elements(pre.size(), threads, [&](Index first, Index count) {
    QUERN_DISPATCH(transform(kernels::Tanh{}, from + first, static_cast<std::size_t>(count),
                             hidden.data() + first));
  });
  for (std::size_t j = 0; j < 5; ++j) {
    kernels::gemm<T>(hidden.block(0, static_cast<Index>(j) * rank, positions, rank), up(j),
                     room(amount + j, dim_).rows(), {.threads = threads});
    detail::blend<T>(in, read(cache, apart), w_[maa_w + j].data(), read(cache, amount + j),
                     room(shifted + j, dim_), threads);
  }
  const auto project = [&](std::size_t shift, std::size_t weight, std::size_t to) {
    nn::detail::linear_forward<T>(read(cache, shifted + shift).rows(), matrix(weight), {},
                                  room(to, dim_).rows(), threads);
  };
  project(1, key, k);
  project(2, value, v);
  project(3, receptance, r);
  project(4, gate, g);
  detail::low_rank<T>(kernels::Tanh{}, read(cache, shifted).rows(), matrix(decay_w1),
                      matrix(decay_w2), room(pre_w, options_.decay_rank).rows(),
                      room(hid_w, options_.decay_rank).rows(), room(logw, dim_).rows(), threads);
  const nn::TensorView<T> decays = cache.tensor(logw).view();
  detail::for_rows(positions, threads, [&](Index i) {
    for (Index c = 0; c < dim_; ++c) {
      T& x = decays[i * dim_ + c];
      x = -std::exp(x + w_[time_decay][c]);
    }
  });
  Rwkv6Inputs<T> all = inputs(cache);
  all.initial_state = state;
  RwkvOptions options;
  options.threads = threads;
  rwkv6<T>(all, heads_of(room(y, dim_)), state, options);
  detail::head_norm<T>(read(cache, y), heads_, options_.norm_eps, w_[gain].data(),
                       w_[offset].data(), room(normed, dim_), cache.tensor(means),
                       cache.tensor(scales), threads);
  detail::gate_rows<T>(kernels::Silu{}, read(cache, normed).rows(), read(cache, g).rows(),
                       room(gated, dim_).rows(), threads);
  nn::detail::linear_forward<T>(read(cache, gated).rows(), matrix(output), {}, out.rows(), threads);
}

template <class T>
void Rwkv6Mixing<T>::shifts_back(nn::Cache<T>& cache, const nn::TensorView<T>& dx,
                                 nn::GradientsView<T> gradients) const {
  const int threads = cache.context.threads;
  const Index rank = options_.mix_rank, positions = dx.extent(0) * dx.extent(1);
  const auto room = [&](std::size_t n, Index width) {
    return cache.tensor(n, {dx.extent(0), dx.extent(1), width}).view();
  };
  const nn::TensorView<T> din = room(d_in, dim_), damount = room(d_amount, dim_);
  const nn::TensorView<T> dhidden = room(d_hid, 5 * rank), dapart = cache.tensor(d_apart).view();
  const std::array<std::size_t, 5> of = {d_w, d_k, d_v, d_r, d_g};
  const std::array<std::size_t, 5> weight = {decay_w1, key, value, receptance, gate};
  for (std::size_t j = 0; j < 5; ++j) {
    const MatrixView<const T> dy = read(cache, of[j]).rows(), x = read(cache, shifted + j).rows();
    if (j == 0) {
      detail::low_rank_back<T>(kernels::Tanh{}, x, matrix(decay_w1), matrix(decay_w2),
                               read(cache, pre_w).rows(), read(cache, hid_w).rows(), dy,
                               room(d_part, options_.decay_rank).rows(), din.rows(), false,
                               gradients[decay_w1], gradients[decay_w2], threads);
    } else {
      nn::detail::linear_backward<T>(x, matrix(weight[j]), dy, din.rows(), gradients[weight[j]], {},
                                     threads);
    }
    detail::blend_back<T>(read(cache, d_in), read(cache, apart), w_[maa_w + j].data(),
                          read(cache, amount + j), dx, dapart, damount, threads);
    if (!gradients.null()) {
      nn::detail::add_column_sums<T>(damount.rows(), gradients[maa_w + j], threads);
      const std::size_t size = static_cast<std::size_t>(rank * dim_);
      kernels::gemm<T>(read(cache, hid5)
                           .rows()
                           .block(0, static_cast<Index>(j) * rank, positions, rank)
                           .transposed(),
                       damount.rows(),
                       MatrixView<T>(gradients[maa_w2].data() + j * size, {rank, dim_}),
                       {.beta = T{1}, .threads = threads});
    }
    kernels::gemm<T>(damount.rows(), up(j).transposed(),
                     dhidden.rows().block(0, static_cast<Index>(j) * rank, positions, rank),
                     {.threads = threads});
  }
  const T *const pre = cache.tensor(pre5).data(), *const dh = dhidden.data();
  nn::detail::for_elements(dhidden.size(), threads, [&](Index first, Index count) {
    QUERN_DISPATCH(transform_gradient(kernels::Tanh{}, pre + first, dh + first,
                                      static_cast<std::size_t>(count), dhidden.data() + first));
  });
  if (!gradients.null()) {
    kernels::gemm<T>(read(cache, mixed).rows().transposed(), dhidden.rows(),
                     MatrixView<T>(gradients[maa_w1].data(), {dim_, 5 * rank}),
                     {.beta = T{1}, .threads = threads});
  }
  kernels::gemm<T>(dhidden.rows(), matrix(maa_w1).transposed(), din.rows(), {.threads = threads});
  detail::blend_back<T>(read(cache, d_in), read(cache, apart), w_[maa_x].data(), {}, dx, dapart,
                        damount, threads);
  if (!gradients.null()) {
    nn::detail::add_column_sums<T>(damount.rows(), gradients[maa_x], threads);
  }
  detail::shift_apart_back<T>(read(cache, d_apart), dx, threads);
}

template <class T>
void Rwkv6Mixing<T>::differentiate(nn::TensorView<const T> dout, nn::TensorView<T> din,
                                   nn::Cache<T>& cache, nn::GradientsView<T> gradients) const {
  const int threads = cache.context.threads;
  const auto room = [&](std::size_t n) {
    return cache.tensor(n, {dout.extent(0), dout.extent(1), dim_}).view();
  };
  const nn::TensorView<T> dgated = room(d_out), dg = room(d_g), dy = room(d_y), dw = room(d_w);
  nn::detail::linear_backward<T>(read(cache, gated).rows(), matrix(output), dout.rows(),
                                 dgated.rows(), gradients[output], {}, threads);
  detail::gate_rows_back<T>(kernels::Silu{}, read(cache, normed).rows(), read(cache, g).rows(),
                            dgated.rows(), dgated.rows(), dg.rows(), threads);
  detail::head_norm_back<T>(read(cache, y), read(cache, d_out), heads_, w_[gain].data(),
                            cache.tensor(means), cache.tensor(scales), dy, gradients[gain],
                            gradients[offset], threads);
  Rwkv6Gradients<T> gr;
  gr.r = heads_of(room(d_r));
  gr.k = heads_of(room(d_k));
  gr.v = heads_of(room(d_v));
  gr.logw = heads_of(dw);
  if (!gradients.null()) {
    gr.u = NdView<T, 2>(gradients[bonus].data(), {heads_, options_.head_dim});
  }
  RwkvOptions options;
  options.threads = threads;
  rwkv6_vjp<T>(inputs(cache), heads_of(read(cache, d_y)), {}, gr, options);
  const nn::TensorView<const T> decays = read(cache, logw);
  nn::detail::for_elements(dw.size(), threads, [&](Index first, Index count) {
    for (Index i = first; i < first + count; ++i) dw[i] *= decays[i];
  });
  if (!gradients.null()) {
    nn::detail::add_column_sums<T>(dw.rows(), gradients[time_decay], threads);
  }
  const nn::TensorView<T> dx = din.null() ? room(d_x) : din;
  std::fill(dx.begin(), dx.end(), T{0});
  const nn::TensorView<T> dapart = room(d_apart);
  std::fill(dapart.begin(), dapart.end(), T{0});
  shifts_back(cache, dx, gradients);
}

}  // namespace ssm
QUERN_NAMESPACE_END

#endif  // QUERN_SSM_RWKV6_MIXING_HPP
