// SPDX-License-Identifier: Apache-2.0

/// \file
/// Layers made of layers: residual and concatenating connections; and layers that only change a
/// shape.

#ifndef QUERN_NN_CONTAINERS_HPP
#define QUERN_NN_CONTAINERS_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/nn/layer.hpp"
#include "quern/nn/sequential.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>

QUERN_NAMESPACE_BEGIN
namespace nn {

/// out = inner(in) + shortcut(in); without a shortcut, + in (He et al., arXiv:1512.03385). Names:
/// "inner.…", "shortcut.…".
template <class T>
class Residual final : public Layer<T> {
 public:
  explicit Residual(std::unique_ptr<Layer<T>> inner, std::unique_ptr<Layer<T>> shortcut = nullptr) {
    children_.add(type(), "inner", std::move(inner));
    if (shortcut != nullptr) children_.add(type(), "shortcut", std::move(shortcut));
  }

  [[nodiscard]] std::string_view type() const override { return "quern::nn::Residual"; }
  [[nodiscard]] Extents output_shape(const Extents& in) const override {
    const Extents out = children_[0].output_shape(in);
    const Extents other = children_.size() > 1 ? children_[1].output_shape(in) : in;
    if (out != other) {
      throw ShapeError(error_text(type(), "inner(in)", shape_text(other), shape_text(out)));
    }
    return out;
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
    return std::make_unique<Residual>(*this);
  }

 protected:
  void compute(TensorView<const T> in, TensorView<T> out, Cache<T>& cache) const override {
    children_[0].forward(in, out, cache.child(0), cache.mode);
    TensorView<const T> other = in;
    if (children_.size() > 1) {
      Tensor<T>& side = cache.tensor(0, out.extents());
      children_[1].forward(in, side.view(), cache.child(1), cache.mode);
      other = side.view();
    }
    QUERN_DISPATCH(axpy(T{1}, other.data(), static_cast<std::size_t>(out.size()), out.data()));
  }
  void differentiate(TensorView<const T> dout, TensorView<T> din, Cache<T>& cache,
                     GradientsView<T> gradients) const override {
    children_[0].backward(dout, din, cache.child_as_is(0), children_.part(gradients, 0));
    TensorView<const T> other = dout;
    if (children_.size() > 1) {
      TensorView<T> side;
      if (!din.null()) side = cache.tensor(0, din.extents()).view();
      children_[1].backward(dout, side, cache.child_as_is(1), children_.part(gradients, 1));
      other = side;
    }
    if (din.null()) return;
    QUERN_DISPATCH(axpy(T{1}, other.data(), static_cast<std::size_t>(din.size()), din.data()));
  }

 private:
  detail::Children<T> children_;
};

namespace detail {

/// Copies of what lies outside and inside of an axis: (outer, length, inner).
template <class From, class To>
void copy_along(const From* from, Index from_length, To* to, Index to_length, Index count,
                Index outer, Index inner) {
  for (Index i = 0; i < outer; ++i) {
    std::copy_n(from + i * from_length * inner, count * inner, to + i * to_length * inner);
  }
}

}  // namespace detail

/// out = in and inner(in) side by side along `axis`: U-Net's connection (Ronneberger et al.,
/// arXiv:1505.04597) around whatever is inside. Names: "inner.…".
template <class T>
class SkipConcat final : public Layer<T> {
 public:
  /// `axis` counts from the end when negative: 1 for channels first, -1 for channels last.
  explicit SkipConcat(std::unique_ptr<Layer<T>> inner, int axis = 1) : axis_(axis) {
    children_.add(type(), "inner", std::move(inner));
  }

  [[nodiscard]] std::string_view type() const override { return "quern::nn::SkipConcat"; }
  [[nodiscard]] Extents output_shape(const Extents& in) const override {
    Extents out = children_[0].output_shape(in);
    const std::size_t axis = axis_of(in);
    Extents same = in;
    const bool one_rank = out.size() == in.size();
    if (one_rank) same[axis] = out[axis];
    if (!one_rank || same != out) {
      throw ShapeError(error_text(type(), "inner(in)",
                                  shape_text(in) + " but for dimension " + std::to_string(axis),
                                  shape_text(out)));
    }
    out[axis] += in[axis];
    return out;
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
    return std::make_unique<SkipConcat>(*this);
  }

