// SPDX-License-Identifier: Apache-2.0

/// \file
/// Which of the classical conditions a schedule of steps meets, and what follows.
///
/// H. Robbins, S. Monro, "A stochastic approximation method", Ann. Math. Stat. 22 (1951);
/// J. Kiefer, J. Wolfowitz, Ann. Math. Stat. 23 (1952); A. Dvoretzky, "On stochastic
/// approximation", 3rd Berkeley Symposium (1956); rates: K. L. Chung (1954), B. T. Polyak and
/// A. B. Juditsky, SIAM J. Control Optim. 30 (1992).
///
/// A power a/(k+A)^alpha is decided by its exponent. Of a callable only values are known: its
/// exponent is read off between k = 2^20 and 2^40, a condition whose answer that settles counts as
/// met or violated ("estimated"), every other as undecided.

#ifndef QUERN_STOCHASTIC_CONDITIONS_HPP
#define QUERN_STOCHASTIC_CONDITIONS_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/stochastic/step_size.hpp"

#include <cmath>
#include <cstdint>
#include <sstream>
#include <string>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace stochastic {

enum class Verdict { holds, violated, undecided };

/// One condition.
struct Condition {
  std::string name;  ///< such as "sum a_k = infinity"
  Verdict verdict = Verdict::undecided;
  std::string reason;  ///< such as "exponent 1.5 > 1"
};

/// What the checker says.
struct ConditionReport {
  std::string schedule;               ///< the steps, as text
  std::vector<Condition> conditions;  ///< each with its verdict
  std::vector<std::string> follows;   ///< consequences, as sentences

  [[nodiscard]] bool all_hold() const {
    for (const Condition& c : conditions) {
      if (c.verdict != Verdict::holds) return false;
    }
    return true;
  }
  /// Names of the violated ones with reasons, joined by "; "; empty when there is none.
  [[nodiscard]] std::string violated() const {
    std::string text;
    for (const Condition& c : conditions) {
      if (c.verdict != Verdict::violated) continue;
      if (!text.empty()) text += "; ";
      text += c.name + " (" + c.reason + ")";
    }
    return text;
  }
  /// All of it, a line each.
  [[nodiscard]] std::string text() const {
    static constexpr const char* words[] = {"holds", "VIOLATED", "undecided"};
    std::string out = "steps " + schedule + "\n";
    for (const Condition& c : conditions) {
      out += "  " + c.name + ": " + words[static_cast<int>(c.verdict)] + " (" + c.reason + ")\n";
    }
    for (const std::string& sentence : follows) out += "  => " + sentence + "\n";
    return out;
  }
};

/// What is known of the problem E g(w) = 0 near its root; 0 means unknown. With it the report
/// gives constants.
struct ProblemFacts {
  double slope = 0;           ///< least slope (eigenvalue of the Jacobian) at the root
  double largest_slope = 0;   ///< largest slope anywhere
  double noise_variance = 0;  ///< of an observation of g
};

/// Whether Robbins-Monro's conditions stop a run whose schedule violates them.
enum class Conditions {
  enforce,  ///< ValueError that names the violated condition
  ignore    ///< run anyway (a constant step that tracks a moving root, say)
};

