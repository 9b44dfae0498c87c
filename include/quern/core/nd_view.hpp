// SPDX-License-Identifier: Apache-2.0

/// \file
/// Non-owning views of arrays of any rank: NdView<T, Rank> and MatrixView<T>. Views of Eigen's
/// matrices are made by quern::view of core/eigen_view.hpp.
///
/// A view is a pointer, extents and signed strides in elements. It never copies, never owns, and is
/// as const as its element type: `NdView<const float, 2>` reads, `NdView<float, 2>` also writes.

#ifndef QUERN_CORE_ND_VIEW_HPP
#define QUERN_CORE_ND_VIEW_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

QUERN_NAMESPACE_BEGIN

/// Extents and strides are counted in this signed type (the same as Eigen::Index).
using Index = std::ptrdiff_t;

/// Extents or strides of an array of rank `Rank`.
template <int Rank>
using Shape = std::array<Index, static_cast<std::size_t>(Rank)>;

/// "2 x 3 x 4", for messages.
template <std::size_t Rank>
[[nodiscard]] std::string shape_text(const std::array<Index, Rank>& shape) {
  std::string text;
  for (std::size_t r = 0; r < Rank; ++r) {
    if (r > 0) text += " x ";
    text += std::to_string(shape[r]);
  }
  return text;
}

namespace detail {

[[noreturn]] inline void bad_shape(const char* argument, const char* expected,
                                   const std::string& got) {
  throw ShapeError(error_text("quern::NdView", argument, expected, got));
}

/// a * b for non-negative a and b, ShapeError where that passes the largest Index.
inline Index checked_product(Index a, Index b) {
  if (b != 0 && a > (std::numeric_limits<Index>::max)() / b) {
    bad_shape("extents", "an array that fits the address space",
              std::to_string(a) + " times " + std::to_string(b));
  }
  return a * b;
}

/// Product of the extents; ShapeError for a negative one and where bytes overflow.
template <std::size_t Rank>
Index checked_size(const std::array<Index, Rank>& extents, std::size_t element_bytes) {
  bool empty = false;
  for (Index e : extents) {
    if (e < 0) bad_shape("extents", "non-negative extents", shape_text(extents));
    empty = empty || e == 0;
  }
  if (empty) return 0;
  Index bytes = static_cast<Index>(element_bytes);
  for (Index e : extents) bytes = checked_product(bytes, e);
  return bytes / static_cast<Index>(element_bytes);
}

/// Row-major strides of a contiguous array. An empty array's strides do not matter (they are
/// those of its extents with each zero replaced by one, never overflowing).
template <std::size_t Rank>
constexpr std::array<Index, Rank> row_major_strides(const std::array<Index, Rank>& extents) {
  std::array<Index, Rank> strides{};
  Index step = 1;
  for (std::size_t r = Rank; r-- > 0;) {
    strides[r] = step;
    const Index e = extents[r] > 0 ? extents[r] : 1;
    step = step <= (std::numeric_limits<Index>::max)() / e ? step * e : 1;
  }
  return strides;
}

/// Lowest and one past the highest byte that a view touches, relative to its data pointer.
struct ByteSpan {
  Index low = 0;
  Index high = 0;
};

template <std::size_t Rank>
ByteSpan checked_byte_span(const std::array<Index, Rank>& extents,
                           const std::array<Index, Rank>& strides, std::size_t element_bytes) {
  constexpr Index largest = (std::numeric_limits<Index>::max)();
  const Index bytes = static_cast<Index>(element_bytes);
  ByteSpan span{0, bytes};
  for (std::size_t r = 0; r < Rank; ++r) {
    const Index steps = extents[r] - 1;
    if (steps <= 0) continue;
    if (strides[r] == (std::numeric_limits<Index>::min)()) {
      bad_shape("strides", "strides that fit the address space", shape_text(strides));
    }
    const Index magnitude = strides[r] < 0 ? -strides[r] : strides[r];
    const Index reach = checked_product(checked_product(magnitude, bytes), steps);
    if (reach > largest - (span.high - span.low)) {
      bad_shape("strides", "an array that fits the address space", shape_text(strides));
    }
    (strides[r] < 0 ? span.low : span.high) += strides[r] < 0 ? -reach : reach;
  }
  return span;
}

}  // namespace detail

