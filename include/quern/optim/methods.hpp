// SPDX-License-Identifier: Apache-2.0

/// \file
/// SGD, Adagrad, RMSProp, Adadelta, Rprop, averaged SGD and Lion: methods with one moment at most,
/// or none.

#ifndef QUERN_OPTIM_METHODS_HPP
#define QUERN_OPTIM_METHODS_HPP

#include "quern/core/config.hpp"
#include "quern/kernels/optim_types.hpp"
#include "quern/optim/method.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <string_view>

QUERN_NAMESPACE_BEGIN
namespace optim {

/// Stochastic gradient descent with Polyak's or Nesterov's momentum, as PyTorch has it:
/// buffer = momentum buffer + (1 - dampening) g (g itself at the first step), p -= lr buffer.
struct Sgd {
  double lr = 1e-2;
  double momentum = 0;
  double dampening = 0;
  bool nesterov = false;    ///< p -= lr (g + momentum buffer)
  double l2 = 0;            ///< added to the gradient as l2 p
  double weight_decay = 0;  ///< decoupled: shrinks p itself
  Decay decay = Decay::learning_rate;
  bool maximize = false;  ///< climbs instead of descending

  static constexpr const char* name = "sgd";
  static constexpr Pass pass = Pass::fused;
  static constexpr std::array<std::string_view, 1> states = {"momentum_buffer"};
  [[nodiscard]] int state_count() const { return momentum == 0 ? 0 : 1; }
  [[nodiscard]] double initial(int /*state*/) const { return 0; }
  void check() const {
    const detail::OptionCheck options("Sgd");
    options.common(*this);
    options.fraction("momentum", momentum);
    if (!(dampening >= 0 && dampening <= 1)) options.fail("dampening", "0..1", dampening);
    if (nesterov && momentum == 0) options.fail("momentum", "above 0 with nesterov", momentum);
    if (nesterov && dampening != 0) options.fail("dampening", "0 with nesterov", dampening);
  }
  template <class T, class Use>
  void rule(const StepPoint& at, Use&& use) const {
    if (momentum == 0) return use(kernels::SgdRule<T>{static_cast<T>(at.lr)});
    const bool first = at.step == 1;
    use(kernels::MomentumRule<T>{
        static_cast<T>(first ? 0 : momentum), static_cast<T>(first ? 1 : 1 - dampening),
        static_cast<T>(nesterov ? at.lr : 0), static_cast<T>(nesterov ? at.lr * momentum : at.lr)});
  }
};

/// Duchi, Hazan and Singer 2011: p -= lr / (1 + (t - 1) lr_decay) g / (sqrt(sum of g^2) + eps).
struct Adagrad {
  double lr = 1e-2;
  double lr_decay = 0;
  double initial_accumulator = 0;
  double eps = 1e-10;
  double l2 = 0;            ///< added to the gradient as l2 p
  double weight_decay = 0;  ///< decoupled: shrinks p itself
  Decay decay = Decay::learning_rate;
  bool maximize = false;  ///< climbs instead of descending

  static constexpr const char* name = "adagrad";
  static constexpr Pass pass = Pass::fused;
  static constexpr std::array<std::string_view, 1> states = {"sum"};
  [[nodiscard]] int state_count() const { return 1; }
  [[nodiscard]] double initial(int /*state*/) const { return initial_accumulator; }
  void check() const {
    const detail::OptionCheck options("Adagrad");
    options.common(*this);
    options.not_negative("lr_decay", lr_decay);
    options.not_negative("initial_accumulator", initial_accumulator);
    options.not_negative("eps", eps);
  }
  template <class T, class Use>
  void rule(const StepPoint& at, Use&& use) const {
    const double lr_now = at.lr / (1 + static_cast<double>(at.step - 1) * lr_decay);
    use(kernels::AdagradRule<T>{static_cast<T>(lr_now), static_cast<T>(eps)});
  }
};

/// Hinton's RMSProp: p -= lr g / (sqrt(v + eps_root) + eps), v the running mean of g^2 (its
/// variance when centered). eps outside of the root is PyTorch's, inside of it optax's and
/// TensorFlow's.
struct RmsProp {
  double lr = 1e-2;
  double alpha = 0.99;
  double eps = 1e-8;
  double eps_root = 0;
  double momentum = 0;
  bool centered = false;
  double l2 = 0;            ///< added to the gradient as l2 p
  double weight_decay = 0;  ///< decoupled: shrinks p itself
  Decay decay = Decay::learning_rate;
  bool maximize = false;  ///< climbs instead of descending

