// SPDX-License-Identifier: Apache-2.0

/// \file
/// Sequences of different lengths in one array: padded (a length a batch entry) or packed one after
/// the other (cumulative lengths).

#ifndef QUERN_KERNELS_SEQUENCE_SPANS_HPP
#define QUERN_KERNELS_SEQUENCE_SPANS_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_view.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace kernels {

/// Which steps of an array (batch, …, length, …) are sequences. Both empty: every batch entry is
/// one of the whole length. At most one of the two may be given.
struct SequenceLengths {
  /// One a batch entry: its steps from there on are padding.
  std::span<const std::int64_t> lengths;
  /// Batch of 1 that holds sequences one after the other: sequence s is steps
  /// [cumulative[s], cumulative[s + 1]), so there is one entry more than sequences, the first is 0.
  std::span<const std::int64_t> cumulative;
};

/// One sequence: steps [begin, begin + length) of a batch entry.
struct SequenceSpan {
  Index batch = 0;
  Index begin = 0;
  Index length = 0;
};

namespace detail {

inline std::vector<SequenceSpan> packed_spans(std::string_view function, Index batch, Index length,
                                              std::span<const std::int64_t> cumulative) {
  if (batch != 1) {
    throw ShapeError(error_text(function, "batch", "1 where sequences are packed", batch));
  }
  std::vector<SequenceSpan> spans;
  if (cumulative.front() != 0) {
    throw ValueError(error_text(function, "cumulative", "0 at first", cumulative.front()));
  }
  for (std::size_t s = 0; s + 1 < cumulative.size(); ++s) {
    const Index begin = cumulative[s], end = cumulative[s + 1];
    if (end < begin || end > length) {
      throw ValueError(error_text(function, "cumulative",
                                  "ascending values up to " + std::to_string(length), end));
    }
    spans.push_back({0, begin, end - begin});
  }
  return spans;
}

}  // namespace detail

/// The sequences of an array of `batch` entries of `length` steps, in order. ShapeError and
/// ValueError, in the name of `function`, for lengths that do not fit.
[[nodiscard]] inline std::vector<SequenceSpan> sequence_spans(std::string_view function,
                                                              Index batch, Index length,
                                                              const SequenceLengths& given) {
  if (!given.lengths.empty() && !given.cumulative.empty()) {
    throw ValueError(error_text(function, "lengths", "lengths or cumulative lengths", "both"));
  }
  if (!given.cumulative.empty()) {
    return detail::packed_spans(function, batch, length, given.cumulative);
  }
  if (!given.lengths.empty() && static_cast<Index>(given.lengths.size()) != batch) {
    throw ShapeError(error_text(function, "lengths", "one a batch entry, " + std::to_string(batch),
                                given.lengths.size()));
  }
  std::vector<SequenceSpan> spans;
  for (Index b = 0; b < batch; ++b) {
    const Index n = given.lengths.empty() ? length : given.lengths[static_cast<std::size_t>(b)];
    if (n < 0 || n > length) {
      throw ValueError(error_text(function, "lengths", "0.." + std::to_string(length), n));
    }
    spans.push_back({b, 0, n});
  }
  return spans;
}

/// Calls fill(batch, begin, end) for every range of steps that belongs to no sequence.
template <class Fill>
void for_each_gap(const std::vector<SequenceSpan>& spans, Index batch, Index length, Fill&& fill) {
  std::vector<Index> end(static_cast<std::size_t>(batch), 0);
  for (const SequenceSpan& s : spans) end[static_cast<std::size_t>(s.batch)] = s.begin + s.length;
  for (Index b = 0; b < batch; ++b) {
    if (end[static_cast<std::size_t>(b)] < length)
      fill(b, end[static_cast<std::size_t>(b)], length);
  }
}

}  // namespace kernels
QUERN_NAMESPACE_END

#endif  // QUERN_KERNELS_SEQUENCE_SPANS_HPP
