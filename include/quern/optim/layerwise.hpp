// SPDX-License-Identifier: Apache-2.0

/// \file
/// LAMB and LARS: steps scaled, tensor by tensor, by |p| / |u|, for large batches.

#ifndef QUERN_OPTIM_LAYERWISE_HPP
#define QUERN_OPTIM_LAYERWISE_HPP

#include "quern/core/config.hpp"
#include "quern/kernels/optim_types.hpp"
#include "quern/optim/adam.hpp"
#include "quern/optim/method.hpp"

#include <array>
#include <string_view>

QUERN_NAMESPACE_BEGIN
namespace optim {

/// You et al. 2020: p -= lr |p| / |u| u with Adam's direction and the decay in u.
struct Lamb {
  double lr = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-6;
  double eps_root = 0;
  double l2 = 0;            ///< added to the gradient as l2 p
  double weight_decay = 0;  ///< decoupled: shrinks p itself
  Decay decay = Decay::learning_rate;
  bool maximize = false;  ///< climbs instead of descending

  static constexpr const char* name = "lamb";
  static constexpr Pass pass = Pass::layerwise;
  static constexpr std::array<std::string_view, 2> states = {"exp_avg", "exp_avg_sq"};
  [[nodiscard]] int state_count() const { return 2; }
  [[nodiscard]] double initial(int /*state*/) const { return 0; }
  void check() const {
    const detail::OptionCheck options("Lamb");
    options.common(*this);
    options.fraction("beta1", beta1);
    options.fraction("beta2", beta2);
    options.positive("eps", eps);
    options.not_negative("eps_root", eps_root);
  }
  /// Factor of a tensor's step, from the norms of its parameters and of its direction.
  [[nodiscard]] double trust(double values, double direction) const {
    return values > 0 && direction > 0 ? values / direction : 1;
  }
  /// Whether the decay is part of the rule instead of shrinking p.
  static constexpr bool decays_inside = true;
  template <class T, class Use>
  void rule(const StepPoint& at, Use&& use) const {
    StepPoint unit = at;
    unit.lr = 1;
    use(kernels::LambRule<T>{detail::adam_rule<T>(*this, unit, eps_root),
                             static_cast<T>(weight_decay), static_cast<T>(at.lr)});
  }
};

/// You, Gitman and Ginsburg 2017: momentum over steps of lr trust |p| / |u| u, u = g + weight_decay
/// p.
struct Lars {
  double lr = 1e-1;
  double momentum = 0.9;
  double trust_coefficient = 1e-3;
  double l2 = 0;            ///< added to the gradient as l2 p
  double weight_decay = 0;  ///< decoupled: shrinks p itself
  Decay decay = Decay::learning_rate;
  bool maximize = false;  ///< climbs instead of descending

  static constexpr const char* name = "lars";
  static constexpr Pass pass = Pass::layerwise;
  static constexpr std::array<std::string_view, 1> states = {"momentum_buffer"};
  [[nodiscard]] int state_count() const { return 1; }
  [[nodiscard]] double initial(int /*state*/) const { return 0; }
  void check() const {
    const detail::OptionCheck options("Lars");
    options.common(*this);
    options.fraction("momentum", momentum);
    options.positive("trust_coefficient", trust_coefficient);
  }
  /// Factor of a tensor's step, from the norms of its parameters and of its direction.
  [[nodiscard]] double trust(double values, double direction) const {
    return values > 0 && direction > 0 ? trust_coefficient * values / direction : 1;
  }
  /// Whether the decay is part of the rule instead of shrinking p.
  static constexpr bool decays_inside = true;
  template <class T, class Use>
  void rule(const StepPoint& at, Use&& use) const {
    use(kernels::LarsRule<T>{static_cast<T>(momentum), static_cast<T>(at.lr)});
  }
};

}  // namespace optim
QUERN_NAMESPACE_END

#endif  // QUERN_OPTIM_LAYERWISE_HPP
