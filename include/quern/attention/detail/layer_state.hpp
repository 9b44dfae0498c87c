// SPDX-License-Identifier: Apache-2.0

/// \file
/// The state that a layer's step was given, as the layer's own type.

#ifndef QUERN_ATTENTION_DETAIL_LAYER_STATE_HPP
#define QUERN_ATTENTION_DETAIL_LAYER_STATE_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/nn/sequence_layer.hpp"

#include <string_view>

QUERN_NAMESPACE_BEGIN
namespace attention::detail {

/// ValueError unless `state` is a State that a layer of type() `layer` has made. Its sizes are
/// checked by what uses them (ShapeError).
template <class State, class T>
State& layer_state(std::string_view layer, nn::SequenceState<T>& state) {
  auto* const mine = dynamic_cast<State*>(&state);
  if (mine == nullptr || mine->layer() != layer) {
    throw ValueError(error_text(layer, "state of step", "one of this layer's make_state",
                                mine == nullptr ? "another layer's" : mine->layer()));
  }
  return *mine;
}

}  // namespace attention::detail
QUERN_NAMESPACE_END

#endif  // QUERN_ATTENTION_DETAIL_LAYER_STATE_HPP
