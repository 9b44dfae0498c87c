// SPDX-License-Identifier: Apache-2.0

/// \file
/// The safetensors reader on anything; what it accepts is written and read again unchanged.

#include "quern/io/safetensors.hpp"
#include "target.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

namespace quern::test::safetensors_fuzz {

QUERN_FUZZ_TARGET(safetensors) {
  using namespace quern::io;
  try {
    const Safetensors file = Safetensors::from_bytes(std::as_bytes(std::span(data, size)));
    SafetensorsWriter writer;
    for (const auto& [key, value] : file.metadata()) writer.set_metadata(key, value);
    for (const Safetensor& t : file.tensors()) writer.add(t.name, t.type, t.shape, t.bytes);
    const Safetensors again = Safetensors::from_bytes(writer.bytes());
    if (again.tensors().size() != file.tensors().size()) std::abort();
    if (again.metadata() != file.metadata()) std::abort();
  } catch (const quern::ParseError&) {
  }
  return 0;
}

}  // namespace quern::test::safetensors_fuzz
