// SPDX-License-Identifier: Apache-2.0

/// \file
/// What training commands do before they train.

#ifndef QUERN_EXAMPLES_GBDT_PARTS_HPP
#define QUERN_EXAMPLES_GBDT_PARTS_HPP

#include "data.hpp"
#include "settings.hpp"

namespace gbdt {

/// Training rows, and test rows where there are some.
struct Parts {
  Data train;
  Data test;
  bool has_test = false;
};

/// UsageError for settings that cannot be. \p needs_test: early stopping needs test rows.
void check_settings(const TrainSettings& settings, bool needs_test);
/// Reads and prepares the data, says so, and settles objective and classes.
[[nodiscard]] Parts read_parts(TrainSettings& settings);
/// Metrics that people look at, where none are asked for.
void choose_metrics(quern::boosting::Options& options);

}  // namespace gbdt

#endif  // QUERN_EXAMPLES_GBDT_PARTS_HPP
