// SPDX-License-Identifier: Apache-2.0

/// \file
/// Gradients of causal linear attention where every head has keys of its own and nothing fades:
/// three sweeps that make their rows while they read them and hand each tile on, so that no array
/// as long as the sequence is written beside the gradients themselves.

#ifndef QUERN_ATTENTION_DETAIL_LINEAR_FUSED_VJP_HPP
#define QUERN_ATTENTION_DETAIL_LINEAR_FUSED_VJP_HPP

#include "quern/attention/detail/linear_head.hpp"
#include "quern/attention/linear_options.hpp"
#include "quern/core/buffer.hpp"
#include "quern/core/config.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/kernels/recurrence_sweep.hpp"

#include <algorithm>
#include <cstddef>

QUERN_NAMESPACE_BEGIN
namespace attention::detail {

/// The gradient by the sums that an output is made of: do scale / normaliser and, in the channel
/// after, -(do . out) / normaliser. Rows of both views have adjacent elements.
template <class T>
class OutputSlopes final : public kernels::StepSource<T> {
 public:
  OutputSlopes(MatrixView<const T> out, MatrixView<const T> dout, const T* normalisers, T scale)
      : out_(out), dout_(dout), normalisers_(normalisers), scale_(scale) {}

  void load(Index begin, Index count, Index first, Index channels, T* to,
            Index stride) const override {
    const Index dv = dout_.cols(), width = (std::clamp)(dv - first, Index{0}, channels);
    for (Index s = 0; s < count; ++s, to += stride) {
      const T* const slope = dout_.row_data(begin + s);
      T factor = T{1};
      if (normalisers_ != nullptr) {
        const T total = normalisers_[begin + s];
        factor = total == T{0} ? T{0} : T{1} / total;
      }
      QUERN_DISPATCH(scale<T>(scale_ * factor, slope + first, static_cast<std::size_t>(width), to));
      if (width == channels) continue;
      to[width] = static_cast<T>(-QUERN_DISPATCH(
                      dot<T>(slope, out_.row_data(begin + s), static_cast<std::size_t>(dv)))) *
                  factor;
    }
  }

 private:
  MatrixView<const T> out_, dout_;
  const T* normalisers_;
  T scale_;
};

/// Takes gradients by features to those by what the features were made of.
template <class T>
class FeatureSlopes final : public kernels::StepSink<T> {
 public:
  FeatureSlopes(MatrixView<const T> x, const FeatureMap<T>& map, MatrixView<T> dx)
      : x_(x), map_(map), dx_(dx) {}

  void store(Index begin, Index count, Index, Index channels, T* values, Index stride) override {
    const MatrixView<const T> x = x_.slice(0, begin, count);
    const MatrixView<const T> dphi(values, {count, channels}, {stride, 1});
    MatrixView<const T> phi = dphi;
    if (map_.vjp_reads_features()) {
      phi_.reset(static_cast<std::size_t>(count * channels));
      FeatureRows<T>(x_, map_, 0, false).rows(begin, begin + count, phi_.data(), channels);
      phi = MatrixView<const T>(phi_.data(), {count, channels});
    }
    map_.vjp(x, phi, dphi, dx_.slice(0, begin, count));
  }

 private:
  MatrixView<const T> x_;
  const FeatureMap<T>& map_;
  MatrixView<T> dx_;
  core::Buffer<T> phi_;
};

/// Whether linear_fused_vjp can do a head.
template <class T>
bool can_fuse_vjp(const LinearHead<T>& head, const MatrixView<const T>& out,
                  const MatrixView<const T>& dout, const MatrixView<T>& dq, const MatrixView<T>& dk,
                  const MatrixView<T>& dv) {
  const bool plain = !head.decays() && !head.key_map.scaled() && !head.query_map.scaled();
  const bool wanted = !dq.is_null() && !dk.is_null() && !dv.is_null();
  if (!plain || !wanted || head.offset != 0 || head.q.rows() != head.k.rows()) return false;
  return head.q.last_stride_is_one() && head.k.last_stride_is_one() && dout.last_stride_is_one() &&
         (!head.normalise || out.last_stride_is_one()) && dq.last_stride_is_one() &&
         dk.last_stride_is_one();
}

/// All gradients of one head, overwritten. `normalisers` (queries), where normalised. The three
/// sweeps need nothing of each other.
template <class T>
void linear_fused_vjp(simd::Level level, const LinearHead<T>& head, MatrixView<const T> out,
                      MatrixView<const T> dout, const T* normalisers, const LinearOptions& options,
                      MatrixView<T> dq, MatrixView<T> dk, MatrixView<T> dv) {
  const Index m = head.features(), values = head.v.cols();
  const FeatureRows<T> phi_q(head.q, head.query_map, 0, head.normalise);
  const FeatureRows<T> phi_k(head.k, head.key_map, 0, head.normalise);
  const TimelineRows<T> v(head.v, 0, head.normalise);
  const OutputSlopes<T> slopes(out, dout, head.normalise ? normalisers : nullptr,
                               static_cast<T>(head.scale));
  FeatureSlopes<T> to_q(head.q, head.query_map, dq), to_k(head.k, head.key_map, dk);
  kernels::ViewSink<T> to_v(dv);
  parallel_for(
      3,
      [&](Index which) {
        kernels::RecurrenceSweep<T> sweep;
        sweep.length = head.k.rows();
        sweep.tile = options.chunk;
        sweep.rows = values + (head.normalise ? 1 : 0);
        sweep.lanes = m;
        sweep.reverse = which > 0;
        if (which == 0) {
          sweep.write = &v, sweep.values = &phi_k, sweep.read = &slopes, sweep.out = &to_q;
        } else if (which == 1) {
          sweep.write = &slopes, sweep.values = &phi_q, sweep.read = &v, sweep.out = &to_k;
        } else {
          sweep.rows = m, sweep.lanes = values;
          sweep.write = &phi_q, sweep.values = &slopes, sweep.read = &phi_k, sweep.out = &to_v;
        }
        kernels::SweepRunner<T> runner(level, sweep);
        runner.run();
      },
      options.threads);
}

}  // namespace attention::detail
QUERN_NAMESPACE_END

#endif  // QUERN_ATTENTION_DETAIL_LINEAR_FUSED_VJP_HPP
