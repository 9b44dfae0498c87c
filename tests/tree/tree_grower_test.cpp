// SPDX-License-Identifier: Apache-2.0

#include "quern/tree/tree_grower.hpp"

#include "quern/tree/eigen_dataset.hpp"
#include "quern/tree/exact.hpp"
#include "quern/tree/grow.hpp"
#include "quern/tree/row_reader.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "grow_problem.hpp"

namespace quern::test::tree_grower {
namespace {

using tree::TreeGrower;

/// What every grower promises of its leaves: their nodes ascend, their ranges hold exactly the rows
/// of the sample that reach them.
void expect_leaves(const TreeGrower& grower, const tree::Tree& t, const tree::RowReader& reader,
                   std::int64_t rows) {
  std::vector<int> seen(static_cast<std::size_t>(rows), 0);
  const auto nodes = grower.leaf_nodes();
  ASSERT_EQ(static_cast<std::int64_t>(nodes.size()), t.leaves());
  ASSERT_EQ(grower.leaf_ranges().size(), nodes.size());
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    EXPECT_TRUE(i == 0 || nodes[i - 1] < nodes[i]);
    const auto list = grower.partition().list(grower.leaf_ranges()[i]);
    for (std::int64_t k = 0; k < list.size; ++k) {
      const std::int64_t row = list.index == nullptr ? list.first + k : list.index[k];
      EXPECT_EQ(reader.leaf(t, row), nodes[i]);
      EXPECT_EQ(row % 3 == 0, false);
      ++seen[static_cast<std::size_t>(row)];
    }
  }
  for (std::int64_t row = 0; row < rows; ++row)
    EXPECT_EQ(seen[static_cast<std::size_t>(row)], row % 3 == 0 ? 0 : 1);
}

TEST(TreeGrower, LeavesHoldTheRowsThatReachThem) {
  const grow_problem::Problem p(300, 4, 255, 3);
  const tree::FeatureView x = tree::make_dataset(p.x).features;
  std::vector<std::int32_t> sample;
  for (std::int32_t r = 0; r < 300; ++r)
    if (r % 3 != 0) sample.push_back(r);
  tree::GrowOptions options;
  options.max_depth = 4;
  std::vector<std::unique_ptr<TreeGrower>> growers;
  growers.push_back(std::make_unique<tree::Grower>(p.binned, options));
  growers.push_back(std::make_unique<tree::ExactGrower>(x, options));
  for (const auto& grower : growers) {
    const tree::Tree first = grower->grow(p.gradients, sample, 1);
    expect_leaves(*grower, first, tree::RowReader(x, tree::InputType::float32), 300);
    grower->set_learning_rate(0.6);
    const tree::Tree second = grower->grow(p.gradients, sample, 1);
    ASSERT_EQ(second.size(), first.size());
    for (std::int32_t i = 0; i < first.size(); ++i)
      EXPECT_DOUBLE_EQ(second.node(i).value, 2 * first.node(i).value);
  }
}

}  // namespace
}  // namespace quern::test::tree_grower
