// SPDX-License-Identifier: Apache-2.0

/// \file
/// The page: tables, charts, pictures, all within one file.

#ifndef QUERN_EXAMPLES_ENSEMBLES_REPORT_HPP
#define QUERN_EXAMPLES_ENSEMBLES_REPORT_HPP

#include "methods.hpp"
#include "why.hpp"

#include <string>
#include <utility>
#include <vector>

namespace ensembles {

struct Report {
  std::vector<std::pair<std::string, std::vector<Result>>> tables;  ///< by data set
  Statistical statistical;
  Computational computational;
  Representational representational;
};

[[nodiscard]] std::string html(const Report& report);

}  // namespace ensembles

#endif  // QUERN_EXAMPLES_ENSEMBLES_REPORT_HPP
