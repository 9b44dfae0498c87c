// SPDX-License-Identifier: Apache-2.0

/// \file
/// A transformer block around any sequence layer: x + mixer(norm(x)), then the same with a
/// feed-forward network.

#ifndef QUERN_ATTENTION_TRANSFORMER_HPP
#define QUERN_ATTENTION_TRANSFORMER_HPP

#include "quern/attention/detail/state_bytes.hpp"
#include "quern/attention/detail/token_rows.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/nn/activation.hpp"
#include "quern/nn/init.hpp"
#include "quern/nn/linear.hpp"
#include "quern/nn/sequence_layer.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace attention {
namespace detail {

/// Layer norm of rows with weight and bias, as a part of other layers.
template <class T>
class RowNorm {
 public:
  struct Saved {
    NdArray<T, 2> normed;
    NdArray<T, 1> factor;
  };

  explicit RowNorm(Index dim) {
    weight_.resize({dim});
    bias_.resize({dim});
    nn::init::constant(weight_.view(), T{1});
    nn::init::constant(bias_.view(), T{0});
  }
  RowNorm(const RowNorm& other) : weight_(other.weight_.clone()), bias_(other.bias_.clone()) {}
  RowNorm& operator=(const RowNorm&) = delete;

  void parameters(nn::ParameterList<T>& out, const std::string& prefix) {
    out.push_back({.name = prefix + "weight", .values = weight_.view(), .decay = false});
    out.push_back({.name = prefix + "bias", .values = bias_.view(), .decay = false});
  }
  void initialize() {
    nn::init::constant(weight_.view(), T{1});
    nn::init::constant(bias_.view(), T{0});
  }

  void forward(MatrixView<const T> x, MatrixView<T> y, Saved& saved, int threads) const {
    saved.normed.resize(x.extents(), core::Fill::none);
    saved.factor.resize({x.rows()}, core::Fill::none);
    for_rows(x.rows(), threads, [&](Index first, Index count) {
      for (Index i = first; i < first + count; ++i) {
        saved.factor(i) =
            norm_row(x.row_data(i), x.cols(), GateNorm::layer, epsilon, &saved.normed(i, 0));
      }
    });
    scale_offset<T>(saved.normed.view(), weight_.data(), bias_.data(), y, threads);
  }
  /// dx += the gradient; dy is overwritten; gradients (weight, bias) are added to.
  void backward(MatrixView<T> dy, MatrixView<T> dx, const Saved& saved,
                nn::GradientsView<T> gradients, int threads) const {
    if (!gradients.null()) {
      const auto to = [&](std::size_t k) {
        return NdView<T, 1>(gradients[k].data(), {static_cast<Index>(gradients[k].size())});
      };
      scale_offset_sums<T>(saved.normed.view(), dy, to(0), to(1), threads);
    }
    const std::vector<T> zeros(static_cast<std::size_t>(dy.cols()), T{0});
    scale_offset<T>(dy, weight_.data(), zeros.data(), dy, threads);
    for_rows(dy.rows(), threads, [&](Index first, Index count) {
      for (Index i = first; i < first + count; ++i) {
        norm_row_vjp(&saved.normed(i, 0), dy.cols(), GateNorm::layer, epsilon, saved.factor(i),
                     dy.row_data(i), dx.row_data(i));
      }
    });
  }

 private:
  static constexpr T epsilon = static_cast<T>(1e-5);
  nn::Tensor<T> weight_, bias_;
};

/// y += x.
template <class T>
void add_tensor(nn::TensorView<const T> x, nn::TensorView<T> y, int threads) {
  nn::detail::for_elements(x.size(), threads, [&](Index first, Index count) {
    add_to_row(x.data() + first, count, y.data() + first);
  });
}

}  // namespace detail

