// SPDX-License-Identifier: Apache-2.0

/// \file
/// Arrays whose rank is known at run time only, as networks pass them on: TensorView<T> and
/// Tensor<T>. Row-major without gaps, of at most six dimensions.

#ifndef QUERN_NN_TENSOR_HPP
#define QUERN_NN_TENSOR_HPP

#include "quern/core/buffer.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_view.hpp"

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace nn {

/// Shape of an array, outermost dimension first. Empty: one number.
using Extents = std::vector<Index>;

/// Largest rank of a tensor.
inline constexpr int max_rank = 6;

/// "2 x 3 x 4", for messages; "scalar" for no dimension.
[[nodiscard]] inline std::string shape_text(std::span<const Index> extents) {
  if (extents.empty()) return "scalar";
  std::string text;
  for (const Index extent : extents) {
    if (!text.empty()) text += " x ";
    text += std::to_string(extent);
  }
  return text;
}

/// Number of elements; ShapeError for a negative extent, too many dimensions, or an overflow.
[[nodiscard]] inline Index size_of(std::span<const Index> extents) {
  constexpr const char* function = "quern::nn::TensorView";
  if (extents.size() > static_cast<std::size_t>(max_rank)) {
    throw ShapeError(error_text(function, "extents", "at most 6 dimensions", extents.size()));
  }
  Index size = 1;
  for (const Index extent : extents) {
    if (extent < 0) throw ShapeError(error_text(function, "extents", "at least 0", extent));
    size = quern::detail::checked_product(size, extent);
  }
  return size;
}

/// Non-owning contiguous row-major array. Cheap to copy: shape and pointer, no heap. As const as
/// its element type; a TensorView<T> reads as TensorView<const T>. Null (no data at all, also what
/// the default constructor makes) is how an optional argument is left out.
template <class T>
class TensorView {
 public:
  using element_type = T;
  using value_type = std::remove_cv_t<T>;

  TensorView() noexcept = default;
  /// ShapeError for a bad shape, and for null data where there are elements.
  TensorView(T* data, std::span<const Index> extents)
      : data_(data), rank_(static_cast<int>(extents.size())), size_(size_of(extents)) {
    if (data == nullptr && size_ > 0) {
      throw ShapeError(error_text("quern::nn::TensorView", "data", "a pointer",
                                  "null for " + shape_text(extents)));
    }
    std::copy(extents.begin(), extents.end(), extents_.begin());
  }
  TensorView(T* data, std::initializer_list<Index> extents)
      : TensorView(data, std::span<const Index>(extents.begin(), extents.size())) {}
  /// A contiguous view of fixed rank. ShapeError where it has gaps.
  template <int Rank>
  explicit TensorView(const NdView<T, Rank>& view)
      : TensorView(view.data(), std::span<const Index>(view.extents())) {
    if (!view.is_contiguous()) {
      throw ShapeError(error_text("quern::nn::TensorView", "view", "row-major without gaps",
                                  "strides " + quern::shape_text(view.strides())));
    }
  }
  /// TensorView<T> reads as TensorView<const T>.
  template <class U>
  requires(!std::same_as<U, T> && std::same_as<const U, T>) TensorView(const TensorView<U>& other)
  noexcept  // NOLINT: implicit on purpose
      : data_(other.data()), rank_(other.rank()), size_(other.size()) {
    std::copy(other.extents().begin(), other.extents().end(), extents_.begin());
  }

  [[nodiscard]] T* data() const noexcept { return data_; }
  [[nodiscard]] int rank() const noexcept { return rank_; }
  [[nodiscard]] Index size() const noexcept { return size_; }
  [[nodiscard]] bool empty() const noexcept { return size_ == 0; }
  [[nodiscard]] bool null() const noexcept { return data_ == nullptr; }
  [[nodiscard]] std::span<const Index> extents() const noexcept {
    return {extents_.data(), static_cast<std::size_t>(rank_)};
  }
  /// Extent `r`; from the last for a negative one (-1 is the last).
  [[nodiscard]] Index extent(int r) const noexcept {
    return extents_[static_cast<std::size_t>(r < 0 ? rank_ + r : r)];
  }
  [[nodiscard]] Extents shape() const { return {extents().begin(), extents().end()}; }
  [[nodiscard]] std::span<T> span() const noexcept {
    return {data_, static_cast<std::size_t>(size_)};
  }
  [[nodiscard]] T& operator[](Index i) const noexcept { return data_[i]; }
  [[nodiscard]] T* begin() const noexcept { return data_; }
  [[nodiscard]] T* end() const noexcept { return data_ + size_; }

  /// Product of the extents [first, last).
  [[nodiscard]] Index count(int first, int last) const noexcept {
    Index n = 1;
    for (int r = first; r < last; ++r) n *= extent(r);
    return n;
  }

  /// The same elements in another shape. ShapeError unless the sizes agree.
  [[nodiscard]] TensorView reshaped(std::span<const Index> extents) const {
    if (size_of(extents) != size_) {
      throw ShapeError(error_text("quern::nn::TensorView::reshaped", "extents",
                                  "as many elements as " + shape_text(this->extents()),
                                  shape_text(extents)));
    }
    TensorView view = *this;
    view.rank_ = static_cast<int>(extents.size());
    view.extents_ = {};
    std::copy(extents.begin(), extents.end(), view.extents_.begin());
    return view;
  }
  [[nodiscard]] TensorView reshaped(std::initializer_list<Index> extents) const {
    return reshaped(std::span<const Index>(extents.begin(), extents.size()));
  }

  /// The view of fixed rank. ShapeError unless this has that rank.
  template <int Rank>
  [[nodiscard]] NdView<T, Rank> as() const {
    if (rank_ != Rank) {
      throw ShapeError(error_text("quern::nn::TensorView::as", "rank of " + shape_text(extents()),
                                  std::to_string(Rank), rank_));
    }
    Shape<Rank> shape{};
    std::copy(extents().begin(), extents().end(), shape.begin());
    return {data_, shape};
  }
  /// All but the last dimension as rows. A scalar is 1 x 1.
  [[nodiscard]] MatrixView<T> rows() const {
    if (rank_ == 0) return {data_, {1, 1}};
    return {data_, {count(0, rank_ - 1), extent(-1)}};
  }
  /// Elements [begin, begin + count) of the first dimension. ShapeError outside.
  [[nodiscard]] TensorView slice(Index begin, Index count) const {
    if (rank_ == 0 || begin < 0 || count < 0 || begin > extents_[0] ||
        count > extents_[0] - begin) {
      throw ShapeError(error_text("quern::nn::TensorView::slice", "range",
                                  "inside the first extent of " + shape_text(extents()),
                                  std::to_string(begin) + " + " + std::to_string(count)));
    }
    TensorView part = *this;
    const Index each = this->count(1, rank_);
    part.extents_[0] = count;
    part.size_ = count * each;
    if (data_ != nullptr) part.data_ += begin * each;
    return part;
  }

 private:
  T* data_ = nullptr;
  int rank_ = 0;
  Index size_ = 0;
  std::array<Index, static_cast<std::size_t>(max_rank)> extents_{};
};

template <class T, class U>
[[nodiscard]] bool same_shape(const TensorView<T>& a, const TensorView<U>& b) {
  return std::ranges::equal(a.extents(), b.extents());
}

/// Whether two tensors share memory.
template <class T, class U>
[[nodiscard]] bool overlaps(const TensorView<T>& a, const TensorView<U>& b) {
  if (a.empty() || b.empty()) return false;
  return overlaps(NdView<T, 1>(a.data(), {a.size()}), NdView<U, 1>(b.data(), {b.size()}));
}

/// ShapeError unless the tensor has these extents.
template <class T>
void expect_extents(std::string_view function, std::string_view argument, const TensorView<T>& x,
                    std::span<const Index> extents) {
  if (std::ranges::equal(x.extents(), extents)) return;
  throw ShapeError(error_text(function, argument, shape_text(extents), shape_text(x.extents())));
}

/// ShapeError where an output shares memory with an input.
template <class T, class U>
void expect_separate(std::string_view function, std::string_view argument, const TensorView<T>& out,
                     const TensorView<U>& in) {
  if (!overlaps(out, in)) return;
  throw ShapeError(
      error_text(function, argument, "memory of its own", "an overlap with the input"));
}

/// Owns its elements (64-byte aligned). Moves; copies are said aloud (clone()).
template <class T>
class Tensor {
 public:
  Tensor() = default;
  /// Zeros, unless `fill` says that the elements are written anyway.
  explicit Tensor(std::span<const Index> extents, core::Fill fill = core::Fill::zero) {
    resize(extents, fill);
  }
  Tensor(std::initializer_list<Index> extents)
      : Tensor(std::span<const Index>(extents.begin(), extents.size())) {}

  /// Other extents; the elements are lost, and not initialised unless asked for. Memory is kept
  /// where it fits.
  void resize(std::span<const Index> extents, core::Fill fill = core::Fill::none) {
    const auto size = static_cast<std::size_t>(size_of(extents));
    if (size > buffer_.size()) {
      shape_ = {0};
      buffer_.reset(size, fill);
    } else if (fill == core::Fill::zero) {
      std::fill_n(buffer_.data(), size, T{});
    }
    shape_.assign(extents.begin(), extents.end());
  }
  void resize(std::initializer_list<Index> extents, core::Fill fill = core::Fill::none) {
    resize(std::span<const Index>(extents.begin(), extents.size()), fill);
  }
  /// A copy of what a view shows, in its shape.
  void assign(const TensorView<const T>& source) {
    const Extents shape = source.shape();
    resize(shape);
    std::copy(source.begin(), source.end(), data());
  }
  [[nodiscard]] Tensor clone() const {
    Tensor copy;
    copy.assign(view());
    return copy;
  }

  [[nodiscard]] T* data() noexcept { return buffer_.data(); }
  [[nodiscard]] const T* data() const noexcept { return buffer_.data(); }
  [[nodiscard]] const Extents& shape() const noexcept { return shape_; }
  [[nodiscard]] Index size() const noexcept {
    Index n = 1;
    for (const Index extent : shape_) n *= extent;
    return n;
  }
  [[nodiscard]] T& operator[](Index i) noexcept { return data()[i]; }
  [[nodiscard]] const T& operator[](Index i) const noexcept { return data()[i]; }
  [[nodiscard]] TensorView<T> view() { return {data(), shape_}; }
  [[nodiscard]] TensorView<const T> view() const { return {data(), shape_}; }
  [[nodiscard]] std::span<T> span() { return {data(), static_cast<std::size_t>(size())}; }
  [[nodiscard]] std::span<const T> span() const {
    return {data(), static_cast<std::size_t>(size())};
  }
  operator TensorView<T>() { return view(); }              // NOLINT: implicit
  operator TensorView<const T>() const { return view(); }  // NOLINT: implicit

 private:
  Extents shape_ = {0};
  core::Buffer<T> buffer_;
};

}  // namespace nn
QUERN_NAMESPACE_END

#endif  // QUERN_NN_TENSOR_HPP
