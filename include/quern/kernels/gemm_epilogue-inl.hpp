// SPDX-License-Identifier: Apache-2.0

/// \file
/// What becomes of a tile of finished sums: stored scaled, stored with bias and activation, or
/// reduced to each row's smallest. The names are in gemm_types.hpp.
///
/// `TileEpilogue<E>` is made once a task and called once a vector:
///   operator()<kFull>(d, sum, row, col, count): lanes hold columns col, col + 1, ...; unless kFull
///     only the first `count` (>= 1) exist.
///   kByRows: takes a row of a tile at once (begin_tile, keep_row) where tiles are whole.
///   kInRegisters: short enough to be written out for every vector of a tile; else the tile goes
///     through L1, which costs little and keeps the code small.
///   prefetch<kRows>(row, col): the tile there will be finished soon.
///   finish(): after all columns of the task's rows.

#if defined(QUERN_KERNELS_GEMM_EPILOGUE_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_GEMM_EPILOGUE_INL_HPP
#undef QUERN_KERNELS_GEMM_EPILOGUE_INL_HPP
#else
#define QUERN_KERNELS_GEMM_EPILOGUE_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/functors-inl.hpp"
#include "quern/kernels/gemm_types.hpp"
#include "quern/kernels/math-inl.hpp"

#include "hwy/cache_control.h"
#include "hwy/highway.h"

#include <cstddef>
#include <cstdint>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

template <class E>
struct TileEpilogue;

/// The first `count` of strided elements as a vector, zeros after them.
template <class D, class T = hn::TFromD<D>>
HWY_INLINE hn::VFromD<D> load_some(D d, const T* from, std::ptrdiff_t stride,
                                   std::ptrdiff_t count) {
  HWY_ALIGN T lanes[hn::MaxLanes(D())] = {};
  for (std::ptrdiff_t i = 0; i < count; ++i) lanes[i] = from[i * stride];
  return hn::Load(d, lanes);
}

template <class D, class T = hn::TFromD<D>>
HWY_INLINE void store_some(D d, hn::VFromD<D> v, T* to, std::ptrdiff_t stride,
                           std::ptrdiff_t count) {
  HWY_ALIGN T lanes[hn::MaxLanes(D())];
  hn::Store(v, d, lanes);
  for (std::ptrdiff_t i = 0; i < count; ++i) to[i * stride] = lanes[i];
}

template <class T>
struct TileEpilogue<StoreScaled<T>> {
  static constexpr bool kInRegisters = true;
  static constexpr bool kByRows = false;
  HWY_INLINE TileEpilogue(const StoreScaled<T>& e, const GemmTask<T>& /*task*/) : e_(e) {}

  template <bool kFull, class D, class V>
  HWY_INLINE void operator()(D d, V sum, std::ptrdiff_t row, std::ptrdiff_t col,
                             std::ptrdiff_t count) const {
    T* const c = e_.c + row * e_.row_stride + col * e_.col_stride;
    const V scaled = hn::Mul(hn::Set(d, e_.alpha), sum);
    const bool direct = kFull && e_.col_stride == 1;
    V value = scaled;
    if (e_.beta != T{0}) {
      const V before = direct ? hn::LoadU(d, c) : load_some(d, c, e_.col_stride, count);
      value = hn::MulAdd(hn::Set(d, e_.beta), before, scaled);
    }
    if (direct) {
      hn::StoreU(value, d, c);
    } else {
      store_some(d, value, c, e_.col_stride, count);
    }
  }

  template <int kRows>
  HWY_INLINE void prefetch(std::ptrdiff_t row, std::ptrdiff_t col) const {
    if (e_.col_stride != 1) return;
    for (int r = 0; r < kRows; ++r) hwy::Prefetch(e_.c + (row + r) * e_.row_stride + col);
  }
  HWY_INLINE void finish() const {}

 private:
  const StoreScaled<T>& e_;
};

template <class T, class F>
struct TileEpilogue<StoreActivated<T, F>> {
  static constexpr bool kInRegisters = false;
  HWY_INLINE TileEpilogue(const StoreActivated<T, F>& e, const GemmTask<T>& /*task*/) : e_(e) {}

