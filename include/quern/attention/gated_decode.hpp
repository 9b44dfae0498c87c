// SPDX-License-Identifier: Apache-2.0

/// \file
/// GAU and FLASH one token at a time. FLASH remembers a group of keys and values and one matrix,
/// however long the sequence; GAU remembers all keys and values.

#ifndef QUERN_ATTENTION_GATED_DECODE_HPP
#define QUERN_ATTENTION_GATED_DECODE_HPP

#include "quern/attention/detail/gated_front.hpp"
#include "quern/attention/detail/gated_tiles.hpp"
#include "quern/attention/detail/state_bytes.hpp"
#include "quern/attention/flash.hpp"
#include "quern/attention/gau.hpp"
#include "quern/attention/relative_bias.hpp"
#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace attention {

/// What GAU remembers: keys and values of all tokens so far, with a window of those that later
/// tokens see (and of some before these: memory stays constant). Copies are independent.
template <class T>
class GauState {
 public:
  /// Before the first token, for `batch` rows of a unit with these weights.
  GauState(Index batch, const GatedUnitWeights<T>& w)
      : batch_(batch), qk_(w.qk_weight.rows()), expanded_(w.out_weight.cols()) {
    step_.previous.assign(static_cast<std::size_t>(batch * (w.out_weight.rows() / 2)), T{0});
  }

  [[nodiscard]] Index batch() const noexcept { return batch_; }
  /// Tokens so far.
  [[nodiscard]] Index position() const noexcept { return step_.position; }
  /// Tokens whose keys and values are held.
  [[nodiscard]] Index kept() const noexcept { return step_.position - dropped_; }
  /// Back to before the first token.
  void reset() {
    step_.position = dropped_ = 0;
    std::fill(step_.previous.begin(), step_.previous.end(), T{0});
  }
  /// Forgets all but the last `count` tokens that are held.
  void keep_last(Index count) {
    const Index gone = kept() - count;
    if (gone <= 0) return;
    move_rows(keys_, keys_, gone);
    move_rows(values_, values_, gone);
    dropped_ += gone;
  }

  /// Tokens that there is room for before memory is asked for again.
  void reserve(Index tokens) {
    if (tokens <= capacity_) return;
    NdArray<T, 3> keys({batch_, tokens, qk_}), values({batch_, tokens, expanded_});
    move_rows(keys_, keys, 0);
    move_rows(values_, values, 0);
    keys_ = std::move(keys), values_ = std::move(values), capacity_ = tokens;
  }

  void save(std::vector<std::byte>& out) const {
    detail::StateWriter to(out);
    for (const Index n : {batch_, qk_, expanded_, step_.position, dropped_}) to.number(n);
    to.array(step_.previous);
    for (Index b = 0; b < batch_; ++b) {
      to.array(keys_.data() + b * capacity_ * qk_, static_cast<std::size_t>(kept() * qk_));
      to.array(values_.data() + b * capacity_ * expanded_,
               static_cast<std::size_t>(kept() * expanded_));
    }
  }
  /// ParseError unless the bytes are those of a state of the same batch and unit.
  void load(std::span<const std::byte> bytes) {
    detail::StateReader from("quern::attention::GauState::load", bytes);
    from.expect("batch", batch_);
    from.expect("s", qk_);
    from.expect("e", expanded_);
    // A token that is held takes bytes, so their number bounds what is asked for.
    const Index position = from.number_in("position", 0, (std::numeric_limits<Index>::max)());
    const Index each = batch_ * (qk_ + expanded_) * static_cast<Index>(sizeof(T));
    const Index least = position - static_cast<Index>(bytes.size()) / (std::max)(each, Index{1});
    const Index dropped = from.number_in("dropped", (std::max)(Index{0}, least), position);
    GauState read = *this;
    read.step_.position = read.dropped_ = 0;
    from.array(read.step_.previous.data(), read.step_.previous.size());
    const Index held = position - dropped;
    read.reserve(held);
    for (Index b = 0; b < batch_; ++b) {
      from.array(read.keys_.data() + b * read.capacity_ * qk_,
                 static_cast<std::size_t>(held * qk_));
      from.array(read.values_.data() + b * read.capacity_ * expanded_,
                 static_cast<std::size_t>(held * expanded_));
    }
    from.finish();
    read.step_.position = position;
    read.dropped_ = dropped;
    *this = std::move(read);
  }

