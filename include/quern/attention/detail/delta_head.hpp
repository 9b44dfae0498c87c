// SPDX-License-Identifier: Apache-2.0

/// \file
/// The delta rule of one head of one sequence. Its backward pass is two passes of its own, forward
/// for what the steps wrote and backward for the gradients of that, after which all is linear: the
/// rest are passes of the decayed recurrence.

#ifndef QUERN_ATTENTION_DETAIL_DELTA_HEAD_HPP
#define QUERN_ATTENTION_DETAIL_DELTA_HEAD_HPP

#include "quern/core/buffer.hpp"
#include "quern/core/config.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/kernels/decayed_recurrence.hpp"
#include "quern/kernels/delta_rule_types.hpp"
#include "quern/kernels/kernels.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>

QUERN_NAMESPACE_BEGIN
namespace attention::detail {

template <class T, int Rank>
void fill_zero(const NdView<T, Rank>& x) {
  if constexpr (Rank == 1) {
    for (Index i = 0; i < x.extent(0); ++i) x(i) = T{0};
  } else {
    for (Index i = 0; i < x.extent(0); ++i) fill_zero(x.subview(i));
  }
}

template <class T>
struct DeltaHead {
  MatrixView<const T> q, k, v;
  NdView<const T, 1> beta, log_decay;
  MatrixView<const T> initial;
  T scale{};
};

template <class T>
struct DeltaHeadGradients {
  MatrixView<T> q;               ///< set
  MatrixView<T> k, v;            ///< added to
  NdView<T, 1> beta, log_decay;  ///< added to
  MatrixView<T> initial;         ///< set
};

/// Rows of a view times a scale, in rows of `stride`.
template <class T>
core::Buffer<T> packed_rows(const MatrixView<const T>& x, Index stride, T scale = T{1}) {
  core::Buffer<T> to(static_cast<std::size_t>(x.rows() * stride), core::Fill::zero);
  for (Index r = 0; r < x.rows(); ++r) {
    for (Index c = 0; c < x.cols(); ++c)
      to[static_cast<std::size_t>(r * stride + c)] = scale * x(r, c);
  }
  return to;
}

/// Runs the rule tile by tile and keeps the state.
template <class T>
class DeltaRun {
 public:
  static constexpr Index tile_steps = 64;

  explicit DeltaRun(const DeltaHead<T>& head)
      : head_(head), level_(simd::active_level()), dim_(head.k.cols()) {
    const Index lanes = QUERN_DISPATCH_AT(level_, recurrence_layout<T>()).lanes;
    stride_ = (head.v.cols() + lanes - 1) / lanes * lanes;
    state_ = core::Buffer<T>(static_cast<std::size_t>(dim_ * stride_), core::Fill::zero);
    set_state(head.initial);
  }
  [[nodiscard]] Index stride() const noexcept { return stride_; }

  void set_state(const MatrixView<const T>& from) {
    std::fill(state_.begin(), state_.end(), T{0});
    for (Index r = 0; r < dim_ && !from.is_null(); ++r) {
      for (Index c = 0; c < from.cols(); ++c) at(r, c) = from(r, c);
    }
  }
  void get_state(const MatrixView<T>& to) {
    for (Index r = 0; r < dim_; ++r) {
      for (Index c = 0; c < to.cols(); ++c) to(r, c) = at(r, c);
    }
  }
  /// Sum over all places of the state times those of x.
  [[nodiscard]] double product(const MatrixView<const T>& x) {
    double sum = 0;
    for (Index r = 0; r < dim_ && !x.is_null(); ++r) {
      for (Index c = 0; c < x.cols(); ++c) {
        sum += static_cast<double>(at(r, c)) * static_cast<double>(x(r, c));
      }
    }
    return sum;
  }

