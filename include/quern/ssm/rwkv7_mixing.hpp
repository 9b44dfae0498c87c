// SPDX-License-Identifier: Apache-2.0

/// \file
/// RWKV-7's time mixing as a layer: token shifts, decays, learning rates and gates from small
/// networks of low rank, the delta rule's recurrence, a norm of each head, a bonus of the present.
///
/// B. Peng et al., "RWKV-7 'Goose'", 2025, section 4; names and initial values as in its reference
/// implementation (RWKV-v7). It is that of a network's first layer: the values of one layer that
/// later ones mix in belong to a whole network, not to a layer.

#ifndef QUERN_SSM_RWKV7_MIXING_HPP
#define QUERN_SSM_RWKV7_MIXING_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/random.hpp"
#include "quern/kernels/activation_types.hpp"
#include "quern/nn/init.hpp"
#include "quern/nn/linear.hpp"
#include "quern/nn/sequence_layer.hpp"
#include "quern/ssm/detail/low_rank.hpp"
#include "quern/ssm/detail/mixer_state.hpp"
#include "quern/ssm/detail/row_work.hpp"
#include "quern/ssm/detail/rwkv_weights.hpp"
#include "quern/ssm/rwkv4_mixing.hpp"
#include "quern/ssm/rwkv7.hpp"
#include "quern/ssm/ssd.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

QUERN_NAMESPACE_BEGIN
namespace ssm {

/// Sizes of RWKV-7's time mixing; a rank of 0 is the reference's choice for the width.
struct Rwkv7Options {
  Index head_dim = 64;
  Index decay_rank = 0;  ///< 0: 1.8 sqrt(dim), in steps of 32
  Index rate_rank = 0;   ///< likewise
  Index gate_rank = 0;   ///< 0: 0.6 dim^0.8, in steps of 32
  double norm_eps = 64e-5;
  RwkvDepth depth = {};
};

/// (batch, length, dim) to the same. Only matrices take weight decay; w0 learns at twice the rate.
template <class T>
class Rwkv7Mixing final : public nn::SequenceLayer<T> {
 public:
  /// ValueError unless head_dim divides dim, and for sizes below 0.
  explicit Rwkv7Mixing(Index dim, const Rwkv7Options& options = {})
      : dim_(dim), options_(options), heads_(detail::rwkv_heads(type(), dim, options.head_dim)) {
    detail::check_depth(type(), options.depth);
    const auto rank = [&](Index& of, double wanted) {
      if (of < 0) throw ValueError(error_text(type(), "ranks", "0 or more", of));
      if (of == 0) of = (std::max)(Index{32}, static_cast<Index>(std::round(wanted / 32)) * 32);
    };
    const double size = static_cast<double>(dim);
    rank(options_.decay_rank, 1.8 * std::sqrt(size));
    rank(options_.rate_rank, 1.8 * std::sqrt(size));
    rank(options_.gate_rank, 0.6 * std::pow(size, 0.8));
    for (const std::size_t n :
         {mix_r, mix_w, mix_k, mix_v, mix_a, mix_g, w0, a0, k_k, k_a, gain, offset}) {
      w_[n].resize({dim});
    }
    w_[w1].resize({dim, options_.decay_rank});
    w_[w2].resize({options_.decay_rank, dim});
    w_[a1].resize({dim, options_.rate_rank});
    w_[a2].resize({options_.rate_rank, dim});
    w_[g1].resize({dim, options_.gate_rank});
    w_[g2].resize({options_.gate_rank, dim});
    w_[r_k].resize({heads_, options.head_dim});
    for (const std::size_t n : {receptance, key, value, output}) w_[n].resize({dim, dim});
    this->initialize(0);
  }