 private:
  void move_rows(const NdArray<T, 3>& from, NdArray<T, 3>& to, Index skip) const {
    const Index width = from.extent(2);
    for (Index b = 0; b < batch_ && kept() > skip; ++b) {
      const T* const source = from.data() + (b * from.extent(1) + skip) * width;
      std::copy(source, source + (kept() - skip) * width,
                to.data() + b * to.extent(1) * to.extent(2));
    }
  }

  template <class U>
  friend void gau_step(std::type_identity_t<MatrixView<const U>>,
                       const std::type_identity_t<GatedUnitWeights<U>>&, MatrixView<U>,
                       GauState<U>&, const std::type_identity_t<GatedUnitOptions<U>>&);

  Index batch_, qk_, expanded_;
  Index capacity_ = 0;
  Index dropped_ = 0;
  detail::GatedStep<T> step_;
  NdArray<T, 3> keys_, values_;  ///< (batch, capacity, s) and (batch, capacity, e)
};

/// What FLASH remembers: the sum over the groups before, and the keys and values of this group.
template <class T>
class FlashState {
 public:
  /// Before the first token, for `batch` rows of a unit with these weights.
  FlashState(Index batch, const GatedUnitWeights<T>& w, Index group)
      : batch_(batch),
        group_(group),
        sums_({batch, w.qk_weight.rows(), w.out_weight.cols()}),
        quad_k_({batch, group, w.qk_weight.rows()}),
        lin_k_({batch, group, w.qk_weight.rows()}),
        v_({batch, group, w.out_weight.cols()}) {
    step_.previous.assign(static_cast<std::size_t>(batch * (w.out_weight.rows() / 2)), T{0});
  }

  [[nodiscard]] Index batch() const noexcept { return batch_; }
  [[nodiscard]] Index position() const noexcept { return step_.position; }
  void reset() {
    step_.position = 0;
    std::fill(step_.previous.begin(), step_.previous.end(), T{0});
    std::fill(sums_.begin(), sums_.end(), T{0});
  }

  void save(std::vector<std::byte>& out) const {
    detail::StateWriter to(out);
    to.number(batch_);
    to.number(group_);
    to.number(step_.position);
    to.array(step_.previous);
    for (const NdArray<T, 3>* a : {&sums_, &quad_k_, &lin_k_, &v_}) {
      to.array(a->data(), static_cast<std::size_t>(a->size()));
    }
  }
  /// ParseError unless the bytes are those of a state of the same batch and unit.
  void load(std::span<const std::byte> bytes) {
    detail::StateReader from("quern::attention::FlashState::load", bytes);
    FlashState read = *this;
    from.expect("batch", batch_);
    from.expect("group", group_);
    read.step_.position = from.number_in("position", 0, (std::numeric_limits<Index>::max)());
    from.array(read.step_.previous.data(), read.step_.previous.size());
    for (NdArray<T, 3>* a : {&read.sums_, &read.quad_k_, &read.lin_k_, &read.v_}) {
      from.array(a->data(), static_cast<std::size_t>(a->size()));
    }
    from.finish();
    *this = std::move(read);
  }

 private:
  template <class U>
  friend void flash_step(std::type_identity_t<MatrixView<const U>>,
                         const std::type_identity_t<GatedUnitWeights<U>>&, MatrixView<U>,
                         FlashState<U>&, const std::type_identity_t<GatedUnitOptions<U>>&);

  Index batch_, group_;
  detail::GatedStep<T> step_;
  NdArray<T, 3> sums_, quad_k_, lin_k_, v_;
};

