// SPDX-License-Identifier: Apache-2.0

/// \file
/// What the kinds of attention share: sequences of queries and of keys, who sees whom, and the
/// checks of their shapes.

#ifndef QUERN_ATTENTION_ATTENTION_OPTIONS_HPP
#define QUERN_ATTENTION_ATTENTION_OPTIONS_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/kernels/sequence_spans.hpp"

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace attention {

using kernels::SequenceLengths;
using kernels::SequenceSpan;

/// Which keys a query sees, and where sequences begin and end. Query i of a sequence stands at
/// position i + offset of its keys.
struct Visibility {
  bool causal = false;  ///< no key after the query's own position
  /// Position of query 0 among the keys. Must be given where queries and keys are not equally many
  /// and positions matter (causal or window): there is no default that everybody means.
  std::optional<Index> offset;
  /// Sliding window: at most so many keys before and after the query's own position are seen; -1:
  /// no bound. causal makes `right` 0.
  Index left = -1, right = -1;
  /// Of the queries; of the keys too where these are as many. Cumulative lengths may end before the
  /// array: the steps beyond are of no sequence, outputs and gradients there are 0.
  SequenceLengths sequences = {};
  SequenceLengths key_sequences = {};  ///< of the keys where they differ
};

/// Sizes of a call, checked: q (batch, heads, length, dim), k (batch, key_heads, keys, dim),
/// v (batch, key_heads, keys, value_dim); query head h reads key head h / (heads / key_heads).
struct AttentionShape {
  const char* function;
  Index batch = 0, heads = 0, key_heads = 0, length = 0, keys = 0, dim = 0, value_dim = 0;
  std::vector<SequenceSpan> query_spans, key_spans;
  Index offset = 0, left = 0, right = 0;  ///< the window, as bounds that can be added

  template <class T>
  AttentionShape(const char* name, const NdView<const T, 4>& q, const NdView<const T, 4>& k,
                 const NdView<const T, 4>& v, const Visibility& visible)
      : function(name),
        batch(q.extent(0)),
        heads(q.extent(1)),
        key_heads(k.extent(1)),
        length(q.extent(2)),
        keys(k.extent(2)),
        dim(q.extent(3)),
        value_dim(v.extent(3)) {
    if (key_heads == 0 ? heads != 0 : heads % key_heads != 0) {
      throw ShapeError(error_text(
          function, "k", "heads that divide those of q, " + std::to_string(heads), key_heads));
    }
    expect_shape(function, "k", k, {batch, key_heads, keys, dim});
    expect_shape(function, "v", v, {batch, key_heads, keys, value_dim});
    set_spans(visible);
    set_window(visible);
  }

  [[nodiscard]] Index sequences() const noexcept { return static_cast<Index>(query_spans.size()); }
  [[nodiscard]] Index share() const noexcept { return key_heads == 0 ? 1 : heads / key_heads; }
  [[nodiscard]] bool windowed() const noexcept { return left < unbounded || right < unbounded; }
  /// A quarter of the range: sums of two cannot overflow.
  static constexpr Index unbounded = (std::numeric_limits<Index>::max)() / 4;

 private:
  void set_spans(const Visibility& visible) {
    query_spans = kernels::sequence_spans(function, batch, length, visible.sequences);
    const SequenceLengths& own = visible.key_sequences;
    const bool same = own.lengths.empty() && own.cumulative.empty() && length == keys;
    key_spans = kernels::sequence_spans(function, batch, keys, same ? visible.sequences : own);
    if (key_spans.size() != query_spans.size()) {
      throw ShapeError(error_text(function, "key_sequences",
                                  std::to_string(query_spans.size()) + ", as of the queries",
                                  key_spans.size()));
    }
  }
  void set_window(const Visibility& visible) {
    if (visible.left < -1 || visible.right < -1) {
      throw ValueError(
          error_text(function, "window", "-1 or more", (std::min)(visible.left, visible.right)));
    }
    left = visible.left < 0 ? unbounded : (std::min)(visible.left, unbounded);
    right = visible.causal      ? 0
            : visible.right < 0 ? unbounded
                                : (std::min)(visible.right, unbounded);
    if (visible.offset.has_value()) {
      offset = *visible.offset;
      if (offset > unbounded || offset < -unbounded) {
        throw ValueError(error_text(function, "offset", "a position", offset));
      }
    } else if (windowed() && length != keys) {
      throw ValueError(error_text(function, "offset",
                                  "a value, since queries and keys are not equally many", "none"));
    }
  }
};

namespace detail {

/// Zeros at steps that belong to no sequence.
template <class T>
void clear_gaps(const std::vector<SequenceSpan>& spans, const NdView<T, 4>& x) {
  if (x.is_null()) return;
  kernels::for_each_gap(spans, x.extent(0), x.extent(2), [&](Index b, Index begin, Index end) {
    for (Index h = 0; h < x.extent(1); ++h) {
      for (Index t = begin; t < end; ++t) {
        for (Index c = 0; c < x.extent(3); ++c) x(b, h, t, c) = T{0};
      }
    }
  });
}

/// (length, dim) of one sequence and head.
template <class T>
MatrixView<T> sequence_rows(const NdView<T, 4>& x, const SequenceSpan& span, Index head) {
  return x.subview(span.batch).subview(head).slice(0, span.begin, span.length);
}

}  // namespace detail
}  // namespace attention
QUERN_NAMESPACE_END

#endif  // QUERN_ATTENTION_ATTENTION_OPTIONS_HPP
