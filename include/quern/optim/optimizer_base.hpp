// SPDX-License-Identifier: Apache-2.0

/// \file
/// What all optimisers share: groups of tensors, rates, clipping, accumulation, the guard against
/// gradients that are not finite, and the interface through which code that does not know the
/// method trains with it.

#ifndef QUERN_OPTIM_OPTIMIZER_BASE_HPP
#define QUERN_OPTIM_OPTIMIZER_BASE_HPP

#include "quern/core/buffer.hpp"
#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/optim/detail/tensor_list.hpp"
#include "quern/optim/gradient.hpp"
#include "quern/optim/method.hpp"
#include "quern/optim/parameter.hpp"
#include "quern/optim/state.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace optim {

/// What happens to a step whose gradients hold NaN or infinity.
enum class NonFinite {
  ignore,  ///< nothing is looked at: the gradients are read once, and a NaN ends in the parameters
  skip,    ///< nothing changes, the step is counted in skipped()
  error    ///< nothing changes, ValueError
};

/// Options of every optimiser.
struct OptimizerOptions {
  double clip_norm = 0;       ///< of all groups' gradients together; 0: none
  double clip_value = 0;      ///< each element to [-this, this], after the norm; 0: none
  double gradient_scale = 1;  ///< what gradients are multiplied by first (1 / loss scale)
  int accumulate = 1;         ///< calls of step() whose gradients are averaged for one step
  NonFinite nonfinite = NonFinite::ignore;
  int threads = 0;  ///< 0: the default, see parallel_for
};

/// What a call of step() did.
struct StepReport {
  bool stepped = false;  ///< false: accumulated only, or skipped
  bool finite = true;    ///< known where the options made it look
  double norm = 0;       ///< of the gradients before clipping; 0 where it was not asked for
};

/// An optimiser of whatever method.
template <class T>
class OptimizerBase {
 public:
  virtual ~OptimizerBase() = default;
  OptimizerBase(const OptimizerBase&) = delete;
  OptimizerBase& operator=(const OptimizerBase&) = delete;

  /// One step with the gradients as they are now. ValueError for gradients that are not finite
  /// where the options say so.
  StepReport step() {
    if (options_.accumulate > 1 && !gather()) return {};
    StepReport report;
    double scale = options_.gradient_scale;
    if (options_.clip_norm > 0 || options_.nonfinite != NonFinite::ignore) {
      const GradientSurvey seen = detail::survey(lists_, options_.threads);
      report.finite = seen.finite;
      report.norm = seen.norm * std::fabs(scale);  // a scale below 0 turns, no norm does
      if (!seen.finite && !tolerate()) return report;
      if (options_.clip_norm > 0) scale *= clip_factor(report.norm);
    }
    for (std::size_t g = 0; g < lists_.size(); ++g) step_group(g, scale);
    if (options_.accumulate > 1) clear_sums();
    report.stepped = true;
    return report;
  }

  /// Other gradients from now on, one span a tensor in the order of all groups. ShapeError when
  /// their number or a size has changed; nothing changes then.
  void set_gradients(const std::vector<std::span<const T>>& gradients) {
    constexpr const char* function = "quern::optim::Optimizer::set_gradients";
    std::size_t count = 0;
    for (const auto& list : lists_) count += list.size();
    if (gradients.size() != count) {
      throw ShapeError(
          error_text(function, "gradients", std::to_string(count) + " tensors", gradients.size()));
    }
    std::size_t at = 0;
    for (std::size_t g = 0; g < lists_.size(); ++g) {
      for (std::size_t k = 0; k < lists_[g].size(); ++k, ++at) {
        check_gradient(function, g, k, gradients[at]);
      }
    }
    at = 0;
    for (auto& list : lists_) {
      for (std::size_t k = 0; k < list.size(); ++k) list.set_gradient(k, gradients[at++]);
      if (options_.accumulate <= 1) list.bind(nullptr);
    }
    for (std::size_t g = 0; g < adders_.size(); ++g) {
      for (std::size_t k = 0; k < adders_[g].size(); ++k) {
        adders_[g].set_gradient(k, lists_[g].parameters()[k].gradient);
      }
      adders_[g].bind(nullptr);
    }
  }

