// SPDX-License-Identifier: Apache-2.0

/// \file
/// One step of an optimiser in one pass over memory: every element of every tensor is read once,
/// scaled, clipped, decayed, taken through its rule (optim_rules-inl.hpp), and written once.
///
/// Many small tensors are a list of chunks that one call goes through, so that a tensor costs a few
/// nanoseconds. An element's bits depend on the element alone, not on where its chunk begins: the
/// remainder takes the same instructions as the rest.
///
/// States in bfloat16 are rounded stochastically: a moment with beta = 0.999 changes by less than
/// half a unit of bfloat16 a step, so that rounding to nearest would freeze it. The noise is a hash
/// of the element's gradient, its parameter and the step's seed: the same for every number of
/// threads and every cut of the tensors.

#if defined(QUERN_KERNELS_OPTIM_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_OPTIM_INL_HPP
#undef QUERN_KERNELS_OPTIM_INL_HPP
#else
#define QUERN_KERNELS_OPTIM_INL_HPP
#endif

#include "quern/core/bfloat16.hpp"
#include "quern/core/config.hpp"
#include "quern/kernels/math-inl.hpp"
#include "quern/kernels/optim_rules-inl.hpp"
#include "quern/kernels/optim_types.hpp"
#include "quern/kernels/partial-inl.hpp"

#include "hwy/highway.h"

#include <cstddef>
#include <cstdint>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

namespace detail {

/// Loads and stores states; those of T are as they are.
template <class T, class M>
struct OptimStore {
  template <class D, class V>
  explicit HWY_INLINE OptimStore(D /*d*/, V /*g*/, V /*p*/, std::uint32_t /*seed*/) {}
  template <class D>
  static HWY_INLINE hn::Vec<D> load(D d, const M* from) {
    return hn::LoadU(d, from);
  }
  template <int k, class D, class V>
  HWY_INLINE void store(D d, V v, M* to) const {
    hn::StoreU(v, d, to);
  }
};

template <>
struct OptimStore<float, BFloat16> {
  using D32 = hn::RebindToUnsigned<hn::ScalableTag<float>>;
  using D16 = hn::Rebind<std::uint16_t, D32>;
  using Bits = hn::Vec<D32>;
  Bits noise;

  /// Every step is one-to-one in the seed: over the steps of a run each element's noise is uniform.
  template <class D, class V>
  explicit HWY_INLINE OptimStore(D /*d*/, V g, V p, std::uint32_t seed) {
    const D32 du;
    const Bits x =
        hn::Mul(hn::Add(hn::BitCast(du, g), hn::Set(du, seed)), hn::Set(du, 0x2C1B3C6Du));
    noise = hn::Mul(hn::Xor(x, hn::BitCast(du, p)), hn::Set(du, 0x297A2D39u));
  }
  template <class D>
  static HWY_INLINE hn::Vec<D> load(D d, const BFloat16* from) {
    const auto half = hn::LoadU(D16(), reinterpret_cast<const std::uint16_t*>(from));
    return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(D32(), half)));
  }
  /// The rounded value's bits are the upper halves. States take different bits of the noise;
  /// infinities and NaN are cut instead of rounded.
  template <int k, class D, class V>
  HWY_INLINE Bits rounded(D /*d*/, V v) const {
    const D32 du;
    const hn::RebindToSigned<D32> di;
    const Bits mine = k == 0   ? hn::ShiftRight<16>(noise)
                      : k == 1 ? hn::ShiftRight<16>(hn::ShiftLeft<8>(noise))
                               : hn::And(noise, hn::Set(du, 0xFFFFu));
    const auto magnitude = hn::BitCast(di, hn::Abs(v));
    const auto finite = hn::RebindMask(du, hn::Lt(magnitude, hn::Set(di, 0x7F7F0000)));
    return hn::Add(hn::BitCast(du, v), hn::IfThenElseZero(finite, mine));
  }
  template <int k, class D, class V>
  HWY_INLINE void store(D d, V v, BFloat16* to) const {
    const hn::RebindToSigned<D32> di;
    const Bits sum = hn::ShiftRight<16>(rounded<k>(d, v));
    hn::StoreU(hn::DemoteTo(D16(), hn::BitCast(di, sum)), D16(),
               reinterpret_cast<std::uint16_t*>(to));
  }
};

