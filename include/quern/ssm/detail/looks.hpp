// SPDX-License-Identifier: Apache-2.0

/// \file
/// Looks at the values of large arrays: whether results are finite, whether decays decay. Rows with
/// unit stride go through kernels on all threads; where something is found, its place is looked
/// for.

#ifndef QUERN_SSM_DETAIL_LOOKS_HPP
#define QUERN_SSM_DETAIL_LOOKS_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/ssm/sequence.hpp"

#include <atomic>
#include <cstddef>
#include <string>
#include <type_traits>

QUERN_NAMESPACE_BEGIN
namespace ssm::detail {

/// Calls look(pointer, count) for pieces of unit stride; false as soon as one is.
template <class T, int Rank, class Look>
bool look_at(const NdView<T, Rank>& v, const Look& look) {
  if (v.empty()) return true;
  if (v.is_contiguous()) return look(v.data(), static_cast<std::size_t>(v.size()));
  if constexpr (Rank == 1) {
    bool fine = true;
    for (Index i = 0; i < v.extent(0) && fine; ++i) fine = look(v.data() + i * v.stride(0), 1);
    return fine;
  } else {
    for (Index i = 0; i < v.extent(0); ++i) {
      if (!look_at(v.subview(i), look)) return false;
    }
    return true;
  }
}

/// The same for (batch, heads, length, dim), batch entries and heads on several threads.
template <class T, class Look>
bool look_in_parallel(const NdView<T, 4>& v, int threads, const Look& look) {
  std::atomic<bool> fine{true};
  const Index heads = v.extent(1);
  parallel_for(
      v.extent(0) * heads,
      [&](Index work) {
        if (!look_at(v.subview(work / heads).subview(work % heads), look)) fine = false;
      },
      threads);
  return fine;
}

template <class T>
bool finite_in_parallel(const std::type_identity_t<NdView<const T, 4>>& v, int threads) {
  const simd::Level level = simd::active_level();
  return look_in_parallel(v, threads, [level](const T* x, std::size_t n) {
    return QUERN_DISPATCH_AT(level, every_finite<T>(x, n));
  });
}

/// "" or the place, with the value.
template <class T, int Rank>
std::string place_above_zero(const NdView<const T, Rank>& v, T& value) {
  for (Index i = 0; i < v.extent(0); ++i) {
    if constexpr (Rank == 1) {
      value = v(i);
      if (!(value <= T{0}) || is_nan_bits(value)) return std::to_string(i);
    } else {
      const std::string rest = place_above_zero(v.subview(i), value);
      if (!rest.empty()) return std::to_string(i) + ", " + rest;
    }
  }
  return {};
}

/// ShapeError unless x is (batch, heads or a divisor of them, length, dim).
template <class T>
void expect_shared_heads(const char* function, const char* argument, const NdView<T, 4>& x,
                         Index heads, const Shape<4>& shape) {
  const Index own = x.extent(1);
  if (own > 0 ? heads % own != 0 : heads != 0) {
    throw ShapeError(error_text(function, argument,
                                "a number of heads that divides " + std::to_string(heads), own));
  }
  expect_shape(function, argument, x, {shape[0], own, shape[2], shape[3]});
}

/// Logarithms of decays: not above 0, or else ValueError with the place; or a copy where what is
/// above became 0.
template <class T, int Rank>
class Decays {
 public:
  Decays(const char* function, const char* argument, const NdView<const T, Rank>& v, bool clip)
      : view_(v) {
    const simd::Level level = simd::active_level();
    const auto look = [level](const T* x, std::size_t n) {
      return QUERN_DISPATCH_AT(level, every_at_most_zero<T>(x, n));
    };
    if (look_at(v, look)) return;
    if (clip) {
      copy_ = NdArray<T, Rank>(v);
      for (T& x : copy_) {
        if (x > T{0}) x = T{0};
      }
      view_ = copy_.view();
      if (look_at(view_, look)) return;
    }
    T value{0};
    const std::string place = place_above_zero(view_, value);
    throw ValueError(error_text(function, argument, "logarithms of decays, not above 0",
                                quern::detail::text_of(value) + " at (" + place + ")"));
  }
  Decays(const Decays&) = delete;
  Decays& operator=(const Decays&) = delete;
  [[nodiscard]] const NdView<const T, Rank>& view() const { return view_; }

 private:
  NdArray<T, Rank> copy_;
  NdView<const T, Rank> view_;
};

}  // namespace ssm::detail
QUERN_NAMESPACE_END

#endif  // QUERN_SSM_DETAIL_LOOKS_HPP
