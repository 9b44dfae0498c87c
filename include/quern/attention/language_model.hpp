// SPDX-License-Identifier: Apache-2.0

/// \file
/// A causal language model of any sequence layers: embedding, blocks, norm, projection to logits;
/// its loss; generating text with cached decode.

#ifndef QUERN_ATTENTION_LANGUAGE_MODEL_HPP
#define QUERN_ATTENTION_LANGUAGE_MODEL_HPP

#include "quern/attention/detail/state_bytes.hpp"
#include "quern/attention/transformer.hpp"
#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/parallel.hpp"
#include "quern/core/random.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/nn/init.hpp"
#include "quern/nn/linear.hpp"
#include "quern/nn/sequence_layer.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace attention {

/// Sizes of a LanguageModel.
struct LanguageModelSizes {
  Index vocabulary = 256;  ///< tokens are 0..vocabulary - 1: bytes by default
  Index dim = 128;
  bool tied = true;     ///< logits by the embedding itself, rather than by a matrix of their own
  Index positions = 0;  ///< learnt positions, at most so many; 0: the mixers know them (rotary, …)
};

/// The states of a model's blocks.
template <class T>
class LanguageModelState final : public nn::SequenceState<T> {
 public:
  explicit LanguageModelState(Index batch) : batch_(batch) {}
  LanguageModelState(const LanguageModelState& other)
      : batch_(other.batch_), position_(other.position_) {
    for (const auto& s : other.blocks_) blocks_.push_back(s->clone());
  }
  LanguageModelState& operator=(const LanguageModelState&) = delete;

  [[nodiscard]] Index batch() const noexcept { return batch_; }
  [[nodiscard]] Index position() const noexcept { return position_; }
  void advance() noexcept { ++position_; }
  [[nodiscard]] std::vector<std::unique_ptr<nn::SequenceState<T>>>& blocks() { return blocks_; }

  void reset() override {
    position_ = 0;
    for (auto& s : blocks_) s->reset();
  }
  [[nodiscard]] std::unique_ptr<nn::SequenceState<T>> clone() const override {
    return std::make_unique<LanguageModelState>(*this);
  }
  void save(std::vector<std::byte>& out) const override {
    detail::StateWriter to(out);
    to.number(batch_);
    to.number(position_);
    to.number(static_cast<Index>(blocks_.size()));
    for (const auto& s : blocks_) {
      std::vector<std::byte> part;
      s->save(part);
      to.number(static_cast<Index>(part.size()));
      to.array(part);
    }
  }
  void load(std::span<const std::byte> bytes) override {
    detail::StateReader from("quern::attention::LanguageModelState::load", bytes);
    from.expect("batch", batch_);
    constexpr Index most = (std::numeric_limits<Index>::max)();
    const Index position = from.number_in("position", 0, most);
    from.expect("blocks", static_cast<Index>(blocks_.size()));
    std::vector<std::unique_ptr<nn::SequenceState<T>>> read;
    for (const auto& s : blocks_) {
      const Index size = from.number_in("size", 0, static_cast<Index>(bytes.size()));
      std::vector<std::byte> part(static_cast<std::size_t>(size));
      from.array(part.data(), part.size());
      read.push_back(s->clone());
      read.back()->load(part);
    }
    from.finish();
    position_ = position;
    blocks_ = std::move(read);
  }

 private:
  Index batch_;
  Index position_ = 0;
  std::vector<std::unique_ptr<nn::SequenceState<T>>> blocks_;
};

/// Logits of the next token. As a layer: in (batch, length) of tokens, written as numbers of T (no
/// gradient goes into them: din is set to 0), out (batch, length, vocabulary). Parameters:
/// embedding.weight, position.weight, blocks.K.…, norm.…, head.weight.
template <class T>
class LanguageModel final : public nn::Layer<T> {
 public:
  using Blocks = std::vector<std::unique_ptr<nn::SequenceLayer<T>>>;