/// A step's constants in vectors.
template <class D, class T = hn::TFromD<D>>
struct OptimConstants {
  hn::Vec<D> scale, low, high, l2, keep;
  explicit HWY_INLINE OptimConstants(D d, const OptimPrologue<T>& o)
      : scale(hn::Set(d, o.scale)),
        low(hn::Set(d, -o.clip)),
        high(hn::Set(d, o.clip)),
        l2(hn::Set(d, o.l2)),
        keep(hn::Set(d, o.keep)) {}
  /// NaN stays NaN: both operations give their second operand then.
  template <class V>
  HWY_INLINE V gradient(V g, V p) const {
    return hn::MulAdd(l2, p, hn::Max(low, hn::Min(high, hn::Mul(scale, g))));
  }
};

template <int kStates, int k = 0, class Store, class D, class V, class M>
HWY_INLINE void load_states(D d, M* const* states, std::size_t at, V* s) {
  if constexpr (k < kStates) {
    s[k] = Store::load(d, states[k] + at);
    load_states<kStates, k + 1, Store>(d, states, at, s);
  }
}
template <int kStates, int k = 0, class Store, class D, class V, class M>
HWY_INLINE void store_states(const Store& store, D d, M* const* states, std::size_t at,
                             const V* s) {
  if constexpr (k < kStates) {
    store.template store<k>(d, s[k], states[k] + at);
    store_states<kStates, k + 1>(store, d, states, at, s);
  }
}

/// One vector through its rule: the parameter after the step, and the states in \p s.
template <class Rule, class D, class C, class T, class M, class V = hn::Vec<D>>
HWY_INLINE V optim_moved(const Rule& rule, D d, const C& c, T factor, V g, V p, M* const* states,
                         std::size_t at, V* s) {
  load_states<OptimRule<Rule>::kStates, 0, OptimStore<T, M>>(d, states, at, s);
  V next = hn::Mul(c.keep, p);
  OptimRule<Rule>::apply(rule, d, factor, c.gradient(g, p), next, s);
  return next;
}

/// One vector: the parameter after the step.
template <class Rule, class D, class C, class T, class M, class V = hn::Vec<D>>
HWY_INLINE V optim_vector(const Rule& rule, D d, const C& c, std::uint32_t seed, T factor, V g, V p,
                          M* const* states, std::size_t at) {
  constexpr int kStates = OptimRule<Rule>::kStates;
  V s[kStates == 0 ? 1 : kStates];
  const OptimStore<T, M> store(d, g, p, seed);
  const V next = optim_moved(rule, d, c, factor, g, p, states, at, s);
  store_states<kStates>(store, d, states, at, s);
  return next;
}

#if HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86
/// States of two vectors: one permutation takes the upper halves of both.
template <int kStates, int k = 0, class Store, class D, class V>
HWY_INLINE void store_two(const Store* stores, D d, BFloat16* const* states, std::size_t at,
                          const V (*s)[2]) {
  if constexpr (k < kStates) {
    const hn::ScalableTag<std::uint16_t> dh;
    const auto low = hn::BitCast(dh, stores[0].template rounded<k>(d, s[k][0]));
    const auto high = hn::BitCast(dh, stores[1].template rounded<k>(d, s[k][1]));
    hn::StoreU(hn::ConcatOdd(dh, high, low), dh, reinterpret_cast<std::uint16_t*>(states[k] + at));
    store_two<kStates, k + 1>(stores, d, states, at, s);
  }
}
#endif

