// SPDX-License-Identifier: Apache-2.0

/// \file
/// What the rules of optim_types.hpp do to a vector: one function a rule, of the gradient, the
/// parameter and the states. Each element's result depends on that element alone.

#if defined(QUERN_KERNELS_OPTIM_RULES_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_OPTIM_RULES_INL_HPP
#undef QUERN_KERNELS_OPTIM_RULES_INL_HPP
#else
#define QUERN_KERNELS_OPTIM_RULES_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/optim_types.hpp"

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

/// kStates, and apply(rule, d, factor, g, p, s). Rules that scale by layer also have
/// measure(rule, d, g, p, s): u, after the states have moved.
template <class Rule>
struct OptimRule;

namespace detail {

/// a x + b y.
template <class D, class V, class T = hn::TFromD<D>>
HWY_INLINE V blend(D d, T a, V x, T b, V y) {
  return hn::MulAdd(hn::Set(d, b), y, hn::Mul(hn::Set(d, a), x));
}
/// p - step x / y.
template <class D, class V, class T = hn::TFromD<D>>
HWY_INLINE V step_by_quotient(D d, V p, T step, V x, V y) {
  return hn::Sub(p, hn::Div(hn::Mul(hn::Set(d, step), x), y));
}
/// sqrt(correction v + eps_root) + eps.
template <class D, class V, class T = hn::TFromD<D>>
HWY_INLINE V adam_scale(D d, const AdamRule<T>& r, V v) {
  return hn::Add(hn::Sqrt(hn::MulAdd(hn::Set(d, r.correction), v, hn::Set(d, r.eps_root))),
                 hn::Set(d, r.eps));
}
/// -1, 0 or 1 (0 for NaN).
template <class D, class V>
HWY_INLINE V sign(D d, V x) {
  const V zero = hn::Zero(d), one = hn::Set(d, hn::TFromD<D>{1});
  return hn::Sub(hn::IfThenElseZero(hn::Gt(x, zero), one),
                 hn::IfThenElseZero(hn::Lt(x, zero), one));
}

}  // namespace detail

#define QUERN_OPTIM_RULE(Name, states)                                                           \
  template <class T>                                                                             \
  struct OptimRule<kernels::Name<T>> {                                                           \
    static constexpr int kStates = states;                                                       \
    template <class D, class V>                                                                  \
    static HWY_INLINE void apply(const kernels::Name<T>& r, D d, T factor, V g, V& p, V* s);     \
  };                                                                                             \
  template <class T>                                                                             \
  template <class D, class V>                                                                    \
  HWY_INLINE void OptimRule<kernels::Name<T>>::apply([[maybe_unused]] const kernels::Name<T>& r, \
                                                     D d, [[maybe_unused]] T factor, V g, V& p,  \
                                                     [[maybe_unused]] V* s)

QUERN_OPTIM_RULE(SgdRule, 0) { p = hn::NegMulAdd(hn::Set(d, r.lr), g, p); }

QUERN_OPTIM_RULE(MomentumRule, 1) {
  s[0] = detail::blend(d, r.momentum, s[0], r.take, g);
  p = hn::Sub(p, detail::blend(d, r.gradient_step, g, r.buffer_step, s[0]));
}

QUERN_OPTIM_RULE(AdamRule, 2) {
  s[0] = detail::blend(d, r.beta1, s[0], r.rest1, g);
  s[1] = detail::blend(d, r.beta2, s[1], r.rest2, hn::Mul(g, g));
  p = detail::step_by_quotient(d, p, r.step, s[0], detail::adam_scale(d, r, s[1]));
}

QUERN_OPTIM_RULE(AmsgradRule, 3) {
  s[0] = detail::blend(d, r.adam.beta1, s[0], r.adam.rest1, g);
  s[1] = detail::blend(d, r.adam.beta2, s[1], r.adam.rest2, hn::Mul(g, g));
  s[2] = hn::Max(s[2], s[1]);
  p = detail::step_by_quotient(d, p, r.adam.step, s[0], detail::adam_scale(d, r.adam, s[2]));
}

