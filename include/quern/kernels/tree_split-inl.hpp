// SPDX-License-Identifier: Apache-2.0

/// \file
/// The best split of one feature from its histogram: running sums, then gains a vector of bins at a
/// time. Equal gains go to the lowest bin, and to "missing right", so the result does not depend on
/// the vector width.

#if defined(QUERN_KERNELS_TREE_SPLIT_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_TREE_SPLIT_INL_HPP
#undef QUERN_KERNELS_TREE_SPLIT_INL_HPP
#else
#define QUERN_KERNELS_TREE_SPLIT_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/tree_types.hpp"

#include "hwy/highway.h"

#include <cstdint>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

/// Two running sums for each bin of one feature, padded so that whole vectors can be read.
struct SplitPrefix {
  static constexpr int kCapacity = split_gain_capacity;
  HWY_ALIGN double g[kCapacity];
  HWY_ALIGN double h[kCapacity];
};

/// Sums of the value bins 1 .. b at index b - 1, in fixed-point units; what follows is zero.
/// Packed cells run as one 64-bit sum whose upper half is biased to be positive.
template <int kWords>
void prefix_sums(const std::int64_t* HWY_RESTRICT cells, std::int32_t bins,
                 SplitPrefix& HWY_RESTRICT prefix) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::ScalableTag<double> d;
  const auto lanes = static_cast<std::int32_t>(hn::Lanes(d));
  if (kWords == 2) {
    std::int64_t g = 0, h = 0;
    for (std::int32_t b = 0; b < bins; ++b) {
      g += cells[2 * (b + 1)];
      h += cells[2 * (b + 1) + 1];
      prefix.g[b] = static_cast<double>(g);
      prefix.h[b] = static_cast<double>(h);
    }
  } else {
    // 2^52 + x has x in its low bits: integers below 2^52 convert by an Or and a subtraction.
    const hn::RebindToUnsigned<decltype(d)> du;
    constexpr std::uint64_t kBias = std::uint64_t{1} << 63;
    HWY_ALIGN std::uint64_t sums[SplitPrefix::kCapacity];
    std::uint64_t sum = kBias;
    for (std::int32_t b = 0; b < bins; ++b) {
      sum += static_cast<std::uint64_t>(cells[b + 1]);
      sums[b] = sum;
    }
    for (std::int32_t b = bins; b < bins + lanes; ++b) sums[b] = kBias;
    const auto magic = hn::Set(du, 0x4330000000000000ull);
    const auto low = hn::Set(du, 0xffffffffull);
    const auto zero_h = hn::Set(d, 4503599627370496.0);
    const auto zero_g = hn::Set(d, 4503599627370496.0 + 2147483648.0);
    for (std::int32_t b = 0; b < bins; b += lanes) {
      const auto both = hn::LoadU(du, sums + b);
      const auto g = hn::BitCast(d, hn::Or(hn::ShiftRight<32>(both), magic));
      const auto h = hn::BitCast(d, hn::Or(hn::And(both, low), magic));
      hn::StoreU(hn::Sub(g, zero_g), d, prefix.g + b);
      hn::StoreU(hn::Sub(h, zero_h), d, prefix.h + b);
    }
  }
  for (std::int32_t b = bins; b < bins + lanes; ++b) prefix.g[b] = prefix.h[b] = 0;
}

/// Score of a child, T(g)^2 / (h + lambda), as numerator; T shrinks |g| by alpha.
template <class D, class V>
HWY_INLINE V shrunk_square(D d, V g, V alpha) {
  namespace hn = hwy::HWY_NAMESPACE;
  const V t = hn::Max(hn::Sub(hn::Abs(g), alpha), hn::Zero(d));
  return hn::Mul(t, t);
}

/// Leaf weight -T(g) / (h + lambda) within [lower, upper].
template <class D, class V>
HWY_INLINE V bounded_weight(D d, V g, V h_lambda, V alpha, V lower, V upper) {
  namespace hn = hwy::HWY_NAMESPACE;
  const V t = hn::Max(hn::Sub(hn::Abs(g), alpha), hn::Zero(d));
  const V w = hn::Div(hn::CopySign(t, hn::Neg(g)), h_lambda);
  return hn::Min(hn::Max(w, lower), upper);
}

/// Twice what weight w takes off the regularised loss: -(2 g w + (h + lambda) w^2 + 2 alpha |w|).
template <class D, class V>
HWY_INLINE V weight_score(D d, V g, V h_lambda, V alpha, V w) {
  namespace hn = hwy::HWY_NAMESPACE;
  const V linear = hn::Add(hn::Mul(g, w), hn::Mul(alpha, hn::Abs(w)));
  return hn::Neg(hn::Add(hn::Mul(hn::Set(d, 2.0), linear), hn::Mul(h_lambda, hn::Mul(w, w))));
}

/// A vector of splits: the sums of their left sides give their scores and which are allowed.
/// kBounded: leaf weights have bounds (max_delta_step, monotone constraints).
template <bool kBounded>
class SplitScorer {
  using D = hwy::HWY_NAMESPACE::ScalableTag<double>;
  using V = hwy::HWY_NAMESPACE::VFromD<D>;

