// SPDX-License-Identifier: Apache-2.0

/// \file
/// A single tree and eight ensembles, timed and judged on one data set.

#ifndef QUERN_EXAMPLES_ENSEMBLES_METHODS_HPP
#define QUERN_EXAMPLES_ENSEMBLES_METHODS_HPP

#include "data.hpp"

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace ensembles {

struct Result {
  std::string method, made_of;
  double accuracy = 0;  ///< on the test rows
  double fit = 0;       ///< seconds
  double predict = 0;   ///< microseconds a row, all test rows in one call
  double size = 0;      ///< bytes, saved
};

/// Fits every method in turn; \p tell is told of each when it is done.
[[nodiscard]] std::vector<Result> compare(const DataSet& data, std::uint64_t seed,
                                          const std::function<void(const Result&)>& tell);

}  // namespace ensembles

#endif  // QUERN_EXAMPLES_ENSEMBLES_METHODS_HPP
