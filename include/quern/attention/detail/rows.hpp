// SPDX-License-Identifier: Apache-2.0

/// \file
/// Arrays as kernels want them, the last dimension without gaps: read as they are or copied, and
/// written in place or by way of a copy.

#ifndef QUERN_ATTENTION_DETAIL_ROWS_HPP
#define QUERN_ATTENTION_DETAIL_ROWS_HPP

#include "quern/core/config.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"

QUERN_NAMESPACE_BEGIN
namespace attention {
namespace detail {

/// Whether kernels can take a view as it is: adjacent elements in its rows, or no gaps at all.
template <bool kWhole, class T, int Rank>
bool fits_kernels(const NdView<T, Rank>& v) {
  return kWhole ? v.is_contiguous() : v.last_stride_is_one();
}

/// An input whose rows' elements are adjacent (where kWhole, rows too): the caller's memory, or a
/// copy of it.
template <class T, int Rank, bool kWhole = false>
class InputRows {
 public:
  explicit InputRows(const NdView<const T, Rank>& given) : view_(given) {
    if (fits_kernels<kWhole>(given)) return;
    copy_ = NdArray<T, Rank>(given);
    view_ = copy_.view();
  }
  InputRows(const InputRows&) = delete;
  InputRows& operator=(const InputRows&) = delete;
  [[nodiscard]] const NdView<const T, Rank>& view() const noexcept { return view_; }

 private:
  NdArray<T, Rank> copy_;
  NdView<const T, Rank> view_;
};

/// to = from, any strides.
template <class T, int Rank>
void copy_elements(const NdView<const T, Rank>& from, const NdView<T, Rank>& to) {
  if (to.empty()) return;
  constexpr std::size_t last = static_cast<std::size_t>(Rank) - 1;
  const Index inner = to.extents()[last], step = to.strides()[last];
  const Index source_step = from.strides()[last];
  Shape<Rank> at{};
  for (Index row = 0, rows = to.size() / inner; row < rows; ++row) {
    const T* source = from.data();
    T* target = to.data();
    for (std::size_t r = 0; r < last; ++r) {
      source += at[r] * from.strides()[r];
      target += at[r] * to.strides()[r];
    }
    for (Index i = 0; i < inner; ++i) target[i * step] = source[i * source_step];
    for (std::size_t r = last; r-- > 0 && ++at[r] == to.extents()[r];) at[r] = 0;
  }
}

/// Sets every element, any strides.
template <class T, int Rank>
void fill_elements(const NdView<T, Rank>& to, T value) {
  const Shape<Rank> none{};
  copy_elements<T, Rank>(NdView<const T, Rank>(&value, to.extents(), none), to);
}

/// An output of that kind: the caller's memory, or a copy that finish() takes there. A null view
/// stays null.
template <class T, int Rank, bool kWhole = false>
class OutputRows {
 public:
  explicit OutputRows(const NdView<T, Rank>& given) : given_(given), view_(given) {
    if (given.is_null() || fits_kernels<kWhole>(given)) return;
    copy_ = NdArray<T, Rank>(given.extents());
    view_ = copy_.view();
  }
  OutputRows(const OutputRows&) = delete;
  OutputRows& operator=(const OutputRows&) = delete;
  [[nodiscard]] const NdView<T, Rank>& view() const noexcept { return view_; }
  void finish() const {
    if (view_.data() != given_.data()) copy_elements<T, Rank>(view_, given_);
  }

 private:
  NdView<T, Rank> given_;
  NdArray<T, Rank> copy_;
  NdView<T, Rank> view_;
};

}  // namespace detail
}  // namespace attention
QUERN_NAMESPACE_END

#endif  // QUERN_ATTENTION_DETAIL_ROWS_HPP