namespace detail {

/// How fast a sequence falls: like k^-exponent.
struct Decay {
  double exponent = 0;
  bool known = true;       ///< false: no exponent fits
  bool estimated = false;  ///< read off values
  std::string text;
};

inline std::string number_text(double x) {
  std::ostringstream out;
  out << x;
  return out.str();
}

inline Decay decay_of(const StepSize& step) {
  Decay decay;
  if (!step.is_custom()) {
    decay.exponent = step.exponent();
    decay.text = "exponent " + number_text(decay.exponent);
    return decay;
  }
  decay.estimated = true;
  double least = 1e300, most = -1e300, last = 0;
  for (int j = 20; j < 40; j += 4) {
    const double ratio = step(std::int64_t{1} << j) / step(std::int64_t{1} << (j + 4));
    last = std::log2(ratio) / 4;
    least = last < least ? last : least;
    most = last > most ? last : most;
  }
  decay.exponent = last;
  decay.known = most - least < 1e-3;
  // Where the exponent is a short decimal, rounding in the logarithm must not move it.
  if (decay.known) decay.exponent = std::round(decay.exponent * 1e5) / 1e5;
  decay.text = decay.known ? "estimated exponent " + number_text(decay.exponent)
                           : "falls like no power of k between 2^20 and 2^40";
  return decay;
}

inline std::string terms_text(double exponent) {
  if (exponent == 0) return "terms stay as large as they are";
  return exponent > 0 ? "terms fall like k^-" + number_text(exponent)
                      : "terms grow like k^" + number_text(-exponent);
}

/// Sum of k^-exponent over k is finite exactly for exponents above 1.
inline Condition sum_condition(const char* name, const Decay& decay, double exponent,
                               bool finite_wanted) {
  Condition c{name, Verdict::undecided, decay.text};
  if (!decay.known) return c;
  const bool finite = exponent > 1 + 1e-12;
  c.verdict = finite == finite_wanted ? Verdict::holds : Verdict::violated;
  c.reason = terms_text(exponent) + ", " + decay.text;
  return c;
}
inline Condition vanishing_condition(const char* name, const Decay& decay) {
  Condition c{name, Verdict::undecided, decay.text};
  if (decay.known) c.verdict = decay.exponent > 0 ? Verdict::holds : Verdict::violated;
  return c;
}

inline void follow_constant(const StepSize& step, const ProblemFacts& facts,
                            ConditionReport& report) {
  report.follows.push_back(
      "no convergence to the root: the iterates forget their start geometrically and then stay "
      "around the root with a variance in proportion to the step; they track a moving root");
  const double a = step.scale();
  if (facts.largest_slope > 0 && a * facts.largest_slope >= 2) {
    report.follows.push_back("the mean iteration diverges: a times the largest slope is " +
                             number_text(a * facts.largest_slope) + ", not below 2");
  } else if (facts.slope > 0 && facts.noise_variance > 0 && a * facts.slope < 2) {
    report.follows.push_back(
        "stationary variance a s^2 / (2 slope - a slope^2) = " +
        number_text(a * facts.noise_variance / (2 * facts.slope - a * facts.slope * facts.slope)));
  }
}

inline void follow_harmonic(const StepSize& step, const ProblemFacts& facts,
                            ConditionReport& report) {
  report.follows.push_back(
      "k times the mean squared error stays bounded only if 2 a slope > 1 (a the constant of a/k, "
      "slope the least slope of E g at the root)");
  if (!(facts.slope > 0) || step.is_custom()) return;
  const double twice = 2 * step.scale() * facts.slope;
  if (twice <= 1) {
    report.follows.push_back("2 a slope = " + number_text(twice) +
                             " <= 1: the error falls only like k^-" + number_text(twice) +
                             " (times log k where that is 1); take a larger a, or average");
  } else if (facts.noise_variance > 0) {
    report.follows.push_back(
        "k variance -> a^2 s^2 / (2 a slope - 1) = " +
        number_text(step.scale() * step.scale() * facts.noise_variance / (twice - 1)) +
        "; least possible s^2 / slope^2 = " +
        number_text(facts.noise_variance / (facts.slope * facts.slope)));
  }
}

inline void follow_robbins_monro(const StepSize& step, const Decay& decay,
                                 const ProblemFacts& facts, ConditionReport& report) {
  if (!decay.known) {
    report.follows.push_back("nothing: the conditions are not decided");
    return;
  }
  const double p = decay.exponent;
  if (step.is_constant()) return follow_constant(step, facts, report);
  if (p > 1) {
    report.follows.push_back(
        "all steps together are finite: the iterates stop short of the root when they start far "
        "from it");
    return;
  }
  if (p <= 0.5) {
    report.follows.push_back(
        "the classical theorem is silent; for a strongly increasing g the mean squared error still "
        "falls like a_k where a_k -> 0");
    return;
  }
  report.follows.push_back(
      "w_k converges to the root with probability 1 and in mean square, if E g is increasing "
      "through it and E g^2 grows at most like (w - root)^2");
  if (p == 1) return follow_harmonic(step, facts, report);
  std::string rate = "variance falls like a_k";
  if (facts.slope > 0 && facts.noise_variance > 0 && !step.is_custom()) {
    rate += ": k^" + number_text(p) + " variance -> a s^2 / (2 slope) = " +
            number_text(step.scale() * facts.noise_variance / (2 * facts.slope));
  }
  report.follows.push_back(rate);
  report.follows.push_back(
      "the average of the iterates (Polyak, Ruppert) reaches the least possible asymptotic "
      "variance, s^2 / (k slope^2), whatever the constant of the steps is");
}

}  // namespace detail

