// SPDX-License-Identifier: Apache-2.0

/// \file
/// `QUERN_FUZZ_TARGET(name) { … data, size … }` registers a fuzz target, so that all of them are
/// one program (main.cpp), which is compiled once.

#ifndef QUERN_TESTS_FUZZ_TARGET_HPP
#define QUERN_TESTS_FUZZ_TARGET_HPP

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>

namespace quern::test {

using FuzzTarget = int (*)(const std::uint8_t* data, std::size_t size);

inline std::map<std::string, FuzzTarget>& fuzz_targets() {
  static std::map<std::string, FuzzTarget> targets;
  return targets;
}

struct FuzzRegistration {
  FuzzRegistration(const char* name, FuzzTarget target) { fuzz_targets()[name] = target; }
};

}  // namespace quern::test

#define QUERN_FUZZ_TARGET(name)                                                        \
  static int fuzz_##name(const std::uint8_t* data, std::size_t size);                  \
  static const quern::test::FuzzRegistration fuzz_##name##_target(#name, fuzz_##name); \
  static int fuzz_##name(const std::uint8_t* data, std::size_t size)

#endif  // QUERN_TESTS_FUZZ_TARGET_HPP
