// SPDX-License-Identifier: Apache-2.0

/// \file
/// One head of one sequence of linear attention: its features, made while they are read, on the
/// timeline of its keys. Step t of the timeline is key t and query t - offset.

#ifndef QUERN_ATTENTION_DETAIL_LINEAR_HEAD_HPP
#define QUERN_ATTENTION_DETAIL_LINEAR_HEAD_HPP

#include "quern/attention/attention_options.hpp"
#include "quern/attention/feature_map.hpp"
#include "quern/core/buffer.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/kernels/recurrence_sweep.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

QUERN_NAMESPACE_BEGIN
namespace attention::detail {

/// Rows [begin, begin + count) of a view, where they and their elements lie side by side.
template <class T>
kernels::Ahead memory_of_rows(const MatrixView<const T>& x, Index begin, Index count) {
  const Index first = (std::clamp)(begin, Index{0}, x.rows());
  const Index size = ((std::clamp)(begin + count, first, x.rows()) - first) * x.cols();
  if (size == 0 || !x.is_contiguous()) return {};
  return {x.row_data(first), static_cast<std::ptrdiff_t>(sizeof(T)) * size};
}

/// Rows of a view by their step, zeros outside of it.
template <class T>
class TimelineRows final : public kernels::StepSource<T> {
 public:
  TimelineRows(MatrixView<const T> x, Index shift, bool ones = false)
      : x_(x), shift_(shift), ones_(ones) {}
  /// Channel x.cols() is 1 where `ones`.
  void load(Index begin, Index count, Index first, Index channels, T* out,
            Index stride) const override {
    const Index width = (std::min)(channels, (std::max)(Index{0}, x_.cols() - first));
    for (Index s = 0; s < count; ++s, out += stride) {
      const Index row = begin + s - shift_;
      const bool inside = row >= 0 && row < x_.rows();
      if (inside && x_.last_stride_is_one()) {
        std::copy_n(x_.row_data(row) + first, width, out);
      } else {
        for (Index c = 0; c < width; ++c) out[c] = inside ? x_(row, first + c) : T{0};
      }
      if (ones_ && width < channels) out[width] = T{1};
    }
  }
  [[nodiscard]] const T* direct(Index begin, Index count, Index first, Index channels,
                                Index& stride) const override {
    const Index row = begin - shift_;
    const bool inside = row >= 0 && row + count <= x_.rows() && first + channels <= x_.cols();
    stride = x_.row_stride();
    return inside && x_.last_stride_is_one() ? x_.row_data(row) + first : nullptr;
  }
  /// What memory these steps are made of, if it is in one piece.
  [[nodiscard]] kernels::Ahead memory(Index begin, Index count) const {
    return memory_of_rows(x_, begin - shift_, count);
  }

 private:
  MatrixView<const T> x_;
  Index shift_;
  bool ones_;
};

/// Features of a view's rows by their step, zeros outside of it.
template <class T>
class FeatureRows final : public kernels::StepSource<T> {
 public:
  /// `checked`: features must not be negative. `scales`, one a row of x, takes the rows' scales.
  FeatureRows(MatrixView<const T> x, const FeatureMap<T>& map, Index shift, bool checked,
              T* scales = nullptr)
      : x_(x),
        map_(map),
        features_(map.features(x.cols())),
        shift_(shift),
        checked_(checked && !map.non_negative()),
        scales_(scales) {}

  void load(Index begin, Index count, Index first, Index channels, T* out,
            Index stride) const override {
    const Index low = (std::clamp)(begin - shift_, Index{0}, x_.rows());
    const Index high = (std::clamp)(begin + count - shift_, low, x_.rows());
    for (Index s = 0; s < count; ++s) {
      const Index row = begin + s - shift_;
      if (row < low || row >= high) std::fill_n(out + s * stride, channels, T{0});
    }
    if (low == high) return;
    T* const to = out + (low + shift_ - begin) * stride;
    if (first == 0 && channels == features_) {
      rows(low, high, to, stride);
      return;
    }
    core::Buffer<T> all(static_cast<std::size_t>((high - low) * features_));
    rows(low, high, all.data(), features_);
    for (Index r = 0; r < high - low; ++r) {
      std::copy_n(all.data() + r * features_ + first, channels, to + r * stride);
    }
  }

  /// What memory these steps are made of, if it is in one piece.
  [[nodiscard]] kernels::Ahead memory(Index begin, Index count) const {
    return memory_of_rows(x_, begin - shift_, count);
  }

