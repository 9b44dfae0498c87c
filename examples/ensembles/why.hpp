// SPDX-License-Identifier: Apache-2.0

/// \file
/// Why an ensemble helps: the three reasons of T. G. Dietterich, "Ensemble methods in machine
/// learning", Multiple Classifier Systems 2000, each as an experiment.

#ifndef QUERN_EXAMPLES_ENSEMBLES_WHY_HPP
#define QUERN_EXAMPLES_ENSEMBLES_WHY_HPP

#include <cstdint>
#include <string>
#include <vector>

namespace ensembles {

/// Mean squared error about the true function, split; over many training sets.
struct Split {
  double bias = 0;      ///< squared: the mean prediction against the truth
  double variance = 0;  ///< predictions about their mean
};

/// Statistical: little data fit many trees; their mean errs less. One entry a number of rows.
struct Statistical {
  std::vector<std::int64_t> rows;
  std::vector<Split> single, bagged;
};
[[nodiscard]] Statistical statistical(std::uint64_t seed);

/// Computational: a search by gradient ends in another local minimum from every start.
struct Computational {
  std::vector<double> starts;  ///< accuracies of single networks, ascending
  double together = 0;         ///< accuracy of their mean
};
[[nodiscard]] Computational computational(std::uint64_t seed);

/// Representational: one split is parallel to an axis, a sum of them may follow a diagonal.
struct Representational {
  std::int32_t side = 0;  ///< pixels
  struct Picture {
    std::string title;
    double accuracy = 0;
    std::vector<float> above;  ///< (side, side), from the top left: probability of the class above
  };
  std::vector<Picture> pictures;
};
[[nodiscard]] Representational representational(std::uint64_t seed);

}  // namespace ensembles

#endif  // QUERN_EXAMPLES_ENSEMBLES_WHY_HPP
