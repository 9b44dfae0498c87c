// SPDX-License-Identifier: Apache-2.0

/// \file
/// Optimizer<Method, T, Moments>: any method of methods.hpp, adam.hpp, layerwise.hpp on any
/// tensors; Adafactor and Muon are used through matrix_optimizer.hpp.
///
///     optim::Optimizer<optim::AdamW, float> adamw;
///     adamw.add_group({{.values = w, .gradient = dw}}, {.lr = 3e-4, .weight_decay = 0.1});
///     adamw.step();
///
/// One step is one pass over memory. Results have the same bits for any number of threads, for one
/// group or many of equal options, and for a tensor whole or cut anywhere,
/// at one SIMD level; layer-wise methods see the tensors, as they are meant to.

#ifndef QUERN_OPTIM_OPTIMIZER_HPP
#define QUERN_OPTIM_OPTIMIZER_HPP

#include "quern/core/bfloat16.hpp"
#include "quern/core/buffer.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/kernels/optim_types.hpp"
#include "quern/optim/adam.hpp"
#include "quern/optim/detail/tensor_list.hpp"
#include "quern/optim/layerwise.hpp"
#include "quern/optim/method.hpp"
#include "quern/optim/methods.hpp"
#include "quern/optim/optimizer_base.hpp"
#include "quern/optim/parameter.hpp"
#include "quern/optim/state.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace optim {

namespace detail {

/// The state arrays of a group: padded, each tensor at its start.
template <class M>
class StateArrays {
 public:
  StateArrays() = default;
  template <class Method>
  StateArrays(const Method& method, std::size_t elements) {
    for (int k = 0; k < method.state_count(); ++k) {
      const double initial = method.initial(k);
      // Arrays of one size start at one place of a page: a shift keeps their lines apart.
      const std::size_t shift = static_cast<std::size_t>(k + 1) * 8 * kernels::optim_state_padding;
      arrays_.emplace_back(elements + shift, core::Fill::zero);
      shifts_.push_back(shift);
      if (initial != 0) {
        std::fill(arrays_.back().begin(), arrays_.back().end(),
                  static_cast<M>(static_cast<Wide>(initial)));
      }
    }
  }
  [[nodiscard]] int count() const { return static_cast<int>(arrays_.size()); }
  [[nodiscard]] M* data(int k) {
    return arrays_[static_cast<std::size_t>(k)].data() + shifts_[static_cast<std::size_t>(k)];
  }
  [[nodiscard]] const M* data(int k) const {
    return arrays_[static_cast<std::size_t>(k)].data() + shifts_[static_cast<std::size_t>(k)];
  }

 private:
  using Wide = std::conditional_t<std::is_same_v<M, double>, double, float>;
  std::vector<core::Buffer<M>> arrays_;
  std::vector<std::size_t> shifts_;
};

template <class Method>
[[nodiscard]] constexpr bool decays_inside() {
  return requires { Method::decays_inside; };
}

}  // namespace detail

/// A method on tensors of float or double. `Moments` is what states are stored as: T, or BFloat16
/// beside float, which moves 20 bytes an element of AdamW instead of 28.
template <class Method, class T, class Moments = T>
class Optimizer final : public OptimizerBase<T> {
  static_assert(std::is_same_v<T, float> || std::is_same_v<T, double>, "float or double");
  static_assert(std::is_same_v<Moments, T> ||
                    (std::is_same_v<T, float> && std::is_same_v<Moments, BFloat16>),
                "states are stored as T, or as BFloat16 beside float");
  static_assert(Method::pass == Pass::fused || Method::pass == Pass::layerwise,
                "Adafactor and Muon: quern/optim/matrix_optimizer.hpp");
  using Base = OptimizerBase<T>;
  using Work = kernels::OptimWork<T, Moments>;

 public:
  explicit Optimizer(const OptimizerOptions& options = {}) : Base(options) {}
  /// With one group.
  Optimizer(std::vector<Parameter<T>> parameters, const Method& method,
            const OptimizerOptions& options = {})
      : Base(options) {
    add_group(std::move(parameters), method);
  }

  /// Tensors with options of their own; returns the group's number. ValueError for bad options and
  /// for tensors that share memory or a name with others, ShapeError where a gradient does not fit.
  std::size_t add_group(std::vector<Parameter<T>> parameters, const Method& method) {
    method.check();
    methods_.reserve(methods_.size() + 1);
    states_.reserve(states_.size() + 1);
    std::size_t elements = 0;
    for (const auto& p : parameters) elements += detail::padded(p.values.size());
    detail::StateArrays<Moments> states(method, elements);
    this->append_group(std::move(parameters), method.lr);
    methods_.push_back(method);
    states_.push_back(std::move(states));
    return methods_.size() - 1;
  }

  /// A group's options, which may change between steps (momentum, say; the rate by set_lr). What
  /// adds a state (amsgrad) cannot be switched on later.
  [[nodiscard]] const Method& method(std::size_t group = 0) const {
    return methods_[this->checked(group)];
  }
  void set_method(std::size_t group, const Method& method) {
    method.check();
    if (method.state_count() != methods_[this->checked(group)].state_count()) {
      throw ValueError(error_text(
          "quern::optim::Optimizer::set_method", "method",
          "options that keep " + std::to_string(methods_[group].state_count()) + " states",
          method.state_count()));
    }
    methods_[group] = method;
  }
  /// A state of a tensor, such as {0, 1, 0}: the first group's second tensor's first. ShapeError
  /// for what is not there.
  [[nodiscard]] std::span<const Moments> moment(std::size_t group, std::size_t tensor,
                                                int state) const {
    constexpr const char* function = "quern::optim::Optimizer::moment";
    const auto& list = this->lists_[this->checked(group)];
    detail::checked_place(function, "tensor", tensor, list.size());
    detail::checked_place(function, "state", static_cast<std::size_t>(state),
                          static_cast<std::size_t>(states_[group].count()));
    return {states_[group].data(state) + list.start(tensor),
            list.parameters()[tensor].values.size()};
  }