  /// Features of rows [low, high).
  void rows(Index low, Index high, T* out, Index stride) const {
    const Index count = high - low, dim = x_.cols();
    MatrixView<const T> x = low == 0 && high == x_.rows() ? x_ : x_.slice(0, low, count);
    core::Buffer<T> packed;
    if (!x.last_stride_is_one()) {
      packed = core::Buffer<T>(static_cast<std::size_t>(count * dim));
      for (Index r = 0; r < count; ++r) {
        for (Index c = 0; c < dim; ++c) packed[static_cast<std::size_t>(r * dim + c)] = x(r, c);
      }
      x = MatrixView<const T>(packed.data(), {count, dim});
    }
    const MatrixView<T> phi(out, {count, features_}, {stride, 1});
    core::Buffer<T> scales;
    T* to = scales_ != nullptr ? scales_ + low : nullptr;
    if (to == nullptr && map_.scaled()) {
      scales = core::Buffer<T>(static_cast<std::size_t>(count));
      to = scales.data();
    }
    map_.apply(x, phi, to);
    for (Index r = 0; r < count && checked_; ++r) check(phi.row_data(r));
  }

 private:
  void check(const T* row) const {
    const T least = QUERN_DISPATCH(min_value<T>(row, static_cast<std::size_t>(features_)));
    if (least < T{0}) {
      throw ValueError(error_text("quern::attention::linear_attention", "feature map",
                                  "no negative features where a normaliser sums them", least));
    }
  }

  MatrixView<const T> x_;
  const FeatureMap<T>& map_;
  Index features_, shift_;
  bool checked_;
  T* scales_;
};

/// A head's inputs, and what follows from them for all steps.
template <class T>
struct LinearHead {
  MatrixView<const T> q, k, v;
  const FeatureMap<T>& query_map;
  const FeatureMap<T>& key_map;
  MatrixView<const T> step_decay;     ///< (keys, 1), null: none
  MatrixView<const T> channel_decay;  ///< (keys, features), null: none
  T constant_decay{};                 ///< where `constant`
  bool constant = false;
  bool normalise = false;
  double eps = 0;
  double scale = 1;
  Index offset = 0;
  bool streams = false;  ///< the call's output is larger than caches

  [[nodiscard]] Index features() const { return key_map.features(k.cols()); }
  /// Steps until both keys and queries are over.
  [[nodiscard]] Index steps() const { return (std::max)({k.rows(), q.rows() + offset, Index{0}}); }
  [[nodiscard]] bool decays() const {
    return constant || !step_decay.is_null() || !channel_decay.is_null();
  }
};

/// Features of all keys relative to the running maximum of their scales, and the decays that bring
/// the state along: for maps with scales.
template <class T>
struct ScaledKeys {
  core::Buffer<T> phi;    ///< (steps, features)
  core::Buffer<T> decay;  ///< logarithms: (steps) or (steps, features)
  core::Buffer<T> level;  ///< (steps): the running maximum
  T last{};               ///< its last value

  ScaledKeys(const LinearHead<T>& head, T before) {
    const Index keys = head.k.rows(), steps = head.steps(), m = head.features();
    const bool wide = !head.channel_decay.is_null();
    phi = core::Buffer<T>(static_cast<std::size_t>(steps * m), core::Fill::zero);
    decay = core::Buffer<T>(static_cast<std::size_t>(steps * (wide ? m : 1)), core::Fill::zero);
    level = core::Buffer<T>(static_cast<std::size_t>(steps));
    const FeatureRows<T> rows(head.k, head.key_map, 0, head.normalise, level.data());
    if (keys > 0) rows.rows(0, keys, phi.data(), m);
    constexpr T lowest = -std::numeric_limits<T>::infinity();
    last = before;
    for (Index t = 0; t < steps; ++t) {
      T& at = level[static_cast<std::size_t>(t)];
      const T own = t < keys ? at : lowest;
      const T now = own > last ? own : last;
      // Nothing before (or nothing at all): the state is zero, and any factor does.
      const T step = now == last || last == lowest ? T{0} : last - now;
      const T weight = now == lowest ? T{0} : own - now;
      if (t < keys) {
        QUERN_DISPATCH(scale<T>(static_cast<T>(std::exp(static_cast<double>(weight))),
                                phi.data() + t * m, static_cast<std::size_t>(m),
                                phi.data() + t * m));
        set_decay(head, t, step, wide ? m : 1);
      }
      at = last = now;
    }
  }

 private:
  void set_decay(const LinearHead<T>& head, Index t, T step, Index channels) {
    for (Index c = 0; c < channels; ++c) {
      T own = head.constant ? head.constant_decay : T{0};
      if (!head.step_decay.is_null()) own = head.step_decay(t, 0);
      if (!head.channel_decay.is_null()) own = head.channel_decay(t, c);
      decay[static_cast<std::size_t>(t * channels + c)] = own + step;
    }
  }
};

/// eps in the units of a step's sums.
template <class T>
T scaled_eps(double eps, T key_level, T query_scale) {
  if (eps == 0) return T{0};
  const double exponent = -(static_cast<double>(key_level) + static_cast<double>(query_scale));
  const double value = eps * std::exp((std::min)(exponent, 700.0));
  return static_cast<T>((std::min)(value, static_cast<double>((std::numeric_limits<T>::max)())));
}

/// Divides by the normaliser (the channel after the values) and writes rows that are queries.
template <class T>
class LinearSink final : public kernels::StepSink<T> {
 public:
  LinearSink(const LinearHead<T>& head, MatrixView<T> out, Index values, const T* key_levels,
             const T* query_scales, T* normalisers)
      : head_(head),
        out_(out),
        values_(values),
        key_levels_(key_levels),
        query_scales_(query_scales),
        normalisers_(normalisers) {
    const auto whole = [](Index bytes) { return bytes % 64 == 0; };
    const Index size = static_cast<Index>(sizeof(T));
    streams_ = head.streams && out.last_stride_is_one() && whole(values * size) &&
               whole(out.row_stride() * size) &&
               whole(static_cast<Index>(reinterpret_cast<std::uintptr_t>(out.data()) % 64));
  }

