// SPDX-License-Identifier: Apache-2.0

#include "quern/kernels/kernels.hpp"

#include <gtest/gtest.h>

#include <string>

namespace quern::test::dispatch {
namespace {

/// Lanes that a level of this name has, 0 where any number is right.
template <class T>
std::ptrdiff_t expected_lanes(simd::Level level) {
  switch (level) {
    case simd::Level::scalar:
      return 1;
    case simd::Level::emu128:
    case simd::Level::neon:
    case simd::Level::sse4:
      return 16 / static_cast<std::ptrdiff_t>(sizeof(T));
    case simd::Level::avx2:
      return 32 / static_cast<std::ptrdiff_t>(sizeof(T));
    case simd::Level::avx512:
      return 64 / static_cast<std::ptrdiff_t>(sizeof(T));
    default:
      return 0;
  }
}

template <class T>
std::ptrdiff_t lanes_from_a_template() {
  return QUERN_DISPATCH(gemm_layout<T>()).lanes;
}

TEST(Dispatch, EachLevelRunsItsOwnCode) {
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(std::string(simd::name(level)));
    if (expected_lanes<float>(level) != 0) {
      EXPECT_EQ(lanes_from_a_template<float>(), expected_lanes<float>(level));
      EXPECT_EQ(lanes_from_a_template<double>(), expected_lanes<double>(level));
    }
  }
}

TEST(Dispatch, ALevelCanBeNamedAtTheCall) {
  const simd::Level active = simd::active_level();
  for (const simd::Level level : simd::attainable_levels()) {
    const kernels::GemmLayout named = QUERN_DISPATCH_AT(level, gemm_layout<float>());
    const simd::ScopedLevel force(level);
    EXPECT_EQ(named.lanes, lanes_from_a_template<float>());
  }
  EXPECT_EQ(simd::active_level(), active);
}

TEST(Dispatch, ArgumentsAreEvaluatedOnceAndVoidIsAResult) {
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    int calls = 0;
    const float from[2] = {1, 2};
    float to[32] = {};
    const auto operand = [&] {
      ++calls;
      return kernels::GemmOperand<float>{from, 1, 1};
    };
    QUERN_DISPATCH(gemm_pack_a<float>(operand(), 0, 2, 0, 1, to));
    EXPECT_EQ(calls, 1);
    EXPECT_EQ(to[0], 1.0f);
    EXPECT_EQ(to[1], 2.0f);
    EXPECT_EQ(to[2], 0.0f);
  }
}

}  // namespace
}  // namespace quern::test::dispatch
