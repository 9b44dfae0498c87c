// SPDX-License-Identifier: Apache-2.0

/// \file
/// Adam and its kin: AdamW, AMSGrad (an option), NAdam, RAdam, Adamax, AdaBelief, Yogi.
///
/// eps is added to the root of the corrected second moment, as in the paper and PyTorch; eps_root
/// inside of it.

#ifndef QUERN_OPTIM_ADAM_HPP
#define QUERN_OPTIM_ADAM_HPP

#include "quern/core/config.hpp"
#include "quern/kernels/optim_types.hpp"
#include "quern/optim/method.hpp"

#include <array>
#include <cmath>
#include <cstdint>
#include <string_view>

QUERN_NAMESPACE_BEGIN
namespace optim {

namespace detail {

/// Constants of Adam's rule at a step: the bias corrections are in `step` and `correction`.
template <class T, class Method>
kernels::AdamRule<T> adam_rule(const Method& m, const StepPoint& at, double eps_root) {
  return {static_cast<T>(m.beta1),
          static_cast<T>(1 - m.beta1),
          static_cast<T>(m.beta2),
          static_cast<T>(1 - m.beta2),
          static_cast<T>(at.lr / one_minus_power(m.beta1, at.step)),
          static_cast<T>(1 / one_minus_power(m.beta2, at.step)),
          static_cast<T>(eps_root),
          static_cast<T>(m.eps)};
}

}  // namespace detail

/// Kingma and Ba 2015. With `amsgrad` Reddi, Kale and Kumar 2018. `l2` goes through the moments, so
/// that it is no weight decay (AdamW).
struct Adam {
  double lr = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double eps_root = 0;
  bool amsgrad = false;     ///< keeps the largest second moment (before correction)
  double l2 = 0;            ///< added to the gradient as l2 p
  double weight_decay = 0;  ///< decoupled: shrinks p itself
  Decay decay = Decay::learning_rate;
  bool maximize = false;  ///< climbs instead of descending

  static constexpr const char* name = "adam";
  static constexpr Pass pass = Pass::fused;
  static constexpr std::array<std::string_view, 3> states = {"exp_avg", "exp_avg_sq",
                                                             "max_exp_avg_sq"};
  [[nodiscard]] int state_count() const { return amsgrad ? 3 : 2; }
  [[nodiscard]] double initial(int /*state*/) const { return 0; }
  void check() const {
    const detail::OptionCheck options("Adam");
    options.common(*this);
    options.fraction("beta1", beta1);
    options.fraction("beta2", beta2);
    options.not_negative("eps", eps);
    options.not_negative("eps_root", eps_root);
  }
  template <class T, class Use>
  void rule(const StepPoint& at, Use&& use) const {
    const kernels::AdamRule<T> plain = detail::adam_rule<T>(*this, at, eps_root);
    if (!amsgrad) return use(plain);
    use(kernels::AmsgradRule<T>{plain});
  }
};

/// Loshchilov and Hutter 2019: Adam with decoupled weight decay, which shrinks every parameter
/// alike. Default: PyTorch's p *= 1 - lr lambda; Decay::schedule is the paper's.
struct AdamW {
  double lr = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double eps_root = 0;
  bool amsgrad = false;        ///< keeps the largest second moment (before correction)
  double l2 = 0;               ///< added to the gradient as l2 p
  double weight_decay = 1e-2;  ///< decoupled: shrinks p itself
  Decay decay = Decay::learning_rate;
  bool maximize = false;  ///< climbs instead of descending