  [[nodiscard]] std::size_t groups() const { return lists_.size(); }
  /// What asks of a group throws a ShapeError for one that is not there.
  [[nodiscard]] const std::vector<Parameter<T>>& parameters(std::size_t group = 0) const {
    return lists_[checked(group)].parameters();
  }
  /// The rate of the next step. Schedules set it; 0 is allowed here.
  [[nodiscard]] double lr(std::size_t group = 0) const { return clocks_[checked(group)].lr; }
  void set_lr(std::size_t group, double lr) {
    check_rate(lr);
    clocks_[checked(group)].lr = lr;
  }
  /// Of all groups.
  void set_lr(double lr) {
    check_rate(lr);
    for (Clock& clock : clocks_) clock.lr = lr;
  }
  /// Every group's own rate times this: a schedule that starts at 1.
  void set_lr_multiplier(double eta) {
    check_rate(eta);
    for (Clock& clock : clocks_) clock.lr = clock.base_lr * eta;
  }
  [[nodiscard]] double base_lr(std::size_t group = 0) const {
    return clocks_[checked(group)].base_lr;
  }
  /// Steps that a group has taken, and steps that were skipped for gradients that are not finite.
  [[nodiscard]] std::int64_t steps(std::size_t group = 0) const {
    return clocks_[checked(group)].step;
  }
  [[nodiscard]] std::int64_t skipped() const { return skipped_; }
  /// Options may change between steps, `accumulate` only to what it was.
  [[nodiscard]] const OptimizerOptions& options() const { return options_; }
  void set_options(const OptimizerOptions& options) {
    check_options(options);
    if (options.accumulate != options_.accumulate) {
      throw ValueError(error_text("quern::optim::Optimizer::set_options", "accumulate",
                                  std::to_string(options_.accumulate), options.accumulate));
    }
    options_ = options;
  }

  /// Everything but the parameters themselves and the options.
  [[nodiscard]] virtual OptimizerState state() const = 0;
  /// Continues where state() was taken: the same method, tensors, names and element types.
  /// Gradients that were being accumulated are dropped. ParseError otherwise, and for numbers that
  /// are not finite or no step's; nothing changes then.
  virtual void load_state(const OptimizerState& state) = 0;

 protected:
  /// Time of a group.
  struct Clock {
    double base_lr = 0;
    double lr = 0;
    std::int64_t step = 0;
    double memory[2] = {0, 0};
  };

  explicit OptimizerBase(const OptimizerOptions& options) : options_(options) {
    check_options(options);
  }

  virtual void step_group(std::size_t group, double scale) = 0;

  [[nodiscard]] std::size_t checked(std::size_t group) const {
    return detail::checked_place("quern::optim::Optimizer", "group", group, lists_.size());
  }

  /// Takes the tensors of one more group, all checked.
  void append_group(std::vector<Parameter<T>> parameters, double lr) {
    constexpr const char* function = "quern::optim::Optimizer::add_group";
    std::vector<detail::NamedMemory> memory;
    std::vector<std::string> names;
    const auto note = [&](const std::vector<Parameter<T>>& list, std::size_t group) {
      for (std::size_t k = 0; k < list.size(); ++k) {
        const std::string name = detail::parameter_name(list[k], group, k);
        detail::check_parameter(function, list[k], name);
        names.push_back(name);
        const auto bytes = std::as_bytes(list[k].values);
        if (!bytes.empty()) memory.push_back({bytes.data(), bytes.data() + bytes.size(), name});
      }
    };
    for (std::size_t g = 0; g < lists_.size(); ++g) note(lists_[g].parameters(), g);
    note(parameters, lists_.size());
    detail::check_apart(function, std::move(memory));
    detail::check_names(function, std::move(names));
    lists_.emplace_back(std::move(parameters));
    clocks_.push_back({lr, lr, 0, {0, 0}});
    if (options_.accumulate > 1) {
      sums_.emplace_back(lists_.back().state_elements(), core::Fill::zero);
      lists_.back().bind(sums_.back().data());
      adders_.push_back(adder(lists_.back(), sums_.back()));
    }
  }

