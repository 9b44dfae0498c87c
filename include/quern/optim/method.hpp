// SPDX-License-Identifier: Apache-2.0

/// \file
/// What every optimisation method is made of: a struct of options, which for each step gives the
/// constants of its rule (kernels/optim_types.hpp). The methods are in methods.hpp and beside it.

#ifndef QUERN_OPTIM_METHOD_HPP
#define QUERN_OPTIM_METHOD_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>

QUERN_NAMESPACE_BEGIN
namespace optim {

/// What `weight_decay` is multiplied by before it shrinks the parameters. lr is the rate of the
/// moment, eta = lr / (the options' lr) the schedule's multiplier.
enum class Decay {
  learning_rate,  ///< p *= 1 - lr lambda: PyTorch, optax
  schedule        ///< p *= 1 - eta lambda: Loshchilov and Hutter's paper, algorithm 2
};

/// Where in time a step is, for a method that makes its rule.
struct StepPoint {
  std::int64_t step = 1;     ///< from 1
  double lr = 0;             ///< of this step
  double* memory = nullptr;  ///< two numbers of the group that are kept and saved, 0 at first
};

/// How a method walks over memory.
enum class Pass {
  fused,      ///< one rule for every element
  layerwise,  ///< a rule scaled by norms of each tensor
  factored,   ///< Adafactor
  orthogonal  ///< Muon
};

namespace detail {

/// 1 - b^t, also where b^t is nearly 1.
[[nodiscard]] inline double one_minus_power(double b, std::int64_t t) {
  double power = 1, base = b;
  for (std::uint64_t k = static_cast<std::uint64_t>(t); k != 0; k >>= 1U) {
    if ((k & 1U) != 0) power *= base;
    base *= base;
  }
  return 1 - power;
}

/// Noise of a step's rounding.
[[nodiscard]] constexpr std::uint32_t step_seed(std::int64_t step) {
  std::uint64_t x = static_cast<std::uint64_t>(step) * 0x9E3779B97F4A7C15ULL;
  x = (x ^ (x >> 30U)) * 0xBF58476D1CE4E5B9ULL;
  return static_cast<std::uint32_t>(x >> 32U);
}

/// Checks of a method's options; `method` is its name.
class OptionCheck {
 public:
  explicit OptionCheck(std::string_view method)
      : function_("quern::optim::" + std::string(method)) {}

  void positive(std::string_view argument, double value) const {
    if (is_finite_bits(value) && value > 0) return;
    throw ValueError(error_text(function_, argument, "a finite number above 0", value));
  }
  void not_negative(std::string_view argument, double value) const {
    if (is_finite_bits(value) && value >= 0) return;
    throw ValueError(error_text(function_, argument, "a finite number of at least 0", value));
  }
  /// 0 <= value < 1.
  void fraction(std::string_view argument, double value) const {
    if (is_finite_bits(value) && value >= 0 && value < 1) return;
    throw ValueError(error_text(function_, argument, "0 <= value < 1", value));
  }
  template <class Method>
  void common(const Method& m) const {
    positive("lr", m.lr);
    not_negative("l2", m.l2);
    not_negative("weight_decay", m.weight_decay);
  }
  [[noreturn]] void fail(std::string_view argument, std::string_view expected, double got) const {
    throw ValueError(error_text(function_, argument, expected, got));
  }

 private:
  std::string function_;
};

}  // namespace detail
}  // namespace optim
QUERN_NAMESPACE_END

#endif  // QUERN_OPTIM_METHOD_HPP
