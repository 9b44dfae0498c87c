// SPDX-License-Identifier: Apache-2.0

/// \file
/// What both forms of PixelCnn are made of: child layers by name, rows that each class adds before
/// a gate, codes and classes out of one input.

#ifndef QUERN_VQ_DETAIL_PIXELCNN_NETWORK_HPP
#define QUERN_VQ_DETAIL_PIXELCNN_NETWORK_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/nn/init.hpp"
#include "quern/nn/layer.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace vq {
namespace detail {

/// Children, and tensors of rows (classes, 2 channels), with their parameters in that order.
template <class T>
class PixelNetwork : public nn::Layer<T> {
 public:
  void parameters(nn::ParameterList<T>& out, const std::string& prefix) override {
    for (const auto& child : children_) child.layer->parameters(out, prefix + child.name + ".");
    for (ClassRows& rows : classes_) out.push_back({prefix + rows.name, rows.values.view()});
  }
  void initialize(std::uint64_t seed, const std::string& prefix = {}) override {
    for (const auto& child : children_) child.layer->initialize(seed, prefix + child.name + ".");
    for (std::size_t k = 0; k < classes_.size(); ++k) {
      nn::init::normal(classes_[k].values.view(), Philox(seed, prefix + "class", k), 0.0, 0.02);
    }
  }

 protected:
  struct Child {
    std::string name;
    std::unique_ptr<nn::Layer<T>> layer;
    std::size_t first = 0, count = 0;  ///< its parameters' numbers
  };
  struct ClassRows {
    std::string name;
    nn::Tensor<T> values;
  };

  PixelNetwork(Index pixels, Index classes, Index channels)
      : pixel_count_(pixels), class_count_(classes), channel_count_(channels) {}

  void add(std::string name, std::unique_ptr<nn::Layer<T>> layer) {
    const std::size_t first =
        children_.empty() ? 0 : children_.back().first + children_.back().count;
    const std::size_t count = nn::parameter_count(*layer);
    children_.push_back({std::move(name), std::move(layer), first, count});
  }
  void add_class_rows(std::string name) {
    if (class_count_ == 0) return;
    classes_.push_back({std::move(name), nn::Tensor<T>({class_count_, 2 * channel_count_})});
  }
  template <class L>
  [[nodiscard]] L& at(std::size_t k) const {
    return static_cast<L&>(*children_[k].layer);
  }
  void copy_weights(const PixelNetwork& from) {
    for (std::size_t k = 0; k < children_.size(); ++k) {
      children_[k].layer = from.children_[k].layer->clone();
    }
    for (std::size_t k = 0; k < classes_.size(); ++k) {
      classes_[k].values = from.classes_[k].values.clone();
    }
  }

  /// Codes into tensor 0, classes into integers 0, -1 for none. ValueError for a class that there
  /// is not.
  void split_input(nn::TensorView<const T> in, const nn::Extents& grids,
                   nn::Cache<T>& cache) const {
    const Index n = in.extent(0), all = in.extent(1);
    nn::Tensor<T>& codes = cache.tensor(0, grids);
    auto& classes = cache.integers(0);
    classes.assign(static_cast<std::size_t>(n), -1);
    for (Index i = 0; i < n; ++i) {
      std::copy_n(in.data() + i * all, pixel_count_, codes.data() + i * pixel_count_);
      if (class_count_ == 0) continue;
      const T value = in[i * all + pixel_count_];
      if (!(value >= T(-1) && value < static_cast<T>(class_count_))) {
        throw ValueError(error_text(this->type(), "class",
                                    "-1 (none) to " + std::to_string(class_count_ - 1), value));
      }
      classes[static_cast<std::size_t>(i)] = static_cast<std::int64_t>(value);
    }
  }

  nn::TensorView<T> run(std::size_t child, nn::TensorView<const T> in, nn::Cache<T>& cache,
                        std::size_t place, const nn::Extents& shape) const {
    const nn::TensorView<T> out = cache.tensor(place, shape).view();
    children_[child].layer->forward(in, out, cache.child(child), cache.mode);
    return out;
  }
  void back(std::size_t child, nn::TensorView<const T> dout, nn::TensorView<T> din,
            nn::Cache<T>& cache, const nn::GradientsView<T>& gradients) const {
    const Child& c = children_[child];
    c.layer->backward(dout, din, cache.child_as_is(child), gradients.part(c.first, c.count));
  }
  static void add_to(nn::TensorView<T> sum, nn::TensorView<const T> x) {
    QUERN_DISPATCH(axpy<T>(T(1), x.data(), static_cast<std::size_t>(x.size()), sum.data()));
  }

  /// g = tanh(a) sigmoid(b), (a | b) = u + the class's row of `rows`.
  void gate_forward(nn::TensorView<const T> u, std::size_t rows, nn::TensorView<T> g,
                    nn::Cache<T>& cache) const {
    for_samples(cache, rows, [&](Index from, std::size_t pixels, const T* add) {
      QUERN_DISPATCH(tanh_gate<T>(pixels, static_cast<std::size_t>(channel_count_),
                                  u.data() + 2 * from, add, g.data() + from));
    });
  }
  /// du for dg, and the class's rows' gradient.
  void gate_backward(nn::TensorView<const T> u, std::size_t rows, nn::TensorView<const T> dg,
                     nn::TensorView<T> du, nn::Cache<T>& cache,
                     const nn::GradientsView<T>& gradients) const {
    for_samples(cache, rows, [&](Index from, std::size_t pixels, const T* add) {
      QUERN_DISPATCH(tanh_gate_gradient<T>(pixels, static_cast<std::size_t>(channel_count_),
                                           u.data() + 2 * from, add, dg.data() + from,
                                           du.data() + 2 * from));
    });
    if (class_count_ == 0 || gradients.null()) return;
    const std::span<T> to = gradients[children_.back().first + children_.back().count + rows];
    const Index wide = 2 * channel_count_;
    std::vector<T> sums(static_cast<std::size_t>(wide));
    const auto& classes = cache.integers(0);
    for (std::size_t i = 0; i < classes.size(); ++i) {
      if (classes[i] < 0) continue;
      const T* const from = du.data() + static_cast<Index>(i) * pixel_count_ * wide;
      QUERN_DISPATCH(column_sums<T>(static_cast<std::size_t>(pixel_count_),
                                    static_cast<std::size_t>(wide), from, wide, sums.data()));
      QUERN_DISPATCH(axpy<T>(T(1), sums.data(), sums.size(), to.data() + classes[i] * wide));
    }
  }

  std::vector<Child> children_;
  std::vector<ClassRows> classes_;

 private:
  /// f(a sample's first number, its pixels, the class's row or null).
  template <class F>
  void for_samples(nn::Cache<T>& cache, std::size_t rows, const F& f) const {
    const auto& classes = cache.integers(0);
    parallel_for(
        static_cast<Index>(classes.size()),
        [&](std::int64_t i) {
          const std::int64_t label = classes[static_cast<std::size_t>(i)];
          const T* const add =
              label < 0 ? nullptr : classes_[rows].values.data() + label * 2 * channel_count_;
          f(i * pixel_count_ * channel_count_, static_cast<std::size_t>(pixel_count_), add);
        },
        cache.context.threads);
  }

  Index pixel_count_, class_count_, channel_count_;
};

}  // namespace detail
}  // namespace vq
QUERN_NAMESPACE_END

#endif  // QUERN_VQ_DETAIL_PIXELCNN_NETWORK_HPP