  /// Scaling, clipping and decay of a group's step.
  template <class Method>
  kernels::OptimPrologue<T> common_prologue(const Method& method, const Clock& clock,
                                            double scale) const {
    kernels::OptimPrologue<T> out;
    const double shrink = method.decay == Decay::schedule ? clock.lr / clock.base_lr : clock.lr;
    out.scale = static_cast<T>(method.maximize ? -scale : scale);
    out.clip = options_.clip_value > 0 ? static_cast<T>(options_.clip_value)
                                       : (std::numeric_limits<T>::infinity)();
    out.l2 = static_cast<T>(method.l2);
    out.keep = static_cast<T>(1 - shrink * method.weight_decay);
    out.seed = detail::step_seed(clock.step);
    return out;
  }

  void save_words(const char* method, OptimizerState& out) const {
    if (gathered_ != 0) {
      throw ValueError(error_text("quern::optim::Optimizer::state", "accumulated gradients",
                                  "none: a state is taken between steps", gathered_));
    }
    out.words["quern.method"] = method;
    out.words["quern.groups"] = detail::number_word(clocks_.size());
    out.words["quern.skipped"] = detail::number_word(skipped_);
    for (std::size_t g = 0; g < clocks_.size(); ++g) {
      const std::string key = "quern.group." + std::to_string(g) + ".";
      out.words[key + "base_lr"] = detail::number_word(clocks_[g].base_lr);
      out.words[key + "lr"] = detail::number_word(clocks_[g].lr);
      out.words[key + "step"] = detail::number_word(clocks_[g].step);
      out.words[key + "memory.0"] = detail::number_word(clocks_[g].memory[0]);
      out.words[key + "memory.1"] = detail::number_word(clocks_[g].memory[1]);
    }
  }
  void load_words(const char* method, const OptimizerState& state) {
    constexpr const char* function = "quern::optim::load_state";
    const auto found = state.words.find("quern.method");
    if (found == state.words.end() || found->second != method) {
      throw ParseError(error_text(function, "word 'quern.method'", method,
                                  found == state.words.end() ? "nothing" : found->second));
    }
    const auto groups = detail::word_number<std::size_t>(state, "quern.groups");
    if (groups != clocks_.size()) {
      throw ParseError(
          error_text(function, "word 'quern.groups'", std::to_string(clocks_.size()), groups));
    }
    const auto skipped = detail::word_number<std::int64_t>(state, "quern.skipped");
    const auto counted = [](std::int64_t n) { return n >= 0 && n <= (std::int64_t{1} << 53); };
    if (!counted(skipped)) {
      throw ParseError(error_text(function, "word 'quern.skipped'", "0..2^53", skipped));
    }
    std::vector<Clock> clocks(groups);
    for (std::size_t g = 0; g < groups; ++g) {
      const std::string key = "quern.group." + std::to_string(g) + ".";
      Clock& clock = clocks[g];
      clock.base_lr = detail::word_number<double>(state, key + "base_lr");
      clock.lr = detail::word_number<double>(state, key + "lr");
      clock.step = detail::word_number<std::int64_t>(state, key + "step");
      clock.memory[0] = detail::word_number<double>(state, key + "memory.0");
      clock.memory[1] = detail::word_number<double>(state, key + "memory.1");
      const auto expect = [&](const char* word, bool good, const char* what) {
        if (good) return;
        const std::string name = key + word;
        throw ParseError(
            error_text(function, "word '" + name + "'", what, state.words.at(name).c_str()));
      };
      expect("base_lr", is_finite_bits(clock.base_lr) && clock.base_lr > 0, "a rate above 0");
      expect("lr", is_finite_bits(clock.lr) && clock.lr >= 0, "a rate of at least 0");
      expect("step", counted(clock.step), "0..2^53");
      expect("memory.0", is_finite_bits(clock.memory[0]), "a finite number");
      expect("memory.1", is_finite_bits(clock.memory[1]), "a finite number");
    }
    clocks_ = std::move(clocks);
    skipped_ = skipped;
    gathered_ = 0;
    clear_sums();
  }

  OptimizerOptions options_;
  std::vector<detail::TensorList<T>> lists_;
  std::vector<Clock> clocks_;
  std::int64_t skipped_ = 0;