  static constexpr const char* name = "adamw";
  static constexpr Pass pass = Pass::fused;
  static constexpr std::array<std::string_view, 3> states = {"exp_avg", "exp_avg_sq",
                                                             "max_exp_avg_sq"};
  [[nodiscard]] int state_count() const { return amsgrad ? 3 : 2; }
  [[nodiscard]] double initial(int /*state*/) const { return 0; }
  void check() const {
    const detail::OptionCheck options("AdamW");
    options.common(*this);
    options.fraction("beta1", beta1);
    options.fraction("beta2", beta2);
    options.not_negative("eps", eps);
    options.not_negative("eps_root", eps_root);
  }
  template <class T, class Use>
  void rule(const StepPoint& at, Use&& use) const {
    const kernels::AdamRule<T> plain = detail::adam_rule<T>(*this, at, eps_root);
    if (!amsgrad) return use(plain);
    use(kernels::AmsgradRule<T>{plain});
  }
};

/// Dozat 2016: Adam with Nesterov's momentum, whose mu grows to beta1.
struct NAdam {
  double lr = 2e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double momentum_decay = 4e-3;
  double l2 = 0;            ///< added to the gradient as l2 p
  double weight_decay = 0;  ///< decoupled: shrinks p itself
  Decay decay = Decay::learning_rate;
  bool maximize = false;  ///< climbs instead of descending

  static constexpr const char* name = "nadam";
  static constexpr Pass pass = Pass::fused;
  static constexpr std::array<std::string_view, 2> states = {"exp_avg", "exp_avg_sq"};
  [[nodiscard]] int state_count() const { return 2; }
  [[nodiscard]] double initial(int /*state*/) const { return 0; }
  void check() const {
    const detail::OptionCheck options("NAdam");
    options.common(*this);
    options.fraction("beta1", beta1);
    options.fraction("beta2", beta2);
    options.not_negative("eps", eps);
    options.not_negative("momentum_decay", momentum_decay);
  }
  template <class T, class Use>
  void rule(const StepPoint& at, Use&& use) const {
    kernels::NadamRule<T> rule{detail::adam_rule<T>(*this, at, 0), T{0}};
    const auto mu = [this](std::int64_t t) {
      return beta1 * (1 - 0.5 * std::pow(0.96, static_cast<double>(t) * momentum_decay));
    };
    const double now = mu(at.step), next = mu(at.step + 1);
    const double product = (at.step == 1 ? 1 : at.memory[0]) * now;
    at.memory[0] = product;
    rule.gradient_step = static_cast<T>(at.lr * (1 - now) / (1 - product));
    rule.adam.step = static_cast<T>(at.lr * next / (1 - product * next));
    use(rule);
  }
};

/// Liu et al. 2020: no adaptive rate until its variance is finite, then rectified.
struct RAdam {
  double lr = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double l2 = 0;            ///< added to the gradient as l2 p
  double weight_decay = 0;  ///< decoupled: shrinks p itself
  Decay decay = Decay::learning_rate;
  bool maximize = false;  ///< climbs instead of descending

  static constexpr const char* name = "radam";
  static constexpr Pass pass = Pass::fused;
  static constexpr std::array<std::string_view, 2> states = {"exp_avg", "exp_avg_sq"};
  [[nodiscard]] int state_count() const { return 2; }
  [[nodiscard]] double initial(int /*state*/) const { return 0; }
  void check() const {
    const detail::OptionCheck options("RAdam");
    options.common(*this);
    options.fraction("beta1", beta1);
    options.fraction("beta2", beta2);
    options.not_negative("eps", eps);
  }
  template <class T, class Use>
  void rule(const StepPoint& at, Use&& use) const {
    const double correction1 = detail::one_minus_power(beta1, at.step);
    const double correction2 = detail::one_minus_power(beta2, at.step);
    const double most = 2 / (1 - beta2) - 1, t = static_cast<double>(at.step);
    const double rho = most - 2 * t * (1 - correction2) / correction2;
    kernels::RadamRule<T> rule{static_cast<T>(beta1),
                               static_cast<T>(1 - beta1),
                               static_cast<T>(beta2),
                               static_cast<T>(1 - beta2),
                               static_cast<T>(at.lr / correction1),
                               T{0},
                               T{1}};
    if (rho > 5) {
      const double rectified =
          std::sqrt((rho - 4) * (rho - 2) * most / ((most - 4) * (most - 2) * rho) * correction2);
      rule.step = static_cast<T>(at.lr / correction1 * rectified);
      rule.slope = T{1};
      rule.offset = static_cast<T>(eps);
    }
    use(rule);
  }
};

/// Adam's paper, section 7.1: the largest gradient, fading, in place of the second moment.
struct Adamax {
  double lr = 2e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double l2 = 0;            ///< added to the gradient as l2 p
  double weight_decay = 0;  ///< decoupled: shrinks p itself
  Decay decay = Decay::learning_rate;
  bool maximize = false;  ///< climbs instead of descending

