// SPDX-License-Identifier: Apache-2.0

#include "quern/kernels/simd.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <thread>
#include <vector>

namespace quern::test::simd_levels {
namespace {

TEST(Simd, TheBestAttainableLevelIsFirstAndAllAreDistinct) {
  const std::vector<simd::Level>& levels = simd::attainable_levels();
  ASSERT_FALSE(levels.empty());
  EXPECT_TRUE(std::is_sorted(levels.rbegin(), levels.rend()));
  EXPECT_EQ(std::adjacent_find(levels.begin(), levels.end()), levels.end());
  EXPECT_NE(std::find(levels.begin(), levels.end(), simd::static_level), levels.end());
}

TEST(Simd, NamesAreUniqueAndFindTheirLevel) {
  EXPECT_EQ(simd::name(simd::Level::scalar), "scalar");
  EXPECT_EQ(simd::name(simd::Level::avx2), "avx2");
  EXPECT_EQ(simd::name(simd::Level::avx512), "avx512");
  for (const simd::Level level : simd::attainable_levels()) {
    EXPECT_EQ(simd::detail::level_named(simd::name(level), "f", "x"), level);
  }
}

TEST(Simd, ALevelIsForcedForAScope) {
  const simd::Level before = simd::active_level();
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    EXPECT_EQ(simd::active_level(), level);
    simd::Level elsewhere{};
    std::thread([&] { elsewhere = simd::active_level(); }).join();
    EXPECT_EQ(elsewhere, level);
  }
  EXPECT_EQ(simd::active_level(), before);
}

TEST(Simd, ALevelThatCannotRunIsRefusedWithTheChoices) {
  // No CPU has both.
  const std::vector<simd::Level>& levels = simd::attainable_levels();
  const bool arm = std::find(levels.begin(), levels.end(), simd::Level::neon) != levels.end();
  const simd::Level absent = arm ? simd::Level::avx2 : simd::Level::neon;
  const simd::Level before = simd::active_level();
  try {
    simd::set_level(absent);
    FAIL() << "no error";
  } catch (const ValueError& error) {
    const std::string what = error.what();
    EXPECT_NE(what.find("quern::simd::set_level"), std::string::npos) << what;
    EXPECT_NE(what.find(std::string(simd::name(absent))), std::string::npos) << what;
    for (const simd::Level level : levels) {
      EXPECT_NE(what.find(std::string(simd::name(level))), std::string::npos) << what;
    }
  }
  EXPECT_EQ(simd::active_level(), before);
}

TEST(Simd, TheEnvironmentNamesALevel) {
  const auto choose = [](const char* text) { return simd::detail::level_from(text); };
  EXPECT_EQ(choose(nullptr), simd::attainable_levels().front());
  EXPECT_EQ(choose(""), simd::attainable_levels().front());
  for (const simd::Level level : simd::attainable_levels()) {
    EXPECT_EQ(choose(std::string(simd::name(level)).c_str()), level);
  }
  try {
    choose("sse9");
    FAIL() << "no error";
  } catch (const ValueError& error) {
    const std::string what = error.what();
    EXPECT_NE(what.find("QUERN_SIMD"), std::string::npos) << what;
    EXPECT_NE(what.find("sse9"), std::string::npos) << what;
    EXPECT_NE(what.find(simd::name(simd::static_level)), std::string::npos) << what;
  }
}

}  // namespace
}  // namespace quern::test::simd_levels
