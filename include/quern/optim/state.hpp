// SPDX-License-Identifier: Apache-2.0

/// \file
/// An optimiser's state as named tensors and words: what is saved (io/optimizer_state.hpp writes it
/// as safetensors) and restored exactly.

#ifndef QUERN_OPTIM_STATE_HPP
#define QUERN_OPTIM_STATE_HPP

#include "quern/core/bfloat16.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_view.hpp"

#include <charconv>
#include <cstddef>
#include <map>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace optim {

/// Element type of a saved state.
enum class StateType { float32, float64, bfloat16 };

template <class M>
[[nodiscard]] constexpr StateType state_type_of() noexcept {
  static_assert(std::is_same_v<M, float> || std::is_same_v<M, double> ||
                std::is_same_v<M, BFloat16>);
  return std::is_same_v<M, float>    ? StateType::float32
         : std::is_same_v<M, double> ? StateType::float64
                                     : StateType::bfloat16;
}
[[nodiscard]] inline const char* name(StateType type) noexcept {
  constexpr const char* names[] = {"float32", "float64", "bfloat16"};
  return names[static_cast<int>(type)];
}

/// One tensor of a state, row-major.
struct StateTensor {
  std::string name;  ///< "parameter.state"
  StateType type = StateType::float32;
  std::vector<Index> shape;
  std::vector<std::byte> bytes;
};

/// All of it. `words` hold the method's name, and step, rate and memory of each group.
struct OptimizerState {
  std::vector<StateTensor> tensors;
  std::map<std::string, std::string> words;
};

namespace detail {

/// Shortest text that gives the same number back.
template <class Number>
std::string number_word(Number value) {
  char text[64];
  const std::to_chars_result written = std::to_chars(text, text + sizeof(text), value);
  return {text, written.ptr};
}

/// The number under a key; ParseError when there is none.
template <class Number>
Number word_number(const OptimizerState& state, const std::string& key) {
  const auto found = state.words.find(key);
  Number value{};
  if (found != state.words.end()) {
    const std::string& text = found->second;
    const char* const end = text.data() + text.size();
    const std::from_chars_result read = std::from_chars(text.data(), end, value);
    if (read.ec == std::errc() && read.ptr == end) return value;
  }
  throw ParseError(error_text("quern::optim::load_state", "word '" + key + "'", "a number",
                              found == state.words.end() ? "nothing" : "'" + found->second + "'"));
}

/// The tensor of this name; ParseError unless it is there with this type and shape.
inline const StateTensor& find_tensor(const OptimizerState& state, const std::string& name,
                                      StateType type, const std::vector<Index>& shape,
                                      std::size_t element_bytes) {
  constexpr const char* function = "quern::optim::load_state";
  for (const StateTensor& t : state.tensors) {
    if (t.name != name) continue;
    std::size_t bytes = element_bytes;
    for (const Index extent : shape) bytes *= static_cast<std::size_t>(extent);
    if (t.type == type && t.shape == shape && t.bytes.size() == bytes) return t;
    throw ParseError(error_text(
        function, "tensor '" + name + "'",
        std::string(optim::name(type)) + " of " + std::to_string(bytes) +
            " bytes in the parameter's shape",
        std::string(optim::name(t.type)) + " of " + std::to_string(t.bytes.size()) + " bytes"));
  }
  throw ParseError(error_text(function, "tensors", "'" + name + "'", "none of that name"));
}

/// ParseError when a state holds more tensors than are asked for.
inline void expect_count(const OptimizerState& state, std::size_t count) {
  if (state.tensors.size() == count) return;
  throw ParseError(error_text("quern::optim::load_state", "tensors",
                              std::to_string(count) + " tensors", state.tensors.size()));
}

}  // namespace detail
}  // namespace optim
QUERN_NAMESPACE_END

#endif  // QUERN_OPTIM_STATE_HPP
