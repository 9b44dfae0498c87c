// SPDX-License-Identifier: Apache-2.0

/// \file
/// Labels and their codes; a type of the user's own is a learner; what its files must say.

#include "quern/ensemble/learner.hpp"

#include "quern/ensemble/saving.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

namespace quern::test::learner {
namespace {

using namespace quern::ensemble;  // NOLINT: a test's own namespace

/// Predicts the class with the most weight, whatever the features.
struct Majority {
  std::int32_t most = -1;

  void fit(Features, std::span<const std::int32_t> y, std::int32_t classes,
           std::span<const float> weights, std::uint64_t) {
    std::vector<double> sums(static_cast<std::size_t>(classes));
    for (std::size_t i = 0; i < y.size(); ++i)
      sums[static_cast<std::size_t>(y[i])] += ensemble::detail::weight_of(weights, i);
    most = static_cast<std::int32_t>(std::max_element(sums.begin(), sums.end()) - sums.begin());
  }
  void predict(Features, std::span<std::int32_t> out) const {
    std::fill(out.begin(), out.end(), most);
  }

  static std::string_view kind() { return "majority"; }
  void save(ArchiveWriter& out) const { out.scalar("most", most); }
  void load(const ArchiveReader& in) { most = in.scalar<std::int32_t>("most"); }
};
static_assert(Classifier<Majority> && !PredictsProbabilities<Majority> && Saveable<Majority>);
static_assert(!Regressor<Majority> && !Classifier<int>);

TEST(Learner, LabelsHaveCodesInTheirOrder) {
  const ClassLabels labels(std::vector<int>{7, -3, 7, 100});
  EXPECT_EQ(labels.count(), 3);
  EXPECT_EQ(std::vector(labels.classes().codes.begin(), labels.classes().codes.end()),
            (std::vector<std::int32_t>{1, 0, 1, 2}));
  EXPECT_EQ(labels.label(2), 100);
  EXPECT_EQ(labels.encode(std::vector<std::uint8_t>{100, 7}), (std::vector<std::int32_t>{2, 1}));
  EXPECT_THROW((void)labels.encode(std::vector<int>{8}), ValueError);
  EXPECT_THROW((void)labels.label(3), ValueError);
  EXPECT_THROW(ClassLabels(std::vector<int>{}), ValueError);
}

TEST(Learner, LabelsFitTheirType) {
  const std::vector<std::uint64_t> wide = {5, (std::uint64_t{1} << 63) - 1, std::uint64_t{1} << 63};
  EXPECT_THROW(ClassLabels{wide}, ValueError);
  const ClassLabels labels(std::vector<std::uint64_t>{wide[1], 5});
  EXPECT_EQ(labels.label(1), (std::numeric_limits<std::int64_t>::max)());
  const ClassLabels negative(std::vector<std::int64_t>{(std::numeric_limits<std::int64_t>::min)()});
  EXPECT_THROW((void)negative.encode(std::vector<std::uint64_t>{wide[2]}), ValueError);
}

TEST(Learner, PredictsScoresOfItsClasses) {
  const std::vector<float> x = {1, 2, 3};
  const Features rows(x.data(), {3, 1});
  Majority m;
  m.fit(rows, std::vector<std::int32_t>{0, 2, 0}, 3, std::vector<float>{1, 3, 1}, 0);
  EXPECT_EQ(predict_classes(m, rows, 3), (std::vector<std::int32_t>{2, 2, 2}));
  const auto p = ensemble::predict_proba(m, rows, 3);
  EXPECT_EQ(p(1, 2), 1.0f);
  EXPECT_EQ(p(1, 0), 0.0f);
  NdArray<float, 2> more({4, 3});
  EXPECT_THROW(predict_scores(m, rows, more.view()), ShapeError);
  EXPECT_THROW((void)ensemble::predict_proba(m, rows, 2), ShapeError);
}

TEST(Learner, TheLowestOfEqualScoresWins) {
  const std::vector<float> s = {0.2f, 0.4f, 0.4f, 0.5f, 0.0f, 0.5f};
  std::vector<std::int32_t> out(2);
  most_likely(Features(s.data(), {2, 3}), out);
  EXPECT_EQ(out, (std::vector<std::int32_t>{1, 0}));
}

TEST(Learner, ChecksRows) {
  const std::vector<float> x = {1, 2};
  const Features rows(x.data(), {2, 1});
  const auto check = [&](std::vector<float> w, std::size_t targets = 2) {
    ensemble::detail::check_rows("f", rows, targets, w);
  };
  EXPECT_NO_THROW(check({}));
  EXPECT_NO_THROW(check({0, 1}));
  EXPECT_THROW(check({0, 0}), ValueError);
  EXPECT_THROW(check({-1, 2}), ValueError);
  EXPECT_THROW(check({1}), ShapeError);
  EXPECT_THROW(check({}, 3), ShapeError);
  EXPECT_THROW(ensemble::detail::check_rows("f", Features(x.data(), {0, 1}), 0, {}), ShapeError);
  EXPECT_THROW(ensemble::detail::check_rows("f", Features(x.data(), {2, 0}), 2, {}), ShapeError);
}

TEST(Learner, FilesKnowTheirKind) {
  ArchiveWriter out("outer");
  save_member(out, "member", Majority{4});
  const ArchiveReader in(out.bytes());
  Majority back;
  load_member(in, "member", back);
  EXPECT_EQ(back.most, 4);
  EXPECT_THROW(load_member(in, "other", back), ParseError);
}

}  // namespace
}  // namespace quern::test::learner
