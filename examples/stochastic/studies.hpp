// SPDX-License-Identifier: Apache-2.0

/// \file
/// What the program shows: each study computes, and tells in a section of text, figures and charts.

#ifndef QUERN_EXAMPLES_STOCHASTIC_STUDIES_HPP
#define QUERN_EXAMPLES_STOCHASTIC_STUDIES_HPP

#include "../common/page.hpp"

#include "quern/core/progress.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace studies {

struct Common {
  std::int64_t steps = 20000;
  double noise = 1;
  std::uint64_t seed = 1;
  double level = 0.95;
  quern::ProgressCallback progress;
};

/// Root of a polynomial (coefficients of 1, w, w^2, …) that increases through it, seen through
/// noise.
page::Section root(const Common& common, std::vector<double> coefficients, double start);
/// Running means and variances of given values, or of a made-up stream whose mean moves.
page::Section means(const Common& common, std::vector<double> values, double fading);
/// The best two numbers of a stock-keeping policy, by SPSA and by Kiefer-Wolfowitz.
page::Section simulator(const Common& common);
/// TD(0) on a random walk of `states` states.
page::Section walk(const Common& common, std::int64_t states);
/// Which conditions steps a/(k+A)^alpha meet (and spans c/k^gamma where c > 0).
page::Section check(double a, double alpha, double offset, double c, double gamma);

}  // namespace studies

#endif  // QUERN_EXAMPLES_STOCHASTIC_STUDIES_HPP