  static constexpr const char* name = "rmsprop";
  static constexpr Pass pass = Pass::fused;
  static constexpr std::array<std::string_view, 3> states = {"square_avg", "momentum_buffer",
                                                             "grad_avg"};
  [[nodiscard]] int state_count() const { return momentum == 0 && !centered ? 1 : 3; }
  [[nodiscard]] double initial(int /*state*/) const { return 0; }
  void check() const {
    const detail::OptionCheck options("RmsProp");
    options.common(*this);
    options.fraction("alpha", alpha);
    options.not_negative("eps", eps);
    options.not_negative("eps_root", eps_root);
    options.fraction("momentum", momentum);
  }
  template <class T, class Use>
  void rule(const StepPoint& at, Use&& use) const {
    const kernels::RmspropRule<T> plain{static_cast<T>(alpha), static_cast<T>(1 - alpha),
                                        static_cast<T>(at.lr), static_cast<T>(eps_root),
                                        static_cast<T>(eps)};
    if (state_count() == 1) return use(plain);
    use(kernels::RmspropMomentumRule<T>{plain, static_cast<T>(momentum), T(centered ? 1 : 0)});
  }
};

/// Zeiler 2012: steps in units of the parameter; lr multiplies them.
struct Adadelta {
  double lr = 1;
  double rho = 0.9;
  double eps = 1e-6;
  double l2 = 0;            ///< added to the gradient as l2 p
  double weight_decay = 0;  ///< decoupled: shrinks p itself
  Decay decay = Decay::learning_rate;
  bool maximize = false;  ///< climbs instead of descending

  static constexpr const char* name = "adadelta";
  static constexpr Pass pass = Pass::fused;
  static constexpr std::array<std::string_view, 2> states = {"square_avg", "acc_delta"};
  [[nodiscard]] int state_count() const { return 2; }
  [[nodiscard]] double initial(int /*state*/) const { return 0; }
  void check() const {
    const detail::OptionCheck options("Adadelta");
    options.common(*this);
    options.fraction("rho", rho);
    options.positive("eps", eps);
  }
  template <class T, class Use>
  void rule(const StepPoint& at, Use&& use) const {
    use(kernels::AdadeltaRule<T>{static_cast<T>(rho), static_cast<T>(1 - rho),
                                 static_cast<T>(at.lr), static_cast<T>(eps)});
  }
};

/// Riedmiller and Braun's resilient propagation, for full batches: signs of gradients alone. Each
/// element has its own step, lr at first, that grows while the sign stays and shrinks when it
/// turns.
struct Rprop {
  double lr = 1e-2;
  double eta_minus = 0.5;
  double eta_plus = 1.2;
  double smallest = 1e-6;
  double largest = 50;
  double l2 = 0;            ///< added to the gradient as l2 p
  double weight_decay = 0;  ///< decoupled: shrinks p itself
  Decay decay = Decay::learning_rate;
  bool maximize = false;  ///< climbs instead of descending