/// Robbins-Monro's conditions on the steps: a_k > 0, sum a_k = infinity, sum a_k^2 < infinity.
[[nodiscard]] inline ConditionReport check_robbins_monro(const StepSize& step,
                                                         const ProblemFacts& facts = {}) {
  const detail::Decay decay = detail::decay_of(step);
  ConditionReport report;
  report.schedule = step.text();
  report.conditions = {
      {"a_k > 0", Verdict::holds, "by construction"},
      detail::sum_condition("sum a_k = infinity", decay, decay.exponent, false),
      detail::sum_condition("sum a_k^2 < infinity", decay, 2 * decay.exponent, true)};
  detail::follow_robbins_monro(step, decay, facts, report);
  return report;
}

/// Kiefer-Wolfowitz's conditions on steps a_k and spans c_k of the differences (SPSA's too, without
/// `sum a_k c_k`, see \p simultaneous).
[[nodiscard]] inline ConditionReport check_kiefer_wolfowitz(const StepSize& step,
                                                            const StepSize& span,
                                                            bool simultaneous = false) {
  const detail::Decay a = detail::decay_of(step), c = detail::decay_of(span);
  detail::Decay both;
  both.known = a.known && c.known;
  both.text = a.text + " of a_k, " + c.text + " of c_k";
  ConditionReport report;
  report.schedule = "a_k = " + step.text() + ", c_k = " + span.text();
  report.conditions = {detail::vanishing_condition("c_k -> 0", c),
                       detail::sum_condition("sum a_k = infinity", a, a.exponent, false),
                       detail::sum_condition("sum a_k^2 / c_k^2 < infinity", both,
                                             2 * (a.exponent - c.exponent), true)};
  if (!simultaneous) {
    report.conditions.push_back(
        detail::sum_condition("sum a_k c_k < infinity", both, a.exponent + c.exponent, true));
  } else {
    report.conditions.push_back(detail::vanishing_condition("a_k -> 0", a));
  }
  if (report.all_hold()) {
    report.follows.push_back(
        "w_k converges to the minimum with probability 1 (one minimum, bounded third derivatives, "
        "noise of bounded variance)");
    const double rate = (std::fmin)(4 * c.exponent, a.exponent - 2 * c.exponent);
    report.follows.push_back("the mean squared error falls like k^-" + detail::number_text(rate) +
                             " (bias^2 like c_k^4, variance like a_k / c_k^2)");
  } else {
    report.follows.push_back("no guarantee of convergence");
  }
  return report;
}

/// The sequences of Dvoretzky's theorem for w_{k+1} = T_k(w_1, …, w_k) + Y_k:
/// |T_k - root| <= max(alpha_k, (1 + beta_k) |w_k - root| - gamma_k), E[Y_k | past] = 0.
struct DvoretzkySequences {
  StepSize alpha;           ///< must tend to 0
  StepSize beta;            ///< must have a finite sum; unused where beta_is_zero
  StepSize gamma;           ///< must have an infinite sum
  StepSize noise_variance;  ///< E Y_k^2: must have a finite sum
  bool beta_is_zero = false;
};