/// View of `Rank` dimensions on elements of type T that somebody else owns. Trivially copyable;
/// pass it by value. Zero extents are legal (an empty view), and so is any signed stride, also 0
/// (a broadcast). A default-constructed view is null: no data, all extents 0.
template <class T, int Rank>
class NdView {
  static_assert(Rank >= 1, "a view has at least one dimension");

 public:
  using element_type = T;
  using value_type = std::remove_cv_t<T>;
  static constexpr int rank = Rank;

  constexpr NdView() noexcept = default;

  /// Contiguous, row-major (last index fastest). ShapeError for negative or overflowing extents,
  /// and for null data with a size other than 0.
  NdView(T* data, const Shape<Rank>& extents)
      : data_(data), extents_(extents), strides_(detail::row_major_strides(extents)) {
    if (detail::checked_size(extents, sizeof(T)) > 0 && data == nullptr) null_data();
  }

  /// Any strides, counted in elements; `data` is the element of index (0, …, 0).
  NdView(T* data, const Shape<Rank>& extents, const Shape<Rank>& strides)
      : data_(data), extents_(extents), strides_(strides) {
    // Strides may be 0, so the number of elements can be larger than the memory behind them.
    if (detail::checked_size(extents, 1) == 0) return;
    if (data == nullptr) null_data();
    detail::checked_byte_span(extents, strides, sizeof(T));
  }

  /// NdView<T> reads as NdView<const T>.
  template <class U>
  requires(!std::same_as<U, T> && std::same_as<const U, T>) constexpr NdView(
      const NdView<U, Rank>& other) noexcept  // NOLINT: implicit on purpose
      : data_(other.data()), extents_(other.extents()), strides_(other.strides()) {}

  [[nodiscard]] constexpr T* data() const noexcept { return data_; }
  [[nodiscard]] constexpr Index extent(int r) const noexcept { return extents_[at_rank(r)]; }
  [[nodiscard]] constexpr Index stride(int r) const noexcept { return strides_[at_rank(r)]; }
  [[nodiscard]] constexpr const Shape<Rank>& extents() const noexcept { return extents_; }
  [[nodiscard]] constexpr const Shape<Rank>& strides() const noexcept { return strides_; }

  /// Number of elements.
  [[nodiscard]] constexpr Index size() const noexcept {
    Index n = 1;
    for (Index e : extents_) n *= e;
    return n;
  }
  [[nodiscard]] constexpr bool empty() const noexcept { return size() == 0; }
  /// No data at all: how an optional argument is left out.
  [[nodiscard]] constexpr bool is_null() const noexcept { return data_ == nullptr; }
  explicit constexpr operator bool() const noexcept { return data_ != nullptr; }

  /// The element at the indices; unchecked.
  template <class... Indices>
  requires(sizeof...(Indices) == static_cast<std::size_t>(Rank) &&
           (std::is_integral_v<Indices> && ...)) [[nodiscard]] constexpr T&
  operator()(Indices... indices) const noexcept {
    Index offset = 0;
    std::size_t r = 0;
    ((offset += static_cast<Index>(indices) * strides_[r++]), ...);
    return data_[offset];
  }

  /// Row-major without gaps (dimensions of extent 1 may have any stride; empty counts too).
  [[nodiscard]] constexpr bool is_contiguous() const noexcept {
    if (empty()) return true;
    Index step = 1;
    for (std::size_t r = static_cast<std::size_t>(Rank); r-- > 0;) {
      if (extents_[r] != 1 && strides_[r] != step) return false;
      step *= extents_[r];
    }
    return true;
  }

  /// Whether a kernel that wants unit stride along the last dimension can read this as it is.
  [[nodiscard]] constexpr bool last_stride_is_one() const noexcept {
    return strides_.back() == 1 || extents_.back() <= 1;
  }

