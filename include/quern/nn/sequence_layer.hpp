// SPDX-License-Identifier: Apache-2.0

/// \file
/// Layers over sequences that can also be run one position at a time: SequenceLayer and what it
/// remembers, SequenceState.

#ifndef QUERN_NN_SEQUENCE_LAYER_HPP
#define QUERN_NN_SEQUENCE_LAYER_HPP

#include "quern/core/config.hpp"
#include "quern/nn/layer.hpp"
#include "quern/nn/tensor.hpp"

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace nn {

/// What a layer remembers of the positions that it has seen, for every row of a batch.
template <class T>
class SequenceState {
 public:
  virtual ~SequenceState() = default;
  /// Back to before the first position.
  virtual void reset() = 0;
  /// A copy: two continuations of one beginning.
  [[nodiscard]] virtual std::unique_ptr<SequenceState> clone() const = 0;
  /// All of it as bytes, and from them (the same layer, sizes and batch; ParseError otherwise).
  virtual void save(std::vector<std::byte>& out) const = 0;
  virtual void load(std::span<const std::byte> bytes) = 0;

 protected:
  SequenceState() = default;
  SequenceState(const SequenceState&) = default;
  SequenceState& operator=(const SequenceState&) = default;
};

/// A layer from (batch, length, dim) to (batch, length, dim of its output) where position t depends
/// on positions up to t only. step() after step() gives the positions of forward().
template <class T>
class SequenceLayer : public Layer<T> {
 public:
  /// A state before the first position, for `batch` rows.
  [[nodiscard]] virtual std::unique_ptr<SequenceState<T>> make_state(Index batch) const = 0;
  /// One position in inference mode: in (batch, dim), out (batch, dim of the output), overwritten.
  /// `state` is one of this layer's make_state(batch), and moves on. ShapeError where sizes do not
  /// fit.
  virtual void step(TensorView<const T> in, TensorView<T> out, SequenceState<T>& state) const = 0;

 protected:
  /// ShapeError unless in is (batch, in_dim) and out (batch, out_dim).
  void check_step(TensorView<const T> in, TensorView<T> out, Index batch, Index in_dim,
                  Index out_dim) const {
    const Extents wants_in = {batch, in_dim}, wants_out = {batch, out_dim};
    expect_extents(this->type(), "in of step", in, wants_in);
    expect_extents(this->type(), "out of step", out, wants_out);
  }
};

}  // namespace nn
QUERN_NAMESPACE_END

#endif  // QUERN_NN_SEQUENCE_LAYER_HPP
