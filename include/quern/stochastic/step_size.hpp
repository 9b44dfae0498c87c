// SPDX-License-Identifier: Apache-2.0

/// \file
/// Step sizes of stochastic approximation: a/k, a/k^alpha, a/(k+A)^alpha, constant, or a callable.
///
/// Steps are counted from k = 1. Which of the classical conditions a family meets, and what follows
/// from that, is told by conditions.hpp.

#ifndef QUERN_STOCHASTIC_STEP_SIZE_HPP
#define QUERN_STOCHASTIC_STEP_SIZE_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"

#include <cmath>
#include <cstdint>
#include <functional>
#include <sstream>
#include <string>
#include <utility>

QUERN_NAMESPACE_BEGIN
namespace stochastic {

namespace detail {

/// ValueError unless the value is finite and greater than zero.
inline void expect_positive(const char* function, const char* argument, double value) {
  if (is_finite_bits(value) && value > 0) return;
  throw ValueError(error_text(function, argument, "a finite number greater than 0", value));
}
/// ValueError unless the value is finite and at least zero.
inline void expect_not_negative(const char* function, const char* argument, double value) {
  if (is_finite_bits(value) && value >= 0) return;
  throw ValueError(error_text(function, argument, "a finite number of at least 0", value));
}

}  // namespace detail

/// A sequence of positive step sizes a_k, k = 1, 2, …
class StepSize {
 public:
  /// A constant; implicit, so that `.step = 0.1` can be written. ValueError unless a > 0.
  StepSize(double a) : scale_(a) {  // NOLINT: implicit
    detail::expect_positive("quern::stochastic::StepSize", "a", a);
  }
  /// The same step for ever.
  [[nodiscard]] static StepSize constant(double a) { return {a}; }
  /// a / k.
  [[nodiscard]] static StepSize harmonic(double a) { return power(a, 1.0); }
  /// a / (k + offset)^exponent. ValueError unless a > 0, exponent >= 0 and offset >= 0.
  [[nodiscard]] static StepSize power(double a, double exponent, double offset = 0) {
    constexpr const char* function = "quern::stochastic::StepSize::power";
    detail::expect_positive(function, "a", a);
    detail::expect_not_negative(function, "exponent", exponent);
    detail::expect_not_negative(function, "offset", offset);
    StepSize step(a);
    step.exponent_ = exponent;
    step.offset_ = offset;
    return step;
  }
  /// Any callable of k. Its values are checked when they are used.
  [[nodiscard]] static StepSize custom(std::function<double(std::int64_t)> f,
                                       std::string name = "custom") {
    if (!f) {
      throw ValueError(
          error_text("quern::stochastic::StepSize::custom", "f", "a callable", "none"));
    }
    StepSize step(1.0);
    step.custom_ = std::move(f);
    step.name_ = std::move(name);
    return step;
  }

  /// a_k for k >= 1. ValueError where a callable's value is not finite and positive.
  [[nodiscard]] double operator()(std::int64_t k) const {
    if (custom_) {
      const double a = custom_(k);
      detail::expect_positive("quern::stochastic::StepSize", name_.c_str(), a);
      return a;
    }
    if (exponent_ == 0) return scale_;
    const double at = static_cast<double>(k) + offset_;
    if (exponent_ == 1) return scale_ / at;
    if (exponent_ == 0.5) return scale_ / std::sqrt(at);
    return scale_ / std::pow(at, exponent_);
  }

  [[nodiscard]] bool is_custom() const noexcept { return static_cast<bool>(custom_); }
  [[nodiscard]] bool is_constant() const noexcept { return !custom_ && exponent_ == 0; }
  [[nodiscard]] double scale() const noexcept { return scale_; }        ///< a
  [[nodiscard]] double exponent() const noexcept { return exponent_; }  ///< alpha
  [[nodiscard]] double offset() const noexcept { return offset_; }      ///< A

  /// "0.5 / (k + 10)^0.6" or a callable's name.
  [[nodiscard]] std::string text() const {
    if (custom_) return name_;
    std::ostringstream out;
    out << scale_;
    if (exponent_ == 0) return out.str();
    out << " / ";
    if (offset_ != 0) out << '(';
    out << 'k';
    if (offset_ != 0) out << " + " << offset_ << ')';
    if (exponent_ != 1) out << '^' << exponent_;
    return out.str();
  }

 private:
  double scale_;
  double exponent_ = 0;
  double offset_ = 0;
  std::function<double(std::int64_t)> custom_;
  std::string name_;
};

}  // namespace stochastic
QUERN_NAMESPACE_END

#endif  // QUERN_STOCHASTIC_STEP_SIZE_HPP
