// SPDX-License-Identifier: Apache-2.0

/// \file
/// What the sequence operations of ssm/ share: packed sequences, states' shapes, views with unit
/// stride, and the search for what is not finite.

#ifndef QUERN_SSM_SEQUENCE_HPP
#define QUERN_SSM_SEQUENCE_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"

#include <algorithm>
#include <complex>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>

QUERN_NAMESPACE_BEGIN
namespace ssm {

namespace detail {

template <class T>
struct RealPart {
  using type = T;
};
template <class T>
struct RealPart<std::complex<T>> {
  using type = T;
};

}  // namespace detail

/// float for std::complex<float> and float.
template <class T>
using RealOf = typename detail::RealPart<std::remove_const_t<T>>::type;

namespace detail {

/// One sequence: `length` steps of a batch entry from `begin` on.
struct Sequence {
  Index batch = 0;
  Index begin = 0;
  Index length = 0;
};

/// The sequences of (batch, length, …): each batch entry, or with offsets the pieces of the one.
class Sequences {
 public:
  Sequences(const char* function, std::span<const std::int64_t> offsets, Index batch, Index length)
      : offsets_(offsets), batch_(batch), length_(length) {
    if (offsets.empty()) return;
    if (batch != 1) {
      throw ShapeError(error_text(function, "offsets", "a batch of 1 that holds all sequences",
                                  "a batch of " + std::to_string(batch)));
    }
    for (std::size_t k = 1; k < offsets.size(); ++k) {
      if (offsets[k] < offsets[k - 1]) fail(function, "offsets that do not decrease");
    }
    if (offsets.front() != 0) fail(function, "0 first");
    if (offsets.back() != length) fail(function, std::to_string(length) + " last");
  }

  [[nodiscard]] Index size() const {
    return offsets_.empty() ? batch_ : static_cast<Index>(offsets_.size()) - 1;
  }
  [[nodiscard]] Sequence operator[](Index s) const {
    if (offsets_.empty()) return {s, 0, length_};
    const auto k = static_cast<std::size_t>(s);
    return {0, static_cast<Index>(offsets_[k]), static_cast<Index>(offsets_[k + 1] - offsets_[k])};
  }
  [[nodiscard]] Index longest() const {
    Index most = 0;
    for (Index s = 0; s < size(); ++s) most = (std::max)(most, (*this)[s].length);
    return most;
  }

 private:
  [[noreturn]] void fail(const char* function, const std::string& expected) const {
    std::string got = std::to_string(offsets_.front());
    got += " … " + std::to_string(offsets_.back());
    throw ShapeError(error_text(function, "offsets", expected, got));
  }

  std::span<const std::int64_t> offsets_;
  Index batch_ = 0;
  Index length_ = 0;
};

/// ShapeError unless a state is null or (sequences, width).
template <class T>
void expect_state(const char* function, const char* argument, const NdView<T, 2>& state,
                  Index sequences, Index width) {
  if (!state.is_null()) expect_shape(function, argument, state, {sequences, width});
}

/// A view whose last stride is 1: the argument itself where it is like that, else a copy.
template <class T, int Rank>
class UnitStride {
 public:
  explicit UnitStride(const NdView<T, Rank>& v) : view_(v) {
    if (v.last_stride_is_one() || v.is_null()) return;
    copy_ = NdArray<std::remove_const_t<T>, Rank>(v);
    view_ = copy_.view();
  }
  UnitStride(const UnitStride&) = delete;
  UnitStride& operator=(const UnitStride&) = delete;
  [[nodiscard]] const NdView<T, Rank>& view() const { return view_; }

 private:
  NdArray<std::remove_const_t<T>, Rank> copy_;
  NdView<T, Rank> view_;
};

/// ShapeError unless an output's last stride is 1 (or it is null).
template <class T, int Rank>
void expect_unit_stride(const char* function, const char* argument, const NdView<T, Rank>& v) {
  if (v.is_null() || v.last_stride_is_one()) return;
  throw ShapeError(error_text(function, argument, "a last stride of 1", shape_text(v.strides())));
}

/// to = from; nothing where either is null.
template <class T>
void copy_values(const std::type_identity_t<NdView<const T, 2>>& from,
                 const std::type_identity_t<NdView<T, 2>>& to) {
  if (from.is_null() || to.is_null()) return;
  for (Index i = 0; i < to.extent(0); ++i) {
    for (Index j = 0; j < to.extent(1); ++j) to(i, j) = from(i, j);
  }
}

template <class T>
bool is_finite_value(T x) {
  return is_finite_bits(x);
}
template <class T>
bool is_finite_value(const std::complex<T>& x) {
  return is_finite_bits(x.real()) && is_finite_bits(x.imag());
}

template <class T, int Rank>
bool all_finite(const NdView<T, Rank>& v) {
  if (v.is_null() || v.empty()) return true;
  if constexpr (Rank == 1) {
    for (Index i = 0; i < v.extent(0); ++i) {
      if (!is_finite_value(v(i))) return false;
    }
  } else {
    for (Index i = 0; i < v.extent(0); ++i) {
      if (!all_finite(v.subview(i))) return false;
    }
  }
  return true;
}

template <class T, int Rank>
std::string place_of_nonfinite(const NdView<T, Rank>& v) {
  for (Index i = 0; i < v.extent(0); ++i) {
    if constexpr (Rank == 1) {
      if (!is_finite_value(v(i))) return std::to_string(i);
    } else {
      if (!all_finite(v.subview(i))) {
        return std::to_string(i) + ", " + place_of_nonfinite(v.subview(i));
      }
    }
  }
  return {};
}

/// ValueError that names the place of the first value that is NaN or infinite.
template <class T, int Rank>
void expect_finite_values(const char* function, const char* argument, const NdView<T, Rank>& v) {
  if (all_finite(v)) return;
  throw ValueError(error_text(function, argument, "finite numbers",
                              "NaN or infinity at (" + place_of_nonfinite(v) + ")"));
}

}  // namespace detail
}  // namespace ssm
QUERN_NAMESPACE_END

#endif  // QUERN_SSM_SEQUENCE_HPP