  /// ValueError for sizes below 1 and for a block that is null.
  LanguageModel(const LanguageModelSizes& sizes, Blocks blocks)
      : sizes_(checked(sizes)), blocks_(std::move(blocks)), norm_(sizes.dim) {
    for (const auto& block : blocks_) {
      if (block == nullptr) throw ValueError(error_text(type(), "blocks", "layers", "none"));
      counts_.push_back(nn::parameter_count(static_cast<nn::Layer<T>&>(*block)));
    }
    embedding_.resize({sizes.vocabulary, sizes.dim});
    if (sizes.positions > 0) positions_.resize({sizes.positions, sizes.dim});
    if (!sizes.tied) head_.resize({sizes.vocabulary, sizes.dim});
    this->initialize(0);
  }
  LanguageModel(const LanguageModel& other)
      : sizes_(other.sizes_),
        norm_(other.norm_),
        counts_(other.counts_),
        embedding_(other.embedding_.clone()),
        positions_(other.positions_.clone()),
        head_(other.head_.clone()) {
    for (const auto& block : other.blocks_) {
      blocks_.emplace_back(static_cast<nn::SequenceLayer<T>*>(block->clone().release()));
    }
  }

  [[nodiscard]] const LanguageModelSizes& sizes() const noexcept { return sizes_; }
  [[nodiscard]] std::string_view type() const override { return "quern::attention::LanguageModel"; }
  [[nodiscard]] nn::Extents output_shape(const nn::Extents& in) const override {
    if (in.size() != 2) {
      throw ShapeError(error_text(type(), "in", "batch x length", nn::shape_text(in)));
    }
    if (sizes_.positions > 0 && in[1] > sizes_.positions) {
      throw ShapeError(
          error_text(type(), "length", "at most " + std::to_string(sizes_.positions), in[1]));
    }
    return {in[0], in[1], sizes_.vocabulary};
  }
  void parameters(nn::ParameterList<T>& out, const std::string& prefix) override {
    out.push_back({prefix + "embedding.weight", embedding_.view()});
    if (sizes_.positions > 0) out.push_back({prefix + "position.weight", positions_.view()});
    for (std::size_t k = 0; k < blocks_.size(); ++k) {
      blocks_[k]->parameters(out, prefix + "blocks." + std::to_string(k) + ".");
    }
    norm_.parameters(out, prefix + "norm.");
    if (!sizes_.tied) out.push_back({prefix + "head.weight", head_.view()});
  }
  void buffers(nn::ParameterList<T>& out, const std::string& prefix) override {
    for (std::size_t k = 0; k < blocks_.size(); ++k) {
      blocks_[k]->buffers(out, prefix + "blocks." + std::to_string(k) + ".");
    }
  }
  /// Embeddings and head normal with deviation 0.02, blocks by themselves.
  void initialize(std::uint64_t seed, const std::string& prefix = {}) override {
    nn::init::normal(embedding_.view(), Philox(seed, prefix + "embedding"), 0, 0.02);
    nn::init::normal(positions_.view(), Philox(seed, prefix + "position"), 0, 0.02);
    nn::init::normal(head_.view(), Philox(seed, prefix + "head"), 0, 0.02);
    for (std::size_t k = 0; k < blocks_.size(); ++k) {
      blocks_[k]->initialize(seed, prefix + "blocks." + std::to_string(k) + ".");
    }
    norm_.initialize();
  }
  [[nodiscard]] std::unique_ptr<nn::Layer<T>> clone() const override {
    return std::make_unique<LanguageModel>(*this);
  }

