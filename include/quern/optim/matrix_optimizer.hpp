// SPDX-License-Identifier: Apache-2.0

/// \file
/// MatrixOptimizer<Method, T>: Adafactor and Muon, whose steps see a matrix as one.

#ifndef QUERN_OPTIM_MATRIX_OPTIMIZER_HPP
#define QUERN_OPTIM_MATRIX_OPTIMIZER_HPP

#include "quern/core/buffer.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/optim/detail/matrix_steps.hpp"
#include "quern/optim/detail/tensor_list.hpp"
#include "quern/optim/matrix_methods.hpp"
#include "quern/optim/optimizer_base.hpp"
#include "quern/optim/parameter.hpp"
#include "quern/optim/state.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace optim {

/// Adafactor (one or two dimensions) or Muon (two) on tensors of float or double. Results have the
/// same bits for any number of threads.
template <class Method, class T>
class MatrixOptimizer final : public OptimizerBase<T> {
  static_assert(std::is_same_v<T, float> || std::is_same_v<T, double>, "float or double");
  static_assert(Method::pass == Pass::factored || Method::pass == Pass::orthogonal,
                "other methods: quern/optim/optimizer.hpp");
  using Base = OptimizerBase<T>;
  static constexpr bool factored = Method::pass == Pass::factored;

 public:
  explicit MatrixOptimizer(const OptimizerOptions& options = {}) : Base(options) {}
  MatrixOptimizer(std::vector<Parameter<T>> parameters, const Method& method,
                  const OptimizerOptions& options = {})
      : Base(options) {
    add_group(std::move(parameters), method);
  }

  /// As Optimizer::add_group; ShapeError for ranks that the method does not take.
  std::size_t add_group(std::vector<Parameter<T>> parameters, const Method& method) {
    method.check();
    methods_.reserve(methods_.size() + 1);
    states_.reserve(states_.size() + 1);
    std::vector<TensorState> states;
    for (std::size_t k = 0; k < parameters.size(); ++k) {
      states.push_back(
          make_state(parameters[k], detail::parameter_name(parameters[k], methods_.size(), k)));
    }
    this->append_group(std::move(parameters), method.lr);
    methods_.push_back(method);
    states_.push_back(std::move(states));
    return methods_.size() - 1;
  }

  [[nodiscard]] const Method& method(std::size_t group = 0) const {
    return methods_[this->checked(group)];
  }
  void set_method(std::size_t group, const Method& method) {
    method.check();
    methods_[this->checked(group)] = method;
  }

  [[nodiscard]] OptimizerState state() const override {
    OptimizerState out;
    this->save_words(Method::name, out);
    for_states(
        [&](const std::string& name, const core::Buffer<T>& from, const std::vector<Index>& shape) {
          StateTensor t{name, state_type_of<T>(), shape, {}};
          std::size_t count = 1;
          for (const Index extent : shape) count *= static_cast<std::size_t>(extent);
          t.bytes.resize(count * sizeof(T));
          if (!t.bytes.empty()) std::memcpy(t.bytes.data(), from.data(), t.bytes.size());
          out.tensors.push_back(std::move(t));
        });
    return out;
  }
  void load_state(const OptimizerState& state) override {
    std::vector<std::pair<const StateTensor*, core::Buffer<T>*>> found;
    for_states([&](const std::string& name, const core::Buffer<T>& to,
                   const std::vector<Index>& shape) {
      found.emplace_back(&detail::find_tensor(state, name, state_type_of<T>(), shape, sizeof(T)),
                         const_cast<core::Buffer<T>*>(&to));
    });
    detail::expect_count(state, found.size());
    this->load_words(Method::name, state);
    for (const auto& [from, to] : found) {
      if (!from->bytes.empty()) std::memcpy(to->data(), from->bytes.data(), from->bytes.size());
    }
  }

 protected:
  void step_group(std::size_t group, double scale) override {
    auto& clock = this->clocks_[group];
    const Method& method = methods_[group];
    ++clock.step;
    auto& list = this->lists_[group];
    std::vector<const T*> gradients(list.size());
    std::vector<bool> seen(list.size(), false);
    for (const auto& chunk : list.chunks()) {
      const auto owner = static_cast<std::size_t>(chunk.owner);
      if (!seen[owner]) gradients[owner] = chunk.gradient;
      seen[owner] = true;
    }
    for (std::size_t k = 0; k < list.size(); ++k) {
      const Parameter<T>& p = list.parameters()[k];
      detail::MatrixStep<T> m;
      m.values = p.values.data();
      m.gradient = gradients[k];
      if (p.shape.size() == 2) m.rows = static_cast<std::size_t>(p.shape[0]);
      m.cols = p.shape.size() == 2 ? static_cast<std::size_t>(p.shape[1]) : p.values.size();
      m.prologue = this->common_prologue(method, clock, scale);
      m.step = clock.step;
      m.lr = clock.lr;
      m.threads = this->options_.threads;
      if (!p.values.empty()) step_tensor(method, m, states_[group][k]);
    }
  }