 protected:
  void compute(TensorView<const T> in, TensorView<T> out, Cache<T>& cache) const override {
    Tensor<T>& inner = cache.tensor(0, children_[0].output_shape(in.shape()));
    children_[0].forward(in, inner.view(), cache.child(0), cache.mode);
    const Sides s = sides(in, out);
    detail::copy_along(in.data(), s.mine, out.data(), s.mine + s.inner, s.mine, s.outer, s.each);
    detail::copy_along(inner.data(), s.inner, out.data() + s.mine * s.each, s.mine + s.inner,
                       s.inner, s.outer, s.each);
  }
  void differentiate(TensorView<const T> dout, TensorView<T> din, Cache<T>& cache,
                     GradientsView<T> gradients) const override {
    const Sides s = sides(cache.input, dout);
    Tensor<T>& inner = cache.tensor(0);
    detail::copy_along(dout.data() + s.mine * s.each, s.mine + s.inner, inner.data(), s.inner,
                       s.inner, s.outer, s.each);
    children_[0].backward(inner.view(), din, cache.child_as_is(0), children_.part(gradients, 0));
    if (din.null()) return;
    for (Index i = 0; i < s.outer; ++i) {
      QUERN_DISPATCH(axpy(T{1}, dout.data() + i * (s.mine + s.inner) * s.each,
                          static_cast<std::size_t>(s.mine * s.each),
                          din.data() + i * s.mine * s.each));
    }
  }

 private:
  struct Sides {
    Index outer, mine, inner, each;
  };
  [[nodiscard]] std::size_t axis_of(std::span<const Index> in) const {
    const int rank = static_cast<int>(in.size());
    const int axis = axis_ < 0 ? axis_ + rank : axis_;
    if (axis < 0 || axis >= rank) {
      throw ShapeError(
          error_text(type(), "in", "a dimension " + std::to_string(axis_), shape_text(in)));
    }
    return static_cast<std::size_t>(axis);
  }
  template <class U, class V>
  [[nodiscard]] Sides sides(const TensorView<U>& in, const TensorView<V>& out) const {
    const int axis = static_cast<int>(axis_of(in.extents()));
    return {in.count(0, axis), in.extent(axis), out.extent(axis) - in.extent(axis),
            in.count(axis + 1, in.rank())};
  }

  detail::Children<T> children_;
  int axis_;
};

/// Another shape of the same elements: all dimensions from `first` on as the given extents, of
/// which one may be -1 (what is left). Flatten is Reshape({-1}).
template <class T>
class Reshape final : public Layer<T> {
 public:
  explicit Reshape(Extents extents = {-1}, int first = 1)
      : extents_(std::move(extents)), first_(first) {
    const auto open = std::count(extents_.begin(), extents_.end(), Index{-1});
    if (open > 1 || first < 0) {
      throw ValueError(error_text(type(), "extents", "at most one -1, from a dimension on",
                                  shape_text(extents_)));
    }
  }

  [[nodiscard]] std::string_view type() const override { return "quern::nn::Reshape"; }
  [[nodiscard]] Extents output_shape(const Extents& in) const override {
    const auto first = static_cast<std::size_t>(first_);
    if (in.size() < first) wrong(in);
    Index inside = 1, fixed = 1;
    for (std::size_t r = first; r < in.size(); ++r) inside *= in[r];
    for (const Index e : extents_) fixed *= e == -1 ? 1 : e;
    const bool open = std::count(extents_.begin(), extents_.end(), Index{-1}) > 0;
    if (open ? (fixed == 0 || inside % fixed != 0) : inside != fixed) wrong(in);
    Extents out(in.begin(), in.begin() + first_);
    for (const Index e : extents_) out.push_back(e == -1 ? inside / fixed : e);
    return out;
  }
  [[nodiscard]] std::unique_ptr<Layer<T>> clone() const override {
    return std::make_unique<Reshape>(*this);
  }

 protected:
  void compute(TensorView<const T> in, TensorView<T> out, Cache<T>& /*cache*/) const override {
    std::copy(in.begin(), in.end(), out.begin());
  }
  void differentiate(TensorView<const T> dout, TensorView<T> din, Cache<T>& /*cache*/,
                     GradientsView<T> /*gradients*/) const override {
    if (!din.null()) std::copy(dout.begin(), dout.end(), din.begin());
  }

 private:
  [[noreturn]] void wrong(const Extents& in) const {
    throw ShapeError(
        error_text(type(), "in", "as many elements as " + shape_text(extents_), shape_text(in)));
  }

  Extents extents_;
  int first_;
};

}  // namespace nn
QUERN_NAMESPACE_END

#endif  // QUERN_NN_CONTAINERS_HPP