  /// out may be null; residuals and writes, (steps, stride()), too.
  void forward(const MatrixView<T>& out, T* residuals, T* writes) {
    const auto take = [&](Index begin, Index count, const kernels::DeltaTile<T>& tile) {
      QUERN_DISPATCH_AT(level_, delta_forward<T>(tile));
      for (Index s = 0; s < count && !out.is_null(); ++s) {
        for (Index c = 0; c < out.cols(); ++c) {
          out(begin + s, c) = head_.scale * tile.out[s * stride_ + c];
        }
      }
    };
    run(head_.v, T{1}, false, residuals, writes, take);
  }
  /// From the last step to the first, the state being its gradient.
  void backward(const MatrixView<const T>& dout, T* residuals, T* writes) {
    const auto take = [&](Index, Index, const kernels::DeltaTile<T>& tile) {
      QUERN_DISPATCH_AT(level_, delta_backward<T>(tile));
    };
    run(dout, head_.scale, true, residuals, writes, take);
  }

 private:
  T& at(Index r, Index c) { return state_[static_cast<std::size_t>(r * stride_ + c)]; }

  template <class Take>
  void run(const MatrixView<const T>& values, T scale, bool reverse, T* residuals, T* writes,
           const Take& take) {
    const Index n = head_.k.rows(), tiles = (n + tile_steps - 1) / tile_steps;
    core::Buffer<T> scratch(static_cast<std::size_t>(3 * tile_steps * stride_));
    core::Buffer<T> factors(2 * static_cast<std::size_t>(tile_steps));
    for (Index i = 0; i < tiles; ++i) {
      const Index begin = (reverse ? tiles - 1 - i : i) * tile_steps;
      const Index count = (std::min)(tile_steps, n - begin);
      const core::Buffer<T> k = packed_rows(head_.k.slice(0, begin, count), dim_);
      const core::Buffer<T> q = packed_rows(head_.q.slice(0, begin, count), dim_);
      const core::Buffer<T> v = packed_rows(values.slice(0, begin, count), stride_, scale);
      T* const decay = factors.data() + tile_steps;
      for (Index s = 0; s < count; ++s) {
        factors[static_cast<std::size_t>(s)] = head_.beta(begin + s);
        decay[s] = head_.log_decay.is_null() ? T{1} : std::exp(head_.log_decay(begin + s));
      }
      kernels::DeltaTile<T> tile;
      tile.steps = count, tile.rows = dim_, tile.stride = stride_;
      tile.keys = k.data(), tile.reads = q.data(), tile.values = v.data();
      tile.beta = factors.data(), tile.decay = decay;
      tile.out = scratch.data();
      tile.residuals = residuals != nullptr ? residuals + begin * stride_
                                            : scratch.data() + tile_steps * stride_;
      tile.writes =
          writes != nullptr ? writes + begin * stride_ : scratch.data() + 2 * tile_steps * stride_;
      tile.state = state_.data();
      take(begin, count, tile);
    }
  }

