// SPDX-License-Identifier: Apache-2.0

/// \file
/// What layers of several heads have in common: projections to queries, keys and values, rotary
/// positions, the projection back, and a cache of keys and values for decoding. A kind of attention
/// derives from MultiHead and says what lies between.

#ifndef QUERN_ATTENTION_MULTI_HEAD_HPP
#define QUERN_ATTENTION_MULTI_HEAD_HPP

#include "quern/attention/detail/rows.hpp"
#include "quern/attention/detail/token_rows.hpp"
#include "quern/attention/key_value_cache.hpp"
#include "quern/attention/rotary.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/nn/init.hpp"
#include "quern/nn/linear.hpp"
#include "quern/nn/sequence_layer.hpp"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace attention {

/// Sizes of a layer of several heads.
struct MultiHeadSizes {
  Index dim = 0;  ///< of the layer's inputs and outputs
  Index heads = 8;
  Index kv_heads = 0;     ///< heads of keys and values, dividing heads; 0: as many
  Index head_dim = 0;     ///< 0: dim / heads
  bool bias = true;       ///< of the projections
  Index rotary_dims = 0;  ///< channels of a head that are rotated by position, in adjacent pairs
};

/// A KeyValueCache as a layer's state.
template <class T>
class KeyValueState final : public nn::SequenceState<T>, public KeyValueCache<T> {
 public:
  /// `layer` is the type() of the layer that makes it.
  KeyValueState(std::string_view layer, Index batch, Index kv_heads, Index head_dim)
      : KeyValueCache<T>(batch, kv_heads, head_dim), layer_(layer) {}
  [[nodiscard]] std::string_view layer() const noexcept { return layer_; }
  void reset() override { KeyValueCache<T>::reset(); }
  [[nodiscard]] std::unique_ptr<nn::SequenceState<T>> clone() const override {
    return std::make_unique<KeyValueState>(*this);
  }
  void save(std::vector<std::byte>& out) const override { KeyValueCache<T>::save(out); }
  void load(std::span<const std::byte> bytes) override { KeyValueCache<T>::load(bytes); }

 private:
  std::string layer_;
};

/// A layer of several heads over (batch, length, dim). Parameters by PyTorch's names:
/// in_proj_weight (rows: queries, keys, values), in_proj_bias, out_proj.weight, out_proj.bias, and
/// what a kind adds. `Base` is nn::SequenceLayer<T> for kinds that decode position by position,
/// nn::Layer<T> for others.
template <class T, class Base = nn::SequenceLayer<T>>
class MultiHead : public Base {
 public:
  [[nodiscard]] const MultiHeadSizes& sizes() const noexcept { return sizes_; }
  [[nodiscard]] nn::TensorView<T> in_weight() { return in_weight_.view(); }
  [[nodiscard]] nn::TensorView<T> out_weight() { return out_weight_.view(); }

  [[nodiscard]] nn::Extents output_shape(const nn::Extents& in) const override {
    if (in.size() != 3 || in[2] != sizes_.dim) {
      throw ShapeError(error_text(this->type(), "in",
                                  "batch x length x " + std::to_string(sizes_.dim),
                                  nn::shape_text(in)));
    }
    return in;
  }
  void parameters(nn::ParameterList<T>& out, const std::string& prefix) override {
    out.push_back({prefix + "in_proj_weight", in_weight_.view()});
    if (sizes_.bias) {
      out.push_back({.name = prefix + "in_proj_bias", .values = in_bias_.view(), .decay = false});
    }
    out.push_back({prefix + "out_proj.weight", out_weight_.view()});
    if (sizes_.bias) {
      out.push_back({.name = prefix + "out_proj.bias", .values = out_bias_.view(), .decay = false});
    }
    more_parameters(out, prefix);
  }
  /// PyTorch's: Xavier's uniform for the projection in, 1 / sqrt(width) uniform for that out,
  /// biases 0.
  void initialize(std::uint64_t seed, const std::string& prefix = {}) override {
    nn::init::xavier_uniform(in_weight_.view(), Philox(seed, prefix + "in_proj_weight"));
    nn::init::kaiming_uniform(out_weight_.view(), Philox(seed, prefix + "out_proj.weight"),
                              std::sqrt(1.0 / 3));
    for (nn::Tensor<T>* bias : {&in_bias_, &out_bias_}) nn::init::constant(bias->view(), T{0});
    initialize_more(seed, prefix);
  }