/// Pre-norm transformer block: y = x + mixer(norm1(x)); out = y + W2 gelu(W1 norm2(y)). The mixer
/// is any sequence layer that keeps the dimension: softmax, linear, sparse attention, a state
/// space. (GAU and FLASH need no block: they are two in one.)
template <class T>
class TransformerBlock final : public nn::SequenceLayer<T> {
 public:
  /// `hidden`: of the feed-forward network; 0: four times dim.
  TransformerBlock(Index dim, std::unique_ptr<nn::SequenceLayer<T>> mixer, Index hidden = 0)
      : dim_(checked(dim)),
        hidden_(hidden > 0 ? hidden : 4 * dim),
        mixer_(std::move(mixer)),
        norm1_(dim),
        norm2_(dim),
        up_(dim, hidden_),
        down_(hidden_, dim) {
    if (mixer_ == nullptr) throw ValueError(error_text(type(), "mixer", "a layer", "none"));
    mixer_count_ = nn::parameter_count(static_cast<nn::Layer<T>&>(*mixer_));
  }
  TransformerBlock(const TransformerBlock& other)
      : dim_(other.dim_),
        hidden_(other.hidden_),
        mixer_(static_cast<nn::SequenceLayer<T>*>(other.mixer_->clone().release())),
        norm1_(other.norm1_),
        norm2_(other.norm2_),
        mixer_count_(other.mixer_count_),
        up_(dim_, hidden_),
        down_(hidden_, dim_) {
    for (const auto& [to, from] :
         {std::pair<nn::Linear<T>*, const nn::Linear<T>*>{&up_, &other.up_},
          {&down_, &other.down_}}) {
      std::copy(from->weight().begin(), from->weight().end(), to->weight().begin());
      std::copy(from->bias().begin(), from->bias().end(), to->bias().begin());
    }
  }

  [[nodiscard]] nn::SequenceLayer<T>& mixer() { return *mixer_; }
  [[nodiscard]] std::string_view type() const override {
    return "quern::attention::TransformerBlock";
  }
  [[nodiscard]] nn::Extents output_shape(const nn::Extents& in) const override {
    if (in.size() != 3 || in[2] != dim_) {
      throw ShapeError(
          error_text(type(), "in", "batch x length x " + std::to_string(dim_), nn::shape_text(in)));
    }
    if (mixer_->output_shape(in) != in) {
      throw ShapeError(error_text(type(), "mixer", "an output like its input", "another shape"));
    }
    return in;
  }
  void parameters(nn::ParameterList<T>& out, const std::string& prefix) override {
    norm1_.parameters(out, prefix + "norm1.");
    mixer_->parameters(out, prefix + "mixer.");
    norm2_.parameters(out, prefix + "norm2.");
    up_.parameters(out, prefix + "feed_forward.0.");
    down_.parameters(out, prefix + "feed_forward.2.");
  }
  void buffers(nn::ParameterList<T>& out, const std::string& prefix) override {
    mixer_->buffers(out, prefix + "mixer.");
  }
  void initialize(std::uint64_t seed, const std::string& prefix = {}) override {
    norm1_.initialize();
    norm2_.initialize();
    mixer_->initialize(seed, prefix + "mixer.");
    up_.initialize(seed, prefix + "feed_forward.0.");
    down_.initialize(seed, prefix + "feed_forward.2.");
  }
  [[nodiscard]] std::unique_ptr<nn::Layer<T>> clone() const override {
    return std::make_unique<TransformerBlock>(*this);
  }
  [[nodiscard]] std::unique_ptr<nn::SequenceState<T>> make_state(Index batch) const override {
    return mixer_->make_state(batch);
  }
  void step(nn::TensorView<const T> in, nn::TensorView<T> out,
            nn::SequenceState<T>& state) const override {
    this->check_step(in, out, in.rank() > 0 ? in.extent(0) : 0, dim_, dim_);
    nn::Tensor<T> a(in.extents()), wide({in.extent(0), hidden_}), active({in.extent(0), hidden_});
    typename detail::RowNorm<T>::Saved saved;
    norm1_.forward(in.rows(), a.view().rows(), saved, 0);
    mixer_->step(a.view(), out, state);
    detail::add_tensor<T>(in, out, 0);
    norm2_.forward(out.rows(), a.view().rows(), saved, 0);
    nn::Cache<T> cache;
    const nn::Linear<T>&up = up_, &down = down_;
    detail::step_linear<T>(a.view().rows(), up.weight().rows(), up.bias().span(),
                           wide.view().rows());
    gelu_.forward(wide.view(), active.view(), cache, nn::Mode::inference);
    detail::step_linear<T>(active.view().rows(), down.weight().rows(), down.bias().span(),
                           a.view().rows());
    detail::add_tensor<T>(a.view(), out, 0);
  }