 private:
  static void check_options(const OptimizerOptions& options) {
    constexpr const char* function = "quern::optim::Optimizer";
    const auto at_least_zero = [&](const char* what, double value) {
      if (is_finite_bits(value) && value >= 0) return;
      throw ValueError(error_text(function, what, "a finite number of at least 0", value));
    };
    at_least_zero("clip_norm", options.clip_norm);
    at_least_zero("clip_value", options.clip_value);
    expect_finite(function, "gradient_scale", options.gradient_scale);
    expect_in_range(function, "accumulate", options.accumulate, 1, 1 << 20);
    if (options.threads < 0) {
      throw ValueError(error_text(function, "threads", "at least 0", options.threads));
    }
  }
  static void check_rate(double lr) {
    if (is_finite_bits(lr) && lr >= 0) return;
    throw ValueError(
        error_text("quern::optim::Optimizer::set_lr", "lr", "a finite number of at least 0", lr));
  }
  void check_gradient(const char* function, std::size_t group, std::size_t k,
                      std::span<const T> gradient) const {
    const Parameter<T>& p = lists_[group].parameters()[k];
    if (gradient.size() == p.values.size()) return;
    throw ShapeError(error_text(
        function, "gradient of '" + detail::parameter_name(p, group, k) + "'",
        std::to_string(p.values.size()) + " values, as at the step before", gradient.size()));
  }

  /// Rounded to a float for floats, so that no cut of the tensors shows.
  [[nodiscard]] double clip_factor(double norm) const {
    return static_cast<double>(static_cast<T>((std::min)(1.0, options_.clip_norm / (norm + 1e-6))));
  }

  /// Gradients are not finite: whether to go on.
  bool tolerate() {
    if (options_.nonfinite == NonFinite::ignore) return true;
    if (options_.accumulate > 1) clear_sums();
    ++skipped_;
    if (options_.nonfinite == NonFinite::skip) return false;
    for (std::size_t g = 0; g < lists_.size(); ++g) {
      const auto& parameters = lists_[g].parameters();
      for (std::size_t k = 0; k < parameters.size(); ++k) {
        for (std::size_t i = 0; i < parameters[k].gradient.size(); ++i) {
          if (is_finite_bits(parameters[k].gradient[i])) continue;
          throw ValueError(error_text(
              "quern::optim::Optimizer::step",
              "gradient of '" + detail::parameter_name(parameters[k], g, k) + "'", "finite numbers",
              (is_nan_bits(parameters[k].gradient[i]) ? "NaN at " : "infinity at ") +
                  std::to_string(i)));
        }
      }
    }
    throw ValueError(error_text("quern::optim::Optimizer::step", "accumulated gradients",
                                "finite numbers", "one that is not"));
  }

  /// The sums as parameters whose gradients are the group's.
  static detail::TensorList<T> adder(const detail::TensorList<T>& list, core::Buffer<T>& sums) {
    std::vector<Parameter<T>> parts;
    for (std::size_t k = 0; k < list.size(); ++k) {
      const std::span<const T> gradient = list.parameters()[k].gradient;
      parts.push_back({{}, {sums.data() + list.start(k), gradient.size()}, gradient, {}});
    }
    return detail::TensorList<T>(std::move(parts));
  }

  /// Adds the gradients to the sums; true when a step is due.
  bool gather() {
    const T share = static_cast<T>(-1.0 / options_.accumulate);
    kernels::OptimWork<T, T> work;
    work.prologue.clip = (std::numeric_limits<T>::infinity)();
    for (const detail::TensorList<T>& list : adders_) {
      detail::run_rule(list, kernels::SgdRule<T>{share}, work, options_.threads);
    }
    if (++gathered_ < options_.accumulate) return false;
    gathered_ = 0;
    return true;
  }
  void clear_sums() {
    for (core::Buffer<T>& sum : sums_) std::fill(sum.begin(), sum.end(), T{0});
  }

  std::vector<core::Buffer<T>> sums_;
  std::vector<detail::TensorList<T>> adders_;  ///< one a group where gradients are accumulated
  int gathered_ = 0;
};

}  // namespace optim
QUERN_NAMESPACE_END

#endif  // QUERN_OPTIM_OPTIMIZER_BASE_HPP