namespace detail {

/// Checked arguments of a step.
template <class T>
GatedShape step_shape(const char* function, const MatrixView<const T>& x,
                      const GatedUnitWeights<T>& w, const MatrixView<T>& out, Index batch,
                      Index heads, const GatedUnitOptions<T>& options) {
  if (!options.causal) {
    throw ValueError(error_text(function, "causal", "true: a step cannot see what follows", false));
  }
  if (!options.mask.is_null() || !options.lengths.empty() || !options.cumulative.empty()) {
    throw ValueError(error_text(function, "mask, lengths, cumulative", "none in a step", "some"));
  }
  expect_shape(function, "x", x, {batch, w.out_weight.rows()});
  expect_shape(function, "out", out, x.extents());
  const NdView<const T, 3> tokens(x.data(), {batch, 1, x.cols()},
                                  {x.row_stride(), 0, x.col_stride()});
  return gated_shape<T>(function, tokens, w, heads, options);
}

/// weights = f(scale logits + bias of distances n - 1, …, 0), in place.
template <class T>
void activate_step(GateActivation activation, NdView<const T, 1> table, T factor, T scale, Index n,
                   T* logits, const char* function) {
  std::vector<T> bias;
  if (!table.is_null()) {
    const RelativeBuckets bucket = relative_buckets(function, table.extent(0), true);
    for (Index j = 0; j < n; ++j) {
      const Index behind = n - 1 - j;
      // Buckets of far keys are all one: no logarithm for them.
      bias.push_back(factor *
                     table(behind >= bucket.max_distance ? bucket.buckets - 1 : bucket(-behind)));
    }
  }
  const MatrixView<T> x(logits, {1, n});
  const T* const at = bias.empty() ? nullptr : bias.data();
  if (activation == GateActivation::laplace) {
    activate_tile(kernels::LaplaceActivation{}, x, scale, at, 1);
  } else {
    activate_tile(kernels::SquaredRelu{}, x, scale, at, 1);
  }
}

/// Takes the step's result to where it goes.
template <class T>
void finish_step(MatrixView<const T> x, const GatedShape& s, const GatedUnitWeights<T>& w,
                 const GatedUnitOptions<T>& options, GatedUnitSaved<T>& a, MatrixView<T> out) {
  const NdArray<T, 2> dense_x(x);
  NdArray<T, 2> dense_out({s.batch, s.dim}, core::Fill::none);
  gated_back<T>(dense_x.data(), s, w, options, a, dense_out.data(), true);
  copy_elements<T, 2>(dense_out.view(), out);
}

}  // namespace detail

/// One token of causal GAU for every row: x and out (batch, dim). Equals gau's position. The
/// options are gau's, with length_scale said (except for softmax-plus): the sequence's length is
/// not known yet. ValueError otherwise, ShapeError where extents do not fit.
template <class T>
void gau_step(std::type_identity_t<MatrixView<const T>> x,
              const std::type_identity_t<GatedUnitWeights<T>>& w, MatrixView<T> out,
              GauState<T>& state, const std::type_identity_t<GatedUnitOptions<T>>& options) {
  constexpr const char* function = "quern::attention::gau_step";
  const detail::GatedShape s = detail::step_shape<T>(function, x, w, out, state.batch_, 2, options);
  const bool softmax = options.activation == GateActivation::softmax_plus;
  if (!softmax && options.length_scale < 1) {
    throw ValueError(
        error_text(function, "length_scale", "at least 1 for decoding", options.length_scale));
  }
  if (state.qk_ != s.qk || state.expanded_ != s.expanded ||
      static_cast<Index>(state.step_.previous.size()) != s.batch * (s.dim / 2)) {
    throw ShapeError(error_text(function, "state", "one of a unit of this size", "another"));
  }
  const detail::GauCore<T> checked(function, s, s.length, w.bias_table, options);
  const Index window = options.window;
  // Not at every step: moving what stays costs as much as attention does.
  if (window >= 0 && state.kept() > 2 * (window + 1) + 64) state.keep_last(window);
  const Index at = state.kept(), first = window < 0 ? Index{0} : (std::max)(Index{0}, at - window);
  const Index n = at + 1 - first;  // keys that are seen
  if (at + 1 > state.capacity_) state.reserve((std::max)(Index{64}, 2 * at));
  GatedUnitSaved<T> a;
  const NdArray<T, 2> dense_x(x);
  detail::gated_front<T>(dense_x.data(), s, w, options, a, &state.step_);
  a.attended.resize({s.batch, s.expanded});
  const T scale =
      static_cast<T>(1.0 / static_cast<double>((std::max)(options.length_scale, Index{1})));
  const T factor = static_cast<T>(std::sqrt(static_cast<double>(s.dim))) * scale;
  for (Index b = 0; b < s.batch; ++b) {
    std::copy_n(&a.heads(1, b, 0), s.qk, &state.keys_(b, at, 0));
    std::copy_n(&a.hidden(b, 0), s.expanded, &state.values_(b, at, 0));
    const MatrixView<const T> k(&state.keys_(b, first, 0), {n, s.qk});
    const MatrixView<const T> v(&state.values_(b, first, 0), {n, s.expanded});
    NdArray<T, 1> weights({n}, core::Fill::none);
    detail::rows_times<T>(k, &a.heads(0, b, 0), weights.data());
    if (softmax) {
      const T each = detail::GauCore<T>::softmax_plus_scale(n, s.qk);
      detail::scale_row(each, weights.data(), n);
      QUERN_DISPATCH(
          softmax_rows<T>(1, static_cast<std::size_t>(n), weights.data(), n, weights.data(), n));
    } else {
      detail::activate_step(options.activation, w.bias_table, factor, scale, n, weights.data(),
                            function);
    }
    detail::add_weighted_rows<T>(weights.data(), v, &a.attended(b, 0));
  }
  ++state.step_.position;
  detail::finish_step<T>(x, s, w, options, a, out);
}

