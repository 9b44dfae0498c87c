// SPDX-License-Identifier: Apache-2.0

/// \file
/// NdArray<T, Rank>: a contiguous row-major array that owns its elements.

#ifndef QUERN_CORE_ND_ARRAY_HPP
#define QUERN_CORE_ND_ARRAY_HPP

#include "quern/core/buffer.hpp"
#include "quern/core/config.hpp"
#include "quern/core/nd_view.hpp"

#include <algorithm>
#include <cstddef>
#include <type_traits>
#include <utility>

QUERN_NAMESPACE_BEGIN

/// Owns its elements in a core::Buffer (64-byte aligned); row-major, no gaps. Zero extents are
/// legal. Copies are deep. Converts to NdView<T, Rank> and NdView<const T, Rank>; views are valid
/// until the array is resized, assigned to or destroyed (moving keeps them).
template <class T, int Rank>
class NdArray {
  static_assert(!std::is_const_v<T>, "an array's constness is its own, not its elements'");

 public:
  using element_type = T;
  using value_type = T;
  static constexpr int rank = Rank;

  /// Empty: all extents 0.
  NdArray() = default;
  /// Zeros, unless `fill` says that the elements are written anyway. ShapeError for negative or
  /// overflowing extents, std::bad_alloc when there is no memory for them.
  explicit NdArray(const Shape<Rank>& extents, core::Fill fill = core::Fill::zero)
      : extents_(extents),
        buffer_(static_cast<std::size_t>(detail::checked_size(extents, sizeof(T))), fill) {}
  /// A copy of what a view shows, whatever its strides are.
  explicit NdArray(const NdView<const T, Rank>& source)
      : NdArray(source.extents(), core::Fill::none) {
    copy_from(source);
  }
  NdArray(const NdArray& other) : extents_(other.extents_), buffer_(other.buffer_.clone()) {}
  NdArray(NdArray&& other) noexcept
      : extents_(std::exchange(other.extents_, {})), buffer_(std::move(other.buffer_)) {}
  NdArray& operator=(NdArray other) noexcept {
    std::swap(extents_, other.extents_);
    buffer_.swap(other.buffer_);
    return *this;
  }
  ~NdArray() = default;

  [[nodiscard]] T* data() noexcept { return buffer_.data(); }
  [[nodiscard]] const T* data() const noexcept { return buffer_.data(); }
  [[nodiscard]] Index size() const noexcept { return static_cast<Index>(buffer_.size()); }
  [[nodiscard]] bool empty() const noexcept { return buffer_.empty(); }
  [[nodiscard]] Index extent(int r) const noexcept { return extents_[static_cast<std::size_t>(r)]; }
  [[nodiscard]] const Shape<Rank>& extents() const noexcept { return extents_; }
  [[nodiscard]] T* begin() noexcept { return buffer_.begin(); }
  [[nodiscard]] T* end() noexcept { return buffer_.end(); }
  [[nodiscard]] const T* begin() const noexcept { return buffer_.begin(); }
  [[nodiscard]] const T* end() const noexcept { return buffer_.end(); }

  [[nodiscard]] NdView<T, Rank> view() noexcept { return {data(), extents_}; }
  [[nodiscard]] NdView<const T, Rank> view() const noexcept { return {data(), extents_}; }
  operator NdView<T, Rank>() noexcept { return view(); }              // NOLINT: implicit
  operator NdView<const T, Rank>() const noexcept { return view(); }  // NOLINT: implicit

  /// The element at the indices; unchecked.
  template <class... Indices>
  requires(sizeof...(Indices) == static_cast<std::size_t>(Rank)) [[nodiscard]] T& operator()(
      Indices... indices) noexcept {
    return data()[offset(indices...)];
  }
  template <class... Indices>
  requires(sizeof...(Indices) == static_cast<std::size_t>(Rank)) [[nodiscard]] const T& operator()(
      Indices... indices) const noexcept {
    return data()[offset(indices...)];
  }

  void fill(const T& value) { std::fill(begin(), end(), value); }

  /// New extents; the elements are lost (zeros, unless `fill` says none).
  void resize(const Shape<Rank>& extents, core::Fill fill = core::Fill::zero) {
    const Index n = detail::checked_size(extents, sizeof(T));
    extents_ = {};  // stays valid (empty) should the allocation throw
    buffer_.reset(static_cast<std::size_t>(n), fill);
    extents_ = extents;
  }

 private:
  template <class... Indices>
  [[nodiscard]] Index offset(Indices... indices) const noexcept {
    Index at = 0;
    std::size_t r = 0;
    ((at = at * extents_[r++] + static_cast<Index>(indices)), ...);
    return at;
  }

  void copy_from(const NdView<const T, Rank>& source) {
    T* to = data();
    if (source.is_contiguous()) {
      std::copy_n(source.data(), source.size(), to);
      return;
    }
    Shape<Rank> at{};
    for (Index i = 0, n = source.size(); i < n; ++i) {
      Index from = 0;
      for (std::size_t r = 0; r < at.size(); ++r) from += at[r] * source.strides()[r];
      to[i] = source.data()[from];
      for (std::size_t r = at.size(); r-- > 0 && ++at[r] == extents_[r];) at[r] = 0;
    }
  }

  Shape<Rank> extents_{};
  core::Buffer<T> buffer_;
};

template <class T, int Rank>
[[nodiscard]] NdView<T, Rank> view(NdArray<T, Rank>& a) noexcept {
  return a.view();
}
template <class T, int Rank>
[[nodiscard]] NdView<const T, Rank> view(const NdArray<T, Rank>& a) noexcept {
  return a.view();
}

QUERN_NAMESPACE_END

#endif  // QUERN_CORE_ND_ARRAY_HPP
