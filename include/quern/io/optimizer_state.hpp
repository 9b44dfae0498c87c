// SPDX-License-Identifier: Apache-2.0

/// \file
/// Optimisers' states as safetensors files: saved, and restored to the bit.

#ifndef QUERN_IO_OPTIMIZER_STATE_HPP
#define QUERN_IO_OPTIMIZER_STATE_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/io/quote.hpp"
#include "quern/io/safetensors.hpp"
#include "quern/optim/state.hpp"

#include <string>

QUERN_NAMESPACE_BEGIN
namespace io {

/// Writes a state: each moment under "parameter.moment", steps and rates in the metadata.
inline void save_optimizer_state(const std::string& path, const optim::OptimizerState& state) {
  constexpr SafetensorType types[] = {SafetensorType::f32, SafetensorType::f64,
                                      SafetensorType::bf16};
  SafetensorsWriter writer;
  for (const auto& [key, value] : state.words) writer.set_metadata(key, value);
  for (const optim::StateTensor& t : state.tensors) {
    writer.add(t.name, types[static_cast<int>(t.type)], t.shape, t.bytes);
  }
  writer.write(path);
}

/// Reads it; load_state() of an optimiser then checks that it fits.
[[nodiscard]] inline optim::OptimizerState load_optimizer_state(const std::string& path) {
  const Safetensors file = Safetensors::read(path);
  optim::OptimizerState state;
  state.words = file.metadata();
  for (const Safetensor& t : file.tensors()) {
    optim::StateTensor out;
    out.name = t.name;
    out.shape = t.shape;
    if (t.type == SafetensorType::f32) {
      out.type = optim::StateType::float32;
    } else if (t.type == SafetensorType::f64) {
      out.type = optim::StateType::float64;
    } else if (t.type == SafetensorType::bf16) {
      out.type = optim::StateType::bfloat16;
    } else {
      throw ParseError(error_text("quern::io::load_optimizer_state", quote_text(t.name),
                                  "F32, F64 or BF16", io::name(t.type)));
    }
    out.bytes.assign(t.bytes.begin(), t.bytes.end());
    state.tensors.push_back(std::move(out));
  }
  return state;
}

}  // namespace io
QUERN_NAMESPACE_END

#endif  // QUERN_IO_OPTIMIZER_STATE_HPP