/// Dvoretzky's conditions on given sequences.
[[nodiscard]] inline ConditionReport check_dvoretzky(const DvoretzkySequences& s) {
  const detail::Decay alpha = detail::decay_of(s.alpha), beta = detail::decay_of(s.beta),
                      gamma = detail::decay_of(s.gamma), noise = detail::decay_of(s.noise_variance);
  ConditionReport report;
  report.schedule = "alpha_k = " + s.alpha.text() +
                    ", beta_k = " + (s.beta_is_zero ? "0" : s.beta.text()) +
                    ", gamma_k = " + s.gamma.text() + ", E Y_k^2 = " + s.noise_variance.text();
  report.conditions = {
      detail::vanishing_condition("alpha_k -> 0", alpha),
      s.beta_is_zero ? Condition{"sum beta_k < infinity", Verdict::holds, "beta_k = 0"}
                     : detail::sum_condition("sum beta_k < infinity", beta, beta.exponent, true),
      detail::sum_condition("sum gamma_k = infinity", gamma, gamma.exponent, false),
      detail::sum_condition("sum E Y_k^2 < infinity", noise, noise.exponent, true)};
  report.follows.push_back(report.all_hold()
                               ? "w_k converges to the root with probability 1 and in mean square"
                               : "Dvoretzky's theorem does not apply");
  return report;
}

/// Dvoretzky's conditions for Robbins-Monro with these steps on a g whose slopes lie in
/// [slope, largest_slope]: T_k(w) = w - a_k E g(w), Y_k = -a_k noise. With any eta_k -> 0 for which
/// sum a_k eta_k = infinity, which exists exactly if sum a_k = infinity, alpha_k = eta_k, beta_k =
/// 0 and gamma_k = slope a_k eta_k serve as soon as a_k largest_slope <= 1.
[[nodiscard]] inline ConditionReport check_dvoretzky(const StepSize& step,
                                                     const ProblemFacts& facts = {}) {
  const detail::Decay decay = detail::decay_of(step);
  ConditionReport report;
  report.schedule = step.text();
  Condition contraction =
      detail::vanishing_condition("a_k largest_slope <= 1 from some k on", decay);
  if (contraction.verdict == Verdict::violated) {
    const double product = step.is_custom() ? 0 : step.scale() * facts.largest_slope;
    contraction.verdict = product == 0   ? Verdict::undecided
                          : product <= 1 ? Verdict::holds
                                         : Verdict::violated;
    contraction.reason = product == 0 ? "the steps do not vanish and largest_slope is not given"
                                      : "a largest_slope = " + detail::number_text(product);
  }
  report.conditions = {
      {"alpha_k -> 0", Verdict::holds, "alpha_k = eta_k by choice"},
      {"sum beta_k < infinity", Verdict::holds, "beta_k = 0"},
      detail::sum_condition("sum gamma_k = infinity", decay, decay.exponent, false),
      detail::sum_condition("sum E Y_k^2 < infinity", decay, 2 * decay.exponent, true),
      contraction};
  report.follows.push_back(report.all_hold()
                               ? "w_k converges to the root with probability 1 and in mean square"
                               : "Dvoretzky's theorem does not apply");
  return report;
}

/// ValueError that names the violated conditions, if there are any.
inline void expect_conditions(const char* function, const ConditionReport& report) {
  const std::string violated = report.violated();
  if (violated.empty()) return;
  throw ValueError(error_text(function, "step",
                              "steps that meet the conditions of convergence (or "
                              "Conditions::ignore)",
                              report.schedule + ", which violates " + violated));
}

}  // namespace stochastic
QUERN_NAMESPACE_END

#endif  // QUERN_STOCHASTIC_CONDITIONS_HPP