QUERN_OPTIM_RULE(NadamRule, 2) {
  s[0] = detail::blend(d, r.adam.beta1, s[0], r.adam.rest1, g);
  s[1] = detail::blend(d, r.adam.beta2, s[1], r.adam.rest2, hn::Mul(g, g));
  const V u = detail::blend(d, r.gradient_step, g, r.adam.step, s[0]);
  p = hn::Sub(p, hn::Div(u, detail::adam_scale(d, r.adam, s[1])));
}

QUERN_OPTIM_RULE(AdabeliefRule, 2) {
  s[0] = detail::blend(d, r.adam.beta1, s[0], r.adam.rest1, g);
  const V surprise = hn::Sub(g, s[0]);
  s[1] = detail::blend(d, r.adam.beta2, s[1], r.adam.rest2, hn::Mul(surprise, surprise));
  p = detail::step_by_quotient(d, p, r.adam.step, s[0], detail::adam_scale(d, r.adam, s[1]));
}

QUERN_OPTIM_RULE(YogiRule, 2) {
  const V square = hn::Mul(g, g);
  s[0] = detail::blend(d, r.adam.beta1, s[0], r.adam.rest1, g);
  s[1] = hn::NegMulAdd(hn::Mul(hn::Set(d, r.adam.rest2), square),
                       detail::sign(d, hn::Sub(s[1], square)), s[1]);
  p = detail::step_by_quotient(d, p, r.adam.step, s[0], detail::adam_scale(d, r.adam, s[1]));
}

QUERN_OPTIM_RULE(RadamRule, 2) {
  s[0] = detail::blend(d, r.beta1, s[0], r.rest1, g);
  s[1] = detail::blend(d, r.beta2, s[1], r.rest2, hn::Mul(g, g));
  const V scale = hn::MulAdd(hn::Set(d, r.slope), hn::Sqrt(s[1]), hn::Set(d, r.offset));
  p = detail::step_by_quotient(d, p, r.step, s[0], scale);
}

QUERN_OPTIM_RULE(AdamaxRule, 2) {
  s[0] = detail::blend(d, r.beta1, s[0], r.rest1, g);
  s[1] = hn::Max(hn::Mul(hn::Set(d, r.beta2), s[1]), hn::Add(hn::Abs(g), hn::Set(d, r.eps)));
  p = detail::step_by_quotient(d, p, r.step, s[0], s[1]);
}

QUERN_OPTIM_RULE(AdagradRule, 1) {
  s[0] = hn::MulAdd(g, g, s[0]);
  p = detail::step_by_quotient(d, p, r.lr, g, hn::Add(hn::Sqrt(s[0]), hn::Set(d, r.eps)));
}

QUERN_OPTIM_RULE(RmspropRule, 1) {
  s[0] = detail::blend(d, r.alpha, s[0], r.rest, hn::Mul(g, g));
  const V root = hn::Sqrt(hn::Add(s[0], hn::Set(d, r.eps_root)));
  p = detail::step_by_quotient(d, p, r.lr, g, hn::Add(root, hn::Set(d, r.eps)));
}

QUERN_OPTIM_RULE(RmspropMomentumRule, 3) {
  const kernels::RmspropRule<T>& q = r.plain;
  s[0] = detail::blend(d, q.alpha, s[0], q.rest, hn::Mul(g, g));
  s[2] = detail::blend(d, q.alpha, s[2], q.rest, g);
  const V mean = hn::Mul(s[2], hn::Set(d, r.centered));
  const V about = hn::Max(hn::NegMulAdd(mean, mean, s[0]), hn::Zero(d));
  const V root = hn::Sqrt(hn::Add(about, hn::Set(d, q.eps_root)));
  s[1] = hn::MulAdd(hn::Set(d, r.momentum), s[1], hn::Div(g, hn::Add(root, hn::Set(d, q.eps))));
  p = hn::NegMulAdd(hn::Set(d, q.lr), s[1], p);
}