/// Pairs of vectors from \p i on, as many as there are; where to go on.
template <class Rule, class D, class C, class T, class M>
HWY_INLINE std::size_t optim_pairs([[maybe_unused]] const Rule& rule, [[maybe_unused]] D d,
                                   [[maybe_unused]] const C& c, [[maybe_unused]] std::uint32_t seed,
                                   [[maybe_unused]] const OptimChunk<T>& chunk,
                                   [[maybe_unused]] M* const* states) {
  std::size_t i = 0;
#if HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86
  constexpr int kStates = OptimRule<Rule>::kStates;
  if constexpr (sizeof(M) == 2 && kStates > 0) {
    using V = hn::Vec<D>;
    const std::size_t lanes = hn::Lanes(d);
    for (; i + 2 * lanes <= chunk.count; i += 2 * lanes) {
      const V g0 = hn::LoadU(d, chunk.gradient + i), g1 = hn::LoadU(d, chunk.gradient + i + lanes);
      const V p0 = hn::LoadU(d, chunk.values + i), p1 = hn::LoadU(d, chunk.values + i + lanes);
      V s0[kStates], s1[kStates], s[kStates][2];
      const std::size_t at = chunk.state + i;
      const OptimStore<T, M> stores[2] = {OptimStore<T, M>(d, g0, p0, seed),
                                          OptimStore<T, M>(d, g1, p1, seed)};
      const V next0 = optim_moved(rule, d, c, chunk.factor, g0, p0, states, at, s0);
      const V next1 = optim_moved(rule, d, c, chunk.factor, g1, p1, states, at + lanes, s1);
      for (int k = 0; k < kStates; ++k) s[k][0] = s0[k], s[k][1] = s1[k];
      store_two<kStates>(stores, d, states, at, s);
      hn::StoreU(next0, d, chunk.values + i);
      hn::StoreU(next1, d, chunk.values + i + lanes);
    }
  }
#endif
  return i;
}

}  // namespace detail

/// One step of all chunks. Tensors and states must not overlap.
template <class Rule, class T, class M>
void optim_step(const Rule& rule, const OptimWork<T, M>& work) {
  const hn::ScalableTag<T> d;
  const std::size_t lanes = hn::Lanes(d);
  const Rule r = rule;  // in registers: states might overlap it for all that the compiler knows
  const detail::OptimConstants<decltype(d)> c(d, work.prologue);
  const std::uint32_t seed = work.prologue.seed;
  M* const states[max_optim_states] = {work.states[0], work.states[1], work.states[2]};
  for (std::size_t k = 0; k < work.count; ++k) {
    const OptimChunk<T> chunk = work.chunks[k];
    std::size_t i = detail::optim_pairs(r, d, c, seed, chunk, states);
    for (; i + lanes <= chunk.count; i += lanes) {
      hn::StoreU(detail::optim_vector(r, d, c, seed, chunk.factor, hn::LoadU(d, chunk.gradient + i),
                                      hn::LoadU(d, chunk.values + i), states, chunk.state + i),
                 d, chunk.values + i);
    }
    if (i < chunk.count) {
      const std::size_t rest = chunk.count - i;
      const auto g = load_partial(d, chunk.gradient + i, rest);
      const auto p = load_partial(d, chunk.values + i, rest);
      store_partial(
          detail::optim_vector(r, d, c, seed, chunk.factor, g, p, states, chunk.state + i), d,
          chunk.values + i, rest);
    }
  }
}

namespace detail {

/// Adds the squares of a vector in double.
template <class T>
struct SquareSum {
  using DD = hn::ScalableTag<double>;
  hn::Vec<DD> low, high;
  // Written out: an implicit constructor is not compiled for the target.
  HWY_INLINE SquareSum() : low(hn::Zero(DD())), high(hn::Zero(DD())) {}
  template <class D, class V>
  HWY_INLINE void add(D d, V x) {
    const DD dd;
    if constexpr (sizeof(T) == sizeof(double)) {
      low = hn::MulAdd(x, x, low);
#if HWY_TARGET == HWY_SCALAR
    } else {
      const auto a = hn::PromoteTo(dd, x);
      low = hn::MulAdd(a, a, low);
#else
    } else {
      const hn::Half<D> dh;
      const auto a = hn::PromoteTo(dd, hn::LowerHalf(dh, x));
      const auto b = hn::PromoteTo(dd, hn::UpperHalf(dh, x));
      low = hn::MulAdd(a, a, low);
      high = hn::MulAdd(b, b, high);
#endif
    }
    static_cast<void>(d);
    static_cast<void>(dd);
  }
  HWY_INLINE double total() const {
    const DD dd;
    return hn::GetLane(hn::SumOfLanes(dd, hn::Add(low, high)));
  }
};

}  // namespace detail

