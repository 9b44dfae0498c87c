// SPDX-License-Identifier: Apache-2.0

/// \file
/// nn::Sequential: layers one after the other, composed at run time.

#ifndef QUERN_NN_SEQUENTIAL_HPP
#define QUERN_NN_SEQUENTIAL_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/nn/layer.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace nn {
namespace detail {

/// A child layer: owned, named, with the place of its parameters' gradients.
template <class T>
struct Child {
  std::string name;
  std::unique_ptr<Layer<T>> layer;
  std::size_t first = 0;  ///< its first parameter's number within the parent
  std::size_t count = 0;
};

/// The children of a container.
template <class T>
class Children {
 public:
  Children() = default;
  Children(const Children& other) {
    for (const Child<T>& c : other.list_)
      list_.push_back({c.name, c.layer->clone(), c.first, c.count});
  }
  Children(Children&&) noexcept = default;
  Children& operator=(Children other) noexcept {
    list_.swap(other.list_);
    return *this;
  }
  ~Children() = default;

  void add(std::string_view owner, std::string name, std::unique_ptr<Layer<T>> layer) {
    if (layer == nullptr) throw ValueError(error_text(owner, "layer", "a layer", "null"));
    const bool taken =
        std::any_of(list_.begin(), list_.end(), [&](const Child<T>& c) { return c.name == name; });
    if (taken) throw ValueError(error_text(owner, "name", "a name of its own", name));
    const std::size_t first = list_.empty() ? 0 : list_.back().first + list_.back().count;
    const std::size_t count = parameter_count(*layer);
    list_.push_back({std::move(name), std::move(layer), first, count});
  }

  [[nodiscard]] std::size_t size() const noexcept { return list_.size(); }
  [[nodiscard]] Layer<T>& operator[](std::size_t k) const { return *list_.at(k).layer; }
  [[nodiscard]] GradientsView<T> part(const GradientsView<T>& all, std::size_t k) const {
    return all.part(list_[k].first, list_[k].count);
  }
  void parameters(ParameterList<T>& out, const std::string& prefix) {
    for (const Child<T>& c : list_) c.layer->parameters(out, prefix + c.name + ".");
  }
  void buffers(ParameterList<T>& out, const std::string& prefix) {
    for (const Child<T>& c : list_) c.layer->buffers(out, prefix + c.name + ".");
  }
  void initialize(std::uint64_t seed, const std::string& prefix) {
    for (const Child<T>& c : list_) c.layer->initialize(seed, prefix + c.name + ".");
  }
  void update(std::span<Cache<T>* const> shards) {
    std::vector<Cache<T>*> caches(shards.size());
    for (std::size_t k = 0; k < list_.size(); ++k) {
      for (std::size_t s = 0; s < shards.size(); ++s) caches[s] = &shards[s]->child_as_is(k);
      list_[k].layer->update(caches);
    }
  }

 private:
  std::vector<Child<T>> list_;
};

}  // namespace detail

/// The output of each layer is the input of the next; without layers it is the identity. Between
/// them it keeps each output (training) or two in turn (inference) in its cache. Names are "0",
/// "1", … as PyTorch's, unless given.
template <class T>
class Sequential final : public Layer<T> {
 public:
  Sequential() = default;

  /// Appends a layer. ValueError for null, or a name that is taken.
  Sequential& add(std::unique_ptr<Layer<T>> layer) {
    return add(std::to_string(children_.size()), std::move(layer));
  }
  Sequential& add(std::string name, std::unique_ptr<Layer<T>> layer) {
    children_.add(type(), std::move(name), std::move(layer));
    return *this;
  }
  /// Makes a layer of type L at the end: net.emplace<nn::Linear<float>>(784, 10). Returns it.
  template <class L, class... Arguments>
  L& emplace(Arguments&&... arguments) {
    auto layer = std::make_unique<L>(std::forward<Arguments>(arguments)...);
    L& made = *layer;
    add(std::move(layer));
    return made;
  }

  [[nodiscard]] std::size_t size() const noexcept { return children_.size(); }
  [[nodiscard]] Layer<T>& operator[](std::size_t k) const { return children_[k]; }

  [[nodiscard]] std::string_view type() const override { return "quern::nn::Sequential"; }
  [[nodiscard]] Extents output_shape(const Extents& in) const override {
    Extents shape = in;
    for (std::size_t k = 0; k < size(); ++k) shape = children_[k].output_shape(shape);
    return shape;
  }
  void parameters(ParameterList<T>& out, const std::string& prefix) override {
    children_.parameters(out, prefix);
  }
  void buffers(ParameterList<T>& out, const std::string& prefix) override {
    children_.buffers(out, prefix);
  }
  void initialize(std::uint64_t seed, const std::string& prefix = {}) override {
    children_.initialize(seed, prefix);
  }
  void update(std::span<Cache<T>* const> shards) override { children_.update(shards); }
  [[nodiscard]] std::unique_ptr<Layer<T>> clone() const override {
    return std::make_unique<Sequential>(*this);
  }

 protected:
  void compute(TensorView<const T> in, TensorView<T> out, Cache<T>& cache) const override {
    if (size() == 0) {
      std::copy(in.begin(), in.end(), out.begin());
      return;
    }
    TensorView<const T> x = in;
    for (std::size_t k = 0; k < size(); ++k) {
      TensorView<T> y = out;
      if (k + 1 < size()) {
        // 0 and 1 take turns; what backward needs has a place of its own.
        const std::size_t place = cache.keep() ? k + 2 : k % 2;
        y = cache.tensor(place, children_[k].output_shape(x.shape())).view();
      }
      children_[k].forward(x, y, cache.child(k), cache.mode);
      x = y;
    }
  }

  void differentiate(TensorView<const T> dout, TensorView<T> din, Cache<T>& cache,
                     GradientsView<T> gradients) const override {
    if (size() == 0) {
      if (!din.null()) std::copy(dout.begin(), dout.end(), din.begin());
      return;
    }
    TensorView<const T> dy = dout;
    for (std::size_t k = size(); k-- > 0;) {
      Cache<T>& below = cache.child_as_is(k);
      TensorView<T> dx = din;
      if (k > 0) dx = cache.tensor(k % 2, below.input.extents()).view();
      children_[k].backward(dy, dx, below, children_.part(gradients, k));
      dy = dx;
    }
  }

 private:
  detail::Children<T> children_;
};

}  // namespace nn
QUERN_NAMESPACE_END

#endif  // QUERN_NN_SEQUENTIAL_HPP
