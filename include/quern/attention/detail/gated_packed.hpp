// SPDX-License-Identifier: Apache-2.0

/// \file
/// Gated units over sequences of different lengths in one row of the batch: each by itself, so that
/// shifts of tokens, positions and lengths begin anew.

#ifndef QUERN_ATTENTION_DETAIL_GATED_PACKED_HPP
#define QUERN_ATTENTION_DETAIL_GATED_PACKED_HPP

#include "quern/attention/attention_options.hpp"
#include "quern/attention/detail/packed.hpp"
#include "quern/attention/gated_unit.hpp"
#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/nd_view.hpp"

#include <cstddef>

QUERN_NAMESPACE_BEGIN
namespace attention {
namespace detail {

/// A packed row of a gated unit, and the options of each of its sequences.
template <class T>
struct GatedRow {
  PackedRow row;
  GatedUnitOptions<T> each;
  GatedRow(const char* function, const NdView<const T, 3>& x, const GatedUnitOptions<T>& options)
      : row(function, x.extent(0), x.extent(1), options.cumulative,
            !options.mask.is_null() || !options.lengths.empty()),
        each(options) {
    each.cumulative = {};
  }
  /// Zeros at tokens of no sequence.
  void clear(const NdView<T, 3>& x) const {
    if (x.is_null()) return;
    clear_gaps(row.spans(), NdView<T, 4>(x.data(), {x.extent(0), 1, x.extent(1), x.extent(2)},
                                         {x.stride(0), 0, x.stride(1), x.stride(2)}));
  }
};

/// unit(x, out, options, saved) of every sequence.
template <class T, class F>
void gated_packed(const char* function, NdView<const T, 3> x, NdView<T, 3> out,
                  const GatedUnitOptions<T>& options, GatedUnitSaved<T>* saved, const F& unit) {
  const GatedRow<T> packed(function, x, options);
  expect_shape(function, "out", out, x.extents());
  packed.clear(out);
  if (saved != nullptr) {
    *saved = {};
    saved->parts.resize(packed.row.size());
  }
  packed.row.for_each([&](std::size_t s, Index first, Index n) {
    unit(x.slice(1, first, n), out.slice(1, first, n), packed.each,
         saved != nullptr ? &saved->parts[s] : nullptr);
  });
}

/// unit_vjp(x, saved, dout, dx, options) of every sequence.
template <class T, class F>
void gated_packed_vjp(const char* function, NdView<const T, 3> x, const GatedUnitSaved<T>& saved,
                      NdView<const T, 3> dout, NdView<T, 3> dx, const GatedUnitOptions<T>& options,
                      const F& unit_vjp) {
  const GatedRow<T> packed(function, x, options);
  expect_shape(function, "dout", dout, x.extents());
  if (!dx.is_null()) expect_shape(function, "dx", dx, x.extents());
  expect_size(function, "saved", static_cast<Index>(saved.parts.size()),
              static_cast<Index>(packed.row.size()), "sequences");
  packed.clear(dx);
  packed.row.for_each([&](std::size_t s, Index first, Index n) {
    unit_vjp(x.slice(1, first, n), saved.parts[s], dout.slice(1, first, n),
             packed_part(dx, 1, first, n), packed.each);
  });
}

}  // namespace detail
}  // namespace attention
QUERN_NAMESPACE_END

#endif  // QUERN_ATTENTION_DETAIL_GATED_PACKED_HPP
