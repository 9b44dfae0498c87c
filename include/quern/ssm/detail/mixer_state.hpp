// SPDX-License-Identifier: Apache-2.0

/// \file
/// States of layers that are some arrays and a position, and views of columns of a layer's arrays.

#ifndef QUERN_SSM_DETAIL_MIXER_STATE_HPP
#define QUERN_SSM_DETAIL_MIXER_STATE_HPP

#include "quern/core/buffer.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/nn/sequence_layer.hpp"
#include "quern/nn/tensor.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace ssm::detail {

/// Columns [first, first + count) of (batch, length, width), as (batch, length, count).
template <class T>
NdView<T, 3> columns(const nn::TensorView<T>& x, Index first, Index count) {
  const Index length = x.extent(1), width = x.extent(2);
  return {x.data() + first, {x.extent(0), length, count}, {length * width, width, 1}};
}
/// The same as (batch, length, heads, count / heads).
template <class T>
NdView<T, 4> head_columns(const nn::TensorView<T>& x, Index first, Index heads, Index dim) {
  const Index length = x.extent(1), width = x.extent(2);
  return {x.data() + first, {x.extent(0), length, heads, dim}, {length * width, width, dim, 1}};
}

/// Arrays, each with a value that it starts at, and how many positions were seen. `constants` are
/// what a layer computes from its weights once, for the steps to come.
template <class T>
class MixerState final : public nn::SequenceState<T> {
 public:
  MixerState(std::string_view owner, Index batch) : owner_(owner), batch_(batch) {}

  /// Adds an array of the given extents.
  void add(const nn::Extents& extents, T start = T{0}) {
    nn::Tensor<T> array(extents);
    std::fill(array.span().begin(), array.span().end(), start);
    first_.push_back(array.clone());
    arrays_.push_back(std::move(array));
  }
  /// Array k as it starts, to be changed before the first step.
  [[nodiscard]] nn::TensorView<T> start(std::size_t k) { return first_[k].view(); }
  [[nodiscard]] nn::TensorView<T> operator[](std::size_t k) { return arrays_[k].view(); }
  [[nodiscard]] Index batch() const noexcept { return batch_; }
  [[nodiscard]] std::string_view owner() const noexcept { return owner_; }
  /// ShapeError unless the arrays are (batch, …) of these extents.
  void expect_sizes(std::initializer_list<std::initializer_list<Index>> sizes) const {
    std::size_t k = 0;
    for (const auto& want : sizes) {
      const nn::Extents& got = arrays_[k++].shape();
      if (std::equal(want.begin(), want.end(), got.begin() + 1, got.end())) continue;
      nn::Extents wanted(want);
      wanted.insert(wanted.begin(), batch_);
      throw ShapeError(error_text(owner_, "state of step", nn::shape_text(wanted),
                                  nn::shape_text(got) + " of a layer of other sizes"));
    }
  }
  std::int64_t position = 0;
  std::vector<nn::Tensor<T>> constants;
  std::vector<nn::Tensor<T>> scratch;

  void reset() override {
    for (std::size_t k = 0; k < arrays_.size(); ++k) arrays_[k].assign(first_[k].view());
    position = 0;
  }
  [[nodiscard]] std::unique_ptr<nn::SequenceState<T>> clone() const override {
    auto copy = std::make_unique<MixerState>(owner_, batch_);
    for (const auto& a : arrays_) copy->arrays_.push_back(a.clone());
    for (const auto& a : first_) copy->first_.push_back(a.clone());
    for (const auto& a : constants) copy->constants.push_back(a.clone());
    for (const auto& a : scratch) copy->scratch.push_back(a.clone());
    copy->position = position;
    return copy;
  }
  void save(std::vector<std::byte>& out) const override {
    const auto append = [&](const void* from, std::size_t bytes) {
      const std::byte* const p = static_cast<const std::byte*>(from);
      out.insert(out.end(), p, p + bytes);
    };
    append(&position, sizeof position);
    for (const auto& a : arrays_) append(a.data(), a.span().size_bytes());
  }
  void load(std::span<const std::byte> bytes) override {
    std::size_t wanted = sizeof position;
    for (const auto& a : arrays_) wanted += a.span().size_bytes();
    if (bytes.size() != wanted) {
      throw ParseError(error_text(owner_, "bytes of the state", std::to_string(wanted) + " bytes",
                                  bytes.size()));
    }
    std::memcpy(&position, bytes.data(), sizeof position);
    std::size_t at = sizeof position;
    for (auto& a : arrays_) {
      const std::size_t size = a.span().size_bytes();
      if (size > 0) std::memcpy(a.data(), bytes.data() + at, size);
      at += size;
    }
  }

 private:
  std::string owner_;
  Index batch_;
  std::vector<nn::Tensor<T>> arrays_, first_;
};

/// The state that a step was given: ValueError unless it is one of that layer's kind, ShapeError
/// unless its arrays have the layer's sizes, those after the batch.
template <class T>
MixerState<T>& mixer_state(std::string_view owner, nn::SequenceState<T>& state,
                           std::initializer_list<std::initializer_list<Index>> sizes) {
  auto* const mine = dynamic_cast<MixerState<T>*>(&state);
  if (mine == nullptr || mine->owner() != owner) {
    throw ValueError(error_text(owner, "state of step", "one of this layer's make_state",
                                mine == nullptr ? "another layer's" : mine->owner()));
  }
  mine->expect_sizes(sizes);
  return *mine;
}

/// The weights of one layer into another of the same sizes.
template <class L>
void copy_parameters(const L& from, L& to) {
  nn::ParameterList<typename L::Scalar> source, target;
  const_cast<L&>(from).parameters(source, {});  // for views of what is only read
  to.parameters(target, {});
  for (std::size_t k = 0; k < source.size(); ++k) {
    std::copy(source[k].values.begin(), source[k].values.end(), target[k].values.begin());
  }
}

/// ShapeError unless in is (batch, length, dim).
inline void expect_sequence(std::string_view owner, const nn::Extents& in, Index dim) {
  if (in.size() == 3 && in[2] == dim) return;
  throw ShapeError(
      error_text(owner, "in", "(batch, length, " + std::to_string(dim) + ")", nn::shape_text(in)));
}

}  // namespace ssm::detail
QUERN_NAMESPACE_END

#endif  // QUERN_SSM_DETAIL_MIXER_STATE_HPP
