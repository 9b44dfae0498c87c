// SPDX-License-Identifier: Apache-2.0

/// \file
/// Progress: the callback is told, and can cancel.

#include "quern/core/progress.hpp"

#include <gtest/gtest.h>

#include <array>
#include <string>

namespace quern::test::progress {
namespace {

TEST(Progress, NoCallbackIsFine) { EXPECT_NO_THROW(report({}, "f", {.what = "rounds"})); }

TEST(Progress, TellsEverything) {
  const std::array<Metric, 2> metrics = {Metric{"auc", 0.5}, Metric{"loss", 2}};
  std::string seen;
  const ProgressCallback callback = [&](const Progress& p) {
    seen = std::string(p.what) + std::to_string(p.done) + "/" + std::to_string(p.total);
    for (const Metric& m : p.metrics) seen += " " + std::string(m.name);
    return true;
  };
  report(callback, "f", {.what = "rounds", .done = 3, .total = 10, .metrics = metrics});
  EXPECT_EQ(seen, "rounds3/10 auc loss");
}

TEST(Progress, FalseCancels) {
  try {
    report([](const Progress&) { return false; }, "quern::fit",
           {.what = "rounds", .done = 3, .total = 10});
    FAIL();
  } catch (const Cancelled& error) {
    EXPECT_STREQ(error.what(),
                 "quern::fit: cancelled by the progress callback during rounds after 3 of 10");
  }
}

}  // namespace
}  // namespace quern::test::progress