 protected:
  /// ValueError for sizes that do not fit. `shared_keys`: keys are the queries, and only values
  /// have a projection beside them.
  MultiHead(const char* function, const MultiHeadSizes& sizes, bool shared_keys = false)
      : sizes_(sizes), shared_(shared_keys) {
    const auto need = [&](bool holds, const char* what, const char* expected, Index got) {
      if (!holds) throw ValueError(error_text(function, what, expected, got));
    };
    need(sizes.dim >= 1, "dim", "at least 1", sizes.dim);
    need(sizes.heads >= 1, "heads", "at least 1", sizes.heads);
    if (sizes_.kv_heads == 0) sizes_.kv_heads = sizes.heads;
    need(sizes_.kv_heads >= 1 && sizes.heads % sizes_.kv_heads == 0, "kv_heads",
         "a divisor of heads", sizes_.kv_heads);
    if (sizes_.head_dim == 0) {
      need(sizes.dim % sizes.heads == 0, "heads", "a divisor of dim", sizes.heads);
      sizes_.head_dim = sizes.dim / sizes.heads;
    }
    need(sizes_.head_dim >= 1, "head_dim", "at least 1", sizes_.head_dim);
    need(sizes.rotary_dims >= 0 && sizes.rotary_dims % 2 == 0 &&
             sizes.rotary_dims <= sizes_.head_dim,
         "rotary_dims", "an even number up to head_dim", sizes.rotary_dims);
    in_weight_.resize({width(), sizes_.dim});
    out_weight_.resize({sizes_.dim, inner()});
    if (sizes_.bias) in_bias_.resize({width()}), out_bias_.resize({sizes_.dim});
  }
  MultiHead(const MultiHead& other)
      : Base(other),
        sizes_(other.sizes_),
        shared_(other.shared_),
        in_weight_(other.in_weight_.clone()),
        in_bias_(other.in_bias_.clone()),
        out_weight_(other.out_weight_.clone()),
        out_bias_(other.out_bias_.clone()) {}

  /// out = attention of q, k, v: (batch, heads, length, head_dim), k and v of kv_heads.
  virtual void attend(NdView<const T, 4> q, NdView<const T, 4> k, NdView<const T, 4> v,
                      NdView<T, 4> out, nn::Cache<T>& cache) const = 0;
  /// Its gradients, overwritten; `gradients` are those of the kind's own parameters. dk is null
  /// where keys are the queries.
  virtual void attend_vjp(NdView<const T, 4> q, NdView<const T, 4> k, NdView<const T, 4> v,
                          NdView<const T, 4> out, NdView<const T, 4> dout, NdView<T, 4> dq,
                          NdView<T, 4> dk, NdView<T, 4> dv, nn::Cache<T>& cache,
                          nn::GradientsView<T> gradients) const = 0;
  virtual void more_parameters(nn::ParameterList<T>&, const std::string&) {}
  virtual void initialize_more(std::uint64_t, const std::string&) {}

  [[nodiscard]] Index inner() const { return sizes_.heads * sizes_.head_dim; }
  [[nodiscard]] Index width() const {
    return inner() + (shared_ ? 1 : 2) * sizes_.kv_heads * sizes_.head_dim;
  }

  void compute(nn::TensorView<const T> in, nn::TensorView<T> out,
               nn::Cache<T>& cache) const override {
    const int threads = cache.context.threads;
    nn::Tensor<T>& projected = cache.tensor(0, {in.extent(0), in.extent(1), width()});
    nn::Tensor<T>& attended = cache.tensor(1, {in.extent(0), in.extent(1), inner()});
    if (in.empty()) return;
    nn::detail::linear_forward<T>(in.rows(), in_weight().rows(), in_bias_.span(),
                                  projected.view().rows(), threads);
    rotate(projected.view(), false, 0, threads);
    const Arrays<T> x = split(projected.view());
    attend(x.q, x.k, x.v, heads_of(attended.view(), sizes_.heads, 0), cache);
    nn::detail::linear_forward<T>(attended.view().rows(), out_weight().rows(), out_bias_.span(),
                                  out.rows(), threads);
  }
  void differentiate(nn::TensorView<const T> dout, nn::TensorView<T> din, nn::Cache<T>& cache,
                     nn::GradientsView<T> gradients) const override {
    if (dout.empty()) return;
    const int threads = cache.context.threads;
    nn::Tensor<T>& projected = cache.tensor(0);
    nn::Tensor<T>& attended = cache.tensor(1);
    nn::Tensor<T>& dattended = cache.tensor(2, attended.shape());
    nn::Tensor<T>& dprojected = cache.tensor(3, projected.shape());
    const std::size_t second = sizes_.bias ? 2 : 1, own = 2 * second;
    const auto gradient = [&](std::size_t k) { return gradients[k]; };
    nn::detail::linear_backward<T>(attended.view().rows(), out_weight().rows(), dout.rows(),
                                   dattended.view().rows(), gradient(second),
                                   sizes_.bias ? gradient(second + 1) : std::span<T>(), threads);
    const Arrays<T> x = split(projected.view()), d = split(dprojected.view());
    attend_vjp(x.q, x.k, x.v, heads_of(attended.view(), sizes_.heads, 0),
               heads_of(dattended.view(), sizes_.heads, 0), d.q, shared_ ? NdView<T, 4>() : d.k,
               d.v, cache,
               gradients.null() ? gradients : gradients.part(own, gradients.size() - own));
    rotate(dprojected.view(), true, 0, threads);
    nn::detail::linear_backward<T>(cache.input.rows(), in_weight().rows(), dprojected.view().rows(),
                                   din.null() ? MatrixView<T>() : din.rows(), gradient(0),
                                   sizes_.bias ? gradient(1) : std::span<T>(), threads);
  }

