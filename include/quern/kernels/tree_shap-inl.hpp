// SPDX-License-Identifier: Apache-2.0

/// \file
/// Shapley values of one tree for 16 rows at once: the whole tree is visited, with rows in the
/// lanes, so no load or branch depends on a row. tree_shap_types.hpp says what is computed.

#if defined(QUERN_KERNELS_TREE_SHAP_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_TREE_SHAP_INL_HPP
#undef QUERN_KERNELS_TREE_SHAP_INL_HPP
#else
#define QUERN_KERNELS_TREE_SHAP_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/tree_shap_types.hpp"

#include "hwy/highway.h"

#include <cstdint>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

namespace tree_shap_detail {

HWY_INLINE hn::Vec<hn::CappedTag<std::int64_t, 16>> load_keys(hn::CappedTag<std::int64_t, 16> d,
                                                              const std::int64_t* keys) {
  return hn::LoadU(d, keys);
}
HWY_INLINE hn::Vec<hn::CappedTag<std::int64_t, 16>> load_keys(hn::CappedTag<std::int64_t, 16> d,
                                                              const std::int32_t* keys) {
  return hn::PromoteTo(d, hn::LoadU(hn::Rebind<std::int32_t, decltype(d)>(), keys));
}

}  // namespace tree_shap_detail

/// sides[test.side * 16 + r] = -1 where row r passes the test (goes left), else 0, for 16 rows.
/// Row r of slot s has its key at keys[s * stride + r].
template <class Key>
void tree_shap_sides(const ShapTest<Key>* HWY_RESTRICT tests, std::int64_t count,
                     const Key* HWY_RESTRICT keys, std::int64_t stride,
                     std::int64_t* HWY_RESTRICT sides) {
  const hn::CappedTag<std::int64_t, 16> d;
  const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d));
  for (std::int64_t i = 0; i < count; ++i) {
    const Key* HWY_RESTRICT from = keys + tests[i].slot * stride;
    std::int64_t* HWY_RESTRICT to = sides + tests[i].side * shap_rows;
    const auto threshold = hn::Set(d, static_cast<std::int64_t>(tests[i].threshold));
    const auto missing = hn::Set(d, static_cast<std::int64_t>(missing_key<Key>));
    for (std::int64_t r = 0; r < shap_rows; r += lanes) {
      const auto key = tree_shap_detail::load_keys(d, from + r);
      auto left = hn::VecFromMask(d, hn::Gt(threshold, key));
      if (tests[i].missing_right) left = hn::AndNot(hn::VecFromMask(d, hn::Eq(key, missing)), left);
      hn::StoreU(left, d, to + r);
    }
  }
}

namespace tree_shap_detail {

/// Where things lie in the working memory: everything is (rows) by level and point.
template <class T, int kPoints>
struct Shap {
  using D = hn::CappedTag<T, 16>;
  using V = hn::Vec<D>;

  const ShapProgram& program;
  const std::int64_t* HWY_RESTRICT sides;
  T* HWY_RESTRICT work;
  T* HWY_RESTRICT sums;
  T* HWY_RESTRICT pair_sums;

  HWY_INLINE std::int64_t points() const { return kPoints > 0 ? kPoints : program.points; }
  HWY_INLINE const T* constants(const ShapStep& s) const { return program.constants + s.constants; }
  HWY_INLINE T* at(std::int64_t block, std::int64_t level) const {
    return work + (block * (program.levels + 1) + level) * points() * shap_rows;
  }
  /// Products of the factors above a node of that level, times the points' weights.
  HWY_INLINE T* products(std::int64_t level) const { return at(0, level); }
  /// Sums over the leaves below it.
  HWY_INLINE T* below(std::int64_t level) const { return at(1, level); }
  /// Quotients of the step that leaves it; only for pairs.
  HWY_INLINE T* quotients(std::int64_t level) const { return at(2, level); }
  /// o of the step that leaves it.
  HWY_INLINE T* ons(std::int64_t level) const { return at(3, 0) + level * shap_rows; }
  /// What a step gives its feature, by point.
  HWY_INLINE T* given() const { return at(3, 0) + (program.levels + 1) * shap_rows; }