  static constexpr const char* name = "adamax";
  static constexpr Pass pass = Pass::fused;
  static constexpr std::array<std::string_view, 2> states = {"exp_avg", "exp_inf"};
  [[nodiscard]] int state_count() const { return 2; }
  [[nodiscard]] double initial(int /*state*/) const { return 0; }
  void check() const {
    const detail::OptionCheck options("Adamax");
    options.common(*this);
    options.fraction("beta1", beta1);
    options.fraction("beta2", beta2);
    options.positive("eps", eps);
  }
  template <class T, class Use>
  void rule(const StepPoint& at, Use&& use) const {
    use(kernels::AdamaxRule<T>{
        static_cast<T>(beta1), static_cast<T>(1 - beta1), static_cast<T>(beta2),
        static_cast<T>(at.lr / detail::one_minus_power(beta1, at.step)), static_cast<T>(eps)});
  }
};

/// Zhuang et al. 2020: the second moment of what the first did not foresee. eps as optax has it.
struct AdaBelief {
  double lr = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-16;
  double eps_root = 1e-16;
  double l2 = 0;            ///< added to the gradient as l2 p
  double weight_decay = 0;  ///< decoupled: shrinks p itself
  Decay decay = Decay::learning_rate;
  bool maximize = false;  ///< climbs instead of descending

  static constexpr const char* name = "adabelief";
  static constexpr Pass pass = Pass::fused;
  static constexpr std::array<std::string_view, 2> states = {"exp_avg", "exp_avg_sq"};
  [[nodiscard]] int state_count() const { return 2; }
  [[nodiscard]] double initial(int /*state*/) const { return 0; }
  void check() const {
    const detail::OptionCheck options("AdaBelief");
    options.common(*this);
    options.fraction("beta1", beta1);
    options.fraction("beta2", beta2);
    options.not_negative("eps", eps);
    options.not_negative("eps_root", eps_root);
  }
  template <class T, class Use>
  void rule(const StepPoint& at, Use&& use) const {
    use(kernels::AdabeliefRule<T>{detail::adam_rule<T>(*this, at, eps_root)});
  }
};

/// Zaheer et al. 2018: a second moment that grows as fast as Adam's and falls slowly.
struct Yogi {
  double lr = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-3;
  double initial_moment = 1e-6;  ///< of both moments
  double l2 = 0;                 ///< added to the gradient as l2 p
  double weight_decay = 0;       ///< decoupled: shrinks p itself
  Decay decay = Decay::learning_rate;
  bool maximize = false;  ///< climbs instead of descending

  static constexpr const char* name = "yogi";
  static constexpr Pass pass = Pass::fused;
  static constexpr std::array<std::string_view, 2> states = {"exp_avg", "exp_avg_sq"};
  [[nodiscard]] int state_count() const { return 2; }
  [[nodiscard]] double initial(int /*state*/) const { return initial_moment; }
  void check() const {
    const detail::OptionCheck options("Yogi");
    options.common(*this);
    options.fraction("beta1", beta1);
    options.fraction("beta2", beta2);
    options.not_negative("eps", eps);
    options.not_negative("initial_moment", initial_moment);
  }
  template <class T, class Use>
  void rule(const StepPoint& at, Use&& use) const {
    use(kernels::YogiRule<T>{detail::adam_rule<T>(*this, at, 0)});
  }
};

}  // namespace optim
QUERN_NAMESPACE_END

#endif  // QUERN_OPTIM_ADAM_HPP