 public:
  HWY_INLINE SplitScorer(const SplitScan& s, std::int32_t bins)
      : s_(s),
        // A child must hold something even where min_child_weight is 0: half a fixed-point unit.
        min_h_(s.min_child_weight > 0.5 * s.unit_h ? s.min_child_weight : 0.5 * s.unit_h),
        last_(static_cast<double>(bins)) {}

  /// \p raw_g, \p raw_h: sums of the left sides in fixed-point units, \p bin: their bins. -1e300
  /// where a split is not allowed.
  HWY_INLINE V score(V raw_g, V raw_h, V bin) const {
    namespace hn = hwy::HWY_NAMESPACE;
    const D d;
    const V unit_g = hn::Set(d, s_.unit_g), unit_h = hn::Set(d, s_.unit_h);
    const V lambda = hn::Set(d, s_.lambda), alpha = hn::Set(d, s_.alpha);
    const V min_h = hn::Set(d, min_h_), none = hn::Set(d, -1e300);
    const V lg = hn::Mul(raw_g, unit_g), lh = hn::Mul(raw_h, unit_h);
    const V rg = hn::Mul(hn::Sub(hn::Set(d, s_.sum_g), raw_g), unit_g);
    const V rh = hn::Mul(hn::Sub(hn::Set(d, s_.sum_h), raw_h), unit_h);
    const V ll = hn::Add(lh, lambda), rl = hn::Add(rh, lambda);
    const auto allowed =
        hn::And(hn::And(hn::Ge(lh, min_h), hn::Ge(rh, min_h)), hn::Le(bin, hn::Set(d, last_)));
    if (kBounded) {
      const V lower = hn::Set(d, s_.lower), upper = hn::Set(d, s_.upper);
      const V lw = bounded_weight(d, lg, ll, alpha, lower, upper);
      const V rw = bounded_weight(d, rg, rl, alpha, lower, upper);
      const V rise = hn::Mul(hn::Sub(rw, lw), hn::Set(d, static_cast<double>(s_.monotone)));
      const V sum = hn::Add(weight_score(d, lg, ll, alpha, lw), weight_score(d, rg, rl, alpha, rw));
      return hn::IfThenElse(hn::And(allowed, hn::Ge(rise, hn::Zero(d))), sum, none);
    }
    const V numerator =
        hn::Add(hn::Mul(shrunk_square(d, lg, alpha), rl), hn::Mul(shrunk_square(d, rg, alpha), ll));
    return hn::IfThenElse(allowed, hn::Div(numerator, hn::Mul(ll, rl)), none);
  }

 private:
  SplitScan s_;
  double min_h_, last_;
};

/// Whether leaf weights of this node have bounds.
HWY_INLINE bool has_bounds(const SplitScan& s) {
  return s.monotone != 0 || s.max_delta_step > 0 || s.lower > -1e300 || s.upper < 1e300;
}

/// Scans bins with \p shift_g, \p shift_h (the missing rows' sums, or zero) added to the left side.
template <bool kBounded>
void scan_prefix(const SplitPrefix& HWY_RESTRICT prefix, std::int32_t bins, const SplitScan& s,
                 double shift_g, double shift_h, bool missing_left, SplitResult& best) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::ScalableTag<double> d;
  using V = hn::VFromD<decltype(d)>;
  const auto lanes = static_cast<std::int32_t>(hn::Lanes(d));
  const SplitScorer<kBounded> scorer(s, bins);
  const V add_g = hn::Set(d, shift_g), add_h = hn::Set(d, shift_h);
  V best_score = hn::Set(d, -1e300), best_bin = hn::Zero(d), bin = hn::Iota(d, 1.0);
  const V step = hn::Set(d, static_cast<double>(lanes));
  for (std::int32_t b = 0; b < bins; b += lanes) {
    const V raw_g = hn::Add(hn::LoadU(d, prefix.g + b), add_g);
    const V raw_h = hn::Add(hn::LoadU(d, prefix.h + b), add_h);
    const V score = scorer.score(raw_g, raw_h, bin);
    const auto better = hn::Gt(score, best_score);
    best_score = hn::IfThenElse(better, score, best_score);
    best_bin = hn::IfThenElse(better, bin, best_bin);
    bin = hn::Add(bin, step);
  }
  HWY_ALIGN double scores[SplitPrefix::kCapacity], at[SplitPrefix::kCapacity];
  hn::StoreU(best_score, d, scores);
  hn::StoreU(best_bin, d, at);
  std::int32_t k = 0;
  for (std::int32_t i = 1; i < lanes; ++i) {
    if (scores[i] > scores[k] || (scores[i] == scores[k] && at[i] < at[k])) k = i;
  }
  if (scores[k] > best.score) best = {scores[k], static_cast<std::int32_t>(at[k]), missing_left};
}