  /// One position: queries (batch, heads, 1, head_dim) of it, with its keys and values in `state`,
  /// go to `attend_one`, which gives the heads' outputs.
  template <class F>
  void step_with(nn::TensorView<const T> in, nn::TensorView<T> out, KeyValueState<T>& state,
                 const F& attend_one) const {
    step_at(in, out, state.position(),
            [&](NdView<const T, 4> q, NdView<const T, 4> k, NdView<const T, 4> v, NdView<T, 4> to) {
              state.append(k, v);
              attend_one(q, to);
            });
  }
  /// The position numbered `position`: its queries, keys and values (batch, heads, 1, head_dim) go
  /// to `attend_one`, which gives the heads' outputs.
  template <class F>
  void step_at(nn::TensorView<const T> in, nn::TensorView<T> out, Index position,
               const F& attend_one) const {
    nn::Tensor<T> projected({in.extent(0), 1, width()}), attended({in.extent(0), 1, inner()});
    detail::step_linear<T>(in.rows(), in_weight().rows(), in_bias_.span(), projected.view().rows());
    rotate(projected.view(), false, position, 0);
    const Arrays<T> x = split(projected.view());
    attend_one(NdView<const T, 4>(x.q), NdView<const T, 4>(x.k), NdView<const T, 4>(x.v),
               heads_of(attended.view(), sizes_.heads, 0));
    detail::step_linear<T>(attended.view().rows(), out_weight().rows(), out_bias_.span(),
                           out.rows());
  }

 private:
  template <class Element>
  struct Arrays {
    NdView<Element, 4> q, k, v;
  };
  [[nodiscard]] nn::TensorView<const T> in_weight() const { return in_weight_.view(); }
  [[nodiscard]] nn::TensorView<const T> out_weight() const { return out_weight_.view(); }

  /// Columns of (batch, length, width) as (batch, heads, length, head_dim).
  NdView<T, 4> heads_of(nn::TensorView<T> x, Index heads, Index first) const {
    const Index length = x.extent(1), columns = x.extent(2), d = sizes_.head_dim;
    return {x.data() + first, {x.extent(0), heads, length, d}, {length * columns, d, columns, 1}};
  }
  Arrays<T> split(nn::TensorView<T> x) const {
    const Index keys = sizes_.kv_heads * sizes_.head_dim;
    const NdView<T, 4> q = heads_of(x, sizes_.heads, 0);
    if (shared_) return {q, q, heads_of(x, sizes_.kv_heads, inner())};
    return {q, heads_of(x, sizes_.kv_heads, inner()), heads_of(x, sizes_.kv_heads, inner() + keys)};
  }
  void rotate(nn::TensorView<T> x, bool back, Index offset, int threads) const {
    const Index heads = sizes_.heads + (shared_ ? 0 : sizes_.kv_heads);
    if (sizes_.rotary_dims == 0) return;
    const NdView<T, 4> turned = heads_of(x, heads, 0);
    const RotaryOptions options{.dims = sizes_.rotary_dims, .offset = offset, .threads = threads};
    if (back) {
      rotary_vjp<T>(turned, turned, options);
    } else {
      rotary<T>(turned, turned, options);
    }
  }

  MultiHeadSizes sizes_;
  bool shared_;
  nn::Tensor<T> in_weight_, in_bias_, out_weight_, out_bias_;
};

}  // namespace attention
QUERN_NAMESPACE_END

#endif  // QUERN_ATTENTION_MULTI_HEAD_HPP