 protected:
  void compute(nn::TensorView<const T> in, nn::TensorView<T> out,
               nn::Cache<T>& cache) const override {
    const int threads = cache.context.threads;
    Saved& s = cache.template saved<Saved>();
    nn::Tensor<T>& first = cache.tensor(0, in.extents());
    nn::Tensor<T>& mixed = cache.tensor(1, in.extents());
    nn::Tensor<T>& second = cache.tensor(2, in.extents());
    norm1_.forward(in.rows(), first.view().rows(), s.norm1, threads);
    mixer_->forward(first.view(), mixed.view(), cache.child(0), cache.mode);
    detail::add_tensor<T>(in, mixed.view(), threads);
    norm2_.forward(mixed.view().rows(), second.view().rows(), s.norm2, threads);
    const nn::Extents wide = {in.extent(0), in.extent(1), hidden_};
    nn::Tensor<T>& raised = cache.tensor(5, wide);
    nn::Tensor<T>& active = cache.tensor(6, wide);
    up_.forward(second.view(), raised.view(), cache.child(1), cache.mode);
    gelu_.forward(raised.view(), active.view(), cache.child(2), cache.mode);
    down_.forward(active.view(), out, cache.child(3), cache.mode);
    detail::add_tensor<T>(mixed.view(), out, threads);
  }
  void differentiate(nn::TensorView<const T> dout, nn::TensorView<T> din, nn::Cache<T>& cache,
                     nn::GradientsView<T> gradients) const override {
    const int threads = cache.context.threads;
    Saved& s = cache.template saved<Saved>();
    nn::Tensor<T>& dpart = cache.tensor(3, dout.extents());
    nn::Tensor<T>& dmixed = cache.tensor(4, dout.extents());
    const auto part = [&](std::size_t first, std::size_t n) {
      return gradients.null() ? gradients : gradients.part(first, n);
    };
    const std::size_t feed = 4 + mixer_count_;
    nn::Tensor<T>& dwide = cache.tensor(7, cache.tensor(5).shape());
    nn::Tensor<T>& dactive = cache.tensor(8, cache.tensor(5).shape());
    down_.backward(dout, dactive.view(), cache.child_as_is(3), part(feed + 2, 2));
    gelu_.backward(dactive.view(), dwide.view(), cache.child_as_is(2), {});
    up_.backward(dwide.view(), dpart.view(), cache.child_as_is(1), part(feed, 2));
    std::copy(dout.begin(), dout.end(), dmixed.data());
    norm2_.backward(dpart.view().rows(), dmixed.view().rows(), s.norm2, part(2 + mixer_count_, 2),
                    threads);
    mixer_->backward(dmixed.view(), dpart.view(), cache.child_as_is(0), part(2, mixer_count_));
    norm1_.backward(dpart.view().rows(), dmixed.view().rows(), s.norm1, part(0, 2), threads);
    if (!din.null()) std::copy(dmixed.data(), dmixed.data() + din.size(), din.data());
  }

 private:
  struct Saved {
    typename detail::RowNorm<T>::Saved norm1, norm2;
  };
  static Index checked(Index dim) {
    if (dim < 1) {
      throw ValueError(error_text("quern::attention::TransformerBlock", "dim", "at least 1", dim));
    }
    return dim;
  }
  Index dim_, hidden_;
  std::unique_ptr<nn::SequenceLayer<T>> mixer_;
  detail::RowNorm<T> norm1_, norm2_;
  std::size_t mixer_count_ = 0;
  nn::Linear<T> up_, down_;
  nn::GELU<T> gelu_;
};

}  // namespace attention
QUERN_NAMESPACE_END

#endif  // QUERN_ATTENTION_TRANSFORMER_HPP
