// SPDX-License-Identifier: Apache-2.0

/// \file
/// Arrays on their way into and out of kernels that want unit stride.

#ifndef QUERN_SSM_DETAIL_ARRAYS_HPP
#define QUERN_SSM_DETAIL_ARRAYS_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/ssm/sequence.hpp"

#include <string>
#include <type_traits>

QUERN_NAMESPACE_BEGIN
namespace ssm::detail {

/// to = from, of equal shapes and any strides.
template <class From, class To, int Rank>
void assign(const NdView<From, Rank>& from, const NdView<To, Rank>& to) {
  if constexpr (Rank == 1) {
    for (Index i = 0; i < to.extent(0); ++i) to(i) = from(i);
  } else {
    for (Index i = 0; i < to.extent(0); ++i) assign(from.subview(i), to.subview(i));
  }
}

/// to += from, likewise.
template <class From, class To, int Rank>
void accumulate(const NdView<From, Rank>& from, const NdView<To, Rank>& to) {
  if constexpr (Rank == 1) {
    for (Index i = 0; i < to.extent(0); ++i) to(i) += from(i);
  } else {
    for (Index i = 0; i < to.extent(0); ++i) accumulate(from.subview(i), to.subview(i));
  }
}

/// Where a kernel writes for a view of any strides: the view itself where its last stride is 1,
/// else memory of its own that finish() copies.
template <class T, int Rank>
class UnitOutput {
 public:
  explicit UnitOutput(const NdView<T, Rank>& v) : target_(v), view_(v) {
    if (v.is_null() || v.last_stride_is_one()) return;
    copy_ = NdArray<T, Rank>(v.extents(), core::Fill::none);
    view_ = copy_.view();
  }
  UnitOutput(const UnitOutput&) = delete;
  UnitOutput& operator=(const UnitOutput&) = delete;
  [[nodiscard]] const NdView<T, Rank>& view() const { return view_; }
  void finish() const {
    if (!copy_.empty()) assign(copy_.view(), target_);
  }

 private:
  NdArray<T, Rank> copy_;
  NdView<T, Rank> target_, view_;
};

/// ShapeError unless a view is null or has these extents.
template <class T, int Rank>
void expect_optional(const char* function, const char* argument, const NdView<T, Rank>& v,
                     const std::type_identity_t<Shape<Rank>>& extents) {
  if (!v.is_null()) expect_shape(function, argument, v, extents);
}

/// Pointer to the element of a row that may be null.
template <class T>
T* at_or_null(T* data, Index offset) {
  return data == nullptr ? nullptr : data + offset;
}

}  // namespace ssm::detail
QUERN_NAMESPACE_END

#endif  // QUERN_SSM_DETAIL_ARRAYS_HPP
