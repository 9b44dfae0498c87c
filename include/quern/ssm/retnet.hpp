// SPDX-License-Identifier: Apache-2.0

/// \file
/// RetNet's multi-scale retention as a layer: rotary positions on queries and keys, a decay a head,
/// a norm of each head, a swish gate.
///
/// Y. Sun et al., "Retentive network", 2023, equations 8-9; sizes and initial values as in its
/// reference implementation (torchscale): values twice as wide as keys, angles from 1 to 1/10000
/// along a head, rotation of neighbours in pairs (the xPos of equation 5; its scale is the decay).

#ifndef QUERN_SSM_RETNET_HPP
#define QUERN_SSM_RETNET_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/random.hpp"
#include "quern/kernels/activation_types.hpp"
#include "quern/nn/init.hpp"
#include "quern/nn/layer_norm.hpp"
#include "quern/nn/linear.hpp"
#include "quern/nn/sequence_layer.hpp"
#include "quern/ssm/detail/mixer_state.hpp"
#include "quern/ssm/detail/row_work.hpp"
#include "quern/ssm/retention.hpp"
#include "quern/ssm/ssd.hpp"

#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

QUERN_NAMESPACE_BEGIN
namespace ssm {

/// Sizes of multi-scale retention; the paper's defaults.
struct MultiScaleRetentionOptions {
  Index heads = 4;          ///< keys: dim / heads each, an even number
  Index value_factor = 2;   ///< values are this many times as wide as keys
  double norm_eps = 1e-5;   ///< of the norm of each head
  double angle_base = 1e4;  ///< slowest rotation: 1 / angle_base a step
};

/// (batch, length, dim) to the same. Decays are 1 - 2^(-5-h) and no parameters; the norm has none
/// either.
template <class T>
class MultiScaleRetention final : public nn::SequenceLayer<T> {
 public:
  /// ValueError unless heads divides dim into even parts.
  explicit MultiScaleRetention(Index dim, const MultiScaleRetentionOptions& options = {})
      : dim_(dim),
        options_(options),
        gamma_(retention_decays<T>(options.heads > 0 ? options.heads : 0)) {
    if (options.heads < 1 || dim < 1 || dim % options.heads != 0 || dim / options.heads % 2 != 0) {
      throw ValueError(error_text(type(), "options.heads",
                                  "a number that cuts " + std::to_string(dim) + " into even parts",
                                  options.heads));
    }
    if (options.value_factor < 1) {
      throw ValueError(
          error_text(type(), "options.value_factor", "at least 1", options.value_factor));
    }
    wide_ = dim * options.value_factor;
    q_.resize({dim, dim});
    k_.resize({dim, dim});
    v_.resize({wide_, dim});
    g_.resize({wide_, dim});
    out_.resize({dim, wide_});
    this->initialize(0);
  }

  [[nodiscard]] std::string_view type() const override { return "quern::ssm::MultiScaleRetention"; }
  [[nodiscard]] nn::Extents output_shape(const nn::Extents& in) const override {
    detail::expect_sequence(type(), in, dim_);
    return in;
  }
  void parameters(nn::ParameterList<T>& out, const std::string& prefix) override {
    out.push_back({prefix + "q_proj.weight", q_.view()});
    out.push_back({prefix + "k_proj.weight", k_.view()});
    out.push_back({prefix + "v_proj.weight", v_.view()});
    out.push_back({prefix + "g_proj.weight", g_.view()});
    out.push_back({prefix + "out_proj.weight", out_.view()});
  }
  void initialize(std::uint64_t seed, const std::string& prefix = {}) override {
    const double gain = std::exp2(-2.5);
    const auto draw = [&](const char* name) { return Philox(seed, prefix + name); };
    nn::init::xavier_uniform(q_.view(), draw("q_proj.weight"), gain);
    nn::init::xavier_uniform(k_.view(), draw("k_proj.weight"), gain);
    nn::init::xavier_uniform(v_.view(), draw("v_proj.weight"), gain);
    nn::init::xavier_uniform(g_.view(), draw("g_proj.weight"), gain);
    nn::init::xavier_uniform(out_.view(), draw("out_proj.weight"), 0.5);
  }
  [[nodiscard]] std::unique_ptr<nn::Layer<T>> clone() const override {
    auto copy = std::make_unique<MultiScaleRetention>(dim_, options_);
    detail::copy_parameters(*this, *copy);
    return copy;
  }