  DeltaHead<T> head_;
  simd::Level level_;
  Index dim_, stride_ = 0;
  core::Buffer<T> state_;
};

/// (1, 1, steps, channels), steps in reverse where asked for.
template <class T>
NdView<const T, 4> one_head(const T* data, Index steps, Index channels, Index stride,
                            bool reverse = false) {
  if (steps == 0) return {data, {1, 1, 0, channels}};
  return {reverse ? data + (steps - 1) * stride : data,
          {1, 1, steps, channels},
          {0, 0, reverse ? -stride : stride, 1}};
}

/// All gradients of one query head. Names as in the papers: u what was written, w its gradient
/// times beta, which is dv.
template <class T>
void delta_head_vjp(const DeltaHead<T>& head, const MatrixView<const T>& dout,
                    const MatrixView<const T>& dfinal, const DeltaHeadGradients<T>& to) {
  const Index n = head.k.rows(), d = head.k.cols(), dv = head.v.cols();
  DeltaRun<T> run(head);
  const Index stride = run.stride();
  const auto buffer = [](Index size) { return core::Buffer<T>(static_cast<std::size_t>(size)); };
  core::Buffer<T> residual = buffer(n * stride), u = buffer(n * stride);
  core::Buffer<T> answer = buffer(n * stride), w = buffer(n * stride);
  run.forward({}, residual.data(), u.data());
  double carried = run.product(dfinal);
  run.set_state(dfinal);
  run.backward(dout, answer.data(), w.data());
  if (!to.initial.is_null()) run.get_state(to.initial);
  const core::Buffer<T> dy = packed_rows(dout, stride, head.scale);
  const core::Buffer<T> k = packed_rows(head.k, d), q = packed_rows(head.q, d);
  core::Buffer<T> decay(static_cast<std::size_t>(n), core::Fill::zero);
  core::Buffer<T> later(static_cast<std::size_t>(n), core::Fill::zero);
  core::Buffer<T> faded = k.clone();
  for (Index t = 0; t < n && !head.log_decay.is_null(); ++t) {
    decay[static_cast<std::size_t>(t)] = head.log_decay(t);
    if (t + 1 < n) later[static_cast<std::size_t>(t)] = head.log_decay(t + 1);
    const T factor = std::exp(head.log_decay(t));
    for (Index c = 0; c < d; ++c) faded[static_cast<std::size_t>(t * d + c)] *= factor;
  }
  // Passes of the recurrence whose state is a transposed one: (value_dim, dim).
  const auto pass = [&](const T* read, const T* write, const T* values, const T* log_decay,
                        bool reverse, bool old, const MatrixView<const T>& start,
                        core::Buffer<T>& out) {
    kernels::RecurrenceViews<T> in;
    in.q = one_head(read, n, dv, stride, reverse), in.k = one_head(write, n, dv, stride, reverse);
    in.v = one_head(values, n, d, d, reverse);
    const NdView<const T, 4> g = one_head(log_decay, n, 1, 1, reverse);
    in.step_decay = g.subview(0, 3);
    if (!start.is_null()) {
      in.initial_state = {
          start.data(), {1, 1, dv, d}, {0, 0, start.col_stride(), start.row_stride()}};
    }
    kernels::RecurrenceOptions options;
    options.from_old_state = old;
    out = core::Buffer<T>(static_cast<std::size_t>(n * d));
    const Index at = reverse && n > 0 ? (n - 1) * d : 0;
    kernels::decayed_recurrence<T>(
        in, NdView<T, 4>(out.data() + at, {1, 1, n, d}, {0, 0, reverse ? -d : d, 1}), {}, options);
  };
  core::Buffer<T> dq, by_state, by_reads, by_keys;
  pass(dy.data(), u.data(), k.data(), decay.data(), false, false, head.initial, dq);
  // dk = G u - a S w, and G = sums of q dout less sums of k w.
  pass(w.data(), u.data(), k.data(), decay.data(), false, true, head.initial, by_state);
  pass(u.data(), dy.data(), q.data(), later.data(), true, false, dfinal, by_reads);
  pass(u.data(), w.data(), faded.data(), decay.data(), true, true, {}, by_keys);
  for (Index t = n - 1; t >= 0; --t) {
    const std::size_t row = static_cast<std::size_t>(t * d),
                      values = static_cast<std::size_t>(t * stride);
    const T factor = std::exp(decay[static_cast<std::size_t>(t)]);
    for (std::size_t c = 0; c < static_cast<std::size_t>(d); ++c) {
      const Index at = static_cast<Index>(c);
      carried += static_cast<double>(q[row + c]) * static_cast<double>(dq[row + c]);
      if (!to.q.is_null()) to.q(t, at) = dq[row + c];
      if (!to.k.is_null()) {
        to.k(t, at) += by_reads[row + c] - by_keys[row + c] - factor * by_state[row + c];
      }
    }
    double along = 0;
    for (std::size_t c = 0; c < static_cast<std::size_t>(dv); ++c) {
      const Index at = static_cast<Index>(c);
      carried -= static_cast<double>(head.v(t, at)) * static_cast<double>(w[values + c]);
      along += static_cast<double>(answer[values + c]) * static_cast<double>(residual[values + c]);
      if (!to.v.is_null()) to.v(t, at) += w[values + c];
    }
    if (!to.beta.is_null()) to.beta(t) += static_cast<T>(along);
    if (!to.log_decay.is_null()) to.log_decay(t) += static_cast<T>(carried);
  }
}

}  // namespace attention::detail
QUERN_NAMESPACE_END

#endif  // QUERN_ATTENTION_DETAIL_DELTA_HEAD_HPP