  /// A state before the first token. ValueError where a block cannot decode.
  [[nodiscard]] std::unique_ptr<LanguageModelState<T>> make_state(Index batch) const {
    auto state = std::make_unique<LanguageModelState<T>>(batch);
    for (const auto& block : blocks_) state->blocks().push_back(block->make_state(batch));
    return state;
  }
  /// One token of each row; logits (batch, vocabulary) of the next.
  void step(std::span<const std::int64_t> tokens, nn::TensorView<T> logits,
            LanguageModelState<T>& state) const {
    const Index batch = state.batch();
    const nn::Extents wanted = {batch, sizes_.vocabulary};
    nn::expect_extents(type(), "logits", logits, wanted);
    if (state.blocks().size() != blocks_.size()) {
      throw ValueError(
          error_text(type(), "state of step", "one of this model's make_state",
                     "one of a model of " + std::to_string(state.blocks().size()) + " blocks"));
    }
    if (static_cast<Index>(tokens.size()) != batch) {
      throw ShapeError(
          error_text(type(), "tokens", "one for each row of the state", tokens.size()));
    }
    if (sizes_.positions > 0 && state.position() >= sizes_.positions) {
      throw ShapeError(error_text(type(), "length", "at most " + std::to_string(sizes_.positions),
                                  state.position() + 1));
    }
    nn::Tensor<T> x({batch, sizes_.dim}), y({batch, sizes_.dim});
    for (Index b = 0; b < batch; ++b) {
      embed(checked_token(tokens[static_cast<std::size_t>(b)]), state.position(),
            x.data() + b * sizes_.dim);
    }
    for (std::size_t k = 0; k < blocks_.size(); ++k) {
      blocks_[k]->step(x.view(), y.view(), *state.blocks()[k]);
      std::swap(x, y);
    }
    typename detail::RowNorm<T>::Saved saved;
    norm_.forward(x.view().rows(), y.view().rows(), saved, 0);
    detail::step_linear<T>(y.view().rows(), head().rows(), {}, logits.rows());
    state.advance();
  }

 protected:
  void compute(nn::TensorView<const T> in, nn::TensorView<T> out,
               nn::Cache<T>& cache) const override {
    const Index batch = in.extent(0), length = in.extent(1), rows = in.size();
    const nn::Extents shape = {batch, length, sizes_.dim};
    std::vector<std::int64_t>& tokens = cache.integers(0);
    tokens.resize(static_cast<std::size_t>(rows));
    for (Index i = 0; i < rows; ++i) {
      tokens[static_cast<std::size_t>(i)] = checked_token(in[i]);
    }
    if (rows == 0) return;
    nn::Tensor<T>& first = cache.tensor(0, shape);
    for (Index i = 0; i < rows; ++i) {
      embed(tokens[static_cast<std::size_t>(i)], i % length, first.data() + i * sizes_.dim);
    }
    // Each block's output is kept: it is the next one's input when gradients go back.
    for (std::size_t k = 0; k < blocks_.size(); ++k) {
      nn::Tensor<T>& next = cache.tensor(k + 1, shape);
      blocks_[k]->forward(cache.tensor(k).view(), next.view(), cache.child(k), cache.mode);
    }
    Saved& s = cache.template saved<Saved>();
    s.top.resize(shape);
    norm_.forward(cache.tensor(blocks_.size()).view().rows(), s.top.view().rows(), s.norm,
                  cache.context.threads);
    kernels::gemm<T>(s.top.view().rows(), head().rows().transposed(), out.rows(),
                     {.threads = cache.context.threads});
  }