QUERN_OPTIM_RULE(AdadeltaRule, 2) {
  const V eps = hn::Set(d, r.eps);
  s[0] = detail::blend(d, r.rho, s[0], r.rest, hn::Mul(g, g));
  // One root of the quotient in place of two roots: the same within rounding.
  const V delta = hn::Mul(hn::Sqrt(hn::Div(hn::Add(s[1], eps), hn::Add(s[0], eps))), g);
  s[1] = detail::blend(d, r.rho, s[1], r.rest, hn::Mul(delta, delta));
  p = hn::NegMulAdd(hn::Set(d, r.lr), delta, p);
}

QUERN_OPTIM_RULE(LionRule, 1) {
  const V direction = detail::blend(d, r.beta1, s[0], r.rest1, g);
  s[0] = detail::blend(d, r.beta2, s[0], r.rest2, g);
  p = hn::NegMulAdd(hn::Set(d, r.lr), detail::sign(d, direction), p);
}

QUERN_OPTIM_RULE(RpropRule, 2) {
  const V zero = hn::Zero(d), product = hn::Mul(g, s[0]);
  const auto same = hn::Gt(product, zero), turned = hn::Lt(product, zero);
  const V one = hn::Set(d, T{1});
  const V change =
      hn::IfThenElse(same, hn::Set(d, r.up), hn::IfThenElse(turned, hn::Set(d, r.down), one));
  s[1] = hn::Min(hn::Max(hn::Mul(s[1], change), hn::Set(d, r.smallest)), hn::Set(d, r.largest));
  s[0] = hn::IfThenElse(turned, zero, g);
  p = hn::NegMulAdd(detail::sign(d, s[0]), s[1], p);
}

QUERN_OPTIM_RULE(AveragedSgdRule, 1) {
  p = hn::NegMulAdd(hn::Set(d, r.eta), g, p);
  s[0] = hn::MulAdd(hn::Set(d, r.mu), hn::Sub(p, s[0]), s[0]);
}

QUERN_OPTIM_RULE(LerpRule, 0) { p = hn::MulAdd(hn::Set(d, r.weight), hn::Sub(g, p), p); }

QUERN_OPTIM_RULE(DirectionRule, 1) {
  s[0] = detail::blend(d, r.momentum, s[0], r.rest, g);
  p = detail::blend(d, r.gradient_part, g, r.buffer_part, s[0]);
}

#undef QUERN_OPTIM_RULE

template <class T>
struct OptimRule<kernels::LambRule<T>> {
  static constexpr int kStates = 2;
  template <class D, class V>
  static HWY_INLINE V direction(const kernels::LambRule<T>& r, D d, V p, const V* s) {
    const V u =
        hn::Div(hn::Mul(hn::Set(d, r.adam.step), s[0]), detail::adam_scale(d, r.adam, s[1]));
    return hn::MulAdd(hn::Set(d, r.decay), p, u);
  }
  template <class D, class V>
  static HWY_INLINE V measure(const kernels::LambRule<T>& r, D d, V g, V p, V* s) {
    s[0] = detail::blend(d, r.adam.beta1, s[0], r.adam.rest1, g);
    s[1] = detail::blend(d, r.adam.beta2, s[1], r.adam.rest2, hn::Mul(g, g));
    return direction(r, d, p, s);
  }
  template <class D, class V>
  static HWY_INLINE void apply(const kernels::LambRule<T>& r, D d, T factor, V /*g*/, V& p, V* s) {
    p = hn::NegMulAdd(hn::Set(d, r.lr * factor), direction(r, d, p, s), p);
  }
};

template <class T>
struct OptimRule<kernels::LarsRule<T>> {
  static constexpr int kStates = 1;
  template <class D, class V>
  static HWY_INLINE V measure(const kernels::LarsRule<T>& /*r*/, D /*d*/, V g, V /*p*/, V* /*s*/) {
    return g;
  }
  template <class D, class V>
  static HWY_INLINE void apply(const kernels::LarsRule<T>& r, D d, T factor, V g, V& p, V* s) {
    s[0] = detail::blend(d, r.momentum, s[0], r.lr * factor, g);
    p = hn::Sub(p, s[0]);
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_OPTIM_RULES_INL_HPP