  template <bool kFull, class D, class V>
  HWY_INLINE void operator()(D d, V sum, std::ptrdiff_t row, std::ptrdiff_t col,
                             std::ptrdiff_t count) const {
    // Biases are added first: the transposed product, where they swap places, gives equal bits.
    V bias = e_.row_bias != nullptr ? hn::Set(d, e_.row_bias[row]) : hn::Zero(d);
    if (e_.col_bias != nullptr) {
      const T* const from = e_.col_bias + col;
      bias = hn::Add(bias, kFull ? hn::LoadU(d, from) : load_some(d, from, 1, count));
    }
    const V value = Vectorized<F>::apply(e_.f, d, hn::MulAdd(hn::Set(d, e_.alpha), sum, bias));
    T* const c = e_.c + row * e_.row_stride + col * e_.col_stride;
    if (kFull && e_.col_stride == 1) {
      hn::StoreU(value, d, c);
    } else {
      store_some(d, value, c, e_.col_stride, count);
    }
  }

  template <int kRows>
  HWY_INLINE void prefetch(std::ptrdiff_t row, std::ptrdiff_t col) const {
    if (e_.col_stride != 1) return;
    for (int r = 0; r < kRows; ++r) hwy::Prefetch(e_.c + (row + r) * e_.row_stride + col);
  }
  HWY_INLINE void finish() const {}

 private:
  const StoreActivated<T, F>& e_;
};

/// Each lane keeps the smallest of its own columns; lanes meet at the end. So a tile costs a few
/// instructions a vector, and not a reduction.
template <class T>
struct TileEpilogue<StoreArgMin<T>> {
  using D = hn::ScalableTag<T>;
  using DI = hn::RebindToSigned<D>;
  using Int = hn::TFromD<DI>;

  static constexpr bool kInRegisters = true;
  static constexpr bool kByRows = true;

  TileEpilogue(const StoreArgMin<T>& e, const GemmTask<T>& task)
      : e_(e), begin_(task.row_begin), end_(task.row_end) {
    const D d;
    const DI di;
    const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
    values_ = task.state_scratch;
    // The integers are written and read as integers only.
    columns_ = reinterpret_cast<Int*>(values_ + (end_ - begin_) * lanes);
    for (std::ptrdiff_t i = 0; i < end_ - begin_; ++i) {
      hn::StoreU(hn::Set(d, infinity()), d, values_ + i * lanes);
      hn::StoreU(hn::Zero(di), di, columns_ + i * lanes);
    }
  }

  template <bool kFull, class V>
  HWY_INLINE void operator()(D d, V sum, std::ptrdiff_t row, std::ptrdiff_t col,
                             std::ptrdiff_t count) const {
    keep<kFull>(d, value_of<kFull>(d, sum, col, count), row, col, count);
  }

  /// Half the squares of a tile's columns, loaded once for all of its rows.
  template <class V, int kCount>
  HWY_INLINE void begin_tile(D d, std::ptrdiff_t col, V (&offsets)[kCount]) const {
    load_offsets<0>(d, col, offsets);
  }
  /// A tile's row at once: its vectors meet what the row has in registers, which is read and
  /// written once. Of equals the first stays, as if they came one after the other.
  template <int kFirst, class V, int kSums, int kCount>
  HWY_INLINE void keep_row(D d, const V (&sums)[kSums], const V (&offsets)[kCount],
                           std::ptrdiff_t row, std::ptrdiff_t col) const {
    const DI di;
    const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
    T* const best_at = values_ + (row - begin_) * lanes;
    Int* const columns_at = columns_ + (row - begin_) * lanes;
    V best = hn::LoadU(d, best_at);
    auto columns = hn::LoadU(di, columns_at);
    meet<0, kFirst>(d, hn::Set(d, e_.alpha), sums, offsets, hn::Iota(di, static_cast<Int>(col)),
                    best, columns);
    hn::StoreU(best, d, best_at);
    hn::StoreU(columns, di, columns_at);
  }