/// One token of causal FLASH for every row: x and out (batch, dim). Equals flash's position; the
/// memory does not grow.
template <class T>
void flash_step(std::type_identity_t<MatrixView<const T>> x,
                const std::type_identity_t<GatedUnitWeights<T>>& w, MatrixView<T> out,
                FlashState<T>& state, const std::type_identity_t<GatedUnitOptions<T>>& options) {
  constexpr const char* function = "quern::attention::flash_step";
  const detail::GatedShape s = detail::step_shape<T>(function, x, w, out, state.batch_, 4, options);
  const detail::FlashCore<T> checked(function, s, w.bias_table, options);
  if (options.group != state.group_) {
    throw ShapeError(error_text(function, "state", "of groups of " + std::to_string(options.group),
                                state.group_));
  }
  expect_shape(function, "state", state.sums_.view(), {s.batch, s.qk, s.expanded});
  expect_size(function, "state", static_cast<Index>(state.step_.previous.size()),
              s.batch * (s.dim / 2), "channels of the token before");
  GatedUnitSaved<T> a;
  const NdArray<T, 2> dense_x(x);
  detail::gated_front<T>(dense_x.data(), s, w, options, a, &state.step_);
  a.attended.resize({s.batch, s.expanded});
  const Index place = state.step_.position % state.group_, n = place + 1;
  const T scale = static_cast<T>(1.0 / static_cast<double>(state.group_));
  const T factor = static_cast<T>(std::sqrt(static_cast<double>(s.qk)));
  for (Index b = 0; b < s.batch; ++b) {
    std::copy_n(&a.heads(2, b, 0), s.qk, &state.quad_k_(b, place, 0));
    std::copy_n(&a.heads(3, b, 0), s.qk, &state.lin_k_(b, place, 0));
    std::copy_n(&a.hidden(b, 0), s.expanded, &state.v_(b, place, 0));
    const MatrixView<const T> quad_k(&state.quad_k_(b, 0, 0), {n, s.qk});
    const MatrixView<const T> v(&state.v_(b, 0, 0), {n, s.expanded});
    const MatrixView<T> sums(&state.sums_(b, 0, 0), {s.qk, s.expanded});
    NdArray<T, 1> weights({n}, core::Fill::none);
    T* const to = &a.attended(b, 0);
    detail::rows_times<T>(quad_k, &a.heads(0, b, 0), weights.data());
    detail::activate_step(options.activation, w.bias_table, factor, scale, n, weights.data(),
                          function);
    detail::add_weighted_rows<T>(weights.data(), v, to);
    detail::add_weighted_rows<T>(&a.heads(1, b, 0), sums, to);
    if (n < state.group_) continue;
    const MatrixView<const T> lin_k(&state.lin_k_(b, 0, 0), {n, s.qk});
    kernels::gemm<T>(lin_k.transposed(), v, sums,
                     {.alpha = scale, .beta = T{1}, .threads = options.threads});
  }
  ++state.step_.position;
  detail::finish_step<T>(x, s, w, options, a, out);
}

}  // namespace attention
QUERN_NAMESPACE_END

#endif  // QUERN_ATTENTION_GATED_DECODE_HPP
