// SPDX-License-Identifier: Apache-2.0

/// \file
/// Where the rows of a sweep come from and where its outputs go.

#ifndef QUERN_KERNELS_DETAIL_RECURRENCE_ROWS_HPP
#define QUERN_KERNELS_DETAIL_RECURRENCE_ROWS_HPP

#include "quern/core/config.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/kernels/decayed_recurrence_types.hpp"
#include "quern/kernels/kernels.hpp"

QUERN_NAMESPACE_BEGIN
namespace kernels {

/// An array of steps by channels that a sweep reads, possibly made while it is read.
template <class T>
class StepSource {
 public:
  virtual ~StepSource() = default;
  /// Writes steps [begin, begin + count), channels [first, first + channels), to
  /// out[step * stride + channel], both counted from 0.
  virtual void load(Index begin, Index count, Index first, Index channels, T* out,
                    Index stride) const = 0;
  /// The same where they lie, channels side by side and steps `stride` apart; null: nowhere.
  [[nodiscard]] virtual const T* direct(Index, Index, Index, Index, Index& stride) const {
    stride = 0;
    return nullptr;
  }
};

/// Where a sweep's outputs go.
template <class T>
class StepSink {
 public:
  virtual ~StepSink() = default;
  /// Takes steps [begin, begin + count), channels [first, first + channels). May change `values`.
  virtual void store(Index begin, Index count, Index first, Index channels, T* values,
                     Index stride) = 0;
  /// Where they may be written instead, channels side by side and steps `stride` apart; null:
  /// nowhere.
  [[nodiscard]] virtual T* direct(Index /*begin*/, Index /*first*/, Index& stride) const {
    stride = 0;
    return nullptr;
  }
};

/// scale times the rows of a view.
template <class T>
class ViewSource final : public StepSource<T> {
 public:
  explicit ViewSource(MatrixView<const T> view, T scale = T{1}) : view_(view), scale_(scale) {}

  void load(Index begin, Index count, Index first, Index channels, T* out,
            Index stride) const override {
    const T* from = view_.row_data(begin) + first * view_.col_stride();
    if (view_.col_stride() == 1) {
      RecurrenceRows<T> rows;
      rows.steps = count, rows.channels = channels, rows.factor = scale_;
      rows.from = from, rows.from_stride = view_.row_stride();
      rows.to = out, rows.to_stride = stride;
      QUERN_DISPATCH(recurrence_rows<T>(rows));
      return;
    }
    for (Index s = 0; s < count; ++s, out += stride, from += view_.row_stride()) {
      for (Index c = 0; c < channels; ++c) out[c] = scale_ * from[c * view_.col_stride()];
    }
  }
  [[nodiscard]] const T* direct(Index begin, Index, Index first, Index,
                                Index& stride) const override {
    stride = view_.row_stride();
    return scale_ == T{1} && view_.col_stride() == 1 ? view_.row_data(begin) + first : nullptr;
  }

 private:
  MatrixView<const T> view_;
  T scale_;
};

/// Writes scale times the outputs to a view, or adds them.
template <class T>
class ViewSink final : public StepSink<T> {
 public:
  explicit ViewSink(MatrixView<T> view, T scale = T{1}, bool add = false)
      : view_(view), scale_(scale), add_(add) {}

  void store(Index begin, Index count, Index first, Index channels, T* values,
             Index stride) override {
    T* to = view_.row_data(begin) + first * view_.col_stride();
    if (view_.col_stride() == 1) {
      RecurrenceRows<T> rows;
      rows.steps = count, rows.channels = channels, rows.factor = scale_, rows.add = add_;
      rows.from = values, rows.from_stride = stride;
      rows.to = to, rows.to_stride = view_.row_stride();
      QUERN_DISPATCH(recurrence_rows<T>(rows));
      return;
    }
    for (Index s = 0; s < count; ++s, values += stride, to += view_.row_stride()) {
      for (Index c = 0; c < channels; ++c) {
        T& at = to[c * view_.col_stride()];
        at = (add_ ? at : T{0}) + scale_ * values[c];
      }
    }
  }
  [[nodiscard]] T* direct(Index begin, Index first, Index& stride) const override {
    stride = view_.row_stride();
    return scale_ == T{1} && !add_ && view_.col_stride() == 1 ? view_.row_data(begin) + first
                                                              : nullptr;
  }

 private:
  MatrixView<T> view_;
  T scale_;
  bool add_;
};

}  // namespace kernels
QUERN_NAMESPACE_END

#endif  // QUERN_KERNELS_DETAIL_RECURRENCE_ROWS_HPP