  /// Normalisers of a tile's steps; null: they are in the channel after the values.
  const T* totals = nullptr;

  void store(Index begin, Index count, Index, Index, T* values, Index stride) override {
    const Index low = (std::clamp)(head_.offset - begin, Index{0}, count);
    const Index high = (std::clamp)(out_.rows() + head_.offset - begin, low, count);
    constexpr Index most = 64;
    T factors[most];
    for (Index s = low; s < high; s += most) {
      const Index some = (std::min)(most, high - s), i = begin + s - head_.offset;
      for (Index r = 0; r < some; ++r) {
        factors[r] = factor(s + r, begin, values + (s + r) * stride);
      }
      T* const to = out_.row_data(i);
      T* const from = values + s * stride;
      if (streams_) {
        QUERN_DISPATCH(stream_scaled_rows<T>(static_cast<std::size_t>(some),
                                             static_cast<std::size_t>(values_), factors, from,
                                             stride, to, out_.row_stride()));
        continue;
      }
      if (out_.last_stride_is_one()) {
        QUERN_DISPATCH(scale_rows<T>(static_cast<std::size_t>(some),
                                     static_cast<std::size_t>(values_), factors, from, stride, to,
                                     out_.row_stride()));
        continue;
      }
      for (Index r = 0; r < some; ++r) {
        for (Index c = 0; c < values_; ++c) out_(i + r, c) = factors[r] * from[r * stride + c];
      }
    }
  }

 private:
  /// What step s of a tile is multiplied by.
  [[nodiscard]] T factor(Index s, Index begin, const T* row) const {
    const T scale = static_cast<T>(head_.scale);
    if (!head_.normalise) return scale;
    const Index i = begin + s - head_.offset;
    T total = totals != nullptr ? totals[s] : row[values_];
    total += key_levels_ == nullptr && query_scales_ == nullptr
                 ? static_cast<T>(head_.eps)
                 : scaled_eps<T>(head_.eps, key_levels_ != nullptr ? key_levels_[begin + s] : T{0},
                                 query_scales_ != nullptr ? query_scales_[i] : T{0});
    if (normalisers_ != nullptr) normalisers_[i] = total;
    return total == T{0} ? T{0} : scale / total;
  }

  const LinearHead<T>& head_;
  MatrixView<T> out_;
  Index values_;
  const T *key_levels_, *query_scales_;
  T* normalisers_;
  bool streams_ = false;
};

/// dx of rows x, from features and their gradients by step, rows `stride` apart (0: without gaps).
template <class T>
void feature_vjp(MatrixView<const T> x, const FeatureMap<T>& map, Index shift, const T* phi,
                 const T* dphi, MatrixView<T> dx, Index stride = 0) {
  if (dx.is_null()) return;
  const Index m = map.features(x.cols()), dim = x.cols(), apart = stride > 0 ? stride : m;
  constexpr Index rows = 64;
  const bool copied = !x.last_stride_is_one() || !dx.last_stride_is_one();
  core::Buffer<T> in(static_cast<std::size_t>(copied ? rows * dim : 0)), out(in.size());
  const Index low = (std::clamp)(-shift, Index{0}, x.rows());
  for (Index i = 0; i < low; ++i) {
    for (Index c = 0; c < dim; ++c) dx(i, c) = T{0};
  }
  for (Index i = low; i < x.rows(); i += rows) {
    const Index count = (std::min)(rows, x.rows() - i);
    const Shape<2> wide{count, m}, narrow{count, dim};
    MatrixView<const T> from = x.slice(0, i, count);
    MatrixView<T> to = dx.slice(0, i, count);
    if (copied) {
      for (Index r = 0; r < count; ++r) {
        for (Index c = 0; c < dim; ++c) in[static_cast<std::size_t>(r * dim + c)] = from(r, c);
      }
      from = {in.data(), narrow}, to = {out.data(), narrow};
    }
    map.vjp(from, MatrixView<const T>(phi + (i + shift) * apart, wide, {apart, 1}),
            MatrixView<const T>(dphi + (i + shift) * apart, wide, {apart, 1}), to);
    for (Index r = 0; r < count && copied; ++r) {
      for (Index c = 0; c < dim; ++c) dx(i + r, c) = to(r, c);
    }
  }
}

}  // namespace attention::detail
QUERN_NAMESPACE_END

#endif  // QUERN_ATTENTION_DETAIL_LINEAR_HEAD_HPP
