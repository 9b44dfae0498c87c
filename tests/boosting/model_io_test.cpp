// SPDX-License-Identifier: Apache-2.0

/// \file
/// Models through the archive: every bit back, and nothing but models.

#include "quern/boosting/model_io.hpp"
#include "quern/boosting/predictor.hpp"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <random>
#include <span>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "sample_model.hpp"

namespace quern::test::model_io {
namespace {

using boosting::Model;

void expect_equal(const Model& a, const Model& b) {
  EXPECT_EQ(a.objective, b.objective);
  EXPECT_EQ(a.outputs, b.outputs);
  EXPECT_EQ(a.base_margin, b.base_margin);
  EXPECT_EQ(a.tree_outputs, b.tree_outputs);
  EXPECT_EQ(a.tree_weights, b.tree_weights);
  EXPECT_EQ(a.parallel_trees, b.parallel_trees);
  EXPECT_EQ(a.best_round, b.best_round);
  EXPECT_EQ(a.features, b.features);
  EXPECT_EQ(a.input_type, b.input_type);
  EXPECT_EQ(a.feature_names, b.feature_names);
  EXPECT_EQ(a.feature_kinds, b.feature_kinds);
  EXPECT_EQ(a.categories, b.categories);
  // The trees: what is written of each must be the same, to the bit.
  EXPECT_EQ(boosting::model_to_bytes(a), boosting::model_to_bytes(b));
}

TEST(ModelIo, EveryFieldComesBack) {
  Model m = sample_model();
  m.input_type = boosting::InputType::float64;
  m.trees[1].nodes.push_back(tree::Node());  // a place that pruning left
  m.trees[2].outputs = 1;
  const Model back = boosting::model_from_bytes(boosting::model_to_bytes(m));
  expect_equal(m, back);
  ASSERT_EQ(back.trees.size(), 4u);
  EXPECT_EQ(back.trees[3].node(0).threshold, 0.1);
  EXPECT_EQ(back.trees[3].node(2).gain, 1 / 3.0);
  EXPECT_TRUE(back.trees[3].node(0).default_left);
  EXPECT_EQ(back.trees[3].node(0).missing, tree::MissingRule::zero);
  EXPECT_EQ(back.trees[3].category_words, m.trees[3].category_words);
}

TEST(ModelIo, EmptyModelAndVectorLeaves) {
  expect_equal(Model(), boosting::model_from_bytes(boosting::model_to_bytes(Model())));
  Model m = sample_model();
  m.trees[0].outputs = 2;
  m.trees[0].vector_values.assign(10, 0.125);
  expect_equal(m, boosting::model_from_bytes(boosting::model_to_bytes(m)));
}

TEST(ModelIo, SymmetricTreesStaySo) {
  Model m = sample_model();
  m.trees[1] = tree::Tree();
  m.trees[1].split(0);
  m.trees[1].node(0).feature = 1;
  m.trees[1].symmetric = true;
  const Model back = boosting::model_from_bytes(boosting::model_to_bytes(m));
  for (std::size_t t = 0; t < 4; ++t) EXPECT_EQ(back.trees[t].symmetric, t == 1);
  m.trees[0].symmetric = true;  // which it is not
  EXPECT_THROW((void)boosting::model_from_bytes(boosting::model_to_bytes(m)), ParseError);
}

TEST(ModelIo, LinearModelsAndLinearLeavesComeBack) {
  Model m = linear_sample_model();
  expect_equal(m, boosting::model_from_bytes(boosting::model_to_bytes(m)));
  EXPECT_EQ(boosting::model_from_bytes(boosting::model_to_bytes(m)).linear_weights,
            m.linear_weights);
  m = sample_model();
  m.trees[2] = linear_leaf_tree();
  const Model back = boosting::model_from_bytes(boosting::model_to_bytes(m));
  expect_equal(m, back);
  EXPECT_TRUE(back.trees[1].linear.empty());
  EXPECT_EQ(back.trees[2].linear.offsets, m.trees[2].linear.offsets);
  EXPECT_EQ(back.trees[2].linear.features, m.trees[2].linear.features);
  EXPECT_EQ(back.trees[2].linear.coefficients, m.trees[2].linear.coefficients);
  EXPECT_EQ(back.trees[2].linear.constants, m.trees[2].linear.constants);
}

/// What older releases can hold, they can read: only the new parts need the new version.
TEST(ModelIo, OnlyNewPartsNeedTheNewVersion) {
  const auto version = [](const Model& m) {
    return ArchiveReader(boosting::model_to_bytes(m)).version();
  };
  EXPECT_EQ(version(Model()), 1u);
  EXPECT_EQ(version(sample_model()), 2u);  // a rule of missing values
  EXPECT_EQ(version(linear_sample_model()), 2u);
}

TEST(ModelIo, SavedAndLoadedPredictsTheSameBits) {
  const Model m = sample_model();
  const std::string path =
      (std::filesystem::temp_directory_path() / "quern_model_io_test.quern").string();
  boosting::save_model(m, path);
  const boosting::Predictor a(m);
  const boosting::Predictor b(boosting::load_model(path));
  std::filesystem::remove(path);
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> x(300), margins_a(200), margins_b(200);
  for (float& v : x) v = normal(random);
  const tree::FeatureView view = MatrixView<const float>(x.data(), {100, 3});
  a.margins(view, MatrixView<float>(margins_a.data(), {100, 2}));
  b.margins(view, MatrixView<float>(margins_b.data(), {100, 2}));
  EXPECT_EQ(margins_a, margins_b);
}

TEST(ModelIo, RefusesWhatIsCutOrChanged) {
  const std::vector<std::byte> good = boosting::model_to_bytes(sample_model());
  for (std::size_t size = 0; size < good.size(); size += 7) {
    EXPECT_THROW((void)boosting::model_from_bytes(std::span(good).first(size)), ParseError) << size;
  }
  for (std::size_t at = 0; at < good.size(); at += 5) {
    std::vector<std::byte> bad = good;
    bad[at] ^= std::byte{1};
    EXPECT_THROW((void)boosting::model_from_bytes(bad), ParseError) << at;
  }
}

/// Sound archives that hold no sound model.
TEST(ModelIo, RefusesModelsThatAreNone) {
  const auto refused = [](auto change) {
    Model m = sample_model();
    change(m);
    EXPECT_THROW((void)boosting::model_from_bytes(boosting::model_to_bytes(m)), ParseError);
  };
  refused([](Model& m) { m.trees[0].node(0).left = 0; });
  refused([](Model& m) { m.trees[0].node(0).right = 77; });
  refused([](Model& m) { m.trees[0].nodes.clear(); });
  refused([](Model& m) { m.base_margin.clear(); });
  refused([](Model& m) { m.outputs = -1; });
  refused([](Model& m) { m.categories.pop_back(); });
  ArchiveWriter other("something else");
  EXPECT_THROW((void)boosting::model_from_bytes(other.bytes()), ParseError);
  EXPECT_THROW((void)boosting::load_model("/nowhere/at/all"), IoError);
}

}  // namespace
}  // namespace quern::test::model_io
