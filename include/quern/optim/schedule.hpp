// SPDX-License-Identifier: Apache-2.0

/// \file
/// Learning rates by step: constant, linear, step, exponential, cosine (with restarts), one cycle,
/// cyclic, polynomial, warm-up, one after another, scaled; and the plateau, which watches a metric.
///
/// A schedule is a value that gives the rate of step s = 0, 1, ...; it keeps no state, so
/// continuing a run needs the step's number alone:
///
///     const auto schedule = optim::warm_up(5, optim::cosine(0.01, 1e-4, 15));
///     for (std::int64_t s = 0; s < steps; ++s) { optimizer.set_lr(schedule(s)); optimizer.step();
///     }
///
/// With a base rate of 1 it is a multiplier for set_lr_multiplier(), which keeps groups' rates
/// apart.

#ifndef QUERN_OPTIM_SCHEDULE_HPP
#define QUERN_OPTIM_SCHEDULE_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <string_view>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace optim {

/// The rate by step, from 0.
class RateSchedule {
 public:
  /// Any function of the step. ValueError for an empty one.
  explicit RateSchedule(std::function<double(std::int64_t)> rate) : rate_(std::move(rate)) {
    if (!rate_) {
      throw ValueError(error_text("quern::optim::RateSchedule", "rate", "a callable", "none"));
    }
  }
  /// ValueError for a step below 0.
  [[nodiscard]] double operator()(std::int64_t step) const {
    if (step < 0) {
      throw ValueError(error_text("quern::optim::RateSchedule", "step", "at least 0", step));
    }
    return rate_(step);
  }

 private:
  std::function<double(std::int64_t)> rate_;
};

namespace detail {

inline constexpr double schedule_pi = 3.14159265358979323846;

inline void rate_ok(std::string_view function, std::string_view what, double value) {
  if (is_finite_bits(value) && value >= 0) return;
  throw ValueError(error_text(function, what, "a finite number of at least 0", value));
}
inline void steps_ok(std::string_view function, std::string_view what, std::int64_t value) {
  if (value >= 1) return;
  throw ValueError(error_text(function, what, "at least 1 step", value));
}
/// Half a cosine from `from` (part 0) to `to` (part 1).
inline double anneal(double from, double to, double part) {
  return to + (from - to) / 2 * (1 + std::cos(schedule_pi * part));
}

}  // namespace detail

/// Always lr.
[[nodiscard]] inline RateSchedule constant(double lr) {
  detail::rate_ok("quern::optim::constant", "lr", lr);
  return RateSchedule([lr](std::int64_t) { return lr; });
}

/// From lr start to lr end in a straight line over `steps` steps, then lr end.
[[nodiscard]] inline RateSchedule linear(double lr, double start, double end, std::int64_t steps) {
  constexpr const char* function = "quern::optim::linear";
  detail::rate_ok(function, "lr", lr);
  detail::rate_ok(function, "start", start);
  detail::rate_ok(function, "end", end);
  detail::steps_ok(function, "steps", steps);
  return RateSchedule([=](std::int64_t s) {
    const double part = (std::min)(1.0, static_cast<double>(s) / static_cast<double>(steps));
    return lr * (start + (end - start) * part);
  });
}

/// lr factor^(s / every), in whole steps of the quotient.
[[nodiscard]] inline RateSchedule step_decay(double lr, std::int64_t every, double factor) {
  constexpr const char* function = "quern::optim::step_decay";
  detail::rate_ok(function, "lr", lr);
  detail::rate_ok(function, "factor", factor);
  detail::steps_ok(function, "every", every);
  return RateSchedule(
      [=](std::int64_t s) { return lr * std::pow(factor, static_cast<double>(s / every)); });
}

/// lr factor^(number of milestones that are reached).
[[nodiscard]] inline RateSchedule multi_step(double lr, std::vector<std::int64_t> milestones,
                                             double factor) {
  constexpr const char* function = "quern::optim::multi_step";
  detail::rate_ok(function, "lr", lr);
  detail::rate_ok(function, "factor", factor);
  std::sort(milestones.begin(), milestones.end());
  return RateSchedule([lr, factor, at = std::move(milestones)](std::int64_t s) {
    const auto passed = std::upper_bound(at.begin(), at.end(), s) - at.begin();
    return lr * std::pow(factor, static_cast<double>(passed));
  });
}