  [[nodiscard]] std::unique_ptr<nn::SequenceState<T>> make_state(Index batch) const override {
    auto state = std::make_unique<detail::MixerState<T>>(type(), batch);
    state->add({batch, options_.heads, key_dim(), value_dim()});
    return state;
  }
  void step(nn::TensorView<const T> in, nn::TensorView<T> out,
            nn::SequenceState<T>& state) const override {
    auto& s = detail::mixer_state(type(), state, {{options_.heads, key_dim(), value_dim()}});
    this->check_step(in, out, s.batch(), dim_, dim_);
    nn::Cache<T> cache;
    cache.context.threads = 1;
    forward_all(in.reshaped({s.batch(), 1, dim_}), out.reshaped({s.batch(), 1, dim_}), cache,
                s.position, s[0].template as<4>());
    ++s.position;
  }

 protected:
  enum Kept : std::size_t { q, k, v, g, kept, normed, gated, means, scales };
  enum Scratch : std::size_t { d_q = 16, d_k, d_v, d_g, d_kept, d_wide };

  void compute(nn::TensorView<const T> in, nn::TensorView<T> out,
               nn::Cache<T>& cache) const override {
    forward_all(in, out, cache, 0, {});
  }
  void differentiate(nn::TensorView<const T> dout, nn::TensorView<T> din, nn::Cache<T>& cache,
                     nn::GradientsView<T> gradients) const override {
    const Index positions = dout.extent(0) * dout.extent(1);
    const int threads = cache.context.threads;
    const auto room = [&](std::size_t n, Index width) {
      return cache.tensor(n, {dout.extent(0), dout.extent(1), width}).view();
    };
    const nn::TensorView<T> dq = room(d_q, dim_), dk = room(d_k, dim_), dv = room(d_v, wide_);
    const nn::TensorView<T> dg = room(d_g, wide_), dkept = room(d_kept, wide_);
    const nn::TensorView<T> dwide = room(d_wide, wide_);
    nn::detail::linear_backward<T>(read(cache, gated).rows(), weight(out_), dout.rows(),
                                   dwide.rows(), gradients[4], {}, threads);
    detail::gate_rows_back<T>(kernels::Silu{}, read(cache, normed).rows(), read(cache, g).rows(),
                              dwide.rows(), dwide.rows(), dg.rows(), threads);
    nn::detail::row_norm_backward<T>(read(cache, kept).data(), dwide.data(),
                                     positions * options_.heads, value_dim(), true, nullptr,
                                     cache.tensor(means).data(), cache.tensor(scales).data(),
                                     dkept.data(), nullptr, nullptr, threads);
    RetentionGradients<T> gr;
    gr.q = heads_of(dq, key_dim());
    gr.k = heads_of(dk, key_dim());
    gr.v = heads_of(dv, value_dim());
    RetentionOptions options;
    options.threads = threads;
    retention_vjp<T>(inputs(cache), heads_of(read(cache, d_kept), value_dim()), {}, gr, options);
    rotate(dq, 0, -1, threads);
    rotate(dk, 0, -1, threads);
    const MatrixView<const T> x = cache.input.rows();
    const MatrixView<T> dx = din.null() ? MatrixView<T>() : din.rows();
    nn::detail::linear_backward<T>(x, weight(q_), dq.rows(), dx, gradients[0], {}, threads);
    add_projection(x, k_, dk, dx, gradients[1], threads);
    add_projection(x, v_, dv, dx, gradients[2], threads);
    add_projection(x, g_, dg, dx, gradients[3], threads);
  }