 private:
  /// Row and column of Adafactor (a vector has only the latter); Muon's momentum.
  struct TensorState {
    core::Buffer<T> first, second;
    std::vector<Index> first_shape, second_shape;
  };

  static TensorState make_state(const Parameter<T>& p, const std::string& name) {
    const std::size_t rank = (std::max)(p.shape.size(), std::size_t{1});
    if (rank > 2 || (!factored && rank != 2)) {
      throw ShapeError(
          error_text("quern::optim::MatrixOptimizer::add_group", "shape of '" + name + "'",
                     factored ? "one or two dimensions" : "two dimensions", std::to_string(rank)));
    }
    TensorState out;
    const auto size = static_cast<Index>(p.values.size());
    if constexpr (factored) {
      if (rank == 2) out.first_shape = {p.shape[0]};
      out.second_shape = {rank == 2 ? p.shape[1] : size};
      out.second.reset(static_cast<std::size_t>(out.second_shape[0]), core::Fill::zero);
      if (rank == 2) out.first.reset(static_cast<std::size_t>(p.shape[0]), core::Fill::zero);
    } else {
      out.first_shape = p.shape;
      // The kernel writes whole vectors behind the end.
      out.first.reset(detail::padded(static_cast<std::size_t>(size)), core::Fill::zero);
    }
    return out;
  }

  template <class Visit>
  void for_states(Visit&& visit) const {
    for (std::size_t g = 0; g < methods_.size(); ++g) {
      const auto& parameters = this->lists_[g].parameters();
      for (std::size_t k = 0; k < parameters.size(); ++k) {
        const std::string name = detail::parameter_name(parameters[k], g, k) + ".";
        const TensorState& s = states_[g][k];
        if (!s.first_shape.empty()) {
          visit(name + std::string(Method::states[0]), s.first, s.first_shape);
        }
        if (!s.second_shape.empty()) {
          visit(name + (s.first_shape.empty() ? "variance" : "col_var"), s.second, s.second_shape);
        }
      }
    }
  }

  static void step_tensor(const Adafactor& method, const detail::MatrixStep<T>& m,
                          TensorState& state) {
    T* row = state.first_shape.empty() ? nullptr : state.first.data();
    detail::FactoredStep<T>(method, m, row, state.second.data()).run();
  }

  static void step_tensor(const Muon& method, const detail::MatrixStep<T>& m, TensorState& state) {
    const std::size_t n = m.rows * m.cols;
    core::Buffer<T> direction(n);
    std::vector<Parameter<T>> one(1);
    one[0].values = direction.span();
    one[0].gradient = {m.gradient, n};
    const detail::TensorList<T> list(std::move(one));
    std::fill(direction.begin(), direction.end(), T{0});
    kernels::OptimWork<T, T> work;
    work.prologue = m.prologue;
    work.prologue.keep = T{1};
    work.states[0] = state.first.data();
    const double b = method.momentum;
    detail::run_rule(list,
                     kernels::DirectionRule<T>{static_cast<T>(b), static_cast<T>(1 - b),
                                               static_cast<T>(method.nesterov ? 1 - b : 0),
                                               static_cast<T>(method.nesterov ? b : 1)},
                     work, m.threads);
    apply(method, m, direction);
  }

  /// p = keep p - rate X, X the direction made orthogonal.
  static void apply(const Muon& method, const detail::MatrixStep<T>& m,
                    core::Buffer<T>& direction) {
    const auto rows = static_cast<Index>(m.rows), cols = static_cast<Index>(m.cols);
    double sum = 0;
    for (std::size_t at = 0; at < direction.size(); at += detail::chunk_elements) {
      const std::size_t some = (std::min)(detail::chunk_elements, direction.size() - at);
      sum += QUERN_DISPATCH(squared_norm(static_cast<const T*>(direction.data()) + at, some));
    }
    const T scale = static_cast<T>(1 / (std::max)(std::sqrt(sum), 1e-7));
    core::Buffer<T> x(direction.size());
    const bool tall = rows > cols;
    const MatrixView<const T> given(direction.data(), {rows, cols});
    const MatrixView<const T> wide = tall ? given.transposed() : given;
    const MatrixView<T> flat(x.data(), {wide.rows(), wide.cols()});
    for (Index i = 0; i < wide.rows(); ++i) {
      for (Index j = 0; j < wide.cols(); ++j) flat(i, j) = scale * wide(i, j);
    }
    detail::orthogonalise<T>(flat, method.steps, m.threads);
    const T rate =
        static_cast<T>(method.adjusted(m.lr, static_cast<double>(rows), static_cast<double>(cols)));
    const MatrixView<T> p(m.values, {rows, cols});
    const MatrixView<const T> result = tall ? flat.transposed() : flat;
    for (Index i = 0; i < rows; ++i) {
      for (Index j = 0; j < cols; ++j) p(i, j) = m.prologue.keep * p(i, j) - rate * result(i, j);
    }
  }

  std::vector<Method> methods_;
  std::vector<std::vector<TensorState>> states_;
};

}  // namespace optim
QUERN_NAMESPACE_END

#endif  // QUERN_OPTIM_MATRIX_OPTIMIZER_HPP