  void differentiate(nn::TensorView<const T> dout, nn::TensorView<T> din, nn::Cache<T>& cache,
                     nn::GradientsView<T> gradients) const override {
    if (!din.null()) std::fill(din.begin(), din.end(), T{0});
    if (dout.empty()) return;
    const int threads = cache.context.threads;
    Saved& s = cache.template saved<Saved>();
    const nn::Extents& shape = s.top.shape();
    s.dtop.resize(shape);
    s.dx.resize(shape, core::Fill::zero);
    s.dy.resize(shape);
    const std::size_t blocks_at = sizes_.positions > 0 ? 2 : 1;
    const std::size_t norm_at =
        blocks_at + std::accumulate(counts_.begin(), counts_.end(), std::size_t{0});
    const std::span<T> dhead =
        gradients.null() ? std::span<T>() : gradients[sizes_.tied ? 0 : norm_at + 2];
    nn::detail::linear_backward<T>(s.top.view().rows(), head().rows(), dout.rows(),
                                   s.dtop.view().rows(), dhead, {}, threads);
    norm_.backward(s.dtop.view().rows(), s.dx.view().rows(), s.norm,
                   gradients.null() ? gradients : gradients.part(norm_at, 2), threads);
    std::size_t at = norm_at;
    for (std::size_t k = blocks_.size(); k-- > 0;) {
      at -= counts_[k];
      blocks_[k]->backward(s.dx.view(), s.dy.view(), cache.child_as_is(k),
                           gradients.null() ? gradients : gradients.part(at, counts_[k]));
      std::swap(s.dx, s.dy);
    }
    if (gradients.null()) return;
    const std::vector<std::int64_t>& tokens = cache.integers(0);
    const Index dim = sizes_.dim, length = shape[1];
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      const T* const from = s.dx.data() + static_cast<Index>(i) * dim;
      detail::add_to_row(from, dim, gradients[0].data() + tokens[i] * dim);
      if (sizes_.positions > 0) {
        detail::add_to_row(from, dim, gradients[1].data() + static_cast<Index>(i) % length * dim);
      }
    }
  }

 private:
  struct Saved {
    nn::Tensor<T> top, dtop, dx, dy;
    typename detail::RowNorm<T>::Saved norm;
  };
  static LanguageModelSizes checked(const LanguageModelSizes& sizes) {
    constexpr const char* function = "quern::attention::LanguageModel";
    if (sizes.vocabulary < 1) {
      throw ValueError(error_text(function, "vocabulary", "at least 1", sizes.vocabulary));
    }
    if (sizes.dim < 1) throw ValueError(error_text(function, "dim", "at least 1", sizes.dim));
    if (sizes.positions < 0) {
      throw ValueError(error_text(function, "positions", "at least 0", sizes.positions));
    }
    return sizes;
  }
  template <class Number>
  std::int64_t checked_token(Number token) const {
    if (!(token >= Number{0}) || !(token < static_cast<Number>(sizes_.vocabulary))) {
      throw ValueError(error_text(type(), "token", "0.." + std::to_string(sizes_.vocabulary - 1),
                                  static_cast<double>(token)));
    }
    const auto whole = static_cast<std::int64_t>(token);
    if (static_cast<Number>(whole) != token) {
      throw ValueError(error_text(type(), "token", "a whole number", static_cast<double>(token)));
    }
    return whole;
  }
  void embed(std::int64_t token, Index position, T* to) const {
    const T* const from = embedding_.data() + token * sizes_.dim;
    std::copy(from, from + sizes_.dim, to);
    if (sizes_.positions > 0) {
      detail::add_to_row(positions_.data() + position * sizes_.dim, sizes_.dim, to);
    }
  }
  [[nodiscard]] nn::TensorView<const T> head() const {
    return sizes_.tied ? embedding_.view() : head_.view();
  }

  LanguageModelSizes sizes_;
  Blocks blocks_;
  detail::RowNorm<T> norm_;
  std::vector<std::size_t> counts_;
  nn::Tensor<T> embedding_, positions_, head_;
};

/// Mean of -log softmax(logits)[target] over all rows, in nats; bits per byte are this / log 2 for
/// a model of bytes. Where dlogits is not null it becomes the gradient, times `scale`. logits (…,
/// vocabulary), one target a row. ShapeError, ValueError for a target outside.
template <class T>
double next_token_loss(std::type_identity_t<nn::TensorView<const T>> logits,
                       std::span<const std::int64_t> targets, nn::TensorView<T> dlogits,
                       double scale = 1, int threads = 0) {
  constexpr const char* function = "quern::attention::next_token_loss";
  const MatrixView<const T> x = logits.rows();
  if (static_cast<Index>(targets.size()) != x.rows()) {
    throw ShapeError(error_text(function, "targets", std::to_string(x.rows()), targets.size()));
  }
  if (!dlogits.null()) nn::expect_extents(function, "dlogits", dlogits, logits.extents());
  for (const std::int64_t target : targets) {
    if (target < 0 || target >= x.cols()) {
      throw ValueError(
          error_text(function, "target", "0.." + std::to_string(x.cols() - 1), target));
    }
  }
  if (x.rows() == 0) return 0;
  const double count = static_cast<double>(x.rows());
  const auto cols = static_cast<std::size_t>(x.cols());
  constexpr Index block = 64;
  const double total = parallel_reduce(
      block_count(x.rows(), block), 0.0,
      [&](Index which) {
        const BlockRange rows = block_range(x.rows(), block, which);
        double sum = 0;
        for (Index i = rows.begin; i < rows.end; ++i) {
          T lse = 0;
          const std::int64_t target = targets[static_cast<std::size_t>(i)];
          QUERN_DISPATCH(log_sum_exp_rows<T>(1, cols, x.row_data(i), 0, &lse));
          sum += static_cast<double>(lse) - static_cast<double>(x(i, target));
          if (dlogits.null()) continue;
          T* const to = dlogits.data() + i * x.cols();
          const T each = static_cast<T>(scale / count);
          QUERN_DISPATCH(softmax_rows<T>(1, cols, x.row_data(i), 0, to, 0));
          detail::scale_row(each, to, x.cols());
          to[target] -= each;
        }
        return sum;
      },
      [](double a, double b) { return a + b; }, threads);
  return total / count;
}