  /// 1 in rows that go the step's way, else 0.
  static HWY_INLINE V on(const ShapStep& s, const std::int64_t* side) {
    const D d;
    const hn::RebindToSigned<D> di;
    const auto one = hn::BitCast(di, hn::Set(d, T{1}));
    const auto left = hn::LoadU(di, side);
    return hn::BitCast(d, s.right ? hn::AndNot(left, one) : hn::And(left, one));
  }
};

/// The quotient (o - z) / f of a step at a point, less that of the step above on the same feature.
template <bool kAgain, class T, class D, class V>
HWY_INLINE V quotient(D d, const T* HWY_RESTRICT constants, const T* HWY_RESTRICT at_0,
                      std::int64_t points, std::int64_t point, V on, V former_on) {
  const auto second = hn::Set(d, constants[points + point]);
  if constexpr (kAgain) {
    const auto former = hn::Set(d, constants[4 * points + point]);
    return hn::NegMulAdd(former_on, former, hn::Mul(on, second));
  } else {
    (void)former_on;
    return hn::MulAdd(on, second, hn::Set(d, at_0[point]));
  }
}

/// Adds to the pairs of a step's feature with those above it. `s.level` levels are above.
template <class T, int kPoints>
HWY_INLINE void add_pairs(const Shap<T, kPoints>& w, const ShapStep& s, std::int64_t r) {
  const typename Shap<T, kPoints>::D d;
  const std::int64_t n = w.points();
  for (std::int64_t level = 0; level < s.level; ++level) {
    const std::int32_t pair = w.program.pairs[s.pairs + level];
    if (pair < 0) continue;
    const T* HWY_RESTRICT q = w.quotients(level) + r;
    T* HWY_RESTRICT sum = w.pair_sums + pair * shap_rows + r;
    auto total = hn::LoadU(d, sum);
    HWY_UNROLL(8)
    for (std::int64_t i = 0; i < n; ++i) {
      total = hn::MulAdd(hn::LoadU(d, w.given() + i * shap_rows + r),
                         hn::LoadU(d, q + i * shap_rows), total);
    }
    hn::StoreU(total, d, sum);
  }
}

template <class T, int kPoints, bool kPairs, bool kAgain>
HWY_INLINE void go_down(const Shap<T, kPoints>& w, const ShapStep& s) {
  const typename Shap<T, kPoints>::D d;
  const std::int64_t n = w.points();
  const T* HWY_RESTRICT c = w.constants(s);
  const T* HWY_RESTRICT t = w.program.constants;
  const T* HWY_RESTRICT from = w.products(s.level);
  T* HWY_RESTRICT to = w.products(s.level + 1);
  const auto one = hn::Set(d, T{1});
  for (std::int64_t r = 0; r < shap_rows; r += static_cast<std::int64_t>(hn::Lanes(d))) {
    auto on = Shap<T, kPoints>::on(s, w.sides + s.side * shap_rows + r);
    auto former = on;
    if constexpr (kAgain) {
      former = hn::LoadU(d, w.ons(s.previous - 1) + r);
      on = hn::Mul(on, former);
    }
    hn::StoreU(on, d, w.ons(s.level) + r);
    const auto was_on = hn::Eq(former, one);
    HWY_UNROLL(8)
    for (std::int64_t i = 0; i < n; ++i) {
      auto p = hn::LoadU(d, from + i * shap_rows + r);
      if constexpr (kAgain)
        p = hn::Mul(p, hn::IfThenElse(was_on, hn::Set(d, c[3 * n + i]), hn::Set(d, c[2 * n + i])));
      p = hn::Mul(p, hn::MulAdd(on, hn::Set(d, t[i]), hn::Set(d, c[i])));
      hn::StoreU(p, d, to + i * shap_rows + r);
      if constexpr (kPairs) {
        const auto q = quotient<kAgain>(d, c, t + 2 * n, n, i, on, former);
        hn::StoreU(q, d, w.quotients(s.level) + i * shap_rows + r);
      }
    }
  }
}

template <class T, int kPoints, bool kPairs, bool kAgain>
HWY_INLINE void come_up(const Shap<T, kPoints>& w, const ShapStep& s) {
  const typename Shap<T, kPoints>::D d;
  const std::int64_t n = w.points();
  const T* HWY_RESTRICT c = w.constants(s);
  const T* HWY_RESTRICT at_0 = w.program.constants + 2 * n;
  const T* HWY_RESTRICT from = w.below(s.level + 1);
  T* HWY_RESTRICT to = w.below(s.level);
  for (std::int64_t r = 0; r < shap_rows; r += static_cast<std::int64_t>(hn::Lanes(d))) {
    const auto on = hn::LoadU(d, w.ons(s.level) + r);
    const auto former = hn::LoadU(d, w.ons(kAgain ? s.previous - 1 : s.level) + r);
    auto sum = hn::LoadU(d, w.sums + s.slot * shap_rows + r);
    HWY_UNROLL(8)
    for (std::int64_t i = 0; i < n; ++i) {
      const auto below = hn::LoadU(d, from + i * shap_rows + r);
      const auto q = quotient<kAgain>(d, c, at_0, n, i, on, former);
      const auto all = s.first ? below : hn::Add(below, hn::LoadU(d, to + i * shap_rows + r));
      hn::StoreU(all, d, to + i * shap_rows + r);
      sum = hn::MulAdd(below, q, sum);
      if constexpr (kPairs) hn::StoreU(hn::Mul(below, q), d, w.given() + i * shap_rows + r);
    }
    hn::StoreU(sum, d, w.sums + s.slot * shap_rows + r);
    if constexpr (kPairs) add_pairs(w, s, r);
  }
}

template <class T, int kPoints, bool kPairs, bool kAgain>
HWY_INLINE void visit_leaf(const Shap<T, kPoints>& w, const ShapStep& s) {
  const typename Shap<T, kPoints>::D d;
  const std::int64_t n = w.points();
  const T* HWY_RESTRICT c = w.constants(s);
  const T* HWY_RESTRICT t = w.program.constants;
  const T* HWY_RESTRICT from = w.products(s.level);
  T* HWY_RESTRICT to = w.below(s.level);
  const auto one = hn::Set(d, T{1});
  const auto value = hn::Set(d, static_cast<T>(s.value));
  for (std::int64_t r = 0; r < shap_rows; r += static_cast<std::int64_t>(hn::Lanes(d))) {
    auto on = Shap<T, kPoints>::on(s, w.sides + s.side * shap_rows + r);
    auto former = on;
    if constexpr (kAgain) {
      former = hn::LoadU(d, w.ons(s.previous - 1) + r);
      on = hn::Mul(on, former);
    }
    const auto was_on = hn::Eq(former, one);
    auto sum = hn::LoadU(d, w.sums + s.slot * shap_rows + r);
    HWY_UNROLL(8)
    for (std::int64_t i = 0; i < n; ++i) {
      auto p = hn::Mul(hn::LoadU(d, from + i * shap_rows + r), value);
      if constexpr (kAgain)
        p = hn::Mul(p, hn::IfThenElse(was_on, hn::Set(d, c[3 * n + i]), hn::Set(d, c[2 * n + i])));
      p = hn::Mul(p, hn::MulAdd(on, hn::Set(d, t[i]), hn::Set(d, c[i])));
      const auto q = quotient<kAgain>(d, c, t + 2 * n, n, i, on, former);
      const auto all = s.first ? p : hn::Add(p, hn::LoadU(d, to + i * shap_rows + r));
      hn::StoreU(all, d, to + i * shap_rows + r);
      sum = hn::MulAdd(p, q, sum);
      if constexpr (kPairs) hn::StoreU(hn::Mul(p, q), d, w.given() + i * shap_rows + r);
    }
    hn::StoreU(sum, d, w.sums + s.slot * shap_rows + r);
    if constexpr (kPairs) add_pairs(w, s, r);
  }
}

/// Both leaves together: what they give depends on one bit of the row.
template <class T, int kPoints, bool kPairs>
HWY_INLINE void visit_twins(const Shap<T, kPoints>& w, const ShapStep& s) {
  const typename Shap<T, kPoints>::D d;
  const std::int64_t n = w.points();
  const T* HWY_RESTRICT c = w.constants(s);
  const T* HWY_RESTRICT from = w.products(s.level);
  T* HWY_RESTRICT to = w.below(s.level);
  for (std::int64_t r = 0; r < shap_rows; r += static_cast<std::int64_t>(hn::Lanes(d))) {
    const auto on = Shap<T, kPoints>::on(s, w.sides + s.side * shap_rows + r);
    const auto given = hn::MulAdd(on, hn::Set(d, c[2 * n + 1]), hn::Set(d, c[2 * n]));
    auto product = hn::Zero(d);
    HWY_UNROLL(8)
    for (std::int64_t i = 0; i < n; ++i) {
      const auto p = hn::LoadU(d, from + i * shap_rows + r);
      const auto values = hn::MulAdd(on, hn::Set(d, c[n + i]), hn::Set(d, c[i]));
      hn::StoreU(hn::Mul(p, values), d, to + i * shap_rows + r);
      product = hn::Add(product, p);
      if constexpr (kPairs) hn::StoreU(hn::Mul(p, given), d, w.given() + i * shap_rows + r);
    }
    T* sum = w.sums + s.slot * shap_rows + r;
    hn::StoreU(hn::MulAdd(product, given, hn::LoadU(d, sum)), d, sum);
    if constexpr (kPairs) add_pairs(w, s, r);
  }
}

template <class T, int kPoints, bool kPairs>
HWY_NOINLINE void run(const Shap<T, kPoints>& w) {
  const typename Shap<T, kPoints>::D d;
  for (std::int64_t i = 0; i < w.points(); ++i) {
    const auto weight = hn::Set(d, w.program.constants[w.points() + i]);
    for (std::int64_t r = 0; r < shap_rows; r += static_cast<std::int64_t>(hn::Lanes(d)))
      hn::StoreU(weight, d, w.products(0) + i * shap_rows + r);
  }
  for (std::int64_t i = 0; i < w.program.count; ++i) {
    const ShapStep& s = w.program.steps[i];
    switch (s.kind) {
      case ShapKind::down:
        s.previous > 0 ? go_down<T, kPoints, kPairs, true>(w, s)
                       : go_down<T, kPoints, kPairs, false>(w, s);
        break;
      case ShapKind::leaf:
        s.previous > 0 ? visit_leaf<T, kPoints, kPairs, true>(w, s)
                       : visit_leaf<T, kPoints, kPairs, false>(w, s);
        break;
      case ShapKind::up:
        s.previous > 0 ? come_up<T, kPoints, kPairs, true>(w, s)
                       : come_up<T, kPoints, kPairs, false>(w, s);
        break;
      case ShapKind::twins:
        visit_twins<T, kPoints, kPairs>(w, s);
        break;
    }
  }
}

}  // namespace tree_shap_detail

/// sums[s * 16 + r] += what the tree gives feature s in row r. \p sides from tree_shap_sides;
/// \p work: shap_work_size() numbers. T is double.
template <class T>
void tree_shap(const ShapProgram& program, const std::int64_t* sides, T* work, T* sums) {
  switch (program.points) {
    case 2:
      return tree_shap_detail::run<T, 2, false>({program, sides, work, sums, nullptr});
    case 3:
      return tree_shap_detail::run<T, 3, false>({program, sides, work, sums, nullptr});
    case 4:
      return tree_shap_detail::run<T, 4, false>({program, sides, work, sums, nullptr});
    default:
      return tree_shap_detail::run<T, 0, false>({program, sides, work, sums, nullptr});
  }
}

/// The same, and pair_sums[p * 16 + r] += the Shapley interaction index of the features of pair p.
template <class T>
void tree_shap_pairs(const ShapProgram& program, const std::int64_t* sides, T* work, T* sums,
                     T* pair_sums) {
  if (program.points == 3)
    return tree_shap_detail::run<T, 3, true>({program, sides, work, sums, pair_sums});
  tree_shap_detail::run<T, 0, true>({program, sides, work, sums, pair_sums});
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_TREE_SHAP_INL_HPP