 private:
  [[nodiscard]] Index key_dim() const { return dim_ / options_.heads; }
  [[nodiscard]] Index value_dim() const { return wide_ / options_.heads; }
  static MatrixView<const T> weight(const nn::Tensor<T>& w) { return w.view().rows(); }
  static nn::TensorView<const T> read(nn::Cache<T>& cache, std::size_t n) {
    return std::as_const(cache.tensor(n)).view();
  }
  template <class U>
  [[nodiscard]] NdView<U, 4> heads_of(const nn::TensorView<U>& x, Index dim) const {
    return detail::heads_first(detail::head_columns(x, 0, options_.heads, dim));
  }
  [[nodiscard]] RetentionInputs<T> inputs(nn::Cache<T>& cache) const {
    return {heads_of(read(cache, q), key_dim()), heads_of(read(cache, k), key_dim()),
            heads_of(read(cache, v), value_dim()), gamma_.view()};
  }
  static void add_projection(const MatrixView<const T>& x, const nn::Tensor<T>& w,
                             const nn::TensorView<T>& dy, const MatrixView<T>& dx, std::span<T> dw,
                             int threads) {
    nn::detail::linear_backward<T>(x, weight(w), dy.rows(), {}, dw, {}, threads);
    if (dx.is_null()) return;
    kernels::gemm<T>(dy.rows(), weight(w), dx, {.beta = T{1}, .threads = threads});
  }

  /// Turns pairs of neighbours by position times angle; `sign` -1 turns back.
  void rotate(const nn::TensorView<T>& x, std::int64_t first, double sign, int threads) const {
    const Index length = x.extent(1), pairs = key_dim() / 2;
    nn::Tensor<T> turns({length, pairs, 2});
    for (Index j = 0; j < pairs; ++j) {
      const double along = pairs > 1 ? static_cast<double>(j) / static_cast<double>(pairs - 1) : 0;
      const double angle = std::pow(options_.angle_base, -along);
      for (Index t = 0; t < length; ++t) {
        const double turn = angle * static_cast<double>(first + t);
        turns[(t * pairs + j) * 2] = static_cast<T>(std::cos(turn));
        turns[(t * pairs + j) * 2 + 1] = static_cast<T>(sign * std::sin(turn));
      }
    }
    detail::for_rows(x.extent(0) * length, threads, [&](Index i) {
      T* row = x.data() + i * dim_;
      const T* const turn = turns.data() + i % length * pairs * 2;
      for (Index h = 0; h < options_.heads; ++h) {
        for (Index j = 0; j < pairs; ++j, row += 2) {
          const T c = turn[2 * j], s = turn[2 * j + 1], a = row[0], b = row[1];
          row[0] = a * c - b * s;
          row[1] = b * c + a * s;
        }
      }
    });
  }

  /// Moves the state where there is one.
  void forward_all(nn::TensorView<const T> in, nn::TensorView<T> out, nn::Cache<T>& cache,
                   std::int64_t first, const NdView<T, 4>& state) const {
    const Index positions = in.extent(0) * in.extent(1);
    const int threads = cache.context.threads;
    const auto room = [&](std::size_t n, Index width) {
      return cache.tensor(n, {in.extent(0), in.extent(1), width}).view();
    };
    const auto project = [&](const nn::Tensor<T>& w, std::size_t n) {
      nn::detail::linear_forward<T>(in.rows(), weight(w), {}, room(n, w.shape()[0]).rows(),
                                    threads);
    };
    project(q_, q);
    project(k_, k);
    project(v_, v);
    project(g_, g);
    rotate(cache.tensor(q).view(), first, 1, threads);
    rotate(cache.tensor(k).view(), first, 1, threads);
    RetentionInputs<T> all = inputs(cache);
    all.initial_state = state;
    RetentionOptions options;
    options.threads = threads;
    retention<T>(all, heads_of(room(kept, wide_), value_dim()), state, options);
    const Index rows = positions * options_.heads;
    nn::detail::row_norm_forward<T>(read(cache, kept).data(), rows, value_dim(), true,
                                    options_.norm_eps, nullptr, nullptr, room(normed, wide_).data(),
                                    cache.tensor(means, {rows}).data(),
                                    cache.tensor(scales, {rows}).data(), threads);
    detail::gate_rows<T>(kernels::Silu{}, read(cache, normed).rows(), read(cache, g).rows(),
                         room(gated, wide_).rows(), threads);
    nn::detail::linear_forward<T>(read(cache, gated).rows(), weight(out_), {}, out.rows(), threads);
  }

  Index dim_;
  MultiScaleRetentionOptions options_;
  NdArray<T, 1> gamma_;
  Index wide_ = 0;
  nn::Tensor<T> q_, k_, v_, g_, out_;
};

}  // namespace ssm
QUERN_NAMESPACE_END

#endif  // QUERN_SSM_RETNET_HPP
