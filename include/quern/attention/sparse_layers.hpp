// SPDX-License-Identifier: Apache-2.0

/// \file
/// Self-attention layers of several heads over sparse patterns, by hashing, and of projected keys:
/// SparseSelfAttention, LshSelfAttention, LinformerSelfAttention.

#ifndef QUERN_ATTENTION_SPARSE_LAYERS_HPP
#define QUERN_ATTENTION_SPARSE_LAYERS_HPP

#include "quern/attention/detail/layer_state.hpp"
#include "quern/attention/linformer.hpp"
#include "quern/attention/lsh.hpp"
#include "quern/attention/multi_head.hpp"
#include "quern/attention/sparse.hpp"
#include "quern/attention/sparse_pattern.hpp"
#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/nn/init.hpp"
#include "quern/nn/sequence_layer.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

QUERN_NAMESPACE_BEGIN
namespace attention {

/// Softmax attention of several heads over a pattern: local, strided, fixed, … With a causal
/// pattern it decodes position by position with a cache of keys and values, of constant size for
/// local patterns. (SparsePattern::dense(true) is causal softmax attention itself.)
template <class T>
class SparseSelfAttention final : public MultiHead<T> {
 public:
  SparseSelfAttention(const MultiHeadSizes& sizes, const SparsePattern& pattern)
      : MultiHead<T>("quern::attention::SparseSelfAttention", sizes), pattern_(pattern) {
    this->initialize(0);
  }
  [[nodiscard]] const SparsePattern& pattern() const noexcept { return pattern_; }

  [[nodiscard]] std::string_view type() const override {
    return "quern::attention::SparseSelfAttention";
  }
  [[nodiscard]] std::unique_ptr<nn::Layer<T>> clone() const override {
    return std::make_unique<SparseSelfAttention>(*this);
  }
  /// ValueError where the pattern is not causal.
  [[nodiscard]] std::unique_ptr<nn::SequenceState<T>> make_state(Index batch) const override {
    if (!pattern_.causal()) {
      throw ValueError(error_text(type(), "pattern", "a causal one for decoding", "another"));
    }
    return std::make_unique<KeyValueState<T>>(type(), batch, this->sizes().kv_heads,
                                              this->sizes().head_dim);
  }
  void step(nn::TensorView<const T> in, nn::TensorView<T> out,
            nn::SequenceState<T>& state) const override {
    auto& s = detail::layer_state<KeyValueState<T>>(type(), state);
    this->check_step(in, out, s.batch(), this->sizes().dim, this->sizes().dim);
    if (in.empty()) return;
    this->step_with(in, out, s, [&](NdView<const T, 4> q, NdView<T, 4> to) {
      const SparsePlan plan(pattern_, 1, s.kept(), s.kept() - 1);
      sparse_attention<T>(q, s.keys(), s.values(), to, plan);
    });
    forget(s);
  }

 protected:
  void attend(NdView<const T, 4> q, NdView<const T, 4> k, NdView<const T, 4> v, NdView<T, 4> out,
              nn::Cache<T>& cache) const override {
    Saved& s = cache.template saved<Saved>();
    if (!s.plan || s.plan->queries() != q.extent(2)) {
      s.plan.emplace(pattern_, q.extent(2), q.extent(2));
    }
    sparse_attention<T>(q, k, v, out, *s.plan, {.threads = cache.context.threads}, &s.sums);
  }
  void attend_vjp(NdView<const T, 4> q, NdView<const T, 4> k, NdView<const T, 4> v,
                  NdView<const T, 4> out, NdView<const T, 4> dout, NdView<T, 4> dq, NdView<T, 4> dk,
                  NdView<T, 4> dv, nn::Cache<T>& cache, nn::GradientsView<T>) const override {
    Saved& s = cache.template saved<Saved>();
    sparse_attention_vjp<T>(q, k, v, out, s.sums, dout, dq, dk, dv, *s.plan,
                            {.threads = cache.context.threads});
  }

 private:
  struct Saved {
    std::optional<SparsePlan> plan;
    SparseSaved<T> sums;
  };
  /// Drops whole windows that no later position sees: places among what is kept stay as they are
  /// modulo the window, which is all that a local pattern asks.
  void forget(KeyValueState<T>& s) const {
    if (pattern_.kind() != SparsePattern::Kind::local) return;
    const Index window = pattern_.size(), seen_from = pattern_.local_low(s.kept());
    const Index whole = seen_from > 0 ? seen_from / window * window : 0;
    // Not at every step: moving what stays costs as much as attention does.
    if (whole >= 4 * window && 2 * whole >= s.kept()) s.drop(whole);
  }

  SparsePattern pattern_;
};

/// Options of LshSelfAttention.
struct LshSizes {
  Index rounds = 4;
  Index bucket_size = 64;
  bool causal = false;  ///< hides later keys; see lsh_attention for what that does not do
  std::uint64_t seed = 0;
};

/// Reformer's attention of several heads. Rotations follow from the seed and, in training, from the
/// step, so each step hashes anew. Not decoded step by step: chunks depend on all positions.
template <class T>
class LshSelfAttention final : public MultiHead<T, nn::Layer<T>> {
 public:
  LshSelfAttention(const MultiHeadSizes& sizes, const LshSizes& lsh)
      : MultiHead<T, nn::Layer<T>>("quern::attention::LshSelfAttention", sizes, true), lsh_(lsh) {
    expect_in_range<Index>(type(), "rounds", lsh.rounds, 1, 1024);
    expect_in_range<Index>(type(), "bucket_size", lsh.bucket_size, 1, Index{1} << 30);
    if (this->sizes().kv_heads != this->sizes().heads) {
      throw ValueError(error_text(type(), "kv_heads", "as many as heads", sizes.kv_heads));
    }
    this->initialize(0);
  }
  [[nodiscard]] std::string_view type() const override {
    return "quern::attention::LshSelfAttention";
  }
  [[nodiscard]] std::unique_ptr<nn::Layer<T>> clone() const override {
    return std::make_unique<LshSelfAttention>(*this);
  }

