// SPDX-License-Identifier: Apache-2.0

/// \file
/// Sequences of different lengths one after the other in one row of the batch, where each of them
/// is a call of its own.

#ifndef QUERN_ATTENTION_DETAIL_PACKED_HPP
#define QUERN_ATTENTION_DETAIL_PACKED_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/kernels/sequence_spans.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace attention {
namespace detail {

/// Where the sequences of a packed row begin and end.
class PackedRow {
 public:
  /// ShapeError and ValueError, in the name of `function`, for lengths that do not fit, and where
  /// there are `others`: lengths or masks of rows of a batch.
  PackedRow(const char* function, Index batch, Index length,
            std::span<const std::int64_t> cumulative, bool others)
      : function_(function) {
    if (others) {
      throw ValueError(
          error_text(function, "cumulative", "no lengths and no mask beside it", "some"));
    }
    kernels::SequenceLengths given;
    given.cumulative = cumulative;
    spans_ = kernels::sequence_spans(function, batch, length, given);
  }

  [[nodiscard]] std::size_t size() const noexcept { return spans_.size(); }
  [[nodiscard]] const std::vector<kernels::SequenceSpan>& spans() const noexcept { return spans_; }
  /// fn(number, first, count) for the sequences that are not empty.
  template <class F>
  void for_each(const F& fn) const {
    for (std::size_t s = 0; s < spans_.size(); ++s) {
      if (spans_[s].length > 0) fn(s, spans_[s].begin, spans_[s].length);
    }
  }
  /// ShapeError unless `other` has as many sequences.
  void expect_as_many(const PackedRow& other, const char* argument) const {
    if (other.size() == size()) return;
    throw ShapeError(error_text(function_, argument,
                                std::to_string(size()) + " sequences, as of the queries",
                                other.size()));
  }

 private:
  const char* function_;
  std::vector<kernels::SequenceSpan> spans_;
};

/// Tokens [first, first + count) of a view along a dimension; null stays null.
template <class View>
View packed_part(const View& x, int dimension, Index first, Index count) {
  return x.is_null() ? x : x.slice(dimension, first, count);
}

}  // namespace detail
}  // namespace attention
QUERN_NAMESPACE_END

#endif  // QUERN_ATTENTION_DETAIL_PACKED_HPP
