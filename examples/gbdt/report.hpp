// SPDX-License-Identifier: Apache-2.0

/// \file
/// The report: one HTML page that needs nothing else.

#ifndef QUERN_EXAMPLES_GBDT_REPORT_HPP
#define QUERN_EXAMPLES_GBDT_REPORT_HPP

#include "data.hpp"
#include "learner.hpp"
#include "scores.hpp"
#include "settings.hpp"

namespace gbdt {

/// What the page is about.
struct Report {
  const TrainSettings& settings;
  const Data& train;
  const Data& judged;  ///< the test rows, or the training rows where there are none
  bool has_test = false;
  const TrainedRun& run;
  const Scores& scores;
  const quern::NdArray<float, 2>& predictions;  ///< of the judged rows, transformed
  double predict_seconds = 0;
};

/// Writes the page to settings.report_path, replacing an existing one only by a complete one.
void write_report(const Report& report);

}  // namespace gbdt

#endif  // QUERN_EXAMPLES_GBDT_REPORT_HPP