  /// The same view with dimension `axis` cut to [begin, begin + count). ShapeError outside.
  [[nodiscard]] NdView slice(int axis, Index begin, Index count) const {
    if (axis < 0 || axis >= Rank) bad_axis(axis);
    const std::size_t r = at_rank(axis);
    if (begin < 0 || count < 0 || begin > extents_[r] || count > extents_[r] - begin) {
      detail::bad_shape("slice", "a range inside the extent",
                        std::to_string(begin) + " + " + std::to_string(count) + " of " +
                            std::to_string(extents_[r]));
    }
    NdView cut = *this;
    cut.extents_[r] = count;
    // An empty cut keeps the pointer: begin may be the end, where stepping leaves the array.
    if (count > 0) cut.data_ += begin * strides_[r];
    return cut;
  }

  /// The view of rank one less at index `i` of dimension `axis`. ShapeError outside.
  [[nodiscard]] NdView<T, (Rank > 1 ? Rank - 1 : 1)> subview(Index i, int axis = 0) const
      requires(Rank > 1) {
    if (axis < 0 || axis >= Rank) bad_axis(axis);
    const NdView cut = slice(axis, i, 1);
    NdView<T, Rank - 1> less;
    less.data_ = cut.data_;
    for (std::size_t r = 0, to = 0; r < static_cast<std::size_t>(Rank); ++r) {
      if (r == at_rank(axis)) continue;
      less.extents_[to] = extents_[r];
      less.strides_[to++] = strides_[r];
    }
    return less;
  }

  /// Dimensions in another order: dimension r of the result is dimension order[r] of this.
  [[nodiscard]] NdView permuted(
      const std::array<int, static_cast<std::size_t>(Rank)>& order) const {
    NdView turned = *this;
    std::array<bool, static_cast<std::size_t>(Rank)> used{};
    for (std::size_t r = 0; r < order.size(); ++r) {
      if (order[r] < 0 || order[r] >= Rank || used[at_rank(order[r])]) bad_axis(order[r]);
      used[at_rank(order[r])] = true;
      turned.extents_[r] = extent(order[r]);
      turned.strides_[r] = stride(order[r]);
    }
    return turned;
  }

  // Rank 2: a matrix.
  [[nodiscard]] constexpr Index rows() const noexcept requires(Rank == 2) { return extents_[0]; }
  [[nodiscard]] constexpr Index cols() const noexcept requires(Rank == 2) { return extents_[1]; }
  [[nodiscard]] constexpr Index row_stride() const noexcept requires(Rank == 2) {
    return strides_[0];
  }
  [[nodiscard]] constexpr Index col_stride() const noexcept requires(Rank == 2) {
    return strides_[1];
  }
  /// Pointer to the first element of row `i`; unchecked.
  [[nodiscard]] constexpr T* row_data(Index i) const noexcept requires(Rank == 2) {
    return data_ + i * strides_[0];
  }
  [[nodiscard]] constexpr NdView transposed() const noexcept requires(Rank == 2) {
    NdView turned = *this;
    turned.extents_ = {extents_[1], extents_[0]};
    turned.strides_ = {strides_[1], strides_[0]};
    return turned;
  }
  [[nodiscard]] NdView<T, 1> row(Index i) const requires(Rank == 2) { return subview(i, 0); }
  [[nodiscard]] NdView<T, 1> col(Index j) const requires(Rank == 2) { return subview(j, 1); }
  [[nodiscard]] NdView block(Index row, Index col, Index rows, Index cols) const
      requires(Rank == 2) {
    return slice(0, row, rows).slice(1, col, cols);
  }

 private:
  template <class, int>
  friend class NdView;

  static constexpr std::size_t at_rank(int r) noexcept { return static_cast<std::size_t>(r); }
  [[noreturn]] void null_data() const {
    detail::bad_shape("data", "a pointer for a view that is not empty",
                      "null for " + shape_text(extents_));
  }
  [[noreturn]] static void bad_axis(int axis) {
    detail::bad_shape("axis", "each dimension of the view once", std::to_string(axis));
  }

