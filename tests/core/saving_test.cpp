// SPDX-License-Identifier: Apache-2.0

#include "quern/core/saving.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <string>

namespace quern::test::saving {
namespace {

struct Number {
  std::int32_t value = 0;

  static const char* kind() { return "number"; }
  void save(ArchiveWriter& out) const { out.scalar("value", value); }
  void load(const ArchiveReader& in) { value = in.scalar<std::int32_t>("value"); }
};
struct Other : Number {
  static const char* kind() { return "other"; }
};
/// A learner that holds others.
struct Pair {
  Number first, second;

  static const char* kind() { return "pair"; }
  void save(ArchiveWriter& out) const {
    save_member(out, "first", first);
    save_member(out, "second", second);
  }
  void load(const ArchiveReader& in) {
    load_member(in, "first", first);
    load_member(in, "second", second);
  }
};
static_assert(Saveable<Pair> && !Saveable<int>);

TEST(Saving, LearnersComeBackWithTheirMembers) {
  const std::string path =
      (std::filesystem::temp_directory_path() / "quern_saving_test.model").string();
  save_learner(Pair{{3}, {-4}}, path);
  Pair back;
  load_learner(back, path);
  EXPECT_EQ(back.first.value, 3);
  EXPECT_EQ(back.second.value, -4);
  Number wrong{7};
  EXPECT_THROW(load_learner(wrong, path), ParseError);
  EXPECT_EQ(wrong.value, 7);
  std::filesystem::remove(path);
  EXPECT_THROW(load_learner(back, path), IoError);
}

TEST(Saving, MembersOfAnotherKindAreRefused) {
  ArchiveWriter out("pair");
  save_member(out, "first", Number{1});
  save_member(out, "second", Other{{2}});
  Pair pair;
  EXPECT_THROW(pair.load(ArchiveReader(out.bytes())), ParseError);
}

}  // namespace
}  // namespace quern::test::saving