  template <bool kFull, class V>
  HWY_INLINE V value_of(D d, V sum, std::ptrdiff_t col, std::ptrdiff_t count) const {
    const V alpha = hn::Set(d, e_.alpha);
    if (e_.offsets == nullptr) return hn::Mul(alpha, sum);
    const T* const offsets = e_.offsets + col;
    return hn::MulAdd(alpha, sum, kFull ? hn::LoadU(d, offsets) : load_some(d, offsets, 1, count));
  }

  template <bool kFull, class V>
  HWY_INLINE void keep(D d, V value, std::ptrdiff_t row, std::ptrdiff_t col,
                       std::ptrdiff_t count) const {
    const DI di;
    const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
    T* const best_at = values_ + (row - begin_) * lanes;
    Int* const columns_at = columns_ + (row - begin_) * lanes;
    const V best = hn::LoadU(d, best_at);
    auto smaller = hn::Lt(value, best);
    if (!kFull) smaller = hn::And(smaller, hn::FirstN(d, static_cast<std::size_t>(count)));
    hn::StoreU(hn::IfThenElse(smaller, value, best), d, best_at);
    const auto columns = hn::Iota(di, static_cast<Int>(col));
    hn::StoreU(hn::IfThenElse(hn::RebindMask(di, smaller), columns, hn::LoadU(di, columns_at)), di,
               columns_at);
  }

  template <int kRows>
  HWY_INLINE void prefetch(std::ptrdiff_t, std::ptrdiff_t) const {}
  void finish() const {
    const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(D()));
    for (std::ptrdiff_t i = 0; i < end_ - begin_; ++i) {
      const T* const values = values_ + i * lanes;
      const Int* const columns = columns_ + i * lanes;
      std::ptrdiff_t best = 0;
      for (std::ptrdiff_t l = 1; l < lanes; ++l) {
        const bool ties = values[l] == values[best] && columns[l] < columns[best];
        if (values[l] < values[best] || ties) best = l;
      }
      if (e_.values != nullptr) e_.values[begin_ + i] = values[best];
      if (e_.columns != nullptr) e_.columns[begin_ + i] = columns[best];
    }
  }

 private:
  template <int kIndex, class V, int kCount>
  HWY_INLINE void load_offsets(D d, std::ptrdiff_t col, V (&offsets)[kCount]) const {
    const std::ptrdiff_t at = col + kIndex * static_cast<std::ptrdiff_t>(hn::Lanes(d));
    offsets[kIndex] = e_.offsets == nullptr ? hn::Zero(d) : hn::LoadU(d, e_.offsets + at);
    if constexpr (kIndex + 1 < kCount) load_offsets<kIndex + 1>(d, col, offsets);
  }
  template <int kIndex, int kFirst, class V, class VI, int kSums, int kCount>
  HWY_INLINE void meet(D d, V alpha, const V (&sums)[kSums], const V (&offsets)[kCount], VI here,
                       V& best, VI& columns) const {
    const DI di;
    const V value = hn::MulAdd(alpha, sums[kFirst + kIndex], offsets[kIndex]);
    const auto smaller = hn::Lt(value, best);
    best = hn::IfThenElse(smaller, value, best);
    columns = hn::IfThenElse(hn::RebindMask(di, smaller), here, columns);
    if constexpr (kIndex + 1 < kCount) {
      const auto next = hn::Add(here, hn::Set(di, static_cast<Int>(hn::Lanes(d))));
      meet<kIndex + 1, kFirst>(d, alpha, sums, offsets, next, best, columns);
    }
  }
  /// Not the compiler's infinity, which -ffast-math would assume away.
  static HWY_INLINE T infinity() {
    using F = FloatFormat<T>;
    return hn::GetLane(hn::BitCast(D(), hn::Set(DI(), static_cast<Int>(F::kInfinity))));
  }

  const StoreArgMin<T>& e_;
  std::ptrdiff_t begin_;
  std::ptrdiff_t end_;
  T* values_;
  Int* columns_;
};

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_GEMM_EPILOGUE_INL_HPP