/// lr factor^s.
[[nodiscard]] inline RateSchedule exponential(double lr, double factor) {
  detail::rate_ok("quern::optim::exponential", "lr", lr);
  detail::rate_ok("quern::optim::exponential", "factor", factor);
  return RateSchedule(
      [=](std::int64_t s) { return lr * std::pow(factor, static_cast<double>(s)); });
}

/// lr (1 - s / steps)^power, 0 from `steps` on.
[[nodiscard]] inline RateSchedule polynomial(double lr, std::int64_t steps, double power = 1) {
  constexpr const char* function = "quern::optim::polynomial";
  detail::rate_ok(function, "lr", lr);
  detail::rate_ok(function, "power", power);
  detail::steps_ok(function, "steps", steps);
  return RateSchedule([=](std::int64_t s) {
    if (s >= steps) return 0.0;
    return lr * std::pow(1 - static_cast<double>(s) / static_cast<double>(steps), power);
  });
}

/// Loshchilov and Hutter 2017, half a period over `steps`: from lr to `lowest`. As in PyTorch the
/// rate rises again afterwards; with `hold` it stays.
[[nodiscard]] inline RateSchedule cosine(double lr, double lowest, std::int64_t steps,
                                         bool hold = false) {
  constexpr const char* function = "quern::optim::cosine";
  detail::rate_ok(function, "lr", lr);
  detail::rate_ok(function, "lowest", lowest);
  detail::steps_ok(function, "steps", steps);
  return RateSchedule([=](std::int64_t s) {
    const std::int64_t at = hold ? (std::min)(s, steps) : s;
    return detail::anneal(lr, lowest, static_cast<double>(at) / static_cast<double>(steps));
  });
}

/// SGDR: cosines of `first`, first multiplier, first multiplier^2, ... steps, each from lr.
[[nodiscard]] inline RateSchedule cosine_restarts(double lr, double lowest, std::int64_t first,
                                                  std::int64_t multiplier = 1) {
  constexpr const char* function = "quern::optim::cosine_restarts";
  detail::rate_ok(function, "lr", lr);
  detail::rate_ok(function, "lowest", lowest);
  detail::steps_ok(function, "first", first);
  detail::steps_ok(function, "multiplier", multiplier);
  return RateSchedule([=](std::int64_t s) {
    std::int64_t length = first, within = multiplier == 1 ? s % first : s;
    while (within >= length) {
      within -= length;
      if (length > (std::numeric_limits<std::int64_t>::max)() / multiplier) break;
      length *= multiplier;
    }
    return detail::anneal(lr, lowest, static_cast<double>(within) / static_cast<double>(length));
  });
}

/// Smith and Topin 2018, with PyTorch's names and defaults.
struct OneCycle {
  double highest = 1e-1;
  std::int64_t total_steps = 100;
  double pct_start = 0.3;         ///< part of the steps that rises
  double div_factor = 25;         ///< the first rate is highest / this
  double final_div_factor = 1e4;  ///< the last is the first / this
  double base_momentum = 0.85;    ///< at the highest rate
  double max_momentum = 0.95;     ///< at both ends
  bool linear = false;            ///< straight lines in place of cosines

  [[nodiscard]] double lr(std::int64_t s) const {
    return at(s, highest / div_factor, highest, highest / div_factor / final_div_factor);
  }
  /// What momentum (beta1) goes with it.
  [[nodiscard]] double momentum(std::int64_t s) const {
    return at(s, max_momentum, base_momentum, max_momentum);
  }
  void check() const {
    constexpr const char* function = "quern::optim::OneCycle";
    detail::rate_ok(function, "highest", highest);
    detail::steps_ok(function, "total_steps", total_steps);
    expect_in_range(function, "pct_start", pct_start, 0.0, 1.0);
    if (!(div_factor > 0))
      throw ValueError(error_text(function, "div_factor", "above 0", div_factor));
    if (!(final_div_factor > 0)) {
      throw ValueError(error_text(function, "final_div_factor", "above 0", final_div_factor));
    }
  }

 private:
  [[nodiscard]] double at(std::int64_t s, double first, double middle, double last) const {
    const double peak = pct_start * static_cast<double>(total_steps) - 1;
    const double end = static_cast<double>(total_steps) - 1, now = static_cast<double>(s);
    if (now <= peak) return piece(first, middle, peak > 0 ? now / peak : 1);
    return piece(middle, last, (std::min)(1.0, end > peak ? (now - peak) / (end - peak) : 1));
  }
  [[nodiscard]] double piece(double from, double to, double part) const {
    return linear ? from + (to - from) * part : detail::anneal(from, to, part);
  }
};
[[nodiscard]] inline RateSchedule one_cycle(const OneCycle& cycle) {
  cycle.check();
  return RateSchedule([cycle](std::int64_t s) { return cycle.lr(s); });
}