  T* data_ = nullptr;
  Shape<Rank> extents_{};
  Shape<Rank> strides_{};
};

template <class T, std::size_t N>
NdView(T*, const std::array<Index, N>&) -> NdView<T, static_cast<int>(N)>;
template <class T, std::size_t N>
NdView(T*, const std::array<Index, N>&, const std::array<Index, N>&)
    -> NdView<T, static_cast<int>(N)>;

/// A matrix in either storage order.
template <class T>
using MatrixView = NdView<T, 2>;

namespace detail {

/// Range of addresses, and the rows that it is made of when its dimension of largest stride is
/// taken apart: `width` bytes are touched (or skipped) every `pitch` bytes.
struct Footprint {
  std::uintptr_t low = 0;
  std::uintptr_t high = 0;
  std::uintptr_t pitch = 0;
  std::uintptr_t width = 0;
};

template <class T, int Rank>
Footprint footprint(const NdView<T, Rank>& v) {
  const ByteSpan span = checked_byte_span(v.extents(), v.strides(), sizeof(T));
  const std::uintptr_t at = reinterpret_cast<std::uintptr_t>(v.data());
  Footprint f;
  f.low = at + static_cast<std::uintptr_t>(span.low);
  f.high = at + static_cast<std::uintptr_t>(span.high);
  std::uintptr_t reach = 0;
  for (int r = 0; r < Rank; ++r) {
    if (v.extent(r) <= 1) continue;
    const Index magnitude = v.stride(r) < 0 ? -v.stride(r) : v.stride(r);
    const std::uintptr_t pitch = static_cast<std::uintptr_t>(magnitude) * sizeof(T);
    if (pitch <= f.pitch) continue;
    f.pitch = pitch;
    reach = pitch * static_cast<std::uintptr_t>(v.extent(r) - 1);
  }
  f.width = f.high - f.low - reach;
  return f;
}

}  // namespace detail

/// Whether two views may share memory. Address ranges decide; column blocks of one matrix, whose
/// ranges interleave without meeting, are told apart. Empty views overlap nothing.
template <class A, int RankA, class B, int RankB>
[[nodiscard]] bool overlaps(const NdView<A, RankA>& a, const NdView<B, RankB>& b) {
  if (a.empty() || b.empty()) return false;
  const detail::Footprint fa = detail::footprint(a);
  const detail::Footprint fb = detail::footprint(b);
  if (fa.high <= fb.low || fb.high <= fa.low) return false;
  if (fa.pitch != fb.pitch || fa.pitch == 0) return true;
  if (fa.width > fa.pitch || fb.width > fb.pitch) return true;
  // Both repeat with one pitch: they meet only where they meet within one period.
  const std::uintptr_t pitch = fa.pitch;
  const std::uintptr_t ahead =
      fb.low >= fa.low ? (fb.low - fa.low) % pitch : (pitch - (fa.low - fb.low) % pitch) % pitch;
  return ahead < fa.width || ahead + fb.width > pitch;
}

/// Rank-1 views of standard containers.
template <class T>
[[nodiscard]] NdView<T, 1> view(std::span<T> values) {
  return NdView<T, 1>(values.data(), {static_cast<Index>(values.size())});
}
template <class T>
[[nodiscard]] NdView<T, 1> view(std::vector<T>& values) {
  return view(std::span<T>(values));
}
template <class T>
[[nodiscard]] NdView<const T, 1> view(const std::vector<T>& values) {
  return view(std::span<const T>(values));
}
/// A view is its own view, so that templates can call view() on whatever they are given.
template <class T, int Rank>
[[nodiscard]] constexpr NdView<T, Rank> view(const NdView<T, Rank>& v) noexcept {
  return v;
}

QUERN_NAMESPACE_END

#endif  // QUERN_CORE_ND_VIEW_HPP