  [[nodiscard]] OptimizerState state() const override {
    OptimizerState out;
    this->save_words(Method::name, out);
    for_states([&](const std::string& name, std::size_t g, std::size_t k, int s) {
      const auto& p = this->lists_[g].parameters()[k];
      StateTensor t{name, state_type_of<Moments>(), shape_of(p), {}};
      const Moments* from = states_[g].data(s) + this->lists_[g].start(k);
      t.bytes.resize(p.values.size() * sizeof(Moments));
      if (!t.bytes.empty()) std::memcpy(t.bytes.data(), from, t.bytes.size());
      out.tensors.push_back(std::move(t));
    });
    return out;
  }

  void load_state(const OptimizerState& state) override {
    std::vector<const StateTensor*> found;
    for_states([&](const std::string& name, std::size_t g, std::size_t k, int) {
      found.push_back(&detail::find_tensor(state, name, state_type_of<Moments>(),
                                           shape_of(this->lists_[g].parameters()[k]),
                                           sizeof(Moments)));
    });
    detail::expect_count(state, found.size());
    this->load_words(Method::name, state);
    std::size_t at = 0;
    for_states([&](const std::string&, std::size_t g, std::size_t k, int s) {
      const StateTensor& t = *found[at++];
      Moments* to = states_[g].data(s) + this->lists_[g].start(k);
      if (!t.bytes.empty()) std::memcpy(to, t.bytes.data(), t.bytes.size());
    });
  }

 protected:
  void step_group(std::size_t group, double scale) override {
    auto& clock = this->clocks_[group];
    const Method& method = methods_[group];
    ++clock.step;
    const StepPoint at{clock.step, clock.lr, clock.memory};
    Work work;
    work.prologue = prologue(method, clock, at, scale);
    for (int s = 0; s < states_[group].count(); ++s) work.states[s] = states_[group].data(s);
    method.template rule<T>(at, [&](const auto& rule) {
      if constexpr (Method::pass == Pass::layerwise) measure(group, method, rule, work);
      detail::run_rule(this->lists_[group], rule, work, this->options_.threads);
    });
  }

 private:
  kernels::OptimPrologue<T> prologue(const Method& method, const typename Base::Clock& clock,
                                     const StepPoint& at, double scale) const {
    kernels::OptimPrologue<T> out = this->common_prologue(method, clock, scale);
    if constexpr (detail::decays_inside<Method>()) out.keep = T{1};
    if constexpr (std::is_same_v<Method, Lars>) {
      out.l2 = static_cast<T>(method.l2 + method.weight_decay);
    }
    if constexpr (requires { method.keep(at); }) {
      out.keep = static_cast<T>(static_cast<double>(out.keep) * method.keep(at));
    }
    return out;
  }

  /// Norms of each tensor, hence its factor.
  template <class Rule>
  void measure(std::size_t group, const Method& method, const Rule& rule, const Work& work) {
    auto& list = this->lists_[group];
    auto& chunks = list.chunks();
    std::vector<kernels::OptimSums> sums(chunks.size());
    list.for_blocks(this->options_.threads, [&](std::size_t, std::size_t first, std::size_t count) {
      Work part = work;
      part.chunks = chunks.data() + first;
      part.count = count;
      QUERN_DISPATCH(optim_measure(rule, part, sums.data() + first));
    });
    for (std::size_t k = 0; k < chunks.size();) {
      kernels::OptimSums total;
      std::size_t end = k;
      for (; end < chunks.size() && chunks[end].owner == chunks[k].owner; ++end) {
        total.gradient += sums[end].gradient;
        total.values += sums[end].values;
      }
      const double factor = method.trust(std::sqrt(total.values), std::sqrt(total.gradient));
      for (; k < end; ++k) chunks[k].factor = static_cast<T>(factor);
    }
  }

  static std::vector<Index> shape_of(const Parameter<T>& p) {
    if (!p.shape.empty()) return p.shape;
    return {static_cast<Index>(p.values.size())};
  }
  /// visit(name, group, tensor, state) for every state of every tensor.
  template <class Visit>
  void for_states(Visit&& visit) const {
    for (std::size_t g = 0; g < methods_.size(); ++g) {
      const auto& parameters = this->lists_[g].parameters();
      for (std::size_t k = 0; k < parameters.size(); ++k) {
        const std::string name = detail::parameter_name(parameters[k], g, k);
        for (int s = 0; s < states_[g].count(); ++s) {
          visit(name + "." + std::string(Method::states[static_cast<std::size_t>(s)]), g, k, s);
        }
      }
    }
  }

  std::vector<Method> methods_;
  std::vector<detail::StateArrays<Moments>> states_;
};

}  // namespace optim
QUERN_NAMESPACE_END

#endif  // QUERN_OPTIM_OPTIMIZER_HPP