/// Smith 2017, triangles between `lowest` and `highest`, `rise` steps up and as many down.
[[nodiscard]] inline RateSchedule cyclic(double lowest, double highest, std::int64_t rise) {
  constexpr const char* function = "quern::optim::cyclic";
  detail::rate_ok(function, "lowest", lowest);
  detail::rate_ok(function, "highest", highest);
  detail::steps_ok(function, "rise", rise);
  return RateSchedule([=](std::int64_t s) {
    const std::int64_t within = s % (2 * rise);
    const std::int64_t up = within <= rise ? within : 2 * rise - within;
    return lowest + (highest - lowest) * static_cast<double>(up) / static_cast<double>(rise);
  });
}

/// `first` for its first `steps` steps, then `second` from its own step 0 on.
[[nodiscard]] inline RateSchedule then(RateSchedule first, std::int64_t steps,
                                       RateSchedule second) {
  detail::steps_ok("quern::optim::then", "steps", steps);
  return RateSchedule([a = std::move(first), b = std::move(second), steps](std::int64_t s) {
    return s < steps ? a(s) : b(s - steps);
  });
}

/// From `start` times the schedule's first rate up to it over `steps` steps, then the schedule.
[[nodiscard]] inline RateSchedule warm_up(std::int64_t steps, RateSchedule schedule,
                                          double start = 0) {
  const double lr = schedule(0);
  return then(linear(lr, start, 1, steps), steps, std::move(schedule));
}

/// A schedule times a factor.
[[nodiscard]] inline RateSchedule scaled(double factor, RateSchedule schedule) {
  detail::rate_ok("quern::optim::scaled", "factor", factor);
  return RateSchedule(
      [factor, s = std::move(schedule)](std::int64_t step) { return factor * s(step); });
}

/// Lowers the rate when a metric has stopped improving; PyTorch's ReduceLROnPlateau.
struct PlateauOptions {
  double lr = 1e-2;
  double factor = 0.1;
  int patience = 10;        ///< bad observations that are borne
  double threshold = 1e-4;  ///< improvement that counts
  bool relative = true;     ///< must pass best (1 -+ threshold), as PyTorch; else absolute
  int cooldown = 0;         ///< observations after a reduction that are not judged
  double lowest = 0;        ///< no reduction goes below; a rate that is lower stays
  bool maximise = false;    ///< higher is better
};

class Plateau {
 public:
  explicit Plateau(const PlateauOptions& options = {}) : options_(options), lr_(options.lr) {
    constexpr const char* function = "quern::optim::Plateau";
    detail::rate_ok(function, "lr", options.lr);
    detail::rate_ok(function, "lowest", options.lowest);
    detail::rate_ok(function, "threshold", options.threshold);
    if (!(options.factor > 0 && options.factor < 1)) {
      throw ValueError(error_text(function, "factor", "0 < value < 1", options.factor));
    }
    if (options.patience < 0 || options.cooldown < 0) {
      throw ValueError(error_text(function, "patience, cooldown", "at least 0",
                                  (std::min)(options.patience, options.cooldown)));
    }
  }

  /// Takes the newest value of the metric; the rate from now on. A NaN is no improvement.
  double observe(double value) {
    const bool better = !is_nan_bits(value) && (!seen_ || improves(value));
    if (better) {
      best_ = value;
      seen_ = true;
    }
    bad_ = better ? 0 : bad_ + 1;
    if (cooling_ > 0) {
      --cooling_;
      bad_ = 0;
    }
    if (bad_ > options_.patience) {
      lr_ = (std::min)(lr_, (std::max)(lr_ * options_.factor, options_.lowest));
      cooling_ = options_.cooldown;
      bad_ = 0;
    }
    return lr_;
  }
  [[nodiscard]] double lr() const { return lr_; }
  [[nodiscard]] double best() const { return best_; }

 private:
  [[nodiscard]] bool improves(double value) const {
    const double margin = options_.maximise ? options_.threshold : -options_.threshold;
    const double bar = options_.relative ? best_ * (1 + margin) : best_ + margin;
    return options_.maximise ? value > bar : value < bar;
  }

  PlateauOptions options_;
  double lr_ = 0, best_ = 0;
  bool seen_ = false;
  int bad_ = 0, cooling_ = 0;
};

}  // namespace optim
QUERN_NAMESPACE_END

#endif  // QUERN_OPTIM_SCHEDULE_HPP