  [[nodiscard]] std::string_view type() const override { return "quern::ssm::Rwkv7Mixing"; }
  [[nodiscard]] nn::Extents output_shape(const nn::Extents& in) const override {
    detail::expect_sequence(type(), in, dim_);
    return in;
  }
  void parameters(nn::ParameterList<T>& out, const std::string& prefix) override {
    static constexpr std::array<const char*, weights> names = {
        "x_r",         "x_w",          "x_k",
        "x_v",         "x_a",          "x_g",
        "w0",          "w1",           "w2",
        "a0",          "a1",           "a2",
        "g1",          "g2",           "k_k",
        "k_a",         "r_k",          "receptance.weight",
        "key.weight",  "value.weight", "output.weight",
        "ln_x.weight", "ln_x.bias"};
    for (std::size_t n = 0; n < weights; ++n) {
      out.push_back({.name = prefix + names[n],
                     .values = w_[n].view(),
                     .decay = n >= receptance && n <= output,
                     .lr_scale = n == w0 ? 2.0 : 1.0});
    }
  }
  void initialize(std::uint64_t seed, const std::string& prefix = {}) override;
  [[nodiscard]] std::unique_ptr<nn::Layer<T>> clone() const override {
    auto copy = std::make_unique<Rwkv7Mixing>(dim_, options_);
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
  // clang-format off
  enum Weight : std::size_t {
    mix_r, mix_w, mix_k, mix_v, mix_a, mix_g, w0, w1, w2, a0, a1, a2, g1, g2, k_k, k_a, r_k,
    receptance, key, value, output, gain, offset, weights
  };
  // clang-format on
  // Arrays of the cache; the six shifts are in the order of their mixes.
  // clang-format off
  enum Kept : std::size_t {
    apart, shifted, r = 7, k, v, pre_w, hid_w, decay, pre_a, hid_a, rate, pre_g, hid_g, g,
    keys, minus, plus, y, normed, total, gated, means, scales, lengths, d_out = 40, d_total,
    d_g, d_y, d_r, d_k, d_v, d_decay, d_keys, d_minus, d_plus, d_rate, d_in, d_apart,
    d_amount, d_rank, d_x
  };
  // clang-format on

  void compute(nn::TensorView<const T> in, nn::TensorView<T> out,
               nn::Cache<T>& cache) const override {
    forward_all(in, out, cache, nullptr, {});
  }
  void differentiate(nn::TensorView<const T> dout, nn::TensorView<T> din, nn::Cache<T>& cache,
                     nn::GradientsView<T> gradients) const override;

 private:
  static constexpr double least_length = 1e-12;

  MatrixView<const T> matrix(std::size_t n) const { return w_[n].view().rows(); }
  static nn::TensorView<const T> read(nn::Cache<T>& cache, std::size_t n) {
    return std::as_const(cache.tensor(n)).view();
  }
  static T logistic(T x) { return T{1} / (T{1} + std::exp(-x)); }
  template <class U>
  [[nodiscard]] NdView<U, 4> heads_of(const nn::TensorView<U>& x) const {
    return detail::heads_first(detail::head_columns(x, 0, heads_, options_.head_dim));
  }
  [[nodiscard]] Rwkv7Inputs<T> inputs(nn::Cache<T>& cache) const {
    return {heads_of(read(cache, r)), heads_of(read(cache, decay)), heads_of(read(cache, keys)),
            heads_of(read(cache, v)), heads_of(read(cache, minus)), heads_of(read(cache, plus))};
  }
  /// decay, rate, keys, a and b of the recurrence from what the networks gave.
  void prepare(nn::Cache<T>& cache, Index positions) const;
  void prepare_back(nn::Cache<T>& cache, Index positions, nn::GradientsView<T> gradients) const;
  /// total = normed + (sum over the head of r keys r_k) v.
  void add_bonus(nn::Cache<T>& cache, Index positions) const;
  void bonus_back(nn::Cache<T>& cache, Index positions, nn::GradientsView<T> gradients) const;
  void forward_all(nn::TensorView<const T> in, nn::TensorView<T> out, nn::Cache<T>& cache,
                   const T* before, const NdView<T, 4>& state) const;
  void shifts_back(nn::Cache<T>& cache, const nn::TensorView<T>& dx,
                   nn::GradientsView<T> gradients) const;
  /// gradients[which] += sums over positions of `per_position` (positions, dim).
  void add_sums(const nn::Tensor<T>& per_position, nn::GradientsView<T> gradients,
                std::size_t which, int threads) const {
    if (gradients.null()) return;
    nn::detail::add_column_sums<T>(per_position.view().rows(), gradients[which], threads);
  }

  Index dim_;
  Rwkv7Options options_;
  Index heads_;
  std::array<nn::Tensor<T>, weights> w_;
};

template <class T>
void Rwkv7Mixing<T>::initialize(std::uint64_t seed, const std::string& prefix) {
  const double rising = options_.depth.rising(), falling = options_.depth.falling();
  constexpr std::array<double, 6> powers = {0.2, 0.9, 0.7, 0.7, 0.9, 0.2};
  for (Index i = 0; i < dim_; ++i) {
    const double along = static_cast<double>(i) / static_cast<double>(dim_);
    const double spread = dim_ > 1 ? static_cast<double>(i) / static_cast<double>(dim_ - 1) : 0;
    for (std::size_t j = 0; j < 6; ++j) {
      w_[mix_r + j][i] = static_cast<T>(1 - std::pow(along, powers[j] * falling));
    }
    w_[w0][i] = static_cast<T>(-6.5 + 5 * std::pow(spread, 0.85 + std::sqrt(rising)));
  }
  const auto draw = [&](const char* name) { return Philox(seed, prefix + name); };
  for (const std::size_t n : {w1, a1, g1, a0, r_k, output, offset}) {
    nn::init::constant(w_[n].view(), T{0});
  }
  nn::init::orthogonal(w_[w2].view(), draw("w2"), 0.1);
  nn::init::orthogonal(w_[a2].view(), draw("a2"), 0.1);
  nn::init::orthogonal(w_[g2].view(), draw("g2"), 0.1);
  nn::init::constant(w_[k_k].view(), T(0.85));
  nn::init::constant(w_[k_a].view(), T{1});
  nn::init::constant(w_[gain].view(), T{1});
  const double bound = 0.5 / std::sqrt(static_cast<double>(dim_));
  nn::init::uniform(w_[receptance].view(), draw("receptance.weight"), -bound, bound);
  nn::init::uniform(w_[key].view(), draw("key.weight"), -bound / 10, bound / 10);
  nn::init::uniform(w_[value].view(), draw("value.weight"), -bound, bound);
}

template <class T>
void Rwkv7Mixing<T>::prepare(nn::Cache<T>& cache, Index positions) const {
  const Index n = options_.head_dim;
  T *const w = cache.tensor(decay).data(), *const a = cache.tensor(rate).data();
  T *const ks = cache.tensor(keys).data(), *const am = cache.tensor(minus).data();
  T *const bp = cache.tensor(plus).data(), *const len = cache.tensor(lengths).data();
  const T* const given = cache.tensor(k).data();
  const T half_root = static_cast<T>(0.60653065971263342360);  // e^-0.5
  detail::for_rows(positions, cache.context.threads, [&](Index i) {
    for (Index c = i * dim_, j = 0; j < dim_; ++c, ++j) {
      w[c] = std::exp(-half_root * logistic(w[c] + w_[w0][j]));
      a[c] = logistic(a[c] + w_[a0][j]);
      ks[c] = given[c] * (T{1} + (a[c] - T{1}) * w_[k_a][j]);
    }
    for (Index h = 0; h < heads_; ++h) {
      T square{0};
      for (Index j = h * n; j < (h + 1) * n; ++j) {
        const T kappa = given[i * dim_ + j] * w_[k_k][j];
        square += kappa * kappa;
      }
      const T length = (std::max)(std::sqrt(square), static_cast<T>(least_length));
      len[i * heads_ + h] = length;
      for (Index j = h * n; j < (h + 1) * n; ++j) {
        const T kappa = given[i * dim_ + j] * w_[k_k][j] / length;
        am[i * dim_ + j] = -kappa;
        bp[i * dim_ + j] = kappa * a[i * dim_ + j];
      }
    }
  });
}

template <class T>
void Rwkv7Mixing<T>::prepare_back(nn::Cache<T>& cache, Index positions,
                                  nn::GradientsView<T> gradients) const {
  const Index n = options_.head_dim;
  const int threads = cache.context.threads;
  const T *const w = cache.tensor(decay).data(), *const a = cache.tensor(rate).data();
  const T *const am = cache.tensor(minus).data(), *const len = cache.tensor(lengths).data();
  const T *const given = cache.tensor(k).data(), *const dks = cache.tensor(d_keys).data();
  const T *const dm = cache.tensor(d_minus).data(), *const dp = cache.tensor(d_plus).data();
  T *const dw = cache.tensor(d_decay).data(), *const dk = cache.tensor(d_k).data();
  T* const da = cache.tensor(d_rate).data();
  nn::Tensor<T> dk_a({positions, dim_}), dk_k({positions, dim_});
  detail::for_rows(positions, threads, [&](Index i) {
    for (Index c = i * dim_, j = 0; j < dim_; ++c, ++j) {
      // w = e^(-s/root e), s logistic: dw/dx = log(w) w (1 - s), s = -log(w) root e.
      const T log_w = std::log(w[c]), s = -log_w * static_cast<T>(1.6487212707001281468);
      dw[c] *= w[c] * log_w * (T{1} - s);
      dk[c] = dks[c] * (T{1} + (a[c] - T{1}) * w_[k_a][j]);
      dk_a[c] = dks[c] * given[c] * (a[c] - T{1});
      const T kappa = -am[c];
      const T rate_gradient = dks[c] * given[c] * w_[k_a][j] + dp[c] * kappa;
      da[c] = rate_gradient * a[c] * (T{1} - a[c]);
    }
    for (Index h = 0; h < heads_; ++h) {
      T along{0};  // of kappa's gradient
      const T length = len[i * heads_ + h];
      for (Index j = h * n; j < (h + 1) * n; ++j) {
        const Index c = i * dim_ + j;
        along += (dp[c] * a[c] - dm[c]) * -am[c];
      }
      const bool shortest = length <= static_cast<T>(least_length);
      for (Index j = h * n; j < (h + 1) * n; ++j) {
        const Index c = i * dim_ + j;
        const T whole = dp[c] * a[c] - dm[c];
        const T turned = shortest ? whole : whole + along * am[c];
        dk[c] += turned / length * w_[k_k][j];
        dk_k[c] = turned / length * given[c];
      }
    }
  });
  add_sums(dk_a, gradients, k_a, threads);
  add_sums(dk_k, gradients, k_k, threads);
  add_sums(cache.tensor(d_decay), gradients, w0, threads);
  add_sums(cache.tensor(d_rate), gradients, a0, threads);
}

template <class T>
void Rwkv7Mixing<T>::add_bonus(nn::Cache<T>& cache, Index positions) const {
  const Index n = options_.head_dim;
  const T *const pr = cache.tensor(r).data(), *const ks = cache.tensor(keys).data();
  const T *const pv = cache.tensor(v).data(), *const from = cache.tensor(normed).data();
  T* const to = cache.tensor(total).data();
  detail::for_rows(positions, cache.context.threads, [&](Index i) {
    for (Index h = 0; h < heads_; ++h) {
      T sum{0};
      for (Index j = h * n; j < (h + 1) * n; ++j) {
        sum += pr[i * dim_ + j] * ks[i * dim_ + j] * w_[r_k][j];
      }
      for (Index c = i * dim_ + h * n, j = 0; j < n; ++c, ++j) to[c] = from[c] + sum * pv[c];
    }
  });
}

/// Adds to d_r, d_keys and d_v.
template <class T>
void Rwkv7Mixing<T>::bonus_back(nn::Cache<T>& cache, Index positions,
                                nn::GradientsView<T> gradients) const {
  const Index n = options_.head_dim;
  const T *const pr = cache.tensor(r).data(), *const ks = cache.tensor(keys).data();
  const T *const pv = cache.tensor(v).data(), *const g_total = cache.tensor(d_total).data();
  T *const dr = cache.tensor(d_r).data(), *const dks = cache.tensor(d_keys).data();
  T* const dv = cache.tensor(d_v).data();
  nn::Tensor<T> dr_k({positions, dim_});
  detail::for_rows(positions, cache.context.threads, [&](Index i) {
    for (Index h = 0; h < heads_; ++h) {
      T sum{0}, dsum{0};
      for (Index j = h * n; j < (h + 1) * n; ++j) {
        const Index c = i * dim_ + j;
        sum += pr[c] * ks[c] * w_[r_k][j];
        dsum += g_total[c] * pv[c];
      }
      for (Index j = h * n; j < (h + 1) * n; ++j) {
        const Index c = i * dim_ + j;
        dv[c] += sum * g_total[c];
        dr[c] += dsum * ks[c] * w_[r_k][j];
        dks[c] += dsum * pr[c] * w_[r_k][j];
        dr_k[c] = dsum * pr[c] * ks[c];
      }
    }
  });
  add_sums(dr_k, gradients, r_k, cache.context.threads);
}

template <class T>
void Rwkv7Mixing<T>::forward_all(nn::TensorView<const T> in, nn::TensorView<T> out,
                                 nn::Cache<T>& cache, const T* before,
                                 const NdView<T, 4>& state) const {
  const int threads = cache.context.threads;
  const Index positions = in.extent(0) * in.extent(1);
  const auto room = [&](std::size_t n, Index width) {
    return cache.tensor(n, {in.extent(0), in.extent(1), width}).view();
  };
  detail::shift_apart<T>(in, before, room(apart, dim_), threads);
  for (std::size_t j = 0; j < 6; ++j) {
    detail::blend<T>(in, read(cache, apart), w_[mix_r + j].data(), {}, room(shifted + j, dim_),
                     threads);
  }
  const auto x = [&](std::size_t mix) { return read(cache, shifted + mix - mix_r).rows(); };
  nn::detail::linear_forward<T>(x(mix_r), matrix(receptance), {}, room(r, dim_).rows(), threads);
  nn::detail::linear_forward<T>(x(mix_k), matrix(key), {}, room(k, dim_).rows(), threads);
  nn::detail::linear_forward<T>(x(mix_v), matrix(value), {}, room(v, dim_).rows(), threads);
  detail::low_rank<T>(kernels::Tanh{}, x(mix_w), matrix(w1), matrix(w2),
                      room(pre_w, options_.decay_rank).rows(),
                      room(hid_w, options_.decay_rank).rows(), room(decay, dim_).rows(), threads);
  detail::low_rank<T>(kernels::Identity{}, x(mix_a), matrix(a1), matrix(a2),
                      room(pre_a, options_.rate_rank).rows(),
                      room(hid_a, options_.rate_rank).rows(), room(rate, dim_).rows(), threads);
  detail::low_rank<T>(kernels::Sigmoid{}, x(mix_g), matrix(g1), matrix(g2),
                      room(pre_g, options_.gate_rank).rows(),
                      room(hid_g, options_.gate_rank).rows(), room(g, dim_).rows(), threads);
  room(keys, dim_), room(minus, dim_), room(plus, dim_), room(lengths, heads_);
  prepare(cache, positions);
  Rwkv7Inputs<T> all = inputs(cache);
  all.initial_state = state;
  RwkvOptions options;
  options.threads = threads;
  rwkv7<T>(all, heads_of(room(y, dim_)), state, options);
  detail::head_norm<T>(read(cache, y), heads_, options_.norm_eps, w_[gain].data(),
                       w_[offset].data(), room(normed, dim_), cache.tensor(means),
                       cache.tensor(scales), threads);
  room(total, dim_);
  add_bonus(cache, positions);
  detail::gate_rows<T>(kernels::Identity{}, read(cache, total).rows(), read(cache, g).rows(),
                       room(gated, dim_).rows(), threads);
  nn::detail::linear_forward<T>(read(cache, gated).rows(), matrix(output), {}, out.rows(), threads);
}

template <class T>
void Rwkv7Mixing<T>::shifts_back(nn::Cache<T>& cache, const nn::TensorView<T>& dx,
                                 nn::GradientsView<T> gradients) const {
  const int threads = cache.context.threads;
  const auto room = [&](std::size_t n, Index width) {
    return cache.tensor(n, {dx.extent(0), dx.extent(1), width}).view();
  };
  const nn::TensorView<T> din = room(d_in, dim_), damount = room(d_amount, dim_);
  const nn::TensorView<T> dapart = cache.tensor(d_apart).view();
  const auto x = [&](std::size_t mix) { return read(cache, shifted + mix - mix_r).rows(); };
  const auto linear = [&](std::size_t mix, std::size_t weight, std::size_t dy) {
    nn::detail::linear_backward<T>(x(mix), matrix(weight), read(cache, dy).rows(), din.rows(),
                                   gradients[weight], {}, threads);
  };
  const auto narrow = [&](auto f, std::size_t mix, std::size_t down, std::size_t pre, Index rank,
                          std::size_t dy) {
    detail::low_rank_back<T>(f, x(mix), matrix(down), matrix(down + 1), read(cache, pre).rows(),
                             read(cache, pre + 1).rows(), read(cache, dy).rows(),
                             room(d_rank, rank).rows(), din.rows(), false, gradients[down],
                             gradients[down + 1], threads);
  };
  for (std::size_t mix = mix_r; mix <= mix_g; ++mix) {
    if (mix == mix_r) linear(mix, receptance, d_r);
    if (mix == mix_k) linear(mix, key, d_k);
    if (mix == mix_v) linear(mix, value, d_v);
    if (mix == mix_w) narrow(kernels::Tanh{}, mix, w1, pre_w, options_.decay_rank, d_decay);
    if (mix == mix_a) narrow(kernels::Identity{}, mix, a1, pre_a, options_.rate_rank, d_rate);
    if (mix == mix_g) narrow(kernels::Sigmoid{}, mix, g1, pre_g, options_.gate_rank, d_g);
    detail::blend_back<T>(read(cache, d_in), read(cache, apart), w_[mix].data(), {}, dx, dapart,
                          damount, threads);
    add_sums(cache.tensor(d_amount), gradients, mix, threads);
  }
  detail::shift_apart_back<T>(read(cache, d_apart), dx, threads);
}

template <class T>
void Rwkv7Mixing<T>::differentiate(nn::TensorView<const T> dout, nn::TensorView<T> din,
                                   nn::Cache<T>& cache, nn::GradientsView<T> gradients) const {
  const int threads = cache.context.threads;
  const Index positions = dout.extent(0) * dout.extent(1);
  const auto room = [&](std::size_t n) {
    return cache.tensor(n, {dout.extent(0), dout.extent(1), dim_}).view();
  };
  nn::detail::linear_backward<T>(read(cache, gated).rows(), matrix(output), dout.rows(),
                                 room(d_out).rows(), gradients[output], {}, threads);
  detail::gate_rows_back<T>(kernels::Identity{}, read(cache, total).rows(), read(cache, g).rows(),
                            read(cache, d_out).rows(), room(d_total).rows(), room(d_g).rows(),
                            threads);
  detail::head_norm_back<T>(read(cache, y), read(cache, d_total), heads_, w_[gain].data(),
                            cache.tensor(means), cache.tensor(scales), room(d_y), gradients[gain],
                            gradients[offset], threads);
  Rwkv7Gradients<T> gr;
  gr.r = heads_of(room(d_r));
  gr.decay = heads_of(room(d_decay));
  gr.k = heads_of(room(d_keys));
  gr.v = heads_of(room(d_v));
  gr.a = heads_of(room(d_minus));
  gr.b = heads_of(room(d_plus));
  RwkvOptions options;
  options.threads = threads;
  rwkv7_vjp<T>(inputs(cache), heads_of(read(cache, d_y)), {}, gr, options);
  room(d_k), room(d_rate);
  bonus_back(cache, positions, gradients);
  prepare_back(cache, positions, gradients);
  const nn::TensorView<T> dx = din.null() ? room(d_x) : din, dapart = room(d_apart);
  std::fill(dx.begin(), dx.end(), T{0});
  std::fill(dapart.begin(), dapart.end(), T{0});
  shifts_back(cache, dx, gradients);
}

}  // namespace ssm
QUERN_NAMESPACE_END

#endif  // QUERN_SSM_RWKV7_MIXING_HPP
