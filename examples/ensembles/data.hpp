// SPDX-License-Identifier: Apache-2.0

/// \file
/// The data sets, as rows of floats and codes of classes.

#ifndef QUERN_EXAMPLES_ENSEMBLES_DATA_HPP
#define QUERN_EXAMPLES_ENSEMBLES_DATA_HPP

#include "quern/core/nd_array.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace ensembles {

struct Rows {
  quern::NdArray<float, 2> x;
  std::vector<std::int32_t> y;
};

struct DataSet {
  std::string name;
  std::int32_t classes = 0;
  Rows train, test;
};

/// Fashion-MNIST from the folder of its four files; pixels 0..1, the first \p rows train.
[[nodiscard]] DataSet read_fashion_mnist(const std::string& folder, std::int64_t rows);

/// UCI's adult.data: numbers in units of their deviation, texts one column each; \p rows of them
/// at random train, the others test.
[[nodiscard]] DataSet read_adult(const std::string& path, std::int64_t rows);

}  // namespace ensembles

#endif  // QUERN_EXAMPLES_ENSEMBLES_DATA_HPP