  static constexpr const char* name = "rprop";
  static constexpr Pass pass = Pass::fused;
  static constexpr std::array<std::string_view, 2> states = {"prev", "step_size"};
  [[nodiscard]] int state_count() const { return 2; }
  [[nodiscard]] double initial(int state) const { return state == 1 ? lr : 0; }
  void check() const {
    const detail::OptionCheck options("Rprop");
    options.common(*this);
    if (!(eta_minus > 0 && eta_minus < 1)) options.fail("eta_minus", "0 < value < 1", eta_minus);
    if (!(eta_plus > 1)) options.fail("eta_plus", "above 1", eta_plus);
    options.positive("smallest", smallest);
    if (!(largest >= smallest)) options.fail("largest", "at least smallest", largest);
  }
  template <class T, class Use>
  void rule(const StepPoint& at, Use&& use) const {
    static_cast<void>(at);
    use(kernels::RpropRule<T>{static_cast<T>(eta_minus), static_cast<T>(eta_plus),
                              static_cast<T>(smallest), static_cast<T>(largest)});
  }
};

/// Polyak and Juditsky's averaged SGD as PyTorch has it: the state "ax" is the mean of the iterates
/// from step t0 on.
struct AveragedSgd {
  double lr = 1e-2;
  double lambda = 1e-4;  ///< decay towards 0, part of the method
  double alpha = 0.75;   ///< power of the decreasing rate
  double t0 = 1e6;
  double l2 = 0;            ///< added to the gradient as l2 p
  double weight_decay = 0;  ///< decoupled: shrinks p itself
  Decay decay = Decay::learning_rate;
  bool maximize = false;  ///< climbs instead of descending

  static constexpr const char* name = "asgd";
  static constexpr Pass pass = Pass::fused;
  static constexpr std::array<std::string_view, 1> states = {"ax"};
  [[nodiscard]] int state_count() const { return 1; }
  [[nodiscard]] double initial(int /*state*/) const { return 0; }
  void check() const {
    const detail::OptionCheck options("AveragedSgd");
    options.common(*this);
    options.not_negative("lambda", lambda);
    options.not_negative("alpha", alpha);
    options.not_negative("t0", t0);
  }
  [[nodiscard]] double eta(const StepPoint& at) const {
    return at.lr / std::pow(1 + lambda * at.lr * static_cast<double>(at.step - 1), alpha);
  }
  /// A factor of p beside the decay's.
  [[nodiscard]] double keep(const StepPoint& at) const { return 1 - lambda * eta(at); }
  template <class T, class Use>
  void rule(const StepPoint& at, Use&& use) const {
    const double before = static_cast<double>(at.step - 1);
    const double mu = at.step == 1 ? 1 : 1 / (std::max)(1.0, before - t0);
    use(kernels::AveragedSgdRule<T>{static_cast<T>(eta(at)), static_cast<T>(mu)});
  }
};

/// Chen et al. 2023: the sign of a blend of momentum and gradient. Wants a tenth of Adam's rate and
/// ten times its decay.
struct Lion {
  double lr = 1e-4;
  double beta1 = 0.9;
  double beta2 = 0.99;
  double l2 = 0;            ///< added to the gradient as l2 p
  double weight_decay = 0;  ///< decoupled: shrinks p itself
  Decay decay = Decay::learning_rate;
  bool maximize = false;  ///< climbs instead of descending

  static constexpr const char* name = "lion";
  static constexpr Pass pass = Pass::fused;
  static constexpr std::array<std::string_view, 1> states = {"exp_avg"};
  [[nodiscard]] int state_count() const { return 1; }
  [[nodiscard]] double initial(int /*state*/) const { return 0; }
  void check() const {
    const detail::OptionCheck options("Lion");
    options.common(*this);
    options.fraction("beta1", beta1);
    options.fraction("beta2", beta2);
  }
  template <class T, class Use>
  void rule(const StepPoint& at, Use&& use) const {
    use(kernels::LionRule<T>{static_cast<T>(beta1), static_cast<T>(1 - beta1),
                             static_cast<T>(beta2), static_cast<T>(1 - beta2),
                             static_cast<T>(at.lr)});
  }
};

}  // namespace optim
QUERN_NAMESPACE_END

#endif  // QUERN_OPTIM_METHODS_HPP