/// Adds to gains[b - 1] what the split at bin b gains over \p parent, where it is allowed.
template <bool kBounded>
void add_prefix_gains(const SplitPrefix& HWY_RESTRICT prefix, std::int32_t bins, const SplitScan& s,
                      double parent, double shift_g, double shift_h, double* HWY_RESTRICT gains) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::ScalableTag<double> d;
  using V = hn::VFromD<decltype(d)>;
  const auto lanes = static_cast<std::int32_t>(hn::Lanes(d));
  const SplitScorer<kBounded> scorer(s, bins);
  const V add_g = hn::Set(d, shift_g), add_h = hn::Set(d, shift_h);
  const V before = hn::Set(d, parent), none = hn::Set(d, -1e300),
          step = hn::Set(d, static_cast<double>(lanes));
  V bin = hn::Iota(d, 1.0);
  for (std::int32_t b = 0; b < bins; b += lanes) {
    const V raw_g = hn::Add(hn::LoadU(d, prefix.g + b), add_g);
    const V raw_h = hn::Add(hn::LoadU(d, prefix.h + b), add_h);
    const V score = scorer.score(raw_g, raw_h, bin);
    const V gain = hn::IfThenElseZero(hn::Gt(score, none), hn::Sub(score, before));
    hn::StoreU(hn::Add(hn::LoadU(d, gains + b), gain), d, gains + b);
    bin = hn::Add(bin, step);
  }
}

/// Gradient and hessian of the missing rows, cell 0.
template <int kWords>
HWY_INLINE void missing_sums(const std::int64_t* cells, double& g, double& h) {
  g = static_cast<double>(kWords == 2 ? cells[0] : cells[0] >> 32);
  h = static_cast<double>(kWords == 2 ? cells[1] : cells[0] & 0xffffffff);
}

/// For trees whose nodes of one level share a test: adds what each split of this feature gains in
/// one node to \p right (missing rows go right) and, unless null, \p left, by bin from 1; nothing
/// where it is not allowed. Both hold split_gain_capacity numbers. \p parent is the node's score.
template <int kWords>
void add_split_gains(const std::int64_t* cells, std::int32_t bins, const SplitScan& s,
                     double parent, double* right, double* left) {
  SplitPrefix prefix;
  double g, h;
  missing_sums<kWords>(cells, g, h);
  prefix_sums<kWords>(cells, bins, prefix);
  if (has_bounds(s)) {
    add_prefix_gains<true>(prefix, bins, s, parent, 0, 0, right);
    if (left != nullptr) add_prefix_gains<true>(prefix, bins, s, parent, g, h, left);
  } else {
    add_prefix_gains<false>(prefix, bins, s, parent, 0, 0, right);
    if (left != nullptr) add_prefix_gains<false>(prefix, bins, s, parent, g, h, left);
  }
}

/// Best split of a feature with value bins 1 .. \p bins and missing rows in cell 0 of \p cells.
/// Both directions are tried for missing rows; where there are none, they would go right.
template <int kWords>
SplitResult best_split(const std::int64_t* cells, std::int32_t bins, const SplitScan& s) {
  SplitPrefix prefix;
  SplitResult best{-1e300, 0, false};
  double missing_g, missing_h;
  missing_sums<kWords>(cells, missing_g, missing_h);
  const bool any_missing = missing_h > 0;
  if (bins < 2 && !any_missing) return best;
  prefix_sums<kWords>(cells, bins, prefix);
  if (has_bounds(s)) {
    scan_prefix<true>(prefix, bins, s, 0, 0, false, best);
    if (any_missing) scan_prefix<true>(prefix, bins, s, missing_g, missing_h, true, best);
  } else {
    scan_prefix<false>(prefix, bins, s, 0, 0, false, best);
    if (any_missing) scan_prefix<false>(prefix, bins, s, missing_g, missing_h, true, best);
  }
  return best;
}

/// Most features that best_single_bin() takes at once.
constexpr std::int32_t kSingleBins = 256;

/// Best split among \p count features that have a single bin (one-hot columns): feature i's present
/// rows are in the second of its cells, `cells + offsets[i] * kWords` being the first. The result's
/// bin is the place of the feature, from 1; present rows go left. The same scores as
/// best_split()'s.
template <int kWords>
SplitResult best_single_bin(const std::int64_t* cells, const std::int64_t* offsets,
                            std::int32_t count, const SplitScan& s) {
  namespace hn = hwy::HWY_NAMESPACE;
  SplitPrefix prefix;
  SplitResult best{-1e300, 0, false};
  for (std::int32_t i = 0; i < count; ++i) {
    const std::int64_t* at = cells + (offsets[i] + 1) * kWords;
    prefix.g[i] = static_cast<double>(kWords == 1 ? at[0] >> 32 : at[0]);
    prefix.h[i] = static_cast<double>(kWords == 1 ? at[0] & 0xffffffff : at[1]);
  }
  const auto lanes = static_cast<std::int32_t>(hn::Lanes(hn::ScalableTag<double>()));
  for (std::int32_t i = count; i < count + lanes; ++i) prefix.g[i] = prefix.h[i] = 0;
  if (has_bounds(s))
    scan_prefix<true>(prefix, count, s, 0, 0, false, best);
  else
    scan_prefix<false>(prefix, count, s, 0, 0, false, best);
  return best;
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_TREE_SPLIT_INL_HPP