/// Options of generate.
struct GenerateOptions {
  Index tokens = 256;      ///< how many to add
  double temperature = 1;  ///< logits are divided by it; 0: always the likeliest
  Index top_k = 0;         ///< only the k likeliest; 0: all
  std::uint64_t seed = 0;
  /// Called with each token; false ends.
  std::function<bool(std::int64_t)> on_token = {};
};

namespace detail {

inline void check_generate(const GenerateOptions& options) {
  constexpr const char* function = "quern::attention::generate";
  if (options.tokens < 0) {
    throw ValueError(error_text(function, "tokens", "0 or more", options.tokens));
  }
  if (!is_finite_bits(options.temperature) || options.temperature < 0) {
    throw ValueError(
        error_text(function, "temperature", "a finite number, 0 or more", options.temperature));
  }
  if (options.top_k < 0) {
    throw ValueError(error_text(function, "top_k", "0 or more", options.top_k));
  }
}

/// Draws from softmax(logits / temperature) among the k likeliest.
template <class T>
std::int64_t draw_token(std::span<const T> logits, const GenerateOptions& options, Philox& random) {
  std::vector<std::size_t> order(logits.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  const auto before = [&](std::size_t a, std::size_t b) {
    return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
  };
  const std::size_t keep = options.top_k > 0
                               ? (std::min)(order.size(), static_cast<std::size_t>(options.top_k))
                               : order.size();
  std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(keep), order.end(),
                    before);
  if (options.temperature <= 0) return static_cast<std::int64_t>(order[0]);
  std::vector<double> weight(keep);
  double total = 0;
  for (std::size_t i = 0; i < keep; ++i) {
    const double above =
        static_cast<double>(logits[order[i]]) - static_cast<double>(logits[order[0]]);
    total += weight[i] = std::exp(above / options.temperature);
  }
  double left = random.uniform() * total;
  for (std::size_t i = 0; i < keep; ++i) {
    left -= weight[i];
    if (left < 0) return static_cast<std::int64_t>(order[i]);
  }
  return static_cast<std::int64_t>(order[keep - 1]);
}

}  // namespace detail

/// Continues a prompt (at least one token), token by token with cached states; gives what was
/// added. The same options give the same tokens. ValueError for an empty prompt, and for tokens,
/// temperature (also NaN) or top_k below 0.
template <class T>
[[nodiscard]] std::vector<std::int64_t> generate(const LanguageModel<T>& model,
                                                 std::span<const std::int64_t> prompt,
                                                 const GenerateOptions& options = {}) {
  if (prompt.empty()) {
    throw ValueError(
        error_text("quern::attention::generate", "prompt", "at least one token", "none"));
  }
  detail::check_generate(options);
  const auto state = model.make_state(1);
  nn::Tensor<T> logits({1, model.sizes().vocabulary});
  for (const std::int64_t token : prompt) {
    model.step(std::span<const std::int64_t>(&token, 1), logits.view(), *state);
  }
  Philox random(options.seed, "attention: generate");
  std::vector<std::int64_t> added;
  while (static_cast<Index>(added.size()) < options.tokens) {
    const std::int64_t next = detail::draw_token<T>(logits.span(), options, random);
    added.push_back(next);
    if (options.on_token && !options.on_token(next)) break;
    if (static_cast<Index>(added.size()) == options.tokens) break;
    model.step(std::span<const std::int64_t>(&next, 1), logits.view(), *state);
  }
  return added;
}

}  // namespace attention
QUERN_NAMESPACE_END

#endif  // QUERN_ATTENTION_LANGUAGE_MODEL_HPP