/// Squares of every chunk's gradients times \p scale, summed in double, and whether all are finite.
template <class T>
bool optim_survey(const OptimChunk<T>* chunks, std::size_t count, T scale, OptimSums* sums) {
  const hn::ScalableTag<T> d;
  const hn::RebindToUnsigned<decltype(d)> du;
  const hn::RebindToSigned<decltype(d)> di;
  using Bits = typename FloatFormat<T>::Bits;
  const std::size_t lanes = hn::Lanes(d);
  const auto factor = hn::Set(d, scale);
  auto largest = hn::Zero(di);
  for (std::size_t k = 0; k < count; ++k) {
    const OptimChunk<T>& chunk = chunks[k];
    detail::SquareSum<T> sum;
    for (std::size_t i = 0; i < chunk.count; i += lanes) {
      const auto g = i + lanes <= chunk.count
                         ? hn::LoadU(d, chunk.gradient + i)
                         : load_partial(d, chunk.gradient + i, chunk.count - i);
      largest = hn::Max(largest, hn::BitCast(di, hn::Abs(g)));
      sum.add(d, hn::Mul(g, factor));
    }
    sums[k].gradient = sum.total();
  }
  HWY_ALIGN Bits found[hn::MaxLanes(d)];
  hn::Store(hn::BitCast(du, largest), du, found);
  bool finite = true;
  for (std::size_t k = 0; k < lanes; ++k) finite = finite && found[k] < FloatFormat<T>::kInfinity;
  return finite;
}

/// For rules that scale by layer: moves the states, and sums the squares of each chunk's parameters
/// and of its direction u.
template <class Rule, class T, class M>
void optim_measure(const Rule& rule, const OptimWork<T, M>& work, OptimSums* sums) {
  using Function = OptimRule<Rule>;
  using Store = detail::OptimStore<T, M>;
  constexpr int kStates = Function::kStates;
  const hn::ScalableTag<T> d;
  const std::size_t lanes = hn::Lanes(d);
  const Rule r = rule;
  const detail::OptimConstants<decltype(d)> c(d, work.prologue);
  for (std::size_t k = 0; k < work.count; ++k) {
    const OptimChunk<T>& chunk = work.chunks[k];
    detail::SquareSum<T> of_u, of_p;
    for (std::size_t i = 0; i < chunk.count; i += lanes) {
      const bool whole = i + lanes <= chunk.count;
      const std::size_t rest = chunk.count - i;
      const auto g =
          whole ? hn::LoadU(d, chunk.gradient + i) : load_partial(d, chunk.gradient + i, rest);
      const auto p =
          whole ? hn::LoadU(d, chunk.values + i) : load_partial(d, chunk.values + i, rest);
      hn::Vec<decltype(d)> s[kStates];
      detail::load_states<kStates, 0, Store>(d, work.states, chunk.state + i, s);
      const Store store(d, g, p, work.prologue.seed);
      auto u = Function::measure(r, d, c.gradient(g, p), p, s);
      detail::store_states<kStates>(store, d, work.states, chunk.state + i, s);
      // Behind the end are zeros: 0 / (sqrt(0) + eps) is 0 as well.
      of_u.add(d, u);
      of_p.add(d, p);
    }
    sums[k] = {of_u.total(), of_p.total()};
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_OPTIM_INL_HPP