 protected:
  void attend(NdView<const T, 4> q, NdView<const T, 4>, NdView<const T, 4> v, NdView<T, 4> out,
              nn::Cache<T>& cache) const override {
    const Index chunks = (q.extent(2) + lsh_.bucket_size - 1) / lsh_.bucket_size;
    const Index buckets = (std::max)(Index{2}, chunks + chunks % 2);
    const std::uint64_t stream = cache.keep() ? cache.context.step : 0;
    const NdArray<T, 3> rotations =
        lsh_rotations<T>(q.extent(3), lsh_.rounds, buckets, lsh_.seed, stream);
    lsh_attention<T>(q, v, rotations, out, options(cache), &cache.template saved<LshSaved<T>>());
  }
  void attend_vjp(NdView<const T, 4> q, NdView<const T, 4>, NdView<const T, 4> v,
                  NdView<const T, 4> out, NdView<const T, 4> dout, NdView<T, 4> dq, NdView<T, 4>,
                  NdView<T, 4> dv, nn::Cache<T>& cache, nn::GradientsView<T>) const override {
    lsh_attention_vjp<T>(q, v, out, cache.template saved<LshSaved<T>>(), dout, dq, dv,
                         options(cache));
  }

 private:
  [[nodiscard]] LshOptions<T> options(const nn::Cache<T>& cache) const {
    return {
        .bucket_size = lsh_.bucket_size, .causal = lsh_.causal, .threads = cache.context.threads};
  }
  LshSizes lsh_;
};

/// Linformer of several heads, with projections E and F (length, projected) shared by the heads:
/// parameters proj_k and proj_v, by the peer's names. Takes up to `length` positions; never causal.
template <class T>
class LinformerSelfAttention final : public MultiHead<T, nn::Layer<T>> {
 public:
  LinformerSelfAttention(const MultiHeadSizes& sizes, Index length, Index projected)
      : MultiHead<T, nn::Layer<T>>("quern::attention::LinformerSelfAttention", sizes) {
    if (length < 1) throw ValueError(error_text(type(), "length", "at least 1", length));
    if (projected < 1) throw ValueError(error_text(type(), "projected", "at least 1", projected));
    e_.resize({length, projected});
    f_.resize({length, projected});
    this->initialize(0);
  }
  LinformerSelfAttention(const LinformerSelfAttention& other)
      : MultiHead<T, nn::Layer<T>>(other), e_(other.e_.clone()), f_(other.f_.clone()) {}
  [[nodiscard]] std::string_view type() const override {
    return "quern::attention::LinformerSelfAttention";
  }
  [[nodiscard]] std::unique_ptr<nn::Layer<T>> clone() const override {
    return std::make_unique<LinformerSelfAttention>(*this);
  }

 protected:
  void attend(NdView<const T, 4> q, NdView<const T, 4> k, NdView<const T, 4> v, NdView<T, 4> out,
              nn::Cache<T>& cache) const override {
    linformer_attention<T>(q, k, v, e_.view().rows(), f_.view().rows(), out,
                           {.threads = cache.context.threads},
                           &cache.template saved<LinformerSaved<T>>());
  }
  void attend_vjp(NdView<const T, 4> q, NdView<const T, 4> k, NdView<const T, 4> v,
                  NdView<const T, 4> out, NdView<const T, 4> dout, NdView<T, 4> dq, NdView<T, 4> dk,
                  NdView<T, 4> dv, nn::Cache<T>& cache,
                  nn::GradientsView<T> gradients) const override {
    const auto matrix = [&](std::size_t which) {
      return gradients.null() ? MatrixView<T>()
                              : MatrixView<T>(gradients[which].data(), e_.view().rows().extents());
    };
    linformer_attention_vjp<T>(q, k, v, e_.view().rows(), f_.view().rows(), out,
                               cache.template saved<LinformerSaved<T>>(), dout, dq, dk, dv,
                               matrix(0), matrix(1), {.threads = cache.context.threads});
  }
  void more_parameters(nn::ParameterList<T>& out, const std::string& prefix) override {
    out.push_back({prefix + "proj_k", e_.view()});
    out.push_back({prefix + "proj_v", f_.view()});
  }
  /// Uniform in ±1 / sqrt(projected), as the peer.
  void initialize_more(std::uint64_t seed, const std::string& prefix) override {
    const double bound = 1 / std::sqrt(static_cast<double>(e_.view().extent(1)));
    nn::init::uniform(e_.view(), Philox(seed, prefix + "proj_k"), -bound, bound);
    nn::init::uniform(f_.view(), Philox(seed, prefix + "proj_v"), -bound, bound);
  }

 private:
  nn::Tensor<T> e_, f_;
};

}  // namespace attention
QUERN_NAMESPACE_END

#endif  // QUERN_ATTENTION_SPARSE_LAYERS_HPP
