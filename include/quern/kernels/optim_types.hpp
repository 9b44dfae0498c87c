// SPDX-License-Identifier: Apache-2.0

/// \file
/// What an optimiser passes to its kernels: pieces of tensors, what is done to every gradient
/// first, and the rules. A rule is a plain struct of a step's constants; what it does to a vector
/// is written once per SIMD target, as `OptimRule<Name>` of optim_rules-inl.hpp.
///
/// In the rules below g is the gradient after scaling, clipping and L2, p the parameter after
/// decoupled decay, and s0, s1, ... the states.

#ifndef QUERN_KERNELS_OPTIM_TYPES_HPP
#define QUERN_KERNELS_OPTIM_TYPES_HPP

#include "quern/core/config.hpp"

#include <cstddef>
#include <cstdint>

QUERN_NAMESPACE_BEGIN
namespace kernels {

/// States of the rule that keeps most.
inline constexpr int max_optim_states = 3;

/// State arrays hold each tensor from a multiple of this on, so that whole vectors may be read and
/// written behind its last element.
inline constexpr std::size_t optim_state_padding = 16;

/// Elements of one tensor that lie together.
template <class T>
struct OptimChunk {
  T* values = nullptr;
  const T* gradient = nullptr;
  std::size_t count = 0;
  std::size_t state = 0;   ///< of the first element in every state array
  T factor = T{1};         ///< what a layer-wise rule scales its step by
  std::int32_t owner = 0;  ///< number of the tensor
};

/// What comes before the rule: g' = clamp(scale g, -clip, clip) + l2 p, then p' = keep p.
template <class T>
struct OptimPrologue {
  T scale = T{1};
  T clip = T{0};  ///< infinity: none
  T l2 = T{0};
  T keep = T{1};
  std::uint32_t seed = 0;  ///< of the rounding to bfloat16
};

/// One call's work. M is what states are stored as: T, or BFloat16 beside float.
template <class T, class M>
struct OptimWork {
  const OptimChunk<T>* chunks = nullptr;
  std::size_t count = 0;
  M* states[max_optim_states] = {};
  OptimPrologue<T> prologue;
};

/// p -= lr g.
template <class T>
struct SgdRule {
  T lr;
};
/// s0 = momentum s0 + take g; p -= gradient_step g + buffer_step s0.
template <class T>
struct MomentumRule {
  T momentum, take, gradient_step, buffer_step;
};
/// s0 = b1 s0 + (1 - b1) g; s1 = b2 s1 + (1 - b2) g^2;
/// p -= step s0 / (sqrt(correction s1 + eps_root) + eps).
template <class T>
struct AdamRule {
  T beta1, rest1, beta2, rest2, step, correction, eps_root, eps;
};
/// Adam with s2 = max(s2, s1) in place of s1.
template <class T>
struct AmsgradRule {
  AdamRule<T> adam;
};
/// p -= (gradient_step g + step s0) / (sqrt(correction s1) + eps).
template <class T>
struct NadamRule {
  AdamRule<T> adam;
  T gradient_step;
};
/// s1 averages (g - s0)^2 with the new s0; else Adam.
template <class T>
struct AdabeliefRule {
  AdamRule<T> adam;
};
/// s1 -= (1 - b2) sign(s1 - g^2) g^2; else Adam.
template <class T>
struct YogiRule {
  AdamRule<T> adam;
};
/// p -= step s0 / (slope sqrt(s1) + offset).
template <class T>
struct RadamRule {
  T beta1, rest1, beta2, rest2, step, slope, offset;
};
/// s1 = max(b2 s1, |g| + eps); p -= step s0 / s1.
template <class T>
struct AdamaxRule {
  T beta1, rest1, beta2, step, eps;
};
/// s0 += g^2; p -= lr g / (sqrt(s0) + eps).
template <class T>
struct AdagradRule {
  T lr, eps;
};
/// s0 = alpha s0 + (1 - alpha) g^2; p -= lr g / (sqrt(s0 + eps_root) + eps).
template <class T>
struct RmspropRule {
  T alpha, rest, lr, eps_root, eps;
};
/// RMSprop with momentum (s1) and, where centered is 1, the variance about s2.
template <class T>
struct RmspropMomentumRule {
  RmspropRule<T> plain;
  T momentum, centered;
};
/// s0 = rho s0 + (1 - rho) g^2; D = sqrt(s1 + eps) / sqrt(s0 + eps) g; s1 = rho s1 + (1 - rho) D^2;
/// p -= lr D.
template <class T>
struct AdadeltaRule {
  T rho, rest, lr, eps;
};
/// p -= lr sign(b1 s0 + (1 - b1) g); s0 = b2 s0 + (1 - b2) g.
template <class T>
struct LionRule {
  T beta1, rest1, beta2, rest2, lr;
};
/// s0 the gradient before, s1 the step size; see optim/methods.hpp.
template <class T>
struct RpropRule {
  T down, up, smallest, largest;
};
/// p -= eta g; s0 += mu (p - s0).
template <class T>
struct AveragedSgdRule {
  T eta, mu;
};
/// p += weight (g - p): an average p of what g runs through.
template <class T>
struct LerpRule {
  T weight;
};
/// s0 = momentum s0 + (1 - momentum) g; p = gradient_part g + buffer_part s0: a direction, not a
/// step.
template <class T>
struct DirectionRule {
  T momentum, rest, gradient_part, buffer_part;
};
/// u = s0' / (sqrt(s1') + eps) + decay p with corrected moments. Measured first (which moves the
/// moments), then p -= lr factor u.
template <class T>
struct LambRule {
  AdamRule<T> adam;  ///< step and correction undo the bias
  T decay, lr;
};
/// u = g. Measured first; then s0 = momentum s0 + lr factor g, p -= s0.
template <class T>
struct LarsRule {
  T momentum, lr;
};

/// Sums over one chunk.
struct OptimSums {
  double gradient = 0;  ///< of g^2, or of u^2
  double values = 0;    ///< of p^2
};

}  // namespace kernels
QUERN_NAMESPACE_END

#endif  // QUERN_KERNELS_OPTIM_TYPES_HPP
