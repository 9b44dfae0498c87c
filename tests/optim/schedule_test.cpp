// SPDX-License-Identifier: Apache-2.0

#include "quern/optim/schedule.hpp"

#include "quern/core/error.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <fstream>
#include <iterator>
#include <limits>
#include <string>
#include <vector>

namespace quern::test::optim_schedule {
namespace {

using namespace quern::optim;

/// The series of a name in the reference file, a JSON object of arrays.
std::vector<double> series(const std::string& name) {
  std::ifstream in(std::string(QUERN_TEST_REFERENCE_DIR) + "/optim/lr_series_base0.05.json");
  const std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  std::vector<double> values;
  std::size_t at = text.find("\"" + name + "\"");
  if (at == std::string::npos) return values;
  at = text.find('[', at) + 1;
  while (text[at] != ']') {
    std::size_t used = 0;
    values.push_back(std::stod(text.substr(at, 40), &used));
    at = text.find_first_of(",]", at + used);
    if (text[at] == ',') ++at;
  }
  return values;
}

void check(const std::string& name, const RateSchedule& schedule) {
  SCOPED_TRACE(name);
  const std::vector<double> expected = series(name);
  ASSERT_EQ(expected.size(), 20U);
  for (std::size_t s = 0; s < expected.size(); ++s) {
    EXPECT_NEAR(schedule(static_cast<std::int64_t>(s)), expected[s], 1e-12) << "step " << s;
  }
}

TEST(Schedule, SeriesOfTheReference) {
  const double lr = 0.05;
  check("cosine", cosine(lr, 1e-4, 15));
  check("onecycle", one_cycle({.highest = 0.1, .total_steps = 21}));
  check("warmrestart", cosine_restarts(lr, 0, 4, 2));
  check("step", step_decay(lr, 6, 0.5));
  check("exp", exponential(lr, 0.9));
  check("poly", polynomial(lr, 15, 2));
  check("linear", linear(lr, 0.1, 1, 5));
  check("cyclic", cyclic(0.001, 0.1, 4));
  check("multistep", multi_step(lr, {3, 8, 15}, 0.3));
}

TEST(Schedule, Compositions) {
  const RateSchedule warm = warm_up(4, constant(0.2));
  for (int s = 0; s < 6; ++s) EXPECT_DOUBLE_EQ(warm(s), s < 4 ? 0.05 * s : 0.2);
  const RateSchedule two = then(constant(1), 3, exponential(0.5, 0.5));
  EXPECT_EQ(two(2), 1);
  EXPECT_EQ(two(3), 0.5);
  EXPECT_EQ(two(4), 0.25);
  EXPECT_EQ(scaled(2, two)(3), 1);
  EXPECT_DOUBLE_EQ(cosine(1, 0.1, 10, true)(25), 0.1);
  const OneCycle cycle{.total_steps = 21};
  EXPECT_DOUBLE_EQ(cycle.momentum(0), 0.95);
  EXPECT_DOUBLE_EQ(cycle.momentum(20), 0.95);
  EXPECT_NEAR(cycle.momentum(5), 0.85, 0.01);
  EXPECT_DOUBLE_EQ(cosine_restarts(1, 0, 1, 1)((std::numeric_limits<std::int64_t>::max)()), 1);
}

TEST(Schedule, PlateauWaits) {
  Plateau plateau({.lr = 1, .factor = 0.5, .patience = 1, .cooldown = 1, .lowest = 0.3});
  EXPECT_EQ(plateau.observe(10), 1);
  EXPECT_EQ(plateau.observe(9), 1);
  EXPECT_EQ(plateau.observe(9), 1);         // borne
  EXPECT_EQ(plateau.observe(NAN), 0.5);     // no improvement either
  EXPECT_EQ(plateau.observe(9), 0.5);       // cooling
  EXPECT_EQ(plateau.observe(9), 0.5);       // borne
  EXPECT_EQ(plateau.observe(8.9999), 0.3);  // too little
  EXPECT_EQ(plateau.best(), 9);
  Plateau up({.lr = 1, .patience = 0, .maximise = true});
  EXPECT_EQ(up.observe(1), 1);
  EXPECT_EQ(up.observe(2), 1);
  EXPECT_DOUBLE_EQ(up.observe(1.9), 0.1);
  // As PyTorch: no reduction raises a rate, and a relative bar is best (1 - threshold).
  Plateau low({.lr = 0.01, .patience = 0, .lowest = 0.1});
  (void)low.observe(1);
  EXPECT_EQ(low.observe(1), 0.01);
  Plateau below({.lr = 1, .patience = 0, .threshold = 0.1});
  (void)below.observe(-1);
  EXPECT_EQ(below.observe(-0.95), 1);
  EXPECT_EQ(below.best(), -0.95);
}

TEST(Schedule, BadArgumentsAreRefused) {
  EXPECT_THROW((void)constant(-1), ValueError);
  EXPECT_THROW((void)constant(NAN), ValueError);
  EXPECT_THROW((void)cosine(0.1, 0, 0), ValueError);
  EXPECT_THROW((void)step_decay(0.1, 0, 0.5), ValueError);
  EXPECT_THROW((void)one_cycle({.pct_start = 1.5}), ValueError);
  EXPECT_THROW(Plateau({.factor = 1}), ValueError);
  EXPECT_THROW(Plateau({.threshold = NAN}), ValueError);
  EXPECT_THROW(RateSchedule(std::function<double(std::int64_t)>{}), ValueError);
  EXPECT_THROW((void)constant(1)(-1), ValueError);
}

}  // namespace
}  // namespace quern::test::optim_schedule
