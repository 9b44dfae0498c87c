// SPDX-License-Identifier: Apache-2.0

/// \file
/// What the layers of ssm/ share: the state that they remember between positions, complex
/// parameters as real tensors, and checks of shapes.

#ifndef QUERN_SSM_LAYER_STATE_HPP
#define QUERN_SSM_LAYER_STATE_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/random.hpp"
#include "quern/nn/sequence_layer.hpp"
#include "quern/nn/tensor.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <complex>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace ssm {

/// A state of (batch, width) numbers of V (T or std::complex<T>), all zero before the first
/// position. A layer may leave here what it works out of its parameters at the first step;
/// reset() and load() drop that, so a state goes on with the parameters of then.
template <class T, class V>
class LayerState final : public nn::SequenceState<T> {
 public:
  /// `layer` is the type() of the layer that makes it.
  LayerState(std::string_view layer, Index batch, Index width)
      : layer_(layer), values_({batch, width}) {}

  [[nodiscard]] std::string_view layer() const noexcept { return layer_; }

  [[nodiscard]] NdView<V, 2> values() { return values_.view(); }
  [[nodiscard]] Index batch() const { return values_.extent(0); }

  /// What make() gave at the first call since reset().
  template <class P, class Make>
  const P& constants(Make&& make) {
    if (constants_ == nullptr) constants_ = std::make_shared<const P>(make());
    return *static_cast<const P*>(constants_.get());
  }

  void reset() override {
    values_.fill(V{});
    constants_.reset();
  }
  [[nodiscard]] std::unique_ptr<nn::SequenceState<T>> clone() const override {
    return std::make_unique<LayerState>(*this);
  }
  void save(std::vector<std::byte>& out) const override {
    const std::size_t at = out.size();
    out.resize(at + bytes());
    if (bytes() > 0) std::memcpy(out.data() + at, values_.data(), bytes());
  }
  void load(std::span<const std::byte> from) override {
    if (from.size() != bytes()) {
      throw ParseError(error_text("quern::ssm::LayerState::load", "bytes", std::to_string(bytes()),
                                  from.size()));
    }
    if (bytes() > 0) std::memcpy(static_cast<void*>(values_.data()), from.data(), bytes());
    constants_.reset();
  }

 private:
  [[nodiscard]] std::size_t bytes() const {
    return static_cast<std::size_t>(values_.size()) * sizeof(V);
  }
  std::string layer_;
  NdArray<V, 2> values_;
  std::shared_ptr<const void> constants_;
};

namespace detail {

/// The state of a layer as its own type; ValueError for another layer's, ShapeError for one of a
/// layer of another width.
template <class T, class V>
LayerState<T, V>& state_of(std::string_view layer, nn::SequenceState<T>& state, Index width) {
  auto* mine = dynamic_cast<LayerState<T, V>*>(&state);
  if (mine == nullptr || mine->layer() != layer) {
    throw ValueError(error_text(layer, "state of step", "one of this layer's make_state",
                                mine == nullptr ? "another layer's" : mine->layer()));
  }
  expect_size(layer, "state of step", mine->values().extent(1), width, "numbers an entry");
  return *mine;
}

/// A tensor (…, 2) or its gradient as complex numbers of a shape.
template <class T, std::size_t N>
NdView<const std::complex<T>, static_cast<int>(N)> as_complex(const nn::Tensor<T>& x,
                                                              const std::array<Index, N>& shape) {
  return {reinterpret_cast<const std::complex<T>*>(x.data()), shape};
}
template <class T, std::size_t N>
NdView<std::complex<T>, static_cast<int>(N)> as_complex(std::span<T> x,
                                                        const std::array<Index, N>& shape) {
  return {reinterpret_cast<std::complex<T>*>(x.data()), shape};
}
template <class T, std::size_t N>
NdView<T, static_cast<int>(N)> as_real(std::span<T> x, const std::array<Index, N>& shape) {
  return {x.data(), shape};
}
template <class T, std::size_t N>
NdView<const T, static_cast<int>(N)> as_real(const nn::Tensor<T>& x,
                                             const std::array<Index, N>& shape) {
  return {x.data(), shape};
}

/// ShapeError unless in is (batch, length, dim).
inline nn::Extents sequence_shape(std::string_view layer, const nn::Extents& in, Index dim) {
  if (in.size() == 3 && in[2] == dim) return in;
  throw ShapeError(
      error_text(layer, "in", "(batch, length, " + std::to_string(dim) + ")", nn::shape_text(in)));
}

inline void expect_positive(std::string_view layer, std::string_view argument, Index value) {
  if (value >= 1) return;
  throw ValueError(error_text(layer, argument, "at least 1", value));
}

/// x = deviation times normal numbers.
template <class T>
void draw_normal(nn::Tensor<T>& x, std::uint64_t seed, const std::string& name, double deviation) {
  Philox random(seed, name);
  for (T& v : x.span()) v = static_cast<T>(deviation * random.normal());
}
/// Logarithms of steps spread evenly between those of two ends.
template <class T>
void draw_log_steps(nn::Tensor<T>& x, std::uint64_t seed, const std::string& name, double low,
                    double high) {
  Philox random(seed, name);
  for (T& v : x.span()) {
    v = static_cast<T>(random.uniform(std::log(low), std::log(high)));
  }
}

}  // namespace detail
}  // namespace ssm
QUERN_NAMESPACE_END

#endif  // QUERN_SSM_LAYER_STATE_HPP
